//! `webhook`: the endpoints that hear of lifecycle events.

use super::{
    common::{FAILED, print, print_json, with_admin},
    table::{local, or_dash, table},
};
use crate::{
    app::{Access, Admin, Content, Loaded},
    domain::report::plural,
    notify::Secret,
};
use clap::Subcommand;
use jiff::{Timestamp, tz::TimeZone};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{fmt::Write, process::ExitCode};

#[derive(Subcommand)]
pub enum Command {
    /// Show the endpoints: which take events, and how much the others have not heard of
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show an endpoint with its newest 50 tries
    Show {
        /// The endpoint, as the configuration names it
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Post an event that says nothing, and show what came back
    Test {
        /// The endpoint, as the configuration names it
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Post what is kept since a time once more
    Replay {
        /// The endpoint, as the configuration names it
        name: String,
        /// The time, like `2026-11-22T00:00:00Z`
        #[arg(long, value_name = "TIME")]
        from: Timestamp,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Go on with an endpoint where it stopped
    Enable {
        /// The endpoint, as the configuration names it
        name: String,
    },
    /// Post nothing to an endpoint until it is enabled; what happens is kept
    Disable {
        /// The endpoint, as the configuration names it
        name: String,
    },
    /// Print a new signing secret
    Secret,
}

#[derive(Deserialize)]
struct Webhooks {
    items: Vec<Webhook>,
}

#[derive(Deserialize)]
struct Webhook {
    name: String,
    kind: Option<String>,
    host: Option<String>,
    waiting: i64,
    oldest_waiting_at: Option<Timestamp>,
    failing_since: Option<Timestamp>,
    disabled_at: Option<Timestamp>,
    last_error: Option<String>,
    succeeded_at: Option<Timestamp>,
    #[serde(default)]
    tries: Vec<Try>,
}

#[derive(Deserialize)]
struct Try {
    at: Timestamp,
    event_id: String,
    event_type: String,
    outcome: String,
    status: Option<i64>,
    error: Option<String>,
    took_ms: i64,
}

#[derive(Deserialize)]
struct Replay {
    events: i64,
}

#[derive(Deserialize)]
struct Tried {
    taken: bool,
    status: Option<u16>,
    error: Option<String>,
    took_ms: u64,
}

impl Webhook {
    fn in_words(&self) -> String {
        let why = self
            .last_error
            .as_deref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        match (&self.kind, self.disabled_at, self.failing_since) {
            (None, _, _) => "not configured any more".to_owned(),
            (Some(_), Some(since), _) => format!("disabled since {since}{why}"),
            (Some(_), None, Some(since)) => format!("takes nothing since {since}{why}"),
            (Some(_), None, None) if self.last_error.is_some() => format!("did not take an event{why}"),
            (Some(_), None, None) => "ok".to_owned(),
        }
    }
}

pub fn run(loaded: Loaded, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { json } => with_admin(loaded, Access::Read, async |admin, loaded| {
            let answer = admin.get(&["v1", "webhooks"], &[]).await?.good()?;
            if json {
                print_json(&answer.read::<Value>()?)?;
            } else {
                print(list(&answer.read::<Webhooks>()?.items, &loaded.config.time_zone))?;
            }
            Ok(ExitCode::SUCCESS)
        }),
        Command::Show { name, json } => with_admin(loaded, Access::Read, async |admin, loaded| {
            let answer = admin.get(&["v1", "webhooks", &name], &[]).await?.good()?;
            if json {
                print_json(&answer.read::<Value>()?)?;
            } else {
                print(show(&answer.read()?, &loaded.config.time_zone)?)?;
            }
            Ok(ExitCode::SUCCESS)
        }),
        // Nothing is written down.
        Command::Test { name, json } => {
            with_admin(loaded, Access::Read, async |admin, _| test(admin, &name, json).await)
        }
        Command::Replay { name, from, json } => with_admin(loaded, Access::Change, async |admin, _| {
            replay(admin, &name, from, json).await
        }),
        Command::Enable { name } => with_admin(loaded, Access::Change, async |admin, _| {
            switch(admin, &name, "enable", "goes on where it stopped").await
        }),
        Command::Disable { name } => with_admin(loaded, Access::Change, async |admin, _| {
            switch(
                admin,
                &name,
                "disable",
                "hears of nothing until it is enabled; what happens is kept",
            )
            .await
        }),
        Command::Secret => {
            print(format!("{}\n", Secret::make()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(webhooks: &[Webhook], zone: &TimeZone) -> String {
    if webhooks.is_empty() {
        return "No endpoint hears of lifecycle events: set `webhooks.<name>.url`.\n".to_owned();
    }
    let rows = webhooks.iter().map(|webhook| {
        vec![
            webhook.name.clone(),
            or_dash(webhook.kind.as_ref()),
            or_dash(webhook.host.as_ref()),
            webhook.waiting.to_string(),
            or_dash(webhook.succeeded_at.map(|at| local(at, zone))),
            webhook.in_words(),
        ]
    });
    table(&["endpoint", "kind", "host", "waiting", "last taken", "state"], rows)
}

fn show(webhook: &Webhook, zone: &TimeZone) -> anyhow::Result<String> {
    let mut text = format!("{} ({})\n", webhook.name, or_dash(webhook.host.as_ref()));
    writeln!(text, "{}", webhook.in_words())?;
    let oldest = webhook
        .oldest_waiting_at
        .map(|at| format!(", the oldest of {}", local(at, zone)));
    let waiting = webhook.waiting;
    let s = plural(usize::try_from(waiting).unwrap_or_default());
    writeln!(text, "{waiting} event{s} waiting{}", oldest.unwrap_or_default())?;
    if !webhook.tries.is_empty() {
        let rows = webhook.tries.iter().map(|one| {
            vec![
                local(one.at, zone),
                one.event_type.clone(),
                one.outcome.clone(),
                or_dash(one.status),
                format!("{} ms", one.took_ms),
                one.event_id.clone(),
                or_dash(one.error.as_ref()),
            ]
        });
        let titles = ["at", "type", "outcome", "status", "took", "event", "error"];
        write!(text, "\n{}", table(&titles, rows))?;
    }
    Ok(text)
}

async fn test(admin: &Admin, name: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let path = ["v1", "webhooks", name, "test"];
    let answer = admin.ask(Method::POST, &path, &[], Content::None).await?.good()?;
    let tried: Tried = answer.read()?;
    let status = tried.status.map(|status| format!(" ({status})")).unwrap_or_default();
    if as_json {
        print_json(&answer.read::<Value>()?)?;
    } else if tried.taken {
        print(format!("`{name}` took a test event in {} ms{status}\n", tried.took_ms))?;
    } else {
        eprintln!(
            "nightbell: `{name}` did not take a test event: {}",
            tried.error.unwrap_or_default()
        );
    }
    Ok(if tried.taken {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

async fn replay(admin: &Admin, name: &str, from: Timestamp, as_json: bool) -> anyhow::Result<ExitCode> {
    let path = ["v1", "webhooks", name, "replay"];
    let body = json!({ "from": from });
    let answer = admin
        .ask(Method::POST, &path, &[], Content::Json(&body))
        .await?
        .good()?;
    if as_json {
        print_json(&answer.read::<Value>()?)?;
    } else {
        let Replay { events } = answer.read()?;
        let s = plural(usize::try_from(events).unwrap_or_default());
        print(format!(
            "`{name}` goes through {events} event{s} once more, and gets those that it wants\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn switch(admin: &Admin, name: &str, action: &str, said: &str) -> anyhow::Result<ExitCode> {
    let path = ["v1", "webhooks", name, action];
    admin.ask(Method::POST, &path, &[], Content::None).await?.good()?;
    print(format!("`{name}` {said}\n"))?;
    Ok(ExitCode::SUCCESS)
}
