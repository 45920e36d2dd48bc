//! The commands, one file a subject; each is a few lines that call a module. Exit codes: 0 done, 1 the answer is no or it
//! failed, 2 the call or the configuration is wrong.

mod alert;
mod common;
mod config;
mod database;
mod delivery;
mod demo;
mod explain;
mod import;
mod inbound;
mod limit;
mod manual;
mod nightly;
mod opt_out;
mod receipt;
mod send_test;
mod shapes;
mod sms;
mod source;
mod staff;
mod story;
mod table;
mod webhook;

use crate::app;
use clap::{CommandFactory, Parser, Subcommand};
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
    /// Show in a minute what Nightbell does, with a database that is gone afterwards; nothing leaves this machine
    Demo(demo::Demo),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Look at texts
    #[command(subcommand)]
    Sms(sms::Command),
    /// Look at helpdesks
    #[command(subcommand)]
    Source(source::Command),
    /// Look at receipts
    #[command(subcommand)]
    Receipt(receipt::Command),
    /// Run the nightly jobs now: report and clean-up, for every day that is due
    Nightly(nightly::Nightly),
    /// Tell why an SMS was, or was not, sent for a ticket
    Explain(explain::Explain),
    /// Look at alerts (tickets that turned critical), or hold one back
    #[command(subcommand)]
    Alert(alert::Command),
    /// Look at messages, hold one back, or send one again
    #[command(subcommand)]
    Delivery(delivery::Command),
    /// Look at what people texted us
    #[command(subcommand)]
    Inbound(inbound::Command),
    /// Look at and change the numbers that must not be texted
    #[command(subcommand)]
    OptOut(opt_out::Command),
    /// Look at and change the people whom helpdesks name without telling their phones
    #[command(subcommand)]
    Staff(staff::Command),
    /// Look at and change the endpoints that hear of lifecycle events
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Look at and set how many messages may be sent in a day
    #[command(subcommand)]
    Limit(limit::Command),
    /// Send one SMS or one mail, to see that it arrives
    SendTest(send_test::SendTest),
    #[command(flatten)]
    Database(database::Command),
    /// Read an export into an empty database, or take over what was there before Nightbell
    Import(import::Import),
    /// Print what completes these commands in a shell
    Completions(manual::Completions),
    /// Print the manual page
    #[command(hide = true)]
    Man(manual::Man),
}

/// Runs the command that the arguments name.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    if let Command::Demo(demo) = &cli.command {
        return demo::run(demo, environment);
    }
    let loaded = app::load(cli.config.as_deref(), environment);
    match cli.command {
        Command::Serve { role } => with_good_configuration(loaded, |loaded| app::serve(loaded, role)),
        // It has no configuration of its own, and was run above.
        Command::Demo(_) => Ok(ExitCode::SUCCESS),
        Command::Config(config::Command::Check { json }) => config::check(&loaded, json),
        Command::Sms(sms::Command::Preview(preview)) => sms::preview(&loaded, &preview),
        Command::Source(command) => source::run(loaded, command),
        Command::Receipt(receipt::Command::Verify(request)) => receipt::verify(&loaded, &request),
        Command::Nightly(nightly) => nightly::run(loaded, nightly),
        Command::Explain(request) => explain::run(loaded, request),
        Command::Alert(command) => alert::run(loaded, command),
        Command::Delivery(command) => delivery::run(loaded, command),
        Command::Inbound(command) => inbound::run(loaded, command),
        Command::OptOut(command) => opt_out::run(loaded, command),
        Command::Staff(command) => staff::run(loaded, command),
        Command::Webhook(command) => webhook::run(loaded, command),
        Command::Limit(command) => limit::run(loaded, command),
        Command::SendTest(test) => send_test::run(loaded, test),
        Command::Database(command) => database::run(loaded, command),
        Command::Import(request) => import::run(loaded, request),
        Command::Completions(request) => manual::complete(Cli::command(), &request),
        Command::Man(request) => manual::man(Cli::command(), &request),
    }
}
