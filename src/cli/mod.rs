//! The commands, one file a subject; each is a few lines that call a module. Exit codes: 0 done, 1 the answer is no or it
//! failed, 2 the call or the configuration is wrong.

mod common;
mod config;
mod database;
mod nightly;
mod receipt;
mod sms;

use crate::app;
use clap::{Parser, Subcommand};
use common::with_good_configuration;
use std::{path::PathBuf, process::ExitCode};

/// Texts the people who must know when a ticket turns critical: once each, never twice, never lost.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    /// The configuration file [default: /etc/nightbell/nightbell.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take events, send messages, record receipts
    Serve {
        /// What this process does, where several share a PostgreSQL
        #[arg(long, value_enum, default_value_t = app::Role::All)]
        role: app::Role,
    },
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Look at texts
    #[command(subcommand)]
    Sms(sms::Command),
    /// Look at receipts
    #[command(subcommand)]
    Receipt(receipt::Command),
    /// Run the nightly jobs now: report and clean-up, for every day that is due
    Nightly(nightly::Nightly),
    /// Show that something can be sent
    SendTest(nightly::SendTest),
    #[command(flatten)]
    Database(database::Command),
}

/// Runs the command that the arguments name.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let loaded = app::load(cli.config.as_deref(), environment);
    match cli.command {
        Command::Serve { role } => with_good_configuration(loaded, |loaded| app::serve(loaded, role)),
        Command::Config(config::Command::Check { json }) => config::check(&loaded, json),
        Command::Sms(sms::Command::Preview(preview)) => sms::preview(&loaded, &preview),
        Command::Receipt(receipt::Command::Verify(request)) => receipt::verify(&loaded, &request),
        Command::Nightly(nightly) => nightly::run(loaded, nightly),
        Command::SendTest(test) => nightly::send_test(loaded, &test),
        Command::Database(command) => database::run(loaded, command),
    }
}
