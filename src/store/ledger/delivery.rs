//! A delivery as a transaction has it: locked, moved in memory, saved with its timeline entries. Every move goes through
//! the state machine of `domain::delivery`, and leaves one entry on the timeline in the same transaction.

use crate::{
    domain::{
        acknowledge::ACKNOWLEDGED,
        day::after,
        delivery::{Change, MessageStatus, Reason, State},
        id::{AlertId, AttemptNo, DeliveryId},
        lifecycle::EventType,
        phone::PhoneNumber,
    },
    store::{
        error::StoreError,
        jobs::{Addition, NewDelivery},
        lifecycle::About,
        query::Query,
        sql::{Rows, Sql, row, sql},
        tx::{Effect, Tx},
        types::{at, ms, new_id},
    },
};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// The columns of a [`Delivery`], of `delivery d left join alert a`.
pub const COLUMNS: &str = "d.id, d.alert_id, d.round, d.state, d.reason, d.attempts, d.phone, d.message, d.due_at,
    d.lease_token, d.lease_until, d.received_at, d.moved_at, d.timeline_length, d.provider, d.provider_message_id,
    d.provider_status, d.error_code, d.provider_at, d.read_at, a.closed_at, a.quieted_at";

/// A delivery, locked until the commit.
#[derive(Debug, sqlx::FromRow)]
pub struct Delivery {
    pub id: DeliveryId,
    /// `None` of a message that no alert is the cause of.
    pub alert_id: Option<AlertId>,
    round: i64,
    pub state: State,
    reason: Option<String>,
    /// The number of the newest one.
    pub attempts: AttemptNo,
    pub phone: Option<String>,
    pub message: String,
    due_at: Option<i64>,
    pub lease_token: Option<String>,
    pub lease_until: Option<i64>,
    pub received_at: i64,
    moved_at: i64,
    pub timeline_length: i64,
    pub provider: Option<String>,
    #[sqlx(flatten)]
    words: Words,
    read_at: Option<i64>,
    #[sqlx(flatten)]
    end: AlertEnd,
    #[sqlx(skip)]
    edits: Edits,
}

/// What happened to the alert of a delivery that may have made it pointless.
#[derive(Clone, Copy, Debug, Default, sqlx::FromRow)]
pub struct AlertEnd {
    closed_at: Option<i64>,
    /// When somebody acknowledged it, so that nobody else needs to be told.
    quieted_at: Option<i64>,
}

/// The provider's own words that stand beside our state.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
struct Words {
    provider_message_id: Option<String>,
    provider_status: Option<String>,
    error_code: Option<i64>,
    provider_at: Option<i64>,
}

/// What was done to a delivery in memory and is not saved yet.
#[derive(Debug, Default)]
struct Edits {
    has_moved: bool,
    /// Whether its age begins anew.
    is_as_new: bool,
    /// Something beside its state was noted, at this time.
    noted_at: Option<i64>,
    entries: Vec<Entry>,
}

row! {
    /// An entry of the timeline.
    #[derive(Debug)]
    Entry {
        id: DeliveryId as text,
        seq: i64 as number,
        at: i64 as number,
        what: &'static str as text,
        detail: Option<String> as text,
        run: Option<String> as text,
        run_from: Option<AttemptNo> as number,
    }
}

/// Where a move ends, beside the state itself.
#[derive(Default)]
pub struct Landing {
    pub reason: Option<Reason>,
    /// When something has to be done next; `None` for a final state.
    pub due_at: Option<Timestamp>,
    /// Until when a call to the provider may be under way.
    pub lease_until: Option<Timestamp>,
    /// What the timeline says of it. Never a phone number, name, or a provider's own text.
    pub detail: String,
}

