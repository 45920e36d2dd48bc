//! `/v1/webhooks`: the endpoints that hear of lifecycle events, how they are, and what admins do with them.

use crate::{
    domain::{
        json::Reader,
        lifecycle::{EventType, LifecycleEvent},
    },
    http::{
        body,
        deadline::now,
        error::{ForAdmins, JsonBody, Problem},
        state::{AppState, SharedState},
    },
    notify::{Endpoint, Posted},
    store::{EndpointStatus, EndpointTry, new_id},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::HeaderMap,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use utoipa::ToSchema;

/// Somebody waits for the answer of a test.
const LONGEST_TEST: Duration = Duration::from_secs(12);

/// All endpoints, by name; there are never many.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhooks)]
pub struct List {
    items: Vec<WebhookStatus>,
}

/// An endpoint that hears of lifecycle events.
#[derive(Serialize, ToSchema)]
pub struct WebhookStatus {
    /// `null` if it is not configured any more: nothing is posted to it.
    #[schema(required, examples("webhook"))]
    kind: Option<&'static str>,
    /// Where it is; the rest of its address may be secret.
    #[schema(required, examples("desk.example.com"))]
    host: Option<String>,
    /// The types of events that it wants.
    #[schema(examples(json!(["alert.created"])))]
    events: Vec<&'static str>,
    /// The sources of which it hears; none for all.
    sources: Vec<String>,
    /// Whether it is told names, numbers in full, and texts.
    include_personal: bool,
    /// Whether what is posted to it is signed.
    signed: bool,
    #[serde(flatten)]
    standing: EndpointStatus,
}

/// An endpoint with its newest tries.
#[derive(Serialize, ToSchema)]
pub struct Webhook {
    #[serde(flatten)]
    webhook: WebhookStatus,
    /// The newest 50, the latest first.
    tries: Vec<EndpointTry>,
}

/// How far an endpoint has gone back.
#[derive(Serialize, ToSchema)]
pub struct Replay {
    /// How many events it goes through once more, whether it wants them or not.
    #[schema(minimum = 0)]
    pub events: i64,
}

/// What came of a test.
#[derive(Serialize, ToSchema)]
pub struct WebhookTest {
    /// Whether the endpoint took it.
    pub taken: bool,
    /// What it answered; `null` if it did not.
    #[schema(required, examples(204))]
    pub status: Option<u16>,
    #[schema(required)]
    pub error: Option<String>,
    #[schema(minimum = 0)]
    took_ms: u64,
}

/// From when on events are to be posted once more.
#[derive(ToSchema)]
#[schema(as = NewReplay)]
#[expect(dead_code, reason = "describes what `read_from` reads; a test compares the two")]
pub struct ReplayBody {
    /// By RFC 3339.
    #[schema(examples("2026-11-22T00:00:00Z"))]
    from: Timestamp,
}

impl WebhookStatus {
    fn new(standing: EndpointStatus, endpoint: Option<&Endpoint>) -> Self {
        let settings = endpoint.map(|endpoint| &endpoint.settings);
        let types = settings.map(|settings| settings.filter.types()).unwrap_or_default();
        let events = EventType::ALL.iter().filter(|kind| types.contains(**kind));
        Self {
            kind: settings.map(|settings| settings.kind),
            host: settings.and_then(|settings| settings.host()),
            events: events.map(|kind| kind.as_str()).collect(),
            sources: settings
                .map(|settings| settings.filter.sources.clone())
                .unwrap_or_default(),
            include_personal: settings.is_some_and(|settings| settings.include_personal),
            signed: settings.is_some_and(|settings| !settings.secrets.is_empty()),
            standing,
        }
    }
}

/// All endpoints, those that are not configured any more among them.
pub async fn all(app: &AppState) -> Result<Vec<WebhookStatus>, Problem> {
    let known = app.store.endpoints().await?;
    let mut standings: BTreeMap<String, EndpointStatus> = known
        .into_iter()
        .map(|standing| (standing.name.clone(), standing))
        .collect();
    for name in app.endpoints.keys() {
        let not_begun = || EndpointStatus::new(name);
        standings.entry(name.clone()).or_insert_with(not_begun);
    }
    let show = |(name, standing): (String, EndpointStatus)| {
        WebhookStatus::new(standing, app.endpoints.get(&name).map(AsRef::as_ref))
    };
    Ok(standings.into_iter().map(show).collect())
}

/// One of them, with its newest tries.
pub async fn find(app: &AppState, name: &str) -> Result<Webhook, Problem> {
    let all = all(app).await?;
    let found = all.into_iter().find(|webhook| webhook.standing.name == name);
    Ok(Webhook {
        webhook: found.ok_or_else(not_found)?,
        tries: app.store.endpoint_tries(name).await?,
    })
}

fn not_found() -> Problem {
    Problem::not_found("there is no endpoint of this name: `GET /v1/webhooks` lists all")
}

/// Lists the endpoints
///
/// Who hears of lifecycle events, how much each has not heard of yet, and why.
#[utoipa::path(
    get,
    path = "/v1/webhooks",
    operation_id = "listWebhooks",
    tag = "webhooks",
    responses((status = 200, body = List, description = "All endpoints"), ForAdmins),
    security(("admin" = []))
)]
pub async fn list(State(app): SharedState) -> Result<Json<List>, Problem> {
    Ok(Json(List {
        items: all(&app).await?,
    }))
}

