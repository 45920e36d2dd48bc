//! Begins the deliveries that are due and makes their calls. The row whose commit made a 202 true is the job; apalis holds
//! nothing that a crash could lose. What is due is begun only for calls that can be made at once, so no lease ages in a
//! buffer. Absent: one delivery from its begun attempt on (see `send`).

use super::{
    context::{Worker, now},
    pace::Pace,
    send,
    workers::{Tasks, pass_panic_on, stopped},
};
use crate::store::{BegunBatch, Claimed, StoreError, Wait};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
};

pub const NAME: &str = "begin to send";

/// The net under the wake-ups: how long a delivery can lie unseen if its notification was not heard.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// How long nothing has to come before it is asked when something will be due.
const DOZE: Duration = Duration::from_millis(20);
/// How many deliveries are under way for each call that may be: half of them are called while the answers of the others are
/// recorded.
pub const PER_CALL: usize = 2;
/// After a failure of the database. Long enough not to spin, short enough to be there when it is back.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// One batch after the other, until `stop` turns true. Each is a task of its own, so that what it begins it also calls,
/// though nobody may ask for it any more.
pub fn batches(worker: Arc<Worker>, slots: Arc<Semaphore>, stop: watch::Receiver<bool>) -> BoxStream<'static, Tasks> {
    let state = State {
        pace: Pace::new(worker.rules.per_second, worker.store.is_shared()),
        is_idle: false,
    };
    stream::unfold(
        (worker, slots, state, stop),
        |(worker, slots, state, stop)| async move {
            let round = tokio::spawn(round(Arc::clone(&worker), Arc::clone(&slots), state, stop.clone()));
            match pass_panic_on(round.await) {
                Some((Some(calls), state)) => Some((calls, (worker, slots, state, stop))),
                // The monitor is about to end this stream.
                Some((None, _)) | None => std::future::pending().await,
            }
        },
    )
    .boxed()
}

/// What one round leaves to the next.
struct State {
    pace: Pace,
    /// Whether what was begun last was all there was: then nothing is asked for until something comes.
    is_idle: bool,
}

