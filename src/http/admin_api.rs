//! The JSON API for admins: reading back, opt-outs, the daily limit. Absent: pages.

use super::{Office, SharedOffice, body, error::Problem, events, now, reports};
use crate::{
    domain::{
        day::LocalDay,
        delivery::State as DeliveryState,
        json::{Fault, Reader},
        phone::{PhoneNumber, Region},
        text::clean_line,
    },
    store::{AlertFilter, AlertView, DeliveryFilter, DeliveryView, LimitStatus, OptOut, Page, Resent},
};
use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{collections::HashMap, net::SocketAddr, sync::Arc};

const DEFAULT_PAGE: i64 = 50;
const MAX_PAGE: i64 = 200;
const MAX_LINE: usize = 200;
/// What to do about a text that is no phone number.
const NO_PHONE: &str = "this is not one phone number: write it with `+`, country code and number, like `+14155550101`, and without an extension";
/// More messages a day than any helpdesk owes; beyond it a typing error is likelier.
const MAX_LIMIT: i64 = 10_000_000;

/// Everything behind the admin token.
pub fn routes(office: &Arc<Office>) -> Router<Arc<Office>> {
    Router::new()
        .route("/v1/alerts", get(list_alerts))
        .route("/v1/alerts/{id}", get(show_alert))
        .route("/v1/deliveries", get(list_deliveries))
        .route("/v1/deliveries/{id}", get(show_delivery))
        .route("/v1/deliveries/{id}/resend", post(resend))
        .route("/v1/opt-outs", get(list_opt_outs).post(add_opt_out))
        .route("/v1/opt-outs/{phone}", axum::routing::delete(remove_opt_out))
        .route("/v1/limit", get(show_limit).put(set_limit))
        .route("/v1/receipts/rejected", get(list_rejected))
        .route("/v1/reports", get(reports::list))
        .route("/v1/reports/{day}", get(reports::show).post(reports::make))
        .route_layer(middleware::from_fn_with_state(Arc::clone(office), admit))
}

/// Asks for the admin token before anything else is looked at.
async fn admit(
    State(office): SharedOffice,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    office
        .doorkeeper
        .admit(&office.admin_tokens, request.headers(), peer.ip())?;
    // PostgreSQL takes no NUL in a text, and nothing here has one.
    if request.uri().to_string().contains("%00") {
        return Err(Problem::not_found("there is nothing here"));
    }
    Ok(next.run(request).await)
}

pub(super) type Parameters = Query<HashMap<String, String>>;

async fn list_alerts(State(office): SharedOffice, Query(parameters): Parameters) -> Result<Json<Value>, Problem> {
    let filter = AlertFilter {
        source: given(&parameters, "source").cloned(),
        ticket_id: given(&parameters, "ticket_id").cloned(),
    };
    let page = office
        .store
        .alerts(
            &filter,
            given(&parameters, "cursor").map(String::as_str),
            page_size(&parameters)?,
        )
        .await?;
    let reveal = reveals_phones(&parameters);
    Ok(show_page(page, |alert| alert_json(alert, reveal, false)))
}

