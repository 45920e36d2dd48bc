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

    /// Writes a note on a ticket that only its staff can read.
    pub async fn note(&self, ticket_id: &str, text: &str) -> Result<(), HelpdeskError> {
        match self {
            // Its API can only create tickets, and its tables are read with a user who may not write.
            Self::OsTicket(_) => Err(HelpdeskError::new("osTicket takes no notes from outside")),
            Self::Redmine(redmine) => redmine.note(ticket_id, text).await,
            Self::RequestTracker(rt) => rt.note(ticket_id, text).await,
            Self::Zammad(zammad) => zammad.note(ticket_id, text).await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Reader, read_sources},
        domain::phone::Region,
        source::rest::tests::listening,
    };
    use jiff::SignedDuration;
    use url::Url;

    fn open(access: Access) -> Helpdesk {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sources = read_sources(&mut Reader::with(&[]), Region::parse("US").unwrap());
        let settings = Settings {
            source: "acme".into(),
            access,
            every: SignedDuration::from_secs(15),
            sweep_every: SignedDuration::from_mins(5),
            write_back: Default::default(),
            alerts_at_first: false,
        };
        Helpdesk::open(&settings, &sources["default"]).unwrap()
    }

    /// The form was tried on a real Request Tracker 5.0.3; Zammad's is that of its documentation.
    #[tokio::test]
    async fn a_note_is_one_that_customers_do_not_see() {
        let token = || "secret".to_owned().into();
        let rt = |url: Url| Access::Rt { url, token: token() };
        let zammad = |url: Url| Access::Zammad { url, token: token() };
        type Make<'a> = &'a dyn Fn(Url) -> Access;
        let cases: [(Make, &str, &str); 2] = [
            (
                &rt,
                "POST /help/REST/2.0/ticket/12/comment",
                r#"{"Content":"Everyone was reached","ContentType":"text/plain"}"#,
            ),
            (&zammad, "POST /help/api/v1/ticket_articles", r#""internal":true"#),
        ];
        for (make, wanted, body) in cases {
            let (url, heard) = listening("HTTP/1.1 201 Yes\r\n\r\n").await;

            open(make(url)).note("12", "Everyone was reached").await.unwrap();

            let heard = heard.lock().unwrap();
            assert!(heard.starts_with(wanted) && heard.contains(body), "{heard}");
        }
        let (url, heard) = listening("HTTP/1.1 201 Yes\r\n\r\n").await;
        open(rt(url)).note("12/../34", "x").await.unwrap_err();
        assert_eq!(*heard.lock().unwrap(), "");
    }
}
