//! What becomes of alerts, as others hear of it: the types of lifecycle events, and what each says. Absent: writing them down
//! (see `store::lifecycle`), and posting them (see `notify`).

use super::{delivery::State, phone, words::words};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

words! {
    /// What happened.
    EventType {
        AlertCreated = "alert.created",
        AlertAcknowledged = "alert.acknowledged",
        AlertClosed = "alert.closed",
        /// No message of the alert is on its way any more: it is known who was reached.
        AlertSettled = "alert.settled",
        DeliverySent = "delivery.sent",
        DeliveryDelivered = "delivery.delivered",
        /// The carrier did not deliver it, or it could not be sent at all.
        DeliveryFailed = "delivery.failed",
        DeliveryUnconfirmed = "delivery.unconfirmed",
        DeliverySuppressed = "delivery.suppressed",
        DeliveryDeferred = "delivery.deferred",
        DeliveryExpired = "delivery.expired",
        /// A person sent us a message.
        MessageReceived = "message.received",
        OptOutCreated = "opt_out.created",
        OptOutRemoved = "opt_out.removed",
        AlarmRaised = "alarm.raised",
        /// Only when an endpoint is tried.
        Test = "test",
    }
}

impl EventType {
    /// What the move of a delivery into this state is to others; `None` where it is nobody's business.
    pub fn of_move(state: State) -> Option<Self> {
        match state {
            State::Sent => Some(Self::DeliverySent),
            State::Delivered => Some(Self::DeliveryDelivered),
            State::Undelivered | State::Failed => Some(Self::DeliveryFailed),
            State::Unconfirmed => Some(Self::DeliveryUnconfirmed),
            State::Suppressed => Some(Self::DeliverySuppressed),
            State::Deferred => Some(Self::DeliveryDeferred),
            State::Expired => Some(Self::DeliveryExpired),
            State::Pending | State::Sending | State::Unknown | State::Accepted | State::Canceled => None,
        }
    }
}

/// A set of types: those that anybody wants to hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTypes(u32);

