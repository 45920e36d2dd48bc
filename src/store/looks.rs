//! Looks: deliveries that the provider has to be asked about, and what came of asking. `unknown` and `unconfirmed` ones
//! are searched for in its list, `accepted` and `sent` ones asked about by their message id. Absent: the asking itself
//! (see `worker::reconcile`).

use super::{
    Connection, Db, Engine, StoreError, Tx,
    alarms::{self, About},
    at, limits, ms, opt_outs, read,
    receipts::{self, Told},
    sending::{Attempt, set_broken_aside},
    session::call,
    transitions::{self, Landing, Row},
    tx::to_json,
    within,
};
use crate::domain::route::ProviderName;
use crate::domain::{
    alarm::AlarmKind,
    clock::Uptime,
    day::{LocalDay, after},
    delivery::{Change, News, Reason, State},
    phone::PhoneNumber,
    search::Listed,
};
use const_format::concatcp;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashSet;

/// A delivery that is due to be asked about, and the newest attempt of it.
#[derive(Debug, Clone)]
pub struct Look {
    pub delivery_id: String,
    pub state: State,
    pub attempt: i64,
    pub provider: String,
    pub account: String,
    pub message_id: Option<String>,
    pub to: PhoneNumber,
    pub message: String,
    pub begun_at: Timestamp,
    /// When its answer was recorded; now, if none was: it may still be written by a process that was frozen.
    pub ended_at: Timestamp,
    /// How often it was looked for since it last moved.
    pub looks: i64,
    pub received_at: Timestamp,
    /// Whether the ticket's end has made it pointless: then it is not sent again, whatever the lists prove.
    pub is_over: bool,
    /// Whether our clock was wrong, or turned, while its outcome was open: then its absence cannot be proven.
    pub is_doubtful: bool,
    /// Which process took it.
    owner: String,
}

#[derive(sqlx::FromRow)]
struct LookRow {
    delivery_id: String,
    state: String,
    attempt: i64,
    provider: String,
    account: String,
    message_id: Option<String>,
    phone: String,
    message: String,
    begun_at: i64,
    answered_at: Option<i64>,
    looks: i64,
    received_at: i64,
    round: i64,
    closed_at: Option<i64>,
    clock_doubtful_at: Option<i64>,
    machine_start: Option<String>,
    begun_uptime: Option<i64>,
}

/// Who asks, and through which account.
#[derive(Clone, Copy, Debug)]
pub struct Looker<'a> {
    /// Marks the leases of this process.
    pub owner: &'a str,
    pub provider: &'a str,
    pub account: &'a str,
    pub lease: SignedDuration,
    /// What the clock reads that nobody turns, if there is one.
    pub uptime: Option<&'a Uptime>,
}

/// Marks the lease of a delivery that is being asked about at this moment: then not even its owner takes it.
const BUSY: &str = "/busy";

