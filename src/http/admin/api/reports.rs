//! `/v1/reports`: the reports that are kept, and the request for one now. Absent: making them, which is the worker's;
//! they meet in the ledger of job runs.

use super::query::{Listed, PageQuery, Query, parse_day};
use crate::{
    domain::{day::LocalDay, nightly::NightlyJob},
    http::{
        deadline::now,
        error::Problem,
        state::{AppState, SharedState},
    },
    store::{Asker, KeptReport, RunState},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, Uri},
};
use serde::Serialize;

/// How far the nightly jobs of a day are.
#[derive(Serialize)]
pub struct Run {
    day: String,
    state: RunState,
}

/// `GET /v1/reports`: newest first, without their texts.
pub async fn list(
    State(app): SharedState,
    Query(query): Query<PageQuery>,
    uri: Uri,
) -> Result<Listed<KeptReport>, Problem> {
    let page = app.store.reports(query.cursor.as_deref(), query.limit.0).await?;
    Ok(Listed { page, uri })
}

/// `GET /v1/reports/{day}`: the report that covers a day, as it was made.
pub async fn show(State(app): SharedState, Path(day): Path<String>) -> Result<Json<KeptReport>, Problem> {
    find(&app, read_day(&day)?).await.map(Json)
}

/// The report that covers a day.
pub async fn find(app: &AppState, day: LocalDay) -> Result<KeptReport, Problem> {
    let report = app.store.report_of(day).await?;
    report.ok_or_else(|| Problem::not_found(format!("there is no report of {day}")))
}

/// `POST /v1/reports/{day}`: runs the nightly jobs of a day that is over and has had none, and of those before it.
pub async fn make(State(app): SharedState, Path(day): Path<String>) -> Result<(StatusCode, Json<Run>), Problem> {
    let day = read_day(&day)?;
    let state = ask_for(&app, day).await?;
    let status = match state {
        RunState::Open => StatusCode::ACCEPTED,
        RunState::Mailing | RunState::Done => StatusCode::OK,
    };
    let day = day.to_string();
    Ok((status, Json(Run { day, state })))
}

/// Lets the nightly jobs of a day run, if they have not.
pub async fn ask_for(app: &AppState, day: LocalDay) -> Result<RunState, Problem> {
    let now = now();
    if day >= app.today() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            format!("{day} is not over yet in the configured time zone"),
        ));
    }
    let newest = app.nightly.newest_due(now, &app.time_zone).max(day);
    let asker = Asker {
        owner: "",
        zone: &app.time_zone,
        now,
    };
    let state = app.store.ask_for_run(NightlyJob::Report, day, newest, asker).await?;
    app.store.ask_for_run(NightlyJob::Cleanup, day, newest, asker).await?;
    Ok(state)
}

/// Reads the day of a path.
pub fn read_day(text: &str) -> Result<LocalDay, Problem> {
    parse_day(text).map_err(|detail| Problem::field("/day", detail))
}
