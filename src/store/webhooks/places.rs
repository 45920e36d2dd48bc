//! Gives lifecycle events their places. `seq` is given before the commit, so on PostgreSQL a lower one may become visible after
//! a higher one, and whoever has read up to there would miss it. Places are given to what is committed, by one transaction
//! after the other: from then on there are no gaps. Of two events of which one brought about the other, it has the lower
//! place: it was committed before the other was written.

use super::super::{
    db::Db,
    error::StoreError,
    query::Query,
    sql::{args, sql},
    tx::Tx,
    types::ms,
};
use jiff::Timestamp;

/// So many at once: a transaction of a few milliseconds.
const MOST: i64 = 2_000;

impl Db {
    /// Gives every event that is committed its place.
    pub async fn place_events(&self) -> Result<(), StoreError> {
        loop {
            let unplaced = sql!("select 1 from lifecycle_event where place is null limit 1");
            if !self.reads().exists(unplaced, args![]).await? {
                return Ok(());
            }
            let mut tx = self.begin().await?;
            let placed = place(&mut tx).await?;
            tx.commit().await?;
            if placed < MOST {
                return Ok(());
            }
        }
    }

    /// Forgets what endpoints have not heard of and clean-up has deleted. Returns their names, each with how many events these
    /// were, wanted or not. One of them that is not `configured` any more is forgotten itself: added again it is new, and does
    /// not hear of a past of which a part is missing.
    pub async fn forget_deleted_events(
        &self,
        configured: &[String],
        now: Timestamp,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let mut tx = self.begin().await?;
        // What is kept begins here.
        let first: Option<i64> = tx
            .optional_scalar(
                sql!(
                    "select coalesce((select min(place) from lifecycle_event where place > 0), last + 1)
                     from lifecycle_place where id = 1"
                ),
                args![],
            )
            .await?;
        let Some(first) = first else { return Ok(Vec::new()) };
        let lost: Vec<(String, i64)> = tx
            .all(
                sql!(
                    "select w.name, (case when w.place < $1 - 1 then $1 - 1 - w.place else 0 end)
                        + (select count(*) from webhook_hold h where h.endpoint = w.name and h.place < $1)
                     from webhook_endpoint w order by w.name"
                ),
                args![first],
            )
            .await?;
        let lost: Vec<(String, i64)> = lost.into_iter().filter(|(_, events)| *events > 0).collect();
        for (name, _) in lost.iter().filter(|(name, _)| !configured.contains(name)) {
            for of_it in [
                sql!("delete from webhook_endpoint where name = $1"),
                sql!("delete from webhook_hold where endpoint = $1"),
                sql!("delete from webhook_try where endpoint = $1"),
            ] {
                tx.execute(of_it, args![name]).await?;
            }
        }
        tx.execute(
            sql!("update webhook_endpoint set place = $1 - 1 where place < $1 - 1"),
            args![first],
        )
        .await?;
        tx.execute(sql!("delete from webhook_hold where place < $1"), args![first])
            .await?;
        // Behind nothing any more.
        tx.execute(
            sql!(
                "update webhook_hold set due_at = $1 where due_at is null and not exists (select 1 from webhook_hold b
                    where b.endpoint = webhook_hold.endpoint and b.stream = webhook_hold.stream
                        and b.place < webhook_hold.place)"
            ),
            args![ms(now)],
        )
        .await?;
        tx.commit().await?;
        Ok(lost)
    }

    /// Makes an endpoint of every name that is not known yet: it hears of what happens from now on.
    pub async fn register_endpoints(
        &self,
        names: impl IntoIterator<Item = &str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.place_events().await?;
        for name in names {
            self.execute(
                sql!(
                    "insert into webhook_endpoint (name, place, tries, tried, created_at)
                     values ($1, coalesce((select last from lifecycle_place where id = 1), 0), 0, 0, $2)
                     on conflict (name) do nothing"
                ),
                args![name, ms(now)],
            )
            .await?;
        }
        Ok(())
    }
}

async fn place(tx: &mut Tx) -> Result<i64, StoreError> {
    // Made at the first time, and locked: what the next statement sees has been left without a place by everybody.
    let last: i64 = tx
        .scalar(
            sql!(
                "insert into lifecycle_place (id, last) values (1, 0)
                 on conflict (id) do update set last = lifecycle_place.last returning last"
            ),
            args![],
        )
        .await?;
    let placed = tx
        .execute(
            sql!(
                "update lifecycle_event set place = $1 + u.number
                 from (select seq, row_number() over (order by seq) as number from
                    (select seq from lifecycle_event where place is null order by seq limit $2) as oldest) as u
                 where lifecycle_event.seq = u.seq"
            ),
            args![last, MOST],
        )
        .await?;
    let placed = i64::try_from(placed).unwrap_or(i64::MAX);
    tx.execute(
        sql!("update lifecycle_place set last = $1 where id = 1"),
        args![last + placed],
    )
    .await?;
    Ok(placed)
}
