//! Helpdesks that are polled: how far each was read, who reads it now, and what it last said of its critical tickets; and
//! words for urgency that nobody has explained. Absent: asking a helpdesk (see `source`), and alerts.

use super::{
    Db,
    error::StoreError,
    query::Query,
    sql::{args, sql},
    types::{MaybeMs, Ms, ms},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// More words than this of one source are a mistake in its mapping; they are counted no further.
const MAX_WORDS: i64 = 100;
/// How far back it is counted which tickets the webhook missed.
const COUNTED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The right to ask a helpdesk, until its lease ends.
#[derive(Debug)]
pub struct Turn {
    pub position: Option<String>,
    pub swept_at: Option<Timestamp>,
    pub failures: i64,
    token: String,
}

#[derive(sqlx::FromRow)]
struct TurnRow {
    position: Option<String>,
    #[sqlx(try_from = "MaybeMs")]
    swept_at: Option<Timestamp>,
    failures: i64,
}

/// What a poll has seen of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketState {
    Critical,
    Lower,
    Closed,
    /// Nobody has said what its urgency means.
    Unknown,
}

impl TicketState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Lower => "lower",
            Self::Closed => "closed",
            Self::Unknown => "unknown",
        }
    }
}

/// What is known of a ticket.
#[derive(sqlx::FromRow)]
pub struct KnownTicket {
    /// As [`TicketState`] has it; `None` if no poll has seen it yet.
    pub state: Option<String>,
    pub people: Option<String>,
    pub changes: i64,
    /// When the poll first saw it critical, and when a webhook brought it: neither of one that was critical before.
    pub seen_at: Option<i64>,
    pub heard_at: Option<i64>,
}

/// How polling a helpdesk goes, for admins.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct PollStatus {
    /// When it last answered.
    #[schema(required)]
    #[sqlx(try_from = "MaybeMs")]
    pub polled_at: Option<Timestamp>,
    /// Since when it cannot be asked; `null` while it answers.
    #[schema(required)]
    #[sqlx(try_from = "MaybeMs")]
    pub failing_since: Option<Timestamp>,
    /// Why it cannot be asked, and what to do.
    #[schema(required)]
    pub last_error: Option<String>,
    /// Tickets that the poll saw critical in the last 30 days.
    #[schema(minimum = 0)]
    pub seen: i64,
    /// Of these, tickets that no webhook brought.
    #[schema(minimum = 0)]
    pub missed: i64,
}

/// A word for urgency that nobody has explained.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct UnknownUrgency {
    #[schema(examples("sev1"))]
    pub word: String,
    /// In how many events it stood.
    pub count: i64,
    #[sqlx(try_from = "Ms")]
    pub last_at: Timestamp,
}

impl Db {
    /// Takes the turn to ask a helpdesk until then, if it is due and no other process is at it. None is due after `latest`.
    pub async fn take_poll(
        &self,
        source: &str,
        token: &str,
        now: Timestamp,
        (until, latest): (Timestamp, Timestamp),
    ) -> Result<Option<Turn>, StoreError> {
        // What lies further ahead than any pause was written before the clock was turned back. A lease may lie a little further
        // ahead than ours would: another process took it later, by its own clock.
        let waits: Option<(i64, Option<i64>)> = self
            .reads()
            .optional(
                sql!("select due_at, lease_until from source_poll where source = $1"),
                args![source],
            )
            .await?;
        let is_due = |(due_at, lease_until): (i64, Option<i64>)| {
            let is_leased = lease_until.is_some_and(|lease| lease > ms(now) && lease <= ms(latest));
            (due_at <= ms(now) || due_at > ms(latest)) && !is_leased
        };
        if waits.is_some_and(|waits| !is_due(waits)) {
            return Ok(None);
        }
        let mut tx = self.begin().await?;
        let row: Option<TurnRow> = tx
            .optional(
                sql!(
                    "insert into source_poll (source, owner, lease_until, due_at, failures) values ($1, $2, $4, $3, 0)
                     on conflict (source) do update set owner = excluded.owner, lease_until = excluded.lease_until
                     where (source_poll.due_at <= $3 or source_poll.due_at > $5)
                        and (source_poll.lease_until is null or source_poll.lease_until <= $3
                            or source_poll.lease_until > $5)
                     returning position, swept_at, failures"
                ),
                args![source, token, ms(now), ms(until), ms(latest)],
            )
            .await?;
        tx.commit().await?;
        Ok(row.map(|row| Turn {
            position: row.position,
            swept_at: row.swept_at,
            failures: row.failures,
            token: token.to_owned(),
        }))
    }