async fn show_alert(
    State(office): SharedOffice,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<Value>, Problem> {
    let alert = office
        .store
        .alert(&id)
        .await?
        .ok_or_else(|| Problem::not_found("there is no alert with this id"))?;
    Ok(Json(alert_json(&alert, reveals_phones(&parameters), true)))
}

async fn list_deliveries(State(office): SharedOffice, Query(parameters): Parameters) -> Result<Json<Value>, Problem> {
    let filter = delivery_filter(&office, &parameters)?;
    let page = office
        .store
        .deliveries(
            &filter,
            given(&parameters, "cursor").map(String::as_str),
            page_size(&parameters)?,
        )
        .await?;
    let reveal = reveals_phones(&parameters);
    Ok(show_page(page, |delivery| delivery_json(delivery, reveal, false)))
}

async fn show_delivery(
    State(office): SharedOffice,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<Value>, Problem> {
    let delivery = office
        .store
        .delivery(&id)
        .await?
        .ok_or_else(|| Problem::not_found("there is no delivery with this id"))?;
    Ok(Json(delivery_json(&delivery, reveals_phones(&parameters), true)))
}

/// Sends a delivery again as its next round. `{"force": true}` (or `?force=true`) does so though the old one may still
/// arrive.
async fn resend(
    State(office): SharedOffice,
    Path(id): Path<String>,
    Query(parameters): Parameters,
    headers: HeaderMap,
    raw: Body,
) -> Result<impl IntoResponse, Problem> {
    let bytes = body::read(raw, body::TRUSTED).await?;
    let mut force = given(&parameters, "force").is_some_and(|value| value == "true");
    if !bytes.is_empty() {
        events::expect_json(&headers)?;
        force |= match events::read_json(&bytes)?.get("force") {
            Some(Value::Bool(force)) => *force,
            None | Some(Value::Null) => false,
            Some(_) => {
                return Err(Problem::field("/force", "this is neither `true` nor `false`"));
            }
        };
    }
    let new_id = match office.store.resend(&id, force, now()).await? {
        Resent::As(new_id) => new_id,
        Resent::Undecided(state) => {
            let detail = format!(
                "this delivery is `{state}` and may still arrive: wait, or send `{{\"force\": true}}` to tell the person perhaps twice"
            );
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        Resent::NoPhone => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "this delivery has no usable number, so it cannot be sent",
            ));
        }
        Resent::NoSuchDelivery => {
            return Err(Problem::not_found("there is no delivery with this id"));
        }
    };
    tracing::info!(delivery.id = %new_id, resend_of = %id, force, "an operator sends a delivery again");
    office.wake.notify_one();
    let delivery = office
        .store
        .delivery(&new_id)
        .await?
        .ok_or_else(|| Problem::not_found("the new delivery is gone"))?;
    Ok((
        StatusCode::CREATED,
        Json(delivery_json(&delivery, reveals_phones(&parameters), true)),
    ))
}

async fn list_opt_outs(State(office): SharedOffice, Query(parameters): Parameters) -> Result<Json<Value>, Problem> {
    let after = given(&parameters, "cursor").map(|cursor| restore_plus(cursor));
    let page = office.store.opt_outs(after.as_deref(), page_size(&parameters)?).await?;
    Ok(show_page(page, opt_out_json))
}

async fn add_opt_out(State(office): SharedOffice, headers: HeaderMap, raw: Body) -> Result<impl IntoResponse, Problem> {
    events::expect_json(&headers)?;
    let document = events::read_json(&body::read(raw, body::TRUSTED).await?)?;
    let root = Reader::root(&document);
    let mut faults: Vec<Fault> = Vec::new();
    root.expect_object(&mut faults);
    let place = root.member("phone");
    let raw_phone = place.text(&mut faults);
    let staff_id = root
        .member("staff_id")
        .id(&mut faults)
        .map(|id| clean_line(&id, MAX_LINE));
    let reason = root
        .member("reason")
        .text(&mut faults)
        .map(|reason| clean_line(reason, MAX_LINE));
    let phone = raw_phone.and_then(|raw| PhoneNumber::parse(raw, office.default_region));
    if phone.is_none() && faults.is_empty() {
        place.fault(&mut faults, NO_PHONE);
    }
    let Some(phone) = phone.filter(|_| faults.is_empty()) else {
        return Err(Problem::fields(faults));
    };
    let text = clean_line(raw_phone.unwrap_or_default(), MAX_LINE);
    let (opt_out, new) = office
        .store
        .add_opt_out(&phone, &text, staff_id.as_deref(), reason.as_deref(), now())
        .await?;
    tracing::info!(%phone, new, "opt-out added");
    Ok((
        if new { StatusCode::CREATED } else { StatusCode::OK },
        Json(opt_out_json(&opt_out)),
    ))
}

