//! What the requests of Twilio's webhooks are checked by, and those that were rejected. The signature is checked over the
//! configured address, never over what the request says of itself. Absent: reading requests (see `twilio`), and how a
//! signature is computed (see `carrier::twilio::signature`).

use crate::{
    carrier::twilio::signature::{self, Signed},
    domain::text::clean_line,
};
use axum::http::{HeaderMap, header};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};
use url::Url;
use utoipa::ToSchema;

/// The header that carries a signature.
const SIGNATURE: &str = "x-twilio-signature";
/// How many rejected requests are kept.
const KEPT: usize = 100;

/// What the requests of Twilio are checked by, and those that failed.
#[derive(Default)]
pub struct Webhooks {
    /// The address that Twilio calls and signs for status callbacks.
    pub status_url: Option<Url>,
    /// The same for what people text us.
    pub inbound_url: Option<Url>,
    /// Two of them during a rotation.
    pub auth_tokens: Vec<SecretString>,
    pub rejections: Rejections,
}

/// What Twilio calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    Status,
    Inbound,
}

impl Webhook {
    /// What it posts, in words.
    pub fn posts(self) -> &'static str {
        match self {
            Self::Status => "a receipt",
            Self::Inbound => "a message that somebody sent us",
        }
    }
}

impl Webhooks {
    /// The address that is signed.
    fn address_of(&self, webhook: Webhook) -> Option<&Url> {
        match webhook {
            Webhook::Status => self.status_url.as_ref(),
            Webhook::Inbound => self.inbound_url.as_ref(),
        }
    }

    /// Checks a signature; the error says in words why it is not valid.
    pub fn verify(&self, webhook: Webhook, query: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
        let address = self.address_of(webhook);
        let address = address.ok_or("`public_url` is not set, so nothing can be checked")?;
        let address = address.as_str().split(['?', '#']).next().unwrap_or_default();
        let url = match query {
            "" => address.to_owned(),
            query => format!("{address}?{query}"),
        };
        let signed = Signed {
            url: &url,
            content_type: text(headers, header::CONTENT_TYPE.as_str()),
            body,
            signature: signature(headers),
        };
        signature::verify(signed, &self.auth_tokens).map_err(|invalid| invalid.to_string())
    }
}

/// The last rejected requests, redacted. In memory: they help to find a wrong setting and prove nothing.
#[derive(Default)]
pub struct Rejections(Mutex<Rejected>);

/// How many were rejected since the start, and the last of them, newest first.
#[derive(Clone, Default, Serialize, ToSchema)]
pub struct Rejected {
    count: u64,
    #[schema(value_type = Vec<Rejection>)]
    items: VecDeque<Rejection>,
}

/// A request that was rejected: when, why, and which form fields it had; no values.
#[derive(Clone, Serialize, ToSchema)]
pub struct Rejection {
    at: Timestamp,
    why: String,
    fields: Vec<String>,
}

impl Rejections {
    /// Notes a rejected request, of which `body` is known, and logs why.
    pub fn add(&self, webhook: Webhook, why: String, body: &[u8], at: Timestamp) {
        tracing::warn!(
            why,
            "rejected {}; if Twilio sent it, compare `public_url` with the address set there, or try `nightbell receipt verify`",
            webhook.posts()
        );
        let fields = url::form_urlencoded::parse(body)
            .map(|(name, _)| clean_line(&name, 40))
            .take(40)
            .collect();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count += 1;
        kept.items.truncate(KEPT - 1);
        kept.items.push_front(Rejection { at, why, fields });
    }

    pub fn list(&self) -> Rejected {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The signature of a request; empty if there is none.
pub fn signature(headers: &HeaderMap) -> &str {
    text(headers, SIGNATURE)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
