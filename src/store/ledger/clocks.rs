//! What a wrong clock leaves behind: attempts of which nobody can say when they began, and times of a future that is over.
//! Absent: how it is seen that a clock is or was wrong (`domain::clock`, `worker::clock`).

use super::delivery::{IDS, id_rows, lock};
use crate::{
    domain::{alarm::AlarmKind, day::after, delivery::State, id::DeliveryId},
    store::{
        Db,
        alarms::{self, About},
        db::NOTE_TIME,
        error::StoreError,
        query::Query,
        sql::{Sql, args, sql},
        tx::Effect,
        types::ms,
    },
};
use jiff::{SignedDuration, Timestamp};

/// Times by which `clamp_times` decides.
#[derive(Clone, Copy, Debug)]
pub struct ClampRules {
    pub lease: SignedDuration,
    /// When the next local day begins.
    pub tomorrow: Timestamp,
}

/// Clocks of replicas may be so far apart: beyond it an alarm tells that one of them is wrong.
const SLACK: SignedDuration = SignedDuration::from_mins(2);
/// How often the time is written down, by which it is seen that it went back.
const MARK_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// How many rows one transaction changes at most, so that it never holds up the writer for long.
const BATCH: i64 = 200;
/// Beyond these no rule of ours sets a time (`holds`, `job_runs`, `domain::mail`, `worker::outbox`).
const LONGEST_PROBE: SignedDuration = SignedDuration::from_mins(1);
const LONGEST_TRIAL: SignedDuration = SignedDuration::from_mins(3);
const LONGEST_RUN: SignedDuration = SignedDuration::from_secs(30);
const LONGEST_MAIL_WAIT: SignedDuration = SignedDuration::from_mins(30);
const LONGEST_MAIL_LEASE: SignedDuration = SignedDuration::from_mins(7);
/// Of `worker::webhooks`: an event is tried again after ten hours and a fifth, an endpoint after an hour.
const LONGEST_EVENT_WAIT: SignedDuration = SignedDuration::from_hours(12);
const LONGEST_ENDPOINT_WAIT: SignedDuration = SignedDuration::from_hours(1);