async fn remove_opt_out(State(office): SharedOffice, Path(phone): Path<String>) -> Result<StatusCode, Problem> {
    // As it is listed first: an earlier version may have stored a form that is read otherwise today.
    let is_e164 = phone
        .strip_prefix('+')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let listed = is_e164.then(|| PhoneNumber::from_stored(phone.clone()));
    let phone = match listed {
        Some(listed) if office.store.remove_opt_out(&listed).await? => listed,
        Some(_) | None => {
            let phone = PhoneNumber::parse(&phone, office.default_region)
                .ok_or_else(|| Problem::not_found("this is not one phone number, so it has not opted out"))?;
            if !office.store.remove_opt_out(&phone).await? {
                return Err(Problem::not_found("this number has not opted out"));
            }
            phone
        }
    };
    tracing::info!(%phone, "opt-out removed");
    Ok(StatusCode::NO_CONTENT)
}

async fn show_limit(State(office): SharedOffice) -> Result<Json<Value>, Problem> {
    let day = office.today();
    Ok(Json(limit_json(
        &office,
        day,
        &office.store.limit_status(day, office.daily_limit).await?,
    )))
}

async fn set_limit(State(office): SharedOffice, headers: HeaderMap, raw: Body) -> Result<Json<Value>, Problem> {
    events::expect_json(&headers)?;
    let document = events::read_json(&body::read(raw, body::TRUSTED).await?)?;
    let limit = match document.get("limit") {
        Some(Value::Null) => None,
        Some(value) => match value.as_i64().filter(|limit| (0..=MAX_LIMIT).contains(limit)) {
            Some(limit) => Some(limit),
            None => {
                return Err(Problem::field(
                    "/limit",
                    format!("this is no whole number from 0 to {MAX_LIMIT}"),
                ));
            }
        },
        None => {
            return Err(Problem::field(
                "/limit",
                "this is missing: send a whole number, or `null` for the configured limit",
            ));
        }
    };
    let day = office.today();
    let released = office.store.set_limit(limit, day, office.daily_limit, now()).await?;
    tracing::info!(limit, released, "daily limit set");
    office.wake.notify_one();
    Ok(Json(limit_json(
        &office,
        day,
        &office.store.limit_status(day, office.daily_limit).await?,
    )))
}

async fn list_rejected(State(office): SharedOffice) -> Json<Value> {
    let (count, last) = office.rejected.list();
    let items: Vec<Value> = last
        .iter()
        .map(|receipt| json!({"at": receipt.at, "why": receipt.why, "fields": receipt.fields}))
        .collect();
    Json(json!({"count": count, "items": items}))
}

/// A parameter that says something: `?state=` is no state asked for.
pub(super) fn given<'a>(parameters: &'a HashMap<String, String>, name: &str) -> Option<&'a String> {
    parameters.get(name).filter(|value| !value.is_empty())
}

pub(super) fn page_size(parameters: &HashMap<String, String>) -> Result<i64, Problem> {
    match given(parameters, "limit") {
        None => Ok(DEFAULT_PAGE),
        Some(text) => match text.parse::<i64>() {
            Ok(size) if size >= 1 => Ok(size.min(MAX_PAGE)),
            Ok(_) | Err(_) => Err(Problem::field(
                "/limit",
                format!("`{}` is no whole number from 1 to {MAX_PAGE}", clean_line(text, 40)),
            )),
        },
    }
}

fn delivery_filter(office: &Office, parameters: &HashMap<String, String>) -> Result<DeliveryFilter, Problem> {
    let mut filter = DeliveryFilter {
        ticket_id: given(parameters, "ticket_id").cloned(),
        ..DeliveryFilter::default()
    };
    if let Some(word) = given(parameters, "state") {
        let state = DeliveryState::parse(word).ok_or_else(|| {
            let words: Vec<&str> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
            Problem::field(
                "/state",
                format!(
                    "`{}` is no state: it is one of {}",
                    clean_line(word, 40),
                    words.join(", ")
                ),
            )
        })?;
        filter.state = Some(state.as_str());
    }
    if let Some(text) = given(parameters, "phone") {
        let phone = searched_phone(text, office.default_region)
            .ok_or_else(|| Problem::field("/phone", format!("{NO_PHONE} (in an address, `+` is `%2B`)")))?;
        filter.phone = Some(phone.as_e164().to_owned());
    }
    if let Some(text) = given(parameters, "day") {
        let day = LocalDay::parse(text).ok_or_else(|| {
            Problem::field(
                "/day",
                format!("`{}` is no day: write it like `2026-11-20`", clean_line(text, 40)),
            )
        })?;
        filter.received = Some((day.start(&office.time_zone), day.end(&office.time_zone)));
    }
    Ok(filter)
}

