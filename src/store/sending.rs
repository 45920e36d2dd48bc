//! The two transactions around a call to the provider. `begin_send` is durable before the call and takes everything
//! the call needs; `finish` records the answer. Between them nothing is open: a crash there leaves a `sending` row whose
//! lease ends, and the sweep makes that `unknown`.

use super::{
    Claimed, Db, StoreError, Tx,
    alarms::{self, About},
    alerts::{NewAlert, NewRow},
    at,
    group::{BegunBatch, MOST_ROWS},
    holds::{self, Halt, Halted},
    limits, ms, opt_outs,
    receipts::{self, Told},
    transitions::{self, Landing, Row, Run, row_columns},
    tx::Rows,
    within,
};
use crate::domain::route::{Channel, Route};
use crate::domain::{
    alarm::AlarmKind,
    answer::Answer,
    clock::Uptime,
    day::{LocalDay, after},
    delivery::{BeforeSend, Change, Gate, MAX_BROKEN, News, Reason, State, back_off},
    phone::PhoneNumber,
};
use const_format::concatcp;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// How long a delivery steps aside for those before it in the line.
const A_MOMENT: SignedDuration = SignedDuration::from_millis(500);

/// An event that is newer than now by more than this came after somebody turned the clock. Replicas' clocks differ by less.
const TURNED: SignedDuration = SignedDuration::from_mins(1);

/// What `begin_send` decides by.
#[derive(Clone, Debug)]
pub struct BeginRules {
    /// How the attempt goes. Only deliveries of its channel are taken.
    pub route: Arc<Route>,
    /// Today, in the configured zone.
    pub day: LocalDay,
    /// When tomorrow begins.
    pub tomorrow: Timestamp,
    /// The limit of the configuration; an admin's own wins.
    pub configured_limit: i64,
    pub lease: SignedDuration,
    pub expire_after: SignedDuration,
    /// What the clock reads that nobody turns, if there is one.
    pub uptime: Option<Uptime>,
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
    Stopped { delivery_id: String, state: State },
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
    /// Begins to send up to `most` deliveries that are due, unless the account is held (then one, if a try is due): claimed and begun in one
    /// transaction, durable when this returns. Says what became of each. If nothing is due, waits for an event or until
    /// `given_up` ends; it is asked once `idle` rang.
    pub async fn begin_due(
        &self,
        rules: &BeginRules,
        most: usize,
        now: Timestamp,
        idle: &Arc<Notify>,
        given_up: impl Future<Output = ()>,
    ) -> Result<BegunBatch, StoreError> {
        let due = DueRules {
            rules: rules.clone(),
            most: i64::try_from(most.min(MOST_ROWS)).unwrap_or(i64::MAX),
            now,
            asked_at: Instant::now(),
            idle: Arc::clone(idle),
            is_withdrawn: AtomicBool::new(false),
        };
        self.groups.begin(due, given_up).await
    }

    /// Decides whether a claimed delivery may be sent now and, if so, makes the attempt durable with its slot.
    pub async fn begin_send(&self, claim: &Claimed, rules: &BeginRules, now: Timestamp) -> Result<Begun, StoreError> {
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
            return Err(without_phone(row.id));
        };

        let free_slots = limits::limit(&mut tx, rules.configured_limit).await? - used;
        let ahead = if free_slots > 0 {
            limits::count_ahead(&mut tx, &row.id, row.received_at, free_slots, now).await?
        } else {
            0
        };
        let opted_out = opt_outs::contains(&mut tx, phone.as_e164()).await?;
        let gate = gate(&row, opted_out, free_slots, ahead, rules, now);
        let begun = match gate {
            Gate::Stop(change, reason) => stop(&mut tx, &mut row, change, reason, rules, now).await?,
            Gate::Wait => {
                put_off(&mut tx, &row.id, now);
                Begun::Later
            }
            Gate::Send if !holds::lets_begin(&mut tx, &rules.route, now).await? => {
                put_off(&mut tx, &row.id, now);
                Begun::Later
            }
            Gate::Send => {
                let mut lines = Rows::default();
                step_into_attempt(&mut row, rules, now, &mut lines)?;
                transitions::save(&mut tx, [&row], lines);
                queue_attempts(&mut tx, [(row.id.as_str(), row.attempts)], rules, now);
                Begun::Send(sending_of(row, phone, rules, now))
            }
        };
        tx.commit().await?;
        Ok(begun)
    }

    /// Records what the provider answered. A late answer, after others took the attempt for lost, counts as news.
    pub async fn finish(&self, answered: &Arc<Answered>) -> Result<(), StoreError> {
        self.groups.finish(Arc::clone(answered)).await
    }
}

