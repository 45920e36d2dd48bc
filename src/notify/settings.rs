//! What each endpoint needs: `webhooks.<name>.…`.

use super::{
    client,
    kind::Kind,
    kind_settings::{Destination, KindSettings},
    secret::Secret,
};
use crate::{
    config::Reader,
    domain::{
        lifecycle::{EventType, EventTypes},
        source::Source,
    },
};
use jiff::SignedDuration;
use secrecy::ExposeSecret;
use std::{collections::BTreeMap, time::Duration};
use url::Url;

/// The kind of a signed webhook.
const WEBHOOK: &str = "webhook";
/// The kind of what writes notes on tickets: no admin names it, each source that wants notes has one.
pub const TICKETS: &str = "ticket";
/// Longer than any call to a helpdesk, of which a note may take several.
const NOTE_TIME: Duration = Duration::from_secs(60);
const LONGEST_NAME: usize = 64;

/// What one endpoint needs.
#[derive(Clone)]
pub struct Settings {
    pub name: String,
    pub kind: &'static str,
    /// Of a webhook. Secret: it may hold a token.
    pub url: Option<Url>,
    /// Where the events of every other kind go.
    pub destination: Option<Destination>,
    /// What signs, the new one first.
    pub secrets: Vec<Secret>,
    pub filter: Filter,
    pub include_personal: bool,
    pub allow_private: bool,
    /// How long one post may take.
    pub timeout: Duration,
    /// How many posts at once.
    pub max_in_flight: usize,
}

/// Which events an endpoint wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// `*`, `alert.*`, `alert.created` ….
    pub events: Vec<String>,
    /// Empty: all.
    pub sources: Vec<String>,
}

impl Filter {
    /// Whether it wants events of this type, also of one that this version does not know.
    pub fn wants_type(&self, word: &str) -> bool {
        self.events.iter().any(|pattern| matches(pattern, word))
    }

    /// Whether it wants what came from there; what has no source is everybody's.
    pub fn wants_source(&self, source: Option<&str>) -> bool {
        self.sources.is_empty() || source.is_none_or(|source| self.sources.iter().any(|wanted| wanted == source))
    }

    /// The types that it wants.
    pub fn types(&self) -> EventTypes {
        let all = EventType::ALL.iter().copied().filter(|kind| *kind != EventType::Test);
        all.filter(|kind| self.wants_type(kind.as_str())).collect()
    }
}

/// Whether a type is one of those that a pattern means.
fn matches(pattern: &str, word: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => word.starts_with(beginning),
        None => word == pattern,
    }
}

/// Reads a pattern of types; `None` if it means none.
fn read_pattern(text: &str) -> Option<String> {
    let is_pattern = text == "*" || text.ends_with(".*") || !text.contains('*');
    let mut known = EventType::ALL.iter().filter(|kind| **kind != EventType::Test);
    (is_pattern && known.any(|kind| matches(text, kind.as_str()))).then(|| text.to_owned())
}

/// The types that any of them wants: others need not be written down.
pub fn wanted(endpoints: &[Settings]) -> EventTypes {
    let types = endpoints.iter().map(|endpoint| endpoint.filter.types());
    types.fold(EventTypes::default(), EventTypes::union)
}

impl Settings {
    /// Reads all of them.
    pub fn read_all(reader: &mut Reader, sources: &BTreeMap<String, Source>) -> Vec<Self> {
        let names = reader.names_below("webhooks");
        names.iter().map(|name| Self::read(reader, name, sources)).collect()
    }

