//! Opt-outs: the list, newest first, with adding, removing, files in and out. A number in the list is masked, and its buttons
//! name it by a reference that says nothing to anybody else.

use super::{
    actions,
    asked::Asked,
    failure::Failure,
    form::Fields,
    layout::{self, Notice, Page, Section},
    rendering::view,
    viewer::{Viewer, is_same},
};
use crate::{
    domain::{
        phone::{self, PhoneNumber},
        text::clean_line,
    },
    http::{
        admin::api::{
            opt_out_files::{self, Import},
            opt_outs::{self, MAX_LINE},
            query::NO_PHONE,
        },
        deadline::now,
        error::{Kind, Problem},
        state::{AppState, SharedState},
    },
    store::{NewOptOut, OptOut},
};
use axum::{
    Extension,
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use jiff::Timestamp;
use minijinja::context;
use serde_json::json;

const PATH: &str = "/admin/opt-outs";
/// How many stand on a page.
const PAGE: i64 = 50;
/// Nobody turns further pages than this; whoever looks for a number searches for it.
const MAX_PAGE: i64 = 2_000;

/// What a list is shown with, after an action.
#[derive(Default)]
struct Shown {
    status: StatusCode,
    notice: Option<Notice>,
    revealed: Option<String>,
    import: Option<Import>,
    /// What was typed into a form that was refused.
    typed: Fields,
}

/// `GET /admin/opt-outs`.
pub async fn list(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let asked = Asked::of(&uri, &["phone", "page"]);
    let shown = Shown {
        notice: Notice::of(&uri),
        ..Shown::default()
    };
    show(&app, &viewer, &asked, shown).await
}

async fn show(app: &AppState, viewer: &Viewer, asked: &Asked, shown: Shown) -> Result<Response, Failure> {
    let page = asked.get("page").and_then(|page| page.parse::<i64>().ok()).unwrap_or(1);
    let page = page.clamp(1, MAX_PAGE);
    let mut found = match asked.get("phone") {
        Some(phone) => search(app, phone).await?.into_iter().collect(),
        None => app.store.newest_opt_outs((page - 1) * PAGE, PAGE + 1).await?,
    };
    let has_next = found.len() > usize::try_from(PAGE).unwrap_or(usize::MAX);
    found.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let rows: Vec<_> = found
        .iter()
        .map(|found| row(viewer, found, shown.revealed.as_deref()))
        .collect();
    let link = |page: i64| format!("{PATH}?page={page}");
    let view = context! {
        asked => asked.values(),
        opt_outs => view(&rows),
        page,
        next => has_next.then(|| link(page + 1)),
        previous => (page > 1).then(|| link(page - 1)),
        import => shown.import.as_ref().map(view),
        typed => context! {
            phone => shown.typed.text("phone"),
            reason => shown.typed.text("reason"),
            lines => shown.typed.text("lines"),
        },
    };
    let page = Page {
        template: "opt_outs.html",
        section: Section::OptOuts,
        title: "Opt-outs".to_owned(),
        notice: shown.notice,
        view,
    };
    layout::page_with(app, viewer, shown.status, page).await
}

/// The entry of a number, in any writing; `None` also for what is no number.
async fn search(app: &AppState, phone: &str) -> Result<Option<OptOut>, Problem> {
    match opt_outs::find(app, phone).await {
        Ok(found) => Ok(Some(found)),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => Ok(None),
        Err(problem) => Err(problem),
    }
}

fn row(viewer: &Viewer, found: &OptOut, revealed: Option<&str>) -> serde_json::Value {
    let is_revealed = revealed == Some(found.phone.as_str());
    json!({
        "phone": if is_revealed { found.phone.clone() } else { phone::mask(&found.phone) },
        "is_revealed": is_revealed,
        "staff_id": found.staff_id,
        "reason": found.reason,
        "opted_out_at": found.opted_out_at,
        "message_id": found.message_id,
        "reference": reference(viewer, found),
    })
}

/// Names an entry without telling its number: when it was noted, and what only this session can compare the number with.
fn reference(viewer: &Viewer, found: &OptOut) -> String {
    let at = found.opted_out_at.as_millisecond();
    format!("{at}.{}", viewer.secret.reference(&found.phone))
}

/// The entry that a reference names.
async fn named(app: &AppState, viewer: &Viewer, reference: &str) -> Result<OptOut, Problem> {
    let gone = || Problem::not_found("This number is not on the list any more.");
    let (at, tag) = reference.split_once('.').ok_or_else(gone)?;
    let at = at
        .parse()
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .ok_or_else(gone)?;
    let noted = app.store.opt_outs_at(at).await?;
    let found = noted
        .into_iter()
        .find(|found| is_same(&viewer.secret.reference(&found.phone), tag));
    found.ok_or_else(gone)
}

/// `GET /admin/opt-outs/remove?entry=…`: asks before it removes.
pub async fn confirm_removal(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let asked = Asked::of(&uri, &["entry"]);
    let found = named(&app, &viewer, asked.get("entry").unwrap_or_default()).await?;
    let page = Page {
        template: "removal.html",
        section: Section::OptOuts,
        title: "Remove this opt-out?".to_owned(),
        notice: None,
        view: context! { opt_out => view(&row(&viewer, &found, None)) },
    };
    layout::page(&app, &viewer, page).await
}

/// `GET /admin/opt-outs.csv`: all numbers, in full.
pub async fn export(state: SharedState) -> Result<Response, Failure> {
    tracing::info!("an admin was given all opted-out numbers as a file");
    Ok(opt_out_files::export(state).await?)
}

/// `POST /admin/opt-outs`.
pub async fn act(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Failure> {
    let result = match fields.text("action").as_str() {
        "add" => add(&app, &fields).await.map(Ok),
        "remove" => remove(&app, &viewer, &fields).await.map(Ok),
        "import" => import(&app, &fields).await.map(Err),
        "reveal" => reveal(&app, &viewer, &fields).await.map(Err),
        _ => Err(actions::unknown()),
    };
    let shown = match result {
        Ok(Ok(word)) => return Ok(layout::done(PATH, word)),
        Ok(Err(shown)) => shown,
        Err(problem) if problem.status().is_client_error() => Shown {
            status: problem.status(),
            notice: Some(Notice::bad(layout::sentence(&problem))),
            typed: fields.clone(),
            ..Shown::default()
        },
        Err(problem) => return Err(problem.into()),
    };
    // The list is shown as it was.
    let mut asked = Asked::of(&Uri::from_static(PATH), &[]);
    for name in ["page", "phone"] {
        let value = fields.text(&format!("list_{name}"));
        if !value.is_empty() {
            asked.set(name, value);
        }
    }
    show(&app, &viewer, &asked, shown).await
}

async fn add(app: &AppState, fields: &Fields) -> Result<&'static str, Problem> {
    let raw = fields.text("phone");
    let phone = PhoneNumber::parse(&raw, app.default_region).ok_or_else(|| Problem::field("/phone", NO_PHONE))?;
    let reason = clean_line(&fields.text("reason"), MAX_LINE);
    let new = NewOptOut {
        phone,
        phone_text: clean_line(&raw, MAX_LINE),
        staff_id: None,
        reason: (!reason.is_empty()).then_some(reason),
        opted_out_at: now(),
    };
    let (_, is_new) = opt_outs::add_one(app, &new).await?;
    Ok(if is_new { "opted-out" } else { "opted-out-before" })
}

async fn remove(app: &AppState, viewer: &Viewer, fields: &Fields) -> Result<&'static str, Problem> {
    let found = named(app, viewer, &fields.text("entry")).await?;
    opt_outs::remove_one(app, &found.phone).await?;
    Ok("opted-in")
}

async fn import(app: &AppState, fields: &Fields) -> Result<Shown, Problem> {
    let (file, lines) = (fields.bytes("file"), fields.bytes("lines"));
    let bytes = if file.is_empty() { lines } else { file };
    if bytes.is_empty() {
        let detail = "Choose a file, or write the numbers into the field below it, one on each line.";
        return Err(Problem::new(Kind::InvalidFields, detail));
    }
    Ok(Shown {
        import: Some(opt_out_files::import_file(app, bytes).await?),
        ..Shown::default()
    })
}

async fn reveal(app: &AppState, viewer: &Viewer, fields: &Fields) -> Result<Shown, Problem> {
    let found = named(app, viewer, &fields.text("entry")).await?;
    tracing::info!(
        phone = phone::mask(&found.phone),
        "an admin was shown an opted-out number"
    );
    Ok(Shown {
        revealed: Some(found.phone),
        ..Shown::default()
    })
}
