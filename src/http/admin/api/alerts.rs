//! `/v1/alerts`: alerts with their deliveries.

use super::{
    deliveries::Delivery,
    inbound::{self, InboundMessage},
    query::{self, Listed, PageSize, Phones, Query, ShowQuery},
};
use crate::{
    domain::{
        acknowledge::Via,
        day::{LocalDay, after},
        delivery,
        json::Reader,
        text::clean_line,
    },
    http::{
        body,
        deadline::now,
        error::{Fields, ForAcknowledge, ForAdmins, JsonBody, Kind, Problem},
        state::{AppState, SharedState},
    },
    store::{Acknowledged, Acknowledger, AlertFilter, AlertState, AlertView, Page},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Uri},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use utoipa::{
    IntoParams, ToSchema,
    openapi::schema::{Object, ObjectBuilder, Type},
};

/// Longer names of whoever acknowledges are cut.
const MAX_BY: usize = 200;

/// Which alerts, and how they are shown.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The source's short name.
    #[param(nullable = false)]
    source: Option<String>,
    /// The helpdesk's own id of the ticket.
    #[param(nullable = false)]
    ticket_id: Option<String>,
    /// A part of the subject, searched for over the last days.
    #[param(nullable = false)]
    subject: Option<String>,
    /// `open`, `closed`, or the state of one of its deliveries.
    #[param(schema_with = states, required = false)]
    #[serde(default, deserialize_with = "state")]
    state: Option<AlertState>,
    /// Whether somebody has acknowledged it. With `state=open`, `false` finds what still needs somebody.
    #[param(nullable = false)]
    #[serde(default, deserialize_with = "is_acknowledged")]
    acknowledged: Option<bool>,
    /// The local day on which its event came.
    #[param(value_type = String, format = Date, required = false)]
    #[serde(default, deserialize_with = "query::day")]
    day: Option<LocalDay>,
    /// How many days back a subject is searched for.
    #[param(value_type = i64, minimum = 1, maximum = 36_500, default = 30, required = false)]
    #[serde(default)]
    days: SearchedDays,
    /// `next` of the page before. A page may be short, or empty, and have one.
    #[param(nullable = false)]
    cursor: Option<String>,
    /// How many items a page has; more than 200 counts as 200.
    #[param(value_type = i64, minimum = 1, default = 50, required = false)]
    #[serde(default)]
    limit: PageSize,
    /// Shows phone numbers in full.
    #[param(inline, required = false)]
    #[serde(default)]
    reveal: Phones,
}

/// An alert with its deliveries.
#[derive(Serialize, ToSchema)]
pub struct Alert {
    #[serde(flatten)]
    view: AlertView,
    #[schema(examples("critical"))]
    urgency: &'static str,
    deliveries: Vec<Delivery>,
    /// What people sent us about it, newest first; in single views only.
    #[serde(skip_serializing_if = "Option::is_none")]
    inbound: Option<Vec<InboundMessage>>,
}

impl Alert {
    fn of(mut view: AlertView, phones: Phones) -> Self {
        let deliveries = std::mem::take(&mut view.deliveries).into_iter();
        Self {
            view,
            // An alert is the fact that a ticket turned critical.
            urgency: "critical",
            deliveries: deliveries.map(|delivery| Delivery::of(delivery, phones)).collect(),
            inbound: None,
        }
    }
}

/// Lists alerts, newest first
#[utoipa::path(
    get,
    path = "/v1/alerts",
    operation_id = "listAlerts",
    tag = "alerts",
    params(ListQuery),
    responses(
        (status = 200, body = Page<Alert>, description = "A page of alerts", headers(
            ("Link" = String, description = "The next page, with `rel=\"next\"`; absent on the last one")
        )),
        ForAdmins,
        Fields,
    ),
    security(("admin" = []))
)]
pub async fn list(State(app): SharedState, Query(query): Query<ListQuery>, uri: Uri) -> Result<Listed<Alert>, Problem> {
    let page = search(&app, &query).await?;
    Ok(Listed { page, uri })
}

/// The alerts that are asked for.
pub async fn search(app: &AppState, query: &ListQuery) -> Result<Page<Alert>, Problem> {
    let filter = filter(app, query);
    let page = app
        .store
        .alerts(&filter, query.cursor.as_deref(), query.limit.0)
        .await?;
    Ok(page.map(|view| Alert::of(view, query.reveal)))
}

