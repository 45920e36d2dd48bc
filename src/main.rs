//! Nightbell stands beside a helpdesk. When a ticket turns critical it texts the people who must know: one SMS for
//! each of them per ticket, never twice, never lost, and it can prove afterwards what became of every message.
//!
//! # The map of the house
//!
//! ```text
//! main.rs        this map; parse, run, print the error chain, exit code
//! cli.rs         the commands; each is a few lines that call a room
//! config/        reads settings out of file + environment into domain types, all faults at once; sections of no carrier
//! app/           composition root: settings (the whole configuration); opens the rooms, runs them together, stops them in
//!                order; commands that use them
//! telemetry.rs   the log
//! supervise.rs   tasks that panic or end early are started anew, or end the process
//! domain/        event, phone, message, delivery (the state machine), answer, route, database_url, search, clock, day; nightly (when a run is due),
//!                report, alarm, letter   no I/O, no clock
//! store/         all SQL: tx (a transaction and its trips), writer (SQLite's one connection), session (PostgreSQL's, each
//!                wait with an end), migrate, waits; group (what comes together shares
//!                a transaction); alerts, deliveries, sending, receipts, looks, limits, opt-outs, holds, contact, clocks, alarms, lists; and of the
//!                night: job_runs (the ledger), reports, mails, cleanup
//! carrier/       who carries messages: the registry and which of them each channel has; driver (what each answers); log
//!                (test mode), twilio. Each reads its own section of the configuration
//! mail/          how mails look, and SMTP
//! worker/        workers (all jobs under one apalis monitor); backend (begins deliveries), pace, send, sweep (what time alone
//!                decides), probe, reconcile (asking again), proof, clock (is ours right?), listener (other processes);
//!                nightly (reports), alarms (mails of them), outbox (sends mails), cleanup
//! http/          the doors: connections, events, receipts, admin API, reports, health
//! ```
//!
//! Who may import whom: `main -> cli -> app -> {http, worker} -> {store, carrier, mail} -> domain`; `carrier` reads its
//! settings through `config::Reader`. `http` and `worker` never import each other, nor do `store`, `carrier` and `mail`:
//! they meet in the database. Only `store` contains SQL, only `carrier::twilio` knows Twilio's words, only
//! `worker::backend` names apalis.
//!
//! # The path of an event
//!
//! 1. In: `http::events` -> `intake` -> `store::alerts` -> `store::group` (alert and deliveries, one transaction) -> 202,
//!    and the worker is notified.
//! 2. Out: `worker::backend` begins what is due (`store::sending`, durable; on SQLite with the event itself) ->
//!    `worker::send`: `carrier`, `finish`.
//! 3. Back: `http::receipts` -> `carrier::twilio::{signature, receipt}` -> `store::receipts`.
//! 4. Mend: `worker::sweep` -> `store::deliveries`: calls that never came back, what waited for a slot, or for too long;
//!    `worker::reconcile` -> `carrier` -> `domain::search` -> `store::looks`: answers that were lost, messages gone silent.
//!
//! 5. Nightly: `worker::nightly` -> `store::job_runs` elects -> `store::reports` -> `mail::render` -> `store::mails` keeps the
//!    mail -> `worker::outbox` -> `mail`; beside it `worker::cleanup` -> `store::cleanup`.
//!
//! The row whose commit made the 202 true is the job; there is no second queue.

mod app;
mod carrier;
mod cli;
mod config;
mod domain;
mod http;
mod intake;
mod mail;
mod store;
mod supervise;
mod telemetry;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    // reqwest and sqlx bring rustls without a crypto provider of their own; the first to install one wins.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run().unwrap_or_else(|error| {
        eprintln!("nightbell: {error:#}");
        ExitCode::FAILURE
    })
}
