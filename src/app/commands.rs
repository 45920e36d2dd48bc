//! What the commands do with the same parts as the service: the nightly jobs now, and a mail that only shows that mail
//! works. Absent: reading arguments (see `cli`).

use super::{
    parts::{make_missing_tokens, make_nightly},
    settings::{Config, Loaded},
};
use crate::{
    domain::{
        day::{LocalDay, to_millisecond},
        mail::MailState,
        nightly::NightlyJob,
    },
    mail::{Mailer, Templates},
    store::{Db, Limits, Mails, OpenError, RunState, report_key},
    worker::{Mailed, Nightly},
};
use anyhow::{Context, bail};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::time::{Duration, Instant};

/// What `nightbell nightly` is asked for.
pub struct ReportRequest {
    /// `None`: the last day whose jobs are due.
    pub day: Option<LocalDay>,
    /// Only print.
    pub dry_run: bool,
}

/// How long another process may take to make a report, or to mail it.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Between two looks at what another process does.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs the nightly jobs now, or shows the report that they would make. Prints the report; fails if its mail did not go.
pub async fn nightly(loaded: Loaded, request: ReportRequest) -> anyhow::Result<()> {
    let config = loaded.config;
    let now = to_millisecond(Timestamp::now());
    let today = LocalDay::of(now, &config.time_zone);
    let day = request
        .day
        .unwrap_or_else(|| config.nightly.time.newest_due(now, &config.time_zone));
    if day > today {
        bail!("{day} has not come yet: today is {today} in {}", zone_name(&config));
    }
    if request.dry_run {
        return preview(&config, day, now).await;
    }
    match Db::open(&config.database_url, Limits::PATIENT).await {
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
        Err(OpenError::Locked(_)) => ask_service(config, day).await,
        Err(error) => Err(error.into()),
    }
}

fn zone_name(config: &Config) -> &str {
    config.time_zone.iana_name().unwrap_or("UTC")
}

/// Prints the report as it was made, or as it would be made now.
async fn preview(config: &Config, day: LocalDay, now: Timestamp) -> anyhow::Result<()> {
    let store = Db::open_read_only(&config.database_url).await?;
    let nightly = make_nightly(config, &store);
    match store.report_of(day).await.map_err(explained)? {
        Some(kept) => print_report(&kept.subject, kept.text.as_deref().unwrap_or_default()),
        None => {
            let mail = nightly.preview(day, now).await.map_err(explained)?;
            print_report(&mail.subject, &mail.text);
        }
    }
    Ok(())
}

fn print_report(subject: &str, text: &str) {
    println!("Subject: {subject}\n\n{text}");
}

/// sqlx keeps its causes in a chain that repeats itself; the log's wording serves here too.
fn explained(error: crate::store::StoreError) -> anyhow::Error {
    anyhow::anyhow!(error.explain())
}

