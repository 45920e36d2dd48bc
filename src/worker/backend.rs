//! The queue as apalis sees it: a stream of claimed deliveries. The only file that names apalis. The row whose commit
//! made a 202 true is the job; apalis holds nothing that a crash could lose, and asks for the next claim only when a
//! call slot is free, so no lease ages in a buffer.

use super::{Worker, now, send};
use crate::store::Claimed;
use apalis::prelude::{Backend, Monitor, RandomId, Task, TaskBuilder, WorkerBuilder, WorkerBuilderExt, WorkerContext};
use apalis_core::backend::{BackendConfig, finalize::Ephemeral};
use apalis_core::layers::Identity;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::watch;

/// The net under the wake-ups: how long a delivery can lie unseen if its bell was not heard.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// After a failure of the database. Long enough not to spin, short enough to be there when it is back.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Claims and sends until `stop` turns true; then finishes what is under way, at most for `drain`.
pub async fn run(worker: Arc<Worker>, stop: watch::Receiver<bool>, drain: Duration) {
    let factory = {
        let (worker, stop) = (Arc::clone(&worker), stop.clone());
        move |restarts| {
            let worker = Arc::clone(&worker);
            let claims = Claims {
                stream: claims(Arc::clone(&worker), stop.clone()),
            };
            WorkerBuilder::new(format!("deliveries-{restarts}"))
                .backend(claims)
                .concurrency(worker.rules.max_in_flight)
                .build(move |claim: Claimed| send::deliver(Arc::clone(&worker), claim))
        }
    };
    let signal = {
        let mut stop = stop;
        async move {
            // The sender lives as long as the process; if it is gone, stopping is right too.
            let _ = stop.wait_for(|stop| *stop).await;
            Ok(())
        }
    };
    let monitor = Monitor::new()
        .register(factory)
        .should_restart(|_, _| true)
        .shutdown_timeout(drain);
    if let Err(error) = monitor.run_with_signal(signal).await {
        tracing::error!(%error, "the worker ended with an error");
    }
}

/// The pace of sends, or `None` if they are unpaced.
fn pace(per_second: f64) -> Option<DefaultDirectRateLimiter> {
    if per_second <= 0.0 {
        return None;
    }
    // A burst hides the grain of the timer at high rates; at low ones messages go strictly one by one.
    let burst = NonZeroU32::new((per_second / 10.0) as u32).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(Duration::from_secs_f64(1.0 / per_second))?.allow_burst(burst);
    Some(RateLimiter::direct(quota))
}

/// Claims one after the other: waits for the pace first and keeps that right until there is something to claim, so
/// neither an idle pace is wasted nor a lease taken too early.
fn claims(worker: Arc<Worker>, stop: watch::Receiver<bool>) -> BoxStream<'static, Claimed> {
    let pace = pace(worker.rules.per_second);
    stream::unfold((worker, pace, stop), |(worker, pace, stop)| async move {
        if let Some(pace) = &pace {
            pace.until_ready().await;
        }
        let claim = next_claim(&worker, pace.as_ref(), &stop).await;
        Some((claim, (worker, pace, stop)))
    })
    .boxed()
}

/// The next claim, however long it takes.
async fn next_claim(worker: &Worker, pace: Option<&DefaultDirectRateLimiter>, stop: &watch::Receiver<bool>) -> Claimed {
    let mut napped = false;
    loop {
        if *stop.borrow() {
            // The monitor is about to end this stream: take no new lease.
            std::future::pending::<()>().await;
        }
        let now = now();
        match worker
            .store
            .claim(
                &worker.owner,
                worker.provider.name(),
                worker.provider.account(),
                worker.rules.lease,
                now,
            )
            .await
        {
            Ok(Some(claim)) => {
                if let Some(pace) = pace.filter(|_| napped) {
                    // While this right was kept, the next one grew: two messages would go at once. Let it lapse.
                    let _ = pace.check();
                }
                return claim;
            }
            Ok(None) => {
                napped = true;
                let due_in = match worker.store.next_due_at(now).await {
                    Ok(Some(due)) => Duration::try_from(due.duration_since(now)).unwrap_or(LONGEST_NAP),
                    Ok(None) | Err(_) => LONGEST_NAP,
                };
                // Due and still not claimed means held: look again at the end of the nap.
                let nap = if due_in.is_zero() {
                    LONGEST_NAP
                } else {
                    due_in.min(LONGEST_NAP)
                };
                let _ = tokio::time::timeout(nap, worker.wake.notified()).await;
            }
            Err(error) => {
                tracing::warn!(error = %error.explain(), "cannot claim deliveries; will try again");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

struct Claims {
    stream: BoxStream<'static, Claimed>,
}

impl Backend for Claims {
    type Task = Task<Claimed>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        self.stream
            .poll_next_unpin(cx)
            .map(|claim| claim.map(|claim| Ok(TaskBuilder::new(claim).build())))
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Claims {
    type Args = Claimed;
    type Id = RandomId;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
