//! Reading back: alerts and deliveries as admins see them, page by page. Absent: anything that writes.

use super::{
    Db,
    engine::read,
    error::StoreError,
    page::Page,
    query::Query,
    sql::{args, sql},
    types::{MaybeMs, Ms, Recipient, ms},
};
use crate::domain::delivery::{Reason, State};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::QueryBuilder;

/// Which alerts.
#[derive(Default)]
pub struct AlertFilter {
    pub source: Option<String>,
    pub ticket_id: Option<String>,
}

/// Which deliveries.
#[derive(Default)]
pub struct DeliveryFilter {
    pub state: Option<&'static str>,
    pub ticket_id: Option<String>,
    /// In E.164.
    pub phone: Option<String>,
    /// From when until before when it was received.
    pub received: Option<(Timestamp, Timestamp)>,
}

impl DeliveryFilter {
    /// Whether the state is all there is to go by.
    fn is_state_alone(&self) -> bool {
        self.state.is_some() && self.ticket_id.is_none() && self.phone.is_none() && self.received.is_none()
    }

    /// What is asked for one by one, each newest first. By state alone the index of what is due serves, in which those that
    /// are not due stand in the order of their ids; that is nearly all. Read in one, all of a state would be sorted.
    fn parts(&self) -> &'static [&'static str] {
        if self.is_state_alone() {
            &[" and d.due_at is null", " and d.due_at is not null"]
        } else {
            &[""]
        }
    }

    /// Beside something narrower, the state is no way to go by: most deliveries have the same.
    fn state_column(&self) -> &'static str {
        if self.is_state_alone() {
            " and d.state = "
        } else {
            " and d.state || '' = "
        }
    }
}

/// An alert with its deliveries.
#[derive(Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct AlertView {
    #[schema(format = "uuid")]
    pub id: String,
    #[schema(examples("default"))]
    pub source: String,
    /// The helpdesk's own id of the ticket.
    #[schema(examples("3"))]
    pub ticket_id: String,
    #[schema(required, examples("108749"))]
    pub ticket_number: Option<String>,
    /// `null` once it is stripped, after `retention.personal_days`.
    #[schema(required, examples("Checkout page 500 error"))]
    pub subject: Option<String>,
    #[schema(required)]
    pub url: Option<String>,
    #[sqlx(try_from = "Ms")]
    pub occurred_at: Timestamp,
    #[sqlx(try_from = "Ms")]
    pub received_at: Timestamp,
    /// When the ticket was resolved; `null` while it is open.
    #[sqlx(try_from = "MaybeMs")]
    #[schema(required)]
    pub closed_at: Option<Timestamp>,
    /// Read and shown apart.
    #[sqlx(skip)]
    #[serde(skip)]
    pub deliveries: Vec<DeliveryView>,
}

/// A delivery as admins see it.
#[derive(Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct DeliveryView {
    #[schema(format = "uuid")]
    pub id: String,
    #[schema(format = "uuid")]
    pub alert_id: String,
    #[schema(examples("sms"))]
    pub channel: String,
    /// 0, and one more with every resend.
    pub round: i64,
    /// The delivery that this one repeats.
    #[schema(required, format = "uuid")]
    pub resend_of: Option<String>,
    #[sqlx(flatten)]
    pub recipient: Recipient,
    /// In E.164, or the unusable text that was given. Whether it is shown in full is decided where it is shown.
    #[serde(skip)]
    pub phone: Option<String>,
    #[schema(value_type = State, examples("delivered"))]
    pub state: String,
    #[schema(required, value_type = Option<Reason>)]
    pub reason: Option<String>,
    /// How often the provider was called.
    #[schema(examples(1))]
    pub attempts: i64,
    #[schema(required, examples("log"))]
    pub provider: Option<String>,
    #[schema(required)]
    pub provider_message_id: Option<String>,
    /// The provider's own word.
    #[schema(required)]
    pub provider_status: Option<String>,
    #[schema(required)]
    pub error_code: Option<i64>,
    /// How many SMS segments its text has.
    #[schema(examples(2))]
    pub segments: i64,
    /// When something is to be done for it next: sending, or asking the provider.
    #[sqlx(try_from = "MaybeMs")]
    #[schema(required)]
    pub due_at: Option<Timestamp>,
    #[sqlx(try_from = "Ms")]
    pub created_at: Timestamp,
    #[sqlx(try_from = "Ms")]
    pub updated_at: Timestamp,
    /// What happened to it, oldest first; in single views only.
    #[sqlx(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Vec<TimelineEntry>>,
}

/// One thing that happened to a delivery.
#[derive(Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct TimelineEntry {
    #[sqlx(try_from = "Ms")]
    pub at: Timestamp,
    #[schema(examples("accepted"))]
    pub what: String,
    #[schema(required)]
    pub detail: Option<String>,
}

const ALERT: &str = "select id, source, ticket_id, ticket_number, subject, url, occurred_at, received_at,
    closed_at from alert where 1 = 1";
