//! The queue as apalis sees it: a stream of batches whose calls are under way. The only file that names apalis. The row
//! whose commit made a 202 true is the job; apalis holds nothing that a crash could lose. What is due is begun only for
//! call slots that are free, so no lease ages in a buffer.

use super::{Worker, now, pace::Pace, send};
use crate::{
    store::{self, Begun, Claimed, Sending, StoreError, Wait},
    supervise::{self, Failures},
};
use apalis::prelude::{Backend, Monitor, RandomId, Task, TaskBuilder, WorkerBuilder, WorkerBuilderExt, WorkerContext};
use apalis_core::backend::{BackendConfig, finalize::Ephemeral};
use apalis_core::layers::Identity;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
};

/// The net under the wake-ups: how long a delivery can lie unseen if its bell was not heard.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// After a failure of the database. Long enough not to spin, short enough to be there when it is back.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// The calls of one batch, for apalis to watch over.
type Batch = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// Begins and sends until `stop` turns true; then finishes what is under way, at most for `drain`. What was begun is called
/// and counted here, whatever becomes of apalis: under load, one stop in a dozen was seen in which apalis 1.0 no longer
/// drove its handlers, and an answer that the provider had given was not recorded.
pub async fn run(worker: Arc<Worker>, stop: watch::Receiver<bool>, drain: Duration) {
    let most = worker.rules.max_in_flight;
    let slots = Arc::new(Semaphore::new(most));
    let drained = async {
        stopped(&mut stop.clone()).await;
        // All slots free again means that nothing is begun and no call is under way.
        let all = slots.acquire_many(u32::try_from(most).unwrap_or(u32::MAX));
        if tokio::time::timeout(drain, all).await.is_err() {
            tracing::warn!(
                after_s = drain.as_secs(),
                "cut off calls that did not end; their leases end by themselves"
            );
        }
    };
    tokio::pin!(drained);
    let signal = {
        let mut stop = stop.clone();
        async move {
            stopped(&mut stop).await;
            Ok(())
        }
    };
    let factory = {
        let (worker, slots, stop) = (Arc::clone(&worker), Arc::clone(&slots), stop.clone());
        move |restarts| {
            let batches = Batches {
                stream: batches(Arc::clone(&worker), Arc::clone(&slots), stop.clone()),
            };
            WorkerBuilder::new(format!("deliveries-{restarts}"))
                .backend(batches)
                .concurrency(most)
                .build(async |batch: Batch| {
                    let calls = std::mem::take(&mut *batch.lock().unwrap_or_else(PoisonError::into_inner));
                    for call in calls {
                        // A panic is dealt with inside.
                        let _ = call.await;
                    }
                })
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
            // Ended too early, it is started anew; what is under way goes on beside.
            if *stop.borrow() {
                drained.await;
            }
        }
        // What was claimed and not begun is given back by the caller.
        () = &mut drained => {}
    }
}

/// Ends when `stop` turns true. Its sender lives as long as the process; if it is gone, stopping is right too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One batch after the other. Each is a task of its own, so that what it begins it also calls, though nobody may ask for
/// it any more. One that panics is said and followed by the next.
fn batches(worker: Arc<Worker>, slots: Arc<Semaphore>, stop: watch::Receiver<bool>) -> BoxStream<'static, Batch> {
    let failures = Failures::default();
    let pace = new_pace(&worker);
    stream::unfold((worker, slots, pace, stop, failures), |state| async move {
        let (worker, slots, mut pace, stop, mut failures) = state;
        loop {
            let round = tokio::spawn(round(Arc::clone(&worker), Arc::clone(&slots), pace, stop.clone()));
            match round.await {
                Ok((Some(calls), pace)) => {
                    let batch = Batch::new(Mutex::new(calls));
                    return Some((batch, (worker, slots, pace, stop, failures)));
                }
                // The monitor is about to end this stream.
                Ok((None, _)) => return std::future::pending().await,
                Err(error) => {
                    let why = error.try_into_panic().map(|panic| supervise::message(&*panic));
                    let why = why.unwrap_or_else(|error| error.to_string());
                    let pause = failures.log("begin to send", &why, worker.store.fatal())?;
                    tokio::time::sleep(pause).await;
                    pace = new_pace(&worker);
                }
            }
        }
    })
    .boxed()
}

fn new_pace(worker: &Worker) -> Pace {
    Pace::new(worker.rules.per_second, worker.store.is_shared())
}

