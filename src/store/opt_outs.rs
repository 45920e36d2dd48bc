//! Numbers that must not be texted. Absent: the check itself, which is part of `sending`.

use super::{
    Db,
    error::StoreError,
    page::Page,
    query::Query,
    sql::{Sql, args, sql},
    tx::Tx,
    types::{Ms, ms},
};
use crate::domain::phone::PhoneNumber;
use jiff::Timestamp;
use serde::Serialize;

/// A number that must not be texted.
#[derive(Serialize, sqlx::FromRow)]
pub struct OptOut {
    /// In E.164, in full.
    pub phone: String,
    /// The text that it was read from; `None` where that is not known.
    pub phone_text: Option<String>,
    pub staff_id: Option<String>,
    pub reason: Option<String>,
    #[sqlx(try_from = "Ms")]
    pub opted_out_at: Timestamp,
}

/// The reason noted when the provider reported it.
pub const BY_PROVIDER: &str = "the provider says that this person opted out";

impl Db {
    /// Adds a number that was read from `text`. Returns the entry and whether it is new; one that is there already stays as
    /// it was.
    pub async fn add_opt_out(
        &self,
        phone: &PhoneNumber,
        text: &str,
        staff_id: Option<&str>,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(OptOut, bool), StoreError> {
        let mut tx = self.begin().await?;
        let new = insert(&mut tx, phone.as_e164(), staff_id, reason, now).await?;
        if new {
            tx.execute(
                sql!("update opt_out set phone_text = $2 where phone = $1"),
                args![phone.as_e164(), text],
            )
            .await?;
        }
        let kept = tx
            .one(
                sql!("select phone, phone_text, staff_id, reason, opted_out_at from opt_out where phone = $1"),
                args![phone.as_e164()],
            )
            .await?;
        tx.commit().await?;
        Ok((kept, new))
    }

    /// Removes a number. Returns whether it was there.
    pub async fn remove_opt_out(&self, phone: &PhoneNumber) -> Result<bool, StoreError> {
        const REMOVE: Sql = sql!("delete from opt_out where phone = $1");
        Ok(self.execute(REMOVE, args![phone.as_e164()]).await? > 0)
    }

    /// Lists numbers in their own order, after the cursor (a number).
    pub async fn opt_outs(&self, after: Option<&str>, limit: i64) -> Result<Page<OptOut>, StoreError> {
        let opt_outs = self
            .reads()
            .all(
                sql!(
                    "select phone, phone_text, staff_id, reason, opted_out_at from opt_out
                 where phone > $1 order by phone limit $2"
                ),
                args![after.unwrap_or(""), limit + 1],
            )
            .await?;
        Ok(Page::cut(opt_outs, limit, |opt_out: &OptOut| opt_out.phone.clone()))
    }
}

/// Adds a number inside a transaction. Returns whether it is new.
pub async fn insert(
    tx: &mut Tx,
    e164: &str,
    staff_id: Option<&str>,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(tx
        .execute(
            sql!(
                "insert into opt_out (phone, staff_id, reason, opted_out_at) values ($1, $2, $3, $4)
            on conflict (phone) do nothing"
            ),
            args![e164, staff_id, reason, ms(now)],
        )
        .await?
        > 0)
}

/// Whether a number must not be texted.
pub async fn contains(tx: &mut Tx, e164: &str) -> Result<bool, StoreError> {
    let found: Option<i64> = tx
        .optional_scalar(sql!("select opted_out_at from opt_out where phone = $1"), args![e164])
        .await?;
    Ok(found.is_some())
}
