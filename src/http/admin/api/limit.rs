//! `/v1/limit`: how many messages may be handed to the provider in one local day.

use crate::{
    domain::day::LocalDay,
    http::{
        body,
        deadline::now,
        error::Problem,
        state::{AppState, SharedState},
    },
    store::LimitStatus,
};
use axum::{Json, body::Body, extract::State, http::HeaderMap};
use serde::Serialize;
use serde_json::Value;

/// More messages a day than any helpdesk sends; beyond it a typing error is likelier.
const MAX_LIMIT: i64 = 10_000_000;

/// The limit that an admin sets.
pub struct NewLimit {
    /// `None` for the configured one.
    limit: Option<i64>,
}

impl NewLimit {
    fn read(document: &Value) -> Result<Self, Problem> {
        let limit = match document.get("limit") {
            Some(Value::Null) => None,
            Some(value) => {
                let limit = value.as_i64().filter(|limit| (0..=MAX_LIMIT).contains(limit));
                let fault = || Problem::field("/limit", format!("this is not a whole number from 0 to {MAX_LIMIT}"));
                Some(limit.ok_or_else(fault)?)
            }
            None => {
                return Err(Problem::field(
                    "/limit",
                    "this is missing: send a whole number, or `null` for the configured limit",
                ));
            }
        };
        Ok(Self { limit })
    }
}

/// Today's limit.
#[derive(Serialize)]
pub struct DailyLimit {
    day: String,
    time_zone: String,
    limit: i64,
    /// How many of today's slots are taken.
    used: i64,
    /// How many deliveries wait for a slot.
    deferred: i64,
}

/// `GET /v1/limit`.
pub async fn show(State(app): SharedState) -> Result<Json<DailyLimit>, Problem> {
    status(&app, app.today()).await
}

/// `PUT /v1/limit`.
pub async fn set(State(app): SharedState, headers: HeaderMap, raw: Body) -> Result<Json<DailyLimit>, Problem> {
    let NewLimit { limit } = NewLimit::read(&body::read_json(&headers, raw).await?)?;
    let day = app.today();
    let released = app.store.set_limit(limit, day, app.daily_limit, now()).await?;
    tracing::info!(limit, released, "daily limit set");
    status(&app, day).await
}

impl DailyLimit {
    fn of(app: &AppState, day: LocalDay, status: &LimitStatus) -> Self {
        Self {
            day: day.to_string(),
            time_zone: app.time_zone.iana_name().unwrap_or("UTC").to_owned(),
            limit: status.limit,
            used: status.used,
            deferred: status.deferred,
        }
    }
}

async fn status(app: &AppState, day: LocalDay) -> Result<Json<DailyLimit>, Problem> {
    let status = app.store.limit_status(day, app.daily_limit).await?;
    Ok(Json(DailyLimit::of(app, day, &status)))
}
