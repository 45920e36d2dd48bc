//! Who is told of a critical event, and in which words. Absent: whether anything is sent (the store decides).

use crate::{
    domain::{
        event::{Address, Event, Recipient},
        message::{Addressee, Message, Rules, Templates},
        phone::Region,
        route::Channel,
    },
    store::{self, LaterRecipients, NewDelivery},
};

/// One helpdesk, as far as its events need it.
pub struct Source {
    /// For phone numbers that bring no country of their own.
    pub region: Region,
    /// Who is told when an event names nobody with a usable number.
    pub fallback_recipients: Vec<Recipient>,
    pub later_recipients: LaterRecipients,
}

/// Makes the texts of messages.
pub struct Texts {
    pub templates: Templates,
    pub rules: Rules,
}

impl Texts {
    /// The text for one person, or for nobody in particular. If the admin's own template fails, `warn` is told why and the
    /// built-in one is used.
    pub fn compose(
        &self,
        event: &Event,
        recipient: Option<&Recipient>,
        warn: impl FnOnce(&minijinja::Error),
    ) -> Message {
        let addressee = recipient.map_or_else(Addressee::default, |person| Addressee {
            name: person.name.as_deref(),
            role: person.role.as_deref(),
        });
        self.templates.compose(event, addressee, self.rules, warn)
    }
}

/// One delivery for each person: the same number twice is one. If no number can be used, the source's fallback recipients
/// are told as well.
pub fn deliveries(texts: &Texts, source: &Source, event: &Event) -> Vec<NewDelivery> {
    let mut deliveries = Vec::new();
    add(&mut deliveries, &event.recipients, texts, source, event);
    if !deliveries.iter().any(|delivery| delivery.phone.is_ok()) {
        add(&mut deliveries, &source.fallback_recipients, texts, source, event);
    }
    deliveries
}

fn add(deliveries: &mut Vec<NewDelivery>, recipients: &[Recipient], texts: &Texts, source: &Source, event: &Event) {
    for recipient in recipients {
        let phone = match recipient.address(source.region) {
            Address::Phone(phone) => Ok(phone),
            Address::Invalid(raw) => Err(Some(raw)),
            Address::Missing => Err(None),
        };
        if phone.is_ok() && deliveries.iter().any(|delivery| delivery.phone == phone) {
            continue;
        }
        // The error's own text may quote the ticket, so only the place is logged.
        let message = texts.compose(event, Some(recipient), |error| {
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
