//! A single connection to SQLite, held by one user at a time in the order of asking: the one that writes, and the one that
//! looks up repeats. No pool: a pool asks its connections after every use whether they still live, and each question is a
//! round trip to the thread that SQLite runs on. Absent: what it is used for (see `tx`, `engine`).

use sqlx::{
    ConnectOptions as _, Connection as _,
    sqlite::{SqliteConnectOptions, SqliteConnection},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// How long SQLite waits for another process's lock, and one of ours for the connection.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to the connection.
pub struct Single {
    options: SqliteConnectOptions,
    held: Arc<Mutex<Held>>,
}

/// The connection, for as long as it is held.
#[derive(Default)]
pub struct Held {
    /// `None` until the first use, and the next one after it broke.
    connection: Option<SqliteConnection>,
    /// Whether a transaction may be open on it: whoever held it before may have been dropped half-way.
    pub is_open: bool,
    is_closed: bool,
}

impl Held {
    pub fn get(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }
}

impl Single {
    /// Connects when it is held first.
    pub fn lazy(options: SqliteConnectOptions) -> Self {
        Self {
            options,
            held: Arc::default(),
        }
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
        let mut held = self.held.lock().await;
        held.is_closed = true;
        if let Some(connection) = held.connection.take() {
            let _ = connection.close().await;
        }
    }
}
