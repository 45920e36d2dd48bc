//! Which report has told of a bad outcome: each is told once. A move makes a new outcome, which is told anew.

use super::delivery::{IDS, id_rows};
use crate::{
    domain::{day::LocalDay, delivery::State, id::DeliveryId},
    store::{
        error::StoreError,
        query::Query,
        sql::{Sql, args, sql},
        tx::Tx,
        types::ms,
    },
};
use jiff::Timestamp;

/// Marks up to `most` bad outcomes recorded before `cutoff` that no report has told as those of `day`. Returns how many.
pub async fn mark_outcomes(tx: &mut Tx, day: LocalDay, cutoff: Timestamp, most: i64) -> Result<usize, StoreError> {
    const UNTOLD: Sql = sql!(
        "select id from delivery where report_day is null and state in (",
        State::BAD,
        ") and moved_at < $1 order by id limit $2 for update"
    );
    const MARK: Sql = sql!(
        "update delivery set report_day = $2 from ",
        IDS,
        " where delivery.id = r.id"
    );
    let untold: Vec<DeliveryId> = tx.scalars(UNTOLD, args![ms(cutoff), most]).await?;
    if !untold.is_empty() {
        tx.execute(MARK, args![id_rows(&untold), day.to_string()]).await?;
    }
    Ok(untold.len())
}

/// Marks all bad outcomes from before `due` as those of `day`: a database that is older than its reports has failures of
/// months, which nobody wants in one mail.
pub async fn forget_old_outcomes(tx: &mut Tx, day: LocalDay, due: Timestamp) -> Result<(), StoreError> {
    const FORGET: Sql = sql!(
        "update delivery set report_day = $1 where report_day is null and moved_at < $2 and state in (",
        State::BAD,
        ")"
    );
    tx.execute(FORGET, args![day.to_string(), ms(due)]).await.map(drop)
}
