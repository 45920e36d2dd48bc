//! The store as the rest of the program has it: a handle that is cloned. What it can do stands beside the SQL of each
//! subject, in files of their own. Absent: opening it (see `open`).

use super::{
    duplicates::Seen,
    engine::{Engine, Kind, Reads},
    error::StoreError,
    jobs::{Answered, Batchers, BeginRules, BegunBatch, Claimed, Done, Job, Order, Received, Recorded, Which},
    sql::{Argument, Sql, args, sql},
    tx::Tx,
    types::ms,
    waits::Waits,
};
use crate::{
    domain::{
        answer::Receipt,
        lifecycle::{EventType, EventTypes},
    },
    supervise::Fatal,
};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Instant};
use tokio::sync::watch;

/// Writes down that something was done now.
pub const NOTE_TIME: Sql = sql!(
    "insert into setting (name, value, updated_at) values ($1, '', $2)
     on conflict (name) do update set updated_at = excluded.updated_at"
);

/// The open database.
#[derive(Clone)]
pub struct Db {
    pub(super) engine: Engine,
    pub(super) batchers: Batchers,
    pub(super) seen: Arc<Seen>,
    pub(super) waits: Waits,
    pub(super) fatal: Fatal,
}

impl Db {
    /// What waits for this database in this process, also by connections apart.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// Where the tasks of this database say that the process cannot go on.
    pub fn fatal(&self) -> &Fatal {
        &self.fatal
    }

    /// Changes whenever a delivery may be due.
    pub fn wake(&self) -> watch::Receiver<()> {
        self.engine.effects.wake.subscribe()
    }

    /// Says which lifecycle events are written from now on. Those that nobody wants are not kept.
    pub fn listen_for(&self, types: EventTypes) {
        self.engine.effects.listeners.listen_for(types);
    }

    /// Whether anybody wants to hear of such events.
    pub fn wants(&self, kind: EventType) -> bool {
        self.engine.effects.listeners.want(kind)
    }

    /// Changes whenever this process has committed a lifecycle event.
    pub fn told(&self) -> watch::Receiver<()> {
        self.engine.effects.listeners.told()
    }

    /// Which engine it is, for logs.
    pub fn engine(&self) -> &'static str {
        match &self.engine.kind {
            Kind::Sqlite { .. } => "sqlite",
            Kind::Postgres(_) => "postgresql",
        }
    }

    /// Begins a write transaction.
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        self.engine.begin().await
    }

    /// Runs one statement in a transaction of its own; returns how many rows it changed.
    pub(super) async fn execute(
        &self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let changed = tx.execute(sql, arguments).await?;
        tx.commit().await?;
        Ok(changed)
    }

    /// Asks beside all transactions.
    pub(super) fn reads(&self) -> Reads<'_> {
        Reads(&self.engine)
    }

    /// Whether the database can be written now. Writes one row of its own.
    pub async fn check_writable(&self, now: Timestamp) -> Result<(), StoreError> {
        self.execute(NOTE_TIME, args!["last_ready_check", ms(now)])
            .await
            .map(drop)
    }

    /// Begins to send up to `most` deliveries that are due, unless the route is held (then one, if a try is due): claimed and
    /// begun in one transaction, durable when this returns. Says what became of each. If nothing is due, and all events come
    /// through this process, waits for one or until `until` ends; at once where `is_idle`, because the batch before was all
    /// there was. The answer must be awaited: what was begun has to be called.
    pub async fn begin_due(
        &self,
        rules: BeginRules,
        (most, is_idle): (usize, bool),
        now: Timestamp,
        until: impl Future<Output = ()>,
    ) -> Result<BegunBatch, StoreError> {
        let order = order(rules, Which::Due(most), now);
        if !is_idle || self.batchers.standing.is_none() {
            let batch = self.begin_order(order.clone()).await?;
            if !batch.begun.is_empty() {
                return Ok(batch);
            }
        }
        match &self.batchers.standing {
            Some(standing) => Ok(standing.leave(order, until).await),
            None => Ok(BegunBatch::empty()),
        }
    }

    /// Begins to send a delivery that was claimed. The batch is empty if the claim was lost.
    pub async fn begin_claimed(
        &self,
        rules: BeginRules,
        claim: Claimed,
        now: Timestamp,
    ) -> Result<BegunBatch, StoreError> {
        self.begin_order(order(rules, Which::Claimed(claim), now)).await
    }

    async fn begin_order(&self, order: Order) -> Result<BegunBatch, StoreError> {
        match self.batchers.begin.submit_waiting(Arc::new(Job::Begin(order))).await? {
            Done::Begun(batch) => Ok(batch),
            _ => Err(StoreError::Broken),
        }
    }

    /// Records what the provider answered. A late answer, after others took the attempt for lost, counts as a status update.
    pub async fn answer(&self, answered: &Arc<Answered>) -> Result<(), StoreError> {
        let job = Arc::new(Job::Answer(Arc::clone(answered)));
        self.batchers.answer.submit_waiting(job).await.map(drop)
    }

    /// Keeps a receipt and lets it speak for its delivery. Durable when this returns. A message still on its way is asked
    /// about after `poll_after` without a new status.
    pub async fn receive(
        &self,
        receipt: Receipt,
        poll_after: SignedDuration,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        let received = Received {
            receipt,
            poll_after,
            now,
        };
        match self.batchers.receive.submit(Job::Receive(received)).await? {
            Done::Received(recorded) => Ok(recorded),
            _ => Err(StoreError::Broken),
        }
    }

    /// Closes every connection; SQLite folds its write-ahead log into the file.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

fn order(rules: BeginRules, which: Which, now: Timestamp) -> Order {
    Order {
        rules: Arc::new(rules),
        which,
        now,
        asked_at: Instant::now(),
    }
}
