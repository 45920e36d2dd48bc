//! A round: the next events of an endpoint and those held ones that are due, posted stream by stream side by side. Absent: what
//! the results mean (see `outcome`).

use crate::{
    domain::lifecycle::LifecycleEvent,
    notify::{Endpoint, Filter, Posted},
    store::{Db, EndpointTurn, HeldEvent, PlacedEvent, StoreError},
};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// By this an endpoint says that it wants no more events (RFC 9110, section 15.5.11).
pub const GONE: u16 = 410;
/// How many events a round reads.
const MOST: i64 = 500;
/// After this, a round begins no further post: a process that dies repeats no more than this.
const LONGEST: Duration = Duration::from_secs(2);
/// How long an event of a type that only a newer version knows waits for a process that is one: for a rolling upgrade.
const NEWER_COMES: SignedDuration = SignedDuration::from_mins(10);

/// An event of a round.
#[derive(Debug)]
pub struct Item {
    pub placed: PlacedEvent,
    pub event: LifecycleEvent,
    /// How often it was tried before and since when it is held, if it is.
    pub held: Option<(i64, Timestamp)>,
}

/// Events of one stream, in order.
#[derive(Debug)]
pub struct Chain {
    pub items: Vec<Item>,
}

/// What is to be posted.
#[derive(Debug, Default)]
pub struct Round {
    pub chains: Vec<Chain>,
    /// New events whose streams are held: they wait behind them.
    pub behind: Vec<PlacedEvent>,
    /// Up to where the events were read.
    pub end: i64,
    /// Whether there may be more after that.
    pub is_full: bool,
    /// Only one event is tried, to find out whether the endpoint answers again.
    pub is_probe: bool,
}

/// One post and what came of it.
#[derive(Debug)]
pub struct Result {
    pub at: Timestamp,
    pub took: Duration,
    pub posted: Posted,
}

/// A round that was posted: each chain with the results of its first events; the last of them may have failed.
#[derive(Debug)]
pub struct PostedRound {
    pub chains: Vec<(Chain, Vec<Result>)>,
    pub behind: Vec<PlacedEvent>,
    pub end: i64,
    pub is_full: bool,
}

impl Round {
    /// Reads what is due; `None` if there is nothing to do, not even to move on.
    pub async fn read(
        store: &Db,
        endpoint: &Endpoint,
        turn: &EndpointTurn,
        now: Timestamp,
    ) -> std::result::Result<Option<Self>, StoreError> {
        let is_probe = turn.is_paused;
        let new = store.events_after(turn.place, MOST).await?;
        let until = if is_probe { Timestamp::MAX } else { now };
        let held = store.held_events(&turn.name, until, MOST).await?;
        let filter = &endpoint.settings.filter;
        let (new, end, is_full) = readable(new, filter, turn, now);
        let streams: BTreeSet<&str> = new.iter().map(|placed| placed.stream.as_str()).collect();
        let held_streams = store.held_streams(&turn.name, streams).await?;
        if end == turn.place && held.is_empty() {
            return Ok(None);
        }
        let mut round = Self::of(new, held, &held_streams, is_probe);
        (round.end, round.is_full) = (end, is_full);
        Ok(Some(round))
    }

    fn of(new: Vec<PlacedEvent>, held: Vec<HeldEvent>, held_streams: &BTreeSet<String>, is_probe: bool) -> Self {
        let (behind, free): (Vec<_>, Vec<_>) = new
            .into_iter()
            .partition(|placed| held_streams.contains(&placed.stream));
        let new = free.into_iter().map(|placed| (None, None, placed));
        let due_at = |held: &HeldEvent| held.due_at.unwrap_or(Timestamp::MAX);
        let held = held
            .into_iter()
            .map(|held| (Some(due_at(&held)), Some((held.tries, held.since)), held.placed));
        // Where only one event is tried, a new one comes first, and of those that are held the one that waits the least: so
        // an event that no endpoint would take holds up nothing.
        let mut chains: Vec<(Option<Timestamp>, Chain)> = in_streams(held);
        chains.sort_by_key(|(due_at, _)| *due_at);
        let new = in_streams(new);
        if is_probe {
            chains.splice(0..0, new);
        } else {
            chains.extend(new);
        }
        Self {
            chains: chains.into_iter().map(|(_, chain)| chain).collect(),
            behind,
            is_probe,
            ..Self::default()
        }
    }

