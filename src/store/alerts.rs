//! Alerts: raising one with its deliveries in a single transaction, adding to one that nobody heard of, and closing it.
//! Absent: reading them back (see `lists`).

use super::{
    Db, Engine, StoreError, Tx, locking, ms, new_id, pace,
    sending::Born,
    session::call,
    transitions::{self, Landing},
    tx::{Rows, to_json},
    within,
};
use crate::domain::route::Channel;
use crate::domain::{
    delivery::{Change, Reason, State},
    event::Event,
    phone::PhoneNumber,
};
use jiff::Timestamp;
use sqlx::{Sqlite, pool::PoolConnection};
use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What a later critical event may add to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaterRecipients {
    /// Its people, but only if nobody was told so far.
    Untold,
    /// Each newly named number of an open alert, once.
    Each,
}

/// A delivery to be owed because of an event.
#[derive(Clone)]
pub struct NewDelivery {
    pub staff_id: Option<String>,
    pub role: Option<String>,
    pub name: Option<String>,
    /// `Err` holds the text that is no number, or nothing if there was none.
    pub phone: Result<PhoneNumber, Option<String>>,
    pub message: String,
    pub segments: usize,
}

/// A delivery that an event added or brought back.
#[derive(Clone, Debug)]
pub struct Addition {
    pub id: String,
    pub staff_id: Option<String>,
    pub role: Option<String>,
    pub name: Option<String>,
    pub state: State,
}

/// What became of a critical event.
pub enum Accepted {
    /// The alert is new, or it now tells more people.
    New {
        alert_id: String,
        deliveries: Vec<Addition>,
    },
    /// This ticket has its alert; nothing was added.
    Duplicate { alert_id: String },
}

/// What became of an event that ends an alert.
pub enum Resolved {
    /// The alert is closed; so many deliveries are canceled by it.
    Closed { alert_id: String, canceled: usize },
    /// A late retry: the alert was closed by this very event, and has been opened again since.
    Duplicate { alert_id: String },
}

/// What an event said of a ticket, for the ids that an alert has seen.
const CRITICAL: &str = "critical";
const OVER: &str = "over";

/// What is already on an alert.
#[derive(sqlx::FromRow)]
struct Known {
    id: String,
    state: String,
    phone: Option<String>,
    phone_raw: Option<String>,
    staff_id: Option<String>,
    role: Option<String>,
    name: Option<String>,
}

impl Known {
    fn state(&self) -> Result<State, StoreError> {
        State::parse(&self.state).ok_or_else(|| StoreError::Unreadable {
            what: "the delivery state",
            value: self.state.clone(),
        })
    }

    /// Whether the new delivery is for the same number; of unusable numbers, for the same text and person.
    fn is_for(&self, new: &NewDelivery) -> bool {
        match &new.phone {
            Ok(phone) => self.phone.as_deref() == Some(phone.as_e164()),
            Err(raw) => {
                self.phone.is_none() && self.phone_raw == *raw && self.staff_id == new.staff_id && self.name == new.name
            }
        }
    }
}

impl Db {
    /// Raises the alert of a critical event, or finds it raised already. Durable when this returns. `compose` makes the
    /// deliveries and runs only if they are needed.
    pub async fn accept(
        &self,
        event: &Event,
        later: LaterRecipients,
        now: Timestamp,
        compose: impl FnOnce() -> Vec<NewDelivery>,
    ) -> Result<Accepted, StoreError> {
        let (source, ticket_id) = (&event.source, &event.ticket.id);
        let was_seen = self.seen.has(source, ticket_id);
        // Most duplicates are answered here, from what is committed, without waiting for the writer.
        if was_seen && let Some(alert_id) = self.find_duplicate(event, later).await? {
            return Ok(Accepted::Duplicate { alert_id });
        }
        let new = compose();
        if !was_seen && new.iter().any(|delivery| delivery.phone.is_ok()) {
            let (alert, deliveries) = NewAlert::of(event, &new, now);
            let alert_id = alert.id.clone();
            let is_new = self.groups.accept(alert).await?;
            self.seen.add(source, ticket_id);
            if is_new {
                return Ok(Accepted::New { alert_id, deliveries });
            }
            if let Some(alert_id) = self.find_duplicate(event, later).await? {
                return Ok(Accepted::Duplicate { alert_id });
            }
        }
        self.accept_alone(event, later, &new, now).await
    }

