//! Helpdesks that are polled, each with what it says now. Absent: what is configured of every source (see
//! `domain::source`), events that helpdesks post (see `http`), and what becomes of them (see `intake`).

mod helpdesk;
pub mod osticket;
mod poll;
mod redmine;
mod rest;
mod rt;
mod seen;
mod settings;
mod walk;
mod zammad;

pub use helpdesk::Helpdesk;
pub use poll::Poller;
pub use settings::Settings;
