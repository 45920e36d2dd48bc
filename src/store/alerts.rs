//! Alerts: raising one with its deliveries in a single transaction, adding to one that nobody heard of, and closing it.
//! Absent: reading them back (see `lists`).

use super::{
    Db, StoreError, Tx, locking, ms, new_id, pace, read,
    transitions::{self, Landing},
    within,
};
use crate::domain::{
    delivery::{Change, Channel, Reason, State},
    event::Event,
    phone::PhoneNumber,
};
use jiff::Timestamp;

/// What a later critical event may add to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaterRecipients {
    /// Its people, but only if nobody was told so far.
    Untold,
    /// Each newly named number of an open alert, once.
    Each,
}

/// A delivery to be owed because of an event.
#[derive(Clone)]
pub struct NewDelivery {
    pub staff_id: Option<String>,
    pub role: Option<String>,
    pub name: Option<String>,
    /// `Err` holds the text that is no number, or nothing if there was none.
    pub phone: Result<PhoneNumber, Option<String>>,
    pub message: String,
    pub segments: usize,
}

/// A delivery that an event added or brought back.
#[derive(Clone, Debug)]
pub struct Addition {
    pub id: String,
    pub staff_id: Option<String>,
    pub role: Option<String>,
    pub name: Option<String>,
    pub state: State,
}

/// What became of a critical event.
pub enum Accepted {
    /// The alert is new, or it now tells more people.
    New {
        alert_id: String,
        deliveries: Vec<Addition>,
    },
    /// This ticket has its alert; nothing was added.
    Duplicate { alert_id: String },
}

/// What became of an event that ends an alert.
pub struct Resolved {
    pub alert_id: String,
    pub canceled: usize,
}

/// What is already on an alert.
#[derive(sqlx::FromRow)]
struct Known {
    id: String,
    state: String,
    phone: Option<String>,
    phone_raw: Option<String>,
    staff_id: Option<String>,
    role: Option<String>,
    name: Option<String>,
}

impl Known {
    fn state(&self) -> Result<State, StoreError> {
        State::parse(&self.state).ok_or_else(|| StoreError::Unreadable {
            what: "the delivery state",
            value: self.state.clone(),
        })
    }

    /// Whether the new delivery is for the same number; of unusable numbers, for the same text and person.
    fn is_for(&self, new: &NewDelivery) -> bool {
        match &new.phone {
            Ok(phone) => self.phone.as_deref() == Some(phone.as_e164()),
            Err(raw) => {
                self.phone.is_none() && self.phone_raw == *raw && self.staff_id == new.staff_id && self.name == new.name
            }
        }
    }
}

impl Db {
    /// Raises the alert of a critical event, or finds it raised already. Durable when this returns. `compose` makes the
    /// deliveries and runs only if they are needed.
    pub async fn accept(
        &self,
        event: &Event,
        later: LaterRecipients,
        now: Timestamp,
        compose: impl FnOnce() -> Vec<NewDelivery>,
    ) -> Result<Accepted, StoreError> {
        // Most duplicates are answered here, from what is committed, without waiting for the writer.
        if later == LaterRecipients::Untold
            && let Some(alert_id) = self.find_told_alert(event).await?
        {
            return Ok(Accepted::Duplicate { alert_id });
        }
        let new = compose();
        let mut tx = self.begin().await?;
        let alert_id = new_id();
        if insert_alert(&mut tx, &alert_id, event, now).await? {
            let mut deliveries = Vec::with_capacity(new.len());
            for delivery in &new {
                deliveries.push(insert_delivery(&mut tx, &alert_id, delivery, now).await?);
            }
            transitions::check_somebody_is_told(&mut tx, &alert_id, now).await?;
            pace::ring(&mut tx).await?;
            tx.commit().await?;
            return Ok(Accepted::New { alert_id, deliveries });
        }

        let (alert_id, closed_at, stripped_at) = lock_alert(&mut tx, &event.source, &event.ticket.id).await?;
        let known = deliveries_of(&mut tx, &alert_id).await?;
        let (mut told, mut on_its_way) = (false, false);
        for delivery in &known {
            let state = delivery.state()?;
            told |= state.tells();
            on_its_way |= matches!(state, State::Sending | State::Unknown | State::Unconfirmed);
        }
        if told && closed_at.is_some() && on_its_way {
            // Nothing is added, but what is on its way counts again: if it turns out not sent, it is owed.
            reopen(&mut tx, &alert_id).await?;
            tx.commit().await?;
            return Ok(Accepted::Duplicate { alert_id });
        }
        // Of a stripped alert nobody knows any more whom it told: they must not be told again.
        if told && (later == LaterRecipients::Untold || closed_at.is_some() || stripped_at.is_some()) {
            return Ok(Accepted::Duplicate { alert_id });
        }
        if stripped_at.is_some() {
            restore(&mut tx, &alert_id, event).await?;
        }
        let deliveries = add_to_alert(&mut tx, &alert_id, &known, &new, told, now).await?;
        if deliveries.is_empty() {
            return Ok(Accepted::Duplicate { alert_id });
        }
        pace::ring(&mut tx).await?;
        tx.commit().await?;
        Ok(Accepted::New { alert_id, deliveries })
    }