    fn read(reader: &mut Reader, name: &str, sources: &BTreeMap<String, Source>) -> Self {
        let key = |member: &str| format!("webhooks.{name}.{member}");
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_name) {
            reader.fault_secret(
                &format!("webhooks.{name}"),
                "is no name of an endpoint: use up to 64 small letters, digits and `-`, like `webhooks.service-desk`",
            );
        }
        let kinds: Vec<(&str, &str)> = std::iter::once(WEBHOOK)
            .chain(Kind::names())
            .map(|kind| (kind, kind))
            .collect();
        let kind = reader.choice(&key("kind"), WEBHOOK, &kinds);
        let allow_private = reader.flag(&key("allow_private"), false);
        let is_webhook = kind == WEBHOOK;
        let url = match is_webhook {
            true => read_url(reader, &key("url"), allow_private),
            false => None,
        };
        let secrets = match is_webhook {
            true => read_secrets(reader, name),
            false => Vec::new(),
        };
        let other = (!is_webhook).then(|| {
            let url = reader.secret(&key("url"));
            KindSettings::read(reader, name, kind, url.as_ref())
        });
        let other = other.flatten();
        let by_default = other.as_ref().map(|other| other.events);
        Self {
            url,
            secrets,
            filter: read_filter(reader, name, by_default, sources),
            destination: other.map(|other| other.to),
            include_personal: reader.flag(&key("include_personal"), false),
            timeout: reader
                .duration(
                    &key("timeout"),
                    "10s",
                    SignedDuration::from_millis(100),
                    SignedDuration::from_secs(60),
                )
                .unsigned_abs(),
            max_in_flight: reader.number(&key("max_in_flight"), 8, 1, 256),
            name: name.to_owned(),
            kind,
            allow_private,
        }
    }

    /// What writes notes on the tickets of a source.
    pub fn of_tickets(name: String, source: &str, events: EventTypes) -> Self {
        Self {
            name,
            kind: TICKETS,
            url: None,
            destination: None,
            secrets: Vec::new(),
            filter: Filter {
                events: words(events),
                sources: vec![source.to_owned()],
            },
            include_personal: true,
            allow_private: true,
            timeout: NOTE_TIME,
            max_in_flight: 1,
        }
    }

    /// Where it is, without what may be secret.
    pub fn host(&self) -> Option<String> {
        let url = self.url.as_ref()?;
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        Some(format!("{}{port}", url.host_str()?))
    }
}

fn read_url(reader: &mut Reader, key: &str, allow_private: bool) -> Option<Url> {
    let Some(text) = reader.secret(key) else {
        if !reader.has_fault(&format!("{key}_file")) {
            reader.fault_secret(key, "is not set: write the address that events are posted to, like `https://desk.example.com/hooks/nightbell`");
        }
        return None;
    };
    let url = Url::parse(text.expose_secret()).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else {
        reader.fault_secret(
            key,
            "is no web address: write it like `https://desk.example.com/hooks/nightbell`",
        );
        return None;
    };
    if let Err(refused) = client::check(&url, allow_private) {
        reader.fault_secret(key, &format!("cannot be used: {refused}"));
    }
    if url.scheme() == "http" {
        reader.warn(&format!(
            "`{key}` begins with `http:`, so events can be read by everybody on their way: write `https:` if the endpoint has it"
        ));
    }
    Some(url)
}

fn read_secrets(reader: &mut Reader, name: &str) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for member in ["secret", "previous_secret"] {
        let key = format!("webhooks.{name}.{member}");
        let Some(text) = reader.secret(&key) else { continue };
        match Secret::parse(text.expose_secret()) {
            Some(secret) => secrets.push(secret),
            None => reader.fault_secret(&key, "is no signing secret: it is `whsec_` and the base64 of 24 to 64 bytes; `nightbell webhook secret` prints a new one"),
        }
        if member == "previous_secret"
            && !reader.has(&format!("webhooks.{name}.secret"))
            && !reader.has(&format!("webhooks.{name}.secret_file"))
        {
            reader.fault_secret(
                &key,
                &format!("is set without `webhooks.{name}.secret`: set the new one there"),
            );
        }
    }
    let secret_key = format!("webhooks.{name}.secret");
    let is_unsigned =
        secrets.is_empty() && !reader.has_fault(&secret_key) && !reader.has_fault(&format!("{secret_key}_file"));
    if is_unsigned {
        reader.warn(&format!("`{secret_key}` is not set, so whoever receives these events cannot tell that they are ours: `nightbell webhook secret` prints one"));
    }
    secrets
}

/// The types of a set, as they are written.
fn words(types: EventTypes) -> Vec<String> {
    let all = EventType::ALL.iter().filter(|kind| types.contains(**kind));
    all.map(|kind| kind.as_str().to_owned()).collect()
}

