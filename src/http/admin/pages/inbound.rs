//! What people sent us: the list with its filters, and one message.

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
    domain::inbound::InboundKind,
    http::{
        admin::api::{
            inbound::{self, InboundMessage, ListQuery},
            query::Phones,
        },
        error::Problem,
        state::{AppState, SharedState},
    },
    store,
};
use axum::{
    Extension,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::Response,
};
use minijinja::context;

/// The fields of the filter.
const FIELDS: [&str; 4] = ["kind", "phone", "alert_id", "cursor"];

/// `GET /admin/inbound`.
pub async fn list(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let asked = Asked::of(&uri, &FIELDS);
    let (page, notice) = layout::or_notice(search(&app, &asked).await)?;
    let status = if notice.is_some() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let view = context! {
        asked => asked.values(),
        is_narrowed => asked.is_narrowed(),
        messages => page.as_ref().map(|page| view(&page.items)),
        next => page.as_ref().and_then(|page| asked.next(page.next.as_deref())),
        first => asked.first(),
        kinds => InboundKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(),
    };
    let page = Page {
        template: "inbound.html",
        section: Section::Inbound,
        title: "Inbound".to_owned(),
        notice,
        view,
    };
    layout::page_with(&app, &viewer, status, page).await
}

async fn search(app: &AppState, asked: &Asked) -> Result<store::Page<InboundMessage>, Problem> {
    inbound::search(app, &asked.read::<ListQuery>()?).await
}

/// `GET /admin/inbound/{id}`.
pub async fn show(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    one(&app, &viewer, &id, Phones::Masked).await
}

/// `POST /admin/inbound/{id}`: its only button shows the number.
pub async fn act(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Failure> {
    if fields.text("action") != "reveal" {
        return Err(actions::unknown().into());
    }
    tracing::info!(inbound.id = %id, "an admin was shown the number of somebody who texted us");
    one(&app, &viewer, &id, Phones::InFull).await
}

async fn one(app: &AppState, viewer: &Viewer, id: &str, phones: Phones) -> Result<Response, Failure> {
    let message = inbound::find(app, id, phones).await?;
    let page = Page {
        template: "inbound_message.html",
        section: Section::Inbound,
        title: "Message".to_owned(),
        notice: None::<Notice>,
        view: context! {
            message => view(&message),
            path => format!("/admin/inbound/{id}"),
            is_revealed => phones == Phones::InFull,
        },
    };
    layout::page(app, viewer, page).await
}
