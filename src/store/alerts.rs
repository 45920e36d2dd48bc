//! Alerts: raising one with its deliveries in a single transaction, adding to one that nobody was told of, and closing it.
//! Absent: reading them back (see `lists`).

use super::{
    Db, acknowledge,
    error::StoreError,
    jobs::{Addition, Done, DuplicateQuery, Job, NewDelivery, Raise, Raised},
    ledger::{self, Birth, Landing},
    lifecycle::About,
    query::Query,
    sql::{Rows, Sql, args, row, sql},
    tx::Tx,
    types::{Recipient, ms, new_id},
};
use crate::domain::{
    delivery::{Change, Reason, State},
    event::Event,
    id::{AlertId, DeliveryId},
    lifecycle::EventType,
    source::LaterRecipients,
};
use jiff::Timestamp;
use serde_json::json;
use std::{cmp::Ordering, sync::Arc};

/// What became of an event that ends an alert.
pub enum Resolved {
    /// The alert is closed; so many deliveries are canceled by it.
    Closed { alert_id: AlertId, canceled: usize },
    /// A late retry: the alert was closed by this very event, and has been opened again since.
    Duplicate { alert_id: AlertId },
}

/// What an event said of a ticket, for the ids that an alert has seen.
const CRITICAL: &str = "critical";
const OVER: &str = "over";

impl Db {
    /// Raises the alert of a critical event, or finds it raised already. Durable when this returns. `compose` makes the
    /// deliveries, each with the id that it gets if it is added, and runs only if they are needed.
    pub async fn raise(
        &self,
        event: &Event,
        later: LaterRecipients,
        now: Timestamp,
        compose: impl AsyncFnOnce() -> Result<Vec<(DeliveryId, NewDelivery)>, StoreError>,
    ) -> Result<Raised, StoreError> {
        let (source, ticket_id) = (&event.source, &event.ticket.id);
        let was_seen = self.seen.has(source, ticket_id);
        if was_seen && let Some(alert_id) = self.find_duplicate(event, later).await? {
            return Ok(Raised::Duplicate { alert_id });
        }
        let raise = Arc::new(Raise {
            alert_id: new_id().into(),
            event: event.clone(),
            deliveries: compose().await?,
            later,
            at: now,
        });
        let job = Job::Raise(Arc::clone(&raise));
        let Done::Raised(is_new) = self.batchers.raise.submit(job).await? else {
            return Err(StoreError::Broken);
        };
        self.seen.add(source, ticket_id);
        if is_new {
            let births = raise.deliveries.iter().cloned();
            let births = births.map(|(id, new)| Birth::new(id, Some(&raise.alert_id), new, now));
            return Ok(Raised::New {
                deliveries: births.map(|birth| birth.addition()).collect(),
                alert_id: raise.alert_id.clone(),
            });
        }
        if !was_seen && let Some(alert_id) = self.find_duplicate(event, later).await? {
            return Ok(Raised::Duplicate { alert_id });
        }
        match self.batchers.raise.submit(Job::Revisit(raise)).await? {
            Done::Revisited(raised) => Ok(raised),
            _ => Err(StoreError::Broken),
        }
    }

    /// The alert of a ticket, if it is certain without a write that a critical event adds nothing to it.
    async fn find_duplicate(&self, event: &Event, later: LaterRecipients) -> Result<Option<AlertId>, StoreError> {
        let told_is_enough = later == LaterRecipients::Untold && event.id.is_none();
        if !told_is_enough && event.id.is_none() {
            return Ok(None);
        }
        let query = DuplicateQuery {
            source: event.source.clone(),
            ticket_id: event.ticket.id.clone(),
            event_id: event.id.clone(),
            told_is_enough,
        };
        self.batchers.find_duplicates.submit(query).await
    }

