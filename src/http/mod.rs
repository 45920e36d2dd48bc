//! HTTP: what comes in from helpdesks, providers and admins. Answers never wait for a provider. Absent: what becomes of an
//! event (see `intake`), and sending: the worker is only notified, and finds what is due in the database.

mod admin;
mod auth;
mod body;
mod connections;
mod error;
mod events;
mod health;
mod receipts;
mod server;
mod twilio;

pub use auth::{RateLimiter, Tokens};
pub use health::Readiness;
pub use twilio::Webhooks;

use crate::{
    domain::{
        day::{LocalDay, to_millisecond},
        delivery::ProviderName,
        nightly::NightlyTime,
        phone::Region,
    },
    intake::Intake,
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
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};

/// What every handler works with.
pub struct AppState {
    pub store: Db,
    pub intake: Intake,
    /// Notified when a delivery may be due.
    pub wake: Arc<Notify>,
    pub intake_tokens: Tokens,
    pub admin_tokens: Tokens,
    pub rate_limiter: RateLimiter,
    pub default_region: Region,
    pub time_zone: TimeZone,
    pub daily_limit: i64,
    pub poll_after: SignedDuration,
    pub provider: ProviderName,
    pub account: String,
    pub webhooks: Webhooks,
    pub readiness: Readiness,
    /// When the nightly jobs are due.
    pub nightly: NightlyTime,
    /// Whether mails have a server and somebody to go to.
    pub has_mail: bool,
}

impl AppState {
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

/// Which endpoints are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    All,
    /// Only `/healthz` and `/readyz`.
    Health,
}

/// Serves `listener` until `stop` turns true, and answers what is under way. Without `admin_listener` both share one.
pub async fn serve(
    app: Arc<AppState>,
    endpoints: Endpoints,
    listener: TcpListener,
    admin_listener: Option<TcpListener>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let caps = Caps::of_this_process();
    tracing::debug!(?caps, "taking connections");
    if endpoints == Endpoints::Health {
        run(listener, Router::new(), app, caps, stop).await;
        return Ok(());
    }
    let public = Router::new()
        .route("/v1/events", post(events::post))
        .route(twilio::STATUS, post(receipts::post));
    match admin_listener {
        None => run(listener, public.merge(admin::routes(&app)), app, caps, stop).await,
        Some(admin) => {
            let (caps, admin_caps) = caps.split();
            tokio::join!(
                run(listener, public, Arc::clone(&app), caps, stop.clone()),
                run(admin, admin::routes(&app), Arc::clone(&app), admin_caps, stop)
            );
        }
    }
    Ok(())
}

async fn run(
    listener: TcpListener,
    routes: Router<Arc<AppState>>,
    app: Arc<AppState>,
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
        .with_state(Arc::clone(&app));
    let is_proxy = |address| app.rate_limiter.is_proxy(address);
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

type SharedState = State<Arc<AppState>>;

/// A person who is told of an alert, as answers name them.
#[derive(Serialize)]
struct Recipient {
    staff_id: Option<String>,
    role: Option<String>,
    name: Option<String>,
}