    /// Notes how far a helpdesk was read, and keeps the turn until then. False if the turn is another's by now.
    pub async fn note_position(
        &self,
        source: &str,
        turn: &Turn,
        position: &str,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let kept = self
            .execute(
                sql!("update source_poll set position = $3, lease_until = $4 where source = $1 and owner = $2"),
                args![source, &turn.token, position, ms(until)],
            )
            .await?;
        Ok(kept > 0)
    }

    /// Ends a turn in which the helpdesk answered.
    pub async fn end_turn(
        &self,
        source: &str,
        turn: Turn,
        has_swept: bool,
        due_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.execute(
            sql!(
                "update source_poll set lease_until = null, due_at = $3, polled_at = $4, failures = 0, failing_since = null,
                    last_error = null, swept_at = coalesce($5, swept_at)
                 where source = $1 and owner = $2"
            ),
            args![source, &turn.token, ms(due_at), ms(now), has_swept.then_some(ms(now))],
        )
        .await
        .map(drop)
    }

    /// Ends a turn in which it did not.
    pub async fn fail_turn(
        &self,
        source: &str,
        turn: Turn,
        why: &str,
        due_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.execute(
            sql!(
                "update source_poll set lease_until = null, due_at = $3, failures = failures + 1,
                    failing_since = coalesce(failing_since, $4), last_error = $5
                 where source = $1 and owner = $2"
            ),
            args![source, &turn.token, ms(due_at), ms(now), why],
        )
        .await
        .map(drop)
    }

    /// Gives back all turns to ask helpdesks, of a process that is gone.
    pub(super) async fn give_back_turns(&self) -> Result<(), StoreError> {
        self.execute(
            sql!("update source_poll set lease_until = null where lease_until is not null"),
            args![],
        )
        .await
        .map(drop)
    }

    /// What is known of a ticket.
    pub async fn known_ticket(&self, source: &str, ticket_id: &str) -> Result<Option<KnownTicket>, StoreError> {
        self.reads()
            .optional(
                sql!(
                    "select state, people, changes, seen_at, heard_at from source_ticket where source = $1 and ticket_id = $2"
                ),
                args![source, ticket_id],
            )
            .await
    }

    /// The tickets that the poll last saw critical.
    pub async fn critical_tickets(&self, source: &str) -> Result<Vec<String>, StoreError> {
        self.reads()
            .scalars(
                sql!("select ticket_id from source_ticket where source = $1 and state = 'critical' order by ticket_id"),
                args![source],
            )
            .await
    }

    /// Notes what the poll has seen of a ticket. `is_left_alone`: it was critical before Nightbell came, so no webhook is
    /// missed.
    pub async fn note_seen(
        &self,
        source: &str,
        ticket_id: &str,
        (state, people): (TicketState, &str),
        is_left_alone: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let is_critical = state == TicketState::Critical;
        self.execute(
            sql!(
                "insert into source_ticket (source, ticket_id, state, people, changes, critical_at, seen_at)
                 values ($1, $2, $3, $4, 1, $5, $6)
                 on conflict (source, ticket_id) do update set state = excluded.state, people = excluded.people,
                    changes = source_ticket.changes + 1, seen_at = coalesce(source_ticket.seen_at, excluded.seen_at)"
            ),
            args![
                source,
                ticket_id,
                state.as_str(),
                people,
                ms(now),
                (is_critical && !is_left_alone).then_some(ms(now))
            ],
        )
        .await
        .map(drop)
    }

    /// Forgets what the poll has seen of a ticket, so that the next look counts as a change.
    pub async fn forget_seen(&self, source: &str, ticket_id: &str) -> Result<(), StoreError> {
        self.execute(
            sql!("update source_ticket set state = null, people = null where source = $1 and ticket_id = $2"),
            args![source, ticket_id],
        )
        .await
        .map(drop)
    }

