//! `/v1/receipts/rejected`: the last requests to Twilio's webhooks that were rejected.

use crate::http::{state::SharedState, webhooks::Rejection};
use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::Serialize;

/// How many were rejected since the start, and the last of them, newest first.
#[derive(Serialize)]
pub struct RejectedReceipts {
    count: u64,
    items: Vec<RejectedReceipt>,
}

/// When and why, and which form fields it had; no values.
#[derive(Serialize)]
pub struct RejectedReceipt {
    at: Timestamp,
    why: String,
    fields: Vec<String>,
}

impl From<Rejection> for RejectedReceipt {
    fn from(Rejection { at, why, fields }: Rejection) -> Self {
        Self { at, why, fields }
    }
}

/// `GET /v1/receipts/rejected`.
pub async fn list_rejected(State(app): SharedState) -> Json<RejectedReceipts> {
    let (count, last) = app.webhooks.rejected.list();
    Json(RejectedReceipts {
        count,
        items: last.into_iter().map(RejectedReceipt::from).collect(),
    })
}
