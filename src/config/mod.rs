//! How settings are read, and the sections that belong to no carrier. Absent: the carriers' own sections, which stand
//! beside their code, and the whole that they make (see `app::settings`).

mod acknowledge;
mod channel;
mod inbound;
mod log;
mod nightly;
mod presets;
mod reader;
mod sms;
mod sources;

pub use acknowledge::read_acknowledge;
pub use channel::read_channel;
pub use inbound::Inbound;
pub use log::Log;
pub use nightly::Nightly;
pub use reader::{Effective, Fault, Reader};
pub use sms::Sms;
pub use sources::read_sources;
