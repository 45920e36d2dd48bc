//! Watches the wall clock of this process, once a second: against its monotonic clock, against the provider's, and against
//! what is written already. Absent: what is decided by it (see `domain::clock`), and what is written (`store::ledger`).

use super::{
    context::{EVERY_SECOND, Worker, now},
    workers::TimedJob,
};
use crate::{
    domain::{
        alarm::AlarmKind,
        clock::{self, Step},
        day::{LocalDay, to_millisecond},
    },
    store::{ClampRules, StoreError},
};
use jiff::SignedDuration;
use std::sync::{Arc, atomic::Ordering};

pub fn job(worker: &Arc<Worker>) -> TimedJob {
    TimedJob::new("watch the clock", EVERY_SECOND, worker, check)
}

async fn check(worker: Arc<Worker>) -> Result<(), StoreError> {
    let steps = worker.clock.unsettled();
    if !steps.is_empty() {
        if steps.iter().any(|step| step.by.is_negative()) {
            worker.clock.may_be_back.store(true, Ordering::Relaxed);
        }
        report_steps(&worker, &steps).await?;
        worker.clock.settle(steps.len());
    }
    let ahead = worker.clock.ahead(worker.carrier.clock().as_slice());
    if let Some(ahead) = ahead.filter(|ahead| clock::differs(*ahead)) {
        report_difference(&worker, ahead).await?;
    }
    let now = now();
    let today = LocalDay::of(now, &worker.time_zone);
    let rules = ClampRules {
        lease: worker.rules.lease,
        tomorrow: today.end(&worker.time_zone),
    };
    let is_likely = worker.clock.may_be_back.load(Ordering::Relaxed);
    let clamped = worker.store.clamp_times(rules, is_likely, now).await?;
    worker.clock.may_be_back.store(false, Ordering::Relaxed);
    if clamped > 0 {
        tracing::warn!(
            deliveries = clamped,
            "the clock went back: deliveries that waited for a time which is far again wait for it no longer"
        );
    }
    Ok(())
}

/// The clock was turned: what is open now may have been begun by another time.
async fn report_steps(worker: &Worker, steps: &[Step]) -> Result<(), StoreError> {
    let (store, now) = (&worker.store, now());
    let doubtful = store.doubt_open_attempts(now).await?;
    for step in steps {
        let direction = if step.by.is_negative() { "back" } else { "forward" };
        let by = clock::span(step.by);
        tracing::warn!(
            step_s = step.by.as_secs(),
            attempts = doubtful,
            "the clock went {direction} by {by} at once; of attempts that are open now, absence is never concluded"
        );
        if step.is_jump {
            let time = to_millisecond(now).strftime("%F %T");
            let detail = format!("the clock of this machine went forward by {by} at once; it now reads {time} UTC");
            let subject = now.strftime("%F %H").to_string();
            store.raise_alarm(AlarmKind::ClockJumped, &subject, detail, now).await?;
        }
    }
    Ok(())
}

/// Our clock and the provider's differ: an alarm once a day. What is begun meanwhile stays doubtful, also when the clock is
/// set right while no process watches it.
async fn report_difference(worker: &Worker, ahead: SignedDuration) -> Result<(), StoreError> {
    let (store, now) = (&worker.store, now());
    store.doubt_open_attempts(now).await?;
    let provider = worker.carrier.route().provider;
    let direction = if ahead.is_negative() { "ahead of" } else { "behind" };
    let detail = format!(
        "the clock of this machine is {} {direction} the one of {provider}",
        clock::span(ahead)
    );
    let subject = format!("{provider}/{}", now.strftime("%F"));
    store.raise_alarm(AlarmKind::ClockDiffers, &subject, detail, now).await
}
