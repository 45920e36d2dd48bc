//! What time alone decides, once a second: calls that never came back, deliveries that wait for a slot or have grown
//! too old. Needs nothing in memory.

use super::{
    context::{EVERY_SECOND, Worker, now},
    workers::TimedJob,
};
use crate::{domain::day::LocalDay, store::StoreError};
use std::sync::Arc;

pub fn job(worker: &Arc<Worker>) -> TimedJob {
    TimedJob::new("sweep", EVERY_SECOND, worker, sweep)
}

async fn sweep(worker: Arc<Worker>) -> Result<(), StoreError> {
    let (rules, now) = (&worker.rules, now());
    let expire_after = worker.clock.expire_after(rules.expire_after);
    let moved = worker.store.sweep(expire_after, now).await?;
    if moved > 0 {
        tracing::info!(deliveries = moved, "moved deliveries whose time was up");
    }
    worker.store.apply_late_receipts(rules.poll_after, now).await?;
    let today = LocalDay::of(now, &worker.time_zone);
    let store = &worker.store;
    let released = store.release_deferred(today, worker.daily_limit, now).await?
        + store.release_held(&worker.source_limits, today, now).await?;
    if released > 0 {
        tracing::info!(
            deliveries = released,
            "released deliveries that waited for the daily limit"
        );
    }
    Ok(())
}
