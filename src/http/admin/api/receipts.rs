//! `/v1/receipts/rejected`: the last requests to Twilio's webhooks that were rejected.

use crate::http::{error::ForAdmins, state::SharedState, webhooks::Rejected};
use axum::{Json, extract::State};

/// Lists rejected receipts, newest first
///
/// The last 100 requests whose signature was missing or not valid, as this process remembers them: when, why, and which form
/// fields they had; no values.
#[utoipa::path(
    get,
    path = "/v1/receipts/rejected",
    operation_id = "listRejectedReceipts",
    tag = "receipts",
    responses((status = 200, body = Rejected, description = "How many there were since the start, and the last of them"), ForAdmins),
    security(("admin" = []))
)]
pub async fn list_rejected(State(app): SharedState) -> Json<Rejected> {
    Json(app.webhooks.rejections.list())
}
