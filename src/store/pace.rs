//! What replicas on one PostgreSQL share beside the rows themselves: the pace of sends, and the notification of every
//! process when a delivery is due. SQLite has one process and needs neither. Absent: waiting (see `worker::pace`).

use super::{
    Db,
    engine::Kind,
    error::StoreError,
    session::{call, no_answer},
    tx::DUE_CHANNEL,
};
use crate::domain::route::Route;
use sqlx::postgres::PgListener;
use std::time::Duration;
use tokio::time::timeout;

/// No queue of replicas reaches further ahead than this, or a hundred turns. A row that does was written by a clock that
/// has gone back since, and nobody waits for it.
const FARTHEST_MS: i64 = 60_000;
/// A connection on which nothing was said for this long is asked whether it lives.
const QUIET: Duration = Duration::from_secs(15);

impl Db {
    /// Whether other processes may send through the same account.
    pub fn is_shared(&self) -> bool {
        !self.engine.is_sqlite()
    }

    /// Takes the next turns of a sender, `span` long in all. Returns how long to wait until the first: nothing on SQLite.
    /// By the server's clock, the only one that all replicas have in common.
    pub async fn take_turn(&self, route: &Route, span: Duration) -> Result<Duration, StoreError> {
        let Kind::Postgres(pool) = &self.engine.kind else {
            return Ok(Duration::ZERO);
        };
        let span_ms = i64::try_from(span.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX);
        let mut session = pool.session().await?;
        let wait_ms: i64 = call!(session, |conn| sqlx::query_scalar(
            "insert into route_pace as p (route, next_at)
             values ($1, cast(extract(epoch from clock_timestamp()) * 1000 as bigint) + $2)
             on conflict (route) do update
                set next_at = case
                    when p.next_at > cast(extract(epoch from clock_timestamp()) * 1000 as bigint) + $3
                    then cast(extract(epoch from clock_timestamp()) * 1000 as bigint)
                    else greatest(p.next_at, cast(extract(epoch from clock_timestamp()) * 1000 as bigint)) end + $2
             returning next_at - $2 - cast(extract(epoch from clock_timestamp()) * 1000 as bigint)",
        )
        .bind(route.key())
        .bind(span_ms)
        .bind(span_ms.saturating_mul(100).max(FARTHEST_MS))
        .fetch_one(conn)
        .await)?;
        Ok(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)))
    }

    /// Wakes the workers of this process whenever any process said that a delivery is due, for as long as it is polled; ends
    /// with an error when the connection is lost. What was said meanwhile is found by the worker, which asks every second.
    pub async fn listen(&self) -> Result<(), StoreError> {
        let Kind::Postgres(pool) = &self.engine.kind else {
            return std::future::pending().await;
        };
        let limit = pool.limits().call();
        // A connection of its own: a listener gives back what it has only after a sign of life, which may never come.
        let own = pool.for_listener();
        let mut listener = timeout(limit, PgListener::connect_with(&own))
            .await
            .map_err(|_| no_answer())??;
        let heard = self.hear(&mut listener, limit).await;
        // Closed before the listener goes, so that nobody asks it for that sign.
        drop(own.close());
        Ok(heard?)
    }

    /// Wakes for as long as the connection lives; ends with what became of it.
    async fn hear(&self, listener: &mut PgListener, limit: Duration) -> Result<(), sqlx::Error> {
        let given_up = |_| no_answer();
        listener.eager_reconnect(false);
        timeout(limit, listener.listen(DUE_CHANNEL)).await.map_err(given_up)??;
        loop {
            match timeout(QUIET, listener.try_recv()).await {
                Ok(notification) => match notification? {
                    Some(_) => self.engine.effects.wake.send_replace(()),
                    // The connection was lost, and what was said meanwhile with it.
                    None => return Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())),
                },
                // Nobody said anything. A connection that is gone says nothing either, so it is asked.
                Err(_) => {
                    let asking = sqlx::query("select 1").execute(&mut *listener);
                    timeout(limit, asking).await.map_err(given_up)??;
                }
            }
        }
    }
}
