//! A helpdesk as the configuration has it, and how what it says becomes an event. Absent: asking it (see `source`), and what
//! becomes of the event (see `intake`).

use super::{
    event::{self, Event, Meaning, Recipient},
    json::Fault,
    mapping::{Mapped, Mapping},
    phone::Region,
    urgency::{Level, Urgencies},
    verifier::Verifier,
};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;
use std::collections::BTreeMap;
use url::Url;

/// What of an event must be right. Anything else that is wrong in a helpdesk's own document is left out: nobody there reads
/// an answer, and a ticket must not be missed for a link.
const NEEDED: [&str; 4] = ["/ticket/id", "/ticket/subject", "/ticket/urgency", "/source"];
/// In which headers helpdesks name a delivery, which stays the same when they repeat it (facts/helpdesks.md, 5.2).
const DELIVERY_HEADERS: [&str; 5] = [
    "webhook-id",
    "x-zammad-delivery",
    "x-zendesk-webhook-invocation-id",
    "x-atlassian-webhook-identifier",
    "ce-id",
];

/// Which helpdesk it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// One that sends our own form.
    #[default]
    Native,
    /// One that sends a form of its own.
    Webhook,
    OsTicket,
    Rt,
    Zammad,
    Redmine,
}

impl Kind {
    pub const ALL: [(&'static str, Self); 6] = [
        ("native", Self::Native),
        ("webhook", Self::Webhook),
        ("osticket", Self::OsTicket),
        ("rt", Self::Rt),
        ("zammad", Self::Zammad),
        ("redmine", Self::Redmine),
    ];

    /// Whether Nightbell can ask helpdesks of this kind.
    pub fn is_polled(self) -> bool {
        match self {
            Self::Native | Self::Webhook => false,
            Self::OsTicket | Self::Rt | Self::Zammad | Self::Redmine => true,
        }
    }

    pub fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, kind)| *kind == self);
        found.map_or("native", |(name, _)| name)
    }
}

/// One helpdesk.
#[derive(Clone)]
pub struct Source {
    pub kind: Kind,
    /// Where admins see its tickets.
    pub base_url: Option<Url>,
    /// Tokens that may speak for this source only.
    pub tokens: Vec<SecretString>,
    /// Checks the signatures of its webhooks; without one a token is needed.
    pub verifier: Option<Verifier>,
    /// Whether it may ask for a proof that we have the secret.
    pub answers_challenges: bool,
    /// In which header it names a delivery, beside those that are known.
    pub delivery_header: Option<String>,
    /// How its documents become events; empty if they are events.
    pub mapping: Mapping,
    /// What its words for urgency mean.
    pub urgencies: Urgencies,
    /// For phone numbers that bring no country of their own.
    pub region: Region,
    /// Who is told when an event names nobody with a usable number.
    pub fallback_recipients: Vec<Recipient>,
    pub later_recipients: LaterRecipients,
    /// How many messages its tickets may cost in one local day, beside the limit of all; `None` for no limit of its own.
    pub daily_limit: Option<i64>,
    /// Whether it is asked for its tickets, beside what it says by itself.
    pub is_polled: bool,
}

/// The daily limits of sources that have one, by name.
pub type SourceLimits = BTreeMap<String, i64>;

/// What a later critical event may add to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaterRecipients {
    /// Its people, but only if nobody was told so far.
    Untold,
    /// Each newly named number of an open alert, once.
    Each,
}

/// What a helpdesk's document became.
#[derive(Debug)]
pub struct Reading {
    pub event: Event,
    /// The event as JSON, to look at.
    pub document: Value,
    /// Of a document with a mapping: what was found where.
    pub mapped: Option<Mapped>,
    /// The urgency in the helpdesk's own word.
    pub raw_urgency: Option<String>,
    /// What was left out since it could not be read.
    pub left_out: Vec<Fault>,
}

