//! Reading back: alerts and deliveries as admins see them, page by page. Absent: anything that writes.

use super::{
    Db,
    engine::read,
    error::StoreError,
    page::Page,
    query::Query,
    sql::{Sql, args, sql},
    types::{MaybeMs, Ms, Recipient, ms},
};
use crate::domain::{
    acknowledge::Via,
    day,
    delivery::{self, Reason, State},
    timeline::{About, sentences},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sqlx::{Database, Encode, QueryBuilder, Type};

/// Which alerts.
#[derive(Clone, Default)]
pub struct AlertFilter {
    pub source: Option<String>,
    pub ticket_id: Option<String>,
    /// A part of the subject, in small or capital letters; those beyond ASCII as they are written there, since SQLite knows no
    /// others.
    pub subject: Option<String>,
    pub state: Option<AlertState>,
    /// Whether somebody has acknowledged it.
    pub is_acknowledged: Option<bool>,
    /// From when until before when it was received.
    pub received: Option<(Timestamp, Timestamp)>,
}

/// How an alert stands, or how one of its deliveries does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertState {
    Open,
    Closed,
    Has(delivery::State),
}

/// How many alerts one search looks at, so that it answers in time whatever it finds: 20,000 are read in about 30 ms. The
/// page then says where to go on.
const MAX_SEARCHED: i64 = 20_000;

/// How far the time in the id of an alert may be from the time at which it was received: another process may have made it, by
/// another clock.
const ID_SLACK: SignedDuration = SignedDuration::from_hours(24);

/// Which ids a search looks at: from the first on, and before the last.
struct Span {
    from: String,
    before: String,
}

impl Span {
    fn of(filter: &AlertFilter, after: Option<&str>) -> Self {
        let before = after.unwrap_or(LAST_ID);
        match filter.received {
            None => Self {
                from: String::new(),
                before: before.to_owned(),
            },
            Some((from, until)) => Self {
                from: first_id(day::after(from, -ID_SLACK)),
                before: first_id(day::after(until, ID_SLACK)).min(before.to_owned()),
            },
        }
    }
}

/// Behind every id.
pub const LAST_ID: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/// Before every id that is made from this time on.
pub fn first_id(at: Timestamp) -> String {
    let ms = u64::try_from(at.as_millisecond()).unwrap_or(0).min((1 << 48) - 1);
    let hex = format!("{ms:012x}");
    format!("{}-{}-0000-0000-000000000000", &hex[..8], &hex[8..])
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
    /// When somebody acknowledged it; `null` while nobody has.
    #[sqlx(try_from = "MaybeMs")]
    #[schema(required)]
    pub acknowledged_at: Option<Timestamp>,
    /// Who: the name, of somebody without one the role; `null` if neither is known, or it is stripped.
    #[schema(required, examples("Grace Hopper"))]
    pub acknowledged_by: Option<String>,
    #[schema(required, value_type = Option<Via>, examples("sms"))]
    pub acknowledged_via: Option<String>,
    /// When it was taken over from the system before, which told its people; it was received when that told them.
    #[sqlx(try_from = "MaybeMs")]
    #[schema(required)]
    pub imported_at: Option<Timestamp>,
    /// Read and shown apart.
    #[sqlx(skip)]
    #[serde(skip)]
    pub deliveries: Vec<DeliveryView>,
}

/// Where a page of deliveries ends that are listed by the time at which they were received.
struct Place<'a> {
    received_ms: i64,
    id: &'a str,
}

impl<'a> Place<'a> {
    fn of(delivery: &DeliveryView) -> String {
        format!("{}_{}", ms(delivery.received_at), delivery.id)
    }

    fn read(cursor: &'a str) -> Option<Self> {
        let (received, id) = cursor.split_once('_')?;
        let received_ms = received.parse().ok()?;
        Some(Self { received_ms, id })
    }
}

/// A delivery as admins see it.
#[derive(Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct DeliveryView {
    #[schema(format = "uuid")]
    pub id: String,
    /// `null` of a message that no alert is the cause of.
    #[schema(required, format = "uuid")]
    pub alert_id: Option<String>,
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
    /// The text as it is or was to be sent; in single views only, and empty where it was taken out after its time.
    #[sqlx(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When something is to be done for it next: sending, or asking the provider.
    #[sqlx(try_from = "MaybeMs")]
    #[schema(required)]
    pub due_at: Option<Timestamp>,
    #[sqlx(try_from = "Ms")]
    #[serde(skip)]
    received_at: Timestamp,
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
    /// The same as a sentence for people.
    #[schema(examples("The provider accepted it."))]
    #[sqlx(skip)]
    pub text: String,
}

