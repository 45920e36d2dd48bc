//! The two transactions around a call to the provider. `begin_send` is durable before the call and takes everything
//! the call needs; `finish` records the answer. Between them nothing is open: a crash there leaves a `sending` row whose
//! lease ends, and the sweep makes that `unknown`.

use super::{
    Claimed, Db, StoreError, Tx,
    alarms::{self, About},
    at, holds, limits, ms, opt_outs,
    receipts::{self, Told},
    transitions::{self, Landing, Row},
    within,
};
use crate::domain::{
    alarm::AlarmKind,
    day::{LocalDay, after},
    delivery::{BeforeSend, Change, Gate, News, ProviderName, Reason, State, back_off},
    news::Answer,
    phone::PhoneNumber,
};
use jiff::{SignedDuration, Timestamp};

/// How long a delivery steps aside for those before it in the line.
const A_MOMENT: SignedDuration = SignedDuration::from_millis(500);

/// What `begin_send` decides by.
#[derive(Clone, Copy, Debug)]
pub struct BeginRules<'a> {
    pub provider: ProviderName,
    /// The provider's account that the attempt goes through.
    pub account: &'a str,
    /// Today, in the configured zone.
    pub day: LocalDay,
    /// When tomorrow begins.
    pub tomorrow: Timestamp,
    /// The limit of the configuration; an admin's own wins.
    pub configured_limit: i64,
    pub lease: SignedDuration,
    pub expire_after: SignedDuration,
}

/// The right to call the provider once, for one attempt. Not `Clone`: `finish` uses it up.
#[derive(Debug)]
pub struct Sending {
    pub delivery_id: String,
    /// Numbered from 1.
    pub attempt: i64,
    pub to: PhoneNumber,
    pub message: String,
    /// The call must be over by then; afterwards others may take it for lost.
    pub deadline_at: Timestamp,
}

/// What became of a claimed delivery.
pub enum Begun {
    /// Call the provider.
    Send(Sending),
    /// It may not be sent now, and moved to this state.
    Stopped(State),
    /// Others are before it in the line for the last slots; it is due again in a moment.
    Later,
    /// The lease was lost, or somebody else moved it: nothing to do.
    Gone,
}

/// What `finish` decides by.
#[derive(Clone, Copy, Debug)]
pub struct FinishRules {
    /// Today, in the configured zone.
    pub day: LocalDay,
    pub configured_limit: i64,
    /// From 0 to 1; spreads the next tries of many deliveries.
    pub jitter: f64,
    /// How long an accepted message may stay silent before it is asked about.
    pub poll_after: SignedDuration,
}

impl Db {
    /// Decides whether a claimed delivery may be sent now and, if so, makes the attempt durable with its slot.
    pub async fn begin_send(
        &self,
        claim: &Claimed,
        rules: BeginRules<'_>,
        now: Timestamp,
    ) -> Result<Begun, StoreError> {
        let mut tx = self.begin().await?;
        let used = limits::lock_day(&mut tx, rules.day).await?;
        let Some(mut row) = transitions::lock(&mut tx, &claim.delivery_id).await? else {
            return Ok(Begun::Gone);
        };
        if row.state()? != State::Pending || row.lease_token.as_deref() != Some(&claim.token) {
            return Ok(Begun::Gone);
        }
        row.channel()?;
        let Some(phone) = row.phone.clone().map(PhoneNumber::from_stored) else {
            return Err(StoreError::Unreadable {
                what: "a pending delivery without a phone",
                value: row.id,
            });
        };

        let free_slots = limits::limit(&mut tx, rules.configured_limit).await? - used;
        let ahead = if free_slots > 0 {
            limits::count_ahead(&mut tx, &row.id, row.received_at, free_slots, now).await?
        } else {
            0
        };
        let gate = BeforeSend {
            now,
            received_at: at(row.received_at),
            expire_after: rules.expire_after,
            ticket_closed: row.is_over(),
            opted_out: opt_outs::contains(&mut tx, phone.as_e164()).await?,
            free_slots,
            ahead,
        }
        .decide();
        let begun = match gate {
            Gate::Stop(change, reason) => stop(&mut tx, &mut row, change, reason, rules, now).await?,
            Gate::Wait => {
                ask_again(&mut tx, &row.id, now).await?;
                Begun::Later
            }
            Gate::Send => Begun::Send(begin_attempt(&mut tx, &mut row, phone, rules, now).await?),
        };
        tx.commit().await?;
        Ok(begun)
    }

