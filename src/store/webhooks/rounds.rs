//! The turn to post to an endpoint, and what came of it, written down in one transaction: success costs no row for each event.

use super::super::{
    alarms::{self, About},
    db::Db,
    error::StoreError,
    query::Query,
    sql::{Rows, args, row, sql},
    types::{MaybeMs, ms},
};
use crate::domain::{alarm::AlarmKind, words::words};
use jiff::Timestamp;

/// So many tries of each endpoint are kept.
const KEPT_TRIES: i64 = 50;

/// The right to post to an endpoint until its lease ends.
#[derive(Debug)]
pub struct EndpointTurn {
    pub name: String,
    /// Everything up to here was posted or is held.
    pub place: i64,
    /// How often in a row nothing was taken.
    pub tries: i64,
    pub failing_since: Option<Timestamp>,
    /// Whether it was left alone for a while, because it seems to be down: then one event finds out whether it answers again.
    pub is_paused: bool,
    pub last_error: Option<String>,
    token: Option<String>,
}

words! {
    /// What came of one try.
    TryOutcome {
        Taken = "taken",
        Failed = "failed",
        /// It was tried for too long.
        GivenUp = "given_up",
    }
}

/// A try, as it is kept.
#[derive(Debug)]
pub struct NewTry {
    pub event_id: String,
    pub event_type: String,
    pub at: Timestamp,
    pub took_ms: i64,
    pub status: Option<u16>,
    pub outcome: TryOutcome,
    pub error: Option<String>,
}

/// An event that was not taken.
#[derive(Debug, PartialEq, Eq)]
pub struct NewHold {
    pub place: i64,
    pub stream: String,
    pub tries: i64,
    /// When it is tried again; `None`: once those of its stream before it are through, at once if there are none.
    pub due_at: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// Why an endpoint is left alone for good.
#[derive(Debug)]
pub struct Disabling {
    /// Reads on after "the endpoint `name`".
    pub why: String,
}

/// What came of a round.
#[derive(Debug, Default)]
pub struct RoundDone {
    pub place: i64,
    /// The places of what was held and is no more.
    pub released: Vec<i64>,
    /// What was not taken: new, or once more.
    pub held: Vec<NewHold>,
    /// The streams of all of these.
    pub streams: Vec<String>,
    /// All of them, the oldest first.
    pub tries: Vec<NewTry>,
    pub failing_tries: i64,
    pub failing_since: Option<Timestamp>,
    pub due_at: Option<Timestamp>,
    pub last_error: Option<String>,
    pub has_succeeded: bool,
    /// Whether everything that is held is due now, because the endpoint answers again.
    pub releases_all: bool,
    pub disabling: Option<Disabling>,
}

#[derive(sqlx::FromRow)]
struct Standing {
    is_disabled: bool,
    place: i64,
    tries: i64,
    #[sqlx(try_from = "MaybeMs")]
    failing_since: Option<Timestamp>,
    last_error: Option<String>,
    due_at: Option<i64>,
    lease_until: Option<i64>,
    last: Option<i64>,
    hold_due_at: Option<i64>,
}

row! {
    PlaceRow<'a> { endpoint: &'a str as text, place: i64 as number }
}

row! {
    HoldRow<'a>(endpoint: &'a str, hold: &'a NewHold, since: i64) {
        endpoint: text = endpoint,
        place: number = hold.place,
        stream: text = &hold.stream,
        tries: number = hold.tries,
        due_at: number = hold.due_at.map(ms),
        since: number = since,
        last_error: text = hold.last_error,
    }
}

row! {
    StreamRow<'a> { endpoint: &'a str as text, stream: &'a str as text, now: i64 as number }
}

row! {
    TryRow<'a>(endpoint: &'a str, number: i64, one: &'a NewTry) {
        endpoint: text = endpoint,
        number: number = number,
        event_id: text = &one.event_id,
        event_type: text = &one.event_type,
        at: number = ms(one.at),
        took_ms: number = one.took_ms,
        status: number = one.status,
        outcome: text = one.outcome.as_str(),
        error: text = one.error,
    }
}

