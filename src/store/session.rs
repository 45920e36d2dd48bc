//! Connections to PostgreSQL, each lent for one use. No wait here is without an end: the server cuts a statement after
//! its time, and if the server itself does not answer (a network that loses what is sent, a machine that is gone), our side
//! gives up a moment later. A connection that was given up, or dropped in mid-call, is closed and never lent again: what
//! comes over it next would belong to somebody else's question. Absent: SQLite (see `single`), and what is asked.

use sqlx::{
    PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::time::Duration;
use tokio::time::{error::Elapsed, timeout};

/// To get a connection: a new one, or one that is free and proves alive.
const ACQUIRE: Duration = Duration::from_secs(5);
/// For what a connection is asked when it comes back (a rollback, a sign of life).
const GIVE_BACK: Duration = Duration::from_secs(5);
/// To close the connections when the process ends.
const CLOSE: Duration = Duration::from_secs(1);
/// What our side waits longer than the server, so that a slow statement is distinguished from a server that does not answer.
const BEYOND_SERVER: Duration = Duration::from_secs(1);

/// What one part of the process may take of the server: intake, receipts and the admin API are one, the worker is another,
/// so that neither starves the other.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    connections: u32,
    lock: Duration,
    statement: Duration,
}

impl Limits {
    /// For what must be quick: an answer must be there within 10 seconds, and an alert must be on its way.
    pub const QUICK: Self = Self::of(8, 7, 8);
    /// For reports and clean-up, which read much and can wait.
    pub const PATIENT: Self = Self::of(3, 7, 30);
    /// For a command that a person watches and can interrupt.
    pub const COMMAND: Self = Self::of(2, 60, 3_600);

    const fn of(connections: u32, lock_s: u64, statement_s: u64) -> Self {
        Self {
            connections,
            lock: Duration::from_secs(lock_s),
            statement: Duration::from_secs(statement_s),
        }
    }

    /// What the server is to end by itself: a lock that somebody else keeps, a statement that runs away, a transaction whose
    /// process is frozen (that one is cut before others give up waiting for its locks), a client that is gone without closing.
    fn settings(self) -> [(&'static str, String); 6] {
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        [
            ("lock_timeout", ms(self.lock)),
            ("statement_timeout", ms(self.statement)),
            ("idle_in_transaction_session_timeout", "4s".into()),
            ("tcp_keepalives_idle", "10".into()),
            ("tcp_keepalives_interval", "5".into()),
            ("tcp_user_timeout", "20s".into()),
        ]
    }

    /// How long our side waits for one answer of the server.
    pub fn call(self) -> Duration {
        self.statement + BEYOND_SERVER
    }

    /// How long a transaction of many statements may take, each of which has its own time.
    pub fn batch(self) -> Duration {
        self.call() * 2
    }
}

/// Runs one call on a session, at most for the time that its limits allow.
macro_rules! call {
    ($session:expr, |$conn:ident| $body:expr) => {{
        let limit = $session.call_time();
        let $conn = $session.begin_call()?;
        let outcome = tokio::time::timeout(limit, async { $body }).await;
        $session.end_call(outcome)
    }};
}
pub(super) use call;

/// Connections to one PostgreSQL.
#[derive(Clone)]
pub struct Pool {
    pool: PgPool,
    limits: Limits,
}

impl Pool {
    /// Connects once, to see that it can be done.
    pub async fn connect(options: PgConnectOptions, limits: Limits) -> Result<Self, sqlx::Error> {
        let pool = Self::lazy(options, limits);
        drop(pool.session().await?);
        Ok(pool)
    }

    fn lazy(options: PgConnectOptions, limits: Limits) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(limits.connections)
            .acquire_timeout(ACQUIRE)
            .connect_lazy_with(options.options(limits.settings()));
        Self { pool, limits }
    }

