//! The books of open connections: how many there may be, which of them only wait, and which have used up their time.
//! Absent: sockets (see `server`).
//!
//! At a cap no newcomer is refused while somebody only waits: the connection that has waited longest for a request head
//! (or for a body that nobody has vouched for yet) is closed. The longest wait, whatever it is for: any other order would
//! let those who hold the cheaper kind push every newcomer out at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// A request head that is not there by then, from the first byte or, on a new connection, from its beginning.
const MAX_HEAD_WAIT: Duration = Duration::from_secs(10);
/// The same at a stop.
const MAX_HEAD_WAIT_AT_STOP: Duration = Duration::from_secs(1);
/// Longer than proxies keep an idle connection (nginx and AWS load balancers: 60 s), so that they close it and not we,
/// in the moment in which they use it.
const MAX_IDLE: Duration = Duration::from_secs(75);
/// From head to answer. Handlers have shorter time-outs for bodies and for the database: this one catches what they miss.
const MAX_REQUEST: Duration = Duration::from_secs(120);
/// A client that takes no byte of its answer for so long.
const MAX_STALL: Duration = Duration::from_secs(30);
/// Nobody needs more; each takes memory.
const MAX_CONNECTIONS: usize = 8192;
/// The usual limit of open files where a process cannot find out its own.
const USUAL_OPEN_FILES: usize = 1024;

/// How many connections may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    in_all: usize,
    per_address: usize,
}

impl Caps {
    /// Half of the files that this process may open; the other half is for the database, the provider and mail. Half of
    /// those for one address: many people may share it.
    pub fn of_this_process() -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::new((read_open_files(&limits).unwrap_or(USUAL_OPEN_FILES) / 2).clamp(16, MAX_CONNECTIONS))
    }

    fn new(in_all: usize) -> Self {
        Self {
            in_all,
            per_address: in_all.div_ceil(2),
        }
    }

    /// Splits them between the public listener and the one for admins, who keep an eighth.
    pub fn split(self) -> (Self, Self) {
        let admins = (self.in_all / 8).max(2);
        (Self::new(self.in_all - admins), Self::new(admins))
    }
}

/// The soft limit of open files in the text of `/proc/self/limits`; `None` if it is not there.
fn read_open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

/// One address of IPv4, or the network that one host of IPv6 usually has.
pub fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => std::net::Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// The connections that are open, and in which order they have begun to wait.
pub struct Connections {
    pub caps: Caps,
    started: Instant,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    next_turn: u64,
    open: HashMap<u64, Entry>,
    /// Those that only wait, by the turn in which they began to; the first has waited longest.
    waiting: BTreeMap<u64, u64>,
    addresses: HashMap<IpAddr, Address>,
}

struct Entry {
    /// `None` for a trusted proxy.
    address: Option<IpAddr>,
    /// Set while it only waits.
    turn: Option<u64>,
    phase: Phase,
    since_ms: u64,
    watch: Arc<Watch>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
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
    waiting: BTreeSet<u64>,
}

/// What a connection's socket and its answers say, and that it is to close. Times are milliseconds of `started`; 0 is never.
#[derive(Default)]
pub struct Watch {
    /// The first byte since it has begun to wait. One that comes in during a request (pipelining) does not count: such a
    /// connection may wait as an idle one.
    pub first_byte_ms: AtomicU64,
    /// Since when the client takes nothing.
    pub stalled_ms: AtomicU64,
    /// The answer is with hyper; the next flush ends the request.
    pub is_answered: AtomicBool,
    pub close: Notify,
}

pub enum Admission {
    Free(Open),
    /// The connection that had waited longest was closed for it.
    InPlaceOfAnother(Open),
    /// All are in the middle of a request.
    Refused,
}

impl Connections {
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            started: Instant::now(),
            table: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never 0.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).map_or(u64::MAX, |passed| passed.saturating_add(1))
    }

    /// Takes a connection into the books, at a cap in the place of one that only waits.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Admission {
        let now_ms = self.now_ms();
        let mut table = self.lock();
        let before = table.open.len();
        let books = address.and_then(|address| table.addresses.get(&address));
        if let Some(books) = books.filter(|books| books.open >= self.caps.per_address) {
            let Some(turn) = books.waiting.first().copied() else {
                return Admission::Refused;
            };
            table.close_turn(turn);
        }
        if table.open.len() >= self.caps.in_all && !table.close_longest_waiting() {
            return Admission::Refused;
        }
        let is_free = table.open.len() == before;
        let (id, watch) = table.open(address, now_ms);
        let open = Open(Connection {
            id,
            watch,
            connections: Arc::clone(self),
        });
        if is_free {
            Admission::Free(open)
        } else {
            Admission::InPlaceOfAnother(open)
        }
    }

    /// Closes the connection that has waited longest, if one only waits.
    pub fn evict_one(&self) {
        self.lock().close_longest_waiting();
    }

    /// Closes every connection that has used up its time. How many of them were in the middle of a request.
    pub fn close_overdue(&self, now_ms: u64, is_stopping: bool) -> usize {
        let max_head_wait = if is_stopping {
            MAX_HEAD_WAIT_AT_STOP
        } else {
            MAX_HEAD_WAIT
        };
        let mut table = self.lock();
        let overdue: Vec<(u64, Phase)> = table
            .open
            .iter()
            .filter(|(_, entry)| entry.is_overdue(now_ms, max_head_wait))
            .map(|(id, entry)| (*id, entry.phase))
            .collect();
        for (id, _) in &overdue {
            table.close(*id);
        }
        overdue.iter().filter(|(_, phase)| *phase == Phase::Request).count()
    }
}