    /// Closes the alert of a ticket and cancels what has not begun to be sent. `None` if the ticket has no alert.
    pub async fn resolve(&self, event: &Event, now: Timestamp) -> Result<Option<Resolved>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(alert) = lock(&mut tx, event).await? else {
            return Ok(None);
        };
        if alert.was_raised_after(event) {
            return Ok(Some(Resolved::Duplicate { alert_id: alert.id }));
        }
        let alert_id = alert.id;
        if let Some(id) = &event.id
            && !note_event(&mut tx, &alert_id, OVER, id, now).await?
        {
            // It was said before. If the alert is open all the same, it was opened again since.
            return Ok(Some(match alert.closed_at {
                Some(_) => Resolved::Closed { alert_id, canceled: 0 },
                None => Resolved::Duplicate { alert_id },
            }));
        }
        // A helpdesk whose clock is ahead must not make what happens in the next hours old.
        let occurred_at = if event.is_dated {
            event.occurred_at.min(now)
        } else {
            now
        };
        tx.execute(
            sql!(
                "update alert set closed_at = coalesce(closed_at, $2),
                close_occurred_at = case when close_occurred_at > $3 then close_occurred_at else $3 end where id = $1"
            ),
            args![&alert_id, ms(now), ms(occurred_at)],
        )
        .await?;
        let people = people_of(&mut tx, &alert_id).await?;
        let ids: Vec<DeliveryId> = people.into_iter().map(|person| person.id).collect();
        let mut deliveries = ledger::lock(&mut tx, &ids).await?;
        let mut canceled = 0;
        for delivery in &mut deliveries {
            let landing = Landing {
                reason: Some(Reason::TicketClosed),
                detail: "the ticket is no longer critical".into(),
                ..Default::default()
            };
            canceled += usize::from(delivery.apply(Change::Cancel, landing, now).is_some());
        }
        if alert.closed_at.is_none() {
            let about = About {
                alert_id: Some(&alert_id),
                ..About::default()
            };
            tx.tell(EventType::AlertClosed, &about, now, || json!({ "canceled": canceled }));
        }
        ledger::save(&mut tx, &mut deliveries).await?;
        tx.commit().await?;
        Ok(Some(Resolved::Closed { alert_id, canceled }))
    }
}

row! {
    AlertRow<'a> {
        id: &'a AlertId as text,
        source: &'a str as text,
        ticket_id: &'a str as text,
        number: &'a Option<String> as text,
        subject: &'a str as text,
        url: &'a Option<String> as text,
        client: &'a Option<String> as text,
        organisation: &'a Option<String> as text,
        hours: Option<f64> as real,
        confidence: Option<f64> as real,
        event_id: &'a Option<String> as text,
        kind: &'a Option<String> as text,
        occurred_at: i64 as number,
        received_at: i64 as number,
    }
}

const INSERT: Sql = sql!(
    "insert into alert (id, source, ticket_id, ticket_number, subject, url, client_name, client_organisation, estimated_hours,
        confidence_percent, event_id, event_type, occurred_at, received_at)
     select r.id, r.source, r.ticket_id, r.number, r.subject, r.url, r.client, r.organisation, r.hours, r.confidence,
        r.event_id, r.kind, r.occurred_at, r.received_at
     from ",
    AlertRow::ROWS,
    " where true on conflict (source, ticket_id) do nothing"
);

row! {
    IdRow<'a> { id: &'a AlertId as text }
}

/// Which of these are there.
pub const PRESENT: Sql = sql!(
    "select a.id from ",
    IdRow::ROWS,
    " cross join alert a where a.id = r.id"
);

/// Inserts alerts whose tickets have none. PostgreSQL waits for others that insert the same ticket: everybody in the same
/// order.
pub fn insert(tx: &mut Tx, raises: &[Arc<Raise>]) {
    let mut sorted: Vec<&Raise> = raises.iter().map(Arc::as_ref).collect();
    sorted.sort_by_key(|raise| (&raise.event.source, &raise.event.ticket.id));
    let rows = sorted.into_iter().map(|raise| {
        let (event, ticket) = (&raise.event, &raise.event.ticket);
        AlertRow {
            id: &raise.alert_id,
            source: &event.source,
            ticket_id: &ticket.id,
            number: &ticket.number,
            subject: &ticket.subject,
            url: &ticket.url,
            client: &event.client.name,
            organisation: &event.client.organisation,
            hours: ticket.estimated_hours,
            confidence: ticket.confidence_percent,
            event_id: &event.id,
            kind: &event.kind,
            occurred_at: ms(event.occurred_at),
            received_at: ms(raise.at),
        }
    });
    tx.queue(INSERT, rows.collect());
    for raise in raises {
        let about = About {
            alert_id: Some(&raise.alert_id),
            ..About::default()
        };
        tx.tell(
            EventType::AlertCreated,
            &about,
            raise.at,
            || json!({ "deliveries": raise.deliveries.len() }),
        );
    }
}

/// Alert ids as rows.
pub fn id_rows(raises: &[Arc<Raise>]) -> Rows {
    raises.iter().map(|raise| IdRow { id: &raise.alert_id }).collect()
}

/// An alert as a transaction has it: locked until the commit.
#[derive(sqlx::FromRow)]
struct Alert {
    id: AlertId,
    closed_at: Option<i64>,
    acknowledged_at: Option<i64>,
    stripped_at: Option<i64>,
    event_id: Option<String>,
    close_occurred_at: Option<i64>,
    occurred_at: i64,
    received_at: i64,
    imported_at: Option<i64>,
}

