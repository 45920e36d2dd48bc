//! What the failure report counts and lists. Absent: what it means (`domain::report`) and how it looks (`mail`).

use super::{
    Db,
    error::StoreError,
    job_runs::Run,
    ledger, opt_outs,
    query::Query,
    sql::{Sql, args, sql},
    types::{at, ms},
};
use crate::domain::{
    alarm::TicketRef,
    day::LocalDay,
    delivery::{Reason, State},
    nightly::Span,
    phone,
    report::{BadOutcome, DoubtfulOptOut, Explanation, MAX_ROWS, Report, TREND_DAYS, TrendDay},
};
use jiff::{Timestamp, tz::TimeZone};

/// Outcomes and opt-outs are marked in steps of this many, so that the writer is never held for long.
const MARK_BATCH: i64 = 100;

/// Which outcomes a report lists.
#[derive(Clone, Copy, Debug)]
pub enum Outcomes {
    /// Those that were marked for it.
    Marked,
    /// Those too that it would mark now: recorded before this instant.
    MarkedOrBefore(Timestamp),
}

#[derive(sqlx::FromRow)]
struct OutcomeRow {
    id: String,
    alert_id: Option<String>,
    source: Option<String>,
    ticket_id: Option<String>,
    ticket_number: Option<String>,
    subject: Option<String>,
    url: Option<String>,
    name: Option<String>,
    role: Option<String>,
    phone: Option<String>,
    state: State,
    reason: Option<String>,
    provider: Option<String>,
    error_code: Option<i64>,
    moved_at: i64,
    others_told: i64,
    total: i64,
}

#[derive(sqlx::FromRow)]
struct DoubtfulRow {
    phone: String,
    staff_id: Option<String>,
    reason: Option<String>,
    opted_out_at: i64,
    total: i64,
}

