//! The daily limit: a row for each local day, slots taken and given back inside the transactions of `sending`, and
//! the release of deliveries that waited for one. Absent: which day it is (the caller says).

use super::{Db, StoreError, Tx, at, ms, pace, read, transitions, tx::Rows, within};
use crate::domain::route::Channel;
use crate::domain::{
    day::LocalDay,
    delivery::{Change, State},
};
use const_format::concatcp;
use jiff::Timestamp;

/// The limit as admins see it.
#[derive(Debug)]
pub struct LimitStatus {
    pub limit: i64,
    pub used: i64,
    pub deferred: i64,
}

impl Db {
    /// Today's limit (`configured` unless an admin set another), how much of it is used, how many deliveries wait.
    pub async fn limit_status(&self, day: LocalDay, configured: i64) -> Result<LimitStatus, StoreError> {
        let (value, used, deferred): (Option<String>, Option<i64>, i64) = read!(self, |pool| {
            sqlx::query_as(
                "select (select value from setting where name = 'daily_limit'), (select used from daily_count
                where day = $1),
                    (select count(*) from delivery where state = 'deferred')",
            )
            .bind(day.to_string())
            .fetch_one(pool)
            .await
        })?;
        Ok(LimitStatus {
            limit: effective(value, configured),
            used: used.unwrap_or(0),
            deferred,
        })
    }

    /// Sets the limit that wins over the configured one (`None` takes it away) and releases what now has a slot.
    /// Returns how many deliveries were released.
    pub async fn set_limit(
        &self,
        limit: Option<i64>,
        day: LocalDay,
        configured: i64,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let mut tx = self.begin().await?;
        match limit {
            Some(limit) => within!(tx, |conn| {
                sqlx::query(
                    "insert into setting (name, value, updated_at) values ('daily_limit', $1, $2)
                 on conflict (name) do update set value = excluded.value, updated_at = excluded.updated_at",
                )
                .bind(limit.to_string())
                .bind(ms(now))
                .execute(conn)
                .await
                .map(drop)
            })?,
            None => within!(tx, |conn| sqlx::query("delete from setting where name = 'daily_limit'")
                .execute(conn)
                .await
                .map(drop))?,
        }
        let released = release(&mut tx, day, configured, now).await?;
        if released > 0 {
            pace::ring(&mut tx).await?;
        }
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
        if released > 0 {
            pace::ring(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(released)
    }
}

/// The limit in force: what an admin set wins.
pub(super) fn effective(setting: Option<String>, configured: i64) -> i64 {
    setting.and_then(|value| value.parse().ok()).unwrap_or(configured)
}

/// Opens the day's row if need be and keeps it locked: from here on, nobody else takes a slot. Returns slots used.
pub(super) async fn lock_day(tx: &mut Tx, day: LocalDay) -> Result<i64, StoreError> {
    Ok(within!(tx, |conn| {
        sqlx::query_scalar(
            "insert into daily_count (day, used) values ($1, 0)
            on conflict (day) do update set used = daily_count.used returning used",
        )
        .bind(day.to_string())
        .fetch_one(conn)
        .await
    })?)
}

/// The limit in force.
pub(super) async fn limit(tx: &mut Tx, configured: i64) -> Result<i64, StoreError> {
    let value: Option<String> = within!(tx, |conn| sqlx::query_scalar(
        "select value from setting where name = 'daily_limit'"
    )
    .fetch_optional(conn)
    .await)?;
    Ok(effective(value, configured))
}

/// Takes a slot of a day for each of these deliveries that is there.
pub(super) fn take_slots(tx: &mut Tx, day: LocalDay, deliveries: Rows) {
    tx.queue(
        "insert into daily_count (day, used)
         select cast($2 as text), count(*) from rows($1) as r cross join delivery d where d.id = r.value ->> 0
         on conflict (day) do update set used = daily_count.used + excluded.used",
        [deliveries.into(), day.to_string().as_str().into()],
    );
}

/// Gives an attempt's slot back to the day it came from; a second time does nothing.
pub(super) async fn return_slot(
    tx: &mut Tx,
    delivery_id: &str,
    attempt: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let day: Option<String> = within!(tx, |conn| {
        sqlx::query_scalar(
            "update attempt set slot_returned_at = $3
            where delivery_id = $1 and number = $2 and slot_returned_at is null returning limit_day",
        )
        .bind(delivery_id)
        .bind(attempt)
        .bind(ms(now))
        .fetch_optional(conn)
        .await
    })?;
    if let Some(day) = day {
        within!(tx, |conn| sqlx::query(
            "update daily_count set used = used - 1 where day = $1 and used > 0"
        )
        .bind(day)
        .execute(conn)
        .await
        .map(drop))?;
    }
    Ok(())
}

/// An attempt whose slot was given back was sent after all: it takes its slot again, even beyond the limit.
pub(super) async fn retake_slot(tx: &mut Tx, delivery_id: &str, attempt: i64) -> Result<(), StoreError> {
    let day: Option<String> = within!(tx, |conn| {
        sqlx::query_scalar(
            "update attempt set slot_returned_at = null
            where delivery_id = $1 and number = $2 and slot_returned_at is not null returning limit_day",
        )
        .bind(delivery_id)
        .bind(attempt)
        .fetch_optional(conn)
        .await
    })?;
    if let Some(day) = day {
        within!(tx, |conn| sqlx::query(
            "update daily_count set used = used + 1 where day = $1"
        )
        .bind(day)
        .execute(conn)
        .await
        .map(drop))?;
    }
    Ok(())
}

/// How many deliveries are before this one in the line for a slot; counts no further than `most`. Not those that brought a
/// hold upon the others: they go last.
pub(super) async fn count_ahead(
    tx: &mut Tx,
    id: &str,
    received_at: i64,
    most: i64,
    now: Timestamp,
) -> Result<i64, StoreError> {
    Ok(within!(tx, |conn| {
        sqlx::query_scalar(concatcp!(
            "select count(*) from (
             select 1 from delivery
             where case when state in (",
            State::OWED,
            ") then received_at end <= $1
                and (case when state in (",
            State::OWED,
            ") then received_at end < $1 or id < $2)
                and channel in (",
            Channel::KNOWN,
            ") and (state = 'deferred' or due_at <= $4)
                and holds = 0
             limit $3) as ahead"
        ))
        .bind(received_at)
        .bind(id)
        .bind(most)
        .bind(ms(now))
        .fetch_one(conn)
        .await
    })?)
}

/// More than these are released by the sweep, a second later, so that no transaction holds up the writer.
const MOST_AT_ONCE: i64 = 500;

/// Of those in line for today's free slots, lets the deferred ones go on: exactly as many as will find a slot.
pub(super) async fn release(tx: &mut Tx, day: LocalDay, configured: i64, now: Timestamp) -> Result<usize, StoreError> {
    let waits: Option<String> = within!(tx, |conn| sqlx::query_scalar(
        "select id from delivery where state = 'deferred' limit 1"
    )
    .fetch_optional(conn)
    .await)?;
    if waits.is_none() {
        return Ok(0);
    }
    let limit = limit(tx, configured).await?;
    let free = (limit - lock_day(tx, day).await?).min(MOST_AT_ONCE);
    if free <= 0 {
        return Ok(0);
    }
    let mut deferred: Vec<(String, String, i64)> = within!(tx, |conn| {
        sqlx::query_as(concatcp!(
            "select id, state, received_at from delivery
         where case when state in (",
            State::OWED,
            ") then received_at end > 0
            and channel in (",
            Channel::KNOWN,
            ") and (state = 'deferred' or due_at <= $2)
         order by case when state in (",
            State::OWED,
            ") then received_at end, id limit $1"
        ))
        .bind(free)
        .bind(ms(now))
        .fetch_all(conn)
        .await
    })?;
    deferred.retain(|(_, state, _)| state == State::Deferred.as_str());
    // Locked in the order in which everybody locks.
    deferred.sort();
    let mut released = 0;
    for (id, _, received_at) in deferred {
        let Some(mut row) = transitions::lock(tx, &id).await? else {
            continue;
        };
        // Due since it arrived, so that it goes before newer ones.
        let landing = transitions::Landing {
            due_at: Some(at(received_at).min(now)),
            detail: "a slot of the daily limit is free".into(),
            ..Default::default()
        };
        if transitions::change(tx, &mut row, Change::Release, landing, now)
            .await?
            .is_some()
        {
            released += 1;
        }
    }
    Ok(released)
}