impl Db {
    /// Marks every attempt whose outcome is open as begun at a time that nobody can vouch for. Returns how many.
    pub async fn doubt_open_attempts(&self, now: Timestamp) -> Result<usize, StoreError> {
        const OPEN: Sql = sql!(
            "select d.id from delivery d cross join attempt t
             where t.delivery_id = d.id and t.number = d.attempts and t.clock_doubtful_at is null and d.state in (",
            State::UNCERTAIN,
            ") and (d.state = 'sending' or d.due_at is not null) limit $1"
        );
        const DOUBT: Sql = sql!(
            "update attempt set clock_doubtful_at = $2 from ",
            IDS,
            ", delivery d where d.id = r.id and attempt.delivery_id = d.id and attempt.number = d.attempts"
        );
        let mut marked = 0;
        loop {
            let open: Vec<DeliveryId> = self.reads().scalars(OPEN, args![BATCH]).await?;
            if open.is_empty() {
                return Ok(marked);
            }
            let mut tx = self.begin().await?;
            lock(&mut tx, &open).await?;
            marked += open.len();
            tx.execute(DOUBT, args![id_rows(&open), ms(now)]).await?;
            tx.commit().await?;
            if is_less_than_a_batch(open.len()) {
                return Ok(marked);
            }
        }
    }

    /// Raises an alarm about `subject` of which no transaction knows, unless it was raised already.
    pub async fn raise_alarm(
        &self,
        kind: AlarmKind,
        subject: &str,
        detail: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        const RAISED: Sql = sql!("select id from alarm where kind = $1 and subject = $2");
        if self.reads().exists(RAISED, args![kind.as_str(), subject]).await? {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        alarms::raise(&mut tx, kind, subject, About::default(), detail, now).await?;
        tx.commit().await
    }

    /// Once a second: if the clock went back, whatever waits for a time of the old future waits for it no longer. That it
    /// went back is seen by what was written, so a restart, or another process, sees it too; `is_likely` where the caller has
    /// reason to look closer. Returns how many deliveries were changed.
    pub async fn clamp_times(&self, rules: ClampRules, is_likely: bool, now: Timestamp) -> Result<usize, StoreError> {
        const WRITTEN: Sql = sql!(
            "select (select updated_at from setting where name = 'clock'),
                (select case when due_at > $1 then updated_at end from delivery where state = 'pending'
                    and due_at is not null order by due_at desc limit 1)"
        );
        let far = ms(after(now, SLACK));
        let (mark, latest): (Option<i64>, Option<i64>) = self.reads().one(WRITTEN, args![far]).await?;
        // A process whose clock is ahead may have written it, or none yet wrote down the time.
        let went_back = is_likely || mark.is_none_or(|mark| mark > far) || latest.is_some_and(|latest| latest > far);
        let mut clamped = 0;
        if went_back {
            loop {
                let count = self.clamp_deliveries(rules, now).await?;
                clamped += count;
                if is_less_than_a_batch(count) {
                    break;
                }
            }
            self.clamp_the_rest(now).await?;
        }
        if went_back || mark.is_none_or(|mark| mark <= ms(after(now, -MARK_EVERY))) {
            self.execute(NOTE_TIME, args!["clock", ms(now)]).await?;
        }
        Ok(clamped)
    }

    /// A batch of deliveries that were written by a clock which is ahead of ours. Each only once: it is written by ours then.
    async fn clamp_deliveries(&self, rules: ClampRules, now: Timestamp) -> Result<usize, StoreError> {
        const DUE: Sql = sql!(
            "select id from delivery where state in (",
            State::OPEN,
            ") and due_at > $2 and updated_at > $1 limit $3"
        );
        const LEASED: Sql = sql!("select id from delivery where lease_until > $2 and updated_at > $1 limit $3");
        // Of a call that may be under way the lease is not cut shorter than one from now.
        const CLAMP: Sql = sql!(
            "update delivery set
                due_at = case when state = 'deferred' and due_at > $4 then $4
                    when state <> 'deferred' and due_at > $3 then $3 else due_at end,
                lease_until = case when lease_until > $5 then $5 else lease_until end,
                received_at = case when state in (",
            State::OWED,
            ") and received_at > $3 then $3 else received_at end,
                updated_at = $3
             from ",
            IDS,
            " where delivery.id = r.id and delivery.updated_at > $2"
        );
        let (far, lease_end) = (ms(after(now, SLACK)), ms(after(now, rules.lease)));
        let mut ids: Vec<DeliveryId> = self.reads().scalars(DUE, args![far, ms(now), BATCH]).await?;
        let leased: Vec<DeliveryId> = self.reads().scalars(LEASED, args![far, lease_end, BATCH]).await?;
        ids.extend(leased);
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(usize::try_from(BATCH).unwrap_or(usize::MAX));
        if ids.is_empty() {
            return Ok(0);
        }
        let mut tx = self.begin().await?;
        lock(&mut tx, &ids).await?;
        let arguments = args![id_rows(&ids), far, ms(now), ms(rules.tomorrow), lease_end];
        tx.execute(CLAMP, arguments).await?;
        tx.then(Effect::Wake);
        tx.commit().await?;
        Ok(ids.len())
    }

    /// Times beside deliveries that lie further ahead than any rule of ours would have set them.
    async fn clamp_the_rest(&self, now: Timestamp) -> Result<(), StoreError> {
        let beyond = |longest: SignedDuration| ms(after(now, longest + SLACK));
        let mut tx = self.begin().await?;
        for (sql, longest, new) in [
            (
                sql!("update route_hold set probe_at = $2 where probe_at > $1"),
                LONGEST_PROBE,
                ms(now),
            ),
            (
                sql!("update route_hold set trial_at = $2 where trial_at > $1"),
                LONGEST_TRIAL,
                ms(now),
            ),
            (
                sql!("update route_contact set probe_at = $2 where probe_at > $1"),
                LONGEST_PROBE,
                ms(now),
            ),
            (
                sql!("update job_run set lease_until = $2 where lease_until > $1 and finished_at is null"),
                LONGEST_RUN,
                ms(after(now, LONGEST_RUN)),
            ),
            (
                sql!("update mail set due_at = $2 where due_at > $1 and sent_at is null"),
                LONGEST_MAIL_WAIT,
                ms(now),
            ),
            (
                sql!("update mail set lease_until = $2 where lease_until > $1 and sent_at is null"),
                LONGEST_MAIL_LEASE,
                ms(after(now, LONGEST_MAIL_LEASE)),
            ),
            (
                sql!(
                    "update webhook_hold set due_at = $2 where endpoint in (select name from webhook_endpoint) and due_at > $1"
                ),
                LONGEST_EVENT_WAIT,
                ms(now),
            ),
            (
                sql!(
                    "update webhook_hold set since = $2 where endpoint in (select name from webhook_endpoint) and since > $1"
                ),
                SignedDuration::ZERO,
                ms(now),
            ),
            (
                sql!("update webhook_endpoint set due_at = $2 where due_at > $1"),
                LONGEST_ENDPOINT_WAIT,
                ms(now),
            ),
            (
                sql!("update webhook_endpoint set failing_since = $2 where failing_since > $1"),
                SignedDuration::ZERO,
                ms(now),
            ),
            (
                sql!("update webhook_endpoint set created_at = $2 where created_at > $1"),
                SignedDuration::ZERO,
                ms(now),
            ),
        ] {
            tx.execute(sql, args![beyond(longest), new]).await?;
        }
        tx.commit().await
    }
}

fn is_less_than_a_batch(count: usize) -> bool {
    i64::try_from(count).is_ok_and(|count| count < BATCH)
}