    /// Whether a ticket has its alert.
    pub async fn has_alert(&self, source: &str, ticket_id: &str) -> Result<bool, StoreError> {
        self.reads()
            .exists(
                sql!("select 1 from alert where source = $1 and ticket_id = $2"),
                args![source, ticket_id],
            )
            .await
    }

    /// Notes that a webhook brought a critical ticket of a helpdesk that is polled too.
    pub async fn note_heard(&self, source: &str, ticket_id: &str, now: Timestamp) -> Result<(), StoreError> {
        self.execute(
            sql!(
                "insert into source_ticket (source, ticket_id, changes, critical_at, heard_at) values ($1, $2, 0, $3, $3)
                 on conflict (source, ticket_id) do update set heard_at = coalesce(source_ticket.heard_at, excluded.heard_at)"
            ),
            args![source, ticket_id, ms(now)],
        )
        .await
        .map(drop)
    }

    /// Notes which tickets no webhook has brought though the poll saw them before then. Returns them, and how many the poll
    /// saw in all, in the last 30 days.
    pub async fn note_missed(
        &self,
        source: &str,
        seen_before: Timestamp,
        now: Timestamp,
    ) -> Result<(Vec<String>, PollStatus), StoreError> {
        let since = ms(now) - ms_of(COUNTED);
        let is_any: bool = self
            .reads()
            .exists(
                sql!(
                    "select 1 from source_ticket where source = $1 and critical_at >= $2 and seen_at <= $3
                        and heard_at is null and missed_at is null limit 1"
                ),
                args![source, since, ms(seen_before)],
            )
            .await?;
        let mut missed = Vec::new();
        if is_any {
            let mut tx = self.begin().await?;
            missed = tx
                .scalars(
                    sql!(
                        "update source_ticket set missed_at = $4 where source = $1 and critical_at >= $2 and seen_at <= $3
                            and heard_at is null and missed_at is null returning ticket_id"
                    ),
                    args![source, since, ms(seen_before), ms(now)],
                )
                .await?;
            tx.commit().await?;
        }
        let status = self.poll_status(source, now).await?;
        Ok((missed, status))
    }

    /// How polling a helpdesk goes.
    pub async fn poll_status(&self, source: &str, now: Timestamp) -> Result<PollStatus, StoreError> {
        self.reads()
            .one(
                sql!(
                    "select (select polled_at from source_poll where source = $1) as polled_at,
                        (select failing_since from source_poll where source = $1) as failing_since,
                        (select last_error from source_poll where source = $1) as last_error,
                        (select count(*) from source_ticket where source = $1 and critical_at >= $2 and seen_at is not null)
                            as seen,
                        (select count(*) from source_ticket where source = $1 and critical_at >= $2 and missed_at is not null
                            and heard_at is null) as missed"
                ),
                args![source, ms(now) - ms_of(COUNTED)],
            )
            .await
    }

    /// Counts an event whose urgency nobody has explained.
    pub async fn note_unknown_urgency(&self, source: &str, word: &str, now: Timestamp) -> Result<(), StoreError> {
        self.execute(
            sql!(
                "insert into unknown_urgency (source, word, count, first_at, last_at)
                 select $1, $2, 1, $3, $3
                 where (select count(*) from unknown_urgency where source = $1) < $4
                    or exists (select 1 from unknown_urgency where source = $1 and word = $2)
                 on conflict (source, word) do update set count = unknown_urgency.count + 1, last_at = excluded.last_at"
            ),
            args![source, word, ms(now), MAX_WORDS],
        )
        .await
        .map(drop)
    }

    /// The words for urgency that nobody has explained, the latest first.
    pub async fn unknown_urgencies(&self, source: &str) -> Result<Vec<UnknownUrgency>, StoreError> {
        self.reads()
            .all(
                sql!(
                    "select word, count, last_at from unknown_urgency where source = $1 order by last_at desc, word limit 100"
                ),
                args![source],
            )
            .await
    }
}

fn ms_of(length: SignedDuration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}
