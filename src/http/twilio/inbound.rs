//! `POST /twilio/inbound`: what people text us. Kept means committed; what could not be stored is never answered with 2xx.
//! Answered within a second, and with nothing to be sent back: answers are messages of their own. Absent: who sent it (see
//! `signed`).

use super::signed::{Inbound, SignedRequest};
use crate::{
    carrier::twilio::inbound,
    domain::{
        day::{LocalDay, after},
        id::DeliveryId,
        phone,
    },
    http::{
        deadline::now,
        error::{ForMessagesIn, Kind, Problem},
        state::{AppState, SharedState},
    },
    store::{Incoming, StoreError, Taken},
};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use jiff::SignedDuration;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use utoipa::ToSchema;

/// The form that Twilio sends; more fields are welcome.
#[derive(ToSchema)]
#[schema(as = TwilioMessage)]
#[expect(dead_code, reason = "describes what `carrier::twilio::inbound` reads")]
#[expect(non_snake_case, reason = "Twilio's own names")]
pub struct Message {
    #[schema(examples("SM00000000000000000000000000000001"))]
    MessageSid: String,
    #[schema(examples("+14155550101"))]
    From: String,
    #[schema(examples("+15005550006"))]
    To: String,
    #[schema(examples("STOP"))]
    Body: String,
    /// `STOP`, `START` or `HELP`, where Advanced Opt-Out is on.
    OptOutType: Option<String>,
    NumMedia: Option<String>,
}

/// An answer is there within a second: so much is left for the database, and for calls that were begun before an opt-out.
const STORE_WAIT: Duration = Duration::from_millis(800);
const WHOLE: Duration = Duration::from_millis(950);
const CALLS_WAIT: Duration = Duration::from_millis(700);
/// How often it is looked whether those calls are over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Said when the database does not answer at all.
const NO_ANSWER: &str = "the database did not answer in time; it may or may not have been stored, so send it again";

/// Twilio does nothing by it (its voice and messaging markup).
const NOTHING: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";

/// How far clocks of two processes may differ, and their midnights with them.
const AROUND: SignedDuration = SignedDuration::from_mins(1);

/// Takes a message that somebody sent us
///
/// Twilio calls this address by itself, once it is set as the webhook of a number or a messaging service; the address is
/// `twilio.inbound_url`, or `public_url` with this path. The signature is checked over that configured address, with every
/// form field. A message that comes again is answered as the first time, and nothing more happens.
#[utoipa::path(
    post,
    path = "/twilio/inbound",
    operation_id = "postTwilioInbound",
    tag = "callbacks",
    params(("X-Twilio-Signature" = String, Header, description = "Twilio's signature")),
    request_body(content = Message, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, content_type = "text/xml", body = String, description = "Kept, durably; with nothing to be sent back"),
        ForMessagesIn,
    )
)]
pub async fn post(State(app): SharedState, request: SignedRequest<Inbound>) -> Result<Response, Problem> {
    let started = Instant::now();
    let message = inbound::read(&request.form).ok_or_else(|| {
        Problem::new(
            Kind::NotAMessage,
            "this is not an incoming message: it names no message, or nothing that was sent",
        )
    })?;
    let sender = phone::mask(message.from.as_deref().unwrap_or_default());
    let calling = match take(&app, message).await? {
        Taken::Kept {
            id,
            kind,
            outcome,
            is_answered,
            calling,
        } => {
            tracing::info!(inbound.id = %id, %kind, %outcome, answered = is_answered, "somebody texted us");
            calling
        }
        Taken::Repeat { calling } => {
            tracing::debug!("a message from outside was repeated");
            calling
        }
        Taken::TooMany => {
            tracing::warn!(from = %sender, "not kept: nobody knows who texted us, and too many came from such in an hour");
            Vec::new()
        }
    };
    if !calling.is_empty() {
        let left = WHOLE.saturating_sub(started.elapsed()).min(CALLS_WAIT);
        if tokio::time::timeout(left, calls_end(&app, &calling)).await.is_err() {
            tracing::warn!(
                deliveries = calling.len(),
                "somebody opted out while a message to them was being handed to the provider"
            );
        }
    }
    Ok(([(header::CONTENT_TYPE, "text/xml; charset=utf-8")], NOTHING).into_response())
}

async fn take(app: &AppState, message: crate::domain::inbound::Inbound) -> Result<Taken, Problem> {
    let now = now();
    let day = |at| LocalDay::of(at, &app.time_zone);
    let incoming = Incoming {
        meaning: app.keywords.meaning(&message.text, message.keyword),
        rules: Arc::clone(&app.inbound),
        days: [after(now, -AROUND), now, after(now, AROUND)].map(day).into(),
        message,
        now,
    };
    match tokio::time::timeout(STORE_WAIT, app.store.take_inbound(Arc::new(incoming))).await {
        Ok(taken) => Ok(taken?),
        Err(_) => Err(Problem::new(Kind::DatabaseUnavailable, NO_ANSWER).retry_after(5)),
    }
}

/// Waits until the calls of these deliveries are over, whatever came of them.
async fn calls_end(app: &AppState, deliveries: &[DeliveryId]) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        match app.store.are_calling(deliveries).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return log(&error),
        }
    }
}

/// The opt-out is kept; only the wait for calls is cut short.
fn log(error: &StoreError) {
    tracing::warn!(%error, "cannot see whether a message was being handed to the provider as its person opted out");
}
