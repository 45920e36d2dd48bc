//! The JSON API for admins, one file a subject, each with the shapes of its queries and bodies; what it answers are the
//! views of `store`, whose members bear the contract's names. Here: the routes. Absent: pages.

pub mod alerts;
pub mod deliveries;
pub mod limit;
mod messages;
pub mod opt_out_files;
pub mod opt_outs;
pub mod query;
mod receipts;
pub mod reports;
pub mod test_mode;

use crate::http::state::AppState;
use axum::{
    Router,
    routing::{get, post},
};
use std::sync::Arc;

pub fn routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v1/alerts", get(alerts::list))
        .route("/v1/alerts/{id}", get(alerts::show))
        .route("/v1/alerts/{id}/cancel", post(alerts::cancel))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/deliveries/{id}", get(deliveries::show))
        .route("/v1/deliveries/{id}/cancel", post(deliveries::cancel))
        .route("/v1/deliveries/{id}/resend", post(deliveries::resend))
        .route("/v1/messages", post(messages::send))
        .route("/v1/opt-outs", get(opt_outs::list).post(opt_outs::add))
        .route(
            "/v1/opt-outs.csv",
            get(opt_out_files::export).post(opt_out_files::import),
        )
        .route("/v1/opt-outs/{phone}", get(opt_outs::show).delete(opt_outs::remove))
        .route("/v1/limit", get(limit::show).put(limit::set))
        .route("/v1/test-mode", get(test_mode::show).put(test_mode::set))
        .route("/v1/receipts/rejected", get(receipts::list_rejected))
        .route("/v1/reports", get(reports::list))
        .route("/v1/reports/{day}", get(reports::show).post(reports::make))
}
