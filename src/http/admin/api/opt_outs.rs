//! `/v1/opt-outs`: numbers that must not be texted. Absent: many of them at once (see `opt_out_files`).

use super::query::{Listed, NO_PHONE, PageQuery, Query};
use crate::{
    domain::{
        json::{Fault, Reader},
        phone::{PhoneNumber, Region},
        text::clean_line,
    },
    http::{
        body::{self, Id},
        deadline::now,
        error::{Fields, ForAdmins, JsonBody, Problem},
        state::{AppState, SharedState},
    },
    store::{NewOptOut, OptOut, Page},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use jiff::Timestamp;
use serde_json::Value;
use utoipa::ToSchema;

/// Longer texts are cut.
pub const MAX_LINE: usize = 200;

/// Reads the body of a request; names every bad field.
fn read_new(document: &Value, region: Region, now: Timestamp) -> Result<NewOptOut, Vec<Fault>> {
    let root = Reader::root(document);
    let mut faults: Vec<Fault> = Vec::new();
    root.expect_object(&mut faults);
    let place = root.member("phone");
    let raw_phone = place.text(&mut faults);
    let staff_id = root.member("staff_id").id(&mut faults);
    let reason = root.member("reason").text(&mut faults);
    let phone = raw_phone.and_then(|raw| PhoneNumber::parse(raw, region));
    if phone.is_none() && faults.is_empty() {
        place.fault(&mut faults, NO_PHONE);
    }
    let Some(phone) = phone.filter(|_| faults.is_empty()) else {
        return Err(faults);
    };
    Ok(NewOptOut {
        phone,
        phone_text: clean_line(raw_phone.unwrap_or_default(), MAX_LINE),
        staff_id: staff_id.map(|id| clean_line(&id, MAX_LINE)),
        reason: reason.map(|reason| clean_line(reason, MAX_LINE)),
        opted_out_at: now,
    })
}

/// Lists opt-outs, in the order of their numbers
#[utoipa::path(
    get,
    path = "/v1/opt-outs",
    operation_id = "listOptOuts",
    tag = "opt-outs",
    params(PageQuery),
    responses(
        (status = 200, body = Page<OptOut>, description = "A page of opt-outs", headers(
            ("Link" = String, description = "The next page, with `rel=\"next\"`; absent on the last one")
        )),
        ForAdmins,
        Fields,
    ),
    security(("admin" = []))
)]
pub async fn list(
    State(app): SharedState,
    Query(query): Query<PageQuery>,
    uri: Uri,
) -> Result<Listed<OptOut>, Problem> {
    let after = query.cursor.map(restore_plus);
    let page = app.store.opt_outs(after.as_deref(), query.limit.0).await?;
    Ok(Listed { page, uri })
}

/// Adds an opt-out
///
/// From now on nothing is sent to the number, whatever was promised to it. One that is there already stays as it was.
#[utoipa::path(
    post,
    path = "/v1/opt-outs",
    operation_id = "addOptOut",
    tag = "opt-outs",
    request_body = OptOutBody,
    responses(
        (status = 200, body = OptOut, description = "It was there already"),
        (status = 201, body = OptOut, description = "It is new"),
        ForAdmins,
        JsonBody,
    ),
    security(("admin" = []))
)]
pub async fn add(
    State(app): SharedState,
    headers: HeaderMap,
    raw: Body,
) -> Result<(StatusCode, Json<OptOut>), Problem> {
    let document = body::read_json(&headers, raw).await?;
    let new = read_new(&document, app.default_region, now()).map_err(Problem::fields)?;
    let (kept, is_new) = add_one(&app, &new).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(kept)))
}

/// Shows an opt-out
#[utoipa::path(
    get,
    path = "/v1/opt-outs/{phone}",
    operation_id = "showOptOut",
    tag = "opt-outs",
    params(("phone" = String, Path, description = "The number, in any writing", example = "+14155550101")),
    responses((status = 200, body = OptOut, description = "The opt-out"), ForAdmins),
    security(("admin" = []))
)]
pub async fn show(State(app): SharedState, Path(phone): Path<String>) -> Result<Json<OptOut>, Problem> {
    find(&app, &phone).await.map(Json)
}

