//! Asks the provider about deliveries: searches its list for those whose answer was lost, and asks by id about those
//! that have been without a new status for long. Absent: what the lists of a search prove (see `proof`); everything else
//! is in the database.

use super::{
    clock::uptime,
    context::{Worker, now},
    proof::{LONGEST_GAP, Proof, Searches, Seen},
    workers::TimedJob,
};
use crate::{
    carrier::Address,
    domain::{
        clock,
        day::{LocalDay, after},
        delivery::{Change, State},
        search::{self, Listed, Verdict, Wanted},
    },
    store::{Looker, Lookup, StoreError},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::Mutex,
    task::{Id, JoinSet},
    time::timeout,
};

const EVERY: Duration = Duration::from_millis(500);
/// How many deliveries the provider is asked about at the same time, and how many of one number.
const AT_ONCE: usize = 8;
const AT_ONCE_OF_A_NUMBER: usize = 2;
/// How many deliveries that nobody can be asked about are taken at once.
const BATCH: i64 = 32;
/// A message without a new status for longer is settled as it stands.
const ASK_FOR: SignedDuration = SignedDuration::from_hours(3 * 24);
/// The provider filters by days of its own zone: a day more on either side misses nothing.
const FILTER_SLACK: SignedDuration = SignedDuration::from_hours(24);

/// Every half second. A lookup that takes long takes one place and holds up nothing but its own number; those that need no
/// call take none.
pub fn job(worker: &Arc<Worker>) -> TimedJob {
    let reconciler = Reconciler {
        worker: Arc::clone(worker),
        searches: Arc::default(),
        under_way: Mutex::default(),
    };
    TimedJob::new(
        "reconcile",
        EVERY,
        &Arc::new(reconciler),
        async |reconciler: Arc<Reconciler>| reconciler.run_once().await,
    )
}

struct Reconciler {
    worker: Arc<Worker>,
    searches: Arc<Searches>,
    under_way: Mutex<UnderWay>,
}

impl Reconciler {
    /// Begins lookups until nothing is due, or there is no place.
    async fn run_once(&self) -> Result<(), StoreError> {
        let mut under_way = self.under_way.lock().await;
        loop {
            if round(&self.worker, &self.searches, &mut under_way).await? {
                continue;
            }
            // There may be more for the place that is free next.
            let is_free = under_way.is_full() && timeout(EVERY, under_way.one_ends()).await.is_ok();
            if !is_free {
                return Ok(());
            }
        }
    }
}

/// Takes what is due, as far as there are places, and begins the lookups. Returns whether there is more to do at once.
async fn round(worker: &Arc<Worker>, searches: &Arc<Searches>, under_way: &mut UnderWay) -> Result<bool, StoreError> {
    let (store, uptime) = (&worker.store, uptime());
    let looker = Looker {
        owner: &worker.owner,
        route: worker.carrier.route(),
        lease: worker.rules.lease,
        uptime: uptime.as_ref(),
    };
    let others = store
        .take_lookups_of_others(&worker.routes, looker, BATCH, now())
        .await?;
    let more = is_as_many(&others, BATCH);
    for lookup in others {
        handle(worker, searches, lookup).await;
    }
    under_way.reap();
    let free = i64::try_from(under_way.free()).unwrap_or(0);
    if free == 0 {
        return Ok(more);
    }
    let lookups = store
        .take_lookups(looker, free, &under_way.full_numbers(), now())
        .await?;
    let more = more || is_as_many(&lookups, free);
    for lookup in lookups {
        if under_way.takes(&lookup) {
            let (number, worker, searches) = (lookup.to.as_e164().to_owned(), Arc::clone(worker), Arc::clone(searches));
            under_way.begin(number, async move { handle(&worker, &searches, lookup).await });
        } else {
            store.put_lookup_back(&lookup, &worker.owner).await?;
        }
    }
    Ok(more && under_way.free() > 0)
}

fn is_as_many(lookups: &[Lookup], most: i64) -> bool {
    i64::try_from(lookups.len()).is_ok_and(|taken| taken == most)
}

/// The lookups that are under way, each in its place.
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

    /// Whether there is a place for this lookup.
    fn takes(&self, lookup: &Lookup) -> bool {
        !self.is_full() && self.of_number(lookup.to.as_e164()) < AT_ONCE_OF_A_NUMBER
    }

    /// The numbers that have all their places.
    fn full_numbers(&self) -> Vec<&str> {
        let numbers = self.numbers.values().map(String::as_str);
        numbers
            .filter(|number| self.of_number(number) >= AT_ONCE_OF_A_NUMBER)
            .collect()
    }

    fn begin(&mut self, number: String, asking: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(asking);
        self.numbers.insert(task.id(), number);
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
                tracing::error!(%error, "a lookup of a delivery failed inside Nightbell; it will be repeated");
                error.id()
            }
        };
        self.numbers.remove(&id);
    }
}