    /// Connections of its own to the same database.
    pub fn apart(&self, limits: Limits) -> Self {
        Self::lazy(self.pool.connect_options().as_ref().clone(), limits)
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Waits for a connection.
    pub async fn session(&self) -> Result<Session, sqlx::Error> {
        Ok(Session {
            connection: Some(self.pool.acquire().await?),
            pool: self.clone(),
            is_in_call: false,
            has_transaction: false,
        })
    }

    /// For `PgListener`, which keeps a connection for itself: a pool of one.
    pub fn for_listener(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE)
            .connect_lazy_with(self.pool.connect_options().as_ref().clone())
    }

    /// A connection that does not answer is rarely alone: those that lie idle are given up too, so that nobody has to find out
    /// about each of them.
    fn give_up_idle(&self) {
        while let Some(connection) = self.pool.try_acquire() {
            drop(connection.detach());
        }
    }

    /// Closes every connection, whether or not the server answers.
    pub async fn close(&self) {
        if timeout(CLOSE, self.pool.close()).await.is_err() {
            tracing::warn!("the database did not answer while its connections were closed");
        }
    }
}

/// A connection, for one use.
pub struct Session {
    /// `None` once it was given up.
    connection: Option<PoolConnection<Postgres>>,
    pool: Pool,
    /// Whether a question was sent whose answer has not been read to its end.
    is_in_call: bool,
    has_transaction: bool,
}

impl Session {
    /// How long to wait for one answer.
    pub fn call_time(&self) -> Duration {
        self.pool.limits.call()
    }

    /// The connection, for one call. What came of the call goes to `end_call`; a call that is dropped instead costs the
    /// connection.
    pub fn begin_call(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        self.is_in_call = true;
        Ok(connection)
    }

    /// Notes what came of a call.
    pub fn end_call<T>(&mut self, outcome: Result<Result<T, sqlx::Error>, Elapsed>) -> Result<T, sqlx::Error> {
        match outcome {
            Ok(result) => {
                self.is_in_call = result.as_ref().is_err_and(breaks_connection);
                result
            }
            Err(Elapsed { .. }) => {
                self.give_up();
                self.pool.give_up_idle();
                tracing::warn!(
                    after_s = self.call_time().as_secs(),
                    "the database does not answer; its connections are made anew"
                );
                Err(no_answer())
            }
        }
    }

    /// One statement without arguments or rows.
    async fn order(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        let limit = self.call_time();
        let connection = self.begin_call()?;
        let outcome = timeout(limit, sqlx::raw_sql(sql).execute(connection)).await;
        self.end_call(outcome).map(drop)
    }

    pub async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.order("begin").await?;
        self.has_transaction = true;
        Ok(())
    }

    /// An error leaves open whether it was committed.
    pub async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.order("commit").await?;
        self.has_transaction = false;
        Ok(())
    }

    /// Drops the connection as it is. The server rolls back once it notices.
    fn give_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_in_call {
            return self.give_up();
        }
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return drop(connection.detach());
        };
        let has_transaction = self.has_transaction;
        // By itself the pool would wait for a sign of life without an end, and the connection's place would be lost.
        runtime.spawn(async move {
            if has_transaction {
                let rollback = sqlx::raw_sql("rollback").execute(&mut *connection);
                if !matches!(timeout(GIVE_BACK, rollback).await, Ok(Ok(_))) {
                    return drop(connection.detach());
                }
            }
            let _ = timeout(GIVE_BACK, connection.return_to_pool()).await;
        });
    }
}

/// The error of a wait that was given up.
pub fn no_answer() -> sqlx::Error {
    let kind = std::io::ErrorKind::TimedOut;
    sqlx::Error::Io(std::io::Error::new(kind, "the database did not answer in time"))
}

/// Whether nobody can say what comes over the connection next. An error that the server itself sent ends its answer.
fn breaks_connection(error: &sqlx::Error) -> bool {
    !matches!(
        error,
        sqlx::Error::Database(_)
            | sqlx::Error::RowNotFound
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_)
    )
}
