//! Links by which a person acknowledges an alert. The token says which message it stood in and until when it counts, and
//! proves that we made it: base64url of the delivery's id, the expiry, and the first half of an HMAC-SHA256 over both and
//! what it is for. Absent: whom it speaks for, which is looked up, so that nothing about a person is in it.

use super::{day::after, id::DeliveryId};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use url::Url;

/// So that nothing else which is made with this secret is a token, and a token is nothing else.
const PURPOSE: &[u8] = b"nightbell: acknowledge an alert, 1\0";
/// The id, the expiry in seconds, the proof.
const ID: usize = 16;
const EXPIRY: usize = 5;
const PROOF: usize = 18;
const TOKEN: usize = ID + EXPIRY + PROOF;

/// Makes and reads links.
#[derive(Clone)]
pub struct Links {
    /// Where we are reached from outside.
    base: Url,
    /// The first makes proofs, all are believed: two of them during a rotation.
    secrets: Vec<SecretString>,
    lifetime: SignedDuration,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadToken {
    /// We did not make it, or somebody changed it.
    NotOurs,
    Expired,
}

impl Links {
    pub fn new(base: Url, secrets: Vec<SecretString>, lifetime: SignedDuration) -> Self {
        Self {
            base,
            secrets,
            lifetime,
        }
    }

    /// The link for the message of this delivery; `None` if its id is none that we make.
    pub fn make(&self, delivery: &DeliveryId, now: Timestamp) -> Option<String> {
        let token = self.token(delivery, after(now, self.lifetime))?;
        Some(format!("{}/a/{token}", self.base.as_str().trim_end_matches('/')))
    }

    fn token(&self, delivery: &DeliveryId, expires_at: Timestamp) -> Option<String> {
        let id = uuid::Uuid::parse_str(delivery.as_str()).ok()?;
        let seconds = u64::try_from(expires_at.as_second()).ok()?;
        let mut token = Vec::with_capacity(TOKEN);
        token.extend_from_slice(id.as_bytes());
        token.extend_from_slice(seconds.to_be_bytes().last_chunk::<EXPIRY>()?);
        let proof = prove(self.secrets.first()?, PURPOSE, &token)?;
        token.extend_from_slice(&proof);
        Some(BASE64.encode(token))
    }

    /// Whose message a token stood in, if it counts.
    pub fn read(&self, token: &str, now: Timestamp) -> Result<DeliveryId, BadToken> {
        let bytes = BASE64.decode(token).map_err(|_| BadToken::NotOurs)?;
        let bytes: [u8; TOKEN] = bytes.try_into().map_err(|_| BadToken::NotOurs)?;
        let (said, proof) = bytes.split_at(ID + EXPIRY);
        let proves = |secret| prove(secret, PURPOSE, said).is_some_and(|made| bool::from(made.ct_eq(proof)));
        // All are tried, so that the time says nothing of which one it was.
        if !self
            .secrets
            .iter()
            .fold(false, |proven, secret| proves(secret) | proven)
        {
            return Err(BadToken::NotOurs);
        }
        let (id, expiry) = said.split_at(ID);
        let id = uuid::Uuid::from_slice(id).map_err(|_| BadToken::NotOurs)?;
        let expires_s = expiry.iter().fold(0, |seconds, byte| seconds << 8 | i64::from(*byte));
        if now.as_second() >= expires_s {
            return Err(BadToken::Expired);
        }
        Ok(id.to_string().into())
    }
}

fn prove(secret: &SecretString, purpose: &[u8], said: &[u8]) -> Option<[u8; PROOF]> {
    // HMAC takes keys of every length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(purpose);
    mac.update(said);
    mac.finalize().into_bytes().first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn links(secrets: &[&str]) -> Links {
        let secrets = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        Links::new(
            "https://bell.example/behind/".parse().unwrap(),
            secrets,
            SignedDuration::from_hours(72),
        )
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn delivery() -> DeliveryId {
        "019aa6f0-1234-7abc-8def-0123456789ab".into()
    }

    fn token(link: &str) -> &str {
        link.strip_prefix("https://bell.example/behind/a/").unwrap()
    }

    #[test]
    fn a_link_leads_to_its_message_until_it_expires() {
        let links = links(&[ONE]);
        let link = links.make(&delivery(), at("2026-11-22T00:00:00Z")).unwrap();

        assert_eq!(token(&link).len(), 52);
        let read = |now| links.read(token(&link), at(now));
        assert_eq!(read("2026-11-24T23:59:59Z"), Ok(delivery()));
        assert_eq!(read("2026-11-25T00:00:00Z"), Err(BadToken::Expired));
        assert_eq!(links.make(&"no uuid".into(), at("2026-11-22T00:00:00Z")), None);
    }

    #[test]
    fn no_changed_token_counts() {
        let (links, now) = (links(&[ONE]), at("2026-11-22T00:00:00Z"));
        let link = links.make(&delivery(), now).unwrap();
        let good = token(&link);

        for place in 0..good.len() {
            for other in ['A', 'B', '-', '_', '='] {
                let mut changed: Vec<char> = good.chars().collect();
                if changed[place] == other {
                    continue;
                }
                changed[place] = other;
                let changed: String = changed.into_iter().collect();
                assert_eq!(links.read(&changed, now), Err(BadToken::NotOurs), "{changed}");
            }
        }
        for bad in ["", "A", &good[1..], &format!("{good}A"), &format!("{good}AAAA"), "é"] {
            assert_eq!(links.read(bad, now), Err(BadToken::NotOurs), "{bad}");
        }
    }

    #[test]
    fn what_the_secret_proves_for_another_purpose_is_no_token() {
        let (links, now) = (links(&[ONE]), at("2026-11-22T00:00:00Z"));
        let link = links.make(&delivery(), now).unwrap();
        let mut bytes = BASE64.decode(token(&link)).unwrap();
        let said = bytes[..ID + EXPIRY].to_vec();
        let proof = prove(&ONE.into(), b"something else\0", &said).unwrap();
        bytes[ID + EXPIRY..].copy_from_slice(&proof);

        assert_eq!(links.read(&BASE64.encode(bytes), now), Err(BadToken::NotOurs));
    }

    #[test]
    fn a_rotation_leaves_the_links_in_sent_messages_in_force() {
        let now = at("2026-11-22T00:00:00Z");
        let old = links(&[ONE]).make(&delivery(), now).unwrap();
        let rotating = links(&[OTHER, ONE]);

        assert_eq!(rotating.read(token(&old), now), Ok(delivery()));
        let new = rotating.make(&delivery(), now).unwrap();
        assert_eq!(links(&[ONE]).read(token(&new), now), Err(BadToken::NotOurs));
        assert_eq!(links(&[OTHER]).read(token(&new), now), Ok(delivery()));
        assert_eq!(links(&[OTHER]).read(token(&old), now), Err(BadToken::NotOurs));
    }
}
