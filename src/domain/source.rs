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
}

/// What a later critical event may add to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaterRecipients {
    /// Its people, but only if nobody was told so far.
    Untold,
    /// Each newly named number of an open alert, once.
    Each,
}