impl Source {
    /// Reads a helpdesk's own document, in the name of its source. Returns every fault at once.
    pub fn read(&self, name: &str, document: &Value, received_at: Timestamp) -> Result<Reading, Vec<Fault>> {
        if self.mapping.is_empty() {
            return self.read_event(name, document.clone(), received_at, false);
        }
        let mapped = self.mapping.apply(document);
        let faults = mapped.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        match self.read_event(name, mapped.event.clone(), received_at, true) {
            Ok(reading) => Ok(Reading {
                mapped: Some(mapped),
                ..reading
            }),
            // Where it should have stood in the helpdesk's document says more than where it is missing in the event.
            Err(faults) => Err(faults
                .into_iter()
                .map(|fault| {
                    let field = fault.pointer.trim_start_matches('/').replace('/', ".");
                    mapped.explain(&field).unwrap_or(fault)
                })
                .collect()),
        }
    }

    /// Reads an event whose urgency is the helpdesk's own word. What it can do without is left out where it is wrong, if
    /// that is `lenient`.
    pub fn read_event(
        &self,
        name: &str,
        mut document: Value,
        received_at: Timestamp,
        lenient: bool,
    ) -> Result<Reading, Vec<Fault>> {
        if let Some(other) = document.get("source").and_then(Value::as_str)
            && other != name
        {
            return Err(vec![Fault {
                pointer: "/source".into(),
                detail: format!(
                    "this address is that of the source `{name}`: leave `source` out, or use the other's address"
                ),
            }]);
        }
        if let Some(event) = document.as_object_mut() {
            event.insert("source".into(), name.into());
        }
        let raw_urgency = self.translate(&mut document);
        let mut left_out = Vec::new();
        let event = loop {
            match event::parse(&document, received_at) {
                Ok(event) => break event,
                Err(faults) => {
                    let is_needed = |fault: &Fault| NEEDED.contains(&fault.pointer.as_str());
                    if !lenient || faults.iter().any(is_needed) || !remove(&mut document, &faults) {
                        return Err(faults);
                    }
                    left_out.extend(faults);
                }
            }
        };
        Ok(Reading {
            event,
            document,
            mapped: None,
            raw_urgency,
            left_out,
        })
    }

    /// Puts Nightbell's word for the helpdesk's own, which is returned. One that nobody has explained stays.
    fn translate(&self, document: &mut Value) -> Option<String> {
        let urgency = document.pointer_mut("/ticket/urgency")?;
        let raw = match &*urgency {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let word = self.urgencies.level(&raw).map(Level::as_str);
        *urgency = word.unwrap_or(&raw).into();
        Some(raw)
    }

    /// What an urgency that came in our own form means by the table of the source.
    pub fn meaning(&self, meaning: &Meaning) -> Meaning {
        let Meaning::UnknownUrgency(word) = meaning else {
            return meaning.clone();
        };
        match self.urgencies.level(word) {
            Some(Level::Critical) => Meaning::Critical,
            Some(Level::High | Level::Normal | Level::Low) => Meaning::Lower,
            None => meaning.clone(),
        }
    }

    /// Whether it is set up to say by itself what happens.
    pub fn has_webhook(&self) -> bool {
        self.verifier.is_some() || !self.tokens.is_empty()
    }

    /// The headers that may name a delivery, the source's own first.
    pub fn delivery_headers(&self) -> impl Iterator<Item = &str> {
        self.delivery_header.as_deref().into_iter().chain(DELIVERY_HEADERS)
    }
}

/// Takes what is wrong out of a document; false if nothing of it is there.
fn remove(document: &mut Value, faults: &[Fault]) -> bool {
    let mut has_removed = false;
    for fault in faults {
        let Some((parent, member)) = fault.pointer.rsplit_once('/') else {
            continue;
        };
        match document.pointer_mut(parent) {
            Some(Value::Object(object)) => has_removed |= object.remove(member).is_some(),
            Some(Value::Array(items)) => {
                // The others keep their places, which other faults may name.
                if let Some(item) = member.parse().ok().and_then(|place: usize| items.get_mut(place)) {
                    has_removed |= !item.is_null();
                    *item = Value::Object(serde_json::Map::new());
                }
            }
            _ => {}
        }
    }
    has_removed
}
