//! Reading back what people sent us, page by page. Absent: anything that writes.

use super::{
    Db,
    engine::read,
    error::StoreError,
    lists::LAST_ID,
    page::Page,
    query::Query,
    sql::{args, sql},
    types::Ms,
};
use crate::domain::inbound::{InboundKind, InboundOutcome};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::QueryBuilder;

/// Which messages.
#[derive(Default)]
pub struct InboundFilter {
    /// In E.164.
    pub phone: Option<String>,
    pub alert_id: Option<String>,
    pub kind: Option<&'static str>,
}

/// A message that somebody sent us, as admins see it.
#[derive(Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct InboundView {
    #[schema(format = "uuid")]
    pub id: String,
    #[schema(examples("sms"))]
    pub channel: String,
    /// Whether it is shown in full is decided where it is shown.
    #[serde(skip)]
    pub from_phone: Option<String>,
    /// Our own number, to which it was sent.
    #[serde(rename = "to")]
    #[schema(required, examples("+15005550006"))]
    pub to_phone: Option<String>,
    /// `null` once it is stripped, after `retention.personal_days`.
    #[schema(required, examples("On my way"))]
    pub text: Option<String>,
    /// What it was understood as.
    #[schema(value_type = InboundKind)]
    pub kind: String,
    /// What came of it.
    #[schema(value_type = InboundOutcome)]
    pub outcome: String,
    /// The alert that it belongs to.
    #[schema(required, format = "uuid")]
    pub alert_id: Option<String>,
    /// The message of ours that it belongs to.
    #[schema(required, format = "uuid")]
    pub delivery_id: Option<String>,
    /// The message of ours by which we answered.
    #[schema(required, format = "uuid")]
    pub answer_id: Option<String>,
    /// Attachments, which are not fetched.
    #[sqlx(try_from = "Option<String>")]
    #[schema(required, value_type = Option<Media>)]
    pub media: MaybeMedia,
    pub provider: String,
    #[schema(required)]
    pub provider_message_id: Option<String>,
    #[sqlx(try_from = "Ms")]
    pub received_at: Timestamp,
}

/// Media as they stand in their column.
#[derive(Serialize)]
#[serde(transparent)]
pub struct MaybeMedia(pub Option<Media>);

impl From<Option<String>> for MaybeMedia {
    fn from(json: Option<String>) -> Self {
        Self(json.and_then(|json| serde_json::from_str(&json).ok()))
    }
}

/// How many attachments, and of which types.
#[derive(Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Media {
    #[schema(examples(1))]
    pub count: u64,
    #[schema(examples(json!(["image/jpeg"])))]
    pub types: Vec<String>,
}

const INBOUND: &str = "select i.id, i.channel, i.from_phone, i.to_phone, i.text, i.kind, i.outcome, i.alert_id, i.delivery_id,
    i.answer_id, i.media, i.provider, case when i.stripped_at is null then i.provider_message_id end as provider_message_id,
    i.received_at from inbound_message i";

impl Db {
    /// One message.
    pub async fn inbound(&self, id: &str) -> Result<Option<InboundView>, StoreError> {
        self.reads()
            .optional(sql!(INBOUND, " where i.id = $1"), args![id])
            .await
    }

    /// Messages, newest first, after the cursor (an id).
    pub async fn inbound_messages(
        &self,
        filter: &InboundFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<InboundView>, StoreError> {
        let found: Vec<InboundView> = read!(self, |pool| {
            let mut query = QueryBuilder::new(INBOUND);
            query.push(" where i.id < ").push_bind(after.unwrap_or(LAST_ID));
            if let Some(phone) = &filter.phone {
                query.push(" and i.from_phone = ").push_bind(phone);
            }
            if let Some(alert_id) = &filter.alert_id {
                query.push(" and i.alert_id = ").push_bind(alert_id);
            }
            if let Some(kind) = filter.kind {
                // Beside something narrower, the kind is no way to go by: most messages have the same.
                let is_alone = filter.phone.is_none() && filter.alert_id.is_none();
                query
                    .push(if is_alone {
                        " and i.kind = "
                    } else {
                        " and i.kind || '' = "
                    })
                    .push_bind(kind);
            }
            query.push(" order by i.id desc limit ").push_bind(limit + 1);
            query.build_query_as().fetch_all(pool).await
        })?;
        Ok(Page::cut(found, limit, |message: &InboundView| message.id.clone()))
    }
}
