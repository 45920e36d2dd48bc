//! The nightly clean-up: a job of its own, in batches so small that events pass between them; whether one is due is
//! checked once a second. Absent: what is deleted and what stays (see `store::cleanup`).

use super::{
    clock::Clock,
    context::{EVERY_SECOND, now},
    nightly::Nightly,
    workers::TimedJob,
};
use crate::{
    domain::{
        day::{LocalDay, after},
        nightly::NightlyJob,
    },
    store::{Ages, Batch, Old, Run, StoreError},
};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};

/// How long a batch should hold the writer. Far under the 50 ms that it may at most: an event that comes in between
/// waits no longer than that.
const WANTED_HOLD: Duration = Duration::from_millis(2);
/// After a batch, others have the writer to themselves for this many times as long.
const PAUSE_FACTOR: u32 = 2;
const MAX_PAUSE: Duration = Duration::from_millis(250);
const FIRST_BATCH: i64 = 10;
const MAX_BATCH: i64 = 1_000;
/// For so many days after an alert is over or acknowledged, a reply with its code is told so.
const CODE_DAYS: i64 = 7;
/// Pages that one step gives back to the file system.
const PAGES: u32 = 20;

/// Not while a jump of the clock may make things seem old.
pub fn job(nightly: &Arc<Nightly>, clock: &Arc<Clock>) -> TimedJob {
    let context = Arc::new((Arc::clone(nightly), Arc::clone(clock)));
    TimedJob::new(
        "clean up",
        EVERY_SECOND,
        &context,
        async |context: Arc<(Arc<Nightly>, Arc<Clock>)>| {
            let (nightly, clock) = &*context;
            // One run after the other, so that a clock that jumps in the middle keeps the next one from beginning.
            loop {
                let now = now();
                if clock.holds() || !nightly.clean_up_next(nightly.newest_due(now), now).await? {
                    return Ok(());
                }
            }
        },
    )
}

/// How many rows the next batch takes: as many as fit into the wanted time.
#[derive(Debug)]
struct BatchSize {
    rows: i64,
}

impl BatchSize {
    /// Learns from a batch; returns how long to leave the writer to others.
    fn after(&mut self, batch: Batch) -> Duration {
        if batch.held > WANTED_HOLD {
            self.rows = (self.rows / 2).max(1);
        } else if batch.held < WANTED_HOLD / 2 && batch.rows >= self.rows {
            self.rows = (self.rows + self.rows / 2 + 1).min(MAX_BATCH);
        }
        (batch.held * PAUSE_FACTOR).min(MAX_PAUSE)
    }
}

impl Nightly {
    /// Cleans up for every day that is due, up to `newest`.
    pub async fn clean_up(&self, newest: LocalDay, now: Timestamp) -> Result<(), StoreError> {
        while self.clean_up_next(newest, now).await? {}
        Ok(())
    }

    /// Cleans up for the oldest day that is due, up to `newest`. Returns whether there was one.
    async fn clean_up_next(&self, newest: LocalDay, now: Timestamp) -> Result<bool, StoreError> {
        let Some(run) = self.take_run(NightlyJob::Cleanup, newest, now).await? else {
            return Ok(false);
        };
        self.clean_up_once(run, now).await?;
        Ok(true)
    }

