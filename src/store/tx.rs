//! A write transaction. What it writes is queued and goes to the database together with the next question or the
//! commit: SQLite runs on a thread of its own and PostgreSQL on another machine, so trips are what a transaction costs
//! beside its fsync. On SQLite everything that is queued is one trip, `begin` and `commit` among it.
//!
//! A queued statement is written once for both databases and for any number of rows, which travel as one JSON argument:
//! `rows($1) as r` has them in `r.value`, and the text stays the same, so it stays prepared.

use super::{
    StoreError,
    session::{Pool, Session, call},
    transitions,
    writer::Held,
};
use crate::domain::alarm::AlarmKind;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, Postgres, Sqlite, postgres::PgRow, sqlite::SqliteRow};
use std::fmt::Write;
use tokio::sync::OwnedMutexGuard;

/// Runs the same body on the connection of an open transaction, after what is queued.
macro_rules! within {
    ($tx:expr, |$conn:ident| $body:expr) => {{
        $tx.flush().await?;
        match &mut $tx.connection {
            $crate::store::tx::Connection::Sqlite(held) => {
                let $conn = held.get()?;
                $body
            }
            $crate::store::tx::Connection::Postgres(session) => {
                $crate::store::session::call!(session, |$conn| $body)
            }
        }
    }};
}

/// Like `within!`, for a select whose rows must stay as they are until the commit. SQLite's transaction has the whole
/// file to itself; PostgreSQL locks the rows.
macro_rules! locking {
    ($tx:expr, $sql:expr, $lock:literal, |$conn:ident, $text:ident| $body:expr) => {{
        $tx.flush().await?;
        match &mut $tx.connection {
            $crate::store::tx::Connection::Sqlite(held) => {
                let ($conn, $text) = (held.get()?, $sql);
                $body
            }
            $crate::store::tx::Connection::Postgres(session) => {
                let $text = const_format::concatcp!($sql, " ", $lock);
                $crate::store::session::call!(session, |$conn| $body)
            }
        }
    }};
}
pub(crate) use {locking, within};

pub(super) enum Connection {
    /// `begin` is sent with the first statement.
    Sqlite(OwnedMutexGuard<Held>),
    Postgres(Session),
}

/// A write transaction. Dropped without a commit, it leaves nothing behind.
pub struct Tx {
    pub(super) connection: Connection,
    queue: Vec<Statement>,
    pub(super) alarms: Vec<(AlarmKind, String)>,
    /// Where PostgreSQL must look once more after the commit: two transactions at once do not see each other.
    pub(super) look_again: Option<(Pool, Vec<(String, Timestamp)>)>,
}

/// A statement and what it takes.
struct Statement {
    sql: &'static str,
    /// What PostgreSQL adds, to lock rows; SQLite has the whole file locked.
    lock: &'static str,
    arguments: Vec<Argument>,
}

/// What a queued statement takes for `$1`, `$2` ….
pub(super) enum Argument {
    Text(String),
    Number(i64),
}

impl From<Rows> for Argument {
    fn from(rows: Rows) -> Self {
        Self::Text(rows.finish())
    }
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Argument {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Rows on their way into a statement: a JSON array of arrays.
#[derive(Default)]
pub(super) struct Rows(String);

impl Rows {
    /// Adds one: a tuple.
    pub fn push(&mut self, row: &impl Serialize) {
        self.push_json(&to_json(row));
    }

    /// Adds one that is JSON already.
    pub fn push_json(&mut self, row: &str) {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        self.0.push_str(row);
    }

    /// Adds one whose members stand in two arrays, neither of them empty.
    pub fn push_joined(&mut self, head: &str, tail: &str) {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        self.0.push_str(head.strip_suffix(']').unwrap_or(head));
        self.0.push(',');
        self.0.push_str(tail.strip_prefix('[').unwrap_or(tail));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn finish(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "[]" } else { "]" });
        self.0
    }
}

impl<T: Serialize> FromIterator<T> for Rows {
    fn from_iter<I: IntoIterator<Item = T>>(rows: I) -> Self {
        let mut all = Self::default();
        for row in rows {
            all.push(&row);
        }
        all
    }
}

/// A row as JSON.
pub(super) fn to_json(row: &impl Serialize) -> String {
    // Tuples of texts and numbers cannot fail; if one did, the statement would refuse its row.
    serde_json::to_string(row).unwrap_or_default()
}

/// What a trip may bring back, from either database.
pub(super) trait Answer: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin> Answer for T {}

impl Tx {
    pub(super) fn on(connection: Connection, look_again: Option<Pool>) -> Self {
        Self {
            connection,
            queue: Vec::new(),
            alarms: Vec::new(),
            look_again: look_again.map(|pool| (pool, Vec::new())),
        }
    }

    /// Whether each row has to be locked.
    pub(super) fn locks_rows(&self) -> bool {
        matches!(self.connection, Connection::Postgres(_))
    }

    /// Adds a statement to those that go with the next trip.
    pub(super) fn queue(&mut self, sql: &'static str, arguments: impl IntoIterator<Item = Argument>) {
        self.queue.push(Statement {
            sql,
            lock: "",
            arguments: arguments.into_iter().collect(),
        });
    }

    /// Sends what is queued and this question; returns its rows. Nothing that is queued may return any. `lock` is added
    /// on PostgreSQL.
    pub(super) async fn ask<T: Answer>(
        &mut self,
        sql: &'static str,
        lock: &'static str,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<Vec<T>, StoreError> {
        self.queue.push(Statement {
            sql,
            lock,
            arguments: arguments.into_iter().collect(),
        });
        self.trip(false).await
    }

