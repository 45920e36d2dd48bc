//! `POST /v1/events`: what a helpdesk says about a ticket. The answer comes after the commit and never waits for a
//! provider. Absent: what becomes of an event (see `intake`).

use super::{
    auth::Allowed,
    body,
    deadline::{in_time, now},
    error::Problem,
    person,
    state::SharedState,
};
use crate::{
    domain::{
        event::{self, Event},
        id::{AlertId, DeliveryId},
        json::Fault,
        text::clean_line,
    },
    intake::{Ignored, Outcome},
    store::Addition,
};
use axum::{
    Json,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode},
};
use serde::Serialize;
use std::net::SocketAddr;

/// Said when the database does not answer at all.
const NO_ANSWER: &str = "the database did not answer in time; it may or may not have been stored, so send it again: what was stored is answered as a duplicate";

pub async fn post(
    State(app): SharedState,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    raw: Body,
) -> Result<(StatusCode, Json<EventAnswer>), Problem> {
    let allowed = app.rate_limiter.admit(&app.intake_tokens, &headers, peer.ip())?;
    let document = body::read_json(&headers, raw).await?;
    let now = now();
    let event = event::parse(&document, now).map_err(|mut faults| {
        // Every bad field is named at once, also the one that only the configuration can judge.
        if let Some(source) = document["source"].as_str().filter(|name| !app.intake.has_source(name)) {
            faults.push(unknown_source(source));
        }
        Problem::fields(faults)
    })?;
    // A source that is not configured is answered as such, whatever the token is for.
    if app.intake.has_source(&event.source) {
        check_token(&allowed, &event)?;
    }
    let outcome = in_time(app.intake.take(&event, now), NO_ANSWER).await?;
    show(outcome, &event)
}

fn check_token(allowed: &Allowed, event: &Event) -> Result<(), Problem> {
    match &allowed.source {
        Some(source) if *source != event.source => Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("this token may not speak for the source `{}`", event.source),
        )),
        Some(_) | None => Ok(()),
    }
}

fn unknown_source(name: &str) -> Fault {
    let name = clean_line(name, 60);
    Fault {
        pointer: "/source".into(),
        detail: format!("`{name}` is not a configured source: set `sources.{name}.…` or send another"),
    }
}

/// What became of an event.
#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum EventAnswer {
    /// The alert is new, or more people are told of it now.
    Accepted {
        alert_id: AlertId,
        deliveries: Vec<NewDelivery>,
    },
    /// The ticket has its alert; nothing was added.
    Duplicate { alert_id: AlertId },
    /// The ticket's alert is closed, and so many deliveries are canceled.
    Resolved { alert_id: AlertId, canceled: usize },
    /// Understood; there is nothing to do.
    Ignored {
        reason: IgnoredReason,
        /// The urgency that is not known.
        #[serde(skip_serializing_if = "Option::is_none")]
        urgency: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
}

/// Why there is nothing to do.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IgnoredReason {
    NotCritical,
    TicketClosed,
    UnknownUrgency,
}

/// A delivery that the event added or brought back.
#[derive(Serialize)]
pub struct NewDelivery {
    id: DeliveryId,
    recipient: person::Recipient,
    state: &'static str,
}

impl From<Addition> for NewDelivery {
    fn from(added: Addition) -> Self {
        Self {
            id: added.id,
            recipient: person::Recipient {
                staff_id: added.staff_id,
                role: added.role,
                name: added.name,
            },
            state: added.state.as_str(),
        }
    }
}

impl From<Ignored> for EventAnswer {
    fn from(ignored: Ignored) -> Self {
        let only = |reason| Self::Ignored {
            reason,
            urgency: None,
            detail: None,
        };
        match ignored {
            Ignored::NotCritical => only(IgnoredReason::NotCritical),
            Ignored::TicketClosed => only(IgnoredReason::TicketClosed),
            Ignored::UnknownUrgency(urgency) => Self::Ignored {
                reason: IgnoredReason::UnknownUrgency,
                detail: Some(format!(
                    "Nightbell does not know the urgency `{urgency}`: send `critical`, `high`, `normal` or `low`"
                )),
                urgency: Some(urgency),
            },
        }
    }
}

fn show(outcome: Outcome, event: &Event) -> Result<(StatusCode, Json<EventAnswer>), Problem> {
    let (status, answer) = match outcome {
        Outcome::Accepted { alert_id, deliveries } => (
            StatusCode::ACCEPTED,
            EventAnswer::Accepted {
                alert_id,
                deliveries: deliveries.into_iter().map(NewDelivery::from).collect(),
            },
        ),
        Outcome::Duplicate { alert_id } => (StatusCode::OK, EventAnswer::Duplicate { alert_id }),
        Outcome::Resolved { alert_id, canceled } => (StatusCode::OK, EventAnswer::Resolved { alert_id, canceled }),
        Outcome::Ignored(ignored) => (StatusCode::OK, ignored.into()),
        Outcome::UnknownSource => return Err(Problem::fields(vec![unknown_source(&event.source)])),
    };
    Ok((status, Json(answer)))
}