/// A wish to begin what is due.
pub(super) struct DueRules {
    rules: BeginRules,
    most: i64,
    now: Timestamp,
    /// When that was, by the clock that only goes forward.
    asked_at: Instant,
    /// Rung when nothing is due.
    idle: Arc<Notify>,
    is_withdrawn: AtomicBool,
}

impl DueRules {
    /// What time it is for an order that is carried out at `began_at`, beside events of which the newest came at `newest`.
    /// `None` once its day is over, or the clock was turned meanwhile: then it is to be asked for anew.
    fn at(&self, began_at: Instant, newest: Option<Timestamp>) -> Option<Timestamp> {
        let waited = began_at.saturating_duration_since(self.asked_at).as_millis();
        let waited = SignedDuration::from_millis(i64::try_from(waited).unwrap_or(i64::MAX));
        let now = after(self.now, waited);
        if newest.is_some_and(|newest| newest > after(now, TURNED)) {
            return None;
        }
        let now = newest.map_or(now, |newest| newest.max(now));
        (now < self.rules.tomorrow).then_some(now)
    }

    /// The most deliveries that it may begin.
    pub fn most(&self) -> usize {
        usize::try_from(self.most).unwrap_or(usize::MAX)
    }

    /// Nobody waits for it any longer.
    pub fn withdraw(&self) {
        self.is_withdrawn.store(true, Ordering::Relaxed);
    }

    /// Nothing is due. Whether it is to wait until something is.
    pub fn waits(&self) -> bool {
        self.idle.notify_one();
        !self.is_withdrawn.load(Ordering::Relaxed)
    }
}

/// A delivery that is due, and what its gate asks.
#[derive(sqlx::FromRow)]
struct Due {
    #[sqlx(flatten)]
    row: Row,
    opted_out: i64,
    used: i64,
    limit_set: Option<String>,
    in_line: i64,
    /// Whether all is held, and one may be tried.
    held: i64,
    /// How many holds it has brought upon the others.
    holds: i64,
}

/// How far the line is counted for every batch. Where it is longer, it is counted up to the last of the batch.
const LINE_LOOK: i64 = 130;

/// Claims and begins what is due, all in the caller's transaction: the rows are locked from the moment they are chosen, so
/// nobody else can choose them, and the claim needs no lease of its own.
pub(super) async fn begin_due(
    tx: &mut Tx,
    due: &DueRules,
    newest: Option<Timestamp>,
    began_at: Instant,
) -> Result<Vec<Begun>, StoreError> {
    let DueRules { rules, most, .. } = due;
    let Some(now) = &due.at(began_at, newest) else {
        return Ok(Vec::new());
    };
    if tx.locks_rows() {
        limits::lock_day(tx, rules.day).await?;
    }
    let arguments = [
        ms(*now).into(),
        rules.route.key().into(),
        rules.route.channel.as_str().into(),
        (*most).into(),
        rules.day.to_string().as_str().into(),
        LINE_LOOK.into(),
    ];
    let mut due: Vec<Due> = tx.ask(DUE, "for update of d skip locked", arguments).await?;
    let Some(first) = due.first() else {
        return Ok(Vec::new());
    };
    let is_trial = first.held > 0;
    if is_trial || first.holds > 0 {
        due.truncate(1);
    }
    let Some(first) = due.first() else {
        return Ok(Vec::new());
    };
    let limit = limits::effective(first.limit_set.clone(), rules.configured_limit);
    let free_slots = limit - first.used;
    let all_have_slots = if first.in_line < LINE_LOOK {
        first.in_line <= free_slots
    } else {
        let last = due.iter().max_by_key(|due| (due.row.received_at, due.row.id.as_str()));
        match last {
            Some(Due { row, .. }) => {
                limits::count_ahead(tx, &row.id, row.received_at, free_slots.max(0), *now).await? < free_slots
            }
            None => false,
        }
    };

    let (mut sends, mut others, mut lines) = (Vec::new(), Vec::new(), Rows::default());
    for Due { mut row, opted_out, .. } in due {
        row.channel()?;
        let Some(phone) = row.phone.clone().map(PhoneNumber::from_stored) else {
            return Err(without_phone(row.id));
        };
        let ahead = if all_have_slots || free_slots <= 0 {
            0
        } else {
            // Those of this batch that were let pass still stand in the line, so all slots are counted.
            limits::count_ahead(tx, &row.id, row.received_at, free_slots, *now).await?
        };
        let gate = gate(&row, opted_out > 0, free_slots, ahead, rules, *now);
        if gate == Gate::Send {
            // Decided here, in the transaction that begins it: of several replicas one tries.
            if is_trial && !holds::take_trial(tx, &rules.route, *now).await? {
                return Ok(Vec::new());
            }
            step_into_attempt(&mut row, rules, *now, &mut lines)?;
            sends.push((row, phone));
        } else {
            others.push((row, gate));
        }
    }
    transitions::save(tx, sends.iter().map(|(row, _)| row), lines);
    let attempts = sends.iter().map(|(row, _)| (row.id.as_str(), row.attempts));
    queue_attempts(tx, attempts, rules, *now);
    let mut begun = Vec::with_capacity(sends.len() + others.len());
    for (mut row, gate) in others {
        begun.push(match gate {
            Gate::Stop(change, reason) => stop(tx, &mut row, change, reason, rules, *now).await?,
            Gate::Send | Gate::Wait => {
                put_off(tx, &row.id, *now);
                Begun::Later
            }
        });
    }
    begun.extend(
        sends
            .into_iter()
            .map(|(row, phone)| Begun::Send(sending_of(row, phone, rules, *now))),
    );
    Ok(begun)
}

