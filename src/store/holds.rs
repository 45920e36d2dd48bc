//! Holds: while a provider would refuse every message, nothing is sent through it. Kept in the database, so that a
//! restart or another replica knows. A hold ends when the probe is accepted or, where that says too little, when one
//! delivery is that is tried while the rest waits. Absent: the probe itself (see `worker::sweep`).

use super::{
    Db,
    alarms::{self, About},
    error::StoreError,
    query::Query,
    sql::{Sql, args, row, sql},
    tx::{Effect, Tx},
    types::{at, ms},
};
use crate::domain::{
    answer::HoldCause,
    day::{LocalDay, after},
    id::{AttemptNo, DeliveryId},
    report::Explanation,
    route::Route,
};
use jiff::{SignedDuration, Timestamp};

/// How often a held account is probed.
const PROBE_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// How often one delivery is tried while all is held. Not configurable: it protects an account from being closed for
/// too many refused calls, and people from waiting for long.
const TRIAL_EVERY: SignedDuration = SignedDuration::from_mins(3);
/// Deliveries that were received longer before a hold say nothing of the account after it: they are over.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(72);
/// A delivery that brought so many holds upon an account that works is set aside.
const MAX_HOLDS: i64 = 3;

/// A hold, as admins see it.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub fault: HoldCause,
    pub since: Timestamp,
}

/// What the provider refused, for a hold.
pub struct Halt<'a> {
    pub fault: HoldCause,
    pub code: Option<i64>,
    pub explanation: &'a Explanation,
}

/// What the alarm says, as far as it is known without an explanation.
fn refusal(provider: &str, fault: HoldCause, code: Option<i64>) -> String {
    format!("{provider} refuses our {fault}{}: all sends are held", code_text(code))
}

fn code_text(code: Option<i64>) -> String {
    code.map_or_else(String::new, |code| format!(" (code {code})"))
}

const HOLD: &str = "select since, trial_at, error_code, fault, detail from route_hold where route = $1";

#[derive(sqlx::FromRow)]
struct HoldRow {
    since: i64,
    trial_at: Option<i64>,
    error_code: Option<i64>,
    fault: Option<String>,
    detail: Option<String>,
}

impl HoldRow {
    /// A version that knew no other fault wrote none.
    fn fault(&self) -> HoldCause {
        self.fault
            .as_deref()
            .and_then(HoldCause::parse)
            .unwrap_or(HoldCause::Credentials)
    }
}

/// What a probe did to a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// There was none.
    Free,
    Lifted,
    /// It stays; whether one delivery is tried every few minutes meanwhile.
    Held {
        trials: bool,
    },
}

impl Db {
    /// Whether sends through this account are held, and a probe is due. A probe that a clock which has gone back put into
    /// the far future is due too.
    pub async fn is_probe_due(&self, route: &Route, now: Timestamp) -> Result<bool, StoreError> {
        let due: Option<i64> = self
            .reads()
            .optional_scalar(
                sql!(
                    "select probe_at from route_hold
                where route = $1 and (probe_at <= $2 or probe_at > $3)"
                ),
                args![route.key(), ms(now), ms(after(now, PROBE_EVERY))],
            )
            .await?;
        Ok(due.is_some())
    }

    /// The hold of this account, if there is one.
    pub async fn held(&self, route: &Route) -> Result<Option<Held>, StoreError> {
        let row: Option<HoldRow> = self.reads().optional(sql!(HOLD), args![route.key()]).await?;
        Ok(row.map(|row| Held {
            fault: row.fault(),
            since: at(row.since),
        }))
    }

    /// The probe was accepted. That mends refused credentials; other faults only show when a delivery is tried.
    pub async fn probe_accepted(&self, route: &Route, day: LocalDay, now: Timestamp) -> Result<Probed, StoreError> {
        let mut tx = self.begin().await?;
        let Some(hold) = lock(&mut tx, route).await? else {
            return Ok(Probed::Free);
        };
        if !hold.fault().is_mended_by_an_answer() {
            put_off(&mut tx, route, &hold, Trials::Open, day, now).await?;
            tx.commit().await?;
            return Ok(Probed::Held { trials: true });
        }
        lift(&mut tx, route.key());
        tx.then(Effect::Wake);
        tx.commit().await?;
        Ok(Probed::Lifted)
    }