/// Deliveries that are due to be asked about: through the account at $4 and $5 (`ours` at $6) or another (`others`), but for
/// the numbers in the JSON at $7.
macro_rules! due_looks {
    ($json:literal) => {
        concatcp!(
            "select d.id from delivery d cross join attempt t
             where t.delivery_id = d.id and t.number = d.attempts
                and d.state in (",
            State::ASKED_ABOUT,
            ") and t.provider in (",
            ProviderName::KNOWN,
            ") and d.due_at <= $2
                and (d.lease_until is null or d.lease_until <= $2 or d.lease_token = $1)
                and case when t.provider = $4 and t.account = $5 then 'ours' else 'others' end = $6
                and d.phone not in (select value from ",
            $json,
            ") order by due_at, id limit $3"
        )
    };
}

/// Takes them.
macro_rules! take_looks {
    ($json:literal, $lock:literal) => {
        concatcp!(
            "update delivery set lease_token = $1 || $9, lease_until = $8, updated_at = $2 where id in (",
            due_looks!($json),
            $lock,
            ") returning id"
        )
    };
}

impl Db {
    /// Takes up to `most` deliveries that are due to be asked about through the looker's own account, none of them for a
    /// number among `but`. The owner keeps them until `now + lease`, so that the looks of one search come from one process,
    /// whose monotonic clock counts the time between them; each comes once until it is looked at again or put back.
    pub async fn take_looks(
        &self,
        looker: Looker<'_>,
        most: i64,
        but: &[&str],
        now: Timestamp,
    ) -> Result<Vec<Look>, StoreError> {
        self.take("ours", looker, most, but, now).await
    }

    /// Takes those of other accounts and providers, which nobody can be asked about.
    pub async fn take_looks_of_others(
        &self,
        looker: Looker<'_>,
        most: i64,
        now: Timestamp,
    ) -> Result<Vec<Look>, StoreError> {
        self.take("others", looker, most, &[], now).await
    }

    async fn take(
        &self,
        whose: &'static str,
        looker: Looker<'_>,
        most: i64,
        but: &[&str],
        now: Timestamp,
    ) -> Result<Vec<Look>, StoreError> {
        let but = to_json(&but);
        let due: Option<String> = match &self.engine {
            Engine::Sqlite { reader, .. } => {
                sqlx::query_scalar(due_looks!("json_each($7)"))
                    .bind(looker.owner)
                    .bind(ms(now))
                    .bind(1_i64)
                    .bind(looker.provider)
                    .bind(looker.account)
                    .bind(whose)
                    .bind(&but)
                    .fetch_optional(reader)
                    .await?
            }
            Engine::Postgres(pool) => {
                let mut session = pool.session().await?;
                call!(session, |conn| sqlx::query_scalar(due_looks!(
                    "json_array_elements_text(cast($7 as json))"
                ))
                .bind(looker.owner)
                .bind(ms(now))
                .bind(1_i64)
                .bind(looker.provider)
                .bind(looker.account)
                .bind(whose)
                .bind(&but)
                .fetch_optional(conn)
                .await)?
            }
        };
        if due.is_none() {
            return Ok(Vec::new());
        }
        let lease_until = ms(after(now, looker.lease));
        let mut tx = self.begin().await?;
        tx.flush().await?;
        let ids: Vec<String> = match &mut tx.connection {
            Connection::Sqlite(held) => {
                sqlx::query_scalar(take_looks!("json_each($7)", ""))
                    .bind(looker.owner)
                    .bind(ms(now))
                    .bind(most)
                    .bind(looker.provider)
                    .bind(looker.account)
                    .bind(whose)
                    .bind(&but)
                    .bind(lease_until)
                    .bind(BUSY)
                    .fetch_all(held.get()?)
                    .await?
            }
            Connection::Postgres(session) => call!(session, |conn| {
                sqlx::query_scalar(take_looks!(
                    "json_array_elements_text(cast($7 as json))",
                    " for update of d skip locked"
                ))
                .bind(looker.owner)
                .bind(ms(now))
                .bind(most)
                .bind(looker.provider)
                .bind(looker.account)
                .bind(whose)
                .bind(&but)
                .bind(lease_until)
                .bind(BUSY)
                .fetch_all(conn)
                .await
            })?,
        };
        let mut looks = Vec::with_capacity(ids.len());
        for id in ids {
            looks.extend(find_look(&mut tx, &id, looker, now).await?);
        }
        tx.commit().await?;
        Ok(looks)
    }

    /// Gives a delivery back that was taken and is not asked about now. Its owner keeps it.
    pub async fn put_look_back(&self, look: &Look) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.queue(
            "update delivery set lease_token = $2 where id = $1 and lease_token = $3",
            [
                look.delivery_id.as_str().into(),
                look.owner.as_str().into(),
                format!("{}{BUSY}", look.owner).as_str().into(),
            ],
        );
        tx.commit().await
    }

    /// Which of these messages belong to attempts already.
    pub async fn owned_messages(&self, provider: &str, list: &[Listed]) -> Result<HashSet<String>, StoreError> {
        let mut owned = HashSet::new();
        for message in list {
            let owner: Option<String> = read!(self, |pool| sqlx::query_scalar(
                "select message_id from attempt where provider = $1 and message_id = $2"
            )
            .bind(provider)
            .bind(&message.message_id)
            .fetch_optional(pool)
            .await)?;
            owned.extend(owner);
        }
        Ok(owned)
    }

    /// Whether a call is under way for the same text to the same number: then a message in the list may be that one's.
    pub async fn has_twin_on_its_way(&self, look: &Look) -> Result<bool, StoreError> {
        let twin: Option<String> = read!(self, |pool| {
            sqlx::query_scalar(
                "select id from delivery
                    where phone = $1 and message = $2 and state = 'sending' and id <> $3 limit 1",
            )
            .bind(look.to.as_e164())
            .bind(&look.message)
            .bind(&look.delivery_id)
            .fetch_optional(pool)
            .await
        })?;
        Ok(twin.is_some())
    }

    /// The provider has it, or told more of it. Returns whether that moved the delivery: not if the message turns out to
    /// be another attempt's.
    pub async fn record_found(
        &self,
        look: &Look,
        found: &Listed,
        poll_after: SignedDuration,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut row) = lock_unmoved(&mut tx, look).await? else {
            return Ok(false);
        };
        // The message may be an older attempt's, whose good news counts and whose bad news does not.
        let owner: Option<i64> = within!(tx, |conn| {
            sqlx::query_scalar(
                "select number from attempt where provider = $1 and message_id = $2 and delivery_id = $3",
            )
            .bind(&look.provider)
            .bind(&found.message_id)
            .bind(&look.delivery_id)
            .fetch_optional(conn)
            .await
        })?;
        let number = owner.unwrap_or(look.attempt);
        let attempt = Attempt {
            number,
            is_newest: number == row.attempts,
        };
        let look_at = after(now, poll_after);
        if !receipts::own_message(&mut tx, &row, attempt, &found.message_id).await? {
            return Ok(false);
        }
        let mut told = Told {
            message_id: &found.message_id,
            status: &found.status,
            news: Some(News::Accepted),
            error_code: None,
            at: now,
            look_at,
        };
        receipts::tell(&mut tx, &mut row, attempt, &told).await?;
        if found.news != told.news {
            (told.news, told.error_code) = (found.news, found.error_code);
            receipts::tell(&mut tx, &mut row, attempt, &told).await?;
        }
        if found.opted_out {
            opt_outs::insert(&mut tx, look.to.as_e164(), None, Some(opt_outs::BY_PROVIDER), now).await?;
        }
        receipts::apply_waiting(&mut tx, &mut row, attempt, &found.message_id, look_at, now).await?;
        let moved = row.state()? != look.state;
        tx.commit().await?;
        Ok(moved)
    }

    /// The provider's lists prove that it never had it: the slot goes back, and it is owed again. Returns whether it was
    /// recorded: not if meanwhile it moved, or its time became doubtful.
    pub async fn record_absent(
        &self,
        look: &Look,
        day: LocalDay,
        configured_limit: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        limits::lock_day(&mut tx, day).await?;
        let Some(mut row) = lock_unmoved(&mut tx, look).await? else {
            return Ok(false);
        };
        let recorded = within!(tx, |conn| {
            sqlx::query(
                "update attempt set outcome = case when outcome = 'broken' then outcome else 'absent' end
             where delivery_id = $1 and number = $2 and clock_doubtful_at is null",
            )
            .bind(&look.delivery_id)
            .bind(look.attempt)
            .execute(conn)
            .await
            .map(|done| done.rows_affected())
        })?;
        if recorded == 0 {
            return Ok(false);
        }
        let detail = format!(
            "attempt {}: the provider's lists prove that it was never sent",
            look.attempt
        );
        transitions::not_sent(
            &mut tx,
            &mut row,
            Landing {
                due_at: Some(now),
                detail,
                ..Default::default()
            },
            now,
        )
        .await?;
        set_broken_aside(&mut tx, &mut row, now).await?;
        limits::return_slot(&mut tx, &look.delivery_id, look.attempt, now).await?;
        limits::release(&mut tx, day, configured_limit, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The provider's lists do not have it, and it is not to be sent again by itself: a person decides.
    pub async fn record_not_found(
        &self,
        look: &Look,
        look_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.give_up(
            look,
            Some(Reason::NotFound),
            "the provider's lists do not have it, and `sms.resend_when_absent` is off",
            look_at,
            now,
        )
        .await
    }

    /// Looking led nowhere: people are warned, and the next look is at `look_at` (`None`: never again).
    pub async fn record_cannot_tell(
        &self,
        look: &Look,
        look_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.give_up(look, None, "nobody can tell whether the provider had it", look_at, now)
            .await
    }

    async fn give_up(
        &self,
        look: &Look,
        reason: Option<Reason>,
        why: &str,
        look_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut row) = lock_unmoved(&mut tx, look).await? else {
            return Ok(());
        };
        let landing = Landing {
            reason,
            due_at: look_at,
            detail: format!("attempt {}: {why}", look.attempt),
            ..Default::default()
        };
        if transitions::change(&mut tx, &mut row, Change::GiveUp, landing, now)
            .await?
            .is_some()
        {
            let id = &look.delivery_id;
            let detail = format!("delivery {id} may or may not have been sent ({why})");
            let about = About {
                alert_id: Some(&row.alert_id),
                delivery_id: Some(id),
            };
            let subject = format!("{id}/{}", look.attempt);
            alarms::raise(&mut tx, AlarmKind::Unconfirmed, &subject, about, detail, now).await?;
        }
        tx.commit().await
    }

    /// Nothing new: the next look is at `look_at` (`None`: it is settled as it stands). Kept by its owner until then.
    pub async fn look_again(
        &self,
        look: &Look,
        look_at: Option<Timestamp>,
        lease: SignedDuration,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        within!(tx, |conn| {
            sqlx::query(
                "update delivery set due_at = $2, lease_until = $3, lease_token = $6, looks = looks + 1, updated_at = $7
                where id = $1 and state = $4 and attempts = $5",
            )
            .bind(&look.delivery_id)
            .bind(look_at.map(ms))
            .bind(look_at.map(|look_at| ms(after(look_at, lease))))
            .bind(look.state.as_str())
            .bind(look.attempt)
            .bind(&look.owner)
            .bind(ms(now))
            .execute(conn)
            .await
            .map(drop)
        })?;
        tx.commit().await
    }
}

async fn find_look(tx: &mut Tx, id: &str, looker: Looker<'_>, now: Timestamp) -> Result<Option<Look>, StoreError> {
    let row: Option<LookRow> = within!(tx, |conn| {
        sqlx::query_as(
            "select d.id as delivery_id, d.state, t.number as attempt, t.provider, t.account,
            coalesce(d.provider_message_id, t.message_id) as message_id, d.phone, d.message, t.begun_at,
             t.answered_at, d.looks, d.received_at, d.round, a.closed_at, t.clock_doubtful_at, t.machine_start,
             t.begun_uptime
         from delivery d join alert a on a.id = d.alert_id
             join attempt t on t.delivery_id = d.id and t.number = d.attempts where d.id = $1",
        )
        .bind(id)
        .fetch_optional(conn)
        .await
    })?;
    let Some(row) = row else { return Ok(None) };
    let state = State::parse(&row.state).ok_or(StoreError::Unreadable {
        what: "the delivery state",
        value: row.state,
    })?;
    let written = (at(row.begun_at), row.answered_at.map_or(now, at));
    let begun = row.machine_start.zip(row.begun_uptime);
    let begun = begun.map(|(machine_start, ms)| Uptime { machine_start, ms });
    let (begun_at, ended_at) = match (looker.uptime, begun) {
        (Some(uptime), Some(begun)) => uptime.span_of(&begun, written, now),
        (Some(_) | None, _) => written,
    };
    Ok(Some(Look {
        delivery_id: row.delivery_id,
        state,
        attempt: row.attempt,
        provider: row.provider,
        account: row.account,
        message_id: row.message_id,
        to: PhoneNumber::from_stored(row.phone),
        message: row.message,
        begun_at,
        ended_at,
        looks: row.looks,
        received_at: at(row.received_at),
        is_over: row.closed_at.is_some() && row.round == 0,
        is_doubtful: row.clock_doubtful_at.is_some(),
        owner: looker.owner.to_owned(),
    }))
}

/// Locks the delivery if it still stands where the look found it.
async fn lock_unmoved(tx: &mut Tx, look: &Look) -> Result<Option<Row>, StoreError> {
    let Some(row) = transitions::lock(tx, &look.delivery_id).await? else {
        return Ok(None);
    };
    let unmoved = row.state()? == look.state && row.attempts == look.attempt;
    Ok(unmoved.then_some(row))
}
