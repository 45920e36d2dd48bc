//! Whether the process lives, and whether it can do its work.

use super::{Office, SharedOffice, error::Problem, now};
use crate::store::{Db, Held};
use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A check writes a row, and anybody may ask: so one answer serves for this long.
const KEEP: Duration = Duration::from_secs(1);

/// The last answer of the check.
#[derive(Default)]
pub struct Readiness(Mutex<Option<(Instant, bool)>>);

impl Readiness {
    /// Whether the database can be written now, or could be a moment ago.
    async fn check(&self, store: &Db) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, writable)) = *last
            && at.elapsed() < KEEP
        {
            return writable;
        }
        let result = store.check_writable(now()).await;
        if let Err(error) = &result {
            tracing::warn!(error = %error.explain(), "not ready: the database cannot be written");
        }
        *last = Some((Instant::now(), result.is_ok()));
        result.is_ok()
    }
}

/// `GET /healthz`: the process answers.
pub async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether mails go; if not, how many wait, since when and why.
async fn mail_status(office: &Office) -> Value {
    match office.store.mail_trouble().await {
        _ if !office.has_mail => json!({"status": "not configured: reports and alarms are kept and logged"}),
        Ok(None) => json!({"status": "ok"}),
        Ok(Some(trouble)) => json!({
            "status": "cannot be sent; will be tried again",
            "waiting": trouble.waiting,
            "since": trouble.since.to_string(),
            "reason": trouble.reason,
        }),
        Err(_) => json!({"status": "unknown"}),
    }
}

/// Whether the provider takes messages; if not, what is wrong and since when.
async fn provider_status(office: &Office) -> String {
    let (store, provider, account) = (&office.store, office.provider, &office.account);
    let (held, silent_since) = (
        store.held(provider, account).await,
        store.silent_since(provider, account).await,
    );
    match (held, silent_since) {
        (Ok(Some(Held { fault, since })), _) => format!("refuses our {fault}; sends are held since {since}"),
        (_, Ok(Some(since))) => format!("cannot be reached since {since}"),
        (Ok(None), Ok(None)) => "ok".into(),
        (Err(_), _) | (_, Err(_)) => "unknown".into(),
    }
}

/// `GET /readyz`: 200 while the database can be written. Trouble of the provider or of mail shows in the details only: events are
/// taken and kept meanwhile.
pub async fn ready(State(office): SharedOffice) -> Result<impl IntoResponse, Problem> {
    let writable = office.readiness.check(&office.store).await;
    let provider = if writable {
        provider_status(&office).await
    } else {
        "unknown".into()
    };
    let status = if writable {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mail = if writable {
        mail_status(&office).await
    } else {
        json!({"status": "unknown"})
    };
    let body = json!({
        "status": if writable { "ready" } else { "not ready" },
        "details": {
            "database": {"engine": office.store.engine(), "status": if writable { "ok" } else { "cannot be written" }},
            "provider": {"driver": office.provider.as_str(), "status": provider},
            "mail": mail,
        },
    });
    Ok((status, Json(body)))
}
