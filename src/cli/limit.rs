//! `limit`: how many messages may be sent in one local day.

use super::{
    common::{print, print_json, with_admin},
    shapes::DailyLimit,
};
use crate::app::{Access, Answer, Content, Loaded};
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Show today's limit, how much of it is used, and what waits
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set another limit, from now on; what waits goes as far as it reaches
    Set {
        /// Messages a day (0 sends nothing), or `default` for what `daily_limit` says
        #[arg(value_name = "N|default", value_parser = read_limit)]
        limit: Limit,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `None` takes the limit away that was set.
#[derive(Clone, Copy)]
pub struct Limit(Option<u32>);

fn read_limit(text: &str) -> Result<Limit, String> {
    match text {
        "default" => Ok(Limit(None)),
        number => number
            .parse()
            .map(|number| Limit(Some(number)))
            .map_err(|_| "write a whole number, or `default`".to_owned()),
    }
}

pub fn run(loaded: Loaded, command: Command) -> anyhow::Result<ExitCode> {
    let path = ["v1", "limit"];
    match command {
        Command::Show { json } => with_admin(loaded, Access::Read, async |admin, _| {
            show(&admin.get(&path, &[]).await?.good()?, json)
        }),
        Command::Set { limit, json } => with_admin(loaded, Access::Change, async |admin, _| {
            let new = json!({"limit": limit.0});
            show(
                &admin.ask(Method::PUT, &path, &[], Content::Json(&new)).await?.good()?,
                json,
            )
        }),
    }
}

fn show(answer: &Answer, as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        print_json(&answer.read::<Value>()?)?;
    } else {
        print(answer.read::<DailyLimit>()?.in_words() + "\n")?;
    }
    Ok(ExitCode::SUCCESS)
}