/// What a provider says of a message at some time, whoever brought it: an answer, a receipt, a lookup.
#[derive(Clone, Copy)]
pub struct StatusUpdate<'a> {
    pub attempt: AttemptNo,
    pub message_id: &'a str,
    /// The provider's own word, and what it means.
    pub word: &'a str,
    pub status: Option<MessageStatus>,
    pub error_code: Option<i64>,
    pub at: Timestamp,
    /// After how long without a new status the provider is asked.
    pub poll_after: SignedDuration,
}

impl Delivery {
    /// One that is not in the database yet: to be sent at once, or failed where its number cannot be used.
    pub fn new(id: DeliveryId, alert_id: Option<&AlertId>, new: &NewDelivery, now: Timestamp) -> Self {
        let (state, reason, detail) = match &new.phone {
            Ok(_) => (State::Pending, None, "to be sent"),
            Err(Some(_)) => (
                State::Failed,
                Some(Reason::InvalidNumber),
                "the number given cannot be texted",
            ),
            Err(None) => (State::Failed, Some(Reason::NoNumber), "no number was given"),
        };
        let mut delivery = Self {
            id,
            alert_id: alert_id.cloned(),
            round: 0,
            state,
            reason: reason.map(|reason| reason.as_str().to_owned()),
            attempts: AttemptNo(0),
            phone: new.phone.as_ref().ok().map(|phone| phone.as_e164().to_owned()),
            message: new.message.clone(),
            due_at: (state == State::Pending).then_some(ms(now)),
            lease_token: None,
            lease_until: None,
            received_at: ms(now),
            moved_at: ms(now),
            timeline_length: 0,
            provider: None,
            words: Words::default(),
            read_at: None,
            end: AlertEnd::default(),
            edits: Edits::default(),
        };
        delivery.add_entry(state.as_str(), detail.to_owned(), now);
        delivery
    }

    /// Why this delivery is pointless by now, if it is: the ticket is closed, or somebody acknowledged the alert after it was
    /// owed. Never one that a person asked to be sent again.
    pub fn pointless(&self) -> Option<Reason> {
        if self.round > 0 {
            return None;
        }
        let is_quieted = self.end.quieted_at.is_some_and(|at| self.received_at <= at);
        match self.end.closed_at {
            Some(_) => Some(Reason::TicketClosed),
            None => is_quieted.then_some(Reason::Canceled),
        }
    }

    /// Cancels it because somebody acknowledged its alert, if its send has not begun.
    pub fn quiet(&mut self, now: Timestamp) -> Option<State> {
        let landing = Landing {
            reason: Some(Reason::Canceled),
            detail: ACKNOWLEDGED.to_owned(),
            ..Default::default()
        };
        (self.round == 0)
            .then(|| self.apply(Change::Cancel, landing, now))
            .flatten()
    }

    pub fn phone(&self) -> Result<PhoneNumber, StoreError> {
        let phone = self.phone.clone().map(PhoneNumber::from_stored);
        phone.ok_or_else(|| StoreError::Unreadable {
            what: "a pending delivery without a phone".to_owned(),
            value: self.id.to_string(),
        })
    }

    /// Moves it if the state machine knows `change` here. Returns the new state, or `None` if nothing changed.
    pub fn apply(&mut self, change: Change, landing: Landing, now: Timestamp) -> Option<State> {
        let state = self.state.after(change)?;
        if change == Change::Begin {
            self.attempts.0 += 1;
        }
        self.state = state;
        self.reason = landing.reason.map(|reason| reason.as_str().to_owned());
        self.due_at = landing.due_at.map(ms);
        self.lease_token = None;
        self.lease_until = landing.lease_until.map(ms);
        self.moved_at = ms(now);
        self.edits.has_moved = true;
        self.add_entry(state.as_str(), landing.detail, now);
        Some(state)
    }