const ALERT: &str =
    "select a.id, a.source, a.ticket_id, a.ticket_number, a.subject, a.url, a.occurred_at, a.received_at,
    a.closed_at, a.acknowledged_at, a.acknowledged_by, a.acknowledged_via, a.imported_at from alert a where 1 = 1";
/// What single views show of a delivery.
const DELIVERY_IN_FULL: &str = const_format::concatcp!("select d.message, ", DELIVERY_COLUMNS);
const DELIVERY: &str = const_format::concatcp!("select ", DELIVERY_COLUMNS);
const DELIVERY_COLUMNS: &str = "d.id, d.alert_id, d.channel, d.round, d.resend_of, d.staff_id, d.role, d.name,
    coalesce(d.phone, d.phone_raw) as phone, d.state, d.reason,
    d.attempts, d.provider, d.provider_message_id, d.provider_status, d.error_code, d.segments, d.due_at, d.received_at, d.created_at, d.updated_at
    from delivery d where 1 = 1";

impl Db {
    /// One alert with its deliveries and their timelines.
    pub async fn alert(&self, id: &str) -> Result<Option<AlertView>, StoreError> {
        let alert: Option<AlertView> = read!(self, |pool| {
            let mut query = QueryBuilder::new(ALERT);
            query.push(" and a.id = ").push_bind(id);
            query.build_query_as().fetch_optional(pool).await
        })?;
        let Some(mut alert) = alert else { return Ok(None) };
        alert.deliveries = self.deliveries_of_alert(DELIVERY_IN_FULL, id).await?;
        for delivery in &mut alert.deliveries {
            delivery.timeline = Some(self.timeline(delivery).await?);
        }
        Ok(Some(alert))
    }

    /// Alerts, newest first, after the cursor (an id), with their deliveries. Where few of very many match, the page may have
    /// fewer than asked for and yet a next one.
    pub async fn alerts(
        &self,
        filter: &AlertFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<AlertView>, StoreError> {
        const LOWEST: Sql = sql!(
            "select id from alert where id >= $1 and id < $2 order by id desc limit 1 offset ",
            MAX_SEARCHED
        );
        let mut span = Span::of(filter, after);
        let mut lowest: Option<String> = None;
        // A ticket has few alerts, which an index finds.
        if filter.ticket_id.is_none() {
            let arguments = args![span.from.as_str(), span.before.as_str()];
            lowest = self.reads().optional_scalar(LOWEST, arguments).await?;
        }
        if let Some(lowest) = &lowest {
            span.from.clone_from(lowest);
        }
        let alerts: Vec<AlertView> = read!(self, |pool| {
            let mut query = QueryBuilder::new(ALERT);
            push_filter(&mut query, filter);
            query.push(" and a.id >= ").push_bind(&span.from);
            query.push(" and a.id < ").push_bind(&span.before);
            query.push(" order by a.id desc limit ").push_bind(limit + 1);
            query.build_query_as().fetch_all(pool).await
        })?;
        let mut page = Page::cut(alerts, limit, |alert| alert.id.clone());
        page.next = page.next.or(lowest);
        for alert in &mut page.items {
            alert.deliveries = self.deliveries_of_alert(DELIVERY, &alert.id).await?;
        }
        Ok(page)
    }

    /// One delivery with its timeline.
    pub async fn delivery(&self, id: &str) -> Result<Option<DeliveryView>, StoreError> {
        let delivery: Option<DeliveryView> = read!(self, |pool| {
            let mut query = QueryBuilder::new(DELIVERY_IN_FULL);
            query.push(" and d.id = ").push_bind(id);
            query.build_query_as().fetch_optional(pool).await
        })?;
        let Some(mut delivery) = delivery else { return Ok(None) };
        delivery.timeline = Some(self.timeline(&delivery).await?);
        Ok(Some(delivery))
    }

    /// Deliveries, newest first, after the cursor (an id).
    pub async fn deliveries(
        &self,
        filter: &DeliveryFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<DeliveryView>, StoreError> {
        // A day is read by the index of its time, whose order no sort of the whole day has to make.
        let is_by_time = filter.received.is_some();
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
                match (after.filter(|_| is_by_time).and_then(Place::read), after) {
                    (Some(Place { received_ms, id }), _) => query
                        .push(" and (d.received_at, d.id) < (")
                        .push_bind(received_ms)
                        .push(", ")
                        .push_bind(id)
                        .push(")"),
                    (None, Some(id)) => query.push(" and d.id < ").push_bind(id),
                    (None, None) => &mut query,
                };
                query.push(if is_by_time {
                    " order by d.received_at desc, d.id desc limit "
                } else {
                    " order by d.id desc limit "
                });
                query.push_bind(limit + 1).push(") as part");
            }
            query.push(if is_by_time {
                " order by received_at desc, id desc limit "
            } else {
                " order by id desc limit "
            });
            query.push_bind(limit + 1);
            query.build_query_as().fetch_all(pool).await
        })?;
        Ok(Page::cut(deliveries, limit, |delivery| {
            if is_by_time {
                Place::of(delivery)
            } else {
                delivery.id.clone()
            }
        }))
    }

    async fn deliveries_of_alert(&self, view: &'static str, alert_id: &str) -> Result<Vec<DeliveryView>, StoreError> {
        Ok(read!(self, |pool| {
            let mut query = QueryBuilder::new(view);
            query
                .push(" and d.alert_id = ")
                .push_bind(alert_id)
                .push(" order by d.id");
            query.build_query_as().fetch_all(pool).await
        })?)
    }

    async fn timeline(&self, delivery: &DeliveryView) -> Result<Vec<TimelineEntry>, StoreError> {
        const READ: Sql = sql!("select at, what, detail from timeline where delivery_id = $1 order by seq");
        let mut timeline: Vec<TimelineEntry> = self.reads().all(READ, args![&delivery.id]).await?;
        let about = About {
            attempts: delivery.attempts,
            provider: delivery.provider.as_deref(),
            message_id: delivery.provider_message_id.as_deref(),
        };
        let entries = timeline
            .iter()
            .map(|entry| (entry.what.as_str(), entry.detail.as_deref()));
        let texts = sentences(entries, &about);
        for (entry, text) in timeline.iter_mut().zip(texts) {
            entry.text = text;
        }
        Ok(timeline)
    }
}

