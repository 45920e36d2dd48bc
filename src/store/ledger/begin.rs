//! Beginning to send: durable before the call to the provider, and with everything that the call needs. A crash after it
//! leaves a `sending` row whose lease ends, and the sweep makes that `unknown`.

use super::{
    attempt,
    delivery::{self, Birth, COLUMNS, Delivery, Landing},
    source_limits::SourceSlots,
};
use crate::{
    domain::{
        acknowledge::ACKNOWLEDGED,
        alarm::AlarmKind,
        day::after,
        delivery::{BeforeSend, Change, Gate, Reason, State},
        id::{AlertId, DeliveryId},
        route::Channel,
    },
    store::{
        alarms::{self, About},
        error::StoreError,
        holds,
        jobs::{BeginRules, Begun, Order, Sending, Which},
        limits,
        query::Query,
        sql::{Rows, Sql, args, row, sql},
        test_mode,
        tx::Tx,
        types::{at, ms},
    },
};
use jiff::{SignedDuration, Timestamp};
use std::{borrow::Cow, sync::Arc, time::Instant};

/// How long a delivery steps aside for those before it.
const A_MOMENT: SignedDuration = SignedDuration::from_millis(500);

/// How far those that wait for a slot are counted for every batch. Where there are more, they are counted up to the last of
/// the batch.
const COUNTED: i64 = 130;

/// A delivery that is to be begun, and what its gate asks.
#[derive(sqlx::FromRow)]
struct Due {
    #[sqlx(flatten)]
    delivery: Delivery,
    opted_out: i64,
    used: i64,
    limit_set: Option<String>,
    /// How many wait for a slot, as far as they are counted.
    waiting: i64,
    /// Whether all is held, and one may be tried.
    held: i64,
    /// How many holds it has brought upon the others.
    holds: i64,
    /// Whose ticket it is for.
    source: Option<String>,
    #[sqlx(flatten)]
    mode: Mode,
}

/// Whether messages go to the log only.
#[derive(sqlx::FromRow)]
struct Mode {
    test_mode: i64,
}

impl Mode {
    /// What sends are begun by then.
    fn rules<'a>(&self, rules: &'a BeginRules) -> Cow<'a, BeginRules> {
        if self.test_mode > 0 {
            Cow::Owned(rules.in_test_mode())
        } else {
            Cow::Borrowed(rules)
        }
    }
}

const TEST_MODE: &str = const_format::concatcp!(
    "(select count(*) from setting m where m.name = '",
    test_mode::NAME,
    "') as test_mode"
);
const IN_TEST_MODE: &str = const_format::concatcp!(
    "exists (select 1 from setting n where n.name = '",
    test_mode::NAME,
    "')"
);