    /// The newest attempt surely was not sent: owed again, or canceled if that became pointless meanwhile. `end` has to be
    /// read after the lock was had: PostgreSQL may have waited for it while the ticket was closed or acknowledged.
    pub fn not_sent(&mut self, end: AlertEnd, mut landing: Landing, now: Timestamp) -> Option<State> {
        self.end = end;
        let pointless = self.pointless();
        if let Some(reason) = pointless {
            landing.reason = Some(reason);
            landing.due_at = None;
            if reason == Reason::Canceled {
                landing.detail = format!("{}; {ACKNOWLEDGED}", landing.detail);
            }
        }
        let closed = pointless.is_some();
        self.apply(Change::NotSent { closed }, landing, now)
    }

    /// Lets the provider's word count: it only ever raises the rank, and is kept beside our state.
    pub fn update(&mut self, update: &StatusUpdate<'_>) {
        let (before, is_newest) = (self.state, update.attempt == self.attempts);
        let has_moved = match update.status {
            Some(status) => self.apply_status(update, status, is_newest).is_some(),
            None => {
                let detail = format!(
                    "attempt {}: the provider says `{}`, which is no status we know",
                    update.attempt, update.word
                );
                self.note("receipt", detail, update.at);
                false
            }
        };
        // Beside our state stand the words that led to it; of what led nowhere, only those of a message still on its way.
        let on_its_way = before.is_uncertain() || matches!(before, State::Accepted | State::Sent);
        let same_rank = update.status.is_none_or(|status| status.state() == before);
        if has_moved || (is_newest && on_its_way && same_rank) {
            self.words = Words {
                provider_message_id: Some(update.message_id.to_owned()),
                provider_status: Some(update.word.to_owned()),
                error_code: update.error_code,
                provider_at: Some(ms(update.at)),
            };
            self.edits.noted_at = Some(ms(update.at));
        }
    }

    /// The provider has the message: that counts first, and then what it says of it beyond.
    pub fn update_accepted(&mut self, update: &StatusUpdate<'_>) {
        let accepted = Some(MessageStatus::Accepted);
        self.update(&StatusUpdate {
            status: accepted,
            error_code: None,
            ..*update
        });
        if update.status != accepted {
            self.update(update);
        }
    }

    fn apply_status(&mut self, update: &StatusUpdate<'_>, status: MessageStatus, is_newest: bool) -> Option<State> {
        let failed = matches!(status, MessageStatus::Failed | MessageStatus::Undelivered);
        let code = update
            .error_code
            .map_or_else(String::new, |code| format!(", code {code}"));
        let landing = Landing {
            reason: failed.then_some(Reason::ProviderFailed),
            due_at: matches!(status, MessageStatus::Accepted | MessageStatus::Sent)
                .then(|| after(update.at, update.poll_after)),
            detail: format!("attempt {}: the provider says `{}`{code}", update.attempt, update.word),
            ..Default::default()
        };
        let change = Change::Update {
            status,
            newest_attempt: is_newest,
        };
        self.apply(change, landing, update.at)
    }

    /// Keeps the code of a refusal.
    pub fn keep_code(&mut self, code: Option<i64>, now: Timestamp) {
        self.words.error_code = code;
        self.words.provider_at = Some(ms(now));
        self.edits.noted_at = Some(ms(now));
    }

    /// The person read it.
    pub fn keep_read(&mut self, now: Timestamp) {
        self.read_at = self.read_at.or(Some(ms(now)));
        self.edits.noted_at = Some(ms(now));
    }

    /// Adds an entry that goes with no move.
    pub fn note(&mut self, what: &'static str, detail: String, now: Timestamp) {
        self.add_entry(what, detail, now);
        self.edits.noted_at = Some(ms(now));
    }

    /// Notes what must not happen and stops nothing: a second message for one attempt, or one message for two.
    pub fn note_other_message(&mut self, attempt: AttemptNo, now: Timestamp) {
        tracing::error!(delivery.id = %self.id, %attempt, "the provider's messages and our attempts are not one to one");
        let detail = format!("attempt {attempt}: the provider names a message that is not this attempt's own");
        self.note("other_message", detail, now);
    }

