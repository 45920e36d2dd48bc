//! What all polled helpdesks are asked. Absent: how they answer (see `seen`), when they are asked, and which of it is an
//! event (see `poll`).

use super::{
    osticket::{Connection, OsTicket},
    seen::{Changes, HelpdeskError, SeenTicket},
    settings::{Access, Settings},
};
use crate::domain::source::Source;

/// A helpdesk that is polled.
pub enum Helpdesk {
    OsTicket(OsTicket),
}

impl Helpdesk {
    /// Makes what asks a helpdesk; nothing is asked yet. `None` if nobody knows how.
    pub fn open(settings: &Settings, source: &Source) -> Result<Option<Self>, HelpdeskError> {
        Ok(Some(match &settings.access {
            Access::OsTicket { url, table_prefix } => {
                let connection = Connection::new(url, table_prefix)?;
                Self::OsTicket(OsTicket::new(connection, source))
            }
            Access::Rt { .. } | Access::Zammad { .. } | Access::Redmine { .. } => return Ok(None),
        }))
    }

    /// Tickets that changed after `position`, of whatever urgency, open or not; at most some hundred at once. Without a
    /// position, none: only where the helpdesk stands now, taken before anything else is asked.
    pub async fn changes(&self, position: Option<&str>) -> Result<Changes, HelpdeskError> {
        match self {
            Self::OsTicket(osticket) => osticket.changes(position).await,
        }
    }

    /// All open tickets whose urgency is one of `critical` (as configured: words, numbers, or ranges like `>= 80`).
    pub async fn critical(&self) -> Result<Vec<SeenTicket>, HelpdeskError> {
        match self {
            Self::OsTicket(osticket) => osticket.critical().await,
        }
    }

    /// These tickets as they are now; those that are gone are left out.
    pub async fn tickets(&self, ids: &[String]) -> Result<Vec<SeenTicket>, HelpdeskError> {
        match self {
            Self::OsTicket(osticket) => osticket.tickets(ids).await,
        }
    }
}
