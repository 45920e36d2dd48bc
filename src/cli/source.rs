//! `source try` and `source list`.

use super::{
    common::{FAILED, WRONG_CALL, faults_in, print, print_json, report, with_admin},
    shapes::{SourceStatus, Sources},
    table::{or_dash, table},
};
use crate::{
    app::{self, Access, Loaded},
    domain::{
        event::{Event, Meaning},
        json::{self, Fault},
        phone,
        source::{Reading, Source},
    },
};
use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{fmt::Write, path::PathBuf, process::ExitCode};

#[derive(Subcommand)]
pub enum Command {
    /// Show what a helpdesk's payload becomes; nothing is stored or sent
    Try(Try),
    /// Look at the helpdesks: which are polled and answer, what their webhooks missed, which words nobody has explained
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub struct Try {
    /// The source, as the configuration names it
    name: String,
    /// The payload as the helpdesk sends it [default: standard input]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(loaded: Loaded, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Try(request) => try_payload(&loaded, &request),
        Command::List { json } => with_admin(loaded, Access::Read, async |admin, _| {
            let answer = admin.get(&["v1", "sources"], &[]).await?.good()?;
            if json {
                print_json(&answer.read::<Value>()?)?;
            } else {
                print(list(&answer.read::<Sources>()?.items))?;
            }
            Ok(ExitCode::SUCCESS)
        }),
    }
}

fn try_payload(loaded: &Loaded, request: &Try) -> anyhow::Result<ExitCode> {
    let name = &request.name;
    let faults = faults_in(loaded, &[&format!("sources.{name}."), "sms.", "templates."]);
    if !faults.is_empty() {
        return Ok(report(&faults));
    }
    let Some(source) = loaded.config.sources.get(name) else {
        let known: Vec<&str> = loaded.config.sources.keys().map(String::as_str).collect();
        eprintln!(
            "nightbell: `{name}` is not a configured source: set `sources.{name}.…`, or use one of {}",
            known.join(", ")
        );
        return Ok(ExitCode::from(WRONG_CALL));
    };
    let text = match &request.file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => std::io::read_to_string(std::io::stdin()).context("standard input is not UTF-8 text")?,
    };
    let document = match json::parse(text.as_bytes()) {
        Ok(document) => document,
        Err(error) => {
            eprintln!("nightbell: the payload is not valid JSON: {error}");
            return Ok(ExitCode::from(WRONG_CALL));
        }
    };
    match source.read(name, &document, jiff::Timestamp::now()) {
        Ok(reading) => show(loaded, source, &reading, request.json),
        Err(faults) => refuse(&faults, request.json),
    }
}

/// The payload is none, as the source is configured.
fn refuse(faults: &[Fault], as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        print_json(&json!({"readable": false, "errors": faults}))?;
    } else {
        let mut text = String::from("this payload would be refused (422):\n");
        for fault in faults {
            writeln!(text, "  {}: {}", fault.pointer, fault.detail)?;
        }
        print(text)?;
    }
    Ok(ExitCode::from(FAILED))
}

fn show(loaded: &Loaded, source: &Source, reading: &Reading, as_json: bool) -> anyhow::Result<ExitCode> {
    let meaning = source.meaning(&reading.event.meaning);
    let words = in_words(&meaning, reading.raw_urgency.as_deref(), &reading.event.source);
    let message = (meaning == Meaning::Critical).then(|| {
        let warn = |error: &_| eprintln!("the template failed and the built-in one is used: {error:#}");
        let templates = app::load_templates(&loaded.config);
        templates
            .compose(&reading.event, reading.event.recipients.first(), warn)
            .text
    });
    if as_json {
        print_json(&json!({
            "readable": true, "event": reading.document, "left_out": reading.left_out, "meaning": words, "message": message,
        }))?;
    } else {
        print(describe(source, reading, &words, message.as_deref())?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(source: &Source, reading: &Reading, words: &str, message: Option<&str>) -> anyhow::Result<String> {
    let mut text = String::new();
    if let Some(mapped) = &reading.mapped {
        writeln!(text, "Found:")?;
        for (field, rule) in &mapped.found {
            writeln!(text, "  {field:32} {rule}")?;
        }
        for (field, misses) in &mapped.missing {
            let tried: Vec<String> = misses
                .iter()
                .map(|miss| format!("{} at {}", miss.found, miss.place))
                .collect();
            writeln!(text, "  {field:32} not there: {}", tried.join(", "))?;
        }
        writeln!(text)?;
    }
    for fault in &reading.left_out {
        writeln!(text, "Left out: {}: {}", fault.pointer, fault.detail)?;
    }
    writeln!(
        text,
        "The event:\n{}\n",
        serde_json::to_string_pretty(&reading.document)?
    )?;
    writeln!(text, "{words}")?;
    write_people(&mut text, source, &reading.event)?;
    if let Some(message) = message {
        writeln!(text, "\nThe SMS:\n{message}")?;
    }
    Ok(text)
}

fn write_people(text: &mut String, source: &Source, event: &Event) -> std::fmt::Result {
    for person in &event.recipients {
        let who = person
            .name
            .as_deref()
            .or(person.staff_id.as_deref())
            .unwrap_or("somebody");
        let role = person.role.as_deref().unwrap_or("no role");
        let phone = match person.read_phone(source.region) {
            Ok(phone) => phone::mask(phone.as_e164()),
            Err(Some(_)) => "a number that cannot be used".to_owned(),
            Err(None) => "no number: the staff directory is asked".to_owned(),
        };
        writeln!(text, "  {who} ({role}): {phone}")?;
    }
    if event.recipients.is_empty() {
        let count = source.fallback_recipients.len();
        writeln!(
            text,
            "  it names nobody: the {count} fallback recipients of the source are told"
        )?;
    }
    Ok(())
}

fn in_words(meaning: &Meaning, raw: Option<&str>, source: &str) -> String {
    let urgency = raw.map_or_else(|| "the event".to_owned(), |raw| format!("the urgency `{raw}`"));
    match meaning {
        Meaning::Critical => format!("By {urgency} it is critical: an alert is raised, unless the ticket has one."),
        Meaning::Over => "The ticket is over: its alert is closed, and what was not sent yet is canceled.".to_owned(),
        Meaning::Lower => {
            format!("By {urgency} it is not critical: nothing is sent, and an alert of the ticket is closed.")
        }
        Meaning::UnknownUrgency(word) => format!(
            "Nobody has said what the urgency `{word}` means, so it is ignored: add it to `sources.{source}.urgency`, like `\"{word}\" = \"critical\"`."
        ),
    }
}

fn list(sources: &[SourceStatus]) -> String {
    let rows = sources.iter().map(|source| {
        let words = source.unknown_urgencies.iter().map(|unknown| unknown.word.as_str());
        let words = words.collect::<Vec<_>>().join(", ");
        vec![
            source.name.clone(),
            source.kind.clone(),
            source.webhook_in_words(),
            source.poll_in_words(),
            or_dash(Some(words).filter(|words| !words.is_empty())),
        ]
    });
    table(&["source", "kind", "webhook", "poll", "unknown urgencies"], rows)
}
