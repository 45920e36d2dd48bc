//! `GET /healthz` and `GET /readyz`: whether the process runs, and whether it can do its work.

use super::{
    deadline::now,
    state::{AppState, SharedState},
};
use crate::store::{EndpointStatus, Held};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// That the process answers.
#[derive(Serialize, ToSchema)]
pub struct Health {
    #[schema(examples("ok"))]
    status: &'static str,
}

/// Says that the process runs
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "health",
    tag = "health",
    responses((status = 200, body = Health, description = "The process answers"))
)]
pub async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether the process can do its work, and how what it needs is.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub struct ReadinessAnswer {
    /// `ready` or `not ready`.
    #[schema(examples("ready"))]
    status: &'static str,
    details: Details,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ReadinessDetails)]
pub struct Details {
    database: DatabaseStatus,
    provider: ProviderStatus,
    mail: MailStatus,
    /// Helpdesks that are polled.
    sources: Vec<PolledSource>,
    /// Endpoints that hear of lifecycle events.
    webhooks: Vec<PostedWebhook>,
}

/// Whether a helpdesk that is polled answers.
#[derive(Serialize, ToSchema)]
pub struct PolledSource {
    name: String,
    /// `ok`, or what is wrong and since when.
    #[schema(examples("ok"))]
    status: String,
    /// For how many seconds nothing was heard of it; `null` before its first answer.
    #[schema(required, minimum = 0)]
    lag_s: Option<i64>,
}

/// Whether an endpoint takes events.
#[derive(Serialize, ToSchema)]
pub struct PostedWebhook {
    name: String,
    /// `ok`, or what is wrong and since when.
    #[schema(examples("ok"))]
    status: String,
    /// How many events it has not heard of yet, wanted or not.
    #[schema(minimum = 0)]
    waiting: i64,
}

/// How the endpoints are that are configured. Why one does not take events may name it, so only admins see that.
async fn posted_webhooks(app: &AppState, is_admin: bool) -> Vec<PostedWebhook> {
    if app.endpoints.is_empty() {
        return Vec::new();
    }
    let standings = app.store.endpoints().await.unwrap_or_default();
    let configured = standings
        .into_iter()
        .filter(|standing| app.endpoints.contains_key(&standing.name));
    let show = |standing: EndpointStatus| {
        let why = standing.last_error.filter(|_| is_admin).map(|why| format!(": {why}"));
        let why = why.unwrap_or_default();
        PostedWebhook {
            status: match (standing.disabled_at, standing.failing_since) {
                (Some(since), _) => format!("disabled since {since}{why}"),
                (None, Some(since)) => format!("takes nothing since {since}{why}"),
                (None, None) => "ok".to_owned(),
            },
            name: standing.name,
            waiting: standing.waiting,
        }
    };
    configured.map(show).collect()
}

/// How the helpdesks are that are polled. Why one does not answer may name it, so only admins see that.
async fn polled_sources(app: &AppState, is_admin: bool) -> Vec<PolledSource> {
    let now = now();
    let mut polled = Vec::new();
    for (name, _) in app.intake.sources().iter().filter(|(_, source)| source.is_polled) {
        let (status, lag_s) = match app.store.poll_status(name, now).await {
            Err(_) => ("unknown".to_owned(), None),
            Ok(poll) => {
                let lag_s = poll.polled_at.map(|at| now.duration_since(at).as_secs().max(0));
                let why = poll.last_error.filter(|_| is_admin).map(|why| format!(": {why}"));
                let status = match (poll.failing_since, poll.polled_at) {
                    (Some(since), _) => format!("cannot be asked since {since}{}", why.unwrap_or_default()),
                    (None, Some(_)) => "ok".to_owned(),
                    (None, None) => "not asked yet".to_owned(),
                };
                (status, lag_s)
            }
        };
        polled.push(PolledSource {
            name: name.clone(),
            status,
            lag_s,
        });
    }
    polled
}

#[derive(Serialize, ToSchema)]
pub struct DatabaseStatus {
    #[schema(examples("sqlite"))]
    engine: &'static str,
    /// `ok`, or what is wrong.
    #[schema(examples("ok"))]
    status: String,
}

#[derive(Serialize, ToSchema)]
pub struct ProviderStatus {
    #[schema(examples("log"))]
    driver: &'static str,
    /// `ok`, or what is wrong and since when.
    #[schema(examples("ok"))]
    status: String,
}

/// Whether mails go; if not, how many wait and since when.
#[derive(Default, Serialize, ToSchema)]
pub struct MailStatus {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// Names the mail server, so only admins see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl MailStatus {
    fn plain(status: &'static str) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    async fn find_out(app: &AppState, is_admin: bool) -> Self {
        if !app.has_mail {
            return Self::plain("not configured: reports and alarms are kept and logged");
        }
        match app.store.mail_trouble().await {
            Ok(None) => Self::plain("ok"),
            Ok(Some(trouble)) => Self {
                status: "cannot be sent; will be tried again",
                waiting: Some(trouble.waiting),
                since: Some(trouble.since),
                reason: trouble.reason.filter(|_| is_admin),
            },
            Err(_) => Self::plain("unknown"),
        }
    }
}

/// Whether the provider takes messages; if not, what is wrong and since when.
async fn provider_status(app: &AppState) -> String {
    let (store, route) = (&app.store, &app.route);
    let (held, unreachable_since) = (store.held(route).await, store.unreachable_since(route).await);
    match (held, unreachable_since) {
        (Ok(Some(Held { fault, since })), _) => format!("refuses our {fault}; sends are held since {since}"),
        (_, Ok(Some(since))) => format!("cannot be reached since {since}"),
        (Ok(None), Ok(None)) => "ok".into(),
        (Err(_), _) | (_, Err(_)) => "unknown".into(),
    }
}

/// Says whether the process can do its work
///
/// 200 while the database can be written, and nothing that is to be done waits for it. Trouble of the provider or of mail
/// shows in the details only: events are taken and kept meanwhile. Anybody may ask; an admin token shows more.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readiness",
    tag = "health",
    responses(
        (status = 200, body = ReadinessAnswer, description = "It can"),
        (status = 503, body = ReadinessAnswer, description = "It cannot; the details say why"),
    )
)]
pub async fn ready(State(app): SharedState, headers: HeaderMap) -> (StatusCode, Json<ReadinessAnswer>) {
    let conditions = app.readiness.check(&app.store).await;
    let (provider, mail, sources, webhooks) = if conditions.writable {
        let is_admin = app.admin_tokens.has(&headers);
        (
            provider_status(&app).await,
            MailStatus::find_out(&app, is_admin).await,
            polled_sources(&app, is_admin).await,
            posted_webhooks(&app, is_admin).await,
        )
    } else {
        ("unknown".into(), MailStatus::plain("unknown"), Vec::new(), Vec::new())
    };
    let (code, status) = if conditions.hold() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    let details = Details {
        database: DatabaseStatus {
            engine: app.store.engine(),
            status: conditions.database(),
        },
        provider: ProviderStatus {
            driver: app.route.provider.as_str(),
            status: provider,
        },
        mail,
        sources,
        webhooks,
    };
    (code, Json(ReadinessAnswer { status, details }))
}
