//! `receipt verify`.

use super::common::{FAILED, WRONG_CALL, faults_in, report};
use crate::{
    app::Loaded,
    carrier::twilio::signature::{self, Signed},
    config::Fault,
};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::{io::Read, process::ExitCode};

#[derive(Subcommand)]
pub enum Command {
    /// Check the signature of a webhook whose raw body is on standard input
    Verify(Verify),
}

#[derive(Args)]
pub struct Verify {
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

/// What `--json` prints.
#[derive(Serialize)]
struct Verdict {
    valid: bool,
    reason: Option<String>,
    /// Addresses near the given one for which the signature would be valid.
    valid_for: Vec<String>,
}

pub fn verify(loaded: &Loaded, request: &Verify) -> anyhow::Result<ExitCode> {
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
        let shown = Verdict {
            valid: verdict.is_ok(),
            reason: verdict.err().map(|invalid| invalid.to_string()),
            valid_for: hints,
        };
        println!("{}", serde_json::to_string(&shown)?);
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
