//! Who carries messages. Each provider translates its own words at its door and knows nothing of the database:
//! callers record what it returns. Absent: when to send, and what an answer does to a delivery.

pub mod log;
pub mod twilio;

use crate::domain::route::{ProviderName, Route};
use crate::domain::{
    clock::Stamp,
    delivery::State,
    news::{Acceptance, Answer, Contact},
    phone::PhoneNumber,
    report::Explanation,
    search::{Listed, Listing},
};
use jiff::Timestamp;
use std::sync::Arc;

/// One message to be carried.
pub struct Outgoing<'a> {
    pub delivery_id: &'a str,
    pub attempt: i64,
    pub to: &'a PhoneNumber,
    pub text: &'a str,
}

/// What a provider's code means and what to do about it; `None` where the outcome is not of its making.
pub fn explain(provider: Option<&str>, state: State, code: Option<i64>) -> Option<Explanation> {
    if !matches!(state, State::Failed | State::Undelivered) {
        return None;
    }
    match ProviderName::parse(provider?)? {
        ProviderName::Log => None,
        ProviderName::Twilio => Some(twilio::codes::explain(code?)),
    }
}

/// The configured provider.
pub enum Provider {
    Log,
    Twilio(Box<twilio::Client>),
}

impl Provider {
    /// How the messages go.
    pub fn route(&self) -> &Arc<Route> {
        match self {
            Self::Log => log::route(),
            Self::Twilio(client) => client.route(),
        }
    }

    /// Calls the provider once. Never retries, and never takes longer than the configured time-out.
    pub async fn send(&self, message: &Outgoing<'_>) -> Answer {
        match self {
            Self::Log => log::send(message),
            Self::Twilio(client) => client.send(message).await,
        }
    }

    /// Every message to a number that the provider has, or only those since `since`. `None` if the list is not complete
    /// or cannot be read: then it says nothing.
    pub async fn search(&self, to: &PhoneNumber, since: Option<Timestamp>) -> Option<Listing> {
        match self {
            Self::Log => None,
            Self::Twilio(client) => client.search(to, since).await,
        }
    }

    /// One message by its id; `None` if it cannot be read now.
    pub async fn fetch(&self, message_id: &str) -> Option<Listed> {
        match self {
            Self::Log => None,
            Self::Twilio(client) => client.fetch(message_id).await,
        }
    }

    /// What the provider's clock read in its latest reply; `None` if it has none or says nothing.
    pub fn clock(&self) -> Option<Stamp> {
        match self {
            Self::Log => None,
            Self::Twilio(client) => client.clock(),
        }
    }

    /// Whether the provider accepts our account now. Costs one cheap request and sends nothing.
    pub async fn accepts_us(&self) -> Acceptance {
        match self {
            Self::Log => Acceptance::Accepted,
            Self::Twilio(client) => client.accepts_us().await,
        }
    }

    /// Whether calls of any kind brought an answer since this was last asked; `None` if there were none.
    pub fn take_contact(&self) -> Option<Contact> {
        match self {
            Self::Log => None,
            Self::Twilio(client) => client.take_contact(),
        }
    }
}
