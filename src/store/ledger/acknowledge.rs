//! What an acknowledgement does to the deliveries of its alert: it stands on the timeline of the one that told the person,
//! and what others have not been sent yet is held back.

use super::delivery;
use crate::{
    domain::{
        acknowledge::{AcknowledgeRules, Via},
        id::{AlertId, DeliveryId},
    },
    store::{
        error::StoreError,
        query::Query,
        sql::{Sql, args, sql},
        tx::Tx,
    },
};
use jiff::Timestamp;

/// The alert, whose row is locked, was acknowledged: by the person whom this message told, if one did. Returns how many
/// deliveries are canceled by it.
pub async fn acknowledge(
    tx: &mut Tx,
    alert_id: &AlertId,
    told_by: Option<(&DeliveryId, Via)>,
    rules: AcknowledgeRules,
    now: Timestamp,
) -> Result<usize, StoreError> {
    const DELIVERIES: Sql = sql!("select id from delivery where alert_id = $1");
    let ids: Vec<DeliveryId> = match told_by {
        Some((id, _)) if !rules.cancels_others => vec![id.clone()],
        None if !rules.cancels_others => return Ok(0),
        Some(_) | None => tx.scalars(DELIVERIES, args![alert_id]).await?,
    };
    let mut deliveries = delivery::lock(tx, &ids).await?;
    let mut canceled = 0;
    for delivery in &mut deliveries {
        if let Some((_, via)) = told_by.filter(|(id, _)| **id == delivery.id) {
            delivery.note("acknowledged", via.in_words().to_owned(), now);
        }
        if rules.cancels_others {
            canceled += usize::from(delivery.quiet(now).is_some());
        }
    }
    delivery::save(tx, &mut deliveries).await?;
    Ok(canceled)
}
