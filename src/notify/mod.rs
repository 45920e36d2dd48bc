//! Posts lifecycle events to whoever is configured to hear of them. Here: the kinds of endpoints that are no plain webhook,
//! as data (`kind`, `kinds/`), the words in which people are told of an event (`words`), and those of a note on a ticket
//! (`note`). Absent: which events there are (see `domain::lifecycle`).

mod client;
mod kind;
mod kind_settings;
mod note;
mod posted;
mod samples;
mod settings;
mod words;

pub use kind::open;
pub use kind_settings::Target;
pub use note::note;
pub use posted::{Other, Posted};
pub use settings::{Endpoint, read_endpoints};
pub use words::Telling;