/// What brought a hold upon the others is begun when nothing else is due, one at a time. Those subqueries are asked only
/// where there is such a delivery.
const DUE: &str = concatcp!(
    "select ",
    row_columns!(),
    ", d.holds, (select count(*) from route_hold g where g.route = $2) as held, (select count(*) from opt_out o where o.phone = d.phone) as opted_out,
        coalesce((select c.used from daily_count c where c.day = $5), 0) as used,
        (select s.value from setting s where s.name = 'daily_limit') as limit_set,
        (select count(*) from (select 1 from delivery l where l.state in (", State::OWED, ") and l.channel in (", Channel::KNOWN, ")
            and (l.state = 'deferred' or l.due_at <= $1) limit $6) as line) as in_line
     from delivery d join alert a on a.id = d.alert_id
     where d.state = 'pending' and d.channel = $3 and d.due_at <= $1 and (d.lease_until is null or d.lease_until <= $1)
        and not exists (select 1 from route_hold h where h.route = $2
            and (h.trial_at is null or h.trial_at > $1))
        and (d.holds = 0 or (
            not exists (select 1 from delivery o where o.state = 'pending' and o.channel = $3 and o.due_at <= $1 and o.holds = 0
                and (o.lease_until is null or o.lease_until <= $1))
            and not exists (select 1 from delivery s where s.state = 'sending' and s.holds > 0)))
     order by d.due_at, d.id limit $4"
);

/// Whether a delivery may be sent now.
fn gate(row: &Row, opted_out: bool, free_slots: i64, ahead: i64, rules: &BeginRules, now: Timestamp) -> Gate {
    BeforeSend {
        now,
        received_at: at(row.received_at),
        expire_after: rules.expire_after,
        ticket_closed: row.is_over(),
        opted_out,
        free_slots,
        ahead,
    }
    .decide()
}

fn without_phone(id: String) -> StoreError {
    StoreError::Unreadable {
        what: "a pending delivery without a phone",
        value: id,
    }
}

/// An answer on its way to the database: the only copy, until it is there.
pub struct Answered {
    pub sending: Sending,
    pub answer: Answer,
    pub rules: FinishRules,
    pub now: Timestamp,
}

impl Answered {
    fn gives_slot_back(&self) -> bool {
        matches!(self.answer, Answer::NotSent { .. } | Answer::Halted { .. })
    }

    /// Whether it is recorded together with others.
    pub fn is_plain(&self) -> bool {
        self.plain_yes().is_some()
    }

    /// The provider's yes, of which it can be said at once what it does.
    fn plain_yes(&self) -> Option<(&str, &str, News)> {
        match &self.answer {
            Answer::Accepted {
                message_id,
                status,
                news: Some(news),
            } => Some((message_id, status, *news)),
            Answer::Accepted { news: None, .. }
            | Answer::NotSent { .. }
            | Answer::Refused { .. }
            | Answer::Halted { .. }
            | Answer::Unknown { .. }
            | Answer::Broken => None,
        }
    }
}

/// What the database knows of an attempt that was accepted.
#[derive(sqlx::FromRow)]
struct Accepted {
    place: i64,
    own_message: Option<String>,
    slot_returned_at: Option<i64>,
    owners: i64,
    waiting: i64,
    /// Whether it was tried while all is held.
    trials: i64,
    #[sqlx(flatten)]
    row: Row,
}

