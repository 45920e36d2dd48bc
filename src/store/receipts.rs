//! Receipts: kept first, applied to their delivery in the same transaction, and waiting in the table when the message
//! they speak of is not known yet. Absent: signatures (see `carrier::twilio`).

use super::{
    Db, StoreError, Tx, limits, ms, new_id, opt_outs,
    sending::Attempt,
    transitions::{self, Landing, Row, Words, row_columns},
    tx::Rows,
    within,
};
use crate::domain::{
    answer::Receipt,
    day::after,
    delivery::{Change, News, Reason, State},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::{collections::HashMap, sync::Arc};

/// What became of a receipt.
#[derive(Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Its delivery stands at this state now.
    Applied(State),
    /// Nobody knows its message yet; it waits.
    Waiting,
    /// The same was recorded before.
    Repeat,
}

impl Db {
    /// Keeps a receipt and lets it speak for its delivery. Durable when this returns.
    /// A message still on its way is asked about after `poll_after` without further news.
    pub async fn record_receipt(
        &self,
        receipt: Receipt,
        poll_after: SignedDuration,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        self.groups.receive(Received::new(receipt, poll_after, now)).await
    }
}

/// A receipt on its way into a group.
pub(super) struct Received {
    receipt: Receipt,
    poll_after: SignedDuration,
    now: Timestamp,
}

impl Received {
    pub fn new(receipt: Receipt, poll_after: SignedDuration, now: Timestamp) -> Self {
        Self {
            receipt,
            poll_after,
            now,
        }
    }

    fn told(&self) -> Told<'_> {
        Told {
            message_id: &self.receipt.message_id,
            status: &self.receipt.status,
            news: self.receipt.news,
            error_code: self.receipt.error_code,
            at: self.now,
            look_at: after(self.now, self.poll_after),
        }
    }

    /// What makes it unique, in an order that every group keeps.
    fn key(&self) -> impl Ord {
        let receipt = &self.receipt;
        let (delivery_id, attempt) = named(receipt);
        (
            receipt.message_id.clone(),
            receipt.status.clone(),
            receipt.error_code,
            delivery_id.to_owned(),
            attempt,
        )
    }

    /// Whether it is decided together with others.
    pub fn is_plain(&self) -> bool {
        self.plain_news().is_some()
    }

    /// Good news and nothing beside it.
    fn plain_news(&self) -> Option<News> {
        let is_plain = !self.receipt.opted_out && !self.receipt.read;
        self.receipt.news.filter(|news| is_plain && news.is_good())
    }
}

/// What the database knows of a receipt's message.
#[derive(sqlx::FromRow)]
struct Known {
    place: i64,
    number: i64,
    slot_returned_at: Option<i64>,
    /// Whether the attempt is known to have become this message.
    is_own: i64,
    repeats: i64,
    waiting: i64,
    #[sqlx(flatten)]
    row: Row,
}

