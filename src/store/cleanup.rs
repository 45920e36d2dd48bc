//! Forgetting: old receipts go, personal data is taken out of old alerts, counters and mails that nobody needs go too.
//! Every function does one small batch, so that nobody waits long for the writer. Never goes: an alert's source and
//! ticket id, the dedup key; and opt-outs, which people asked for. Absent: when, how much, and how fast (`worker::cleanup`).

use super::{
    Db,
    engine::Kind,
    error::StoreError,
    job_runs::Run,
    ledger,
    lists::first_id,
    notes::NEWS,
    query::Query,
    sql::{Argument, Sql, args, sql},
    types::ms,
};
use crate::domain::{
    day::{LocalDay, after},
    id::{AlertId, DeliveryId},
};
use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};

/// What one batch did.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Rows of the kind asked for; less than asked for means that nothing is left.
    pub rows: i64,
    /// How long nobody else could write.
    pub held: Duration,
}

impl Batch {
    fn since(begun: Instant, rows: u64) -> Self {
        Self {
            rows: i64::try_from(rows).unwrap_or(i64::MAX),
            held: begun.elapsed(),
        }
    }
}

/// What is dated further ahead than this was written by a wrong clock.
const SLACK: SignedDuration = SignedDuration::from_mins(2);
/// A batch that has taken this long ends early.
const ENOUGH: Duration = Duration::from_millis(4);

/// What is old: before these times.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    pub receipts: Timestamp,
    /// Ends of alerts whose codes may be given anew.
    pub codes: Timestamp,
    pub personal: Timestamp,
    /// Lifecycle events.
    pub events: Timestamp,
    /// Counters and ledger rows of days before this one.
    pub days: LocalDay,
}

/// Rows that are simply deleted when they are old.
#[derive(Debug, Clone, Copy)]
pub enum Old {
    Receipts,
    /// By what requests for messages are known when they come again.
    MessageRequests,
    Alarms,
    /// Counters of the daily limit.
    Counters,
    /// Lifecycle events, whether everybody has heard of them or not.
    Events,
    /// What people texted us whom nobody knows.
    Strangers,
    /// Tries of endpoints, of which the newest are kept as long as events are.
    Tries,
    /// Finished rows of the ledger; the newest of each job stays, as it says where to go on.
    Runs,
    /// By what alerts are known that were told of as settled, of which nobody asks again.
    Settled,
}