impl Alert {
    /// Whether it is open and somebody has acknowledged it.
    fn is_acknowledged(&self) -> bool {
        self.closed_at.is_none() && self.acknowledged_at.is_some()
    }

    /// Whether an event speaks of a time before the ticket turned critical: a late retry must not close what came after it.
    /// Only where both say when they happened; a helpdesk whose clock was ahead is not believed beyond our own.
    fn was_raised_after(&self, event: &Event) -> bool {
        let is_dated = self.occurred_at != self.received_at;
        event.is_dated && is_dated && ms(event.occurred_at) < self.occurred_at.min(self.received_at)
    }

    /// Whether an event speaks of a time before the alert was closed. A close that lies ahead was dated by a clock that has
    /// gone back since.
    fn was_closed_after(&self, event: &Event, now: Timestamp) -> bool {
        let ended_at = self
            .close_occurred_at
            .or(self.closed_at)
            .filter(|ended_at| *ended_at <= ms(now));
        // Helpdesks date to the second. In the very second of the close, an event without an id is the one before it.
        let is_before = |ended_at: i64| match ms(event.occurred_at).cmp(&ended_at) {
            Ordering::Less => true,
            Ordering::Equal => event.id.is_none(),
            Ordering::Greater => false,
        };
        event.is_dated && ended_at.is_some_and(is_before)
    }
}

/// Finds the alert of a ticket and keeps it from changing until the commit.
async fn lock(tx: &mut Tx, event: &Event) -> Result<Option<Alert>, StoreError> {
    tx.optional(
        sql!(
            "update alert set closed_at = closed_at where source = $1 and ticket_id = $2
         returning id, closed_at, acknowledged_at, stripped_at, event_id, close_occurred_at, imported_at, occurred_at, received_at"
        ),
        args![&event.source, &event.ticket.id],
    )
    .await
}

/// Notes that the alert has seen the event. Returns whether it had not seen it before.
async fn note_event(
    tx: &mut Tx,
    alert_id: &AlertId,
    kind: &'static str,
    event_id: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let noted = tx
        .execute(
            sql!(
                "insert into alert_event (alert_id, kind, event_id, received_at) values ($1, $2, $3, $4)
             on conflict (alert_id, kind, event_id) do nothing"
            ),
            args![alert_id, kind, event_id, ms(now)],
        )
        .await?;
    Ok(noted > 0)
}

/// Somebody who is on an alert already.
#[derive(sqlx::FromRow)]
struct Person {
    id: DeliveryId,
    state: State,
    phone: Option<String>,
    phone_raw: Option<String>,
    #[sqlx(flatten)]
    recipient: Recipient,
}

impl Person {
    /// Whether the new delivery is for the same number; of unusable numbers, for the same text and person.
    fn is_meant_by(&self, new: &NewDelivery) -> bool {
        match &new.phone {
            Ok(phone) => self.phone.as_deref() == Some(phone.as_e164()),
            Err(raw) => {
                let (known, named) = (&self.recipient, &new.recipient);
                self.phone.is_none()
                    && self.phone_raw == *raw
                    && known.staff_id == named.staff_id
                    && known.name == named.name
            }
        }
    }
}

async fn people_of(tx: &mut Tx, alert_id: &AlertId) -> Result<Vec<Person>, StoreError> {
    const PEOPLE: Sql = sql!(
        "select id, state, phone, phone_raw, staff_id, role, name from delivery where alert_id = $1 order by id for update"
    );
    tx.all(PEOPLE, args![alert_id]).await
}

