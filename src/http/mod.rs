//! The doors: what comes in from helpdesks, providers and admins. Answers never wait for a provider. Absent: sending;
//! this room only rings the worker's bell. They meet in the database.

mod admin_api;
mod auth;
mod body;
mod connections;
mod error;
mod events;
mod health;
mod receipts;
mod reports;
mod server;

pub use auth::{Doorkeeper, Tokens};
pub use health::Readiness;
pub use receipts::Rejected;

use crate::{
    config::Source,
    domain::{
        day::{LocalDay, to_millisecond},
        message::{Rules, Templates},
        nightly::NightlyTime,
        phone::Region,
        route::Route,
    },
    store::{Db, StoreError},
};
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use connections::Caps;
use error::Problem;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use secrecy::SecretString;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use url::Url;

/// What every handler works with.
pub struct Office {
    pub store: Db,
    /// Rung when a delivery may be due.
    pub wake: Arc<Notify>,
    pub intake_tokens: Tokens,
    pub admin_tokens: Tokens,
    pub doorkeeper: Doorkeeper,
    pub sources: BTreeMap<String, Source>,
    pub templates: Templates,
    pub message_rules: Rules,
    pub default_region: Region,
    pub time_zone: TimeZone,
    pub daily_limit: i64,
    pub poll_after: SignedDuration,
    pub route: Arc<Route>,
    /// The address that Twilio signs for.
    pub status_callback_url: Option<Url>,
    pub twilio_tokens: Vec<SecretString>,
    pub rejected: Rejected,
    pub readiness: Readiness,
    /// When the nightly jobs are due.
    pub nightly: NightlyTime,
    /// Whether mails have a server and somebody to go to.
    pub has_mail: bool,
}

impl Office {
    fn today(&self) -> LocalDay {
        LocalDay::of(now(), &self.time_zone)
    }
}

/// The longest that an answer waits for the database. Twilio gives a webhook 15 s in all (connection overrides, "tt"), and
/// helpdesks block while they post: with a second to spare, events and receipts are answered within 10 s.
const MAX_STORE_WAIT: Duration = Duration::from_secs(9);

/// What the database answers, or 503 with `detail` if it does not in time.
async fn in_time<T>(asked: impl Future<Output = Result<T, StoreError>>, detail: &'static str) -> Result<T, Problem> {
    match tokio::time::timeout(MAX_STORE_WAIT, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5)),
    }
}

/// The present, as the database keeps it. The edge: below here, time is an argument.
fn now() -> Timestamp {
    to_millisecond(Timestamp::now())
}

/// Which doors are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doors {
    All,
    /// Only `/healthz` and `/readyz`.
    Health,
}

/// Serves `listener` until `stop` turns true, and answers what is under way. Without `admin_listener` both share one.
pub async fn serve(
    office: Arc<Office>,
    doors: Doors,
    listener: TcpListener,
    admin_listener: Option<TcpListener>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let caps = Caps::of_this_process();
    tracing::debug!(?caps, "taking connections");
    if doors == Doors::Health {
        run(listener, Router::new(), office, caps, stop).await;
        return Ok(());
    }
    let public = Router::new()
        .route("/v1/events", post(events::post))
        .route("/twilio/status", post(receipts::post_twilio));
    match admin_listener {
        None => run(listener, public.merge(admin_api::routes(&office)), office, caps, stop).await,
        Some(admin) => {
            let (caps, admin_caps) = caps.split();
            tokio::join!(
                run(listener, public, Arc::clone(&office), caps, stop.clone()),
                run(admin, admin_api::routes(&office), Arc::clone(&office), admin_caps, stop)
            );
        }
    }
    Ok(())
}

async fn run(
    listener: TcpListener,
    routes: Router<Arc<Office>>,
    office: Arc<Office>,
    caps: Caps,
    stop: watch::Receiver<bool>,
) {
    let router = routes
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(|| async { Problem::not_found("there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
        })
        .layer(middleware::from_fn(log_request))
        .with_state(Arc::clone(&office));
    let is_proxy = |address| office.doorkeeper.is_proxy(address);
    server::serve(listener, router, caps, is_proxy, stop).await;
}

/// Logs each request by its route; the address itself may hold a phone number.
async fn log_request(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "(none)".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    tracing::debug!(%method, route, status = response.status().as_u16(), took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX), "answered");
    response
}

type SharedOffice = State<Arc<Office>>;
