//! `/v1/reports`: the reports that are kept, and the request for one now. Absent: making them, which is the worker's;
//! they meet in the ledger of job runs.

use super::query::{ListPage, PageSize, Query, parse_day};
use crate::{
    domain::{day::LocalDay, nightly::NightlyJob},
    http::{
        deadline::now,
        error::Problem,
        state::{AppState, SharedState},
    },
    store::{self, Asker, KeptReport},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which page of the list.
#[derive(Deserialize)]
pub struct ListQuery {
    cursor: Option<String>,
    #[serde(default)]
    limit: PageSize,
}

/// A nightly report, as it was made.
#[derive(Serialize)]
pub struct Report {
    /// The last day that it covers.
    day: String,
    first_day: String,
    subject: String,
    created_at: Timestamp,
    mail: ReportMail,
    /// In single views only.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// What became of a report's mail.
#[derive(Serialize)]
pub struct ReportMail {
    state: MailState,
    sent_at: Option<Timestamp>,
    tries: i64,
    last_error: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MailState {
    /// It is not to be mailed.
    Kept,
    Mailing,
    Sent,
}

/// How far the nightly jobs of a day are.
#[derive(Serialize)]
pub struct Run {
    day: String,
    state: RunState,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Not yet, or being done now.
    Open,
    /// The mail is made and waits for the mail server.
    Mailing,
    Done,
}

impl Report {
    /// Without its text.
    fn in_list(kept: KeptReport) -> Self {
        let state = match (kept.is_mail, kept.sent_at) {
            (false, _) => MailState::Kept,
            (true, None) => MailState::Mailing,
            (true, Some(_)) => MailState::Sent,
        };
        Self {
            day: kept.day,
            first_day: kept.first_day,
            subject: kept.subject,
            created_at: kept.created_at,
            mail: ReportMail {
                state,
                sent_at: kept.sent_at,
                tries: kept.tries,
                last_error: kept.last_error,
            },
            text: None,
        }
    }

    fn single(mut kept: KeptReport) -> Self {
        Self {
            text: Some(std::mem::take(&mut kept.text)),
            ..Self::in_list(kept)
        }
    }
}

/// `GET /v1/reports`: newest first, without their texts.
pub async fn list(State(app): SharedState, Query(query): Query<ListQuery>) -> Result<Json<ListPage<Report>>, Problem> {
    let page = app.store.reports(query.cursor.as_deref(), query.limit.0).await?;
    Ok(Json(ListPage::of(page, Report::in_list)))
}

/// `GET /v1/reports/{day}`: the report that covers a day, as it was made.
pub async fn show(State(app): SharedState, Path(day): Path<String>) -> Result<Json<Report>, Problem> {
    let day = read_day(&day)?;
    match app.store.report_of(day).await? {
        Some(kept) => Ok(Json(Report::single(kept))),
        None => Err(Problem::not_found(format!("there is no report of {day}"))),
    }
}

/// `POST /v1/reports/{day}`: runs the nightly jobs of a day that is over and has had none, and of those before it.
pub async fn make(State(app): SharedState, Path(day): Path<String>) -> Result<(StatusCode, Json<Run>), Problem> {
    let day = read_day(&day)?;
    let now = now();
    if day >= app.today() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            format!("{day} is not over yet in the configured time zone"),
        ));
    }
    let newest = app.nightly.newest_due(now, &app.time_zone).max(day);
    let report = ask(&app, NightlyJob::Report, day, newest, now).await?;
    ask(&app, NightlyJob::Cleanup, day, newest, now).await?;
    let (status, state) = match report {
        store::RunState::Open => (StatusCode::ACCEPTED, RunState::Open),
        store::RunState::Mailing => (StatusCode::OK, RunState::Mailing),
        store::RunState::Done => (StatusCode::OK, RunState::Done),
    };
    Ok((
        status,
        Json(Run {
            day: day.to_string(),
            state,
        }),
    ))
}

async fn ask(
    app: &AppState,
    job: NightlyJob,
    day: LocalDay,
    newest: LocalDay,
    now: Timestamp,
) -> Result<store::RunState, Problem> {
    let asker = Asker {
        owner: "",
        zone: &app.time_zone,
        now,
    };
    Ok(app.store.ask_for_run(job, day, newest, asker).await?)
}

fn read_day(text: &str) -> Result<LocalDay, Problem> {
    parse_day(text).map_err(|detail| Problem::field("/day", detail))
}
