//! Numbers that must not be texted. Absent: the check itself, which is part of `sending`.

use super::{
    Db,
    error::StoreError,
    lifecycle::About,
    page::Page,
    query::Query,
    sql::{Rows, Sql, args, row, sql},
    tx::Tx,
    types::{Ms, at, ms},
};
use crate::domain::{lifecycle::EventType, phone::PhoneNumber};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

/// A number that must not be texted.
#[derive(Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct OptOut {
    /// In E.164, in full.
    #[schema(examples("+14155550101"))]
    pub phone: String,
    /// The text that it was read from; `null` where that is not known.
    #[schema(required, examples("(415) 555-0101"))]
    pub phone_text: Option<String>,
    #[schema(required, examples("2"))]
    pub staff_id: Option<String>,
    #[schema(required, examples("asked by mail"))]
    pub reason: Option<String>,
    #[sqlx(try_from = "Ms")]
    pub opted_out_at: Timestamp,
    /// Of the message by which this person opted out; `null` where it came another way.
    #[schema(required, format = "uuid")]
    pub message_id: Option<String>,
}

/// The reason noted when the provider reported it.
pub const BY_PROVIDER: &str = "the provider says that this person opted out";

/// The reason noted when the person wrote it.
const BY_TEXT: &str = "texted STOP";

/// A number to be added.
pub struct NewOptOut {
    pub phone: PhoneNumber,
    /// The text that it was read from.
    pub phone_text: String,
    pub staff_id: Option<String>,
    pub reason: Option<String>,
    pub opted_out_at: Timestamp,
}

row! {
    NewRow<'a> {
        phone: &'a str as text,
        phone_text: &'a str as text,
        staff_id: &'a Option<String> as text,
        reason: &'a Option<String> as text,
        opted_out_at: i64 as number,
    }
}

const INSERT: Sql = sql!(
    "insert into opt_out (phone, phone_text, staff_id, reason, opted_out_at)
     select r.phone, r.phone_text, r.staff_id, r.reason, r.opted_out_at from ",
    NewRow::ROWS,
    " where true on conflict (phone) do nothing returning phone, opted_out_at"
);

pub const OPT_OUT: &str = "select phone, phone_text, staff_id, reason, opted_out_at, message_id from opt_out";

impl Db {
    /// Adds a number. Returns the entry and whether it is new; one that is there already stays as it was.
    pub async fn add_opt_out(&self, new: &NewOptOut) -> Result<(OptOut, bool), StoreError> {
        let mut tx = self.begin().await?;
        let added = insert_all(&mut tx, &[new]).await?;
        let kept = tx
            .one(sql!(OPT_OUT, " where phone = $1"), args![new.phone.as_e164()])
            .await?;
        tx.commit().await?;
        Ok((kept, added > 0))
    }

    /// Adds numbers in one transaction; those that are there already stay as they were. Returns how many are new.
    pub async fn add_opt_outs(&self, new: &[NewOptOut]) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let new: Vec<&NewOptOut> = new.iter().collect();
        let added = insert_all(&mut tx, &new).await?;
        tx.commit().await?;
        Ok(added)
    }

    pub async fn opt_out(&self, phone: &PhoneNumber) -> Result<Option<OptOut>, StoreError> {
        self.reads()
            .optional(sql!(OPT_OUT, " where phone = $1"), args![phone.as_e164()])
            .await
    }

    /// Removes a number. Returns whether it was there.
    pub async fn remove_opt_out(&self, phone: &PhoneNumber, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let was_there = remove(&mut tx, phone.as_e164(), None, now).await?;
        tx.commit().await?;
        Ok(was_there)
    }

    /// Lists numbers in their own order, after the cursor (a number).
    pub async fn opt_outs(&self, after: Option<&str>, limit: i64) -> Result<Page<OptOut>, StoreError> {
        let opt_outs = self
            .reads()
            .all(
                sql!(OPT_OUT, " where phone > $1 order by phone limit $2"),
                args![after.unwrap_or(""), limit + 1],
            )
            .await?;
        Ok(Page::cut(opt_outs, limit, |opt_out: &OptOut| opt_out.phone.clone()))
    }
}

/// Adds numbers; how many are new. PostgreSQL waits for others that insert the same one: everybody in the same order.
async fn insert_all(tx: &mut Tx, new: &[&NewOptOut]) -> Result<u64, StoreError> {
    let mut sorted = new.to_vec();
    sorted.sort_by(|a, b| a.phone.as_e164().cmp(b.phone.as_e164()));
    let rows = sorted.into_iter().map(|new| NewRow {
        phone: new.phone.as_e164(),
        phone_text: &new.phone_text,
        staff_id: &new.staff_id,
        reason: &new.reason,
        opted_out_at: ms(new.opted_out_at),
    });
    let added: Vec<(String, i64)> = tx.all(INSERT, args![rows.collect::<Rows>()]).await?;
    for (phone, opted_out_at) in &added {
        tell_created(tx, phone, None, at(*opted_out_at));
    }
    Ok(u64::try_from(added.len()).unwrap_or(u64::MAX))
}

/// Lets others hear of a new opt-out; `message_id`: of the inbound message that asked for it.
fn tell_created(tx: &mut Tx, e164: &str, message_id: Option<&str>, now: Timestamp) {
    let about = About {
        phone: Some(e164),
        message_id,
        ..About::default()
    };
    tx.tell(EventType::OptOutCreated, &about, now, || json!({}));
}

/// Removes a number; whether it was there. `message_id`: of the inbound message that asked for it.
pub async fn remove(tx: &mut Tx, e164: &str, message_id: Option<&str>, now: Timestamp) -> Result<bool, StoreError> {
    const REMOVE: Sql = sql!("delete from opt_out where phone = $1");
    let was_there = tx.execute(REMOVE, args![e164]).await? > 0;
    if was_there {
        let about = About {
            phone: Some(e164),
            message_id,
            ..About::default()
        };
        tx.tell(EventType::OptOutRemoved, &about, now, || json!({}));
    }
    Ok(was_there)
}

/// Adds a number that the provider reported.
pub async fn insert_reported(tx: &mut Tx, e164: &str, now: Timestamp) -> Result<(), StoreError> {
    const INSERT: Sql =
        sql!("insert into opt_out (phone, reason, opted_out_at) values ($1, $2, $3) on conflict (phone) do nothing");
    let added = tx.execute(INSERT, args![e164, BY_PROVIDER, ms(now)]).await?;
    if added > 0 {
        tell_created(tx, e164, None, now);
    }
    Ok(())
}

/// Adds a number whose person asked for it by a message; whether it is new.
pub async fn insert_texted(tx: &mut Tx, e164: &str, message_id: &str, now: Timestamp) -> Result<bool, StoreError> {
    const INSERT: Sql = sql!(
        "insert into opt_out (phone, reason, opted_out_at, message_id) values ($1, $2, $3, $4) on conflict (phone) do nothing"
    );
    let added = tx.execute(INSERT, args![e164, BY_TEXT, ms(now), message_id]).await?;
    if added > 0 {
        tell_created(tx, e164, Some(message_id), now);
    }
    Ok(added > 0)
}

/// Whether a number must not be texted.
pub async fn contains(tx: &mut Tx, e164: &str) -> Result<bool, StoreError> {
    let found: Option<i64> = tx
        .optional_scalar(sql!("select opted_out_at from opt_out where phone = $1"), args![e164])
        .await?;
    Ok(found.is_some())
}
