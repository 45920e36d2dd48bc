//! The one place that moves a delivery from state to state: every move writes its line on the timeline in the same
//! transaction. Absent: when to move (see `sending`, `receipts`, `deliveries`, `alerts`).

use super::{
    StoreError, Tx,
    alarms::{self, About},
    ms,
    tx::Rows,
    within,
};
use crate::domain::route::Channel;
use crate::domain::{
    alarm::AlarmKind,
    delivery::{Change, Reason, State},
};
use jiff::Timestamp;

/// The columns of a `Row`, of `delivery d join alert a`.
macro_rules! row_columns {
    () => {
        "d.id, d.alert_id, d.channel, d.round, d.state, d.reason, d.attempts, d.phone, d.message, d.due_at, d.lease_token,
            d.lease_until, d.received_at, d.moved_at, d.timeline_length, d.provider, d.provider_message_id,
            d.provider_status, d.error_code, d.provider_at, a.closed_at"
    };
}
pub(super) use row_columns;

/// A delivery as a transaction sees it: locked until the commit.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub id: String,
    pub alert_id: String,
    channel: String,
    round: i64,
    state: String,
    reason: Option<String>,
    pub attempts: i64,
    pub phone: Option<String>,
    pub message: String,
    due_at: Option<i64>,
    pub lease_token: Option<String>,
    pub lease_until: Option<i64>,
    pub received_at: i64,
    moved_at: i64,
    timeline_length: i64,
    pub provider: Option<String>,
    #[sqlx(flatten)]
    pub words: Words,
    closed_at: Option<i64>,
}

/// The provider's own words that stand beside our state.
#[derive(sqlx::FromRow, Default)]
pub(super) struct Words {
    pub provider_message_id: Option<String>,
    pub provider_status: Option<String>,
    pub error_code: Option<i64>,
    pub provider_at: Option<i64>,
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
    let sql = concat!(
        "select ",
        row_columns!(),
        " from delivery d join alert a on a.id = d.alert_id where d.id = $1"
    );
    Ok(tx.ask(sql, "for update of d", [id.into()]).await?.pop())
}

/// Applies `change` if the state machine knows it here. Returns the new state, or `None` if nothing changed.
pub(super) async fn change(
    tx: &mut Tx,
    row: &mut Row,
    change: Change,
    landing: Landing,
    now: Timestamp,
) -> Result<Option<State>, StoreError> {
    let mut lines = Rows::default();
    let Some(state) = step(row, change, landing, now, &mut lines)? else {
        return Ok(None);
    };
    save(tx, [&*row], lines);
    if state.leaves_untold() && state != State::Canceled {
        check_somebody_is_told(tx, &row.alert_id, now).await?;
        if let Some((_, alerts)) = &mut tx.look_again {
            alerts.push((row.alert_id.clone(), now));
        }
    }
    Ok(Some(state))
}

/// Moves a delivery in memory and adds the line to `lines`; `save` writes both. For many at once, none of which leaves
/// its person untold.
pub(super) fn step(
    row: &mut Row,
    change: Change,
    landing: Landing,
    now: Timestamp,
    lines: &mut Rows,
) -> Result<Option<State>, StoreError> {
    let Some(state) = row.state()?.after(change) else {
        return Ok(None);
    };
    if change == Change::Begin {
        row.attempts += 1;
    }
    state.as_str().clone_into(&mut row.state);
    row.reason = landing.reason.map(|reason| reason.as_str().to_owned());
    row.due_at = landing.due_at.map(ms);
    row.lease_token = None;
    row.lease_until = landing.lease_until.map(ms);
    row.moved_at = ms(now);
    row.timeline_length += 1;
    lines.push(&line(
        &row.id,
        row.timeline_length,
        state.as_str(),
        &landing.detail,
        now,
    ));
    Ok(Some(state))
}

