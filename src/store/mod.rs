//! All SQL, and nothing else: every statement is a literal beside the function that is named as the question it
//! answers. The same text runs on SQLite and PostgreSQL (`$1`, text ids, times as UTC milliseconds bound from Rust);
//! PostgreSQL only adds row locks. Absent: any call to the outside. No transaction is open while a provider is called.
//!
//! Locks are always taken in this order, so that PostgreSQL has no deadlocks: setting, alert, daily count, delivery.

mod alarms;
mod alerts;
mod cleanup;
mod clocks;
mod contact;
mod deliveries;
mod group;
mod holds;
mod job_runs;
mod limits;
mod lists;
mod looks;
mod mails;
mod migrate;
mod moving;
mod opt_outs;
mod pace;
mod receipts;
mod reports;
mod sending;
mod session;
mod transitions;
mod tx;
mod waits;
mod writer;

pub use alerts::{Accepted, Addition, LaterRecipients, NewDelivery, Resolved};
pub use cleanup::{Ages, Batch, Old};
pub use clocks::ClampRules;
pub use deliveries::{Claimed, Resent, SweepRules};
pub use group::BegunBatch;
pub use holds::{Held, Probed, Trials};
pub use job_runs::{Asker, Run, RunState};
pub use limits::LimitStatus;
pub use lists::{AlertFilter, AlertView, DeliveryFilter, DeliveryView, Page};
pub use looks::{Look, Looker};
pub use mails::{KeptReport, Mail, Mails, report_key};
pub use moving::{PAGE, SUPERSEDED, TABLES};
pub use opt_outs::OptOut;
pub use receipts::Recorded;
pub use reports::Outcomes;
pub use sending::{Answered, BeginRules, Begun, FinishRules, Sending};
pub use session::Limits;
pub use waits::{Wait, Waits};

use crate::{domain::database_url::DatabaseUrl, supervise::Fatal};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions as _, Connection as _, SqlitePool,
    postgres::PgConnectOptions,
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};
use std::{fs::File, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

/// How long SQLite waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Enough for lists and duplicates beside the one writer; each costs a thread and a page cache.
const SQLITE_READERS: u32 = 3;
/// The open database.
#[derive(Clone)]
pub struct Db {
    engine: Engine,
    groups: Groups,
    seen: Arc<Seen>,
    waits: Waits,
    fatal: Fatal,
}

/// Which database it is, and the connections to it.
#[derive(Clone)]
enum Engine {
    /// One file: a single writing connection, and readers beside it that see what is committed.
    Sqlite {
        /// `None` where nothing is written.
        writer: Option<Arc<Writer>>,
        reader: SqlitePool,
        _lock: Option<Arc<File>>,
    },
    Postgres(Pool),
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, or refused; trying again later may succeed. Nothing was stored.
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// Our own code failed; trying again would fail again. Nothing was stored.
    #[error("this failed inside Nightbell; see the log")]
    Broken,
    /// More is asked of the database than it gets done; trying again later may succeed. Nothing was stored.
    #[error("the database cannot keep up with what is asked of it")]
    Busy,
    /// A row holds what this version cannot read.
    #[error("the database holds {what} `{value}`, which this version does not know: it was written by a newer one")]
    Unreadable { what: &'static str, value: String },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<sqlx::migrate::MigrateError> for OpenError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::VersionMissing(version) => Self::TooNew(version),
            other => Self::Migrate(other),
        }
    }
}

impl StoreError {
    /// The error with its causes on one line, for the log. Holds no values of ours.
    pub fn explain(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        causes.fold(String::new(), |text, cause| {
            let cause = cause.to_string();
            // sqlx says again what its cause says.
            if text.ends_with(&cause) {
                text
            } else if text.is_empty() {
                cause
            } else {
                format!("{text}: {cause}")
            }
        })
    }

    /// Whether two transactions were in each other's way, so that the same again at once may succeed (PostgreSQL,
    /// Appendix A: serialization_failure, deadlock_detected).
    fn is_conflict(&self) -> bool {
        let Self::Database(error) = self else {
            return false;
        };
        let sqlx::Error::Database(error) = &**error else {
            return false;
        };
        matches!(error.code().as_deref(), Some("40001" | "40P01"))
    }

