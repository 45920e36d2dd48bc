//! The store as the rest of the program has it: a handle that is cloned. What it can do stands beside the SQL of each
//! subject, in files of their own. Absent: opening it (see `open`).

use super::{
    duplicates::Seen,
    engine::{Engine, Kind, Reads},
    error::StoreError,
    jobs::{Answered, Batchers, BeginRules, BegunBatch, Claimed, Order, Received, Recorded, Which},
    sql::{Argument, Sql, args, sql},
    tx::Tx,
    types::ms,
    waits::Waits,
};
use crate::{domain::answer::Receipt, supervise::Fatal};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Instant};
use tokio::sync::watch;

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
        const WRITE: Sql = sql!(
            "insert into setting (name, value, updated_at) values ('last_ready_check', '', $1)
             on conflict (name) do update set updated_at = excluded.updated_at"
        );
        self.execute(WRITE, args![ms(now)]).await.map(drop)
    }

    /// Begins to send up to `most` deliveries that are due, unless the route is held (then one, if a try is due): claimed and
    /// begun in one transaction, durable when this returns. Says what became of each. If nothing is due, and all events come
    /// through this process, waits for one or until `until` ends; at once where `is_idle`, because the batch before was all
    /// there was.
    pub async fn begin_due(
        &self,
        rules: BeginRules,
        (most, is_idle): (usize, bool),
        now: Timestamp,
        until: impl Future<Output = ()>,
    ) -> Result<BegunBatch, StoreError> {
        self.batchers
            .begin(order(rules, Which::Due(most), now), is_idle, until)
            .await
    }

    /// Begins to send a delivery that was claimed. The batch is empty if the claim was lost.
    pub async fn begin_claimed(
        &self,
        rules: BeginRules,
        claim: Claimed,
        now: Timestamp,
    ) -> Result<BegunBatch, StoreError> {
        let order = order(rules, Which::Claimed(claim), now);
        self.batchers.begin(order, false, std::future::ready(())).await
    }

    /// Records what the provider answered. A late answer, after others took the attempt for lost, counts as a status update.
    pub async fn answer(&self, answered: &Arc<Answered>) -> Result<(), StoreError> {
        self.batchers.answer(Arc::clone(answered)).await
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
        self.batchers.receive(received).await
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
