//! `demo`.

use super::common::{report, wait_for};
use crate::{app, telemetry};
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct Demo {
    /// End when everything is shown, instead of serving the pages until Ctrl-C
    #[arg(long)]
    exit: bool,
}

/// What counts of the environment. All else, and every file, is about the service that may be installed here.
const SETTINGS: [&str; 4] = ["LISTEN", "TIME_ZONE", "LOG__FILTER", "LOG__FORMAT"];

pub fn run(demo: &Demo, environment: impl Iterator<Item = (String, String)>) -> anyhow::Result<ExitCode> {
    let ours = |name: &str| {
        name.strip_prefix("NIGHTBELL_")
            .is_some_and(|key| SETTINGS.contains(&key))
    };
    let mut environment: Vec<(String, String)> = environment.filter(|(name, _)| ours(name)).collect();
    let has = |environment: &[(String, String)], key: &str| environment.iter().any(|(name, _)| name == key);
    let listens_anywhere = !has(&environment, "NIGHTBELL_LISTEN");
    if !has(&environment, "NIGHTBELL_LOG__FILTER") {
        environment.push(("NIGHTBELL_LOG__FILTER".to_owned(), "off".to_owned()));
    }
    // What is shown should not wait for the pace of a long code.
    environment.push(("NIGHTBELL_SMS__PER_SECOND".to_owned(), "0".to_owned()));
    let loaded = app::load_file(None, environment.into_iter());
    if !loaded.faults.is_empty() {
        return Ok(report(&loaded.faults.iter().collect::<Vec<_>>()));
    }
    telemetry::start(&loaded.config.log)?;
    wait_for(app::demo(loaded, listens_anywhere, demo.exit))?;
    Ok(ExitCode::SUCCESS)
}
