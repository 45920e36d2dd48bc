//! SQLite's one writing connection: whoever holds it has the file alone, in the order of asking. No pool: a pool of one
//! asks its connection twice for every use whether it still lives, and each question is a round trip to the thread that
//! SQLite runs on. Absent: what is written (see `tx`).

use sqlx::{
    ConnectOptions as _, Connection as _,
    sqlite::{SqliteConnectOptions, SqliteConnection},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// How long SQLite waits for another process's lock, and one of ours for the connection.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to the writing connection.
pub struct Writer {
    options: SqliteConnectOptions,
    held: Arc<Mutex<Held>>,
}

/// The writing connection, for as long as it is held.
pub struct Held {
    /// `None` until the next use after it broke.
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

impl Writer {
    /// Connects.
    pub async fn open(options: SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let connection = options.connect().await?;
        Ok(Self {
            options,
            held: Arc::new(Mutex::new(Held {
                connection: Some(connection),
                is_open: false,
                is_closed: false,
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
        let mut held = self.held.lock().await;
        held.is_closed = true;
        if let Some(connection) = held.connection.take() {
            let _ = connection.close().await;
        }
    }
}
