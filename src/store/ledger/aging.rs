//! What time alone decides: calls that never came back become `unknown`, what is too old expires, what waited for a slot of
//! the daily limit goes on when there is one; and receipts that crossed the answer they belong to are applied.

use super::{
    attempt::{self, WorkingSet},
    delivery::{self, Delivery, Landing, StatusUpdate},
    waiting,
};
use crate::{
    domain::{
        day::{LocalDay, after},
        delivery::{Change, Reason, State},
        id::{AttemptNo, DeliveryId},
        route::{Channel, ProviderName},
    },
    store::{
        Db,
        error::StoreError,
        limits,
        query::Query,
        sql::{Sql, args, sql},
        tx::Tx,
        types::{at, ms},
    },
};
use jiff::{SignedDuration, Timestamp};

/// How many deliveries one sweep transaction moves at most, so that it never holds up the writer for long.
const SWEEP_BATCH: i64 = 50;
/// Two commits that cross each other are seconds apart at most; older receipts speak of messages that are none of ours.
const LATE_RECEIPTS: SignedDuration = SignedDuration::from_mins(10);
/// More than these are released by the sweep, a second later, so that no transaction holds up the writer.
const RELEASE_BATCH: i64 = 500;

impl Db {
    /// Moves on what time alone decides. Returns how many deliveries moved.
    pub async fn sweep(&self, expire_after: SignedDuration, now: Timestamp) -> Result<usize, StoreError> {
        const LOST: Sql = sql!(
            "select id from delivery where lease_until <= $1 and state = 'sending' and provider in (",
            ProviderName::KNOWN,
            ") order by lease_until limit $2"
        );
        const OLD: Sql = sql!(
            "select id from delivery where case when state in (",
            State::OWED,
            ") then received_at end < $1 and (lease_until is null or lease_until <= $2) and channel in (",
            Channel::KNOWN,
            ") order by case when state in (",
            State::OWED,
            ") then received_at end, id limit $3"
        );
        let cutoff = after(now, -expire_after);
        let mut ids: Vec<DeliveryId> = self.reads().scalars(LOST, args![ms(now), SWEEP_BATCH]).await?;
        let old = args![ms(cutoff), ms(now), SWEEP_BATCH];
        ids.extend(self.reads().scalars::<DeliveryId>(OLD, old).await?);
        if ids.is_empty() {
            return Ok(0);
        }
        let mut tx = self.begin().await?;
        let mut deliveries = delivery::lock(&mut tx, &ids).await?;
        let mut moved = 0;
        for delivery in &mut deliveries {
            moved += usize::from(age(delivery, cutoff, now).is_some());
        }
        delivery::save(&mut tx, &mut deliveries).await?;
        tx.commit().await?;
        Ok(moved)
    }

