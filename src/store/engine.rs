//! Which database it is, the connections to it, and how a transaction begins. Absent: opening it (see `open`).

use super::{
    error::StoreError,
    query::{FromEither, Query, bind},
    session::{Pool, call},
    single::Single,
    sql::{Argument, Sql},
    tx::{Connection, Effects, Tx},
};
use sqlx::{Postgres, Sqlite, SqlitePool};
use std::{fs::File, sync::Arc, time::Duration};

/// A transaction on a file that takes longer stands before a disk that does not answer.
const SQLITE_BATCH: Duration = Duration::from_secs(30);

/// The open database.
#[derive(Clone)]
pub struct Engine {
    pub kind: Kind,
    pub effects: Effects,
}

#[derive(Clone)]
pub enum Kind {
    /// One file: a connection that writes, one that looks up repeats, and readers, which all see what is committed.
    Sqlite {
        /// `None` where nothing is written.
        writer: Option<Arc<Single>>,
        repeats: Arc<Single>,
        reader: SqlitePool,
        _lock: Option<Arc<File>>,
    },
    Postgres(Pool),
}

impl Engine {
    /// How long a transaction of several statements may take.
    pub fn batch_time(&self) -> Duration {
        match &self.kind {
            Kind::Sqlite { .. } => SQLITE_BATCH,
            Kind::Postgres(pool) => pool.limits().batch(),
        }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.kind, Kind::Sqlite { .. })
    }

    /// Begins a write transaction: at once the only one on SQLite, so that it never has to be refused half-way.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let connection = match &self.kind {
            Kind::Sqlite { writer, .. } => {
                let writer = writer.as_ref().ok_or(sqlx::Error::PoolClosed)?;
                Connection::Sqlite(writer.hold().await?)
            }
            Kind::Postgres(pool) => {
                let mut session = pool.session().await?;
                session.begin().await?;
                Connection::Postgres(session)
            }
        };
        Ok(Tx::on(connection, self.effects.clone()))
    }

    /// Closes every connection; SQLite folds its write-ahead log into the file.
    pub async fn close(&self) {
        match &self.kind {
            Kind::Sqlite {
                writer,
                repeats,
                reader,
                ..
            } => {
                reader.close().await;
                repeats.close().await;
                if let Some(writer) = writer {
                    writer.close().await;
                }
            }
            Kind::Postgres(pool) => pool.close().await,
        }
    }
}

/// Asks beside all transactions: what is committed.
pub struct Reads<'a>(pub &'a Engine);

impl Query for Reads<'_> {
    async fn all<T: FromEither>(
        &mut self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<Vec<T>, StoreError> {
        match &self.0.kind {
            Kind::Sqlite { reader, .. } => {
                let query = bind!(sqlx::query_as::<Sqlite, T>(sql.sqlite), arguments);
                Ok(query.fetch_all(reader).await?)
            }
            Kind::Postgres(pool) => {
                let mut session = pool.session().await?;
                let query = bind!(sqlx::query_as::<Postgres, T>(sql.postgres), arguments);
                Ok(call!(session, |conn| query.fetch_all(conn).await)?)
            }
        }
    }
}

/// Asks as [`Reads`] does, over a connection that is kept for what is asked often.
pub struct Repeats<'a>(pub &'a Engine);

impl Query for Repeats<'_> {
    async fn all<T: FromEither>(
        &mut self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<Vec<T>, StoreError> {
        match &self.0.kind {
            Kind::Sqlite { repeats, .. } => {
                let query = bind!(sqlx::query_as::<Sqlite, T>(sql.sqlite), arguments);
                let mut held = repeats.hold().await?;
                // Until it has answered it is in doubt: then whoever holds it next connects anew.
                held.is_open = true;
                let rows = query.fetch_all(held.get()?).await?;
                held.is_open = false;
                Ok(rows)
            }
            Kind::Postgres(_) => Reads(self.0).all(sql, arguments).await,
        }
    }
}

/// Runs the same body on a connection pool of whichever database is open. For reads only: SQLite has one writer.
macro_rules! read {
    ($db:expr, |$pool:ident| $body:expr) => {
        match &$db.engine.kind {
            $crate::store::engine::Kind::Sqlite { reader: $pool, .. } => $body,
            $crate::store::engine::Kind::Postgres(pool) => {
                let mut session = pool.session().await?;
                $crate::store::session::call!(session, |$pool| $body)
            }
        }
    };
}
pub(crate) use read;
