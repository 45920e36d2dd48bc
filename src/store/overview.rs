//! What the pages show beside the lists: what needs a person's attention, the facts of a ticket, and
//! opt-outs with the newest first. Every question goes by an index and is bounded. Absent: anything that writes.

use super::{
    Db,
    error::StoreError,
    lists::first_id,
    opt_outs::OPT_OUT,
    query::Query,
    sql::{Rows, args, row, sql},
    types::{MaybeMs, Ms, ms},
};
use crate::{
    domain::{delivery::State, phone},
    store::OptOut,
};
use jiff::Timestamp;
use serde::Serialize;

/// More outcomes of a kind than so many are not looked at: what is to be done is the same.
const MAX_READ: i64 = 300;

/// What ended in a state: by the index of what is due, in which those that are not due stand in the order of their ids.
const ENDED: &str = "select * from delivery where due_at is null and state = ";

/// An alarm that was raised lately.
#[derive(Serialize, sqlx::FromRow)]
pub struct RecentAlarm {
    pub kind: String,
    #[sqlx(try_from = "Ms")]
    pub raised_at: Timestamp,
    pub detail: String,
    pub alert_id: Option<String>,
}

/// A ticket as a list names it.
#[derive(Clone, Serialize, sqlx::FromRow)]
pub struct Ticket {
    pub alert_id: String,
    pub source: String,
    pub ticket_id: String,
    pub ticket_number: Option<String>,
    pub subject: Option<String>,
    #[sqlx(try_from = "Ms")]
    pub received_at: Timestamp,
}

/// What an event said of a ticket beside what stands in lists.
#[derive(Serialize, sqlx::FromRow)]
pub struct TicketFacts {
    pub client_name: Option<String>,
    pub client_organisation: Option<String>,
    pub estimated_hours: Option<f64>,
    pub confidence_percent: Option<f64>,
    /// When what it said of persons was deleted.
    #[sqlx(try_from = "MaybeMs")]
    pub stripped_at: Option<Timestamp>,
}

/// A delivery that ended badly and stands in no report yet.
#[derive(Serialize, sqlx::FromRow)]
pub struct UnreportedFailure {
    pub id: String,
    pub alert_id: Option<String>,
    pub name: Option<String>,
    pub role: Option<String>,
    /// Masked.
    pub phone: Option<String>,
    pub state: String,
    pub reason: Option<String>,
    pub provider: Option<String>,
    pub error_code: Option<i64>,
    #[sqlx(try_from = "Ms")]
    pub moved_at: Timestamp,
}

row! {
    IdRow<'a> { id: &'a str as text }
}

fn id_rows<'a>(ids: impl IntoIterator<Item = &'a str>) -> Rows {
    ids.into_iter().map(|id| IdRow { id }).collect()
}

impl Db {
    /// The alarms that were raised since then, newest first, at most `limit`.
    pub async fn recent_alarms(&self, since: Timestamp, limit: i64) -> Result<Vec<RecentAlarm>, StoreError> {
        self.reads()
            .all(
                sql!(
                    "select kind, raised_at, detail, alert_id from alarm where id >= $1 and raised_at >= $2
                     order by id desc limit $3"
                ),
                args![first_id(since), ms(since), limit],
            )
            .await
    }

    /// Those of these alerts that are open and of which nobody was told, is being told, or will be today.
    pub async fn untold_of(&self, alert_ids: &[String]) -> Result<Vec<Ticket>, StoreError> {
        self.reads()
            .all(
                sql!(
                    "select a.id as alert_id, a.source, a.ticket_id, a.ticket_number, a.subject, a.received_at from ",
                    IdRow::ROWS,
                    " cross join alert a where a.id = r.id and a.closed_at is null and a.acknowledged_at is null
                        and not exists (
                        select 1 from delivery d where d.alert_id = a.id and d.state <> 'deferred' and d.state in (",
                    State::TOLD,
                    ")) order by a.id desc"
                ),
                args![id_rows(alert_ids.iter().map(String::as_str))],
            )
            .await
    }

    /// The tickets of these alerts, in any order.
    pub async fn tickets_of<'a>(&self, alert_ids: impl Iterator<Item = &'a str>) -> Result<Vec<Ticket>, StoreError> {
        let ids = id_rows(alert_ids);
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.reads()
            .all(
                sql!(
                    "select a.id as alert_id, a.source, a.ticket_id, a.ticket_number, a.subject, a.received_at from ",
                    IdRow::ROWS,
                    " cross join alert a where a.id = r.id"
                ),
                args![ids],
            )
            .await
    }

    /// Deliveries that ended without success and stand in no report yet, the newest first: how many of the last few hundred are
    /// such, and the first `most` of them. Not the opted-out, of whom nothing is wrong, nor the unconfirmed, which
    /// are no end.
    pub async fn unreported_failures(&self, most: usize) -> Result<(usize, Vec<UnreportedFailure>), StoreError> {
        let mut failures: Vec<UnreportedFailure> = self
            .reads()
            .all(
                sql!(
                    "select id, alert_id, name, role, coalesce(phone, phone_raw) as phone, state, reason, provider, error_code,
                        moved_at
                     from (select * from (",
                    ENDED,
                    "'failed' order by id desc limit $1) as failed union all select * from (",
                    ENDED,
                    "'undelivered' order by id desc limit $1) as undelivered union all select * from (",
                    ENDED,
                    "'expired' order by id desc limit $1) as expired) as part
                     where report_day is null order by moved_at desc"
                ),
                args![MAX_READ],
            )
            .await?;
        let count = failures.len();
        failures.truncate(most);
        for failure in &mut failures {
            failure.phone = failure.phone.as_deref().map(phone::mask);
        }
        Ok((count, failures))
    }

    /// What the event of an alert said beside what stands in lists.
    pub async fn ticket_facts(&self, alert_id: &str) -> Result<Option<TicketFacts>, StoreError> {
        self.reads()
            .optional(
                sql!(
                    "select client_name, client_organisation, estimated_hours, confidence_percent, stripped_at
                     from alert where id = $1"
                ),
                args![alert_id],
            )
            .await
    }

    /// Opt-outs with the newest first, from the `skip`th on, at most `limit`.
    pub async fn newest_opt_outs(&self, skip: i64, limit: i64) -> Result<Vec<OptOut>, StoreError> {
        self.reads()
            .all(
                sql!(OPT_OUT, " order by opted_out_at desc, phone desc limit $1 offset $2"),
                args![limit, skip],
            )
            .await
    }

    /// The opt-outs that were noted at this very time.
    pub async fn opt_outs_at(&self, at: Timestamp) -> Result<Vec<OptOut>, StoreError> {
        self.reads()
            .all(sql!(OPT_OUT, " where opted_out_at = $1 order by phone"), args![ms(at)])
            .await
    }
}
