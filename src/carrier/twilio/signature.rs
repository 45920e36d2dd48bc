//! Twilio's request signature: `base64(HMAC-SHA1(auth token, url + sorted form fields))`, as its security page says and
//! its libraries do it (twilio.com/docs/usage/security; where they differ, the Python and Node ones are followed).
//! Serves every webhook. Absent: which address is ours; the caller says, never a Host header.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use subtle::ConstantTimeEq;

/// A request whose signature is to be checked.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// The full address that Twilio called, with its raw query.
    pub url: &'a str,
    /// The Content-Type header, or nothing.
    pub content_type: &'a str,
    pub body: &'a [u8],
    /// The X-Twilio-Signature header.
    pub signature: &'a str,
}

/// Why a signature is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("no auth token is configured, so nothing can be checked: set `twilio.auth_token`")]
    NoToken,
    #[error("the X-Twilio-Signature header is missing or empty")]
    Missing,
    #[error("the signature is not base64 of 20 bytes, so it was changed on its way or is of another kind")]
    Malformed,
    #[error("the body is not a form, and the address has no bodySHA256 to check it by")]
    NoBodyHash,
    #[error("the body does not match the address's bodySHA256: it was changed on its way")]
    BodyHash,
    #[error("the signature does not match the address, the body and the auth token")]
    Mismatch,
}

/// Checks a signature against every token (two of them during a rotation); empty tokens never count.
pub fn verify(request: Signed<'_>, tokens: &[SecretString]) -> Result<(), Invalid> {
    let tokens: Vec<&SecretString> = tokens
        .iter()
        .filter(|token| !token.expose_secret().is_empty())
        .collect();
    if tokens.is_empty() {
        return Err(Invalid::NoToken);
    }
    if request.signature.is_empty() {
        return Err(Invalid::Missing);
    }
    let signature = BASE64
        .decode(request.signature)
        .ok()
        .filter(|bytes| bytes.len() == 20)
        .ok_or(Invalid::Malformed)?;

    let is_form = request
        .content_type
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    let fields = if is_form {
        sorted_fields(request.body)
    } else {
        Vec::new()
    };
    if !is_form && !request.body.is_empty() {
        check_body_hash(request)?;
    }
    let mut valid = false;
    for url in spellings(request.url) {
        for token in &tokens {
            // HMAC takes keys of every length.
            let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(token.expose_secret().as_bytes()) else {
                continue;
            };
            mac.update(url.as_bytes());
            for (name, value) in &fields {
                mac.update(name.as_bytes());
                mac.update(value.as_bytes());
            }
            // Every candidate is computed, so the time taken says nothing about which one matched.
            valid |= mac.verify_slice(&signature).is_ok();
        }
    }
    if valid { Ok(()) } else { Err(Invalid::Mismatch) }
}

/// The form's fields by name and value bytewise, each pair once: so do the Python and Node libraries with repeats.
fn sorted_fields(body: &[u8]) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut fields: Vec<_> = url::form_urlencoded::parse(body).collect();
    fields.sort();
    fields.dedup();
    fields
}

fn check_body_hash(request: Signed<'_>) -> Result<(), Invalid> {
    let query = request.url.split_once('?').map_or("", |(_, query)| query);
    let (_, expected) = url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "bodySHA256")
        .ok_or(Invalid::NoBodyHash)?;
    let actual: String = Sha256::digest(request.body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let is_equal = bool::from(expected.as_bytes().ct_eq(actual.as_bytes()));
    is_equal.then_some(()).ok_or(Invalid::BodyHash)
}

