//! Test mode: while it is on, nothing leaves this machine, whatever the configuration says. Kept in the database, so that it
//! holds for all replicas and over restarts. Absent: what it does to a delivery (see `worker`).

use super::{
    Db,
    error::StoreError,
    query::Query,
    sql::{Sql, args, sql},
    types::ms,
};
use jiff::Timestamp;

const ON: &str = "on";

impl Db {
    /// Whether an admin switched test mode on.
    pub async fn test_mode(&self) -> Result<bool, StoreError> {
        let value: Option<String> = self
            .reads()
            .optional_scalar(sql!("select value from setting where name = 'test_mode'"), args![])
            .await?;
        Ok(value.as_deref() == Some(ON))
    }

    /// Switches test mode on or off.
    pub async fn set_test_mode(&self, on: bool, now: Timestamp) -> Result<(), StoreError> {
        const SET: Sql = sql!(
            "insert into setting (name, value, updated_at) values ('test_mode', $1, $2)
             on conflict (name) do update set value = excluded.value, updated_at = excluded.updated_at"
        );
        let value = if on { ON } else { "off" };
        self.execute(SET, args![value, ms(now)]).await.map(drop)
    }
}
