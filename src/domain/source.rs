//! A helpdesk as the configuration has it.

use super::{event::Recipient, phone::Region};
use secrecy::SecretString;

/// One helpdesk.
#[derive(Clone)]
pub struct Source {
    /// Tokens that may speak for this source only.
    pub tokens: Vec<SecretString>,
    /// For phone numbers that bring no country of their own.
    pub region: Region,
    /// Who is told when an event names nobody with a usable number.
    pub fallback_recipients: Vec<Recipient>,
    pub later_recipients: LaterRecipients,
    /// Whether the phones in its events count; else only those of the staff directory do.
    pub trusts_phones: bool,
}

/// What a later critical event may add to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaterRecipients {
    /// Its people, but only if nobody was told so far.
    Untold,
    /// Each newly named number of an open alert, once.
    Each,
}

#[cfg(test)]
impl Source {
    /// One that is configured by its name only.
    pub fn for_test() -> Self {
        Self {
            tokens: Vec::new(),
            region: Region::UNKNOWN,
            fallback_recipients: Vec::new(),
            later_recipients: LaterRecipients::Untold,
            trusts_phones: true,
        }
    }
}
