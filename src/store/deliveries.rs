//! Deliveries as work: claiming the next one, and the sweep that gives every delivery its way out by time. Absent:
//! the send itself (see `sending`).

use super::{
    Connection, Db, Engine, StoreError, Tx, ms, new_id, pace, read, receipts,
    sending::Attempt,
    session::call,
    transitions::{self, Landing},
    within,
};
use crate::domain::route::{Channel, ProviderName, Route};
use crate::domain::{
    day::after,
    delivery::{Change, Reason, State},
};
use const_format::concatcp;
use jiff::{SignedDuration, Timestamp};

/// The right to begin sending one delivery, until the lease ends.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub delivery_id: String,
    /// Fences out whoever held an older lease.
    pub token: String,
    /// How often it was claimed without a send since it last moved.
    pub claims: i64,
}

/// What became of the wish to send a delivery again.
pub enum Resent {
    /// It is owed again, as this delivery.
    As(String),
    /// The old one may still arrive.
    Undecided(State),
    /// It never had a usable number.
    NoPhone,
    NoSuchDelivery,
}

/// Times by which the sweep decides.
#[derive(Clone, Copy, Debug)]
pub struct SweepRules {
    pub expire_after: SignedDuration,
}

/// How many deliveries one sweep transaction moves at most, so that it never holds up the writer for long.
const SWEEP_BATCH: i64 = 50;
/// Two commits that cross each other are seconds apart at most; older receipts speak of messages that are none of ours.
const LATE_RECEIPTS: SignedDuration = SignedDuration::from_mins(10);