/// Records receipts in the caller's transaction: good news of known messages all at once, the others one by one. Every
/// delivery that they speak of is locked in one go and in order, so that two groups never wait for each other; what is
/// not known yet is inserted in an order of its own for the same reason.
pub(super) async fn record_all(tx: &mut Tx, receipts: &[Arc<Received>]) -> Result<Vec<Recorded>, StoreError> {
    if receipts.is_empty() {
        return Ok(Vec::new());
    }
    let asked: Rows = receipts
        .iter()
        .enumerate()
        .map(|(place, received)| {
            let receipt = &received.receipt;
            let (delivery_id, attempt) = named(receipt);
            let (provider, message_id) = (receipt.provider.as_str(), &receipt.message_id);
            let code = code_text(receipt);
            (place, provider, message_id, &receipt.status, code, delivery_id, attempt)
        })
        .collect();
    let known: Vec<Known> = tx.ask(KNOWN, "for update of d", [asked.into()]).await?;
    let mut recorded: Vec<Option<Recorded>> = receipts.iter().map(|_| None).collect();
    let (mut deliveries, mut places): (Vec<(Row, bool)>, HashMap<String, usize>) = (Vec::new(), HashMap::new());
    let (mut rows, mut lines) = (Rows::default(), Rows::default());
    for known in known {
        let place = usize::try_from(known.place).unwrap_or(usize::MAX);
        let Some((received, news)) = receipts
            .get(place)
            .and_then(|received| Some((received, received.plain_news()?)))
        else {
            continue;
        };
        if known.repeats > 0 {
            recorded[place] = Some(Recorded::Repeat);
            continue;
        }
        if known.is_own == 0 || known.slot_returned_at.is_some() || known.waiting > 0 {
            continue;
        }
        let attempt = Attempt {
            number: known.number,
            is_newest: known.number == known.row.attempts,
        };
        // Several of one delivery: each sees what those before it did.
        let at = *places.entry(known.row.id.clone()).or_insert_with(|| {
            deliveries.push((known.row, false));
            deliveries.len() - 1
        });
        let (row, has_moved) = &mut deliveries[at];
        if step(row, attempt, &received.told(), news, &mut lines)? {
            *has_moved = true;
            rows.push(&row_of(&received.receipt, Some(received.now), received.now));
            recorded[place] = Some(Recorded::Applied(row.state()?));
        }
    }
    if !rows.is_empty() {
        tx.queue(INSERT, [rows.into()]);
        let moved = deliveries.iter().filter(|(_, has_moved)| *has_moved);
        transitions::save(tx, moved.map(|(row, _)| row), lines);
    }
    let mut others: Vec<(usize, &Arc<Received>)> = receipts.iter().enumerate().collect();
    others.retain(|(place, _)| recorded[*place].is_none());
    others.sort_by(|(_, one), (_, other)| one.key().cmp(&other.key()));
    for (place, received) in others {
        recorded[place] = Some(record_one(tx, received).await?);
    }
    Ok(recorded.into_iter().flatten().collect())
}

/// The attempt that each receipt speaks of: the owner of its message, else the one that our own callback address names.
const KNOWN: &str = concat!(
    "select cast(r.value ->> 0 as bigint) as place, t.number, t.slot_returned_at,
        cast(case when t.message_id = r.value ->> 2 then 1 else 0 end as bigint) as is_own,
        (select count(*) from receipt w where w.provider = t.provider and w.message_id = r.value ->> 2
            and w.status = r.value ->> 3 and w.error_code = r.value ->> 4 and w.delivery_id = r.value ->> 5
            and w.attempt = cast(r.value ->> 6 as bigint)) as repeats,
        (select count(*) from receipt w where w.provider = t.provider and w.message_id = r.value ->> 2
            and w.applied_at is null) as waiting, ",
    row_columns!(),
    " from rows($1) as r cross join attempt t join delivery d on d.id = t.delivery_id
        join alert a on a.id = d.alert_id
     where t.provider = r.value ->> 1
        and t.delivery_id = coalesce((select o.delivery_id from attempt o
            where o.provider = r.value ->> 1 and o.message_id = r.value ->> 2), r.value ->> 5)
        and t.number = coalesce((select o.number from attempt o
            where o.provider = r.value ->> 1 and o.message_id = r.value ->> 2), cast(r.value ->> 6 as bigint))
     order by d.id, cast(r.value ->> 0 as bigint)"
);

/// Records one receipt, whatever it says and whether or not its message is known.
async fn record_one(tx: &mut Tx, received: &Received) -> Result<Recorded, StoreError> {
    let Received {
        receipt,
        poll_after,
        now,
    } = received;
    let (poll_after, now) = (*poll_after, *now);
    let Some(id) = insert(tx, receipt, now).await? else {
        return Ok(Recorded::Repeat);
    };
    let Some((delivery_id, number)) = find_attempt(tx, receipt).await? else {
        return Ok(Recorded::Waiting);
    };
    let Some(mut row) = transitions::lock(tx, &delivery_id).await? else {
        return Ok(Recorded::Waiting);
    };
    let attempt = Attempt {
        number,
        is_newest: number == row.attempts,
    };
    if !own_message(tx, &row, attempt, &receipt.message_id).await? {
        note_other_message(tx, &mut row, attempt, now);
    }
    let told = Told {
        message_id: &receipt.message_id,
        status: &receipt.status,
        news: receipt.news,
        error_code: receipt.error_code,
        at: now,
        look_at: after(now, poll_after),
    };
    let effect = Effect {
        told,
        opted_out: receipt.opted_out,
        read: receipt.read,
    };
    apply(tx, &mut row, attempt, &effect).await?;
    mark_applied(tx, &id, now).await?;
    apply_waiting(tx, &mut row, attempt, &receipt.message_id, after(now, poll_after), now).await?;
    let state = row.state()?;
    Ok(Recorded::Applied(state))
}