    /// What few events need: nobody on them can be told, or their ticket is known and nobody on it was, or the alert has not
    /// seen their id.
    async fn accept_alone(
        &self,
        event: &Event,
        later: LaterRecipients,
        new: &[NewDelivery],
        now: Timestamp,
    ) -> Result<Accepted, StoreError> {
        let mut tx = self.begin().await?;
        let alert_id = new_id();
        if insert_alert(&mut tx, &alert_id, event, now).await? {
            let mut deliveries = Vec::with_capacity(new.len());
            for delivery in new {
                deliveries.push(insert_delivery(&mut tx, &alert_id, delivery, now));
            }
            transitions::check_somebody_is_told(&mut tx, &alert_id, now).await?;
            pace::ring(&mut tx).await?;
            tx.commit().await?;
            return Ok(Accepted::New { alert_id, deliveries });
        }

        let Locked {
            id: alert_id,
            closed_at,
            stripped_at,
            event_id,
            close_occurred_at,
        } = lock_alert(&mut tx, &event.source, &event.ticket.id)
            .await?
            .ok_or(sqlx::Error::RowNotFound)?;
        if let Some(id) = &event.id
            && (event_id.as_ref() == Some(id) || !note_event(&mut tx, &alert_id, CRITICAL, id, now).await?)
        {
            return Ok(Accepted::Duplicate { alert_id });
        }
        // A close that lies ahead was dated by a clock that has gone back since.
        let ended_at = close_occurred_at.or(closed_at).filter(|ended_at| *ended_at <= ms(now));
        // Helpdesks date to the second. In the very second of the close, an event without an id is the one before it.
        let is_before = |ended_at: i64| match ms(event.occurred_at).cmp(&ended_at) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => event.id.is_none(),
            std::cmp::Ordering::Greater => false,
        };
        if event.is_dated && ended_at.is_some_and(is_before) {
            // It tells of a time before the close, so it changes nothing; but its id is seen now.
            tx.commit().await?;
            return Ok(Accepted::Duplicate { alert_id });
        }
        let known = deliveries_of(&mut tx, &alert_id).await?;
        let (mut told, mut on_its_way) = (false, false);
        for delivery in &known {
            let state = delivery.state()?;
            told |= state.is_told();
            on_its_way |= matches!(state, State::Sending | State::Unknown | State::Unconfirmed);
        }
        if told && closed_at.is_some() && on_its_way {
            // Nothing is added, but what is on its way counts again: if it turns out not sent, it is owed.
            reopen(&mut tx, &alert_id).await?;
            tx.commit().await?;
            return Ok(Accepted::Duplicate { alert_id });
        }
        // Of a stripped alert nobody knows any more whom it told: they must not be told again.
        if told && (later == LaterRecipients::Untold || closed_at.is_some() || stripped_at.is_some()) {
            tx.commit().await?;
            return Ok(Accepted::Duplicate { alert_id });
        }
        if stripped_at.is_some() {
            restore(&mut tx, &alert_id, event).await?;
        }
        let deliveries = add_to_alert(&mut tx, &alert_id, &known, new, told, now).await?;
        if deliveries.is_empty() {
            // Nothing of that, then; only the id is seen.
            drop(tx);
            if let Some(id) = &event.id {
                let mut tx = self.begin().await?;
                note_event(&mut tx, &alert_id, CRITICAL, id, now).await?;
                tx.commit().await?;
            }
            return Ok(Accepted::Duplicate { alert_id });
        }
        pace::ring(&mut tx).await?;
        tx.commit().await?;
        Ok(Accepted::New { alert_id, deliveries })
    }

    /// The alert of a ticket, if it is certain without a write that a critical event adds nothing to it.
    async fn find_duplicate(&self, event: &Event, later: LaterRecipients) -> Result<Option<String>, StoreError> {
        let told_is_enough = later == LaterRecipients::Untold && event.id.is_none();
        if !told_is_enough && event.id.is_none() {
            return Ok(None);
        }
        let lookup = Lookup {
            source: event.source.clone(),
            ticket_id: event.ticket.id.clone(),
            event_id: event.id.clone(),
            told_is_enough,
        };
        self.groups.look_up(lookup).await
    }

    /// Closes the alert of a ticket and cancels what has not begun to be sent. `None` if the ticket has no alert.
    pub async fn resolve(&self, event: &Event, now: Timestamp) -> Result<Option<Resolved>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(alert) = lock_alert(&mut tx, &event.source, &event.ticket.id).await? else {
            return Ok(None);
        };
        let alert_id = alert.id;
        if let Some(id) = &event.id
            && !note_event(&mut tx, &alert_id, OVER, id, now).await?
        {
            // It was said before. If the alert is open all the same, it was opened again since.
            return Ok(Some(match alert.closed_at {
                Some(_) => Resolved::Closed { alert_id, canceled: 0 },
                None => Resolved::Duplicate { alert_id },
            }));
        }
        // A helpdesk whose clock is ahead must not make news of the next hours old.
        let occurred_at = if event.is_dated {
            event.occurred_at.min(now)
        } else {
            now
        };
        within!(tx, |conn| {
            sqlx::query(
                "update alert set closed_at = coalesce(closed_at, $2),
                    close_occurred_at = case when close_occurred_at > $3 then close_occurred_at else $3 end where id = $1",
            )
            .bind(&alert_id)
            .bind(ms(now))
            .bind(ms(occurred_at))
            .execute(conn)
            .await
            .map(drop)
        })?;
        let mut canceled = 0;
        for delivery in deliveries_of(&mut tx, &alert_id).await? {
            let Some(mut row) = transitions::lock(&mut tx, &delivery.id).await? else {
                continue;
            };
            let landing = Landing {
                reason: Some(Reason::TicketClosed),
                detail: "the ticket is no longer critical".into(),
                ..Default::default()
            };
            canceled += usize::from(
                transitions::change(&mut tx, &mut row, Change::Cancel, landing, now)
                    .await?
                    .is_some(),
            );
        }
        tx.commit().await?;
        Ok(Some(Resolved::Closed { alert_id, canceled }))
    }
}