    /// Records what the provider answered. A late answer, after others took the attempt for lost, counts as news.
    pub async fn finish(
        &self,
        sending: &Sending,
        answer: &Answer,
        rules: FinishRules,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let gives_slot_back = matches!(answer, Answer::NotSent { .. } | Answer::Halted { .. });
        if gives_slot_back {
            limits::lock_day(&mut tx, rules.day).await?;
        }
        let Some(mut row) = transitions::lock(&mut tx, &sending.delivery_id).await? else {
            return Ok(());
        };
        let attempt = Attempt {
            number: sending.attempt,
            is_newest: sending.attempt == row.attempts,
        };
        record_answer(&mut tx, sending, answer, now).await?;
        match answer {
            Answer::Accepted {
                message_id,
                status,
                news,
            } => {
                let look_at = after(now, rules.poll_after);
                if !receipts::own_message(&mut tx, &row, attempt, message_id).await? {
                    receipts::note_other_message(&mut tx, &row, attempt, now).await?;
                }
                let mut told = Told {
                    message_id,
                    status,
                    news: Some(News::Accepted),
                    error_code: None,
                    at: now,
                    look_at,
                };
                receipts::tell(&mut tx, &mut row, attempt, &told).await?;
                if *news != told.news {
                    told.news = *news;
                    receipts::tell(&mut tx, &mut row, attempt, &told).await?;
                }
                receipts::apply_waiting(&mut tx, &mut row, attempt, message_id, look_at, now).await?;
            }
            Answer::NotSent { retry_after, why, code } if attempt.is_newest => {
                let wait = back_off(row.attempts, *retry_after, rules.jitter);
                let landing = Landing {
                    due_at: Some(after(now, wait)),
                    detail: not_sent_detail(attempt.number, why, *code, wait),
                    ..Default::default()
                };
                transitions::not_sent(&mut tx, &mut row, landing, now).await?;
            }
            Answer::Halted { code } if attempt.is_newest => {
                let code_text = code.map_or_else(String::new, |code| format!(" (code {code})"));
                let landing = Landing {
                    reason: Some(Reason::ProviderRefusedCredentials),
                    due_at: Some(now),
                    detail: format!(
                        "attempt {}: the provider refused our account{code_text}; held until it accepts us",
                        attempt.number
                    ),
                    ..Default::default()
                };
                transitions::not_sent(&mut tx, &mut row, landing, now).await?;
                let (provider, account) = account_of(&mut tx, sending).await?;
                holds::hold(&mut tx, &provider, &account, *code, now).await?;
            }
            Answer::Refused { code, opted_out } if attempt.is_newest => {
                if *opted_out && let Some(phone) = &row.phone {
                    opt_outs::insert(&mut tx, phone, None, Some(opt_outs::BY_PROVIDER), now).await?;
                }
                let code_text = code.map_or_else(String::new, |code| format!(" with code {code}"));
                let landing = Landing {
                    reason: Some(Reason::Refused),
                    detail: format!("attempt {}: the provider refused it{code_text}", attempt.number),
                    ..Default::default()
                };
                if transitions::change(&mut tx, &mut row, Change::Refuse, landing, now)
                    .await?
                    .is_some()
                {
                    receipts::keep_code(&mut tx, &row.id, *code, now).await?;
                }
            }
            Answer::Unknown { why } if attempt.is_newest => {
                let landing = Landing {
                    due_at: Some(now),
                    detail: format!("attempt {}: {why}; the provider may have it", attempt.number),
                    ..Default::default()
                };
                let was_written_off = row.state()? != State::Sending;
                let moved = transitions::change(&mut tx, &mut row, Change::Lose, landing, now).await?;
                if moved.is_some() && was_written_off {
                    limits::retake_slot(&mut tx, &row.id, attempt.number).await?;
                }
            }
            // An older attempt was overtaken; its answer is on its own row.
            Answer::NotSent { .. } | Answer::Halted { .. } | Answer::Refused { .. } | Answer::Unknown { .. } => {}
        }
        if gives_slot_back {
            limits::return_slot(&mut tx, &sending.delivery_id, sending.attempt, now).await?;
            limits::release(&mut tx, rules.day, rules.configured_limit, now).await?;
        }
        tx.commit().await
    }
}

/// One attempt of a delivery.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub number: i64,
    pub is_newest: bool,
}