/// Begins what is due for the slots that are free, and makes its calls; waits for as long as nothing is due. Gives the
/// state back, and no calls at a stop.
async fn round(
    worker: Arc<Worker>,
    slots: Arc<Semaphore>,
    mut state: State,
    mut stop: watch::Receiver<bool>,
) -> (Option<Vec<JoinHandle<()>>>, State) {
    let (mut napped, mut wait, mut looking) = (false, None, None);
    let Some(mut free) = Free::one(&worker.calls, &slots).await else {
        return (None, state);
    };
    while !*stop.borrow() {
        free.add_all();
        let most = tokio::select! {
            most = wait_for_turn(&worker, &mut state.pace, free.count(), &mut looking) => most,
            () = stopped(&mut stop) => break,
        };
        let next = match most {
            Ok(most) => {
                let beginning = begin(&worker, (most, state.is_idle), &mut napped, &mut stop);
                await_database(&worker, &mut wait, beginning).await
            }
            Err(error) => Err(error),
        };
        match next {
            Ok(Next::Nothing) => {
                state.pace.rest();
                state.is_idle = false;
                // Something is due and cannot be begun: it is held, or another replica has it.
                if worker.store.is_shared() {
                    napped = true;
                    tokio::select! {
                        () = nap(&worker) => {}
                        () = stopped(&mut stop) => {}
                    }
                }
            }
            Ok(Next::Begun(batch)) => {
                state.is_idle = batch.is_all;
                let mut calls = Vec::with_capacity(batch.begun.len());
                for sending in batch.begun.into_iter().filter_map(send::to_send) {
                    let Some(Free { call, slot }) = free.split() else { break };
                    calls.push(hold(
                        slot,
                        send::deliver(Arc::clone(&worker), sending, batch.began_at, call),
                    ));
                }
                state.pace.used(calls.len(), napped);
                return (Some(calls), state);
            }
            Ok(Next::Claimed(claim)) => {
                state.pace.used(1, napped);
                let Free { call, slot } = free.split().unwrap_or(free);
                let calls = vec![hold(slot, send::deliver_claimed(Arc::clone(&worker), claim, call))];
                return (Some(calls), state);
            }
            Err(error) => {
                state.is_idle = false;
                tracing::warn!(%error, "cannot begin to send; will try again");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
    (None, state)
}

/// Calls that may be made, and slots for deliveries under way: a call ends with the provider's answer, a delivery is under way
/// until that is recorded.
struct Free {
    call: OwnedSemaphorePermit,
    slot: OwnedSemaphorePermit,
}

impl Free {
    /// Waits for one of each. Nobody else takes any meanwhile. `None` if there never will be one.
    async fn one(calls: &Arc<Semaphore>, slots: &Arc<Semaphore>) -> Option<Self> {
        Some(Self {
            slot: Arc::clone(slots).acquire_owned().await.ok()?,
            call: Arc::clone(calls).acquire_owned().await.ok()?,
        })
    }

    /// Adds all that are free by now.
    fn add_all(&mut self) {
        for held in [&mut self.call, &mut self.slot] {
            let all = Arc::clone(held.semaphore());
            let more = u32::try_from(all.available_permits()).unwrap_or(u32::MAX);
            if let Ok(more) = all.try_acquire_many_owned(more) {
                held.merge(more);
            }
        }
    }

    /// How many deliveries can be begun.
    fn count(&self) -> usize {
        self.call.num_permits().min(self.slot.num_permits())
    }

    /// Those of one delivery.
    fn split(&mut self) -> Option<Self> {
        Some(Self {
            call: self.call.split(1)?,
            slot: self.slot.split(1)?,
        })
    }
}

/// A delivery under way, in its slot for as long as it lives.
fn hold(slot: OwnedSemaphorePermit, delivering: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        delivering.await;
        drop(slot);
    })
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

/// What came of the request to begin something.
enum Next {
    Begun(BegunBatch),
    Claimed(Claimed),
    Nothing,
}

/// Begins up to `most` deliveries together; if none is due, waits until one is, somebody notifies or a nap is over. If one of
/// them keeps the others from it, claims the first alone: that is counted, and ends.
async fn begin(
    worker: &Worker,
    most: (usize, bool),
    napped: &mut bool,
    stop: &mut watch::Receiver<bool>,
) -> Result<Next, StoreError> {
    let now = now();
    let rules = send::begin_rules(worker, now);
    let until = async {
        *napped = true;
        tokio::select! {
            () = nap(worker) => {}
            () = stopped(stop) => {}
        }
    };
    match worker.store.begin_due(rules.clone(), most, now, until).await {
        Ok(batch) if batch.begun.is_empty() => Ok(Next::Nothing),
        Ok(batch) => Ok(Next::Begun(batch)),
        Err(error) if error.is_outage() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "cannot begin deliveries together; trying the first alone");
            let (owner, route) = (&worker.owner, &rules.route);
            let claim = worker.store.claim(owner, route, rules.lease, now).await?;
            Ok(claim.map_or(Next::Nothing, Next::Claimed))
        }
    }
}

/// Whether a delivery is due that nobody has claimed. It may be held all the same.
async fn is_due(worker: &Worker) -> Result<bool, StoreError> {
    let now = now();
    let next = worker.store.next_due_at(worker.carrier.route().channel, now).await?;
    Ok(next.is_some_and(|due| due <= now))
}

/// Sleeps until the next delivery will be due, somebody notifies, or the longest nap is over.
async fn nap(worker: &Worker) {
    let mut wake = worker.wake.lock().await;
    // Under load something comes at once, and nothing has to be asked for.
    if tokio::time::timeout(DOZE, wake.changed()).await.is_ok() {
        return;
    }
    let now = now();
    let next = worker.store.next_due_at(worker.carrier.route().channel, now).await;
    let due_in = next
        .ok()
        .flatten()
        .and_then(|due| Duration::try_from(due.duration_since(now)).ok());
    // Due and still not claimed means held: look again at the end of the nap.
    let nap = due_in
        .filter(|due_in| !due_in.is_zero())
        .unwrap_or(LONGEST_NAP)
        .min(LONGEST_NAP);
    // Its sender lives as long as the store.
    let _ = tokio::time::timeout(nap, wake.changed()).await;
}
