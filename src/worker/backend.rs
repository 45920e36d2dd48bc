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

/// Claims and sends until `stop` turns true; then finishes what is under way, at most for `drain`. Each delivery is a task of
/// its own, and counted here: under load, one stop in a dozen was seen in which apalis 1.0 no longer drove its handlers, and
/// an answer that the provider had given was not recorded.
pub async fn run(worker: Arc<Worker>, stop: watch::Receiver<bool>, drain: Duration) {
    let under_way = watch::Sender::new(0_usize);
    let factory = {
        let (worker, stop, under_way) = (Arc::clone(&worker), stop.clone(), under_way.clone());
        move |restarts| {
            let (worker, under_way) = (Arc::clone(&worker), under_way.clone());
            let claims = Claims {
                stream: claims(Arc::clone(&worker), stop.clone()),
            };
            WorkerBuilder::new(format!("deliveries-{restarts}"))
                .backend(claims)
                .concurrency(worker.rules.max_in_flight)
                .build(move |claim: Claimed| {
                    let (worker, counted) = (Arc::clone(&worker), Counted::one_of(&under_way));
                    let delivering = tokio::spawn(async move {
                        send::deliver(worker, claim).await;
                        drop(counted);
                    });
                    async move {
                        // A panic is dealt with inside.
                        let _ = delivering.await;
                    }
                })
        }
    };
    let drained = {
        let (mut stop, mut under_way) = (stop.clone(), under_way.subscribe());
        async move {
            let _ = stop.wait_for(|stop| *stop).await;
            if tokio::time::timeout(drain, under_way.wait_for(|count| *count == 0))
                .await
                .is_err()
            {
                tracing::warn!(
                    after_s = drain.as_secs(),
                    "cut off calls that did not end; their leases end by themselves"
                );
            }
        }
    };
    tokio::pin!(drained);
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
    tokio::select! {
        ended = monitor.run_with_signal(signal) => {
            if let Err(error) = ended {
                tracing::error!(%error, "the worker ended with an error");
            }
            drained.await;
        }
        // What was claimed and not begun is given back by the caller.
        () = &mut drained => {}
    }
}

/// One delivery under way, for as long as it lives.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn one_of(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
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
