//! Recording what the provider answered to attempts. A late answer, after others took the attempt for lost, is a status
//! update too.

use super::{
    aging,
    attempt::{self, Located, Place, WorkingSet},
    delivery::{self, AlertEnd, Delivery, Landing, StatusUpdate},
    waiting,
};
use crate::{
    domain::{
        answer::Answer,
        day::after,
        delivery::{Change, MAX_BROKEN, Reason, State, back_off},
        id::{AttemptNo, DeliveryId},
    },
    store::{
        error::StoreError,
        holds::{self, Halt, Halted},
        jobs::{AnswerRules, Answered},
        limits, opt_outs,
        query::Query,
        sql::{Rows, Sql, args, row, sql},
        tx::Tx,
        types::{at, ms},
    },
};
use jiff::Timestamp;
use std::{collections::HashMap, sync::Arc};

/// An answered attempt, its delivery locked.
#[derive(sqlx::FromRow)]
struct Found {
    #[sqlx(try_from = "i64")]
    place: usize,
    #[sqlx(flatten)]
    located: Located,
    /// The route, if it is held and was when this attempt began: then this was a try.
    held_route: Option<String>,
}

row! {
    AnswerRow<'a> { place: usize as number, id: &'a DeliveryId as text, attempt: AttemptNo as number, message_id: &'a str as text }
}

const FIND: Sql = sql!(
    "select r.place as place,
        (select h.route from route_hold h where h.route = t.route and h.since < t.begun_at) as held_route, ",
    attempt::LOCATED,
    " from ",
    AnswerRow::ROWS,
    " cross join delivery d left join alert a on a.id = d.alert_id
        join attempt t on t.delivery_id = d.id and t.number = r.attempt
     where d.id = r.id order by d.id for update of d"
);

/// Records answers in the caller's transaction.
pub async fn answer(tx: &mut Tx, answers: &[Arc<Answered>]) -> Result<(), StoreError> {
    let Some(rules) = answers.first().map(|answered| answered.rules) else {
        return Ok(());
    };
    let gives_back = answers.iter().any(|answered| gives_slot_back(&answered.answer));
    // The day is locked before any delivery, by everybody.
    if gives_back && tx.has_neighbours() {
        limits::lock_day(tx, rules.day).await?;
    }
    let rows = answers.iter().enumerate().map(|(place, answered)| AnswerRow {
        place,
        id: &answered.sending.delivery_id,
        attempt: answered.sending.attempt,
        message_id: match &answered.answer {
            Answer::Accepted { message_id, .. } => message_id,
            _ => "",
        },
    });
    let found: Vec<Found> = tx.all(FIND, [rows.collect::<Rows>().into()]).await?;
    let mut found: Vec<(&Answered, Found)> = found
        .into_iter()
        .filter_map(|found| Some((answers.get(found.place)?.as_ref(), found)))
        .collect();
    // What was accepted with them speaks for the account, so refusals that would hold it come last.
    found.sort_by_key(|(answered, _)| matches!(answered.answer, Answer::Halted { .. }));
    let not_sent = found.iter().filter(|(answered, _)| gives_slot_back(&answered.answer));
    let not_sent: Vec<DeliveryId> = not_sent.map(|(_, found)| found.located.delivery.id.clone()).collect();
    let mut recording = Recording {
        not_sent: NotSent::of(tx, &not_sent).await?,
        ..Default::default()
    };
    for (answered, found) in found {
        recording.record(tx, answered, found).await?;
    }
    recording.end(tx).await?;
    if gives_back && let Some(now) = answers.iter().map(|answered| answered.now).max() {
        aging::release(tx, rules.day, rules.configured_limit, now).await?;
    }
    Ok(())
}

fn gives_slot_back(answer: &Answer) -> bool {
    matches!(answer, Answer::NotSent { .. } | Answer::Halted { .. })
}

/// Answers on their way into the rows they are about.
#[derive(Default)]
struct Recording {
    set: WorkingSet,
    /// What has to be known of deliveries that were not sent.
    not_sent: HashMap<DeliveryId, NotSent>,
    /// Messages of which receipts wait.
    waiting: Vec<waiting::Known>,
    overtaken: Overtaken,
}

