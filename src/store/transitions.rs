//! The one place that moves a delivery from state to state: every move writes its line on the timeline in the same
//! transaction. Absent: when to move (see `sending`, `receipts`, `deliveries`, `alerts`).

use super::{
    StoreError, Tx,
    alarms::{self, About},
    locking, ms, within,
};
use crate::domain::{
    alarm::AlarmKind,
    delivery::{Change, Channel, Reason, State},
};
use jiff::Timestamp;

/// A delivery as a transaction sees it: locked until the commit.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub id: String,
    pub alert_id: String,
    channel: String,
    round: i64,
    state: String,
    pub attempts: i64,
    pub phone: Option<String>,
    pub message: String,
    pub lease_token: Option<String>,
    pub lease_until: Option<i64>,
    pub received_at: i64,
    closed_at: Option<i64>,
}

impl Row {
    pub fn channel(&self) -> Result<Channel, StoreError> {
        Channel::parse(&self.channel).ok_or_else(|| StoreError::Unreadable {
            what: "the channel",
            value: self.channel.clone(),
        })
    }

    /// Whether the ticket's end has made this delivery pointless. Not what a person asked to be sent again.
    pub fn is_over(&self) -> bool {
        self.closed_at.is_some() && self.round == 0
    }

    pub fn state(&self) -> Result<State, StoreError> {
        State::parse(&self.state).ok_or_else(|| StoreError::Unreadable {
            what: "the delivery state",
            value: self.state.clone(),
        })
    }
}

/// Where a move ends, beside the state itself.
#[derive(Default)]
pub(super) struct Landing {
    pub reason: Option<Reason>,
    /// When something has to be done next; `None` for a final state.
    pub due_at: Option<Timestamp>,
    /// Until when a call to the provider may be under way.
    pub lease_until: Option<Timestamp>,
    /// What the timeline says of it. Never a phone number, name, or a provider's own text.
    pub detail: String,
}

/// Reads a delivery and keeps it from changing until the commit.
pub(super) async fn lock(tx: &mut Tx, id: &str) -> Result<Option<Row>, StoreError> {
    Ok(locking!(
        tx,
        "select d.id, d.alert_id, d.channel, d.round, d.state, d.attempts, d.phone, d.message, d.lease_token,
            d.lease_until, d.received_at, a.closed_at
         from delivery d join alert a on a.id = d.alert_id where d.id = $1",
        "for update of d",
        |conn, sql| sqlx::query_as(sql).bind(id).fetch_optional(conn).await
    )?)
}

/// Applies `change` if the state machine knows it here. Returns the new state, or `None` if nothing changed.
pub(super) async fn change(
    tx: &mut Tx,
    row: &mut Row,
    change: Change,
    landing: Landing,
    now: Timestamp,
) -> Result<Option<State>, StoreError> {
    let Some(state) = row.state()?.after(change) else {
        return Ok(None);
    };
    if change == Change::Begin {
        row.attempts += 1;
    }
    let seq: i64 = within!(tx, |conn| {
        sqlx::query_scalar(
            "update delivery set state = $2, reason = $3, due_at = $4, lease_token = null, lease_until = $5,
            attempts = $6, claims = 0,
             looks = 0, moved_at = $7, report_day = null, updated_at = $7, timeline_length = timeline_length + 1
         where id = $1 returning timeline_length",
        )
        .bind(&row.id)
        .bind(state.as_str())
        .bind(landing.reason.map(Reason::as_str))
        .bind(landing.due_at.map(ms))
        .bind(landing.lease_until.map(ms))
        .bind(row.attempts)
        .bind(ms(now))
        .fetch_one(conn)
        .await
    })?;
    write_line(tx, &row.id, seq, state.as_str(), &landing.detail, now).await?;
    state.as_str().clone_into(&mut row.state);
    row.lease_token = None;
    if state.leaves_untold() && state != State::Canceled {
        check_somebody_is_told(tx, &row.alert_id, now).await?;
        if let Some((_, alerts)) = &mut tx.look_again {
            alerts.push((row.alert_id.clone(), now));
        }
    }
    Ok(Some(state))
}

/// The newest attempt surely was not sent: back to the line, or canceled if the ticket was closed meanwhile.
pub(super) async fn not_sent(tx: &mut Tx, row: &mut Row, landing: Landing, now: Timestamp) -> Result<(), StoreError> {
    // Read anew: PostgreSQL may have waited for the delivery's lock while the ticket was closed.
    row.closed_at = within!(tx, |conn| sqlx::query_scalar(
        "select closed_at from alert where id = $1"
    )
    .bind(&row.alert_id)
    .fetch_one(conn)
    .await)?;
    let closed = row.is_over();
    let landing = if closed {
        Landing {
            reason: Some(Reason::TicketClosed),
            due_at: None,
            ..landing
        }
    } else {
        landing
    };
    change(tx, row, Change::NotSent { closed }, landing, now).await?;
    Ok(())
}

/// Adds a line that goes with no move.
pub(super) async fn note(
    tx: &mut Tx,
    delivery_id: &str,
    what: &str,
    detail: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let seq: i64 = within!(tx, |conn| {
        sqlx::query_scalar(
            "update delivery set timeline_length = timeline_length + 1 where id = $1 returning timeline_length",
        )
        .bind(delivery_id)
        .fetch_one(conn)
        .await
    })?;
    write_line(tx, delivery_id, seq, what, detail, now).await
}

pub(super) async fn write_line(
    tx: &mut Tx,
    delivery_id: &str,
    seq: i64,
    what: &str,
    detail: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    within!(tx, |conn| sqlx::query(
        "insert into timeline (delivery_id, seq, at, what, detail) values ($1, $2, $3, $4, $5)"
    )
    .bind(delivery_id)
    .bind(seq)
    .bind(ms(now))
    .bind(what)
    .bind(Some(detail).filter(|detail| !detail.is_empty()))
    .execute(conn)
    .await
    .map(drop))?;
    Ok(())
}

/// Raises the alarm if nobody on an open alert was told, is being told, or will be told today.
pub(super) async fn check_somebody_is_told(tx: &mut Tx, alert_id: &str, now: Timestamp) -> Result<(), StoreError> {
    let (source, ticket_id, closed_at): (String, String, Option<i64>) = within!(tx, |conn| sqlx::query_as(
        "select source, ticket_id, closed_at from alert where id = $1"
    )
    .bind(alert_id)
    .fetch_one(conn)
    .await)?;
    if closed_at.is_some() {
        return Ok(());
    }
    let states: Vec<String> = within!(tx, |conn| sqlx::query_scalar(
        "select state from delivery where alert_id = $1"
    )
    .bind(alert_id)
    .fetch_all(conn)
    .await)?;
    if states
        .iter()
        .all(|word| State::parse(word).is_some_and(State::leaves_untold))
    {
        let detail = format!("nobody is being told of alert {alert_id} (source {source}, ticket {ticket_id})");
        let about = About {
            alert_id: Some(alert_id),
            delivery_id: None,
        };
        // Once for these people; if more are named later and they are not told either, that is another alarm.
        let subject = format!("{alert_id}/{}", states.len());
        alarms::raise(tx, AlarmKind::NobodyTold, &subject, about, detail, now).await?;
    }
    Ok(())
}
