//! Attempts: a row for each call to a provider, with the slot of the daily limit that it took.

use super::delivery::Delivery;
use crate::{
    domain::{
        day::after,
        id::{AttemptNo, DeliveryId},
    },
    store::{
        error::StoreError,
        jobs::BeginRules,
        limits,
        query::Query,
        sql::{Rows, Sql, args, row, sql},
        tx::Tx,
        types::ms,
    },
};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};

/// The columns of an [`Attempt`], of `attempt t`.
pub const COLUMNS: &str =
    "t.number, t.message_id as own_message_id, t.outcome, t.error_code as answer_code, t.answered_at,
    t.limit_day, t.slot_returned_at";

/// An attempt; its delivery is locked.
#[derive(Debug, sqlx::FromRow)]
pub struct Attempt {
    pub number: AttemptNo,
    /// The message that it became, once that is known.
    pub own_message_id: Option<String>,
    outcome: Option<String>,
    answer_code: Option<i64>,
    answered_at: Option<i64>,
    limit_day: String,
    slot_returned_at: Option<i64>,
    #[sqlx(skip)]
    edits: Edits,
}

#[derive(Debug, Default)]
struct Edits {
    is_changed: bool,
    /// How many slots it takes beyond those it had: -1, 0 or 1.
    slots: i64,
}

/// An attempt that something is known of, its delivery locked.
#[derive(sqlx::FromRow)]
pub struct Located {
    #[sqlx(flatten)]
    pub delivery: Delivery,
    #[sqlx(flatten)]
    pub attempt: Attempt,
    /// How many attempts became the message that is named.
    pub owners: i64,
    /// How many receipts of it wait.
    pub waiting: i64,
}

/// The columns of a [`Located`], of `r` with the message's id, `delivery d left join alert a`, and `attempt t`.
pub const LOCATED: &str = const_format::concatcp!(
    "(select count(*) from attempt o where o.provider = t.provider and o.message_id = r.message_id) as owners,
        (select count(*) from receipt w where w.provider = t.provider and w.message_id = r.message_id
            and w.applied_at is null) as waiting, ",
    super::delivery::COLUMNS,
    ", ",
    COLUMNS
);

/// Locks a delivery with its attempt that became the message, be it an older one; else with the one of this number.
pub async fn locate(
    tx: &mut Tx,
    (id, number): (&DeliveryId, AttemptNo),
    (provider, message_id): (&str, &str),
) -> Result<Option<Located>, StoreError> {
    const LOCATE: Sql = sql!(
        "select ",
        LOCATED,
        " from (select cast($3 as text) as message_id) as r cross join delivery d left join alert a on a.id = d.alert_id
            join attempt t on t.delivery_id = d.id and t.number = coalesce((select o.number from attempt o
                where o.provider = $4 and o.message_id = r.message_id and o.delivery_id = d.id), $2)
         where d.id = $1 for update of d"
    );
    tx.optional(LOCATE, args![id, number, message_id, provider]).await
}

impl Attempt {
    /// Notes what the provider answered.
    pub fn answer(&mut self, outcome: &'static str, code: Option<i64>, now: Timestamp) {
        self.outcome = Some(outcome.to_owned());
        self.answer_code = code;
        self.answered_at = Some(ms(now));
        self.edits.is_changed = true;
    }

    /// Its absence is proven. What failed inside us stays counted as that.
    pub fn is_absent(&mut self) {
        if self.outcome.as_deref() != Some("broken") {
            self.outcome = Some("absent".to_owned());
            self.edits.is_changed = true;
        }
    }

    /// Notes which message it became, unless that is another attempt's; `owners` says how many have it. It was sent after
    /// all, so it takes its slot again if that was given back, even beyond the limit. Returns whether the message is its
    /// own.
    pub fn own(&mut self, message_id: &str, owners: i64) -> bool {
        if self.own_message_id.is_none() && owners == 0 {
            self.own_message_id = Some(message_id.to_owned());
            self.edits.is_changed = true;
        }
        self.retake_slot();
        self.own_message_id.as_deref() == Some(message_id)
    }

    /// Gives its slot back to the day it came from; a second time does nothing.
    pub fn return_slot(&mut self, now: Timestamp) {
        if self.slot_returned_at.is_none() {
            self.slot_returned_at = Some(ms(now));
            self.edits.slots -= 1;
            self.edits.is_changed = true;
        }
    }

    /// It may have been sent after all.
    pub fn retake_slot(&mut self) {
        if self.slot_returned_at.is_some() {
            self.slot_returned_at = None;
            self.edits.slots += 1;
            self.edits.is_changed = true;
        }
    }
}