    /// The probe was not accepted, and is due again later. `trials`: what that means for a delivery.
    pub async fn put_off_probe(
        &self,
        route: &Route,
        trials: Trials,
        day: LocalDay,
        now: Timestamp,
    ) -> Result<Probed, StoreError> {
        let mut tx = self.begin().await?;
        let Some(hold) = lock(&mut tx, route).await? else {
            return Ok(Probed::Free);
        };
        put_off(&mut tx, route, &hold, trials, day, now).await?;
        tx.commit().await?;
        Ok(Probed::Held {
            trials: trials == Trials::Open,
        })
    }

    /// Probes at the next chance, and tries a delivery right after: a restart may have brought better settings.
    pub async fn probe_soon(&self, route: &Route, now: Timestamp) -> Result<(), StoreError> {
        if self.held(route).await?.is_none() {
            return Ok(());
        }
        const SOON: Sql = sql!("update route_hold set probe_at = $2, trial_at = null where route = $1");
        self.execute(SOON, args![route.key(), ms(now)]).await.map(drop)
    }
}

/// Whether a delivery may be tried while all is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trials {
    /// It would show what the probe cannot.
    Open,
    /// It would surely be refused.
    Closed,
    /// The probe said nothing.
    AsTheyAre,
}

async fn lock(tx: &mut Tx, route: &Route) -> Result<Option<HoldRow>, StoreError> {
    tx.optional(sql!(HOLD, " for update"), args![route.key()]).await
}

/// Keeps the hold until the next probe, and raises the alarm again once a day.
async fn put_off(
    tx: &mut Tx,
    route: &Route,
    hold: &HoldRow,
    trials: Trials,
    day: LocalDay,
    now: Timestamp,
) -> Result<(), StoreError> {
    let trial_at = match trials {
        Trials::Open => hold
            .trial_at
            .filter(|due| *due <= ms(after(now, TRIAL_EVERY)))
            .or(Some(ms(now))),
        Trials::Closed => None,
        Trials::AsTheyAre => hold.trial_at,
    };
    // A clock that has gone back leaves nothing waiting for the old future.
    let since = hold.since.min(ms(now));
    tx.execute(
        sql!("update route_hold set probe_at = $2, since = $3, trial_at = $4 where route = $1"),
        args![route.key(), ms(after(now, PROBE_EVERY)), since, trial_at],
    )
    .await?;
    tx.then(Effect::Wake);
    let fault = hold.fault();
    let provider = route.provider.as_str();
    let detail = hold.detail.clone();
    let detail = detail.unwrap_or_else(|| refusal(provider, fault, hold.error_code));
    let subject = subject(provider, &route.account, hold.error_code, day);
    alarms::raise(tx, fault.alarm(), &subject, About::default(), detail, now).await
}

/// One alarm a day for each code.
fn subject(provider: &str, account: &str, code: Option<i64>, day: LocalDay) -> String {
    format!("{provider}/{account}{}/{day}", code_text(code))
}

/// Ends the hold of a route.
pub fn lift(tx: &mut Tx, route: &str) {
    const LIFT: Sql = sql!(
        "delete from route_hold where route in (select r.route from ",
        Row::ROWS,
        ")"
    );
    row! {
        Row<'a> { route: &'a str as text }
    }
    tx.queue(LIFT, [Row { route }].into_iter().collect());
}

/// Takes the one try that is due while all is held; others get the next one. False if it was taken meanwhile.
pub async fn take_trial(tx: &mut Tx, route: &Route, now: Timestamp) -> Result<bool, StoreError> {
    let taken = tx
        .execute(
            sql!("update route_hold set trial_at = $3 where route = $1 and trial_at <= $2"),
            args![route.key(), ms(now), ms(after(now, TRIAL_EVERY))],
        )
        .await?;
    if taken > 0 {
        tracing::info!(provider = %route.provider, "all sends are held; one delivery is tried");
    }
    Ok(taken > 0)
}

/// What is known of a delivery whose attempt the provider refused as it would any other.
#[derive(sqlx::FromRow)]
struct Culprit {
    provider: String,
    account: String,
    route: String,
    holds: i64,
    is_held: i64,
    /// Whether a message of another delivery was accepted since this one brought its first hold.
    others_accepted: i64,
}