    /// Whether the database as a whole is in trouble, so that the delivery at hand is not to blame.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreadable { .. } | Self::Broken => false,
            Self::Busy => true,
            Self::Database(error) => {
                let sqlx::Error::Database(error) = &**error else {
                    return true;
                };
                let code = error.code().unwrap_or_default().into_owned();
                match code.parse::<u32>().ok().filter(|_| code.len() < 5) {
                    // SQLite: busy, locked, read-only, I/O error, full, cannot open (sqlite.org/rescode.html, low byte).
                    Some(number) => matches!(number & 0xff, 5 | 6 | 8 | 10 | 13 | 14),
                    // PostgreSQL: connection, transaction state, rolled back, resources, locks, operator, system (Appendix A).
                    None => ["08", "25", "40", "53", "55", "57", "58"].contains(&&code[..2.min(code.len())]),
                }
            }
        }
    }
}

/// Why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("`database_url` has a parameter that the database does not take")]
    Address(#[source] sqlx::Error),
    #[error("another process is writing to {0}: only one `nightbell serve` may use a SQLite file at a time")]
    Locked(PathBuf),
    #[error("the lock file {path} cannot be written: check the owner and rights of its folder")]
    LockFile { path: PathBuf, source: std::io::Error },
    #[error("the database cannot be opened")]
    Connect(#[source] sqlx::Error),
    #[error("there is no database at {0} yet: `nightbell serve` makes it")]
    Absent(PathBuf),
    #[error("the database was made by another version of Nightbell: start `nightbell serve` of this one first")]
    OtherVersion,
    #[error(
        "the database belongs to a newer Nightbell (its tables have version {0}, which this one does not know): start that one, or update this"
    )]
    TooNew(i64),
    #[error("the tables cannot be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error(
        "SQLite reports journal_mode={journal} and synchronous={synchronous}, but `wal` and 2 are needed for commits to survive a power loss: is the file on a network share?"
    )]
    NotDurable { journal: String, synchronous: i64 },
}

/// Runs the same body on a connection pool of whichever database is open. For reads only: SQLite has one writer.
macro_rules! read {
    ($db:expr, |$pool:ident| $body:expr) => {
        match &$db.engine {
            $crate::store::Engine::Sqlite { reader: $pool, .. } => $body,
            $crate::store::Engine::Postgres(pool) => {
                let mut session = pool.session().await?;
                $crate::store::session::call!(session, |$pool| $body)
            }
        }
    };
}

use alerts::Seen;
use group::Groups;
pub(crate) use read;
use session::Pool;
use tx::{Connection, Tx};
pub(crate) use tx::{locking, within};
use writer::Writer;

impl Db {
    /// Opens the database and brings its tables up to date. `limits` are for PostgreSQL, where others may be in the way.
    pub async fn open(url: &DatabaseUrl, limits: Limits) -> Result<Self, OpenError> {
        match url {
            DatabaseUrl::Sqlite(url) => Self::open_sqlite(url).await,
            DatabaseUrl::Postgres(url) => Self::open_postgres(url, limits).await,
        }
    }

    /// The names of the changes that this program would make to the tables.
    pub async fn pending_migrations(url: &DatabaseUrl) -> Result<Vec<String>, OpenError> {
        let (migrator, applied) = match url {
            DatabaseUrl::Postgres(url) => {
                let mut connection = postgres_options(url)?.connect().await.map_err(OpenError::Connect)?;
                let applied = sqlx::query_scalar(APPLIED).fetch_all(&mut connection).await;
                (sqlx::migrate!("migrations/postgres"), applied_versions(applied)?)
            }
            DatabaseUrl::Sqlite(url) => {
                let options = sqlite_options(url)?.read_only(true);
                let mut applied = Vec::new();
                if options.get_filename().exists() {
                    let mut connection = options.connect().await.map_err(OpenError::Connect)?;
                    applied = applied_versions(sqlx::query_scalar(APPLIED).fetch_all(&mut connection).await)?;
                }
                (sqlx::migrate!("migrations/sqlite"), applied)
            }
        };
        if let Some(unknown) = applied.iter().find(|version| !migrator.version_exists(**version)) {
            return Err(OpenError::TooNew(*unknown));
        }
        let pending = migrator
            .iter()
            .filter(|migration| !applied.contains(&migration.version));
        Ok(pending
            .map(|migration| format!("{:04} {}", migration.version, migration.description))
            .collect())
    }