impl Db {
    /// Takes the turn to post to an endpoint until then, if there is something to post and no other process is at it. What
    /// is due, or leased, after `latest` was written before the clock was turned back.
    pub async fn take_endpoint(
        &self,
        name: &str,
        token: &str,
        now: Timestamp,
        (until, latest): (Timestamp, Timestamp),
    ) -> Result<Option<EndpointTurn>, StoreError> {
        let standing: Option<Standing> = self
            .reads()
            .optional(
                sql!(
                    "select w.disabled_at is not null as is_disabled, w.place, w.tries, w.failing_since, w.last_error, w.due_at, w.lease_until,
                        (select last from lifecycle_place where id = 1) as last,
                        (select min(h.due_at) from webhook_hold h where h.endpoint = w.name and h.due_at is not null)
                            as hold_due_at
                     from webhook_endpoint w where w.name = $1"
                ),
                args![name],
            )
            .await?;
        let Some(standing) = standing else {
            // Forgotten by a process that does not have it in its configuration.
            self.register_endpoints([name], now).await?;
            return Ok(None);
        };
        if standing.is_disabled || !standing.has_work(now, latest) {
            return Ok(None);
        }
        // A file has one process: nobody else could take it.
        let is_ours = !self.is_shared()
            || self
                .execute(
                    sql!(
                        "update webhook_endpoint set lease_owner = $2, lease_until = $4
                         where name = $1 and disabled_at is null and place = $6
                            and (lease_until is null or lease_until <= $3 or lease_until > $5)
                            and (due_at is null or due_at <= $3 or due_at > $5)"
                    ),
                    args![name, token, ms(now), ms(until), ms(latest), standing.place],
                )
                .await?
                > 0;
        Ok(is_ours.then(|| EndpointTurn {
            name: name.to_owned(),
            place: standing.place,
            tries: standing.tries,
            failing_since: standing.failing_since,
            is_paused: standing.due_at.is_some(),
            last_error: standing.last_error,
            token: self.is_shared().then(|| token.to_owned()),
        }))
    }

    /// Ends a turn without anything done.
    pub async fn leave_endpoint(&self, turn: EndpointTurn) -> Result<(), StoreError> {
        if turn.token.is_none() {
            return Ok(());
        }
        self.execute(
            sql!("update webhook_endpoint set lease_owner = null, lease_until = null where name = $1 and lease_owner = $2"),
            args![turn.name, turn.token],
        )
        .await
        .map(drop)
    }

    /// Gives back all turns of a process that is gone.
    pub(in crate::store) async fn give_back_endpoints(&self) -> Result<(), StoreError> {
        self.execute(
            sql!("update webhook_endpoint set lease_owner = null, lease_until = null where lease_until is not null"),
            args![],
        )
        .await
        .map(drop)
    }

