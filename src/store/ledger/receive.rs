//! Recording receipts: kept, and applied to their delivery in the same transaction; or waiting in the table while nobody
//! knows their message. Absent: signatures and the provider's words (see `carrier`).

use super::{
    attempt::{self, Located, WorkingSet},
    delivery::StatusUpdate,
    waiting,
};
use crate::{
    domain::{answer::Receipt, delivery::MessageStatus},
    store::{
        error::StoreError,
        jobs::{Received, Recorded},
        opt_outs,
        query::Query,
        sql::{Rows, Sql, row, sql},
        tx::Tx,
        types::{ms, new_id},
    },
};
use std::collections::HashSet;

/// The attempt that a receipt speaks of, its delivery locked: the owner of its message, else the one that our own (signed)
/// callback address names.
#[derive(sqlx::FromRow)]
struct Found {
    #[sqlx(try_from = "i64")]
    place: usize,
    #[sqlx(flatten)]
    located: Located,
    /// How many receipts are the same.
    repeats: i64,
}

row! {
    AskRow<'a>(place: usize, key: &'a Key<'a>) {
        place: number = place,
        message_id: text = key.message_id,
        status: text = key.status,
        code: text = key.code,
        id: text = key.id,
        attempt: number = key.attempt,
        provider: text = key.provider,
    }
}

const FIND: Sql = sql!(
    "select r.place as place,
        (select count(*) from receipt w where w.provider = t.provider and w.message_id = r.message_id
            and w.status = r.status and w.error_code = r.code
            and w.delivery_id = r.id and w.attempt = r.attempt) as repeats, ",
    attempt::LOCATED,
    " from ",
    AskRow::ROWS,
    " cross join attempt t join delivery d on d.id = t.delivery_id
        left join alert a on a.id = d.alert_id
     where t.provider = r.provider
        and t.delivery_id = coalesce((select o.delivery_id from attempt o
            where o.provider = r.provider and o.message_id = r.message_id), r.id)
        and t.number = coalesce((select o.number from attempt o
            where o.provider = r.provider and o.message_id = r.message_id),
            r.attempt)
     order by d.id, r.place for update of d"
);

/// What makes a receipt the same as another: no two rows have it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key<'a> {
    message_id: &'a str,
    status: &'a str,
    /// Empty if there is none.
    code: String,
    /// What our own callback address named; empty if it named nothing.
    id: &'a str,
    attempt: i64,
    provider: &'static str,
}

impl<'a> Key<'a> {
    fn of(receipt: &'a Receipt) -> Self {
        let (id, attempt) = receipt
            .attempt
            .as_ref()
            .map_or(("", 0), |(id, attempt)| (id.as_str(), *attempt));
        Self {
            message_id: &receipt.message_id,
            status: &receipt.word,
            code: receipt.error_code.map_or_else(String::new, |code| code.to_string()),
            id,
            attempt,
            provider: receipt.provider.as_str(),
        }
    }
}