impl Table {
    fn open(&mut self, address: Option<IpAddr>, now_ms: u64) -> (u64, Arc<Watch>) {
        let id = self.next_id;
        self.next_id += 1;
        let watch = Arc::new(Watch::default());
        let entry = Entry {
            address,
            turn: None,
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

    /// Puts a connection behind all that wait.
    fn begin_to_wait(&mut self, id: u64) {
        self.stop_waiting(id);
        let Some(entry) = self.open.get_mut(&id) else { return };
        let turn = self.next_turn;
        self.next_turn += 1;
        entry.turn = Some(turn);
        self.waiting.insert(turn, id);
        if let Some(books) = entry.address.and_then(|address| self.addresses.get_mut(&address)) {
            books.waiting.insert(turn);
        }
    }

    /// Whether the connection is still open.
    fn stop_waiting(&mut self, id: u64) -> bool {
        let Some(entry) = self.open.get_mut(&id) else {
            return false;
        };
        if let Some(turn) = entry.turn.take() {
            self.waiting.remove(&turn);
            if let Some(books) = entry.address.and_then(|address| self.addresses.get_mut(&address)) {
                books.waiting.remove(&turn);
            }
        }
        true
    }

    /// Takes it out of the books.
    fn remove(&mut self, id: u64) -> Option<Entry> {
        self.stop_waiting(id);
        let entry = self.open.remove(&id)?;
        if let Some(address) = entry.address
            && let Some(books) = self.addresses.get_mut(&address)
        {
            books.open -= 1;
            if books.open == 0 {
                self.addresses.remove(&address);
            }
        }
        Some(entry)
    }

    /// Takes it out of the books and tells its task to end.
    fn close(&mut self, id: u64) {
        if let Some(entry) = self.remove(id) {
            entry.watch.close.notify_one();
        }
    }

    fn close_turn(&mut self, turn: u64) {
        if let Some(id) = self.waiting.get(&turn).copied() {
            self.close(id);
        }
    }

    /// Whether there was one.
    fn close_longest_waiting(&mut self) -> bool {
        let longest = self.waiting.first_key_value().map(|(_, id)| *id);
        longest.inspect(|id| self.close(*id)).is_some()
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

/// An open connection, as its requests know it.
#[derive(Clone)]
pub struct Connection {
    id: u64,
    pub watch: Arc<Watch>,
    connections: Arc<Connections>,
}

impl Connection {
    /// The books' clock.
    pub fn now_ms(&self) -> u64 {
        self.connections.now_ms()
    }

    /// Waits for something that whoever holds this connection owes us, and nobody has vouched for them: at a cap it may be
    /// closed meanwhile, and `owed` with it.
    pub async fn while_waiting<T>(&self, owed: impl Future<Output = T>) -> T {
        self.connections.lock().begin_to_wait(self.id);
        let got = owed.await;
        self.go_on().await;
        got
    }

    /// A request begins.
    pub async fn begin(&self) {
        let now_ms = self.connections.now_ms();
        if let Some(entry) = self.connections.lock().open.get_mut(&self.id) {
            entry.phase = Phase::Request;
            entry.since_ms = now_ms;
        }
        self.go_on().await;
    }

    /// Takes it from those that may be closed. What was closed a moment ago is not begun: its task is about to end.
    async fn go_on(&self) {
        let is_open = self.connections.lock().stop_waiting(self.id);
        if !is_open {
            std::future::pending::<()>().await;
        }
    }

    /// The answer is written.
    pub fn become_idle(&self) {
        let now_ms = self.connections.now_ms();
        self.watch.first_byte_ms.store(0, Relaxed);
        let mut table = self.connections.lock();
        if let Some(entry) = table.open.get_mut(&self.id) {
            entry.phase = Phase::Idle;
            entry.since_ms = now_ms;
        }
        table.begin_to_wait(self.id);
    }
}

/// The one who takes a connection out of the books at its end, however it ends.
pub struct Open(pub Connection);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.lock().remove(self.0.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(in_all: usize, per_address: usize) -> Arc<Connections> {
        Arc::new(Connections::new(Caps { in_all, per_address }))
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    /// One that is let in, whoever has to go for it.
    fn enters(books: &Arc<Connections>, address: Option<IpAddr>) -> Open {
        match books.admit(address) {
            Admission::Free(open) | Admission::InPlaceOfAnother(open) => open,
            Admission::Refused => panic!("refused"),
        }
    }

    fn is_refused(books: &Arc<Connections>, address: Option<IpAddr>) -> bool {
        matches!(books.admit(address), Admission::Refused)
    }

    fn is_open(open: &Open) -> bool {
        open.0.connections.lock().open.contains_key(&open.0.id)
    }

    fn which_are_open(all: &[&Open]) -> Vec<bool> {
        all.iter().map(|open| is_open(open)).collect()
    }

    #[tokio::test]
    async fn at_the_cap_of_an_address_its_own_longest_wait_ends() {
        let books = books(10, 2);
        let other = enters(&books, address(1));
        let (first, second) = (enters(&books, address(2)), enters(&books, address(2)));

        let third = enters(&books, address(2));

        assert_eq!(
            which_are_open(&[&other, &first, &second, &third]),
            [true, false, true, true]
        );
        first.0.watch.close.notified().await;
    }

    #[tokio::test]
    async fn at_the_cap_in_all_the_longest_wait_of_all_ends() {
        let books = books(2, 2);
        let (first, second) = (enters(&books, address(1)), enters(&books, address(2)));
        first.0.begin().await;
        first.0.become_idle();

        let third = enters(&books, address(3));

        assert_eq!(
            which_are_open(&[&first, &second, &third]),
            [true, false, true],
            "the first has begun to wait again after the second"
        );
    }

    #[tokio::test]
    async fn a_request_under_way_is_never_closed_for_a_newcomer() {
        let books = books(2, 1);
        let busy = enters(&books, address(1));
        busy.0.begin().await;

        assert!(is_refused(&books, address(1)), "this address has nobody who waits");
        let other = enters(&books, address(2));
        other.0.begin().await;
        assert!(is_refused(&books, address(3)), "nobody waits at all");
        assert_eq!(which_are_open(&[&busy, &other]), [true, true]);
    }

    #[tokio::test]
    async fn who_sends_a_body_that_nobody_vouched_for_only_waits() {
        let books = books(1, 1);
        let stranger = enters(&books, address(1));
        stranger.0.begin().await;
        let connection = stranger.0.clone();

        let read = connection.while_waiting(async {
            assert!(is_open(&enters(&books, address(2))));
        });

        assert!(futures::FutureExt::now_or_never(read).is_none(), "it never goes on");
        assert!(!is_open(&stranger));
        assert!(
            futures::FutureExt::now_or_never(stranger.0.begin()).is_none(),
            "nor does it begin another request"
        );
    }

    #[test]
    fn a_proxy_is_counted_only_in_all() {
        let books = books(3, 1);

        let open: Vec<Open> = (0..3).map(|_| enters(&books, None)).collect();

        assert!(open.iter().all(is_open));
    }

    #[test]
    fn what_has_ended_leaves_nothing_behind() {
        let books = books(10, 5);
        let all: Vec<Open> = (0..20).map(|number| enters(&books, address(number % 3))).collect();

        drop(all);

        let table = books.lock();
        assert!(table.open.is_empty() && table.waiting.is_empty() && table.addresses.is_empty());
    }

    #[tokio::test]
    async fn each_kind_of_waiting_has_its_time() {
        let second = 1000;
        let is_closed_after = async |seconds: u64, is_stopping: bool, prepare: &dyn Fn(&Open), begin: bool| {
            let books = books(10, 5);
            let open = enters(&books, address(1));
            if begin {
                open.0.begin().await;
            }
            prepare(&open);
            books.close_overdue(books.now_ms() + seconds * second, is_stopping);
            !is_open(&open)
        };
        let nothing = |_: &Open| {};
        let idle = |open: &Open| open.0.become_idle();
        let half_sent = |open: &Open| {
            open.0.become_idle();
            open.0.watch.first_byte_ms.store(open.0.now_ms(), Relaxed);
        };
        let stalled = |open: &Open| open.0.watch.stalled_ms.store(open.0.now_ms(), Relaxed);

        for (what, begin, prepare, lives, ends) in [
            ("a new one", false, &nothing as &dyn Fn(&Open), 9, 11),
            ("an idle one", true, &idle, 74, 76),
            ("a half-sent head on an idle one", true, &half_sent, 9, 11),
            ("a request", true, &nothing, 119, 121),
            ("an answer that is not read", true, &stalled, 29, 31),
        ] {
            assert!(
                !is_closed_after(lives, false, prepare, begin).await,
                "{what} after {lives} s"
            );
            assert!(
                is_closed_after(ends, false, prepare, begin).await,
                "{what} after {ends} s"
            );
        }
        assert!(is_closed_after(2, true, &nothing, false).await, "a new one at a stop");
        assert!(!is_closed_after(2, true, &nothing, true).await, "a request at a stop");
    }

    #[test]
    fn ipv6_is_counted_by_network_and_mapped_ipv4_as_ipv4() {
        for (given, wanted) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(counted(given.parse().unwrap()).to_string(), wanted);
        }
    }

    #[test]
    fn the_limit_of_open_files_is_read() {
        let line =
            |limit: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {limit}  4096  files\n");

        assert_eq!(read_open_files(&line("1024")), Some(1024));
        assert_eq!(read_open_files(&line("unlimited")), Some(usize::MAX));
        assert_eq!(read_open_files(""), None);
        let (public, admins) = Caps::new(512).split();
        assert_eq!((public.in_all, admins.in_all), (448, 64));
    }
}
