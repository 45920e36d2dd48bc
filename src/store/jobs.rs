//! What is asked of the batchers, and what they answer. On SQLite, which has one writer, one batcher takes every kind; on
//! PostgreSQL each kind has its own, and they run side by side. Absent: how the jobs are done (see `writes`).

use super::{
    batcher::{Batcher, MAX_ROWS, Work},
    incoming::{Incoming, Taken},
    types::Recipient,
};
use crate::domain::{
    answer::{Answer, Receipt},
    clock::Uptime,
    day::{LocalDay, after},
    delivery::State,
    event::Event,
    id::{AlertId, AttemptNo, DeliveryId},
    phone::PhoneNumber,
    route::{Channel, Route},
    source::{LaterRecipients, SourceLimits},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::oneshot;

/// A delivery to be owed because of an event.
#[derive(Clone)]
pub struct NewDelivery {
    pub channel: Channel,
    pub recipient: Recipient,
    /// `Err` holds the text that is no number, or nothing if there was none.
    pub phone: Result<PhoneNumber, Option<String>>,
    pub message: String,
    pub segments: usize,
    /// The code in the text by which its recipient acknowledges the alert; another one stands there if it is taken.
    pub ack_code: Option<String>,
}

/// A critical event, and whom it would tell.
pub struct Raise {
    /// The alert's, if its ticket has none yet.
    pub alert_id: AlertId,
    pub event: Event,
    /// Each with the id that it gets if it is added.
    pub deliveries: Vec<(DeliveryId, NewDelivery)>,
    pub later: LaterRecipients,
    pub at: Timestamp,
}

/// A delivery that an event added or brought back.
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub struct Addition {
    #[schema(value_type = String, format = "uuid")]
    pub id: DeliveryId,
    pub recipient: Recipient,
    pub state: State,
}

/// What became of a critical event.
pub enum Raised {
    /// The alert is new, or it now tells more people.
    New {
        alert_id: AlertId,
        deliveries: Vec<Addition>,
    },
    /// This ticket has its alert; nothing was added.
    Duplicate { alert_id: AlertId },
}

/// What a send is begun by.
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
    /// Those of single sources.
    pub source_limits: Arc<SourceLimits>,
    pub lease: SignedDuration,
    pub expire_after: SignedDuration,
    /// What the clock reads that nobody turns, if there is one.
    pub uptime: Option<Uptime>,
}

impl BeginRules {
    /// The same, to the log.
    pub fn in_test_mode(&self) -> Self {
        Self {
            route: Arc::new(Route::to_log(self.route.channel)),
            ..self.clone()
        }
    }
}

/// Which deliveries are to be begun.
#[derive(Clone, Debug)]
pub enum Which {
    /// So many of those that are due.
    Due(usize),
    /// This one.
    Claimed(Claimed),
}

/// A request to begin sending.
#[derive(Clone)]
pub struct Order {
    pub rules: Arc<BeginRules>,
    pub which: Which,
    pub now: Timestamp,
    /// When that was, by the clock that only goes forward.
    pub asked_at: Instant,
}

/// An event that is newer than now by more than this came after somebody turned the clock. Replicas' clocks differ by less.
const TURNED: SignedDuration = SignedDuration::from_mins(1);

impl Order {
    /// What time it is for an order that is carried out at `began_at`, beside events of which the newest came at `newest`.
    /// `None` once its day is over, or the clock was turned meanwhile: then it is to be asked for anew.
    pub fn at(&self, began_at: Instant, newest: Option<Timestamp>) -> Option<Timestamp> {
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
        match self.which {
            Which::Due(most) => most.min(MAX_ROWS),
            Which::Claimed(_) => 1,
        }
    }
}

/// The right to begin sending one delivery, until the lease ends.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub delivery_id: DeliveryId,
    /// Fences out whoever held an older lease.
    pub token: String,
    /// How often it was claimed without a send since it last moved.
    pub claims: i64,
}

/// The right to call the provider once, for one attempt. Not `Clone`: recording the answer uses it up.
#[derive(Debug)]
pub struct Sending {
    pub delivery_id: DeliveryId,
    pub attempt: AttemptNo,
    pub to: PhoneNumber,
    pub message: String,
    /// How the attempt goes: in test mode to the log, whatever is configured.
    pub route: Arc<Route>,
    /// The call must be over by then; afterwards others may take it for lost.
    pub deadline_at: Timestamp,
}

