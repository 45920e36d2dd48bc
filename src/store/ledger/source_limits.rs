//! Daily limits of sources, beside the one of all. Attempts of such a source bear its name and count for it; what it holds
//! bears the name too, and waits apart, so that it takes no place before what other sources owe. Absent: the limit of all
//! (see `store::limits`).

use super::delivery::{self, Delivery, Landing};
use crate::{
    domain::{
        day::LocalDay,
        delivery::Change,
        id::{AttemptNo, DeliveryId},
        source::SourceLimits,
    },
    store::{
        Db,
        error::StoreError,
        limits,
        query::Query,
        sql::{Rows, Sql, args, row, sql},
        tx::Tx,
        types::at,
    },
};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// More than these are released a second later, so that no transaction holds up the writer.
const RELEASE_BATCH: i64 = 500;

/// Slots of a day that a source has used: given back, one counts no more.
const USED: Sql =
    sql!("select count(*) from attempt where limited_source = $1 and limit_day = $2 and slot_returned_at is null");

/// What the sources with a limit have left, while a batch is begun.
pub struct SourceSlots<'a> {
    limits: &'a SourceLimits,
    day: String,
    free: BTreeMap<String, i64>,
    begun: Rows,
    held: Rows,
}

row! {
    BegunRow<'a> { id: &'a DeliveryId as text, number: AttemptNo as number, source: &'a str as text }
}

row! {
    HeldRow<'a> { id: &'a DeliveryId as text, source: &'a str as text }
}

impl<'a> SourceSlots<'a> {
    pub fn new(limits: &'a SourceLimits, day: LocalDay) -> Self {
        Self {
            limits,
            day: day.to_string(),
            free: BTreeMap::new(),
            begun: Rows::default(),
            held: Rows::default(),
        }
    }

    /// The limit of this delivery's source, if that is reached: others of the source that are older wait too.
    pub async fn reached(
        &mut self,
        tx: &mut Tx,
        source: Option<&str>,
        delivery: &Delivery,
    ) -> Result<Option<i64>, StoreError> {
        let Some((source, limit)) = source.and_then(|source| Some((source, *self.limits.get(source)?))) else {
            return Ok(None);
        };
        if !self.free.contains_key(source) {
            let used: i64 = tx.scalar(USED, args![source, &self.day]).await?;
            self.free.insert(source.to_owned(), limit - used);
        }
        let free = self.free.get(source).copied().unwrap_or(0).max(0);
        let ahead = if free > 0 {
            count_held_before(tx, source, delivery, free).await?
        } else {
            0
        };
        Ok((ahead >= free).then_some(limit))
    }

    /// Takes a slot of the source for a delivery that has begun.
    pub fn take(&mut self, source: Option<&str>, delivery: &Delivery) {
        let Some((source, free)) = source.and_then(|source| Some((source, self.free.get_mut(source)?))) else {
            return;
        };
        *free -= 1;
        self.begun.push(&BegunRow {
            id: &delivery.id,
            number: delivery.attempts,
            source,
        });
    }

    /// Notes that the source holds a delivery.
    pub fn hold(&mut self, source: &str, delivery: &Delivery) {
        self.held.push(&HeldRow {
            id: &delivery.id,
            source,
        });
    }

    /// Writes down what was taken and what is held, once the attempts are there.
    pub fn save(self, tx: &mut Tx) {
        const BEGUN: Sql = sql!(
            "update attempt set limited_source = r.source from ",
            BegunRow::ROWS,
            " where attempt.delivery_id = r.id and attempt.number = r.number"
        );
        const HELD: Sql = sql!(
            "update delivery set held_source = r.source from ",
            HeldRow::ROWS,
            " where delivery.id = r.id"
        );
        tx.queue(BEGUN, self.begun);
        tx.queue(HELD, self.held);
    }
}

async fn count_held_before(tx: &mut Tx, source: &str, delivery: &Delivery, most: i64) -> Result<i64, StoreError> {
    const BEFORE: Sql = sql!(
        "select count(*) from (select 1 from delivery where held_source = $1 and received_at <= $2
            and (received_at < $2 or id < $3) limit $4) as ahead"
    );
    tx.scalar(BEFORE, args![source, delivery.received_at, &delivery.id, most])
        .await
}

impl Db {
    /// How much of its daily limit a source has used.
    pub async fn source_used(&self, source: &str, day: LocalDay) -> Result<i64, StoreError> {
        self.reads().scalar(USED, args![source, day.to_string()]).await
    }

    /// Releases what sources hold and today has slots for, oldest first; all of it where a source has no limit any more.
    /// Returns how many.
    pub async fn release_held(
        &self,
        source_limits: &SourceLimits,
        day: LocalDay,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        const HOLDING: Sql = sql!("select distinct held_source from delivery where held_source is not null");
        let sources: Vec<String> = self.reads().scalars(HOLDING, []).await?;
        let mut released = 0;
        for source in sources {
            let used = self.source_used(&source, day).await?;
            let free = source_limits.get(&source).map_or(RELEASE_BATCH, |limit| limit - used);
            if free > 0 {
                released += self.release_of(&source, source_limits, day, now).await?;
            }
        }
        Ok(released)
    }

    async fn release_of(
        &self,
        source: &str,
        source_limits: &SourceLimits,
        day: LocalDay,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        const OLDEST: Sql = sql!("select id from delivery where held_source = $1 order by received_at, id limit $2");
        const WAITING: Sql = sql!(
            "select count(*) from delivery d join alert a on a.id = d.alert_id where d.state = 'pending' and a.source = $1"
        );
        const LET_GO: Sql = sql!(
            "update delivery set held_source = null from ",
            HeldRow::ROWS,
            " where delivery.id = r.id"
        );
        let mut tx = self.begin().await?;
        // The day is locked before any delivery, by everybody.
        limits::lock_day(&mut tx, day).await?;
        let free = match source_limits.get(source) {
            None => RELEASE_BATCH,
            // What was released before and is not begun yet will take its slots.
            Some(limit) => {
                let used: i64 = tx.scalar(USED, args![source, day.to_string()]).await?;
                limit - used - tx.scalar::<i64>(WAITING, args![source]).await?
            }
        };
        let ids: Vec<DeliveryId> = tx.scalars(OLDEST, args![source, free.clamp(0, RELEASE_BATCH)]).await?;
        let mut deliveries = delivery::lock(&mut tx, &ids).await?;
        let mut released = 0;
        for delivery in &mut deliveries {
            // What was canceled or has expired meanwhile stays so.
            let landing = Landing {
                due_at: Some(at(delivery.received_at).min(now)),
                detail: "a slot of the source's daily limit is free".into(),
                ..Default::default()
            };
            released += usize::from(delivery.apply(Change::Release, landing, now).is_some());
        }
        tx.queue(LET_GO, ids.iter().map(|id| HeldRow { id, source }).collect());
        delivery::save(&mut tx, &mut deliveries).await?;
        tx.commit().await?;
        Ok(released)
    }
}