    /// The open alert of the event's ticket, if somebody on it was told or is being told.
    async fn find_told_alert(&self, event: &Event) -> Result<Option<String>, StoreError> {
        let rows: Vec<(String, String)> = read!(self, |pool| {
            sqlx::query_as(
                "select a.id, d.state from alert a join delivery d on d.alert_id = a.id
                where a.source = $1 and a.ticket_id = $2 and a.closed_at is null",
            )
            .bind(&event.source)
            .bind(&event.ticket.id)
            .fetch_all(pool)
            .await
        })?;
        Ok(rows
            .into_iter()
            .find(|(_, state)| State::parse(state).is_some_and(State::tells))
            .map(|(alert_id, _)| alert_id))
    }

    /// Closes the alert of a ticket and cancels what has not begun to be sent. `None` if the ticket has no alert.
    pub async fn resolve(&self, source: &str, ticket_id: &str, now: Timestamp) -> Result<Option<Resolved>, StoreError> {
        let mut tx = self.begin().await?;
        let closed: Option<String> = within!(tx, |conn| {
            sqlx::query_scalar(
            "update alert set closed_at = coalesce(closed_at, $3) where source = $1 and ticket_id = $2 returning id"
        )
        .bind(source)
        .bind(ticket_id)
        .bind(ms(now))
        .fetch_optional(conn)
        .await
        })?;
        let Some(alert_id) = closed else {
            return Ok(None);
        };
        let mut canceled = 0;
        for delivery in deliveries_of(&mut tx, &alert_id).await? {
            let Some(mut row) = transitions::lock(&mut tx, &delivery.id).await? else {
                continue;
            };
            let landing = Landing {
                reason: Some(Reason::TicketClosed),
                detail: "the ticket is no longer critical".into(),
                ..Default::default()
            };
            canceled += usize::from(
                transitions::change(&mut tx, &mut row, Change::Cancel, landing, now)
                    .await?
                    .is_some(),
            );
        }
        tx.commit().await?;
        Ok(Some(Resolved { alert_id, canceled }))
    }
}

/// Inserts the alert unless its ticket has one. PostgreSQL waits here for a commit of the same ticket that is under way.
async fn insert_alert(tx: &mut Tx, id: &str, event: &Event, now: Timestamp) -> Result<bool, StoreError> {
    let ticket = &event.ticket;
    Ok(within!(tx, |conn| {
        sqlx::query(
            "insert into alert (id, source, ticket_id, ticket_number, subject, url, client_name,
            client_organisation, estimated_hours,
             confidence_percent, event_id, event_type, occurred_at, received_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         on conflict (source, ticket_id) do nothing",
        )
        .bind(id)
        .bind(&event.source)
        .bind(&ticket.id)
        .bind(&ticket.number)
        .bind(&ticket.subject)
        .bind(&ticket.url)
        .bind(&event.client.name)
        .bind(&event.client.organisation)
        .bind(ticket.estimated_hours)
        .bind(ticket.confidence_percent)
        .bind(&event.id)
        .bind(&event.kind)
        .bind(ms(event.occurred_at))
        .bind(ms(now))
        .execute(conn)
        .await
        .map(|done| done.rows_affected() > 0)
    })?)
}

/// Finds an alert that is there and keeps it from changing until the commit.
async fn lock_alert(
    tx: &mut Tx,
    source: &str,
    ticket_id: &str,
) -> Result<(String, Option<i64>, Option<i64>), StoreError> {
    Ok(within!(tx, |conn| {
        sqlx::query_as(
            "update alert set closed_at = closed_at where source = $1 and ticket_id = $2
             returning id, closed_at, stripped_at",
        )
        .bind(source)
        .bind(ticket_id)
        .fetch_one(conn)
        .await
    })?)
}

async fn deliveries_of(tx: &mut Tx, alert_id: &str) -> Result<Vec<Known>, StoreError> {
    Ok(locking!(
        tx,
        "select id, state, phone, phone_raw, staff_id, role, name from delivery where alert_id = $1 order by id",
        "for update",
        |conn, sql| sqlx::query_as(sql).bind(alert_id).fetch_all(conn).await
    )?)
}

