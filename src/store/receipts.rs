//! Receipts: kept first, applied to their delivery in the same transaction, and waiting in the table when the message
//! they speak of is not known yet. Absent: signatures (see `provider::twilio`).

use super::{
    Db, StoreError, Tx, limits, ms, new_id, opt_outs,
    sending::Attempt,
    transitions::{self, Landing, Row},
    within,
};
use crate::domain::{
    day::after,
    delivery::{Change, News, Reason, State},
    news::Receipt,
};
use jiff::{SignedDuration, Timestamp};

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
        receipt: &Receipt,
        poll_after: SignedDuration,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        let mut tx = self.begin().await?;
        let Some(id) = insert(&mut tx, receipt, now).await? else {
            return Ok(Recorded::Repeat);
        };
        let Some((delivery_id, number)) = find_attempt(&mut tx, receipt).await? else {
            tx.commit().await?;
            return Ok(Recorded::Waiting);
        };
        let Some(mut row) = transitions::lock(&mut tx, &delivery_id).await? else {
            tx.commit().await?;
            return Ok(Recorded::Waiting);
        };
        let attempt = Attempt {
            number,
            is_newest: number == row.attempts,
        };
        if !own_message(&mut tx, &row, attempt, &receipt.message_id).await? {
            note_other_message(&mut tx, &row, attempt, now).await?;
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
        apply(&mut tx, &mut row, attempt, &effect).await?;
        mark_applied(&mut tx, &id, now).await?;
        apply_waiting(
            &mut tx,
            &mut row,
            attempt,
            &receipt.message_id,
            after(now, poll_after),
            now,
        )
        .await?;
        let state = row.state()?;
        tx.commit().await?;
        Ok(Recorded::Applied(state))
    }
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

/// Lets news speak for a delivery: only ever raises its rank, and keeps the provider's own words beside it.
pub(super) async fn tell(tx: &mut Tx, row: &mut Row, attempt: Attempt, told: &Told<'_>) -> Result<(), StoreError> {
    let before = row.state()?;
    let moved = match told.news {
        Some(news) => {
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
            transitions::change(
                tx,
                row,
                Change::Tell {
                    news,
                    newest_attempt: attempt.is_newest,
                },
                landing,
                told.at,
            )
            .await?
        }
        None => {
            transitions::note(
                tx,
                &row.id,
                "receipt",
                &format!(
                    "attempt {}: the provider says `{}`, which is no status we know",
                    attempt.number, told.status
                ),
                told.at,
            )
            .await?;
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
        keep_words(tx, &row.id, told).await?;
    }
    Ok(())
}

async fn keep_words(tx: &mut Tx, delivery_id: &str, told: &Told<'_>) -> Result<(), StoreError> {
    within!(tx, |conn| {
        sqlx::query(
            "update delivery set provider_message_id = $2, provider_status = $3, error_code = $4, provider_at = $5,
            updated_at = $5
         where id = $1",
        )
        .bind(delivery_id)
        .bind(told.message_id)
        .bind(told.status)
        .bind(told.error_code)
        .bind(ms(told.at))
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

/// Keeps the code of a refusal beside the delivery.
pub(super) async fn keep_code(
    tx: &mut Tx,
    delivery_id: &str,
    code: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    within!(tx, |conn| sqlx::query(
        "update delivery set error_code = $2, provider_at = $3 where id = $1"
    )
    .bind(delivery_id)
    .bind(code)
    .bind(ms(now))
    .execute(conn)
    .await
    .map(drop))?;
    Ok(())
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

/// Inserts the receipt; `None` if the same was recorded before.
async fn insert(tx: &mut Tx, receipt: &Receipt, now: Timestamp) -> Result<Option<String>, StoreError> {
    let (delivery_id, attempt) = receipt
        .attempt
        .as_ref()
        .map_or(("", 0), |(delivery_id, attempt)| (delivery_id.as_str(), *attempt));
    Ok(within!(tx, |conn| {
        sqlx::query_scalar(
            "insert into receipt (id, provider, message_id, status, news, error_code, read_at, opted_out_at,
            delivery_id, attempt, received_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (provider, message_id, status, error_code, delivery_id, attempt) do nothing returning id",
        )
        .bind(new_id())
        .bind(receipt.provider.as_str())
        .bind(&receipt.message_id)
        .bind(&receipt.status)
        .bind(receipt.news.map(News::as_str))
        .bind(receipt.error_code.map_or_else(String::new, |code| code.to_string()))
        .bind(receipt.read.then_some(ms(now)))
        .bind(receipt.opted_out.then_some(ms(now)))
        .bind(delivery_id)
        .bind(attempt)
        .bind(ms(now))
        .fetch_optional(conn)
        .await
    })?)
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
pub(super) async fn note_other_message(
    tx: &mut Tx,
    row: &Row,
    attempt: Attempt,
    now: Timestamp,
) -> Result<(), StoreError> {
    tracing::error!(delivery.id = %row.id, attempt = attempt.number, "the provider's messages and our attempts are not one to one");
    let detail = format!(
        "attempt {}: the provider names a message that is not this attempt's own",
        attempt.number
    );
    transitions::note(tx, &row.id, "other_message", &detail, now).await
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
