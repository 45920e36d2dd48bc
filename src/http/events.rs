//! `POST /v1/events`: what a helpdesk says about a ticket. The answer comes after the commit and never waits for a
//! provider. Absent: what becomes of an event (see `intake`).

use super::{
    body,
    connections::Connection,
    deadline::{in_time, now},
    error::Problem,
    state::SharedState,
};
use crate::{
    domain::{event, json::Fault, text::clean_line},
    intake::Outcome,
};
use axum::{
    Extension, Json,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode},
};
use std::net::SocketAddr;

/// Said when the database does not answer at all.
const NO_ANSWER: &str = "the database did not answer in time; it may or may not have been stored, so send it again: what was stored is answered as a duplicate";

pub async fn post(
    State(app): SharedState,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    raw: Body,
) -> Result<(StatusCode, Json<Outcome>), Problem> {
    let allowed = app.rate_limiter.admit(&app.intake_tokens, &headers, peer.ip())?;
    connection.know_client();
    let document = body::read_json(&headers, raw).await?;
    let now = now();
    let event = event::parse(&document, now).map_err(|mut faults| {
        // Every bad field is named at once, also the one that only the configuration can judge.
        let named = document["source"].as_str();
        let unknown = named.filter(|name| !app.intake.has_source(name));
        faults.extend(unknown.map(unknown_source));
        Problem::fields(faults)
    })?;
    // A source that is not configured is answered as such, whatever the token is for.
    let speaks_for_another = allowed.source.is_some_and(|source| source != event.source);
    if speaks_for_another && app.intake.has_source(&event.source) {
        let detail = format!("this token may not speak for the source `{}`", event.source);
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let outcome = in_time(app.intake.take(&event, now), NO_ANSWER)
        .await?
        .ok_or_else(|| Problem::fields(vec![unknown_source(&event.source)]))?;
    let status = match outcome {
        Outcome::Accepted { .. } => StatusCode::ACCEPTED,
        Outcome::Duplicate { .. } | Outcome::Resolved { .. } | Outcome::Ignored(_) => StatusCode::OK,
    };
    Ok((status, Json(outcome)))
}

fn unknown_source(name: &str) -> Fault {
    let name = clean_line(name, 60);
    Fault {
        pointer: "/source".into(),
        detail: format!("`{name}` is not a configured source: set `sources.{name}.…` or send another"),
    }
}