/// Records answers in the caller's transaction: those that are what they should be all at once, the others one by one.
pub(super) async fn finish_all(tx: &mut Tx, answers: &[Arc<Answered>]) -> Result<Vec<()>, StoreError> {
    // The day is locked before any delivery, by everybody.
    if tx.locks_rows()
        && let Some(answered) = answers.iter().find(|answered| answered.gives_slot_back())
    {
        limits::lock_day(tx, answered.rules.day).await?;
    }
    // All of them, so that every delivery is locked here, in order: two groups never wait for each other.
    let asked: Rows = answers
        .iter()
        .enumerate()
        .map(|(place, answered)| {
            let message_id = answered.plain_yes().map_or("", |(message_id, _, _)| message_id);
            let Sending {
                delivery_id, attempt, ..
            } = &answered.sending;
            (place, delivery_id, *attempt, message_id)
        })
        .collect();
    let accepted: Vec<Accepted> = if asked.is_empty() {
        Vec::new()
    } else {
        tx.ask(ACCEPTED, "for update of d", [asked.into()]).await?
    };
    let (mut done, mut seen) = (vec![false; answers.len()], HashSet::new());
    let (mut moved, mut attempts, mut lines) = (Vec::new(), Rows::default(), Rows::default());
    for mut accepted in accepted {
        let place = usize::try_from(accepted.place).unwrap_or(usize::MAX);
        let Some((answered, (message_id, status, news))) = answers
            .get(place)
            .and_then(|answered| Some((answered, answered.plain_yes()?)))
        else {
            continue;
        };
        let attempt = Attempt {
            number: answered.sending.attempt,
            is_newest: answered.sending.attempt == accepted.row.attempts,
        };
        let is_own = match accepted.own_message.as_deref() {
            Some(own) => own == message_id,
            None => accepted.owners == 0,
        };
        let is_plain = is_own
            && attempt.is_newest
            && accepted.slot_returned_at.is_none()
            && accepted.waiting == 0
            && accepted.trials == 0
            && seen.insert(accepted.row.id.clone());
        if !is_plain {
            continue;
        }
        let mut told = Told {
            message_id,
            status,
            news: Some(News::Accepted),
            error_code: None,
            at: answered.now,
            look_at: after(answered.now, answered.rules.poll_after),
        };
        // News that came first by a receipt: then this is an older word.
        if !receipts::step(&mut accepted.row, attempt, &told, News::Accepted, &mut lines)? {
            continue;
        }
        if news != News::Accepted {
            told.news = Some(news);
            receipts::step(&mut accepted.row, attempt, &told, news, &mut lines)?;
        }
        attempts.push(&(&accepted.row.id, attempt.number, message_id, ms(answered.now)));
        moved.push(accepted.row);
        done[place] = true;
    }
    if !moved.is_empty() {
        tx.queue(
            "update attempt set message_id = r.value ->> 2, answered_at = cast(r.value ->> 3 as bigint),
                outcome = 'accepted', error_code = null
             from rows($1) as r
             where attempt.delivery_id = r.value ->> 0 and attempt.number = cast(r.value ->> 1 as bigint)",
            [attempts.into()],
        );
        transitions::save(tx, &moved, lines);
    }
    for (answered, _) in answers.iter().zip(done).filter(|(_, done)| !done) {
        finish_one(tx, answered).await?;
    }
    Ok(vec![(); answers.len()])
}

const ACCEPTED: &str = concatcp!(
    "select cast(r.value ->> 0 as bigint) as place, t.message_id as own_message, t.slot_returned_at,
        (select count(*) from attempt o where o.provider = t.provider and o.message_id = r.value ->> 3) as owners,
        (select count(*) from receipt w where w.provider = t.provider and w.message_id = r.value ->> 3
            and w.applied_at is null) as waiting,
        (select count(*) from route_hold h where h.route = t.route and h.since < t.begun_at) as trials, ",
    row_columns!(),
    " from rows($1) as r cross join delivery d join alert a on a.id = d.alert_id
        join attempt t on t.delivery_id = d.id and t.number = cast(r.value ->> 2 as bigint)
     where d.id = r.value ->> 1 order by d.id"
);

