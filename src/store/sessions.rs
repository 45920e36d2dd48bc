//! Sessions of admins who logged in to the pages: they hold on every replica, and end for all of them at once. Absent:
//! cookies and tokens (see `http::admin::pages`); what is kept here is of no use to whoever reads it.

use super::{
    Db,
    error::StoreError,
    query::Query,
    sql::{args, sql},
    types::{Ms, ms},
};
use jiff::Timestamp;

/// A session as it is kept.
#[derive(sqlx::FromRow)]
pub struct Session {
    /// The SHA-256 of the cookie's value.
    pub id: String,
    /// Shows, together with the cookie, with which token it was made.
    pub token_proof: String,
    #[sqlx(try_from = "Ms")]
    pub created_at: Timestamp,
    #[sqlx(try_from = "Ms")]
    pub expires_at: Timestamp,
}

impl Db {
    /// Keeps a new session, and deletes those that are over.
    pub async fn open_session(&self, new: &Session) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.execute(
            sql!("delete from admin_session where expires_at <= $1"),
            args![ms(new.created_at)],
        )
        .await?;
        tx.execute(
            sql!("insert into admin_session (id, token_proof, created_at, expires_at) values ($1, $2, $3, $4)"),
            args![&new.id, &new.token_proof, ms(new.created_at), ms(new.expires_at)],
        )
        .await?;
        tx.commit().await
    }

    /// The session with this id, unless it is over.
    pub async fn session(&self, id: &str, now: Timestamp) -> Result<Option<Session>, StoreError> {
        self.reads()
            .optional(
                sql!(
                    "select id, token_proof, created_at, expires_at from admin_session where id = $1 and expires_at > $2"
                ),
                args![id, ms(now)],
            )
            .await
    }

    /// Lets a session last until then. One that has ended meanwhile stays so.
    pub async fn extend_session(&self, id: &str, until: Timestamp) -> Result<(), StoreError> {
        self.execute(
            sql!("update admin_session set expires_at = $2 where id = $1"),
            args![id, ms(until)],
        )
        .await
        .map(drop)
    }

    /// Ends a session, on every replica.
    pub async fn end_session(&self, id: &str) -> Result<(), StoreError> {
        self.execute(sql!("delete from admin_session where id = $1"), args![id])
            .await
            .map(drop)
    }
}
