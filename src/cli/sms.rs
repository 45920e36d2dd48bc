//! `sms preview`.

use super::common::{WRONG_CALL, faults_in, report};
use crate::{
    app::{self, Loaded},
    domain::{event, json, message::Message, report::plural, sms},
};
use anyhow::Context;
use clap::{Args, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Subcommand)]
pub enum Command {
    /// Show a text as it would be sent, and what it costs
    Preview(Preview),
}

#[derive(Args)]
pub struct Preview {
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

/// What is previewed where no event is given.
const EXAMPLE: &str = r#"{"ticket": {"id": "3", "number": "108749", "subject": "Checkout page 500 error", "urgency": "critical",
    "url": "https://tickets.example.com/scp/tickets.php?number=108749", "estimated_hours": 4.5, "ai": {"confidence_percent": 95}},
    "client": {"organisation": "Acme Corp"}}"#;

pub fn preview(loaded: &Loaded, preview: &Preview) -> anyhow::Result<ExitCode> {
    let faults = faults_in(
        loaded,
        &["sms.max_segments", "sms.encoding", "templates.", "acknowledge."],
    );
    if !faults.is_empty() {
        return Ok(report(&faults));
    }
    let message = match &preview.text {
        Some(text) => {
            let text = match text.as_str() {
                "-" => read_text(Path::new("-"))?,
                text => text.to_owned(),
            };
            Message {
                size: sms::measure(&text),
                text,
            }
        }
        None => match compose(loaded, preview.event.as_deref())? {
            Some(message) => message,
            None => return Ok(ExitCode::from(WRONG_CALL)),
        },
    };
    if preview.json {
        println!("{}", serde_json::to_string(&message)?);
    } else {
        let encoding = serde_json::to_value(message.size.encoding)?;
        println!("{}\n", message.text);
        println!(
            "{}, {} units, {} segment{}",
            encoding.as_str().unwrap_or_default(),
            message.size.units,
            message.size.segments,
            plural(message.size.segments)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The text of an event from a file, or of an example; `None` if there is no such event, which is said.
fn compose(loaded: &Loaded, file: Option<&Path>) -> anyhow::Result<Option<Message>> {
    let text = file.map_or_else(|| Ok(EXAMPLE.to_owned()), read_text)?;
    let document = json::parse(text.as_bytes()).inspect_err(|error| eprintln!("the event is not valid JSON: {error}"));
    let Ok(document) = document else { return Ok(None) };
    let event = match event::parse(&document, jiff::Timestamp::now()) {
        Ok(event) => event,
        Err(faults) => {
            for fault in faults {
                eprintln!("{}: {}", fault.pointer, fault.detail);
            }
            return Ok(None);
        }
    };
    let warn = |error: &_| eprintln!("the template failed and the built-in one is used: {error:#}");
    let templates = app::load_templates(&loaded.config);
    let acknowledging = &loaded.config.acknowledging;
    let link = acknowledging.link(&uuid::Uuid::nil().to_string().into(), jiff::Timestamp::now());
    // As long as any code.
    let random = acknowledging.has_code.then_some(|| 0);
    let to = event.recipients.first();
    let (message, _) = templates.compose_answerable(&event, to, link.as_deref(), random, warn);
    Ok(Some(message))
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("standard input is not UTF-8 text");
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