/// Adds a number; whether it is new.
pub async fn add_one(app: &AppState, new: &NewOptOut) -> Result<(OptOut, bool), Problem> {
    let (kept, is_new) = app.store.add_opt_out(new).await?;
    tracing::info!(phone = %new.phone, new = is_new, "opt-out added");
    Ok((kept, is_new))
}

/// The entry of a number, in any writing.
pub async fn find(app: &AppState, phone: &str) -> Result<OptOut, Problem> {
    for phone in meant_by(phone, app.default_region) {
        if let Some(found) = app.store.opt_out(&phone).await? {
            return Ok(found);
        }
    }
    Err(not_found())
}

/// Removes an opt-out
///
/// From now on the number may be texted again. What was held back meanwhile is not sent by that.
#[utoipa::path(
    delete,
    path = "/v1/opt-outs/{phone}",
    operation_id = "removeOptOut",
    tag = "opt-outs",
    params(("phone" = String, Path, description = "The number, in any writing", example = "+14155550101")),
    responses((status = 204, description = "It is gone"), ForAdmins),
    security(("admin" = []))
)]
pub async fn remove(State(app): SharedState, Path(phone): Path<String>) -> Result<StatusCode, Problem> {
    remove_one(&app, &phone).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a number off the list.
pub async fn remove_one(app: &AppState, phone: &str) -> Result<(), Problem> {
    for phone in meant_by(phone, app.default_region) {
        if app.store.remove_opt_out(&phone, now()).await? {
            tracing::info!(%phone, "opt-out removed");
            return Ok(());
        }
    }
    Err(not_found())
}

/// A number that must not be texted.
#[derive(ToSchema)]
#[schema(as = NewOptOut)]
#[expect(dead_code, reason = "describes what `read_new` reads; a test compares the two")]
pub struct OptOutBody {
    /// In any writing; best with `+` and country code.
    #[schema(examples("+14155550101"))]
    phone: String,
    /// The helpdesk's own id of the person.
    staff_id: Option<Id>,
    /// Why; cut at 200 characters.
    #[schema(examples("asked by mail"))]
    reason: Option<String>,
}

/// The numbers that a text in an address may mean. As it is listed first: an earlier version may have stored a form that is
/// read otherwise today.
fn meant_by(text: &str, region: Region) -> impl Iterator<Item = PhoneNumber> {
    let is_e164 = text
        .strip_prefix('+')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let listed = is_e164.then(|| PhoneNumber::from_stored(text.to_owned()));
    listed.into_iter().chain(PhoneNumber::parse(text, region))
}

fn not_found() -> Problem {
    Problem::not_found("this number has not opted out, or is not one")
}

/// In a query, a bare `+` means a blank; people write it all the same.
fn restore_plus(text: String) -> String {
    match text.strip_prefix(' ') {
        Some(rest) => format!("+{rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use utoipa::PartialSchema;

    #[test]
    fn an_opt_out_is_read_as_its_schema_says() {
        let schema = serde_json::to_value(OptOutBody::schema()).unwrap();
        let members = schema["properties"].as_object().unwrap();
        let id = serde_json::to_value(Id::schema()).unwrap()["examples"][0].clone();
        let example: Value = members
            .iter()
            .map(|(name, member)| (name.clone(), member["examples"].get(0).unwrap_or(&id).clone()))
            .collect();
        let read = |document: &Value| read_new(document, Region::UNKNOWN, Timestamp::UNIX_EPOCH);

        let new = read(&example).unwrap();

        assert_eq!(new.phone.as_e164(), "+14155550101");
        assert!(new.staff_id.is_some() && new.reason.is_some());
        for name in members.keys() {
            let mut wrong = example.clone();
            wrong[name] = json!(true);
            let faults = read(&wrong).err().unwrap();
            assert_eq!(faults[0].pointer, format!("/{name}"));
        }
    }
}
