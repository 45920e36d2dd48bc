//! Runs the jobs of a process: the list of all there are. Absent: how they are kept running (see `workers`).

use super::{
    alarms, backend, cleanup, clock_watch,
    context::{Worker, now},
    listener,
    nightly::{self, Nightly},
    outbox, probe, reconcile, sweep,
    workers::{TimedJob, Workers},
};
use crate::store::{Db, Mails, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// After the database was not there at the beginning.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);
/// How long giving claims back may take at a stop; where that fails, their leases end by themselves.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// Runs all jobs, with a worker for each carrier and those that were `added`, until `stop` turns true; then finishes the
/// calls under way, at most for `drain`, and gives back what was claimed and not begun. What there is once, the `first` worker
/// has.
pub async fn run(
    first: Arc<Worker>,
    others: Vec<Arc<Worker>>,
    nightly: Arc<Nightly>,
    added: Vec<TimedJob>,
    stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let carriers = || std::iter::once(&first).chain(&others);
    let wait = first.store.waits().begin("begin to work");
    while let Err(error) = take_over(&first.store, carriers()).await {
        tracing::warn!(%error, "cannot begin to work; will try again");
        tokio::time::sleep(BEGIN_AGAIN).await;
        if *stop.borrow() {
            return;
        }
    }
    drop(wait);
    // What each carrier has for itself: its calls, and what its provider is asked.
    let mut workers = Workers::new(first.store.fatal().clone(), stop.clone());
    for worker in carriers() {
        let (carried, stopping) = (Arc::clone(worker), stop.clone());
        let deliveries = move |slots| backend::batches(Arc::clone(&carried), slots, stopping.clone());
        workers = workers
            .add(
                backend::NAME,
                backend::PER_CALL * worker.rules.max_in_flight,
                drain,
                deliveries,
            )
            .timed(probe::job(worker))
            .timed(reconcile::job(worker));
    }
    let jobs = [
        clock_watch::job(&first),
        sweep::job(&first),
        listener::job(&first),
        nightly::job(&nightly),
        alarms::job(&nightly),
        outbox::job("send mails of alarms", &nightly, Mails::Alarms),
        outbox::job("send mail", &nightly, Mails::Others),
        outbox::job("send mails of lifecycle events", &nightly, Mails::Notices),
        cleanup::job(&nightly, &first.clock),
    ];
    let jobs = jobs.into_iter().chain(added);
    jobs.fold(workers, Workers::timed).run().await;
    match tokio::time::timeout(GIVE_BACK, first.store.give_back_all(&first.owner)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(given_back)) => tracing::info!(deliveries = given_back, "gave back claims that had not begun"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot give claims back; their leases end by themselves")
        }
        Err(_) => tracing::warn!("cannot give claims back in time; their leases end by themselves"),
    }
}

/// What a new process does first: frees what a dead one had, and lets nothing wait that a restart may have mended.
async fn take_over(store: &Db, workers: impl Iterator<Item = &Arc<Worker>>) -> Result<(), StoreError> {
    store.give_back_claims_of_the_dead().await?;
    for worker in workers {
        store.probe_soon(worker.carrier.route(), now()).await?;
    }
    store.mail_soon(now()).await
}
