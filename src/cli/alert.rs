//! `alert`: tickets that turned critical, with the messages that are owed for each.

use super::{
    common::{FAILED, Shown, print, print_json, read_id, with_admin},
    shapes::Alert,
    story,
    table::{Listed, minute, or_dash, table},
};
use crate::{
    app::{Access, Admin, Content, Loaded},
    domain::{report::plural, text::clean_line},
};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::ExitCode};

#[derive(Subcommand)]
pub enum Command {
    /// Show alerts, newest first
    List(List),
    /// Show one alert: everybody on it and everything that happened
    Show {
        /// The alert's id, as `alert list` shows it
        #[arg(value_name = "ID", value_parser = read_id)]
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Say that somebody takes care of it; what is not sent to others yet is held back
    Acknowledge {
        /// The alert's id, as `alert list` shows it
        #[arg(value_name = "ID", value_parser = read_id)]
        id: String,
        /// Who takes care of it
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Hold back those of its messages that were not handed to the provider yet
    Cancel {
        /// The alert's id, as `alert list` shows it
        #[arg(value_name = "ID", value_parser = read_id)]
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
}

#[derive(Args)]
pub struct List {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only of the ticket with this id
    #[arg(long, value_name = "ID")]
    ticket: Option<String>,
    /// Only those with this in their subject
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// Only `open` or `closed` ones, or those with a delivery in this state
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only those that somebody has acknowledged (`true`), or nobody (`false`)
    #[arg(long, value_name = "BOOL")]
    acknowledged: Option<bool>,
    /// Only those that came on this local day
    #[arg(long, value_name = "YYYY-MM-DD")]
    day: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    shown: Shown,
}

pub fn run(loaded: Loaded, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(list) => with_admin(loaded, Access::Read, async |admin, loaded| {
            list.run(admin, loaded).await
        }),
        Command::Show { id, shown } => with_admin(loaded, Access::Read, async |admin, loaded| {
            let answer = admin.get(&["v1", "alerts", &id], shown.query()).await?.good()?;
            if shown.json {
                print_json(&answer.read::<Value>()?)?;
            } else {
                print(story::of_alert(&answer.read()?, &loaded.config.time_zone))?;
            }
            Ok(ExitCode::SUCCESS)
        }),
        Command::Acknowledge { id, by, shown } => with_admin(loaded, Access::Change, async |admin, loaded| {
            acknowledge(admin, loaded, (&id, by.as_deref()), &shown).await
        }),
        Command::Cancel { id, shown } => with_admin(loaded, Access::Change, async |admin, loaded| {
            cancel(admin, loaded, &id, &shown).await
        }),
    }
}

impl List {
    async fn run(self, admin: &Admin, loaded: &Loaded) -> anyhow::Result<ExitCode> {
        let acknowledged = self.acknowledged.map(|wanted| wanted.to_string());
        let given = [
            ("acknowledged", &acknowledged),
            ("source", &self.source),
            ("ticket_id", &self.ticket),
            ("subject", &self.subject),
            ("state", &self.state),
            ("day", &self.day),
        ];
        let query = self.shown.query_with(&given);
        let listed = Listed::read(admin, &["v1", "alerts"], &query, usize::try_from(self.limit)?).await?;
        if self.shown.json {
            print_json(&listed.document())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = Vec::new();
        for item in &listed.items {
            let alert = Alert::deserialize(item)?;
            rows.push(vec![
                alert.id.clone(),
                minute(alert.received_at, &loaded.config.time_zone),
                alert.ticket_number.clone().unwrap_or_else(|| alert.ticket_id.clone()),
                states(&alert),
                stands(&alert),
                alert.source.clone(),
                or_dash(alert.subject.as_ref()),
            ]);
        }
        if !rows.is_empty() {
            let titles = ["id", "came", "ticket", "messages", "ticket is", "source", "subject"];
            print(table(&titles, rows))?;
        }
        print(listed.remark("There is no such alert."))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether its ticket is over, and if not, whether somebody takes care of it.
fn stands(alert: &Alert) -> String {
    match (alert.closed_at, alert.acknowledged_at, &alert.acknowledged_by) {
        (Some(_), ..) => "closed".to_owned(),
        (None, None, _) => "open".to_owned(),
        (None, Some(_), None) => "acknowledged".to_owned(),
        (None, Some(_), Some(by)) => format!("acknowledged by {}", clean_line(by, 40)),
    }
}

/// How many of its deliveries stand how.
fn states(alert: &Alert) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for delivery in &alert.deliveries {
        *counts.entry(&delivery.state).or_default() += 1;
    }
    let counted = counts.iter().map(|(state, count)| format!("{count} {state}"));
    match counted.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() && alert.imported_at.is_some() => "told by the system before".to_owned(),
        none if none.is_empty() => "nobody to tell".to_owned(),
        counted => counted,
    }
}

/// It is no failure that somebody was first: somebody takes care of it.
async fn acknowledge(
    admin: &Admin,
    loaded: &Loaded,
    (id, by): (&str, Option<&str>),
    shown: &Shown,
) -> anyhow::Result<ExitCode> {
    let path = ["v1", "alerts", id, "acknowledge"];
    let wish = json!({"by": by, "via": "command"});
    let answer = admin
        .ask(Method::POST, &path, shown.query(), Content::Json(&wish))
        .await?
        .good()?;
    let document: Value = answer.read()?;
    if shown.json {
        print_json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let canceled = usize::try_from(document["canceled"].as_u64().unwrap_or(0))?;
    let said = match (document["acknowledged"].as_bool(), canceled) {
        (Some(true), 0) => "acknowledged".to_owned(),
        (Some(true), count) => format!("acknowledged; held back {count} message{}", plural(count)),
        (Some(false) | None, _) => "somebody was first; nothing was changed".to_owned(),
    };
    let story = story::of_alert(&answer.read()?, &loaded.config.time_zone);
    print(format!("{said}\n\n{story}"))?;
    Ok(ExitCode::SUCCESS)
}

async fn cancel(admin: &Admin, loaded: &Loaded, id: &str, shown: &Shown) -> anyhow::Result<ExitCode> {
    let path = ["v1", "alerts", id, "cancel"];
    let answer = admin
        .ask(Method::POST, &path, shown.query(), Content::None)
        .await?
        .good()?;
    let document: Value = answer.read()?;
    let alert: Alert = answer.read()?;
    let canceled = document["canceled"].as_u64().unwrap_or(0);
    if shown.json {
        print_json(&document)?;
    } else {
        let canceled = usize::try_from(canceled)?;
        print(format!(
            "held back {canceled} message{}\n\n{}",
            plural(canceled),
            story::of_alert(&alert, &loaded.config.time_zone)
        ))?;
    }
    let went_on = alert.deliveries.iter().any(|delivery| delivery.state != "canceled");
    if canceled == 0 && went_on {
        eprintln!("nothing could be held back: it was handed to the provider, or had ended, before");
        return Ok(ExitCode::from(FAILED));
    }
    Ok(ExitCode::SUCCESS)
}
