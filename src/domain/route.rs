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

    /// What names it in the database: only compared, and asked for its sender.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The number that messages of a route come from; `None` where it is not one number: a service chooses among several, and
    /// to a name nobody can answer.
    pub fn number_of(key: &str) -> Option<&str> {
        let sender = key.rsplit('/').next()?;
        let digits = sender.strip_prefix('+').unwrap_or(sender);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_knows_its_number_if_it_has_one() {
        for (sender, number) in [
            ("+15005550006", Some("+15005550006")),
            ("12345", Some("12345")),
            ("MG0123456789abcdef0123456789abcdef", None),
            ("NIGHTBELL", None),
            ("", None),
        ] {
            let route = Route::new(Channel::Sms, ProviderName::Twilio, "AC1", sender);
            assert_eq!(Route::number_of(route.key()), number, "{sender}");
        }
    }
}
