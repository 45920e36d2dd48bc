//! `/v1/alerts/imported`: alerts of the system before, so that their tickets are never told of again.

use super::query::{self, Query};
use crate::{
    domain::{
        event::{self, DEFAULT_SOURCE},
        json::{Fault, Reader},
        text::clean_line,
    },
    http::{
        body::{self, Id},
        deadline::now,
        error::{ForAdmins, JsonBody, Problem},
        state::{AppState, SharedState},
    },
    store::ImportedAlert,
};
use axum::{Json, body::Body, extract::State, http::HeaderMap};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;
use utoipa::{IntoParams, ToSchema};

/// More need more than one request: everybody else waits for the transaction.
const MAX_ALERTS: usize = 2_000;

/// Whether anything is to be changed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Only counts what would be taken over.
    #[param(required = false)]
    #[serde(default, deserialize_with = "query::is_true")]
    dry_run: bool,
}

/// Alerts of the system before.
#[derive(ToSchema)]
#[schema(as = AlertsToImport)]
#[expect(dead_code, reason = "describes what `read` reads; a test compares the two")]
pub struct ImportBody {
    /// The helpdesk that the tickets are of; `default` if it is not given.
    #[schema(examples("default"))]
    source: Option<String>,
    #[schema(max_items = 2_000)]
    alerts: Vec<AlertToImport>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `read` reads; a test compares the two")]
pub struct AlertToImport {
    /// The helpdesk's own id of the ticket, as events name it.
    ticket_id: Id,
    /// For people.
    ticket_number: Option<Id>,
    /// When its people were told; now if it is not given.
    told_at: Option<Timestamp>,
}

/// What became of them.
#[derive(Serialize, ToSchema)]
pub struct ImportedAlerts {
    /// Tickets that have an alert now and had none before.
    #[schema(examples(412))]
    added: u64,
    /// Tickets that had an alert already; it stays as it was.
    #[schema(examples(3))]
    known: u64,
}

/// Takes alerts over
///
/// Of the system that texted before Nightbell: each becomes a closed alert without deliveries that counts as told, so its ticket
/// never causes a message, whatever comes. It may be sent again. `nightbell import osticket-sms` does it for an osTicket.
#[utoipa::path(
    post,
    path = "/v1/alerts/imported",
    operation_id = "importAlerts",
    tag = "alerts",
    params(ImportQuery),
    request_body = ImportBody,
    responses((status = 200, body = ImportedAlerts, description = "What became of them"), ForAdmins, JsonBody),
    security(("admin" = []))
)]
pub async fn import(
    State(app): SharedState,
    Query(query): Query<ImportQuery>,
    headers: HeaderMap,
    raw: Body,
) -> Result<Json<ImportedAlerts>, Problem> {
    let document = body::read_json(&headers, raw).await?;
    let now = now();
    let (source, alerts) = read(&document, now, |name| app.intake.has_source(name)).map_err(Problem::fields)?;
    let imported = take_over(&app, &source, &alerts, query.dry_run, now).await?;
    Ok(Json(imported))
}

async fn take_over(
    app: &AppState,
    source: &str,
    alerts: &[ImportedAlert],
    is_dry_run: bool,
    now: Timestamp,
) -> Result<ImportedAlerts, Problem> {
    let count = u64::try_from(alerts.len()).unwrap_or(u64::MAX);
    if is_dry_run {
        let known = app.store.count_known(source, alerts).await?;
        let known = u64::try_from(known).unwrap_or(0);
        let added = count.saturating_sub(known);
        return Ok(ImportedAlerts { added, known });
    }
    let added = app.store.import_alerts(source, alerts, now).await?;
    let known = count.saturating_sub(added);
    tracing::info!(%source, added, known, "alerts of the system before taken over");
    Ok(ImportedAlerts { added, known })
}

