//! Opening the database: its settings, its lock, its tables brought up to date, and the batchers that write to it.

use super::{
    db::Db,
    duplicates::Seen,
    engine::{Engine, Kind},
    error::{OpenError, StoreError},
    just_opted_out::JustOptedOut,
    ledger,
    lifecycle::Listeners,
    migrate,
    query::Query,
    session::{Limits, Pool},
    single::{BUSY_TIMEOUT, Single},
    sql::{args, sql},
    tx::Effects,
    waits::Waits,
    writes,
};
use crate::{
    domain::{database_url::DatabaseUrl, id::AlertId},
    supervise::Fatal,
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions as _, Connection as _,
    postgres::PgConnectOptions,
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};
use std::{fs::File, path::PathBuf, str::FromStr, sync::Arc};
use tokio::sync::{mpsc, watch};

/// Enough for lists beside the one writer; each costs a thread and a page cache.
const SQLITE_READERS: u32 = 2;

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

    /// Opens the database for reading only, also beside a process that writes to it.
    pub async fn open_read_only(url: &DatabaseUrl) -> Result<Self, OpenError> {
        let db = Self::open_as_it_is(url).await?;
        let migrator = match &db.engine.kind {
            Kind::Sqlite { .. } => sqlx::migrate!("migrations/sqlite"),
            Kind::Postgres(_) => sqlx::migrate!("migrations/postgres"),
        };
        let newest = migrator.iter().map(|migration| migration.version).max();
        let version: Result<Option<i64>, StoreError> = db
            .reads()
            .scalar(sql!("select max(version) from _sqlx_migrations"), args![])
            .await;
        match version {
            Ok(version) if version == newest => Ok(db),
            Ok(_) => Err(OpenError::OtherVersion),
            Err(error) if error.is_refusal() => Err(OpenError::OtherVersion),
            Err(error) => Err(OpenError::Read(error)),
        }
    }

    /// Like [`Db::open_read_only`], of whatever version its tables are, and for as long as one reading takes.
    pub async fn open_as_it_is(url: &DatabaseUrl) -> Result<Self, OpenError> {
        Ok(Self::over(match url {
            DatabaseUrl::Postgres(url) => {
                let options = postgres_options(url)?.options([("default_transaction_read_only", "on")]);
                let pool = Pool::connect(options, Limits::COMMAND).await;
                Kind::Postgres(pool.map_err(OpenError::Connect)?)
            }
            DatabaseUrl::Sqlite(url) => {
                let options = sqlite_options(url)?.read_only(true).busy_timeout(BUSY_TIMEOUT);
                if !options.get_filename().exists() {
                    return Err(OpenError::Absent(options.get_filename().to_owned()));
                }
                let repeats = Arc::new(Single::lazy(options.clone()));
                let reader = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
                Kind::Sqlite {
                    writer: None,
                    repeats,
                    reader: reader.map_err(OpenError::Connect)?,
                    _lock: None,
                }
            }
        }))
    }

    fn over(kind: Kind) -> Self {
        let effects = (watch::Sender::new(()), Listeners::default(), JustOptedOut::default());
        Self::sharing(kind, effects, Waits::default(), Fatal::default())
    }

    fn sharing(
        kind: Kind,
        (wake, listeners, just_opted_out): (watch::Sender<()>, Listeners, JustOptedOut),
        waits: Waits,
        fatal: Fatal,
    ) -> Self {
        let (check_told, alerts) = mpsc::unbounded_channel();
        if matches!(kind, Kind::Postgres(_)) {
            tokio::spawn(check_told_again(kind.clone(), listeners.clone(), alerts));
        }
        let effects = Effects {
            wake,
            check_told,
            listeners,
            just_opted_out,
        };
        let engine = Engine { kind, effects };
        Self {
            batchers: writes::start(&engine, &fatal),
            engine,
            seen: Arc::new(Seen::new()),
            waits,
            fatal,
        }
    }

    /// Fails if it is a SQLite file that is not there yet: a command must not make one in the wrong place.
    pub fn expect_there(url: &DatabaseUrl) -> Result<(), OpenError> {
        let DatabaseUrl::Sqlite(url) = url else { return Ok(()) };
        let options = sqlite_options(url)?;
        let file = options.get_filename();
        if file.exists() {
            Ok(())
        } else {
            Err(OpenError::Absent(file.to_owned()))
        }
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
        let lock = lock_file(options.get_filename().to_owned())?;
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
        let reading = options.create_if_missing(false).read_only(true);
        let reader = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(reading.clone());
        Ok(Self::over(Kind::Sqlite {
            writer: Some(Arc::new(Single::lazy(writing))),
            repeats: Arc::new(Single::lazy(reading)),
            reader,
            _lock: Some(Arc::new(lock)),
        }))
    }

    async fn open_postgres(url: &SecretString, limits: Limits) -> Result<Self, OpenError> {
        let options = postgres_options(url)?;
        migrate::postgres(&options).await?;
        let pool = Pool::connect(options, limits).await.map_err(OpenError::Connect)?;
        Ok(Self::over(Kind::Postgres(pool)))
    }

    /// The same database by connections of its own, where there is more than one: who uses these does not wait for the
    /// others.
    pub fn apart(&self, limits: Limits) -> Self {
        match &self.engine.kind {
            Kind::Sqlite { .. } => self.clone(),
            Kind::Postgres(pool) => {
                let effects = &self.engine.effects;
                let effects = (
                    effects.wake.clone(),
                    effects.listeners.clone(),
                    effects.just_opted_out.clone(),
                );
                let kind = Kind::Postgres(pool.apart(limits));
                Self::sharing(kind, effects, self.waits.clone(), self.fatal.clone())
            }
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

/// Asks once more whether anybody is told of these alerts, now that everybody's commit can be seen. By itself: what was
/// committed stands, and what was begun must be called, whatever becomes of this. Ends with the last way to the database.
async fn check_told_again(kind: Kind, listeners: Listeners, mut alerts: mpsc::UnboundedReceiver<(AlertId, Timestamp)>) {
    // What this finds out needs no third check, and this task must not keep itself alive.
    let effects = Effects {
        wake: watch::Sender::new(()),
        check_told: mpsc::unbounded_channel().0,
        listeners,
        just_opted_out: JustOptedOut::default(),
    };
    let engine = Engine { kind, effects };
    while let Some(alert) = alerts.recv().await {
        let checking = async {
            let mut tx = engine.begin().await?;
            ledger::check_told(&mut tx, vec![alert]).await?;
            tx.commit().await
        };
        if let Err(error) = checking.await {
            tracing::warn!(%error, "cannot ask once more whether somebody is told");
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
    let asking = sqlx::query_scalar("pragma journal_mode").fetch_one(&mut *writer);
    let journal: String = asking.await.map_err(OpenError::Connect)?;
    let asking = sqlx::query_scalar("pragma synchronous").fetch_one(writer);
    let synchronous: i64 = asking.await.map_err(OpenError::Connect)?;
    if journal == "wal" && synchronous == 2 {
        Ok(())
    } else {
        Err(OpenError::NotDurable { journal, synchronous })
    }
}
