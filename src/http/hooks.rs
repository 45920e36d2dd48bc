//! `POST /v1/hooks/{source}`: what a helpdesk says in its own form, signed or with a token. Absent: what its fields mean
//! (see `domain::mapping`), and what becomes of the event (see `intake`).

use super::{
    body,
    connections::Connection,
    deadline::{in_time, now},
    error::{ForChallenges, ForEvents, ForHooks, Kind, Problem},
    events::{self, NO_ANSWER},
    state::{AppState, SharedState},
};
use crate::{
    domain::{json, source::Source, text::clean_line, verifier::Verifier},
    intake::{Outcome, Via},
};
use axum::{
    Extension, Json,
    body::Body,
    extract::{ConnectInfo, Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use std::{net::SocketAddr, time::Duration};
use utoipa::IntoParams;

/// Who sent it is known only once the body is there, so nothing of what is too large is read away. Zammad's bodies, with
/// articles, are tens of kilobytes.
const UNSIGNED: body::Limits = body::Limits {
    size: 1024 * 1024,
    wait: Duration::from_secs(10),
    drain: 0,
};
/// Longer than any challenge.
const MAX_CHALLENGE: usize = 200;

/// Takes an event in the helpdesk's own form
///
/// The source's `preset` or `map` says where in the body everything stands, and its `urgency` what the helpdesk's words mean.
/// With `secret`, the body must be signed; otherwise a token is needed, as `Bearer` or as the password of `Basic`. What is
/// understood and nothing to act on is answered 200 too: most helpdesks repeat anything else.
#[utoipa::path(
    post,
    path = "/v1/hooks/{source}",
    operation_id = "postHook",
    tag = "events",
    params(("source" = String, Path, description = "The name of a configured source", example = "default")),
    request_body(content = serde_json::Value, description = "Whatever the helpdesk sends, as JSON of at most 1 MiB"),
    responses(
        (status = 200, body = Outcome, description = "A duplicate, resolved, or understood with nothing to do"),
        (status = 202, body = Outcome, description = "A new alert, or more people told by a known one; durable"),
        ForEvents,
        ForHooks,
    ),
    security(("intake" = []))
)]
pub async fn post(
    State(app): SharedState,
    Path(name): Path<String>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    raw: Body,
) -> Result<impl IntoResponse, Problem> {
    let refuse = |problem| app.rate_limiter.refuse(&headers, peer.ip(), problem);
    let source = app.intake.source(&name).ok_or_else(|| refuse(unknown()))?;
    let (quota, body) = match &source.verifier {
        Some(verifier) => {
            let body = connection
                .while_waiting(signed_body(&name, verifier, &headers, raw))
                .await;
            (None, body.map_err(refuse)?)
        }
        None => {
            let allowed = app
                .rate_limiter
                .admit(&app.intake_tokens, &as_bearer(&headers), peer.ip())?;
            if allowed.source.is_some_and(|source| source != name) {
                return Err(events::wrong_source(&name));
            }
            (allowed.quota, body::read(raw, body::TRUSTED).await?)
        }
    };
    connection.know_client();
    Ok((quota, take(&app, &name, source, &headers, &body).await))
}

fn unknown() -> Problem {
    Problem::not_found(
        "no source of this name is configured: compare the address with `sources.<name>` in the configuration",
    )
}

/// The body, if it is signed. What is not is told to the log: nobody at the helpdesk reads an answer.
async fn signed_body(name: &str, verifier: &Verifier, headers: &HeaderMap, raw: Body) -> Result<Vec<u8>, Problem> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let reject = |why: String| {
        tracing::warn!(
            source = name,
            why,
            "rejected a webhook; if the helpdesk sent it, compare its secret with `sources.{name}.secret`, or try `nightbell source try {name}`"
        );
        Problem::new(Kind::InvalidSignature, "the signature is missing or not valid")
    };
    // Without one nothing is read.
    if header(&verifier.scheme.header).is_none() {
        return Err(reject(format!("it has no `{}` header", verifier.scheme.header)));
    }
    let body = body::read(raw, UNSIGNED).await?;
    verifier.verify(header, &body, now()).map_err(reject)?;
    Ok(body)
}

