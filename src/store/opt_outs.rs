//! Numbers that must not be texted. Absent: the check itself, which is part of `sending`.

use super::{Db, StoreError, Tx, at, lists::Page, ms, read, within};
use crate::domain::phone::PhoneNumber;
use jiff::Timestamp;

/// A number that must not be texted.
pub struct OptOut {
    pub phone: PhoneNumber,
    /// The text that it was read from; `None` where that is not known.
    pub phone_text: Option<String>,
    pub staff_id: Option<String>,
    pub reason: Option<String>,
    pub opted_out_at: Timestamp,
}

/// The reason noted when the provider told us.
pub(super) const BY_PROVIDER: &str = "the provider says that this person opted out";

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
            within!(tx, |conn| sqlx::query(
                "update opt_out set phone_text = $2 where phone = $1"
            )
            .bind(phone.as_e164())
            .bind(text)
            .execute(conn)
            .await
            .map(drop))?;
        }
        let row: Row = within!(tx, |conn| sqlx::query_as(
            "select phone, phone_text, staff_id, reason, opted_out_at from opt_out where phone = $1"
        )
        .bind(phone.as_e164())
        .fetch_one(conn)
        .await)?;
        tx.commit().await?;
        Ok((opt_out(row), new))
    }

    /// Removes a number. Returns whether it was there.
    pub async fn remove_opt_out(&self, phone: &PhoneNumber) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let removed = within!(tx, |conn| sqlx::query("delete from opt_out where phone = $1")
            .bind(phone.as_e164())
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(removed > 0)
    }

    /// Lists numbers in their own order, after the cursor (a number).
    pub async fn opt_outs(&self, after: Option<&str>, limit: i64) -> Result<Page<OptOut>, StoreError> {
        let rows: Vec<Row> = read!(self, |pool| {
            sqlx::query_as(
                "select phone, phone_text, staff_id, reason, opted_out_at from opt_out
                 where phone > $1 order by phone limit $2",
            )
            .bind(after.unwrap_or(""))
            .bind(limit + 1)
            .fetch_all(pool)
            .await
        })?;
        let items = rows.into_iter().map(opt_out).collect();
        Ok(Page::cut(items, limit, |opt_out: &OptOut| {
            opt_out.phone.as_e164().to_owned()
        }))
    }
}

/// An entry as it is stored: phone, its text, staff id, reason, time.
type Row = (String, Option<String>, Option<String>, Option<String>, i64);

fn opt_out((phone, phone_text, staff_id, reason, opted_out_at): Row) -> OptOut {
    OptOut {
        phone: PhoneNumber::from_stored(phone),
        phone_text,
        staff_id,
        reason,
        opted_out_at: at(opted_out_at),
    }
}

/// Adds a number inside a transaction. Returns whether it is new.
pub(super) async fn insert(
    tx: &mut Tx,
    e164: &str,
    staff_id: Option<&str>,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(within!(tx, |conn| {
        sqlx::query(
            "insert into opt_out (phone, staff_id, reason, opted_out_at) values ($1, $2, $3, $4)
            on conflict (phone) do nothing",
        )
        .bind(e164)
        .bind(staff_id)
        .bind(reason)
        .bind(ms(now))
        .execute(conn)
        .await
        .map(|done| done.rows_affected() > 0)
    })?)
}

/// Whether a number must not be texted.
pub(super) async fn contains(tx: &mut Tx, e164: &str) -> Result<bool, StoreError> {
    let found: Option<i64> = within!(tx, |conn| sqlx::query_scalar(
        "select opted_out_at from opt_out where phone = $1"
    )
    .bind(e164)
    .fetch_optional(conn)
    .await)?;
    Ok(found.is_some())
}
