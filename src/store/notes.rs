//! Notes for the tickets of helpdesks: one for each alert, once it is known who was reached. Kept until the helpdesk has
//! taken it. Absent: the words of a note, and writing it (see `source::write_back`).

use super::{
    Db,
    error::StoreError,
    lists::first_id,
    query::Query,
    sql::{Sql, args, sql},
    types::{Ms, ms},
};
use crate::domain::{day::after, delivery::State, id::AlertId};
use jiff::{SignedDuration, Timestamp};

/// Older alerts are nobody's news any more. Messages without a receipt are settled after three days.
const NEWS: SignedDuration = SignedDuration::from_hours(5 * 24);
/// So many at once; the rest comes with the next round.
const AT_ONCE: i64 = 50;

/// An alert of which it is known who was reached.
pub struct Settled {
    pub alert_id: AlertId,
    pub ticket_id: String,
    pub people: Vec<Reached>,
}

/// What became of the message to one person.
#[derive(sqlx::FromRow)]
pub struct Reached {
    pub name: Option<String>,
    pub role: Option<String>,
    pub state: State,
    pub error_code: Option<i64>,
    #[sqlx(try_from = "Ms")]
    pub moved_at: Timestamp,
}

/// A note that is to be written now.
#[derive(sqlx::FromRow)]
pub struct TicketNote {
    pub alert_id: AlertId,
    pub ticket_id: String,
    pub text: String,
    pub tries: i64,
}

impl Db {
    /// Alerts of a source that are settled and have no note yet: no message is on its way any more (one that the carrier
    /// never spoke of is settled after three days), not all were canceled, and
    /// none went to the log only: in test mode nobody is told.
    pub async fn settled_alerts(&self, source: &str, now: Timestamp) -> Result<Vec<Settled>, StoreError> {
        const SETTLED: Sql = sql!(
            "select a.id, a.ticket_id from alert a where a.id >= $1 and a.source = $2
                and not exists (select 1 from ticket_note n where n.alert_id = a.id)
                and exists (select 1 from delivery d where d.alert_id = a.id and d.state <> 'canceled')
                and not exists (select 1 from delivery t where t.alert_id = a.id and t.provider = 'log')
                and not exists (select 1 from delivery o where o.alert_id = a.id and o.state in (",
            State::OPEN,
            ") and not (o.state in ('accepted', 'sent') and o.due_at is null))
             order by a.id limit $3"
        );
        // Ids begin with their time (UUIDv7), so the newest alerts are the last of their key.
        let since = first_id(after(now, -NEWS));
        let alerts: Vec<(AlertId, String)> = self.reads().all(SETTLED, args![since, source, AT_ONCE]).await?;
        let mut settled = Vec::new();
        for (alert_id, ticket_id) in alerts {
            let people = self
                .reads()
                .all(
                    sql!(
                        "select name, role, state, error_code, moved_at from delivery
                         where alert_id = $1 and state <> 'canceled' order by id"
                    ),
                    args![&alert_id],
                )
                .await?;
            settled.push(Settled {
                alert_id,
                ticket_id,
                people,
            });
        }
        Ok(settled)
    }

    /// Keeps a note; an alert that has one gets no other.
    pub async fn keep_note(
        &self,
        source: &str,
        settled: &Settled,
        text: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.execute(
            sql!(
                "insert into ticket_note (alert_id, source, ticket_id, text, due_at, tries, created_at)
                 values ($1, $2, $3, $4, $5, 0, $5) on conflict (alert_id) do nothing"
            ),
            args![&settled.alert_id, source, &settled.ticket_id, text, ms(now)],
        )
        .await
        .map(drop)
    }

    /// Takes the note of a source that is due first; nobody else takes it until then.
    pub async fn take_note(
        &self,
        source: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<TicketNote>, StoreError> {
        const DUE: Sql = sql!(
            "select alert_id from ticket_note where source = $1 and due_at <= $2
                and (lease_until is null or lease_until <= $2) order by due_at, alert_id limit 1"
        );
        const TAKE: Sql = sql!(
            "update ticket_note set lease_until = $3, tries = tries + 1 where alert_id = $1 and due_at <= $2
                and (lease_until is null or lease_until <= $2) returning alert_id, ticket_id, text, tries"
        );
        let due: Option<AlertId> = self.reads().optional_scalar(DUE, args![source, ms(now)]).await?;
        let Some(alert_id) = due else { return Ok(None) };
        let mut tx = self.begin().await?;
        let note = tx.optional(TAKE, args![&alert_id, ms(now), ms(until)]).await?;
        tx.commit().await?;
        Ok(note)
    }

    /// Notes that a note is written.
    pub async fn note_written(&self, note: &TicketNote, now: Timestamp) -> Result<(), StoreError> {
        self.execute(
            sql!("update ticket_note set due_at = null, lease_until = null, written_at = $2, last_error = null, text = '' where alert_id = $1"),
            args![&note.alert_id, ms(now)],
        )
        .await
        .map(drop)
    }

    /// Puts a note off until then, or gives it up; then its words, which name people, are deleted.
    pub async fn put_off_note(
        &self,
        note: &TicketNote,
        why: &str,
        due_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.execute(
            sql!(
                "update ticket_note set due_at = $2, lease_until = null, last_error = $3,
                    text = case when cast($2 as bigint) is null then '' else text end
                 where alert_id = $1"
            ),
            args![&note.alert_id, due_at.map(ms), why],
        )
        .await
        .map(drop)
    }
}