/// Records one answer, whatever it is.
async fn finish_one(tx: &mut Tx, answered: &Answered) -> Result<(), StoreError> {
    let Answered {
        sending,
        answer,
        rules,
        now,
    } = answered;
    let (rules, now) = (*rules, *now);
    if answered.gives_slot_back() {
        limits::lock_day(tx, rules.day).await?;
    }
    let Some(mut row) = transitions::lock(tx, &sending.delivery_id).await? else {
        return Ok(());
    };
    let attempt = Attempt {
        number: sending.attempt,
        is_newest: sending.attempt == row.attempts,
    };
    record_answer(tx, sending, answer, now).await?;
    match answer {
        Answer::Accepted {
            message_id,
            status,
            news,
        } => {
            let look_at = after(now, rules.poll_after);
            if !receipts::own_message(tx, &row, attempt, message_id).await? {
                receipts::note_other_message(tx, &mut row, attempt, now);
            }
            let mut told = Told {
                message_id,
                status,
                news: Some(News::Accepted),
                error_code: None,
                at: now,
                look_at,
            };
            receipts::tell(tx, &mut row, attempt, &told).await?;
            if *news != told.news {
                told.news = *news;
                receipts::tell(tx, &mut row, attempt, &told).await?;
            }
            receipts::apply_waiting(tx, &mut row, attempt, message_id, look_at, now).await?;
            holds::trial_accepted(tx, &sending.delivery_id, attempt.number).await?;
        }
        Answer::NotSent { retry_after, why, code } if attempt.is_newest => {
            let wait = back_off(row.attempts, *retry_after, rules.jitter);
            let why = format!("{why}{}", code_text(*code));
            let outcome = Outcome {
                alone: format!("not sent, {why}"),
                in_run: format!("were not sent, {why}"),
                then: format!("again in {:.1} s", wait.as_secs_f64()),
                why,
                reason: None,
                due_at: after(now, wait),
            };
            not_sent(tx, &mut row, &outcome, now).await?;
        }
        Answer::Halted {
            fault,
            code,
            explanation,
        } if attempt.is_newest => {
            let why = format!("the provider refused our {fault}{}", code_text(*code));
            let outcome = Outcome {
                alone: why.clone(),
                in_run: format!("were not sent, {why}"),
                then: "held until it accepts us".into(),
                why,
                reason: Some(Reason::ProviderRefusedCredentials),
                due_at: now,
            };
            let state = not_sent(tx, &mut row, &outcome, now).await?;
            let halt = Halt {
                fault: *fault,
                code: *code,
                explanation,
            };
            let halted = holds::hold(tx, (&sending.delivery_id, attempt.number), &halt, rules.day, now).await?;
            if halted == Halted::SetAside && state == Some(State::Pending) {
                set_aside(tx, &mut row, *code, now).await?;
            }
        }
        Answer::Refused { code, opted_out } if attempt.is_newest => {
            if *opted_out && let Some(phone) = &row.phone {
                opt_outs::insert(tx, phone, None, Some(opt_outs::BY_PROVIDER), now).await?;
            }
            let code_text = code.map_or_else(String::new, |code| format!(" with code {code}"));
            let landing = Landing {
                reason: Some(Reason::Refused),
                detail: format!("attempt {}: the provider refused it{code_text}", attempt.number),
                ..Default::default()
            };
            if transitions::change(tx, &mut row, Change::Refuse, landing, now)
                .await?
                .is_some()
            {
                receipts::keep_code(tx, &mut row, *code, now);
            }
        }
        Answer::Unknown { .. } | Answer::Broken if attempt.is_newest => {
            let why = match answer {
                Answer::Unknown { why } => why,
                _ => "handling it failed inside Nightbell",
            };
            let landing = Landing {
                due_at: Some(now),
                detail: format!("attempt {}: {why}; the provider may have it", attempt.number),
                ..Default::default()
            };
            let was_written_off = row.state()? != State::Sending;
            let moved = transitions::change(tx, &mut row, Change::Lose, landing, now).await?;
            if moved.is_some() && was_written_off {
                limits::retake_slot(tx, &row.id, attempt.number).await?;
            }
        }
        // An older attempt was overtaken; its answer is on its own row.
        Answer::NotSent { .. }
        | Answer::Halted { .. }
        | Answer::Refused { .. }
        | Answer::Unknown { .. }
        | Answer::Broken => {}
    }
    if answered.gives_slot_back() {
        limits::return_slot(tx, &sending.delivery_id, sending.attempt, now).await?;
        limits::release(tx, rules.day, rules.configured_limit, now).await?;
    }
    Ok(())
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
    rules: &BeginRules,
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
    let delivery_id = row.id.clone();
    Ok(state.map_or(Begun::Gone, |state| Begun::Stopped { delivery_id, state }))
}

