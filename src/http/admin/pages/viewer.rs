//! Who looks at a page, and the secret that their browser shares with us: the value of its cookie. From it everything else is
//! derived, so that what is stored, and what stands in pages, is of no use to anybody else.

use axum::http::{HeaderMap, HeaderValue, header};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How long a browser keeps the cookie; how long the session lasts is ours to say.
const MAX_AGE_S: u32 = 7 * 24 * 60 * 60;

/// The value of the cookie: 256 random bits, in hexadecimal.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn random() -> Self {
        Self(hex(&rand::random::<[u8; 32]>()))
    }

    /// Reads what a browser sent.
    fn parse(text: &str) -> Option<Self> {
        let is_ours = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_ours.then(|| Self(text.to_owned()))
    }

    /// Under which its session is kept.
    pub fn id(&self) -> String {
        hex(&Sha256::digest(&self.0))
    }

    /// A value for one purpose that nobody can make without the secret.
    fn derive(&self, purpose: &str, data: &[u8]) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()) else {
            // An HMAC takes keys of every length.
            unreachable!("an HMAC takes keys of every length")
        };
        mac.update(purpose.as_bytes());
        mac.update(b"\0");
        mac.update(data);
        hex(&mac.finalize().into_bytes())
    }

    /// Shows that the session was made with the token of this digest.
    pub fn prove_token(&self, digest: &[u8; 32]) -> String {
        self.derive("token", digest)
    }

    /// Stands in every form, and proves that the form is from one of our pages.
    pub fn csrf(&self) -> String {
        self.derive("csrf", b"")
    }

    /// Names a number in an address without telling it.
    pub fn reference(&self, phone: &str) -> String {
        self.derive("reference", phone.as_bytes()).chars().take(32).collect()
    }
}

/// Whether two texts are the same; how long the comparison takes does not say where they differ.
pub fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who looks at a page.
#[derive(Clone)]
pub struct Viewer {
    pub secret: Secret,
    /// As a trusted proxy names them; `None` for whoever logged in with the token.
    pub name: Option<String>,
}

impl Viewer {
    /// For the log: the name that the proxy gives, or the beginning of the session's id.
    pub fn who(&self) -> String {
        match &self.name {
            Some(name) => format!("proxy user {name}"),
            None => format!("session {}", self.secret.id().chars().take(8).collect::<String>()),
        }
    }
}

/// How the cookie goes to the browser and back.
#[derive(Clone, Copy)]
pub struct Cookie {
    /// Whether the browser came over https: then it gives the cookie to nobody else.
    pub is_secure: bool,
}

impl Cookie {
    fn name(self) -> &'static str {
        if self.is_secure {
            "__Host-nightbell_session"
        } else {
            "nightbell_session"
        }
    }

    /// What the browser sent.
    pub fn read(self, headers: &HeaderMap) -> Option<Secret> {
        let cookies = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut pairs = cookies
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        pairs.find_map(|(name, value)| Secret::parse(value).filter(|_| name == self.name()))
    }

    /// Lets the browser keep a secret.
    pub fn set(self, secret: &Secret) -> HeaderValue {
        self.header(&secret.0, MAX_AGE_S)
    }

    /// Lets the browser forget it.
    pub fn clear(self) -> HeaderValue {
        self.header("", 0)
    }

    fn header(self, value: &str, max_age_s: u32) -> HeaderValue {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let text = format!(
            "{}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}",
            self.name()
        );
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_comes_back_as_it_went_and_only_under_its_own_name() {
        let secret = Secret::random();
        let (secure, plain) = (Cookie { is_secure: true }, Cookie { is_secure: false });
        let set = secure.set(&secret);
        let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        let headers = HeaderMap::from_iter([(header::COOKIE, format!("a=b; {pair}").parse().unwrap())]);

        assert_eq!(secure.read(&headers).unwrap().id(), secret.id());
        assert!(plain.read(&headers).is_none());
        assert!(set.to_str().unwrap().ends_with("HttpOnly; SameSite=Strict; Secure"));
    }

    #[test]
    fn what_is_derived_differs_by_purpose_and_by_secret() {
        let (one, other) = (Secret::random(), Secret::random());

        assert_ne!(one.csrf(), other.csrf());
        assert_ne!(one.csrf(), one.prove_token(&[0; 32]));
        assert_ne!(one.reference("+1"), one.reference("+2"));
        assert!(is_same(&one.csrf(), &one.csrf()) && !is_same(&one.csrf(), &other.csrf()));
    }
}
