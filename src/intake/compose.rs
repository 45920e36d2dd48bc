//! Who is told of a critical event, and in which words. Absent: whether anything is sent (the store decides).

use crate::{
    domain::{
        event::{Event, Recipient},
        message::Templates,
        route::Channel,
        source::Source,
    },
    store::{self, NewDelivery},
};

/// One delivery for each person: the same number twice is one. If no number can be used, the source's fallback recipients
/// are told as well.
pub fn deliveries(templates: &Templates, source: &Source, event: &Event) -> Vec<NewDelivery> {
    let mut deliveries = Vec::new();
    add(&mut deliveries, &event.recipients, templates, source, event);
    if !deliveries.iter().any(|delivery| delivery.phone.is_ok()) {
        add(&mut deliveries, &source.fallback_recipients, templates, source, event);
    }
    deliveries
}

fn add(
    deliveries: &mut Vec<NewDelivery>,
    recipients: &[Recipient],
    templates: &Templates,
    source: &Source,
    event: &Event,
) {
    for recipient in recipients {
        let phone = recipient.read_phone(source.region);
        if phone.is_ok() && deliveries.iter().any(|delivery| delivery.phone == phone) {
            continue;
        }
        // The error's own text may quote the ticket, so only the place is logged.
        let message = templates.compose(event, Some(recipient), |error| {
            tracing::warn!(template = "sms/critical.txt", line = error.line(), kind = ?error.kind(), "the template failed; the built-in one is used");
        });
        deliveries.push(NewDelivery {
            channel: Channel::Sms,
            recipient: store::Recipient {
                staff_id: recipient.staff_id.clone(),
                role: recipient.role.clone(),
                name: recipient.name.clone(),
            },
            phone,
            message: message.text,
            segments: message.size.segments,
        });
    }
}
