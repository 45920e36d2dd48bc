//! People who text us and whom nobody knows: no message of ours ever went to them, and they are in no staff directory. What is
//! kept of them is limited, so that they cannot fill the database.

use super::{
    error::StoreError,
    lists::first_id,
    query::Query,
    sql::{Sql, args, sql},
    tx::Tx,
    types::ms,
};
use crate::domain::{day::after, inbound::Inbound, phone::PhoneNumber};
use jiff::{SignedDuration, Timestamp};

/// What is kept in an hour: of one of them, and of all of them together.
const OF_ONE: i64 = 20;
const OF_ALL: i64 = 500;
const WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// Whether anybody knows this number.
pub async fn knows(tx: &mut Tx, phone: Option<&PhoneNumber>) -> Result<bool, StoreError> {
    const TEXTED: Sql = sql!("select 1 from delivery where phone = $1 limit 1");
    const IN_DIRECTORY: Sql = sql!("select 1 from staff where phone = $1 limit 1");
    let Some(phone) = phone.map(PhoneNumber::as_e164) else {
        return Ok(false);
    };
    Ok(tx.exists(TEXTED, args![phone]).await? || tx.exists(IN_DIRECTORY, args![phone]).await?)
}

/// Whether nothing more is kept of the one who sent this, now.
pub async fn are_too_many(tx: &mut Tx, message: &Inbound, now: Timestamp) -> Result<bool, StoreError> {
    const COUNT_ALL: Sql = sql!(
        "select count(*) from (select 1 from inbound_message where unknown_at > $1 and unknown_at <= $2 limit ",
        OF_ALL,
        ") as kept"
    );
    const COUNT_ONE: Sql = sql!(
        "select count(*) from (select 1 from inbound_message where from_phone = $1 and id > $2 and received_at > $3
            and received_at <= $4 and unknown_at is not null limit ",
        OF_ONE,
        ") as kept"
    );
    let since = after(now, -WINDOW);
    // What is dated further ahead was kept before a wrong clock was set back.
    let until = after(now, WINDOW);
    let all: i64 = tx.scalar(COUNT_ALL, args![ms(since), ms(until)]).await?;
    if all >= OF_ALL {
        return Ok(true);
    }
    let from = message
        .phone
        .as_ref()
        .map(PhoneNumber::as_e164)
        .or(message.from.as_deref());
    let Some(from) = from else { return Ok(false) };
    // Ids are made by the clock of whoever made them, so a bit more is looked at.
    let first = first_id(after(since, -WINDOW));
    let of_one: i64 = tx.scalar(COUNT_ONE, args![from, first, ms(since), ms(until)]).await?;
    Ok(of_one >= OF_ONE)
}