    /// Sends what is queued, and `begin` before it.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        let is_open = match &self.connection {
            Connection::Sqlite(held) => held.is_open,
            Connection::Postgres(_) => true,
        };
        if !is_open || !self.queue.is_empty() {
            self.trip::<(i64,)>(false).await?;
        }
        Ok(())
    }

    /// Makes everything durable (fsync'd), then logs the alarms that were raised.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.commit_asking::<(i64,)>().await.map(drop)
    }

    /// Like `commit`; returns the rows of the queued statement that returns some.
    pub(super) async fn commit_asking<T: Answer>(mut self) -> Result<Vec<T>, StoreError> {
        let rows = self.trip(true).await?;
        if let Connection::Postgres(session) = &mut self.connection {
            session.commit().await?;
        }
        log_alarms(self.alarms);
        if let Some((pool, alerts)) = self.look_again.filter(|(_, alerts)| !alerts.is_empty()) {
            // By itself: what was committed stands, and what was begun must be called, whatever becomes of this.
            tokio::spawn(async move {
                if let Err(error) = look_again(pool, alerts).await {
                    tracing::warn!(error = %error.explain(), "cannot look once more whether somebody is told");
                }
            });
        }
        Ok(rows)
    }

    async fn trip<T: Answer>(&mut self, commits: bool) -> Result<Vec<T>, StoreError> {
        let statements = std::mem::take(&mut self.queue);
        match &mut self.connection {
            Connection::Sqlite(held) => {
                // Nothing was begun, so there is nothing to end.
                if commits && !held.is_open && statements.is_empty() {
                    return Ok(Vec::new());
                }
                let (sql, arguments) = script(statements, !held.is_open, commits);
                held.is_open = true;
                let mut query = sqlx::query_as::<Sqlite, T>(AssertSqlSafe(sql));
                for argument in arguments {
                    query = match argument {
                        Argument::Text(text) => query.bind(text),
                        Argument::Number(number) => query.bind(number),
                    };
                }
                let rows = query.fetch_all(held.get()?).await?;
                held.is_open = !commits;
                Ok(rows)
            }
            Connection::Postgres(session) => {
                let mut rows = Vec::new();
                for statement in statements {
                    let sql = format!("{} {}", statement.sql, statement.lock)
                        .replace("rows($1) as r", "json_array_elements(cast($1 as json)) as r(value)");
                    let mut query = sqlx::query_as::<Postgres, T>(AssertSqlSafe(sql));
                    for argument in statement.arguments {
                        query = match argument {
                            Argument::Text(text) => query.bind(text),
                            Argument::Number(number) => query.bind(number),
                        };
                    }
                    rows.extend(call!(session, |conn| query.fetch_all(conn).await)?);
                }
                Ok(rows)
            }
        }
    }
}

/// Statements as one text for SQLite, their arguments numbered through.
fn script(statements: Vec<Statement>, begins: bool, commits: bool) -> (String, Vec<Argument>) {
    let length: usize = statements.iter().map(|statement| statement.sql.len() + 8).sum();
    let mut sql = String::with_capacity(length + 32);
    let mut arguments = Vec::new();
    if begins {
        sql.push_str("begin immediate;");
    }
    for statement in statements {
        push_renumbered(&mut sql, statement.sql, arguments.len());
        sql.push(';');
        arguments.extend(statement.arguments);
    }
    if commits {
        sql.push_str("commit");
    }
    (sql, arguments)
}

/// Appends a statement whose `$1` becomes `$(1 + by)`, and so on.
fn push_renumbered(sql: &mut String, statement: &str, by: usize) {
    let statement = statement.replace("rows($", "json_each($");
    let mut pieces = statement.split('$');
    sql.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at(digits);
        let number = number.parse().unwrap_or(0) + by;
        let _ = write!(sql, "${number}{rest}");
    }
}

/// Looks once more whether somebody is told, now that everybody's commit can be seen.
fn look_again(pool: Pool, alerts: Vec<(String, Timestamp)>) -> BoxFuture<'static, Result<(), StoreError>> {
    Box::pin(async move {
        let mut session = pool.session().await?;
        session.begin().await?;
        let mut tx = Tx::on(Connection::Postgres(session), None);
        for (alert_id, now) in alerts {
            transitions::check_somebody_is_told(&mut tx, &alert_id, now).await?;
        }
        tx.commit().await
    })
}

fn log_alarms(alarms: Vec<(AlarmKind, String)>) {
    for (kind, detail) in alarms {
        tracing::error!(alarm = kind.as_str(), "{detail}. {}", kind.advice());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_become_one_text_with_their_arguments_numbered_through() {
        let statement = |sql, arguments: [&str; 2]| Statement {
            sql,
            lock: "for update",
            arguments: arguments.map(Argument::from).into(),
        };

        let (sql, arguments) = script(
            vec![
                statement("insert into a select r.value ->> 0, $2 from rows($1) as r", ["[]", "x"]),
                statement("select $1, $2", ["y", "z"]),
            ],
            true,
            true,
        );

        assert_eq!(
            sql,
            "begin immediate;insert into a select r.value ->> 0, $2 from json_each($1) as r;select $3, $4;commit"
        );
        assert_eq!(arguments.len(), 4);
    }

    #[test]
    fn rows_travel_as_json() {
        let rows: Rows = [("a", 1), ("b\"", 2)].into_iter().collect();

        assert_eq!(rows.finish(), r#"[["a",1],["b\"",2]]"#);
        assert_eq!(Rows::default().finish(), "[]");
        let mut joined = Rows::default();
        joined.push_joined("[1,2]", "[3]");
        assert_eq!(joined.finish(), "[[1,2,3]]");
    }
}
