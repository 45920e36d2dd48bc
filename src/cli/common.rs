//! What commands have in common: exit codes, faults of the configuration, the runtime, and what they read and print.

use crate::{
    app::{Access, Admin, AdminError, Loaded},
    config::{Fault, Log},
    domain::report::plural,
    telemetry,
};
use anyhow::Context;
use std::{
    fs::File,
    io::{Read, Write},
    num::NonZeroUsize,
    path::Path,
    process::ExitCode,
};

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
    let done = wait_for(command(loaded));
    or_say_why(done.map(|()| ExitCode::SUCCESS))
}

/// Runs a command that asks the admin API.
pub fn with_admin(
    loaded: Loaded,
    access: Access,
    command: impl AsyncFnOnce(&Admin, &Loaded) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    if !loaded.faults.is_empty() {
        return Ok(report(&loaded.faults.iter().collect::<Vec<_>>()));
    }
    // The answer says what is wrong, and the log why.
    let log = Log {
        json: false,
        filter: "error".to_owned(),
    };
    telemetry::start(&log)?;
    or_say_why(wait_for(async {
        let admin = Admin::connect(&loaded.config, access).await?;
        let done = command(&admin, &loaded).await;
        admin.close().await;
        done
    }))
}

/// Gives what the admin API did not do its exit code; all else is for `main` to print.
fn or_say_why(done: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let Err(error) = &done else { return done };
    let code = match error.downcast_ref::<AdminError>() {
        Some(AdminError::WrongCall(_)) => WRONG_CALL,
        Some(AdminError::No(_)) => FAILED,
        None => return done,
    };
    eprintln!("nightbell: {error:#}");
    Ok(ExitCode::from(code))
}

pub fn wait_for<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
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
    done
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

/// Prints a text. Whoever reads it may have read enough, as `head` does: that is no failure.
pub fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Prints one JSON document on a line of its own.
pub fn print_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    print(serde_json::to_string(document)? + "\n")
}

/// A file that is named on the command line; `-` is standard input.
pub fn read_input(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Writes a new file, or to standard output where none is named.
pub fn write_output(file: Option<&Path>, bytes: &[u8]) -> anyhow::Result<ExitCode> {
    let Some(path) = file else {
        print(bytes)?;
        return Ok(ExitCode::SUCCESS);
    };
    let failed = || {
        format!(
            "cannot write {}: name a new file in a folder that is there",
            path.display()
        )
    };
    let mut file = File::create_new(path).with_context(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(failed)?;
    eprintln!("wrote {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// How an answer is shown.
#[derive(clap::Args)]
pub struct Shown {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show phone numbers in full
    #[arg(long)]
    pub reveal: bool,
}

impl Shown {
    /// The parameter that asks for it.
    pub fn query(&self) -> &'static [(&'static str, &'static str)] {
        if self.reveal { &[("reveal", "phone")] } else { &[] }
    }

    /// The same beside those parameters that are given.
    pub fn query_with<'a>(&self, given: &[(&'a str, &'a Option<String>)]) -> Vec<(&'a str, &'a str)> {
        let given = given
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        self.query().iter().copied().chain(given).collect()
    }
}

/// An id, as it is listed: it becomes a part of an address.
pub fn read_id(text: &str) -> Result<String, String> {
    let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_id {
        Ok(text.to_owned())
    } else {
        Err("an id has letters, digits and hyphens, as a list shows it".to_owned())
    }
}

/// A phone number in any writing; the admin API reads it.
pub fn read_phone(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_numeric) {
        Ok(text.to_owned())
    } else {
        Err("write the number with `+`, country code and number, like +14155550101".to_owned())
    }
}
