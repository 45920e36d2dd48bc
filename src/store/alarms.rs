//! Alarms: a row here and a line in the log, once for each thing they are about. Absent: their mails.

use super::{StoreError, Tx, ms, new_id, within};
use jiff::Timestamp;

/// What an alarm says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmKind {
    /// Nobody is being told of an alert.
    NobodyTold,
    /// The provider does not accept our account; all sends are held.
    CredentialsRefused,
    /// Nobody knows whether a message was sent.
    Unconfirmed,
    /// The daily limit was reached for the first time today.
    LimitReached,
}

impl AlarmKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NobodyTold => "nobody_told",
            Self::CredentialsRefused => "credentials_refused",
            Self::Unconfirmed => "unconfirmed",
            Self::LimitReached => "limit_reached",
        }
    }
}

/// Raises an alarm about `subject`, unless it was raised already.
pub(super) async fn raise(
    tx: &mut Tx,
    kind: AlarmKind,
    subject: &str,
    detail: String,
    now: Timestamp,
) -> Result<(), StoreError> {
    let new = within!(tx, |conn| {
        sqlx::query(
            "insert into alarm (id, kind, subject, raised_at, detail) values ($1, $2, $3, $4, $5)
            on conflict (kind, subject) do nothing",
        )
        .bind(new_id())
        .bind(kind.as_str())
        .bind(subject)
        .bind(ms(now))
        .bind(&detail)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
    })?;
    if new > 0 {
        tx.alarms.push((kind, detail));
    }
    Ok(())
}
