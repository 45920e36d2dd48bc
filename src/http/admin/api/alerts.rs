//! `/v1/alerts`: alerts with their deliveries.

use super::{
    deliveries::Delivery,
    query::{PageSize, Phones, Query, ShowQuery},
};
use crate::{
    http::{error::Problem, state::SharedState},
    store::{AlertFilter, AlertView, Page},
};
use axum::{
    Json,
    extract::{Path, State},
};
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

/// An alert with its deliveries.
#[derive(Serialize)]
pub struct Alert {
    #[serde(flatten)]
    view: AlertView,
    urgency: &'static str,
    deliveries: Vec<Delivery>,
}

impl Alert {
    fn of(mut view: AlertView, phones: Phones) -> Self {
        let deliveries = std::mem::take(&mut view.deliveries).into_iter();
        Self {
            view,
            // An alert is the fact that a ticket turned critical.
            urgency: "critical",
            deliveries: deliveries.map(|delivery| Delivery::of(delivery, phones)).collect(),
        }
    }
}

/// `GET /v1/alerts`: newest first.
pub async fn list(State(app): SharedState, Query(query): Query<ListQuery>) -> Result<Json<Page<Alert>>, Problem> {
    let filter = AlertFilter {
        source: query.source,
        ticket_id: query.ticket_id,
    };
    let page = app
        .store
        .alerts(&filter, query.cursor.as_deref(), query.limit.0)
        .await?;
    Ok(Json(page.map(|view| Alert::of(view, query.reveal))))
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
    Ok(Json(Alert::of(alert, query.reveal)))
}