    /// Ends a turn with what came of it. False if the turn was another's by then, or an admin has moved the endpoint: nothing
    /// is written down, and what was posted is posted again.
    pub async fn end_round(&self, turn: EndpointTurn, done: &RoundDone, now: Timestamp) -> Result<bool, StoreError> {
        let name = turn.name.as_str();
        let mut tx = self.begin().await?;
        let tried: Option<i64> = tx
            .optional_scalar(
                sql!(
                    "update webhook_endpoint set place = $4, tries = $5, due_at = $6, failing_since = $7, last_error = $8,
                        succeeded_at = coalesce($9, succeeded_at), disabled_at = coalesce(disabled_at, $10),
                        tried = tried + $11, lease_owner = null, lease_until = null
                     where name = $1 and place = $2 and coalesce(lease_owner, '') = $3 returning tried"
                ),
                args![
                    name,
                    turn.place,
                    turn.token.unwrap_or_default(),
                    done.place,
                    done.failing_tries,
                    done.due_at.map(ms),
                    done.failing_since.map(ms),
                    &done.last_error,
                    done.has_succeeded.then_some(ms(now)),
                    done.disabling.is_some().then_some(ms(now)),
                    count(done.tries.len()),
                ],
            )
            .await?;
        let Some(tried) = tried else { return Ok(false) };
        let first = tried - count(done.tries.len()) + 1;
        if done.releases_all {
            tx.execute(
                sql!("update webhook_hold set due_at = $2 where endpoint = $1 and due_at > $2"),
                args![name, ms(now)],
            )
            .await?;
        }
        let released = done.released.iter().map(|place| PlaceRow {
            endpoint: name,
            place: *place,
        });
        tx.queue(
            sql!(
                "delete from webhook_hold where (endpoint, place) in (select r.endpoint, r.place from ",
                PlaceRow::ROWS,
                ")"
            ),
            released.collect(),
        );
        let held = done.held.iter().map(|hold| HoldRow {
            endpoint: name,
            hold,
            since: ms(now),
        });
        tx.queue(
            sql!(
                "insert into webhook_hold (endpoint, place, stream, tries, due_at, since, last_error)
                 select r.endpoint, r.place, r.stream, r.tries, r.due_at, r.since, r.last_error from ",
                HoldRow::ROWS,
                " where true on conflict (endpoint, place) do update set tries = excluded.tries, due_at = excluded.due_at,
                    last_error = excluded.last_error"
            ),
            held.collect(),
        );
        let streams = done.streams.iter().map(|stream| StreamRow {
            endpoint: name,
            stream,
            now: ms(now),
        });
        // Behind nothing any more, so it is tried at once.
        tx.queue(
            sql!(
                "update webhook_hold set due_at = r.now from ",
                StreamRow::ROWS,
                " where webhook_hold.endpoint = r.endpoint and webhook_hold.stream = r.stream and webhook_hold.due_at is null
                    and not exists (select 1 from webhook_hold b where b.endpoint = webhook_hold.endpoint
                        and b.stream = webhook_hold.stream and b.place < webhook_hold.place)"
            ),
            streams.collect(),
        );
        tx.queue(
            sql!(
                "insert into webhook_try (endpoint, number, event_id, event_type, at, took_ms, status, outcome, error)
                 select r.endpoint, r.number, r.event_id, r.event_type, r.at, r.took_ms, r.status, r.outcome, r.error from ",
                TryRow::ROWS
            ),
            tries(name, &done.tries, first),
        );
        if !done.tries.is_empty() {
            tx.execute(
                sql!("delete from webhook_try where endpoint = $1 and number <= $2"),
                args![name, tried - KEPT_TRIES],
            )
            .await?;
        }
        if let Some(Disabling { why }) = &done.disabling {
            let subject = format!("{name}/{}", ms(now));
            let detail = format!("the endpoint `{name}` {why}");
            let kind = AlarmKind::WebhookDisabled;
            alarms::raise(&mut tx, kind, &subject, About::default(), detail, now).await?;
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// The newest of them, with their numbers.
fn tries(endpoint: &str, all: &[NewTry], first: i64) -> Rows {
    let skipped = all
        .len()
        .saturating_sub(usize::try_from(KEPT_TRIES).unwrap_or(usize::MAX));
    let numbered = (first..).zip(all).skip(skipped);
    numbered.map(|(number, one)| TryRow { endpoint, number, one }).collect()
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
impl EndpointTurn {
    /// One of an endpoint that has heard of everything up to a place.
    pub fn at(place: i64, failing_since: Option<Timestamp>) -> Self {
        Self {
            name: "desk".into(),
            place,
            tries: failing_since.map_or(0, |_| 3),
            failing_since,
            is_paused: failing_since.is_some(),
            last_error: None,
            token: None,
        }
    }
}

impl Standing {
    fn has_work(&self, now: Timestamp, latest: Timestamp) -> bool {
        let (now, latest) = (ms(now), ms(latest));
        let is_leased = self.lease_until.is_some_and(|lease| lease > now && lease <= latest);
        let waits = self.due_at.is_some_and(|due| due > now && due <= latest);
        let has_new = self.last.unwrap_or_default() > self.place;
        // After a pause, anything that is held does to find out whether the endpoint answers again.
        let was_paused = self.due_at.is_some();
        let has_held = self.hold_due_at.is_some_and(|due| was_paused || due <= now);
        !is_leased && !waits && (has_new || has_held)
    }
}
