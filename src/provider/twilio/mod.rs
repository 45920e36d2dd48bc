//! Everything that knows Twilio's words. `client` calls its API, `answer` says what it answered, `receipt` reads its
//! status callbacks, `signature` checks every webhook, `codes` explains its errors. Knows nothing of the database.

mod answer;
mod client;
pub mod codes;
pub mod receipt;
pub mod signature;

pub use client::{Account, Client, Credentials, Sender};