impl EventTypes {
    pub fn contains(self, kind: EventType) -> bool {
        self.0 & (1 << kind as u32) != 0
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What a word of the configuration stands for: one type, all of a subject (`alert.*`), or all there are (`*`); but for
    /// `test`, which comes only when somebody asks for it. `None` if there is no such type.
    pub fn named(word: &str) -> Option<Self> {
        let subject = word.strip_suffix('*');
        let is_meant = |kind: &&EventType| match subject {
            Some(subject) if subject.is_empty() || subject.ends_with('.') => kind.as_str().starts_with(subject),
            _ => kind.as_str() == word,
        };
        let meant = EventType::ALL.iter().filter(|kind| **kind != EventType::Test);
        Some(meant.filter(is_meant).copied().collect()).filter(|types: &Self| types.0 != 0)
    }

    /// As a number, and back.
    pub fn bits(self) -> u32 {
        self.0
    }

    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl FromIterator<EventType> for EventTypes {
    fn from_iter<I: IntoIterator<Item = EventType>>(types: I) -> Self {
        Self(types.into_iter().fold(0, |bits, kind| bits | 1 << kind as u32))
    }
}

/// A lifecycle event with everything that its receivers may be told: as it stands in the database when it is posted, since
/// nothing but `data` changes what happened. What was stripped meanwhile is `None`.
#[derive(Clone, Debug)]
pub struct LifecycleEvent {
    /// What receivers know it by: the same however often it is posted.
    pub id: String,
    pub kind: EventType,
    pub at: Timestamp,
    pub source: Option<String>,
    pub alert: Option<AlertFacts>,
    pub delivery: Option<DeliveryFacts>,
    pub message: Option<MessageFacts>,
    /// In E.164, of an opt-out.
    pub phone: Option<String>,
    /// What happened, as its transaction knew it.
    pub data: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub struct AlertFacts {
    pub id: String,
    pub ticket_id: String,
    pub ticket_number: Option<String>,
    pub subject: Option<String>,
    pub url: Option<String>,
    pub client: Option<String>,
    pub organisation: Option<String>,
    pub acknowledged_at: Option<Timestamp>,
    /// `sms`, `link` ….
    pub acknowledged_via: Option<String>,
    pub acknowledged_by: Option<String>,
}

#[derive(Clone, Debug)]
pub struct DeliveryFacts {
    pub id: String,
    pub channel: String,
    pub staff_id: Option<String>,
    pub role: Option<String>,
    pub name: Option<String>,
    /// In E.164.
    pub phone: Option<String>,
}

/// A message that a person sent us.
#[derive(Clone, Debug)]
pub struct MessageFacts {
    pub id: String,
    /// `reply`, `acknowledge` ….
    pub kind: String,
    pub outcome: String,
    pub text: Option<String>,
    /// In E.164.
    pub from: Option<String>,
    /// How many attachments, and of which types.
    pub media: Option<Value>,
}

impl LifecycleEvent {
    /// What is posted, in the form of Standard Webhooks: `type`, `timestamp`, `data`. Names, numbers in full, texts, and what
    /// the ticket is about only with `personal`.
    pub fn payload(&self, personal: bool) -> Value {
        let mut data = Map::new();
        if let Some(source) = &self.source {
            data.insert("source".into(), json!(source));
        }
        if let Some(alert) = &self.alert {
            data.insert("alert".into(), alert.shown(personal));
        }
        if let Some(delivery) = &self.delivery {
            data.insert("delivery".into(), delivery.shown(personal));
        }
        if let Some(message) = &self.message {
            data.insert("message".into(), message.shown(personal));
        }
        if let Some(e164) = &self.phone {
            data.insert("opt_out".into(), json!({ "phone": number(e164, personal) }));
        }
        let about = match self.kind {
            EventType::AlertCreated
            | EventType::AlertAcknowledged
            | EventType::AlertClosed
            | EventType::AlertSettled => "alert",
            EventType::DeliverySent
            | EventType::DeliveryDelivered
            | EventType::DeliveryFailed
            | EventType::DeliveryUnconfirmed
            | EventType::DeliverySuppressed
            | EventType::DeliveryDeferred
            | EventType::DeliveryExpired => "delivery",
            EventType::MessageReceived => "message",
            EventType::OptOutCreated | EventType::OptOutRemoved => "opt_out",
            EventType::AlarmRaised => "alarm",
            EventType::Test => "test",
        };
        if let Value::Object(members) = data.entry(about).or_insert_with(|| json!({})) {
            members.extend(self.data.clone());
        }
        json!({ "type": self.kind, "timestamp": self.at, "data": data })
    }
}

fn number(e164: &str, personal: bool) -> String {
    if personal { e164.to_owned() } else { phone::mask(e164) }
}

impl AlertFacts {
    fn shown(&self, personal: bool) -> Value {
        let mut shown = json!({
            "id": self.id,
            "ticket_id": self.ticket_id,
            "ticket_number": self.ticket_number,
            "url": self.url,
            "acknowledged_at": self.acknowledged_at,
            "acknowledged_via": self.acknowledged_via,
        });
        if personal {
            shown["acknowledged_by"] = json!(self.acknowledged_by);
            shown["subject"] = json!(self.subject);
            shown["client"] = json!({ "name": self.client, "organisation": self.organisation });
        }
        shown
    }
}

impl DeliveryFacts {
    fn shown(&self, personal: bool) -> Value {
        let mut recipient = json!({ "staff_id": self.staff_id, "role": self.role });
        if personal {
            recipient["name"] = json!(self.name);
        }
        let phone = self.phone.as_deref().map(|e164| number(e164, personal));
        json!({ "id": self.id, "channel": self.channel, "recipient": recipient, "phone": phone })
    }
}

impl MessageFacts {
    fn shown(&self, personal: bool) -> Value {
        let from = self.from.as_deref().map(|e164| number(e164, personal));
        let mut shown = json!({
            "id": self.id, "kind": self.kind, "outcome": self.outcome, "from": from, "media": self.media,
        });
        if personal {
            shown["text"] = json!(self.text);
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_data_is_posted_only_where_it_is_wanted() {
        let event = LifecycleEvent {
            id: "e1".into(),
            kind: EventType::DeliveryFailed,
            at: "2026-11-22T03:00:00Z".parse().unwrap(),
            source: Some("acme".into()),
            alert: Some(AlertFacts {
                id: "a1".into(),
                ticket_id: "3".into(),
                ticket_number: None,
                subject: Some("Checkout".into()),
                url: None,
                client: Some("Bo Client".into()),
                organisation: None,
                acknowledged_at: Some("2026-11-22T02:59:00Z".parse().unwrap()),
                acknowledged_via: Some("sms".into()),
                acknowledged_by: Some("Mona Meyer".into()),
            }),
            delivery: Some(DeliveryFacts {
                id: "d1".into(),
                channel: "sms".into(),
                staff_id: Some("2".into()),
                role: None,
                name: Some("Grace Hopper".into()),
                phone: Some("+14155550101".into()),
            }),
            message: None,
            phone: None,
            data: json!({ "state": "failed" }).as_object().cloned().unwrap(),
        };

        let (plain, personal) = (event.payload(false), event.payload(true));

        assert_eq!(plain["type"], "delivery.failed");
        assert_eq!(plain["data"]["delivery"]["state"], "failed");
        assert_eq!(plain["data"]["delivery"]["recipient"]["staff_id"], "2");
        assert_eq!(plain["data"]["alert"]["acknowledged_via"], "sms");
        for word in ["Checkout", "Bo Client", "Grace", "4155550101", "Mona"] {
            assert!(!plain.to_string().contains(word), "{plain}");
            assert!(personal.to_string().contains(word), "{personal}");
        }
    }

    #[test]
    fn a_word_stands_for_one_type_or_for_several() {
        let named = |word: &str| {
            let types = EventTypes::named(word)?;
            Some(EventType::ALL.iter().filter(|kind| types.contains(**kind)).count())
        };

        assert_eq!(named("*"), Some(EventType::ALL.len() - 1));
        assert_eq!((named("alert.*"), named("alert.settled")), (Some(4), Some(1)));
        for word in ["test", "alert", "alert*", "al*", "", "*.created", "alert.", "ALERT.*"] {
            assert_eq!(named(word), None, "{word}");
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let set: EventTypes = [EventType::AlertCreated, EventType::AlarmRaised].into_iter().collect();

        for kind in EventType::ALL {
            let is_in = matches!(kind, EventType::AlertCreated | EventType::AlarmRaised);
            assert_eq!(set.contains(*kind), is_in, "{kind}");
        }
        assert_ne!(set, EventTypes::default());
        assert_eq!(EventTypes::from_bits(set.bits()), set);
    }
}
