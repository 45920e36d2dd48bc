//! `send-test`: one SMS or one mail, to see that it arrives.

use super::{
    common::{FAILED, faults_in, print, print_json, read_phone, report, wait_for, with_admin},
    shapes::Delivery,
    table::local,
};
use crate::{
    app::{self, Access, Admin, AdminError, Content, Loaded},
    domain::delivery::State,
};
use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Between two looks at what became of it.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Args)]
#[group(required = true, multiple = false, id = "way")]
pub struct SendTest {
    /// The number to send an SMS to, through the running service; it counts against the daily limit
    #[arg(long, value_name = "PHONE", group = "way", value_parser = read_phone)]
    to: Option<String>,
    /// The address to send a mail to, through `report.smtp_url`
    #[arg(long, value_name = "ADDRESS", group = "way")]
    mail: Option<String>,
    #[command(flatten)]
    sms: Sms,
}

#[derive(Args)]
struct Sms {
    /// What the SMS says
    #[arg(
        long,
        default_value = "Nightbell test: if you can read this, critical tickets reach this phone.",
        conflicts_with = "mail"
    )]
    text: String,
    /// How long to wait for what becomes of the SMS
    #[arg(long, value_name = "SECONDS", default_value_t = 30, conflicts_with = "mail")]
    wait: u64,
    /// Print the delivery as JSON at the end
    #[arg(long, conflicts_with = "mail")]
    json: bool,
}

pub fn run(loaded: Loaded, test: SendTest) -> anyhow::Result<ExitCode> {
    let SendTest { to, mail, sms } = test;
    if let Some(address) = mail {
        let faults = faults_in(&loaded, &["report."]);
        if !faults.is_empty() {
            return Ok(report(&faults));
        }
        return wait_for(app::send_test_mail(loaded, &address)).map(|()| ExitCode::SUCCESS);
    }
    let phone = to.context("`--to` or `--mail` says where to send it")?;
    with_admin(loaded, Access::Service, async |admin, loaded| {
        send(admin, loaded, &phone, &sms).await
    })
}

async fn send(admin: &Admin, loaded: &Loaded, phone: &str, sms: &Sms) -> anyhow::Result<ExitCode> {
    let message = json!({"phone": phone, "text": sms.text});
    let path = ["v1", "messages"];
    let answer = admin.ask(Method::POST, &path, &[], Content::Json(&message)).await?;
    if answer.status.as_u16() == 404 {
        let text = "the service takes no messages: it is of an earlier version than this program";
        return Err(AdminError::No(text.to_owned()).into());
    }
    let made: Value = answer.good()?.read()?;
    let id = made["id"].as_str().context("the service named no delivery")?.to_owned();
    let document = follow(admin, loaded, &id, sms).await?;
    let delivery = Delivery::deserialize(&document)?;
    let state = delivery.state();
    if sms.json {
        print_json(&document)?;
    } else {
        print(summary(&delivery, sms.wait))?;
    }
    // Handed over is as much as can be known where the provider's receipts do not come in.
    let went = matches!(state, Some(State::Accepted | State::Sent | State::Delivered));
    Ok(if went {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

/// Prints what happens to it until it has ended, or for as long as is asked for. Returns how it stands then.
async fn follow(admin: &Admin, loaded: &Loaded, id: &str, sms: &Sms) -> anyhow::Result<Value> {
    let begun = Instant::now();
    let mut told = 0;
    loop {
        let document: Value = admin.get(&["v1", "deliveries", id], &[]).await?.good()?.read()?;
        let delivery = Delivery::deserialize(&document)?;
        if !sms.json {
            for entry in delivery.timeline.iter().skip(told) {
                let at = local(entry.at, &loaded.config.time_zone);
                print(format!("{at}  {}\n", entry.text))?;
            }
            told = told.max(delivery.timeline.len());
        }
        let has_ended = delivery.state().is_some_and(|state| !state.is_open());
        if has_ended || begun.elapsed() >= Duration::from_secs(sms.wait) {
            return Ok(document);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn summary(delivery: &Delivery, wait: u64) -> String {
    let mut text = format!("{}\n", delivery.state_in_words());
    match delivery.state() {
        Some(state) if state.is_open() => {
            text += &format!(
                "That is all there is after {wait} s; what becomes of it: `nightbell delivery show {}`\n",
                delivery.id
            );
        }
        Some(_) | None => {}
    }
    if let Some(explanation) = delivery.explanation() {
        text += &format!(
            "What it means: {}\nWhat to do: {}\n",
            explanation.meaning, explanation.advice
        );
    }
    text
}
