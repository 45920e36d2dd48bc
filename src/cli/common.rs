//! What commands have in common: exit codes, faults of the configuration, and the runtime.

use crate::{app::Loaded, config::Fault, domain::report::plural};
use std::{num::NonZeroUsize, process::ExitCode};

/// What still runs on other threads at the end of a command may take this long.
const LAST_WORK: std::time::Duration = std::time::Duration::from_secs(1);
pub const FAILED: u8 = 1;
pub const WRONG_CALL: u8 = 2;

/// Runs a command that needs the whole configuration.
pub fn with_good_configuration<F>(loaded: Loaded, command: impl FnOnce(Loaded) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>>,
{
    if !loaded.faults.is_empty() {
        return Ok(report(&loaded.faults.iter().collect::<Vec<_>>()));
    }
    wait_for(command(loaded))
}

pub fn wait_for(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    // SQLite runs on a thread of its own, and is half of the work: with a core left to it, what the two say to each other
    // need not wait for a core. Two threads of ours beside it on two cores were a quarter slower.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        // What SQLite's thread has done waits no longer than for one other task: whole batches stand behind it.
        .global_queue_interval(2)
        .enable_all()
        .build()?;
    let done = runtime.block_on(command);
    // A name that nobody resolves must not hold up the end.
    runtime.shutdown_timeout(LAST_WORK);
    done.map(|()| ExitCode::SUCCESS)
}

pub fn report(faults: &[&Fault]) -> ExitCode {
    eprintln!("the configuration has {} fault{}:", faults.len(), plural(faults.len()));
    for fault in faults {
        eprintln!("  {}", fault.problem);
    }
    ExitCode::from(WRONG_CALL)
}

/// Faults in the settings that a command uses; those elsewhere do not matter to it.
pub fn faults_in<'a>(loaded: &'a Loaded, prefixes: &[&str]) -> Vec<&'a Fault> {
    loaded
        .faults
        .iter()
        .filter(|fault| fault.is_about_the_file() || prefixes.iter().any(|prefix| fault.key.starts_with(prefix)))
        .collect()
}
