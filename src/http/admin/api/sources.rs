//! `/v1/sources`: the configured helpdesks and how they are.

use crate::{
    domain::source::Source,
    http::{
        deadline::now,
        error::{ForAdmins, Problem},
        state::{AppState, SharedState},
    },
    store::{PollStatus, UnknownUrgency},
};
use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

/// All sources, by name; there are never many.
#[derive(Serialize, ToSchema)]
#[schema(as = Sources)]
pub struct List {
    items: Vec<SourceStatus>,
}

/// A helpdesk, and how it is.
#[derive(Serialize, ToSchema)]
pub struct SourceStatus {
    #[schema(examples("default"))]
    pub name: String,
    /// As `sources.<name>.kind` has it.
    #[schema(examples("native"))]
    pub kind: &'static str,
    /// Whether its webhooks must be signed.
    pub signed: bool,
    /// Whether it has a token or a secret of its own.
    pub webhook: bool,
    /// How many messages its tickets may cost in one local day, beside the limit of all; `null` for no limit of its own.
    #[schema(required, minimum = 0)]
    pub daily_limit: Option<i64>,
    /// How many they have cost today; `null` without a limit of its own.
    #[schema(required, minimum = 0)]
    pub used: Option<i64>,
    /// How polling it goes; `null` if it is not polled.
    #[schema(required)]
    pub poll: Option<PollStatus>,
    /// Words for urgency that came in events and that nobody has explained, the latest first: such events are ignored.
    pub unknown_urgencies: Vec<UnknownUrgency>,
}

impl SourceStatus {
    async fn find_out(app: &AppState, name: &str, source: &Source) -> Result<Self, Problem> {
        Ok(Self {
            name: name.to_owned(),
            kind: source.kind.as_str(),
            signed: source.verifier.is_some(),
            webhook: source.has_webhook(),
            daily_limit: source.daily_limit,
            used: match source.daily_limit {
                Some(_) => Some(app.store.source_used(name, app.today()).await?),
                None => None,
            },
            poll: if source.is_polled {
                Some(app.store.poll_status(name, now()).await?)
            } else {
                None
            },
            unknown_urgencies: app.store.unknown_urgencies(name).await?,
        })
    }
}

/// Lists the sources
///
/// The helpdesks that are configured: how polling them goes, what their webhooks missed, and which of their words nobody has
/// explained.
#[utoipa::path(
    get,
    path = "/v1/sources",
    operation_id = "listSources",
    tag = "sources",
    responses((status = 200, body = List, description = "All sources"), ForAdmins),
    security(("admin" = []))
)]
pub async fn list(State(app): SharedState) -> Result<Json<List>, Problem> {
    Ok(Json(List {
        items: all(&app).await?,
    }))
}

/// All sources and how they are.
pub async fn all(app: &AppState) -> Result<Vec<SourceStatus>, Problem> {
    let mut items = Vec::new();
    for (name, source) in app.intake.sources() {
        items.push(SourceStatus::find_out(app, name, source).await?);
    }
    Ok(items)
}