    /// The newest entry stands for all attempts since the one numbered `from`, which ended at `at`: none of them was sent, and
    /// all because of `why`.
    pub fn make_run(&mut self, why: String, from: AttemptNo, at: Timestamp) {
        if let Some(entry) = self.edits.entries.last_mut() {
            entry.at = ms(at);
            entry.run = Some(why);
            entry.run_from = Some(from);
        }
    }

    /// As old as the event that says so: it is owed anew.
    pub fn restart_age(&mut self, now: Timestamp) {
        self.received_at = ms(now);
        self.edits.is_as_new = true;
    }

    /// Lets others hear of the moves that an entry each stands for.
    fn tell(&self, tx: &mut Tx, entries: &[Entry]) {
        for entry in entries {
            let Some(state) = State::parse(entry.what) else {
                continue;
            };
            let Some(kind) = EventType::of_move(state) else {
                continue;
            };
            let about = About {
                alert_id: self.alert_id.as_ref(),
                delivery_id: Some(&self.id),
                ..About::default()
            };
            tx.tell(kind, &about, at(entry.at), || {
                // The words beside the state are those of the newest move.
                let words = (self.state == state).then_some(&self.words);
                serde_json::json!({
                    "state": state,
                    "reason": words.and(self.reason.as_deref()),
                    "attempt": self.attempts.0,
                    "round": self.round,
                    "provider": self.provider,
                    "provider_message_id": words.and_then(|words| words.provider_message_id.as_deref()),
                    "provider_status": words.and_then(|words| words.provider_status.as_deref()),
                    "error_code": words.and_then(|words| words.error_code),
                })
            });
        }
    }

    fn add_entry(&mut self, what: &'static str, detail: String, now: Timestamp) {
        self.timeline_length += 1;
        self.edits.entries.push(Entry {
            id: self.id.clone(),
            seq: self.timeline_length,
            at: ms(now),
            what,
            detail: Some(detail).filter(|detail| !detail.is_empty()),
            run: None,
            run_from: None,
        });
    }
}

/// Reads deliveries and keeps them from changing until the commit; in the order of their ids, as everybody does.
pub async fn lock(tx: &mut Tx, ids: &[DeliveryId]) -> Result<Vec<Delivery>, StoreError> {
    const LOCK: Sql = sql!(
        "select ",
        COLUMNS,
        " from ",
        IDS,
        " cross join delivery d left join alert a on a.id = d.alert_id where d.id = r.id order by d.id for update of d"
    );
    let rows = id_rows(ids);
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    tx.all(LOCK, [rows.into()]).await
}

row! {
    IdRow<'a> { id: &'a DeliveryId as text }
}

/// What selects [`id_rows`], as `r`.
pub const IDS: &str = IdRow::ROWS;

/// Ids as rows.
pub fn id_rows(ids: &[DeliveryId]) -> Rows {
    ids.iter().map(|id| IdRow { id }).collect()
}

/// A delivery on its way into the table, with what it is about.
pub struct Birth {
    pub delivery: Delivery,
    pub about: NewDelivery,
    /// The one that this repeats.
    pub resend_of: Option<DeliveryId>,
}

impl Birth {
    /// Because of an event, or of none.
    pub fn new(id: DeliveryId, alert_id: Option<&AlertId>, about: NewDelivery, now: Timestamp) -> Self {
        Self {
            delivery: Delivery::new(id, alert_id, &about, now),
            about,
            resend_of: None,
        }
    }

    /// Because a person wants `old` sent again, as round `round`.
    pub fn resend(old: &Delivery, about: NewDelivery, round: i64, now: Timestamp) -> Self {
        let mut delivery = Delivery::new(new_id().into(), old.alert_id.as_ref(), &about, now);
        delivery.round = round;
        if let Some(entry) = delivery.edits.entries.last_mut() {
            entry.detail = Some(format!("to be sent again, instead of {}", old.id));
        }
        Self {
            delivery,
            about,
            resend_of: Some(old.id.clone()),
        }
    }