impl Recording {
    async fn record(&mut self, tx: &mut Tx, answered: &Answered, found: Found) -> Result<(), StoreError> {
        let located = found.located;
        let (answer, now) = (&answered.answer, answered.now);
        let place = self.set.add(located.delivery, located.attempt);
        let (delivery, attempt) = self.set.get(place);
        let (outcome, code) = outcome_of(answer);
        attempt.answer(outcome, code, now);
        if gives_slot_back(answer) {
            attempt.return_slot(now);
        }
        let is_newest = attempt.number == delivery.attempts;
        match answer {
            Answer::Accepted {
                message_id,
                word,
                status,
            } => {
                let update = StatusUpdate {
                    attempt: attempt.number,
                    message_id,
                    word,
                    status: *status,
                    error_code: None,
                    at: now,
                    poll_after: answered.rules.poll_after,
                };
                if !attempt.own(message_id, located.owners) {
                    delivery.note_other_message(attempt.number, now);
                }
                delivery.update_accepted(&update);
                if located.waiting > 0 {
                    self.waiting.push(waiting::Known::new(place, delivery, &update));
                }
                if let Some(route) = found.held_route {
                    holds::lift(tx, &route);
                    tracing::info!(route, "the provider accepted the delivery that was tried; sends go on");
                }
            }
            // An older attempt was overtaken; its answer is on its own row.
            _ if !is_newest => {}
            Answer::NotSent { .. } | Answer::Halted { .. } => self.not_sent(tx, place, answered).await?,
            Answer::Refused { code, opted_out } => {
                if *opted_out && let Some(phone) = &delivery.phone {
                    opt_outs::insert_reported(tx, phone, now).await?;
                }
                let code_text = code.map_or_else(String::new, |code| format!(" with code {code}"));
                let landing = Landing {
                    reason: Some(Reason::Refused),
                    detail: format!("attempt {}: the provider refused it{code_text}", attempt.number),
                    ..Default::default()
                };
                if delivery.apply(Change::Refuse, landing, now).is_some() {
                    delivery.keep_code(*code, now);
                }
            }
            Answer::Unknown { .. } | Answer::Broken => {
                let why = match answer {
                    Answer::Unknown { why } => why,
                    _ => "handling it failed inside Nightbell",
                };
                let landing = Landing {
                    due_at: Some(now),
                    detail: format!("attempt {}: {why}; the provider may have it", attempt.number),
                    ..Default::default()
                };
                let was_written_off = delivery.state != State::Sending;
                if delivery.apply(Change::Lose, landing, now).is_some() && was_written_off {
                    attempt.retake_slot();
                }
            }
        }
        Ok(())
    }

    /// The newest attempt surely was not sent: back to where it waits, and if every message would meet the same, so do all.
    async fn not_sent(&mut self, tx: &mut Tx, place: Place, answered: &Answered) -> Result<(), StoreError> {
        if matches!(answered.answer, Answer::Halted { .. }) {
            self.set.save_attempts(tx);
        }
        let (delivery, attempt) = self.set.get(place);
        let (rules, now) = (answered.rules, answered.now);
        let Some(ending) = Ending::of(&answered.answer, delivery, &rules, now) else {
            return Ok(());
        };
        let known = self.not_sent.remove(&delivery.id).unwrap_or_default();
        let before = known.run_before(&ending.why);
        let landing = Landing {
            reason: ending.reason,
            due_at: Some(ending.due_at),
            detail: ending.detail(before, delivery.attempts, now),
            ..Default::default()
        };
        let state = delivery.not_sent(known.end, landing, now);
        // Canceled, it has ended: that is an entry of its own.
        if state == Some(State::Pending) {
            self.overtaken.prolong_run(delivery, before, ending.why, now);
        }
        if let Answer::Halted {
            fault,
            code,
            explanation,
        } = &answered.answer
        {
            let halt = Halt {
                fault: *fault,
                code: *code,
                explanation,
            };
            let halted = holds::hold(tx, (&delivery.id, attempt.number), &halt, rules.day, now).await?;
            match halted {
                Halted::Waits { holds: None } => {}
                Halted::Waits { holds: Some(holds) } => {
                    tx.execute(COUNT_HOLDS, args![&delivery.id, holds, ms(now)]).await?;
                }
                Halted::SetAside => {
                    let detail = "set aside: it was refused again and again as if our account were at fault, which works without it";
                    if delivery.apply(Change::SetAside, internal_error(detail), now).is_some() {
                        delivery.keep_code(*code, now);
                        tracing::error!(delivery.id = %delivery.id, code, "set aside: it held up all others again and again, and the account works without it");
                    }
                }
            }
        }
        Ok(())
    }