/// `by_default`: what is posted where nothing else is configured; `None`: everything.
fn read_filter(
    reader: &mut Reader,
    name: &str,
    by_default: Option<EventTypes>,
    sources: &BTreeMap<String, Source>,
) -> Filter {
    let types: Vec<&str> = EventType::ALL
        .iter()
        .filter(|kind| **kind != EventType::Test)
        .map(|kind| kind.as_str())
        .collect();
    let wanted = format!(
        "a type of events: use `*`, a beginning like `alert.*`, or one of {}",
        types.join(", ")
    );
    let mut events = reader.list(&format!("webhooks.{name}.events"), &wanted, read_pattern);
    if events.is_empty() {
        events = by_default.map_or_else(|| vec!["*".to_owned()], words);
    }
    let known: Vec<&str> = sources.keys().map(String::as_str).collect();
    let wanted = format!("a configured source: use one of {}", known.join(", "));
    let read = |text: &str| sources.contains_key(text).then(|| text.to_owned());
    Filter {
        events,
        sources: reader.list(&format!("webhooks.{name}.sources"), &wanted, read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::read_sources, domain::phone::Region};

    fn with(settings: &[(&str, &str)]) -> (Vec<Settings>, Vec<String>, Vec<String>) {
        let mut reader = Reader::with(settings);
        let sources = read_sources(&mut reader, Region::parse("US").unwrap());
        let endpoints = Settings::read_all(&mut reader, &sources);
        let (faults, warnings, _) = reader.finish();
        (endpoints, faults.into_iter().map(|fault| fault.key).collect(), warnings)
    }

    #[test]
    fn an_address_and_a_secret_are_enough() {
        let secret = Secret::make();
        let (endpoints, faults, warnings) = with(&[
            ("WEBHOOKS__DESK__URL", "https://desk.example.com:8443/hooks/hush-hush"),
            ("WEBHOOKS__DESK__SECRET", &secret),
        ]);

        assert!(faults.is_empty() && warnings.is_empty(), "{faults:?} {warnings:?}");
        assert_eq!(endpoints[0].host().unwrap(), "desk.example.com:8443");
        assert!(endpoints[0].filter.wants_type("alert.created") && endpoints[0].filter.wants_type("new.type"));
        assert!(!wanted(&endpoints).contains(EventType::Test) && wanted(&endpoints).contains(EventType::AlarmRaised));
        assert_eq!(wanted(&[]), EventTypes::default());
    }

    #[test]
    fn every_fault_of_every_endpoint_is_found_at_once() {
        let (_, faults, warnings) = with(&[
            ("WEBHOOKS__A__URL", "ftp://x.example.com"),
            ("WEBHOOKS__A__SECRET", "hush-hush"),
            ("WEBHOOKS__A__EVENTS", "alert.*,alert.burned,*.created"),
            ("WEBHOOKS__A__SOURCES", "default,nobody"),
            ("WEBHOOKS__A__TIMEOUT", "1h"),
            ("WEBHOOKS__B_C__URL", "https://x.example.com"),
            ("WEBHOOKS__D__KIND", "pigeon"),
            ("WEBHOOKS__E__URL", "https://169.254.169.254/"),
            ("WEBHOOKS__E__PREVIOUS_SECRET", &Secret::make()),
        ]);

        assert_eq!(
            faults,
            [
                "webhooks.a.url",
                "webhooks.a.secret",
                "webhooks.a.events",
                "webhooks.a.events",
                "webhooks.a.sources",
                "webhooks.a.timeout",
                "webhooks.b_c",
                "webhooks.d.kind",
                "webhooks.d.url",
                "webhooks.e.url",
                "webhooks.e.previous_secret",
            ]
        );
        assert!(!warnings.join("").contains("hush"));
    }

    #[test]
    fn what_has_no_source_passes_every_filter_of_sources() {
        let filter = Filter {
            events: vec!["alert.*".into(), "alarm.raised".into()],
            sources: vec!["acme".into()],
        };

        assert!(filter.wants_source(None) && filter.wants_source(Some("acme")) && !filter.wants_source(Some("other")));
        assert!(
            filter.wants_type("alert.closed")
                && filter.wants_type("alarm.raised")
                && !filter.wants_type("delivery.sent")
        );
    }
}