async fn handle(worker: &Worker, searches: &Searches, lookup: Lookup) {
    let done = match lookup.state {
        State::Accepted | State::Sent => ask(worker, &lookup).await,
        _ => search(worker, searches, &lookup).await,
    };
    if let Err(error) = done {
        tracing::warn!(delivery.id = %lookup.delivery_id, %error, "cannot record what the provider says; will ask again");
        let later = after(now(), worker.rules.reconcile_after.min(worker.rules.poll_after));
        // If this fails too, the whole database is in trouble, and the lease ends by itself.
        let _ = look_up_again(worker, &lookup, Some(later)).await;
    }
}

async fn look_up_again(worker: &Worker, lookup: &Lookup, look_at: Option<Timestamp>) -> Result<(), StoreError> {
    let next = (look_at, lookup.lookups + 1);
    worker
        .store
        .look_up_again(lookup, &worker.owner, next, worker.rules.lease, now())
        .await
}

/// The proof is not complete. Does not count for the gaps, which are for what could not be proven.
async fn look_up_soon(worker: &Worker, lookup: &Lookup) -> Result<(), StoreError> {
    let now = now();
    let next = (Some(after(now, worker.rules.reconcile_after / 2)), lookup.lookups);
    worker
        .store
        .look_up_again(lookup, &worker.owner, next, worker.rules.lease, now)
        .await
}

/// Asks by message id about a delivery that has been without a new status for long.
async fn ask(worker: &Worker, lookup: &Lookup) -> Result<(), StoreError> {
    let poll_after = worker.rules.poll_after;
    let listed = match &lookup.message_id {
        Some(message_id)
            if worker.carrier.capabilities().looks_up_by_id && lookup.is_through(worker.carrier.route()) =>
        {
            worker.carrier.look_up(message_id).await
        }
        Some(_) | None => None,
    };
    let update = |status| Change::Update {
        status,
        newest_attempt: true,
    };
    let is_new = |listed: &Listed| {
        let change = listed.status.map(update);
        change.and_then(|change| lookup.state.after(change)).is_some()
    };
    if let Some(listed) = listed.filter(is_new) {
        tracing::info!(delivery.id = %lookup.delivery_id, status = %listed.word, "the provider reported it when asked");
        if worker.store.record_found(lookup, &listed, poll_after, now()).await? {
            return Ok(());
        }
    }
    let next = after(now(), gap(poll_after, lookup.lookups + 1));
    let is_over = next > after(lookup.begun_at, worker.clock.expire_after(ASK_FOR));
    look_up_again(worker, lookup, (!is_over).then_some(next)).await
}

/// Searches the provider's list for a message whose answer was lost.
async fn search(worker: &Worker, searches: &Searches, lookup: &Lookup) -> Result<(), StoreError> {
    let (store, rules) = (&worker.store, &worker.rules);
    let reconcile_after = rules.reconcile_after;
    // Asked in any case: that forgets what was seen of an older attempt.
    let elapsed = searches.elapsed(lookup, Instant::now());
    let whole = lookup.state == State::Unconfirmed || elapsed >= reconcile_after.unsigned_abs();
    let seen = match search_list(worker, lookup, whole).await? {
        Searched::Found(found) => {
            if store.record_found(lookup, &found, rules.poll_after, now()).await? {
                tracing::info!(delivery.id = %lookup.delivery_id, attempt = %lookup.attempt, message.id = %found.message_id, "found in the provider's list");
                searches.forget(lookup);
                return Ok(());
            }
            // Another delivery with the same text and number took it first.
            Seen::Open
        }
        Searched::Not(seen) => seen,
    };
    let proof = searches.add(lookup, seen, reconcile_after.unsigned_abs(), Instant::now());
    let now = now();
    let expire_after = worker.clock.expire_after(rules.expire_after);
    let later = next_lookup(lookup, reconcile_after, expire_after, now);
    match (proof, lookup.state) {
        // Turned in this very moment, the clock proves nothing any more: the next lookup will know.
        (Proof::Absent, _) if worker.clock.is_unsettled() => {
            searches.forget(lookup);
            look_up_soon(worker, lookup).await
        }
        (Proof::Absent, _) if rules.resend_when_absent || lookup.is_over => {
            searches.forget(lookup);
            let day = LocalDay::of(now, &worker.time_zone);
            if store.record_absent(lookup, day, worker.daily_limit, now).await? {
                tracing::warn!(delivery.id = %lookup.delivery_id, attempt = %lookup.attempt, "the provider never had it");
                return Ok(());
            }
            // Where it has moved meanwhile, this changes nothing.
            look_up_soon(worker, lookup).await
        }
        (Proof::Absent, State::Unknown) => store.give_up(lookup, true, later, now).await,
        (Proof::CannotTell, State::Unknown) => store.give_up(lookup, false, later, now).await,
        // Also of what another process gave up: whoever begins the count anew brings it to its end, which by the doubled
        // gaps of the one before would take hours.
        (Proof::Open, _) => look_up_soon(worker, lookup).await,
        (Proof::Absent | Proof::CannotTell, _) => {
            if later.is_none() {
                searches.forget(lookup);
            }
            look_up_again(worker, lookup, later).await
        }
    }
}

