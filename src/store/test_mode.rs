//! Test mode: a runtime setting under which every message goes to the log, whatever carrier is configured. It holds for all
//! processes of a database, from the commit on. Absent: where it is obeyed (see `ledger::begin`).

use super::{
    Db,
    error::StoreError,
    query::Query,
    sql::{Sql, args, sql},
    types::ms,
};
use jiff::Timestamp;

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
        // Whoever begins a message has the day locked, and reads the setting after that.
        const LOCK_DAY: Sql = sql!("select day from daily_count order by day desc limit 1 for update");
        let mut tx = self.begin().await?;
        if on {
            tx.execute(ON, args![ms(now)]).await?;
        } else {
            tx.execute(OFF, args![]).await?;
        }
        tx.scalars::<String>(LOCK_DAY, args![]).await?;
        tx.commit().await
    }
}