/// Puts the delivery back into the line for a moment. Not a move: nothing is written on its timeline.
fn put_off(tx: &mut Tx, id: &str, now: Timestamp) {
    tx.queue(
        "update delivery set lease_token = null, lease_until = null, claims = 0, due_at = $2, updated_at = $3 where id = $1",
        [id.into(), ms(after(now, A_MOMENT)).into(), ms(now).into()],
    );
}

/// Moves a delivery into its next attempt, in memory.
fn step_into_attempt(row: &mut Row, rules: &BeginRules, now: Timestamp, lines: &mut Rows) -> Result<(), StoreError> {
    let landing = Landing {
        lease_until: Some(after(now, rules.lease)),
        detail: begin_detail(row.attempts + 1, rules),
        ..Default::default()
    };
    row.provider = Some(rules.route.provider.as_str().to_owned());
    transitions::step(row, Change::Begin, landing, now, lines)?;
    Ok(())
}

fn begin_detail(attempt: i64, rules: &BeginRules) -> String {
    format!("attempt {attempt} by {}", rules.route.provider)
}

/// Queues the attempts of deliveries that begin them, and a slot for each; only of those that are there.
fn queue_attempts<'a>(
    tx: &mut Tx,
    begun: impl IntoIterator<Item = (&'a str, i64)>,
    rules: &BeginRules,
    now: Timestamp,
) {
    let (day, deadline_at) = (rules.day.to_string(), ms(after(now, rules.lease)));
    let route = &rules.route;
    let (provider, account, route) = (route.provider.as_str(), &route.account, route.key());
    let (mut attempts, mut ids) = (Rows::default(), Rows::default());
    let machine_start = rules.uptime.as_ref().map(|uptime| &uptime.machine_start);
    let uptime = rules.uptime.as_ref().map(|uptime| uptime.ms);
    for (id, number) in begun {
        let begun_at = ms(now);
        attempts.push(&(
            id,
            number,
            provider,
            account,
            &day,
            begun_at,
            deadline_at,
            machine_start,
            uptime,
            route,
        ));
        ids.push(&[id]);
    }
    if attempts.is_empty() {
        return;
    }
    limits::take_slots(tx, rules.day, ids);
    tx.queue(
        "insert into attempt (delivery_id, number, provider, account, limit_day, begun_at, deadline_at, machine_start,
            begun_uptime, route)
         select d.id, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, r.value ->> 4,
            cast(r.value ->> 5 as bigint), cast(r.value ->> 6 as bigint), r.value ->> 7, cast(r.value ->> 8 as bigint), r.value ->> 9
         from rows($1) as r cross join delivery d where d.id = r.value ->> 0",
        [attempts.into()],
    );
}

/// New deliveries that begin their first attempt as they are inserted.
pub(super) struct Born {
    pub rules: BeginRules,
    pub now: Timestamp,
    state: State,
    sends: HashMap<String, Sending>,
}

impl Born {
    /// The state of a delivery that is one of them.
    pub fn state_of(&self, id: &str) -> Option<State> {
        self.sends.contains_key(id).then_some(self.state)
    }

    pub fn deadline_at(&self) -> Timestamp {
        after(self.now, self.rules.lease)
    }

    /// What the timeline says of it.
    pub fn detail(&self) -> String {
        begin_detail(1, &self.rules)
    }

    /// Queues their attempts and slots, after them.
    pub fn queue_attempts(&self, tx: &mut Tx) {
        let attempts = self.sends.keys().map(|id| (id.as_str(), 1));
        queue_attempts(tx, attempts, &self.rules, self.now);
    }

    /// The right to send one of them, once it is there.
    pub fn take(&mut self, id: &str) -> Option<Begun> {
        self.sends.remove(id).map(Begun::Send)
    }
}

/// What is known of a person before their delivery is inserted.
#[derive(sqlx::FromRow)]
struct Facts {
    place: i64,
    opted_out: i64,
    used: i64,
    limit_set: Option<String>,
    held: i64,
    others: i64,
}

