//! `POST /v1/events`: what a helpdesk says about a ticket. The 202 comes after the commit and never waits for a
//! provider.

use super::{Office, SharedOffice, body, error::Problem, in_time, now};
use crate::{
    config::Source,
    domain::{
        event::{self, Address, Event, Meaning, Recipient},
        json::{self, Fault},
        message::Addressee,
        text::clean_line,
    },
    store::{Accepted, Addition, LaterRecipients, NewDelivery, Resolved},
};
use axum::{
    Json,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Said when the database does not answer at all.
const NO_ANSWER: &str = "the database did not answer in time; it may or may not have been stored, so send it again: what was stored is answered as a duplicate";

pub async fn post(
    State(office): SharedOffice,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    raw: Body,
) -> Result<Response, Problem> {
    let allowed = office.doorkeeper.admit(&office.intake_tokens, &headers, peer.ip())?;
    expect_json(&headers)?;
    let bytes = body::read(raw, body::TRUSTED).await?;
    let document = read_json(&bytes)?;
    let now = now();
    let event = event::parse(&document, now).map_err(|mut faults| {
        // Every bad field is named at once, also the one that only the configuration can judge.
        if let Some(source) = document["source"]
            .as_str()
            .filter(|source| !office.sources.contains_key(*source))
        {
            faults.push(unknown_source(source));
        }
        Problem::fields(faults)
    })?;
    let Some(source) = office.sources.get(&event.source) else {
        return Err(Problem::fields(vec![unknown_source(&event.source)]));
    };
    if allowed.source.as_ref().is_some_and(|bound| *bound != event.source) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("this token may not speak for the source `{}`", event.source),
        ));
    }
    match &event.meaning {
        Meaning::Critical => accept(&office, source, &event, now).await,
        Meaning::Over => resolve(&office, &event, "ticket_closed", now).await,
        Meaning::Lower => resolve(&office, &event, "not_critical", now).await,
        Meaning::UnknownUrgency(urgency) => {
            tracing::warn!(source = %event.source, %urgency, "ignored an event whose urgency nobody knows");
            let detail =
                format!("`{urgency}` is no urgency that Nightbell knows: send `critical`, `high`, `normal` or `low`");
            Ok(
                Json(json!({"outcome": "ignored", "reason": "unknown_urgency", "urgency": urgency, "detail": detail}))
                    .into_response(),
            )
        }
    }
}

fn unknown_source(name: &str) -> Fault {
    let name = clean_line(name, 60);
    Fault {
        pointer: "/source".into(),
        detail: format!("`{name}` is no configured source: set `sources.{name}.…` or send another"),
    }
}

/// JSON by its content type; none at all passes, since the body will tell.
pub fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = given
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "send JSON, with `Content-Type: application/json`",
    ))
}

/// Parses a body; the answer says where it breaks off.
pub fn read_json(bytes: &[u8]) -> Result<Value, Problem> {
    json::parse(bytes).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("the body is no JSON that can be taken: {error}"),
        )
    })
}

async fn accept(office: &Office, source: &Source, event: &Event, now: jiff::Timestamp) -> Result<Response, Problem> {
    let later = if source.each_later_recipient {
        LaterRecipients::Each
    } else {
        LaterRecipients::Untold
    };
    let accepting = office
        .store
        .accept(event, later, now, || compose(office, source, event));
    let accepted = in_time(accepting, NO_ANSWER).await?;
    Ok(match accepted {
        Accepted::New { alert_id, deliveries } => {
            office.wake.notify_one();
            tracing::info!(alert.id = %alert_id, source = %event.source, ticket.id = %event.ticket.id, deliveries = deliveries.len(), "alert raised");
            let deliveries: Vec<Value> = deliveries.iter().map(show).collect();
            (
                StatusCode::ACCEPTED,
                Json(json!({"outcome": "accepted", "alert_id": alert_id, "deliveries": deliveries})),
            )
                .into_response()
        }
        Accepted::Duplicate { alert_id } => Json(json!({"outcome": "duplicate", "alert_id": alert_id})).into_response(),
    })
}

async fn resolve(
    office: &Office,
    event: &Event,
    unknown_ticket: &str,
    now: jiff::Timestamp,
) -> Result<Response, Problem> {
    let resolving = office.store.resolve(event, now);
    Ok(match in_time(resolving, NO_ANSWER).await? {
        Some(Resolved::Closed { alert_id, canceled }) => {
            tracing::info!(alert.id = %alert_id, source = %event.source, ticket.id = %event.ticket.id, canceled, "alert closed");
            Json(json!({"outcome": "resolved", "alert_id": alert_id, "canceled": canceled})).into_response()
        }
        Some(Resolved::Duplicate { alert_id }) => {
            Json(json!({"outcome": "duplicate", "alert_id": alert_id})).into_response()
        }
        None => Json(json!({"outcome": "ignored", "reason": unknown_ticket})).into_response(),
    })
}

fn show(delivery: &Addition) -> Value {
    json!({
        "id": delivery.id,
        "recipient": {"staff_id": delivery.staff_id, "role": delivery.role, "name": delivery.name},
        "state": delivery.state.as_str(),
    })
}

/// One delivery for each person: the same number twice is one. If no number can be used, those who stand in for the
/// source are told as well.
fn compose(office: &Office, source: &Source, event: &Event) -> Vec<NewDelivery> {
    let mut deliveries = Vec::new();
    for recipient in &event.recipients {
        add(office, source, event, recipient, &mut deliveries);
    }
    if !deliveries.iter().any(|delivery| delivery.phone.is_ok()) {
        for recipient in &source.fallback_recipients {
            add(office, source, event, recipient, &mut deliveries);
        }
    }
    deliveries
}

fn add(office: &Office, source: &Source, event: &Event, recipient: &Recipient, deliveries: &mut Vec<NewDelivery>) {
    let phone = match recipient.address(source.region) {
        Address::Phone(phone) => Ok(phone),
        Address::Invalid(raw) => Err(Some(raw)),
        Address::Missing => Err(None),
    };
    if phone.is_ok() && deliveries.iter().any(|delivery| delivery.phone == phone) {
        return;
    }
    let addressee = Addressee {
        name: recipient.name.as_deref(),
        role: recipient.role.as_deref(),
    };
    let message = office.templates.compose(event, addressee, office.message_rules, |error| {
        tracing::warn!(template = "sms/critical.txt", line = error.line(), kind = ?error.kind(), "the template failed; the built-in one is used");
    });
    deliveries.push(NewDelivery {
        staff_id: recipient.staff_id.clone(),
        role: recipient.role.clone(),
        name: recipient.name.clone(),
        phone,
        message: message.text,
        segments: message.size.segments,
    });
}
