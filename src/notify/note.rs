//! The words of a private note on a ticket, for the people of the helpdesk: by name, since it knows its staff, and without
//! numbers. Pure. Absent: writing it (see `source::helpdesk`).

use super::words::{Told, attachments, local, people, settled};
use crate::domain::{
    lifecycle::{EventType, LifecycleEvent},
    text::{clean_text, truncate},
};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// A note of this event; `None` where there is nothing to tell a ticket. `names`: of the people of a settled alert, by the id
/// of their delivery.
pub fn note(event: &LifecycleEvent, names: &BTreeMap<String, String>, zone: &TimeZone) -> Option<String> {
    let told = Told { event, personal: true };
    let at = local(event.at, zone);
    let lines = match event.kind {
        EventType::AlertSettled => {
            let number = |member: &str| event.data.get(member).and_then(serde_json::Value::as_i64).unwrap_or(0);
            let mut lines = vec![settled((number("reached"), number("of")))];
            lines.extend(people(event, names, zone));
            lines
        }
        EventType::AlertAcknowledged => vec![format!("{}{}, {at}.", told.acknowledged_by(), told.via())],
        EventType::MessageReceived => {
            let message = event.message.as_ref().filter(|message| message.kind == "reply")?;
            let text = message.text.as_deref().map(|text| clean_text(truncate(text, 1_600)));
            let text = text.unwrap_or_else(|| "(its text is deleted by now)".to_owned());
            let mut lines = vec![
                format!("{} replied by SMS, {at}:", told.who(event.delivery.as_ref())),
                text,
            ];
            lines.extend(attachments(message));
            lines
        }
        EventType::AlertCreated
        | EventType::AlertClosed
        | EventType::DeliverySent
        | EventType::DeliveryDelivered
        | EventType::DeliveryFailed
        | EventType::DeliveryUnconfirmed
        | EventType::DeliverySuppressed
        | EventType::DeliveryDeferred
        | EventType::DeliveryExpired
        | EventType::AlarmRaised => {
            let mut lines = told.lines();
            lines.push(at);
            lines
        }
        // They are about a number, and belong to no ticket.
        EventType::OptOutCreated | EventType::OptOutRemoved | EventType::Test => return None,
    };
    Some(format!("Nightbell: {}", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::samples;
    use serde_json::json;

    fn names() -> BTreeMap<String, String> {
        let id = |last: char| format!("019aa0f0-0000-7000-8000-00000000000{last}");
        BTreeMap::from([(id('2'), "Grace".to_owned()), (id('4'), "Mona".to_owned())])
    }

    fn noted(event: &LifecycleEvent) -> Option<String> {
        note(event, &names(), &TimeZone::get("Europe/Berlin").unwrap())
    }

    #[test]
    fn a_note_says_who_was_reached() {
        let mut event = samples::full(EventType::AlertSettled);
        assert_eq!(
            noted(&event).unwrap(),
            "Nightbell: 1 of 2 people was reached by SMS.\n\
             - Grace (project manager): delivered, 2026-11-20 10:24:41 CET\n\
             - Mona (assignee): not delivered by the carrier, code 5021, 2026-11-20 10:24:44 CET"
        );

        for (reached, of, first) in [
            (2, 2, "everyone was reached by SMS."),
            (0, 2, "nobody could be reached by SMS."),
            (2, 3, "2 of 3 people were reached by SMS."),
        ] {
            event.data["reached"] = json!(reached);
            event.data["of"] = json!(of);
            let text = noted(&event).unwrap();
            assert_eq!(text.lines().next().unwrap(), format!("Nightbell: {first}"));
        }
    }

    #[test]
    fn a_note_says_who_acknowledged_and_what_was_replied() {
        let mut event = samples::full(EventType::AlertAcknowledged);
        event.at = "2026-11-20T09:24:41Z".parse().unwrap();
        assert_eq!(
            noted(&event).unwrap(),
            "Nightbell: Grace \"Amazing\" Hopper (project manager) acknowledged it by SMS, 2026-11-20 10:24:41 CET."
        );
        event.delivery = None;
        event.data["via"] = json!("api");
        if let Some(alert) = &mut event.alert {
            alert.acknowledged_by = Some("Ada".into());
        }
        assert!(
            noted(&event)
                .unwrap()
                .starts_with("Nightbell: Ada acknowledged it by the API, ")
        );

        let mut reply = samples::full(EventType::MessageReceived);
        let text = noted(&reply).unwrap();
        assert!(
            text.contains("replied by SMS, ") && text.contains("\nOn my way,\n\"ten\" minutes"),
            "{text}"
        );
        assert!(text.ends_with("With one attachment, which was not fetched."), "{text}");
        reply.message.as_mut().unwrap().text = None;
        assert!(noted(&reply).unwrap().contains("deleted by now"));
        // An acknowledgement is noted as one.
        reply.message.as_mut().unwrap().kind = "acknowledge".into();
        assert_eq!(noted(&reply), None);
    }

    #[test]
    fn no_note_has_a_number_and_every_type_of_a_ticket_can_be_noted() {
        for event in samples::all() {
            let text = noted(&event);
            let has_ticket = !matches!(
                event.kind,
                EventType::OptOutCreated | EventType::OptOutRemoved | EventType::Test
            );
            let is_empty = event.kind == EventType::MessageReceived && event.message.is_none();
            assert_eq!(text.is_some(), has_ticket && !is_empty, "{event:?}");
            let text = text.unwrap_or_default();
            assert!(!text.contains("415") && !text.contains("****"), "{text}");
        }
    }
}
