//! Sends what is owed: an apalis worker over the claims of `backend`, and beside it `sweep` and `reconcile`. Absent:
//! HTTP, which only wakes this room; they meet in the database.

mod backend;
mod reconcile;
mod send;
mod sweep;

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
}

impl Worker {
    /// Sends until `stop` turns true, then finishes the calls under way, at most for `drain`, and gives back what was
    /// claimed and not begun.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>, drain: Duration) -> Result<(), StoreError> {
        self.store.give_back_claims_of_the_dead().await?;
        // A restart may have brought better credentials: do not wait for the minute to pass.
        self.store
            .probe_soon(self.provider.name(), self.provider.account(), now())
            .await?;
        let mut beside = tokio::task::JoinSet::new();
        beside.spawn(sweep::run(Arc::clone(&self), stop.clone()));
        beside.spawn(sweep::run_probes(Arc::clone(&self), stop.clone()));
        beside.spawn(reconcile::run(Arc::clone(&self), stop.clone()));
        backend::run(Arc::clone(&self), stop, drain).await;
        beside.shutdown().await;
        let given_back = self.store.give_back_all(&self.owner).await?;
        if given_back > 0 {
            tracing::info!(deliveries = given_back, "gave back claims that had not begun");
        }
        Ok(())
    }
}

/// The present, as the database keeps it. The edge: below here, time is an argument.
fn now() -> Timestamp {
    to_millisecond(Timestamp::now())
}
