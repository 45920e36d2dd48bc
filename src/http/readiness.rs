//! What must hold for the process to do its work, found out at most once a second. Absent: the answer (see `health`).

use super::deadline::{MAX_STORE_WAIT, now};
use crate::store::Db;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A check writes a row, and anybody may ask: so one answer serves for this long.
const KEEP: Duration = Duration::from_secs(1);

/// Events may be taken while nothing is sent: where sending has waited for longer, a process is not ready.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What must hold so that the answer is 200. One more condition is one more field here, found out in `find_out`, asked
/// for in `hold`, and shown in the details of `health::ready`.
#[derive(Clone, Copy)]
pub struct Conditions {
    pub writable: bool,
    /// What has waited for the database for too long, and for how many seconds.
    waiting: Option<(&'static str, u64)>,
}

impl Conditions {
    async fn find_out(store: &Db) -> Self {
        let writable = match tokio::time::timeout(MAX_STORE_WAIT, store.check_writable(now())).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "not ready: the database cannot be written");
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
            tracing::warn!(
                waiting_s,
                "not ready: has been trying to {what}, and the database does not answer in time"
            );
        }
        Self { writable, waiting }
    }

    pub fn hold(self) -> bool {
        self.writable && self.waiting.is_none()
    }

    /// How the database is, in words.
    pub fn database(self) -> String {
        match (self.writable, self.waiting) {
            (false, _) => "cannot be written".into(),
            (true, Some((what, seconds))) => format!("too slow: has been trying to {what} for {seconds} s"),
            (true, None) => "ok".into(),
        }
    }
}

/// What was found out last.
#[derive(Default)]
pub struct Readiness(Mutex<Option<(Instant, Conditions)>>);

impl Readiness {
    /// How things stand now, or stood a moment ago.
    pub async fn check(&self, store: &Db) -> Conditions {
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