/// Decides which of the deliveries of new events begin at once, if nobody else is in the line before them: that spares
/// the detour over `pending`. `None` if they have to take it. For SQLite, where this transaction is alone.
pub(super) async fn begin_new(
    tx: &mut Tx,
    due: &DueRules,
    alerts: &[Arc<NewAlert>],
    began_at: Instant,
) -> Result<Option<Born>, StoreError> {
    let newest = alerts.iter().map(|alert| alert.at).max();
    let (Some(now), Some(state)) = (due.at(began_at, newest), State::Pending.after(Change::Begin)) else {
        return Ok(None);
    };
    let rules = &due.rules;
    let people: Vec<(&NewAlert, &NewRow, &PhoneNumber)> = alerts
        .iter()
        .flat_map(|alert| alert.deliveries.iter().map(move |new| (alert.as_ref(), new)))
        .filter_map(|(alert, new)| Some((alert, new, new.phone.as_ref()?)))
        .take(usize::try_from(due.most).unwrap_or(usize::MAX))
        .collect();
    let phones: Rows = people
        .iter()
        .enumerate()
        .map(|(place, (_, _, phone))| (place, phone.as_e164()))
        .collect();
    let arguments = [
        phones.into(),
        rules.day.to_string().as_str().into(),
        rules.route.key().into(),
    ];
    let facts: Vec<Facts> = tx.ask(FACTS, "", arguments).await?;
    let mut sends = HashMap::with_capacity(facts.len());
    for (ahead, facts) in (0..).zip(facts) {
        if facts.others > 0 || facts.held > 0 {
            return Ok(None);
        }
        let place = usize::try_from(facts.place).unwrap_or(usize::MAX);
        let Some((alert, new, phone)) = people.get(place) else {
            continue;
        };
        let gate = BeforeSend {
            now,
            received_at: alert.at,
            expire_after: rules.expire_after,
            ticket_closed: false,
            opted_out: facts.opted_out > 0,
            free_slots: limits::effective(facts.limit_set, rules.configured_limit) - facts.used,
            ahead,
        }
        .decide();
        if gate == Gate::Send {
            let sending = Sending {
                delivery_id: new.id.clone(),
                attempt: 1,
                to: (*phone).clone(),
                message: new.message.clone(),
                deadline_at: after(now, rules.lease),
            };
            sends.insert(new.id.clone(), sending);
        }
    }
    Ok((!sends.is_empty()).then(|| Born {
        rules: rules.clone(),
        now,
        state,
        sends,
    }))
}

