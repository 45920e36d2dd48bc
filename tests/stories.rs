//! Stories: the real program, driven over real sockets, on SQLite and on PostgreSQL. Only the far side is fake: a
//! Twilio with its own signature code. One file a subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a story that cannot go on should panic"
)]

#[macro_use]
mod support;

mod acknowledge;
mod acknowledge_replies;
mod admin_commands;
mod alarms;
mod answers;
mod architecture;
mod batches;
mod browser;
mod canceling;
mod cleanup;
mod clocks;
mod commands;
mod connections;
mod crashes;
mod demo;
mod hooks;
mod inbound;
mod intake;
mod limits;
mod messages;
mod newer_versions;
mod nightly;
mod notifiers;
mod numbers;
mod openapi;
mod opt_outs;
mod osticket;
mod osticket_import;
mod pages;
mod plans;
mod provider_trouble;
mod receipts;
mod reconciling;
mod redmine;
mod replicas;
mod request_tracker;
mod retries;
mod searches;
mod sending;
mod staff;
mod test_mode;
mod torture;
mod trouble;
mod unresponsive_database;
mod upgrade;
mod webhooks;
mod write_back;
mod zammad;