/// The headers, with the password of `Basic` as a token: some helpdesks can send nothing else.
fn as_bearer(headers: &HeaderMap) -> HeaderMap {
    let token = || {
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, credentials) = given.split_once(' ')?;
        let decoded = BASE64
            .decode(credentials.trim())
            .ok()
            .filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let text = String::from_utf8(decoded).ok()?;
        let (_, password) = text.split_once(':')?;
        HeaderValue::from_str(&format!("Bearer {password}")).ok()
    };
    let mut headers = headers.clone();
    if let Some(value) = token() {
        headers.insert(header::AUTHORIZATION, value);
    }
    headers
}

async fn take(
    app: &AppState,
    name: &str,
    source: &Source,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(StatusCode, Json<Outcome>), Problem> {
    let document = json::parse(body).map_err(|error| Problem::new(Kind::InvalidJson, error.to_string()))?;
    let now = now();
    let reading = source.read(name, &document, now).map_err(|faults| {
        for fault in &faults {
            tracing::warn!(
                source = name,
                pointer = fault.pointer,
                "cannot read what the helpdesk sent: {}",
                fault.detail
            );
        }
        Problem::fields(faults)
    })?;
    for fault in &reading.left_out {
        tracing::warn!(
            source = name,
            pointer = fault.pointer,
            "left out of an event: {}",
            fault.detail
        );
    }
    let mut event = reading.event;
    if event.id.is_none() {
        let mut headers = source
            .delivery_headers()
            .filter_map(|name| headers.get(name)?.to_str().ok());
        event.id = headers.next().map(|id| clean_line(id, 200)).filter(|id| !id.is_empty());
    }
    let outcome = in_time(app.intake.take(&event, Via::Webhook, now), NO_ANSWER).await?;
    // It was there a moment ago, and sources do not change while the process runs.
    let outcome = outcome.ok_or_else(unknown)?;
    Ok((events::status(&outcome), Json(outcome)))
}

/// What GLPI asks for a proof with.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Challenge {
    /// The challenge, which is answered with its HMAC-SHA256: at most 200 letters, digits, `-` and `_`.
    crc_token: String,
}

/// Answers a challenge
///
/// GLPI may ask for a proof that Nightbell has the webhook's secret: the answer is the HMAC-SHA256 of `crc_token`, in hex.
/// Only for sources with `challenge` (preset `glpi`) and `secret`.
#[utoipa::path(
    get,
    path = "/v1/hooks/{source}",
    operation_id = "answerChallenge",
    tag = "events",
    params(("source" = String, Path, description = "The name of a configured source", example = "default"), Challenge),
    responses((status = 200, body = String, content_type = "text/plain", description = "The proof"), ForChallenges)
)]
pub async fn challenge(
    State(app): SharedState,
    Path(name): Path<String>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    challenge: Result<Query<Challenge>, axum::extract::rejection::QueryRejection>,
) -> Result<String, Problem> {
    let source = app.intake.source(&name).filter(|source| source.answers_challenges);
    let verifier = source.and_then(|source| source.verifier.as_ref());
    let challenge = challenge.ok().map(|Query(challenge)| challenge.crc_token);
    let challenge = challenge.filter(|text| (1..=MAX_CHALLENGE).contains(&text.len()));
    let answer = verifier
        .zip(challenge)
        .and_then(|(verifier, text)| verifier.answer_challenge(&text));
    // What is asked is unsigned, so it counts like anything without a token.
    match answer {
        Some(answer) => match app.rate_limiter.refuse(&headers, peer.ip(), unknown()) {
            problem if problem.kind() == Kind::NotFound => Ok(answer),
            flood => Err(flood),
        },
        None => Err(app.rate_limiter.refuse(&headers, peer.ip(), unknown())),
    }
}
