//! Where the database is: read once, with everything that can be wrong with it. Absent: opening it (see `store`).

use secrecy::SecretString;
use url::Url;

/// The address of a database.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// One file, `sqlite://FILE`, perhaps with parameters of SQLite's.
    Sqlite(String),
    /// `postgres://USER:PASSWORD@HOST/NAME`.
    Postgres(SecretString),
}

/// Why a text is not the address of a database. Reads on after the setting's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    #[error("is not a database that Nightbell knows: write `sqlite://FILE` or `postgres://USER:PASSWORD@HOST/NAME`")]
    Unknown,
    #[error("keeps everything in memory, where a restart would lose it: name a file, like `sqlite://nightbell.db`")]
    InMemory,
    #[error(
        "is not a valid address ({0}): write `postgres://USER:PASSWORD@HOST/NAME`, special characters of the password percent-encoded"
    )]
    Unreadable(url::ParseError),
}

impl DatabaseUrl {
    /// In the current folder, where nothing is configured.
    pub const DEFAULT: &str = "sqlite://nightbell.db";

    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Url::parse(text).map_err(DatabaseUrlError::Unreadable)?;
            return Ok(Self::Postgres(text.into()));
        }
        let file = text.strip_prefix("sqlite:").ok_or(DatabaseUrlError::Unknown)?;
        let file = file.strip_prefix("//").unwrap_or(file);
        let is_in_memory =
            file.is_empty() || file.starts_with('?') || file.contains(":memory:") || file.contains("mode=memory");
        if is_in_memory {
            return Err(DatabaseUrlError::InMemory);
        }
        Ok(Self::Sqlite(text.to_owned()))
    }
}

impl Default for DatabaseUrl {
    fn default() -> Self {
        Self::Sqlite(Self::DEFAULT.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_server_are_databases_and_what_would_be_lost_is_none() {
        for text in ["sqlite://nightbell.db", "sqlite:n.db", "sqlite:///n.db?mode=rwc"] {
            let read = DatabaseUrl::parse(text);
            assert!(matches!(&read, Ok(DatabaseUrl::Sqlite(url)) if url == text), "{read:?}");
        }
        for text in ["postgres://nb:secret@db/n", "postgresql:///n?host=/run/postgresql"] {
            assert!(
                matches!(DatabaseUrl::parse(text), Ok(DatabaseUrl::Postgres(_))),
                "{text}"
            );
        }
        for text in ["sqlite://", "sqlite::memory:", "sqlite:x?mode=memory", "sqlite://?a=b"] {
            let error = DatabaseUrl::parse(text).unwrap_err();
            assert_eq!(error, DatabaseUrlError::InMemory, "{text}");
        }
        for text in ["", "nightbell.db", "mysql://db/nightbell", "postgres:db"] {
            let error = DatabaseUrl::parse(text).unwrap_err();
            assert_eq!(error, DatabaseUrlError::Unknown, "{text}");
        }
        let slash_in_password = DatabaseUrl::parse("postgres://nb:a/b@db/nightbell").unwrap_err();
        assert!(matches!(slash_in_password, DatabaseUrlError::Unreadable(_)));
    }

    #[test]
    fn a_password_is_never_printed() {
        let printed = format!("{:?}", DatabaseUrl::parse("postgres://nb:hush@db/nightbell").unwrap());

        assert!(!printed.contains("hush"), "{printed}");
    }
}