/// Shows an alert
///
/// With the timelines of its deliveries: what happened to each, and when.
#[utoipa::path(
    get,
    path = "/v1/alerts/{id}",
    operation_id = "showAlert",
    tag = "alerts",
    params(("id" = String, Path, description = "The alert's id"), ShowQuery),
    responses((status = 200, body = Alert, description = "The alert"), ForAdmins, Fields),
    security(("admin" = []))
)]
pub async fn show(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<Alert>, Problem> {
    Ok(Json(find(&app, &id, query.reveal).await?))
}

/// An alert after its deliveries were canceled.
#[derive(Serialize, ToSchema)]
pub struct CanceledAlert {
    /// How many of its deliveries were held back by this request.
    canceled: usize,
    #[serde(flatten)]
    alert: Alert,
}

/// Cancels an alert
///
/// Holds back those of its deliveries whose send has not begun. The others go on, as the answer shows them.
#[utoipa::path(
    post,
    path = "/v1/alerts/{id}/cancel",
    operation_id = "cancelAlert",
    tag = "alerts",
    params(("id" = String, Path, description = "The alert's id"), ShowQuery),
    responses((status = 200, body = CanceledAlert, description = "The alert as it stands now"), ForAdmins, Fields),
    security(("admin" = []))
)]
pub async fn cancel(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<CanceledAlert>, Problem> {
    let canceled = cancel_all(&app, &id).await?;
    let alert = find(&app, &id, query.reveal).await?;
    Ok(Json(CanceledAlert { canceled, alert }))
}

/// Holds back those of an alert's deliveries whose send has not begun; how many.
pub async fn cancel_all(app: &AppState, id: &str) -> Result<usize, Problem> {
    let canceled = app.store.cancel_alert(id, now()).await?.ok_or_else(not_found)?;
    tracing::info!(alert.id = %id, canceled, "an admin canceled an alert");
    Ok(canceled)
}

/// An alert after somebody asked to acknowledge it.
#[derive(Serialize, ToSchema)]
pub struct AcknowledgedAlert {
    /// Whether this request acknowledged it. If not, `acknowledged_by` and `acknowledged_at` say who was first, and nothing
    /// was changed.
    acknowledged: bool,
    /// How many of its deliveries were held back by this request.
    canceled: usize,
    #[serde(flatten)]
    alert: Alert,
}

/// Who acknowledges it.
#[derive(ToSchema)]
#[schema(as = Acknowledge)]
#[expect(dead_code, reason = "describes what `read_by` reads; a test compares the two")]
pub struct AcknowledgeBody {
    /// A name, shown to whoever comes later.
    #[schema(examples("Grace Hopper"))]
    by: Option<String>,
    /// `command` where a person does it on a command line.
    #[schema(value_type = Option<String>, examples("command"))]
    via: Option<Via>,
}

/// Acknowledges an alert
///
/// Once: somebody takes care of the ticket, and messages to others that have not begun to be sent are held back (unless
/// `acknowledge.cancels_others` is off). If somebody was first, `acknowledged` is `false` and the alert says who.
#[utoipa::path(
    post,
    path = "/v1/alerts/{id}/acknowledge",
    operation_id = "acknowledgeAlert",
    tag = "alerts",
    params(("id" = String, Path, description = "The alert's id"), ShowQuery),
    request_body(content = Option<AcknowledgeBody>, description = "May be left out"),
    responses(
        (status = 200, body = AcknowledgedAlert, description = "The alert as it stands now"),
        ForAdmins, ForAcknowledge, JsonBody,
    ),
    security(("admin" = []))
)]
pub async fn acknowledge(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
    headers: HeaderMap,
    raw: Body,
) -> Result<Json<AcknowledgedAlert>, Problem> {
    let document = body::read_optional_json(&headers, raw).await?.unwrap_or_default();
    let (via, by) = read_by(&document)?;
    let canceled = acknowledge_one(&app, &id, via, by).await?;
    let alert = find(&app, &id, query.reveal).await?;
    Ok(Json(AcknowledgedAlert {
        acknowledged: canceled.is_some(),
        canceled: canceled.unwrap_or(0),
        alert,
    }))
}

/// Acknowledges an alert. How many deliveries that held back; `None` if somebody was first.
pub async fn acknowledge_one(app: &AppState, id: &str, via: Via, by: Option<String>) -> Result<Option<usize>, Problem> {
    let by = Acknowledger::named(via, by);
    let rules = app.acknowledging.rules;
    let done = app.store.acknowledge(&id.into(), &by, rules, now()).await?;
    match done.ok_or_else(not_found)? {
        Acknowledged::Now { canceled } => Ok(Some(canceled)),
        Acknowledged::Already(_) => Ok(None),
        Acknowledged::Closed => Err(Problem::new(
            Kind::AlertClosed,
            "the ticket is no longer critical, so there is nothing to acknowledge",
        )),
    }
}

