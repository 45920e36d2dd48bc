//! `POST /twilio/status`: status callbacks. Kept means committed; what could not be stored is never answered with 2xx.
//! Absent: who sent it (see `signed`).

use super::signed::{SignedRequest, Status};
use crate::{
    carrier::twilio::receipt,
    http::{
        deadline::{in_time, now},
        error::{ForCallbacks, Kind, Problem},
        state::SharedState,
    },
    store::Recorded,
};
use axum::{extract::State, http::StatusCode};
use utoipa::ToSchema;

/// The form that Twilio sends; more fields are welcome.
#[derive(ToSchema)]
#[schema(as = TwilioStatus)]
#[expect(dead_code, reason = "describes what `carrier::twilio::receipt` reads")]
#[expect(non_snake_case, reason = "Twilio's own names")]
pub struct Callback {
    #[schema(examples("SM00000000000000000000000000000001"))]
    MessageSid: String,
    #[schema(examples("delivered"))]
    MessageStatus: String,
    ErrorCode: Option<String>,
}

/// Said when the database does not answer at all.
const NO_ANSWER: &str = "the database did not answer in time; it may or may not have been stored, so send it again";

/// Takes a status callback of Twilio
///
/// Twilio calls this address by itself; the address is `twilio.status_callback_url`, or `public_url` with this path. The
/// signature is checked over that configured address, with every form field.
#[utoipa::path(
    post,
    path = "/twilio/status",
    operation_id = "postTwilioStatus",
    tag = "callbacks",
    params(
        ("X-Twilio-Signature" = String, Header, description = "Twilio's signature"),
        ("d" = Option<String>, Query, nullable = false, description = "The delivery; part of the address that Twilio was given"),
        ("a" = Option<String>, Query, nullable = false, description = "The attempt"),
    ),
    request_body(content = Callback, content_type = "application/x-www-form-urlencoded"),
    responses((status = 204, description = "Recorded, durably"), ForCallbacks)
)]
pub async fn post(State(app): SharedState, request: SignedRequest<Status>) -> Result<StatusCode, Problem> {
    let receipt = receipt::read(&request.query, &request.form).ok_or_else(|| {
        Problem::new(
            Kind::NotACallback,
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