/// What became of a delivery that was to be begun.
#[derive(Debug)]
pub enum Begun {
    /// Call the provider.
    Send(Sending),
    /// It may not be sent now, and moved to this state.
    Stopped { delivery_id: DeliveryId, state: State },
    /// Others are before it for the last slots, or all is held; it is due again in a moment.
    Later,
}

/// Deliveries that were begun together.
#[derive(Debug)]
pub struct BegunBatch {
    /// Not later than the times that their leases run from.
    pub began_at: Instant,
    pub begun: Vec<Begun>,
    /// Whether nothing else was due then.
    pub is_all: bool,
}

impl BegunBatch {
    pub fn empty() -> Self {
        Self {
            began_at: Instant::now(),
            begun: Vec::new(),
            is_all: false,
        }
    }
}

/// What an answer is recorded by.
#[derive(Clone, Copy, Debug)]
pub struct AnswerRules {
    /// Today, in the configured zone.
    pub day: LocalDay,
    pub configured_limit: i64,
    /// From 0 to 1; spreads the next tries of many deliveries.
    pub jitter: f64,
    /// How long an accepted message may stay without a new status before it is asked about.
    pub poll_after: SignedDuration,
}

/// An answer on its way to the database: the only copy, until it is there.
pub struct Answered {
    pub sending: Sending,
    pub answer: Answer,
    pub rules: AnswerRules,
    pub now: Timestamp,
}

/// A receipt on its way to the database.
pub struct Received {
    pub receipt: Receipt,
    /// When to ask the provider, if nothing more is heard.
    pub poll_after: SignedDuration,
    pub now: Timestamp,
}

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

/// One thing to be written.
pub enum Job {
    /// Raise the alert of a ticket that has none; answers whether that was so.
    Raise(Arc<Raise>),
    /// The ticket has its alert: add to it what is to be added.
    Revisit(Arc<Raise>),
    Begin(Order),
    Answer(Arc<Answered>),
    Receive(Received),
    Inbound(Arc<Incoming>),
}

impl Work for Job {
    fn rows(&self) -> usize {
        match self {
            Self::Raise(raise) => 1 + raise.deliveries.len(),
            // Decided by itself, by about so many statements.
            Self::Revisit(_) => 20,
            Self::Begin(order) => order.most(),
            Self::Answer(_) | Self::Receive(_) => 1,
            Self::Inbound(incoming) => incoming.rows(),
        }
    }

    /// Nobody waits for an answer to be recorded but the slot of its call.
    fn is_background(&self) -> bool {
        matches!(self, Self::Answer(_))
    }
}

/// What came of a job.
pub enum Done {
    Raised(bool),
    Revisited(Raised),
    Begun(BegunBatch),
    Answered,
    Received(Recorded),
    Inbound(Taken),
}

/// A critical event whose alert is looked for, without a write.
pub struct DuplicateQuery {
    pub source: String,
    pub ticket_id: String,
    pub event_id: Option<String>,
    /// Whether an open alert of which somebody is told makes it a duplicate; else only an id that the alert has seen.
    pub told_is_enough: bool,
}

impl Work for DuplicateQuery {
    fn rows(&self) -> usize {
        1
    }

    /// It reads a few rows that are in memory, and no fsync makes the next ones wait for each other.
    fn is_brief(&self) -> bool {
        true
    }
}

/// Orders of workers that have nothing to do, left with SQLite's writer: what an event brings is begun in the very
/// transaction that raises its alert, which spares a commit on the way to the provider.
#[derive(Clone, Default)]
pub struct StandingOrders(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    next: u64,
    orders: Vec<(u64, StandingOrder)>,
}

/// One of them, and who waits for what comes of it.
pub struct StandingOrder {
    pub order: Order,
    reply: oneshot::Sender<BegunBatch>,
}

impl StandingOrder {
    /// Hands over what was begun. Whoever left the order waits for it.
    pub fn carry_out(self, batch: BegunBatch) {
        let _ = self.reply.send(batch);
    }
}

