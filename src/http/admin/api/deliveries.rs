//! `/v1/deliveries`: messages that are or were owed, what happened to each, holding one back and sending one again.

use super::query::{self, Listed, NO_PHONE, PageSize, Phones, Query, ShowQuery};
use crate::{
    domain::{
        day::LocalDay,
        delivery,
        id::DeliveryId,
        phone::{self, PhoneNumber, Region},
        text::clean_line,
    },
    http::{
        body,
        deadline::now,
        error::{Fields, ForAdmins, ForCancel, ForResend, JsonBody, Kind, Problem},
        state::{AppState, SharedState},
    },
    store::{Canceled, DeliveryFilter, DeliveryView, Page, Resent},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Which deliveries, and how they are shown.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    #[param(value_type = delivery::State, inline, required = false)]
    #[serde(default, deserialize_with = "state")]
    state: Option<delivery::State>,
    /// The helpdesk's own id of the ticket.
    #[param(nullable = false)]
    ticket_id: Option<String>,
    /// A number in any writing; in an address, `+` is `%2B`.
    #[param(nullable = false, example = "+14155550101")]
    phone: Option<String>,
    /// The local day on which its event came.
    #[param(value_type = String, format = Date, required = false)]
    #[serde(default, deserialize_with = "query::day")]
    day: Option<LocalDay>,
    /// `next` of the page before.
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

/// Whether to send again what may still arrive, and how the new delivery is shown.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ResendQuery {
    /// Sends it though the old one may still arrive; the same as in the body.
    #[param(required = false)]
    #[serde(default, deserialize_with = "query::is_true")]
    force: bool,
    /// Shows phone numbers in full.
    #[param(inline, required = false)]
    #[serde(default)]
    reveal: Phones,
}

/// One message that is or was owed to one person.
#[derive(Serialize, ToSchema)]
pub struct Delivery {
    #[serde(flatten)]
    view: DeliveryView,
    /// In E.164, or the unusable text that was given; masked unless `?reveal=phone` asks for it.
    #[schema(required, examples("+1415*****01"))]
    phone: Option<String>,
}

impl Delivery {
    pub fn of(mut view: DeliveryView, phones: Phones) -> Self {
        let phone = view.phone.take();
        Self {
            phone: match phones {
                Phones::InFull => phone,
                Phones::Masked => phone.as_deref().map(phone::mask),
            },
            view,
        }
    }

    /// As it was asked for, in full or masked.
    pub fn phone(&self) -> Option<&str> {
        self.phone.as_deref()
    }
}

/// Lists deliveries, newest first
#[utoipa::path(
    get,
    path = "/v1/deliveries",
    operation_id = "listDeliveries",
    tag = "deliveries",
    params(ListQuery),
    responses(
        (status = 200, body = Page<Delivery>, description = "A page of deliveries", headers(
            ("Link" = String, description = "The next page, with `rel=\"next\"`; absent on the last one")
        )),
        ForAdmins,
        Fields,
    ),
    security(("admin" = []))
)]
pub async fn list(
    State(app): SharedState,
    Query(query): Query<ListQuery>,
    uri: Uri,
) -> Result<Listed<Delivery>, Problem> {
    let page = search(&app, &query).await?;
    Ok(Listed { page, uri })
}

/// The deliveries that are asked for.
pub async fn search(app: &AppState, query: &ListQuery) -> Result<Page<Delivery>, Problem> {
    let filter = filter(app, query)?;
    let page = app
        .store
        .deliveries(&filter, query.cursor.as_deref(), query.limit.0)
        .await?;
    Ok(page.map(|view| Delivery::of(view, query.reveal)))
}

/// Shows a delivery
///
/// With its timeline: what happened to it, and when.
#[utoipa::path(
    get,
    path = "/v1/deliveries/{id}",
    operation_id = "showDelivery",
    tag = "deliveries",
    params(("id" = String, Path, description = "The delivery's id"), ShowQuery),
    responses((status = 200, body = Delivery, description = "The delivery"), ForAdmins, Fields),
    security(("admin" = []))
)]
pub async fn show(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<Delivery>, Problem> {
    find(&app, &id, query.reveal).await.map(Json)
}

/// Cancels a delivery
///
/// Holds it back, if its send has not begun; one that is canceled already stays so.
#[utoipa::path(
    post,
    path = "/v1/deliveries/{id}/cancel",
    operation_id = "cancelDelivery",
    tag = "deliveries",
    params(("id" = String, Path, description = "The delivery's id"), ShowQuery),
    responses((status = 200, body = Delivery, description = "The canceled delivery"), ForAdmins, ForCancel, Fields),
    security(("admin" = []))
)]
pub async fn cancel(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<Delivery>, Problem> {
    cancel_one(&app, &id).await?;
    find(&app, &id, query.reveal).await.map(Json)
}

/// Holds a delivery back, if its send has not begun.
pub async fn cancel_one(app: &AppState, id: &str) -> Result<(), Problem> {
    match app.store.cancel(&id.into(), now()).await? {
        Canceled::Now => tracing::info!(delivery.id = %id, "an admin canceled a delivery"),
        Canceled::Already => {}
        Canceled::TooLate(state) => return Err(Problem::new(Kind::TooLateToCancel, too_late(state))),
        Canceled::NoSuchDelivery => return Err(not_found()),
    }
    Ok(())
}

/// Why a delivery in this state cannot be canceled.
fn too_late(state: delivery::State) -> String {
    if state.is_open() {
        format!("this delivery is `{state}`: it was handed to the provider, or may have been, and cannot be held back")
    } else {
        format!("this delivery is `{state}`: it has ended, so there is nothing to cancel")
    }
}

/// Sends a delivery again
///
/// A new delivery is made, which names the old one in `resend_of`. It counts against the daily limit, and opt-outs hold.
#[utoipa::path(
    post,
    path = "/v1/deliveries/{id}/resend",
    operation_id = "resendDelivery",
    tag = "deliveries",
    params(("id" = String, Path, description = "The delivery's id"), ResendQuery),
    request_body(content = Option<ResendBody>, description = "May be left out"),
    responses((status = 201, body = Delivery, description = "The new delivery"), ForAdmins, ForResend, JsonBody),
    security(("admin" = []))
)]
pub async fn resend(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ResendQuery>,
    headers: HeaderMap,
    raw: Body,
) -> Result<(StatusCode, Json<Delivery>), Problem> {
    let document = body::read_optional_json(&headers, raw).await?.unwrap_or_default();
    let force = read_force(&document)? || query.force;
    let new_id = send_again(&app, &id, force).await?;
    let delivery = find(&app, new_id.as_str(), query.reveal).await?;
    Ok((StatusCode::CREATED, Json(delivery)))
}

