//! What all polled helpdesks are asked, and how they answer. Absent: when they are asked, and which of it is an event (see
//! `poll`).

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
pub struct HelpdeskError(pub String);

/// A helpdesk that is polled.
pub enum Helpdesk {
    Redmine(Redmine),
    RequestTracker(RequestTracker),
    Zammad(Zammad),
}

impl Helpdesk {
    /// Tickets that changed after `position`, of whatever urgency, open or not; at most some hundred at once. Without a
    /// position, none: only where the helpdesk stands now, taken before anything else is asked.
    pub async fn changes(&self, position: Option<&str>) -> Result<Changes, HelpdeskError> {
        match self {
            Self::Redmine(redmine) => redmine.changes(position).await,
            Self::RequestTracker(rt) => rt.changes(position).await,
            Self::Zammad(zammad) => zammad.changes(position).await,
        }
    }

    /// All open tickets whose urgency is one of `critical` (as configured: words, numbers, or ranges like `>= 80`).
    pub async fn critical(&self) -> Result<Vec<SeenTicket>, HelpdeskError> {
        match self {
            Self::Redmine(redmine) => redmine.critical().await,
            Self::RequestTracker(rt) => rt.critical().await,
            Self::Zammad(zammad) => zammad.critical().await,
        }
    }

    /// These tickets as they are now; those that are gone are left out.
    pub async fn tickets(&self, ids: &[String]) -> Result<Vec<SeenTicket>, HelpdeskError> {
        match self {
            Self::Redmine(redmine) => redmine.tickets(ids).await,
            Self::RequestTracker(rt) => rt.tickets(ids).await,
            Self::Zammad(zammad) => zammad.tickets(ids).await,
        }
    }
}
