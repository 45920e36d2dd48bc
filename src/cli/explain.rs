//! `explain`: why an SMS was, or was not, sent for a ticket, in words. First the story of every alert of the ticket, then what
//! stands in the way of what is still owed; or, where there is no alert, what may be the cause.

use super::{
    common::{FAILED, Shown, print, print_json, with_admin},
    shapes::{Alert, DailyLimit, Delivery},
    story,
    table::{Listed, local},
};
use crate::{
    app::{Access, Admin, Loaded},
    domain::{delivery::State, report::plural},
};
use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

/// A ticket has one alert for each source; more than this are another helpdesk's mistake.
const MAX_ALERTS: usize = 100;
/// Among so many of the newest alerts a ticket is looked for by its number, which no index finds.
const MAX_SEARCHED: usize = 1_000;

#[derive(Args)]
pub struct Explain {
    /// The ticket's id in the helpdesk, or else its number
    #[arg(value_name = "TICKET")]
    ticket: String,
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

pub fn run(loaded: Loaded, explain: Explain) -> anyhow::Result<ExitCode> {
    with_admin(loaded, Access::Read, async |admin, loaded| {
        let alerts = explain.find(admin, explain.source.as_deref()).await?;
        let now = Now::ask(admin).await?;
        if explain.shown.json {
            print_json(&json!({
                "ticket": explain.ticket,
                "alerts": alerts,
                "limit": now.limit,
                "readiness": now.readiness,
            }))?;
        } else if alerts.is_empty() {
            print(explain.say_nothing_came(admin, &now).await?)?;
        } else {
            print(tell(&alerts, &now, loaded)?)?;
        }
        Ok(if alerts.is_empty() {
            ExitCode::from(FAILED)
        } else {
            ExitCode::SUCCESS
        })
    })
}

impl Explain {
    /// The ticket's alerts with everything that happened, newest first.
    async fn find(&self, admin: &Admin, source: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let path = ["v1", "alerts"];
        let of_source: Vec<(&str, &str)> = source.map(|source| ("source", source)).into_iter().collect();
        let of_ticket = [of_source.as_slice(), &[("ticket_id", &self.ticket)]].concat();
        let mut found = Listed::read(admin, &path, &of_ticket, MAX_ALERTS).await?.items;
        if found.is_empty() {
            found = Listed::read(admin, &path, &of_source, MAX_SEARCHED).await?.items;
            found.retain(|alert| alert["ticket_number"] == self.ticket.as_str());
        }
        let mut alerts = Vec::new();
        for alert in found {
            let id = alert["id"].as_str().unwrap_or_default();
            let answer = admin.get(&["v1", "alerts", id], self.shown.query()).await?.good()?;
            alerts.push(answer.read()?);
        }
        Ok(alerts)
    }

    /// There is no alert: what may be the cause.
    async fn say_nothing_came(&self, admin: &Admin, now: &Now) -> anyhow::Result<String> {
        let ticket = &self.ticket;
        let mut causes = Vec::new();
        if let Some(source) = &self.source {
            let others = self.find(admin, None).await?;
            let names: Vec<&str> = others.iter().filter_map(|alert| alert["source"].as_str()).collect();
            if !names.is_empty() {
                let names = names.join(", ");
                return Ok(format!(
                    "There is no alert of ticket {ticket} from source {source}, but from {names}: ask without `--source`.\n"
                ));
            }
            causes.push(format!(
                "Other sources than {source} have no alert of this ticket either."
            ));
        }
        causes.extend([
            "The helpdesk sent no event, or it was refused: look in the helpdesk for what `POST /v1/events` was answered."
                .to_owned(),
            "The ticket was not critical: other urgencies are answered `ignored`, and leave nothing behind.".to_owned(),
            format!(
                "It has another id: `ticket.id` of the events counts. Among the newest {MAX_SEARCHED} alerts none has the \
                 number {ticket} either."
            ),
            format!(
                "This is not the database that the helpdesk's events go to: `nightbell config check` shows `database_url` \
                 and `listen`. {}",
                now.service_in_words(admin)
            ),
        ]);
        let causes: String = causes.iter().map(|cause| format!("- {cause}\n")).collect();
        Ok(format!(
            "There is no alert of ticket {ticket}, so nobody was texted for it. What may be the cause:\n{causes}"
        ))
    }
}

/// What decides now over what is still owed.
struct Now {
    limit: Value,
    /// `None` if no service answers.
    readiness: Option<Value>,
}

impl Now {
    async fn ask(admin: &Admin) -> anyhow::Result<Self> {
        Ok(Self {
            limit: admin.get(&["v1", "limit"], &[]).await?.good()?.read()?,
            readiness: admin.readiness().await?,
        })
    }