const DELIVERY: &str = "select d.id, d.alert_id, d.channel, d.round, d.resend_of, d.staff_id, d.role, d.name,
    coalesce(d.phone, d.phone_raw) as phone, d.state, d.reason,
    d.attempts, d.provider, d.provider_message_id, d.provider_status, d.error_code, d.segments, d.due_at, d.created_at, d.updated_at
    from delivery d where 1 = 1";

impl Db {
    /// One alert with its deliveries and their timelines.
    pub async fn alert(&self, id: &str) -> Result<Option<AlertView>, StoreError> {
        let alert: Option<AlertView> = read!(self, |pool| {
            let mut query = QueryBuilder::new(ALERT);
            query.push(" and id = ").push_bind(id);
            query.build_query_as().fetch_optional(pool).await
        })?;
        let Some(mut alert) = alert else { return Ok(None) };
        alert.deliveries = self.deliveries_of_alert(id).await?;
        for delivery in &mut alert.deliveries {
            delivery.timeline = Some(self.timeline(&delivery.id).await?);
        }
        Ok(Some(alert))
    }

    /// Alerts, newest first, after the cursor (an id), with their deliveries.
    pub async fn alerts(
        &self,
        filter: &AlertFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<AlertView>, StoreError> {
        let alerts: Vec<AlertView> = read!(self, |pool| {
            let mut query = QueryBuilder::new(ALERT);
            if let Some(source) = &filter.source {
                query.push(" and source = ").push_bind(source);
            }
            if let Some(ticket_id) = &filter.ticket_id {
                query.push(" and ticket_id = ").push_bind(ticket_id);
            }
            if let Some(after) = after {
                query.push(" and id < ").push_bind(after);
            }
            query.push(" order by id desc limit ").push_bind(limit + 1);
            query.build_query_as().fetch_all(pool).await
        })?;
        let mut page = Page::cut(alerts, limit, |alert| alert.id.clone());
        for alert in &mut page.items {
            alert.deliveries = self.deliveries_of_alert(&alert.id).await?;
        }
        Ok(page)
    }

    /// One delivery with its timeline.
    pub async fn delivery(&self, id: &str) -> Result<Option<DeliveryView>, StoreError> {
        let delivery: Option<DeliveryView> = read!(self, |pool| {
            let mut query = QueryBuilder::new(DELIVERY);
            query.push(" and d.id = ").push_bind(id);
            query.build_query_as().fetch_optional(pool).await
        })?;
        let Some(mut delivery) = delivery else { return Ok(None) };
        delivery.timeline = Some(self.timeline(id).await?);
        Ok(Some(delivery))
    }

    /// Deliveries, newest first, after the cursor (an id).
    pub async fn deliveries(
        &self,
        filter: &DeliveryFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<DeliveryView>, StoreError> {
        let deliveries: Vec<DeliveryView> = read!(self, |pool| {
            let mut query = QueryBuilder::new("");
            for (number, part) in filter.parts().iter().enumerate() {
                query.push(if number == 0 {
                    "select * from ("
                } else {
                    " union all select * from ("
                });
                query.push(DELIVERY).push(part);
                if let Some(state) = filter.state {
                    query.push(filter.state_column()).push_bind(state);
                }
                if let Some(ticket_id) = &filter.ticket_id {
                    query
                        .push(" and d.alert_id in (select id from alert where ticket_id = ")
                        .push_bind(ticket_id)
                        .push(")");
                }
                if let Some(phone) = &filter.phone {
                    query.push(" and d.phone = ").push_bind(phone);
                }
                if let Some((from, until)) = filter.received {
                    query
                        .push(" and d.received_at >= ")
                        .push_bind(ms(from))
                        .push(" and d.received_at < ")
                        .push_bind(ms(until));
                }
                if let Some(after) = after {
                    query.push(" and d.id < ").push_bind(after);
                }
                query
                    .push(" order by d.id desc limit ")
                    .push_bind(limit + 1)
                    .push(") as part");
            }
            query.push(" order by id desc limit ").push_bind(limit + 1);
            query.build_query_as().fetch_all(pool).await
        })?;
        Ok(Page::cut(deliveries, limit, |delivery| delivery.id.clone()))
    }

    async fn deliveries_of_alert(&self, alert_id: &str) -> Result<Vec<DeliveryView>, StoreError> {
        Ok(read!(self, |pool| {
            let mut query = QueryBuilder::new(DELIVERY);
            query
                .push(" and d.alert_id = ")
                .push_bind(alert_id)
                .push(" order by d.id");
            query.build_query_as().fetch_all(pool).await
        })?)
    }

    async fn timeline(&self, delivery_id: &str) -> Result<Vec<TimelineEntry>, StoreError> {
        self.reads()
            .all(
                sql!("select at, what, detail from timeline where delivery_id = $1 order by seq"),
                args![delivery_id],
            )
            .await
    }
}
