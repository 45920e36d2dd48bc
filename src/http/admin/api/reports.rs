//! `/v1/reports`: the reports that are kept, and the request for one now. Absent: making them, which is the worker's;
//! they meet in the ledger of job runs.

use super::query::{Listed, PageQuery, Query, parse_day};
use crate::{
    domain::{day::LocalDay, nightly::NightlyJob, text::clean_line, words::words},
    http::{
        deadline::now,
        error::{Fields, ForAdmins, ForReports, Kind, Problem},
        state::{AppState, SharedState},
    },
    store::{Asker, KeptReport, Page, ReportParts, RunState},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{IntoParams, ToSchema};

words! {
    /// As what a report is answered.
    #[derive(ToSchema)]
    #[schema(as = ReportFormat)]
    Format { Json = "json", Html = "html", Csv = "csv", Text = "text" }
}

/// As what a report is wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FormatQuery {
    /// Wins over the `Accept` header.
    #[param(value_type = Format, inline, required = false)]
    #[serde(default, deserialize_with = "format")]
    format: Option<Format>,
}

/// How far the nightly jobs of a day are.
#[derive(Serialize, ToSchema)]
pub struct Run {
    #[schema(format = Date)]
    day: String,
    state: RunState,
}

/// Lists reports, newest first
///
/// Without their texts.
#[utoipa::path(
    get,
    path = "/v1/reports",
    operation_id = "listReports",
    tag = "reports",
    params(PageQuery),
    responses(
        (status = 200, body = Page<KeptReport>, description = "A page of reports", headers(
            ("Link" = String, description = "The next page, with `rel=\"next\"`; absent on the last one")
        )),
        ForAdmins,
        Fields,
    ),
    security(("admin" = []))
)]
pub async fn list(
    State(app): SharedState,
    Query(query): Query<PageQuery>,
    uri: Uri,
) -> Result<Listed<KeptReport>, Problem> {
    let page = app.store.reports(query.cursor.as_deref(), query.limit.0).await?;
    Ok(Listed { page, uri })
}

/// Shows the report that covers a day
///
/// As it was made and mailed: as JSON, or as the mail's HTML, plain text or CSV, by `?format=` or the `Accept` header.
#[utoipa::path(
    get,
    path = "/v1/reports/{day}",
    operation_id = "showReport",
    tag = "reports",
    params(("day" = String, Path, format = Date, description = "A local day", example = "2026-11-19"), FormatQuery),
    responses(
        (status = 200, description = "The report", content(
            (KeptReport = "application/json"),
            (String = "text/html"),
            (String = "text/csv"),
            (String = "text/plain"),
        )),
        ForAdmins,
        Fields,
    ),
    security(("admin" = []))
)]
pub async fn show(
    State(app): SharedState,
    Path(day): Path<String>,
    Query(query): Query<FormatQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let day = read_day(&day)?;
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = query.format.unwrap_or_else(|| preferred(accepted.unwrap_or_default()));
    let answer = match format {
        Format::Json => app
            .store
            .report_of(day)
            .await?
            .map(|report| Json(report).into_response()),
        Format::Html | Format::Csv | Format::Text => Some(part(&app, day, format).await?),
    };
    Ok(([(header::VARY, "accept")], answer.ok_or_else(|| absent(day))?).into_response())
}

/// One part of the mail of the report that covers a day.
pub async fn part(app: &AppState, day: LocalDay, format: Format) -> Result<Response, Problem> {
    let report = app.store.report_parts(day).await?.ok_or_else(|| absent(day))?;
    let no_file = || {
        Problem::not_found(format!(
            "the report of {day} has no file: nothing is to be listed in it"
        ))
    };
    answer_part(report, format).ok_or_else(no_file)
}

fn absent(day: LocalDay) -> Problem {
    Problem::not_found(format!("there is no report of {day}"))
}

/// What nothing in a report's HTML may do, whatever a ticket's subject says: run, load or send anything.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";

/// One part of a report's mail; `None` if it has no such part.
fn answer_part(report: ReportParts, format: Format) -> Option<Response> {
    let kind = |kind: &'static str| {
        [
            (header::CONTENT_TYPE, kind),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ]
    };
    let answer = match format {
        Format::Json => return None,
        Format::Text => (kind("text/plain; charset=utf-8"), report.text).into_response(),
        Format::Html => {
            let policy = [(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)];
            (kind("text/html; charset=utf-8"), policy, report.html).into_response()
        }
        Format::Csv => {
            let name = report.file_name.unwrap_or_else(|| format!("report-{}.csv", report.day));
            let disposition = format!("attachment; filename=\"{name}\"");
            let disposition = [(header::CONTENT_DISPOSITION, disposition)];
            (kind("text/csv; charset=utf-8"), disposition, report.file?).into_response()
        }
    };
    Some(answer)
}

/// The format that an `Accept` header likes best (RFC 9110, 12.5.1); JSON where it likes none of ours, which is better than
/// no answer.
fn preferred(accept: &str) -> Format {
    let mut best = (Format::Json, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Format::Json,
            "text/html" => Format::Html,
            "text/csv" => Format::Csv,
            "text/plain" | "text/*" => Format::Text,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
        let weight = weight.unwrap_or(1.0);
        if weight > best.1 {
            best = (format, weight);
        }
    }
    best.0
}

fn format<'de, D: Deserializer<'de>>(parameter: D) -> Result<Option<Format>, D::Error> {
    let word = String::deserialize(parameter)?;
    let unknown = || {
        let words: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
        let (word, words) = (clean_line(&word, 40), words.join(", "));
        de::Error::custom(format_args!("`{word}` is not a format: it is one of {words}"))
    };
    Format::parse(&word).map(Some).ok_or_else(unknown)
}

/// Makes the report of a day
///
/// Runs the nightly jobs of a day that is over and has had none, and of those before it.
#[utoipa::path(
    post,
    path = "/v1/reports/{day}",
    operation_id = "makeReport",
    tag = "reports",
    params(("day" = String, Path, format = Date, description = "A local day that is over", example = "2026-11-19")),
    responses(
        (status = 200, body = Run, description = "It is made already"),
        (status = 202, body = Run, description = "It will be made"),
        ForAdmins,
        ForReports,
        Fields,
    ),
    security(("admin" = []))
)]
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
            Kind::DayNotOver,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_answered_as_the_caller_likes_it_best() {
        for (accept, format) in [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("image/png", Format::Json),
            ("text/csv", Format::Csv),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Format::Html,
            ),
            ("text/html;q=0.4, TEXT/PLAIN; q=0.5", Format::Text),
            ("text/html;q=0, application/json", Format::Json),
        ] {
            assert_eq!(preferred(accept), format, "{accept}");
        }
    }
}
