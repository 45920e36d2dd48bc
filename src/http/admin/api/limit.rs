//! `/v1/limit`: how many messages may be handed to the provider in one local day.

use crate::{
    domain::day::{LocalDay, zone_name},
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
pub const MAX_LIMIT: i64 = 10_000_000;

/// Today's limit.
#[derive(Serialize)]
pub struct DailyLimit {
    day: String,
    time_zone: String,
    #[serde(flatten)]
    pub status: LimitStatus,
}

/// `GET /v1/limit`.
pub async fn show(State(app): SharedState) -> Result<Json<DailyLimit>, Problem> {
    status(&app, app.today()).await.map(Json)
}

/// `PUT /v1/limit`.
pub async fn set(State(app): SharedState, headers: HeaderMap, raw: Body) -> Result<Json<DailyLimit>, Problem> {
    let limit = read_limit(&body::read_json(&headers, raw).await?)?;
    change(&app, limit).await.map(Json)
}

/// Sets today's limit and those of the days to come; `None` for the configured one.
pub async fn change(app: &AppState, limit: Option<i64>) -> Result<DailyLimit, Problem> {
    let day = app.today();
    let released = app.store.set_limit(limit, day, app.daily_limit, now()).await?;
    tracing::info!(limit, released, "daily limit set");
    status(app, day).await
}

/// The limit of a day, and what is used of it.
pub async fn status(app: &AppState, day: LocalDay) -> Result<DailyLimit, Problem> {
    Ok(DailyLimit {
        day: day.to_string(),
        time_zone: zone_name(&app.time_zone).to_owned(),
        status: app.store.limit_status(day, app.daily_limit).await?,
    })
}

/// The limit that an admin sets; `None` for the configured one.
fn read_limit(document: &Value) -> Result<Option<i64>, Problem> {
    let fault = |detail: String| Problem::field("/limit", detail);
    match document.get("limit") {
        None => Err(fault(
            "this is missing: send a whole number, or `null` for the configured limit".into(),
        )),
        Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64() {
            Some(limit @ 0..=MAX_LIMIT) => Ok(Some(limit)),
            Some(_) | None => Err(fault(format!("this is not a whole number from 0 to {MAX_LIMIT}"))),
        },
    }
}