row! {
    NewRow<'a>(delivery: &'a Delivery, rules: &'a BeginRules, day: &'a str, now: Timestamp) {
        id: text = delivery.id,
        number: number = delivery.attempts,
        provider: text = rules.route.provider.as_str(),
        account: text = rules.route.account,
        route: text = rules.route.key(),
        day: text = day,
        begun_at: number = ms(*now),
        deadline_at: number = ms(after(*now, rules.lease)),
        machine_start: text = rules.uptime.as_ref().map(|uptime| &uptime.machine_start),
        uptime: number = rules.uptime.as_ref().map(|uptime| uptime.ms),
    }
}

/// Only of deliveries that are there.
const CREATE: Sql = sql!(
    "insert into attempt (delivery_id, number, provider, account, route, limit_day, begun_at, deadline_at, machine_start,
        begun_uptime)
     select d.id, r.number, r.provider, r.account, r.route, r.day, r.begun_at, r.deadline_at, r.machine_start, r.uptime
     from ",
    NewRow::ROWS,
    " cross join delivery d where d.id = r.id"
);

/// Creates the attempts that these deliveries have just begun, and takes a slot of the day for each; only of deliveries
/// that are there.
pub fn create<'a>(tx: &mut Tx, begun: impl IntoIterator<Item = &'a Delivery>, rules: &BeginRules, now: Timestamp) {
    let (day, begun) = (&rules.day.to_string(), Vec::from_iter(begun));
    limits::take_slots(tx, day, begun.iter().map(|delivery| &delivery.id));
    let rows = begun.iter().map(|delivery| NewRow {
        delivery,
        rules,
        day,
        now,
    });
    tx.queue(CREATE, rows.collect());
}

row! {
    SaveRow<'a>(delivery: &'a Delivery, attempt: &'a Attempt) {
        id: text = delivery.id,
        number: number = attempt.number,
        message_id: text = attempt.own_message_id,
        answered_at: number = attempt.answered_at,
        outcome: text = attempt.outcome,
        code: number = attempt.answer_code,
        returned_at: number = attempt.slot_returned_at,
    }
}

const SAVE: Sql = sql!(
    "update attempt set message_id = r.message_id, answered_at = r.answered_at, outcome = r.outcome, error_code = r.code,
        slot_returned_at = r.returned_at
     from ",
    SaveRow::ROWS,
    " where attempt.delivery_id = r.id and attempt.number = r.number"
);

/// Deliveries and attempts that one transaction works on, each there once, so that everybody sees what those before them
/// did.
#[derive(Default)]
pub struct WorkingSet {
    deliveries: Vec<Delivery>,
    /// Those of each delivery.
    attempts: Vec<Vec<Attempt>>,
    places: HashMap<DeliveryId, usize>,
}

/// Where an attempt and its delivery stand in a working set.
#[derive(Clone, Copy)]
pub struct Place(usize, usize);

impl WorkingSet {
    /// Adds an attempt with its delivery, unless they are there.
    pub fn add(&mut self, delivery: Delivery, attempt: Attempt) -> Place {
        let place = match self.places.get(&delivery.id) {
            Some(place) => *place,
            None => {
                self.places.insert(delivery.id.clone(), self.deliveries.len());
                self.deliveries.push(delivery);
                self.attempts.push(Vec::with_capacity(1));
                self.deliveries.len() - 1
            }
        };
        let attempts = &mut self.attempts[place];
        let known = attempts.iter().position(|known| known.number == attempt.number);
        let at = known.unwrap_or_else(|| {
            attempts.push(attempt);
            attempts.len() - 1
        });
        Place(place, at)
    }

    pub fn get(&mut self, Place(place, at): Place) -> (&mut Delivery, &mut Attempt) {
        (&mut self.deliveries[place], &mut self.attempts[place][at])
    }

    /// Saves the attempts as they are by now: what is asked next sees them.
    pub fn save_attempts(&mut self, tx: &mut Tx) {
        let mut rows = Rows::default();
        let mut slots: BTreeMap<&str, i64> = BTreeMap::new();
        for (delivery, attempts) in self.deliveries.iter().zip(&self.attempts) {
            for attempt in attempts.iter().filter(|attempt| attempt.edits.is_changed) {
                rows.push(&SaveRow { delivery, attempt });
                *slots.entry(&attempt.limit_day).or_default() += attempt.edits.slots;
            }
        }
        tx.queue(SAVE, rows);
        limits::move_slots(tx, slots);
        for attempt in self.attempts.iter_mut().flatten() {
            attempt.edits = Edits::default();
        }
    }

    /// Saves it all.
    pub async fn save(mut self, tx: &mut Tx) -> Result<(), StoreError> {
        self.save_attempts(tx);
        super::delivery::save(tx, &mut self.deliveries).await
    }
}
