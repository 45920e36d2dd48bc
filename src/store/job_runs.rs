//! The ledger of the nightly jobs: a row for each job and local day. It elects one process, survives restarts, and knows
//! which nights were missed. Absent: when a run is due (the caller says) and what it does.

use super::{
    Db,
    db::NOTE_TIME,
    error::StoreError,
    ledger,
    query::Query,
    sql::{args, sql},
    tx::Tx,
    types::ms,
};
use crate::domain::{
    day::{LocalDay, after},
    nightly::{NightlyJob, Span, missed},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::Serialize;
use std::time::Instant;

/// Marks a row that only says where the ledger begins.
const BASELINE: &str = "baseline";
/// How long a run belongs to a process that does not come back; every step of the work renews it.
const LEASE: SignedDuration = SignedDuration::from_secs(30);

/// The right to do one run, until its lease ends.
#[derive(Debug)]
pub struct Run {
    pub job: NightlyJob,
    pub days: Span,
    token: String,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Not yet, or being done now.
    Open,
    /// The mail is made and waits for the mail server.
    Mailing,
    Done,
}

/// Who asks for runs, and what time it is.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Marks the leases of this process.
    pub owner: &'a str,
    pub zone: &'a TimeZone,
    pub now: Timestamp,
}

impl Db {
    /// Takes the oldest run of `job` that is due: one that was left unfinished, or a day up to `newest` that has had none.
    /// `None` if there is nothing to do or another process is at it. The first call ever only notes where to begin.
    /// Outcomes from before `due`, when the newest run was due, are then none of any report's.
    pub async fn take_run(
        &self,
        job: NightlyJob,
        newest: LocalDay,
        due: Timestamp,
        asker: Asker<'_>,
    ) -> Result<Option<Run>, StoreError> {
        let (last, open): (Option<String>, i64) = self
            .reads()
            .one(
                sql!(
                    "select (select max(day) from job_run where job = $1 and day <= $2),
                    (select count(*) from job_run where job = $1 and finished_at is null and composed_at is null
                        and (lease_until is null or lease_until <= $3))"
                ),
                args![job.as_str(), newest.to_string(), ms(asker.now)],
            )
            .await?;
        if open == 0 && last.as_deref() == Some(newest.to_string().as_str()) {
            return Ok(None);
        }
        let mut tx = self.begin().await?;
        if !write_missed(&mut tx, job, newest, asker).await? {
            write_baseline(&mut tx, job, newest, asker.now).await?;
            if job == NightlyJob::Report {
                ledger::forget_old_outcomes(&mut tx, newest, due).await?;
            }
        }
        let run = take_oldest(&mut tx, job, asker).await?;
        tx.commit().await?;
        Ok(run)
    }

    /// Puts one day's run of `job` into the ledger because a person wants it now, and every missed one before it. Returns
    /// whether there is now something to do; a day that had its run does not get another.
    pub async fn ask_for_run(
        &self,
        job: NightlyJob,
        day: LocalDay,
        newest: LocalDay,
        asker: Asker<'_>,
    ) -> Result<RunState, StoreError> {
        let mut tx = self.begin().await?;
        if !write_missed(&mut tx, job, newest, asker).await? && day != newest {
            write_baseline(&mut tx, job, newest, asker.now).await?;
        }
        tx.execute(
            sql!("update job_run set owner = null, finished_at = null where job = $1 and day = $2 and owner = $3"),
            args![job.as_str(), day.to_string(), BASELINE],
        )
        .await?;
        let covered: Option<(Option<i64>, Option<i64>)> = tx
            .optional(
                sql!(
                    "select composed_at, finished_at from job_run where job = $1 and first_day <= $2 and day >= $2
             and first_day <> '' order by day limit 1"
                ),
                args![job.as_str(), day.to_string()],
            )
            .await?;
        if covered.is_none() {
            write_run(&mut tx, job, Span { first: day, last: day }, None).await?;
        }
        tx.commit().await?;
        Ok(match covered {
            Some((_, Some(_))) => RunState::Done,
            Some((Some(_), None)) => RunState::Mailing,
            Some((None, None)) | None => RunState::Open,
        })
    }

    /// Ends a run whose work is done.
    pub async fn finish_run(&self, run: Run, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        composed(&mut tx, &run, false, now).await?;
        tx.commit().await
    }

    /// Begins a step of a run's work, and renews its lease by it. `None` if the run is no longer ours; else also since when
    /// nobody else can write.
    pub(super) async fn begin_step(&self, run: &Run, now: Timestamp) -> Result<Option<(Tx, Instant)>, StoreError> {
        let mut tx = self.begin().await?;
        let begun = Instant::now();
        let kept = tx.execute(
            sql!(
                "update job_run set lease_until = $4
             where job = $1 and day = $2 and owner = $3 and finished_at is null and composed_at is null"
            ),
            args![
                run.job.as_str(),
                run.days.last.to_string(),
                &run.token,
                ms(after(now, LEASE))
            ],
        );
        Ok((kept.await? > 0).then_some((tx, begun)))
    }