async fn run_jobs(nightly: &Nightly, day: LocalDay, now: Timestamp) -> anyhow::Result<()> {
    // On SQLite nobody else is at work now, so what a process that died has left is ours.
    nightly.store.give_back_claims_of_the_dead().await.map_err(explained)?;
    let newest = nightly.newest_due(now).max(day);
    let before = nightly
        .ask(NightlyJob::Report, day, newest, now)
        .await
        .map_err(explained)?;
    nightly
        .ask(NightlyJob::Cleanup, day, newest, now)
        .await
        .map_err(explained)?;
    nightly.make_reports(newest, now).await.map_err(explained)?;
    nightly.clean_up(newest, now).await.map_err(explained)?;
    let Some(kept) = await_report(nightly, day).await? else {
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
    if kept.mail.state == MailState::Sent {
        eprintln!("mailed");
        return Ok(());
    }
    send_kept(
        nightly,
        &report_key(LocalDay::parse(&kept.day).unwrap_or(day)),
        kept.mail.state == MailState::Mailing,
    )
    .await
}

/// The report of a day, for which another process may need a moment.
async fn await_report(nightly: &Nightly, day: LocalDay) -> anyhow::Result<Option<crate::store::KeptReport>> {
    let begun = Instant::now();
    loop {
        let kept = nightly.store.report_of(day).await.map_err(explained)?;
        if kept.is_some() || begun.elapsed() > LONGEST_WAIT / 6 {
            return Ok(kept);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sends one kept mail now and says what came of it.
async fn send_kept(nightly: &Nightly, key: &str, is_mail: bool) -> anyhow::Result<()> {
    if !is_mail {
        eprintln!(
            "not mailed: {}",
            if nightly.mailer.is_some() {
                "nothing failed, and `report.when` is `failures`"
            } else {
                "`report.to` or `report.smtp_url` is not set"
            }
        );
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        match nightly.send_next(Mails::Named(key)).await.map_err(explained)? {
            Some(Mailed::Sent) => break,
            Some(Mailed::Kept(why)) => bail!(
                "{} ({}); the mail is kept, and `nightbell serve` tries again",
                why.short,
                why.detail
            ),
            // A service on the same database takes what is due within a second of its making.
            None if nightly.store.is_mail_sent(key).await.map_err(explained)? => break,
            None if begun.elapsed() > LONGEST_WAIT => {
                bail!("another process has been sending the mail for a minute: look at its log")
            }
            None => tokio::time::sleep(PAUSE).await,
        }
    }
    eprintln!("mailed");
    Ok(())
}

/// Mails how the day stands so far. The nightly report comes nevertheless, with everything in it.
async fn mail_interim(nightly: &Nightly, day: LocalDay, now: Timestamp) -> anyhow::Result<()> {
    let mail = nightly.preview(day, now).await.map_err(explained)?;
    print_report(&mail.subject, &mail.text);
    if nightly.mailer.is_none() {
        return send_kept(nightly, "", false).await;
    }
    let key = nightly.store.put_interim_report(&mail, now).await.map_err(explained)?;
    send_kept(nightly, &key, true).await
}

/// Lets the service that has the database do it.
async fn ask_service(mut config: Config, day: LocalDay) -> anyhow::Result<()> {
    if !make_missing_tokens(&mut config)
        .iter()
        .all(|(purpose, _)| *purpose != "admin")
    {
        bail!(
            "`nightbell serve` has the database, and without `auth.admin_tokens` it cannot be asked: set a token, or look with `--dry-run`"
        );
    }
    let address = config.listen_admin.unwrap_or(config.listen);
    let url = format!("http://{address}/v1/reports/{day}");
    let token = config
        .admin_tokens
        .first()
        .map(|token| token.expose_secret().to_owned())
        .unwrap_or_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(15))
        .build()?;
    let ask = |method| client.request(method, &url).bearer_auth(&token).send();
    let unreachable = || format!("`nightbell serve` has the database but does not answer at {address}");
    let answer = ask(reqwest::Method::POST).await.with_context(unreachable)?;
    let was_done = answer.status() == reqwest::StatusCode::OK;
    if !answer.status().is_success() {
        bail!(
            "`nightbell serve` at {address} answered {}: {}",
            answer.status(),
            answer.text().await.unwrap_or_default()
        );
    }
    let begun = Instant::now();
    loop {
        let answer = ask(reqwest::Method::GET).await.with_context(unreachable)?;
        let answer_is_absent = answer.status() == reqwest::StatusCode::NOT_FOUND;
        if answer.status().is_success() {
            let report: Value = serde_json::from_str(&answer.text().await?)
                .context("the service answered something that is not JSON")?;
            let waits = report["mail"]["state"] == "mailing" && report["mail"]["last_error"].is_null();
            if !waits {
                return show(&report, was_done);
            }
        }
        if was_done && answer_is_absent {
            bail!("the report of {day} was made, but so long ago that it is not kept any more");
        }
        if begun.elapsed() > LONGEST_WAIT {
            bail!("the service at {address} has not made the report yet: look at its log");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says what came of the report that the service made.
fn show(report: &Value, was_done: bool) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    print_report(&text(&report["subject"]), &text(&report["text"]));
    let mail = &report["mail"];
    match mail["state"].as_str() {
        Some("sent") if was_done => eprintln!("the report was made before: nothing was mailed again"),
        Some("sent") => eprintln!("mailed"),
        Some("mailing") => bail!(
            "{}; the mail is kept, and the service tries again",
            text(&mail["last_error"])
        ),
        _ => eprintln!("not mailed: nothing failed, or no mail is configured"),
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
