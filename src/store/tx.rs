//! A write transaction. What it writes is queued and goes to the database together with the next question or the
//! commit: SQLite runs on a thread of its own and PostgreSQL on another machine, so round trips are what a transaction
//! costs beside its fsync. On SQLite everything that is queued is one round trip, `begin` and `commit` among it.
//!
//! It also carries what is to happen once it is committed, as values: nobody logs an alarm or wakes a worker by hand.

use super::{
    error::StoreError,
    just_opted_out::JustOptedOut,
    lifecycle::{self, About, Listeners, Untold},
    query::{FromEither, Query, bind},
    session::{Session, call},
    single::Held,
    sql::{Argument, Rows, Sql},
};
use crate::domain::{alarm::AlarmKind, id::AlertId, lifecycle::EventType};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Postgres, Sqlite};
use std::time::Instant;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};

/// The channel on which processes tell each other that a delivery is due.
pub const DUE_CHANNEL: &str = "nightbell_due";

pub enum Connection {
    /// `begin` is sent with the first statement.
    Sqlite(OwnedMutexGuard<Held>),
    Postgres(Session),
}

/// What is to happen once a transaction is committed.
#[derive(Debug)]
pub enum Effect {
    /// A delivery is due: the workers of all processes look.
    Wake,
    /// Lifecycle events were written: they are posted.
    Told,
    /// This number opted out by a text: calls that were begun and not made must not be made any more.
    OptedOut(String),
    /// An alarm was raised: it is logged.
    Alarm { kind: AlarmKind, detail: String },
    /// Whether anybody is told of this alert has to be asked once more: on PostgreSQL two transactions at once do not see
    /// each other, and each may leave it to the other.
    CheckToldAgain { alert_id: AlertId, at: Timestamp },
}

/// Where effects go.
#[derive(Clone)]
pub struct Effects {
    pub wake: watch::Sender<()>,
    pub check_told: mpsc::UnboundedSender<(AlertId, Timestamp)>,
    pub listeners: Listeners,
    pub just_opted_out: JustOptedOut,
}

impl Effects {
    fn run(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Wake => self.wake.send_replace(()),
                Effect::Told => self.listeners.notify(),
                Effect::OptedOut(e164) => self.just_opted_out.add(e164, Instant::now()),
                Effect::Alarm { kind, detail } => {
                    tracing::error!(alarm = kind.as_str(), "{detail}. {}", kind.advice());
                }
                // Nobody listens where nothing is written.
                Effect::CheckToldAgain { alert_id, at } => drop(self.check_told.send((alert_id, at))),
            }
        }
    }
}

/// A write transaction. Dropped without a commit, it leaves nothing behind.
pub struct Tx {
    pub connection: Connection,
    queue: Vec<(Sql, Vec<Argument>)>,
    untold: Untold,
    effects: Vec<Effect>,
    after_commit: Effects,
}

impl Tx {
    pub fn on(connection: Connection, after_commit: Effects) -> Self {
        Self {
            connection,
            queue: Vec::new(),
            untold: Untold::default(),
            effects: Vec::new(),
            after_commit,
        }
    }

    /// Whether others may write at the same time, so that each row has to be locked.
    pub fn has_neighbours(&self) -> bool {
        matches!(self.connection, Connection::Postgres(_))
    }

