//! What time alone decides, once a second: calls that never came back, deliveries that wait for a slot or have grown
//! too old, and the probe of a provider that refuses us. Needs nothing in memory.

use super::{Worker, backend::chain, now};
use crate::{
    domain::day::LocalDay,
    store::{StoreError, SweepRules},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

const EVERY: Duration = Duration::from_secs(1);

/// Sweeps until `stop` turns true.
pub async fn run(worker: Arc<Worker>, stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stop.borrow() {
        ticks.tick().await;
        if let Err(error) = round(&worker).await {
            tracing::warn!(error = %chain(&error), "cannot sweep; will try again");
        }
    }
}

async fn round(worker: &Worker) -> Result<(), StoreError> {
    let (rules, now) = (&worker.rules, now());
    let moved = worker
        .store
        .sweep(
            SweepRules {
                expire_after: rules.expire_after,
            },
            now,
        )
        .await?;
    if moved > 0 {
        tracing::info!(deliveries = moved, "moved deliveries whose time was up");
    }
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
    probe(worker).await
}

/// Asks a provider that refuses us whether it still does.
async fn probe(worker: &Worker) -> Result<(), StoreError> {
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
