//! The ledger: the only writer of deliveries, attempts and timelines, births and resends included. Everything is done for
//! many at once, and one is a slice of one: deliveries are locked (in the order of their ids, by everybody), moved in memory
//! by the state machine of `domain::delivery`, and saved. What follows from a move (somebody is woken, an alarm is raised)
//! follows from saving it. Absent: when to do what (callers say), and reading for people (see `lists`, `reports`).
//!
//! On the way of a message: `begin` (before the call), `answer` (after it), `receive` (receipts; `waiting` has those that came
//! too early), `lookups` (asked about). Beside it: `claims` (who may begin one alone), `aging` (what time alone decides),
//! `cancel`, `acknowledge`, `resend`, `message` and `opted_out` (a person decides), `clocks` (after a wrong clock), `told` (is
//! anybody told?), `strip` (personal data goes),
//! `outcomes` (what a report told).

mod acknowledge;
mod aging;
mod answer;
mod attempt;
mod begin;
mod cancel;
mod claims;
mod clocks;
mod delivery;
mod lookups;
mod message;
mod opted_out;
mod outcomes;
mod receive;
mod resend;
mod source_limits;
mod strip;
mod told;
mod waiting;

pub use acknowledge::acknowledge;
pub use answer::answer;
pub use attempt::create as create_attempts;
pub use begin::{begin, begin_new};
pub use cancel::Canceled;
pub use clocks::ClampRules;
pub use delivery::{Birth, Landing, create, lock, save};
pub use lookups::{Looker, Lookup};
pub use message::{MessageRequest, MessageTaken};
pub use opted_out::{calling, suppress};
pub use outcomes::{forget_old_outcomes, mark_outcomes};
pub use receive::receive;
pub use resend::Resent;
pub use strip::{BUSY, OLD_MESSAGE, strip, strip_message};
pub use told::check as check_told;
