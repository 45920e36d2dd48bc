//! Claims: the right to begin one delivery alone, where it cannot be begun together with others. Each is counted, so that
//! none can be claimed for ever.

use super::{
    answer::internal_error,
    delivery::{self, Delivery},
};
use crate::{
    domain::{
        day::after,
        delivery::Change,
        route::{Channel, Route},
    },
    store::{
        Db,
        error::StoreError,
        jobs::Claimed,
        query::Query,
        sql::{Sql, args, sql},
        types::{at, ms},
    },
};
use jiff::{SignedDuration, Timestamp};

impl Db {
    /// Claims the delivery that has been due for longest, unless the route is held and no try is due. The lease runs to
    /// `now + lease`; its token is new and begins with `owner`, so that a process can give back all of its own.
    pub async fn claim(
        &self,
        owner: &str,
        route: &Route,
        lease: SignedDuration,
        now: Timestamp,
    ) -> Result<Option<Claimed>, StoreError> {
        const CLAIM: Sql = sql!(
            "update delivery set lease_token = $1, lease_until = $2, claims = claims + 1, updated_at = $3 where id = (
                 select id from delivery
                 where state = 'pending' and channel = $4 and due_at <= $3 and (lease_until is null or lease_until <= $3)
                     and not exists (select 1 from route_hold where route = $5 and (trial_at is null or trial_at > $3)
                        and not exists (select 1 from setting where name = 'test_mode'))
                 order by due_at, id limit 1 for update skip locked)
             returning id, claims"
        );
        let token = format!("{owner}/{}", uuid::Uuid::now_v7().simple());
        let mut tx = self.begin().await?;
        let arguments = args![
            &token,
            ms(after(now, lease)),
            ms(now),
            route.channel.as_str(),
            route.key()
        ];
        let claimed: Option<(String, i64)> = tx.optional(CLAIM, arguments).await?;
        let Some((id, claims)) = claimed else {
            return Ok(None);
        };
        tx.commit().await?;
        Ok(Some(Claimed {
            delivery_id: id.into(),
            token,
            claims,
        }))
    }

    /// When the next delivery of a channel will be due that is not leased now; `None` if none waits.
    pub async fn next_due_at(&self, channel: Channel, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        const NEXT: Sql = sql!(
            "select due_at from delivery where state = 'pending' and channel = $2 and due_at is not null
                and (lease_until is null or lease_until <= $1) order by due_at limit 1"
        );
        let due = self
            .reads()
            .optional_scalar(NEXT, args![ms(now), channel.as_str()])
            .await?;
        Ok(due.map(at))
    }

    /// Gives every claim of `owner` back that did not begin to send, so that nobody waits for their leases to end.
    pub async fn give_back_all(&self, owner: &str) -> Result<u64, StoreError> {
        self.give_back_runs(owner).await?;
        self.end_leases(owner, true).await
    }

    /// Gives back the claims of processes that are gone, where that is certain: who opens a SQLite file has it alone.
    /// Elsewhere their leases end by themselves. What had begun to send keeps its lease: the call may still arrive.
    pub async fn give_back_claims_of_the_dead(&self) -> Result<u64, StoreError> {
        if !self.engine.is_sqlite() {
            return Ok(0);
        }
        self.give_back_runs("").await?;
        self.give_back_turns().await?;
        self.give_back_endpoints().await?;
        self.end_leases("", false).await
    }

    /// Ends the leases of `owner` but those of calls under way. Claims that are not `excused` stay counted, so that a row
    /// that ends the process cannot do so for ever.
    async fn end_leases(&self, owner: &str, excused: bool) -> Result<u64, StoreError> {
        const END: Sql = sql!(
            "update delivery set lease_token = null, lease_until = null,
                claims = case when state = 'pending' then claims - $2 else claims end
             where lease_until is not null and state <> 'sending' and substr(lease_token, 1, length($1)) = $1"
        );
        self.execute(END, args![owner, i64::from(excused)]).await
    }

    /// Gives one claim back that did not begin to send. Unless it is `excused`, it stays counted, so that a bad row
    /// cannot come back for ever.
    pub async fn give_back(&self, claim: &Claimed, excused: bool) -> Result<(), StoreError> {
        const GIVE_BACK: Sql = sql!(
            "update delivery set lease_token = null, lease_until = null, claims = claims - $3
             where id = $1 and lease_token = $2 and state = 'pending'"
        );
        let arguments = args![&claim.delivery_id, &claim.token, i64::from(excused)];
        self.execute(GIVE_BACK, arguments).await.map(drop)
    }

    /// Sets a claimed delivery aside whose handling keeps failing. Returns whether it was still there.
    pub async fn set_aside(&self, claim: &Claimed, detail: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let mut locked = delivery::lock(&mut tx, std::slice::from_ref(&claim.delivery_id)).await?;
        let mut moved = false;
        let ours = |delivery: &&mut Delivery| delivery.lease_token.as_deref() == Some(&claim.token);
        for delivery in locked.iter_mut().filter(ours) {
            moved = delivery.apply(Change::SetAside, internal_error(detail), now).is_some();
        }
        delivery::save(&mut tx, &mut locked).await?;
        tx.commit().await?;
        Ok(moved)
    }
}