/// The ways in which Twilio may have spelled the address when it signed: as it is, and without its port or with the
/// scheme's own one. The fragment is never sent.
fn spellings(url: &str) -> Vec<String> {
    let url = url.split('#').next().unwrap_or(url);
    let mut spellings = vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else {
        return spellings;
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host_start = authority.rfind('@').map_or(0, |at| at + 1);
    let port_start = authority[host_start..]
        .rfind(':')
        .map(|colon| host_start + colon)
        .filter(|colon| !authority[*colon..].contains(']'));
    match port_start {
        Some(colon) => spellings.push(format!("{scheme}://{}{path}", &authority[..colon])),
        None => {
            let port = if scheme.eq_ignore_ascii_case("http") { 80 } else { 443 };
            spellings.push(format!("{scheme}://{authority}:{port}{path}"));
        }
    }
    spellings
}

/// For a person who asks why: addresses near the given one for which the signature would be valid.
pub fn near_misses(request: Signed<'_>, tokens: &[SecretString]) -> Vec<String> {
    let url = request.url;
    let bare = url.split(['?', '#']).next().unwrap_or(url);
    let swapped = match url.split_once("://") {
        Some(("http", rest)) => format!("https://{rest}"),
        Some(("https", rest)) => format!("http://{rest}"),
        _ => url.to_owned(),
    };
    let slashed = match url.split_once('?') {
        Some((path, query)) => format!("{path}/?{query}"),
        None => format!("{url}/"),
    };
    let unslashed = url.replacen("/?", "?", 1).trim_end_matches('/').to_owned();
    let lower = url.to_lowercase();
    let candidates = [swapped, bare.to_owned(), slashed, unslashed, lower];
    let is_valid = |url: &String| url != request.url && verify(Signed { url, ..request }, tokens).is_ok();
    candidates.into_iter().filter(is_valid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> [SecretString; 1] {
        [text.into()]
    }

    #[test]
    fn every_vector_of_the_official_library_gets_its_verdict() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../../tests/data/signature_vectors.json")).unwrap();

        for vector in &vectors {
            let text = |name: &str| vector[name].as_str().unwrap_or_default();
            let request = Signed {
                url: text("url"),
                content_type: text("content_type"),
                body: text("body_raw").as_bytes(),
                signature: text("signature"),
            };
            let verdict = verify(request, &token(text("auth_token")));
            assert_eq!(vector["valid"], verdict.is_ok(), "{}: {verdict:?}", text("name"));
        }

        assert_eq!(vectors.len(), 33);
    }

    #[test]
    fn the_documented_example_is_valid_and_empty_tokens_never_are() {
        // twilio.com/docs/usage/security, "Validating signatures".
        let request = Signed {
            url: "https://example.com/myapp.php?foo=1&bar=2",
            content_type: "application/x-www-form-urlencoded",
            body: b"CallSid=CA1234567890ABCDE&Caller=%2B14158675310&Digits=1234&From=%2B14158675310&To=%2B18005551212",
            signature: "L/OH5YylLD5NRKLltdqwSvS0BnU=",
        };

        let tokens = token("12345");
        assert_eq!(verify(request, &tokens), Ok(()));
        assert_eq!(
            verify(request, &["other".into(), "12345".into()]),
            Ok(()),
            "while they are rotated"
        );
        assert_eq!(verify(request, &token("")), Err(Invalid::NoToken));
        for (signature, why) in [("", Invalid::Missing), ("AAAA", Invalid::Malformed)] {
            assert_eq!(verify(Signed { signature, ..request }, &tokens), Err(why));
        }
        let url = "http://example.com/myapp.php?foo=1&bar=2";
        let http = Signed { url, ..request };
        assert_eq!(verify(http, &tokens), Err(Invalid::Mismatch));
        assert_eq!(near_misses(http, &tokens), [request.url]);
    }

    proptest::proptest! {
        #[test]
        fn no_request_makes_the_check_panic(url in "\\PC{0,60}", body: Vec<u8>, signature in "[A-Za-z0-9+/=]{0,30}", form: bool) {
            let content_type = if form { "application/x-www-form-urlencoded" } else { "application/json" };
            let _ = near_misses(Signed { url: &url, content_type, body: &body, signature: &signature }, &token("12345"));
        }
    }
}