/// Adds people who are not on the alert yet; where nobody was told, also brings back what was canceled: that was surely
/// not sent.
async fn add_to_alert(
    tx: &mut Tx,
    alert_id: &str,
    known: &[Known],
    new: &[NewDelivery],
    told: bool,
    now: Timestamp,
) -> Result<Vec<Addition>, StoreError> {
    let mut added = Vec::new();
    if !told {
        reopen(tx, alert_id).await?;
        // One without a number has lost it to the clean-up: its person is named anew, or not at all.
        for delivery in known.iter().filter(|delivery| delivery.phone.is_some()) {
            let Some(mut row) = transitions::lock(tx, &delivery.id).await? else {
                continue;
            };
            let landing = Landing {
                due_at: Some(now),
                detail: "the ticket is critical again and nobody was told".into(),
                ..Default::default()
            };
            let Some(state) = transitions::change(tx, &mut row, Change::Revive, landing, now).await? else {
                continue;
            };
            restart_age(tx, &delivery.id, now).await?;
            added.push(Addition {
                id: delivery.id.clone(),
                staff_id: delivery.staff_id.clone(),
                role: delivery.role.clone(),
                name: delivery.name.clone(),
                state,
            });
        }
    }
    for delivery in new.iter().filter(|new| !known.iter().any(|known| known.is_for(new))) {
        added.push(insert_delivery(tx, alert_id, delivery, now).await?);
    }
    if !added.is_empty() {
        transitions::check_somebody_is_told(tx, alert_id, now).await?;
    }
    Ok(added)
}

/// Fills in again what clean-up took out of an alert that nobody was told of.
async fn restore(tx: &mut Tx, alert_id: &str, event: &Event) -> Result<(), StoreError> {
    Ok(within!(tx, |conn| sqlx::query(
        "update alert set stripped_at = null, ticket_number = $2, subject = $3, url = $4, client_name = $5,
            client_organisation = $6, event_id = $7 where id = $1"
    )
    .bind(alert_id)
    .bind(&event.ticket.number)
    .bind(&event.ticket.subject)
    .bind(&event.ticket.url)
    .bind(&event.client.name)
    .bind(&event.client.organisation)
    .bind(&event.id)
    .execute(conn)
    .await
    .map(drop))?)
}

async fn reopen(tx: &mut Tx, alert_id: &str) -> Result<(), StoreError> {
    within!(tx, |conn| sqlx::query(
        "update alert set closed_at = null where id = $1"
    )
    .bind(alert_id)
    .execute(conn)
    .await
    .map(drop))?;
    Ok(())
}

/// A delivery that is owed anew is as old as the event that said so.
async fn restart_age(tx: &mut Tx, delivery_id: &str, now: Timestamp) -> Result<(), StoreError> {
    within!(tx, |conn| sqlx::query(
        "update delivery set received_at = $2 where id = $1"
    )
    .bind(delivery_id)
    .bind(ms(now))
    .execute(conn)
    .await
    .map(drop))?;
    Ok(())
}

async fn insert_delivery(
    tx: &mut Tx,
    alert_id: &str,
    new: &NewDelivery,
    now: Timestamp,
) -> Result<Addition, StoreError> {
    let (phone, raw, state, reason, detail) = match &new.phone {
        Ok(phone) => (Some(phone.as_e164()), None, State::Pending, None, "to be sent"),
        Err(Some(raw)) => (
            None,
            Some(raw.as_str()),
            State::Failed,
            Some(Reason::InvalidNumber),
            "the number given cannot be texted",
        ),
        Err(None) => (None, None, State::Failed, Some(Reason::NoNumber), "no number was given"),
    };
    let id = new_id();
    within!(tx, |conn| {
        sqlx::query(
            "insert into delivery (id, alert_id, channel, phone, phone_raw, round, staff_id, role, name, message,
            segments, state, reason, attempts,
             due_at, claims, looks, timeline_length, moved_at, received_at, created_at, updated_at)
         values ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11, $12, 0, $13, 0, 0, 1, $14, $14, $14, $14)",
        )
        .bind(&id)
        .bind(alert_id)
        .bind(Channel::Sms.as_str())
        .bind(phone)
        .bind(raw)
        .bind(&new.staff_id)
        .bind(&new.role)
        .bind(&new.name)
        .bind(&new.message)
        .bind(i64::try_from(new.segments).unwrap_or(i64::MAX))
        .bind(state.as_str())
        .bind(reason.map(Reason::as_str))
        .bind((state == State::Pending).then_some(ms(now)))
        .bind(ms(now))
        .execute(conn)
        .await
        .map(drop)
    })?;
    transitions::write_line(tx, &id, 1, state.as_str(), detail, now).await?;
    Ok(Addition {
        id,
        staff_id: new.staff_id.clone(),
        role: new.role.clone(),
        name: new.name.clone(),
        state,
    })
}
