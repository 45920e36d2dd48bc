//! Deliveries as work: claiming the next one, and the sweep that gives every delivery its way out by time. Absent:
//! the send itself (see `sending`).

use super::{
    Connection, Db, StoreError, ms, read,
    transitions::{self, Landing},
    within,
};
use crate::domain::{
    day::after,
    delivery::{Change, ProviderName, Reason, State},
};
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

/// Times by which the sweep decides.
#[derive(Clone, Copy, Debug)]
pub struct SweepRules {
    pub expire_after: SignedDuration,
}

/// How many deliveries one sweep transaction moves at most, so that it never holds up the writer for long.
const SWEEP_BATCH: i64 = 50;

impl Db {
    /// Claims the delivery that has been due for longest, unless the account is held. The lease runs to `now + lease`;
    /// its token is new and begins with `owner`, so that a process can give back all of its own.
    pub async fn claim(
        &self,
        owner: &str,
        provider: ProviderName,
        account: &str,
        lease: SignedDuration,
        now: Timestamp,
    ) -> Result<Option<Claimed>, StoreError> {
        let token = format!("{owner}/{}", uuid::Uuid::now_v7().simple());
        let mut tx = self.begin().await?;
        // The one statement whose texts differ inside: PostgreSQL passes over rows that another replica is claiming.
        let claimed: Option<(String, i64)> = match &mut tx.connection {
            Connection::Sqlite(conn) => {
                sqlx::query_as(
                    "update delivery set lease_token = $1, lease_until = $2, claims = claims + 1 where id = (
                         select id from delivery where state = 'pending' and due_at <= $3 and (lease_until is null or lease_until <= $3)
                             and not exists (select 1 from provider_hold where provider = $4 and account = $5)
                         order by due_at, id limit 1)
                     returning id, claims",
                )
                .bind(&token)
                .bind(ms(after(now, lease)))
                .bind(ms(now))
                .bind(provider.as_str())
                .bind(account)
                .fetch_optional(&mut **conn)
                .await?
            }
            Connection::Postgres(conn) => {
                sqlx::query_as(
                    "update delivery set lease_token = $1, lease_until = $2, claims = claims + 1 where id = (
                         select id from delivery where state = 'pending' and due_at <= $3 and (lease_until is null or lease_until <= $3)
                             and not exists (select 1 from provider_hold where provider = $4 and account = $5)
                         order by due_at, id limit 1 for update skip locked)
                     returning id, claims",
                )
                .bind(&token)
                .bind(ms(after(now, lease)))
                .bind(ms(now))
                .bind(provider.as_str())
                .bind(account)
                .fetch_optional(&mut **conn)
                .await?
            }
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
    pub async fn next_due_at(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = read!(self, |pool| {
            sqlx::query_scalar(
            "select due_at from delivery where state = 'pending' and due_at is not null and (lease_until is null or lease_until <= $1) order by due_at limit 1"
        )
        .bind(ms(now))
        .fetch_optional(pool)
        .await
        })?;
        Ok(due.map(super::at))
    }

    /// Gives every claim of `owner` back that did not begin to send, so that nobody waits for their leases to end.
    pub async fn give_back_all(&self, owner: &str) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let given_back = within!(tx, |conn| {
            sqlx::query(
            "update delivery set lease_token = null, lease_until = null, claims = claims - 1
             where lease_until is not null and state = 'pending' and substr(lease_token, 1, length($1)) = $1"
        )
        .bind(owner)
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
        match self {
            Self::Sqlite { .. } => self.give_back_all("").await,
            Self::Postgres(_) => Ok(0),
        }
    }

    /// Gives one claim back that did not begin to send; it stays counted, so that a bad row cannot come back for ever.
    pub async fn give_back(&self, claim: &Claimed) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        within!(tx, |conn| {
            sqlx::query("update delivery set lease_token = null, lease_until = null where id = $1 and lease_token = $2 and state = 'pending'")
            .bind(&claim.delivery_id)
            .bind(&claim.token)
            .execute(conn)
            .await
            .map(drop)
        })?;
        tx.commit().await
    }

    /// Takes a delivery out of the line whose handling keeps failing. Returns whether it was still there.
    pub async fn set_aside(
        &self,
        claim: &Claimed,
        detail: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
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
            sqlx::query_scalar("select id from delivery where lease_until <= $1 and state = 'sending' order by lease_until limit $2")
                .bind(ms(now))
                .bind(SWEEP_BATCH)
                .fetch_all(pool)
                .await
        })?;
        let old: Vec<String> = read!(self, |pool| {
            sqlx::query_scalar(
            "select id from delivery where state in ('pending', 'deferred') and received_at < $1 and (lease_until is null or lease_until <= $2)
             order by received_at, id limit $3"
        )
        .bind(ms(cutoff))
        .bind(ms(now))
        .bind(SWEEP_BATCH)
        .fetch_all(pool)
        .await
        })?;
        if lost.is_empty() && old.is_empty() {
            return Ok(0);
        }

        let mut tx = self.begin().await?;
        let mut moved = 0;
        for id in lost {
            let Some(mut row) = transitions::lock(&mut tx, &id).await? else {
                continue;
            };
            if row.state()? != State::Sending {
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
}
