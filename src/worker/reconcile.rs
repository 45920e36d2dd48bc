//! Asks the provider about deliveries: searches its list for those whose answer was lost, and asks by id about those
//! that have gone silent. What the looks of one search prove is counted by this process's monotonic clock; everything
//! else is in the database, so a restart only begins the count anew.

use super::{Worker, clock::uptime, now};
use crate::{
    carrier::{Address, Carrier},
    domain::{
        clock,
        day::{LocalDay, after},
        delivery::{Change, State},
        search::{self, Listed, Verdict, Wanted},
    },
    store::{Look, Looker, StoreError},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
};

const EVERY: Duration = Duration::from_millis(500);
/// How many deliveries the provider is asked about at the same time, and how many of one number.
const AT_ONCE: usize = 8;
const AT_ONCE_OF_A_NUMBER: usize = 2;
/// How many deliveries that nobody can be asked about are taken at once.
const BATCH: i64 = 32;
/// Absence is believed after this many complete lists.
const LISTS_FOR_ABSENCE: usize = 3;
/// From here on, searches that ended otherwise are forgotten.
const MANY_SEARCHES: usize = 10_000;
const LONGEST_GAP: SignedDuration = SignedDuration::from_hours(6);
/// A message that is silent for longer is settled as it stands.
const ASK_FOR: SignedDuration = SignedDuration::from_hours(3 * 24);
/// The provider filters by days of its own zone: a day more on either side misses nothing.
const FILTER_SLACK: SignedDuration = SignedDuration::from_hours(24);

/// Looks until `stop` turns true. A look that takes long takes one place and holds up nothing but its own number; those
/// that need no call take none.
pub async fn run(worker: Arc<Worker>, mut stop: watch::Receiver<bool>) {
    let searches = Arc::new(Searches::default());
    let mut under_way = UnderWay::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stop.borrow() {
        match round(&worker, &searches, &mut under_way).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = %error.explain(), "cannot read which deliveries to ask about; will try again")
            }
        }
        tokio::select! {
            _ = ticks.tick() => {}
            // There may be more for the place that is free now.
            () = under_way.one_ends(), if under_way.is_full() => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Ends when `stop` turns true, or nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Takes what is due, as far as there are places, and begins to look. Returns whether there is more to do at once.
async fn round(worker: &Arc<Worker>, searches: &Arc<Searches>, under_way: &mut UnderWay) -> Result<bool, StoreError> {
    let uptime = uptime();
    let looker = Looker {
        owner: &worker.owner,
        provider: worker.carrier.route().provider.as_str(),
        account: &worker.carrier.route().account,
        lease: worker.rules.lease,
        uptime: uptime.as_ref(),
    };
    let others = worker.store.take_looks_of_others(looker, BATCH, now()).await?;
    let more = is_as_many(&others, BATCH);
    for look in others {
        handle(worker, searches, look).await;
    }
    under_way.reap();
    let free = i64::try_from(under_way.free()).unwrap_or(0);
    if free == 0 {
        return Ok(more);
    }
    let looks = worker
        .store
        .take_looks(looker, free, &under_way.full_numbers(), now())
        .await?;
    let more = more || is_as_many(&looks, free);
    for look in looks {
        if under_way.takes(&look) {
            under_way.begin(
                &look,
                handle_one(Arc::clone(worker), Arc::clone(searches), look.clone()),
            );
        } else {
            worker.store.put_look_back(&look).await?;
        }
    }
    Ok(more && under_way.free() > 0)
}

fn is_as_many(looks: &[Look], most: i64) -> bool {
    i64::try_from(looks.len()).is_ok_and(|taken| taken == most)
}

/// The looks that are under way, each in its place.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    /// Which number each of them is about.
    numbers: HashMap<Id, String>,
}

impl UnderWay {
    fn free(&self) -> usize {
        AT_ONCE.saturating_sub(self.numbers.len())
    }

    fn is_full(&self) -> bool {
        self.free() == 0
    }

    fn of_number(&self, number: &str) -> usize {
        self.numbers.values().filter(|busy| *busy == number).count()
    }

    /// Whether there is a place for this look.
    fn takes(&self, look: &Look) -> bool {
        !self.is_full() && self.of_number(look.to.as_e164()) < AT_ONCE_OF_A_NUMBER
    }

    /// The numbers that have all their places.
    fn full_numbers(&self) -> Vec<&str> {
        let numbers = self.numbers.values().map(String::as_str);
        numbers
            .filter(|number| self.of_number(number) >= AT_ONCE_OF_A_NUMBER)
            .collect()
    }

