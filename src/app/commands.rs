//! What the commands do with the same parts as the service: the nightly jobs now, and a mail that only shows that mail
//! works. Absent: reading arguments (see `cli`).

use super::{
    admin::{Content, Service},
    parts::{make_nightly, open_store},
    settings::{Config, Loaded},
};
use crate::{
    domain::{
        day::{LocalDay, to_millisecond, zone_name},
        mail::MailState,
        nightly::NightlyJob,
    },
    mail::{Mailer, Templates},
    store::{Db, KeptReport, Limits, Mails, OpenError, RunState, report_key},
    worker::{Mailed, Nightly},
};
use anyhow::{Context, bail};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use std::time::{Duration, Instant};

/// How long another process may take to make a report, or to mail it.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Between two questions about what another process does.
const PAUSE: Duration = Duration::from_millis(200);
const NO_MAIL: &str = "not mailed: `report.to` or `report.smtp_url` is not set";

/// Runs the nightly jobs of `day`, or else of the last one that is due, or with `dry_run` only shows the report that they
/// would make. Prints the report; fails if its mail did not go.
pub async fn nightly(loaded: Loaded, day: Option<LocalDay>, dry_run: bool) -> anyhow::Result<()> {
    let config = loaded.config;
    let now = to_millisecond(Timestamp::now());
    let today = LocalDay::of(now, &config.time_zone);
    let day = day.unwrap_or_else(|| config.nightly.time.newest_due(now, &config.time_zone));
    if day > today {
        bail!(
            "{day} has not come yet: today is {today} in {}",
            zone_name(&config.time_zone)
        );
    }
    if dry_run {
        return preview(&config, day, now).await;
    }
    match open_store(&config, Limits::PATIENT).await {
        Ok(store) => {
            let nightly = make_nightly(&config, &store);
            let done = if day == today {
                mail_interim(&nightly, day, now).await
            } else {
                run_jobs(&nightly, day, now).await
            };
            store.close().await;
            done
        }
        Err(OpenError::Locked(_)) if day == today => bail!(
            "`nightbell serve` has the database, and {day} is not over: look at it with `--dry-run`, or ask for a day that is over"
        ),
        Err(OpenError::Locked(_)) => ask_service(&config, day).await,
        Err(error) => Err(error.into()),
    }
}

/// Prints the report as it was made, or as it would be made now.
async fn preview(config: &Config, day: LocalDay, now: Timestamp) -> anyhow::Result<()> {
    let store = Db::open_read_only(&config.database_url).await?;
    let nightly = make_nightly(config, &store);
    match store.report_of(day).await? {
        Some(kept) => print_report(&kept.subject, kept.text.as_deref().unwrap_or_default()),
        None => {
            let mail = nightly.preview(day, now).await?;
            print_report(&mail.subject, &mail.text);
        }
    }
    Ok(())
}

fn print_report(subject: &str, text: &str) {
    println!("Subject: {subject}\n\n{text}");
}

async fn run_jobs(nightly: &Nightly, day: LocalDay, now: Timestamp) -> anyhow::Result<()> {
    // On SQLite nobody else is at work now, so what a process that died has left is ours.
    nightly.store.give_back_claims_of_the_dead().await?;
    let newest = nightly.newest_due(now).max(day);
    let before = nightly.ask(NightlyJob::Report, day, newest, now).await?;
    nightly.ask(NightlyJob::Cleanup, day, newest, now).await?;
    nightly.make_reports(newest, now).await?;
    nightly.clean_up(newest, now).await?;
    // Another process may need a moment for it.
    let kept = wait_for(LONGEST_WAIT / 6, async || Ok(nightly.store.report_of(day).await?)).await?;
    let Some(kept) = kept else {
        bail!("another process is making the report of {day}, or it was made so long ago that it is not kept any more");
    };
    print_report(&kept.subject, kept.text.as_deref().unwrap_or_default());
    if before == RunState::Done {
        eprintln!(
            "the report of {day} was made before, at {}: nothing was mailed again",
            kept.created_at
        );
        return Ok(());
    }
    match kept.mail.state {
        MailState::Sent => eprintln!("mailed"),
        MailState::Mailing => {
            send_kept(nightly, &report_key(LocalDay::parse(&kept.day).unwrap_or(day))).await?;
        }
        MailState::Kept if nightly.mailer.is_none() => eprintln!("{NO_MAIL}"),
        MailState::Kept => eprintln!("not mailed: nothing failed, and `report.when` is `failures`"),
    }
    Ok(())
}

