//! The `webhooks` section of the OpenAPI document: what is posted to endpoints. What it says is compared with what
//! `domain::lifecycle` makes by a test.

use crate::domain::lifecycle::EventType;
use serde_json::{Map, Value, json};

/// The section of the pages in which they stand.
pub const TAG: &str = "lifecycle events";

const ABOUT: &str = "\
What Nightbell posts to endpoints (`webhooks.<name>.url`), by Standard Webhooks (standardwebhooks.com). The headers \
are `webhook-id` (the event's id: the same however often it is posted), `webhook-timestamp` (seconds since 1970, of this try) \
and `webhook-signature` (`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; two of them, with a space between, while \
a secret is changed).\n\n\
**At least once**: an event is posted until it is answered by 2xx, so keep the ids that you have seen. **In order**: of the events \
of one alert, the next is posted when the one before was taken. An answer is expected within `webhooks.<name>.timeout`; redirects \
are not followed, and 410 disables the endpoint.\n\n\
**Personal data** (names, numbers in full, texts, subjects) is there only with `webhooks.<name>.include_personal`; without it \
numbers are masked. More types and members may come: answer 2xx to those that you do not know.";

/// Puts the section, its tag and its shapes into the document.
pub fn describe(document: &mut Value) {
    let hooks: Map<String, Value> = EventType::ALL
        .iter()
        .map(|kind| (kind.as_str().to_owned(), json!({ "post": operation(*kind) })))
        .collect();
    document["webhooks"] = hooks.into();
    if let Some(tags) = document["tags"].as_array_mut() {
        tags.push(json!({ "name": TAG, "description": ABOUT }));
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.extend(shapes());
    }
}

fn operation(kind: EventType) -> Value {
    let (summary, description) = words(kind);
    json!({
        "operationId": format!("event-{kind}"),
        "tags": [TAG],
        "summary": summary,
        "description": description,
        "requestBody": { "required": true, "content": { "application/json": { "schema": envelope(kind) } } },
        "responses": {
            "2XX": { "description": "Taken: it is not posted again" },
            "410": { "description": "The endpoint wants no more events: it is disabled, and an alarm is raised" },
            "default": { "description": "Not now: it is posted again later, with the same id" },
        },
    })
}

fn words(kind: EventType) -> (&'static str, &'static str) {
    match kind {
        EventType::AlertCreated => (
            "An alert was raised",
            "A ticket turned critical, and so many messages are owed.",
        ),
        EventType::AlertAcknowledged => ("An alert was acknowledged", "Somebody takes care of it."),
        EventType::AlertClosed => (
            "An alert was closed",
            "The ticket is over or less urgent; what had not begun to be sent was canceled.",
        ),
        EventType::AlertSettled => (
            "An alert is settled",
            "None of its messages is on its way any more: it is known who was reached.",
        ),
        EventType::DeliverySent => (
            "A message was sent",
            "The carrier has handed it to the person's network.",
        ),
        EventType::DeliveryDelivered => ("A message was delivered", "The person's phone has it."),
        EventType::DeliveryFailed => (
            "A message failed",
            "It was not delivered, or could not be sent at all; `reason` and `error_code` say why.",
        ),
        EventType::DeliveryUnconfirmed => (
            "A message may not have been sent",
            "Nobody knows; a person has to decide.",
        ),
        EventType::DeliverySuppressed => (
            "A message was held back",
            "The person has opted out, or cannot be reached by this number.",
        ),
        EventType::DeliveryDeferred => ("A message was put off", "It waits for a slot of a limit."),
        EventType::DeliveryExpired => (
            "A message expired",
            "It waited for so long that it is of no use any more.",
        ),
        EventType::MessageReceived => (
            "A message came in",
            "A person sent us a text: a reply, an acknowledgement, an opt-out ….",
        ),
        EventType::OptOutCreated => ("Somebody opted out", "This number is not texted any more."),
        EventType::OptOutRemoved => ("An opt-out was removed", "This number may be texted again."),
        EventType::AlarmRaised => (
            "An alarm was raised",
            "People must know of this at once; `advice` says what to do.",
        ),
        EventType::Test => (
            "A test",
            "Posted when an admin tries the endpoint, whatever types it wants.",
        ),
    }
}

