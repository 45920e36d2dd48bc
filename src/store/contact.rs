//! Whether the provider can be reached. One row for each account, written when calls begin to fail and when they are
//! answered again, so that a restart goes on counting and several replicas raise one alarm. By the wall clock, because
//! it has to outlive the process; therefore time in which nothing was tried does not count, nor does a clock that jumps.

use super::{
    Db,
    alarms::{self, About},
    error::StoreError,
    query::Query,
    sql::{Sql, args, sql},
    tx::Tx,
    types::{at, ms},
};
use crate::domain::{alarm::AlarmKind, day::after, route::Route};
use jiff::{SignedDuration, Timestamp};

/// People are told after so long without any answer.
const TELL_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// Two tries further apart than this are not one outage: nobody tried in between, or the clock jumped. While calls fail
/// there is a probe every minute.
const FARTHEST_TRIES: SignedDuration = SignedDuration::from_mins(10);
/// How often an account that does not answer is asked whether it is back.
const PROBE_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// Failures are written down no more often than this.
const WRITE_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// What is known of an account that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
struct Outage {
    silent_since: Option<i64>,
    failed_at: Option<i64>,
    alarmed_at: Option<i64>,
}

impl Outage {
    /// What it is after a call failed at `now`.
    fn after_failure(self, now: Timestamp) -> Self {
        let goes_on = |since: &i64| {
            let failed_at = at(self.failed_at.unwrap_or(*since));
            let is_told = self.alarmed_at.is_some();
            *since <= ms(now) && (is_told || (failed_at <= now && now <= after(failed_at, FARTHEST_TRIES)))
        };
        let silent_since = self.silent_since.filter(goes_on).unwrap_or(ms(now));
        let is_long = after(at(silent_since), TELL_AFTER) <= now;
        Self {
            silent_since: Some(silent_since),
            failed_at: Some(ms(now)),
            alarmed_at: self.alarmed_at.or(is_long.then_some(ms(now))),
        }
    }

    /// Whether writing this down again would change nothing that matters.
    fn is_fresh(self, now: Timestamp) -> bool {
        let next = self.after_failure(now);
        self.silent_since == next.silent_since
            && self.alarmed_at == next.alarmed_at
            && self
                .failed_at
                .is_some_and(|failed_at| now < after(at(failed_at), WRITE_EVERY))
    }
}

const OUTAGE: &str = "select silent_since, failed_at, alarmed_at from route_contact where route = $1";

/// Raises the alarm that an outage which began at `since` has lasted for long, or is over.
async fn tell(
    tx: &mut Tx,
    kind: AlarmKind,
    route: &Route,
    since: i64,
    detail: String,
    now: Timestamp,
) -> Result<(), StoreError> {
    let subject = format!("{}/{}/{since}", route.provider, route.account);
    alarms::raise(tx, kind, &subject, About::default(), detail, now).await
}

impl Db {
    async fn outage(&self, route: &Route) -> Result<Option<Outage>, StoreError> {
        self.reads().optional(sql!(OUTAGE), args![route.key()]).await
    }

    /// Since when no call to this account has been answered, if that is so.
    pub async fn unreachable_since(&self, route: &Route) -> Result<Option<Timestamp>, StoreError> {
        let outage = self.outage(route).await?;
        Ok(outage.and_then(|outage| outage.silent_since).map(at))
    }

    /// Whether an account that does not answer is to be asked now.
    pub async fn is_call_due(&self, route: &Route, now: Timestamp) -> Result<bool, StoreError> {
        let due: Option<i64> = self
            .reads()
            .optional_scalar(
                sql!(
                    "select silent_since from route_contact
             where route = $1 and silent_since is not null and (probe_at <= $2 or probe_at > $3)"
                ),
                args![route.key(), ms(now), ms(after(now, PROBE_EVERY))],
            )
            .await?;
        Ok(due.is_some())
    }

    /// It is being asked: the next one is due later.
    pub async fn put_off_call(&self, route: &Route, now: Timestamp) -> Result<(), StoreError> {
        const PUT_OFF: Sql = sql!("update route_contact set probe_at = $2 where route = $1");
        let put_off = self.execute(PUT_OFF, args![route.key(), ms(after(now, PROBE_EVERY))]);
        put_off.await.map(drop)
    }

