//! Whether anybody on an open alert was told, is being told, or will be told today. If not, that is an alarm; not of an alert
//! that somebody acknowledged, for they know.

use crate::{
    domain::{alarm::AlarmKind, delivery::State, id::AlertId},
    store::{
        alarms::{self, About},
        error::StoreError,
        query::Query,
        sql::{Rows, Sql, row, sql},
        tx::Tx,
        types::{at, ms},
    },
};
use jiff::Timestamp;

#[derive(sqlx::FromRow)]
struct Untold {
    id: AlertId,
    source: String,
    ticket_id: String,
    people: i64,
    at: i64,
}

row! {
    AlertRow<'a> { id: &'a AlertId as text, at: i64 as number }
}

const UNTOLD: Sql = sql!(
    "select a.id, a.source, a.ticket_id, (select count(*) from delivery c where c.alert_id = a.id) as people,
        r.at as at
     from ",
    AlertRow::ROWS,
    " cross join alert a
     where a.id = r.id and a.closed_at is null and a.acknowledged_at is null and not exists (select 1 from delivery d
        where d.alert_id = a.id and d.state <> 'deferred' and d.state in (",
    State::TOLD,
    "))"
);

/// Raises the alarm for those of these alerts that it holds for.
pub async fn check(tx: &mut Tx, alerts: Vec<(AlertId, Timestamp)>) -> Result<(), StoreError> {
    if alerts.is_empty() {
        return Ok(());
    }
    let rows = alerts.iter().map(|(id, at)| AlertRow { id, at: ms(*at) });
    let untold: Vec<Untold> = tx.all(UNTOLD, [rows.collect::<Rows>().into()]).await?;
    for alert in untold {
        let (id, source, ticket_id) = (&alert.id, &alert.source, &alert.ticket_id);
        let detail = format!("nobody is being told of alert {id} (source {source}, ticket {ticket_id})");
        let about = About {
            alert_id: Some(id.as_str()),
            delivery_id: None,
        };
        // Once for these people; if more are named later and they are not told either, that is another alarm.
        let subject = format!("{id}/{}", alert.people);
        alarms::raise(tx, AlarmKind::NobodyTold, &subject, about, detail, at(alert.at)).await?;
    }
    Ok(())
}