/// $1: now, $2: the route, $3: its channel, $4: the day, $5: how far to count.
const FACTS: &str = const_format::concatcp!(
    "select ",
    COLUMNS,
    ", d.holds, a.source, ",
    TEST_MODE,
    ", (select count(*) from route_hold g where g.route = $2 and not ",
    IN_TEST_MODE,
    ") as held,
        (select count(*) from opt_out o where o.phone = d.phone) as opted_out,
        coalesce((select c.used from daily_count c where c.day = $4), 0) as used,
        (select s.value from setting s where s.name = 'daily_limit') as limit_set,
        (select count(*) from (select 1 from delivery l where l.state in (",
    State::OWED,
    ") and l.channel in (",
    Channel::KNOWN,
    ") and (l.state = 'deferred' or l.due_at <= $1) and l.held_source is null limit $5) as line) as waiting
     from delivery d left join alert a on a.id = d.alert_id where d.state = 'pending' and d.channel = $3"
);

/// The first $6 that are due, unless all is held. What brought a hold upon the others is begun when nothing else is due, one
/// at a time; those subqueries are asked only where there is such a delivery.
const DUE: Sql = sql!(
    FACTS,
    " and d.due_at <= $1 and (d.lease_until is null or d.lease_until <= $1)
        and not exists (select 1 from route_hold h where h.route = $2 and (h.trial_at is null or h.trial_at > $1)
            and not ",
    IN_TEST_MODE,
    ")
        and (d.holds = 0 or (
            not exists (select 1 from delivery o where o.state = 'pending' and o.channel = $3 and o.due_at <= $1 and o.holds = 0
                and (o.lease_until is null or o.lease_until <= $1))
            and not exists (select 1 from delivery s where s.state = 'sending' and s.holds > 0)))
     order by d.due_at, d.id limit $6 for update of d skip locked"
);

/// The one that was claimed with this token.
const CLAIMED: Sql = sql!(FACTS, " and d.id = $6 and d.lease_token = $7 for update of d");

/// Begins what is due, or what was claimed: all of it in the caller's transaction. The rows are locked from the moment they
/// are chosen, so nobody else can choose them, and what is due needs no lease before.
pub async fn begin(
    tx: &mut Tx,
    order: &Order,
    newest: Option<Timestamp>,
    began_at: Instant,
) -> Result<Vec<Begun>, StoreError> {
    let rules = order.rules.as_ref();
    let Some(now) = order.at(began_at, newest) else {
        return Ok(Vec::new());
    };
    // The day is locked before any delivery, by everybody.
    if tx.has_neighbours() {
        limits::lock_day(tx, rules.day).await?;
    }
    let mut due = choose(tx, order, now).await?;
    let rules = due.first().map(|first| first.mode.rules(rules));
    let Some(rules) = rules.as_deref() else {
        return Ok(Vec::new());
    };
    if due.first().is_some_and(|first| first.held > 0 || first.holds > 0) {
        due.truncate(1);
    }
    let Some(slots) = Slots::among(tx, &due, rules, now).await? else {
        return Ok(Vec::new());
    };
    let mut source_slots = SourceSlots::new(&rules.source_limits, rules.day);
    let mut begun = Vec::with_capacity(due.len());
    let mut deliveries = Vec::with_capacity(due.len());
    let mut put_off = Vec::new();
    for due in due {
        let (mut delivery, source) = (due.delivery, due.source.as_deref());
        let gate = BeforeSend {
            now,
            received_at: at(delivery.received_at),
            expire_after: rules.expire_after,
            pointless: delivery.pointless(),
            opted_out: due.opted_out > 0,
            free_slots: slots.free,
            ahead: slots.ahead_of(tx, &delivery, now).await?,
        };
        match gate.decide() {
            // Decided here, in the transaction that begins it: of several replicas one tries.
            Gate::Send if let Some(limit) = source_slots.reached(tx, source, &delivery).await? => {
                let held = hold(tx, &mut delivery, (source.unwrap_or_default(), limit), rules, now).await?;
                source_slots.hold(source.unwrap_or_default(), &delivery);
                begun.extend(held);
            }
            Gate::Send if due.held == 0 || holds::take_trial(tx, &rules.route, now).await? => {
                begun.push(Begun::Send(step_in(&mut delivery, rules, now)?));
                source_slots.take(source, &delivery);
            }
            Gate::Send | Gate::Wait => {
                put_off.push(delivery.id.clone());
                begun.push(Begun::Later);
            }
            Gate::Stop(change, reason) => {
                begun.extend(stop(tx, &mut delivery, (change, reason), &slots, rules, now).await?)
            }
        }
        deliveries.push(delivery);
    }
    attempt::create(
        tx,
        deliveries.iter().filter(|delivery| delivery.state == State::Sending),
        rules,
        now,
    );
    source_slots.save(tx);
    step_aside(tx, &put_off, now);
    delivery::save(tx, &mut deliveries).await?;
    Ok(begun)
}

/// Its source has used up the limit of its own.
async fn hold(
    tx: &mut Tx,
    delivery: &mut Delivery,
    (source, limit): (&str, i64),
    rules: &BeginRules,
    now: Timestamp,
) -> Result<Option<Begun>, StoreError> {
    let landing = Landing {
        reason: Some(Reason::Limit),
        due_at: Some(rules.tomorrow),
        detail: format!("the daily limit of the source `{source}` is reached"),
        ..Default::default()
    };
    let state = delivery.apply(Change::Defer, landing, now);
    let day = rules.day;
    let detail =
        format!("the daily limit of {limit} of the source `{source}` is reached on {day}: what comes now waits");
    let subject = format!("{day} {source}");
    alarms::raise(tx, AlarmKind::LimitReached, &subject, About::default(), detail, now).await?;
    let delivery_id = delivery.id.clone();
    Ok(state.map(|state| Begun::Stopped { delivery_id, state }))
}

async fn choose(tx: &mut Tx, order: &Order, now: Timestamp) -> Result<Vec<Due>, StoreError> {
    let (route, day) = (&order.rules.route, order.rules.day.to_string());
    let facts = args![ms(now), route.key(), route.channel.as_str(), day, COUNTED].into_iter();
    match &order.which {
        Which::Due(_) => {
            let most = i64::try_from(order.most()).unwrap_or(i64::MAX);
            tx.all(DUE, facts.chain(args![most])).await
        }
        Which::Claimed(claim) => {
            tx.all(CLAIMED, facts.chain(args![&claim.delivery_id, &claim.token]))
                .await
        }
    }
}

/// The day's slots, and whether all of a batch find one.
struct Slots {
    limit: i64,
    free: i64,
    are_enough: bool,
}

impl Slots {
    /// `None` if there is nothing to begin.
    async fn among(tx: &mut Tx, due: &[Due], rules: &BeginRules, now: Timestamp) -> Result<Option<Self>, StoreError> {
        let Some(first) = due.first() else {
            return Ok(None);
        };
        let limit = limits::effective(first.limit_set.clone(), rules.configured_limit);
        let free = limit - first.used;
        let last = due
            .iter()
            .map(|due| &due.delivery)
            .max_by_key(|delivery| (delivery.received_at, delivery.id.as_str()));
        let are_enough = match last {
            _ if first.waiting < COUNTED => first.waiting <= free,
            Some(last) => limits::count_ahead(tx, &last.id, last.received_at, free.max(0), now).await? < free,
            None => false,
        };
        Ok(Some(Self {
            limit,
            free,
            are_enough,
        }))
    }

    /// How many are before this one. Those of its batch that were let pass still wait, so all slots are counted.
    async fn ahead_of(&self, tx: &mut Tx, delivery: &Delivery, now: Timestamp) -> Result<i64, StoreError> {
        if self.are_enough || self.free <= 0 {
            return Ok(0);
        }
        limits::count_ahead(tx, &delivery.id, delivery.received_at, self.free, now).await
    }
}

/// Moves a delivery into its next attempt, in memory; returns the right to call.
fn step_in(delivery: &mut Delivery, rules: &BeginRules, now: Timestamp) -> Result<Sending, StoreError> {
    let deadline_at = after(now, rules.lease);
    let landing = Landing {
        lease_until: Some(deadline_at),
        detail: format!("attempt {} by {}", delivery.attempts.0 + 1, rules.route.provider),
        ..Default::default()
    };
    delivery.provider = Some(rules.route.provider.as_str().to_owned());
    delivery.apply(Change::Begin, landing, now);
    Ok(Sending {
        delivery_id: delivery.id.clone(),
        attempt: delivery.attempts,
        to: delivery.phone()?,
        message: delivery.message.clone(),
        route: Arc::clone(&rules.route),
        deadline_at,
    })
}

/// It may not be sent now.
async fn stop(
    tx: &mut Tx,
    delivery: &mut Delivery,
    (change, reason): (Change, Reason),
    slots: &Slots,
    rules: &BeginRules,
    now: Timestamp,
) -> Result<Option<Begun>, StoreError> {
    let is_deferred = change == Change::Defer;
    let detail = match reason {
        Reason::TicketClosed => "the ticket is no longer critical",
        Reason::Canceled => ACKNOWLEDGED,
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
    let state = delivery.apply(change, landing, now);
    if is_deferred {
        let (limit, day) = (slots.limit, rules.day);
        let detail = format!("the daily limit of {limit} is reached on {day}: what comes now waits");
        let kind = AlarmKind::LimitReached;
        alarms::raise(tx, kind, &day.to_string(), About::default(), detail, now).await?;
    }
    let delivery_id = delivery.id.clone();
    Ok(state.map(|state| Begun::Stopped { delivery_id, state }))
}

/// Lets these deliveries wait for a moment. Not a move: nothing is written on their timelines.
fn step_aside(tx: &mut Tx, ids: &[DeliveryId], now: Timestamp) {
    row! {
        Row<'a> { id: &'a DeliveryId as text, due_at: i64 as number, at: i64 as number }
    }
    const STEP_ASIDE: Sql = sql!(
        "update delivery set lease_token = null, lease_until = null, claims = 0, due_at = r.due_at,
            updated_at = r.at
         from ",
        Row::ROWS,
        " where delivery.id = r.id"
    );
    let rows = ids.iter().map(|id| Row {
        id,
        due_at: ms(after(now, A_MOMENT)),
        at: ms(now),
    });
    tx.queue(STEP_ASIDE, rows.collect());
}

/// What is known of a person before their delivery is there.
#[derive(sqlx::FromRow)]
struct NewFacts {
    #[sqlx(try_from = "i64")]
    place: usize,
    opted_out: i64,
    used: i64,
    limit_set: Option<String>,
    held: i64,
    others: i64,
    #[sqlx(flatten)]
    mode: Mode,
}

row! {
    PersonRow<'a> { place: usize as number, phone: &'a str as text }
}

const NEW_FACTS: Sql = sql!(
    "with r as (select * from ",
    PersonRow::ROWS,
    ")
     select r.place as place, ",
    TEST_MODE,
    ",
        (select count(*) from opt_out o where o.phone = r.phone) as opted_out,
        coalesce((select c.used from daily_count c where c.day = $2), 0) as used,
        (select s.value from setting s where s.name = 'daily_limit') as limit_set,
        (select count(*) from route_hold h where h.route = $3) as held,
        (select count(*) from (select 1 from delivery l where l.state in (",
    State::OWED,
    ") and l.channel in (",
    Channel::KNOWN,
    ") and l.held_source is null limit 1) as line) as others
     from r"
);

/// Begins deliveries that are not there yet, in memory, if nobody else waits before them: they are created as begun, which
/// spares the detour over `pending`. Only for SQLite, where this transaction is alone. Returns the time it is, and the
/// rights to call, which count once their deliveries are there.
pub async fn begin_new(
    tx: &mut Tx,
    order: &Order,
    births: &mut [Birth],
    newest: Option<Timestamp>,
    began_at: Instant,
) -> Result<Option<(Timestamp, Vec<(AlertId, Sending)>)>, StoreError> {
    let rules = order.rules.as_ref();
    let Some(now) = order.at(began_at, newest) else {
        return Ok(None);
    };
    let channel = rules.route.channel;
    let rows: Rows = births
        .iter()
        .enumerate()
        .filter(|(_, birth)| birth.about.channel == channel && birth.delivery.state == State::Pending)
        .filter_map(|(place, birth)| {
            Some(PersonRow {
                place,
                phone: birth.delivery.phone.as_deref()?,
            })
        })
        .take(order.most())
        .collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let arguments = [rows.into(), rules.day.to_string().into(), rules.route.key().into()];
    let facts: Vec<NewFacts> = tx.all(NEW_FACTS, arguments).await?;
    if facts
        .iter()
        .any(|facts| facts.others > 0 || facts.held > 0 || facts.mode.test_mode > 0)
    {
        return Ok(None);
    }
    let mut sends = Vec::with_capacity(facts.len());
    for (ahead, facts) in (0..).zip(facts) {
        let Some(Birth { delivery, .. }) = births.get_mut(facts.place) else {
            continue;
        };
        let gate = BeforeSend {
            now,
            received_at: at(delivery.received_at),
            expire_after: rules.expire_after,
            pointless: None,
            opted_out: facts.opted_out > 0,
            free_slots: limits::effective(facts.limit_set, rules.configured_limit) - facts.used,
            ahead,
        };
        if gate.decide() == Gate::Send {
            let sending = step_in(delivery, rules, now)?;
            sends.extend(delivery.alert_id.clone().map(|alert_id| (alert_id, sending)));
        }
    }
    Ok((!sends.is_empty()).then_some((now, sends)))
}