    /// Opens the database for looking only, also beside a process that writes to it.
    pub async fn open_read_only(url: &DatabaseUrl) -> Result<Self, OpenError> {
        let db = Self::open_as_it_is(url).await?;
        let newest = newest_version(&match &db.engine {
            Engine::Sqlite { .. } => sqlx::migrate!("migrations/sqlite"),
            Engine::Postgres(_) => sqlx::migrate!("migrations/postgres"),
        });
        match db.version().await {
            Ok(version) if version == newest => Ok(db),
            Ok(_) | Err(sqlx::Error::Database(_)) => Err(OpenError::OtherVersion),
            Err(error) => Err(OpenError::Connect(error)),
        }
    }

    async fn version(&self) -> Result<Option<i64>, sqlx::Error> {
        read!(self, |pool| sqlx::query_scalar(
            "select max(version) from _sqlx_migrations"
        )
        .fetch_one(pool)
        .await)
    }

    /// Like [`Db::open_read_only`], of whatever version its tables are, and for as long as a look takes.
    pub async fn open_as_it_is(url: &DatabaseUrl) -> Result<Self, OpenError> {
        let url = match url {
            DatabaseUrl::Sqlite(url) => url,
            DatabaseUrl::Postgres(url) => {
                let options = postgres_options(url)?.options([("default_transaction_read_only", "on")]);
                let pool = Pool::connect(options, Limits::COMMAND).await;
                return Ok(Self::over(Engine::Postgres(pool.map_err(OpenError::Connect)?)));
            }
        };
        let options = sqlite_options(url)?.read_only(true).busy_timeout(BUSY_TIMEOUT);
        let path = options.get_filename().to_owned();
        if !path.exists() {
            return Err(OpenError::Absent(path));
        }
        let reader = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        Ok(Self::over(Engine::Sqlite {
            writer: None,
            reader: reader.map_err(OpenError::Connect)?,
            _lock: None,
        }))
    }

    fn over(engine: Engine) -> Self {
        Self::sharing(engine, Waits::default(), Fatal::default())
    }

    fn sharing(engine: Engine, waits: Waits, fatal: Fatal) -> Self {
        let groups = Groups::over(&engine, &fatal);
        Self {
            engine,
            groups,
            seen: Arc::new(Seen::new()),
            waits,
            fatal,
        }
    }

    /// What waits for this database in this process, also by connections apart.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// Where the tasks of this database say that the process cannot go on.
    pub fn fatal(&self) -> &Fatal {
        &self.fatal
    }

    /// Keeps a SQLite file from being opened by a service for as long as the guard lives; `None` on PostgreSQL.
    pub fn lock_out_services(url: &DatabaseUrl) -> Result<Option<File>, OpenError> {
        match url {
            DatabaseUrl::Sqlite(url) => lock_file(sqlite_options(url)?.get_filename().to_owned()).map(Some),
            DatabaseUrl::Postgres(_) => Ok(None),
        }
    }

    async fn open_sqlite(url: &str) -> Result<Self, OpenError> {
        let options = sqlite_options(url)?;
        let path = options.get_filename().to_owned();
        let lock = lock_file(path)?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        // A new file can give pages back after a great clean-up; and what is deleted is overwritten, as far as that costs
        // no further writes: personal data that was taken out is not to be found in the file.
        let writing = options
            .clone()
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .pragma("secure_delete", "fast");
        let mut connection = writing.connect().await.map_err(OpenError::Connect)?;
        assert_durable(&mut connection).await?;
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await?;
        connection.close().await.map_err(OpenError::Connect)?;
        let writer = Writer::open(writing).await.map_err(OpenError::Connect)?;
        let reader = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(options.create_if_missing(false).read_only(true));
        Ok(Self::over(Engine::Sqlite {
            writer: Some(Arc::new(writer)),
            reader,
            _lock: Some(Arc::new(lock)),
        }))
    }

    async fn open_postgres(url: &SecretString, limits: Limits) -> Result<Self, OpenError> {
        let options = postgres_options(url)?;
        migrate::postgres(&options).await?;
        let pool = Pool::connect(options, limits).await.map_err(OpenError::Connect)?;
        Ok(Self::over(Engine::Postgres(pool)))
    }

    /// The same database by connections of its own, where there is more than one: who uses these does not wait for the
    /// others.
    pub fn apart(&self, limits: Limits) -> Self {
        match &self.engine {
            Engine::Sqlite { .. } => self.clone(),
            Engine::Postgres(pool) => {
                let engine = Engine::Postgres(pool.apart(limits));
                Self::sharing(engine, self.waits.clone(), self.fatal.clone())
            }
        }
    }

