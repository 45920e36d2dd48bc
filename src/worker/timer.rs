//! Runs a round again and again until the process stops.

use crate::store::StoreError;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

const EVERY: Duration = Duration::from_secs(1);

/// Runs `round` once a second until `stop` turns true; `what` says in the log what could not be done.
pub async fn every_second<T, F>(what: &'static str, room: Arc<T>, stop: watch::Receiver<bool>, round: fn(Arc<T>) -> F)
where
    F: Future<Output = Result<(), StoreError>>,
{
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stop.borrow() {
        ticks.tick().await;
        if let Err(error) = round(Arc::clone(&room)).await {
            tracing::warn!(error = %error.explain(), "cannot {what}; will try again");
        }
    }
}