impl Culprit {
    /// How many holds it has on its account after this one: the first is remembered. A later one is the delivery's doing only
    /// if the account has been shown to work since the first. It takes a message that was accepted: an account may answer
    /// questions and take no message.
    fn holds_after(&self, fault: HoldCause) -> i64 {
        let is_to_blame = fault.may_be_one_delivery() && self.others_accepted > 0;
        self.holds + i64::from(self.holds == 0 || is_to_blame)
    }
}

/// What becomes of a delivery whose attempt was refused as every other would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halted {
    /// Everything is held, and it waits with the others. So many holds are its doing now, if this is a new one.
    Waits { holds: Option<i64> },
    /// It alone is at fault, so nothing is held.
    SetAside,
}

/// Holds all sends through the account of an attempt, with one alarm a day for each code; unless the delivery has been
/// shown to be at fault itself.
pub async fn hold(
    tx: &mut Tx,
    (delivery_id, attempt): (&DeliveryId, AttemptNo),
    halt: &Halt<'_>,
    day: LocalDay,
    now: Timestamp,
) -> Result<Halted, StoreError> {
    let culprit: Culprit = tx
        .one(
            sql!(
                "select t.provider, t.account, coalesce(t.route, '') as route, d.holds,
                (select count(*) from route_hold h where h.route = t.route) as is_held,
                (select count(*) from (select 1 from delivery o
                        join attempt a on a.delivery_id = o.id and a.number = o.attempts
                    where o.received_at > d.held_at - $3 and o.id <> d.id and a.route = t.route
                        and a.outcome = 'accepted' and a.answered_at > d.held_at
                    order by o.received_at desc limit 1) as accepted) as others_accepted
             from attempt t join delivery d on d.id = t.delivery_id
             where t.delivery_id = $1 and t.number = $2"
            ),
            args![
                delivery_id,
                attempt,
                i64::try_from(LONGEST_WAIT.as_millis()).unwrap_or(i64::MAX)
            ],
        )
        .await?;
    let holds = culprit.holds_after(halt.fault);
    let is_new = culprit.is_held == 0;
    if is_new && holds >= MAX_HOLDS {
        return Ok(Halted::SetAside);
    }
    let (provider, account) = (&culprit.provider, &culprit.account);
    let Explanation { meaning, advice } = halt.explanation;
    let detail = format!(
        "{}. {meaning} {}",
        refusal(provider, halt.fault, halt.code),
        advice.trim_end_matches('.')
    );
    // A try that is refused for another fault than before is reported from now on.
    let reported = tx
        .execute(
            sql!(
                "insert into route_hold (route, since, error_code, probe_at, fault, detail)
            values ($1, $2, $3, $4, $5, $6) on conflict (route) do update
                set error_code = excluded.error_code, fault = excluded.fault, detail = excluded.detail
                where route_hold.detail is distinct from excluded.detail"
            ),
            args![
                &culprit.route,
                ms(now),
                halt.code,
                ms(after(now, PROBE_EVERY)),
                halt.fault.as_str(),
                &detail
            ],
        )
        .await?
        > 0;
    if reported {
        let subject = subject(provider, account, halt.code, day);
        alarms::raise(tx, halt.fault.alarm(), &subject, About::default(), detail, now).await?;
    }
    Ok(Halted::Waits {
        holds: is_new.then_some(holds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_counts_against_a_delivery_only_if_it_is_the_first_or_others_were_accepted_since() {
        let rows = [
            // The first is remembered and proves nothing.
            (HoldCause::Credentials, 0, 1, 1),
            (HoldCause::Credentials, 1, 0, 1),
            (HoldCause::Credentials, 1, 1, 2),
            (HoldCause::Sender, 1, 0, 1),
            (HoldCause::Sender, 1, 1, 2),
            // Never about one message.
            (HoldCause::Account, 1, 1, 1),
            (HoldCause::Settings, 1, 1, 1),
        ];

        for (fault, holds, others_accepted, expected) in rows {
            let culprit = Culprit {
                provider: "twilio".into(),
                account: "AC1".into(),
                route: "sms/twilio/AC1/+1".into(),
                holds,
                is_held: 0,
                others_accepted,
            };
            assert_eq!(
                culprit.holds_after(fault),
                expected,
                "{fault} {holds} {others_accepted}"
            );
        }
    }
}