    /// As its caller sees it.
    pub fn addition(&self) -> Addition {
        Addition {
            id: self.delivery.id.clone(),
            recipient: self.about.recipient.clone(),
            state: self.delivery.state,
        }
    }
}

row! {
    BirthRow<'a>(delivery: &'a Delivery, about: &'a NewDelivery, resend_of: &'a Option<DeliveryId>) {
        id: text = delivery.id,
        alert_id: text = delivery.alert_id,
        channel: text = about.channel.as_str(),
        phone: text = delivery.phone,
        phone_raw: text = about.phone.as_ref().err(),
        round: number = delivery.round,
        resend_of: text = resend_of,
        staff_id: text = about.recipient.staff_id,
        role: text = about.recipient.role,
        name: text = about.recipient.name,
        message: text = delivery.message,
        segments: number = about.segments,
        state: text = delivery.state.as_str(),
        reason: text = delivery.reason,
        attempts: number = delivery.attempts,
        due_at: number = delivery.due_at,
        lease_until: number = delivery.lease_until,
        length: number = delivery.timeline_length,
        provider: text = delivery.provider,
        received_at: number = delivery.received_at,
        moved_at: number = delivery.moved_at,
    }
}

/// Only those whose alert is there, if they have one.
const CREATE: Sql = sql!(
    "insert into delivery (id, alert_id, channel, phone, phone_raw, round, resend_of, staff_id, role, name, message, segments,
        state, reason, attempts, due_at, lease_until, timeline_length, provider, received_at, created_at, moved_at, updated_at,
        claims, looks)
     select r.id, a.id, r.channel, r.phone, r.phone_raw, r.round, r.resend_of, r.staff_id, r.role, r.name, r.message,
        r.segments, r.state, r.reason, r.attempts, r.due_at, r.lease_until, r.length, r.provider, r.received_at, r.received_at,
        r.moved_at, r.moved_at, 0, 0
     from ",
    BirthRow::ROWS,
    " left join alert a on a.id = r.alert_id where a.id is not null or r.alert_id is null
     on conflict (alert_id, channel, phone, round) do nothing"
);

/// Creates deliveries with their first entries; what was begun already is created as begun. An alert that brings nobody who
/// could be told is an alarm.
pub async fn create(tx: &mut Tx, births: &mut [Birth], now: Timestamp) -> Result<(), StoreError> {
    let (mut rows, mut entries) = (Rows::default(), Rows::default());
    let mut is_due = false;
    let (mut untold, mut told) = (BTreeSet::new(), BTreeSet::new());
    for Birth {
        delivery,
        about,
        resend_of,
    } in births
    {
        rows.push(&BirthRow {
            delivery,
            about,
            resend_of,
        });
        is_due |= delivery.state == State::Pending;
        let set = if delivery.state.leaves_untold() {
            &mut untold
        } else {
            &mut told
        };
        set.extend(delivery.alert_id.clone());
        let edits = std::mem::take(&mut delivery.edits);
        delivery.tell(tx, &edits.entries);
        edits.entries.iter().for_each(|entry| entries.push(entry));
    }
    tx.queue(CREATE, rows);
    tx.queue(ADD_FIRST_ENTRIES, entries);
    if is_due {
        tx.then(Effect::Wake);
    }
    super::told::check(tx, untold.difference(&told).map(|id| (id.clone(), now)).collect()).await
}

const ADD_ENTRIES: Sql = sql!(
    "insert into timeline (delivery_id, seq, at, what, detail, run, run_from)
     select r.id, r.seq, r.at, r.what, r.detail, r.run, r.run_from from ",
    Entry::ROWS
);
/// Only of deliveries that are there.
const ADD_FIRST_ENTRIES: Sql = sql!(
    "insert into timeline (delivery_id, seq, at, what, detail)
     select d.id, r.seq, r.at, r.what, r.detail from ",
    Entry::ROWS,
    " cross join delivery d where d.id = r.id"
);

