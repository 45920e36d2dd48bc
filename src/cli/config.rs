//! `config check`.

use super::common::{WRONG_CALL, report};
use crate::{app::Loaded, config::Fault};
use clap::Subcommand;
use serde::Serialize;
use std::{collections::BTreeMap, process::ExitCode};

#[derive(Subcommand)]
pub enum Command {
    /// Print the effective configuration, secrets masked, and every fault
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What `--json` prints.
#[derive(Serialize)]
struct Checked<'a> {
    valid: bool,
    faults: &'a [Fault],
    warnings: &'a [String],
    effective: BTreeMap<&'a str, Option<&'a str>>,
}

pub fn check(loaded: &Loaded, as_json: bool) -> anyhow::Result<ExitCode> {
    let faults: Vec<&Fault> = loaded.faults.iter().collect();
    if as_json {
        let effective = loaded.effective.iter();
        let checked = Checked {
            valid: loaded.faults.is_empty(),
            faults: &loaded.faults,
            warnings: &loaded.warnings,
            effective: effective.map(|(key, shown)| (key.as_str(), shown.as_deref())).collect(),
        };
        println!("{}", serde_json::to_string(&checked)?);
    } else {
        for (key, shown) in &loaded.effective {
            let shown = shown
                .as_ref()
                .map_or_else(|| "(not set)".to_owned(), |shown| format!("{shown:?}"));
            println!("{key} = {shown}");
        }
        for warning in &loaded.warnings {
            eprintln!("warning: {warning}");
        }
    }
    Ok(match (faults.is_empty(), as_json) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(WRONG_CALL),
        (false, false) => report(&faults),
    })
}
