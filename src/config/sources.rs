//! The helpdesks: `sources.<name>.…`.

use super::reader::Reader;
use crate::domain::{
    event::{DEFAULT_SOURCE, Recipient},
    phone::Region,
    source::{LaterRecipients, Source},
};
use std::collections::BTreeMap;

/// Reads all of them; the default one is always there.
pub fn read_sources(reader: &mut Reader, default_region: Region) -> BTreeMap<String, Source> {
    let mut names = reader.names_below("sources");
    names.insert(DEFAULT_SOURCE.to_owned());
    let mut sources = BTreeMap::new();
    for name in names {
        let key = |member: &str| format!("sources.{name}.{member}");
        let tokens = reader.secret_list(&key("tokens"));
        let region = reader
            .optional(&key("region"), "a country code like `DE`", Region::parse)
            .unwrap_or(default_region);
        let source = Source {
            tokens,
            region,
            // Read by the same region as they will be when somebody is texted.
            fallback_recipients: read_recipients(reader, &key("fallback_recipients"), region),
            later_recipients: reader.choice(
                &key("later_recipients"),
                "untold",
                &[("untold", LaterRecipients::Untold), ("each", LaterRecipients::Each)],
            ),
            trusts_phones: reader.flag(&key("trust_phones"), true),
        };
        sources.insert(name, source);
    }
    sources
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
            ..Recipient::default()
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
            ("SOURCES__ACME__TRUST_PHONES", "false"),
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
        assert!(!acme.trusts_phones && sources["default"].trusts_phones);
    }
}
