//! `/v1/receipts/rejected`: the last requests to Twilio's webhooks that were rejected.

use crate::http::{state::SharedState, webhooks::Rejected};
use axum::{Json, extract::State};

/// `GET /v1/receipts/rejected`.
pub async fn list_rejected(State(app): SharedState) -> Json<Rejected> {
    Json(app.webhooks.rejections.list())
}
