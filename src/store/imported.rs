//! Alerts taken over from the system before: it told their people, so they are closed, have no deliveries, and count as
//! told for ever (see `alerts::revisit`). Absent: where they come from (see `app::take_over`).

use super::{
    Db,
    error::StoreError,
    query::Query,
    sql::{Rows, Sql, args, row, sql},
    types::{id_made_at, ms},
};
use crate::domain::id::AlertId;
use jiff::Timestamp;

/// An alert that another system raised.
pub struct ImportedAlert {
    pub ticket_id: String,
    pub ticket_number: Option<String>,
    /// When its people were told.
    pub told_at: Timestamp,
}

row! {
    NewRow<'a> {
        id: &'a AlertId as text,
        source: &'a str as text,
        ticket_id: &'a str as text,
        number: &'a Option<String> as text,
        told_at: i64 as number,
        imported_at: i64 as number,
    }
}

row! {
    TicketRow<'a> { source: &'a str as text, ticket_id: &'a str as text }
}

impl Db {
    /// Takes alerts over, in one transaction; those whose tickets have an alert stay as they were. Returns how many are new.
    pub async fn import_alerts(
        &self,
        source: &str,
        alerts: &[ImportedAlert],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        // They stand in lists where they belong, and do not hide what is new.
        const INSERT: Sql = sql!(
            "insert into alert (id, source, ticket_id, ticket_number, occurred_at, received_at, closed_at, imported_at)
             select r.id, r.source, r.ticket_id, r.number, r.told_at, r.told_at, r.imported_at, r.imported_at from ",
            NewRow::ROWS,
            " where true on conflict (source, ticket_id) do nothing"
        );
        let mut sorted: Vec<(AlertId, &ImportedAlert)> = alerts
            .iter()
            .map(|alert| (id_made_at(alert.told_at).into(), alert))
            .collect();
        // PostgreSQL waits for others that insert the same ticket: everybody in the same order.
        sorted.sort_by(|(_, a), (_, b)| a.ticket_id.cmp(&b.ticket_id));
        let rows = sorted.iter().map(|(id, alert)| NewRow {
            id,
            source,
            ticket_id: &alert.ticket_id,
            number: &alert.ticket_number,
            told_at: ms(alert.told_at),
            imported_at: ms(now),
        });
        let mut tx = self.begin().await?;
        let added = tx.execute(INSERT, args![rows.collect::<Rows>()]).await?;
        tx.commit().await?;
        Ok(added)
    }

    /// How many of these tickets have an alert.
    pub async fn count_known(&self, source: &str, alerts: &[ImportedAlert]) -> Result<i64, StoreError> {
        const COUNT: Sql = sql!(
            "select count(*) from ",
            TicketRow::ROWS,
            " cross join alert a where a.source = r.source and a.ticket_id = r.ticket_id"
        );
        let rows = alerts.iter().map(|alert| TicketRow {
            source,
            ticket_id: &alert.ticket_id,
        });
        self.reads().scalar(COUNT, args![rows.collect::<Rows>()]).await
    }
}