/// Tickets that had an event lately: a hint, so that a new one costs no question and a storm of repeats no write. Wrong
/// or forgotten, it costs a trip and changes no answer.
pub(super) struct Seen {
    hasher: RandomState,
    marks: Box<[AtomicU64]>,
}

/// 128 KB; each ticket has one place, and takes it from whoever had it.
const SEEN: usize = 16 * 1024;

impl Seen {
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            marks: (0..SEEN).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn place(&self, source: &str, ticket_id: &str) -> (&AtomicU64, u64) {
        let mark = self.hasher.hash_one((source, ticket_id));
        (&self.marks[(mark % SEEN as u64) as usize], mark)
    }

    fn has(&self, source: &str, ticket_id: &str) -> bool {
        let (place, mark) = self.place(source, ticket_id);
        place.load(Ordering::Relaxed) == mark
    }

    fn add(&self, source: &str, ticket_id: &str) {
        let (place, mark) = self.place(source, ticket_id);
        place.store(mark, Ordering::Relaxed);
    }
}

/// An alert on its way into a group; at least one of its people can be told.
pub(super) struct NewAlert {
    pub id: String,
    pub at: Timestamp,
    /// PostgreSQL waits for others that insert the same ticket: everybody in the same order.
    key: (String, String),
    /// A row for `INSERT_ALERTS`.
    alert: String,
    pub deliveries: Vec<NewRow>,
}

/// A delivery on its way into a group.
pub(super) struct NewRow {
    pub id: String,
    pub phone: Option<PhoneNumber>,
    pub message: String,
    state: State,
    /// The first part of a row for `INSERT_DELIVERIES`: what it is. The second says where it stands.
    head: String,
    /// What its timeline says first.
    detail: &'static str,
}

