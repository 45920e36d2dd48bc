//! `/v1/inbound`: what people sent us, what it was understood as, and what came of it.

use super::{
    deliveries::searched_phone,
    query::{Listed, NO_PHONE, PageSize, Phones, Query, ShowQuery},
};
use crate::{
    domain::{inbound::InboundKind, phone, text::clean_line},
    http::{
        error::{Fields, ForAdmins, Problem},
        state::{AppState, SharedState},
    },
    store::{InboundFilter, InboundView, Page},
};
use axum::{
    Json,
    extract::{Path, State},
    http::Uri,
};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{IntoParams, ToSchema};

/// Which messages, and how they are shown.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Whose: a number in any writing; in an address, `+` is `%2B`.
    #[param(nullable = false, example = "+14155550101")]
    phone: Option<String>,
    /// Only those that belong to this alert.
    #[param(nullable = false)]
    alert_id: Option<String>,
    /// What they were understood as.
    #[param(value_type = InboundKind, inline, required = false)]
    #[serde(default, deserialize_with = "kind")]
    kind: Option<InboundKind>,
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

/// A message that somebody sent us.
#[derive(Serialize, ToSchema)]
pub struct InboundMessage {
    #[serde(flatten)]
    view: InboundView,
    /// Masked unless `?reveal=phone` asks for it; `null` once it is stripped.
    #[schema(required, examples("+1415****101"))]
    from: Option<String>,
}

impl InboundMessage {
    fn of(mut view: InboundView, phones: Phones) -> Self {
        let from = view.from_phone.take();
        Self {
            from: match phones {
                Phones::InFull => from,
                Phones::Masked => from.as_deref().map(phone::mask),
            },
            view,
        }
    }
}

/// Lists messages that people sent us, newest first
#[utoipa::path(
    get,
    path = "/v1/inbound",
    operation_id = "listInbound",
    tag = "inbound",
    params(ListQuery),
    responses(
        (status = 200, body = Page<InboundMessage>, description = "A page of messages", headers(
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
) -> Result<Listed<InboundMessage>, Problem> {
    let page = search(&app, &query).await?;
    Ok(Listed { page, uri })
}

/// The messages that are asked for.
pub async fn search(app: &AppState, query: &ListQuery) -> Result<Page<InboundMessage>, Problem> {
    let no_phone = || Problem::field("/phone", format!("{NO_PHONE} (in an address, `+` is `%2B`)"));
    let read = |text: &str| searched_phone(text, app.default_region).ok_or_else(no_phone);
    let phone = query.phone.as_deref().map(read).transpose()?;
    let filter = InboundFilter {
        phone: phone.map(|phone| phone.as_e164().to_owned()),
        alert_id: query.alert_id.clone(),
        kind: query.kind.map(InboundKind::as_str),
    };
    let page = app
        .store
        .inbound_messages(&filter, query.cursor.as_deref(), query.limit.0)
        .await?;
    Ok(page.map(|view| InboundMessage::of(view, query.reveal)))
}

/// Shows a message that somebody sent us
#[utoipa::path(
    get,
    path = "/v1/inbound/{id}",
    operation_id = "showInbound",
    tag = "inbound",
    params(("id" = String, Path, description = "The message's id"), ShowQuery),
    responses((status = 200, body = InboundMessage, description = "The message"), ForAdmins, Fields),
    security(("admin" = []))
)]
pub async fn show(
    State(app): SharedState,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<InboundMessage>, Problem> {
    find(&app, &id, query.reveal).await.map(Json)
}

/// One message.
pub async fn find(app: &AppState, id: &str, phones: Phones) -> Result<InboundMessage, Problem> {
    let found = app.store.inbound(id).await?;
    let found = found.ok_or_else(|| Problem::not_found("there is no message from outside with this id"))?;
    Ok(InboundMessage::of(found, phones))
}

/// How many replies an alert is shown with: the newest.
const OF_ALERT: i64 = 200;

/// What people sent us about an alert, newest first.
pub async fn of_alert(app: &AppState, alert_id: &str, phones: Phones) -> Result<Vec<InboundMessage>, Problem> {
    let filter = InboundFilter {
        alert_id: Some(alert_id.to_owned()),
        ..InboundFilter::default()
    };
    let page = app.store.inbound_messages(&filter, None, OF_ALERT).await?;
    Ok(page.map(|view| InboundMessage::of(view, phones)).items)
}

/// For `deserialize_with`.
fn kind<'de, D: Deserializer<'de>>(parameter: D) -> Result<Option<InboundKind>, D::Error> {
    let word = String::deserialize(parameter)?;
    let unknown = || {
        let words: Vec<&str> = InboundKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let (word, words) = (clean_line(&word, 40), words.join(", "));
        de::Error::custom(format_args!("`{word}` is not a kind: it is one of {words}"))
    };
    InboundKind::parse(&word).map(Some).ok_or_else(unknown)
}
