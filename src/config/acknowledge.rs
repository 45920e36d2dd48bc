//! How people acknowledge alerts.

use super::reader::Reader;
use crate::domain::{
    ack_link::Links,
    acknowledge::{AcknowledgeRules, Acknowledging},
};
use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// A shorter secret could be found by trying.
const MIN_SECRET: usize = 32;
const MIN_LIFETIME: SignedDuration = SignedDuration::from_mins(5);
const MAX_LIFETIME: SignedDuration = SignedDuration::from_hours(31 * 24);

/// Reads `acknowledge.…`; `public_url` is where links lead to.
pub fn read_acknowledge(reader: &mut Reader, public_url: Option<&Url>) -> Acknowledging {
    let rules = AcknowledgeRules {
        cancels_others: reader.flag("acknowledge.cancels_others", true),
    };
    let has_code = reader.flag("acknowledge.code", false);
    let has_link = reader.flag("acknowledge.link", false);
    let lifetime = reader.duration("acknowledge.link_expires", "72h", MIN_LIFETIME, MAX_LIFETIME);
    let secrets = read_secrets(reader);
    if has_link && secrets.is_empty() && !reader.has_fault("acknowledge.secret") {
        reader.fault_secret(
            "acknowledge.secret",
            "is not set, but `acknowledge.link` is: set a secret of at least 32 characters, for example one made by `openssl rand -hex 24`",
        );
    }
    if has_link && public_url.is_none() && !reader.has_fault("public_url") {
        reader.fault(
            "acknowledge.link",
            "needs `public_url`, the address at which phones reach this service: set it, or remove this setting",
        );
    }
    let links = public_url
        .filter(|_| !secrets.is_empty())
        .map(|base| Links::new(base.clone(), secrets, lifetime));
    Acknowledging {
        rules,
        has_code,
        has_link,
        links,
    }
}

/// One, or two during a rotation: the first makes links, both are believed.
fn read_secrets(reader: &mut Reader) -> Vec<SecretString> {
    let secrets = reader.secret_list("acknowledge.secret");
    if secrets.len() > 2 {
        reader.fault_secret(
            "acknowledge.secret",
            "has more than two entries: name the new secret, and the one before it for as long as its links count",
        );
    }
    let is_short = |secret: &SecretString| secret.expose_secret().chars().count() < MIN_SECRET;
    if secrets.iter().any(is_short) {
        reader.fault_secret(
            "acknowledge.secret",
            "is shorter than 32 characters: set a longer one, for example one made by `openssl rand -hex 24`",
        );
        return Vec::new();
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0123456789abcdef0123456789abcdef";

    fn faults(environment: &[(&str, &str)], public_url: Option<&str>) -> Vec<String> {
        let mut reader = Reader::with(environment);
        let url = public_url.map(|url| url.parse().unwrap());
        read_acknowledge(&mut reader, url.as_ref());
        reader.fault_keys()
    }

    #[test]
    fn a_link_needs_a_long_secret_and_an_address() {
        let on = ("ACKNOWLEDGE__LINK", "true");
        let secret = |value| ("ACKNOWLEDGE__SECRET", value);
        let here = Some("https://bell.example");

        assert_eq!(faults(&[], None), [""; 0]);
        assert_eq!(faults(&[on, secret(GOOD)], here), [""; 0]);
        assert_eq!(faults(&[on, secret(GOOD)], None), ["acknowledge.link"]);
        assert_eq!(faults(&[on], here), ["acknowledge.secret"]);
        assert_eq!(faults(&[on, secret("short")], here), ["acknowledge.secret"]);
        let two = format!("{GOOD},{GOOD}x");
        let (three, one_short) = (format!("{two},{GOOD}y"), format!("{GOOD},short"));
        assert_eq!(faults(&[on, secret(&two)], here), [""; 0]);
        assert_eq!(faults(&[on, secret(&three)], here), ["acknowledge.secret"]);
        assert_eq!(faults(&[on, secret(&one_short)], here), ["acknowledge.secret"]);
    }
}
