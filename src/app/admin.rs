//! How commands reach the admin API: by HTTP where a service answers, else by the same routes over the opened database. One
//! way for all of them, so that a command says and does what the API does. Absent: what is asked (see `cli`).

use super::{
    notifiers::make_endpoints,
    parts::{make_app_state, open_store},
    settings::Config,
};
use crate::{
    carrier::Carriers,
    domain::database_url::DatabaseUrl,
    http::AdminApi,
    store::{Db, Limits, OpenError},
};
use anyhow::Context;
use axum::{
    body::Body,
    http::{Request, header},
};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};
use url::{Position, Url};

/// How long the service may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// The same for a file with all opt-outs in it.
const FILE_ANSWER: Duration = Duration::from_secs(300);
/// How long to wait for a SQLite file that another command has, or a service that does not listen yet.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing is changed: the database may also be read beside a service that cannot be asked.
    Read,
    Change,
    /// Somebody has to act on it: nothing but a running service will do.
    Service,
}

/// Why a command ends without what it was called for.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The call or the configuration is wrong.
    #[error("{0}")]
    WrongCall(String),
    /// The answer is no.
    #[error("{0}")]
    No(String),
}

/// What is sent along with a request.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    None,
    Json(&'a serde_json::Value),
    Csv(&'a [u8]),
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads it; a shape that cannot be read is another version's.
    pub fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).context(
            "the admin API answered something else than this program expects: is the service of another version?",
        )
    }

    /// The answer itself if it is a good one, else what the problem says (RFC 9457).
    pub fn good(self) -> Result<Self, AdminError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let text = self.problem();
        Err(match self.status.as_u16() {
            401 | 403 => AdminError::WrongCall(format!(
                "the service does not take the first of `auth.admin_tokens`: is this the configuration that it runs with? ({text})"
            )),
            400 | 405 | 411..=417 | 422 => AdminError::WrongCall(text),
            _ => AdminError::No(text),
        })
    }

    fn problem(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let fields: Vec<String> = problem["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|fault| {
                let name = fault["pointer"].as_str().unwrap_or_default().trim_start_matches('/');
                format!("{name}: {}", fault["detail"].as_str().unwrap_or_default())
            })
            .collect();
        match (fields.is_empty(), problem["detail"].as_str()) {
            (false, _) => fields.join("; "),
            (true, Some(detail)) => detail.to_owned(),
            (true, None) => format!("the admin API answered {}", self.status),
        }
    }
}

/// The way to the admin API.
pub struct Admin {
    way: Way,
    service: Service,
}

enum Way {
    Service,
    Here { api: AdminApi, store: Db },
}

impl Admin {
    /// Finds the way. On SQLite the lock says whether a service runs: while one does, it makes every change. On PostgreSQL
    /// it is asked if it answers, else the database is opened beside whatever runs elsewhere.
    pub async fn connect(config: &Config, access: Access) -> anyhow::Result<Self> {
        let service = Service::of(config)?;
        let way = match (&config.database_url, access) {
            (_, Access::Service) => {
                service.expect_token()?;
                if !service.answers().await? {
                    return Err(AdminError::No(format!(
                        "nothing answers at {}: `nightbell serve` must run, since a command sends nothing by itself",
                        service.address
                    ))
                    .into());
                }
                Way::Service
            }
            (DatabaseUrl::Sqlite(_), Access::Read) => read_sqlite(config, &service).await?,
            (DatabaseUrl::Sqlite(_), Access::Change) => change_sqlite(config, &service).await?,
            (DatabaseUrl::Postgres(_), _) if service.token.is_some() && service.answers().await? => Way::Service,
            (DatabaseUrl::Postgres(_), _) => open(config, access).await?,
        };
        Ok(Self { way, service })
    }

    /// Whether a service answers.
    pub fn is_service(&self) -> bool {
        matches!(self.way, Way::Service)
    }

    /// Where a service is looked for.
    pub fn address(&self) -> SocketAddr {
        self.service.address
    }

    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Answer> {
        self.ask(Method::GET, path, query, Content::None).await
    }