/// News of an attempt, whoever brought it.
pub(super) struct Told<'a> {
    pub message_id: &'a str,
    /// The provider's own word.
    pub status: &'a str,
    pub news: Option<News>,
    pub error_code: Option<i64>,
    pub at: Timestamp,
    /// When to ask the provider, if nothing more is heard.
    pub look_at: Timestamp,
}

impl Told<'_> {
    fn words(&self) -> Words {
        Words {
            provider_message_id: Some(self.message_id.to_owned()),
            provider_status: Some(self.status.to_owned()),
            error_code: self.error_code,
            provider_at: Some(ms(self.at)),
        }
    }
}

/// Moves a delivery by news, in memory; says whether it moved. For good news.
pub(super) fn step(
    row: &mut Row,
    attempt: Attempt,
    told: &Told<'_>,
    news: News,
    lines: &mut Rows,
) -> Result<bool, StoreError> {
    let (change, landing) = move_of(attempt, told, news);
    let moved = transitions::step(row, change, landing, told.at, lines)?.is_some();
    if moved {
        row.words = told.words();
    }
    Ok(moved)
}

/// What news would do to a delivery.
fn move_of(attempt: Attempt, told: &Told<'_>, news: News) -> (Change, Landing) {
    let failed = matches!(news, News::Failed | News::Undelivered);
    let code = told
        .error_code
        .map_or_else(String::new, |code| format!(", code {code}"));
    let landing = Landing {
        reason: failed.then_some(Reason::ProviderFailed),
        due_at: matches!(news, News::Accepted | News::Sent).then_some(told.look_at),
        detail: format!("attempt {}: the provider says `{}`{code}", attempt.number, told.status),
        ..Default::default()
    };
    let change = Change::Tell {
        news,
        newest_attempt: attempt.is_newest,
    };
    (change, landing)
}

/// Lets news speak for a delivery: only ever raises its rank, and keeps the provider's own words beside it.
pub(super) async fn tell(tx: &mut Tx, row: &mut Row, attempt: Attempt, told: &Told<'_>) -> Result<(), StoreError> {
    let before = row.state()?;
    let moved = match told.news {
        Some(news) => {
            let (change, landing) = move_of(attempt, told, news);
            transitions::change(tx, row, change, landing, told.at).await?
        }
        None => {
            let detail = format!(
                "attempt {}: the provider says `{}`, which is no status we know",
                attempt.number, told.status
            );
            transitions::note(tx, row, "receipt", &detail, told.at);
            None
        }
    };
    // Beside our state stand the words that led to it; of news that led nowhere, only those of a message still on its way.
    let on_its_way = matches!(
        before,
        State::Accepted | State::Sent | State::Sending | State::Unknown | State::Unconfirmed
    );
    let same_rank = told.news.is_none_or(|news| news.state() == before);
    if moved.is_some() || (attempt.is_newest && on_its_way && same_rank) {
        keep_words(tx, row, told);
    }
    Ok(())
}

fn keep_words(tx: &mut Tx, row: &mut Row, told: &Told<'_>) {
    row.words = told.words();
    tx.queue(
        "update delivery set provider_message_id = r.value ->> 1, provider_status = r.value ->> 2,
            error_code = cast(r.value ->> 3 as bigint), provider_at = cast(r.value ->> 4 as bigint),
            updated_at = cast(r.value ->> 4 as bigint)
         from rows($1) as r where delivery.id = r.value ->> 0",
        [Rows::from_iter([(&row.id, told.message_id, told.status, told.error_code, ms(told.at))]).into()],
    );
}

