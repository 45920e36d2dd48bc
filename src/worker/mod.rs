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
    carrier::Carrier,
    domain::day::to_millisecond,
    store::{Db, StoreError},
    supervise::keep_running,
};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

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

/// What sends through one carrier works with.
pub struct Worker {
    pub store: Db,
    pub carrier: Arc<Carrier>,
    /// Those of the carrier's channel.
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
/// After the connection to hear other processes by could not be made.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);
/// How long a mail that is under way at a stop may take to end.
const MAIL_DRAIN: Duration = Duration::from_secs(10);
/// How long giving claims back may take at a stop; where that fails, their leases end by themselves.
const GIVE_BACK: Duration = Duration::from_secs(2);

impl Worker {
    /// Sends through this carrier and the `others` and does the work of the night until `stop` turns true, then finishes the
    /// calls under way, at most for `drain`, and gives back what was claimed and not begun. Each of its tasks is watched
    /// over.
    pub async fn run(
        self: Arc<Self>,
        others: Vec<Arc<Self>>,
        night: Arc<Night>,
        stop: watch::Receiver<bool>,
        drain: Duration,
    ) {
        let workers = || std::iter::once(&self).chain(&others);
        let wait = self.store.waits().begin("begin to work");
        while let Err(error) = take_over(&self.store, workers()).await {
            tracing::warn!(error = %error.explain(), "cannot begin to work; will try again");
            tokio::time::sleep(BEGIN_AGAIN).await;
            if *stop.borrow() {
                return;
            }
        }
        drop(wait);
        let mut beside = JoinSet::new();
        let worker = || (Arc::clone(&self), stop.clone());
        beside.spawn(self.watch("watch the clock", worker(), |(worker, stop)| clock::run(worker, stop)));
        beside.spawn(self.watch("sweep", worker(), |(worker, stop)| sweep::run(worker, stop)));
        beside.spawn(self.watch("listen", worker(), |(worker, _)| listen(worker)));
        let of_the_night = || (Arc::clone(&night), stop.clone());
        beside.spawn(self.watch("make reports", of_the_night(), |(night, stop)| {
            nightly::run(night, stop)
        }));
        let clock = Arc::clone(&self.clock);
        beside.spawn(self.watch("clean up", of_the_night(), move |(night, stop)| {
            cleanup::run(night, Arc::clone(&clock), stop)
        }));
        let posting = self.watch("send mail", of_the_night(), |(night, stop)| post::run(night, stop));
        let sending = join_all(workers().map(|worker| Arc::clone(worker).carry(stop.clone(), drain)));
        // A mail cut off between the server's yes and our note would go twice.
        let posting = async {
            tokio::select! {
                () = posting => {}
                () = drained(stop.clone(), MAIL_DRAIN) => {}
            }
        };
        tokio::join!(sending, posting);
        beside.shutdown().await;
        match tokio::time::timeout(GIVE_BACK, self.store.give_back_all(&self.owner)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(given_back)) => tracing::info!(deliveries = given_back, "gave back claims that had not begun"),
            Ok(Err(error)) => {
                tracing::warn!(error = %error.explain(), "cannot give claims back; their leases end by themselves")
            }
            Err(_) => tracing::warn!("cannot give claims back in time; their leases end by themselves"),
        }
    }

    /// What each carrier has for itself: its calls, and what its provider is asked.
    async fn carry(self: Arc<Self>, stop: watch::Receiver<bool>, drain: Duration) {
        let worker = || (Arc::clone(&self), stop.clone());
        let mut beside = JoinSet::new();
        beside.spawn(self.watch("probe the provider", worker(), |(worker, stop)| {
            sweep::run_probes(worker, stop)
        }));
        beside.spawn(self.watch("reconcile", worker(), |(worker, stop)| reconcile::run(worker, stop)));
        self.watch("send messages", worker(), move |(worker, stop)| {
            backend::run(worker, stop, drain)
        })
        .await;
        beside.shutdown().await;
    }

    /// Keeps a task running until it is to stop.
    fn watch<T, F>(
        &self,
        task: &'static str,
        (room, stop): (Arc<T>, watch::Receiver<bool>),
        start: impl Fn((Arc<T>, watch::Receiver<bool>)) -> F + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        T: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let stopping = stop.clone();
        keep_running(
            task,
            self.store.fatal().clone(),
            move || *stopping.borrow(),
            move || start((Arc::clone(&room), stop.clone())),
        )
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

/// Rings our bell when another process has something due. Only a help: without it a delivery lies for a second at most.
async fn listen(worker: Arc<Worker>) {
    loop {
        if let Err(error) = worker.store.listen(|| worker.wake.notify_one()).await {
            tracing::warn!(error = %error.explain(), "cannot hear the other processes; will try again");
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// Ends this long after `stop` turned true.
async fn drained(mut stop: watch::Receiver<bool>, time: Duration) {
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(time).await;
}

/// The present, as the database keeps it. The edge: below here, time is an argument.
fn now() -> Timestamp {
    to_millisecond(Timestamp::now())
}
