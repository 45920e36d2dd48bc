//! Reports: those that are kept, one of them as it was made, and the request for one now.

use super::{
    actions,
    asked::Asked,
    failure::Failure,
    form::Fields,
    layout::{self, Notice, Page, Section},
    rendering::view,
    viewer::Viewer,
};
use crate::{
    http::{
        admin::api::{
            query::PageQuery,
            reports::{self, Format},
        },
        error::Problem,
        state::{AppState, SharedState},
    },
    store::{self, KeptReport, RunState},
};
use axum::{
    Extension,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::Response,
};
use minijinja::context;

/// `GET /admin/reports`.
pub async fn list(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let asked = Asked::of(&uri, &["cursor"]);
    show_list(&app, &viewer, &asked, StatusCode::OK, Notice::of(&uri)).await
}

async fn show_list(
    app: &AppState,
    viewer: &Viewer,
    asked: &Asked,
    status: StatusCode,
    notice: Option<Notice>,
) -> Result<Response, Failure> {
    let page = search(app, asked).await?;
    let view = context! {
        reports => view(&page.items),
        next => asked.next(page.next.as_deref()),
        first => asked.first(),
        yesterday => app.today().previous(&app.time_zone).to_string(),
        has_mail => app.has_mail,
    };
    let page = Page {
        template: "reports.html",
        section: Section::Reports,
        title: "Reports".to_owned(),
        notice,
        view,
    };
    layout::page_with(app, viewer, status, page).await
}

async fn search(app: &AppState, asked: &Asked) -> Result<store::Page<KeptReport>, Problem> {
    let query: PageQuery = asked.read()?;
    Ok(app.store.reports(query.cursor.as_deref(), query.limit.0).await?)
}

/// `GET /admin/reports/{day}`.
pub async fn show(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Path(day): Path<String>,
) -> Result<Response, Failure> {
    let day = reports::read_day(&day)?;
    let absent = || Problem::not_found(format!("There is no report of {day}."));
    let report = app.store.report_of(day).await?.ok_or_else(absent)?;
    let parts = app.store.report_parts(day).await?;
    let page = Page {
        template: "report.html",
        section: Section::Reports,
        title: report.subject.clone(),
        notice: None,
        view: context! { report => view(&report), has_table => parts.is_some_and(|parts| parts.file.is_some()) },
    };
    layout::page(&app, &viewer, page).await
}

/// `GET /admin/reports/{day}/csv`: its table, as it was attached to the mail.
pub async fn csv(State(app): SharedState, Path(day): Path<String>) -> Result<Response, Failure> {
    let day = reports::read_day(&day)?;
    Ok(reports::part(&app, day, Format::Csv).await?)
}

/// `POST /admin/reports`: has the report of a day made.
pub async fn act(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Failure> {
    let asked = Asked::of(&Uri::from_static("/admin/reports"), &[]);
    let made = match fields.text("action").as_str() {
        "make" => make(&app, &fields.text("day")).await,
        _ => Err(actions::unknown()),
    };
    match made {
        Ok(answer) => Ok(answer),
        Err(problem) if problem.status().is_client_error() => {
            let notice = Notice::bad(layout::sentence(&problem));
            show_list(&app, &viewer, &asked, problem.status(), Some(notice)).await
        }
        Err(problem) => Err(problem.into()),
    }
}

async fn make(app: &AppState, day: &str) -> Result<Response, Problem> {
    let day = reports::read_day(day)?;
    Ok(match reports::ask_for(app, day).await? {
        RunState::Open => layout::done("/admin/reports", "report-asked"),
        RunState::Mailing | RunState::Done => layout::done(&format!("/admin/reports/{day}"), "report"),
    })
}
