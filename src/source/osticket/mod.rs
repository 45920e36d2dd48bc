//! osTicket, asked by SQL as a user who may only read: it tells nobody anything by itself, and its API only makes tickets.
//! Only what stands in its database now counts; its list of events (`…_thread_event`) says where to look. Absent: writing
//! anything there, and what becomes of what is seen.
//!
//! `poll` answers what every polled helpdesk is asked; `questions` has the SQL, `tickets` and `people` put the answers
//! together, `connection` asks. `old_sms` reads what the SMS code before Nightbell left there.

mod connection;
mod old_sms;
mod people;
mod poll;
mod questions;
mod tickets;

pub use connection::Connection;
pub use old_sms::{OldAlert, OldOptOut, OldSms, OldTable, Part, read as read_old_sms};
pub use poll::OsTicket;
