//! `webhooks.<name>.…`. A stand-in with what notifiers need of the settings that all endpoints have: the whole takes its place.

use super::{kind::Kind, kind_settings::KindSettings};
use crate::{config::Reader, domain::lifecycle::EventTypes};
use jiff::SignedDuration;
use std::collections::BTreeSet;

/// An endpoint that is no plain webhook.
#[derive(Clone)]
pub struct Endpoint {
    pub name: String,
    pub kind: KindSettings,
    pub events: EventTypes,
    /// Of which sources; empty: of all.
    pub sources: BTreeSet<String>,
    pub include_personal: bool,
    pub allow_private: bool,
    pub timeout: SignedDuration,
}

/// Reads all of them.
pub fn read_endpoints(reader: &mut Reader) -> Vec<Endpoint> {
    let names = reader.names_below("webhooks");
    names
        .into_iter()
        .filter_map(|name| read_endpoint(reader, name))
        .collect()
}

fn read_endpoint(reader: &mut Reader, name: String) -> Option<Endpoint> {
    let key = |member: &str| format!("webhooks.{name}.{member}");
    let kinds: Vec<(&str, &str)> = Kind::names().map(|kind| (kind, kind)).collect();
    let kind = reader.optional_choice(&key("kind"), &kinds)?;
    let url = reader.secret(&key("url"));
    let settings = KindSettings::read(reader, &name, kind, url.as_ref());
    let events = reader.list(
        &key("events"),
        "a type of event like `alert.created`, `alert.*` or `*`",
        EventTypes::named,
    );
    let events = events.into_iter().fold(EventTypes::default(), EventTypes::union);
    let sources = reader.list(&key("sources"), "the name of a source", |text| Some(text.to_owned()));
    let include_personal = reader.flag(&key("include_personal"), false);
    let allow_private = reader.flag(&key("allow_private"), false);
    let timeout = reader.duration(
        &key("timeout"),
        "10s",
        SignedDuration::from_secs(1),
        SignedDuration::from_mins(1),
    );
    let kind = settings?;
    Some(Endpoint {
        events: if events.is_empty() { kind.events } else { events },
        name,
        kind,
        sources: sources.into_iter().collect(),
        include_personal,
        allow_private,
        timeout,
    })
}