    /// Applies receipts whose message became known in the very moment they came, so that neither side saw the other.
    pub async fn apply_late_receipts(&self, poll_after: SignedDuration, now: Timestamp) -> Result<(), StoreError> {
        const RECEIPTS: Sql = sql!(
            "select t.delivery_id, t.number, t.provider, r.message_id from receipt r cross join attempt t
             where case when r.applied_at is null then r.received_at end > $1
                and t.provider = r.provider and t.message_id = r.message_id limit $2"
        );
        let arguments = args![ms(after(now, -LATE_RECEIPTS)), SWEEP_BATCH];
        let late: Vec<(DeliveryId, AttemptNo, String, String)> = self.reads().all(RECEIPTS, arguments).await?;
        for (id, number, provider, message_id) in late {
            let mut tx = self.begin().await?;
            let Some(late) = attempt::locate(&mut tx, (&id, number), (&provider, &message_id)).await? else {
                continue;
            };
            let mut set = WorkingSet::default();
            let place = set.add(late.delivery, late.attempt);
            let update = StatusUpdate {
                attempt: number,
                message_id: &message_id,
                word: "",
                status: None,
                error_code: None,
                at: now,
                poll_after,
            };
            let known = waiting::Known::new(place, set.get(place).0, &update);
            waiting::apply(&mut tx, &mut set, &[known]).await?;
            set.save(&mut tx).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Sets the limit that wins over the configured one (`None` takes it away) and releases what now has a slot. Returns how
    /// many deliveries were released.
    pub async fn set_limit(
        &self,
        limit: Option<i64>,
        day: LocalDay,
        configured: i64,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let mut tx = self.begin().await?;
        limits::set_limit(&mut tx, limit, now).await?;
        let released = release(&mut tx, day, configured, now).await?;
        tx.commit().await?;
        Ok(released)
    }

    /// Releases deferred deliveries for which today has slots, oldest first. Returns how many.
    pub async fn release_deferred(&self, day: LocalDay, configured: i64, now: Timestamp) -> Result<usize, StoreError> {
        let status = self.limit_status(day, configured).await?;
        if status.deferred == 0 || status.used >= status.limit {
            return Ok(0);
        }
        let mut tx = self.begin().await?;
        let released = release(&mut tx, day, configured, now).await?;
        tx.commit().await?;
        Ok(released)
    }
}

/// Moves a delivery whose time is up. It was chosen before the transaction; meanwhile it may have moved.
fn age(delivery: &mut Delivery, cutoff: Timestamp, now: Timestamp) -> Option<State> {
    let is_leased = delivery.lease_until.is_some_and(|until| until > ms(now));
    if is_leased {
        return None;
    }
    if delivery.state == State::Sending {
        let landing = Landing {
            due_at: Some(now),
            detail: format!(
                "attempt {}: no answer was recorded in time; the provider may have it",
                delivery.attempts
            ),
            ..Default::default()
        };
        return delivery.apply(Change::Lose, landing, now);
    }
    if !delivery.state.is_owed() || delivery.received_at >= ms(cutoff) {
        return None;
    }
    let landing = Landing {
        reason: Some(Reason::Expired),
        detail: "it waited too long to be of use".into(),
        ..Default::default()
    };
    delivery.apply(Change::Expire, landing, now)
}

/// Of those that wait for today's free slots, lets the deferred ones go on: exactly as many as will find a slot. Returns how
/// many.
pub async fn release(tx: &mut Tx, day: LocalDay, configured: i64, now: Timestamp) -> Result<usize, StoreError> {
    const WAITING: Sql = sql!(
        "select id, state from delivery
         where case when state in (",
        State::OWED,
        ") then received_at end > 0 and channel in (",
        Channel::KNOWN,
        ") and (state = 'deferred' or due_at <= $2) and held_source is null
         order by case when state in (",
        State::OWED,
        ") then received_at end, id limit $1"
    );
    const DEFERRED: Sql = sql!("select id from delivery where state = 'deferred' and held_source is null limit 1");
    if !tx.exists(DEFERRED, []).await? {
        return Ok(0);
    }
    let limit = limits::limit(tx, configured).await?;
    let free = (limit - limits::lock_day(tx, day).await?).min(RELEASE_BATCH);
    if free <= 0 {
        return Ok(0);
    }
    let waiting: Vec<(DeliveryId, State)> = tx.all(WAITING, args![free, ms(now)]).await?;
    let deferred = waiting.into_iter().filter(|(_, state)| *state == State::Deferred);
    let deferred: Vec<DeliveryId> = deferred.map(|(id, _)| id).collect();
    let mut deliveries = delivery::lock(tx, &deferred).await?;
    let mut released = 0;
    for delivery in &mut deliveries {
        // Due since it arrived, so that it goes before newer ones.
        let landing = Landing {
            due_at: Some(at(delivery.received_at).min(now)),
            detail: "a slot of the daily limit is free".into(),
            ..Default::default()
        };
        released += usize::from(delivery.apply(Change::Release, landing, now).is_some());
    }
    delivery::save(tx, &mut deliveries).await?;
    Ok(released)
}