    /// Gives back the runs of `owner` at its end. On SQLite, an empty owner gives back those of processes that are gone.
    pub async fn give_back_runs(&self, owner: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.execute(
            sql!(
                "update job_run set lease_until = null
             where lease_until is not null and finished_at is null and substr(owner, 1, length($1)) = $1"
            ),
            args![owner],
        )
        .await?;
        tx.execute(
            sql!(
                "update mail set lease_token = null, lease_until = null
             where lease_until is not null and substr(lease_token, 1, length($1)) = $1"
            ),
            args![owner],
        )
        .await?;
        tx.commit().await
    }
}

/// The work of a run is done; it ends now, or with its mail.
pub async fn composed(tx: &mut Tx, run: &Run, waits_for_mail: bool, now: Timestamp) -> Result<(), StoreError> {
    tx.execute(
        sql!(
            "update job_run set lease_until = null, composed_at = $4, finished_at = $5
         where job = $1 and day = $2 and owner = $3"
        ),
        args![
            run.job.as_str(),
            run.days.last.to_string(),
            &run.token,
            ms(now),
            (!waits_for_mail).then_some(ms(now))
        ],
    )
    .await
    .map(drop)
}

/// Writes a row for every missed day up to `newest`. Returns whether the ledger had begun. A row of the future, written
/// by a clock that was wrong, does not count. Begins with a write, so that processes read the ledger one after the other.
async fn write_missed(tx: &mut Tx, job: NightlyJob, newest: LocalDay, asker: Asker<'_>) -> Result<bool, StoreError> {
    tx.execute(NOTE_TIME, args!["nightly_turn", ms(asker.now)]).await?;
    let last: Option<String> = tx
        .scalar(
            sql!("select max(day) from job_run where job = $1 and day <= $2"),
            args![job.as_str(), newest.to_string()],
        )
        .await?;
    let Some(last) = last.as_deref().and_then(LocalDay::parse) else {
        return Ok(false);
    };
    for days in missed(last, newest, asker.zone) {
        write_run(tx, job, days, None).await?;
    }
    Ok(true)
}

/// Writes the row that says where the ledger begins.
async fn write_baseline(tx: &mut Tx, job: NightlyJob, day: LocalDay, now: Timestamp) -> Result<(), StoreError> {
    write_run(tx, job, Span { first: day, last: day }, Some((BASELINE, now))).await
}

async fn write_run(
    tx: &mut Tx,
    job: NightlyJob,
    days: Span,
    finished: Option<(&str, Timestamp)>,
) -> Result<(), StoreError> {
    tx.execute(
        sql!(
            "insert into job_run (job, day, first_day, owner, finished_at) values ($1, $2, $3, $4, $5)
         on conflict (job, day) do nothing"
        ),
        args![
            job.as_str(),
            days.last.to_string(),
            days.first.to_string(),
            finished.map(|(owner, _)| owner),
            finished.map(|(_, at)| ms(at))
        ],
    )
    .await
    .map(drop)
}

/// Takes the oldest run that is not done, unless somebody is at it: then the later ones wait for it.
async fn take_oldest(tx: &mut Tx, job: NightlyJob, asker: Asker<'_>) -> Result<Option<Run>, StoreError> {
    let oldest: Option<(String, String, Option<i64>)> = tx
        .optional(
            sql!(
                "select day, first_day, lease_until from job_run
         where job = $1 and finished_at is null and composed_at is null order by day limit 1"
            ),
            args![job.as_str()],
        )
        .await?;
    let Some((day, first, lease_until)) = oldest else {
        return Ok(None);
    };
    if lease_until.is_some_and(|until| until > ms(asker.now)) {
        return Ok(None);
    }
    let read_day = |text: &str| {
        LocalDay::parse(text).ok_or_else(|| StoreError::Unreadable {
            what: "the day of a nightly run".into(),
            value: text.to_owned(),
        })
    };
    let days = Span {
        first: read_day(if first.is_empty() { &day } else { &first })?,
        last: read_day(&day)?,
    };
    let token = format!("{}/{}", asker.owner, uuid::Uuid::now_v7().simple());
    tx.execute(
        sql!("update job_run set owner = $3, lease_until = $4 where job = $1 and day = $2"),
        args![job.as_str(), &day, &token, ms(after(asker.now, LEASE))],
    )
    .await?;
    Ok(Some(Run { job, days, token }))
}