/// Sends a delivery again; the id of the new one. With `force` also if the old one may still arrive.
pub async fn send_again(app: &AppState, id: &str, force: bool) -> Result<DeliveryId, Problem> {
    let new_id = match app.store.resend(&id.into(), force, now()).await? {
        Resent::As(new_id) => new_id,
        Resent::Undecided(state) => {
            let detail = format!(
                "this delivery is `{state}` and may still arrive: wait, or send `{{\"force\": true}}` to tell the person perhaps twice"
            );
            return Err(Problem::new(Kind::MayStillArrive, detail));
        }
        Resent::NoPhone => {
            let detail = "this delivery has no usable number, so it cannot be sent";
            return Err(Problem::new(Kind::NoUsableNumber, detail));
        }
        Resent::NoSuchDelivery => return Err(not_found()),
    };
    tracing::info!(delivery.id = %new_id, resend_of = %id, force, "an admin sends a delivery again");
    Ok(new_id)
}

/// How to send it again.
#[derive(ToSchema)]
#[schema(as = Resend)]
#[expect(dead_code, reason = "describes what `read_force` reads; a test compares the two")]
pub struct ResendBody {
    /// Sends it though the old one may still arrive, which may tell the person twice.
    #[schema(default = false, examples(true))]
    force: Option<bool>,
}

/// One delivery with its timeline.
pub async fn find(app: &AppState, id: &str, phones: Phones) -> Result<Delivery, Problem> {
    let delivery = app.store.delivery(id).await?.ok_or_else(not_found)?;
    Ok(Delivery::of(delivery, phones))
}

/// `force` in the body of a request to send again: whether to, though the old message may still arrive.
fn read_force(document: &Value) -> Result<bool, Problem> {
    if !matches!(document, Value::Object(_) | Value::Null) {
        return Err(Problem::field(
            "",
            "this is neither an object nor `null`: send `{}`, or nothing",
        ));
    }
    match document.get("force") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(force)) => Ok(*force),
        Some(_) => Err(Problem::field("/force", "this is neither `true` nor `false`")),
    }
}

fn not_found() -> Problem {
    Problem::not_found("there is no delivery with this id")
}

fn filter(app: &AppState, query: &ListQuery) -> Result<DeliveryFilter, Problem> {
    let no_phone = || Problem::field("/phone", format!("{NO_PHONE} (in an address, `+` is `%2B`)"));
    let read = |text| searched_phone(text, app.default_region).ok_or_else(no_phone);
    let phone = query.phone.as_deref().map(read).transpose()?;
    Ok(DeliveryFilter {
        state: query.state.map(delivery::State::as_str),
        ticket_id: query.ticket_id.clone(),
        phone: phone.map(|phone| phone.as_e164().to_owned()),
        received: query
            .day
            .map(|day| (day.start(&app.time_zone), day.end(&app.time_zone))),
    })
}

fn state<'de, D: Deserializer<'de>>(parameter: D) -> Result<Option<delivery::State>, D::Error> {
    let word = String::deserialize(parameter)?;
    let unknown = || {
        let (word, words) = (clean_line(&word, 40), query::state_words());
        de::Error::custom(format_args!("`{word}` is not a state: it is one of {words}"))
    };
    delivery::State::parse(&word).map(Some).ok_or_else(unknown)
}

/// A number that is searched for. Where a bare `+` may have become a blank before the digits, both are tried; if they are
/// two numbers, neither is meant for sure.
pub fn searched_phone(text: &str, region: Region) -> Option<PhoneNumber> {
    let as_given = PhoneNumber::parse(text, region);
    let digits = text.find(|c: char| c.is_numeric()).unwrap_or(text.len());
    let (before, rest) = text.split_at(digits);
    let with_plus = match before.split_once(' ') {
        Some((start, end)) if !before.contains('+') => {
            PhoneNumber::parse(&format!("{start}+{end}{rest}"), Region::UNKNOWN)
        }
        Some(_) | None => None,
    };
    match (as_given, with_plus) {
        (Some(given), Some(other)) => (given == other).then_some(given),
        (given, other) => given.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use utoipa::PartialSchema;

    #[test]
    fn force_is_read_as_its_schema_says() {
        let schema = serde_json::to_value(ResendBody::schema()).unwrap();
        let member = &schema["properties"]["force"];
        let read = |force: &Value| read_force(&json!({"force": force})).ok();

        assert_eq!(read(&member["examples"][0]), Some(true));
        assert_eq!(
            (read(&member["default"]), read(&json!(null))),
            (Some(false), Some(false))
        );
        assert_eq!(read(&json!("true")), None);
        assert!(read_force(&json!([null])).is_err());
    }
}
