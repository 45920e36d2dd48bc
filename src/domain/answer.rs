//! What carriers answer, in our words: to an attempt, to a probe, and later by receipts. Each carrier translates its own
//! words into these at its edge; the store applies them.

use super::route::ProviderName;
use super::{alarm::AlarmKind, delivery::MessageStatus, report::Explanation, words::words};
use jiff::SignedDuration;

words! {
    /// What is at fault where the provider would refuse every message, whoever it is for.
    HoldCause {
        /// Who signs in.
        Credentials = "credentials",
        /// Who the message is from.
        Sender = "sender",
        /// The account: suspended, out of money, or not to be found.
        Account = "account",
        /// Something else of the configuration.
        Settings = "settings",
    }
}

impl HoldCause {
    /// Whether the account works again if the provider answers a question that sends nothing. It signs in as a message
    /// does, and has neither a sender nor a price.
    pub fn is_mended_by_an_answer(self) -> bool {
        match self {
            Self::Credentials => true,
            Self::Sender | Self::Account | Self::Settings => false,
        }
    }

    /// Whether a single delivery could be what the provider takes offence at, though it names this fault. A suspended
    /// account and a wrong setting are never about one message.
    pub fn may_be_one_delivery(self) -> bool {
        match self {
            Self::Credentials | Self::Sender => true,
            Self::Account | Self::Settings => false,
        }
    }

    /// The alarm of a hold for this fault.
    pub fn alarm(self) -> AlarmKind {
        match self {
            Self::Credentials => AlarmKind::CredentialsRefused,
            Self::Sender => AlarmKind::SenderRefused,
            Self::Account => AlarmKind::AccountRefused,
            Self::Settings => AlarmKind::SettingsRefused,
        }
    }
}

/// What the provider answered to one attempt. The variants say what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The provider has it. `word` is its own word, `status` what that means.
    Accepted {
        message_id: String,
        word: String,
        status: Option<MessageStatus>,
    },
    /// Surely not sent: try again, not before `retry_after`. `why` is for the timeline.
    NotSent {
        retry_after: Option<SignedDuration>,
        why: &'static str,
        code: Option<i64>,
    },
    /// Refused for good.
    Refused { code: Option<i64>, opted_out: bool },
    /// Every message would be refused: hold everything.
    Halted {
        fault: HoldCause,
        code: Option<i64>,
        /// What it means and what to do, for people.
        explanation: Explanation,
    },
    /// It may have been sent: never send it again blindly.
    Unknown { why: &'static str },
    /// Our own code failed around the call, so it may have been sent. Counted, so that it cannot go on for ever.
    Broken,
}

/// What a probe, which sends nothing, says of our account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeAnswer {
    Accepted,
    /// It would refuse a message too.
    Refused,
    /// The question itself is not allowed, as a restricted API key may send and not read: that says nothing of messages.
    Forbidden,
    /// No answer, or none that says anything.
    Unclear,
}

/// Whether the provider can be reached: whether calls brought an answer lately, whatever it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    Reachable,
    /// It was called, and no call brought an answer.
    Unreachable,
}

/// One status callback, its signature already checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub provider: ProviderName,
    pub message_id: String,
    /// The provider's own word.
    pub word: String,
    /// What it means; `None` for a word that we do not know.
    pub status: Option<MessageStatus>,
    pub error_code: Option<i64>,
    /// Whether the code says that the person opted out.
    pub opted_out: bool,
    /// Whether the status says that the person read it.
    pub read: bool,
    /// The delivery and attempt that our own callback address named.
    pub attempt: Option<(String, i64)>,
}
