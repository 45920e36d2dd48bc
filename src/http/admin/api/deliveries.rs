//! `/v1/deliveries`: messages that are or were owed, what happened to each, and sending one again.

use super::query::{self, ListPage, NO_PHONE, PageSize, Phones, Query};
use crate::{
    domain::{
        day::LocalDay,
        delivery,
        phone::{PhoneNumber, Region},
        text::clean_line,
    },
    http::{
        body,
        deadline::now,
        error::Problem,
        person::Recipient,
        state::{AppState, SharedState},
    },
    store::{DeliveryFilter, DeliveryView, Resent},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

/// Which deliveries, and how they are shown.
#[derive(Deserialize)]
pub struct ListQuery {
    #[serde(default, deserialize_with = "state")]
    state: Option<delivery::State>,
    ticket_id: Option<String>,
    /// A number in any writing.
    phone: Option<String>,
    /// The local day on which its event came.
    #[serde(default, deserialize_with = "query::day")]
    day: Option<LocalDay>,
    cursor: Option<String>,
    #[serde(default)]
    limit: PageSize,
    #[serde(default)]
    reveal: Phones,
}

/// How one delivery is shown.
#[derive(Deserialize)]
pub struct ShowQuery {
    #[serde(default)]
    reveal: Phones,
}

/// Whether to send again what may still arrive, and how the new delivery is shown.
#[derive(Deserialize)]
pub struct ResendQuery {
    #[serde(default, deserialize_with = "query::is_true")]
    force: bool,
    #[serde(default)]
    reveal: Phones,
}

/// The body of a request to send again; it may be left out.
#[derive(Default)]
pub struct ResendRequest {
    /// Send though the old message may still arrive.
    force: bool,
}

impl ResendRequest {
    fn read(document: &Value) -> Result<Self, Problem> {
        match document.get("force") {
            Some(Value::Bool(force)) => Ok(Self { force: *force }),
            None | Some(Value::Null) => Ok(Self { force: false }),
            Some(_) => Err(Problem::field("/force", "this is neither `true` nor `false`")),
        }
    }
}

/// One message that is or was owed to one person.
#[derive(Serialize)]
pub struct Delivery {
    id: String,
    alert_id: String,
    channel: String,
    round: i64,
    /// The delivery that this one repeats.
    resend_of: Option<String>,
    recipient: Recipient,
    /// In E.164, or the unusable text that was given; masked unless `?reveal=phone` asks for it.
    phone: Option<String>,
    state: String,
    reason: Option<String>,
    attempts: i64,
    provider: Option<String>,
    provider_message_id: Option<String>,
    /// The provider's own word.
    provider_status: Option<String>,
    error_code: Option<i64>,
    segments: i64,
    due_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// What happened to it, oldest first; in single views only.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Vec<TimelineEntry>>,
}

/// One thing that happened to a delivery.
#[derive(Serialize)]
pub struct TimelineEntry {
    at: Timestamp,
    what: String,
    detail: Option<String>,
}

impl Delivery {
    /// Without what happened to it.
    pub fn in_list(view: DeliveryView, phones: Phones) -> Self {
        Self {
            phone: match phones {
                Phones::InFull => view.phone,
                Phones::Masked => view.masked_phone(),
            },
            id: view.id,
            alert_id: view.alert_id,
            channel: view.channel,
            round: view.round,
            resend_of: view.resend_of,
            recipient: Recipient {
                staff_id: view.staff_id,
                role: view.role,
                name: view.name,
            },
            state: view.state,
            reason: view.reason,
            attempts: view.attempts,
            provider: view.provider,
            provider_message_id: view.provider_message_id,
            provider_status: view.provider_status,
            error_code: view.error_code,
            segments: view.segments,
            due_at: view.due_at,
            created_at: view.created_at,
            updated_at: view.updated_at,
            timeline: None,
        }
    }

    /// With its timeline.
    pub fn single(mut view: DeliveryView, phones: Phones) -> Self {
        let timeline = std::mem::take(&mut view.timeline)
            .into_iter()
            .map(|entry| TimelineEntry {
                at: entry.at,
                what: entry.what,
                detail: entry.detail,
            });
        Self {
            timeline: Some(timeline.collect()),
            ..Self::in_list(view, phones)
        }
    }
}

/// `GET /v1/deliveries`: newest first.
pub async fn list(
    State(app): SharedState,
    Query(query): Query<ListQuery>,
) -> Result<Json<ListPage<Delivery>>, Problem> {
    let filter = filter(&app, &query)?;
    let page = app
        .store
        .deliveries(&filter, query.cursor.as_deref(), query.limit.0)
        .await?;
    Ok(Json(ListPage::of(page, |view| Delivery::in_list(view, query.reveal))))
}

/// `GET /v1/deliveries/{id}`.
pub async fn show(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<Delivery>, Problem> {
    find(&app, &id, query.reveal).await
}

/// `POST /v1/deliveries/{id}/resend`: sends it again as its next round. `{"force": true}` (or `?force=true`) does so though
/// the old one may still arrive.
pub async fn resend(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ResendQuery>,
    headers: HeaderMap,
    raw: Body,
) -> Result<(StatusCode, Json<Delivery>), Problem> {
    let request = match body::read_optional_json(&headers, raw).await? {
        Some(document) => ResendRequest::read(&document)?,
        None => ResendRequest::default(),
    };
    let force = query.force || request.force;
    let conflict = |detail: String| Err(Problem::new(StatusCode::CONFLICT, detail));
    let new_id = match app.store.resend(&id.as_str().into(), force, now()).await? {
        Resent::As(new_id) => new_id,
        Resent::Undecided(state) => {
            return conflict(format!(
                "this delivery is `{state}` and may still arrive: wait, or send `{{\"force\": true}}` to tell the person perhaps twice"
            ));
        }
        Resent::NoPhone => return conflict("this delivery has no usable number, so it cannot be sent".to_owned()),
        Resent::NoSuchDelivery => return Err(not_found()),
    };
    tracing::info!(delivery.id = %new_id, resend_of = %id, force, "an admin sends a delivery again");
    Ok((StatusCode::CREATED, find(&app, new_id.as_str(), query.reveal).await?))
}

async fn find(app: &AppState, id: &str, phones: Phones) -> Result<Json<Delivery>, Problem> {
    let delivery = app.store.delivery(id).await?.ok_or_else(not_found)?;
    Ok(Json(Delivery::single(delivery, phones)))
}

fn not_found() -> Problem {
    Problem::not_found("there is no delivery with this id")
}

fn filter(app: &AppState, query: &ListQuery) -> Result<DeliveryFilter, Problem> {
    let phone = match &query.phone {
        None => None,
        Some(text) => Some(
            searched_phone(text, app.default_region)
                .ok_or_else(|| Problem::field("/phone", format!("{NO_PHONE} (in an address, `+` is `%2B`)")))?,
        ),
    };
    Ok(DeliveryFilter {
        state: query.state.map(delivery::State::as_str),
        ticket_id: query.ticket_id.clone(),
        phone: phone.map(|phone| phone.as_e164().to_owned()),
        received: query
            .day
            .map(|day| (day.start(&app.time_zone), day.end(&app.time_zone))),
    })
}

fn state<'de, D: Deserializer<'de>>(parameter: D) -> Result<Option<delivery::State>, D::Error> {
    let word = String::deserialize(parameter)?;
    let unknown = || {
        let words: Vec<&str> = delivery::State::ALL.iter().map(|state| state.as_str()).collect();
        let (word, words) = (clean_line(&word, 40), words.join(", "));
        de::Error::custom(format_args!("`{word}` is not a state: it is one of {words}"))
    };
    delivery::State::parse(&word).map(Some).ok_or_else(unknown)
}

/// A number that is searched for. Where a bare `+` may have become a blank before the digits, both are tried; if they are
/// two numbers, neither is meant for sure.
fn searched_phone(text: &str, region: Region) -> Option<PhoneNumber> {
    let as_given = PhoneNumber::parse(text, region);
    let digits = text.find(|c: char| c.is_numeric()).unwrap_or(text.len());
    let (before, rest) = text.split_at(digits);
    let with_plus = match before.split_once(' ') {
        Some((start, end)) if !before.contains('+') => {
            PhoneNumber::parse(&format!("{start}+{end}{rest}"), Region::UNKNOWN)
        }
        Some(_) | None => None,
    };
    match (as_given, with_plus) {
        (Some(given), Some(other)) => (given == other).then_some(given),
        (given, other) => given.or(other),
    }
}
