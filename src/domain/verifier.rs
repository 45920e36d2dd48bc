//! Whether a helpdesk's webhook is signed with the secret that we share: one verifier, of which the kinds of signatures are
//! parameters. Compared in constant time, over the body as it came. Absent: Twilio's signature, which covers addresses and
//! forms (see `carrier::twilio`), and which source a request is for.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Base64 as people copy it, with its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// More signatures than this has no sender, also during a rotation.
const MAX_SIGNATURES: usize = 10;
/// In front of the key of a Standard Webhooks secret (standardwebhooks.com, "Signature scheme").
const KEY_PREFIX: &str = "whsec_";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha1,
    Sha256,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Hex,
    Base64,
}

/// How the shared secret becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Its text.
    Text,
    /// The bytes that it is the base64 of, after `whsec_` if that is there.
    Base64,
}

/// What is signed, part by part.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Body,
    /// The header with the time, as it came.
    Timestamp,
    /// The header with the id of the delivery.
    Id,
}

/// How the signatures of a source look.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// The header with the signature; of several between blanks, one that fits is enough.
    pub header: String,
    pub algorithm: Algorithm,
    pub encoding: Encoding,
    /// In front of each signature.
    pub prefix: String,
    /// The header with the time of sending.
    pub timestamp_header: Option<String>,
    /// The header with the id of the delivery.
    pub id_header: Option<String>,
    /// How far the time of sending may lie from now; `None` where the time is another one (GLPI's is of queueing).
    pub window: Option<SignedDuration>,
    signed: Vec<Part>,
}

impl Scheme {
    /// Reads what is signed: text with `{body}`, `{timestamp}` and `{id}`. Fails with what is wrong.
    pub fn read_signed(&mut self, text: &str) -> Result<(), String> {
        let (mut signed, mut rest) = (Vec::new(), text);
        while let Some(start) = rest.find('{') {
            if start > 0 {
                signed.push(Part::Literal(rest[..start].to_owned()));
            }
            let end = rest.find('}').ok_or("has a `{` that is not closed")?;
            signed.push(match &rest[start + 1..end] {
                "body" => Part::Body,
                "timestamp" if self.timestamp_header.is_some() => Part::Timestamp,
                "timestamp" => return Err("has `{timestamp}`, and `verify.timestamp_header` is not set".into()),
                "id" if self.id_header.is_some() => Part::Id,
                "id" => return Err("has `{id}`, and `verify.id_header` is not set".into()),
                other => {
                    return Err(format!(
                        "has `{{{other}}}`: use `{{body}}`, `{{timestamp}}` and `{{id}}`"
                    ));
                }
            });
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            signed.push(Part::Literal(rest.to_owned()));
        }
        if !signed.contains(&Part::Body) {
            return Err("does not hold `{body}`: anybody could send another body with the same signature".into());
        }
        self.signed = signed;
        Ok(())
    }

    /// A signature of the body alone, without an id or a time.
    pub fn plain() -> Self {
        Self {
            prefix: String::new(),
            timestamp_header: None,
            id_header: None,
            signed: vec![Part::Body],
            ..Self::standard()
        }
    }

    /// That of Standard Webhooks.
    pub fn standard() -> Self {
        Self {
            header: "webhook-signature".into(),
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Base64,
            prefix: "v1,".into(),
            timestamp_header: Some("webhook-timestamp".into()),
            id_header: Some("webhook-id".into()),
            window: Some(SignedDuration::from_mins(5)),
            signed: vec![
                Part::Id,
                Part::Literal(".".into()),
                Part::Timestamp,
                Part::Literal(".".into()),
                Part::Body,
            ],
        }
    }
}

/// Checks the signatures of a source.
#[derive(Clone)]
pub struct Verifier {
    pub scheme: Scheme,
    /// Two of them during a rotation.
    keys: Vec<SecretSlice<u8>>,
}