    /// Asks. The segments of the path and the query are taken as they are, and encoded here.
    pub async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        content: Content<'_>,
    ) -> anyhow::Result<Answer> {
        let url = self.service.url(path, query)?;
        match &self.way {
            Way::Service => self.service.ask(method, url, content).await,
            Way::Here { api, .. } => ask_here(api, method, &url, content).await,
        }
    }

    /// What `/readyz` says of a running service, whichever way is taken; `None` if none answers.
    pub async fn readiness(&self) -> anyhow::Result<Option<serde_json::Value>> {
        let url = self.service.url(&["readyz"], &[])?;
        let answer = self.service.ask(Method::GET, url, Content::None).await;
        Ok(answer.ok().and_then(|answer| answer.read().ok()))
    }

    pub async fn close(self) {
        if let Way::Here { store, .. } = self.way {
            store.close().await;
        }
    }
}

/// Reads beside whoever has the file; a service answers with more, and only it knows what is in its memory.
async fn read_sqlite(config: &Config, service: &Service) -> anyhow::Result<Way> {
    Db::expect_there(&config.database_url)?;
    // Let go at once: a command that only reads must not keep a service from starting.
    let is_locked = matches!(Db::lock_out_services(&config.database_url), Err(OpenError::Locked(_)));
    if is_locked && service.token.is_some() && service.answers().await? {
        return Ok(Way::Service);
    }
    open(config, Access::Read).await
}

