//! Why the store did not do what it was asked, and why it cannot be opened. Codes have names here: PostgreSQL's SQLSTATE
//! (Appendix A of its manual) and SQLite's result codes (sqlite.org/rescode.html).

use std::{path::PathBuf, sync::Arc};

/// Two transactions were in each other's way.
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// Classes of SQLSTATE that say nothing about the rows at hand.
const CONNECTION_EXCEPTION: &str = "08";
const INVALID_TRANSACTION_STATE: &str = "25";
const TRANSACTION_ROLLBACK: &str = "40";
const INSUFFICIENT_RESOURCES: &str = "53";
const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55";
const OPERATOR_INTERVENTION: &str = "57";
const SYSTEM_ERROR: &str = "58";
/// The same among SQLite's primary result codes, which are the low byte of the extended ones.
const SQLITE_BUSY: u32 = 5;
const SQLITE_LOCKED: u32 = 6;
const SQLITE_READONLY: u32 = 8;
const SQLITE_IOERR: u32 = 10;
const SQLITE_FULL: u32 = 13;
const SQLITE_CANTOPEN: u32 = 14;
const PRIMARY_CODE: u32 = 0xff;

/// Why the store did not do what it was asked. Its text names the causes too, on one line, and holds no value but a word that this version does not know.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, or refused; trying again later may succeed. Nothing was stored.
    #[error("the database failed{}", causes(.0))]
    Database(Arc<sqlx::Error>),
    /// Our own code failed; trying again would fail again. Nothing was stored.
    #[error("this failed inside Nightbell; see the log")]
    Broken,
    /// More is asked of the database than it gets done; trying again later may succeed. Nothing was stored.
    #[error("the database cannot keep up with what is asked of it")]
    Busy,
    /// A row holds what this version cannot read.
    #[error("the database holds {what} `{value}`, which this version does not know: it was written by a newer one")]
    Unreadable { what: String, value: String },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { index, source } => Self::Unreadable {
                what: format!("in column {index}"),
                value: source.to_string(),
            },
            other => Self::Database(Arc::new(other)),
        }
    }
}

/// The error and its causes, each after a colon.
fn causes(error: &sqlx::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        // sqlx says again what its cause says.
        if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

impl StoreError {
    /// What the database itself said.
    fn code(&self) -> Option<String> {
        let Self::Database(error) = self else { return None };
        error.as_database_error()?.code().map(|code| code.into_owned())
    }

    /// Whether the database understood the question and refused it.
    pub(super) fn is_refusal(&self) -> bool {
        self.code().is_some()
    }

    /// Whether two transactions were in each other's way, so that the same again at once may succeed.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.code().as_deref(), Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED))
    }

    /// Whether the database as a whole is in trouble, so that the delivery at hand is not to blame.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreadable { .. } | Self::Broken => false,
            Self::Busy => true,
            Self::Database(error) => error
                .as_database_error()
                .is_none_or(|_| self.code().is_some_and(is_outage_code)),
        }
    }
}

fn is_outage_code(code: String) -> bool {
    // A SQLSTATE has five characters, SQLite's numbers have fewer.
    match code.parse::<u32>().ok().filter(|_| code.len() < 5) {
        Some(number) => matches!(
            number & PRIMARY_CODE,
            SQLITE_BUSY | SQLITE_LOCKED | SQLITE_READONLY | SQLITE_IOERR | SQLITE_FULL | SQLITE_CANTOPEN
        ),
        None => matches!(
            code.get(..2),
            Some(
                CONNECTION_EXCEPTION
                    | INVALID_TRANSACTION_STATE
                    | TRANSACTION_ROLLBACK
                    | INSUFFICIENT_RESOURCES
                    | OBJECT_NOT_IN_PREREQUISITE_STATE
                    | OPERATOR_INTERVENTION
                    | SYSTEM_ERROR
            )
        ),
    }
}

/// Whether somebody else's lock was in the way of a change of the tables.
pub(super) fn is_locked_out(error: &sqlx::migrate::MigrateError) -> bool {
    let sqlx::migrate::MigrateError::ExecuteMigration(sqlx::Error::Database(error), _) = error else {
        return false;
    };
    matches!(error.code().as_deref(), Some(LOCK_NOT_AVAILABLE | DEADLOCK_DETECTED))
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
    #[error("the database cannot be read: {0}")]
    Read(StoreError),
    #[error(
        "there is no database at {0} yet: if `database_url` is right, `nightbell serve` or `nightbell migrate` makes it"
    )]
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

impl From<sqlx::migrate::MigrateError> for OpenError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::VersionMissing(version) => Self::TooNew(version),
            other => Self::Migrate(other),
        }
    }
}