/// Reads the body of a request; names every bad field. A ticket that is named twice is one.
fn read(
    document: &Value,
    now: Timestamp,
    has_source: impl Fn(&str) -> bool,
) -> Result<(String, Vec<ImportedAlert>), Vec<Fault>> {
    let root = Reader::root(document);
    let mut faults = Vec::new();
    root.expect_object(&mut faults);
    let place = root.member("source");
    let source = place.text(&mut faults).unwrap_or(DEFAULT_SOURCE).to_owned();
    if !has_source(&source) {
        let source = clean_line(&source, 40);
        place.fault(&mut faults, format!("the source `{source}` is not configured"));
    }
    let items = root.member("alerts");
    if !items.is_present() && faults.is_empty() {
        items.fault(&mut faults, "this is missing: send a list of tickets");
    }
    let mut known = HashSet::new();
    let mut alerts = Vec::new();
    for item in items.items(&mut faults, MAX_ALERTS) {
        let alert = read_one(&item, now, &mut faults);
        alerts.extend(alert.filter(|alert| known.insert(alert.ticket_id.clone())));
    }
    if faults.is_empty() {
        Ok((source, alerts))
    } else {
        Err(faults)
    }
}

fn read_one(item: &Reader<'_>, now: Timestamp, faults: &mut Vec<Fault>) -> Option<ImportedAlert> {
    let before = faults.len();
    item.expect_object(faults);
    let place = item.member("ticket_id");
    let ticket_id = event::id(&place, faults);
    if ticket_id.is_none() && faults.len() == before {
        place.fault(faults, "this is missing: send the helpdesk's own id of the ticket");
    }
    let place = item.member("told_at");
    let told_at = place.text(faults).map(str::parse::<Timestamp>);
    if let Some(Err(_)) = told_at {
        place.fault(faults, "this is not a time: write it like `2026-11-20T13:00:00Z`");
    }
    Some(ImportedAlert {
        ticket_number: event::id(&item.member("ticket_number"), faults),
        ticket_id: ticket_id?,
        // A clock that was ahead must not put them before what comes from now on.
        told_at: told_at.and_then(Result::ok).map_or(now, |at| at.min(now)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use utoipa::PartialSchema;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn pointers(document: &Value) -> Vec<String> {
        let faults = read(document, NOW, |name| name == "default").err().unwrap_or_default();
        faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn every_bad_field_is_named_and_a_ticket_counts_once() {
        let alerts = json!([{"ticket_id": 3, "told_at": "2026-11-20T09:00:00Z"}, {"ticket_id": "3"},
            {"ticket_id": "4", "told_at": "2999-01-01T00:00:00Z", "ticket_number": 108_749}]);

        let (source, read) = read(&json!({"alerts": alerts}), NOW, |_| true).unwrap_or_default();

        let told: Vec<_> = read
            .iter()
            .map(|alert| (alert.ticket_id.as_str(), alert.told_at))
            .collect();
        let first = "2026-11-20T09:00:00Z".parse().unwrap();
        assert_eq!((source.as_str(), told), ("default", vec![("3", first), ("4", NOW)]));
        assert_eq!(
            pointers(
                &json!({"source": "acme", "alerts": [{}, {"ticket_id": true}, {"ticket_id": "1", "told_at": "x"}, 5]})
            ),
            [
                "/source",
                "/alerts/0/ticket_id",
                "/alerts/1/ticket_id",
                "/alerts/2/told_at",
                "/alerts/3"
            ]
        );
        assert_eq!(pointers(&json!({})), ["/alerts"]);
        assert_eq!(pointers(&json!([])), [""]);
        assert_eq!(
            pointers(&json!({"alerts": vec![json!({"ticket_id": 1}); MAX_ALERTS + 1]})),
            ["/alerts"]
        );
    }

    #[test]
    fn a_body_is_read_as_its_schema_says() {
        let schema = |schema| serde_json::to_value(schema).unwrap();
        let (body, alert) = (schema(ImportBody::schema()), schema(AlertToImport::schema()));
        let full = json!({"source": "default", "alerts": [{"ticket_id": 3, "ticket_number": "7", "told_at": NOW.to_string()}]});
        let required = |schema: &Value| schema["required"].clone();

        let names = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<HashSet<_>>();
        assert_eq!(names(&body["properties"]), names(&full));
        assert_eq!(names(&alert["properties"]), names(&full["alerts"][0]));
        assert_eq!(
            (required(&body), required(&alert)),
            (json!(["alerts"]), json!(["ticket_id"]))
        );
        assert_eq!(body["properties"]["alerts"]["maxItems"], MAX_ALERTS);
        assert_eq!(pointers(&full), [""; 0]);
        for name in ["ticket_id", "ticket_number", "told_at"] {
            let mut wrong = full.clone();
            wrong["alerts"][0][name] = json!([]);
            assert_eq!(pointers(&wrong), [format!("/alerts/0/{name}")]);
        }
    }
}