    /// Adds what is to happen after the commit.
    pub fn then(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Who hears of lifecycle events.
    pub fn listeners(&self) -> &Listeners {
        &self.after_commit.listeners
    }

    /// Whether anybody wants to hear of such events.
    pub fn wants(&self, kind: EventType) -> bool {
        self.listeners().want(kind)
    }

    /// Lets others hear of this, if anybody wants to: once the transaction is committed. `data` is a JSON object of what
    /// happened, without personal data.
    pub fn tell(&mut self, kind: EventType, about: &About<'_>, at: Timestamp, data: impl FnOnce() -> Value) {
        if self.wants(kind) {
            self.untold.add(kind, about, at, &data());
        }
    }

    /// Adds a statement for these rows to those that go with the next round trip; without rows it is left out. It takes
    /// nothing but the rows, names them once, and returns none.
    pub fn queue(&mut self, sql: Sql, rows: Rows) {
        debug_assert!(sql.sqlite_queued.is_some(), "{}", sql.sqlite);
        if !rows.is_empty() {
            self.queue.push((sql, vec![rows.into()]));
        }
    }

    /// Runs a statement that returns no rows, after what is queued; returns how many it changed.
    pub async fn execute(
        &mut self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<u64, StoreError> {
        self.flush().await?;
        match &mut self.connection {
            Connection::Sqlite(held) => {
                let query = bind!(sqlx::query::<Sqlite>(sql.sqlite), arguments);
                Ok(query.execute(held.get()?).await?.rows_affected())
            }
            Connection::Postgres(session) => {
                let query = bind!(sqlx::query::<Postgres>(sql.postgres), arguments);
                Ok(call!(session, |conn| query.execute(conn).await)?.rows_affected())
            }
        }
    }

    /// Sends what is queued, and `begin` before it.
    pub async fn flush(&mut self) -> Result<(), StoreError> {
        let is_open = match &self.connection {
            Connection::Sqlite(held) => held.is_open,
            Connection::Postgres(_) => true,
        };
        if !is_open || !self.queue.is_empty() {
            self.send_queue::<(i64,)>(false).await?;
        }
        Ok(())
    }

    /// Makes everything durable (fsync'd), then lets the effects happen.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        self.queue_events();
        self.commit_returning::<(i64,)>().await.map(drop)
    }

    /// Like `commit`, as the last step of which this question for these rows is asked.
    pub async fn commit_asking<T: FromEither>(mut self, sql: Sql, rows: Rows) -> Result<Vec<T>, StoreError> {
        self.queue_events();
        self.queue(sql, rows);
        self.commit_returning().await
    }

    fn queue_events(&mut self) {
        let events = self.untold.take();
        if !events.is_empty() {
            self.then(Effect::Told);
            self.queue(lifecycle::INSERT, events);
        }
    }

    async fn commit_returning<T: FromEither>(mut self) -> Result<Vec<T>, StoreError> {
        let wakes = self.effects.iter().any(|effect| matches!(effect, Effect::Wake));
        if wakes && let Connection::Postgres(session) = &mut self.connection {
            call!(session, |conn| sqlx::query("select pg_notify($1, '')")
                .bind(DUE_CHANNEL)
                .execute(conn)
                .await)?;
        }
        let rows = self.send_queue(true).await?;
        if let Connection::Postgres(session) = &mut self.connection {
            session.commit().await?;
        }
        self.after_commit.run(self.effects);
        Ok(rows)
    }

    /// Sends what is queued; returns the rows of the statement among it that returns some.
    async fn send_queue<T: FromEither>(&mut self, commits: bool) -> Result<Vec<T>, StoreError> {
        let statements = std::mem::take(&mut self.queue);
        match &mut self.connection {
            Connection::Sqlite(held) => {
                // Nothing was begun, so there is nothing to end.
                if commits && !held.is_open && statements.is_empty() {
                    return Ok(Vec::new());
                }
                let text = script(&statements, !held.is_open, commits)?;
                held.is_open = true;
                let arguments = statements.into_iter().flat_map(|(_, arguments)| arguments);
                let query = bind!(sqlx::query_as::<Sqlite, T>(AssertSqlSafe(text)), arguments);
                let rows = query.fetch_all(held.get()?).await?;
                held.is_open = !commits;
                Ok(rows)
            }
            Connection::Postgres(session) => {
                let mut rows = Vec::new();
                for (sql, arguments) in statements {
                    let query = bind!(sqlx::query_as::<Postgres, T>(sql.postgres), arguments);
                    rows.extend(call!(session, |conn| query.fetch_all(conn).await)?);
                }
                Ok(rows)
            }
        }
    }
}

impl Query for Tx {
    async fn all<T: FromEither>(
        &mut self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<Vec<T>, StoreError> {
        if !self.queue.is_empty() {
            // Else its arguments are named by their places, and what is queued goes before it.
            if sql.sqlite_queued.is_some() {
                self.queue.push((sql, arguments.into_iter().collect()));
                return self.send_queue(false).await;
            }
            self.send_queue::<(i64,)>(false).await?;
        }
        match &mut self.connection {
            Connection::Sqlite(held) => {
                let text = if held.is_open {
                    sql.sqlite.to_owned()
                } else {
                    format!("begin immediate;{}", sql.sqlite)
                };
                held.is_open = true;
                let query = bind!(sqlx::query_as::<Sqlite, T>(AssertSqlSafe(text)), arguments);
                Ok(query.fetch_all(held.get()?).await?)
            }
            Connection::Postgres(session) => {
                let query = bind!(sqlx::query_as::<Postgres, T>(sql.postgres), arguments);
                Ok(call!(session, |conn| query.fetch_all(conn).await)?)
            }
        }
    }
}

/// Statements as one text for SQLite. Each can be one of several, or something is wrong with our own code.
fn script(statements: &[(Sql, Vec<Argument>)], begins: bool, commits: bool) -> Result<String, StoreError> {
    let length: usize = statements.iter().map(|(sql, _)| sql.sqlite.len() + 1).sum();
    let mut text = String::with_capacity(length + 32);
    if begins {
        text.push_str("begin immediate;");
    }
    for (sql, _) in statements {
        text.push_str(sql.sqlite_queued.ok_or(StoreError::Broken)?);
        text.push(';');
    }
    if commits {
        text.push_str("commit");
    }
    Ok(text)
}
