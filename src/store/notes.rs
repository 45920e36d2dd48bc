//! Alerts of which it is known who was reached: found once, and told as `alert.settled`. The marks stand in `ticket_note`, which
//! held whole notes before endpoints wrote them: its columns `text`, `due_at`, `tries`, `lease_until`, `written_at` and
//! `last_error` are written by no version after that one, and stay so that one that still runs finds its own. Absent: the words
//! of a note (see `notify::note`), and writing it (see `source`).

use super::{
    Db,
    error::StoreError,
    lifecycle::About,
    lists::first_id,
    query::Query,
    sql::{Rows, Sql, args, row, sql},
    tx::Tx,
    types::{Ms, at, ms},
};
use crate::domain::{
    day::after,
    delivery::State,
    id::{AlertId, DeliveryId},
    lifecycle::EventType,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Older alerts are nobody's news any more. Messages without a receipt are settled after three days.
pub const NEWS: SignedDuration = SignedDuration::from_hours(5 * 24);
/// Alerts that are no older when the first endpoint begins to listen are told: of the version before, which wrote notes, they
/// may not have been noted.
const OPEN_AT_START: SignedDuration = SignedDuration::from_hours(1);
/// So many at once; the rest comes in the next transaction.
const AT_ONCE: i64 = 50;

/// What of an alert is not in its events.
pub struct NoteFacts {
    /// Some of its messages went to the log only: nobody was told.
    pub is_test: bool,
    /// Who its messages were for, by the id of each; those without a name, or whose name was taken out, are left out.
    pub names: BTreeMap<String, String>,
}

#[derive(sqlx::FromRow)]
struct Settled {
    id: AlertId,
    source: String,
    ticket_id: String,
}

impl Settled {
    fn mark(&self) -> MarkRow<'_> {
        MarkRow {
            id: &self.id,
            source: &self.source,
            ticket_id: &self.ticket_id,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Person {
    alert_id: AlertId,
    id: DeliveryId,
    staff_id: Option<String>,
    role: Option<String>,
    state: State,
    error_code: Option<i64>,
    #[sqlx(try_from = "Ms")]
    moved_at: Timestamp,
}

row! {
    MarkRow<'a> {
        id: &'a AlertId as text,
        source: &'a str as text,
        ticket_id: &'a str as text,
    }
}

impl Db {
    /// Tells of alerts that are settled: no message is on its way any more (one that the carrier never spoke of is settled after
    /// three days), and not all were canceled. What was over well before the first endpoint began to listen is told to nobody. Each once, in the order in which they came. Nothing is asked unless somebody
    /// wants to hear of it. Returns how many there were.
    pub async fn tell_settled(&self, now: Timestamp) -> Result<usize, StoreError> {
        const SETTLED: Sql = sql!(
            "select a.id, a.source, a.ticket_id from alert a where a.id >= $1 and a.id > $2
                and not exists (select 1 from ticket_note n where n.alert_id = a.id)
                and exists (select 1 from delivery d where d.alert_id = a.id and d.state <> 'canceled' and d.moved_at >= $4)
                and not exists (select 1 from delivery o where o.alert_id = a.id and o.state in (",
            State::OPEN,
            ") and not (o.state in ('accepted', 'sent') and o.due_at is null))
             order by a.id limit $3"
        );
        const BEGUN: Sql = sql!("select min(created_at) from webhook_endpoint");
        // Alerts of a ticket are locked in this order by everybody who has several.
        const MARK: Sql = sql!(
            "insert into ticket_note (alert_id, source, ticket_id, text, tries, created_at)
             select r.id, r.source, r.ticket_id, '', 0, $2 from ",
            MarkRow::ROWS,
            " where true order by r.id on conflict (alert_id) do nothing returning alert_id"
        );
        if !self.wants(EventType::AlertSettled) {
            return Ok(0);
        }
        // Ids begin with their time (UUIDv7), so the newest alerts are the last of their key.
        let begun: Option<i64> = self.reads().scalar(BEGUN, args![]).await?;
        let Some(begun) = begun else { return Ok(0) };
        let begun = after(at(begun), -OPEN_AT_START);
        let since = first_id(after(now, -NEWS).max(begun));
        let (mut told, mut last) = (0, String::new());
        loop {
            let asked = args![&since, &last, AT_ONCE, ms(begun)];
            let settled: Vec<Settled> = self.reads().all(SETTLED, asked).await?;
            let Some(newest) = settled.last() else { return Ok(told) };
            newest.id.as_str().clone_into(&mut last);
            let rows: Rows = settled.iter().map(Settled::mark).collect();
            let mut tx = self.begin().await?;
            let marked: Vec<AlertId> = tx.scalars(MARK, args![rows, ms(now)]).await?;
            told += marked.len();
            tell(&mut tx, &marked, now).await?;
            tx.commit().await?;
        }
    }

    /// Takes over the notes that the version before has kept and not written: their alerts are told of, so that an endpoint
    /// writes them. One that a process of that version is writing just now is left to it.
    pub async fn take_over_notes(&self, source: &str, now: Timestamp) -> Result<(), StoreError> {
        const KEPT: Sql = sql!("select 1 from ticket_note where source = $1 and due_at > 0 limit 1");
        const TAKE: Sql = sql!(
            "update ticket_note set due_at = null, lease_until = null, text = '', last_error = null
             where source = $1 and due_at > 0 and (lease_until is null or lease_until <= $2) returning alert_id"
        );
        if !self.wants(EventType::AlertSettled) || !self.reads().exists(KEPT, args![source]).await? {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let mut taken: Vec<AlertId> = tx.scalars(TAKE, args![source, ms(now)]).await?;
        taken.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        tell(&mut tx, &taken, now).await?;
        tx.commit().await
    }

    /// What a note on the ticket of an alert needs beside an event.
    pub async fn note_facts(&self, alert_id: &AlertId) -> Result<NoteFacts, StoreError> {
        const FACTS: Sql = sql!("select id, name, provider from delivery where alert_id = $1");
        let rows: Vec<(String, Option<String>, Option<String>)> = self.reads().all(FACTS, args![alert_id]).await?;
        Ok(NoteFacts {
            is_test: rows.iter().any(|(_, _, provider)| provider.as_deref() == Some("log")),
            names: rows.into_iter().filter_map(|(id, name, _)| Some((id, name?))).collect(),
        })
    }
}

/// Tells who of these alerts was reached. A message that was sent again counts by the newer one.
async fn tell(tx: &mut Tx, alerts: &[AlertId], now: Timestamp) -> Result<(), StoreError> {
    const PEOPLE: Sql = sql!(
        "select d.alert_id, d.id, d.staff_id, d.role, d.state, d.error_code, d.moved_at from ",
        IdRow::ROWS,
        " cross join delivery d where d.alert_id = r.id and d.state <> 'canceled'
            and not exists (select 1 from delivery n where n.resend_of = d.id and n.state <> 'canceled')
          order by d.alert_id, d.id"
    );
    if alerts.is_empty() {
        return Ok(());
    }
    let rows: Rows = alerts.iter().map(|id| IdRow { id }).collect();
    let people: Vec<Person> = tx.all(PEOPLE, args![rows]).await?;
    for alert_id in alerts {
        let people: Vec<&Person> = people.iter().filter(|person| person.alert_id == *alert_id).collect();
        let reached = people.iter().filter(|person| person.state == State::Delivered).count();
        let about = About {
            alert_id: Some(alert_id),
            ..About::default()
        };
        tx.tell(EventType::AlertSettled, &about, now, || {
            json!({ "reached": reached, "of": people.len(), "people": people.iter().map(|person| person.shown()).collect::<Value>() })
        });
    }
    Ok(())
}

row! {
    IdRow<'a> { id: &'a AlertId as text }
}

impl Person {
    /// Without a name or a number: those are looked up by who may tell them.
    fn shown(&self) -> Value {
        json!({
            "delivery_id": self.id.as_str(),
            "role": self.role,
            "staff_id": self.staff_id,
            "state": self.state,
            "error_code": self.error_code,
            "at": self.moved_at,
        })
    }
}
