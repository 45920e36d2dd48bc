//! `config check`.

use super::common::{WRONG_CALL, report};
use crate::{app::Loaded, config::Fault};
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Map, Value};
use std::process::ExitCode;

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
    faults: Vec<ShownFault<'a>>,
    warnings: &'a [String],
    effective: Map<String, Value>,
}

#[derive(Serialize)]
struct ShownFault<'a> {
    key: &'a str,
    value: Option<&'a str>,
    problem: String,
}

pub fn check(loaded: &Loaded, as_json: bool) -> anyhow::Result<ExitCode> {
    let faults: Vec<&Fault> = loaded.faults.iter().collect();
    if as_json {
        let shown = faults.iter().map(|fault| ShownFault {
            key: &fault.key,
            value: fault.value.as_deref(),
            problem: fault.to_string(),
        });
        let effective = loaded.effective.iter();
        let checked = Checked {
            valid: faults.is_empty(),
            faults: shown.collect(),
            warnings: &loaded.warnings,
            effective: effective.map(|(key, shown)| (key.clone(), shown.to_json())).collect(),
        };
        println!("{}", serde_json::to_string(&checked)?);
    } else {
        for (key, shown) in &loaded.effective {
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