    fn service_in_words(&self, admin: &Admin) -> String {
        let address = admin.address();
        match self.readiness {
            Some(_) => format!("A service answers at {address}."),
            None => format!("No service answers at {address}."),
        }
    }

    /// What keeps every message from being sent.
    fn trouble(&self) -> Option<String> {
        let Some(readiness) = &self.readiness else {
            return Some("nothing is sent while `nightbell serve` does not run: start it".to_owned());
        };
        let details = &readiness["details"];
        let said = |part: &str| details[part]["status"].as_str().unwrap_or("unknown").to_owned();
        match (said("database").as_str(), said("provider").as_str()) {
            ("ok", "ok") => None,
            ("ok", provider) => Some(format!("the provider {provider}")),
            (database, _) => Some(format!("the database: {database}")),
        }
    }
}

/// The story of every alert, and what stands in the way.
fn tell(alerts: &[Value], now: &Now, loaded: &Loaded) -> anyhow::Result<String> {
    let zone = &loaded.config.time_zone;
    let mut told = Vec::new();
    for alert in alerts {
        let alert = Alert::deserialize(alert)?;
        let mut text = story::head(&alert, zone);
        if let Some(at) = alert.imported_at {
            text += &format!(
                "\nThe system before Nightbell texted for this ticket (taken over {}), so it never causes a message again.\n",
                local(at, zone)
            );
        } else if alert.deliveries.is_empty() {
            text += "\nThe event named nobody, and the source has no `fallback_recipients`: there is nobody to tell.\n";
        }
        for delivery in &alert.deliveries {
            text += "\n";
            text += &story::of_delivery(delivery, zone);
            for obstacle in obstacles(delivery, now, loaded)? {
                text += &format!("  Now: {obstacle}\n");
            }
        }
        text += &format!("\n{}\n", in_one_sentence(&alert));
        told.push(text);
    }
    Ok(told.join("\n\n"))
}

/// What has to happen before a delivery can end well; nothing if it has ended.
fn obstacles(delivery: &Delivery, now: &Now, loaded: &Loaded) -> anyhow::Result<Vec<String>> {
    let mut obstacles = Vec::new();
    match delivery.state() {
        Some(State::Pending) => {
            let waits = delivery.due_at.filter(|at| *at > Timestamp::now());
            let next = waits.map(|at| format!("the next try is at {}", local(at, &loaded.config.time_zone)));
            obstacles.extend(next);
            obstacles.extend(now.trouble());
        }
        Some(State::Deferred) => {
            let limit = DailyLimit::deserialize(&now.limit)?.in_words();
            obstacles.push(format!(
                "{limit}. It goes when a slot is free, or tomorrow; `nightbell limit set N` raises the limit"
            ));
            obstacles.extend(now.trouble());
        }
        Some(State::Sending | State::Unknown) => obstacles.extend(now.trouble()),
        Some(State::Accepted | State::Sent) => {
            obstacles.push("whether the phone got it is not known yet: the carrier has not said".to_owned());
        }
        Some(
            State::Unconfirmed
            | State::Delivered
            | State::Undelivered
            | State::Failed
            | State::Suppressed
            | State::Canceled
            | State::Expired,
        )
        | None => {}
    }
    Ok(obstacles)
}

/// Who was told, all in all.
fn in_one_sentence(alert: &Alert) -> String {
    let count = |belongs: fn(State) -> bool| {
        let states = alert.deliveries.iter().filter_map(Delivery::state);
        states.filter(|state| belongs(*state)).count()
    };
    let delivered = count(|state| state == State::Delivered);
    let open = count(State::is_open);
    let ended = alert.deliveries.len() - delivered - open;
    let taken_care_of = match alert.acknowledged_at {
        Some(_) => " Somebody acknowledged it.",
        None => "",
    };
    match (alert.deliveries.len(), delivered, open) {
        (0, ..) if alert.imported_at.is_some() => {
            "In short: the system before texted, and Nightbell does not.".to_owned()
        }
        (0, ..) => format!("In short: nobody was texted.{taken_care_of}"),
        (_, 0, 0) => format!("In short: no message reached anybody.{taken_care_of}"),
        (_, delivered, open) => {
            let is_test = alert.deliveries.iter().any(Delivery::is_test);
            let test = if is_test {
                " In test mode: what counts as delivered was only written to the log."
            } else {
                ""
            };
            format!(
                "In short: {delivered} message{} delivered, {open} under way or not certain, {ended} not delivered.{taken_care_of}{test}",
                plural(delivered)
            )
        }
    }
}
