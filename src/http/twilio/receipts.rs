//! `POST /twilio/status`: status callbacks. Kept means committed; what could not be stored is never answered with 2xx.
//! Absent: who sent it (see `signed`).

use super::signed::SignedRequest;
use crate::{
    carrier::twilio::receipt,
    http::{
        deadline::{in_time, now},
        error::Problem,
        state::SharedState,
    },
    store::Recorded,
};
use axum::{extract::State, http::StatusCode};

/// Said when the database does not answer at all.
const NO_ANSWER: &str = "the database did not answer in time; it may or may not have been stored, so send it again";

pub async fn post(State(app): SharedState, request: SignedRequest) -> Result<StatusCode, Problem> {
    let receipt = receipt::read(&request.query, &request.form).ok_or_else(|| {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "this is not a status callback: it names no message or no status",
        )
    })?;
    let (message_id, word) = (receipt.message_id.clone(), receipt.word.clone());
    let recording = app.store.receive(receipt, app.poll_after, now());
    match in_time(recording, NO_ANSWER).await? {
        Recorded::Applied(state) => {
            tracing::debug!(message.id = %message_id, status = %word, %state, "receipt recorded")
        }
        Recorded::Waiting => {
            tracing::info!(message.id = %message_id, status = %word, "receipt kept for a message that is not known yet")
        }
        Recorded::Repeat => tracing::debug!(message.id = %message_id, status = %word, "receipt repeated"),
    }
    Ok(StatusCode::NO_CONTENT)
}
