//! The staff directory: the list with its search, the form of a person, removing, files in and out. Numbers are masked until
//! somebody asks for one, and the form of a person does not tell the one that it keeps.

use super::{
    actions,
    asked::Asked,
    failure::Failure,
    form::Fields,
    layout::{self, Notice, Page, Section},
    rendering::view,
    viewer::Viewer,
};
use crate::{
    domain::{event::DEFAULT_SOURCE, json::Fault, phone, staff::Draft},
    http::{
        admin::api::{
            query::Phones,
            staff::{self, ListQuery},
            staff_files::{self, StaffImport},
        },
        error::{Kind, Problem},
        state::{AppState, SharedState},
    },
    store::{self, StaffMember},
};
use axum::{
    Extension,
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use minijinja::{Value, context};
use std::collections::BTreeMap;

const PATH: &str = "/admin/staff";
/// The fields of the search.
const SEARCH: [&str; 3] = ["source", "q", "cursor"];

/// What a list is shown with, after an action.
#[derive(Default)]
struct Shown {
    status: StatusCode,
    notice: Option<Notice>,
    /// Whose number is to be shown.
    revealed: Option<StaffMember>,
    import: Option<StaffImport>,
    lines: String,
}

/// `GET /admin/staff`.
pub async fn list(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let asked = Asked::of(&uri, &SEARCH);
    let shown = Shown {
        notice: Notice::of(&uri),
        ..Shown::default()
    };
    show(&app, &viewer, &asked, shown).await
}

async fn show(app: &AppState, viewer: &Viewer, asked: &Asked, shown: Shown) -> Result<Response, Failure> {
    let found = search(app, asked).await?;
    let revealed = shown.revealed.as_ref();
    let view = context! {
        asked => asked.values(),
        is_narrowed => asked.is_narrowed(),
        people => view(&found.items),
        revealed => revealed.map(view),
        sources => sources(app),
        next => asked.next(found.next.as_deref()),
        first => asked.first(),
        import => shown.import.as_ref().map(view),
        lines => shown.lines,
    };
    let page = Page {
        template: "staff.html",
        section: Section::Staff,
        title: "Staff".to_owned(),
        notice: shown.notice,
        view,
    };
    layout::page_with(app, viewer, shown.status, page).await
}

async fn search(app: &AppState, asked: &Asked) -> Result<store::Page<StaffMember>, Problem> {
    staff::search(app, &asked.read::<ListQuery>()?).await
}

/// The names of the sources that are configured.
fn sources(app: &AppState) -> Vec<String> {
    app.intake.sources().keys().cloned().collect()
}

/// What the form of a person is shown with.
struct Form {
    source: String,
    draft: Draft,
    /// The masked number of the entry that is changed; `None` for a new one.
    kept_phone: Option<String>,
    faults: Vec<Fault>,
}

impl Form {
    fn of(member: StaffMember) -> Self {
        let text = Option::unwrap_or_default;
        Self {
            kept_phone: Some(phone::mask(&member.phone)),
            draft: Draft {
                staff_id: member.staff_id,
                login: text(member.login),
                email: text(member.email),
                name: text(member.name),
                phone: String::new(),
                role: text(member.role),
                region: text(member.region),
                manages: vec![member.manages.as_text()],
            },
            source: member.source,
            faults: Vec::new(),
        }
    }

    fn view(&self, app: &AppState) -> Value {
        let Draft {
            staff_id,
            login,
            email,
            name,
            phone,
            role,
            region,
            manages,
        } = &self.draft;
        let faults = self.faults.iter();
        let faults: BTreeMap<&str, String> = faults
            .map(|fault| (fault.pointer.trim_start_matches('/'), layout::capital(&fault.detail)))
            .collect();
        context! {
            source => self.source.as_str(),
            sources => sources(app),
            typed => context! { staff_id, login, email, name, phone, role, region, manages => manages.join(", ") },
            kept_phone => self.kept_phone.as_deref(),
            faults => view(&faults),
        }
    }
}

/// `GET /admin/staff/edit`: a new person; with `?source=…&staff_id=…` one that is there.
pub async fn edit(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let asked = Asked::of(&uri, &["source", "staff_id"]);
    let source = asked.get("source").unwrap_or(DEFAULT_SOURCE);
    let form = match asked.get("staff_id") {
        Some(staff_id) => Form::of(staff::find(&app, source, staff_id).await?),
        None => Form {
            source: source.to_owned(),
            draft: Draft::default(),
            kept_phone: None,
            faults: Vec::new(),
        },
    };
    show_form(&app, &viewer, form).await
}

async fn show_form(app: &AppState, viewer: &Viewer, form: Form) -> Result<Response, Failure> {
    let is_new = form.kept_phone.is_none();
    let (status, notice) = if form.faults.is_empty() {
        (StatusCode::OK, None)
    } else {
        let notice = Notice::bad("Nothing was saved yet: the fields below say what is wrong.");
        (StatusCode::UNPROCESSABLE_ENTITY, Some(notice))
    };
    let page = Page {
        template: "person.html",
        section: Section::Staff,
        title: if is_new { "Add a person" } else { "Change a person" }.to_owned(),
        notice,
        view: form.view(app),
    };
    layout::page_with(app, viewer, status, page).await
}

/// `GET /admin/staff/remove?source=…&staff_id=…`: asks before it removes.
pub async fn confirm_removal(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let asked = Asked::of(&uri, &["source", "staff_id"]);
    let text = |name: &str| asked.get(name).unwrap_or_default();
    let found = staff::find(&app, text("source"), text("staff_id")).await?;
    let page = Page {
        template: "staff_removal.html",
        section: Section::Staff,
        title: "Remove this person?".to_owned(),
        notice: None,
        view: context! { person => view(&staff::shown(found, Phones::Masked)) },
    };
    layout::page(&app, &viewer, page).await
}

/// `GET /admin/staff.csv`: everybody, with numbers in full.
pub async fn export(state: SharedState) -> Result<Response, Failure> {
    tracing::info!("an admin was given the staff directory as a file");
    Ok(staff_files::export(state).await?)
}

/// `POST /admin/staff`.
pub async fn act(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Failure> {
    let (source, staff_id) = (fields.text("source"), fields.text("staff_id"));
    let shown = match fields.text("action").as_str() {
        action @ ("add" | "change") => {
            return match save(&app, &fields, action == "add").await? {
                Ok(word) => Ok(layout::done(PATH, word)),
                Err(form) => show_form(&app, &viewer, form).await,
            };
        }
        "remove" => {
            staff::remove_one(&app, &source, &staff_id).await?;
            return Ok(layout::done(PATH, "staff-removed"));
        }
        "import" => import(&app, &fields).await?,
        "reveal" => reveal(&app, &source, &staff_id).await?,
        _ => return Err(actions::unknown().into()),
    };
    // The list is shown as it was.
    let mut asked = Asked::of(&Uri::from_static(PATH), &[]);
    for name in SEARCH {
        let value = fields.text(&format!("list_{name}"));
        if !value.is_empty() {
            asked.set(name, value);
        }
    }
    show(&app, &viewer, &asked, shown).await
}

/// Saves the form of a person, or gives it back with what is wrong. One that is new takes nobody's place, and without a
/// number one that is changed keeps theirs.
async fn save(app: &AppState, fields: &Fields, is_new: bool) -> Result<Result<&'static str, Form>, Problem> {
    let text = |name: &str| fields.text(name);
    let source = text("source");
    let mut draft = Draft {
        staff_id: text("staff_id"),
        login: text("login"),
        email: text("email"),
        name: text("name"),
        phone: text("phone"),
        role: text("role"),
        region: text("region"),
        manages: vec![text("manages")],
    };
    let typed = draft.clone();
    let mut kept_phone = None;
    if !is_new {
        let kept = staff::find(app, &source, &draft.staff_id).await?.phone;
        kept_phone = Some(phone::mask(&kept));
        if draft.phone.is_empty() {
            draft.phone = kept;
        }
    }
    let faults = match staff::read(app, &source, &draft) {
        Ok(person) if is_new && is_there(app, &source, &person.staff_id).await? => vec![Fault {
            pointer: "/staff_id".to_owned(),
            detail:
                "somebody with this id is in the directory already: look for them in the list, and change that entry"
                    .to_owned(),
        }],
        Ok(person) => {
            staff::put_one(app, &person).await?;
            return Ok(Ok(if is_new { "staff-added" } else { "staff-changed" }));
        }
        Err(faults) => faults,
    };
    Ok(Err(Form {
        source,
        draft: typed,
        kept_phone,
        faults,
    }))
}

async fn is_there(app: &AppState, source: &str, staff_id: &str) -> Result<bool, Problem> {
    Ok(app.store.staff_member(source, staff_id).await?.is_some())
}

/// Reads the file of a form, or the lines that were written into it; what is wrong with it is said above the list.
async fn import(app: &AppState, fields: &Fields) -> Result<Shown, Problem> {
    let (file, lines) = (fields.bytes("file"), fields.bytes("lines"));
    let bytes = if file.is_empty() { lines } else { file };
    let imported = if bytes.is_empty() {
        let detail = "Choose a file, or copy its lines into the field below it.";
        Err(Problem::new(Kind::InvalidFields, detail))
    } else {
        staff_files::import_file(app, &fields.text("source"), bytes).await
    };
    match imported {
        Ok(import) => Ok(Shown {
            import: Some(import),
            ..Shown::default()
        }),
        Err(problem) if problem.status().is_client_error() => Ok(Shown {
            status: problem.status(),
            notice: Some(Notice::bad(layout::sentence(&problem))),
            lines: fields.text("lines"),
            ..Shown::default()
        }),
        Err(problem) => Err(problem),
    }
}

async fn reveal(app: &AppState, source: &str, staff_id: &str) -> Result<Shown, Problem> {
    let found = staff::find(app, source, staff_id).await?;
    tracing::info!(
        source,
        staff.id = staff_id,
        "an admin was shown a number of the staff directory"
    );
    Ok(Shown {
        revealed: Some(found),
        ..Shown::default()
    })
}
