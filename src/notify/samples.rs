//! An event of every type, with everything and with nothing that it can have, on which templates are tried before they are
//! used. Full of what breaks texts that are not escaped.

use crate::domain::lifecycle::{AlertFacts, DeliveryFacts, EventType, LifecycleEvent, MessageFacts};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What a template may meet: of each type one event with all there can be, and one with as little.
pub fn all() -> impl Iterator<Item = LifecycleEvent> {
    EventType::ALL.iter().flat_map(|kind| [full(*kind), bare(*kind)])
}

/// One with everything.
pub fn full(kind: EventType) -> LifecycleEvent {
    let alert = AlertFacts {
        id: "019aa0f0-0000-7000-8000-000000000001".into(),
        ticket_id: "3/4?5".into(),
        ticket_number: Some("108749".into()),
        subject: Some("Checkout \"500\" \\ <!channel> & {{ 7 * 7 }}\n*page* @all".into()),
        url: Some("https://tickets.example.com/scp/tickets.php?number=108749&a=\"b\"".into()),
        client: Some("Bo Client".into()),
        organisation: Some("Acme Corp".into()),
        acknowledged_at: Some(Timestamp::UNIX_EPOCH),
        acknowledged_via: Some("sms".to_owned()),
        acknowledged_by: Some("Grace Hopper".to_owned()),
    };
    let delivery = DeliveryFacts {
        id: "019aa0f0-0000-7000-8000-000000000002".into(),
        channel: "sms".into(),
        staff_id: Some("2".into()),
        role: Some("project_manager".into()),
        name: Some("Grace \"Amazing\" Hopper".into()),
        phone: Some("+14155550101".into()),
    };
    let message = MessageFacts {
        id: "019aa0f0-0000-7000-8000-000000000003".into(),
        kind: "reply".into(),
        outcome: "kept".into(),
        text: Some("On my way,\n\"ten\" minutes \\o/ <b>".into()),
        from: Some("+14155550101".into()),
        media: Some(json!([{ "content_type": "image/jpeg" }])),
    };
    let is_opt_out = matches!(kind, EventType::OptOutCreated | EventType::OptOutRemoved);
    let has_alert = !is_opt_out && kind != EventType::Test;
    LifecycleEvent {
        alert: has_alert.then_some(alert),
        delivery: has_alert.then_some(delivery),
        message: (kind == EventType::MessageReceived).then_some(message),
        phone: is_opt_out.then(|| "+14155550101".to_owned()),
        source: Some("acme".into()),
        data: data(kind),
        ..bare(kind)
    }
}

/// One whose alert was stripped, or that never had one.
pub fn bare(kind: EventType) -> LifecycleEvent {
    LifecycleEvent {
        id: "019aa0f0-0000-7000-8000-000000000000".into(),
        kind,
        at: Timestamp::UNIX_EPOCH,
        source: None,
        alert: None,
        delivery: None,
        message: None,
        phone: None,
        data: Map::new(),
    }
}

/// What transactions say of each type.
fn data(kind: EventType) -> Map<String, Value> {
    let data = match kind {
        EventType::AlertCreated => json!({ "deliveries": 2 }),
        EventType::AlertAcknowledged => json!({ "via": "sms" }),
        EventType::AlertClosed => json!({ "canceled": 1 }),
        EventType::AlertSettled => json!({
            "reached": 1, "of": 2, "people": [
                { "delivery_id": "019aa0f0-0000-7000-8000-000000000002", "role": "project_manager", "staff_id": "2",
                  "state": "delivered", "error_code": null, "at": "2026-11-20T09:24:41Z" },
                { "delivery_id": "019aa0f0-0000-7000-8000-000000000004", "role": "assignee", "staff_id": "3",
                  "state": "undelivered", "error_code": 5021, "at": "2026-11-20T09:24:44Z" },
            ],
        }),
        EventType::DeliverySent
        | EventType::DeliveryDelivered
        | EventType::DeliveryFailed
        | EventType::DeliveryUnconfirmed
        | EventType::DeliverySuppressed
        | EventType::DeliveryDeferred
        | EventType::DeliveryExpired => json!({
            "state": "undelivered", "reason": "provider_failed", "attempt": 1, "round": 0, "provider": "carrier",
            "provider_message_id": "SM1", "provider_status": "undelivered", "error_code": 5021,
        }),
        EventType::AlarmRaised => json!({
            "alarm": "nobody_told", "title": "nobody was told", "detail": "nobody is told of the \"ticket\" 108749",
            "advice": "Call somebody now.",
        }),
        EventType::MessageReceived | EventType::OptOutCreated | EventType::OptOutRemoved | EventType::Test => json!({}),
    };
    match data {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
