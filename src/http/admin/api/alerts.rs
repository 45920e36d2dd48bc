//! `/v1/alerts`: alerts with their deliveries.

use super::{
    deliveries::Delivery,
    query::{ListPage, PageSize, Phones, Query},
};
use crate::{
    http::{error::Problem, state::SharedState},
    store::{AlertFilter, AlertView, DeliveryView},
};
use axum::{
    Json,
    extract::{Path, State},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which alerts, and how they are shown.
#[derive(Deserialize)]
pub struct ListQuery {
    source: Option<String>,
    ticket_id: Option<String>,
    cursor: Option<String>,
    #[serde(default)]
    limit: PageSize,
    #[serde(default)]
    reveal: Phones,
}

/// How one alert is shown.
#[derive(Deserialize)]
pub struct ShowQuery {
    #[serde(default)]
    reveal: Phones,
}

/// An alert with its deliveries.
#[derive(Serialize)]
pub struct Alert {
    id: String,
    source: String,
    ticket_id: String,
    ticket_number: Option<String>,
    subject: Option<String>,
    urgency: &'static str,
    url: Option<String>,
    occurred_at: Timestamp,
    received_at: Timestamp,
    closed_at: Option<Timestamp>,
    deliveries: Vec<Delivery>,
}

impl Alert {
    fn of(view: AlertView, show: impl Fn(DeliveryView) -> Delivery) -> Self {
        Self {
            id: view.id,
            source: view.source,
            ticket_id: view.ticket_id,
            ticket_number: view.ticket_number,
            subject: view.subject,
            // An alert is the fact that a ticket turned critical.
            urgency: "critical",
            url: view.url,
            occurred_at: view.occurred_at,
            received_at: view.received_at,
            closed_at: view.closed_at,
            deliveries: view.deliveries.into_iter().map(show).collect(),
        }
    }
}

/// `GET /v1/alerts`: newest first.
pub async fn list(State(app): SharedState, Query(query): Query<ListQuery>) -> Result<Json<ListPage<Alert>>, Problem> {
    let filter = AlertFilter {
        source: query.source,
        ticket_id: query.ticket_id,
    };
    let page = app
        .store
        .alerts(&filter, query.cursor.as_deref(), query.limit.0)
        .await?;
    Ok(Json(ListPage::of(page, |view| {
        Alert::of(view, |delivery| Delivery::in_list(delivery, query.reveal))
    })))
}

/// `GET /v1/alerts/{id}`: with the timelines of its deliveries.
pub async fn show(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<Alert>, Problem> {
    let alert = app
        .store
        .alert(&id)
        .await?
        .ok_or_else(|| Problem::not_found("there is no alert with this id"))?;
    Ok(Json(Alert::of(alert, |delivery| {
        Delivery::single(delivery, query.reveal)
    })))
}