/// Keeps the code of a refusal beside the delivery.
pub(super) fn keep_code(tx: &mut Tx, row: &mut Row, code: Option<i64>, now: Timestamp) {
    row.words.error_code = code;
    row.words.provider_at = Some(ms(now));
    tx.queue(
        "update delivery set error_code = cast(r.value ->> 1 as bigint), provider_at = cast(r.value ->> 2 as bigint)
         from rows($1) as r where delivery.id = r.value ->> 0",
        [Rows::from_iter([(&row.id, code, ms(now))]).into()],
    );
}

/// Applies receipts that came before anybody knew whose message they speak of.
pub(super) async fn apply_waiting(
    tx: &mut Tx,
    row: &mut Row,
    attempt: Attempt,
    message_id: &str,
    look_at: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let waiting: Vec<WaitingRow> = within!(tx, |conn| {
        sqlx::query_as(
            "select r.id, r.status, r.news, r.error_code, r.read_at, r.opted_out_at from receipt r
         join attempt t on t.provider = r.provider and t.message_id = r.message_id
         where t.delivery_id = $1 and t.number = $2 and r.message_id = $3 and r.applied_at is null
         order by r.received_at, r.id",
        )
        .bind(&row.id)
        .bind(attempt.number)
        .bind(message_id)
        .fetch_all(conn)
        .await
    })?;
    for waiting in waiting {
        let effect = Effect {
            told: Told {
                message_id,
                status: &waiting.status,
                news: waiting.news.as_deref().and_then(News::parse),
                error_code: waiting.error_code.parse().ok(),
                at: now,
                look_at,
            },
            opted_out: waiting.opted_out_at.is_some(),
            read: waiting.read_at.is_some(),
        };
        apply(tx, row, attempt, &effect).await?;
        mark_applied(tx, &waiting.id, now).await?;
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct WaitingRow {
    id: String,
    status: String,
    news: Option<String>,
    error_code: String,
    read_at: Option<i64>,
    opted_out_at: Option<i64>,
}

/// What a receipt does to its delivery.
struct Effect<'a> {
    told: Told<'a>,
    opted_out: bool,
    read: bool,
}

macro_rules! insert_text {
    () => {
        "insert into receipt (id, provider, message_id, status, news, error_code, read_at, opted_out_at, delivery_id,
            attempt, received_at, applied_at)
         select r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5,
            cast(r.value ->> 6 as bigint), cast(r.value ->> 7 as bigint), r.value ->> 8, cast(r.value ->> 9 as bigint),
            cast(r.value ->> 10 as bigint), cast(r.value ->> 11 as bigint)
         from rows($1) as r where true
         on conflict (provider, message_id, status, error_code, delivery_id, attempt) do nothing"
    };
}
const INSERT: &str = insert_text!();

/// Inserts the receipt; `None` if the same was recorded before.
async fn insert(tx: &mut Tx, receipt: &Receipt, now: Timestamp) -> Result<Option<String>, StoreError> {
    let rows = Rows::from_iter([row_of(receipt, None, now)]);
    let inserted: Vec<(String,)> = tx
        .ask(concat!(insert_text!(), " returning id"), "", [rows.into()])
        .await?;
    Ok(inserted.into_iter().next().map(|(id,)| id))
}

/// A row for `INSERT`.
fn row_of(receipt: &Receipt, applied_at: Option<Timestamp>, now: Timestamp) -> impl Serialize {
    let (delivery_id, attempt) = named(receipt);
    (
        new_id(),
        receipt.provider.as_str(),
        receipt.message_id.clone(),
        receipt.status.clone(),
        receipt.news.map(News::as_str),
        code_text(receipt),
        receipt.read.then_some(ms(now)),
        receipt.opted_out.then_some(ms(now)),
        delivery_id.to_owned(),
        attempt,
        ms(now),
        applied_at.map(ms),
    )
}