/// Records receipts in the caller's transaction. Every delivery that they speak of is locked in one go and in order, so that
/// two batches never wait for each other; they are inserted in an order of their own for the same reason.
pub async fn receive(tx: &mut Tx, receipts: &[&Received]) -> Result<Vec<Recorded>, StoreError> {
    if receipts.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<Key<'_>> = receipts.iter().map(|received| Key::of(&received.receipt)).collect();
    let asked = keys.iter().enumerate().map(|(place, key)| AskRow { place, key });
    let found: Vec<Found> = tx.all(FIND, [asked.collect::<Rows>().into()]).await?;

    let mut recorded: Vec<Recorded> = receipts.iter().map(|_| Recorded::Waiting).collect();
    let (mut set, mut known, mut seen) = (WorkingSet::default(), Vec::new(), HashSet::new());
    for found in found {
        let (place, located) = (found.place, found.located);
        let (Some(received), Some(key)) = (receipts.get(place), keys.get(place)) else {
            continue;
        };
        if found.repeats > 0 || !seen.insert(key) {
            recorded[place] = Recorded::Repeat;
            continue;
        }
        let at = set.add(located.delivery, located.attempt);
        let (delivery, attempt) = set.get(at);
        let update = StatusUpdate {
            attempt: attempt.number,
            message_id: &received.receipt.message_id,
            word: &received.receipt.word,
            status: received.receipt.status,
            error_code: received.receipt.error_code,
            at: received.now,
            poll_after: received.poll_after,
        };
        if !attempt.own(update.message_id, located.owners) {
            delivery.note_other_message(attempt.number, received.now);
        }
        delivery.update(&update);
        if received.receipt.read {
            delivery.keep_read(received.now);
        }
        if received.receipt.opted_out
            && let Some(phone) = delivery.phone.clone()
        {
            opt_outs::insert_reported(tx, &phone, received.now).await?;
        }
        if located.waiting > 0 {
            known.push(waiting::Known::new(at, delivery, &update));
        }
        recorded[place] = Recorded::Applied(delivery.state);
    }
    waiting::apply(tx, &mut set, &known).await?;
    insert(tx, receipts, &keys, &mut recorded).await?;
    set.save(tx).await?;
    Ok(recorded)
}

row! {
    NewRow<'a>(row: &'a str, key: &'a Key<'a>, receipt: &'a Receipt, at: i64, is_applied: bool) {
        row: text = row,
        message_id: text = key.message_id,
        status: text = key.status,
        code: text = key.code,
        id: text = key.id,
        attempt: number = key.attempt,
        provider: text = key.provider,
        news: text = receipt.status.map(MessageStatus::as_str),
        read_at: number = receipt.read.then_some(at),
        opted_out_at: number = receipt.opted_out.then_some(at),
        received_at: number = at,
        applied_at: number = is_applied.then_some(at),
    }
}

const INSERT: &str = const_format::concatcp!(
    "insert into receipt (id, provider, message_id, status, news, error_code, read_at, opted_out_at, delivery_id, attempt,
        received_at, applied_at)
     select r.row, r.provider, r.message_id, r.status, r.news, r.code, r.read_at, r.opted_out_at, r.id, r.attempt,
        r.received_at, r.applied_at
     from ",
    NewRow::ROWS,
    " where true on conflict (provider, message_id, status, error_code, delivery_id, attempt) do nothing"
);

/// Keeps receipts: those that were applied, and those that wait, of which it is said here which are new.
async fn insert(
    tx: &mut Tx,
    receipts: &[&Received],
    keys: &[Key<'_>],
    recorded: &mut [Recorded],
) -> Result<(), StoreError> {
    const KEEP: Sql = sql!(INSERT);
    const KEEP_WAITING: Sql = sql!(INSERT, " returning id");
    let mut ordered: Vec<usize> = (0..receipts.len()).collect();
    ordered.sort_unstable_by_key(|place| &keys[*place]);
    let (mut applied, mut waiting, mut rows_of) = (Rows::default(), Rows::default(), Vec::new());
    for place in ordered {
        let (Received { receipt, now, .. }, key) = (receipts[place], &keys[place]);
        let is_applied = match &recorded[place] {
            Recorded::Applied(_) => true,
            Recorded::Repeat => continue,
            Recorded::Waiting => false,
        };
        let id = new_id();
        let row = NewRow {
            row: &id,
            key,
            receipt,
            at: ms(*now),
            is_applied,
        };
        if is_applied {
            applied.push(&row);
        } else {
            waiting.push(&row);
            rows_of.push((place, id));
        }
    }
    tx.queue(KEEP, applied);
    if waiting.is_empty() {
        return Ok(());
    }
    let new: Vec<String> = tx.scalars(KEEP_WAITING, [waiting.into()]).await?;
    let new: HashSet<String> = new.into_iter().collect();
    for (place, row) in rows_of {
        if !new.contains(&row) {
            recorded[place] = Recorded::Repeat;
        }
    }
    Ok(())
}
