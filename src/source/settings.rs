//! What polling a helpdesk needs: `sources.<name>.url` and those beside it. Absent: what every source has (see
//! `config::sources`).

use super::osticket;
use crate::{
    config::Reader,
    domain::{
        lifecycle::{EventType, EventTypes},
        source::{Kind, Source},
    },
};
use jiff::SignedDuration;
use secrecy::SecretString;
use url::Url;

/// Shorter would be all that a helpdesk does, longer too late for anybody.
const SHORTEST: SignedDuration = SignedDuration::from_millis(100);
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// What is noted on tickets where it is not said.
const NOTED: [EventType; 3] = [
    EventType::AlertSettled,
    EventType::AlertAcknowledged,
    EventType::MessageReceived,
];
/// They are about a number, and belong to no ticket.
const NOT_OF_TICKETS: [EventType; 2] = [EventType::OptOutCreated, EventType::OptOutRemoved];

/// How a helpdesk is reached.
#[derive(Clone)]
pub enum Access {
    /// Its database, with a user who may only read.
    OsTicket {
        url: SecretString,
        table_prefix: String,
    },
    Rt {
        url: Url,
        token: SecretString,
    },
    Zammad {
        url: Url,
        token: SecretString,
    },
    Redmine {
        url: Url,
        token: SecretString,
        /// The custom field of users that holds their number.
        phone_field: String,
    },
}

/// What polling one helpdesk needs.
#[derive(Clone)]
pub struct Settings {
    pub source: String,
    pub access: Access,
    /// How often it is asked for what changed.
    pub every: SignedDuration,
    /// How often all its critical tickets are looked at.
    pub sweep_every: SignedDuration,
    /// What is noted on a ticket.
    pub write_back: EventTypes,
    /// Whether tickets that are critical when it is asked first are alerted on.
    pub alerts_at_first: bool,
}

impl Settings {
    /// Reads what is there of a source; `None` if it is not polled, or not well enough described.
    pub fn read(reader: &mut Reader, name: &str, source: &Source) -> Option<Self> {
        let key = |member: &str| format!("sources.{name}.{member}");
        if !source.kind.is_polled() {
            return None;
        }
        let access = Self::read_access(reader, name, source.kind);
        let every = reader.duration(&key("poll_every"), "15s", SHORTEST, LONGEST);
        let sweep_every = reader.duration(&key("sweep_every"), "5m", SHORTEST, LONGEST * 24);
        let alerts_at_first = reader.choice(&key("at_first"), "leave", &[("leave", false), ("alert", true)]);
        let write_back = read_write_back(reader, &key("write_back"));
        if !write_back.is_empty() && source.kind == Kind::OsTicket {
            reader.fault(
                &key("write_back"),
                "cannot be done for osTicket, which takes no notes from outside and whose tables are only read: leave it out",
            );
        }
        Some(Self {
            write_back,
            source: name.to_owned(),
            access: access?,
            every,
            sweep_every,
            alerts_at_first,
        })
    }

    /// The name of the endpoint that writes notes on its tickets.
    pub fn notes_endpoint(&self) -> String {
        format!("ticket-{}", self.source)
    }

    /// The address of osTicket's database, and what its tables begin with.
    pub fn osticket_database(&self) -> Option<(&SecretString, &str)> {
        match &self.access {
            Access::OsTicket { url, table_prefix } => Some((url, table_prefix)),
            Access::Rt { .. } | Access::Zammad { .. } | Access::Redmine { .. } => None,
        }
    }

    fn read_access(reader: &mut Reader, name: &str, kind: Kind) -> Option<Access> {
        let key = |member: &str| format!("sources.{name}.{member}");
        let (url_key, token_key) = (key("url"), key("token"));
        if kind == Kind::OsTicket {
            let url = reader.database_address(&url_key);
            let table_prefix = reader.parsed_with(
                &key("table_prefix"),
                "ost_",
                "letters, digits and `_` like `ost_`",
                |text| {
                    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                    is_plain.then(|| text.to_owned())
                },
            );
            let url = url?;
            if let Err(wrong) = osticket::Connection::new(&url, &table_prefix) {
                reader.fault_secret(&key(wrong.name), &wrong.problem);
                return None;
            }
            return Some(Access::OsTicket { url, table_prefix });
        }
        let url = reader.optional(
            &url_key,
            "the helpdesk's web address like `https://help.example.com`",
            Reader::web_url,
        );
        let token = reader.secret(&token_key);
        let phone_field = (kind == Kind::Redmine).then(|| reader.parsed(&key("phone_field"), "Mobile", "a name"));
        let url = url?;
        let Some(token) = token else {
            reader.fault(
                &token_key,
                "is not set, and `url` is: set a token of the helpdesk's that may read its tickets and users",
            );
            return None;
        };
        match kind {
            Kind::Rt => Some(Access::Rt { url, token }),
            Kind::Zammad => Some(Access::Zammad { url, token }),
            Kind::Redmine => Some(Access::Redmine {
                url,
                token,
                phone_field: phone_field?,
            }),
            Kind::Native | Kind::Webhook | Kind::OsTicket => None,
        }
    }
}

/// `true`, `false`, or types of events.
fn read_write_back(reader: &mut Reader, key: &str) -> EventTypes {
    let text = reader.joined(key).unwrap_or_default();
    let outside: EventTypes = NOT_OF_TICKETS.into_iter().collect();
    let mut noted = EventTypes::default();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let named = match word {
            "true" => Some(NOTED.into_iter().collect()),
            "false" => continue,
            word => EventTypes::named(word).map(|types| EventTypes::from_bits(types.bits() & !outside.bits())),
        };
        match named.filter(|types| !types.is_empty()) {
            Some(types) => noted = noted.union(types),
            None => {
                let problem = "is neither `true` nor `false` nor a list of events of tickets like `alert.settled`, `delivery.failed` or `alert.*`";
                reader.fault(key, problem);
                return EventTypes::default();
            }
        }
    }
    noted
}
