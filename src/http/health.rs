//! Whether the process lives, and whether it can do its work.

use super::{MAX_STORE_WAIT, Office, SharedOffice, error::Problem, now};
use crate::store::{Db, Held};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A check writes a row, and anybody may ask: so one answer serves for this long.
const KEEP: Duration = Duration::from_secs(1);

/// Events may be taken in while nothing is got done: where sending has waited for longer, a process is not ready.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What must hold so that the answer is 200. One more condition is one more field here, found out in `find_out`, asked
/// for in `hold`, and told in the details of `ready`.
#[derive(Clone, Copy)]
struct Conditions {
    writable: bool,
    /// What has waited for the database for too long, and for how many seconds.
    waiting: Option<(&'static str, u64)>,
}

impl Conditions {
    async fn find_out(store: &Db) -> Self {
        let writable = match tokio::time::timeout(MAX_STORE_WAIT, store.check_writable(now())).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(error = %error.explain(), "not ready: the database cannot be written");
                false
            }
            Err(_) => {
                tracing::warn!(
                    after_s = MAX_STORE_WAIT.as_secs(),
                    "not ready: the database does not answer"
                );
                false
            }
        };
        let waiting = store.waits().longest().filter(|(_, time)| *time > LONGEST_WAIT);
        let waiting = waiting.map(|(what, time)| (what, time.as_secs()));
        if let Some((what, waiting_s)) = waiting {
            tracing::warn!(waiting_s, "not ready: to {what} waits for the database");
        }
        Self { writable, waiting }
    }

    fn hold(self) -> bool {
        self.writable && self.waiting.is_none()
    }

    /// How the database is, in words.
    fn database(self) -> String {
        match (self.writable, self.waiting) {
            (false, _) => "cannot be written".into(),
            (true, Some((what, seconds))) => format!("to {what} has waited for it for {seconds} s"),
            (true, None) => "ok".into(),
        }
    }
}

/// What was found out last.
#[derive(Default)]
pub struct Readiness(Mutex<Option<(Instant, Conditions)>>);

impl Readiness {
    /// How things stand now, or stood a moment ago.
    async fn check(&self, store: &Db) -> Conditions {
        let mut last = self.0.lock().await;
        if let Some((at, conditions)) = *last
            && at.elapsed() < KEEP
        {
            return conditions;
        }
        let conditions = Conditions::find_out(store).await;
        *last = Some((Instant::now(), conditions));
        conditions
    }
}

/// `GET /healthz`: the process answers.
pub async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether mails go; if not, how many wait and since when. Why not names the mail server, so only admins see it.
async fn mail_status(office: &Office, is_admin: bool) -> Value {
    match office.store.mail_trouble().await {
        _ if !office.has_mail => json!({"status": "not configured: reports and alarms are kept and logged"}),
        Ok(None) => json!({"status": "ok"}),
        Ok(Some(trouble)) => {
            let mut status = json!({
                "status": "cannot be sent; will be tried again",
                "waiting": trouble.waiting,
                "since": trouble.since.to_string(),
            });
            if is_admin {
                status["reason"] = trouble.reason.into();
            }
            status
        }
        Err(_) => json!({"status": "unknown"}),
    }
}

/// Whether the provider takes messages; if not, what is wrong and since when.
async fn provider_status(office: &Office) -> String {
    let (store, route) = (&office.store, &office.route);
    let (held, silent_since) = (store.held(route).await, store.silent_since(route).await);
    match (held, silent_since) {
        (Ok(Some(Held { fault, since })), _) => format!("refuses our {fault}; sends are held since {since}"),
        (_, Ok(Some(since))) => format!("cannot be reached since {since}"),
        (Ok(None), Ok(None)) => "ok".into(),
        (Err(_), _) | (_, Err(_)) => "unknown".into(),
    }
}

/// `GET /readyz`: 200 while the database can be written, and nothing that is to be done waits for it. Trouble of the provider or of mail shows in the details only: events are
/// taken and kept meanwhile. Anybody may ask; an admin token shows more.
pub async fn ready(State(office): SharedOffice, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let conditions = office.readiness.check(&office.store).await;
    let writable = conditions.writable;
    let provider = if writable {
        provider_status(&office).await
    } else {
        "unknown".into()
    };
    let status = if conditions.hold() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mail = if writable {
        mail_status(&office, office.admin_tokens.has(&headers)).await
    } else {
        json!({"status": "unknown"})
    };
    let body = json!({
        "status": if conditions.hold() { "ready" } else { "not ready" },
        "details": {
            "database": {"engine": office.store.engine(), "status": conditions.database()},
            "provider": {"driver": office.route.provider.as_str(), "status": provider},
            "mail": mail,
        },
    });
    Ok((status, Json(body)))
}