    fn begin(&mut self, look: &Look, looking: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(looking);
        self.numbers.insert(task.id(), look.to.as_e164().to_owned());
    }

    /// Frees the places of those that have ended.
    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.leave(ended);
        }
    }

    /// Waits until one of them ends.
    async fn one_ends(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.leave(ended),
            None => std::future::pending().await,
        }
    }

    fn leave(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "looking for a delivery failed inside Nightbell; it will be looked for again");
                error.id()
            }
        };
        self.numbers.remove(&id);
    }
}

async fn handle_one(worker: Arc<Worker>, searches: Arc<Searches>, look: Look) {
    handle(&worker, &searches, look).await;
}

async fn handle(worker: &Worker, searches: &Searches, look: Look) {
    let done = match look.state {
        State::Accepted | State::Sent => ask(worker, &look).await,
        _ => search(worker, searches, &look).await,
    };
    if let Err(error) = done {
        tracing::warn!(delivery.id = %look.delivery_id, error = %error.explain(), "cannot record what the provider says; will look again");
        let later = after(now(), worker.rules.reconcile_after.min(worker.rules.poll_after));
        // If this fails too, the whole database is in trouble, and the lease ends by itself.
        let _ = look_again(worker, &look, Some(later)).await;
    }
}

async fn look_again(worker: &Worker, look: &Look, look_at: Option<Timestamp>) -> Result<(), StoreError> {
    worker.store.look_again(look, look_at, worker.rules.lease, now()).await
}

/// Asks by message id about a delivery that has gone silent.
async fn ask(worker: &Worker, look: &Look) -> Result<(), StoreError> {
    let told = match &look.message_id {
        Some(message_id) if worker.carrier.capabilities().looks_up_by_id && is_ours(&worker.carrier, look) => {
            worker.carrier.look_up(message_id).await
        }
        Some(_) | None => None,
    };
    let is_new = |told: &Listed| {
        told.news.is_some_and(|news| {
            look.state
                .after(Change::Tell {
                    news,
                    newest_attempt: true,
                })
                .is_some()
        })
    };
    if let Some(told) = told.filter(is_new) {
        tracing::info!(delivery.id = %look.delivery_id, status = %told.status, "the provider told it when asked");
        if worker
            .store
            .record_found(look, &told, worker.rules.poll_after, now())
            .await?
        {
            return Ok(());
        }
    }
    let next = after(now(), gap(worker.rules.poll_after, look.looks + 1));
    let is_over = next > after(look.begun_at, worker.clock.expire_after(ASK_FOR));
    look_again(worker, look, (!is_over).then_some(next)).await
}

/// Searches the provider's list for a message whose answer was lost.
async fn search(worker: &Worker, searches: &Searches, look: &Look) -> Result<(), StoreError> {
    let reconcile_after = worker.rules.reconcile_after;
    // Asked in any case: that forgets what was seen of an older attempt.
    let elapsed = searches.elapsed(look, Instant::now());
    let whole = look.state == State::Unconfirmed || elapsed >= reconcile_after.unsigned_abs();
    let seen = match look_into_list(worker, look, whole).await? {
        Looked::Found(found) => {
            if worker
                .store
                .record_found(look, &found, worker.rules.poll_after, now())
                .await?
            {
                tracing::info!(delivery.id = %look.delivery_id, attempt = look.attempt, message.id = %found.message_id, "found in the provider's list");
                searches.forget(look);
                return Ok(());
            }
            // A twin took it first.
            Seen::Open
        }
        Looked::Not(seen) => seen,
    };
    let proof = searches.add(look, seen, reconcile_after.unsigned_abs(), Instant::now());
    let now = now();
    let expire_after = worker.clock.expire_after(worker.rules.expire_after);
    let later = next_look(look, reconcile_after, expire_after, now);
    match (proof, look.state) {
        // Turned in this very moment, the clock proves nothing any more: the next look will know.
        (Proof::Absent, _) if worker.clock.is_unsettled() => {
            searches.forget(look);
            look_again(worker, look, Some(after(now, reconcile_after / 2))).await
        }
        (Proof::Absent, _) if worker.rules.resend_when_absent || look.is_over => {
            searches.forget(look);
            let day = LocalDay::of(now, &worker.rules.time_zone);
            if worker
                .store
                .record_absent(look, day, worker.rules.daily_limit, now)
                .await?
            {
                tracing::warn!(delivery.id = %look.delivery_id, attempt = look.attempt, "the provider never had it");
                worker.wake.notify_one();
                return Ok(());
            }
            // Where it has moved meanwhile, this changes nothing.
            look_again(worker, look, Some(after(now, reconcile_after / 2))).await
        }
        (Proof::Absent, State::Unknown) => worker.store.record_not_found(look, later, now).await,
        (Proof::CannotTell, State::Unknown) => worker.store.record_cannot_tell(look, later, now).await,
        (Proof::Open, State::Unknown) => look_again(worker, look, Some(after(now, reconcile_after / 2))).await,
        (Proof::Absent | Proof::CannotTell | Proof::Open, _) => {
            if later.is_none() {
                searches.forget(look);
            }
            look_again(worker, look, later).await
        }
    }
}

