//! Numbers that must not be texted. Absent: the check itself, which is part of `sending`.

use super::{Db, StoreError, Tx, at, lists::Page, ms, read, within};
use crate::domain::phone::PhoneNumber;
use jiff::Timestamp;

/// A number that must not be texted.
pub struct OptOut {
    pub phone: PhoneNumber,
    pub staff_id: Option<String>,
    pub reason: Option<String>,
    pub opted_out_at: Timestamp,
}

/// The reason noted when the provider told us.
pub(super) const BY_PROVIDER: &str = "the provider says that this person opted out";

impl Db {
    /// Adds a number. Returns the entry and whether it is new; one that is there already stays as it was.
    pub async fn add_opt_out(
        &self,
        phone: &PhoneNumber,
        staff_id: Option<&str>,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(OptOut, bool), StoreError> {
        let mut tx = self.begin().await?;
        let new = insert(&mut tx, phone.as_e164(), staff_id, reason, now).await?;
        let (staff_id, reason, opted_out_at): (Option<String>, Option<String>, i64) =
            within!(tx, |conn| sqlx::query_as(
                "select staff_id, reason, opted_out_at from opt_out where phone = $1"
            )
            .bind(phone.as_e164())
            .fetch_one(conn)
            .await)?;
        tx.commit().await?;
        Ok((
            OptOut {
                phone: phone.clone(),
                staff_id,
                reason,
                opted_out_at: at(opted_out_at),
            },
            new,
        ))
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
        let rows: Vec<(String, Option<String>, Option<String>, i64)> = read!(self, |pool| {
            sqlx::query_as(
                "select phone, staff_id, reason, opted_out_at from opt_out where phone > $1 order by phone limit $2",
            )
            .bind(after.unwrap_or(""))
            .bind(limit + 1)
            .fetch_all(pool)
            .await
        })?;
        let items = rows
            .into_iter()
            .map(|(phone, staff_id, reason, opted_out_at)| OptOut {
                phone: PhoneNumber::from_stored(phone),
                staff_id,
                reason,
                opted_out_at: at(opted_out_at),
            })
            .collect();
        Ok(Page::cut(items, limit, |opt_out: &OptOut| {
            opt_out.phone.as_e164().to_owned()
        }))
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
