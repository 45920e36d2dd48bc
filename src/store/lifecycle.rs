//! Lifecycle events: written in the transaction that makes them true, as its last statement, and only where somebody is
//! configured to hear of them. Absent: posting them (see `webhooks`).

use super::{
    db::Db,
    sql::{Rows, Sql, row, sql},
    tx::Tx,
    types::{ms, new_id},
};
use crate::domain::{
    id::{AlertId, DeliveryId},
    lifecycle::{EventType, EventTypes},
};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::sync::watch;

/// Something that others may hear of, as its transaction knows it. What else its receivers are told is looked up when it is
/// posted.
#[derive(Default)]
pub struct About<'a> {
    pub alert_id: Option<&'a AlertId>,
    pub delivery_id: Option<&'a DeliveryId>,
    /// Of the inbound message.
    pub message_id: Option<&'a str>,
    /// In E.164; only of an opt-out, which has no delivery.
    pub phone: Option<&'a str>,
}

/// Who is to be told: which types anybody wants, and a signal that there is something new.
#[derive(Clone)]
pub struct Listeners {
    wanted: Arc<AtomicU32>,
    told: watch::Sender<()>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            wanted: Arc::default(),
            told: watch::Sender::new(()),
        }
    }
}

impl Listeners {
    pub fn want(&self, kind: EventType) -> bool {
        EventTypes::from_bits(self.wanted.load(Ordering::Relaxed)).contains(kind)
    }

    /// Says that something new is committed.
    pub fn notify(&self) {
        self.told.send_replace(());
    }
}

row! {
    EventRow<'a>(place: usize, id: &'a str, kind: EventType, about: &'a About<'a>, at: i64, data: &'a str) {
        place: number = place,
        id: text = id,
        kind: text = kind.as_str(),
        alert_id: text = about.alert_id,
        delivery_id: text = about.delivery_id,
        message_id: text = about.message_id,
        phone: text = about.phone,
        at: number = at,
        data: text = data,
    }
}

/// Only of alerts that are there: of two that are raised for one ticket, one is not.
pub const INSERT: Sql = sql!(
    "insert into lifecycle_event (id, type, source, stream, alert_id, delivery_id, message_id, phone, at, data)
     select r.id, r.kind, a.source, coalesce(r.alert_id, r.delivery_id, r.id), r.alert_id, r.delivery_id, r.message_id,
        r.phone, r.at, r.data
     from ",
    EventRow::ROWS,
    " left join alert a on a.id = r.alert_id where r.alert_id is null or a.id is not null order by r.place"
);

/// Events on their way into their transaction.
#[derive(Default)]
pub struct Untold {
    rows: Rows,
    count: usize,
}

impl Untold {
    pub fn take(&mut self) -> Rows {
        self.count = 0;
        std::mem::take(&mut self.rows)
    }
}

impl Tx {
    /// Whether anybody wants to hear of such events.
    pub fn wants(&self, kind: EventType) -> bool {
        self.listeners().want(kind)
    }

    /// Lets others hear of this, if anybody wants to: once the transaction is committed. `data` is a JSON object of what
    /// happened, without personal data.
    pub fn tell(&mut self, kind: EventType, about: &About<'_>, at: Timestamp, data: impl FnOnce() -> Value) {
        if !self.wants(kind) {
            return;
        }
        let untold = self.untold();
        untold.rows.push(&EventRow {
            place: untold.count,
            id: &new_id(),
            kind,
            about,
            at: ms(at),
            data: &data().to_string(),
        });
        untold.count += 1;
    }
}

impl Db {
    /// Says which lifecycle events are written from now on. Those that nobody wants are not kept.
    pub fn listen_for(&self, types: EventTypes) {
        self.engine
            .effects
            .listeners
            .wanted
            .store(types.bits(), Ordering::Relaxed);
    }

    /// Whether anybody wants to hear of such events.
    pub fn wants(&self, kind: EventType) -> bool {
        self.engine.effects.listeners.want(kind)
    }

    /// Changes whenever this process has committed a lifecycle event.
    pub fn told(&self) -> watch::Receiver<()> {
        self.engine.effects.listeners.told.subscribe()
    }
}