impl Db {
    /// Marks what no report has listed yet as this run's, so that it is listed once: every bad outcome recorded before
    /// `cutoff`, and every opt-out whose original text is not known. What the provider told us is the number that was texted:
    /// it needs no text. Returns whether the run is still ours.
    pub async fn mark_for_report(&self, run: &Run, cutoff: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        const MARK: Sql = sql!(
            "update opt_out set report_day = $1 where phone in (select phone from opt_out where phone_text is null
                and report_day is null and coalesce(reason, '') <> $2 order by phone limit $3 for update)"
        );
        loop {
            let Some((mut tx, _)) = self.begin_step(run, now).await? else {
                return Ok(false);
            };
            let outcomes = ledger::mark_outcomes(&mut tx, run.days.last, cutoff, MARK_BATCH).await?;
            // Finding them reads all opt-outs, so that comes once the outcomes are through.
            let opt_outs = if outcomes == 0 {
                let arguments = args![run.days.last.to_string(), opt_outs::BY_PROVIDER, MARK_BATCH];
                tx.execute(MARK, arguments).await?
            } else {
                0
            };
            tx.commit().await?;
            if outcomes == 0 && opt_outs == 0 {
                return Ok(true);
            }
        }
    }

    /// The report of `days`. Reads only.
    pub async fn report(
        &self,
        days: Span,
        zone: &TimeZone,
        configured_limit: i64,
        outcomes: Outcomes,
    ) -> Result<Report, StoreError> {
        let (row_count, rows) = self.outcomes(days.last, outcomes).await?;
        let (doubtful_opt_out_count, doubtful_opt_outs) = self.doubtful_opt_outs(days.last, outcomes).await?;
        let status = self.limit_status(days.last, configured_limit).await?;
        let (from, until) = (days.first.start(zone), days.last.end(zone));
        let opt_outs_gained: i64 = self
            .reads()
            .scalar(
                sql!("select count(*) from opt_out where opted_out_at >= $1 and opted_out_at < $2"),
                args![ms(from), ms(until)],
            )
            .await?;
        let mut trend = Vec::with_capacity(TREND_DAYS);
        let mut day = days.last;
        for _ in 0..TREND_DAYS {
            let totals = self.totals(day.start(zone), day.end(zone)).await?;
            trend.push(TrendDay {
                day,
                deliveries: totals.iter().map(|(_, count)| count).sum(),
                bad: totals
                    .iter()
                    .filter(|(state, _)| state.is_bad())
                    .map(|(_, count)| count)
                    .sum(),
            });
            day = day.previous(zone);
        }
        trend.reverse();
        Ok(Report {
            days,
            so_far: false,
            totals: self.totals(from, until).await?,
            rows,
            row_count,
            deferred: status.deferred,
            used: self.used_on(days).await?,
            limit: status.limit,
            opt_outs_gained,
            doubtful_opt_outs,
            doubtful_opt_out_count,
            trend,
        })
    }

    /// How the deliveries received in this time stand now, in the order of the states.
    pub async fn totals(&self, from: Timestamp, until: Timestamp) -> Result<Vec<(State, i64)>, StoreError> {
        let counts: Vec<(String, i64)> = self
            .reads()
            .all(
                sql!(
                    "select state, count(*) from delivery where received_at >= $1 and received_at < $2 group by state"
                ),
                args![ms(from), ms(until)],
            )
            .await?;
        Ok(State::ALL
            .iter()
            .filter_map(|state| {
                let (_, count) = counts.iter().find(|(word, _)| word == state.as_str())?;
                Some((*state, *count))
            })
            .collect())
    }

    /// Slots of the daily limit that were taken on these days.
    async fn used_on(&self, days: Span) -> Result<i64, StoreError> {
        self.reads()
            .scalar(
                sql!("select cast(coalesce(sum(used), 0) as bigint) from daily_count where day >= $1 and day <= $2"),
                args![days.first.to_string(), days.last.to_string()],
            )
            .await
    }

    /// Opt-outs whose original text is not known, oldest first: how many there are, and the first [`MAX_ROWS`].
    async fn doubtful_opt_outs(
        &self,
        day: LocalDay,
        outcomes: Outcomes,
    ) -> Result<(i64, Vec<DoubtfulOptOut>), StoreError> {
        let and_unmarked: i64 = match outcomes {
            Outcomes::Marked => 0,
            Outcomes::MarkedOrBefore(_) => 1,
        };
        let rows: Vec<DoubtfulRow> = self
            .reads()
            .all(
                sql!(
                    "select phone, staff_id, reason, opted_out_at, count(*) over () as total from opt_out
                 where phone_text is null and coalesce(reason, '') <> $3
                    and (report_day = $1 or (report_day is null and $2 = 1))
                 order by opted_out_at, phone limit $4"
                ),
                args![
                    day.to_string(),
                    and_unmarked,
                    opt_outs::BY_PROVIDER,
                    i64::try_from(MAX_ROWS).unwrap_or(i64::MAX)
                ],
            )
            .await?;
        let count = rows.first().map_or(0, |row| row.total);
        let opt_outs = rows.into_iter().map(|row| DoubtfulOptOut {
            phone: phone::mask(&row.phone),
            staff_id: row.staff_id,
            reason: row.reason,
            since: at(row.opted_out_at),
        });
        Ok((count, opt_outs.collect()))
    }

    /// Bad outcomes, worst first: how many there are, and the first [`MAX_ROWS`].
    async fn outcomes(&self, day: LocalDay, outcomes: Outcomes) -> Result<(i64, Vec<BadOutcome>), StoreError> {
        let before = match outcomes {
            Outcomes::Marked => None,
            Outcomes::MarkedOrBefore(cutoff) => Some(ms(cutoff)),
        };
        let rows: Vec<OutcomeRow> = self
            .reads()
            .all(
                sql!(
                    "select outcome.*, count(*) over () as total from (
                    select d.id, d.alert_id, a.source, a.ticket_id, a.ticket_number, a.subject, a.url, d.name, d.role,
                        coalesce(d.phone, d.phone_raw) as phone, d.state, d.reason, d.provider, d.error_code,
                        d.moved_at, (select count(*) from delivery o where o.alert_id = d.alert_id and o.state in (",
                    State::TOLD,
                    ")) as others_told
                    from delivery d left join alert a on a.id = d.alert_id
                    where d.state in (",
                    State::BAD,
                    ")
                        and (d.report_day = $1 or (d.report_day is null and d.moved_at < $2))) outcome
                 where state <> 'suppressed' or others_told = 0
                 order by case when others_told = 0 then 0 else 1 end, moved_at, id limit $3"
                ),
                args![day.to_string(), before, i64::try_from(MAX_ROWS).unwrap_or(i64::MAX)],
            )
            .await?;
        let count = rows.first().map_or(0, |row| row.total);
        Ok((count, rows.into_iter().map(BadOutcome::from).collect()))
    }
}

impl From<OutcomeRow> for BadOutcome {
    fn from(row: OutcomeRow) -> Self {
        let reason = row.reason.as_deref().and_then(Reason::parse);
        Self {
            delivery_id: row.id,
            nobody_told: row.alert_id.is_some() && row.others_told == 0,
            alert_id: row.alert_id,
            ticket: row.source.zip(row.ticket_id).map(|(source, id)| TicketRef {
                source,
                id,
                number: row.ticket_number,
                subject: row.subject,
                url: row.url,
            }),
            person: row.name,
            role: row.role,
            phone: row.phone.as_deref().map(phone::mask),
            state: row.state,
            reason,
            provider: row.provider,
            code: row.error_code,
            at: at(row.moved_at),
            explanation: Explanation::of(row.state, reason),
        }
    }
}