/// In a query, a bare `+` means a blank; people write it all the same.
fn restore_plus(text: &str) -> String {
    match text.strip_prefix(' ') {
        Some(rest) => format!("+{rest}"),
        None => text.to_owned(),
    }
}

/// A number that is looked for. Where a bare `+` may have become a blank before the digits, both are tried; if they are
/// two numbers, neither is meant for sure.
fn searched_phone(text: &str, region: Region) -> Option<PhoneNumber> {
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

fn reveals_phones(parameters: &HashMap<String, String>) -> bool {
    given(parameters, "reveal").is_some_and(|what| what == "phone")
}

pub(super) fn show_page<T>(page: Page<T>, show: impl Fn(&T) -> Value) -> Json<Value> {
    let items: Vec<Value> = page.items.iter().map(show).collect();
    Json(json!({"items": items, "next": page.next}))
}

fn alert_json(alert: &AlertView, reveal: bool, single: bool) -> Value {
    let deliveries: Vec<Value> = alert
        .deliveries
        .iter()
        .map(|delivery| delivery_json(delivery, reveal, single))
        .collect();
    json!({
        "id": alert.id,
        "source": alert.source,
        "ticket_id": alert.ticket_id,
        "ticket_number": alert.ticket_number,
        "subject": alert.subject,
        // An alert is the fact that a ticket turned critical.
        "urgency": "critical",
        "url": alert.url,
        "occurred_at": alert.occurred_at,
        "received_at": alert.received_at,
        "closed_at": alert.closed_at,
        "deliveries": deliveries,
    })
}

fn delivery_json(delivery: &DeliveryView, reveal: bool, single: bool) -> Value {
    let mut shown = json!({
        "id": delivery.id,
        "alert_id": delivery.alert_id,
        "channel": delivery.channel,
        "round": delivery.round,
        "resend_of": delivery.resend_of,
        "recipient": {"staff_id": delivery.staff_id, "role": delivery.role, "name": delivery.name},
        "phone": if reveal { delivery.phone.clone() } else { delivery.masked_phone() },
        "state": delivery.state,
        "reason": delivery.reason,
        "attempts": delivery.attempts,
        "provider": delivery.provider,
        "provider_message_id": delivery.provider_message_id,
        "provider_status": delivery.provider_status,
        "error_code": delivery.error_code,
        "segments": delivery.segments,
        "due_at": delivery.due_at,
        "created_at": delivery.created_at,
        "updated_at": delivery.updated_at,
    });
    if single {
        let timeline: Vec<Value> = delivery
            .timeline
            .iter()
            .map(|line| json!({"at": line.at, "what": line.what, "detail": line.detail}))
            .collect();
        shown["timeline"] = timeline.into();
    }
    shown
}

fn opt_out_json(opt_out: &OptOut) -> Value {
    json!({
        "phone": opt_out.phone.as_e164(),
        "phone_text": opt_out.phone_text,
        "staff_id": opt_out.staff_id,
        "reason": opt_out.reason,
        "opted_out_at": opt_out.opted_out_at,
    })
}

fn limit_json(office: &Office, day: LocalDay, status: &LimitStatus) -> Value {
    let zone = office.time_zone.iana_name().unwrap_or("UTC");
    json!({"day": day.to_string(), "time_zone": zone, "limit": status.limit, "used": status.used, "deferred": status.deferred})
}
