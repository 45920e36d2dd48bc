//! Holding deliveries back because a person wants it: canceled, unless a call to the provider has begun.

use super::delivery::{self, Delivery, Landing};
use crate::{
    domain::{
        delivery::{Change, Reason, State},
        id::DeliveryId,
    },
    store::{
        Db,
        error::StoreError,
        query::Query,
        sql::{Sql, args, sql},
    },
};
use jiff::Timestamp;

/// What became of a request to cancel a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canceled {
    Now,
    /// It was canceled before.
    Already,
    /// It is being sent, or has ended.
    TooLate(State),
    NoSuchDelivery,
}

impl Db {
    /// Cancels a delivery whose send has not begun.
    pub async fn cancel(&self, id: &DeliveryId, now: Timestamp) -> Result<Canceled, StoreError> {
        let mut tx = self.begin().await?;
        let mut locked = delivery::lock(&mut tx, std::slice::from_ref(id)).await?;
        let Some(found) = locked.first_mut() else {
            return Ok(Canceled::NoSuchDelivery);
        };
        if !cancel(found, now) {
            return Ok(match found.state {
                State::Canceled => Canceled::Already,
                state => Canceled::TooLate(state),
            });
        }
        delivery::save(&mut tx, &mut locked).await?;
        tx.commit().await?;
        Ok(Canceled::Now)
    }

    /// Cancels the deliveries of an alert whose send has not begun. How many those were; `None` if there is no such alert.
    pub async fn cancel_alert(&self, alert_id: &str, now: Timestamp) -> Result<Option<usize>, StoreError> {
        const ALERT: Sql = sql!("update alert set closed_at = closed_at where id = $1 returning id");
        const DELIVERIES: Sql = sql!("select id from delivery where alert_id = $1");
        let mut tx = self.begin().await?;
        // Its row is locked first, as by every event of its ticket: none adds a delivery meanwhile.
        if !tx.exists(ALERT, args![alert_id]).await? {
            return Ok(None);
        }
        let ids: Vec<DeliveryId> = tx.scalars(DELIVERIES, args![alert_id]).await?;
        let mut locked = delivery::lock(&mut tx, &ids).await?;
        let canceled = locked.iter_mut().map(|found| usize::from(cancel(found, now))).sum();
        delivery::save(&mut tx, &mut locked).await?;
        tx.commit().await?;
        Ok(Some(canceled))
    }
}

/// Whether it could be canceled.
fn cancel(delivery: &mut Delivery, now: Timestamp) -> bool {
    let landing = Landing {
        reason: Some(Reason::Canceled),
        detail: "an admin canceled it before it was sent".into(),
        ..Default::default()
    };
    delivery.apply(Change::Cancel, landing, now).is_some()
}