/// A critical event whose ticket has its alert: adds nothing, unless nobody was told, or each later recipient is to be.
pub async fn revisit(tx: &mut Tx, raise: &Raise) -> Result<Raised, StoreError> {
    let (event, now) = (&raise.event, raise.at);
    let alert = lock(tx, event).await?.ok_or(sqlx::Error::RowNotFound)?;
    let duplicate = Raised::Duplicate {
        alert_id: alert.id.clone(),
    };
    // Its people were told by the system before, which is all that is known of them.
    if alert.imported_at.is_some() {
        return Ok(duplicate);
    }
    if let Some(id) = &event.id
        && (alert.event_id.as_ref() == Some(id) || !note_event(tx, &alert.id, CRITICAL, id, now).await?)
    {
        return Ok(duplicate);
    }
    if alert.was_closed_after(event, now) {
        return Ok(duplicate);
    }
    let people = people_of(tx, &alert.id).await?;
    let is_told = people.iter().any(|person| person.state.is_told()) || alert.is_acknowledged();
    if is_told && alert.closed_at.is_some() && people.iter().any(|person| person.state.is_uncertain()) {
        // Nothing is added, but what is on its way counts again: if it turns out not sent, it is owed.
        reopen(tx, &alert.id).await?;
        return Ok(duplicate);
    }
    // Of a stripped alert nobody knows any more whom it told: they must not be told again.
    if is_told && (raise.later == LaterRecipients::Untold || alert.closed_at.is_some() || alert.stripped_at.is_some()) {
        return Ok(duplicate);
    }
    let revived = if is_told {
        Vec::new()
    } else {
        revive(tx, &people, now).await?
    };
    let mut births: Vec<Birth> = raise
        .deliveries
        .iter()
        .filter(|(_, new)| !people.iter().any(|person| person.is_meant_by(new)))
        .map(|(id, new)| Birth::new(id.clone(), Some(&alert.id), new.clone(), now))
        .collect();
    if revived.is_empty() && births.is_empty() {
        return Ok(duplicate);
    }
    if alert.stripped_at.is_some() {
        restore(tx, &alert.id, event).await?;
    }
    if !is_told {
        reopen(tx, &alert.id).await?;
    } else if alert.is_acknowledged() {
        tell_all_the_same(tx, &alert.id, now).await?;
    }
    acknowledge::claim_codes(tx, &mut births, now).await?;
    let deliveries = revived.into_iter().chain(births.iter().map(Birth::addition)).collect();
    ledger::create(tx, &mut births, now).await?;
    Ok(Raised::New {
        alert_id: alert.id,
        deliveries,
    })
}

/// Owes again what was canceled: that was surely not sent. One without a number has lost it to the clean-up: its person is
/// named anew, or not at all.
async fn revive(tx: &mut Tx, people: &[Person], now: Timestamp) -> Result<Vec<Addition>, StoreError> {
    let with_number = people.iter().filter(|person| person.phone.is_some());
    let ids: Vec<DeliveryId> = with_number.map(|person| person.id.clone()).collect();
    let mut deliveries = ledger::lock(tx, &ids).await?;
    let mut revived = Vec::new();
    for delivery in &mut deliveries {
        let landing = Landing {
            due_at: Some(now),
            detail: "the ticket is critical again and nobody was told".into(),
            ..Default::default()
        };
        let Some(state) = delivery.apply(Change::Revive, landing, now) else {
            continue;
        };
        delivery.restart_age(now);
        let person = people.iter().find(|person| person.id == delivery.id);
        revived.push(Addition {
            id: delivery.id.clone(),
            recipient: person.map(|person| person.recipient.clone()).unwrap_or_default(),
            state,
        });
    }
    ledger::save(tx, &mut deliveries).await?;
    Ok(revived)
}

/// Fills in again what clean-up took out of an alert that nobody was told of.
async fn restore(tx: &mut Tx, alert_id: &AlertId, event: &Event) -> Result<(), StoreError> {
    tx.execute(
        sql!(
            "update alert set stripped_at = null, ticket_number = $2, subject = $3, url = $4, client_name = $5,
            client_organisation = $6, event_id = $7 where id = $1"
        ),
        args![
            alert_id,
            &event.ticket.number,
            &event.ticket.subject,
            &event.ticket.url,
            &event.client.name,
            &event.client.organisation,
            &event.id
        ],
    )
    .await
    .map(drop)
}

/// The ticket is critical once more, which is an emergency of its own: nobody has acknowledged that.
async fn reopen(tx: &mut Tx, alert_id: &AlertId) -> Result<(), StoreError> {
    const REOPEN: Sql = sql!(
        "update alert set closed_at = null, acknowledged_at = null, acknowledged_by = null, acknowledged_via = null,
            acknowledged_delivery = null, quieted_at = null
         where id = $1"
    );
    tx.execute(REOPEN, args![alert_id]).await.map(drop)
}

/// Whoever is named from now on is told though somebody acknowledged the alert: what is quieted came before, also if the
/// acknowledgement was dated by a clock that is ahead of ours.
async fn tell_all_the_same(tx: &mut Tx, alert_id: &AlertId, now: Timestamp) -> Result<(), StoreError> {
    const QUIET_BEFORE: Sql = sql!("update alert set quieted_at = $2 where id = $1 and quieted_at > $2");
    tx.execute(QUIET_BEFORE, args![alert_id, ms(now) - 1]).await.map(drop)
}