/// The members of `data` beside `source`, each with its shape, and whether it is always there.
fn members(kind: EventType) -> &'static [(&'static str, &'static str, bool)] {
    match kind {
        EventType::AlertCreated | EventType::AlertAcknowledged | EventType::AlertClosed | EventType::AlertSettled => {
            &[("alert", "LifecycleAlert", true)]
        }
        EventType::DeliverySent
        | EventType::DeliveryDelivered
        | EventType::DeliveryFailed
        | EventType::DeliveryUnconfirmed
        | EventType::DeliverySuppressed
        | EventType::DeliveryDeferred
        | EventType::DeliveryExpired => &[
            ("delivery", "LifecycleDelivery", true),
            ("alert", "LifecycleAlert", false),
        ],
        EventType::MessageReceived => &[
            ("message", "LifecycleMessage", true),
            ("alert", "LifecycleAlert", false),
            ("delivery", "LifecycleDelivery", false),
        ],
        EventType::OptOutCreated | EventType::OptOutRemoved => &[
            ("opt_out", "LifecycleOptOut", true),
            ("message", "LifecycleMessage", false),
        ],
        EventType::AlarmRaised => &[
            ("alarm", "LifecycleAlarm", true),
            ("alert", "LifecycleAlert", false),
            ("delivery", "LifecycleDelivery", false),
        ],
        EventType::Test => &[("test", "LifecycleTest", true)],
    }
}

fn envelope(kind: EventType) -> Value {
    let mut data = Map::from_iter([(
        "source".to_owned(),
        json!({ "type": "string", "description": "The helpdesk that it is about, if there is one.", "examples": ["default"] }),
    )]);
    let mut required = Vec::new();
    for (name, shape, is_always) in members(kind) {
        data.insert(
            (*name).to_owned(),
            json!({ "$ref": format!("#/components/schemas/{shape}") }),
        );
        if *is_always {
            required.push(*name);
        }
    }
    json!({
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": { "type": "string", "const": kind, "examples": [kind] },
            "timestamp": {
                "type": "string", "format": "date-time", "description": "When it happened.", "examples": ["2026-11-22T03:00:00Z"],
            },
            "data": { "type": "object", "required": required, "properties": data },
        },
    })
}

fn text(description: &str, example: &str) -> Value {
    json!({ "type": "string", "description": description, "examples": [example] })
}

fn maybe_text(description: &str, example: &str) -> Value {
    json!({ "type": ["string", "null"], "description": description, "examples": [example] })
}

fn number(description: &str, example: i64) -> Value {
    json!({ "type": ["integer", "null"], "description": description, "examples": [example] })
}

fn object(description: &str, properties: Value) -> Value {
    json!({ "type": "object", "description": description, "properties": properties })
}

const PERSONAL: &str = "Only with `include_personal`.";
const MASKED: &str = "In E.164, masked without `include_personal`.";

