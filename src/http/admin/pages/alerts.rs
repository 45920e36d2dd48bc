//! Alerts: the list with its search, and one alert with everything that happened.

use super::{
    actions::{self, Outcome, Revealed},
    asked::Asked,
    deliveries,
    failure::Failure,
    form::Fields,
    layout::{self, Notice, Page, Section},
    rendering::view,
    viewer::Viewer,
};
use crate::{
    domain::{acknowledge::Via, delivery::State as DeliveryState},
    http::{
        admin::api::{
            alerts::{self, ListQuery},
            query::Phones,
        },
        error::Problem,
        state::{AppState, SharedState},
    },
};
use axum::{
    Extension,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::Response,
};
use minijinja::{Value, context};
use serde_json::json;

/// The fields of the search.
const FIELDS: [&str; 8] = [
    "ticket_id",
    "subject",
    "source",
    "state",
    "acknowledged",
    "day",
    "days",
    "cursor",
];

/// `GET /admin/alerts`.
pub async fn list(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let asked = Asked::of(&uri, &FIELDS);
    let found = search(&app, &asked).await;
    let (page, notice) = layout::or_notice(found)?;
    let status = if notice.is_some() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let view = context! {
        asked => asked.values(),
        is_narrowed => asked.is_narrowed(),
        alerts => page.as_ref().map(|page| view(&page.items)),
        next => page.as_ref().and_then(|page| asked.next(page.next.as_deref())),
        first => asked.first(),
        year => asked.with("days", "365"),
        states => DeliveryState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>(),
    };
    let page = Page {
        template: "alerts.html",
        section: Section::Alerts,
        title: "Alerts".to_owned(),
        notice,
        view,
    };
    layout::page_with(&app, &viewer, status, page).await
}

async fn search(app: &AppState, asked: &Asked) -> Result<crate::store::Page<alerts::Alert>, Problem> {
    alerts::search(app, &asked.read::<ListQuery>()?).await
}

/// `GET /admin/alerts/{id}`.
pub async fn show(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Failure> {
    let shown = Shown {
        notice: Notice::of(&uri),
        ..Shown::default()
    };
    one(&app, &viewer, &id, shown).await
}

/// `POST /admin/alerts/{id}`: a button of the alert or of one of its deliveries.
pub async fn act(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Failure> {
    let path = format!("/admin/alerts/{id}");
    let delivery = fields.text("delivery");
    let outcome = match fields.text("action").as_str() {
        "acknowledge" => {
            let done = alerts::acknowledge_one(&app, &id, Via::Page, viewer.name.clone()).await;
            done.map(|first| {
                Outcome::Done(if first.is_some() {
                    "acknowledged"
                } else {
                    "acknowledged-before"
                })
            })
        }
        "cancel-all" => {
            let canceled = alerts::cancel_all(&app, &id).await;
            canceled.map(|count| Outcome::Done(if count > 0 { "all-canceled" } else { "none-canceled" }))
        }
        _ => actions::on_delivery(&app, &delivery, &fields).await,
    };
    let mut shown = Shown::default();
    match outcome {
        Ok(Outcome::Done(word)) => return Ok(layout::done(&path, word)),
        Ok(Outcome::Revealed(revealed)) => shown.revealed = Some(revealed),
        Ok(Outcome::AskForce) => return deliveries::ask_force(&app, &viewer, &path, &delivery).await,
        Err(problem) if problem.status() == StatusCode::CONFLICT => {
            shown.status = StatusCode::CONFLICT;
            shown.notice = Some(Notice::bad(layout::sentence(&problem)));
        }
        Err(problem) => return Err(problem.into()),
    }
    one(&app, &viewer, &id, shown).await
}

/// How the page of an alert is shown after an action.
#[derive(Default)]
struct Shown {
    status: StatusCode,
    notice: Option<Notice>,
    revealed: Option<Revealed>,
}

async fn one(app: &AppState, viewer: &Viewer, id: &str, shown: Shown) -> Result<Response, Failure> {
    let alert = alerts::find(app, id, Phones::Masked).await?;
    let mut alert = actions::to_value(&alert);
    if let Some(deliveries) = alert["deliveries"].as_array_mut() {
        for delivery in deliveries {
            actions::decorate(delivery, shown.revealed.as_ref());
        }
    }
    let all = alert["deliveries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let has_owed = all.iter().any(|delivery| delivery["can_cancel"] == true);
    let name = alert["ticket_number"]
        .as_str()
        .or(alert["ticket_id"].as_str())
        .unwrap_or_default();
    let messages = by_text(all);
    let view = context! {
        alert => view(&alert),
        facts => app.store.ticket_facts(id).await?.map(|found| view(&found)),
        messages,
        has_owed,
        path => format!("/admin/alerts/{id}"),
    };
    let page = Page {
        template: "alert.html",
        section: Section::Alerts,
        title: format!("Ticket #{name}"),
        notice: shown.notice,
        view,
    };
    layout::page_with(app, viewer, shown.status, page).await
}

/// The different texts among those of an alert's deliveries, each with the people that it is for.
fn by_text(deliveries: &[serde_json::Value]) -> Value {
    let mut texts: Vec<(&serde_json::Value, Vec<&str>)> = Vec::new();
    for delivery in deliveries {
        let person = delivery["recipient"]["name"].as_str().unwrap_or("somebody");
        let same = texts
            .iter_mut()
            .find(|(known, _)| known["message"] == delivery["message"]);
        match same {
            Some((_, people)) if people.contains(&person) => {}
            Some((_, people)) => people.push(person),
            None => texts.push((delivery, vec![person])),
        }
    }
    let shown = texts.into_iter().map(|(delivery, people)| {
        json!({"text": delivery["message"], "segments": delivery["segments"], "people": people.join(", ")})
    });
    view(&shown.collect::<Vec<_>>())
}
