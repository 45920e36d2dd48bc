//! Helpdesks that are polled, each with what it says now. Absent: what is configured of every source (see
//! `domain::source`), events that helpdesks post (see `http`), and what becomes of them (see `intake`).

mod helpdesk;
mod redmine;
mod rest;
mod rt;
mod walk;
mod zammad;

pub use helpdesk::{Changes, Helpdesk, HelpdeskError, SeenTicket};
