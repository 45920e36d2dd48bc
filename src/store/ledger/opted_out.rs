//! What becomes of deliveries whose person opts out by a text: those that have not begun are suppressed at once, and whose
//! calls may be under way is said.

use super::delivery::{self, Landing};
use crate::{
    domain::{
        delivery::{Change, Reason, State},
        id::DeliveryId,
    },
    store::{
        Db,
        error::StoreError,
        query::Query,
        sql::{Rows, Sql, row, sql},
        tx::Tx,
    },
};
use jiff::Timestamp;
use std::collections::BTreeSet;

row! {
    PhoneRow<'a> { phone: &'a str as text }
}

/// Suppresses what is owed to these numbers. Returns how many deliveries those were.
pub async fn suppress(tx: &mut Tx, phones: &BTreeSet<&str>, now: Timestamp) -> Result<usize, StoreError> {
    // Found by the number: of all states, most deliveries of others have the same.
    const OWED: Sql = sql!(
        "select d.id from ",
        PhoneRow::ROWS,
        " cross join delivery d where d.phone = r.phone and d.state || '' in (",
        State::OWED,
        ")"
    );
    let rows: Rows = phones.iter().map(|phone| PhoneRow { phone }).collect();
    let ids: Vec<DeliveryId> = tx.scalars(OWED, [rows.into()]).await?;
    let mut deliveries = delivery::lock(tx, &ids).await?;
    let mut suppressed = 0;
    for delivery in &mut deliveries {
        let landing = Landing {
            reason: Some(Reason::OptedOut),
            detail: "this person opted out".into(),
            ..Default::default()
        };
        suppressed += usize::from(delivery.apply(Change::Suppress, landing, now).is_some());
    }
    delivery::save(tx, &mut deliveries).await?;
    Ok(suppressed)
}

/// The deliveries to these numbers whose calls may be under way, each with its number.
pub async fn calling(tx: &mut Tx, phones: &BTreeSet<&str>) -> Result<Vec<(String, DeliveryId)>, StoreError> {
    const CALLING: Sql = sql!(
        "select d.phone, d.id from ",
        PhoneRow::ROWS,
        " cross join delivery d where d.phone = r.phone and d.state || '' = 'sending'"
    );
    let rows: Rows = phones.iter().map(|phone| PhoneRow { phone }).collect();
    tx.all(CALLING, [rows.into()]).await
}

impl Db {
    /// Whether a call of one of these deliveries may still be under way.
    pub async fn are_calling(&self, ids: &[DeliveryId]) -> Result<bool, StoreError> {
        const CALLING: Sql = sql!(
            "select 1 from ",
            delivery::IDS,
            " cross join delivery d where d.id = r.id and d.state || '' = 'sending' limit 1"
        );
        self.reads().exists(CALLING, [delivery::id_rows(ids).into()]).await
    }
}
