//! Test mode: a runtime setting under which every message goes to the log, whatever carrier is configured. It holds for all
//! processes of a database, from the commit on. Absent: where it is obeyed (see `ledger::begin`).

use super::{
    Db,
    error::StoreError,
    limits,
    query::Query,
    sql::{Sql, args, sql},
    types::ms,
};
use crate::domain::day::LocalDay;
use jiff::{Timestamp, tz::TimeZone};

/// The name of the setting; it is there while test mode is on.
pub const NAME: &str = "test_mode";

impl Db {
    /// Whether messages go to the log only.
    pub async fn test_mode(&self) -> Result<bool, StoreError> {
        const IS_ON: Sql = sql!("select 1 from setting where name = '", NAME, "'");
        self.reads().exists(IS_ON, args![]).await
    }

    /// Turns test mode on or off. When this returns, no message is begun by the other way any more; one that was begun before
    /// may still be under way.
    pub async fn set_test_mode(&self, on: bool, now: Timestamp) -> Result<(), StoreError> {
        const ON: Sql = sql!(
            "insert into setting (name, value, updated_at) values ('",
            NAME,
            "', '', $1) on conflict (name) do nothing"
        );
        const OFF: Sql = sql!("delete from setting where name = '", NAME, "'");
        let mut tx = self.begin().await?;
        if on {
            tx.execute(ON, args![ms(now)]).await?;
        } else {
            tx.execute(OFF, args![]).await?;
        }
        // Whoever begins a message has locked its day, and reads the setting after that. In every zone, and by every clock of a
        // replica, that is one of these; in their order, as everybody locks.
        let today = LocalDay::of(now, &TimeZone::UTC);
        for day in [today.previous(&TimeZone::UTC), today, today.next(&TimeZone::UTC)] {
            limits::lock_day(&mut tx, day).await?;
        }
        tx.commit().await
    }
}