/// What `ask` finds, asked again and again for `longest` while it finds nothing.
async fn wait_for<T>(
    longest: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let begun = Instant::now();
    loop {
        let found = ask().await?;
        if found.is_some() || begun.elapsed() > longest {
            return Ok(found);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sends one kept mail now and says what came of it.
async fn send_kept(nightly: &Nightly, key: &str) -> anyhow::Result<()> {
    let sent = wait_for(LONGEST_WAIT, async || {
        match nightly.send_next(Mails::Named(key)).await? {
            Some(Mailed::Sent) => Ok(Some(())),
            Some(Mailed::Kept(why)) => bail!(
                "{} ({}); the mail is kept, and `nightbell serve` tries again",
                why.short,
                why.detail
            ),
            // A service on the same database takes what is due within a second of its making.
            None => Ok(nightly.store.is_mail_sent(key).await?.then_some(())),
        }
    });
    sent.await?
        .context("another process has been sending the mail for a minute: look at its log")?;
    eprintln!("mailed");
    Ok(())
}

/// Mails how the day stands so far. The nightly report comes nevertheless, with everything in it.
async fn mail_interim(nightly: &Nightly, day: LocalDay, now: Timestamp) -> anyhow::Result<()> {
    let mail = nightly.preview(day, now).await?;
    print_report(&mail.subject, &mail.text);
    if nightly.mailer.is_none() {
        eprintln!("{NO_MAIL}");
        return Ok(());
    }
    let key = nightly.store.put_interim_report(&mail, now).await?;
    send_kept(nightly, &key).await
}

/// Lets the service that has the database do it.
async fn ask_service(config: &Config, day: LocalDay) -> anyhow::Result<()> {
    let service = Service::of(config)?;
    service.expect_token()?;
    let url = service.url(&["v1", "reports", &day.to_string()], &[])?;
    let ask = |method| service.ask(method, url.clone(), Content::None);
    let answer = ask(Method::POST).await?.good()?;
    let was_done = answer.status == StatusCode::OK;
    let report = wait_for(LONGEST_WAIT, async || {
        let answer = ask(Method::GET).await?;
        if was_done && answer.status == StatusCode::NOT_FOUND {
            bail!("the report of {day} was made, but so long ago that it is not kept any more");
        }
        if !answer.status.is_success() {
            return Ok(None);
        }
        let report: KeptReport = answer.read()?;
        let waits = report.mail.state == MailState::Mailing && report.mail.last_error.is_none();
        Ok((!waits).then_some(report))
    });
    let report = report.await?.with_context(|| {
        let address = service.address();
        format!("the service at {address} has not made the report yet: look at its log")
    })?;
    show(report, was_done)
}

/// Says what came of the report that the service made.
fn show(report: KeptReport, was_done: bool) -> anyhow::Result<()> {
    print_report(&report.subject, &report.text.unwrap_or_default());
    match report.mail.state {
        MailState::Sent if was_done => eprintln!("the report was made before: nothing was mailed again"),
        MailState::Sent => eprintln!("mailed"),
        MailState::Mailing => bail!(
            "{}; the mail is kept, and the service tries again",
            report.mail.last_error.unwrap_or_default()
        ),
        MailState::Kept => eprintln!("not mailed: nothing failed, or no mail is configured"),
    }
    Ok(())
}

/// Sends a mail to `address` that only shows that mail works.
pub async fn send_test_mail(loaded: Loaded, address: &str) -> anyhow::Result<()> {
    let Some(mut settings) = loaded.config.nightly.mail else {
        bail!("`report.smtp_url` and `report.to` must be set");
    };
    settings.addresses.to = address
        .parse()
        .with_context(|| format!("`{address}` is not a mail address"))?;
    settings.addresses.reply_to = settings.addresses.to.clone();
    let mailer = Mailer::new(&settings.server, settings.addresses);
    let mail = Templates::test(mailer.server());
    let id = format!("test.{}", uuid::Uuid::new_v4().simple());
    let outcome = mailer.send(&mail, &id, Timestamp::now(), &[]).await;
    if let Some(why) = outcome
        .put_off
        .or_else(|| outcome.refused.into_iter().next().map(|(_, why)| why))
    {
        bail!("{} ({})", why.short, why.detail);
    }
    println!("{} took the mail for {address}", mailer.server());
    Ok(())
}
