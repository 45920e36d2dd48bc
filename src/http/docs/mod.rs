//! `GET /openapi.json` and the pages for people at `/docs`, which need nothing from elsewhere, run nothing and hold no
//! secret, so anybody may read them. All of it is made at the first request and not before.

mod document;
mod page;
mod schema;

use super::state::AppState;
use axum::{
    Router,
    body::Bytes,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};
use std::sync::{Arc, LazyLock};

/// The document, as it is sent.
static OPENAPI: LazyLock<Bytes> = LazyLock::new(|| document::make().to_json().unwrap_or_default().into());

/// The pages for people, as they are sent.
static PAGES: LazyLock<page::Pages> = LazyLock::new(page::Pages::make);

/// What the pages may do: have a style of our own.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/docs", get(|| async { html(&PAGES.endpoints) }))
        .route("/docs/problems", get(|| async { html(&PAGES.problems) }))
        .route("/docs/style.css", get(style))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI.clone())
}

fn html(page: &Bytes) -> impl IntoResponse + use<> {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, page.clone())
}

/// The pages ask for it with a hash of its content, so it may be kept for ever.
async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, page::STYLE)
}
