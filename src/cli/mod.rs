//! The commands, one file a subject; each is a few lines that call a module. Exit codes: 0 done, 1 the answer is no or it
//! failed, 2 the call or the configuration is wrong.

mod config;
mod database;
mod nightly;
mod receipt;
mod sms;

use crate::{
    app,
    config::{self as settings, Fault, Loaded},
};
use clap::{Parser, Subcommand};
use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode};

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

/// What still runs on other threads at the end of a command may take this long.
const LAST_WORK: std::time::Duration = std::time::Duration::from_secs(1);
const FAILED: u8 = 1;
const WRONG_CALL: u8 = 2;

/// Runs the command that the arguments name.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let loaded = settings::load(cli.config.as_deref(), environment);
    match cli.command {
        Command::Serve { role } => with_good_configuration(loaded, |loaded| app::serve(loaded, role)),
        Command::Config(config::Command::Check { json }) => config::check(&loaded, json),
        Command::Sms(sms::Command::Preview(preview)) => sms::preview(&loaded, &preview),
        Command::Receipt(receipt::Command::Verify(request)) => receipt::verify(&loaded, &request),
        Command::Nightly(nightly) => nightly::run(loaded, &nightly),
        Command::SendTest(test) => nightly::send_test(loaded, &test),
        Command::Database(command) => database::run(loaded, command),
    }
}

/// Runs a command that needs the whole configuration.
fn with_good_configuration<F>(loaded: Loaded, command: impl FnOnce(Loaded) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>>,
{
    if !loaded.faults.is_empty() {
        return Ok(report(&loaded.faults.iter().collect::<Vec<_>>()));
    }
    wait_for(command(loaded))
}

fn wait_for(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    // SQLite runs on a thread of its own, and is half of the work: with a core left to it, what the two say to each other
    // need not wait for a core. Two threads of ours beside it on two cores were a quarter slower.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .enable_all()
        .build()?;
    let done = runtime.block_on(command);
    // A name that nobody resolves must not hold up the end.
    runtime.shutdown_timeout(LAST_WORK);
    done.map(|()| ExitCode::SUCCESS)
}

fn report(faults: &[&Fault]) -> ExitCode {
    eprintln!(
        "the configuration has {} fault{}:",
        faults.len(),
        if faults.len() == 1 { "" } else { "s" }
    );
    for fault in faults {
        eprintln!("  {fault}");
    }
    ExitCode::from(WRONG_CALL)
}

/// Faults in the settings that a command uses; those elsewhere do not matter to it.
fn faults_in<'a>(loaded: &'a Loaded, prefixes: &[&str]) -> Vec<&'a Fault> {
    loaded
        .faults
        .iter()
        .filter(|fault| fault.is_about_the_file() || prefixes.iter().any(|prefix| fault.key.starts_with(prefix)))
        .collect()
}
