//! What this process does in the background: it sends what is owed, asks about what was sent, makes and sends reports, and
//! cleans up. One job, one file; `workers` runs them all under one apalis monitor. Absent: HTTP, which only notifies this
//! module; they meet in the database.

mod alarms;
mod backend;
mod cleanup;
mod clock;
mod clock_watch;
mod context;
mod listener;
mod nightly;
mod outbox;
mod pace;
mod probe;
mod proof;
mod reconcile;
mod run;
mod send;
mod settled;
mod sweep;
pub mod webhooks;
mod workers;

pub use context::Worker;
pub use nightly::{Nightly, NightlyRules};
pub use outbox::Mailed;
pub use run::run;
pub use settled::job as settled;
pub use workers::TimedJob;
