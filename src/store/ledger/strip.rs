//! Taking the personal data out of an alert with all that hangs on it. What stays is the dedup key, and what happened as far
//! as it says nothing of a person.

use crate::{
    domain::{
        delivery::State,
        id::{AlertId, DeliveryId},
    },
    store::{
        error::StoreError,
        query::Query,
        sql::{Sql, args, sql},
        tx::Tx,
        types::ms,
    },
};
use jiff::Timestamp;

/// On which something is owed, newly done, or not reported yet; of `alert a`, with $1 for before when it is old.
pub const BUSY: &str = const_format::concatcp!(
    "exists (select 1 from delivery d where d.alert_id = a.id and (d.due_at is not null or d.lease_until is not null
        or d.state in (",
    State::OWED,
    ") or d.received_at >= $1 or (d.report_day is null and d.state in (",
    State::BAD,
    "))))"
);

/// Which messages without an alert are old and have not been stripped; of `delivery d`, with $1 for before when.
pub const OLD_MESSAGE: &str = const_format::concatcp!(
    "d.alert_id is null and d.message <> '' and d.received_at < $1 and d.due_at is null and d.lease_until is null
        and d.state || '' not in (",
    State::OWED,
    ") and (d.report_day is not null or d.state || '' not in (",
    State::BAD,
    "))"
);

/// Strips one alert, unless something new has come to it.
pub async fn strip(tx: &mut Tx, id: &AlertId, before: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    // Locked first, in the order in which everybody locks, and in statements of their own: what comes after sees what a
    // transaction before us did. Not for key share: a resend inserts a row that refers to the alert.
    const LOCK_ALERT: Sql = sql!("select id from alert where id = $1 for no key update");
    const LOCK_DELIVERIES: Sql = sql!("select id from delivery where alert_id = $1 order by id for update");
    const STRIP: Sql = sql!(
        "update alert as a set stripped_at = $2, subject = null, url = null, client_name = null, client_organisation = null,
            event_id = null, acknowledged_by = null
         where id = $3 and stripped_at is null and not ",
        BUSY
    );
    tx.scalars::<String>(LOCK_ALERT, args![id]).await?;
    tx.scalars::<String>(LOCK_DELIVERIES, args![id]).await?;
    if tx.execute(STRIP, args![ms(before), ms(now), id]).await? == 0 {
        return Ok(());
    }
    for sql in [
        sql!("delete from timeline where delivery_id in (select id from delivery where alert_id = $1)"),
        sql!("delete from alert_event where alert_id = $1"),
        sql!("delete from attempt where delivery_id in (select id from delivery where alert_id = $1)"),
        sql!("delete from ack_code where alert_id = $1"),
        sql!(STRIP_DELIVERIES, " where alert_id = $1"),
    ] {
        tx.execute(sql, args![id]).await?;
    }
    Ok(())
}

const STRIP_DELIVERIES: &str =
    "update delivery set phone = null, phone_raw = null, staff_id = null, name = null, message = '',
    provider_message_id = null";

/// Strips one message that has no alert, unless something new has come to it.
pub async fn strip_message(tx: &mut Tx, id: &DeliveryId, before: Timestamp) -> Result<(), StoreError> {
    const LOCK: Sql = sql!("select id from delivery where id = $1 for update");
    const IS_OLD: Sql = sql!("select 1 from delivery d where d.id = $2 and ", OLD_MESSAGE);
    tx.scalars::<String>(LOCK, args![id]).await?;
    if !tx.exists(IS_OLD, args![ms(before), id]).await? {
        return Ok(());
    }
    for sql in [
        sql!("delete from timeline where delivery_id = $1"),
        sql!("delete from attempt where delivery_id = $1"),
        sql!(STRIP_DELIVERIES, " where id = $1"),
    ] {
        tx.execute(sql, args![id]).await?;
    }
    Ok(())
}
