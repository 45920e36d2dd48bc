//! What providers tell us, in our words: the answer to an attempt, and receipts. Each provider translates its own
//! words into these at its door; the store applies them.

use super::delivery::{News, ProviderName};
use jiff::SignedDuration;

/// What the provider answered to one attempt. The variants say what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The provider has it. `status` is its own word, `news` what that means.
    Accepted {
        message_id: String,
        status: String,
        news: Option<News>,
    },
    /// Surely not sent: try again, not before `retry_after`. `why` is for the timeline.
    NotSent {
        retry_after: Option<SignedDuration>,
        why: &'static str,
        code: Option<i64>,
    },
    /// Refused for good.
    Refused { code: Option<i64>, opted_out: bool },
    /// Our account may not send: hold everything.
    Halted { code: Option<i64> },
    /// It may have been sent: never send it again blindly.
    Unknown { why: &'static str },
}

/// One status callback, its signature already checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub provider: ProviderName,
    pub message_id: String,
    /// The provider's own word.
    pub status: String,
    /// What it means; `None` for a word that we do not know.
    pub news: Option<News>,
    pub error_code: Option<i64>,
    /// Whether the code says that the person opted out.
    pub opted_out: bool,
    /// Whether the status says that the person read it.
    pub read: bool,
    /// The delivery and attempt that our own callback address named.
    pub attempt: Option<(String, i64)>,
}
