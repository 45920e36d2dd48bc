//! Logging in, who is logged in, and logging out. An admin shows the token once and has a session from then on, or a trusted
//! proxy says who it is. Every form carries a value that only our own pages know. Absent: how cookies are written and secrets
//! derived (see `viewer`).

use super::{
    assets,
    failure::Failure,
    form::Fields,
    layout,
    viewer::{Cookie, Secret, Viewer, is_same},
};
use crate::{
    domain::{day::after, text::clean_line},
    http::{
        body::{self, Limits},
        connections::Connection,
        deadline::now,
        error::{Kind, Problem},
        state::{AppState, SharedState},
    },
    store::Session,
};
use axum::{
    Extension,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{Html, IntoResponse, Redirect, Response},
};
use jiff::{SignedDuration, Timestamp};
use minijinja::{Value, context};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tracing::Instrument;

/// A session ends when it was not used for so long, and at the latest after a week.
const IDLE: SignedDuration = SignedDuration::from_hours(12);
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// That it was used is written down at most this often.
const NOTE_USE_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// Where nobody is logged in.
const LOGIN: &str = "/admin/login";
/// For whoever has not shown a token yet.
const LOGIN_BODY: Limits = Limits {
    size: 8 * 1024,
    wait: Duration::from_secs(10),
    drain: 0,
};
const WRONG_FORM: &str = "This form is not from a page of yours that is still open, so nothing was changed. Go back, reload \
    the page and send it again.";

/// Lets through who is logged in, and only forms of our own pages; makes a page of every problem.
pub async fn guard(
    State(app): SharedState,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let cookie = cookie(&app, request.headers(), peer.ip());
    let identified = match identify(&app, request.headers(), peer.ip(), cookie).await {
        Ok(identified) => identified,
        Err(problem) => return layout::problem_page(&app, &nobody(), &problem).await,
    };
    let Some(Identified { viewer, is_new }) = identified else {
        return to_login(&request);
    };
    connection.know_client();
    let span = tracing::info_span!("admin", who = viewer.who());
    let result = answer(&viewer, request, next).instrument(span).await;
    let mut response = result.unwrap_or_else(IntoResponse::into_response);
    if let Some(problem) = response.extensions().get::<Arc<Problem>>().cloned() {
        response = layout::problem_page(&app, &viewer, &problem).await;
    }
    if is_new {
        response
            .headers_mut()
            .append(header::SET_COOKIE, cookie.set(&viewer.secret));
    }
    response
}

async fn answer(viewer: &Viewer, request: Request, next: Next) -> Result<Response, Failure> {
    // PostgreSQL takes no NUL in a text, and nothing here has one.
    if request.uri().to_string().contains("%00") {
        return Err(Problem::not_found("There is no page at this address.").into());
    }
    let (mut parts, mut raw) = request.into_parts();
    if parts.method == Method::POST {
        let fields = Fields::read(&parts.headers, raw, body::FILE).await?;
        raw = Body::empty();
        if !is_our_form(&fields, &viewer.secret, &parts.headers) {
            tracing::warn!("refused a form that is not from one of our pages");
            return Err(Problem::new(Kind::ForeignForm, WRONG_FORM).into());
        }
        parts.extensions.insert(fields);
    }
    parts.extensions.insert(viewer.clone());
    Ok(next.run(Request::from_parts(parts, raw)).await)
}

/// Whether a form is from one of our own pages.
fn is_our_form(fields: &Fields, secret: &Secret, headers: &HeaderMap) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let is_foreign = headers
        .get(SITE)
        .is_some_and(|site| site != "same-origin" && site != "none");
    !is_foreign && is_same(&fields.text("csrf"), &secret.csrf())
}

/// Who asks.
struct Identified {
    viewer: Viewer,
    /// Whether the browser has still to be given its secret.
    is_new: bool,
}

/// For a page before anybody is known.
fn nobody() -> Viewer {
    Viewer {
        secret: Secret::random(),
        name: None,
    }
}

