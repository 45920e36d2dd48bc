//! What helpdesks that are polled answer. Absent: how each is asked.

use serde_json::Value;

/// A ticket as its helpdesk has it now.
#[derive(Clone, Debug)]
pub struct SeenTicket {
    /// The helpdesk's own id of it, as webhooks name it too: a ticket has one alert, whoever tells of it.
    pub id: String,
    /// Whether somebody still has to work on it.
    pub is_open: bool,
    /// Its urgency in the helpdesk's own word or number.
    pub urgency: String,
    /// The rest of an event (product, section 2) as far as the helpdesk knows it: `ticket` without `id` and `urgency`,
    /// `client`, `recipients`, `occurred_at`.
    pub event: Value,
}

/// What has changed.
#[derive(Debug)]
pub struct Changes {
    /// The oldest change first; a ticket may stand here again although nothing has changed.
    pub tickets: Vec<SeenTicket>,
    /// After which nothing was seen yet: to be kept, and handed in next time.
    pub position: String,
    /// Whether more waits to be read at once.
    pub has_more: bool,
}

/// Why a helpdesk could not be asked, for a log and for admins: what, which value, what to do. Holds no secret and nothing
/// of a ticket. It is asked again later in every case.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HelpdeskError(pub String, About);

/// Whether the helpdesk itself is in trouble, or only this ticket is none that it takes a note on.
#[derive(Debug, PartialEq, Eq)]
enum About {
    Helpdesk,
    Ticket,
}

impl HelpdeskError {
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into(), About::Helpdesk)
    }

    pub fn of_ticket(why: impl Into<String>) -> Self {
        Self(why.into(), About::Ticket)
    }

    pub fn is_of_ticket(&self) -> bool {
        self.1 == About::Ticket
    }
}
