//! Taking the personal data out of an alert with all that hangs on it. What stays is the dedup key, and what happened as far
//! as it says nothing of a person.

use crate::{
    domain::{delivery::State, id::AlertId},
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

/// Strips one alert, unless something new has come to it.
pub async fn strip(tx: &mut Tx, id: &AlertId, before: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    // Locked first, in the order in which everybody locks, and in statements of their own: what comes after sees what a
    // transaction before us did. Not for key share: a resend inserts a row that refers to the alert.
    const LOCK_ALERT: Sql = sql!("select id from alert where id = $1 for no key update");
    const LOCK_DELIVERIES: Sql = sql!("select id from delivery where alert_id = $1 order by id for update");
    const STRIP: Sql = sql!(
        "update alert as a set stripped_at = $2, subject = null, url = null, client_name = null, client_organisation = null,
            event_id = null
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
        sql!(
            "update delivery set phone = null, phone_raw = null, staff_id = null, name = null, message = '',
            provider_message_id = null where alert_id = $1"
        ),
    ] {
        tx.execute(sql, args![id]).await?;
    }
    Ok(())
}
