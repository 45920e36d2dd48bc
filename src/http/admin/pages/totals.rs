//! How many deliveries each of the last days had, by state. Counting a busy day reads all of its deliveries, so it is done
//! beside the pages: they show what was counted last, and a page that finds it too old has it counted anew. Absent: anything
//! kept over a restart, and the counting itself (see `store`).

use crate::{
    domain::{day::LocalDay, delivery::State},
    http::deadline::now,
    store::{Db, StoreError},
};
use jiff::tz::TimeZone;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How many days pages show.
pub const DAYS: usize = 30;
/// A page waits so long for a count that is under way: then it shows the one before.
const PATIENCE: Duration = Duration::from_millis(40);
/// A count is never older than this much longer than it took to make: so counting takes at most a twentieth of the time.
const REST: u32 = 20;
/// Outcomes may still come for this many days: a message is asked about for three.
const LIVELY_DAYS: usize = 4;

/// How old a count may be that a page shows: today's, that of a day whose outcomes still come, any other.
const FRESH: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(60),
    Duration::from_secs(60 * 60),
];

type Counts = Vec<(State, i64)>;

/// The deliveries of a day by state.
#[derive(Clone)]
pub struct DayTotal {
    pub day: LocalDay,
    /// `None` while they are being counted for the first time.
    pub counts: Option<Counts>,
}

struct Counted {
    at: Instant,
    took: Duration,
    counts: Counts,
}

#[derive(Default)]
struct Known {
    days: BTreeMap<LocalDay, Counted>,
    is_counting: bool,
}

/// What was counted last.
#[derive(Clone, Default)]
pub struct DayTotals {
    known: Arc<Mutex<Known>>,
    counted: Arc<Notify>,
}

impl DayTotals {
    /// The last days, oldest first, as far as they are counted.
    pub async fn until(&self, today: LocalDay, store: &Db, zone: &TimeZone) -> Vec<DayTotal> {
        let mut days = vec![today];
        while days.len() < DAYS {
            days.extend(days.last().map(|day| day.previous(zone)));
        }
        let due = self.due(&days);
        if !due.is_empty() {
            self.count(due, store, zone).await;
        }
        days.reverse();
        let mut known = self.lock();
        known.days.retain(|day, _| days.contains(day));
        let total = |day: LocalDay| DayTotal {
            day,
            counts: known.days.get(&day).map(|counted| counted.counts.clone()),
        };
        days.into_iter().map(total).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of `days`, newest first, those that are to be counted; whoever gets some must count them.
    fn due(&self, days: &[LocalDay]) -> Vec<LocalDay> {
        let mut known = self.lock();
        if known.is_counting {
            return Vec::new();
        }
        let is_due = |place: usize, day: &LocalDay| {
            let fresh = match place {
                0 => FRESH[0],
                1..LIVELY_DAYS => FRESH[1],
                _ => FRESH[2],
            };
            let counted = known.days.get(day);
            counted.is_none_or(|counted| counted.at.elapsed() > fresh.max(counted.took * REST))
        };
        let places = days.iter().enumerate();
        let due: Vec<LocalDay> = places
            .filter(|(place, day)| is_due(*place, day))
            .map(|(_, day)| *day)
            .collect();
        known.is_counting = !due.is_empty();
        due
    }

    /// Begins to count, and waits a little for the end.
    async fn count(&self, due: Vec<LocalDay>, store: &Db, zone: &TimeZone) {
        let end = self.counted.notified();
        tokio::pin!(end);
        end.as_mut().enable();
        let (totals, store, zone) = (self.clone(), store.clone(), zone.clone());
        tokio::spawn(async move {
            let _end = End(&totals);
            for day in due {
                if let Err(error) = totals.count_day(day, &store, &zone).await {
                    tracing::warn!(%error, "the deliveries of a day could not be counted for the overview");
                    break;
                }
            }
        });
        let _ = tokio::time::timeout(PATIENCE, end).await;
    }

    async fn count_day(&self, day: LocalDay, store: &Db, zone: &TimeZone) -> Result<(), StoreError> {
        let began = Instant::now();
        let until = day.end(zone);
        // A day that lies ahead of the clock has nothing to count.
        let counts = if day.start(zone) > now() {
            Vec::new()
        } else {
            store.totals(day.start(zone), until).await?
        };
        let counted = Counted {
            at: Instant::now(),
            took: began.elapsed(),
            counts,
        };
        self.lock().days.insert(day, counted);
        Ok(())
    }
}

/// The end of a count, also if it was cut off.
struct End<'a>(&'a DayTotals);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().is_counting = false;
        self.0.counted.notify_waiters();
    }
}
