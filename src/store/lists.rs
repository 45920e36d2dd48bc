//! Reading back: alerts and deliveries as admins see them, page by page. Absent: anything that writes.

use super::{
    Db,
    engine::read,
    error::StoreError,
    page::Page,
    query::Query,
    sql::{args, sql},
    types::{at, ms},
};
use crate::domain::phone;
use jiff::Timestamp;
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

/// An alert with its deliveries.
pub struct AlertView {
    pub id: String,
    pub source: String,
    pub ticket_id: String,
    pub ticket_number: Option<String>,
    pub subject: Option<String>,
    pub url: Option<String>,
    pub occurred_at: Timestamp,
    pub received_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub deliveries: Vec<DeliveryView>,
}

/// A delivery as admins see it.
pub struct DeliveryView {
    pub id: String,
    pub alert_id: String,
    pub channel: String,
    pub round: i64,
    pub resend_of: Option<String>,
    pub staff_id: Option<String>,
    pub role: Option<String>,
    pub name: Option<String>,
    /// In E.164, or the unusable text that was given.
    pub phone: Option<String>,
    pub state: String,
    pub reason: Option<String>,
    pub attempts: i64,
    pub provider: Option<String>,
    pub provider_message_id: Option<String>,
    pub provider_status: Option<String>,
    pub error_code: Option<i64>,
    pub segments: i64,
    pub due_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Filled in single views only.
    pub timeline: Vec<TimelineLine>,
}

impl DeliveryView {
    /// The phone as it may be shown to anybody.
    pub fn masked_phone(&self) -> Option<String> {
        self.phone.as_deref().map(phone::mask)
    }
}

/// One entry of what happened to a delivery.
#[derive(Clone)]
pub struct TimelineLine {
    pub at: Timestamp,
    pub what: String,
    pub detail: Option<String>,
}

#[derive(sqlx::FromRow)]
struct AlertRow {
    id: String,
    source: String,
    ticket_id: String,
    ticket_number: Option<String>,
    subject: Option<String>,
    url: Option<String>,
    occurred_at: i64,
    received_at: i64,
    closed_at: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    id: String,
    alert_id: String,
    channel: String,
    round: i64,
    resend_of: Option<String>,
    staff_id: Option<String>,
    role: Option<String>,
    name: Option<String>,
    phone: Option<String>,
    phone_raw: Option<String>,
    state: String,
    reason: Option<String>,
    attempts: i64,
    provider: Option<String>,
    provider_message_id: Option<String>,
    provider_status: Option<String>,
    error_code: Option<i64>,
    segments: i64,
    due_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl From<AlertRow> for AlertView {
    fn from(row: AlertRow) -> Self {
        Self {
            id: row.id,
            source: row.source,
            ticket_id: row.ticket_id,
            ticket_number: row.ticket_number,
            subject: row.subject,
            url: row.url,
            occurred_at: at(row.occurred_at),
            received_at: at(row.received_at),
            closed_at: row.closed_at.map(at),
            deliveries: Vec::new(),
        }
    }
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id,
            alert_id: row.alert_id,
            channel: row.channel,
            round: row.round,
            resend_of: row.resend_of,
            staff_id: row.staff_id,
            role: row.role,
            name: row.name,
            phone: row.phone.or(row.phone_raw),
            state: row.state,
            reason: row.reason,
            attempts: row.attempts,
            provider: row.provider,
            provider_message_id: row.provider_message_id,
            provider_status: row.provider_status,
            error_code: row.error_code,
            segments: row.segments,
            due_at: row.due_at.map(at),
            created_at: at(row.created_at),
            updated_at: at(row.updated_at),
            timeline: Vec::new(),
        }
    }
}

const ALERT: &str = "select id, source, ticket_id, ticket_number, subject, url, occurred_at, received_at,
    closed_at from alert where 1 = 1";
const DELIVERY: &str = "select d.id, d.alert_id, d.channel, d.round, d.resend_of, d.staff_id, d.role, d.name,
    d.phone, d.phone_raw, d.state, d.reason,
    d.attempts, d.provider, d.provider_message_id, d.provider_status, d.error_code, d.segments, d.due_at, d.created_at, d.updated_at
    from delivery d where 1 = 1";

impl Db {
    /// One alert with its deliveries and their timelines.
    pub async fn alert(&self, id: &str) -> Result<Option<AlertView>, StoreError> {
        let row: Option<AlertRow> = read!(self, |pool| {
            let mut query = QueryBuilder::new(ALERT);
            query.push(" and id = ").push_bind(id);
            query.build_query_as().fetch_optional(pool).await
        })?;
        let Some(row) = row else { return Ok(None) };
        let mut alert = AlertView::from(row);
        alert.deliveries = self.deliveries_of_alert(id).await?;
        for delivery in &mut alert.deliveries {
            delivery.timeline = self.timeline(&delivery.id).await?;
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
        let rows: Vec<AlertRow> = read!(self, |pool| {
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
        let mut page = Page::cut(
            rows.into_iter().map(AlertView::from).collect(),
            limit,
            |alert: &AlertView| alert.id.clone(),
        );
        for alert in &mut page.items {
            alert.deliveries = self.deliveries_of_alert(&alert.id).await?;
        }
        Ok(page)
    }

    /// One delivery with its timeline.
    pub async fn delivery(&self, id: &str) -> Result<Option<DeliveryView>, StoreError> {
        let row: Option<DeliveryRow> = read!(self, |pool| {
            let mut query = QueryBuilder::new(DELIVERY);
            query.push(" and d.id = ").push_bind(id);
            query.build_query_as().fetch_optional(pool).await
        })?;
        let Some(row) = row else { return Ok(None) };
        let mut delivery = DeliveryView::from(row);
        delivery.timeline = self.timeline(id).await?;
        Ok(Some(delivery))
    }

    /// Deliveries, newest first, after the cursor (an id).
    pub async fn deliveries(
        &self,
        filter: &DeliveryFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<DeliveryView>, StoreError> {
        let rows: Vec<DeliveryRow> = read!(self, |pool| {
            let mut query = QueryBuilder::new(DELIVERY);
            if let Some(state) = filter.state {
                query.push(" and d.state = ").push_bind(state);
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
            query.push(" order by d.id desc limit ").push_bind(limit + 1);
            query.build_query_as().fetch_all(pool).await
        })?;
        Ok(Page::cut(
            rows.into_iter().map(DeliveryView::from).collect(),
            limit,
            |delivery: &DeliveryView| delivery.id.clone(),
        ))
    }

    async fn deliveries_of_alert(&self, alert_id: &str) -> Result<Vec<DeliveryView>, StoreError> {
        let rows: Vec<DeliveryRow> = read!(self, |pool| {
            let mut query = QueryBuilder::new(DELIVERY);
            query
                .push(" and d.alert_id = ")
                .push_bind(alert_id)
                .push(" order by d.id");
            query.build_query_as().fetch_all(pool).await
        })?;
        Ok(rows.into_iter().map(DeliveryView::from).collect())
    }

    async fn timeline(&self, delivery_id: &str) -> Result<Vec<TimelineLine>, StoreError> {
        let rows: Vec<(i64, String, Option<String>)> = self
            .reads()
            .all(
                sql!("select at, what, detail from timeline where delivery_id = $1 order by seq"),
                args![delivery_id],
            )
            .await?;
        Ok(rows
            .into_iter()
            .map(|(time, what, detail)| TimelineLine {
                at: at(time),
                what,
                detail,
            })
            .collect())
    }
}
