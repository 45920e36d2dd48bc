//! Sends the mails that are kept, until the mail server took them. Absent: making them (see `nightly`).

use super::{nightly::Night, now, timer::every_second};
use crate::{
    domain::{day::after, letter},
    mail::{self, Mailer, Outcome, Why},
    store::{Mail, StoreError},
};
use jiff::SignedDuration;
use std::sync::Arc;
use tokio::sync::watch;

/// Sends until `stop` turns true; the talk that is under way then ends by itself.
pub async fn run(night: Arc<Night>, stop: watch::Receiver<bool>) {
    every_second("send mail", night, stop, |night| async move {
        night.post_one(None).await.map(drop)
    })
    .await;
}

/// What became of one mail.
pub enum Posted {
    /// The server took it for everybody.
    Sent,
    /// It is kept and tried again later.
    Kept(Why),
}

impl Night {
    /// Sends the mail that has waited longest, or the one named by `key`. `None` if none is due.
    pub async fn post_one(&self, key: Option<&str>) -> Result<Option<Posted>, StoreError> {
        let Some(mailer) = &self.mailer else {
            return Ok(None);
        };
        let Some(mail) = self.store.take_mail(&self.owner, key, lease(), now()).await? else {
            return Ok(None);
        };
        let outcome = mailer
            .send(&mail.letter, &mail.message_id, mail.created_at, &mail.settled)
            .await;
        self.record(mailer, mail, outcome).await.map(Some)
    }

    async fn record(&self, mailer: &Mailer, mut mail: Mail, outcome: Outcome) -> Result<Posted, StoreError> {
        let kind = mail.letter.kind;
        let has_arrived = !outcome.accepted.is_empty() || !mail.settled.is_empty();
        let mut settled = outcome.accepted;
        let mut why = outcome.put_off;
        for (address, refusal) in outcome.refused {
            if has_arrived {
                let address_masked = mail::mask_address(&address);
                tracing::warn!(mail = %kind, address = address_masked, reason = refusal.detail, "the mail server refuses an address of `report.to`; the others have the mail");
                settled.push(address);
            } else {
                why = Some(refusal);
            }
        }
        let Some(why) = why else {
            let tries = mail.tries;
            self.store.mail_sent(mail, now()).await?;
            tracing::info!(mail = %kind, tries, server = mailer.server(), "the mail server took the mail");
            return Ok(Posted::Sent);
        };
        if !settled.is_empty() {
            self.store.mail_settled(&mut mail, &settled).await?;
        }
        let wait = letter::retry_after(mail.tries);
        tracing::warn!(mail = %kind, tries = mail.tries, retry_in_s = wait.as_secs(), reason = why.detail, "{}; the mail is kept and will be tried again", why.short);
        self.store.put_off_mail(mail, &why.short, after(now(), wait)).await?;
        Ok(Posted::Kept(why))
    }
}

/// Longer than any talk, so that no other process sends the same mail meanwhile. A talk for each address may follow the
/// first, but no list of admins is so long that slow servers fill it.
fn lease() -> SignedDuration {
    SignedDuration::try_from(mail::TALK_TIME).unwrap_or(SignedDuration::from_mins(2)) * 3
}
