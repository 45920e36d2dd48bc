//! `/v1/staff`: the staff directory, people whom helpdesks name without telling their phones. Absent: many of them at once
//! (see `staff_files`).

use super::query::{Listed, PageSize, Phones, Query, ShowQuery};
use crate::{
    domain::{
        json::{Fault, Reader},
        phone::{self, PhoneNumber, Region},
        staff::{Draft, Person},
        text::clean_line,
    },
    http::{
        body,
        deadline::now,
        error::{Fields, ForAdmins, JsonBody, Problem},
        state::{AppState, SharedState},
    },
    store::{Page, PutStaff, StaffFilter, StaffMember},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Nobody manages more groups one by one; whoever manages all of them has `*`.
const MAX_GROUPS: usize = 100;

/// Which people, and how they are shown.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Of which source.
    #[param(nullable = false, example = "default")]
    source: Option<String>,
    /// A part of an id, login, e-mail address, name or managed group; or a whole number, in any writing.
    #[param(nullable = false, example = "grace")]
    q: Option<String>,
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

/// Lists the staff directory, by sources and ids
#[utoipa::path(
    get,
    path = "/v1/staff",
    operation_id = "listStaff",
    tag = "staff",
    params(ListQuery),
    responses(
        (status = 200, body = Page<StaffMember>, description = "A page of people", headers(
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
) -> Result<Listed<StaffMember>, Problem> {
    let page = search(&app, &query).await?;
    Ok(Listed { page, uri })
}

/// The people that are asked for.
pub async fn search(app: &AppState, query: &ListQuery) -> Result<Page<StaffMember>, Problem> {
    let named = query.source.as_deref().and_then(|source| region_of(app, source));
    let text = query.q.as_deref().map(|text| clean_line(text, usize::MAX));
    let filter = StaffFilter {
        source: query.source.clone(),
        phone: text
            .as_deref()
            .and_then(|text| PhoneNumber::parse(text, named.unwrap_or(app.default_region))),
        text,
    };
    let page = app.store.staff(&filter, query.cursor.as_deref(), query.limit.0).await?;
    Ok(page.map(|member| shown(member, query.reveal)))
}

/// Shows a person of the directory
#[utoipa::path(
    get,
    path = "/v1/staff/{source}/{staff_id}",
    operation_id = "showStaffMember",
    tag = "staff",
    params(
        ("source" = String, Path, description = "The source whose staff it is", example = "default"),
        ("staff_id" = String, Path, description = "The helpdesk's own id of the person", example = "2"),
        ShowQuery,
    ),
    responses((status = 200, body = StaffMember, description = "The person"), ForAdmins, Fields),
    security(("admin" = []))
)]
pub async fn show(
    State(app): SharedState,
    Path((source, staff_id)): Path<(String, String)>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<StaffMember>, Problem> {
    let member = find(&app, &source, &staff_id).await?;
    Ok(Json(shown(member, query.reveal)))
}

/// An entry, its number in full.
pub async fn find(app: &AppState, source: &str, staff_id: &str) -> Result<StaffMember, Problem> {
    let found = app.store.staff_member(source, staff_id).await?;
    found.ok_or_else(not_found)
}

/// Adds a person to the directory, or replaces their entry
///
/// From now on this person is told of critical tickets whose events name them without a usable phone: by this id, else by
/// login, e-mail address or name, unless somebody else shares those. The whole entry is replaced: what is left out is gone.
#[utoipa::path(
    put,
    path = "/v1/staff/{source}/{staff_id}",
    operation_id = "putStaffMember",
    tag = "staff",
    params(
        ("source" = String, Path, description = "The source whose staff it is", example = "default"),
        ("staff_id" = String, Path, description = "The helpdesk's own id of the person", example = "2"),
        ShowQuery,
    ),
    request_body = StaffBody,
    responses(
        (status = 200, body = StaffMember, description = "It was there, and is replaced"),
        (status = 201, body = StaffMember, description = "It is new"),
        ForAdmins,
        JsonBody,
    ),
    security(("admin" = []))
)]
pub async fn put(
    State(app): SharedState,
    Path((source, staff_id)): Path<(String, String)>,
    Query(query): Query<ShowQuery>,
    headers: HeaderMap,
    raw: Body,
) -> Result<(StatusCode, Json<StaffMember>), Problem> {
    let document = body::read_json(&headers, raw).await?;
    let draft = read_body(staff_id, &document).map_err(Problem::fields)?;
    let person = read(&app, &source, &draft).map_err(Problem::fields)?;
    let status = match put_one(&app, &person).await?.added {
        0 => StatusCode::OK,
        _ => StatusCode::CREATED,
    };
    let member = find(&app, &person.source, &person.staff_id).await?;
    Ok((status, Json(shown(member, query.reveal))))
}