/// The delivery and attempt that our own callback address named; empty if it named none.
fn named(receipt: &Receipt) -> (&str, i64) {
    receipt
        .attempt
        .as_ref()
        .map_or(("", 0), |(delivery_id, attempt)| (delivery_id.as_str(), *attempt))
}

fn code_text(receipt: &Receipt) -> String {
    receipt.error_code.map_or_else(String::new, |code| code.to_string())
}

/// The attempt that a receipt speaks of: the owner of its message, else the attempt that our own (signed) callback
/// address names.
async fn find_attempt(tx: &mut Tx, receipt: &Receipt) -> Result<Option<(String, i64)>, StoreError> {
    let owner: Option<(String, i64)> = within!(tx, |conn| sqlx::query_as(
        "select delivery_id, number from attempt where provider = $1 and message_id = $2"
    )
    .bind(receipt.provider.as_str())
    .bind(&receipt.message_id)
    .fetch_optional(conn)
    .await)?;
    let Some((delivery_id, number)) = receipt.attempt.as_ref().filter(|_| owner.is_none()) else {
        return Ok(owner);
    };
    Ok(within!(tx, |conn| {
        sqlx::query_as(
            "select delivery_id, number from attempt where delivery_id = $1 and number = $2 and provider = $3",
        )
        .bind(delivery_id)
        .bind(number)
        .bind(receipt.provider.as_str())
        .fetch_optional(conn)
        .await
    })?)
}

/// Notes which message an attempt became, and that it was sent after all if its slot was given back. Returns whether
/// the message is this attempt's own.
pub(super) async fn own_message(
    tx: &mut Tx,
    row: &Row,
    attempt: Attempt,
    message_id: &str,
) -> Result<bool, StoreError> {
    within!(tx, |conn| {
        sqlx::query(
            "update attempt set message_id = $3
            where delivery_id = $1 and number = $2 and message_id is null and not exists (
             select 1 from attempt o where o.provider = attempt.provider and o.message_id = $3)",
        )
        .bind(&row.id)
        .bind(attempt.number)
        .bind(message_id)
        .execute(conn)
        .await
        .map(drop)
    })?;
    let (owned, slot_returned_at): (Option<String>, Option<i64>) = within!(tx, |conn| {
        sqlx::query_as("select message_id, slot_returned_at from attempt where delivery_id = $1 and number = $2")
            .bind(&row.id)
            .bind(attempt.number)
            .fetch_one(conn)
            .await
    })?;
    if slot_returned_at.is_some() {
        limits::retake_slot(tx, &row.id, attempt.number).await?;
    }
    Ok(owned.as_deref() == Some(message_id))
}

/// Notes what must not happen and stops nothing: a second message for one attempt, or one message for two.
pub(super) fn note_other_message(tx: &mut Tx, row: &mut Row, attempt: Attempt, now: Timestamp) {
    tracing::error!(delivery.id = %row.id, attempt = attempt.number, "the provider's messages and our attempts are not one to one");
    let detail = format!(
        "attempt {}: the provider names a message that is not this attempt's own",
        attempt.number
    );
    transitions::note(tx, row, "other_message", &detail, now);
}

async fn apply(tx: &mut Tx, row: &mut Row, attempt: Attempt, effect: &Effect<'_>) -> Result<(), StoreError> {
    tell(tx, row, attempt, &effect.told).await?;
    if effect.read {
        within!(tx, |conn| sqlx::query(
            "update delivery set read_at = coalesce(read_at, $2) where id = $1"
        )
        .bind(&row.id)
        .bind(ms(effect.told.at))
        .execute(conn)
        .await
        .map(drop))?;
    }
    if effect.opted_out
        && let Some(phone) = &row.phone
    {
        opt_outs::insert(tx, phone, None, Some(opt_outs::BY_PROVIDER), effect.told.at).await?;
    }
    Ok(())
}

async fn mark_applied(tx: &mut Tx, id: &str, now: Timestamp) -> Result<(), StoreError> {
    within!(tx, |conn| sqlx::query(
        "update receipt set applied_at = $2 where id = $1"
    )
    .bind(id)
    .bind(ms(now))
    .execute(conn)
    .await
    .map(drop))?;
    Ok(())
}
