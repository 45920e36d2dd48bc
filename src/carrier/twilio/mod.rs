//! Everything that knows Twilio's words. `settings` reads its section of the configuration, `messages` calls its Messages
//! API, `answer` says what it answered, `receipt` reads its status callbacks, `inbound` what people text us, `signature`
//! checks every webhook, `codes` explains its errors. Knows nothing of the database.

mod answer;
mod codes;
pub mod inbound;
mod messages;
pub mod receipt;
mod settings;
pub mod signature;

pub use messages::Messages;
