//! The table of open connections: which of them only wait, since when and whether we know for whom, and which have used up
//! their time. Absent: locks and the clock.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// A request head that is not there by then, from the first byte or, on a new connection, from its beginning.
const MAX_HEAD_WAIT: Duration = Duration::from_secs(10);
/// The same at a stop.
const MAX_HEAD_WAIT_AT_STOP: Duration = Duration::from_secs(1);
/// Longer than proxies keep an idle connection (nginx and AWS load balancers: 60 s), so that they close it and not we,
/// in the moment in which they use it.
const MAX_IDLE: Duration = Duration::from_secs(75);
/// From head to answer. Handlers have shorter time-outs for bodies and for the database; this one is for all else.
const MAX_REQUEST: Duration = Duration::from_secs(120);
/// A client that takes no byte of its answer for so long.
const MAX_STALL: Duration = Duration::from_secs(30);

/// What a connection's socket and its answers say, and that it is to close. Times are milliseconds of the connections' clock; 0 is never.
#[derive(Default)]
pub struct Watch {
    /// The first byte since it has begun to wait. One that comes in during a request (pipelining) does not count: such a
    /// connection may wait as an idle one.
    pub first_byte_ms: AtomicU64,
    /// Since when the client takes nothing.
    pub stalled_ms: AtomicU64,
    /// The client has shown who it is: the request that is under way, or the last one, had a good token or signature.
    pub is_known: AtomicBool,
    /// The answer is with hyper; the next flush ends the request.
    pub is_answered: AtomicBool,
    pub close: Notify,
}

#[derive(Default)]
pub struct Table {
    next_id: u64,
    next_turn: u64,
    pub open: HashMap<u64, Entry>,
    waiting: Waiting,
    addresses: HashMap<IpAddr, Address>,
}

pub struct Entry {
    /// `None` for a trusted proxy.
    address: Option<IpAddr>,
    /// Set while it only waits.
    place: Option<Place>,
    phase: Phase,
    since_ms: u64,
    watch: Arc<Watch>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has been answered yet.
    New,
    /// A request is under way.
    Request,
    /// The last answer is written.
    Idle,
}

#[derive(Default)]
struct Address {
    open: usize,
    waiting: Waiting,
}

/// Where a connection that only waits stands.
#[derive(Clone, Copy)]
struct Place {
    is_known: bool,
    turn: u64,
}

/// Connections that only wait, of clients that we know and of others, by the turn in which they began to.
#[derive(Default)]
struct Waiting {
    known: BTreeMap<u64, u64>,
    unknown: BTreeMap<u64, u64>,
}

impl Waiting {
    fn insert(&mut self, place: Place, id: u64) {
        self.like(place).insert(place.turn, id);
    }

    fn remove(&mut self, place: Place) {
        self.like(place).remove(&place.turn);
    }

    fn like(&mut self, place: Place) -> &mut BTreeMap<u64, u64> {
        if place.is_known {
            &mut self.known
        } else {
            &mut self.unknown
        }
    }

    /// The one that has waited longest, of the kind of which there are more.
    fn longest(&self) -> Option<u64> {
        let more = if self.known.len() > self.unknown.len() {
            &self.known
        } else {
            &self.unknown
        };
        more.values().next().copied()
    }
}

impl Table {
    pub fn open(&mut self, address: Option<IpAddr>, now_ms: u64) -> (u64, Arc<Watch>) {
        let id = self.next_id;
        self.next_id += 1;
        let watch = Arc::new(Watch::default());
        let entry = Entry {
            address,
            place: None,
            phase: Phase::New,
            since_ms: now_ms,
            watch: Arc::clone(&watch),
        };
        self.open.insert(id, entry);
        if let Some(address) = address {
            self.addresses.entry(address).or_default().open += 1;
        }
        self.begin_to_wait(id);
        (id, watch)
    }

    /// How many connections of this address are open.
    pub fn open_of(&self, address: IpAddr) -> usize {
        self.addresses.get(&address).map_or(0, |address| address.open)
    }

