//! The commands. Each is a few lines that call a room. Exit codes: 0 done, 1 the answer is no or it failed, 2 the call
//! or the configuration is wrong.

use crate::{
    app::{self, Loaded},
    carrier::twilio::signature::{self, Signed},
    config::Fault,
    domain::{
        day::LocalDay,
        event, json,
        message::{Addressee, Message},
        sms,
    },
    telemetry,
};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use std::{
    io::Read,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

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
    Config(ConfigCommand),
    /// Look at texts
    #[command(subcommand)]
    Sms(SmsCommand),
    /// Look at receipts
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Run the nightly jobs now: report and clean-up, for every day that is due
    Nightly(Nightly),
    /// Show that something can be sent
    SendTest(SendTest),
    /// Bring the tables of the database up to date; `serve` does so too
    Migrate {
        /// Only say what is to be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Copy the SQLite database to a new file, also while the service runs
    Backup { file: PathBuf },
    /// Write everything to a file that `import` reads; the service must not run
    Export { file: PathBuf },
    /// Read an export into an empty database, of either kind
    Import { file: PathBuf },
}

#[derive(Args)]
struct Nightly {
    /// The local day that the report is about [default: the last one that is due]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = read_day)]
    day: Option<LocalDay>,
    /// Only print the report; change and send nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct SendTest {
    /// The address to send a mail to, through `report.smtp_url`
    #[arg(long, value_name = "ADDRESS")]
    mail: String,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration, secrets masked, and every fault
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum SmsCommand {
    /// Show a text as it would be sent, and what it costs
    Preview(Preview),
}

#[derive(Args)]
struct Preview {
    /// An event as it would be posted to /v1/events; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    event: Option<PathBuf>,
    /// Count this text exactly as it is; `-` reads standard input
    #[arg(long, allow_hyphen_values = true)]
    text: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum ReceiptCommand {
    /// Check the signature of a webhook whose raw body is on standard input
    Verify(Verify),
}

#[derive(Args)]
struct Verify {
    /// The full address that Twilio called, with its query
    #[arg(long)]
    url: String,
    /// The X-Twilio-Signature header
    #[arg(long, allow_hyphen_values = true)]
    signature: String,
    /// The Content-Type header
    #[arg(long, default_value = "application/x-www-form-urlencoded", value_name = "CT")]
    content_type: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
    let loaded = app::load(cli.config.as_deref(), environment);
    match cli.command {
        Command::Serve { role } => with_good_configuration(loaded, |loaded| app::serve(loaded, role)),
        Command::Migrate { dry_run } => {
            with_good_configuration(loaded, async move |loaded| app::migrate(&loaded.config, dry_run).await)
        }
        Command::Backup { file } => {
            with_good_configuration(loaded, async move |loaded| app::backup(&loaded.config, &file).await)
        }
        Command::Export { file } => {
            with_good_configuration(loaded, async move |loaded| app::export(&loaded.config, &file).await)
        }
        Command::Import { file } => {
            with_good_configuration(loaded, async move |loaded| app::import(&loaded.config, &file).await)
        }
        Command::Config(ConfigCommand::Check { json }) => Ok(check_config(&loaded, json)),
        Command::Sms(SmsCommand::Preview(preview)) => preview_sms(&loaded, &preview),
        Command::Receipt(ReceiptCommand::Verify(request)) => verify_receipt(&loaded, &request),
        Command::Nightly(nightly) => run_nightly(loaded, &nightly),
        Command::SendTest(test) => send_test(loaded, &test),
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

fn run_nightly(loaded: Loaded, nightly: &Nightly) -> anyhow::Result<ExitCode> {
    if !loaded.faults.is_empty() {
        return Ok(report(&loaded.faults.iter().collect::<Vec<_>>()));
    }
    telemetry::start(&loaded.config.log).context("`log.filter` cannot be read")?;
    let request = app::ReportRequest {
        day: nightly.day,
        dry_run: nightly.dry_run,
    };
    wait_for(app::nightly(loaded, request))
}

fn send_test(loaded: Loaded, test: &SendTest) -> anyhow::Result<ExitCode> {
    let faults = faults_in(&loaded, &["report."]);
    if !faults.is_empty() {
        return Ok(report(&faults));
    }
    wait_for(app::send_test_mail(loaded, &test.mail))
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

fn read_day(text: &str) -> Result<LocalDay, String> {
    LocalDay::parse(text).ok_or_else(|| "write it like 2026-11-20".to_owned())
}

fn check_config(loaded: &Loaded, as_json: bool) -> ExitCode {
    let faults: Vec<&Fault> = loaded.faults.iter().collect();
    if as_json {
        let effective: serde_json::Map<_, _> = loaded
            .effective
            .iter()
            .map(|(key, shown)| (key.clone(), shown.to_json()))
            .collect();
        let list: Vec<_> = faults
            .iter()
            .map(|fault| json!({"key": fault.key, "value": fault.value, "problem": fault.to_string()}))
            .collect();
        println!(
            "{}",
            json!({"valid": faults.is_empty(), "faults": list, "warnings": loaded.warnings, "effective": effective})
        );
    } else {
        for (key, shown) in &loaded.effective {
            println!("{key} = {shown}");
        }
        for warning in &loaded.warnings {
            eprintln!("warning: {warning}");
        }
    }
    match (faults.is_empty(), as_json) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(WRONG_CALL),
        (false, false) => report(&faults),
    }
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

/// Faults in the settings that a command uses; those elsewhere are not its business.
fn faults_in<'a>(loaded: &'a Loaded, prefixes: &[&str]) -> Vec<&'a Fault> {
    loaded
        .faults
        .iter()
        .filter(|fault| fault.is_about_the_file() || prefixes.iter().any(|prefix| fault.key.starts_with(prefix)))
        .collect()
}

fn preview_sms(loaded: &Loaded, preview: &Preview) -> anyhow::Result<ExitCode> {
    let faults = faults_in(loaded, &["sms.max_segments", "sms.encoding", "templates."]);
    if !faults.is_empty() {
        return Ok(report(&faults));
    }
    let message = match &preview.text {
        Some(text) => {
            let text = if text == "-" {
                read_text(Path::new("-"))?
            } else {
                text.clone()
            };
            Message {
                size: sms::measure(&text),
                text,
            }
        }
        None => match compose(loaded, preview.event.as_deref())? {
            Ok(message) => message,
            Err(exit) => return Ok(exit),
        },
    };
    if preview.json {
        println!(
            "{}",
            json!({"text": message.text, "encoding": message.size.encoding, "units": message.size.units, "segments": message.size.segments})
        );
    } else {
        let encoding = serde_json::to_value(message.size.encoding)?;
        println!("{}\n", message.text);
        println!(
            "{}, {} units, {} segment{}",
            encoding.as_str().unwrap_or_default(),
            message.size.units,
            message.size.segments,
            if message.size.segments == 1 { "" } else { "s" }
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The text of an event from a file, or of an example.
fn compose(loaded: &Loaded, file: Option<&Path>) -> anyhow::Result<Result<Message, ExitCode>> {
    let text = match file {
        Some(path) => read_text(path)?,
        None => json!({"ticket": {"id": "3", "number": "108749", "subject": "Checkout page 500 error", "urgency": "critical", "estimated_hours": 4.5,
            "url": "https://tickets.example.com/scp/tickets.php?number=108749", "ai": {"confidence_percent": 95}}, "client": {"organisation": "Acme Corp"}})
        .to_string(),
    };
    let document = match json::parse(text.as_bytes()) {
        Ok(document) => document,
        Err(error) => {
            eprintln!("the event is no JSON that can be taken: {error}");
            return Ok(Err(ExitCode::from(WRONG_CALL)));
        }
    };
    let event = match event::parse(&document, jiff::Timestamp::now()) {
        Ok(event) => event,
        Err(faults) => {
            for fault in faults {
                eprintln!("{}: {}", fault.pointer, fault.detail);
            }
            return Ok(Err(ExitCode::from(WRONG_CALL)));
        }
    };
    let templates = app::load_templates(loaded.config.templates_dir.as_deref());
    let addressee = event
        .recipients
        .first()
        .map_or_else(Addressee::default, |person| Addressee {
            name: person.name.as_deref(),
            role: person.role.as_deref(),
        });
    Ok(Ok(templates.compose(
        &event,
        addressee,
        loaded.config.sms.rules,
        |error| eprintln!("the template failed and the built-in one is used: {error:#}"),
    )))
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("standard input is no UTF-8 text");
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn verify_receipt(loaded: &Loaded, request: &Verify) -> anyhow::Result<ExitCode> {
    let faults = faults_in(loaded, &["twilio.auth_token", "twilio.secondary_auth_token"]);
    let faults: Vec<&Fault> = faults.into_iter().filter(|fault| !fault.is_missing()).collect();
    if !faults.is_empty() {
        return Ok(report(&faults));
    }
    let tokens = &loaded.config.carriers.sections.twilio.auth_tokens;
    if tokens.is_empty() {
        eprintln!("{}", signature::Invalid::NoToken);
        return Ok(ExitCode::from(WRONG_CALL));
    }
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    let signed = Signed {
        url: &request.url,
        content_type: &request.content_type,
        body: &body,
        signature: &request.signature,
    };
    let verdict = signature::verify(signed, tokens);
    let hints = if verdict.is_err() {
        signature::near_misses(signed, tokens)
    } else {
        Vec::new()
    };
    if request.json {
        println!(
            "{}",
            json!({"valid": verdict.is_ok(), "reason": verdict.err().map(|invalid| invalid.to_string()), "valid_for": hints})
        );
    } else {
        match verdict {
            Ok(()) => println!("valid"),
            Err(invalid) => println!("not valid: {invalid}"),
        }
        for hint in hints {
            println!("it would be valid for {hint}: make `public_url` agree with the address that Twilio calls");
        }
    }
    Ok(if verdict.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}
