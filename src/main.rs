//! Nightbell stands beside a helpdesk. When a ticket turns critical it texts the people who must know: one SMS for
//! each of them per ticket, never twice, never lost, and it can prove afterwards what became of every message.
//!
//! # The map
//!
//! ```text
//! main.rs        this map; parses, runs, prints the error chain, sets the exit code
//! cli/           the commands, one file a subject; each is a few lines that call a module
//! app/           the composition root: the whole configuration, the parts made of it, running and stopping them in order;
//!                what commands do with the same parts (nightly jobs now, test mail, migrate, back-up, export, import), and
//!                how they ask the admin API: over HTTP, or in this process
//! config/        reads a file under environment variables, all faults at once; the sections that belong to no carrier
//! telemetry.rs   the log
//! supervise.rs   tasks that panic or end early are started anew, or end the process
//! http/          connections and their caps, tokens, limits; events, helpdesks' and Twilio's webhooks, the admin API, health
//! source/        helpdesks that are polled: osTicket, Request Tracker, Zammad, Redmine; the loop; notes on tickets
//! intake/        what becomes of an event: who is told, in which words
//! worker/        one job, one file, run by apalis: deliveries (backend, pace, send), sweep, reconcile (with proof), probe,
//!                clock_watch, listener, nightly, alarms, outbox, cleanup, webhooks (to each endpoint, what it has not heard of)
//! store/         all SQL of our own database: connections, transactions, group commit; ledger/, the only writer of
//!                deliveries, attempts and timelines; alerts, opt-outs, limits, holds; lists and reports; job runs, outbox, clean-up; transfer
//! carrier/       who carries messages: the registry, what every carrier answers (driver), log, twilio/
//! mail/          how mails look, and SMTP
//! notify/        how others are told of a lifecycle event: signed webhooks, kinds of notifiers as data, an event in words, notes on
//!                tickets; and what may be connected to
//! domain/        event, source, mapping, urgency, verifier, staff, phone, message, inbound, reply, auto_reply, delivery (the
//!                state machine), acknowledge, ack_link, route, answer, search, clock, day, nightly, report, alarm, mail,
//!                lifecycle, timeline (in words): no I/O, no clock
//! ```
//!
//! Who may import whom: `main -> cli -> app -> {http, worker, source} -> intake -> {store, carrier, mail, notify} -> domain`, each
//! also what is further to the right. Beside the line stand `config` (each carrier and helpdesk reads its own section with
//! its `Reader`), `telemetry` and `supervise`. `http`, `worker` and `source` never import each other, nor do `store`,
//! `carrier`, `mail` and `notify`: they meet in the database. No file imports another in a circle. Only `store` contains SQL (and
//! `source::osticket`, which has no other way to ask), only `carrier::twilio` knows Twilio's words, only
//! `worker::workers` names apalis. A test keeps it so (`tests/architecture.rs`).
//!
//! # The walk of an event
//!
//! ```text
//! in     http/server -> http/events -> http/auth (the token) -> http/body -> domain/json -> domain/event
//!        -> intake/mod -> intake/compose -> domain/phone, domain/message
//!        -> store/alerts -> store/duplicates (is it known?) -> store/jobs -> store/batcher -> store/writes
//!        -> store/ledger/delivery (alert and deliveries, one transaction) -> store/tx: committed, 202, the worker is notified
//! out    worker/workers -> worker/backend -> worker/pace -> store/db -> store/ledger/begin -> store/ledger/attempt: durable
//!        -> worker/send -> carrier/mod -> carrier/twilio/messages (the call) -> carrier/twilio/answer -> store/ledger/answer
//! ```
//!
//! Every later write goes from jobs to tx by the same files, named once. On SQLite a new event is begun in the very
//! transaction that raises it. Every move of a delivery is decided by `domain/delivery`.
//!
//! A helpdesk's own form comes by http/hooks -> domain/verifier -> domain/source -> domain/mapping -> domain/event; a poll by
//! source/poll -> source/helpdesk -> domain/source -> domain/event. Both go on at intake/mod.
//!
//! # The walk of a receipt
//!
//! ```text
//! back   http/twilio/receipts -> http/twilio/signed -> http/webhooks -> carrier/twilio/signature: it is Twilio
//!        -> carrier/twilio/receipt (what its words mean) -> store/ledger/receive: kept and applied, 204
//!        -> store/ledger/waiting: kept until somebody knows its message
//! ```
//!
//! # The walk of a text
//!
//! ```text
//! text   http/twilio/inbound -> http/twilio/signed: it is Twilio -> carrier/twilio/inbound -> domain/reply (what it means)
//!        -> store/inbound (kept, and done: opt_outs, ledger/opted_out, acknowledge, threads) -> 200; domain/auto_reply: answers
//! ```
//!
//! # Without anybody asking
//!
//! ```text
//! mend   worker/sweep -> store/ledger/aging: calls that never came back, what waited for a slot, or for too long
//!        worker/reconcile -> store/ledger/lookups -> domain/search -> worker/proof: answers that were lost, messages without
//!        a new status
//! daily  worker/nightly -> store/job_runs (elects a process) -> store/reports -> mail/render -> store/outbox (kept)
//!        -> worker/outbox -> mail/mod; beside it worker/cleanup -> store/cleanup
//! told   store/lifecycle (with what happened) -> store/webhooks (places, turns) -> worker/webhooks -> notify/http
//! ```
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
mod notify;
mod source;
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