    /// Posts it: each stream in order, so many side by side as the endpoint takes.
    pub async fn post(self, endpoint: &Endpoint, begun: Instant, clock: fn() -> Timestamp) -> PostedRound {
        let at_once = endpoint.settings.max_in_flight;
        let gate = Gate {
            begun,
            most: if self.is_probe { 1 } else { usize::MAX },
            enough_failures: at_once,
            counts: Mutex::default(),
        };
        let gate = &gate;
        let posting = stream::iter(self.chains).map(|chain| async move {
            let results = post_chain(&chain, endpoint, gate, clock).await;
            (chain, results)
        });
        PostedRound {
            chains: posting.buffer_unordered(at_once).collect().await,
            behind: self.behind,
            end: self.end,
            is_full: self.is_full,
        }
    }
}

/// What an event waits for, how often it was tried and since when it is held, and the event.
type Waiting = (Option<Timestamp>, Option<(i64, Timestamp)>, PlacedEvent);

/// Events by stream, the streams in the order of their first ones. What this version cannot read, and what follows of its
/// stream, is left out: a newer one can.
fn in_streams(events: impl Iterator<Item = Waiting>) -> Vec<(Option<Timestamp>, Chain)> {
    let mut indices: BTreeMap<String, usize> = BTreeMap::new();
    let mut chains: Vec<(Option<Timestamp>, Chain)> = Vec::new();
    let mut unreadable = BTreeSet::new();
    for (due_at, held, placed) in events {
        let Some(event) = placed.event.clone() else {
            unreadable.insert(placed.stream);
            continue;
        };
        if unreadable.contains(&placed.stream) {
            continue;
        }
        let index = *indices.entry(placed.stream.clone()).or_insert(chains.len());
        if index == chains.len() {
            chains.push((due_at, Chain { items: Vec::new() }));
        }
        chains[index].1.items.push(Item { placed, event, held });
    }
    chains
}

/// Those of the events read that the endpoint wants, up to where they may be passed over, and whether there may be more.
fn readable(
    events: Vec<PlacedEvent>,
    filter: &Filter,
    turn: &EndpointTurn,
    now: Timestamp,
) -> (Vec<PlacedEvent>, i64, bool) {
    let is_full = i64::try_from(events.len()).unwrap_or(i64::MAX) >= MOST;
    let (mut end, mut wanted) = (turn.place, Vec::new());
    for placed in events {
        let is_wanted = filter.wants_type(&placed.kind) && filter.wants_source(placed.source.as_deref());
        if is_wanted && placed.event.is_none() {
            let waited = now.duration_since(placed.at);
            if waited < NEWER_COMES {
                tracing::debug!(endpoint = %turn.name, kind = %placed.kind, "left to a process of a newer version");
                return (wanted, end, false);
            }
            tracing::error!(endpoint = %turn.name, kind = %placed.kind, "passes over an event of a type that this version does not know: no process of a newer version has posted it");
        }
        end = placed.place;
        if is_wanted && placed.event.is_some() {
            wanted.push(placed);
        }
    }
    (wanted, end, is_full)
}

async fn post_chain(chain: &Chain, endpoint: &Endpoint, gate: &Gate, clock: fn() -> Timestamp) -> Vec<Result> {
    let mut results = Vec::new();
    for item in &chain.items {
        if !gate.begin() {
            break;
        }
        let (at, started) = (clock(), Instant::now());
        let posted = endpoint.post(&item.event, at).await;
        let has_failed = matches!(posted, Posted::Failed { .. });
        gate.note(&posted);
        results.push(Result {
            at,
            took: started.elapsed(),
            posted,
        });
        if has_failed {
            break;
        }
    }
    results
}

/// Decides whether a round may go on.
struct Gate {
    begun: Instant,
    /// So many posts, and no more until one is taken.
    most: usize,
    /// So many failures without anything taken mean that the endpoint is down.
    enough_failures: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    begun: usize,
    taken: usize,
    failed: usize,
    is_gone: bool,
}

impl Gate {
    fn begin(&self) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_down = counts.taken == 0 && counts.failed >= self.enough_failures;
        if self.begun.elapsed() >= LONGEST || counts.begun >= self.most || is_down || counts.is_gone {
            return false;
        }
        counts.begun += 1;
        true
    }

    fn note(&self, posted: &Posted) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match posted {
            Posted::Taken { .. } => counts.taken += 1,
            Posted::Failed { status, .. } => {
                counts.failed += 1;
                counts.is_gone |= *status == Some(GONE);
            }
            // Says nothing about the endpoint.
            Posted::Skipped => counts.begun -= 1,
        }
    }
}
