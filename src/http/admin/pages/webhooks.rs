//! Endpoints that hear of lifecycle events: how they are, one of them with its newest tries, and what an admin does with it.

use super::{
    actions,
    failure::Failure,
    form::Fields,
    layout::{self, Notice, Page, Section},
    rendering::view,
    viewer::Viewer,
};
use crate::http::{
    admin::api::webhooks,
    error::Problem,
    state::{AppState, SharedState},
};
use axum::{
    Extension,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::Response,
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use minijinja::context;

const PATH: &str = "/admin/webhooks";

/// `GET /admin/webhooks`.
pub async fn list(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let page = Page {
        template: "webhooks.html",
        section: Section::Webhooks,
        title: "Webhooks".to_owned(),
        notice: Notice::of(&uri),
        view: context! { webhooks => view(&webhooks::all(&app).await?) },
    };
    layout::page(&app, &viewer, page).await
}

/// `GET /admin/webhooks/{name}`.
pub async fn show(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Failure> {
    show_one(&app, &viewer, &name, (StatusCode::OK, Notice::of(&uri))).await
}

async fn show_one(
    app: &AppState,
    viewer: &Viewer,
    name: &str,
    (status, notice): (StatusCode, Option<Notice>),
) -> Result<Response, Failure> {
    let webhook = webhooks::find(app, name).await?;
    let page = Page {
        template: "webhook.html",
        section: Section::Webhooks,
        title: name.to_owned(),
        notice,
        view: context! { webhook => view(&webhook) },
    };
    layout::page_with(app, viewer, status, page).await
}

/// `POST /admin/webhooks/{name}`.
pub async fn act(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Path(name): Path<String>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Failure> {
    // Only a name that is there becomes part of an address.
    webhooks::find(&app, &name).await?;
    let path = format!("{PATH}/{name}");
    let word = match fields.text("action").as_str() {
        "test" => {
            let notice = try_one(&app, &name).await?;
            return show_one(&app, &viewer, &name, (StatusCode::OK, Some(notice))).await;
        }
        "enable" => {
            webhooks::switch(&app, &name, true).await?;
            "webhook-enabled"
        }
        "disable" => {
            webhooks::switch(&app, &name, false).await?;
            "webhook-disabled"
        }
        "replay" => {
            let Some(from) = read_time(&fields.text("from"), &app.time_zone) else {
                let notice = Notice::bad("Nothing was done: this is no time. Write it like `2026-11-22T00:00`.");
                let shown = (StatusCode::UNPROCESSABLE_ENTITY, Some(notice));
                return show_one(&app, &viewer, &name, shown).await;
            };
            webhooks::replay_from(&app, &name, from).await?;
            "webhook-replayed"
        }
        _ => return Err(actions::unknown().into()),
    };
    Ok(layout::done(&path, word))
}

async fn try_one(app: &AppState, name: &str) -> Result<Notice, Problem> {
    let tried = webhooks::try_one(app, name).await?;
    Ok(match tried.error {
        None => Notice::good(match tried.status {
            Some(status) => format!("It took a test event and answered {status}."),
            None => "It took a test event.".to_owned(),
        }),
        Some(error) => Notice::bad(format!("It did not take a test event: {error}.")),
    })
}

/// A time as a browser sends it, in our zone; or one by RFC 3339.
fn read_time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    let local: DateTime = text.parse().ok()?;
    Some(local.to_zoned(zone.clone()).ok()?.timestamp())
}