/// Changes go through the service that has the file; the file is opened where none has it.
async fn change_sqlite(config: &Config, service: &Service) -> anyhow::Result<Way> {
    Db::expect_there(&config.database_url)?;
    let begun = Instant::now();
    loop {
        match open_store(config, Limits::COMMAND).await {
            Ok(store) => return here(config, store),
            Err(OpenError::Locked(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if service.answers().await? {
            service.expect_token()?;
            return Ok(Way::Service);
        }
        // Another command has the file, or a service that is still starting, or stopping.
        if begun.elapsed() > LONGEST_WAIT {
            return Err(AdminError::No(format!(
                "another process has the database, but nothing answers at {}: is that where `nightbell serve` listens?",
                service.address
            ))
            .into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn open(config: &Config, access: Access) -> anyhow::Result<Way> {
    let url = &config.database_url;
    // Where replicas may run elsewhere, a command is no reason to change their tables: `serve` and `migrate` do that.
    let is_shared = matches!(url, DatabaseUrl::Postgres(_));
    if is_shared && access == Access::Change && !Db::pending_migrations(url).await?.is_empty() {
        return Err(OpenError::OtherVersion.into());
    }
    let store = match access {
        Access::Read => Db::open_read_only(url).await,
        Access::Change | Access::Service => open_store(config, Limits::COMMAND).await,
    };
    here(config, store?)
}

fn here(config: &Config, store: Db) -> anyhow::Result<Way> {
    let carriers = Carriers::open(&config.carriers)?;
    let api = AdminApi::new(make_app_state(
        config,
        Vec::new(),
        &store,
        &carriers,
        make_endpoints(config, &store)?,
    )?);
    Ok(Way::Here { api, store })
}

async fn ask_here(api: &AdminApi, method: Method, url: &Url, content: Content<'_>) -> anyhow::Result<Answer> {
    let request = Request::builder().method(method).uri(&url[Position::BeforePath..]);
    let request = match content {
        Content::None => request.body(Body::empty()),
        Content::Json(document) => request
            .header(header::CONTENT_TYPE, "application/json")
            .body(document.to_string().into()),
        Content::Csv(file) => request
            .header(header::CONTENT_TYPE, "text/csv")
            .body(file.to_vec().into()),
    };
    let answer = api.call(request?).await;
    let (status, body) = answer.context("the answer broke off: the database may not be readable")?;
    let body = body.to_vec();
    Ok(Answer { status, body })
}

/// The service that the configuration is of, which may run or not.
pub struct Service {
    address: SocketAddr,
    token: Option<SecretString>,
    client: reqwest::Client,
}

impl Service {
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        let address = config.listen_admin.unwrap_or(config.listen);
        Self::at(address, config.admin_tokens.first().cloned())
    }

    /// The service that listens there.
    pub fn at(address: SocketAddr, token: Option<SecretString>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().connect_timeout(ANSWER).build()?;
        Ok(Self {
            address: reachable(address),
            token,
            client,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Fails without a token to ask with.
    pub fn expect_token(&self) -> Result<(), AdminError> {
        let text = "`nightbell serve` has to be asked, and without `auth.admin_tokens` it cannot be: set a token there, for example one made by `openssl rand -hex 24`, and start the service again";
        match self.token {
            Some(_) => Ok(()),
            None => Err(AdminError::WrongCall(text.to_owned())),
        }
    }

    pub fn url(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Url> {
        let mut url = Url::parse(&format!("http://{}", self.address))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Whether it takes requests of admins: not if nothing listens, or only health checks are answered there.
    async fn answers(&self) -> anyhow::Result<bool> {
        let url = self.url(&["v1", "limit"], &[])?;
        match self.request(Method::GET, url, Content::None).send().await {
            Ok(answer) => Ok(answer.status() != StatusCode::NOT_FOUND),
            Err(error) if error.is_connect() => Ok(false),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// Asks, and asks again where `http.per_second` makes it wait: a command may need many answers.
    pub async fn ask(&self, method: Method, url: Url, content: Content<'_>) -> anyhow::Result<Answer> {
        let begun = Instant::now();
        loop {
            let request = self.request(method.clone(), url.clone(), content);
            let answer = request.send().await.map_err(|error| self.broken(error))?;
            let (status, wait) = (answer.status(), retry_after(answer.headers()));
            let body = answer.bytes().await.map_err(|error| self.broken(error))?.to_vec();
            if status != StatusCode::TOO_MANY_REQUESTS || begun.elapsed() + wait > ANSWER {
                return Ok(Answer { status, body });
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn request(&self, method: Method, url: Url, content: Content<'_>) -> reqwest::RequestBuilder {
        let is_file = url.path().ends_with(".csv");
        let request = self.client.request(method, url);
        let request = request.timeout(if is_file { FILE_ANSWER } else { ANSWER });
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        let typed = |request: reqwest::RequestBuilder, kind| request.header(header::CONTENT_TYPE, kind);
        match content {
            Content::None => request,
            Content::Json(document) => typed(request, "application/json").body(document.to_string()),
            Content::Csv(file) => typed(request, "text/csv").body(file.to_vec()),
        }
    }

    /// The address may hold a phone number, so it is not shown.
    fn broken(&self, error: reqwest::Error) -> anyhow::Error {
        anyhow::Error::new(error.without_url()).context(format!("no answer from `nightbell serve` at {}", self.address))
    }
}

/// How long to wait before asking again.
fn retry_after(headers: &header::HeaderMap) -> Duration {
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(1))
}

/// Where to call what listens on every address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(loopback, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Answer, AdminError> {
        let status = StatusCode::from_u16(status).unwrap();
        let body = body.as_bytes().to_vec();
        Answer { status, body }.good()
    }

    #[track_caller]
    fn refusal(status: u16, body: &str) -> (bool, String) {
        match answer(status, body) {
            Err(AdminError::WrongCall(text)) => (true, text),
            Err(AdminError::No(text)) => (false, text),
            Ok(_) => panic!("{status} is no refusal"),
        }
    }

    #[test]
    fn a_bad_argument_is_a_wrong_call_and_a_conflict_is_a_no() {
        let fields = r#"{"detail": "two", "errors": [{"pointer": "/phone", "detail": "a"}, {"pointer": "/day", "detail": "b"}]}"#;
        assert_eq!(refusal(422, fields), (true, "phone: a; day: b".to_owned()));
        assert_eq!(refusal(400, r#"{"detail": "x"}"#), (true, "x".to_owned()));
        for status in [404, 409, 429, 503] {
            assert_eq!(
                refusal(status, r#"{"detail": "x"}"#),
                (false, "x".to_owned()),
                "{status}"
            );
        }
        assert!(refusal(401, "").0);
        assert_eq!(refusal(502, "<html>").1, "the admin API answered 502 Bad Gateway");
        assert!(answer(204, "").is_ok());
    }

    #[test]
    fn what_listens_on_every_address_is_called_on_this_machine() {
        for (listen, called) in [
            ("0.0.0.0:8025", "127.0.0.1:8025"),
            ("[::]:8025", "[::1]:8025"),
            ("192.0.2.1:8025", "192.0.2.1:8025"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), called);
        }
    }
}
