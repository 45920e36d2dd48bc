//! SQLite's one writing connection: whoever holds it has the file alone, in the order of asking. No pool: a pool of one
//! asks its connection twice for every use whether it still lives, and each question is a trip to the thread that
//! SQLite runs on. Beside it, a connection that only folds the write-ahead log into the file, so that no commit has to
//! wait for that. Absent: what is written (see `tx`).

use super::BUSY_TIMEOUT;
use sqlx::{
    ConnectOptions as _, Connection as _,
    sqlite::{SqliteConnectOptions, SqliteConnection},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, Notify, OwnedMutexGuard},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// The log is folded into the file after this many commits, each of about 20 pages, or after this time.
const FOLD_AFTER: (u64, Duration) = (50, Duration::from_secs(1));
/// The net under that: a log of so many pages (32 MB) is folded within a commit, as all of SQLite's usually are. Only while
/// commits follow each other without a gap does it come to that, and then most of it is folded already.
const LONGEST_LOG: &str = "8000";

/// The way to the writing connection.
pub struct Writer {
    options: SqliteConnectOptions,
    held: Arc<Mutex<Held>>,
    commits: Arc<Commits>,
    folding: Mutex<Option<JoinHandle<()>>>,
}

/// What was committed since the start.
#[derive(Default)]
struct Commits {
    count: AtomicU64,
    more: Notify,
    is_over: Notify,
}

/// The writing connection, for as long as it is held.
pub struct Held {
    /// `None` until the next use after it broke.
    connection: Option<SqliteConnection>,
    /// Whether a transaction may be open on it: whoever held it before may have been dropped half-way.
    pub is_open: bool,
    is_closed: bool,
    commits: Arc<Commits>,
}

impl Held {
    pub fn get(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Something was committed.
    pub fn committed(&self) {
        self.commits.count.fetch_add(1, Ordering::Relaxed);
        self.commits.more.notify_one();
    }
}

impl Writer {
    /// Connects.
    pub async fn open(options: SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let options = options.pragma("wal_autocheckpoint", LONGEST_LOG);
        let connection = options.connect().await?;
        let commits = Arc::<Commits>::default();
        let folding = tokio::spawn(fold(options.clone(), Arc::clone(&commits)));
        Ok(Self {
            options,
            commits: Arc::clone(&commits),
            folding: Mutex::new(Some(folding)),
            held: Arc::new(Mutex::new(Held {
                connection: Some(connection),
                is_open: false,
                is_closed: false,
                commits,
            })),
        })
    }

    /// Waits for the connection, with no transaction open on it.
    pub async fn hold(&self) -> Result<OwnedMutexGuard<Held>, sqlx::Error> {
        let holding = tokio::time::timeout(BUSY_TIMEOUT, Arc::clone(&self.held).lock_owned());
        let mut held = holding.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if held.is_closed {
            return Err(sqlx::Error::PoolClosed);
        }
        if held.is_open
            && let Some(connection) = &mut held.connection
        {
            // SQLite ends a transaction by itself when the disk is full; then there is nothing to roll back, and nobody
            // can say what else is wrong with this connection.
            if sqlx::query("rollback").execute(connection).await.is_err() {
                held.connection = None;
            }
        }
        held.is_open = false;
        if held.connection.is_none() {
            held.connection = Some(self.options.connect().await?);
        }
        Ok(held)
    }

    /// Closes the connection once nobody holds it; SQLite folds its write-ahead log into the file.
    pub async fn close(&self) {
        self.commits.is_over.notify_one();
        if let Some(folding) = self.folding.lock().await.take() {
            let _ = folding.await;
        }
        let mut held = self.held.lock().await;
        held.is_closed = true;
        if let Some(connection) = held.connection.take() {
            let _ = connection.close().await;
        }
    }
}

/// Folds what was committed into the file, from time to time, by a connection of its own. It keeps nobody from reading or
/// writing meanwhile.
async fn fold(options: SqliteConnectOptions, commits: Arc<Commits>) {
    let (most, longest) = FOLD_AFTER;
    let mut connection = None;
    let mut folded = 0;
    loop {
        let enough = async {
            commits.more.notified().await;
            let end = Instant::now() + longest;
            while commits.count.load(Ordering::Relaxed) < folded + most
                && timeout_at(end, commits.more.notified()).await.is_ok()
            {}
        };
        tokio::select! {
            () = enough => {}
            () = commits.is_over.notified() => break,
        }
        folded = commits.count.load(Ordering::Relaxed);
        if let Err(error) = fold_once(&options, &mut connection).await {
            // The net catches it; what is wrong with the disk is said by the writes that fail.
            tracing::debug!(%error, "cannot fold the write-ahead log now");
            connection = None;
        }
    }
    if let Some(connection) = connection {
        let _ = connection.close().await;
    }
}

async fn fold_once(
    options: &SqliteConnectOptions,
    connection: &mut Option<SqliteConnection>,
) -> Result<(), sqlx::Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(options.connect().await?),
    };
    sqlx::query("pragma wal_checkpoint(passive)")
        .fetch_all(connection)
        .await?;
    Ok(())
}