    /// Begins a phase of a connection, if it is still open.
    pub fn enter(&mut self, id: u64, phase: Phase, now_ms: u64) {
        if let Some(entry) = self.open.get_mut(&id) {
            (entry.phase, entry.since_ms) = (phase, now_ms);
        }
    }

    /// Puts a connection behind all that wait.
    pub fn begin_to_wait(&mut self, id: u64) {
        self.stop_waiting(id);
        let Some(entry) = self.open.get_mut(&id) else { return };
        let place = Place {
            is_known: entry.watch.is_known.load(Relaxed),
            turn: self.next_turn,
        };
        self.next_turn += 1;
        entry.place = Some(place);
        self.waiting.insert(place, id);
        if let Some(counted) = entry.address.and_then(|address| self.addresses.get_mut(&address)) {
            counted.waiting.insert(place, id);
        }
    }

    /// Whether the connection is still open.
    pub fn stop_waiting(&mut self, id: u64) -> bool {
        let Some(entry) = self.open.get_mut(&id) else {
            return false;
        };
        if let Some(place) = entry.place.take() {
            self.waiting.remove(place);
            if let Some(counted) = entry.address.and_then(|address| self.addresses.get_mut(&address)) {
                counted.waiting.remove(place);
            }
        }
        true
    }

    /// Takes it out.
    pub fn remove(&mut self, id: u64) -> Option<Entry> {
        self.stop_waiting(id);
        let entry = self.open.remove(&id)?;
        if let Some(address) = entry.address
            && let Some(counted) = self.addresses.get_mut(&address)
        {
            counted.open -= 1;
            if counted.open == 0 {
                self.addresses.remove(&address);
            }
        }
        Some(entry)
    }

    /// Takes it out and has its task end.
    fn close(&mut self, id: u64) {
        if let Some(entry) = self.remove(id) {
            entry.watch.close.notify_one();
        }
    }

    /// Closes a connection that only waits, of this address or of all. Whether there was one.
    pub fn close_one_waiting(&mut self, of: Option<IpAddr>) -> bool {
        let waiting = match of {
            Some(address) => self.addresses.get(&address).map(|address| &address.waiting),
            None => Some(&self.waiting),
        };
        let longest = waiting.and_then(Waiting::longest);
        longest.inspect(|id| self.close(*id)).is_some()
    }

    /// Closes every connection that has used up its time. How many of them were in the middle of a request.
    pub fn close_overdue(&mut self, now_ms: u64, is_stopping: bool) -> usize {
        let max_head_wait = if is_stopping {
            MAX_HEAD_WAIT_AT_STOP
        } else {
            MAX_HEAD_WAIT
        };
        let overdue: Vec<(u64, Phase)> = self
            .open
            .iter()
            .filter(|(_, entry)| entry.is_overdue(now_ms, max_head_wait))
            .map(|(id, entry)| (*id, entry.phase))
            .collect();
        for (id, _) in &overdue {
            self.close(*id);
        }
        overdue.iter().filter(|(_, phase)| *phase == Phase::Request).count()
    }
}

#[cfg(test)]
impl Table {
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.waiting.longest().is_none() && self.addresses.is_empty()
    }
}

impl Entry {
    fn is_overdue(&self, now_ms: u64, max_head_wait: Duration) -> bool {
        let is_over = |since_ms: u64, limit: Duration| u128::from(now_ms.saturating_sub(since_ms)) >= limit.as_millis();
        match self.phase {
            Phase::New => is_over(self.since_ms, max_head_wait),
            Phase::Idle => match self.watch.first_byte_ms.load(Relaxed) {
                0 => is_over(self.since_ms, MAX_IDLE),
                first_byte_ms => is_over(first_byte_ms, max_head_wait),
            },
            Phase::Request => {
                let stalled_ms = self.watch.stalled_ms.load(Relaxed);
                is_over(self.since_ms, MAX_REQUEST) || (stalled_ms != 0 && is_over(stalled_ms, MAX_STALL))
            }
        }
    }
}