    async fn end(mut self, tx: &mut Tx) -> Result<(), StoreError> {
        waiting::apply(tx, &mut self.set, &self.waiting).await?;
        self.set.save(tx).await?;
        self.overtaken.delete(tx);
        Ok(())
    }
}

/// Counts the holds that a delivery brought upon the others.
const COUNT_HOLDS: Sql = sql!("update delivery set holds = $2, held_at = coalesce(held_at, $3) where id = $1");

fn outcome_of(answer: &Answer) -> (&'static str, Option<i64>) {
    match answer {
        Answer::Accepted { .. } => ("accepted", None),
        Answer::NotSent { code, .. } => ("not_sent", *code),
        Answer::Refused { code, .. } => ("refused", *code),
        Answer::Halted { code, .. } => ("halted", *code),
        Answer::Unknown { .. } => ("unknown", None),
        Answer::Broken => ("broken", None),
    }
}

/// A move that ends in `internal_error`.
pub fn internal_error(detail: &str) -> Landing {
    Landing {
        reason: Some(Reason::InternalError),
        detail: detail.to_owned(),
        ..Default::default()
    }
}

/// What has to be known of a delivery that was not sent, read after it was locked.
#[derive(Default, sqlx::FromRow)]
pub struct NotSent {
    id: String,
    #[sqlx(flatten)]
    pub end: AlertEnd,
    /// The entry before the newest, if it stands for a run of attempts.
    run: Option<String>,
    run_from: Option<AttemptNo>,
    run_at: Option<i64>,
    /// How many attempts failed inside us.
    broken: i64,
    /// Whether our clock was wrong, or turned, while the newest attempt's outcome was open.
    doubtful: i64,
}

impl NotSent {
    /// Reads it of these deliveries.
    pub async fn of(tx: &mut Tx, ids: &[DeliveryId]) -> Result<HashMap<DeliveryId, Self>, StoreError> {
        const READ: Sql = sql!(
            "select d.id, a.closed_at, a.quieted_at, l.run, l.run_from, l.at as run_at, (select count(*) from attempt b
                where b.delivery_id = d.id and b.outcome = 'broken') as broken, (select count(*) from attempt c
                where c.delivery_id = d.id and c.number = d.attempts and c.clock_doubtful_at is not null) as doubtful
             from ",
            delivery::IDS,
            " cross join delivery d left join alert a on a.id = d.alert_id
                left join timeline l on l.delivery_id = d.id and l.seq = d.timeline_length - 1
             where d.id = r.id"
        );
        let rows = delivery::id_rows(ids);
        if rows.is_empty() {
            return Ok(HashMap::new());
        }
        let read: Vec<Self> = tx.all(READ, [rows.into()]).await?;
        Ok(read
            .into_iter()
            .map(|known| (known.id.as_str().into(), known))
            .collect())
    }

    /// Whether absence cannot be proven.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful > 0
    }

    /// The run that ended with the attempt before the newest one, if that was not sent because of `why` either. Nothing but
    /// the beginning of the newest attempt stands between.
    fn run_before(&self, why: &str) -> Option<(AttemptNo, Timestamp)> {
        self.run.as_deref().filter(|run| *run == why)?;
        Some((self.run_from?, at(self.run_at?)))
    }

    /// Sets a pending delivery aside around whose calls our own code failed again and again.
    pub fn set_broken_aside(&self, delivery: &mut Delivery, now: Timestamp) {
        if self.broken < MAX_BROKEN || delivery.state != State::Pending {
            return;
        }
        let landing = internal_error("set aside: handling it failed inside Nightbell again and again; see the log");
        delivery.apply(Change::SetAside, landing, now);
        tracing::error!(delivery.id = %delivery.id, "set aside: handling it failed inside Nightbell again and again");
    }
}

