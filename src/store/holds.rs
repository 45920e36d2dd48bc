//! Holds: while a provider refuses our account, nothing is sent through it. Kept in the database, so that a restart or
//! another replica knows. Absent: the probe itself (see `worker`).

use super::{
    Db, StoreError, Tx,
    alarms::{self, About},
    ms, read, within,
};
use crate::domain::{alarm::AlarmKind, delivery::ProviderName};
use jiff::{SignedDuration, Timestamp};

/// How often a held account is probed.
const PROBE_EVERY: SignedDuration = SignedDuration::from_mins(1);

impl Db {
    /// Whether sends through this account are held, and a probe is due.
    pub async fn is_probe_due(
        &self,
        provider: ProviderName,
        account: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let due: Option<i64> = read!(self, |pool| {
            sqlx::query_scalar(
                "select probe_at from provider_hold where provider = $1 and account = $2 and probe_at <= $3",
            )
            .bind(provider.as_str())
            .bind(account)
            .bind(ms(now))
            .fetch_optional(pool)
            .await
        })?;
        Ok(due.is_some())
    }

    /// Whether sends through this account are held.
    pub async fn is_held(&self, provider: ProviderName, account: &str) -> Result<bool, StoreError> {
        self.is_probe_due(provider, account, Timestamp::MAX).await
    }

    /// The probe still fails: try again later.
    pub async fn put_off_probe(&self, provider: ProviderName, account: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        within!(tx, |conn| sqlx::query(
            "update provider_hold set probe_at = $3 where provider = $1 and account = $2"
        )
        .bind(provider.as_str())
        .bind(account)
        .bind(ms(now + PROBE_EVERY))
        .execute(conn)
        .await
        .map(drop))?;
        tx.commit().await
    }

    /// The account is good again: sends go on.
    pub async fn lift_hold(&self, provider: ProviderName, account: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        within!(tx, |conn| sqlx::query(
            "delete from provider_hold where provider = $1 and account = $2"
        )
        .bind(provider.as_str())
        .bind(account)
        .execute(conn)
        .await
        .map(drop))?;
        tx.commit().await
    }

    /// Probes at the next chance: a restart may have brought better credentials.
    pub async fn probe_soon(&self, provider: ProviderName, account: &str, now: Timestamp) -> Result<(), StoreError> {
        if self.is_held(provider, account).await? {
            self.put_off_probe(provider, account, now - PROBE_EVERY).await
        } else {
            Ok(())
        }
    }
}

/// Holds all sends through an account, with one alarm a day for each code: some accounts pass the probe and still may not send.
pub(super) async fn hold(
    tx: &mut Tx,
    provider: &str,
    account: &str,
    code: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let new = within!(tx, |conn| {
        sqlx::query(
            "insert into provider_hold (provider, account, since, error_code, probe_at)
            values ($1, $2, $3, $4, $5) on conflict (provider, account) do nothing",
        )
        .bind(provider)
        .bind(account)
        .bind(ms(now))
        .bind(code)
        .bind(ms(now + PROBE_EVERY))
        .execute(conn)
        .await
        .map(|done| done.rows_affected() > 0)
    })?;
    if new {
        let code = code.map_or_else(String::new, |code| format!(" (code {code})"));
        let detail = format!("{provider} refuses our account{code}: all sends are held");
        alarms::raise(
            tx,
            AlarmKind::CredentialsRefused,
            &format!("{provider}/{account}{code}/{}", now.strftime("%F")),
            About::default(),
            detail,
            now,
        )
        .await?;
    }
    Ok(())
}
