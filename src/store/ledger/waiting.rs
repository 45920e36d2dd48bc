//! Receipts that came before anybody knew whose message they speak of: they wait in the table, and are applied by
//! whoever learns that first.

use super::{
    attempt::{Place, WorkingSet},
    delivery::{Delivery, StatusUpdate},
};
use crate::{
    domain::{
        delivery::MessageStatus,
        id::{AttemptNo, DeliveryId},
    },
    store::{
        error::StoreError,
        opt_outs,
        query::Query,
        sql::{Rows, Sql, row, sql},
        tx::Tx,
        types::ms,
    },
};
use jiff::{SignedDuration, Timestamp};

/// A message whose attempt is known now.
pub struct Known {
    place: Place,
    id: DeliveryId,
    attempt: AttemptNo,
    message_id: String,
    at: Timestamp,
    poll_after: SignedDuration,
}

impl Known {
    pub fn new(place: Place, delivery: &Delivery, update: &StatusUpdate<'_>) -> Self {
        Self {
            place,
            id: delivery.id.clone(),
            attempt: update.attempt,
            message_id: update.message_id.to_owned(),
            at: update.at,
            poll_after: update.poll_after,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Waiting {
    #[sqlx(try_from = "i64")]
    place: usize,
    id: String,
    status: String,
    news: Option<String>,
    error_code: String,
    read_at: Option<i64>,
    opted_out_at: Option<i64>,
}

row! {
    KnownRow<'a> { place: usize as number, id: &'a DeliveryId as text, attempt: AttemptNo as number, message_id: &'a str as text }
}

/// What came for a message that belongs to its attempt, or to none and names this one.
const WAITING: Sql = sql!(
    "select r.place as place, w.id, w.status, w.news, w.error_code, w.read_at, w.opted_out_at
     from ",
    KnownRow::ROWS,
    " cross join attempt t join receipt w on w.provider = t.provider
     where t.delivery_id = r.id and t.number = r.attempt
        and w.message_id = r.message_id and w.applied_at is null
        and coalesce(t.message_id, w.message_id) = w.message_id
     order by w.received_at, w.id"
);

/// Applies what waits for these messages.
pub async fn apply(tx: &mut Tx, set: &mut WorkingSet, known: &[Known]) -> Result<(), StoreError> {
    if known.is_empty() {
        return Ok(());
    }
    let rows = known.iter().enumerate().map(|(place, known)| KnownRow {
        place,
        id: &known.id,
        attempt: known.attempt,
        message_id: &known.message_id,
    });
    let waiting: Vec<Waiting> = tx.all(WAITING, [rows.collect::<Rows>().into()]).await?;
    let mut applied = Rows::default();
    for waiting in waiting {
        let Some(known) = known.get(waiting.place) else {
            continue;
        };
        let (delivery, attempt) = set.get(known.place);
        if attempt.own_message_id.as_deref() != Some(&known.message_id) {
            continue;
        }
        delivery.update(&StatusUpdate {
            attempt: known.attempt,
            message_id: &known.message_id,
            word: &waiting.status,
            status: waiting.news.as_deref().and_then(MessageStatus::parse),
            error_code: waiting.error_code.parse().ok(),
            at: known.at,
            poll_after: known.poll_after,
        });
        if waiting.read_at.is_some() {
            delivery.keep_read(known.at);
        }
        if waiting.opted_out_at.is_some()
            && let Some(phone) = &delivery.phone
        {
            opt_outs::insert_reported(tx, phone, known.at).await?;
        }
        applied.push(&Applied {
            id: &waiting.id,
            at: ms(known.at),
        });
    }
    tx.queue(MARK_APPLIED, applied);
    Ok(())
}

row! {
    Applied<'a> { id: &'a str as text, at: i64 as number }
}

const MARK_APPLIED: Sql = sql!(
    "update receipt set applied_at = r.at from ",
    Applied::ROWS,
    " where receipt.id = r.id"
);