impl NewAlert {
    fn of(event: &Event, new: &[NewDelivery], now: Timestamp) -> (Self, Vec<Addition>) {
        let id = new_id();
        let (additions, deliveries) = new.iter().map(|delivery| row_of(&id, delivery, now)).unzip();
        let alert = Self {
            key: (event.source.clone(), event.ticket.id.clone()),
            alert: alert_row(&id, event, now),
            deliveries,
            id,
            at: now,
        };
        (alert, additions)
    }
}

/// Inserts alerts with their deliveries, if their tickets have none; else nothing of them. Those that are `born` sending
/// begin their first attempt in the same statement.
pub(super) async fn queue_inserts(
    tx: &mut Tx,
    alerts: &[Arc<NewAlert>],
    born: Option<&Born>,
) -> Result<(), StoreError> {
    pace::ring(tx).await?;
    let mut sorted: Vec<&NewAlert> = alerts.iter().map(Arc::as_ref).collect();
    sorted.sort_by(|one, other| one.key.cmp(&other.key));
    let (mut rows, mut deliveries, mut lines) = (Rows::default(), Rows::default(), Rows::default());
    for alert in sorted {
        rows.push_json(&alert.alert);
        for delivery in &alert.deliveries {
            queue_delivery(delivery, alert.at, born, &mut deliveries, &mut lines);
        }
    }
    tx.queue(INSERT_ALERTS, [rows.into()]);
    tx.queue(INSERT_DELIVERIES, [deliveries.into()]);
    tx.queue(INSERT_FIRST_LINES, [lines.into()]);
    Ok(())
}

fn queue_delivery(new: &NewRow, at: Timestamp, born: Option<&Born>, deliveries: &mut Rows, lines: &mut Rows) {
    lines.push(&(&new.id, 1, ms(at), new.state.as_str(), new.detail));
    let due_at = (new.state == State::Pending).then_some(ms(at));
    let tail = match born.and_then(|born| Some((born, born.state_of(&new.id)?))) {
        Some((born, state)) => {
            lines.push(&(&new.id, 2, ms(born.now), state.as_str(), born.detail()));
            let provider = born.rules.route.provider.as_str();
            let lease_until = Some(ms(born.deadline_at()));
            to_json(&(
                state.as_str(),
                1,
                None::<i64>,
                lease_until,
                2,
                Some(provider),
                ms(born.now),
            ))
        }
        None => to_json(&(new.state.as_str(), 0, due_at, None::<i64>, 1, None::<&str>, ms(at))),
    };
    deliveries.push_joined(&new.head, &tail);
}

/// Commits, and says of each alert whether it is new.
pub(super) async fn commit_inserts(mut tx: Tx, alerts: &[Arc<NewAlert>]) -> Result<Vec<bool>, StoreError> {
    let ids: Rows = alerts.iter().map(|alert| [&alert.id]).collect();
    tx.queue(
        "select a.id from rows($1) as r cross join alert a where a.id = r.value ->> 0",
        [ids.into()],
    );
    let inserted: Vec<(String,)> = tx.commit_asking().await?;
    let inserted: HashSet<String> = inserted.into_iter().map(|(id,)| id).collect();
    Ok(alerts.iter().map(|alert| inserted.contains(&alert.id)).collect())
}

/// A critical event whose alert is looked for.
pub(super) struct Lookup {
    source: String,
    ticket_id: String,
    event_id: Option<String>,
    /// Whether an open alert on which somebody is told makes it a duplicate; else only an id that the alert has seen.
    told_is_enough: bool,
}

/// What `look_up_all` finds of an alert: a line for each delivery.
#[derive(sqlx::FromRow)]
struct Found {
    place: i64,
    id: String,
    closed_at: Option<i64>,
    state: String,
    seen: i64,
}

