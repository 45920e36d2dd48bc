//! The JSON API for admins, one file a subject, each with the shapes of its queries, bodies and answers. Here: the routes,
//! and what lists have in common. Absent: pages.

mod alerts;
mod deliveries;
mod limit;
mod opt_outs;
mod query;
mod receipts;
mod reports;

use crate::{http::AppState, store};
use axum::{
    Router,
    routing::{delete, get, post},
};
use serde::Serialize;
use std::sync::Arc;

pub fn routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v1/alerts", get(alerts::list))
        .route("/v1/alerts/{id}", get(alerts::show))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/deliveries/{id}", get(deliveries::show))
        .route("/v1/deliveries/{id}/resend", post(deliveries::resend))
        .route("/v1/opt-outs", get(opt_outs::list).post(opt_outs::add))
        .route("/v1/opt-outs/{phone}", delete(opt_outs::remove))
        .route("/v1/limit", get(limit::show).put(limit::set))
        .route("/v1/receipts/rejected", get(receipts::list_rejected))
        .route("/v1/reports", get(reports::list))
        .route("/v1/reports/{day}", get(reports::show).post(reports::make))
}

/// What to do about a text that is not a phone number.
const NO_PHONE: &str = "this is not one phone number: write it with `+`, country code and number, like `+14155550101`, and without an extension";

/// One page of a list, and the cursor of the next.
#[derive(Serialize)]
struct ListPage<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T> ListPage<T> {
    fn of<R>(page: store::Page<R>, show: impl Fn(R) -> T) -> Self {
        Self {
            items: page.items.into_iter().map(show).collect(),
            next: page.next,
        }
    }
}
