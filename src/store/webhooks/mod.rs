//! What endpoints have heard of the lifecycle events, and what they have not. Every event is given a place once it is
//! committed (`places`); an endpoint has a place up to which it has heard of all, except for what waits in `webhook_hold`:
//! one process at a time takes the turn to go on from there (`rounds`, which reads by `events`). Beside it what admins see
//! and do (`admin`). Absent: posting (see `notify`), and when something is tried again (see `worker::webhooks`).

mod admin;
mod events;
mod places;
mod rounds;

pub use admin::{EndpointStatus, EndpointTry};
pub use events::{HeldEvent, PlacedEvent};
pub use rounds::{Disabling, EndpointTurn, NewHold, NewTry, RoundDone, TryOutcome};