impl Db {
    /// Deletes up to `most` old rows of one kind. `None` if the run is no longer ours.
    pub async fn delete_old(
        &self,
        kind: Old,
        run: &Run,
        ages: Ages,
        most: i64,
        now: Timestamp,
    ) -> Result<Option<Batch>, StoreError> {
        let Some((mut tx, begun)) = self.begin_step(run, now).await? else {
            return Ok(None);
        };
        let day = ages.days.to_string();
        let most = Argument::from(most);
        let (sql, arguments) = match kind {
            Old::Receipts => (
                sql!(
                    "delete from receipt where id in (select id from receipt where received_at < $1
                     order by received_at limit $2)"
                ),
                args![ms(ages.receipts), most].into(),
            ),
            Old::MessageRequests => (
                sql!(
                    "delete from message_request where key in (select key from message_request where received_at < $1
                     order by received_at limit $2)"
                ),
                // The answers have names.
                args![ms(ages.receipts.max(ages.personal)), most].into(),
            ),
            Old::Alarms => (
                sql!("delete from alarm where id in (select id from alarm where raised_at < $1 limit $2)"),
                args![ms(ages.personal), most].into(),
            ),
            Old::Counters => (
                sql!("delete from daily_count where day in (select day from daily_count where day < $1 limit $2)"),
                args![day, most].into(),
            ),
            Old::Settled => (
                sql!(
                    "delete from ticket_note where alert_id in (select alert_id from ticket_note where alert_id < $1
                        and due_at is null order by alert_id limit $2)"
                ),
                args![first_id(ages.receipts.min(after(now, -NEWS * 2))), most].into(),
            ),
            // In the order of their places up to the first young one, so that no gap comes about. One that a wrong clock has
            // dated ahead counts as old behind old ones.
            Old::Events => (
                sql!(
                    "delete from lifecycle_event where place in
                        (select place from lifecycle_event where place > 0 order by place limit $2)
                     and place < coalesce((select min(o.place) from
                        (select place, at from lifecycle_event where place > 0 order by place limit $2) as o
                        where o.at >= $1 and o.at <= $3), 9223372036854775807)"
                ),
                vec![ms(ages.events).into(), most, ms(after(now, SLACK)).into()],
            ),
            Old::Strangers => (
                sql!(
                    "delete from inbound_message where id in (select id from inbound_message where unknown_at < $1
                        order by unknown_at limit $2)"
                ),
                args![ms(ages.receipts), most].into(),
            ),
            Old::Tries => (
                sql!(
                    "delete from webhook_try where (endpoint, number) in (select endpoint, number from webhook_try
                        where at < $1 limit $2)"
                ),
                args![ms(ages.events), most].into(),
            ),
            Old::Runs => (
                sql!(
                    "delete from job_run where day < $1 and finished_at is not null and day in (select day from job_run
                        where day < $1 and finished_at is not null limit $2)
                     and day < (select max(l.day) from job_run l where l.job = job_run.job)"
                ),
                args![day, most].into(),
            ),
        };
        let rows = tx.execute(sql, arguments).await?;
        tx.commit().await?;
        Ok(Some(Batch::since(begun, rows)))
    }

    /// Takes the personal data out of up to `most` alerts with all that hangs on them: names, numbers, texts, subjects and
    /// links go, and the attempts and timelines. Alerts on which something is still owed or newly done are passed over.
    pub async fn strip_alerts(
        &self,
        run: &Run,
        ages: Ages,
        most: i64,
        now: Timestamp,
    ) -> Result<Option<Batch>, StoreError> {
        const OLD: Sql = sql!(
            "select a.id from alert a where a.stripped_at is null and a.received_at < $1 and not ",
            ledger::BUSY,
            " order by a.received_at limit $2"
        );
        let ids: Vec<AlertId> = self.reads().scalars(OLD, args![ms(ages.personal), most]).await?;
        let Some((mut tx, begun)) = self.begin_step(run, now).await? else {
            return Ok(None);
        };
        let mut rows = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        for id in &ids {
            ledger::strip(&mut tx, id, ages.personal, now).await?;
            if begun.elapsed() > ENOUGH {
                // An alert of a hundred people weighs as much as fifty of two. There may be more.
                rows = most;
                break;
            }
        }
        tx.commit().await?;
        Ok(Some(Batch {
            rows,
            held: begun.elapsed(),
        }))
    }

    /// Deletes up to `most` codes of alerts that are over or acknowledged for a while: a late reply is answered no more.
    pub async fn delete_codes(
        &self,
        run: &Run,
        ages: Ages,
        most: i64,
        now: Timestamp,
    ) -> Result<Option<Batch>, StoreError> {
        const OLD: Sql = sql!(
            "select c.delivery_id from ack_code c join alert a on a.id = c.alert_id
             where coalesce(a.closed_at, a.acknowledged_at) < $1 limit $2"
        );
        // Asked again: the ticket may be critical again by now.
        const DELETE: Sql = sql!(
            "delete from ack_code where delivery_id = $1 and exists (select 1 from alert a
                where a.id = ack_code.alert_id and coalesce(a.closed_at, a.acknowledged_at) < $2)"
        );
        let ids: Vec<DeliveryId> = self.reads().scalars(OLD, args![ms(ages.codes), most]).await?;
        let Some((mut tx, begun)) = self.begin_step(run, now).await? else {
            return Ok(None);
        };
        for id in &ids {
            tx.execute(DELETE, args![id, ms(ages.codes)]).await?;
        }
        tx.commit().await?;
        Ok(Some(Batch {
            rows: i64::try_from(ids.len()).unwrap_or(i64::MAX),
            held: begun.elapsed(),
        }))
    }

    /// Takes the personal data out of up to `most` messages that have no alert.
    pub async fn strip_messages(
        &self,
        run: &Run,
        ages: Ages,
        most: i64,
        now: Timestamp,
    ) -> Result<Option<Batch>, StoreError> {
        const OLD: Sql = sql!(
            "select d.id from delivery d where ",
            ledger::OLD_MESSAGE,
            " order by d.received_at limit $2"
        );
        let ids: Vec<DeliveryId> = self.reads().scalars(OLD, args![ms(ages.personal), most]).await?;
        let Some((mut tx, begun)) = self.begin_step(run, now).await? else {
            return Ok(None);
        };
        for id in &ids {
            ledger::strip_message(&mut tx, id, ages.personal).await?;
        }
        tx.commit().await?;
        Ok(Some(Batch {
            rows: i64::try_from(ids.len()).unwrap_or(i64::MAX),
            held: begun.elapsed(),
        }))
    }

    /// Takes the personal data out of up to `most` messages that people sent us.
    pub async fn strip_inbound(
        &self,
        run: &Run,
        ages: Ages,
        most: i64,
        now: Timestamp,
    ) -> Result<Option<Batch>, StoreError> {
        // The provider's id leads to the text as well; another one in its place keeps the key.
        const STRIP: Sql = sql!(
            "update inbound_message set from_phone = null, to_phone = null, text = null, form = null,
                provider_message_id = id, unknown_at = null, stripped_at = $2
             where id in (select id from inbound_message where stripped_at is null and received_at < $1
                order by received_at limit $3)"
        );
        let Some((mut tx, begun)) = self.begin_step(run, now).await? else {
            return Ok(None);
        };
        let rows = tx.execute(STRIP, args![ms(ages.personal), ms(now), most]).await?;
        tx.commit().await?;
        Ok(Some(Batch::since(begun, rows)))
    }

    /// Deletes up to `most` mails: those that went, or were only kept, when receipts go, the others when personal data
    /// goes; the runs of those are done with it.
    pub async fn delete_mails(
        &self,
        run: &Run,
        ages: Ages,
        most: i64,
        now: Timestamp,
    ) -> Result<Option<Batch>, StoreError> {
        let Some((mut tx, begun)) = self.begin_step(run, now).await? else {
            return Ok(None);
        };
        tx.execute(sql!("update job_run set finished_at = $2 where job = 'report' and composed_at is not null and finished_at is null
                and exists (select 1 from mail m where m.subject_key = 'report/' || job_run.day and m.created_at < $1)"), args![ms(ages.personal), ms(now)]).await?;
        let rows = tx
            .execute(
                sql!(
                    "delete from mail where id in (select id from mail where created_at < $2
                or (created_at < $1 and (sent_at is not null or due_at is null)) order by created_at limit $3)"
                ),
                args![ms(ages.receipts.max(ages.personal)), ms(ages.personal), most],
            )
            .await?;
        tx.commit().await?;
        Ok(Some(Batch::since(begun, rows)))
    }

    /// How many mails are about to be deleted that no server ever took.
    pub async fn mails_given_up(&self, ages: Ages) -> Result<i64, StoreError> {
        self.reads()
            .scalar(
                sql!("select count(*) from mail where created_at < $1 and sent_at is null and due_at is not null"),
                args![ms(ages.personal)],
            )
            .await
    }

    /// Gives pages that nobody uses back to the file system, if more than a quarter of the file is free: the rest serves
    /// the days to come. SQLite only; PostgreSQL vacuums by itself. Returns whether there may be more.
    pub async fn shrink(&self, pages: u32) -> Result<Option<Duration>, StoreError> {
        let Kind::Sqlite {
            writer: Some(writer), ..
        } = &self.engine.kind
        else {
            return Ok(None);
        };
        let mut held = writer.hold().await?;
        let connection = held.get()?;
        let begun = Instant::now();
        const PAGES: &str = "select freelist_count, page_count from pragma_freelist_count, pragma_page_count";
        let (free, all): (i64, i64) = sqlx::query_as(PAGES).fetch_one(&mut *connection).await?;
        if free <= all / 4 {
            return Ok(None);
        }
        // A pragma takes no bound values; this one is a number of ours.
        sqlx::query(sqlx::AssertSqlSafe(format!("pragma incremental_vacuum({pages})")))
            .fetch_all(&mut *connection)
            .await?;
        let (left, _): (i64, i64) = sqlx::query_as(PAGES).fetch_one(&mut *connection).await?;
        // A file made before this version has no map of its pages and cannot shrink so.
        Ok((left < free).then(|| begun.elapsed()))
    }
}
