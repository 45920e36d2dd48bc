//! Reports over the API: the ones that are kept, and the wish for one now. Absent: making them, which is the worker's;
//! they meet in the ledger.

use super::{Office, SharedOffice, admin_api, error::Problem, now};
use crate::{
    domain::{day::LocalDay, nightly::NightlyJob},
    store::{Asker, KeptReport, RunState},
};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::IntoResponse,
};
use serde_json::{Value, json};

/// `GET /v1/reports`: the reports that are kept, newest first, without their texts.
pub async fn list(
    State(office): SharedOffice,
    Query(parameters): admin_api::Parameters,
) -> Result<Json<Value>, Problem> {
    let before = admin_api::given(&parameters, "cursor").map(String::as_str);
    let page = office.store.reports(before, admin_api::page_size(&parameters)?).await?;
    Ok(admin_api::show_page(page, |report| report_json(report, false)))
}

/// `GET /v1/reports/{day}`: the report that covers a day, as it was made.
pub async fn show(State(office): SharedOffice, Path(day): Path<String>) -> Result<Json<Value>, Problem> {
    let day = read_day(&day)?;
    match office.store.report_of(day).await? {
        Some(report) => Ok(Json(report_json(&report, true))),
        None => Err(Problem::not_found(format!("there is no report of {day}"))),
    }
}

/// `POST /v1/reports/{day}`: runs the nightly jobs of a day that is over and has had none, and of those before it.
pub async fn make(State(office): SharedOffice, Path(day): Path<String>) -> Result<impl IntoResponse, Problem> {
    let day = read_day(&day)?;
    let now = now();
    if day >= office.today() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            format!("{day} is not over yet in the configured time zone"),
        ));
    }
    let newest = office.nightly.newest_due(now, &office.time_zone).max(day);
    let state = ask(&office, NightlyJob::Report, day, newest, now).await?;
    ask(&office, NightlyJob::Cleanup, day, newest, now).await?;
    let status = match state {
        RunState::Open => StatusCode::ACCEPTED,
        RunState::Mailing | RunState::Done => StatusCode::OK,
    };
    Ok((
        status,
        Json(json!({"day": day.to_string(), "state": state_word(state)})),
    ))
}

async fn ask(
    office: &Office,
    job: NightlyJob,
    day: LocalDay,
    newest: LocalDay,
    now: jiff::Timestamp,
) -> Result<RunState, Problem> {
    let asker = Asker {
        owner: "",
        zone: &office.time_zone,
        now,
    };
    Ok(office.store.ask_for_run(job, day, newest, asker).await?)
}

fn read_day(text: &str) -> Result<LocalDay, Problem> {
    LocalDay::parse(text).ok_or_else(|| Problem::field("/day", "is no day: write it like `2026-11-20`"))
}

fn state_word(state: RunState) -> &'static str {
    match state {
        RunState::Open => "open",
        RunState::Mailing => "mailing",
        RunState::Done => "done",
    }
}

fn report_json(report: &KeptReport, with_text: bool) -> Value {
    let state = match (report.is_mail, report.sent_at) {
        (false, _) => "kept",
        (true, None) => "mailing",
        (true, Some(_)) => "sent",
    };
    let mut value = json!({
        "day": report.day,
        "first_day": report.first_day,
        "subject": report.subject,
        "created_at": report.created_at.to_string(),
        "mail": {
            "state": state,
            "sent_at": report.sent_at.map(|at| at.to_string()),
            "tries": report.tries,
            "last_error": report.last_error,
        },
    });
    if with_text {
        value["text"] = report.text.as_str().into();
    }
    value
}
