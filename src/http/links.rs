//! `/a/{token}`: the link in a message, by which the person who got it acknowledges the alert. Looking at it changes nothing,
//! so previews of links do no harm; pressing the button does. A page of its own, since whoever has the link is no admin:
//! no script, nothing from elsewhere, and nothing that a browser or a search engine keeps. Absent: what a token says (see
//! `domain::ack_link`).

use super::{
    connections::Connection,
    deadline::{in_time, now},
    error::{ForLinks, Kind, Problem},
    state::{AppState, SharedState},
};
use crate::{
    domain::{ack_link::BadToken, id::DeliveryId},
    store::LinkedAlert,
};
use axum::{
    Extension,
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::{Timestamp, tz::TimeZone};
use minijinja::{AutoEscape, Environment, Value, context};
use sha2::{Digest, Sha256};
use std::{net::SocketAddr, sync::LazyLock};

const STYLE: &str = include_str!("../../templates/link/link.css");

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    // Compiled in, and rendered by a test.
    let _ = environment.add_template("link", include_str!("../../templates/link/link.html"));
    environment
});

/// Nothing but the style in the page itself, by its hash, and its own form.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = BASE64.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
});

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
];

/// Said when the database does not answer at all.
const NO_ANSWER: &str = "the database did not answer in time: try it again in a moment";

/// Who asks, and what for.
type Caller = (ConnectInfo<SocketAddr>, Extension<Connection>, HeaderMap);

/// Shows an alert to whoever has the link in its message
///
/// A page for people. It changes nothing.
#[utoipa::path(
    get,
    path = "/a/{token}",
    operation_id = "showLink",
    tag = "links",
    params(("token" = String, Path, description = "From the message; it counts for `acknowledge.link_expires`")),
    responses((status = 200, body = String, content_type = "text/html", description = "The page"), ForLinks)
)]
pub async fn show(State(app): SharedState, Path(token): Path<String>, caller: Caller) -> Response {
    answer(&app, &token, caller, false).await
}

/// Acknowledges the alert of the message that the link is from
///
/// The button of the page. If somebody was first, the page says who.
#[utoipa::path(
    post,
    path = "/a/{token}",
    operation_id = "pressLink",
    tag = "links",
    params(("token" = String, Path, description = "From the message")),
    responses((status = 200, body = String, content_type = "text/html", description = "The page"), ForLinks)
)]
pub async fn press(State(app): SharedState, Path(token): Path<String>, caller: Caller) -> Response {
    answer(&app, &token, caller, true).await
}

async fn answer(app: &AppState, token: &str, caller: Caller, presses: bool) -> Response {
    let (ConnectInfo(peer), Extension(connection), headers) = caller;
    // Whoever tries tokens is anybody: limited like all who have none.
    let refuse = |problem| app.rate_limiter.refuse(&headers, peer.ip(), problem);
    let found = match read(app, token) {
        Err(problem) => Err(refuse(problem)),
        Ok(delivery) => {
            connection.know_client();
            match look(app, &delivery, presses).await {
                Ok(Some(alert)) => Ok(alert),
                Ok(None) => Err(unknown()),
                Err(problem) => Err(problem),
            }
        }
    };
    match found {
        Ok(alert) => page(StatusCode::OK, &view(&alert, &app.time_zone)),
        Err(problem) => {
            let mut response = page(problem.status(), &trouble(&problem));
            problem.set_headers(response.headers_mut());
            response
        }
    }
}

fn unknown() -> Problem {
    Problem::not_found("there is nothing at this address")
}

/// Whose message the token stood in.
fn read(app: &AppState, token: &str) -> Result<DeliveryId, Problem> {
    let links = app.acknowledging.links.as_ref().ok_or_else(unknown)?;
    links.read(token, now()).map_err(|bad| match bad {
        BadToken::NotOurs => unknown(),
        BadToken::Expired => Problem::new(Kind::LinkExpired, "this link has expired"),
    })
}

/// The alert as it stands, after it was acknowledged if the button was pressed.
async fn look(app: &AppState, delivery: &DeliveryId, presses: bool) -> Result<Option<LinkedAlert>, Problem> {
    if presses {
        let rules = app.acknowledging.rules;
        in_time(app.store.acknowledge_by_link(delivery, rules, now()), NO_ANSWER).await?;
    }
    in_time(app.store.linked_alert(delivery), NO_ANSWER).await
}

fn view(alert: &LinkedAlert, zone: &TimeZone) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string());
    context! {
        number => alert.ticket_number.as_ref().unwrap_or(&alert.ticket_id),
        subject => alert.subject.as_deref(),
        closed_at => time(alert.closed_at),
        acknowledged_at => time(alert.acknowledged_at),
        acknowledged_by => alert.acknowledged_by.as_deref(),
        by_self => alert.is_by_self(),
        style => Value::from_safe_string(STYLE.to_owned()),
    }
}

fn trouble(problem: &Problem) -> Value {
    let text = match problem.status() {
        StatusCode::GONE => "This link has expired. Reply to the message instead, or ask whoever runs the helpdesk.",
        StatusCode::NOT_FOUND => "There is nothing at this address. Compare it with the link in the message.",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests. Try it again in a moment.",
        _ => "This does not work just now. Try it again in a moment.",
    };
    context! { trouble => text, style => Value::from_safe_string(STYLE.to_owned()) }
}

fn page(status: StatusCode, view: &Value) -> Response {
    let html = TEMPLATES.get_template("link").and_then(|page| page.render(view));
    let mut response = match html {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::try_from(POLICY.as_str()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}