impl Verifier {
    /// Makes the keys of the shared secrets. Fails with what is wrong with one of them, without quoting it.
    pub fn new(scheme: Scheme, form: KeyForm, secrets: &[SecretString]) -> Result<Self, String> {
        let key = |secret: &SecretString| {
            let text = secret.expose_secret();
            match form {
                KeyForm::Text => Ok(text.as_bytes().to_vec().into()),
                KeyForm::Base64 => {
                    let bytes = BASE64.decode(text.strip_prefix(KEY_PREFIX).unwrap_or(text));
                    let bytes = bytes.ok().filter(|bytes| !bytes.is_empty());
                    bytes.map(SecretSlice::from).ok_or_else(|| {
                        "is not base64: copy the whole secret, which begins with `whsec_` or is base64 by itself"
                            .to_owned()
                    })
                }
            }
        };
        let keys = secrets.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Self { scheme, keys })
    }

    /// Checks a request; the error says in words why it is not accepted. `header` finds a header's value by its lower-case
    /// name.
    pub fn verify<'a>(
        &self,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), String> {
        let scheme = &self.scheme;
        let needed = |name: &str| {
            let value = header(name).map(str::trim).filter(|value| !value.is_empty());
            value.ok_or_else(|| format!("it has no `{name}` header"))
        };
        let given = needed(&scheme.header)?;
        let timestamp = scheme.timestamp_header.as_deref().map(needed).transpose()?;
        let id = scheme.id_header.as_deref().map(needed).transpose()?;
        let mut message = Vec::with_capacity(body.len() + 64);
        for part in &scheme.signed {
            message.extend_from_slice(match part {
                Part::Literal(text) => text.as_bytes(),
                Part::Body => body,
                Part::Timestamp => timestamp.unwrap_or_default().as_bytes(),
                Part::Id => id.unwrap_or_default().as_bytes(),
            });
        }
        // Whoever sent it is unknown yet: little is read, and the body is hashed once for each key.
        let given = given.split_whitespace().take(MAX_SIGNATURES);
        let signatures: Vec<Vec<u8>> = given.filter_map(|text| self.decode(text)).collect();
        if signatures.is_empty() {
            return Err(format!(
                "what `{}` holds is no signature of the configured kind (`verify.prefix`, `verify.encoding`)",
                scheme.header
            ));
        }
        // Every one is compared, so the time taken says nothing about which one matched.
        let mut is_valid = false;
        for key in &self.keys {
            let right = mac(scheme.algorithm, key.expose_secret(), &message);
            for signature in &signatures {
                is_valid |= bool::from(right.ct_eq(signature));
            }
        }
        if !is_valid {
            return Err("the signature does not match the body and the secret".into());
        }
        // Only now is it known who says so.
        match (scheme.window, timestamp) {
            (Some(window), Some(timestamp)) => is_recent(timestamp, window, now),
            (None, _) | (_, None) => Ok(()),
        }
    }

    fn decode(&self, text: &str) -> Option<Vec<u8>> {
        let text = text.strip_prefix(&self.scheme.prefix)?;
        let bytes = match self.scheme.encoding {
            Encoding::Hex => decode_hex(text),
            Encoding::Base64 => BASE64.decode(text).ok(),
        };
        bytes.filter(|bytes| !bytes.is_empty())
    }

    /// The answer to a challenge by which GLPI proves that we have the secret: the hex HMAC-SHA256 of what it sent. Only
    /// letters, digits, `-` and `_` are answered: anybody may ask, and the answer to a JSON object would be the signature by
    /// which we would take that object for GLPI's.
    pub fn answer_challenge(&self, challenge: &str) -> Option<String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let key = self.keys.first().filter(|_| challenge.bytes().all(is_plain))?;
        let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).ok()?;
        mac.update(challenge.as_bytes());
        let bytes = mac.finalize().into_bytes();
        Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn mac(algorithm: Algorithm, key: &[u8], message: &[u8]) -> Vec<u8> {
    fn compute<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
        // HMAC takes keys of every length; nothing equals nothing, since no signature is empty.
        <M as KeyInit>::new_from_slice(key).map_or_else(
            |_| Vec::new(),
            |mut mac| {
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            },
        )
    }
    match algorithm {
        Algorithm::Sha1 => compute::<Hmac<Sha1>>(key, message),
        Algorithm::Sha256 => compute::<Hmac<Sha256>>(key, message),
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digits = (0..text.len()).step_by(2).map(|start| &text[start..start + 2]);
    digits.map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

/// Checks a time of sending, in seconds since 1970 or by RFC 3339 (Zendesk).
fn is_recent(text: &str, window: SignedDuration, now: Timestamp) -> Result<(), String> {
    let seconds = text
        .parse::<i64>()
        .ok()
        .and_then(|number| Timestamp::from_second(number).ok());
    let at = seconds.or_else(|| text.parse().ok());
    let at = at.ok_or("its time of sending cannot be read")?;
    let distance = now.duration_since(at);
    if distance.abs() > window {
        return Err(format!(
            "it says that it was sent {} seconds {}, and only {} are allowed: it is a repeat, or a clock is wrong",
            distance.as_secs().abs(),
            if distance.is_negative() { "in the future" } else { "ago" },
            window.as_secs()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const BODY: &[u8] = br#"{"ticket":{"id":7}}"#;

    fn now() -> Timestamp {
        Timestamp::from_second(1_795_167_343).unwrap()
    }

    fn scheme(header: &str, algorithm: Algorithm, encoding: Encoding, prefix: &str, signed: &str) -> Scheme {
        let mut scheme = Scheme {
            header: header.into(),
            algorithm,
            encoding,
            prefix: prefix.into(),
            timestamp_header: signed.contains("{timestamp}").then(|| "x-time".into()),
            id_header: None,
            window: None,
            signed: Vec::new(),
        };
        scheme.read_signed(signed).unwrap();
        scheme
    }

    fn check(verifier: &Verifier, headers: &[(&str, &str)], body: &[u8]) -> Result<(), String> {
        let headers: BTreeMap<&str, &str> = headers.iter().copied().collect();
        verifier.verify(|name| headers.get(name).copied(), body, now())
    }

    /// Computed by OpenSSL, of `BODY` (with `1795167343` before or after it) under the key `hush`.
    #[test]
    fn every_kind_of_signature_is_checked() {
        for (scheme, headers) in vectors() {
            let verifier = Verifier::new(scheme, KeyForm::Text, &["hush".into()]).unwrap();
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();

            assert_eq!(check(&verifier, &headers, BODY), Ok(()), "{headers:?}");
            let mut flipped = BODY.to_vec();
            flipped[3] ^= 1;
            assert!(
                check(&verifier, &headers, &flipped)
                    .unwrap_err()
                    .contains("does not match")
            );
            let other = Verifier::new(verifier.scheme.clone(), KeyForm::Text, &["other".into()]).unwrap();
            assert!(check(&other, &headers, BODY).is_err());
            let rotated = Verifier::new(verifier.scheme, KeyForm::Text, &["other".into(), "hush".into()]).unwrap();
            assert_eq!(check(&rotated, &headers, BODY), Ok(()));
        }
    }

    fn vectors() -> Vec<(Scheme, Vec<(&'static str, String)>)> {
        include_str!("../../tests/data/helpdesk_signatures.txt")
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| {
                let mut cells = line.split('|');
                let mut next = || cells.next().unwrap().to_owned();
                let (header, algorithm, encoding, prefix, signed, value) =
                    (next(), next(), next(), next(), next(), next());
                let algorithm = if algorithm == "sha1" {
                    Algorithm::Sha1
                } else {
                    Algorithm::Sha256
                };
                let encoding = if encoding == "hex" {
                    Encoding::Hex
                } else {
                    Encoding::Base64
                };
                let header: &'static str = header.leak();
                (
                    scheme(header, algorithm, encoding, &prefix, &signed),
                    vec![(header, value), ("x-time", "1795167343".into())],
                )
            })
            .collect()
    }

    #[test]
    fn a_standard_webhook_is_checked_with_its_time_and_among_several_signatures() {
        // From a run of osTicket with a plugin that signs (facts/helpdesks.md, 1.4), re-computed by OpenSSL over BODY.
        let secret: SecretString = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=".into();
        let verifier = Verifier::new(Scheme::standard(), KeyForm::Base64, &[secret]).unwrap();
        let good = include_str!("../../tests/data/standard_webhook.txt").trim();
        let with = |time: &'static str, signature: String| {
            check(
                &verifier,
                &[
                    ("webhook-id", "msg_1"),
                    ("webhook-timestamp", time),
                    ("webhook-signature", &signature),
                ],
                BODY,
            )
        };

        assert_eq!(with("1795167343", good.to_owned()), Ok(()));
        assert_eq!(with("1795167343", format!("v1a,AAAA v1,AAAA {good}")), Ok(()));
        assert!(
            with("1795167344", good.to_owned())
                .unwrap_err()
                .contains("does not match")
        );
        assert!(
            with("1795167343", "v2,xyz".into())
                .unwrap_err()
                .contains("no signature")
        );
        assert!(with("1795167343", "v1,".into()).unwrap_err().contains("no signature"));
        // The body is hashed for few of them: nobody has shown yet who sent it.
        assert!(with("1795167343", format!("{}{good}", "v1,AAAA ".repeat(MAX_SIGNATURES))).is_err());
        let late = now() + SignedDuration::from_secs(301);
        let headers = [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", "1795167343"),
            ("webhook-signature", good),
        ];
        let headers: BTreeMap<&str, &str> = headers.into_iter().collect();
        let stale = verifier
            .verify(|name| headers.get(name).copied(), BODY, late)
            .unwrap_err();
        assert!(stale.contains("301 seconds ago"), "{stale}");
        assert!(
            check(&verifier, &[("webhook-signature", good)], BODY)
                .unwrap_err()
                .contains("`webhook-timestamp`")
        );
    }

    #[test]
    fn a_challenge_is_no_way_to_a_signature() {
        let verifier = Verifier::new(Scheme::plain(), KeyForm::Text, &["hush".into()]).unwrap();

        assert!(verifier.answer_challenge("f3a9-B_7").is_some());
        for body in ["{\"item\":{}}1763630678", "[1]", "{}", "\"a\"", "a b", "ä"] {
            assert_eq!(verifier.answer_challenge(body), None, "{body}");
        }
    }

    #[test]
    fn what_is_signed_must_hold_the_body() {
        let mut scheme = Scheme::standard();
        for (text, wrong) in [
            ("{timestamp}", "does not hold `{body}`"),
            ("{body}{url}", "has `{url}`"),
            ("{body", "not closed"),
        ] {
            let error = scheme.read_signed(text).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
        assert!(Verifier::new(scheme, KeyForm::Base64, &["whsec_%%".into()]).is_err());
    }
}