async fn identify(
    app: &AppState,
    headers: &HeaderMap,
    peer: IpAddr,
    cookie: Cookie,
) -> Result<Option<Identified>, Problem> {
    let sent = cookie.read(headers);
    if let Some(name) = name_by_proxy(app, headers, peer) {
        let is_new = sent.is_none();
        let viewer = Viewer {
            secret: sent.unwrap_or_else(Secret::random),
            name: Some(name),
        };
        return Ok(Some(Identified { viewer, is_new }));
    }
    let Some(secret) = sent else { return Ok(None) };
    let now = now();
    let Some(session) = app.store.session(&secret.id(), now).await? else {
        // Each costs a question to the database: a flood of cookies that we never gave is one of wrong tokens.
        let unknown = Problem::new(Kind::Unauthorized, "this session has ended: log in again");
        let problem = app.rate_limiter.refuse(headers, peer, unknown);
        return match problem.kind() {
            Kind::TooManyRequests => Err(problem),
            _ => Ok(None),
        };
    };
    let is_valid = app
        .admin_tokens
        .any_digest(|digest| is_same(&secret.prove_token(digest), &session.token_proof));
    if !is_valid {
        return Ok(None);
    }
    note_use(app, &session, now).await;
    let viewer = Viewer { secret, name: None };
    Ok(Some(Identified { viewer, is_new: false }))
}

/// The admin whom a trusted proxy names. Two names are none.
fn name_by_proxy(app: &AppState, headers: &HeaderMap, peer: IpAddr) -> Option<String> {
    let mut given = headers.get_all(app.pages.proxy_header.as_ref()?).iter();
    let (name, other) = (given.next()?, given.next());
    if other.is_some() || !app.rate_limiter.is_proxy(peer) {
        return None;
    }
    let name = clean_line(&String::from_utf8_lossy(name.as_bytes()), 80);
    (!name.is_empty()).then_some(name)
}

/// Lets a session that is in use last longer. If that fails, it lasts as long as it did.
async fn note_use(app: &AppState, session: &Session, now: Timestamp) {
    let until = after(now, IDLE).min(after(session.created_at, LONGEST));
    if until.duration_since(session.expires_at) < NOTE_USE_EVERY {
        return;
    }
    if let Err(error) = app.store.extend_session(&session.id, until).await {
        tracing::warn!(%error, "a session could not be extended");
    }
}

/// How the cookie travels: only over https where the browser came so.
fn cookie(app: &AppState, headers: &HeaderMap, peer: IpAddr) -> Cookie {
    let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    let proto = proto.and_then(|list| list.split(',').next()).unwrap_or_default().trim();
    let is_forwarded_https = app.rate_limiter.is_proxy(peer) && proto.eq_ignore_ascii_case("https");
    Cookie {
        is_secure: app.pages.is_public_https || is_forwarded_https,
    }
}

fn to_login(request: &Request) -> Response {
    let asked = request.uri().path_and_query().map_or("/admin/", |asked| asked.as_str());
    if request.method() != Method::GET || asked == "/admin/" {
        return Redirect::to(LOGIN).into_response();
    }
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("next", asked)
        .finish();
    Redirect::to(&format!("{LOGIN}?{query}")).into_response()
}

/// Where to go after the log-in: only to a page of ours.
fn place_after(next: &str) -> &str {
    let is_ours = next.starts_with("/admin/") && !next.contains(['\\', '\r', '\n']);
    if is_ours { next } else { "/admin/" }
}

/// `GET /admin/login`.
pub async fn show(
    State(app): SharedState,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let cookie = cookie(&app, &headers, peer.ip());
    if let Ok(Some(_)) = identify(&app, &headers, peer.ip(), cookie).await {
        return Redirect::to("/admin/").into_response();
    }
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let next = pairs.into_iter().find(|(name, _)| name == "next").map(|(_, next)| next);
    let next = next.unwrap_or_default();
    login_page(&app, cookie, cookie.read(&headers), &next, None)
}

