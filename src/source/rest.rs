//! Asks a helpdesk that speaks JSON over HTTP. Follows no redirect, waits for nothing for long, and says of every failure
//! which key of the configuration mends it. Absent: what is asked, and what the answers mean (see `rt`, `zammad`,
//! `redmine`).

use super::seen::HelpdeskError;
use jiff::Timestamp;
use reqwest::{
    StatusCode,
    header::{ACCEPT, DATE, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// A helpdesk that is slower than this is as good as down: the next poll comes soon.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A page of 100 tickets has some 200 KB; a ticket of a helpdesk with many fields of its own some 20 KB.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Idle connections are dropped before most servers drop them, so that a question does not meet a dead one.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// What is particular to a product.
pub struct Product {
    pub name: &'static str,
    /// The header that carries the token, and what stands before it.
    pub header: &'static str,
    pub prefix: &'static str,
    /// What its token is, for an admin who has to make a new one.
    pub token: &'static str,
}

/// A connection pool to one helpdesk.
pub struct Client {
    http: reqwest::Client,
    product: &'static Product,
    source: String,
    url: Url,
    token: HeaderValue,
}

/// A readable answer.
pub struct Reply {
    pub body: Value,
    /// What the helpdesk's clock read.
    pub date: Option<Timestamp>,
}

impl Client {
    /// For the source of this name: errors name its keys.
    pub fn new(
        source: &str,
        url: &Url,
        token: &SecretString,
        product: &'static Product,
    ) -> Result<Self, HelpdeskError> {
        let token = format!("{}{}", product.prefix, token.expose_secret().trim());
        let mut token = HeaderValue::from_str(&token).map_err(|_| {
            let wanted = product.token;
            HelpdeskError::new(format!(
                "`sources.{source}.token` has a character that no token has: set it to {wanted}"
            ))
        })?;
        token.set_sensitive(true);
        let http = reqwest::Client::builder()
            .user_agent(concat!("nightbell/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(
                ACCEPT,
                HeaderValue::from_static("application/json"),
            )]))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .pool_idle_timeout(POOL_IDLE)
            .build()
            .map_err(|error| {
                HelpdeskError::new(format!("the HTTP client for {} cannot be made: {error}", product.name))
            })?;
        let mut url = url.clone();
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self {
            http,
            product,
            source: source.to_owned(),
            url,
            token,
        })
    }

    /// What links to tickets begin with: this, or else where the API is. Ends without a slash.
    pub fn base_url(&self, configured: Option<&Url>) -> String {
        let base = configured.unwrap_or(&self.url).as_str();
        base.trim_end_matches('/').to_owned()
    }

    /// Asks for `path`, which stands below the helpdesk's address.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Reply, HelpdeskError> {
        let reply = self.send(self.http.get(self.address(path)?).query(query)).await?;
        self.read(path, reply).await
    }

    /// Asks for something that may be gone, or that this token may not see: then the answer is `None`.
    pub async fn find(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<Reply>, HelpdeskError> {
        let reply = self.send(self.http.get(self.address(path)?).query(query)).await?;
        match reply.status() {
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => Ok(None),
            _ => self.read(path, reply).await.map(Some),
        }
    }

    /// Writes to the helpdesk; what it answers is not looked at.
    pub async fn write(&self, method: reqwest::Method, path: &str, body: &Value) -> Result<(), HelpdeskError> {
        let request = self.http.request(method, self.address(path)?);
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        let reply = self.send(request).await?;
        let status = reply.status();
        match status.as_u16() {
            200..=299 => Ok(()),
            // Request Tracker says 400 and Redmine 422 where others say 403 or 404.
            400 | 403 | 404 | 422 => Err(HelpdeskError::of_ticket(format!(
                "{} at {} did not take a note (HTTP {}): the ticket is gone, or the user of `{}` may not write notes on it",
                self.product.name,
                self.place(),
                status.as_u16(),
                self.key("token")
            ))),
            _ => Err(self.refused(path, status)),
        }
    }

    /// An error about an answer that could be read and still does not fit.
    pub fn unreadable(&self, path: &str, what: &str) -> HelpdeskError {
        HelpdeskError::new(format!(
            "{} at {} answered `/{path}` with something else than expected: {what}; check that `{}` is its address, and its version",
            self.product.name,
            self.place(),
            self.key("url")
        ))
    }

    /// An error about a ticket that this helpdesk cannot have.
    pub fn foreign(&self, ticket_id: &str) -> HelpdeskError {
        HelpdeskError::of_ticket(format!(
            "the ticket `{ticket_id}` is none of {}'s, whose ids are numbers",
            self.product.name
        ))
    }

    /// The name of a key of this source.
    pub fn key(&self, member: &str) -> String {
        format!("sources.{}.{member}", self.source)
    }

    fn address(&self, path: &str) -> Result<Url, HelpdeskError> {
        let joined = self.url.join(path);
        joined.map_err(|_| self.unreadable(path, "no address can be made of it"))
    }

    /// Where it is, without what may be secret in an address.
    fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, HelpdeskError> {
        let header = HeaderName::from_static(self.product.header);
        let sent = request.header(header, self.token.clone()).send().await;
        sent.map_err(|error| self.unreachable(&error))
    }

    async fn read(&self, path: &str, mut reply: reqwest::Response) -> Result<Reply, HelpdeskError> {
        if reply.status() != StatusCode::OK {
            return Err(self.refused(path, reply.status()));
        }
        let date = reply.headers().get(DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|value| jiff::fmt::rfc2822::parse(value).ok());
        let date = date.map(|date| date.timestamp());
        let mut body = Vec::new();
        while let Some(chunk) = reply.chunk().await.map_err(|error| self.unreachable(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                let what = format!("more than {} MiB", MAX_ANSWER / 1024 / 1024);
                return Err(self.unreadable(path, &what));
            }
        }
        let what = match body.trim_ascii_start().first() {
            Some(b'<') => "a web page, not JSON",
            _ => "no JSON",
        };
        let body = serde_json::from_slice(&body).map_err(|_| self.unreadable(path, what))?;
        Ok(Reply { body, date })
    }

    fn unreachable(&self, error: &reqwest::Error) -> HelpdeskError {
        let why = if error.is_timeout() {
            format!("no answer within {} s", TIMEOUT.as_secs())
        } else if error.is_connect() {
            format!("no connection ({})", root_cause(error))
        } else {
            "the connection broke off".to_owned()
        };
        let (name, place, key) = (self.product.name, self.place(), self.key("url"));
        HelpdeskError::new(format!(
            "{name} at {place} cannot be reached: {why}; it is asked again. If it runs, check `{key}`"
        ))
    }

    fn refused(&self, path: &str, status: StatusCode) -> HelpdeskError {
        let (name, place, code) = (self.product.name, self.place(), status.as_u16());
        let (url, token) = (self.key("url"), self.key("token"));
        let wanted = self.product.token;
        HelpdeskError::new(match code {
            401 => format!("{name} at {place} refuses the token (HTTP 401): set `{token}` to {wanted}"),
            403 => format!(
                "{name} at {place} does not let this token ask for `/{path}` (HTTP 403): give its user the rights named in integrations/README.md, or set `{token}` to another"
            ),
            300..=399 => format!(
                "{name} at {place} sends us elsewhere (HTTP {code}), and the token is given to nobody else: set `{url}` to the address that it leads to (often `https` instead of `http`)"
            ),
            404 | 405 => format!(
                "{name} at {place} has nothing at `/{path}` (HTTP {code}): set `{url}` to the address of its start page"
            ),
            429 => format!(
                "{name} at {place} says that it is asked too often (HTTP 429): raise `{}`",
                self.key("poll_every")
            ),
            500..=599 => format!("{name} at {place} is in trouble (HTTP {code}): it is asked again; see its own log"),
            _ => {
                format!("{name} at {place} does not understand `/{path}` (HTTP {code}): check `{url}` and its version")
            }
        })
    }
}

/// The innermost error: the only one that says something to an admin, like `Connection refused`.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A member that is a text or a number, as a trimmed text; blank counts as absent.
pub fn text(value: &Value, member: &str) -> Option<String> {
    let text = match value.get(member)? {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// Whether this is an id as these helpdesks give them: others would be read as something else in an address or a search.
pub fn is_number(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())
}

/// A member that is a time.
pub fn time(value: &Value, member: &str) -> Option<Timestamp> {
    value.get(member)?.as_str()?.parse().ok()
}

/// The members of a list; none where it is no list (Request Tracker sends an empty text instead of an empty list).
pub fn items<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    value.get(member).and_then(Value::as_array).into_iter().flatten()
}

/// A number as people write it into a field of their own: `93`, `93 %`, `4,5`. What the event could not carry is left out:
/// it must not cost an alert.
pub fn figure(written: &str, max: f64) -> Option<f64> {
    let written = written.trim().trim_end_matches('%').trim_end().replace(',', ".");
    let number: f64 = written.parse().ok()?;
    (0.0..=max).contains(&number).then_some(number)
}

/// Most hours that an event may carry.
pub const MAX_HOURS: f64 = 100_000.0;

#[cfg(test)]
pub mod tests;