fn shapes() -> Map<String, Value> {
    let shapes = [
        (
            "LifecycleAlert",
            object(
                "The alert that an event is about. What its own event adds: `deliveries` (created), `canceled` (closed), `via`, `staff_id` and `role` (acknowledged), `reached`, `of` and `people` (settled).",
                json!({
                    "id": text("", "01a1f82f-2186-7436-868f-302d4c7778b0"),
                    "ticket_id": text("The helpdesk's own id.", "4711"),
                    "ticket_number": maybe_text("", "104711"),
                    "url": maybe_text("", "https://tickets.example.com/4711"),
                    "subject": maybe_text(PERSONAL, "Checkout is down"),
                    "client": object(PERSONAL, json!({ "name": maybe_text("", "Bo Client"), "organisation": maybe_text("", "Acme Corp") })),
                    "acknowledged_at": maybe_text("When somebody acknowledged it, if anybody has by the time of the post.", "2026-11-22T03:04:00Z"),
                    "acknowledged_via": maybe_text("`sms`, `link`, `api`, `page` or `command`.", "sms"),
                    "acknowledged_by": maybe_text(PERSONAL, "Grace Hopper"),
                    "via": text("The same, of this event.", "sms"),
                    "staff_id": maybe_text("Of whoever acknowledged it, if a message told them.", "2"),
                    "role": maybe_text("", "assignee"),
                    "reached": number("How many people were reached.", 1),
                    "of": number("Of how many.", 2),
                    "people": json!({ "type": "array", "description": "What became of each message: `delivery_id`, `role`, `staff_id`, `state`, `error_code`, `at`.", "items": { "type": "object" } }),
                    "deliveries": number("How many messages are owed.", 2),
                    "canceled": number("How many messages were held back.", 0),
                }),
            ),
        ),
        (
            "LifecycleDelivery",
            object(
                "The message that an event is about. From `state` on it is there in the message's own events only.",
                json!({
                    "id": text("", "01a1f82f-21e4-72ea-9e85-58370ddfc670"),
                    "channel": text("", "sms"),
                    "recipient": object("", json!({
                        "staff_id": maybe_text("The helpdesk's own id of the person.", "2"),
                        "role": maybe_text("", "assignee"),
                        "name": maybe_text(PERSONAL, "Grace Hopper"),
                    })),
                    "phone": maybe_text(MASKED, "+1415****101"),
                    "state": text("", "delivered"),
                    "reason": maybe_text("Why it came to this state.", "opted_out"),
                    "attempt": number("How often it was tried.", 1),
                    "round": number("0, and one more each time that an admin sends it again.", 0),
                    "provider": maybe_text("", "log"),
                    "provider_message_id": maybe_text("", "log-1"),
                    "provider_status": maybe_text("The provider's own word.", "delivered"),
                    "error_code": number("The provider's own code.", 404),
                }),
            ),
        ),
        (
            "LifecycleMessage",
            object(
                "A message that a person sent us.",
                json!({
                    "id": text("", "01a1f82f-2146-75ba-a65d-2c4f50b4b7eb"),
                    "kind": text("What it was understood as.", "reply"),
                    "outcome": text("What came of it.", "kept"),
                    "from": maybe_text(MASKED, "+1415****101"),
                    "text": maybe_text(PERSONAL, "On my way"),
                    "media": json!({ "type": ["array", "object", "null"], "description": "How many attachments, and of which types." }),
                }),
            ),
        ),
        (
            "LifecycleOptOut",
            object(
                "A number that must not be texted, or may be again.",
                json!({ "phone": maybe_text(MASKED, "+1415****101") }),
            ),
        ),
        (
            "LifecycleAlarm",
            object(
                "What people must know at once.",
                json!({
                    "alarm": text("Which one.", "nobody_told"),
                    "title": text("In a few words.", "nobody was told"),
                    "detail": text("", "nobody is being told of alert 01a1 …"),
                    "advice": text("What to do about it.", "Call somebody now …"),
                }),
            ),
        ),
        (
            "LifecycleTest",
            object("Says nothing.", json!({ "message": text("", "An admin tries …") })),
        ),
    ];
    shapes
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), shape))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lifecycle::{AlertFacts, DeliveryFacts, LifecycleEvent, MessageFacts};

    fn with_everything(kind: EventType) -> Value {
        let some = |text: &str| Some(text.to_owned());
        let has = |name: &str| members(kind).iter().any(|(member, _, _)| *member == name);
        let event = LifecycleEvent {
            id: "e1".into(),
            kind,
            at: jiff::Timestamp::UNIX_EPOCH,
            source: some("default"),
            alert: has("alert").then(|| AlertFacts {
                acknowledged_at: None,
                acknowledged_via: None,
                acknowledged_by: None,
                id: "a".into(),
                ticket_id: "1".into(),
                ticket_number: some("1"),
                subject: some("s"),
                url: some("u"),
                client: some("c"),
                organisation: some("o"),
            }),
            delivery: has("delivery").then(|| DeliveryFacts {
                id: "d".into(),
                channel: "sms".into(),
                staff_id: some("2"),
                role: some("r"),
                name: some("n"),
                phone: some("+14155550101"),
            }),
            message: has("message").then(|| MessageFacts {
                id: "m".into(),
                kind: "reply".into(),
                outcome: "kept".into(),
                text: some("t"),
                from: some("+14155550101"),
                media: Some(json!([])),
            }),
            phone: has("opt_out").then(|| "+14155550101".to_owned()),
            data: Map::new(),
        };
        event.payload(true)
    }

    #[test]
    fn every_member_that_is_posted_is_described() {
        let shapes = shapes();
        for kind in EventType::ALL {
            let (payload, envelope) = (with_everything(*kind), envelope(*kind));
            for name in payload.as_object().unwrap().keys() {
                assert!(envelope["properties"].get(name).is_some(), "{kind}: {name}");
            }
            let described = &envelope["properties"]["data"]["properties"];
            for (name, member) in payload["data"].as_object().unwrap() {
                assert!(described.get(name).is_some(), "{kind}: {name}");
                let Some(reference) = described[name]["$ref"].as_str() else {
                    continue;
                };
                let shape = &shapes[reference.rsplit('/').next().unwrap()];
                for name in member.as_object().unwrap().keys() {
                    assert!(shape["properties"].get(name).is_some(), "{kind}: {name}");
                }
            }
            for required in envelope["properties"]["data"]["required"].as_array().unwrap() {
                assert!(
                    payload["data"].get(required.as_str().unwrap()).is_some(),
                    "{kind}: {required}"
                );
            }
        }
    }
}