macro_rules! look_up {
    ($rows:literal) => {
        concat!(
            "select cast(r.value ->> 0 as bigint) as place, a.id, a.closed_at, d.state,
                (select count(*) from alert_event e where e.alert_id = a.id and e.kind = 'critical'
                    and e.event_id = r.value ->> 3) + case when a.event_id = r.value ->> 3 then 1 else 0 end as seen
             from ",
            $rows,
            " cross join alert a cross join delivery d
             where a.source = r.value ->> 1 and a.ticket_id = r.value ->> 2 and d.alert_id = a.id"
        )
    };
}

/// The alerts of tickets to which these events certainly add nothing, from what is committed. On SQLite by a connection
/// that is kept in `reader`.
pub(super) async fn look_up_all(
    engine: &Engine,
    reader: &mut Option<PoolConnection<Sqlite>>,
    lookups: &[Arc<Lookup>],
) -> Result<Vec<Option<String>>, StoreError> {
    let rows: Vec<String> = lookups
        .iter()
        .enumerate()
        .map(|(place, lookup)| to_json(&(place, &lookup.source, &lookup.ticket_id, &lookup.event_id)))
        .collect();
    let rows = format!("[{}]", rows.join(","));
    let found: Vec<Found> = match engine {
        Engine::Sqlite { reader: pool, .. } => {
            let mut connection = match reader.take() {
                Some(connection) => connection,
                None => pool.acquire().await?,
            };
            let found = sqlx::query_as(look_up!("json_each($1) as r"))
                .bind(rows)
                .fetch_all(&mut *connection)
                .await?;
            *reader = Some(connection);
            found
        }
        Engine::Postgres(pool) => {
            let mut session = pool.session().await?;
            call!(session, |conn| sqlx::query_as(look_up!(
                "json_array_elements(cast($1 as json)) as r(value)"
            ))
            .bind(rows)
            .fetch_all(conn)
            .await)?
        }
    };
    let mut told = vec![None; lookups.len()];
    for found in found {
        let place = usize::try_from(found.place).unwrap_or(usize::MAX);
        let (Some(lookup), Some(told)) = (lookups.get(place), told.get_mut(place)) else {
            continue;
        };
        let is_told = found.closed_at.is_none() && State::parse(&found.state).is_some_and(State::is_told);
        if found.seen > 0 || (is_told && lookup.told_is_enough) {
            *told = Some(found.id);
        }
    }
    Ok(told)
}

const INSERT_ALERTS: &str = "insert into alert (id, source, ticket_id, ticket_number, subject, url, client_name,
        client_organisation, estimated_hours, confidence_percent, event_id, event_type, occurred_at, received_at)
     select r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5, r.value ->> 6,
        r.value ->> 7, cast(r.value ->> 8 as double precision), cast(r.value ->> 9 as double precision), r.value ->> 10,
        r.value ->> 11, cast(r.value ->> 12 as bigint), cast(r.value ->> 13 as bigint)
     from rows($1) as r where true on conflict (source, ticket_id) do nothing";

/// Only those whose alert is there.
const INSERT_DELIVERIES: &str =
    "insert into delivery (id, alert_id, channel, phone, phone_raw, round, staff_id, role, name, message, segments, reason,
        received_at, created_at, state, attempts, due_at, lease_until, timeline_length, provider, moved_at, updated_at,
        claims, looks)
     select r.value ->> 0, a.id, r.value ->> 2, r.value ->> 3, r.value ->> 4, 0, r.value ->> 5, r.value ->> 6,
        r.value ->> 7, r.value ->> 8, cast(r.value ->> 9 as bigint), r.value ->> 10,
        cast(r.value ->> 11 as bigint), cast(r.value ->> 11 as bigint),
        r.value ->> 12, cast(r.value ->> 13 as bigint), cast(r.value ->> 14 as bigint), cast(r.value ->> 15 as bigint),
        cast(r.value ->> 16 as bigint), r.value ->> 17, cast(r.value ->> 18 as bigint), cast(r.value ->> 18 as bigint),
        0, 0
     from rows($1) as r cross join alert a where a.id = r.value ->> 1";

