//! What this process does in the background: it sends what is owed, asks about what was sent, makes and sends reports, and
//! cleans up. One job, one file; `workers` runs them all under one apalis monitor. Absent: HTTP, which only notifies this
//! module; they meet in the database.

mod alarms;
mod backend;
mod cleanup;
mod clock;
mod listener;
mod nightly;
mod outbox;
mod pace;
mod probe;
mod proof;
mod reconcile;
mod send;
mod sweep;
mod workers;

pub use clock::Clock;
pub use nightly::{Nightly, NightlyRules};
pub use outbox::Mailed;

use crate::{
    carrier::Carrier,
    domain::{day::to_millisecond, route::Route},
    store::{Db, StoreError},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, watch};
use workers::Workers;

/// How sends are made.
pub struct Rules {
    pub time_zone: TimeZone,
    pub daily_limit: i64,
    /// Messages a second; 0 is unpaced.
    pub per_second: f64,
    /// Calls to the provider at once.
    pub max_in_flight: usize,
    pub lease: SignedDuration,
    pub timeout: SignedDuration,
    /// Over which the looks are spread that prove a message absent.
    pub reconcile_after: SignedDuration,
    pub resend_when_absent: bool,
    pub poll_after: SignedDuration,
    pub expire_after: SignedDuration,
}

/// What the jobs around deliveries work with.
pub struct Worker {
    pub store: Db,
    pub carrier: Arc<Carrier>,
    /// Those of the carrier's channel.
    pub rules: Rules,
    /// Marks the leases of this process.
    pub owner: String,
    /// What is known of the wall clock.
    pub clock: Arc<Clock>,
    /// The routes of all carriers of this process: who else could ask about an attempt?
    pub routes: Vec<Arc<Route>>,
    /// Changes when a delivery may be due.
    pub wake: Mutex<watch::Receiver<()>>,
}

/// After the database was not there at the beginning.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);
/// How often most jobs look whether there is something to do.
const EVERY_SECOND: Duration = Duration::from_secs(1);
/// How long giving claims back may take at a stop; where that fails, their leases end by themselves.
const GIVE_BACK: Duration = Duration::from_secs(2);

impl Worker {
    /// Runs all jobs, those of the `others`' carriers among them, until `stop` turns true; then finishes the calls under way,
    /// at most for `drain`, and gives back what was claimed and not begun.
    pub async fn run(
        self: Arc<Self>,
        others: Vec<Arc<Self>>,
        nightly: Arc<Nightly>,
        stop: watch::Receiver<bool>,
        drain: Duration,
    ) {
        let carriers = || std::iter::once(&self).chain(&others);
        let wait = self.store.waits().begin("begin to work");
        while let Err(error) = take_over(&self.store, carriers()).await {
            tracing::warn!(error = %error.explain(), "cannot begin to work; will try again");
            tokio::time::sleep(BEGIN_AGAIN).await;
            if *stop.borrow() {
                return;
            }
        }
        drop(wait);
        // What each carrier has for itself: its calls, and what its provider is asked.
        let mut workers = Workers::new(self.store.fatal().clone(), stop.clone());
        for worker in carriers() {
            let (carried, stopping) = (Arc::clone(worker), stop.clone());
            let deliveries = move |slots| backend::batches(Arc::clone(&carried), slots, stopping.clone());
            workers = workers
                .add(backend::NAME, worker.rules.max_in_flight, drain, deliveries)
                .timed(probe::job(worker))
                .timed(reconcile::job(worker));
        }
        let jobs = [
            clock::job(&self),
            sweep::job(&self),
            listener::job(&self),
            nightly::job(&nightly),
            alarms::job(&nightly),
            outbox::alarms(&nightly),
            outbox::others(&nightly),
            cleanup::job(&nightly, &self.clock),
        ];
        jobs.into_iter().fold(workers, Workers::timed).run().await;
        match tokio::time::timeout(GIVE_BACK, self.store.give_back_all(&self.owner)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(given_back)) => tracing::info!(deliveries = given_back, "gave back claims that had not begun"),
            Ok(Err(error)) => {
                tracing::warn!(error = %error.explain(), "cannot give claims back; their leases end by themselves")
            }
            Err(_) => tracing::warn!("cannot give claims back in time; their leases end by themselves"),
        }
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

/// The present, as the database keeps it. The edge: below here, time is an argument.
fn now() -> Timestamp {
    to_millisecond(Timestamp::now())
}