impl Db {
    /// Claims the delivery that has been due for longest, unless the account is held and no try is due. The lease runs to `now + lease`;
    /// its token is new and begins with `owner`, so that a process can give back all of its own.
    pub async fn claim(
        &self,
        owner: &str,
        route: &Route,
        lease: SignedDuration,
        now: Timestamp,
    ) -> Result<Option<Claimed>, StoreError> {
        let token = format!("{owner}/{}", uuid::Uuid::now_v7().simple());
        let mut tx = self.begin().await?;
        // The one statement whose texts differ inside: PostgreSQL passes over rows that another replica is claiming.
        tx.flush().await?;
        let claimed: Option<(String, i64)> = match &mut tx.connection {
            Connection::Sqlite(held) => {
                sqlx::query_as(
                    "update delivery set lease_token = $1, lease_until = $2, claims = claims + 1, updated_at = $3 where id = (
                         select id from delivery
                         where state = 'pending' and channel = $5 and due_at <= $3 and (lease_until is null or lease_until <= $3)
                             and not exists (select 1 from route_hold where route = $4
                                and (trial_at is null or trial_at > $3))
                         order by due_at, id limit 1)
                     returning id, claims",
                )
                .bind(&token)
                .bind(ms(after(now, lease)))
                .bind(ms(now))
                .bind(route.key())
                .bind(route.channel.as_str())
                .fetch_optional(held.get()?)
                .await?
            }
            Connection::Postgres(session) => call!(session, |conn| {
                sqlx::query_as(
                    "update delivery set lease_token = $1, lease_until = $2, claims = claims + 1, updated_at = $3 where id = (
                         select id from delivery
                         where state = 'pending' and channel = $5 and due_at <= $3 and (lease_until is null or lease_until <= $3)
                             and not exists (select 1 from route_hold where route = $4
                                and (trial_at is null or trial_at > $3))
                         order by due_at, id limit 1 for update skip locked)
                     returning id, claims",
                )
                .bind(&token)
                .bind(ms(after(now, lease)))
                .bind(ms(now))
                .bind(route.key())
                .bind(route.channel.as_str())
                .fetch_optional(conn)
                .await
            })?,
        };
        let Some((delivery_id, claims)) = claimed else {
            return Ok(None);
        };
        tx.commit().await?;
        Ok(Some(Claimed {
            delivery_id,
            token,
            claims,
        }))
    }

    /// When the next delivery will be due that is not leased now; `None` if none waits.
    pub async fn next_due_at(&self, channel: Channel, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = read!(self, |pool| {
            sqlx::query_scalar(
                "select due_at from delivery
                where state = 'pending' and channel = $2 and due_at is not null
                and (lease_until is null or lease_until <= $1) order by due_at limit 1",
            )
            .bind(ms(now))
            .bind(channel.as_str())
            .fetch_optional(pool)
            .await
        })?;
        Ok(due.map(super::at))
    }

    /// Gives every claim of `owner` back that did not begin to send, so that nobody waits for their leases to end.
    pub async fn give_back_all(&self, owner: &str) -> Result<u64, StoreError> {
        self.give_back_runs(owner).await?;
        self.end_leases(owner, true).await
    }

    /// Ends the leases of `owner` but those of calls under way. Claims that are not `excused` stay counted, so that a row
    /// that ends the process cannot do so for ever.
    async fn end_leases(&self, owner: &str, excused: bool) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let given_back = within!(tx, |conn| {
            sqlx::query(
                "update delivery set lease_token = null, lease_until = null,
                claims = case when state = 'pending' then claims - $2 else claims end
             where lease_until is not null and state <> 'sending' and substr(lease_token, 1, length($1)) = $1",
            )
            .bind(owner)
            .bind(i64::from(excused))
            .execute(conn)
            .await
            .map(|done| done.rows_affected())
        })?;
        tx.commit().await?;
        Ok(given_back)
    }

    /// Gives back the claims of processes that are gone, where that is certain: who opens a SQLite file has it alone.
    /// Elsewhere their leases end by themselves. What had begun to send keeps its lease: the call may still arrive.
    pub async fn give_back_claims_of_the_dead(&self) -> Result<u64, StoreError> {
        match &self.engine {
            Engine::Sqlite { .. } => {
                self.give_back_runs("").await?;
                self.end_leases("", false).await
            }
            Engine::Postgres(_) => Ok(0),
        }
    }

    /// Gives one claim back that did not begin to send. Unless it is `excused`, it stays counted, so that a bad row
    /// cannot come back for ever.
    pub async fn give_back(&self, claim: &Claimed, excused: bool) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        within!(tx, |conn| {
            sqlx::query(
                "update delivery set lease_token = null, lease_until = null, claims = claims - $3
                where id = $1 and lease_token = $2 and state = 'pending'",
            )
            .bind(&claim.delivery_id)
            .bind(&claim.token)
            .bind(i64::from(excused))
            .execute(conn)
            .await
            .map(drop)
        })?;
        tx.commit().await
    }

    /// Owes a delivery once more, as its next round. Refused while the old one is undecided, unless `force`d.
    pub async fn resend(&self, id: &str, force: bool, now: Timestamp) -> Result<Resent, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut row) = transitions::lock(&mut tx, id).await? else {
            return Ok(Resent::NoSuchDelivery);
        };
        if row.phone.is_none() {
            return Ok(Resent::NoPhone);
        }
        let state = row.state()?;
        if state.is_open() && !force {
            return Ok(Resent::Undecided(state));
        }
        if !force && let Some(later) = later_round_that_tells(&mut tx, id).await? {
            return Ok(Resent::Undecided(later));
        }
        let new_id = new_id();
        let inserted = within!(tx, |conn| {
            sqlx::query(
                "insert into delivery (id, alert_id, channel, phone, round, resend_of, staff_id, role, name,
                message, segments, state, attempts,
                 due_at, claims, looks, timeline_length, moved_at, received_at, created_at, updated_at)
             select $2, alert_id, channel, phone, (select max(o.round) + 1 from delivery o
             where o.alert_id = d.alert_id and o.channel = d.channel and o.phone = d.phone),
                 id, staff_id, role, name, message, segments, 'pending', 0, $3, 0, 0, 1, $3, $3, $3, $3
             from delivery d where id = $1 on conflict (alert_id, channel, phone, round) do nothing",
            )
            .bind(id)
            .bind(&new_id)
            .bind(ms(now))
            .execute(conn)
            .await
            .map(|done| done.rows_affected())
        })?;
        if inserted == 0 {
            return Ok(Resent::Undecided(State::Pending));
        }
        let detail = format!("to be sent again, instead of {id}");
        transitions::write_line(&mut tx, &new_id, 1, State::Pending.as_str(), &detail, now);
        transitions::note(&mut tx, &mut row, "resent", &format!("sent again as {new_id}"), now);
        pace::ring(&mut tx).await?;
        tx.commit().await?;
        Ok(Resent::As(new_id))
    }

    /// Takes a delivery out of the line whose handling keeps failing. Returns whether it was still there.
    pub async fn set_aside(&self, claim: &Claimed, detail: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut row) = transitions::lock(&mut tx, &claim.delivery_id).await? else {
            return Ok(false);
        };
        if row.lease_token.as_deref() != Some(&claim.token) {
            return Ok(false);
        }
        let landing = Landing {
            reason: Some(Reason::InternalError),
            detail: detail.to_owned(),
            ..Default::default()
        };
        let moved = transitions::change(&mut tx, &mut row, Change::SetAside, landing, now).await?;
        tx.commit().await?;
        Ok(moved.is_some())
    }

    /// Moves on what time alone decides: calls that never came back become `unknown`, what is too old `expired`.
    /// Returns how many deliveries moved.
    pub async fn sweep(&self, rules: SweepRules, now: Timestamp) -> Result<usize, StoreError> {
        let cutoff = after(now, -rules.expire_after);
        let lost: Vec<String> = read!(self, |pool| {
            sqlx::query_scalar(concatcp!(
                "select id from delivery where lease_until <= $1 and state = 'sending' and provider in (",
                ProviderName::KNOWN,
                ") order by lease_until limit $2"
            ))
            .bind(ms(now))
            .bind(SWEEP_BATCH)
            .fetch_all(pool)
            .await
        })?;
        let old: Vec<String> = read!(self, |pool| {
            sqlx::query_scalar(concatcp!(
                "select id from delivery where case when state in (",
                State::OWED,
                ") then received_at end < $1 and (lease_until is null or lease_until <= $2) and channel in (",
                Channel::KNOWN,
                ") order by case when state in (",
                State::OWED,
                ") then received_at end, id limit $3"
            ))
            .bind(ms(cutoff))
            .bind(ms(now))
            .bind(SWEEP_BATCH)
            .fetch_all(pool)
            .await
        })?;
        if lost.is_empty() && old.is_empty() {
            return Ok(0);
        }

        let (mut lost, mut old) = (lost, old);
        lost.sort();
        old.sort();
        let mut tx = self.begin().await?;
        let mut moved = 0;
        for id in lost {
            let Some(mut row) = transitions::lock(&mut tx, &id).await? else {
                continue;
            };
            // Read before the transaction; meanwhile it may have ended, and a new attempt begun.
            let is_lost = row.lease_until.is_some_and(|until| until <= ms(now));
            if row.state()? != State::Sending || !is_lost {
                continue;
            }
            let detail = format!(
                "attempt {}: no answer was recorded in time; the provider may have it",
                row.attempts
            );
            let landing = Landing {
                due_at: Some(now),
                detail,
                ..Default::default()
            };
            moved += usize::from(
                transitions::change(&mut tx, &mut row, Change::Lose, landing, now)
                    .await?
                    .is_some(),
            );
        }
        for id in old {
            let Some(mut row) = transitions::lock(&mut tx, &id).await? else {
                continue;
            };
            if row.received_at >= ms(cutoff) || row.lease_until.is_some_and(|until| until > ms(now)) {
                continue;
            }
            let landing = Landing {
                reason: Some(Reason::Expired),
                detail: "it waited too long to be of use".into(),
                ..Default::default()
            };
            moved += usize::from(
                transitions::change(&mut tx, &mut row, Change::Expire, landing, now)
                    .await?
                    .is_some(),
            );
        }
        tx.commit().await?;
        Ok(moved)
    }

    /// Applies receipts whose message became known in the very moment they came, so that neither side saw the other.
    pub async fn apply_late_receipts(&self, poll_after: SignedDuration, now: Timestamp) -> Result<(), StoreError> {
        let late: Vec<(String, i64, String)> = read!(self, |pool| {
            sqlx::query_as(
                "select t.delivery_id, t.number, r.message_id
                from receipt r cross join attempt t
                where case when r.applied_at is null then r.received_at end > $1
                    and t.provider = r.provider and t.message_id = r.message_id limit $2",
            )
            .bind(ms(after(now, -LATE_RECEIPTS)))
            .bind(SWEEP_BATCH)
            .fetch_all(pool)
            .await
        })?;
        for (delivery_id, number, message_id) in late {
            let mut tx = self.begin().await?;
            if let Some(mut row) = transitions::lock(&mut tx, &delivery_id).await? {
                let attempt = Attempt {
                    number,
                    is_newest: number == row.attempts,
                };
                receipts::apply_waiting(&mut tx, &mut row, attempt, &message_id, after(now, poll_after), now).await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }
}

/// The state of a later round of the same delivery that tells the person, if there is one: a wish that came twice must
/// not be granted twice.
async fn later_round_that_tells(tx: &mut Tx, id: &str) -> Result<Option<State>, StoreError> {
    let states: Vec<String> = within!(tx, |conn| {
        sqlx::query_scalar(
            "select o.state from delivery o join delivery d on o.alert_id = d.alert_id
            and o.channel = d.channel and o.phone = d.phone and o.round > d.round
         where d.id = $1",
        )
        .bind(id)
        .fetch_all(conn)
        .await
    })?;
    Ok(states
        .iter()
        .filter_map(|word| State::parse(word))
        .find(|state| state.is_told()))
}