    /// Which engine it is, for logs.
    pub fn engine(&self) -> &'static str {
        match &self.engine {
            Engine::Sqlite { .. } => "sqlite",
            Engine::Postgres(_) => "postgresql",
        }
    }

    /// Begins a write transaction.
    async fn begin(&self) -> Result<Tx, StoreError> {
        self.engine.begin().await
    }

    /// Whether the database can be written now. Writes one row of its own.
    pub async fn check_writable(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        within!(tx, |conn| sqlx::query(
            "insert into setting (name, value, updated_at) values ('last_ready_check', '', $1)
             on conflict (name) do update set updated_at = excluded.updated_at"
        )
        .bind(ms(now))
        .execute(conn)
        .await
        .map(drop))?;
        tx.commit().await
    }

    /// Closes every connection; SQLite folds its write-ahead log into the file.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite { writer, reader, .. } => {
                reader.close().await;
                if let Some(writer) = writer {
                    writer.close().await;
                }
            }
            Engine::Postgres(pool) => pool.close().await,
        }
    }
}

fn sqlite_options(url: &str) -> Result<SqliteConnectOptions, OpenError> {
    SqliteConnectOptions::from_str(url).map_err(OpenError::Address)
}

fn postgres_options(url: &SecretString) -> Result<PgConnectOptions, OpenError> {
    let options = PgConnectOptions::from_str(url.expose_secret()).map_err(OpenError::Address)?;
    Ok(options.application_name("nightbell"))
}

/// A transaction on a file that takes longer stands before a disk that does not answer.
const SQLITE_BATCH: Duration = Duration::from_secs(30);

impl Engine {
    /// How long a transaction of several statements may take.
    fn batch_time(&self) -> Duration {
        match self {
            Self::Sqlite { .. } => SQLITE_BATCH,
            Self::Postgres(pool) => pool.limits().batch(),
        }
    }

    fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite { .. })
    }

    /// Begins a write transaction: at once the only one on SQLite, so that it never has to be refused half-way.
    async fn begin(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { writer, .. } => {
                let writer = writer.as_ref().ok_or(sqlx::Error::PoolClosed)?;
                Ok(Tx::on(Connection::Sqlite(writer.hold().await?), None))
            }
            Self::Postgres(pool) => {
                let mut session = pool.session().await?;
                session.begin().await?;
                Ok(Tx::on(Connection::Postgres(session), Some(pool.clone())))
            }
        }
    }
}

const APPLIED: &str = "select version from _sqlx_migrations where success order by version";

/// A database without that table is a new one.
fn applied_versions(result: Result<Vec<i64>, sqlx::Error>) -> Result<Vec<i64>, OpenError> {
    match result {
        Ok(versions) => Ok(versions),
        Err(sqlx::Error::Database(_)) => Ok(Vec::new()),
        Err(error) => Err(OpenError::Connect(error)),
    }
}

/// The version of the tables that this program knows.
fn newest_version(migrator: &sqlx::migrate::Migrator) -> Option<i64> {
    migrator.iter().map(|migration| migration.version).max()
}

/// Takes the lock file beside the database for as long as the process lives.
fn lock_file(database: PathBuf) -> Result<File, OpenError> {
    let mut path = database.clone().into_os_string();
    path.push(".lock");
    let path = PathBuf::from(path);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| OpenError::LockFile {
            path: path.clone(),
            source,
        })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked(database)),
        Err(std::fs::TryLockError::Error(source)) => Err(OpenError::LockFile { path, source }),
    }
}

/// `202` promises that a power loss loses nothing. On SQLite that rests on these two settings.
async fn assert_durable(writer: &mut SqliteConnection) -> Result<(), OpenError> {
    let journal: String = sqlx::query_scalar("pragma journal_mode")
        .fetch_one(&mut *writer)
        .await
        .map_err(OpenError::Connect)?;
    let synchronous: i64 = sqlx::query_scalar("pragma synchronous")
        .fetch_one(writer)
        .await
        .map_err(OpenError::Connect)?;
    if journal == "wal" && synchronous == 2 {
        Ok(())
    } else {
        Err(OpenError::NotDurable { journal, synchronous })
    }
}

/// A time as the database keeps it.
fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// A time from the database; one beyond the calendar becomes its end.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// A new id: sorts by the time it was made.
fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
