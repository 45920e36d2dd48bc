//! Deliveries: the message log with its filters, and one delivery with its timeline.

use super::{
    actions::{self, Outcome, Revealed},
    asked::Asked,
    failure::Failure,
    form::Fields,
    layout::{self, Notice, Page, Section},
    rendering::view,
    viewer::Viewer,
};
use crate::{
    domain::delivery::State as DeliveryState,
    http::{
        admin::api::{
            deliveries::{self, Delivery, ListQuery},
            query::Phones,
        },
        error::Problem,
        state::{AppState, SharedState},
    },
    store::{self, StoreError, Ticket},
};
use axum::{
    Extension,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::Response,
};
use minijinja::context;
use serde_json::json;
use std::collections::HashMap;

/// The fields of the filter.
const FIELDS: [&str; 5] = ["state", "ticket_id", "phone", "day", "cursor"];

/// `GET /admin/deliveries`.
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
    let items = match &page {
        None => None,
        Some(page) => Some(with_tickets(&app, &page.items).await?),
    };
    let view = context! {
        asked => asked.values(),
        is_narrowed => asked.is_narrowed(),
        deliveries => items.map(|found| view(&found)),
        next => page.as_ref().and_then(|page| asked.next(page.next.as_deref())),
        first => asked.first(),
        states => DeliveryState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>(),
    };
    let page = Page {
        template: "deliveries.html",
        section: Section::Deliveries,
        title: "Deliveries".to_owned(),
        notice,
        view,
    };
    layout::page_with(&app, &viewer, status, page).await
}

async fn search(app: &AppState, asked: &Asked) -> Result<store::Page<Delivery>, Problem> {
    deliveries::search(app, &asked.read::<ListQuery>()?).await
}

/// Deliveries as a list shows them, each with its ticket if it has one.
pub async fn with_tickets(app: &AppState, deliveries: &[Delivery]) -> Result<Vec<serde_json::Value>, StoreError> {
    let mut shown: Vec<serde_json::Value> = deliveries.iter().map(|found| actions::shown(found, None)).collect();
    let ids = shown.iter().filter_map(|delivery| delivery["alert_id"].as_str());
    let tickets = app.store.tickets_of(ids).await?;
    let tickets: HashMap<&str, &Ticket> = tickets
        .iter()
        .map(|ticket| (ticket.alert_id.as_str(), ticket))
        .collect();
    for delivery in &mut shown {
        let ticket = delivery["alert_id"].as_str().and_then(|id| tickets.get(id));
        delivery["ticket"] = json!(ticket);
    }
    Ok(shown)
}

/// `GET /admin/deliveries/{id}`.
pub async fn show(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Failure> {
    one(&app, &viewer, &id, StatusCode::OK, Notice::of(&uri), None).await
}

/// `POST /admin/deliveries/{id}`: one of its buttons.
pub async fn act(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Failure> {
    let path = format!("/admin/deliveries/{id}");
    match actions::on_delivery(&app, &id, &fields).await {
        Ok(Outcome::Done(word)) => Ok(layout::done(&path, word)),
        Ok(Outcome::Revealed(revealed)) => one(&app, &viewer, &id, StatusCode::OK, None, Some(revealed)).await,
        Ok(Outcome::AskForce) => ask_force(&app, &viewer, &path, &id).await,
        Err(problem) if problem.status() == StatusCode::CONFLICT => {
            let notice = Notice::bad(layout::sentence(&problem));
            one(&app, &viewer, &id, StatusCode::CONFLICT, Some(notice), None).await
        }
        Err(problem) => Err(problem.into()),
    }
}

async fn one(
    app: &AppState,
    viewer: &Viewer,
    id: &str,
    status: StatusCode,
    notice: Option<Notice>,
    revealed: Option<Revealed>,
) -> Result<Response, Failure> {
    let delivery = found(app, id, revealed.as_ref()).await?;
    let view = context! {
        path => format!("/admin/deliveries/{id}"),
        delivery => view(&delivery),
    };
    let page = Page {
        template: "delivery.html",
        section: Section::Deliveries,
        title: "Delivery".to_owned(),
        notice,
        view,
    };
    layout::page_with(app, viewer, status, page).await
}

/// One delivery with its ticket.
async fn found(app: &AppState, id: &str, revealed: Option<&Revealed>) -> Result<serde_json::Value, Failure> {
    let found = deliveries::find(app, id, Phones::Masked).await?;
    let mut shown = with_tickets(app, &[found]).await?.pop().unwrap_or_default();
    actions::decorate(&mut shown, revealed);
    Ok(shown)
}

/// Asks whether to send again what may still arrive.
pub async fn ask_force(app: &AppState, viewer: &Viewer, path: &str, id: &str) -> Result<Response, Failure> {
    let delivery = found(app, id, None).await?;
    let page = Page {
        template: "force.html",
        section: Section::None,
        title: "Send it again?".to_owned(),
        notice: None,
        view: context! { delivery => view(&delivery), path },
    };
    layout::page_with(app, viewer, StatusCode::CONFLICT, page).await
}
