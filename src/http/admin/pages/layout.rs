//! What all pages have: the frame with its navigation, notices, the banner of test mode, and the headers that keep a browser
//! from doing with a page what it should not. Absent: what stands in the middle.

use super::{assets, failure::Failure, viewer::Viewer};
use crate::{
    domain::route::ProviderName,
    http::{error::Problem, state::AppState},
};
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use minijinja::{Value, context};

/// A page may show our own style sheet and images and send forms to us; nothing else, and nowhere within another page.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; \
    base-uri 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Gives every answer of the pages its headers. What may be kept says so itself.
pub async fn set_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The parts of the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Overview,
    Alerts,
    Deliveries,
    Inbound,
    OptOuts,
    Staff,
    Reports,
    Webhooks,
    Settings,
    /// No part of it.
    None,
}

const SECTIONS: [(Section, &str, &str); 9] = [
    (Section::Overview, "/admin/", "Overview"),
    (Section::Alerts, "/admin/alerts", "Alerts"),
    (Section::Deliveries, "/admin/deliveries", "Deliveries"),
    (Section::Inbound, "/admin/inbound", "Inbound"),
    (Section::OptOuts, "/admin/opt-outs", "Opt-outs"),
    (Section::Staff, "/admin/staff", "Staff"),
    (Section::Reports, "/admin/reports", "Reports"),
    (Section::Webhooks, "/admin/webhooks", "Webhooks"),
    (Section::Settings, "/admin/settings", "Settings"),
];

/// A message at the top of a page.
pub struct Notice {
    tone: &'static str,
    text: String,
}

impl Notice {
    pub fn good(text: impl Into<String>) -> Self {
        Self {
            tone: "good",
            text: text.into(),
        }
    }

    pub fn bad(text: impl Into<String>) -> Self {
        Self {
            tone: "bad",
            text: text.into(),
        }
    }

    /// What was done before the browser was sent to this page: `?done=…`. Only words of ours say anything.
    pub fn of(uri: &Uri) -> Option<Self> {
        let query = uri.query().unwrap_or_default();
        let (_, word) = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "done")?;
        DONE.iter()
            .find(|(known, _)| *known == word)
            .map(|(_, text)| Self::good(*text))
    }
}

/// What an action says once it is done, by its word in the address.
const DONE: [(&str, &str); 22] = [
    (
        "report-asked",
        "The report is being made, and those of missed days before it. Reload this page in a moment.",
    ),
    ("resent", "It is being sent again: see the newest delivery below."),
    ("canceled", "Canceled: it will not be sent."),
    (
        "all-canceled",
        "Canceled: what had not been handed to the provider will not be sent.",
    ),
    ("none-canceled", "There was nothing left to cancel."),
    (
        "acknowledged",
        "Acknowledged: it is shown to everybody who looks, and to whoever wants to acknowledge it later.",
    ),
    ("acknowledged-before", "Somebody was first: nothing was changed."),
    ("opted-out", "Added: this number will not be texted any more."),
    (
        "opted-out-before",
        "This number was on the list already; its entry stays as it was.",
    ),
    ("opted-in", "Removed: this number can be texted again."),
    (
        "staff-added",
        "Added: tickets that name this person without a phone reach them from now on.",
    ),
    ("staff-changed", "Saved: the new entry counts from now on."),
    ("staff-removed", "Removed from the directory."),
    ("limit", "The daily limit is changed, for today and the days to come."),
    ("limit-configured", "The daily limit of the configuration holds again."),
    ("test-on", "Test mode is on: nothing leaves this machine from now on."),
    ("test-off", "Test mode is off: they go where `sms.driver` says again."),
    (
        "webhook-enabled",
        "Enabled: it goes on where it stopped. Reload this page in a moment.",
    ),
    (
        "webhook-disabled",
        "Disabled: nothing is posted to it until you enable it. What happens is kept.",
    ),
    (
        "webhook-replayed",
        "What is kept since then is posted once more. Reload this page in a moment.",
    ),
    (
        "mail-soon",
        "The mail server is being tried again. Reload this page in a moment.",
    ),
    (
        "probe-soon",
        "The provider is being asked again. Reload this page in a moment.",
    ),
];

/// What stands in the middle of a page.
pub struct Page {
    pub template: &'static str,
    pub section: Section,
    pub title: String,
    pub notice: Option<Notice>,
    pub view: Value,
}

/// Makes a page in its frame.
pub async fn page(app: &AppState, viewer: &Viewer, page: Page) -> Result<Response, Failure> {
    page_with(app, viewer, StatusCode::OK, page).await
}

/// The same with another status.
pub async fn page_with(app: &AppState, viewer: &Viewer, status: StatusCode, page: Page) -> Result<Response, Failure> {
    let is_test_mode = app.store.test_mode().await?;
    let html = frame(app, viewer, is_test_mode, page)?;
    Ok((status, Html(html)).into_response())
}

/// The page of a problem. It needs no database.
pub async fn problem_page(app: &AppState, viewer: &Viewer, problem: &Problem) -> Response {
    let status = problem.status();
    let title = match status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::FORBIDDEN => "Nothing was changed",
        StatusCode::CONFLICT => "Not possible now",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        StatusCode::SERVICE_UNAVAILABLE => "Not available now",
        status if status.is_client_error() => "This cannot be read",
        _ => "An error inside Nightbell",
    };
    let view = context! { message => sentence(problem), status => status.as_u16() };
    let page = Page {
        template: "error.html",
        section: Section::None,
        title: title.to_owned(),
        notice: None,
        view,
    };
    let is_test_mode = app.store.test_mode().await.unwrap_or(false);
    let mut response = match frame(app, viewer, is_test_mode, page) {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => (status, problem.message()).into_response(),
    };
    problem.set_headers(response.headers_mut());
    response
}

fn frame(app: &AppState, viewer: &Viewer, is_test_mode: bool, page: Page) -> Result<String, Problem> {
    let sections = SECTIONS.map(|(section, href, label)| context! { href => Value::from_safe_string(href.to_owned()), label, current => section == page.section });
    let notice = page
        .notice
        .map(|notice| context! { tone => notice.tone, text => notice.text });
    let frame = context! {
        title => page.title,
        sections => sections.to_vec(),
        notice,
        is_test_mode,
        is_log_driver => app.route.provider == ProviderName::Log,
        csrf => viewer.secret.csrf(),
        admin => viewer.name.clone(),
        style => Value::from_safe_string(assets::style()),
        icon => Value::from_safe_string(assets::icon()),
    };
    app.pages.render(page.template, &context! { frame, ..page.view })
}

/// Sends the browser on after something was done, so that a reload does not do it again.
pub fn done(path: &str, word: &str) -> Response {
    Redirect::to(&format!("{path}?done={word}")).into_response()
}

/// What was found; or a notice of what is wrong with what was asked for, to be shown above the form.
pub fn or_notice<T>(found: Result<T, Problem>) -> Result<(Option<T>, Option<Notice>), Problem> {
    match found {
        Ok(found) => Ok((Some(found), None)),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            Ok((None, Some(Notice::bad(sentence(&problem)))))
        }
        Err(problem) => Err(problem),
    }
}

/// What is wrong, as a sentence.
pub fn sentence(problem: &Problem) -> String {
    let message = capital(&problem.message());
    let end = if message.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{message}{end}")
}

/// A text that begins with a capital letter.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), chars.as_str())
}
