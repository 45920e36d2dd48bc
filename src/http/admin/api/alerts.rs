//! `/v1/alerts`: alerts with their deliveries.

use super::{
    deliveries::Delivery,
    query::{Listed, PageSize, Phones, Query, ShowQuery},
};
use crate::{
    http::{
        deadline::now,
        error::Problem,
        state::{AppState, SharedState},
    },
    store::{AlertFilter, AlertView},
};
use axum::{
    Json,
    extract::{Path, State},
    http::Uri,
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
pub async fn list(State(app): SharedState, Query(query): Query<ListQuery>, uri: Uri) -> Result<Listed<Alert>, Problem> {
    let filter = AlertFilter {
        source: query.source,
        ticket_id: query.ticket_id,
    };
    let page = app
        .store
        .alerts(&filter, query.cursor.as_deref(), query.limit.0)
        .await?;
    let page = page.map(|view| Alert::of(view, query.reveal));
    Ok(Listed { page, uri })
}

/// `GET /v1/alerts/{id}`: with the timelines of its deliveries.
pub async fn show(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<Alert>, Problem> {
    Ok(Json(find(&app, &id, query.reveal).await?))
}

/// An alert after its deliveries were canceled.
#[derive(Serialize)]
pub struct CanceledAlert {
    /// How many of its deliveries were held back by this request.
    canceled: usize,
    #[serde(flatten)]
    alert: Alert,
}

/// `POST /v1/alerts/{id}/cancel`: holds back those of its deliveries whose send has not begun. The others go on, as they are
/// shown.
pub async fn cancel(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<CanceledAlert>, Problem> {
    let canceled = app.store.cancel_alert(&id, now()).await?.ok_or_else(not_found)?;
    tracing::info!(alert.id = %id, canceled, "an admin canceled an alert");
    let alert = find(&app, &id, query.reveal).await?;
    Ok(Json(CanceledAlert { canceled, alert }))
}

async fn find(app: &AppState, id: &str, phones: Phones) -> Result<Alert, Problem> {
    let alert = app.store.alert(id).await?.ok_or_else(not_found)?;
    Ok(Alert::of(alert, phones))
}

fn not_found() -> Problem {
    Problem::not_found("there is no alert with this id")
}
