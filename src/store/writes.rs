//! How the jobs of a batch are done: all in one transaction, kind after kind, each kind at once. Absent: what shares a batch
//! (see `batcher`), and the kinds themselves (see `ledger`, `alerts`).

use super::{
    acknowledge, alerts,
    batcher::Batcher,
    duplicates,
    engine::Engine,
    error::StoreError,
    inbound,
    incoming::{Incoming, Taken},
    jobs::{
        Answered, Batchers, Begun, BegunBatch, Done, Job, Order, Raise, Raised, Received, Recorded, StandingOrder,
        StandingOrders,
    },
    ledger::{self, Birth},
    tx::Tx,
};
use crate::{
    domain::{delivery::State, id::AlertId},
    supervise::Fatal,
};
use std::{collections::HashSet, sync::Arc, time::Instant};

/// Starts the batchers of a database; they end with the last way to them.
pub fn start(engine: &Engine, fatal: &Fatal) -> Batchers {
    let standing = engine.is_sqlite().then(StandingOrders::default);
    let writer = || {
        let (engine, standing) = (engine.clone(), standing.clone());
        Batcher::start("write to the database", engine.batch_time(), fatal, move |jobs| {
            write(engine.clone(), standing.clone(), jobs)
        })
    };
    let (reading, time) = (engine.clone(), engine.batch_time());
    let find_duplicates = Batcher::start("look up tickets", time, fatal, move |queries| {
        let engine = reading.clone();
        async move { duplicates::find(&engine, &queries).await }
    });
    let raise = writer();
    // Where there is one writer anyway, what comes together shares its transaction, whatever it is.
    let another = || if engine.is_sqlite() { raise.clone() } else { writer() };
    Batchers {
        begin: another(),
        answer: another(),
        receive: another(),
        inbound: another(),
        raise,
        find_duplicates,
        standing,
    }
}

/// Does jobs in one transaction.
async fn write(engine: Engine, standing: Option<StandingOrders>, jobs: Vec<Arc<Job>>) -> Result<Vec<Done>, StoreError> {
    let batch = Batch::of(&jobs);
    let orders = match &standing {
        Some(standing) if !batch.raises.is_empty() => standing.take(),
        Some(_) | None => Vec::new(),
    };
    let has_orders = !orders.is_empty();
    let written = match batch.write(&engine, Standing(orders)).await {
        // An event is not to blame for what could not be begun with it.
        Err(error) if has_orders && !error.is_outage() => {
            tracing::debug!(%error, "what came cannot be begun in the same transaction");
            Batch::of(&jobs).write(&engine, Standing(Vec::new())).await?
        }
        written => written?,
    };
    Ok(written.in_order_of(&jobs))
}

/// Orders that are carried out in this batch, if it is written; else with nothing.
struct Standing(Vec<StandingOrder>);

impl Drop for Standing {
    fn drop(&mut self) {
        for standing in self.0.drain(..) {
            standing.carry_out(BegunBatch::empty());
        }
    }
}

/// The jobs of a batch by their kinds.
#[derive(Default)]
struct Batch<'a> {
    raises: Vec<Arc<Raise>>,
    revisits: Vec<&'a Raise>,
    orders: Vec<&'a Order>,
    answers: Vec<Arc<Answered>>,
    receipts: Vec<&'a Received>,
    incoming: Vec<&'a Arc<Incoming>>,
}

/// What came of them.
struct Written {
    raised: Vec<bool>,
    revisited: Vec<Raised>,
    begun: Vec<BegunBatch>,
    recorded: Vec<Recorded>,
    taken: Vec<Taken>,
}

impl<'a> Batch<'a> {
    fn of(jobs: &'a [Arc<Job>]) -> Self {
        let mut batch = Self::default();
        for job in jobs {
            match job.as_ref() {
                Job::Raise(raise) => batch.raises.push(Arc::clone(raise)),
                Job::Revisit(raise) => batch.revisits.push(raise),
                Job::Begin(order) => batch.orders.push(order),
                Job::Answer(answered) => batch.answers.push(Arc::clone(answered)),
                Job::Receive(received) => batch.receipts.push(received),
                Job::Inbound(incoming) => batch.incoming.push(incoming),
            }
        }
        batch
    }

