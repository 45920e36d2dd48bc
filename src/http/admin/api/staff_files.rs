//! `/v1/staff.csv`: the staff directory as a file that people keep in a spreadsheet.

use super::{
    csv_files::{self, AT_ONCE, HIDDEN, Layout, Line},
    query::Query,
    staff,
};
use crate::{
    domain::{
        event::DEFAULT_SOURCE,
        staff::{Draft, Person},
        text::clean_line,
    },
    http::{
        body,
        deadline::now,
        error::{Fields, FileBody, ForAdmins, Problem},
        state::{AppState, SharedState},
    },
    store::{StaffFilter, StaffMember},
};
use axum::{Json, body::Body, extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc};
use utoipa::{IntoParams, ToSchema};

const COLUMNS: [&str; 9] = [
    "source", "staff_id", "name", "phone", "email", "login", "role", "region", "manages",
];
/// Longer ids are cut where a refused line is named by one.
const MAX_SHOWN: usize = 40;

/// What became of the lines of a file.
#[derive(Serialize, ToSchema)]
pub struct StaffImport {
    /// People who are in the directory now and were not before.
    pub added: u64,
    /// People whose entries say something else than before.
    pub changed: u64,
    /// Lines that say what the directory said already.
    pub unchanged: u64,
    refused: Vec<RefusedPerson>,
}

/// A line that was left out.
#[derive(Serialize, ToSchema)]
pub struct RefusedPerson {
    /// From 1, as a text editor counts.
    line: u64,
    /// The id that stands there.
    staff_id: String,
    detail: String,
}

/// Exports the staff directory as CSV
///
/// For a spreadsheet, with numbers in full: no cell is read as a formula, and the file can be imported again.
#[utoipa::path(
    get,
    path = "/v1/staff.csv",
    operation_id = "exportStaff",
    tag = "staff",
    responses(
        (status = 200, body = String, content_type = "text/csv", description = "Columns: `source`, `staff_id`, `name`, `phone`, `email`, `login`, `role`, `region`, `manages`"),
        ForAdmins,
    ),
    security(("admin" = []))
)]
pub async fn export(State(app): SharedState) -> Result<Response, Problem> {
    let name = format!("staff-{}.csv", app.today());
    let lines = move |after: Option<String>| {
        let app = Arc::clone(&app);
        async move {
            let all = StaffFilter::default();
            let page = app.store.staff(&all, after.as_deref(), csv_files::at_once()).await?;
            Ok((page.items.iter().map(cells).collect(), page.next))
        }
    };
    csv_files::export(&name, &COLUMNS, lines).await
}

fn cells(member: &StaffMember) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    vec![
        member.source.clone(),
        member.staff_id.clone(),
        text(&member.name),
        member.phone.clone(),
        text(&member.email),
        text(&member.login),
        text(&member.role),
        text(&member.region),
        member.manages.as_text(),
    ]
}

/// Whose staff is in a file.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// The source of lines that name none; `default` if nothing is given.
    #[param(nullable = false, example = "default")]
    source: Option<String>,
}

/// Imports people into the staff directory from CSV
///
/// The first line names the columns: `staff_id`, `phone`, and any of `source`, `name`, `email`, `login`, `role`, `region`,
/// `manages` (groups, with commas between them); others are ignored. Commas, semicolons or tabs separate them. Each line
/// counts for itself and replaces the entry that the person has, so a file may be sent again; who is not in it stays.
#[utoipa::path(
    post,
    path = "/v1/staff.csv",
    operation_id = "importStaff",
    tag = "staff",
    params(ImportQuery),
    request_body(content(("text/csv")), description = "At most 16 MiB of UTF-8"),
    responses((status = 200, body = StaffImport, description = "What became of the lines"), ForAdmins, FileBody, Fields),
    security(("admin" = []))
)]
pub async fn import(
    State(app): SharedState,
    Query(query): Query<ImportQuery>,
    headers: HeaderMap,
    raw: Body,
) -> Result<Json<StaffImport>, Problem> {
    csv_files::expect_csv(&headers)?;
    let bytes = body::read(raw, body::FILE).await?;
    let source = query.source.as_deref().unwrap_or(DEFAULT_SOURCE);
    import_file(&app, source, &bytes).await.map(Json)
}

/// Puts the people of a file that was read into the directory; `source` is that of lines that name none.
pub async fn import_file(app: &AppState, source: &str, bytes: &[u8]) -> Result<StaffImport, Problem> {
    let text = csv_files::read_text(bytes)?;
    let File { people, refused } = read_file(app, source, text).ok_or_else(|| {
        let detail = "the first line does not name the columns, so nothing was read: write `staff_id`, `phone` and, if you like, \
            `name`, `email`, `login`, `role`, `region`, `manages`, `source` above them";
        Problem::field("", detail)
    })?;
    let (mut added, mut changed, now) = (0, 0, now());
    for some in people.chunks(AT_ONCE) {
        let put = app.store.put_staff(some, now).await?;
        added += put.added;
        changed += put.changed;
    }
    let lines = u64::try_from(people.len()).unwrap_or(u64::MAX);
    let unchanged = lines.saturating_sub(added + changed);
    tracing::info!(added, changed, unchanged, refused = refused.len(), "staff imported");
    Ok(StaffImport {
        added,
        changed,
        unchanged,
        refused,
    })
}

/// What a file says.
#[derive(Default)]
struct File {
    people: Vec<Person>,
    refused: Vec<RefusedPerson>,
}

/// Reads a file; `None` if its first line does not name the columns.
fn read_file(app: &AppState, source: &str, text: &str) -> Option<File> {
    let layout = Layout {
        key: "staff_id",
        unnamed: &[],
        region: app.default_region,
    };
    let (mut file, mut seen) = (File::default(), HashMap::new());
    let is_named = csv_files::read_lines(text, &layout, |line| {
        let person = read_line(app, source, line).and_then(|person| {
            let id = (person.source.clone(), person.staff_id.clone());
            match seen.insert(id, line.number) {
                None => Ok(person),
                Some(before) => Err(format!(
                    "this person stands in line {before} already: keep one of the two"
                )),
            }
        });
        match person {
            Ok(person) => file.people.push(person),
            Err(detail) => file.refused.push(RefusedPerson {
                line: line.number,
                staff_id: clean_line(line.cell("staff_id").unwrap_or_default(), MAX_SHOWN),
                detail,
            }),
        }
    });
    (is_named || text.trim().is_empty()).then_some(file)
}

/// Reads one line, or says all that is wrong with it.
fn read_line(app: &AppState, source: &str, line: &Line<'_>) -> Result<Person, String> {
    if line.hides_others {
        return Err(HIDDEN.to_owned());
    }
    let text = |name: &str| line.cell(name).unwrap_or_default().to_owned();
    let draft = Draft {
        staff_id: text("staff_id"),
        login: text("login"),
        email: text("email"),
        name: text("name"),
        phone: text("phone"),
        role: text("role"),
        region: text("region"),
        manages: vec![text("manages")],
    };
    let source = line.cell("source").unwrap_or(source);
    staff::read(app, source, &draft).map_err(|faults| {
        let faults = faults.into_iter();
        let said = faults.map(|fault| format!("`{}`: {}", fault.pointer.trim_start_matches('/'), fault.detail));
        said.collect::<Vec<_>>().join("; ")
    })
}