/// Queues what `step` did to these deliveries, each of which is there once.
pub(super) fn save<'a>(tx: &mut Tx, moved: impl IntoIterator<Item = &'a Row>, lines: Rows) {
    let rows: Rows = moved
        .into_iter()
        .map(|row| {
            (
                &row.id,
                &row.state,
                &row.reason,
                row.due_at,
                row.lease_until,
                row.attempts,
                row.moved_at,
                row.timeline_length,
                &row.provider,
                &row.words.provider_message_id,
                &row.words.provider_status,
                row.words.error_code,
                row.words.provider_at,
            )
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    tx.queue(
        "update delivery set state = r.value ->> 1, reason = r.value ->> 2, due_at = cast(r.value ->> 3 as bigint),
            lease_token = null, lease_until = cast(r.value ->> 4 as bigint), attempts = cast(r.value ->> 5 as bigint),
            claims = 0, looks = 0, moved_at = cast(r.value ->> 6 as bigint), report_day = null,
            updated_at = cast(r.value ->> 6 as bigint), timeline_length = cast(r.value ->> 7 as bigint),
            provider = r.value ->> 8, provider_message_id = r.value ->> 9, provider_status = r.value ->> 10,
            error_code = cast(r.value ->> 11 as bigint), provider_at = cast(r.value ->> 12 as bigint)
         from rows($1) as r where delivery.id = r.value ->> 0",
        [rows.into()],
    );
    queue_lines(tx, lines);
}

/// The newest attempt surely was not sent: back to the line, or canceled if the ticket was closed meanwhile. Returns the
/// new state, or `None` if nothing changed.
pub(super) async fn not_sent(
    tx: &mut Tx,
    row: &mut Row,
    landing: Landing,
    now: Timestamp,
) -> Result<Option<State>, StoreError> {
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
    change(tx, row, Change::NotSent { closed }, landing, now).await
}

/// A run of attempts of which none was sent, for the same reason; one line of the timeline stands for all of them.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(super) struct Run {
    /// The number of its first attempt.
    pub run_from: i64,
    /// When that one ended.
    at: i64,
}

/// The run that ended with the attempt before the newest one, if that was not sent because of `why` either. Nothing but
/// the beginning of the newest attempt may stand between.
pub(super) async fn run_before(tx: &mut Tx, row: &Row, why: &str) -> Result<Option<Run>, StoreError> {
    Ok(within!(tx, |conn| sqlx::query_as(
        "select run_from, at from timeline where delivery_id = $1 and seq = $2 and run = $3"
    )
    .bind(&row.id)
    .bind(row.timeline_length - 1)
    .bind(why)
    .fetch_optional(conn)
    .await)?)
}

/// The newest line, just written, stands for a run that ends with the newest attempt, of which `before` is the part that
/// was there. What that part had goes: its line, the line of the newest attempt's beginning, and the rows of the attempts
/// between the first and the newest. They surely never reached the provider.
pub(super) fn prolong_run(tx: &mut Tx, row: &Row, before: Option<Run>, why: &str, now: Timestamp) {
    let Run { run_from, at } = before.unwrap_or(Run {
        run_from: row.attempts,
        at: ms(now),
    });
    tx.queue(
        "update timeline set run = $3, run_from = $4, at = $5 where delivery_id = $1 and seq = $2",
        [
            row.id.as_str().into(),
            row.timeline_length.into(),
            why.into(),
            run_from.into(),
            at.into(),
        ],
    );
    if before.is_none() {
        return;
    }
    tx.queue(
        "delete from timeline where delivery_id = $1 and seq in ($2, $3)",
        [
            row.id.as_str().into(),
            (row.timeline_length - 2).into(),
            (row.timeline_length - 1).into(),
        ],
    );
    if row.attempts - 1 > run_from {
        tx.queue(
            "delete from attempt where delivery_id = $1 and number = $2 and message_id is null
                and slot_returned_at is not null and outcome in ('not_sent', 'halted')",
            [row.id.as_str().into(), (row.attempts - 1).into()],
        );
    }
}

/// Adds a line that goes with no move.
pub(super) fn note(tx: &mut Tx, row: &mut Row, what: &str, detail: &str, now: Timestamp) {
    row.timeline_length += 1;
    tx.queue(
        "update delivery set timeline_length = $2 where id = $1",
        [row.id.as_str().into(), row.timeline_length.into()],
    );
    write_line(tx, &row.id, row.timeline_length, what, detail, now);
}

/// Adds one line.
pub(super) fn write_line(tx: &mut Tx, delivery_id: &str, seq: i64, what: &str, detail: &str, now: Timestamp) {
    queue_lines(tx, [line(delivery_id, seq, what, detail, now)].into_iter().collect());
}

type Line<'a> = (&'a str, i64, i64, &'a str, Option<&'a str>);

fn line<'a>(delivery_id: &'a str, seq: i64, what: &'a str, detail: &'a str, now: Timestamp) -> Line<'a> {
    let detail = Some(detail).filter(|detail| !detail.is_empty());
    (delivery_id, seq, ms(now), what, detail)
}

fn queue_lines(tx: &mut Tx, lines: Rows) {
    tx.queue(
        "insert into timeline (delivery_id, seq, at, what, detail)
         select r.value ->> 0, cast(r.value ->> 1 as bigint), cast(r.value ->> 2 as bigint), r.value ->> 3, r.value ->> 4
         from rows($1) as r",
        [lines.into()],
    );
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
