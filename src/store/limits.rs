//! The daily limit: a row for each local day, and the slots of it that attempts take and give back. Absent: which day it is
//! (callers say), and letting go what waited for a slot (see `ledger::aging`).

use super::{
    Db,
    error::StoreError,
    query::Query,
    sql::{Sql, args, row, sql},
    tx::Tx,
    types::ms,
};
use crate::domain::{day::LocalDay, delivery::State, id::DeliveryId, route::Channel};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// The limit as admins see it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct LimitStatus {
    /// How many messages may be handed to the provider in one local day; 0 sends nothing.
    #[schema(examples(200), minimum = 0)]
    pub limit: i64,
    /// How many of the day's slots are taken.
    #[schema(examples(17), minimum = 0)]
    pub used: i64,
    /// How many deliveries wait for a slot.
    #[schema(examples(0), minimum = 0)]
    pub deferred: i64,
}

impl Db {
    /// Today's limit (`configured` unless an admin set another), how much of it is used, how many deliveries wait.
    pub async fn limit_status(&self, day: LocalDay, configured: i64) -> Result<LimitStatus, StoreError> {
        let (value, used, deferred): (Option<String>, Option<i64>, i64) = self
            .reads()
            .one(
                sql!(
                    "select (select value from setting where name = 'daily_limit'),
                    (select used from daily_count where day = $1),
                    (select count(*) from delivery where state = 'deferred')"
                ),
                args![day.to_string()],
            )
            .await?;
        Ok(LimitStatus {
            limit: effective(value, configured),
            used: used.unwrap_or(0),
            deferred,
        })
    }
}

/// The limit in force: what an admin set wins.
pub fn effective(setting: Option<String>, configured: i64) -> i64 {
    setting.and_then(|value| value.parse().ok()).unwrap_or(configured)
}

/// The limit in force.
pub async fn limit(tx: &mut Tx, configured: i64) -> Result<i64, StoreError> {
    let value = tx
        .optional_scalar(sql!("select value from setting where name = 'daily_limit'"), args![])
        .await?;
    Ok(effective(value, configured))
}

/// Sets the limit that wins over the configured one; `None` takes it away.
pub async fn set_limit(tx: &mut Tx, limit: Option<i64>, now: Timestamp) -> Result<(), StoreError> {
    const SET: Sql = sql!(
        "insert into setting (name, value, updated_at) values ('daily_limit', $1, $2)
         on conflict (name) do update set value = excluded.value, updated_at = excluded.updated_at"
    );
    const UNSET: Sql = sql!("delete from setting where name = 'daily_limit'");
    let changed = match limit {
        Some(limit) => tx.execute(SET, args![limit.to_string(), ms(now)]).await,
        None => tx.execute(UNSET, args![]).await,
    };
    changed.map(drop)
}

/// Opens the day's row if need be and keeps it locked: from here on, nobody else takes a slot. Returns slots used.
pub async fn lock_day(tx: &mut Tx, day: LocalDay) -> Result<i64, StoreError> {
    tx.scalar(
        sql!(
            "insert into daily_count (day, used) values ($1, 0)
         on conflict (day) do update set used = daily_count.used returning used"
        ),
        args![day.to_string()],
    )
    .await
}

/// Takes a slot of a day for each of these deliveries that is there.
pub fn take_slots<'a>(tx: &mut Tx, day: &str, ids: impl IntoIterator<Item = &'a DeliveryId>) {
    row! {
        Row<'a> { id: &'a DeliveryId as text, day: &'a str as text }
    }
    const TAKE: Sql = sql!(
        "insert into daily_count (day, used) select r.day, count(*) from ",
        Row::ROWS,
        " cross join delivery d where d.id = r.id group by r.day
         on conflict (day) do update set used = daily_count.used + excluded.used"
    );
    tx.queue(TAKE, ids.into_iter().map(|id| Row { id, day }).collect());
}

/// Gives slots back to their days, or takes them anew, even beyond the limit.
pub fn move_slots(tx: &mut Tx, slots: BTreeMap<&str, i64>) {
    row! {
        Row<'a> { day: &'a str as text, slots: i64 as number }
    }
    const MOVE: Sql = sql!(
        "update daily_count set used = case when used + r.slots < 0 then 0 else used + r.slots end from ",
        Row::ROWS,
        " where daily_count.day = r.day"
    );
    let slots = slots.into_iter().filter(|(_, slots)| *slots != 0);
    tx.queue(MOVE, slots.map(|(day, slots)| Row { day, slots }).collect());
}

/// How many deliveries are before this one among those that wait for a slot; counts no further than `most`. Not those that
/// brought a hold upon the others: they go last.
pub async fn count_ahead(
    tx: &mut Tx,
    id: &DeliveryId,
    received_at: i64,
    most: i64,
    now: Timestamp,
) -> Result<i64, StoreError> {
    const AHEAD: Sql = sql!(
        "select count(*) from (
            select 1 from delivery
            where case when state in (",
        State::OWED,
        ") then received_at end <= $1 and (case when state in (",
        State::OWED,
        ") then received_at end < $1 or id < $2) and channel in (",
        Channel::KNOWN,
        ") and (state = 'deferred' or due_at <= $4) and holds = 0 and held_source is null limit $3) as ahead"
    );
    tx.scalar(AHEAD, args![received_at, id, most, ms(now)]).await
}