/// When to look for an `unconfirmed` delivery again; `None` once it is too old to be of use.
fn next_look(
    look: &Look,
    reconcile_after: SignedDuration,
    expire_after: SignedDuration,
    now: Timestamp,
) -> Option<Timestamp> {
    let looks = if look.state == State::Unconfirmed {
        look.looks + 1
    } else {
        1
    };
    Some(after(now, gap(reconcile_after, looks))).filter(|next| *next <= after(look.received_at, expire_after))
}

enum Looked {
    Found(Listed),
    Not(Seen),
}

async fn look_into_list(worker: &Worker, look: &Look, whole: bool) -> Result<Looked, StoreError> {
    // Another account's list, or another provider's, says nothing about this attempt; and not every carrier has one.
    if !worker.carrier.capabilities().searches_lists || !is_ours(&worker.carrier, look) {
        return Ok(Looked::Not(Seen::Nothing));
    }
    // Asked by the day of the provider, which a wrong clock of ours may not know.
    let ahead = worker
        .clock
        .ahead(worker.carrier.clock().as_slice())
        .unwrap_or_default();
    let since = (!whole).then(|| after(look.begun_at, -FILTER_SLACK).min(after(look.begun_at, ahead - FILTER_SLACK)));
    // One list may be long; it ends before others may take the delivery for forgotten.
    let searching = worker.carrier.search(Address::Phone(&look.to), since);
    let Ok(Some(listing)) = tokio::time::timeout(worker.rules.lease.unsigned_abs(), searching).await else {
        return Ok(Looked::Not(Seen::Nothing));
    };
    let ahead = worker.clock.ahead(&listing.stamps).unwrap_or_default();
    let wanted = Wanted {
        text: &look.message,
        begun_at: look.begun_at,
        ended_at: look.ended_at,
        ahead,
    };
    let mut list = listing.messages;
    // Only what was made around the attempt matters.
    list.retain(|message| wanted.is_around(message));
    let owned = worker.store.owned_messages(&look.provider, &list).await?;
    let found = match search::judge(wanted, &list, &owned) {
        Verdict::Found(place) if !worker.store.has_twin_on_its_way(look).await? => place,
        Verdict::NotThere if look.is_doubtful || clock::differs(ahead) => return Ok(Looked::Not(Seen::Open)),
        Verdict::NotThere => return Ok(Looked::Not(Seen::NotThere { whole })),
        Verdict::Found(_) | Verdict::CannotTell => return Ok(Looked::Not(Seen::Open)),
    };
    Ok(Looked::Found(list.swap_remove(found)))
}

fn is_ours(carrier: &Carrier, look: &Look) -> bool {
    let route = carrier.route();
    look.provider == route.provider.as_str() && look.account == route.account
}

/// The wait before look number `looks` (from 1): doubles from `first` to six hours.
fn gap(first: SignedDuration, looks: i64) -> SignedDuration {
    let doublings = u32::try_from(looks.clamp(1, 20) - 1).unwrap_or(0);
    first
        .checked_mul(2_i32.saturating_pow(doublings))
        .unwrap_or(LONGEST_GAP)
        .min(LONGEST_GAP)
}

/// What one look brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// A complete list without it; `whole` if no date was asked for.
    NotThere { whole: bool },
    /// A complete list that leaves it open.
    Open,
    /// No complete list.
    Nothing,
}

/// What the looks of a search have shown so far.
#[derive(Debug, PartialEq, Eq)]
enum Proof {
    /// The time is not over.
    Open,
    Absent,
    CannotTell,
}

/// What this process has seen in the lists of one search.
struct Search {
    attempt: i64,
    began: Instant,
    /// When complete lists did not have it. Emptied by a list that leaves it open.
    not_there: Vec<Instant>,
}

impl Search {
    fn new(attempt: i64, at: Instant) -> Self {
        Self {
            attempt,
            began: at,
            not_there: Vec::new(),
        }
    }