/// Only of deliveries that are there.
const INSERT_FIRST_LINES: &str = "insert into timeline (delivery_id, seq, at, what, detail)
     select d.id, cast(r.value ->> 1 as bigint), cast(r.value ->> 2 as bigint), r.value ->> 3, r.value ->> 4
     from rows($1) as r cross join delivery d where d.id = r.value ->> 0";

/// A row for `INSERT_ALERTS`.
fn alert_row(id: &str, event: &Event, now: Timestamp) -> String {
    let ticket = &event.ticket;
    to_json(&(
        id,
        &event.source,
        &ticket.id,
        &ticket.number,
        &ticket.subject,
        &ticket.url,
        &event.client.name,
        &event.client.organisation,
        ticket.estimated_hours,
        ticket.confidence_percent,
        &event.id,
        &event.kind,
        ms(event.occurred_at),
        ms(now),
    ))
}

/// A new delivery as its caller sees it, and on its way into the table.
fn row_of(alert_id: &str, new: &NewDelivery, now: Timestamp) -> (Addition, NewRow) {
    let (phone, raw, state, reason, detail) = match &new.phone {
        Ok(phone) => (Some(phone), None, State::Pending, None, "to be sent"),
        Err(Some(raw)) => (
            None,
            Some(raw.as_str()),
            State::Failed,
            Some(Reason::InvalidNumber),
            "the number given cannot be texted",
        ),
        Err(None) => (None, None, State::Failed, Some(Reason::NoNumber), "no number was given"),
    };
    let addition = Addition {
        id: new_id(),
        staff_id: new.staff_id.clone(),
        role: new.role.clone(),
        name: new.name.clone(),
        state,
    };
    let head = to_json(&(
        &addition.id,
        alert_id,
        Channel::Sms.as_str(),
        phone.map(PhoneNumber::as_e164),
        raw,
        &new.staff_id,
        &new.role,
        &new.name,
        &new.message,
        new.segments,
        reason.map(Reason::as_str),
        ms(now),
    ));
    let row = NewRow {
        id: addition.id.clone(),
        phone: phone.cloned(),
        message: new.message.clone(),
        state,
        head,
        detail,
    };
    (addition, row)
}

/// Inserts the alert unless its ticket has one. PostgreSQL waits here for a commit of the same ticket that is under way.
async fn insert_alert(tx: &mut Tx, id: &str, event: &Event, now: Timestamp) -> Result<bool, StoreError> {
    let mut rows = Rows::default();
    rows.push_json(&alert_row(id, event, now));
    tx.queue(INSERT_ALERTS, [rows.into()]);
    let inserted: Vec<(String,)> = tx.ask("select id from alert where id = $1", "", [id.into()]).await?;
    Ok(!inserted.is_empty())
}

/// An alert as a transaction sees it: locked until the commit.
#[derive(sqlx::FromRow)]
struct Locked {
    id: String,
    closed_at: Option<i64>,
    stripped_at: Option<i64>,
    event_id: Option<String>,
    close_occurred_at: Option<i64>,
}

/// Finds the alert of a ticket and keeps it from changing until the commit.
async fn lock_alert(tx: &mut Tx, source: &str, ticket_id: &str) -> Result<Option<Locked>, StoreError> {
    Ok(within!(tx, |conn| {
        sqlx::query_as(
            "update alert set closed_at = closed_at where source = $1 and ticket_id = $2
             returning id, closed_at, stripped_at, event_id, close_occurred_at",
        )
        .bind(source)
        .bind(ticket_id)
        .fetch_optional(conn)
        .await
    })?)
}

/// Notes that the alert has seen the event. Returns whether it had not seen it before.
async fn note_event(
    tx: &mut Tx,
    alert_id: &str,
    kind: &'static str,
    event_id: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(within!(tx, |conn| {
        sqlx::query(
            "insert into alert_event (alert_id, kind, event_id, received_at) values ($1, $2, $3, $4)
             on conflict (alert_id, kind, event_id) do nothing",
        )
        .bind(alert_id)
        .bind(kind)
        .bind(event_id)
        .bind(ms(now))
        .execute(conn)
        .await
        .map(|done| done.rows_affected() > 0)
    })?)
}

