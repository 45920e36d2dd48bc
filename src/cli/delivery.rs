//! `delivery`: the messages, each to one person.

use super::{
    common::{Shown, print, print_json, read_id, read_phone, with_admin},
    shapes::Delivery,
    story,
    table::{Listed, minute, or_dash, table},
};
use crate::app::{Access, Admin, Answer, Content, Loaded};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Show messages, newest first
    List(List),
    /// Show one message: for whom, and everything that happened to it
    Show {
        /// The delivery's id, as `delivery list` shows it
        #[arg(value_name = "ID", value_parser = read_id)]
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Hold one back; refused once it was handed to the provider
    Cancel {
        /// The delivery's id, as `delivery list` shows it
        #[arg(value_name = "ID", value_parser = read_id)]
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Send one again; refused while the old one may still arrive
    Resend {
        /// The delivery's id, as `delivery list` shows it
        #[arg(value_name = "ID", value_parser = read_id)]
        id: String,
        /// Also while the old one may still arrive: the person may then get it twice
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        shown: Shown,
    },
}

#[derive(Args)]
pub struct List {
    /// Only in this state, like `failed` or `deferred`
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only of the ticket with this id
    #[arg(long, value_name = "ID")]
    ticket: Option<String>,
    /// Only to this number
    #[arg(long, value_name = "PHONE", value_parser = read_phone)]
    phone: Option<String>,
    /// Only those whose event came on this local day
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
            let answer = admin.get(&["v1", "deliveries", &id], shown.query()).await?.good()?;
            show("", &answer, loaded, &shown)
        }),
        Command::Cancel { id, shown } => with_admin(loaded, Access::Change, async |admin, loaded| {
            let path = ["v1", "deliveries", &id, "cancel"];
            let answer = admin.ask(Method::POST, &path, shown.query(), Content::None).await?;
            show("held back\n\n", &answer.good()?, loaded, &shown)
        }),
        Command::Resend { id, force, shown } => with_admin(loaded, Access::Change, async |admin, loaded| {
            resend(admin, loaded, &id, force, &shown).await
        }),
    }
}

impl List {
    async fn run(self, admin: &Admin, loaded: &Loaded) -> anyhow::Result<ExitCode> {
        let given = [
            ("state", &self.state),
            ("ticket_id", &self.ticket),
            ("phone", &self.phone),
            ("day", &self.day),
        ];
        let query = self.shown.query_with(&given);
        let listed = Listed::read(admin, &["v1", "deliveries"], &query, usize::try_from(self.limit)?).await?;
        if self.shown.json {
            print_json(&listed.document())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = Vec::new();
        for item in &listed.items {
            let delivery = Delivery::deserialize(item)?;
            rows.push(vec![
                delivery.id.clone(),
                minute(delivery.created_at, &loaded.config.time_zone),
                delivery.state_with_reason(),
                or_dash(delivery.phone.as_ref()),
                or_dash(delivery.recipient.name.as_ref()),
                delivery.attempts.to_string(),
            ]);
        }
        if !rows.is_empty() {
            print(table(&["id", "made", "state", "phone", "name", "attempts"], rows))?;
        }
        print(listed.remark("There is no such message."))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn show(said: &str, answer: &Answer, loaded: &Loaded, shown: &Shown) -> anyhow::Result<ExitCode> {
    if shown.json {
        print_json(&answer.read::<Value>()?)?;
    } else {
        let delivery: Delivery = answer.read()?;
        print(said.to_owned() + &story::of_message(&delivery, &loaded.config.time_zone))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn resend(admin: &Admin, loaded: &Loaded, id: &str, force: bool, shown: &Shown) -> anyhow::Result<ExitCode> {
    let path = ["v1", "deliveries", id, "resend"];
    let body = json!({"force": force});
    let answer = admin
        .ask(Method::POST, &path, shown.query(), Content::Json(&body))
        .await?;
    let code = show(
        "it is sent again, as this delivery:\n\n",
        &answer.good()?,
        loaded,
        shown,
    )?;
    if !admin.is_service() {
        eprintln!("it goes once `nightbell serve` runs on this database");
    }
    Ok(code)
}
