//! What admins use: the API, with the admin token, and the pages, with a session.

pub(super) mod api;
pub mod pages;

pub use api::Admins;

use super::{
    connections::Connection,
    error::Problem,
    state::{AppState, SharedState},
};
use axum::{
    Extension, Router,
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use std::{net::SocketAddr, sync::Arc};

pub fn routes(app: &Arc<AppState>) -> Router<Arc<AppState>> {
    Admins::routes()
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), admit))
        .merge(pages::routes(app))
}

/// Asks for the admin token before anything else is read.
async fn admit(
    State(app): SharedState,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Connection>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let allowed = app
        .rate_limiter
        .admit(&app.admin_tokens, request.headers(), peer.ip())?;
    connection.know_client();
    // PostgreSQL takes no NUL in a text, and nothing here has one.
    let answer = if request.uri().to_string().contains("%00") {
        Problem::not_found("there is nothing at this address").into_response()
    } else {
        next.run(request).await
    };
    Ok((allowed.quota, answer).into_response())
}
