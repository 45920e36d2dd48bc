//! The short codes by which a person says which alert they acknowledge: unique for each phone, by the key of the table. They
//! stand in messages, where that is configured, and are made when a list needs them. A code outlives its alert for a while,
//! so that a late reply is told that it is late; then the clean-up frees it. Absent: what is acknowledged (see `acknowledge`).

use super::{
    error::StoreError,
    ledger::Birth,
    query::Query,
    sql::{Rows, Sql, args, row, sql},
    tx::Tx,
    types::ms,
};
use crate::domain::{
    acknowledge::{code_apart_from, code_of as code_of_number},
    id::{AlertId, DeliveryId},
    phone::PhoneNumber,
};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// How often another code is tried where one is taken: a phone with a thousand open alerts finds one.
const TRIES: usize = 24;

/// Whether a bare word of three characters is a code of this phone (open or late): only then it is an acknowledgement.
pub async fn is_code(tx: &mut Tx, phone: &PhoneNumber, code: &str) -> Result<bool, StoreError> {
    const IS_CODE: Sql = sql!("select 1 from ack_code where phone = $1 and code = $2");
    tx.exists(IS_CODE, args![phone.as_e164(), code]).await
}

/// The code of an alert that this phone was told of by this message; made now, if it has none. `None` if nearly all are taken.
pub async fn code_of(
    tx: &mut Tx,
    phone: &PhoneNumber,
    (alert_id, delivery_id): (&AlertId, &DeliveryId),
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    const KNOWN: Sql = sql!(
        "select code from ack_code where alert_id = $1 and phone = $2 order by created_at desc, delivery_id desc limit 1"
    );
    // Whichever of the two keys is in the way: another process may have made one for the same message.
    const MAKE: Sql = sql!(
        "insert into ack_code (phone, code, alert_id, delivery_id, created_at) values ($1, $2, $3, $4, $5)
         on conflict do nothing"
    );
    for _ in 0..TRIES {
        let known: Option<String> = tx.optional_scalar(KNOWN, args![alert_id, phone.as_e164()]).await?;
        if known.is_some() {
            return Ok(known);
        }
        let code = code_of_number(rand::random());
        let arguments = args![phone.as_e164(), code, alert_id, delivery_id, ms(now)];
        if tx.execute(MAKE, arguments).await? > 0 {
            return Ok(Some(code.to_owned()));
        }
    }
    tracing::warn!(alert.id = %alert_id, "no code is free for a phone that is told of very many alerts");
    Ok(None)
}

row! {
    ClaimRow<'a> {
        phone: &'a str as text,
        code: &'a str as text,
        alert_id: &'a AlertId as text,
        delivery_id: &'a DeliveryId as text,
        at: i64 as number,
    }
}

/// Only of alerts that are there: of two that are raised for one ticket, one is not.
const CLAIM: Sql = sql!(
    "insert into ack_code (phone, code, alert_id, delivery_id, created_at)
     select r.phone, r.code, r.alert_id, r.delivery_id, r.at from ",
    ClaimRow::ROWS,
    " cross join alert a where a.id = r.alert_id order by r.phone, r.code on conflict do nothing returning delivery_id"
);

/// Makes the codes in the texts of new deliveries theirs. Where one is taken, another is put in its place, which is as long;
/// costs nothing where no text has one. The alerts have to be there.
pub async fn claim_codes(tx: &mut Tx, births: &mut [Birth], now: Timestamp) -> Result<(), StoreError> {
    const THERE: Sql = sql!(
        "select r.delivery_id from ",
        ClaimRow::ROWS,
        " cross join alert a where a.id = r.alert_id"
    );
    let mut left: BTreeSet<DeliveryId> = births
        .iter()
        .filter(|birth| birth.about.ack_code.is_some())
        .map(|birth| birth.delivery.id.clone())
        .collect();
    for round in 0..TRIES {
        let rows = claims(births, &left, now);
        if rows.is_empty() {
            return Ok(());
        }
        let claimed: Vec<DeliveryId> = tx.scalars(CLAIM, [rows.clone().into()]).await?;
        left.retain(|id| !claimed.contains(id));
        if round == 0 && !left.is_empty() {
            let there: Vec<DeliveryId> = tx.scalars(THERE, [rows.into()]).await?;
            left.retain(|id| there.contains(id));
        }
        for birth in births.iter_mut().filter(|birth| left.contains(&birth.delivery.id)) {
            let other = code_apart_from(&birth.delivery.message, rand::random);
            put_in_place(birth, other);
        }
    }
    for birth in births.iter_mut().filter(|birth| left.contains(&birth.delivery.id)) {
        tracing::warn!(delivery.id = %birth.delivery.id, "no code is free for a phone that is told of very many alerts");
        put_in_place(birth, "");
    }
    Ok(())
}

fn claims(births: &[Birth], left: &BTreeSet<DeliveryId>, now: Timestamp) -> Rows {
    let mut rows = Rows::default();
    for birth in births.iter().filter(|birth| left.contains(&birth.delivery.id)) {
        let (delivery, code) = (&birth.delivery, birth.about.ack_code.as_deref());
        if let (Some(phone), Some(alert_id), Some(code)) = (&delivery.phone, &delivery.alert_id, code) {
            rows.push(&ClaimRow {
                phone,
                code,
                alert_id,
                delivery_id: &delivery.id,
                at: ms(now),
            });
        }
    }
    rows
}

/// Puts another code into the text; without one, `Reply ACK` says as much as long as only one alert is open.
fn put_in_place(birth: &mut Birth, other: &str) {
    let Some(code) = birth.about.ack_code.take() else {
        return;
    };
    let text = birth.delivery.message.replace(&code, other);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    birth.delivery.message = lines.join("\n");
    birth.about.ack_code = Some(other.to_owned()).filter(|code| !code.is_empty());
}