const FACTS: &str = concatcp!(
    "select cast(r.value ->> 0 as bigint) as place,
        (select count(*) from opt_out o where o.phone = r.value ->> 1) as opted_out,
        coalesce((select c.used from daily_count c where c.day = $2), 0) as used,
        (select s.value from setting s where s.name = 'daily_limit') as limit_set,
        (select count(*) from route_hold h where h.route = $3) as held,
        (select count(*) from (select 1 from delivery l where l.state in (",
    State::OWED,
    ") and l.channel in (",
    Channel::KNOWN,
    ") limit 1) as line) as others
     from rows($1) as r"
);

fn sending_of(row: Row, to: PhoneNumber, rules: &BeginRules, now: Timestamp) -> Sending {
    Sending {
        delivery_id: row.id,
        attempt: row.attempts,
        to,
        message: row.message,
        deadline_at: after(now, rules.lease),
    }
}

/// Writes the answer on the attempt's own row.
async fn record_answer(tx: &mut Tx, sending: &Sending, answer: &Answer, now: Timestamp) -> Result<(), StoreError> {
    let (outcome, code) = match answer {
        Answer::Accepted { .. } => ("accepted", None),
        Answer::NotSent { code, .. } => ("not_sent", *code),
        Answer::Refused { code, .. } => ("refused", *code),
        Answer::Halted { code, .. } => ("halted", *code),
        Answer::Unknown { .. } => ("unknown", None),
        Answer::Broken => ("broken", None),
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

fn code_text(code: Option<i64>) -> String {
    code.map_or_else(String::new, |code| format!(" (code {code})"))
}

/// How an attempt ended that surely was not sent, in words for the timeline.
struct Outcome {
    /// What it has in common with others of its kind: they make a run.
    why: String,
    /// What is said of it if the attempt before it ended otherwise, and if it did not.
    alone: String,
    in_run: String,
    /// What happens next.
    then: String,
    reason: Option<Reason>,
    due_at: Timestamp,
}

impl Outcome {
    fn detail(&self, run: Option<Run>, newest: i64, now: Timestamp) -> String {
        let Self {
            alone, in_run, then, ..
        } = self;
        match run {
            None => format!("attempt {newest}: {alone}; {then}"),
            Some(Run { run_from, .. }) => format!(
                "attempts {run_from} to {newest} {in_run}: {} times, last at {}; {then}",
                newest - run_from + 1,
                now.strftime("%FT%TZ")
            ),
        }
    }
}

/// Brings a delivery back whose newest attempt surely was not sent. A provider that is out of reach for days leaves one
/// line, not one for every try.
async fn not_sent(tx: &mut Tx, row: &mut Row, outcome: &Outcome, now: Timestamp) -> Result<Option<State>, StoreError> {
    let run = transitions::run_before(tx, row, &outcome.why).await?;
    let landing = Landing {
        reason: outcome.reason,
        due_at: Some(outcome.due_at),
        detail: outcome.detail(run, row.attempts, now),
        ..Default::default()
    };
    let state = transitions::not_sent(tx, row, landing, now).await?;
    // Canceled, it has ended: that is a line of its own.
    if state == Some(State::Pending) {
        transitions::prolong_run(tx, row, run, &outcome.why, now);
    }
    Ok(state)
}

/// Takes a delivery out of the line that is refused again and again as if our account were at fault, though that works.
async fn set_aside(tx: &mut Tx, row: &mut Row, code: Option<i64>, now: Timestamp) -> Result<(), StoreError> {
    let landing = internal_error(
        "set aside: it was refused again and again as if our account were at fault, which works without it",
    );
    if transitions::change(tx, row, Change::SetAside, landing, now)
        .await?
        .is_some()
    {
        receipts::keep_code(tx, row, code, now);
        tracing::error!(delivery.id = %row.id, code, "set aside: it held up all others again and again, and the account works without it");
    }
    Ok(())
}

fn internal_error(detail: &str) -> Landing {
    Landing {
        reason: Some(Reason::InternalError),
        detail: detail.to_owned(),
        ..Default::default()
    }
}

/// Sets a pending delivery aside around whose calls our own code failed again and again.
pub(super) async fn set_broken_aside(tx: &mut Tx, row: &mut Row, now: Timestamp) -> Result<(), StoreError> {
    let broken: i64 = within!(tx, |conn| sqlx::query_scalar(
        "select count(*) from attempt where delivery_id = $1 and outcome = 'broken'"
    )
    .bind(&row.id)
    .fetch_one(conn)
    .await)?;
    if broken >= MAX_BROKEN && row.state()? == State::Pending {
        let landing = internal_error("set aside: handling it failed inside Nightbell again and again; see the log");
        transitions::change(tx, row, Change::SetAside, landing, now).await?;
        tracing::error!(delivery.id = %row.id, "set aside: handling it failed inside Nightbell again and again");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::route::ProviderName;
    use jiff::tz::TimeZone;
    use std::time::Duration;

    #[test]
    fn time_goes_on_for_an_order_that_waits_until_its_day_is_over() {
        let midnight: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let (asked, asked_at) = (midnight - SignedDuration::from_secs(1), Instant::now());
        let day = LocalDay::of(asked, &TimeZone::UTC);
        let order = DueRules {
            rules: BeginRules {
                route: Arc::new(Route::new(Channel::Sms, ProviderName::Log, "log", "")),
                day,
                tomorrow: day.end(&TimeZone::UTC),
                configured_limit: 1,
                lease: SignedDuration::from_secs(60),
                expire_after: SignedDuration::from_hours(72),
                uptime: None,
            },
            most: 1,
            now: asked,
            asked_at,
            idle: Arc::default(),
            is_withdrawn: AtomicBool::new(false),
        };
        let after = |ms: u64| asked_at + Duration::from_millis(ms);

        assert_eq!(
            order.at(after(700), None),
            Some(asked + SignedDuration::from_millis(700))
        );
        let event = asked + SignedDuration::from_millis(800);
        assert_eq!(
            order.at(after(700), Some(event)),
            Some(event),
            "not older than its event"
        );
        assert_eq!(order.at(after(1_000), None), None);
        let turned = DueRules {
            rules: BeginRules {
                tomorrow: midnight + SignedDuration::from_hours(24),
                ..order.rules.clone()
            },
            idle: Arc::default(),
            is_withdrawn: AtomicBool::new(false),
            ..order
        };
        let after_the_jump = asked + SignedDuration::from_hours(1);
        assert_eq!(
            turned.at(after(700), Some(after_the_jump)),
            None,
            "the clock was turned"
        );
        let order = DueRules {
            rules: BeginRules {
                tomorrow: midnight,
                ..turned.rules.clone()
            },
            idle: Arc::default(),
            is_withdrawn: AtomicBool::new(false),
            ..turned
        };
        assert_eq!(order.at(after(0), Some(midnight)), None);
    }
}