/// The page that asks for the token; `problem` says what was wrong with the last try.
fn login_page(
    app: &AppState,
    cookie: Cookie,
    known: Option<Secret>,
    next: &str,
    problem: Option<&Problem>,
) -> Response {
    let secret = known.unwrap_or_else(Secret::random);
    let status = problem.map_or(StatusCode::OK, Problem::status);
    let view = context! {
        csrf => secret.csrf(),
        next => place_after(next),
        problem => problem.map(Problem::message),
        style => Value::from_safe_string(assets::style()),
        icon => Value::from_safe_string(assets::icon()),
    };
    let mut response = match app.pages.render("login.html", &view) {
        Ok(html) => (status, Html(html)).into_response(),
        Err(problem) => (problem.status(), problem.message()).into_response(),
    };
    if let Some(problem) = problem {
        problem.set_headers(response.headers_mut());
    }
    response.headers_mut().append(header::SET_COOKIE, cookie.set(&secret));
    response
}

/// `POST /admin/login`. Wrong tokens are limited by address; the right one always gets in.
pub async fn log_in(
    State(app): SharedState,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    raw: Body,
) -> Response {
    let cookie = cookie(&app, &headers, peer.ip());
    let known = cookie.read(&headers);
    let refuse = |next: &str, problem: Problem| {
        let problem = app.rate_limiter.refuse(&headers, peer.ip(), problem);
        // A flood is limited in the log too.
        if problem.kind() == Kind::Unauthorized {
            tracing::warn!("a log-in with a wrong token");
        }
        login_page(&app, cookie, known.clone(), next, Some(&problem))
    };
    let reading = Fields::read(&headers, raw, LOGIN_BODY);
    let fields = match connection.while_waiting(reading).await {
        Ok(fields) => fields,
        Err(problem) => return refuse("", problem),
    };
    let next = fields.text("next");
    let Some(before) = &known else {
        return refuse(&next, Problem::new(Kind::ForeignForm, no_cookie(cookie)));
    };
    if !is_our_form(&fields, before, &headers) {
        let detail = "This form was too old. Try again with the one below.";
        return refuse(&next, Problem::new(Kind::ForeignForm, detail));
    }
    let Some(digest) = app.admin_tokens.digest_of(&fields.text("token")) else {
        let detail = "This is not an admin token. It is one of `auth.admin_tokens`; where none are configured, the \
            service prints a new one when it starts.";
        return refuse(&next, Problem::new(Kind::Unauthorized, detail));
    };
    connection.know_client();
    match open(&app, &digest).await {
        Ok(viewer) => {
            tracing::info!(who = viewer.who(), "an admin logged in");
            let mut response = Redirect::to(place_after(&next)).into_response();
            response
                .headers_mut()
                .append(header::SET_COOKIE, cookie.set(&viewer.secret));
            response
        }
        Err(problem) => login_page(&app, cookie, known, &next, Some(&problem)),
    }
}

/// Why the browser may not have sent the cookie that came with the form.
fn no_cookie(cookie: Cookie) -> &'static str {
    if cookie.is_secure {
        "Your browser did not send the cookie back. It is sent over https only: open these pages at the https address of \
         `public_url`, or set `listen_admin` to give admins an address of their own."
    } else {
        "Your browser did not send the cookie back: allow cookies for this address and try again."
    }
}

/// Opens a session that lasts as long as the token of this digest is configured.
async fn open(app: &AppState, digest: &[u8; 32]) -> Result<Viewer, Problem> {
    let (secret, now) = (Secret::random(), now());
    let session = Session {
        id: secret.id(),
        token_proof: secret.prove_token(digest),
        created_at: now,
        expires_at: after(now, IDLE),
    };
    app.store.open_session(&session).await?;
    Ok(Viewer { secret, name: None })
}

/// `POST /admin/logout`.
pub async fn log_out(
    State(app): SharedState,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(viewer): Extension<Viewer>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    app.store.end_session(&viewer.secret.id()).await?;
    tracing::info!("an admin logged out");
    let mut response = Redirect::to(LOGIN).into_response();
    let cookie = cookie(&app, &headers, peer.ip());
    response.headers_mut().append(header::SET_COOKIE, cookie.clear());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_leads_to_our_own_pages_only() {
        for ours in ["/admin/", "/admin/alerts?state=failed"] {
            assert_eq!(place_after(ours), ours);
        }
        for foreign in [
            "",
            "//evil.example",
            "https://evil.example/admin/",
            "/admin",
            "/admin/\\evil",
            "/v1/limit",
        ] {
            assert_eq!(place_after(foreign), "/admin/");
        }
    }
}
