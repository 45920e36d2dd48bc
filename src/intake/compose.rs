//! Who is told of a critical event, and in which words. Absent: whether anything is sent (the store decides).

use crate::{
    domain::{
        event::{Event, Recipient},
        message::Templates,
        phone::PhoneNumber,
        route::Channel,
        source::Source,
        staff::Addressee,
    },
    store::{self, NewDelivery},
};

/// One delivery for each of `people`: the same number twice is one. If no number can be used, the source's fallback
/// recipients are told as well.
pub fn deliveries(
    templates: &Templates,
    source: &Source,
    event: &Event,
    people: Vec<Addressee<'_>>,
) -> Vec<NewDelivery> {
    let mut deliveries = Vec::with_capacity(people.len());
    for Addressee { recipient, phone } in people {
        add(&mut deliveries, &recipient, phone, templates, event);
    }
    if !deliveries.iter().any(|delivery| delivery.phone.is_ok()) {
        for recipient in &source.fallback_recipients {
            add(
                &mut deliveries,
                recipient,
                recipient.read_phone(source.region),
                templates,
                event,
            );
        }
    }
    deliveries
}

fn add(
    deliveries: &mut Vec<NewDelivery>,
    recipient: &Recipient,
    phone: Result<PhoneNumber, Option<String>>,
    templates: &Templates,
    event: &Event,
) {
    if phone.is_ok() && deliveries.iter().any(|delivery| delivery.phone == phone) {
        return;
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
