//! Webhooks that Twilio calls: one extractor reads, checks and hands on the requests of all of them. The signature is
//! checked over the configured address, never over what the request says of itself. Absent: what a request says (see the
//! handlers), and how a signature is computed (see `provider::twilio::signature`).

use super::{AppState, body, connections::Connection, error::Problem, now};
use crate::{
    domain::text::clean_line,
    provider::twilio::signature::{self, Signed},
};
use axum::{
    Extension, RequestExt,
    extract::{ConnectInfo, FromRequest, MatchedPath, RawQuery, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use secrecy::SecretString;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use url::Url;

/// The route of status callbacks.
pub const STATUS: &str = "/twilio/status";
/// Who sent it is known only once the body is there, so little is taken, and nothing is read away. Callbacks have a few
/// hundred bytes.
const BODY: body::Limits = body::Limits {
    size: 64 * 1024,
    wait: Duration::from_secs(10),
    drain: 0,
};
/// How many rejected requests are kept.
const KEPT: usize = 100;

/// What the requests of Twilio are checked by, and those that failed.
#[derive(Default)]
pub struct Webhooks {
    /// The address that Twilio calls and signs for `STATUS`.
    pub status_url: Option<Url>,
    /// Two of them during a rotation.
    pub auth_tokens: Vec<SecretString>,
    pub rejected: Rejections,
}

impl Webhooks {
    /// The address that Twilio signs when it calls `route`.
    fn signed_url(&self, route: &str) -> Option<&Url> {
        match route {
            STATUS => self.status_url.as_ref(),
            _ => None,
        }
    }

    /// Checks a signature; the error says in words why it is not valid.
    fn verify(&self, route: &str, query: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
        let address = self
            .signed_url(route)
            .ok_or("`public_url` is not set, so nothing can be checked")?;
        let address = address.as_str().split(['?', '#']).next().unwrap_or_default();
        let url = match query {
            "" => address.to_owned(),
            query => format!("{address}?{query}"),
        };
        let signed = Signed {
            url: &url,
            content_type: text(headers, header::CONTENT_TYPE.as_str()),
            body,
            signature: text(headers, "x-twilio-signature"),
        };
        signature::verify(signed, &self.auth_tokens).map_err(|invalid| invalid.to_string())
    }
}

/// The last rejected requests, redacted. In memory: they help to find a wrong setting and prove nothing.
#[derive(Default)]
pub struct Rejections(Mutex<(u64, VecDeque<Rejection>)>);

/// A request that was rejected: when, why, and what it looked like; no values.
#[derive(Clone)]
pub struct Rejection {
    pub at: Timestamp,
    pub why: String,
    pub fields: Vec<String>,
}

impl Rejections {
    fn add(&self, rejection: Rejection) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0 += 1;
        if kept.1.len() == KEPT {
            kept.1.pop_front();
        }
        kept.1.push_back(rejection);
    }

    /// How many were rejected since the start, and the last of them, newest first.
    pub fn list(&self) -> (u64, Vec<Rejection>) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.0, kept.1.iter().rev().cloned().collect())
    }
}

/// A request that Twilio signed.
pub struct SignedRequest {
    /// As it came, without `?`.
    pub query: String,
    /// The body.
    pub form: Vec<u8>,
}

impl FromRequest<Arc<AppState>> for SignedRequest {
    type Rejection = Response;

    async fn from_request(mut request: Request, app: &Arc<AppState>) -> Result<Self, Response> {
        let (route, RawQuery(query), ConnectInfo(peer), Extension(connection)) = request
            .extract_parts::<(MatchedPath, RawQuery, ConnectInfo<SocketAddr>, Extension<Connection>)>()
            .await
            .map_err(IntoResponse::into_response)?;
        let query = query.unwrap_or_default();
        let (parts, raw) = request.into_parts();
        let reject = |why: String, body: &[u8], problem: Problem| {
            app.webhooks.rejected.add(rejection(why, body));
            let problem = app.rate_limiter.refuse(&parts.headers, peer.ip(), problem);
            problem.into_response()
        };
        let forbidden = || Problem::new(StatusCode::FORBIDDEN, "the signature is missing or not valid");
        if text(&parts.headers, "x-twilio-signature").is_empty() {
            let why = "it has no `X-Twilio-Signature` header".to_owned();
            return Err(reject(why, &[], forbidden()));
        }
        let form = connection
            .while_waiting(body::read(raw, BODY))
            .await
            .map_err(|problem| reject(problem.detail().to_owned(), &[], problem))?;
        app.webhooks
            .verify(route.as_str(), &query, &parts.headers, &form)
            .map_err(|why| reject(why, &form, forbidden()))?;
        Ok(Self { query, form })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Logs why a request is rejected, and notes what it looked like.
fn rejection(why: String, body: &[u8]) -> Rejection {
    tracing::warn!(
        why,
        "rejected a receipt; if Twilio sent it, compare `public_url` with the address set there, or try `nightbell receipt verify`"
    );
    let fields = url::form_urlencoded::parse(body)
        .map(|(name, _)| clean_line(&name, 40))
        .take(40)
        .collect();
    Rejection { at: now(), why, fields }
}