/// Shows an endpoint
#[utoipa::path(
    get,
    path = "/v1/webhooks/{name}",
    operation_id = "showWebhook",
    tag = "webhooks",
    params(("name" = String, Path, description = "As `webhooks.<name>` has it", example = "service-desk")),
    responses((status = 200, body = Webhook, description = "The endpoint with its newest tries"), ForAdmins),
    security(("admin" = []))
)]
pub async fn show(State(app): SharedState, Path(name): Path<String>) -> Result<Json<Webhook>, Problem> {
    find(&app, &name).await.map(Json)
}

/// Posts what is kept once more
///
/// The endpoint goes on from the first event at or after that time, as far as events are kept (`retention.event_days`). They
/// have the same ids as before.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{name}/replay",
    operation_id = "replayWebhook",
    tag = "webhooks",
    params(("name" = String, Path, description = "As `webhooks.<name>` has it", example = "service-desk")),
    request_body = ReplayBody,
    responses((status = 200, body = Replay, description = "It goes on from there"), ForAdmins, JsonBody),
    security(("admin" = []))
)]
pub async fn replay(
    State(app): SharedState,
    Path(name): Path<String>,
    headers: HeaderMap,
    raw: Body,
) -> Result<Json<Replay>, Problem> {
    let from = read_from(&body::read_json(&headers, raw).await?)?;
    replay_from(&app, &name, from).await.map(Json)
}

fn read_from(document: &Value) -> Result<Timestamp, Problem> {
    let mut faults = Vec::new();
    let root = Reader::root(document);
    root.expect_object(&mut faults);
    let text = root.member("from").text(&mut faults);
    match text.and_then(|text| text.parse().ok()) {
        Some(from) => Ok(from),
        None if faults.is_empty() => Err(Problem::field(
            "/from",
            "this is no time: write it like `2026-11-22T00:00:00Z`".to_owned(),
        )),
        None => Err(Problem::fields(faults)),
    }
}

/// Lets an endpoint go back.
pub async fn replay_from(app: &AppState, name: &str, from: Timestamp) -> Result<Replay, Problem> {
    if from > now() {
        return Err(Problem::field(
            "/from",
            format!("{from} lies ahead: nothing was posted since then; write a time that is over"),
        ));
    }
    let events = app.store.replay_endpoint(name, from).await?.ok_or_else(not_found)?;
    tracing::info!(endpoint = name, %from, events, "an admin lets events be posted once more");
    Ok(Replay { events })
}

