//! Posts lifecycle events to an endpoint: one job for each that is configured, in one process at a time. What an endpoint does
//! not take waits, with what follows of the same alert, and holds up nothing else: no other alert, and no other endpoint.
//! Every event is posted at least once, always with the same id, and those of one alert in order. Absent: how one is posted
//! (see `notify`), and what is written down (see `store::webhooks`).

mod gaps;
mod outcome;
mod round;

use super::{context::now, workers::TimedJob};
use crate::{
    domain::day::after,
    notify::Endpoint,
    store::{Db, StoreError, new_id},
};
use jiff::SignedDuration;
use round::Round;
use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, Notify, watch};

/// How often it is looked whether there is something to post, which another process may have written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// From the beginning of a round to the next one that a new event brings about: what happens meanwhile goes together.
const PAUSE: Duration = Duration::from_millis(50);
/// Beyond what one post may take, how long a turn belongs to a process that does not come back.
const LEASE: SignedDuration = SignedDuration::from_secs(8);
/// Beyond what one post may take, how long a round that is under way at a stop may take to end; and no longer in all.
const DRAIN: Duration = Duration::from_secs(4);
const LONGEST_DRAIN: Duration = Duration::from_secs(15);
/// No endpoint is left alone for longer, even by a process whose clock is ahead as far as that is tolerated.
const LATEST: SignedDuration = SignedDuration::from_mins(62);

/// Posts to one endpoint.
struct Pump {
    endpoint: Arc<Endpoint>,
    store: Db,
    /// Changes when this process has written an event.
    told: Mutex<watch::Receiver<()>>,
    /// There is more than the last round has taken.
    more: Notify,
    begun: std::sync::Mutex<Option<Instant>>,
}

/// The job of an endpoint.
pub fn job(endpoint: &Arc<Endpoint>, store: &Db) -> TimedJob {
    let timeout = endpoint.settings.timeout;
    // A handful for the whole life of the process.
    let name = format!("post events to `{}`", endpoint.settings.name).leak();
    let pump = Arc::new(Pump {
        endpoint: Arc::clone(endpoint),
        store: store.clone(),
        told: Mutex::new(store.told()),
        more: Notify::new(),
        begun: std::sync::Mutex::default(),
    });
    TimedJob::new(name, LOOK_EVERY, &pump, |pump| async move { pump.round().await })
        .woken_by(&pump, |pump| async move { pump.woken().await })
        .drained_for((timeout + DRAIN).min(LONGEST_DRAIN))
}

impl Pump {
    /// Ends when there may be something to post.
    async fn woken(&self) {
        let told = async {
            let mut told = self.told.lock().await;
            // Its sender lives as long as the database is open; if it is gone, there is nothing to hear.
            if told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(begun) = begun {
                tokio::time::sleep(PAUSE.saturating_sub(begun.elapsed())).await;
            }
        };
        tokio::select! {
            () = told => {}
            () = self.more.notified() => {}
        }
    }

    /// Posts what is there, if no other process is at it.
    async fn round(&self) -> Result<(), StoreError> {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.store.place_events().await?;
        let settings = &self.endpoint.settings;
        let begun = (now(), Instant::now());
        let lease = LEASE + SignedDuration::try_from(settings.timeout).unwrap_or_default();
        let until = (after(begun.0, lease), after(begun.0, LATEST));
        let token = new_id();
        let Some(turn) = self.store.take_endpoint(&settings.name, &token, begun.0, until).await? else {
            return Ok(());
        };
        let Some(round) = Round::read(&self.store, &self.endpoint, &turn, begun.0).await? else {
            return self.store.leave_endpoint(turn).await;
        };
        let posted = round.post(&self.endpoint, begun.1, now).await;
        let now = now();
        let done = posted.outcome(&turn, now, &mut || rand::random::<f64>());
        done.log(&turn);
        let has_more = done.has_more;
        if !self.store.end_round(turn, &done.round, now).await? {
            tracing::info!(endpoint = %settings.name, "another process or an admin has taken over; what was posted is posted again");
        }
        if has_more {
            self.more.notify_one();
        }
        Ok(())
    }
}