/// What an alert has to be. Where no ticket is named, alerts are read in the order of their ids, and the source is no way to go
/// by: nearly all have the same.
fn push_filter<DB: Database>(query: &mut QueryBuilder<DB>, filter: &AlertFilter)
where
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
{
    if let Some(ticket_id) = &filter.ticket_id {
        query.push(" and a.ticket_id = ").push_bind(ticket_id.clone());
    }
    if let Some(source) = &filter.source {
        let column = if filter.ticket_id.is_some() {
            "a.source"
        } else {
            "a.source || ''"
        };
        query.push(" and ").push(column).push(" = ").push_bind(source.clone());
    }
    if let Some(part) = &filter.subject {
        query
            .push(" and (lower(a.subject) like ")
            .push_bind(containing(&part.to_ascii_lowercase()))
            .push(" escape '!' or lower(a.subject) like ")
            .push_bind(containing(&part.to_lowercase()))
            .push(" escape '!')");
    }
    if let Some((from, until)) = filter.received {
        query.push(" and a.received_at >= ").push_bind(ms(from));
        query.push(" and a.received_at < ").push_bind(ms(until));
    }
    match filter.is_acknowledged {
        None => {}
        Some(true) => drop(query.push(" and a.acknowledged_at is not null")),
        Some(false) => drop(query.push(" and a.acknowledged_at is null")),
    }
    match filter.state {
        None => {}
        Some(AlertState::Open) => drop(query.push(" and a.closed_at is null")),
        Some(AlertState::Closed) => drop(query.push(" and a.closed_at is not null")),
        Some(AlertState::Has(state)) => drop(
            query
                .push(" and exists (select 1 from delivery d where d.alert_id = a.id and d.state || '' = ")
                .push_bind(state.as_str().to_owned())
                .push(")"),
        ),
    }
}

/// A pattern for what contains `part`.
fn containing(part: &str) -> String {
    let mut pattern = "%".to_owned();
    for c in part.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_made_at_some_time_is_not_before_the_first_id_of_that_time() {
        let made = uuid::Uuid::now_v7();
        let (seconds, nanos) = made.get_timestamp().unwrap().to_unix();
        let at = Timestamp::new(i64::try_from(seconds).unwrap(), i32::try_from(nanos).unwrap()).unwrap();

        assert!(first_id(at) <= made.to_string());
        assert!(first_id(day::after(at, SignedDuration::from_millis(1))) > made.to_string());
        assert!(first_id(Timestamp::MAX).as_str() <= LAST_ID);
        assert_eq!(first_id(Timestamp::MIN), "00000000-0000-0000-0000-000000000000");
    }

    #[test]
    fn what_is_searched_for_is_no_pattern() {
        assert_eq!(containing("50%_off!"), "%50!%!_off!!%");
    }
}