    /// What is old is decided by the time at which it `begun`, whatever clocks do meanwhile.
    async fn clean_up_once(&self, run: Run, begun: Timestamp) -> Result<(), StoreError> {
        let ages = self.ages(begun);
        let mut longest = Duration::ZERO;
        let (store, run_ref) = (&self.store, &run);
        let delete = |kind| move |most| store.delete_old(kind, run_ref, ages, most, now());
        let Some(receipts) = batches(&mut longest, delete(Old::Receipts)).await? else {
            return Ok(());
        };
        let Some(alerts) = batches(&mut longest, |most| store.strip_alerts(run_ref, ages, most, now())).await? else {
            return Ok(());
        };
        batches(&mut longest, |most| store.strip_messages(run_ref, ages, most, now())).await?;
        batches(&mut longest, |most| store.delete_codes(run_ref, ages, most, now())).await?;
        batches(&mut longest, |most| store.strip_inbound(run_ref, ages, most, now())).await?;
        let given_up = self.store.mails_given_up(ages).await?;
        if given_up > 0 {
            tracing::error!(
                mails = given_up,
                "no server took these mails within `retention.personal_days`; they are deleted"
            );
        }
        let Some(mails) = batches(&mut longest, |most| store.delete_mails(run_ref, ages, most, now())).await? else {
            return Ok(());
        };
        // Where no endpoint is left, nobody else does, and what has no place is not deleted.
        self.store.place_events().await?;
        batches(&mut longest, delete(Old::Events)).await?;
        let configured = &self.rules.endpoints;
        for (endpoint, events) in self.store.forget_deleted_events(configured, begun).await? {
            if !configured.contains(&endpoint) {
                tracing::info!(%endpoint, "forgot an endpoint that is not configured any more");
                continue;
            }
            tracing::error!(%endpoint, events, "deleted events that the endpoint has not heard of, since they are older than `retention.event_days`");
        }
        for kind in [
            Old::MessageRequests,
            Old::Tries,
            Old::Strangers,
            Old::Alarms,
            Old::Counters,
            Old::Runs,
            Old::Settled,
        ] {
            batches(&mut longest, delete(kind)).await?;
        }
        while let Some(held) = self.store.shrink(PAGES).await? {
            longest = longest.max(held);
            tokio::time::sleep((held * PAUSE_FACTOR).min(MAX_PAUSE)).await;
        }
        let day = run.days.last;
        self.store.finish_run(run, now()).await?;
        tracing::info!(
            cleanup.day = %day,
            receipts_deleted = receipts,
            alerts_stripped = alerts,
            mails_deleted = mails,
            took_s = now().duration_since(begun).as_secs(),
            longest_hold_ms = longest.as_millis(),
            "cleaned up"
        );
        Ok(())
    }

    fn ages(&self, now: Timestamp) -> Ages {
        let days_ago = |days: i64| after(now, -SignedDuration::from_hours(24 * days));
        let personal = days_ago(self.rules.personal_days);
        Ages {
            receipts: days_ago(self.rules.receipt_days),
            codes: days_ago(CODE_DAYS),
            personal,
            events: days_ago(self.rules.event_days).max(personal),
            days: LocalDay::of(personal, &self.rules.time_zone),
        }
    }
}

/// Runs batches until one finds less than it asked for, and remembers the longest. Returns how many rows there were; `None`
/// if the run was lost.
async fn batches<F>(longest: &mut Duration, batch: impl Fn(i64) -> F) -> Result<Option<i64>, StoreError>
where
    F: Future<Output = Result<Option<Batch>, StoreError>>,
{
    let mut size = BatchSize { rows: FIRST_BATCH };
    let mut rows = 0;
    loop {
        let asked = size.rows;
        let Some(batch) = batch(asked).await? else {
            return Ok(None);
        };
        rows += batch.rows;
        *longest = batch.held.max(*longest);
        if batch.rows < asked {
            return Ok(Some(rows));
        }
        tokio::time::sleep(size.after(batch)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(size: &mut BatchSize, ms_per_row: f64) -> Duration {
        let held = Duration::from_secs_f64(size.rows as f64 * ms_per_row / 1_000.0);
        size.after(Batch { rows: size.rows, held });
        held
    }

    #[test]
    fn batches_grow_on_a_fast_machine_and_shrink_on_a_slow_one() {
        let mut size = BatchSize { rows: FIRST_BATCH };
        for _ in 0..50 {
            held(&mut size, 0.02);
        }
        assert!((40..=110).contains(&size.rows), "{size:?}");

        for _ in 0..50 {
            held(&mut size, 20.0);
        }
        assert_eq!(size.rows, 1, "a batch never has less than one row");
    }

    #[test]
    fn a_disk_that_stops_for_a_moment_is_left_alone_for_a_moment() {
        let mut size = BatchSize { rows: 100 };

        let pause = size.after(Batch {
            rows: 100,
            held: Duration::from_secs(3),
        });

        assert_eq!(pause, MAX_PAUSE);
    }
}