/// By which way and by whom, in the body of a request to acknowledge.
fn read_by(document: &Value) -> Result<(Via, Option<String>), Problem> {
    let (root, mut faults) = (Reader::root(document), Vec::new());
    if !document.is_null() {
        root.expect_object(&mut faults);
    }
    let by = root.member("by").text(&mut faults).map(|by| clean_line(by, MAX_BY));
    let via = root.member("via");
    let via = match via.text(&mut faults) {
        None | Some("api") => Via::Api,
        Some("command") => Via::Command,
        Some(_) => {
            via.fault(&mut faults, "this is neither `api` nor `command`");
            Via::Api
        }
    };
    match faults.is_empty() {
        true => Ok((via, by.filter(|by| !by.is_empty()))),
        false => Err(Problem::fields(faults)),
    }
}

/// A subject is searched for on one day, or some days back: the oldest alerts of a year are seldom meant, and take long.
fn filter(app: &AppState, query: &ListQuery) -> AlertFilter {
    let is_by_subject = query.subject.is_some() && query.ticket_id.is_none();
    let received = match query.day {
        Some(day) => Some((day.start(&app.time_zone), day.end(&app.time_zone))),
        None if is_by_subject => Some((after(now(), -query.days.0), Timestamp::MAX)),
        None => None,
    };
    AlertFilter {
        source: query.source.clone(),
        ticket_id: query.ticket_id.clone(),
        subject: query.subject.clone(),
        state: query.state,
        is_acknowledged: query.acknowledged,
        received,
    }
}

/// How far back to search.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct SearchedDays(SignedDuration);

impl Default for SearchedDays {
    fn default() -> Self {
        Self(SignedDuration::from_hours(30 * 24))
    }
}

impl TryFrom<String> for SearchedDays {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse::<i64>() {
            Ok(days @ 1..=36_500) => Ok(Self(SignedDuration::from_hours(days * 24))),
            Ok(_) | Err(_) => Err(format!(
                "`{}` is not a whole number of days from 1 to 36500",
                clean_line(&text, 40)
            )),
        }
    }
}

/// What may be asked for by `state`.
fn states() -> Object {
    let of_deliveries = delivery::State::ALL.iter().map(|state| state.as_str());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["open", "closed"].into_iter().chain(of_deliveries)))
        .build()
}

/// For `deserialize_with`.
fn is_acknowledged<'de, D: Deserializer<'de>>(parameter: D) -> Result<Option<bool>, D::Error> {
    let word = String::deserialize(parameter)?;
    let wrong = || {
        let word = clean_line(&word, 40);
        de::Error::custom(format_args!("`{word}` is neither `true` nor `false`"))
    };
    word.parse().map(Some).map_err(|_| wrong())
}

/// For `deserialize_with`.
fn state<'de, D: Deserializer<'de>>(parameter: D) -> Result<Option<AlertState>, D::Error> {
    let word = String::deserialize(parameter)?;
    let parsed = match word.as_str() {
        "open" => Some(AlertState::Open),
        "closed" => Some(AlertState::Closed),
        word => delivery::State::parse(word).map(AlertState::Has),
    };
    let unknown = || {
        let words = query::state_words();
        let word = clean_line(&word, 40);
        de::Error::custom(format_args!(
            "`{word}` is not a state: it is `open`, `closed`, or that of a delivery, which is one of {words}"
        ))
    };
    parsed.map(Some).ok_or_else(unknown)
}

/// One alert with the timelines of its deliveries.
pub async fn find(app: &AppState, id: &str, phones: Phones) -> Result<Alert, Problem> {
    let alert = app.store.alert(id).await?.ok_or_else(not_found)?;
    Ok(Alert {
        inbound: Some(inbound::of_alert(app, id, phones).await?),
        ..Alert::of(alert, phones)
    })
}

fn not_found() -> Problem {
    Problem::not_found("there is no alert with this id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use utoipa::PartialSchema;

    #[test]
    fn who_acknowledges_is_read_as_its_schema_says() {
        let schema = serde_json::to_value(AcknowledgeBody::schema()).unwrap();
        let members: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(members, ["by", "via"]);

        let read = |document: Value| read_by(&document).ok();
        assert_eq!(read(json!(null)), Some((Via::Api, None)));
        assert_eq!(read(json!({"by": " "})), Some((Via::Api, None)));
        let both = json!({"by": schema["properties"]["by"]["examples"][0], "via": "command"});
        assert_eq!(read(both), Some((Via::Command, Some("Grace Hopper".into()))));
        for wrong in [json!([]), json!({"by": 7}), json!({"via": "sms"})] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
