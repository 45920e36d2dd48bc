//! `/v1/limit`: how many messages may be handed to the provider in one local day.

use crate::{
    domain::day::{LocalDay, zone_name},
    http::{
        body,
        deadline::now,
        error::{ForAdmins, JsonBody, Problem},
        state::{AppState, SharedState},
    },
    store::LimitStatus,
};
use axum::{Json, body::Body, extract::State, http::HeaderMap};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// More messages a day than any helpdesk sends; beyond it a typing error is likelier.
pub const MAX_LIMIT: i64 = 10_000_000;

/// Today's limit.
#[derive(Serialize, ToSchema)]
pub struct DailyLimit {
    #[schema(format = Date)]
    day: String,
    /// The IANA name.
    #[schema(examples("Europe/Berlin"))]
    time_zone: String,
    #[serde(flatten)]
    pub status: LimitStatus,
}

/// Shows today's limit
#[utoipa::path(
    get,
    path = "/v1/limit",
    operation_id = "showLimit",
    tag = "limit",
    responses((status = 200, body = DailyLimit, description = "Today's limit"), ForAdmins),
    security(("admin" = []))
)]
pub async fn show(State(app): SharedState) -> Result<Json<DailyLimit>, Problem> {
    status(&app, app.today()).await.map(Json)
}

/// Sets the daily limit
///
/// It holds from now on, also after a restart, and wins over the configured one until `null` is sent. A higher limit lets go
/// at once what waits for a slot.
#[utoipa::path(
    put,
    path = "/v1/limit",
    operation_id = "setLimit",
    tag = "limit",
    request_body = LimitBody,
    responses((status = 200, body = DailyLimit, description = "Today's limit, as it is now"), ForAdmins, JsonBody),
    security(("admin" = []))
)]
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

/// The limit to set.
#[derive(ToSchema)]
#[schema(as = NewLimit)]
#[expect(dead_code, reason = "describes what `read_limit` reads; a test compares the two")]
pub struct LimitBody {
    /// Messages in one local day; 0 sends nothing, and `null` goes back to the configured limit.
    #[schema(required, minimum = 0, maximum = 10_000_000, examples(20))]
    limit: Option<i64>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use utoipa::PartialSchema;

    #[test]
    fn the_limit_is_read_as_its_schema_says() {
        let schema = serde_json::to_value(LimitBody::schema()).unwrap();
        let member = &schema["properties"]["limit"];
        let read = |limit: &Value| read_limit(&json!({"limit": limit})).ok();

        assert_eq!(read(&member["examples"][0]), Some(Some(20)));
        assert_eq!(read(&member["maximum"]), Some(Some(MAX_LIMIT)));
        assert_eq!((read(&json!(null)), read(&json!(MAX_LIMIT + 1))), (Some(None), None));
        assert!(read_limit(&json!({})).is_err(), "{}", schema["required"]);
    }
}
