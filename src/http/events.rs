//! `POST /v1/events`: what a helpdesk says about a ticket. The answer comes after the commit and never waits for a
//! provider. Absent: what becomes of an event (see `intake`).

use super::{
    auth::Allowed,
    body::{self, Id},
    connections::Connection,
    deadline::{in_time, now},
    error::{ForEvents, JsonBody, Kind, Problem},
    state::{AppState, SharedState},
};
use crate::{
    domain::{event, json::Fault, text::clean_line},
    intake::{Outcome, Via},
};
use axum::{
    Extension, Json,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use std::net::SocketAddr;
use utoipa::{
    ToSchema,
    openapi::schema::{Object, ObjectBuilder, SchemaType},
};

/// Said when the database does not answer at all.
pub const NO_ANSWER: &str = "the database did not answer in time; it may or may not have been stored, so send it again: what was stored is answered as a duplicate";

/// Takes an event
///
/// What a helpdesk says about a ticket. When the ticket turned critical, an alert is raised, with one message for each
/// recipient. The answer comes once that is durable, and never waits for a provider. **A ticket has one alert for ever**: the
/// same event may be sent as often as need be, and so may any that got no answer or a 5xx. An event that says that the ticket
/// is resolved, closed or less urgent closes its alert and cancels what was not begun.
#[utoipa::path(
    post,
    path = "/v1/events",
    operation_id = "postEvent",
    tag = "events",
    request_body = EventBody,
    responses(
        (status = 200, body = Outcome, description = "A duplicate, resolved, or understood with nothing to do"),
        (status = 202, body = Outcome, description = "A new alert, or more people told by a known one; durable"),
        ForEvents,
        JsonBody,
    ),
    security(("intake" = []))
)]
pub async fn post(
    State(app): SharedState,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    raw: Body,
) -> Result<impl IntoResponse, Problem> {
    let allowed = app.rate_limiter.admit(&app.intake_tokens, &headers, peer.ip())?;
    connection.know_client();
    Ok((allowed.quota, take(&app, allowed, &headers, raw).await))
}

async fn take(
    app: &AppState,
    allowed: Allowed,
    headers: &HeaderMap,
    raw: Body,
) -> Result<(StatusCode, Json<Outcome>), Problem> {
    let document = body::read_json(headers, raw).await?;
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
        return Err(wrong_source(&event.source));
    }
    let outcome = in_time(app.intake.take(&event, Via::Webhook, now), NO_ANSWER)
        .await?
        .ok_or_else(|| Problem::fields(vec![unknown_source(&event.source)]))?;
    Ok((status(&outcome), Json(outcome)))
}

/// What an outcome is answered with.
pub fn status(outcome: &Outcome) -> StatusCode {
    match outcome {
        Outcome::Accepted { .. } => StatusCode::ACCEPTED,
        Outcome::Duplicate { .. } | Outcome::Resolved { .. } | Outcome::Ignored(_) => StatusCode::OK,
    }
}

/// For a token that is bound to another source.
pub fn wrong_source(name: &str) -> Problem {
    Problem::new(
        Kind::WrongSource,
        format!("this token may not speak for the source `{name}`"),
    )
}

/// What a helpdesk says about a ticket. Members that are not listed here are ignored, and `null` counts as absent.
#[derive(ToSchema)]
#[schema(as = Event)]
#[expect(dead_code, reason = "describes what `domain::event` reads; a test compares the two")]
pub struct EventBody {
    /// The helpdesk's own id of this event: one that its alert has seen is a duplicate. Like all ids, of at most 200
    /// characters.
    id: Option<Id>,
    /// Which configured source sends it.
    #[schema(examples("default"), default = "default", max_length = 1000)]
    source: Option<String>,
    /// `ticket.resolved`, `ticket.closed` and `ticket.urgency_lowered` close the ticket's alert. Of any other type the
    /// urgency decides.
    #[schema(examples("ticket.urgency_changed"))]
    r#type: Option<String>,
    #[schema(schema_with = any_time)]
    occurred_at: Option<String>,
    ticket: EventTicket,
    client: Option<EventClient>,
    /// Who must know. Without any, the source's fallback recipients are told.
    #[schema(max_items = 100)]
    recipients: Option<Vec<EventRecipient>>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub struct EventTicket {
    /// The helpdesk's own id of the ticket, which has one alert for ever.
    id: Id,
    /// What people call the ticket.
    number: Option<Id>,
    /// Required where the ticket is critical. Cut at 1,000 characters.
    #[schema(examples("Checkout page 500 error"))]
    subject: Option<String>,
    /// `critical` raises an alert; `high`, `medium`, `normal` and `low` close it; any other is ignored, and the answer says
    /// so. Required unless `type` closes the ticket.
    #[schema(examples("critical"))]
    urgency: Option<String>,
    /// Only `https://` and `http://`.
    #[schema(examples("https://tickets.example.com/3"), max_length = 2000)]
    url: Option<String>,
    #[schema(minimum = 0, maximum = 100000, examples(4.5))]
    estimated_hours: Option<f64>,
    /// The queue, department, team or group that the ticket is in: whoever manages it by the staff directory is told too.
    #[schema(examples("Billing"))]
    group: Option<String>,
    ai: Option<EventJudgement>,
}

/// How sure the helpdesk is of the urgency.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub struct EventJudgement {
    #[schema(minimum = 0, maximum = 100, examples(95))]
    confidence_percent: Option<f64>,
}

/// Whose ticket it is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub struct EventClient {
    #[schema(examples("Bo Client"))]
    name: Option<String>,
    #[schema(examples("Acme Corp"))]
    organisation: Option<String>,
}

/// A person who must know.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub struct EventRecipient {
    /// The helpdesk's own id of the person. Whoever comes without a usable phone is looked up in the staff directory: by
    /// this, else by login, e-mail or name.
    staff_id: Option<Id>,
    #[schema(examples("grace"))]
    login: Option<String>,
    #[schema(examples("grace@acme.example"))]
    email: Option<String>,
    /// `assignee`, `project_manager`, `manager`, `team`, `watcher`, or the helpdesk's own word.
    #[schema(examples("assignee"))]
    role: Option<String>,
    #[schema(examples("Grace Hopper"))]
    name: Option<String>,
    /// In any writing; best with `+` and country code. An unusable one becomes a failed delivery, and stops nobody else's.
    #[schema(examples("+14155550101"))]
    phone: Option<String>,
    /// Whose rules a number without a country code follows, like `DE`; otherwise those of the source.
    #[schema(examples("US"))]
    region: Option<String>,
}

/// Of a time no fault is ever found.
fn any_time() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(
            "When it happened, by RFC 3339. What cannot be read, or is absurd, counts as the time of arrival.",
        ))
        .examples(["2026-11-20T09:24:38Z"])
        .build()
}

fn unknown_source(name: &str) -> Fault {
    let name = clean_line(name, 60);
    Fault {
        pointer: "/source".into(),
        detail: format!("`{name}` is not a configured source: set `sources.{name}.…` or send another"),
    }
}
