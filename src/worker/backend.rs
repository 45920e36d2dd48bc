//! The queue as apalis sees it: a stream of claimed deliveries. The only file that names apalis. The row whose commit
//! made a 202 true is the job; apalis holds nothing that a crash could lose, and asks for the next claim only when a
//! call slot is free, so no lease ages in a buffer.

use super::{Worker, now, pace::Pace, send};
use crate::store::{Claimed, StoreError};
use apalis::prelude::{Backend, Monitor, RandomId, Task, TaskBuilder, WorkerBuilder, WorkerBuilderExt, WorkerContext};
use apalis_core::backend::{BackendConfig, finalize::Ephemeral};
use apalis_core::layers::Identity;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{
    convert::Infallible,
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

/// Claims one after the other: waits for the pace first and keeps that right until there is something to claim, so
/// neither an idle pace is wasted nor a lease taken too early.
fn claims(worker: Arc<Worker>, stop: watch::Receiver<bool>) -> BoxStream<'static, Claimed> {
    let pace = Pace::new(worker.rules.per_second, worker.store.is_shared());
    stream::unfold((worker, pace, stop), |(worker, mut pace, stop)| async move {
        let claim = next_claim(&worker, &mut pace, &stop).await;
        Some((claim, (worker, pace, stop)))
    })
    .boxed()
}

/// The next claim, however long it takes.
async fn next_claim(worker: &Worker, pace: &mut Pace, stop: &watch::Receiver<bool>) -> Claimed {
    let (provider, account) = (worker.provider.name(), worker.provider.account());
    let (mut is_ready, mut napped) = (false, false);
    loop {
        if *stop.borrow() {
            // The monitor is about to end this stream: take no new lease.
            std::future::pending::<()>().await;
        }
        // A turn that is shared with others is taken only when something is due; an own right can be kept.
        if pace.is_shared() {
            match is_due(worker).await {
                Ok(true) => {}
                Ok(false) => {
                    nap(worker).await;
                    continue;
                }
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            }
        }
        if !is_ready {
            if let Err(error) = pace.ready(&worker.store, provider, account).await {
                pause(&error).await;
                continue;
            }
            is_ready = !pace.is_shared();
            if *stop.borrow() {
                continue;
            }
        }
        match worker
            .store
            .claim(&worker.owner, provider, account, worker.rules.lease, now())
            .await
        {
            Ok(Some(claim)) => {
                if napped {
                    pace.forget_one();
                }
                return claim;
            }
            Ok(None) => {
                napped = true;
                nap(worker).await;
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Whether a delivery is due that nobody has claimed. It may be held all the same.
async fn is_due(worker: &Worker) -> Result<bool, StoreError> {
    let now = now();
    Ok(worker.store.next_due_at(now).await?.is_some_and(|due| due <= now))
}

/// Sleeps until the next delivery will be due, the bell rings, or the longest nap is over.
async fn nap(worker: &Worker) {
    let now = now();
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

async fn pause(error: &StoreError) {
    tracing::warn!(error = %error.explain(), "cannot claim deliveries; will try again");
    tokio::time::sleep(AFTER_FAILURE).await;
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
