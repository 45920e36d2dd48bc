//! Sends the mails that are kept, until the mail server took them; whether one is due is checked once a second. Alarms go
//! beside the rest, since a server may take minutes for a report. Absent: making them (see `nightly`, `alarms`).

use super::{
    context::{EVERY_SECOND, now},
    nightly::Nightly,
    workers::TimedJob,
};
use crate::{
    domain::{day::after, mail::retry_after},
    mail::{self, Mailer, Outcome, Why},
    store::{Mail, Mails, StoreError},
};
use jiff::SignedDuration;
use std::{sync::Arc, time::Duration};

/// How long a mail that is under way at a stop may take to end: cut off between the server's yes and our note, it would go
/// twice.
const DRAIN: Duration = Duration::from_secs(10);

pub fn job(name: &'static str, nightly: &Arc<Nightly>, which: Mails<'static>) -> TimedJob {
    let job = TimedJob::new(name, EVERY_SECOND, nightly, move |nightly| async move {
        nightly.send_next(which).await.map(drop)
    });
    job.drained_for(DRAIN)
}

/// For a minute, or as long as the database takes to say no: within the lease.
const NOTE_TRIES: u32 = 60;
const NOTE_PAUSE: Duration = Duration::from_secs(1);

/// What became of one mail.
pub enum Mailed {
    /// The server took it for everybody.
    Sent,
    /// It is kept and tried again later.
    Kept(Why),
}

impl Nightly {
    /// Sends the mail of this kind that has waited longest. `None` if none is due.
    pub async fn send_next(&self, which: Mails<'_>) -> Result<Option<Mailed>, StoreError> {
        let Some(mailer) = &self.mailer else {
            return Ok(None);
        };
        let Some(mail) = self.store.take_mail(&self.owner, which, lease(), now()).await? else {
            return Ok(None);
        };
        let outcome = mailer
            .send(&mail.content, &mail.message_id, mail.created_at, &mail.settled)
            .await;
        self.record(mailer, mail, outcome).await.map(Some)
    }

    async fn record(&self, mailer: &Mailer, mut mail: Mail, outcome: Outcome) -> Result<Mailed, StoreError> {
        let kind = mail.content.kind;
        let has_arrived = !outcome.accepted.is_empty() || !mail.settled.is_empty();
        let mut settled = outcome.accepted;
        let mut why = outcome.put_off;
        for (address, refusal) in outcome.refused {
            if has_arrived {
                let address_masked = mail::mask_address(&address);
                tracing::warn!(mail = %kind, address = address_masked, reason = refusal.detail, "the mail server refuses an address; the others have the mail");
                settled.push(address);
            } else {
                why = Some(refusal);
            }
        }
        mail.settled.extend(settled);
        let Some(why) = why else {
            self.note(&mail, None).await?;
            tracing::info!(mail = %kind, tries = mail.tries, server = mailer.server(), "the mail server took the mail");
            return Ok(Mailed::Sent);
        };
        let wait = retry_after(mail.tries);
        tracing::warn!(mail = %kind, tries = mail.tries, retry_in_s = wait.as_secs(), reason = why.detail, "{}; the mail is kept and will be tried again", why.short);
        self.note(&mail, Some((&why, wait))).await?;
        Ok(Mailed::Kept(why))
    }

    /// Notes that a mail went, or why not and when to try again; however often that takes while the mail is ours, since
    /// what is not noted is sent again.
    async fn note(&self, mail: &Mail, put_off: Option<(&Why, SignedDuration)>) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let noted = match put_off {
                None => self.store.mail_sent(mail, now()).await,
                Some((why, wait)) => self.store.put_off_mail(mail, &why.short, after(now(), wait)).await,
            };
            match noted {
                Err(error) if tries < NOTE_TRIES => {
                    tries += 1;
                    tracing::warn!(%error, "cannot note what came of a mail; will try again");
                    tokio::time::sleep(NOTE_PAUSE).await;
                }
                result => return result,
            }
        }
    }
}

/// Longer than any session and what is noted after it, so that no other process sends the same mail meanwhile.
fn lease() -> SignedDuration {
    let session = SignedDuration::try_from(mail::SESSION_TIME).unwrap_or(SignedDuration::from_mins(5));
    session + SignedDuration::from_mins(2)
}
