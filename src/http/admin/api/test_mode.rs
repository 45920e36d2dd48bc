//! `/v1/test-mode`: whether messages go to the log only, whatever `sms.driver` says.

use crate::{
    domain::json::Reader,
    http::{
        body,
        deadline::now,
        error::{ForAdmins, JsonBody, Problem},
        state::{AppState, SharedState},
    },
};
use axum::{Json, body::Body, extract::State, http::HeaderMap};
use serde::Serialize;
use utoipa::ToSchema;

/// Whether messages go to the log only.
#[derive(Serialize, ToSchema)]
pub struct TestMode {
    /// As an admin set it; every process of this database obeys.
    on: bool,
    /// The configured driver. With `log` nothing leaves the machine either way.
    #[schema(examples("log"))]
    driver: &'static str,
}

/// The mode to set.
#[derive(ToSchema)]
#[schema(as = NewTestMode)]
#[expect(dead_code, reason = "describes what `set` reads")]
pub struct TestModeBody {
    #[schema(examples(true))]
    on: bool,
}

/// Shows whether test mode is on
#[utoipa::path(
    get,
    path = "/v1/test-mode",
    operation_id = "showTestMode",
    tag = "test mode",
    responses((status = 200, body = TestMode, description = "The mode"), ForAdmins),
    security(("admin" = []))
)]
pub async fn show(State(app): SharedState) -> Result<Json<TestMode>, Problem> {
    status(&app).await
}

/// Turns test mode on or off
///
/// While it is on, messages go to the log only, on every process of this database. When it is answered, no message is begun by
/// another way any more; one that was begun before may still be under way.
#[utoipa::path(
    put,
    path = "/v1/test-mode",
    operation_id = "setTestMode",
    tag = "test mode",
    request_body = TestModeBody,
    responses((status = 200, body = TestMode, description = "The mode, as it is now"), ForAdmins, JsonBody),
    security(("admin" = []))
)]
pub async fn set(State(app): SharedState, headers: HeaderMap, raw: Body) -> Result<Json<TestMode>, Problem> {
    let document = body::read_json(&headers, raw).await?;
    let mut faults = Vec::new();
    let root = Reader::root(&document);
    root.expect_object(&mut faults);
    let place = root.member("on");
    let Some(on) = document.get("on").and_then(serde_json::Value::as_bool) else {
        place.fault(&mut faults, "send `true` or `false`");
        return Err(Problem::fields(faults));
    };
    switch(&app, on).await?;
    status(&app).await
}

/// Switches test mode on or off.
pub async fn switch(app: &AppState, on: bool) -> Result<(), Problem> {
    app.store.set_test_mode(on, now()).await?;
    tracing::warn!(on, "an admin set test mode");
    Ok(())
}

async fn status(app: &AppState) -> Result<Json<TestMode>, Problem> {
    Ok(Json(TestMode {
        on: app.store.test_mode().await?,
        driver: app.route.provider.as_str(),
    }))
}
