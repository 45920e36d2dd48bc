//! `nightly`.

use super::common::with_good_configuration;
use crate::{
    app::{self, Loaded},
    domain::day::LocalDay,
    telemetry,
};
use anyhow::Context;
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct Nightly {
    /// The local day that the report is about [default: the last one that is due]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = read_day)]
    day: Option<LocalDay>,
    /// Only print the report; change and send nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(loaded: Loaded, Nightly { day, dry_run }: Nightly) -> anyhow::Result<ExitCode> {
    with_good_configuration(loaded, async move |loaded| {
        telemetry::start(&loaded.config.log).context("`log.filter` cannot be read")?;
        app::nightly(loaded, day, dry_run).await
    })
}

fn read_day(text: &str) -> Result<LocalDay, String> {
    LocalDay::parse(text).ok_or_else(|| "write it like 2026-11-20".to_owned())
}
