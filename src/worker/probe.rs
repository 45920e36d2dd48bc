//! Asks a provider that refuses us, or does not answer, whether it still does; checked once a second. Apart from the
//! sweep, because an answer may take long. Absent: what a hold is (`store::holds`).

use super::{
    context::{EVERY_SECOND, Worker, now},
    workers::TimedJob,
};
use crate::{
    domain::{
        answer::{ProbeAnswer, Reachability},
        day::LocalDay,
    },
    store::{Probed, StoreError, Trials},
};
use std::sync::Arc;

pub fn job(worker: &Arc<Worker>) -> TimedJob {
    TimedJob::new("probe the provider", EVERY_SECOND, worker, probe)
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
    let day = LocalDay::of(now, &worker.time_zone);
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
    }
    Ok(())
}