async fn deliveries_of(tx: &mut Tx, alert_id: &str) -> Result<Vec<Known>, StoreError> {
    Ok(locking!(
        tx,
        "select id, state, phone, phone_raw, staff_id, role, name from delivery where alert_id = $1 order by id",
        "for update",
        |conn, sql| sqlx::query_as(sql).bind(alert_id).fetch_all(conn).await
    )?)
}

/// Adds people who are not on the alert yet; where nobody was told, also brings back what was canceled: that was surely
/// not sent.
async fn add_to_alert(
    tx: &mut Tx,
    alert_id: &str,
    known: &[Known],
    new: &[NewDelivery],
    told: bool,
    now: Timestamp,
) -> Result<Vec<Addition>, StoreError> {
    let mut added = Vec::new();
    if !told {
        reopen(tx, alert_id).await?;
        // One without a number has lost it to the clean-up: its person is named anew, or not at all.
        for delivery in known.iter().filter(|delivery| delivery.phone.is_some()) {
            let Some(mut row) = transitions::lock(tx, &delivery.id).await? else {
                continue;
            };
            let landing = Landing {
                due_at: Some(now),
                detail: "the ticket is critical again and nobody was told".into(),
                ..Default::default()
            };
            let Some(state) = transitions::change(tx, &mut row, Change::Revive, landing, now).await? else {
                continue;
            };
            restart_age(tx, &delivery.id, now).await?;
            added.push(Addition {
                id: delivery.id.clone(),
                staff_id: delivery.staff_id.clone(),
                role: delivery.role.clone(),
                name: delivery.name.clone(),
                state,
            });
        }
    }
    for delivery in new.iter().filter(|new| !known.iter().any(|known| known.is_for(new))) {
        added.push(insert_delivery(tx, alert_id, delivery, now));
    }
    if !added.is_empty() {
        transitions::check_somebody_is_told(tx, alert_id, now).await?;
    }
    Ok(added)
}

/// Fills in again what clean-up took out of an alert that nobody was told of.
async fn restore(tx: &mut Tx, alert_id: &str, event: &Event) -> Result<(), StoreError> {
    Ok(within!(tx, |conn| sqlx::query(
        "update alert set stripped_at = null, ticket_number = $2, subject = $3, url = $4, client_name = $5,
            client_organisation = $6, event_id = $7 where id = $1"
    )
    .bind(alert_id)
    .bind(&event.ticket.number)
    .bind(&event.ticket.subject)
    .bind(&event.ticket.url)
    .bind(&event.client.name)
    .bind(&event.client.organisation)
    .bind(&event.id)
    .execute(conn)
    .await
    .map(drop))?)
}

async fn reopen(tx: &mut Tx, alert_id: &str) -> Result<(), StoreError> {
    within!(tx, |conn| sqlx::query(
        "update alert set closed_at = null where id = $1"
    )
    .bind(alert_id)
    .execute(conn)
    .await
    .map(drop))?;
    Ok(())
}

/// A delivery that is owed anew is as old as the event that said so.
async fn restart_age(tx: &mut Tx, delivery_id: &str, now: Timestamp) -> Result<(), StoreError> {
    within!(tx, |conn| sqlx::query(
        "update delivery set received_at = $2 where id = $1"
    )
    .bind(delivery_id)
    .bind(ms(now))
    .execute(conn)
    .await
    .map(drop))?;
    Ok(())
}

fn insert_delivery(tx: &mut Tx, alert_id: &str, new: &NewDelivery, now: Timestamp) -> Addition {
    let (addition, row) = row_of(alert_id, new, now);
    let (mut deliveries, mut lines) = (Rows::default(), Rows::default());
    queue_delivery(&row, now, None, &mut deliveries, &mut lines);
    tx.queue(INSERT_DELIVERIES, [deliveries.into()]);
    tx.queue(INSERT_FIRST_LINES, [lines.into()]);
    addition
}
