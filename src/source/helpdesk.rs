//! What all polled helpdesks are asked. Absent: how they answer (see `seen`), when they are asked, and which of it is an
//! event (see `poll`).

use super::{
    osticket::{Connection, OsTicket},
    redmine::{self, Redmine},
    rest::Client,
    rt::{self, RequestTracker},
    seen::{Changes, HelpdeskError, SeenTicket},
    settings::{Access, Settings},
    zammad::{self, Zammad},
};
use crate::domain::source::Source;

/// A helpdesk that is polled.
pub enum Helpdesk {
    OsTicket(Box<OsTicket>),
    Redmine(Redmine),
    RequestTracker(RequestTracker),
    Zammad(Zammad),
}

impl Helpdesk {
    /// Makes what asks a helpdesk; nothing is asked yet.
    pub fn open(settings: &Settings, source: &Source) -> Result<Self, HelpdeskError> {
        let name = &settings.source;
        Ok(match &settings.access {
            Access::OsTicket { url, table_prefix } => {
                let connection = Connection::new(url, table_prefix)?;
                Self::OsTicket(Box::new(OsTicket::new(connection, source)))
            }
            Access::Rt { url, token } => {
                let client = Client::new(name, url, token, &rt::PRODUCT)?;
                Self::RequestTracker(RequestTracker::new(client, source))
            }
            Access::Zammad { url, token } => {
                let client = Client::new(name, url, token, &zammad::PRODUCT)?;
                Self::Zammad(Zammad::new(client, source))
            }
            Access::Redmine {
                url,
                token,
                phone_field,
            } => {
                let client = Client::new(name, url, token, &redmine::PRODUCT)?;
                Self::Redmine(Redmine::new(client, source, phone_field))
            }
        })
    }

    /// Tickets that changed after `position`, of whatever urgency, open or not; at most some hundred at once. Without a
    /// position, none: only where the helpdesk stands now, taken before anything else is asked.
    pub async fn changes(&self, position: Option<&str>) -> Result<Changes, HelpdeskError> {
        match self {
            Self::OsTicket(osticket) => osticket.changes(position).await,
            Self::Redmine(redmine) => redmine.changes(position).await,
            Self::RequestTracker(rt) => rt.changes(position).await,
            Self::Zammad(zammad) => zammad.changes(position).await,
        }
    }

    /// All open tickets whose urgency is one of `critical` (as configured: words, numbers, or ranges like `>= 80`).
    pub async fn critical(&self) -> Result<Vec<SeenTicket>, HelpdeskError> {
        match self {
            Self::OsTicket(osticket) => osticket.critical().await,
            Self::Redmine(redmine) => redmine.critical().await,
            Self::RequestTracker(rt) => rt.critical().await,
            Self::Zammad(zammad) => zammad.critical().await,
        }
    }

    /// These tickets as they are now; those that are gone are left out.
    pub async fn tickets(&self, ids: &[String]) -> Result<Vec<SeenTicket>, HelpdeskError> {
        match self {
            Self::OsTicket(osticket) => osticket.tickets(ids).await,
            Self::Redmine(redmine) => redmine.tickets(ids).await,
            Self::RequestTracker(rt) => rt.tickets(ids).await,
            Self::Zammad(zammad) => zammad.tickets(ids).await,
        }
    }
}
