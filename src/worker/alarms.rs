//! Makes mails of the alarms that were raised, once a second; at most one mail a minute. Absent: raising them
//! (`store::alarms`) and sending the mails (`outbox`).

use super::{
    Nightly,
    context::{EVERY_SECOND, now},
    workers::TimedJob,
};
use crate::store::StoreError;
use std::sync::Arc;

/// A mail of more alarms than this is read by nobody; the others go with the next one.
const ALARMS_A_MAIL: usize = 50;

pub fn job(nightly: &Arc<Nightly>) -> TimedJob {
    TimedJob::new("make mails of alarms", EVERY_SECOND, nightly, make_mail)
}

async fn make_mail(nightly: Arc<Nightly>) -> Result<(), StoreError> {
    let now = now();
    nightly.store.check_opt_outs(&nightly.rules.fallback, now).await?;
    if nightly.mailer.is_none() {
        return Ok(());
    }
    let most = i64::try_from(ALARMS_A_MAIL + 1).unwrap_or(i64::MAX);
    let mut alarms = nightly.store.alarms_to_mail(most, now).await?;
    if alarms.is_empty() {
        return Ok(());
    }
    let more = alarms.len() > ALARMS_A_MAIL;
    alarms.truncate(ALARMS_A_MAIL);
    let mail = nightly.templates.alarms(&alarms, more, &nightly.rules.time_zone);
    nightly.store.put_alarms(&mail, &alarms, now).await?;
    Ok(())
}
