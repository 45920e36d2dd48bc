//! Reads lifecycle events as they are posted: with all that their receivers may be told, many at once.

use super::super::{
    db::Db,
    error::StoreError,
    query::Query,
    sql::{Rows, args, row, sql},
    types::{at, ms},
};
use crate::domain::lifecycle::{AlertFacts, DeliveryFacts, EventType, LifecycleEvent, MessageFacts};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const COLUMNS: &str = "e.place, e.id, e.type as kind, e.source, e.stream, e.at, e.data, e.phone,
    a.acknowledged_at, a.acknowledged_via, a.acknowledged_by, a.id as alert_id, a.ticket_id, a.ticket_number, a.subject, a.url, a.client_name, a.client_organisation,
    d.id as delivery_id, d.channel, d.staff_id, d.role, d.name, d.phone as delivery_phone,
    m.id as message_id, m.kind as message_kind, m.outcome as message_outcome, m.text as message_text,
    m.from_phone as message_from, m.media as message_media";
const FACTS: &str = " left join alert a on a.id = e.alert_id left join delivery d on d.id = e.delivery_id
    left join inbound_message m on m.id = e.message_id ";

/// An event that has its place.
#[derive(Clone, Debug)]
pub struct PlacedEvent {
    pub place: i64,
    /// Events of one stream are posted one after the other.
    pub stream: String,
    /// Its type as it is written down.
    pub kind: String,
    pub source: Option<String>,
    pub at: Timestamp,
    /// `None` if this version does not know the type: a newer process on the same database does.
    pub event: Option<LifecycleEvent>,
}

/// An event that an endpoint has not taken yet.
#[derive(Clone, Debug)]
pub struct HeldEvent {
    pub placed: PlacedEvent,
    /// How often it was tried, and since when it waits.
    pub tries: i64,
    pub since: Timestamp,
    /// When it is tried; `None` behind another one.
    pub due_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct Row {
    place: i64,
    id: String,
    kind: String,
    source: Option<String>,
    stream: String,
    at: i64,
    data: String,
    phone: Option<String>,
    alert_id: Option<String>,
    acknowledged_at: Option<i64>,
    acknowledged_via: Option<String>,
    acknowledged_by: Option<String>,
    ticket_id: Option<String>,
    ticket_number: Option<String>,
    subject: Option<String>,
    url: Option<String>,
    client_name: Option<String>,
    client_organisation: Option<String>,
    delivery_id: Option<String>,
    channel: Option<String>,
    staff_id: Option<String>,
    role: Option<String>,
    name: Option<String>,
    delivery_phone: Option<String>,
    message_id: Option<String>,
    message_kind: Option<String>,
    message_outcome: Option<String>,
    message_text: Option<String>,
    message_from: Option<String>,
    message_media: Option<String>,
}

#[derive(sqlx::FromRow)]
struct HeldRow {
    tries: i64,
    since: i64,
    due_at: Option<i64>,
    #[sqlx(flatten)]
    row: Row,
}

impl Row {
    fn into_placed(self) -> PlacedEvent {
        let (place, stream, kind) = (self.place, self.stream.clone(), self.kind.clone());
        let (source, time) = (self.source.clone(), at(self.at));
        PlacedEvent {
            place,
            stream,
            source,
            at: time,
            event: EventType::parse(&kind).map(|known| self.into_event(known)),
            kind,
        }
    }

    fn into_event(self, kind: EventType) -> LifecycleEvent {
        let alert = self.alert_id.map(|id| AlertFacts {
            id,
            ticket_id: self.ticket_id.unwrap_or_default(),
            ticket_number: self.ticket_number,
            subject: self.subject,
            url: self.url,
            client: self.client_name,
            organisation: self.client_organisation,
            acknowledged_at: self.acknowledged_at.map(at),
            acknowledged_via: self.acknowledged_via,
            acknowledged_by: self.acknowledged_by,
        });
        let delivery = self.delivery_id.map(|id| DeliveryFacts {
            id,
            channel: self.channel.unwrap_or_default(),
            staff_id: self.staff_id,
            role: self.role,
            name: self.name,
            phone: self.delivery_phone,
        });
        let message = self.message_id.map(|id| MessageFacts {
            id,
            kind: self.message_kind.unwrap_or_default(),
            outcome: self.message_outcome.unwrap_or_default(),
            text: self.message_text,
            from: self.message_from,
            media: self.message_media.and_then(|media| serde_json::from_str(&media).ok()),
        });
        // Written by ourselves as an object.
        let data: Map<String, Value> = serde_json::from_str(&self.data).unwrap_or_default();
        LifecycleEvent {
            id: self.id,
            kind,
            at: at(self.at),
            source: self.source,
            alert,
            delivery,
            message,
            phone: self.phone,
            data,
        }
    }
}

row! {
    StreamRow<'a> { stream: &'a str as text }
}

impl Db {
    /// The next events after a place, in order.
    pub async fn events_after(&self, place: i64, most: i64) -> Result<Vec<PlacedEvent>, StoreError> {
        let rows: Vec<Row> = self
            .reads()
            .all(
                sql!(
                    "select ",
                    COLUMNS,
                    " from lifecycle_event e",
                    FACTS,
                    "where e.place > $1 order by e.place limit $2"
                ),
                args![place, most],
            )
            .await?;
        Ok(rows.into_iter().map(Row::into_placed).collect())
    }

    /// What an endpoint has not taken of the streams that are due until then, in order.
    pub async fn held_events(&self, endpoint: &str, until: Timestamp, most: i64) -> Result<Vec<HeldEvent>, StoreError> {
        let rows: Vec<HeldRow> = self
            .reads()
            .all(
                sql!(
                    "select h.tries, h.since, h.due_at, ",
                    COLUMNS,
                    " from webhook_hold h join lifecycle_event e on e.place = h.place",
                    FACTS,
                    "where h.endpoint = $1 and h.stream in (select s.stream from webhook_hold s
                        where s.endpoint = $1 and s.due_at <= $2 order by s.due_at limit $3)
                     order by h.place limit $3"
                ),
                args![endpoint, ms(until), most],
            )
            .await?;
        Ok(rows
            .into_iter()
            .map(|held| HeldEvent {
                tries: held.tries,
                since: at(held.since),
                due_at: held.due_at.map(at),
                placed: held.row.into_placed(),
            })
            .collect())
    }

    /// Which of these streams an endpoint has not taken all of.
    pub async fn held_streams<'a>(
        &self,
        endpoint: &str,
        streams: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeSet<String>, StoreError> {
        let rows: Rows = streams.into_iter().map(|stream| StreamRow { stream }).collect();
        if rows.is_empty() {
            return Ok(BTreeSet::new());
        }
        let held: Vec<String> = self
            .reads()
            .scalars(
                sql!(
                    "select r.stream from ",
                    StreamRow::ROWS,
                    " where exists (select 1 from webhook_hold h where h.endpoint = $2 and h.stream = r.stream)"
                ),
                args![rows, endpoint],
            )
            .await?;
        Ok(held.into_iter().collect())
    }
}