/// When to look an `unconfirmed` delivery up again; `None` once it is too old to be of use.
fn next_lookup(
    lookup: &Lookup,
    reconcile_after: SignedDuration,
    expire_after: SignedDuration,
    now: Timestamp,
) -> Option<Timestamp> {
    let lookups = if lookup.state == State::Unconfirmed {
        lookup.lookups + 1
    } else {
        1
    };
    Some(after(now, gap(reconcile_after, lookups))).filter(|next| *next <= after(lookup.received_at, expire_after))
}

enum Searched {
    Found(Listed),
    Not(Seen),
}

async fn search_list(worker: &Worker, lookup: &Lookup, whole: bool) -> Result<Searched, StoreError> {
    // Another account's list, or another provider's, says nothing about this attempt; and not every carrier has one.
    if !worker.carrier.capabilities().searches_lists || !lookup.is_through(worker.carrier.route()) {
        return Ok(Searched::Not(Seen::Nothing));
    }
    // Asked by the day of the provider, which a wrong clock of ours may not know.
    let ahead = worker
        .clock
        .ahead(worker.carrier.clock().as_slice())
        .unwrap_or_default();
    let since =
        (!whole).then(|| after(lookup.begun_at, -FILTER_SLACK).min(after(lookup.begun_at, ahead - FILTER_SLACK)));
    // One list may be long; it ends before others may take the delivery for forgotten.
    let searching = worker.carrier.search(Address::Phone(&lookup.to), since);
    let Ok(Some(listing)) = tokio::time::timeout(worker.rules.lease.unsigned_abs(), searching).await else {
        return Ok(Searched::Not(Seen::Nothing));
    };
    let ahead = worker.clock.ahead(&listing.stamps).unwrap_or_default();
    let wanted = Wanted {
        text: &lookup.message,
        begun_at: lookup.begun_at,
        ended_at: lookup.ended_at,
        ahead,
    };
    let mut list = listing.messages;
    // Only what was made around the attempt matters.
    list.retain(|message| wanted.is_around(message));
    let owned = worker.store.owned_messages(&lookup.provider, &list).await?;
    let found = match search::judge(wanted, &list, &owned) {
        Verdict::Found(place) if !worker.store.has_identical_on_its_way(lookup).await? => place,
        Verdict::NotThere if lookup.is_doubtful || clock::differs(ahead) => return Ok(Searched::Not(Seen::Open)),
        Verdict::NotThere => return Ok(Searched::Not(Seen::NotThere { whole })),
        Verdict::Found(_) | Verdict::CannotTell => return Ok(Searched::Not(Seen::Open)),
    };
    Ok(Searched::Found(list.swap_remove(found)))
}

/// The wait before lookup number `lookups` (from 1): doubles from `first` to six hours.
fn gap(first: SignedDuration, lookups: i64) -> SignedDuration {
    let doublings = u32::try_from(lookups.clamp(1, 20) - 1).unwrap_or(0);
    first
        .checked_mul(2_i32.saturating_pow(doublings))
        .unwrap_or(LONGEST_GAP)
        .min(LONGEST_GAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_double_to_six_hours() {
        let minutes = |lookups| gap(SignedDuration::from_mins(10), lookups).as_mins();

        assert_eq!([1, 2, 3, 6, 7, 50].map(minutes), [10, 20, 40, 320, 360, 360]);
    }
}
