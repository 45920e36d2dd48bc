//! Settings: what can be changed while the service runs, which is the daily limit and test mode; and those of the
//! configuration, to read.

use super::{
    actions,
    failure::Failure,
    form::Fields,
    layout::{self, Notice, Page, Section},
    rendering::view,
    viewer::Viewer,
};
use crate::{
    domain::route::ProviderName,
    http::{
        admin::api::{
            limit::{self, MAX_LIMIT},
            test_mode,
        },
        error::Problem,
        state::{AppState, SharedState},
    },
};
use axum::{
    Extension,
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use minijinja::context;

const PATH: &str = "/admin/settings";
/// Settings that hold the numbers of persons.
const PERSONAL: &str = "fallback_recipients";

/// `GET /admin/settings`.
pub async fn show(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    page(&app, &viewer, StatusCode::OK, Notice::of(&uri), "").await
}

async fn page(
    app: &AppState,
    viewer: &Viewer,
    status: StatusCode,
    notice: Option<Notice>,
    typed: &str,
) -> Result<Response, Failure> {
    let limit = limit::status(app, app.today()).await?;
    let is_test_mode = app.store.test_mode().await?;
    let settings = app.pages.effective.iter().map(|(key, value)| {
        let is_personal = key.contains(PERSONAL) && value.is_some();
        let shown = if is_personal {
            Some("set (numbers are not shown here)")
        } else {
            value.as_deref()
        };
        context! { key => key, value => shown }
    });
    let view = context! {
        configured_limit => app.daily_limit,
        is_own_limit => limit.status.limit != app.daily_limit,
        limit => view(&limit),
        typed,
        max_limit => MAX_LIMIT,
        is_test_mode,
        is_log_driver => app.route.provider == ProviderName::Log,
        driver => app.route.provider.as_str(),
        engine => app.store.engine(),
        has_mail => app.has_mail,
        settings => settings.collect::<Vec<_>>(),
    };
    let page = Page {
        template: "settings.html",
        section: Section::Settings,
        title: "Settings".to_owned(),
        notice,
        view,
    };
    layout::page_with(app, viewer, status, page).await
}

/// `POST /admin/settings`.
pub async fn act(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Failure> {
    let typed = fields.text("limit");
    let changed = match fields.text("action").as_str() {
        "limit" => set_limit(&app, &typed).await.map(|()| "limit"),
        "limit-configured" => limit::change(&app, None).await.map(|_| "limit-configured"),
        "test-on" => test_mode::switch(&app, true).await.map(|()| "test-on"),
        "test-off" => test_mode::switch(&app, false).await.map(|()| "test-off"),
        _ => Err(actions::unknown()),
    };
    match changed {
        Ok(word) => Ok(layout::done(PATH, word)),
        Err(problem) if problem.status().is_client_error() => {
            let notice = Notice::bad(layout::sentence(&problem));
            page(&app, &viewer, problem.status(), Some(notice), &typed).await
        }
        Err(problem) => Err(problem.into()),
    }
}

async fn set_limit(app: &AppState, typed: &str) -> Result<(), Problem> {
    let limit = typed
        .parse::<i64>()
        .ok()
        .filter(|limit| (0..=MAX_LIMIT).contains(limit));
    let fault = || {
        Problem::field(
            "/limit",
            format!("The limit must be a whole number from 0 to {MAX_LIMIT}."),
        )
    };
    limit::change(app, Some(limit.ok_or_else(fault)?)).await.map(drop)
}
