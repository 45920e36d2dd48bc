//! Routes: how a message goes to its person. A hold, the pace and what is known of a provider's trouble belong to a route;
//! a sender that is refused says nothing about another one.

use super::words::words;
use jiff::SignedDuration;

words! {
    /// How a message travels.
    Channel { Sms = "sms" }
}

words! {
    /// Who carries the message.
    ProviderName { Log = "log", Twilio = "twilio" }
}

impl ProviderName {
    /// Its name as people write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Log => "the log",
            Self::Twilio => "Twilio",
        }
    }
}

/// How a channel's messages are sent.
#[derive(Clone, Copy, Debug)]
pub struct ChannelRules {
    /// Messages a second; 0 is unpaced.
    pub per_second: f64,
    /// Calls to the provider at once.
    pub max_in_flight: usize,
    pub lease: SignedDuration,
    pub timeout: SignedDuration,
    /// Over which the lookups are spread that prove a message absent.
    pub reconcile_after: SignedDuration,
    pub resend_when_absent: bool,
    pub poll_after: SignedDuration,
    pub expire_after: SignedDuration,
}

/// By which channel, through whom, through which of our accounts there, and from whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub channel: Channel,
    pub provider: ProviderName,
    /// The provider's account: an answer of one account says nothing about another.
    pub account: String,
    key: String,
}

impl Route {
    /// `sender`: the number, short code, name or service that the message is from.
    pub fn new(channel: Channel, provider: ProviderName, account: &str, sender: &str) -> Self {
        Self {
            channel,
            provider,
            account: account.to_owned(),
            key: format!("{channel}/{provider}/{account}/{sender}"),
        }
    }

    /// How messages of a channel go in test mode: to the log, by nobody's account.
    pub fn to_log(channel: Channel) -> Self {
        Self::new(channel, ProviderName::Log, "log", "")
    }

    /// What names it in the database: never parsed, only compared.
    pub fn key(&self) -> &str {
        &self.key
    }
}
