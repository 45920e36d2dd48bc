//! Sends what is owed: an apalis worker over the claims of `backend`, and beside it `sweep` and `reconcile`. And the
//! night: `nightly` makes mails, `post` sends them, `cleanup` forgets. Absent: HTTP, which only wakes this room; they meet
//! in the database.

mod backend;
mod cleanup;
mod clock;
mod nightly;
mod pace;
mod post;
mod reconcile;
mod send;
mod sweep;
mod timer;

pub use clock::Clock;
pub use nightly::{Night, NightRules};
pub use post::Posted;

use crate::{
    domain::day::to_millisecond,
    provider::Provider,
    store::{Db, StoreError},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};

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

/// What every part of this room works with.
pub struct Worker {
    pub store: Db,
    pub provider: Provider,
    pub rules: Rules,
    /// Rung when a delivery may be due.
    pub wake: Arc<Notify>,
    /// Marks the leases of this process.
    pub owner: String,
    /// What is known of the wall clock.
    pub clock: Arc<Clock>,
}

/// After the database was not there at the beginning.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);
/// After the bell's connection could not be made.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);
/// How long a mail that is under way at a stop may take to end.
const MAIL_DRAIN: Duration = Duration::from_secs(10);

impl Worker {
    /// Sends and does the work of the night until `stop` turns true, then finishes the calls under way, at most for
    /// `drain`, and gives back what was claimed and not begun.
    pub async fn run(
        self: Arc<Self>,
        night: Arc<Night>,
        stop: watch::Receiver<bool>,
        drain: Duration,
    ) -> Result<(), StoreError> {
        while let Err(error) = self.take_over().await {
            tracing::warn!(error = %error.explain(), "cannot begin to work; will try again");
            tokio::time::sleep(BEGIN_AGAIN).await;
            if *stop.borrow() {
                return Ok(());
            }
        }
        let mut beside = tokio::task::JoinSet::new();
        beside.spawn(clock::run(Arc::clone(&self), stop.clone()));
        beside.spawn(sweep::run(Arc::clone(&self), stop.clone()));
        beside.spawn(sweep::run_probes(Arc::clone(&self), stop.clone()));
        beside.spawn(reconcile::run(Arc::clone(&self), stop.clone()));
        beside.spawn(listen(Arc::clone(&self)));
        beside.spawn(nightly::run(Arc::clone(&night), stop.clone()));
        beside.spawn(cleanup::run(Arc::clone(&night), Arc::clone(&self.clock), stop.clone()));
        let posting = tokio::spawn(post::run(Arc::clone(&night), stop.clone()));
        backend::run(Arc::clone(&self), stop, drain).await;
        beside.shutdown().await;
        // Cut off between the server's yes and our note, a mail would go twice.
        let abort = posting.abort_handle();
        if tokio::time::timeout(MAIL_DRAIN, posting).await.is_err() {
            abort.abort();
        }
        let given_back = self.store.give_back_all(&self.owner).await?;
        if given_back > 0 {
            tracing::info!(deliveries = given_back, "gave back claims that had not begun");
        }
        Ok(())
    }

    /// What a new process does first: frees what a dead one had, and lets nothing wait that a restart may have mended.
    async fn take_over(&self) -> Result<(), StoreError> {
        self.store.give_back_claims_of_the_dead().await?;
        self.store
            .probe_soon(self.provider.name(), self.provider.account(), now())
            .await?;
        self.store.mail_soon(now()).await
    }
}

/// Rings our bell when another process has something due. Only a help: without it a delivery lies for a second at most.
async fn listen(worker: Arc<Worker>) {
    loop {
        if let Err(error) = worker.store.listen(|| worker.wake.notify_one()).await {
            tracing::warn!(error = %error.explain(), "cannot hear the other processes; will try again");
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// The present, as the database keeps it. The edge: below here, time is an argument.
fn now() -> Timestamp {
    to_millisecond(Timestamp::now())
}
