//! All SQL, and the views of what it reads, which the admin API shows as they are: every statement is a literal beside
//! the function that is named as the question it answers. The same text serves SQLite and PostgreSQL (`sql`): `$1`, text
//! ids, times as UTC milliseconds bound from Rust.
//! Absent: any call to the outside. No transaction is open while a provider is called.
//!
//! From below: `session` and `single` (connections), `engine`, `tx` (a transaction, and what follows its commit), `query`,
//! `sql`; tables of their own (`alarms`, `holds`, `limits`, `opt_outs`, `staff`, `ack_codes`, …; `inbound` with `threads` and
//! `strangers`); `ledger` (the only writer of deliveries, attempts and timelines); `alerts`, `acknowledge`, `duplicates`;
//! `jobs`, `batcher`, `writes` (group commit); `db`, `open`. Beside them what
//! only reads (`lists`, `reports`, `overview`), and what the nightly jobs need (`job_runs`, `outbox`, `cleanup`).
//!
//! Locks are always taken in this order, so that PostgreSQL has no deadlocks: setting, alert, daily count, delivery.

mod ack_codes;
mod acknowledge;
mod alarms;
mod alerts;
mod batcher;
mod cleanup;
mod contact;
mod db;
mod duplicates;
mod engine;
mod error;
mod holds;
mod imported;
mod inbound;
mod inbound_lists;
mod incoming;
mod job_runs;
mod jobs;
mod just_opted_out;
mod ledger;
mod lifecycle;
mod limits;
mod lists;
mod migrate;
mod notes;
mod open;
mod opt_outs;
mod outbox;
mod overview;
mod pace;
mod page;
mod query;
mod reports;
mod session;
mod sessions;
mod single;
mod sources;
mod sql;
mod staff;
mod strangers;
mod test_mode;
mod threads;
mod transfer;
mod tx;
mod types;
mod waits;
mod webhooks;
mod writes;

pub use acknowledge::{Acknowledged, Acknowledger, LinkedAlert};
pub use alerts::Resolved;
pub use cleanup::{Ages, Batch, Old};
pub use db::Db;
pub use error::{OpenError, StoreError};
pub use holds::{Held, Probed, Trials};
pub use imported::ImportedAlert;
pub use inbound_lists::{InboundFilter, InboundView};
pub use incoming::{InboundRules, Incoming, Taken};
pub use job_runs::{Asker, Run, RunState};
pub use jobs::{
    Addition, AnswerRules, Answered, BeginRules, Begun, BegunBatch, Claimed, NewDelivery, Raised, Recorded, Sending,
};
pub use ledger::{Canceled, ClampRules, Looker, Lookup, MessageRequest, MessageTaken, Resent};
pub use limits::LimitStatus;
pub use lists::{AlertFilter, AlertState, AlertView, DeliveryFilter, DeliveryView};
pub use opt_outs::{NewOptOut, OptOut};
pub use outbox::{KeptReport, Mail, Mails, ReportParts, report_key};
pub use overview::{RecentAlarm, Ticket};
pub use page::Page;
pub use reports::Outcomes;
pub use session::Limits;
pub use sessions::Session;
pub use sources::{KnownTicket, PollStatus, TicketState, Turn, UnknownUrgency};
pub use staff::{PutStaff, StaffFilter, StaffMember};
pub use transfer::{PAGE, SUPERSEDED, TABLES};
pub use types::{Recipient, new_id};
pub use waits::Wait;
pub use webhooks::{
    Disabling, EndpointStatus, EndpointTry, EndpointTurn, HeldEvent, NewHold, NewTry, PlacedEvent, RoundDone,
    TryOutcome,
};
