//! `inbound`: what people sent us.

use super::{
    common::{Shown, print, print_json, read_id, read_phone, with_admin},
    shapes::Inbound,
    table::{Listed, minute, or_dash, table},
};
use crate::app::{Access, Admin, Loaded};
use clap::{Args, Subcommand};
use serde::Deserialize;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Show what people texted us, newest first
    List(List),
}

#[derive(Args)]
pub struct List {
    /// Only what was understood as this, like `opt_out` or `reply`
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only from this number
    #[arg(long, value_name = "PHONE", value_parser = read_phone)]
    phone: Option<String>,
    /// Only what belongs to this alert
    #[arg(long, value_name = "ID", value_parser = read_id)]
    alert: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    shown: Shown,
}

pub fn run(loaded: Loaded, command: Command) -> anyhow::Result<ExitCode> {
    let Command::List(list) = command;
    with_admin(loaded, Access::Read, async |admin, loaded| {
        list.run(admin, loaded).await
    })
}

impl List {
    async fn run(self, admin: &Admin, loaded: &Loaded) -> anyhow::Result<ExitCode> {
        let given = [("kind", &self.kind), ("phone", &self.phone), ("alert_id", &self.alert)];
        let query = self.shown.query_with(&given);
        let listed = Listed::read(admin, &["v1", "inbound"], &query, usize::try_from(self.limit)?).await?;
        if self.shown.json {
            print_json(&listed.document())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = Vec::new();
        for item in &listed.items {
            let message = Inbound::deserialize(item)?;
            rows.push(vec![
                minute(message.received_at, &loaded.config.time_zone),
                or_dash(message.from.as_ref()),
                message.kind,
                message.outcome,
                or_dash(message.text.as_ref()),
            ]);
        }
        if !rows.is_empty() {
            print(table(&["received", "from", "kind", "outcome", "text"], rows))?;
        }
        print(listed.remark("Nobody has texted us, or nothing matches."))?;
        Ok(ExitCode::SUCCESS)
    }
}