/// How an attempt ended that surely was not sent, in words for the timeline.
struct Ending {
    /// What it has in common with others of its kind: they make a run.
    why: String,
    /// What is said of it if the attempt before it ended otherwise.
    alone: String,
    /// What happens next.
    then: String,
    reason: Option<Reason>,
    due_at: Timestamp,
}

impl Ending {
    fn of(answer: &Answer, delivery: &Delivery, rules: &AnswerRules, now: Timestamp) -> Option<Self> {
        let code_text = |code: &Option<i64>| code.map_or_else(String::new, |code| format!(" (code {code})"));
        match answer {
            Answer::NotSent { retry_after, why, code } => {
                let wait = back_off(delivery.attempts.0, *retry_after, rules.jitter);
                let why = format!("{why}{}", code_text(code));
                Some(Self {
                    alone: format!("not sent, {why}"),
                    then: format!("again in {:.1} s", wait.as_secs_f64()),
                    why,
                    reason: None,
                    due_at: after(now, wait),
                })
            }
            Answer::Halted { fault, code, .. } => {
                let why = format!("the provider refused our {fault}{}", code_text(code));
                Some(Self {
                    alone: why.clone(),
                    then: "held until it accepts us".into(),
                    why,
                    reason: Some(Reason::ProviderRefusedCredentials),
                    due_at: now,
                })
            }
            Answer::Accepted { .. } | Answer::Refused { .. } | Answer::Unknown { .. } | Answer::Broken => None,
        }
    }

    fn detail(&self, before: Option<(AttemptNo, Timestamp)>, newest: AttemptNo, now: Timestamp) -> String {
        let Self { why, alone, then, .. } = self;
        match before {
            None => format!("attempt {newest}: {alone}; {then}"),
            Some((from, _)) => format!(
                "attempts {from} to {newest} were not sent, {why}: {} times, last at {}; {then}",
                newest.0 - from.0 + 1,
                now.strftime("%FT%TZ")
            ),
        }
    }
}

row! {
    NumberRow<'a> { id: &'a DeliveryId as text, number: i64 as number }
}

/// What a run of attempts has made superfluous: a provider that is out of reach for days leaves one entry of the timeline,
/// not one for every try, and of the attempts the first and the newest. They surely never reached the provider.
#[derive(Default)]
struct Overtaken {
    entries: Rows,
    attempts: Rows,
}

impl Overtaken {
    /// The newest entry, just made, stands for a run that ends with the newest attempt, of which `before` is the part that
    /// was there.
    fn prolong_run(
        &mut self,
        delivery: &mut Delivery,
        before: Option<(AttemptNo, Timestamp)>,
        why: String,
        now: Timestamp,
    ) {
        let (from, since) = before.unwrap_or((delivery.attempts, now));
        delivery.make_run(why, from, since);
        if before.is_none() {
            return;
        }
        let (id, newest) = (&delivery.id, delivery.timeline_length);
        for number in [newest - 2, newest - 1] {
            self.entries.push(&NumberRow { id, number });
        }
        let number = delivery.attempts.0 - 1;
        if number > from.0 {
            self.attempts.push(&NumberRow { id, number });
        }
    }

    fn delete(self, tx: &mut Tx) {
        const ENTRIES: Sql = sql!(
            "delete from timeline where (delivery_id, seq) in (
                select r.id, r.number from ",
            NumberRow::ROWS,
            ")"
        );
        const ATTEMPTS: Sql = sql!(
            "delete from attempt where (delivery_id, number) in (
                select r.id, r.number from ",
            NumberRow::ROWS,
            ")
                and message_id is null and slot_returned_at is not null and outcome in ('not_sent', 'halted')"
        );
        tx.queue(ENTRIES, self.entries);
        tx.queue(ATTEMPTS, self.attempts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_prolonged_by_the_same_reason_only() {
        let known = NotSent {
            run: Some("the provider is busy".into()),
            run_from: Some(AttemptNo(2)),
            run_at: Some(ms(Timestamp::UNIX_EPOCH)),
            ..Default::default()
        };

        assert_eq!(
            known.run_before("the provider is busy"),
            Some((AttemptNo(2), Timestamp::UNIX_EPOCH))
        );
        assert_eq!(known.run_before("the provider could not be reached"), None);
    }
}