    /// Calls were made and none was answered. After a while people are told, once.
    pub async fn note_failed_calls(&self, route: &Route, now: Timestamp) -> Result<(), StoreError> {
        let known = self.outage(route).await?;
        if known.is_some_and(|outage| outage.is_fresh(now)) {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        tx.execute(
            sql!(
                "insert into route_contact (route, probe_at) values ($1, $2)
             on conflict (route) do nothing"
            ),
            args![route.key(), ms(after(now, PROBE_EVERY))],
        )
        .await?;
        let outage: Outage = tx.one(sql!(OUTAGE, " for update"), args![route.key()]).await?;
        let next = outage.after_failure(now);
        tx.execute(
            sql!(
                "update route_contact set silent_since = $2, failed_at = $3, alarmed_at = $4,
                probe_at = case when $5 = 1 then probe_at else $6 end
             where route = $1"
            ),
            args![
                route.key(),
                next.silent_since,
                next.failed_at,
                next.alarmed_at,
                i64::from(outage.silent_since.is_some()),
                ms(after(now, PROBE_EVERY))
            ],
        )
        .await?;
        if outage.alarmed_at.is_none()
            && let (Some(since), Some(_)) = (next.silent_since, next.alarmed_at)
        {
            let detail = format!("no call to {} has been answered since {}", route.provider, at(since));
            tell(&mut tx, AlarmKind::ProviderUnreachable, route, since, detail, now).await?;
        }
        tx.commit().await
    }

    /// A call was answered, whatever the answer was. People who were told that none is are told that too.
    pub async fn note_answered_call(&self, route: &Route, now: Timestamp) -> Result<(), StoreError> {
        let known = self.outage(route).await?;
        if known.is_none_or(|outage| outage.silent_since.is_none()) {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let outage: Outage = tx.one(sql!(OUTAGE, " for update"), args![route.key()]).await?;
        tx.execute(
            sql!(
                "update route_contact set silent_since = null, failed_at = null, alarmed_at = null
             where route = $1"
            ),
            args![route.key()],
        )
        .await?;
        if let (Some(since), Some(_)) = (outage.silent_since, outage.alarmed_at) {
            let detail = format!("{} answers again; it had not since {}", route.provider, at(since));
            tell(&mut tx, AlarmKind::ProviderReachable, route, since, detail, now).await?;
        }
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN_TO_ANSWER: Outage = Outage {
        silent_since: None,
        failed_at: None,
        alarmed_at: None,
    };

    /// What it is after calls failed at these minutes.
    fn failed_at(minutes: &[i64]) -> Outage {
        minutes.iter().fold(KNOWN_TO_ANSWER, |outage, minute| {
            outage.after_failure(at(minute * 60_000))
        })
    }

    #[test]
    fn people_are_told_after_ten_minutes_of_tries() {
        assert_eq!(failed_at(&[100, 105, 109]).alarmed_at, None);
        assert_eq!(failed_at(&[100, 105, 110]).alarmed_at, Some(110 * 60_000));
        assert_eq!(failed_at(&[100, 105, 110, 115]).alarmed_at, Some(110 * 60_000), "once");
    }

    #[test]
    fn time_in_which_nothing_was_tried_does_not_count_nor_does_a_jump() {
        let jumped = failed_at(&[100, 105, 1_000]);

        assert_eq!((jumped.alarmed_at, jumped.silent_since), (None, Some(1_000 * 60_000)));
        let back = failed_at(&[100, 105, 50]);
        assert_eq!((back.alarmed_at, back.silent_since), (None, Some(50 * 60_000)));
    }

    #[test]
    fn who_was_told_stays_told_until_there_is_an_answer() {
        let told = failed_at(&[100, 105, 110, 500]);

        assert_eq!(
            (told.alarmed_at, told.silent_since),
            (Some(110 * 60_000), Some(100 * 60_000))
        );
    }
}