/// Removes a person from the directory
///
/// From now on events that name this person without a usable phone reach nobody by it. What was owed before is sent.
#[utoipa::path(
    delete,
    path = "/v1/staff/{source}/{staff_id}",
    operation_id = "removeStaffMember",
    tag = "staff",
    params(
        ("source" = String, Path, description = "The source whose staff it is", example = "default"),
        ("staff_id" = String, Path, description = "The helpdesk's own id of the person", example = "2"),
    ),
    responses((status = 204, description = "They are gone"), ForAdmins),
    security(("admin" = []))
)]
pub async fn remove(
    State(app): SharedState,
    Path((source, staff_id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    remove_one(&app, &source, &staff_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a person off the directory.
pub async fn remove_one(app: &AppState, source: &str, staff_id: &str) -> Result<(), Problem> {
    if !app.store.remove_staff(source, staff_id).await? {
        return Err(not_found());
    }
    tracing::info!(source, staff.id = staff_id, "removed from the staff directory");
    Ok(())
}

/// Adds a person, or replaces their entry.
pub async fn put_one(app: &AppState, person: &Person) -> Result<PutStaff, Problem> {
    let put = app.store.put_staff(std::slice::from_ref(person), now()).await?;
    let (source, staff_id) = (&person.source, &person.staff_id);
    tracing::info!(%source, staff.id = %staff_id, new = put.added > 0, "put into the staff directory");
    Ok(put)
}

/// Reads an entry by the rules of its source, which must be configured. Names every bad field.
pub fn read(app: &AppState, source: &str, draft: &Draft) -> Result<Person, Vec<Fault>> {
    let region = region_of(app, source);
    let read = draft.read(source, region.unwrap_or(app.default_region));
    if region.is_some() {
        return read;
    }
    let known: Vec<String> = app.intake.sources().keys().map(|name| format!("`{name}`")).collect();
    let (source, known) = (clean_line(source, 60), known.join(", "));
    let unknown = Fault {
        pointer: "/source".to_owned(),
        detail: format!("`{source}` is not a configured source: write one of {known}"),
    };
    Err(std::iter::once(unknown)
        .chain(read.err().into_iter().flatten())
        .collect())
}

fn region_of(app: &AppState, source: &str) -> Option<Region> {
    app.intake.source(source).map(|source| source.region)
}

/// An entry as it may be shown.
pub fn shown(mut member: StaffMember, phones: Phones) -> StaffMember {
    if phones == Phones::Masked {
        member.phone = phone::mask(&member.phone);
    }
    member
}

fn not_found() -> Problem {
    Problem::not_found("the staff directory has nobody with this id of this source")
}

/// Reads the body of a request.
fn read_body(staff_id: String, document: &Value) -> Result<Draft, Vec<Fault>> {
    let root = Reader::root(document);
    let mut faults: Vec<Fault> = Vec::new();
    root.expect_object(&mut faults);
    let mut text = |name: &str| root.member(name).text(&mut faults).unwrap_or_default().to_owned();
    let mut draft = Draft {
        staff_id,
        login: text("login"),
        email: text("email"),
        name: text("name"),
        phone: text("phone"),
        role: text("role"),
        region: text("region"),
        manages: Vec::new(),
    };
    for group in root.member("manages").items(&mut faults, MAX_GROUPS) {
        draft.manages.extend(group.text(&mut faults).map(str::to_owned));
    }
    if faults.is_empty() { Ok(draft) } else { Err(faults) }
}

/// What is to be known of a person. Texts are cut at 200 characters.
#[derive(ToSchema)]
#[schema(as = NewStaffMember)]
#[expect(dead_code, reason = "describes what `read_body` reads; a test compares the two")]
pub struct StaffBody {
    /// The name that the person logs in to the helpdesk with.
    #[schema(examples("grace"))]
    login: Option<String>,
    #[schema(examples("grace@acme.example"))]
    email: Option<String>,
    #[schema(examples("Grace Hopper"))]
    name: Option<String>,
    /// In any writing; best with `+` and country code.
    #[schema(examples("+14155550101"))]
    phone: String,
    /// For events that say none.
    #[schema(examples("assignee"))]
    role: Option<String>,
    /// Whose rules a number without a country code follows, like `DE`; otherwise those of the source.
    #[schema(examples("US"))]
    region: Option<String>,
    /// The groups (queues, departments, teams) of whose critical tickets this person is told too, in the role `manager`; `*`
    /// is every group. A comma separates two groups.
    #[schema(max_items = 100, examples("Billing"))]
    manages: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use utoipa::PartialSchema;

    #[test]
    fn an_entry_is_read_as_its_schema_says() {
        let schema = serde_json::to_value(StaffBody::schema()).unwrap();
        let members = schema["properties"].as_object().unwrap();
        let example: Value = members
            .iter()
            .map(|(name, member)| match &member["items"] {
                Value::Null => (name.clone(), member["examples"][0].clone()),
                items => (name.clone(), json!([items["examples"][0]])),
            })
            .collect();
        let read = |document: &Value| {
            let draft = read_body("2".to_owned(), document)?;
            draft.read("default", Region::UNKNOWN)
        };

        let person = read(&example).unwrap_or_else(|faults| panic!("{faults:?}"));

        assert_eq!(person.phone.as_e164(), "+14155550101");
        assert_eq!(person.keys().len(), 5, "{:?}", person.keys());
        assert!(person.role.is_some() && person.region.is_some());
        for name in members.keys() {
            let mut wrong = example.clone();
            wrong[name] = json!(true);
            let faults = read(&wrong).err().unwrap();
            assert_eq!(faults[0].pointer, format!("/{name}"));
        }
        let faults = read(&json!({"manages": [7]})).err().unwrap();
        assert_eq!(faults[0].pointer, "/manages/0");
    }
}
