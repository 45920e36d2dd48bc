//! What this process knows of its wall clock: read against the clock that only goes forward, and against the provider's.
//! Absent: what is decided by it (see `domain::clock`), and what is done about a clock that is wrong (see `clock_watch`).

use crate::domain::clock::{Stamp, Step, Uptime, Watch};
use jiff::{SignedDuration, Timestamp};
use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

/// The clock that nobody turns (proc(5)); `None` on a machine without one.
pub fn uptime() -> Option<Uptime> {
    static MACHINE_START: LazyLock<Option<String>> = LazyLock::new(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    });
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    // Seconds, with two decimals.
    let (seconds, rest) = text.split_once('.')?;
    let hundredths: i64 = rest.get(..2)?.parse().ok()?;
    Some(Uptime {
        machine_start: MACHINE_START.clone()?,
        ms: seconds.parse::<i64>().ok()? * 1_000 + hundredths * 10,
    })
}

/// Readings that are further apart belong to two moments.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What this process knows of its wall clock. In memory only: a restart begins anew.
#[derive(Debug)]
pub struct Clock {
    watch: Mutex<Watch>,
    /// Whether the clock may have gone back since the database was last searched for times of an old future: while no
    /// process watched it, or before our eyes.
    pub may_be_back: AtomicBool,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            watch: Mutex::default(),
            may_be_back: AtomicBool::new(true),
        }
    }
}

impl Clock {
    /// Reads both clocks; every question begins with that, so that no decision is made between a step and its discovery.
    fn read(&self) -> (MutexGuard<'_, Watch>, Instant, Timestamp) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, wall) = read_both();
        watch.read(at, wall);
        (watch, at, wall)
    }

    /// Whether the clock jumped forward within the last hour, so that things may seem old that are not.
    pub fn holds(&self) -> bool {
        let (watch, at, _) = self.read();
        watch.holds(at)
    }

    /// After how long something is too old now: never, after a jump.
    pub fn expire_after(&self, configured: SignedDuration) -> SignedDuration {
        if self.holds() { SignedDuration::MAX } else { configured }
    }

    /// Whether the clock was turned and open attempts are not marked yet.
    pub fn is_unsettled(&self) -> bool {
        !self.read().0.unsettled().is_empty()
    }

    /// How far the provider's clock is ahead of ours; the one that is farthest off, of several stamps. `None` if nothing
    /// is known of it.
    pub fn ahead(&self, stamps: &[Stamp]) -> Option<SignedDuration> {
        let (watch, at, wall) = self.read();
        let trusted = stamps.iter().filter(|stamp| watch.trusts(stamp));
        trusted
            .map(|stamp| stamp.ahead(at, wall))
            .max_by_key(|ahead| ahead.abs())
    }

    /// Steps after which open attempts are not marked yet.
    pub fn unsettled(&self) -> Vec<Step> {
        self.read().0.unsettled().to_vec()
    }

    /// So many of them are marked.
    pub fn settle(&self, count: usize) {
        self.read().0.settle(count);
    }
}

/// Both clocks at one moment: read anew if this process stood still between them.
fn read_both() -> (Instant, Timestamp) {
    loop {
        let (at, wall) = (Instant::now(), Timestamp::now());
        if at.elapsed() < AT_ONCE {
            return (at, wall);
        }
    }
}
