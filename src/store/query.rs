//! Questions, asked inside a transaction or beside it, in the same words.

use super::{
    error::StoreError,
    sql::{Argument, Sql},
};
use sqlx::{FromRow, postgres::PgRow, sqlite::SqliteRow};

/// What a question may bring back, from either database.
pub trait FromEither: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin> FromEither for T {}

/// Binds arguments to a query of either database.
macro_rules! bind {
    ($query:expr, $arguments:expr) => {{
        let mut query = $query;
        for argument in $arguments {
            query = match argument {
                $crate::store::sql::Argument::Text(text) => query.bind(text),
                $crate::store::sql::Argument::Number(number) => query.bind(number),
            };
        }
        query
    }};
}
pub(super) use bind;

/// Who can be asked.
pub trait Query {
    /// All rows of a question.
    async fn all<T: FromEither>(
        &mut self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<Vec<T>, StoreError>;

    /// Its first row, if there is one.
    async fn optional<T: FromEither>(
        &mut self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.all(sql, arguments).await?.into_iter().next())
    }

    /// Whether there is a row.
    async fn exists(&mut self, sql: Sql, arguments: impl IntoIterator<Item = Argument>) -> Result<bool, StoreError> {
        Ok(self.optional::<()>(sql, arguments).await?.is_some())
    }

    /// Its one row.
    async fn one<T: FromEither>(
        &mut self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<T, StoreError> {
        let row = self.optional(sql, arguments).await?;
        row.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    /// The column of all rows.
    async fn scalars<T>(
        &mut self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<Vec<T>, StoreError>
    where
        (T,): FromEither,
    {
        let rows = self.all::<(T,)>(sql, arguments).await?;
        Ok(rows.into_iter().map(|(value,)| value).collect())
    }

    /// The column of the first row, if there is one.
    async fn optional_scalar<T>(
        &mut self,
        sql: Sql,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<Option<T>, StoreError>
    where
        (T,): FromEither,
    {
        Ok(self.optional::<(T,)>(sql, arguments).await?.map(|(value,)| value))
    }

    /// The column of the one row.
    async fn scalar<T>(&mut self, sql: Sql, arguments: impl IntoIterator<Item = Argument>) -> Result<T, StoreError>
    where
        (T,): FromEither,
    {
        Ok(self.one::<(T,)>(sql, arguments).await?.0)
    }
}