row! {
    SaveRow<'a>(delivery: &'a Delivery, at: i64) {
        id: text = delivery.id,
        state: text = delivery.state.as_str(),
        reason: text = delivery.reason,
        due_at: number = delivery.due_at,
        lease_until: number = delivery.lease_until,
        attempts: number = delivery.attempts,
        at: number = at,
        length: number = delivery.timeline_length,
        provider: text = delivery.provider,
        read_at: number = delivery.read_at,
        message_id: text = delivery.words.provider_message_id,
        word: text = delivery.words.provider_status,
        error_code: number = delivery.words.error_code,
        provider_at: number = delivery.words.provider_at,
    }
}

/// What a move changes. No column more: SQLite writes every index of what is named here, also where it stays as it is.
const SAVE_MOVED: Sql = sql!(
    "update delivery set state = r.state, reason = r.reason, due_at = r.due_at, lease_token = null,
        lease_until = r.lease_until, attempts = r.attempts, claims = 0, looks = 0, report_day = null, moved_at = r.at,
        updated_at = r.at, timeline_length = r.length, provider = r.provider, read_at = r.read_at,
        provider_message_id = r.message_id, provider_status = r.word, error_code = r.error_code, provider_at = r.provider_at
     from ",
    SaveRow::ROWS,
    " where delivery.id = r.id"
);

/// What is noted beside a state that stays.
const SAVE_NOTED: Sql = sql!(
    "update delivery set updated_at = r.at, timeline_length = r.length, read_at = r.read_at,
        provider_message_id = r.message_id, provider_status = r.word, error_code = r.error_code, provider_at = r.provider_at
     from ",
    SaveRow::ROWS,
    " where delivery.id = r.id"
);

row! {
    AgeRow<'a> { id: &'a DeliveryId as text, received_at: i64 as number }
}

const SAVE_AGE: Sql = sql!(
    "update delivery set received_at = r.received_at from ",
    AgeRow::ROWS,
    " where delivery.id = r.id"
);

/// Saves what was done to deliveries, each of which is there once. What follows from their states follows from here: who
/// waits for work is woken, and of an alert that nobody is told of any more an alarm is raised.
pub async fn save(tx: &mut Tx, deliveries: &mut [Delivery]) -> Result<(), StoreError> {
    let (mut moved, mut noted, mut entries) = (Rows::default(), Rows::default(), Rows::default());
    let mut ages = Rows::default();
    let mut untold: Vec<(AlertId, Timestamp)> = Vec::new();
    for delivery in deliveries.iter_mut() {
        let edits = std::mem::take(&mut delivery.edits);
        let row = match (edits.has_moved, edits.noted_at) {
            (true, _) => SaveRow {
                delivery,
                at: delivery.moved_at,
            },
            (false, Some(at)) => SaveRow { delivery, at },
            (false, None) => continue,
        };
        if edits.is_as_new {
            ages.push(&AgeRow {
                id: &delivery.id,
                received_at: delivery.received_at,
            });
        }
        if edits.has_moved {
            moved.push(&row);
            delivery.tell(tx, &edits.entries);
            if delivery.state == State::Pending && delivery.due_at.is_some_and(|due_at| due_at <= delivery.moved_at) {
                tx.then(Effect::Wake);
            }
            if delivery.state.leaves_untold() && delivery.state != State::Canceled {
                let moved_at = at(delivery.moved_at);
                untold.extend(delivery.alert_id.clone().map(|id| (id, moved_at)));
            }
        } else {
            noted.push(&row);
        }
        edits.entries.iter().for_each(|entry| entries.push(entry));
    }
    tx.queue(SAVE_MOVED, moved);
    tx.queue(SAVE_NOTED, noted);
    tx.queue(SAVE_AGE, ages);
    tx.queue(ADD_ENTRIES, entries);
    if tx.has_neighbours() {
        for (alert_id, at) in untold.iter().cloned() {
            tx.then(Effect::CheckToldAgain { alert_id, at });
        }
    }
    super::told::check(tx, untold).await
}