impl StandingOrders {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes them all: whoever does carries each of them out, be it with nothing.
    pub fn take(&self) -> Vec<StandingOrder> {
        let orders = std::mem::take(&mut self.lock().orders);
        orders.into_iter().map(|(_, standing)| standing).collect()
    }

    /// Leaves an order until it is carried out, or taken back when `until` ends.
    pub async fn leave(&self, order: Order, until: impl Future<Output = ()>) -> BegunBatch {
        let (reply, mut batch) = oneshot::channel();
        let number = {
            let mut waiting = self.lock();
            waiting.next += 1;
            let number = waiting.next;
            waiting.orders.push((number, StandingOrder { order, reply }));
            number
        };
        tokio::select! {
            biased;
            batch = &mut batch => return batch.unwrap_or_else(|_| BegunBatch::empty()),
            () = until => {}
        }
        let taken_back = self.lock().orders.extract_if(.., |(other, _)| *other == number).next();
        match taken_back {
            Some(_) => BegunBatch::empty(),
            // It is being carried out: what was begun has to be called.
            None => batch.await.unwrap_or_else(|_| BegunBatch::empty()),
        }
    }
}

/// The ways into the batchers of one database.
#[derive(Clone)]
pub struct Batchers {
    pub raise: Batcher<Job, Done>,
    pub begin: Batcher<Job, Done>,
    pub answer: Batcher<Job, Done>,
    pub receive: Batcher<Job, Done>,
    pub inbound: Batcher<Job, Done>,
    pub find_duplicates: Batcher<DuplicateQuery, Option<AlertId>>,
    /// `None` where an event is begun by a transaction of its own.
    pub standing: Option<StandingOrders>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::route::ProviderName;
    use futures::FutureExt;
    use jiff::tz::TimeZone;
    use std::time::Duration;

    fn order(now: Timestamp, tomorrow: Timestamp) -> Order {
        Order {
            rules: Arc::new(BeginRules {
                route: Arc::new(Route::new(Channel::Sms, ProviderName::Log, "log", "")),
                day: LocalDay::of(now, &TimeZone::UTC),
                tomorrow,
                configured_limit: 1,
                source_limits: Arc::default(),
                lease: SignedDuration::from_secs(60),
                expire_after: SignedDuration::from_hours(72),
                uptime: None,
            }),
            which: Which::Due(1),
            now,
            asked_at: Instant::now(),
        }
    }

    #[test]
    fn time_goes_on_for_an_order_that_waits_until_its_day_is_over() {
        let midnight: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let asked = midnight - SignedDuration::from_secs(1);
        let today = order(asked, midnight);
        let after = |order: &Order, ms: u64| order.asked_at + Duration::from_millis(ms);

        assert_eq!(
            today.at(after(&today, 700), None),
            Some(asked + SignedDuration::from_millis(700))
        );
        let event = asked + SignedDuration::from_millis(800);
        assert_eq!(
            today.at(after(&today, 700), Some(event)),
            Some(event),
            "not older than its event"
        );
        assert_eq!(today.at(after(&today, 1_000), None), None);
        assert_eq!(today.at(after(&today, 0), Some(midnight)), None);
        let all_day = order(asked, midnight + SignedDuration::from_hours(24));
        let jumped = asked + SignedDuration::from_hours(1);
        assert_eq!(
            all_day.at(after(&all_day, 700), Some(jumped)),
            None,
            "the clock was turned"
        );
    }

    #[tokio::test]
    async fn an_order_is_taken_back_or_carried_out_and_never_both() {
        let orders = StandingOrders::default();
        let order = order(Timestamp::UNIX_EPOCH, Timestamp::MAX);

        let taken_back = orders.leave(order.clone(), std::future::ready(())).await;
        assert!(taken_back.begun.is_empty() && orders.take().is_empty());

        let mut leaving = Box::pin(orders.leave(order, std::future::pending()));
        assert!((&mut leaving).now_or_never().is_none());
        for standing in orders.take() {
            standing.carry_out(BegunBatch {
                began_at: Instant::now(),
                begun: vec![Begun::Later],
                is_all: true,
            });
        }
        assert_eq!(leaving.await.begun.len(), 1);
    }
}
