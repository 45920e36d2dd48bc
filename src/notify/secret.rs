//! Signing secrets and signatures by Standard Webhooks (standardwebhooks.com, specification 1.0): `v1,` and the base64 of
//! HMAC-SHA256 over `id.timestamp.body`.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;
use std::ops::RangeInclusive;

const PREFIX: &str = "whsec_";
/// The specification wants 24 to 64 bytes.
const LENGTHS: RangeInclusive<usize> = 24..=64;

/// A key that events are signed with.
#[derive(Clone)]
pub struct Secret(SecretSlice<u8>);

impl Secret {
    /// Reads it as receivers have it: `whsec_` and base64.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text.strip_prefix(PREFIX)?).ok()?;
        LENGTHS.contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The text of a new one.
    pub fn make() -> String {
        format!("{PREFIX}{}", BASE64.encode(rand::random::<[u8; 32]>()))
    }

    /// The signature of a body that is posted with this id at this time (seconds since 1970).
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        // HMAC takes keys of every length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()) else {
            return String::new();
        };
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own test vectors.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();

        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );

        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_is_made_can_be_read_and_what_is_none_cannot() {
        assert!(Secret::parse(&Secret::make()).is_some());
        assert_ne!(Secret::make(), Secret::make());
        let short = format!("whsec_{}", BASE64.encode([1; 23]));
        let long = format!("whsec_{}", BASE64.encode([1; 65]));
        for text in [
            "",
            "whsec_",
            "hush-hush",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_?",
            &short,
            &long,
        ] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
    }
}
