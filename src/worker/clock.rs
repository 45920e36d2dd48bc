//! Watches the wall clock of this process, once a second: against its monotonic clock, against the provider's, and against what is
//! written already. Absent: what is decided by it (see `domain::clock`), and what is written (`store::clocks`).

use super::{EVERY_SECOND, Worker, now, workers::TimedJob};
use crate::{
    domain::{
        alarm::AlarmKind,
        clock::{self, Stamp, Step, Uptime, Watch},
        day::{LocalDay, to_millisecond},
    },
    store::{ClampRules, StoreError},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
    may_be_back: AtomicBool,
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
        watch.look(at, wall);
        (watch, at, wall)
    }

    /// Whether the clock jumped forward within the last hour, so that things may look old that are not.
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

    fn unsettled(&self) -> Vec<Step> {
        self.read().0.unsettled().to_vec()
    }

    fn settle(&self, count: usize) {
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

pub fn job(worker: &Arc<Worker>) -> TimedJob {
    TimedJob::new("watch the clock", EVERY_SECOND, worker, check)
}

async fn check(worker: Arc<Worker>) -> Result<(), StoreError> {
    let steps = worker.clock.unsettled();
    if !steps.is_empty() {
        if steps.iter().any(|step| step.by.is_negative()) {
            worker.clock.may_be_back.store(true, Ordering::Relaxed);
        }
        report_steps(&worker, &steps).await?;
        worker.clock.settle(steps.len());
    }
    let stamp = worker.carrier.clock();
    if let Some(ahead) = worker
        .clock
        .ahead(stamp.as_slice())
        .filter(|ahead| clock::differs(*ahead))
    {
        report_difference(&worker, ahead).await?;
    }
    let now = now();
    let today = LocalDay::of(now, &worker.rules.time_zone);
    let rules = ClampRules {
        lease: worker.rules.lease,
        tomorrow: today.end(&worker.rules.time_zone),
    };
    let is_likely = worker.clock.may_be_back.load(Ordering::Relaxed);
    let clamped = worker.store.clamp_times(rules, is_likely, now).await?;
    worker.clock.may_be_back.store(false, Ordering::Relaxed);
    if clamped > 0 {
        tracing::warn!(
            deliveries = clamped,
            "the clock went back: deliveries that waited for a time which is far again wait for it no longer"
        );
    }
    Ok(())
}

/// The clock was turned: what is open now may have been begun by another time.
async fn report_steps(worker: &Worker, steps: &[Step]) -> Result<(), StoreError> {
    let now = now();
    let doubtful = worker.store.doubt_open_attempts(now).await?;
    for step in steps {
        let direction = if step.by.is_negative() { "back" } else { "forward" };
        let by = clock::span(step.by);
        tracing::warn!(
            step_s = step.by.as_secs(),
            attempts = doubtful,
            "the clock went {direction} by {by} at once; of attempts that are open now, absence is never concluded"
        );
        if step.is_jump {
            let time = to_millisecond(now).strftime("%F %T");
            let detail = format!("the clock of this machine went forward by {by} at once; it now reads {time} UTC");
            let subject = now.strftime("%F %H").to_string();
            worker
                .store
                .raise_alarm(AlarmKind::ClockJumped, &subject, detail, now)
                .await?;
        }
    }
    Ok(())
}

/// Our clock and the provider's differ: an alarm once a day. What is begun meanwhile stays doubtful, also when the clock is
/// set right while no process watches it.
async fn report_difference(worker: &Worker, ahead: SignedDuration) -> Result<(), StoreError> {
    let now = now();
    worker.store.doubt_open_attempts(now).await?;
    let provider = worker.carrier.route().provider;
    let direction = if ahead.is_negative() { "ahead of" } else { "behind" };
    let detail = format!(
        "the clock of this machine is {} {direction} the one of {provider}",
        clock::span(ahead)
    );
    let subject = format!("{provider}/{}", now.strftime("%F"));
    worker
        .store
        .raise_alarm(AlarmKind::ClockDiffers, &subject, detail, now)
        .await
}