async fn stop(
    tx: &mut Tx,
    row: &mut Row,
    change: Change,
    reason: Reason,
    rules: BeginRules<'_>,
    now: Timestamp,
) -> Result<Begun, StoreError> {
    let is_deferred = change == Change::Defer;
    let detail = match reason {
        Reason::TicketClosed => "the ticket is no longer critical",
        Reason::OptedOut => "this person opted out",
        Reason::Expired => "it waited too long to be of use",
        _ => "the daily limit is reached",
    };
    let landing = Landing {
        reason: Some(reason),
        due_at: is_deferred.then_some(rules.tomorrow),
        detail: detail.into(),
        ..Default::default()
    };
    let state = transitions::change(tx, row, change, landing, now).await?;
    if is_deferred {
        let limit = limits::limit(tx, rules.configured_limit).await?;
        let detail = format!(
            "the daily limit of {limit} is reached on {}: what comes now waits",
            rules.day
        );
        alarms::raise(
            tx,
            AlarmKind::LimitReached,
            &rules.day.to_string(),
            About::default(),
            detail,
            now,
        )
        .await?;
    }
    Ok(state.map_or(Begun::Gone, Begun::Stopped))
}

/// Puts the delivery back into the line for a moment. Not a move: nothing is written on its timeline.
async fn ask_again(tx: &mut Tx, id: &str, now: Timestamp) -> Result<(), StoreError> {
    within!(tx, |conn| {
        sqlx::query(
            "update delivery set lease_token = null, lease_until = null, claims = claims - 1,
            due_at = $2 where id = $1",
        )
        .bind(id)
        .bind(ms(after(now, A_MOMENT)))
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

async fn begin_attempt(
    tx: &mut Tx,
    row: &mut Row,
    to: PhoneNumber,
    rules: BeginRules<'_>,
    now: Timestamp,
) -> Result<Sending, StoreError> {
    let deadline_at = after(now, rules.lease);
    let landing = Landing {
        lease_until: Some(deadline_at),
        detail: format!("attempt {} by {}", row.attempts + 1, rules.provider),
        ..Default::default()
    };
    transitions::change(tx, row, Change::Begin, landing, now).await?;
    limits::take_slot(tx, rules.day).await?;
    within!(tx, |conn| sqlx::query(
        "update delivery set provider = $2 where id = $1"
    )
    .bind(&row.id)
    .bind(rules.provider.as_str())
    .execute(conn)
    .await
    .map(drop))?;
    within!(tx, |conn| {
        sqlx::query(
            "insert into attempt (delivery_id, number, provider, account, limit_day, begun_at, deadline_at)
            values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&row.id)
        .bind(row.attempts)
        .bind(rules.provider.as_str())
        .bind(rules.account)
        .bind(rules.day.to_string())
        .bind(ms(now))
        .bind(ms(deadline_at))
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(Sending {
        delivery_id: row.id.clone(),
        attempt: row.attempts,
        to,
        message: row.message.clone(),
        deadline_at,
    })
}

/// Writes the answer on the attempt's own row.
async fn record_answer(tx: &mut Tx, sending: &Sending, answer: &Answer, now: Timestamp) -> Result<(), StoreError> {
    let (outcome, code) = match answer {
        Answer::Accepted { .. } => ("accepted", None),
        Answer::NotSent { code, .. } => ("not_sent", *code),
        Answer::Refused { code, .. } => ("refused", *code),
        Answer::Halted { code } => ("halted", *code),
        Answer::Unknown { .. } => ("unknown", None),
    };
    within!(tx, |conn| {
        sqlx::query(
            "update attempt set answered_at = $3, outcome = $4, error_code = $5
                where delivery_id = $1 and number = $2",
        )
        .bind(&sending.delivery_id)
        .bind(sending.attempt)
        .bind(ms(now))
        .bind(outcome)
        .bind(code)
        .execute(conn)
        .await
        .map(drop)
    })?;
    Ok(())
}

fn not_sent_detail(attempt: i64, why: &str, code: Option<i64>, wait: SignedDuration) -> String {
    let code = code.map_or_else(String::new, |code| format!(" (code {code})"));
    format!(
        "attempt {attempt}: not sent, {why}{code}; again in {:.1} s",
        wait.as_secs_f64()
    )
}

async fn account_of(tx: &mut Tx, sending: &Sending) -> Result<(String, String), StoreError> {
    Ok(within!(tx, |conn| sqlx::query_as(
        "select provider, account from attempt where delivery_id = $1 and number = $2"
    )
    .bind(&sending.delivery_id)
    .bind(sending.attempt)
    .fetch_one(conn)
    .await)?)
}