    /// Adds what a look at `at` brought. Absent takes enough complete lists, spread over `reconcile_after`, the last of
    /// them whole.
    fn add(&mut self, seen: Seen, reconcile_after: Duration, at: Instant) -> Proof {
        match seen {
            Seen::NotThere { .. } => self.not_there.push(at),
            Seen::Open => self.not_there.clear(),
            Seen::Nothing => {}
        }
        let spread = self
            .not_there
            .first()
            .map_or(Duration::ZERO, |first| at.duration_since(*first));
        let elapsed = at.duration_since(self.began);
        match seen {
            Seen::NotThere { whole: true }
                if self.not_there.len() >= LISTS_FOR_ABSENCE && spread >= reconcile_after =>
            {
                Proof::Absent
            }
            // It is going well: let the lists be spread out.
            Seen::NotThere { .. } if elapsed < reconcile_after * 2 => Proof::Open,
            Seen::NotThere { .. } | Seen::Open | Seen::Nothing if elapsed >= reconcile_after => Proof::CannotTell,
            Seen::NotThere { .. } | Seen::Open | Seen::Nothing => Proof::Open,
        }
    }
}

/// The searches of this process by delivery.
#[derive(Default)]
struct Searches(Mutex<HashMap<String, Search>>);

impl Searches {
    /// How long this process has been looking for it.
    fn elapsed(&self, look: &Look, at: Instant) -> Duration {
        let mut searches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let search = searches
            .entry(look.delivery_id.clone())
            .or_insert_with(|| Search::new(look.attempt, at));
        if search.attempt != look.attempt {
            *search = Search::new(look.attempt, at);
        }
        at.duration_since(search.began)
    }

    fn add(&self, look: &Look, seen: Seen, reconcile_after: Duration, at: Instant) -> Proof {
        let mut searches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if searches.len() > MANY_SEARCHES {
            // Those that a receipt ended were never told so; a live one begins its count anew.
            searches.retain(|_, search| at.duration_since(search.began) < LONGEST_GAP.unsigned_abs());
        }
        let search = searches
            .entry(look.delivery_id.clone())
            .or_insert_with(|| Search::new(look.attempt, at));
        search.add(seen, reconcile_after, at)
    }

    fn forget(&self, look: &Look) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&look.delivery_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: Duration = Duration::from_secs(180);
    const DATED: Seen = Seen::NotThere { whole: false };
    const WHOLE: Seen = Seen::NotThere { whole: true };

    fn proofs(looks: &[(u64, Seen)]) -> Vec<Proof> {
        let start = Instant::now();
        let mut search = Search::new(1, start);
        looks
            .iter()
            .map(|(second, seen)| search.add(*seen, R, start + Duration::from_secs(*second)))
            .collect()
    }

    #[test]
    fn absence_takes_three_complete_lists_spread_out_the_last_one_whole() {
        assert_eq!(
            proofs(&[(0, DATED), (90, DATED), (180, WHOLE)]),
            [Proof::Open, Proof::Open, Proof::Absent]
        );
        assert_eq!(
            proofs(&[(0, DATED), (90, DATED), (180, DATED), (270, WHOLE)]).pop(),
            Some(Proof::Absent)
        );
        assert_eq!(
            proofs(&[(0, WHOLE), (1, WHOLE), (2, WHOLE)]).pop(),
            Some(Proof::Open),
            "too close together"
        );
        assert_eq!(
            proofs(&[(0, DATED), (180, WHOLE)]).pop(),
            Some(Proof::Open),
            "two are not enough yet"
        );
        assert_eq!(
            proofs(&[(100, DATED), (190, DATED), (370, WHOLE)]).pop(),
            Some(Proof::Absent)
        );
    }

    #[test]
    fn without_complete_lists_nobody_can_tell() {
        assert_eq!(
            proofs(&[(0, Seen::Nothing), (90, Seen::Nothing), (180, Seen::Nothing)]),
            [Proof::Open, Proof::Open, Proof::CannotTell]
        );
        assert_eq!(
            proofs(&[(0, DATED), (90, Seen::Open), (180, WHOLE), (360, WHOLE)]).pop(),
            Some(Proof::CannotTell),
            "an open list starts the count anew"
        );
        assert_eq!(
            proofs(&[(0, Seen::Nothing), (600, WHOLE), (1_000, WHOLE), (2_000, WHOLE)]).pop(),
            Some(Proof::Absent),
            "late, but proven"
        );
    }

    #[test]
    fn gaps_double_to_six_hours() {
        let minutes = |looks| gap(SignedDuration::from_mins(10), looks).as_mins();

        assert_eq!([1, 2, 3, 6, 7, 50].map(minutes), [10, 20, 40, 320, 360, 360]);
    }
}
