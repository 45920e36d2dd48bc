//! The helpdesks: `sources.<name>.…`. Absent: how one is polled (see `source::settings`).

use super::{presets, reader::Reader};
use crate::domain::{
    event::{DEFAULT_SOURCE, Recipient},
    mapping::{Mapping, Rule},
    phone::Region,
    source::{Kind, LaterRecipients, Source},
    urgency::{Level, Matcher, Urgencies},
    verifier::{Algorithm, Encoding, KeyForm, Scheme, Verifier},
};
use jiff::SignedDuration;
use std::collections::BTreeMap;
use url::Url;

/// Reads all of them; the default one is always there.
pub fn read_sources(reader: &mut Reader, default_region: Region) -> BTreeMap<String, Source> {
    let mut names = reader.names_below("sources");
    names.insert(DEFAULT_SOURCE.to_owned());
    let read = |name: String| (name.clone(), read_source(reader, &name, default_region));
    names.into_iter().map(read).collect()
}

fn read_source(reader: &mut Reader, name: &str, default_region: Region) -> Source {
    let prefix = format!("sources.{name}");
    let key = |member: &str| format!("{prefix}.{member}");
    let kind = reader.choice(&key("kind"), "native", &Kind::ALL);
    put_preset(reader, &prefix, kind);
    let tokens = reader.secret_list(&key("tokens"));
    let region = reader
        .optional(&key("region"), "a country code like `DE`", Region::parse)
        .unwrap_or(default_region);
    let base_url = reader.optional(
        &key("base_url"),
        "the helpdesk's web address like `https://help.example.com`",
        Reader::web_url,
    );
    // What speaks REST has its links below the same address.
    let base_url = base_url.or_else(|| match kind {
        Kind::Rt | Kind::Zammad | Kind::Redmine => reader.peek(&key("url")).and_then(|url| Reader::web_url(&url)),
        Kind::Native | Kind::Webhook | Kind::OsTicket => None,
    });
    Source {
        kind,
        tokens,
        verifier: read_verifier(reader, &prefix),
        answers_challenges: reader.flag(&key("challenge"), false),
        delivery_header: reader.text(&key("delivery_id")).map(|name| name.to_lowercase()),
        mapping: read_mapping(reader, &prefix, base_url.as_ref().map(Url::as_str)),
        base_url,
        urgencies: read_urgencies(reader, &prefix),
        region,
        // Read by the same region as they will be when somebody is texted.
        fallback_recipients: read_recipients(reader, &key("fallback_recipients"), region),
        later_recipients: reader.choice(
            &key("later_recipients"),
            "untold",
            &[("untold", LaterRecipients::Untold), ("each", LaterRecipients::Each)],
        ),
        daily_limit: reader.optional(&key("daily_limit"), "a whole number from 0 to 10000000", |text| {
            text.parse().ok().filter(|limit| (0..=10_000_000).contains(limit))
        }),
        is_polled: kind.is_polled() && reader.has(&key("url")),
    }
}

/// Puts what is known of the kind of helpdesk under what the admin has written.
fn put_preset(reader: &mut Reader, prefix: &str, kind: Kind) {
    let key = format!("{prefix}.preset");
    let default = match kind {
        Kind::Native | Kind::Webhook => None,
        Kind::OsTicket | Kind::Rt | Kind::Zammad | Kind::Redmine => Some(kind.as_str()),
    };
    let wanted = presets::names()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    let wanted = format!("one of {wanted}; leave it out to write `map` and `urgency` yourself");
    let named = reader.optional(&key, &wanted, presets::find);
    if let Some(text) = named.or_else(|| default.and_then(presets::find)) {
        reader.put_preset(prefix, text);
    }
}

fn read_verifier(reader: &mut Reader, prefix: &str) -> Option<Verifier> {
    let key = |member: &str| format!("{prefix}.{member}");
    let secrets = reader.secret_list(&key("secret"));
    // A scheme is read also without a secret, so that a fault in it is said.
    let has_scheme = reader.has(&key("verify.header"));
    let mut scheme = if has_scheme {
        Scheme::plain()
    } else {
        Scheme::standard()
    };
    if let Some(header) = reader.text(&key("verify.header")) {
        scheme.header = header.to_lowercase();
    }
    let algorithms = [("sha256", Algorithm::Sha256), ("sha1", Algorithm::Sha1)];
    scheme.algorithm = reader.choice(&key("verify.algorithm"), "sha256", &algorithms);
    let (encodings, forms) = (
        [("hex", Encoding::Hex), ("base64", Encoding::Base64)],
        [("text", KeyForm::Text), ("base64", KeyForm::Base64)],
    );
    let (encoding, form) = if has_scheme {
        ("hex", "text")
    } else {
        ("base64", "base64")
    };
    scheme.encoding = reader.choice(&key("verify.encoding"), encoding, &encodings);
    let form = reader.choice(&key("verify.key"), form, &forms);
    if let Some(prefix) = reader.text(&key("verify.prefix")) {
        scheme.prefix = prefix;
    }
    if has_scheme {
        scheme.timestamp_header = reader
            .text(&key("verify.timestamp_header"))
            .map(|name| name.to_lowercase());
        scheme.id_header = reader.text(&key("verify.id_header")).map(|name| name.to_lowercase());
        let signed = reader.text(&key("verify.signed")).unwrap_or_else(|| "{body}".into());
        if let Err(problem) = scheme.read_signed(&signed) {
            reader.fault(&key("verify.signed"), &problem);
        }
    }
    let longest = SignedDuration::from_hours(24);
    let window = reader.duration(&key("verify.window"), "5m", SignedDuration::ZERO, longest);
    scheme.window = (!window.is_zero() && scheme.timestamp_header.is_some()).then_some(window);
    if secrets.is_empty() {
        return None;
    }
    Verifier::new(scheme, form, &secrets)
        .inspect_err(|problem| reader.fault_secret(&key("secret"), problem))
        .ok()
}