/// Begins what is due for the slots that are free, and makes its calls; waits for as long as nothing is due. Gives the
/// pace back, and no calls at a stop.
async fn round(
    worker: Arc<Worker>,
    slots: Arc<Semaphore>,
    mut pace: Pace,
    mut stop: watch::Receiver<bool>,
) -> (Option<Vec<JoinHandle<()>>>, Pace) {
    let (mut napped, mut wait, mut looking) = (false, None, None);
    let Ok(mut free) = Arc::clone(&slots).acquire_owned().await else {
        return (None, pace);
    };
    while !*stop.borrow() {
        let more = u32::try_from(slots.available_permits()).unwrap_or(u32::MAX);
        if let Ok(more) = Arc::clone(&slots).try_acquire_many_owned(more) {
            free.merge(more);
        }
        let most = tokio::select! {
            most = wait_for_turn(&worker, &mut pace, free.num_permits(), &mut looking) => most,
            () = stopped(&mut stop) => break,
        };
        let next = match most {
            Ok(most) => await_database(&worker, &mut wait, begin(&worker, most, &mut napped, &mut stop)).await,
            Err(error) => Err(error),
        };
        match next {
            Ok(Next::Nothing) => {
                pace.rest();
                // Something is due and cannot be begun: it is held, or another replica has it.
                if worker.store.is_shared() {
                    napped = true;
                    tokio::select! {
                        () = nap(&worker) => {}
                        () = stopped(&mut stop) => {}
                    }
                }
            }
            Ok(Next::Begun(store::BegunBatch { began_at, begun })) => {
                let mut calls = Vec::with_capacity(begun.len());
                for sending in begun.into_iter().filter_map(to_send) {
                    let Some(slot) = free.split(1) else { break };
                    calls.push(call(slot, send::deliver(Arc::clone(&worker), sending, began_at)));
                }
                pace.used(calls.len(), napped);
                return (Some(calls), pace);
            }
            Ok(Next::Claimed(claim)) => {
                pace.used(1, napped);
                let slot = free.split(1).unwrap_or(free);
                let calls = vec![call(slot, send::deliver_claimed(Arc::clone(&worker), claim))];
                return (Some(calls), pace);
            }
            Err(error) => pause(&error).await,
        }
    }
    (None, pace)
}

/// A delivery under way, in its slot for as long as it lives.
fn call(slot: OwnedSemaphorePermit, delivering: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        delivering.await;
        drop(slot);
    })
}

fn to_send(begun: Begun) -> Option<Sending> {
    match begun {
        Begun::Send(sending) => Some(sending),
        Begun::Stopped { delivery_id, state } => {
            tracing::info!(delivery.id = %delivery_id, %state, "not sent");
            None
        }
        Begun::Gone | Begun::Later => None,
    }
}

/// Waits for the pace; returns how many may go now, at most `most`. A turn that is shared with others is taken only when
/// something is due; an own right can be kept.
async fn wait_for_turn(
    worker: &Worker,
    pace: &mut Pace,
    most: usize,
    wait: &mut Option<Wait>,
) -> Result<usize, StoreError> {
    if worker.store.is_shared() {
        while !await_database(worker, wait, is_due(worker)).await? {
            pace.rest();
            nap(worker).await;
        }
    }
    pace.ready(&worker.store, worker.carrier.route(), most).await
}

/// Asks the database for something. As long as it is not had, sending waits, however often it is asked for.
async fn await_database<T>(
    worker: &Worker,
    wait: &mut Option<Wait>,
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    wait.get_or_insert_with(|| worker.store.waits().begin("begin to send"));
    let answer = asking.await;
    if answer.is_ok() {
        *wait = None;
    }
    answer
}

/// What came of the wish to begin something.
enum Next {
    Begun(store::BegunBatch),
    Claimed(Claimed),
    Nothing,
}

/// Begins up to `most` deliveries together; if none is due, waits until one is, the bell rings or a nap is over. If one of
/// them keeps the others from it, claims the first alone: that is counted, and ends.
async fn begin(
    worker: &Worker,
    most: usize,
    napped: &mut bool,
    stop: &mut watch::Receiver<bool>,
) -> Result<Next, StoreError> {
    let now = now();
    let rules = send::begin_rules(worker, now);
    let idle = Arc::new(Notify::new());
    let given_up = async {
        idle.notified().await;
        *napped = true;
        tokio::select! {
            () = nap(worker) => {}
            () = stopped(stop) => {}
        }
    };
    match worker.store.begin_due(&rules, most, now, &idle, given_up).await {
        Ok(batch) if batch.begun.is_empty() => Ok(Next::Nothing),
        Ok(batch) => Ok(Next::Begun(batch)),
        Err(error) if error.is_outage() => Err(error),
        Err(error) => {
            tracing::warn!(error = %error.explain(), "cannot begin deliveries together; trying the first alone");
            let claim = worker
                .store
                .claim(&worker.owner, &rules.route, rules.lease, now)
                .await?;
            Ok(claim.map_or(Next::Nothing, Next::Claimed))
        }
    }
}

/// Whether a delivery is due that nobody has claimed. It may be held all the same.
async fn is_due(worker: &Worker) -> Result<bool, StoreError> {
    let now = now();
    Ok(worker
        .store
        .next_due_at(worker.carrier.route().channel, now)
        .await?
        .is_some_and(|due| due <= now))
}

/// Sleeps until the next delivery will be due, the bell rings, or the longest nap is over.
async fn nap(worker: &Worker) {
    let now = now();
    let due_in = match worker.store.next_due_at(worker.carrier.route().channel, now).await {
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
    tracing::warn!(error = %error.explain(), "cannot begin to send; will try again");
    tokio::time::sleep(AFTER_FAILURE).await;
}

struct Batches {
    stream: BoxStream<'static, Batch>,
}

impl Backend for Batches {
    type Task = Task<Batch>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        self.stream
            .poll_next_unpin(cx)
            .map(|batch| batch.map(|batch| Ok(TaskBuilder::new(batch).build())))
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Batches {
    type Args = Batch;
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
