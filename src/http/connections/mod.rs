//! The connections that are open: how many there may be, and which one is closed for a new one. Absent: sockets (see
//! `server`).
//!
//! At a cap a new connection is refused only if no other one merely waits, for a request head or for the body of a request
//! that is not authenticated yet: else one of those is closed. There are two kinds of them: the idle ones of clients that
//! have shown who they are, and all others. Closed is the longest wait of the kind of which there are more. So a flood of
//! the others leaves a helpdesk's idle connection alone, which it may be using in that moment and which counts on an answer,
//! and whoever holds many of one kind does not have each new connection closed at once.

mod caps;
mod table;

pub use caps::{Caps, counted};
pub use table::Watch;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Instant,
};
use table::{Phase, Table};

/// The connections that are open.
pub struct Connections {
    pub caps: Caps,
    started: Instant,
    table: Mutex<Table>,
}

/// Whether a new connection is taken in.
pub enum Admission {
    Free(Open),
    /// One that only waited was closed for it.
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

    /// Takes a new connection in, at a cap in the place of one that only waits.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Admission {
        let now_ms = self.now_ms();
        let mut table = self.lock();
        let before = table.open.len();
        if let Some(address) = address
            && table.open_of(address) >= self.caps.per_address
            && !table.close_one_waiting(Some(address))
        {
            return Admission::Refused;
        }
        if table.open.len() >= self.caps.in_all && !table.close_one_waiting(None) {
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

    /// Closes one that only waits, if there is one.
    pub fn evict_one(&self) {
        self.lock().close_one_waiting(None);
    }

    /// Closes every connection that has used up its time. How many of them were in the middle of a request.
    pub fn close_overdue(&self, now_ms: u64, is_stopping: bool) -> usize {
        self.lock().close_overdue(now_ms, is_stopping)
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
    /// The clock of the times in `watch`.
    pub fn now_ms(&self) -> u64 {
        self.connections.now_ms()
    }

    /// Waits for something that a client who is not authenticated yet has still to send. At a cap the connection may be
    /// closed meanwhile; then this never returns.
    pub async fn while_waiting<T>(&self, sent: impl Future<Output = T>) -> T {
        self.connections.lock().begin_to_wait(self.id);
        let got = sent.await;
        self.go_on().await;
        got
    }

    /// A request begins.
    pub async fn begin(&self) {
        self.watch.is_known.store(false, Relaxed);
        let now_ms = self.connections.now_ms();
        self.connections.lock().enter(self.id, Phase::Request, now_ms);
        self.go_on().await;
    }

    /// Takes it from those that may be closed. What was closed a moment ago is not begun: its task is about to end.
    async fn go_on(&self) {
        let is_open = self.connections.lock().stop_waiting(self.id);
        if !is_open {
            std::future::pending::<()>().await;
        }
    }

    /// The request that is under way has a good token or signature.
    pub fn know_client(&self) {
        self.watch.is_known.store(true, Relaxed);
    }

    /// The answer is written.
    pub fn become_idle(&self) {
        let now_ms = self.connections.now_ms();
        self.watch.first_byte_ms.store(0, Relaxed);
        let mut table = self.connections.lock();
        table.enter(self.id, Phase::Idle, now_ms);
        table.begin_to_wait(self.id);
    }
}

/// Takes a connection out of the table at its end, however it ends.
pub struct Open(pub Connection);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.lock().remove(self.0.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(in_all: usize, per_address: usize) -> Arc<Connections> {
        Arc::new(Connections::new(Caps { in_all, per_address }))
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    /// One that is taken in, whichever is closed for it.
    fn enters(all: &Arc<Connections>, address: Option<IpAddr>) -> Open {
        match all.admit(address) {
            Admission::Free(open) | Admission::InPlaceOfAnother(open) => open,
            Admission::Refused => panic!("refused"),
        }
    }

    fn is_refused(all: &Arc<Connections>, address: Option<IpAddr>) -> bool {
        matches!(all.admit(address), Admission::Refused)
    }

    fn is_open(open: &Open) -> bool {
        open.0.connections.lock().open.contains_key(&open.0.id)
    }

    fn which_are_open(all: &[&Open]) -> Vec<bool> {
        all.iter().map(|open| is_open(open)).collect()
    }

    #[tokio::test]
    async fn at_the_cap_of_an_address_its_own_longest_wait_ends() {
        let all = connections(10, 2);
        let other = enters(&all, address(1));
        let (first, second) = (enters(&all, address(2)), enters(&all, address(2)));

        let third = enters(&all, address(2));

        assert_eq!(
            which_are_open(&[&other, &first, &second, &third]),
            [true, false, true, true]
        );
        first.0.watch.close.notified().await;
    }

    #[tokio::test]
    async fn at_the_cap_in_all_the_longest_wait_of_all_ends() {
        let all = connections(2, 2);
        let (first, second) = (enters(&all, address(1)), enters(&all, address(2)));
        first.0.begin().await;
        first.0.become_idle();

        let third = enters(&all, address(3));

        assert_eq!(
            which_are_open(&[&first, &second, &third]),
            [true, false, true],
            "the first has begun to wait again after the second"
        );
    }

    /// A connection that has answered a request and waits for the next one.
    async fn idles(open: &Open, is_known: bool) {
        open.0.begin().await;
        if is_known {
            open.0.know_client();
        }
        open.0.become_idle();
    }

    /// At the cap of 5 of one address, or of 5 in all.
    fn at_both_caps() -> [(Arc<Connections>, Option<IpAddr>); 2] {
        [(connections(100, 5), address(1)), (connections(5, 5), None)]
    }

    #[tokio::test]
    async fn a_flood_leaves_the_idle_connections_of_known_clients_alone() {
        for (all, of) in at_both_caps() {
            let (known, unknown) = (enters(&all, of), enters(&all, of));
            idles(&known, true).await;
            idles(&unknown, true).await;
            idles(&unknown, false).await;

            let flood: Vec<Open> = (0..10).map(|_| enters(&all, of)).collect();

            let flood: Vec<&Open> = flood.iter().collect();
            assert_eq!(which_are_open(&flood[6..]), [true; 4], "{of:?}");
            assert_eq!(
                which_are_open(&[&known, &unknown]),
                [true, false],
                "{of:?}: its last request counts"
            );
        }
    }

    #[tokio::test]
    async fn a_client_with_many_idle_connections_does_not_have_every_new_one_closed() {
        for (all, of) in at_both_caps() {
            let mut many = Vec::new();
            for _ in 0..10 {
                let known = enters(&all, of);
                idles(&known, true).await;
                many.push(known);
            }

            let new: Vec<Open> = (0..3).map(|_| enters(&all, of)).collect();

            assert!(new.iter().all(is_open), "{of:?}");
        }
    }

    #[tokio::test]
    async fn a_request_under_way_is_never_closed_for_a_new_connection() {
        let all = connections(2, 1);
        let busy = enters(&all, address(1));
        busy.0.begin().await;

        assert!(is_refused(&all, address(1)), "this address has nobody who waits");
        let other = enters(&all, address(2));
        other.0.begin().await;
        assert!(is_refused(&all, address(3)), "nobody waits at all");
        assert_eq!(which_are_open(&[&busy, &other]), [true, true]);
    }

    #[tokio::test]
    async fn a_connection_that_sends_an_unauthenticated_body_only_waits() {
        let all = connections(1, 1);
        let sender = enters(&all, address(1));
        sender.0.begin().await;
        let connection = sender.0.clone();

        let read = connection.while_waiting(async {
            assert!(is_open(&enters(&all, address(2))));
        });

        assert!(futures::FutureExt::now_or_never(read).is_none(), "it never goes on");
        assert!(!is_open(&sender));
        assert!(
            futures::FutureExt::now_or_never(sender.0.begin()).is_none(),
            "nor does it begin another request"
        );
    }

    #[test]
    fn a_proxy_is_counted_only_in_all() {
        let all = connections(3, 1);

        let open: Vec<Open> = (0..3).map(|_| enters(&all, None)).collect();

        assert!(open.iter().all(is_open));
    }

    #[test]
    fn what_has_ended_leaves_nothing_behind() {
        let all = connections(10, 5);
        let open: Vec<Open> = (0..20).map(|number| enters(&all, address(number % 3))).collect();

        drop(open);

        assert!(all.lock().is_empty());
    }

    #[tokio::test]
    async fn each_kind_of_waiting_has_its_time() {
        let second = 1000;
        let is_closed_after = async |seconds: u64, is_stopping: bool, prepare: &dyn Fn(&Open), begin: bool| {
            let all = connections(10, 5);
            let open = enters(&all, address(1));
            if begin {
                open.0.begin().await;
            }
            prepare(&open);
            all.close_overdue(all.now_ms() + seconds * second, is_stopping);
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
}
