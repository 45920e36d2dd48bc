//! Asks the provider about deliveries: searches its list for those whose answer was lost, and asks by id about those
//! that have gone silent. Absent: what the lists of a search prove (see `proof`); everything else is in the database.

use super::{
    Worker,
    clock::uptime,
    now,
    proof::{Proof, Searches, Seen},
    workers::TimedJob,
};
use crate::{
    domain::{
        clock,
        day::{LocalDay, after},
        delivery::{Change, State},
        search::{self, Listed, Verdict, Wanted},
    },
    provider::Provider,
    store::{Look, Looker, StoreError},
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
pub(super) const LONGEST_GAP: SignedDuration = SignedDuration::from_hours(6);
/// A message that is silent for longer is settled as it stands.
const ASK_FOR: SignedDuration = SignedDuration::from_hours(3 * 24);
/// The provider filters by days of its own zone: a day more on either side misses nothing.
const FILTER_SLACK: SignedDuration = SignedDuration::from_hours(24);

/// Every half second. A look that takes long takes one place and holds up nothing but its own number; those that need no
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
    /// Begins to look until nothing is due, or there is no place.
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

/// Takes what is due, as far as there are places, and begins to look. Returns whether there is more to do at once.
async fn round(worker: &Arc<Worker>, searches: &Arc<Searches>, under_way: &mut UnderWay) -> Result<bool, StoreError> {
    let uptime = uptime();
    let looker = Looker {
        owner: &worker.owner,
        provider: worker.provider.route().provider.as_str(),
        account: &worker.provider.route().account,
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
    let listed = match &look.message_id {
        Some(message_id) if is_ours(&worker.provider, look) => worker.provider.fetch(message_id).await,
        Some(_) | None => None,
    };
    let is_new = |listed: &Listed| {
        listed.news.is_some_and(|news| {
            look.state
                .after(Change::Tell {
                    news,
                    newest_attempt: true,
                })
                .is_some()
        })
    };
    if let Some(listed) = listed.filter(is_new) {
        tracing::info!(delivery.id = %look.delivery_id, status = %listed.status, "the provider told it when asked");
        if worker
            .store
            .record_found(look, &listed, worker.rules.poll_after, now())
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
    // Another account's list, or another provider's, says nothing about this attempt.
    if !is_ours(&worker.provider, look) {
        return Ok(Looked::Not(Seen::Nothing));
    }
    // Asked by the day of the provider, which a wrong clock of ours may not know.
    let ahead = worker
        .clock
        .ahead(worker.provider.clock().as_slice())
        .unwrap_or_default();
    let since = (!whole).then(|| after(look.begun_at, -FILTER_SLACK).min(after(look.begun_at, ahead - FILTER_SLACK)));
    // One list may be long; it ends before others may take the delivery for forgotten.
    let searching = worker.provider.search(&look.to, since);
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

fn is_ours(provider: &Provider, look: &Look) -> bool {
    let route = provider.route();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_double_to_six_hours() {
        let minutes = |looks| gap(SignedDuration::from_mins(10), looks).as_mins();

        assert_eq!([1, 2, 3, 6, 7, 50].map(minutes), [10, 20, 40, 320, 360, 360]);
    }
}
