//! The present, and how long an answer waits for the database.

use super::error::{Kind, Problem};
use crate::{domain::day::to_millisecond, store::StoreError};
use jiff::Timestamp;
use std::time::Duration;

/// The longest that an answer waits for the database. Twilio gives a webhook 15 s in all (connection overrides, "tt"), and
/// helpdesks block while they post: with a second to spare, events and receipts are answered within 10 s.
pub const MAX_STORE_WAIT: Duration = Duration::from_secs(9);

/// What the database answers, or 503 with `detail` if it does not in time.
pub async fn in_time<T>(
    asked: impl Future<Output = Result<T, StoreError>>,
    detail: &'static str,
) -> Result<T, Problem> {
    match tokio::time::timeout(MAX_STORE_WAIT, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Problem::new(Kind::DatabaseUnavailable, detail).retry_after(5)),
    }
}

/// The present, as the database keeps it. The edge: below here, time is an argument.
pub fn now() -> Timestamp {
    to_millisecond(Timestamp::now())
}
