//! Sets the log up: one line a fact with fields, to standard error, as text or JSON. Absent: what is logged. The rules
//! for that: the route and never the address; no phone number, name, subject, text or token; people masked.

use crate::config::Log;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Starts logging. Fails if the filter cannot be read.
pub fn start(log: &Log) -> Result<(), ParseError> {
    // sqlx logs the statements it runs, and a migration that is already there, at levels that admins see.
    let filter = EnvFilter::builder().parse(format!("sqlx=warn,{}", log.filter))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if log.json {
        lines.json().flatten_event(true).init();
    } else {
        lines.with_ansi(false).with_target(false).init();
    }
    Ok(())
}