fn read_mapping(reader: &mut Reader, prefix: &str, base_url: Option<&str>) -> Mapping {
    let below = format!("{prefix}.map");
    let mut mapping = Mapping::default();
    for (field, texts) in reader.entries_below(&below) {
        let key = format!("{below}.{field}");
        let mut rules = Vec::new();
        for text in texts {
            // A link by the helpdesk's own address is left out where nobody has said what that is.
            if text.contains("{base_url}") && base_url.is_none() {
                continue;
            }
            match Rule::parse(&text, base_url) {
                Ok(rule) => rules.push(rule),
                Err(problem) => reader.fault(&key, &problem),
            }
        }
        if rules.is_empty() {
            continue;
        }
        if let Err(problem) = mapping.set(&field, rules) {
            reader.fault(&key, &problem);
        }
    }
    let closed = reader.list(&format!("{prefix}.closed"), "a status", |text| Some(text.to_owned()));
    mapping.set_closed(closed);
    if !mapping.is_empty() {
        for field in mapping.lacks().collect::<Vec<_>>() {
            let key = format!("{below}.{field}");
            reader.fault(
                &key,
                "is not set: say where it stands in what the helpdesk sends, like `/ticket/id`",
            );
        }
    }
    mapping
}

fn read_urgencies(reader: &mut Reader, prefix: &str) -> Urgencies {
    let below = format!("{prefix}.urgency");
    let mut urgencies = Urgencies::default();
    for (raw, levels) in reader.entries_below(&below) {
        let key = format!("{below}.{raw}");
        let level = levels.first().and_then(|word| Level::parse(word));
        match (Matcher::parse(&raw), level) {
            (Some(matcher), Some(level)) => urgencies.set(matcher, level),
            (None, _) => reader.fault(
                &key,
                "is no word or range: write the helpdesk's own word, or a range like `>= 80` or `50..79`",
            ),
            (_, None) => reader.fault(&key, "is not one of `critical`, `high`, `normal`, `low`"),
        }
    }
    urgencies
}

/// Fallback recipients: numbers, or tables with `phone`, `name`, `role`, `staff_id` and `region`.
fn read_recipients(reader: &mut Reader, key: &str, default_region: Region) -> Vec<Recipient> {
    let mut recipients = Vec::new();
    for item in reader.items(key) {
        let member = |name: &str| item.get(name).cloned();
        let recipient = Recipient {
            staff_id: member("staff_id"),
            role: member("role"),
            name: member("name"),
            phone: member("phone"),
            region: member("region").map(|name| Region::parse(&name).unwrap_or(Region::UNKNOWN)),
        };
        if recipient.read_phone(default_region).is_ok() {
            recipients.push(recipient);
        } else {
            reader.fault_secret(key, "has an entry without a usable phone: write each with `+` and country code and without an extension, like `\"+14155550101\"` or `{ phone = \"+14155550101\", name = \"Grace\" }`; one without a country code needs a `region` like `DE`");
        }
    }
    recipients
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_made_by_naming_it() {
        let mut reader = Reader::with(&[
            ("SOURCES__ACME__TOKENS", "one, two"),
            ("SOURCES__ACME__REGION", "de"),
            ("SOURCES__ACME__FALLBACK_RECIPIENTS", "+14155550101,+14155550102"),
            ("SOURCES__ACME__LATER_RECIPIENTS", "each"),
        ]);

        let sources = read_sources(&mut reader, Region::parse("US").unwrap());

        let acme = &sources["acme"];
        assert_eq!(reader.fault_keys(), [""; 0]);
        assert_eq!(
            (
                acme.tokens.len(),
                acme.region.to_string(),
                acme.fallback_recipients.len()
            ),
            (2, "DE".to_owned(), 2)
        );
        assert!(acme.later_recipients == LaterRecipients::Each && sources.contains_key("default"));
    }
}