    /// All of it or nothing. Sends begin last: slots that came back are free, and new deliveries are there.
    async fn write(self, engine: &Engine, mut standing: Standing) -> Result<Written, StoreError> {
        // Taken before the transaction, so that a process which is frozen in it knows how late its calls are.
        let began_at = Instant::now();
        let mut tx = engine.begin().await?;
        let recorded = ledger::receive(&mut tx, &self.receipts).await?;
        ledger::answer(&mut tx, &self.answers).await?;
        let taken = inbound::receive(&mut tx, &self.incoming).await?;
        let mut revisited = Vec::with_capacity(self.revisits.len());
        for raise in &self.revisits {
            revisited.push(alerts::revisit(&mut tx, raise).await?);
        }
        let orders: Vec<Order> = self
            .orders
            .iter()
            .copied()
            .cloned()
            .chain(standing.0.iter().map(|standing| standing.order.clone()))
            .collect();
        let (new, is_all) = self.raise(&mut tx, &orders, began_at).await?;
        let newest = self.raises.iter().map(|raise| raise.at).max();
        let mut begun: Vec<Vec<Begun>> = Vec::with_capacity(orders.len());
        for (order, new) in orders.iter().zip(&new) {
            begun.push(match new {
                Some(_) => Vec::new(),
                None => ledger::begin(&mut tx, order, newest, began_at).await?,
            });
        }
        let present: Vec<(AlertId,)> = match self.raises.is_empty() {
            true => tx.commit().await.map(|()| Vec::new())?,
            false => tx.commit_asking(alerts::PRESENT, alerts::id_rows(&self.raises)).await?,
        };
        let present: HashSet<AlertId> = present.into_iter().map(|(id,)| id).collect();
        let mut batches: Vec<BegunBatch> = begun
            .into_iter()
            .map(|begun| BegunBatch {
                began_at,
                begun,
                is_all: false,
            })
            .collect();
        for (batch, new) in batches.iter_mut().zip(new) {
            let there = new
                .into_iter()
                .flatten()
                .filter(|(alert_id, _)| present.contains(alert_id));
            batch.begun.extend(there.map(|(_, begun)| begun));
            batch.is_all = is_all;
        }
        let left = batches.split_off(self.orders.len());
        for (standing, batch) in standing.0.drain(..).zip(left) {
            standing.carry_out(batch);
        }
        Ok(Written {
            raised: self
                .raises
                .iter()
                .map(|raise| present.contains(&raise.alert_id))
                .collect(),
            revisited,
            begun: batches,
            recorded,
            taken,
        })
    }

    /// Raises alerts. Of each order says what it begins in the same transaction, if it does: that counts for those that are new;
    /// and whether nothing else is due. Only orders that stand are asked about: where one was given just now, others are due.
    async fn raise(
        &self,
        tx: &mut Tx,
        orders: &[Order],
        began_at: Instant,
    ) -> Result<(Vec<Option<Vec<(AlertId, Begun)>>>, bool), StoreError> {
        let mut begun: Vec<Option<Vec<(AlertId, Begun)>>> = orders.iter().map(|_| None).collect();
        let Some(newest) = self.raises.iter().map(|raise| raise.at).max() else {
            return Ok((begun, false));
        };
        let mut births: Vec<Birth> = Vec::new();
        for raise in &self.raises {
            let deliveries = raise.deliveries.iter().cloned();
            births.extend(deliveries.map(|(id, new)| Birth::new(id, Some(&raise.alert_id), new, raise.at)));
        }
        alerts::insert(tx, &self.raises);
        // Before any of them is begun: the text may change by it.
        acknowledge::claim_codes(tx, &mut births, newest).await?;
        let mut attempts = Vec::new();
        if !tx.has_neighbours() {
            for (order, begun) in orders.iter().zip(&mut begun).skip(self.orders.len()) {
                // What its source may hold goes the long way.
                let limits = &order.rules.source_limits;
                if self.raises.iter().any(|raise| limits.contains_key(&raise.event.source)) {
                    continue;
                }
                if let Some((now, sends)) = ledger::begin_new(tx, order, &mut births, Some(newest), began_at).await? {
                    *begun = Some(sends.into_iter().map(|(id, send)| (id, Begun::Send(send))).collect());
                    attempts.push((order, now));
                }
            }
        }
        let is_all = births.iter().all(|birth| birth.delivery.state != State::Pending);
        ledger::create(tx, &mut births, newest).await?;
        // Whoever has deliveries is looked at as they are created.
        let without_anybody = self.raises.iter().filter(|raise| raise.deliveries.is_empty());
        let without_anybody = without_anybody.map(|raise| (raise.alert_id.clone(), raise.at));
        ledger::check_told(tx, without_anybody.collect()).await?;
        for (order, now) in attempts {
            let channel = order.rules.route.channel;
            let begun = births
                .iter()
                .filter(|birth| birth.about.channel == channel && birth.delivery.state == State::Sending);
            ledger::create_attempts(tx, begun.map(|birth| &birth.delivery), &order.rules, now);
        }
        Ok((begun, is_all))
    }
}

impl Written {
    /// What came of each job.
    fn in_order_of(self, jobs: &[Arc<Job>]) -> Vec<Done> {
        let mut raised = self.raised.into_iter();
        let mut revisited = self.revisited.into_iter();
        let mut begun = self.begun.into_iter();
        let mut recorded = self.recorded.into_iter();
        let mut taken = self.taken.into_iter();
        jobs.iter()
            .filter_map(|job| match job.as_ref() {
                Job::Raise(_) => raised.next().map(Done::Raised),
                Job::Revisit(_) => revisited.next().map(Done::Revisited),
                Job::Begin(_) => begun.next().map(Done::Begun),
                Job::Answer(_) => Some(Done::Answered),
                Job::Receive(_) => recorded.next().map(Done::Received),
                Job::Inbound(_) => taken.next().map(Done::Inbound),
            })
            .collect()
    }
}
