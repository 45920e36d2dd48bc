//! Brings the tables of a PostgreSQL up to date while replicas of the version before go on working: whoever comes first
//! does it, the others wait, and an index on a big table is built beside the writes (`create index concurrently`, in a
//! file of its own that begins with `-- no-transaction`). A file changes one table that is there already: one that locks
//! several could stand across a transaction of that version. Absent: the changes themselves (see migrations/).

use super::{
    error::{OpenError, is_locked_out},
    session::no_answer,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, migrate::Migrator, postgres::PgConnectOptions,
};
use std::time::Duration;
use tokio::time::timeout;

/// The number of our lock among the database's advisory locks: "nightbel" in ASCII.
const LOCK: i64 = 0x6e69_6768_7462_656c;
const CONNECT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// For as long as a change takes, so without the limits of ordinary work; but a lock on a table is waited for in short
/// pieces, since everybody else queues behind us meanwhile.
const LIMITS: [(&str, &str); 2] = [("lock_timeout", "1s"), ("statement_timeout", "0")];
/// How often a change is tried again whose table others held.
const TRIES: u32 = 120;

/// Applies what is missing.
pub async fn postgres(options: &PgConnectOptions) -> Result<(), OpenError> {
    let connecting = options.clone().options(LIMITS);
    let mut connection = timeout(CONNECT, connecting.connect())
        .await
        .map_err(|_| OpenError::Connect(sqlx::Error::PoolTimedOut))?
        .map_err(OpenError::Connect)?;
    let mut migrator = sqlx::migrate!("migrations/postgres");
    take_lock(&mut connection).await.map_err(OpenError::Connect)?;
    // sqlx waits for its lock within a statement, and `create index concurrently` waits for every statement to end.
    migrator.set_locking(false);
    let mut tries = 0;
    loop {
        drop_broken_indexes(&mut connection, &migrator)
            .await
            .map_err(OpenError::Connect)?;
        match migrator.run_direct(None, &mut connection, false).await {
            Ok(()) => break,
            Err(error) if tries < TRIES && is_locked_out(&error) => {
                tries += 1;
                tracing::info!("a table is in use; its change is tried again");
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // The lock goes with the connection.
    connection.close().await.map_err(OpenError::Connect)
}

/// Waits until no other process changes the tables.
async fn take_lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut said = false;
    loop {
        let asking = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut *connection);
        let is_ours: bool = timeout(CONNECT, asking).await.map_err(|_| no_answer())??;
        if is_ours {
            return Ok(());
        }
        if !said {
            tracing::info!("another process brings the tables up to date; waiting for it");
            said = true;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// An index of ours whose building was cut off stays behind, unused and in the way of a second try.
async fn drop_broken_indexes(connection: &mut PgConnection, migrator: &Migrator) -> Result<(), sqlx::Error> {
    let asking = sqlx::query_scalar(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
            join pg_namespace n on n.oid = c.relnamespace
         where not i.indisvalid and n.nspname = current_schema()",
    )
    .fetch_all(&mut *connection);
    let broken: Vec<String> = timeout(CONNECT, asking).await.map_err(|_| no_answer())??;
    let is_ours = |name: &String| {
        let ours = format!("concurrently if not exists {name} on ");
        migrator.iter().any(|migration| migration.sql.as_str().contains(&ours))
    };
    for name in broken.into_iter().filter(is_ours) {
        let sql = format!("drop index concurrently if exists {name}");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    Ok(())
}