/// Enables an endpoint
///
/// It goes on where it stopped, as far as events are kept.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{name}/enable",
    operation_id = "enableWebhook",
    tag = "webhooks",
    params(("name" = String, Path, description = "As `webhooks.<name>` has it", example = "service-desk")),
    responses((status = 200, body = Webhook, description = "The endpoint, as it is now"), ForAdmins),
    security(("admin" = []))
)]
pub async fn enable(State(app): SharedState, Path(name): Path<String>) -> Result<Json<Webhook>, Problem> {
    switch(&app, &name, true).await?;
    find(&app, &name).await.map(Json)
}

/// Disables an endpoint
///
/// Nothing is posted to it any more, until it is enabled. What happens meanwhile is kept.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{name}/disable",
    operation_id = "disableWebhook",
    tag = "webhooks",
    params(("name" = String, Path, description = "As `webhooks.<name>` has it", example = "service-desk")),
    responses((status = 200, body = Webhook, description = "The endpoint, as it is now"), ForAdmins),
    security(("admin" = []))
)]
pub async fn disable(State(app): SharedState, Path(name): Path<String>) -> Result<Json<Webhook>, Problem> {
    switch(&app, &name, false).await?;
    find(&app, &name).await.map(Json)
}

/// Enables or disables an endpoint.
pub async fn switch(app: &AppState, name: &str, on: bool) -> Result<(), Problem> {
    let is_there = if on {
        app.store.enable_endpoint(name, now()).await?
    } else {
        app.store.disable_endpoint(name, now()).await?
    };
    if !is_there {
        return Err(not_found());
    }
    tracing::info!(endpoint = name, on, "an admin switched an endpoint");
    Ok(())
}

/// Tries an endpoint
///
/// Posts one event of the type `test` at once, also to an endpoint that is disabled, and says what came back.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{name}/test",
    operation_id = "testWebhook",
    tag = "webhooks",
    params(("name" = String, Path, description = "As `webhooks.<name>` has it", example = "service-desk")),
    responses((status = 200, body = WebhookTest, description = "It was posted; whether the endpoint took it stands in `taken`"), ForAdmins),
    security(("admin" = []))
)]
pub async fn test(State(app): SharedState, Path(name): Path<String>) -> Result<Json<WebhookTest>, Problem> {
    try_one(&app, &name).await.map(Json)
}

/// Posts an event that says nothing.
pub async fn try_one(app: &AppState, name: &str) -> Result<WebhookTest, Problem> {
    let endpoint = app
        .endpoints
        .get(name)
        .ok_or_else(|| Problem::not_found("no endpoint of this name is configured: nothing can be posted to it"))?;
    let begun = Instant::now();
    let event = test_event(now());
    let posting = endpoint.post(&event, event.at);
    let posted = tokio::time::timeout(LONGEST_TEST, posting).await;
    let posted = posted.unwrap_or_else(|_| Posted::failed(format!("no answer within {} s", LONGEST_TEST.as_secs())));
    let (taken, status, error) = match posted {
        Posted::Taken { status } => (true, status, None),
        Posted::Skipped => (true, None, None),
        Posted::Failed { status, why, .. } => (false, status, Some(why)),
    };
    Ok(WebhookTest {
        taken,
        status,
        error,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn test_event(at: Timestamp) -> LifecycleEvent {
    let text = "An admin tries whether this endpoint takes events.";
    LifecycleEvent {
        id: new_id(),
        kind: EventType::Test,
        at,
        source: None,
        alert: None,
        delivery: None,
        message: None,
        phone: None,
        data: Map::from_iter([("message".to_owned(), text.into())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use utoipa::PartialSchema;

    #[test]
    fn the_time_is_read_as_its_schema_says() {
        let schema = serde_json::to_value(ReplayBody::schema()).unwrap();
        let example = &schema["properties"]["from"]["examples"][0];

        assert!(read_from(&json!({ "from": example })).is_ok());
        for wrong in [json!({}), json!({"from": "yesterday"}), json!({"from": 7}), json!([])] {
            assert!(read_from(&wrong).is_err(), "{wrong}");
        }
    }
}
