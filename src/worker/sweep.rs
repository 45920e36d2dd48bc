//! What time alone decides, once a second: calls that never came back, deliveries that wait for a slot or have grown
//! too old; and the probe of a provider that refuses us. Needs nothing in memory.

use super::{Worker, now, timer::every_second};
use crate::{
    domain::day::LocalDay,
    store::{StoreError, SweepRules},
};
use std::sync::Arc;
use tokio::sync::watch;

/// Sweeps until `stop` turns true.
pub async fn run(worker: Arc<Worker>, stop: watch::Receiver<bool>) {
    every_second("sweep", worker, stop, sweep).await;
}

/// Probes a provider that refuses us until `stop` turns true. Apart from the sweep, because a probe may take long.
pub async fn run_probes(worker: Arc<Worker>, stop: watch::Receiver<bool>) {
    every_second("probe the provider", worker, stop, probe).await;
}

async fn sweep(worker: Arc<Worker>) -> Result<(), StoreError> {
    let (rules, now) = (&worker.rules, now());
    let moved = worker
        .store
        .sweep(
            SweepRules {
                expire_after: worker.clock.expire_after(rules.expire_after),
            },
            now,
        )
        .await?;
    if moved > 0 {
        tracing::info!(deliveries = moved, "moved deliveries whose time was up");
    }
    worker.store.apply_late_receipts(rules.poll_after, now).await?;
    let released = worker
        .store
        .release_deferred(LocalDay::of(now, &rules.time_zone), rules.daily_limit, now)
        .await?;
    if released > 0 {
        tracing::info!(
            deliveries = released,
            "released deliveries that waited for the daily limit"
        );
        worker.wake.notify_one();
    }
    Ok(())
}

/// Asks a provider that refuses us whether it still does.
async fn probe(worker: Arc<Worker>) -> Result<(), StoreError> {
    let (provider, account) = (worker.provider.name(), worker.provider.account());
    if !worker.store.is_probe_due(provider, account, now()).await? {
        return Ok(());
    }
    if worker.provider.accepts_us().await {
        worker.store.lift_hold(provider, account).await?;
        tracing::info!(%provider, "the provider accepts our account again; sends go on");
        worker.wake.notify_one();
    } else {
        worker.store.put_off_probe(provider, account, now()).await?;
        tracing::warn!(%provider, "the provider still refuses our account; sends stay held");
    }
    Ok(())
}
