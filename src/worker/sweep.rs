//! What time alone decides, once a second: calls that never came back, deliveries that wait for a slot or have grown
//! too old; and the probe of a provider that refuses us or does not answer. Needs nothing in memory.

use super::{Worker, now, timer::every_second};
use crate::{
    domain::{
        answer::{ProbeAnswer, Reachability},
        day::LocalDay,
    },
    store::{Probed, StoreError, SweepRules, Trials},
};
use std::sync::Arc;
use tokio::sync::watch;

/// Sweeps until `stop` turns true.
pub async fn run(worker: Arc<Worker>, stop: watch::Receiver<bool>) {
    every_second("sweep", worker, stop, sweep).await;
}

/// Probes a provider that refuses us, or does not answer, until `stop` turns true. Apart from the sweep, because a probe may take long.
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

/// Notes whether calls are answered, and asks a provider that refuses us, or does not answer, whether it still does.
async fn probe(worker: Arc<Worker>) -> Result<(), StoreError> {
    let route = worker.carrier.route();
    note_calls(&worker).await?;
    let now = now();
    let is_held = worker.store.is_probe_due(route, now).await?;
    let is_silent = worker.store.is_call_due(route, now).await?;
    if is_silent {
        worker.store.put_off_call(route, now).await?;
    }
    if is_held || is_silent {
        let acceptance = worker.carrier.probe().await;
        if is_held {
            judge_hold(&worker, acceptance).await?;
        }
        note_calls(&worker).await?;
    }
    Ok(())
}

async fn note_calls(worker: &Worker) -> Result<(), StoreError> {
    let route = worker.carrier.route();
    match worker.carrier.take_reachability() {
        Some(Reachability::Reachable) => worker.store.note_answered_call(route, now()).await,
        Some(Reachability::Unreachable) => worker.store.note_failed_calls(route, now()).await,
        None => Ok(()),
    }
}

/// Does to a hold what the probe's answer says.
async fn judge_hold(worker: &Worker, acceptance: ProbeAnswer) -> Result<(), StoreError> {
    let (store, route) = (&worker.store, worker.carrier.route());
    let provider = route.provider;
    let now = now();
    let day = LocalDay::of(now, &worker.rules.time_zone);
    let (trials, what) = match acceptance {
        ProbeAnswer::Accepted => {
            match store.probe_accepted(route, day, now).await? {
                Probed::Lifted => tracing::info!(%provider, "the provider accepts our account again; sends go on"),
                Probed::Held { .. } => tracing::warn!(
                    %provider,
                    "the provider accepts our account, which was not what it refused: one delivery is tried every few minutes, the rest stays held"
                ),
                Probed::Free => {}
            }
            worker.wake.notify_one();
            return Ok(());
        }
        ProbeAnswer::Refused => (
            Trials::Closed,
            "the provider still refuses our account; sends stay held",
        ),
        ProbeAnswer::Forbidden => (
            Trials::Open,
            "the provider does not let our API key ask: one delivery is tried every few minutes, the rest stays held",
        ),
        ProbeAnswer::Unclear => (
            Trials::AsTheyAre,
            "cannot learn whether the provider still refuses our account; sends stay held",
        ),
    };
    let probed = store.put_off_probe(route, trials, day, now).await?;
    if probed != Probed::Free {
        tracing::warn!(%provider, "{what}");
        worker.wake.notify_one();
    }
    Ok(())
}
