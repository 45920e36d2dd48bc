//! Who is told of a critical event, and in which words. Absent: whether anything is sent (the store decides).

use crate::{
    domain::{
        acknowledge::Acknowledging,
        event::{Event, Recipient},
        id::DeliveryId,
        message::Templates,
        phone::PhoneNumber,
        route::Channel,
        source::Source,
        staff::Addressee,
    },
    store::{self, NewDelivery, new_id},
};
use jiff::Timestamp;

/// How texts are made.
pub struct Composer<'a> {
    pub templates: &'a Templates,
    pub acknowledging: &'a Acknowledging,
    pub now: Timestamp,
}

/// One delivery for each of `people`, with its id: the same number twice is one. If no number can be used, the source's
/// fallback recipients are told as well.
pub fn deliveries(
    composer: &Composer<'_>,
    source: &Source,
    event: &Event,
    people: Vec<Addressee<'_>>,
) -> Vec<(DeliveryId, NewDelivery)> {
    let mut deliveries = Vec::with_capacity(people.len());
    for Addressee { recipient, phone } in people {
        composer.add(&mut deliveries, &recipient, phone, event);
    }
    if !deliveries.iter().any(|(_, delivery)| delivery.phone.is_ok()) {
        for recipient in &source.fallback_recipients {
            composer.add(&mut deliveries, recipient, recipient.read_phone(source.region), event);
        }
    }
    deliveries
}

impl Composer<'_> {
    fn add(
        &self,
        deliveries: &mut Vec<(DeliveryId, NewDelivery)>,
        recipient: &Recipient,
        phone: Result<PhoneNumber, Option<String>>,
        event: &Event,
    ) {
        if phone.is_ok() && deliveries.iter().any(|(_, delivery)| delivery.phone == phone) {
            return;
        }
        let id = DeliveryId::from(new_id());
        let link = self.acknowledging.link(&id, self.now);
        let random = (self.acknowledging.has_code && phone.is_ok()).then_some(rand::random::<u32>);
        // The error's own text may quote the ticket, so only the place is logged.
        let warn = |error: &minijinja::Error| {
            tracing::warn!(template = "sms/critical.txt", line = error.line(), kind = ?error.kind(), "the template failed; the built-in one is used");
        };
        let (message, code) = self
            .templates
            .compose_answerable(event, Some(recipient), link.as_deref(), random, warn);
        let delivery = NewDelivery {
            channel: Channel::Sms,
            recipient: store::Recipient {
                staff_id: recipient.staff_id.clone(),
                role: recipient.role.clone(),
                name: recipient.name.clone(),
            },
            phone,
            message: message.text,
            segments: message.size.segments,
            ack_code: code.map(str::to_owned),
        };
        deliveries.push((id, delivery));
    }
}
