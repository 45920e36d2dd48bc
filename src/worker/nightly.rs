//! The nightly report of what went wrong, once for each local day; whether one is due is checked once a second. It is
//! only made and kept here; `outbox` sends it. Absent: the other nightly job (see `cleanup`).

use super::{
    context::{EVERY_SECOND, now},
    workers::TimedJob,
};
use crate::{
    carrier,
    domain::{
        day::{LocalDay, after},
        mail::Mail,
        nightly::{NightlyJob, NightlyTime, Span},
        report::Report,
    },
    mail::{Mailer, Templates},
    store::{Asker, Db, Outcomes, Run, RunState, StoreError},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::{collections::BTreeMap, sync::Arc};

/// What the nightly jobs go by.
pub struct NightlyRules {
    pub time: NightlyTime,
    pub time_zone: TimeZone,
    pub daily_limit: i64,
    /// Whether a day without failures is mailed too.
    pub always: bool,
    pub receipt_days: i64,
    pub personal_days: i64,
    pub event_days: i64,
    /// The names of those that hear of lifecycle events.
    pub endpoints: Vec<String>,
    /// The configured fallback numbers of each source, in E.164.
    pub fallback: BTreeMap<String, Vec<String>>,
}

/// What the nightly jobs and the mails work with. The command `nightly` has one too.
pub struct Nightly {
    pub store: Db,
    /// `None`: mails are kept and logged.
    pub mailer: Option<Mailer>,
    pub templates: Templates,
    pub rules: NightlyRules,
    /// Marks the leases of this process.
    pub owner: String,
}

pub fn job(nightly: &Arc<Nightly>) -> TimedJob {
    TimedJob::new("make the nightly report", EVERY_SECOND, nightly, async |nightly| {
        let now = now();
        nightly.make_reports(nightly.newest_due(now), now).await
    })
}

impl Nightly {
    pub(super) fn asker(&self, now: Timestamp) -> Asker<'_> {
        Asker {
            owner: &self.owner,
            zone: &self.rules.time_zone,
            now,
        }
    }

    /// The newest day whose jobs are due.
    pub fn newest_due(&self, now: Timestamp) -> LocalDay {
        self.rules.time.newest_due(now, &self.rules.time_zone)
    }

    /// Puts the run of one day that is over into the ledger, because a person wants it now. Returns how far it was.
    pub async fn ask(
        &self,
        job: NightlyJob,
        day: LocalDay,
        newest: LocalDay,
        now: Timestamp,
    ) -> Result<RunState, StoreError> {
        self.store.ask_for_run(job, day, newest, self.asker(now)).await
    }

    pub(super) async fn take_run(
        &self,
        job: NightlyJob,
        newest: LocalDay,
        now: Timestamp,
    ) -> Result<Option<Run>, StoreError> {
        let due = self.rules.time.due(newest, &self.rules.time_zone);
        self.store.take_run(job, newest, due, self.asker(now)).await
    }

    /// Makes every report that is due for days up to `newest`, the oldest first.
    pub async fn make_reports(&self, newest: LocalDay, now: Timestamp) -> Result<(), StoreError> {
        while let Some(run) = self.take_run(NightlyJob::Report, newest, now).await? {
            self.make_report(run, now).await?;
        }
        Ok(())
    }

    async fn make_report(&self, run: Run, now: Timestamp) -> Result<(), StoreError> {
        let days = run.days;
        let cutoff = self.cutoff(days.last, now);
        if !self.store.mark_for_report(&run, cutoff, now).await? {
            return Ok(());
        }
        let report = self.read_report(days, Outcomes::Marked).await?;
        let mail = self.templates.report(&report, &self.rules.time_zone);
        let send = self.mailer.is_some() && (self.rules.always || report.asks_for_attention());
        if self.store.put_report(run, &mail, send, now).await? {
            tracing::info!(
                report.day = %days.last,
                deliveries = report.deliveries(),
                bad_outcomes = report.row_count,
                tickets_untold = report.untold_tickets(),
                opt_outs_to_check = report.doubtful_opt_out_count,
                "{}",
                if send { "made the nightly report; it will be mailed" } else { "made the nightly report; it is kept and not mailed" }
            );
        }
        Ok(())
    }

    /// Up to when outcomes belong to the report of `day`: the newest one takes all there are, an older one those that it
    /// would have had on its own day.
    fn cutoff(&self, day: LocalDay, now: Timestamp) -> Timestamp {
        if day >= self.newest_due(now) {
            after(now, SignedDuration::from_millis(1))
        } else {
            self.rules.time.due(day, &self.rules.time_zone)
        }
    }

    /// The report of a day as it would be made now. Changes nothing.
    pub async fn preview(&self, day: LocalDay, now: Timestamp) -> Result<Mail, StoreError> {
        let span = Span { first: day, last: day };
        let outcomes = Outcomes::MarkedOrBefore(self.cutoff(day, now));
        let mut report = self.read_report(span, outcomes).await?;
        report.so_far = day >= LocalDay::of(now, &self.rules.time_zone);
        Ok(self.templates.report(&report, &self.rules.time_zone))
    }

    async fn read_report(&self, days: Span, outcomes: Outcomes) -> Result<Report, StoreError> {
        let rules = &self.rules;
        let mut report = self
            .store
            .report(days, &rules.time_zone, rules.daily_limit, outcomes)
            .await?;
        for row in &mut report.rows {
            if let Some(explanation) = carrier::explain(row.provider.as_deref(), row.state, row.code) {
                row.explanation = explanation;
            }
        }
        Ok(report)
    }
}
