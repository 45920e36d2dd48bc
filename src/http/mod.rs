//! HTTP: what comes in from helpdesks, providers and admins. Answers never wait for a provider. Absent: what becomes of an
//! event (see `intake`), and sending: the worker is only notified, and finds what is due in the database.

mod admin;
mod auth;
mod body;
mod connections;
mod deadline;
mod docs;
mod endpoints;
mod error;
mod events;
mod health;
mod hooks;
mod in_process;
mod links;
mod public;
mod quota;
mod readiness;
mod server;
mod state;
mod twilio;
mod webhooks;

pub use admin::pages::Pages;
pub use auth::{RateLimiter, Tokens};
pub use in_process::AdminApi;
pub use readiness::Readiness;
pub use state::AppState;
pub use webhooks::Webhooks;

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::{self, Next},
    response::Response,
};
use connections::Caps;
use error::{Kind, Problem};
use public::{Callers, Probes};
use std::{sync::Arc, time::Instant};
use tokio::{net::TcpListener, sync::watch};

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
) {
    let caps = Caps::of_this_process();
    tracing::debug!(?caps, "taking connections");
    if endpoints == Endpoints::Health {
        return run(listener, Router::new(), app, caps, stop).await;
    }
    let public = Callers::routes();
    let admins = admin::routes(&app).merge(docs::routes());
    match admin_listener {
        None => run(listener, public.merge(admins), app, caps, stop).await,
        Some(admin) => {
            let (caps, admin_caps) = caps.split();
            tokio::join!(
                run(listener, public, Arc::clone(&app), caps, stop.clone()),
                run(admin, admins, Arc::clone(&app), admin_caps, stop)
            );
        }
    }
}

async fn run(
    listener: TcpListener,
    routes: Router<Arc<AppState>>,
    app: Arc<AppState>,
    caps: Caps,
    stop: watch::Receiver<bool>,
) {
    let router = routes
        .merge(Probes::routes())
        .fallback(|| async { Problem::not_found("there is nothing at this address") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Kind::MethodNotAllowed, "this address does not accept that method")
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
