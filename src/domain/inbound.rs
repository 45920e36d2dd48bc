//! A message that a person sent us, as its carrier read it, and what came of it. Absent: what its text means (see `reply`).

use super::{phone::PhoneNumber, reply::Keyword, route::ProviderName, words::words};

/// The channel of text messages, as a message names it.
pub const SMS: &str = "sms";

/// A message that a person sent us.
#[derive(Clone, Debug)]
pub struct Inbound {
    pub provider: ProviderName,
    /// The provider's own id: exact repeats have the same.
    pub provider_message_id: String,
    /// `sms`, or another word of the provider's.
    pub channel: String,
    /// As the provider wrote it; `None` if it named nobody.
    pub from: Option<String>,
    /// Who can be texted there: by SMS, and only where it is a number.
    pub phone: Option<PhoneNumber>,
    pub to: Option<String>,
    /// Cleaned.
    pub text: String,
    /// What the provider says that it is.
    pub keyword: Option<Keyword>,
    pub provider_answers: ProviderAnswers,
    /// How many attachments, and the types of those that are named.
    pub media: Option<(usize, Vec<String>)>,
    /// Everything that the provider said, as JSON.
    pub form: String,
}

/// Whether the provider answers keywords by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderAnswers {
    /// It has answered this message.
    This,
    /// The usual words, for senders of this kind.
    UsualWords,
    Nothing,
}

/// Whether we answer who asks for help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelpAnswers {
    /// Where the provider does not.
    Auto,
    Always,
    Never,
}

impl HelpAnswers {
    /// Whether we answer; `is_usual`: the word was one of those that providers answer, where they do.
    pub fn answers(self, provider: ProviderAnswers, is_usual: bool) -> bool {
        match (self, provider) {
            (Self::Always, _) => true,
            (Self::Never, _) | (Self::Auto, ProviderAnswers::This) => false,
            (Self::Auto, ProviderAnswers::UsualWords) => !is_usual,
            (Self::Auto, ProviderAnswers::Nothing) => true,
        }
    }
}

words! {
    /// What a message was understood as.
    #[derive(utoipa::ToSchema)]
    InboundKind {
        OptOut = "opt_out",
        OptIn = "opt_in",
        Help = "help",
        Acknowledge = "acknowledge",
        Reply = "reply",
    }
}

words! {
    /// What came of a message.
    #[derive(utoipa::ToSchema)]
    InboundOutcome {
        /// The number is on the list of opt-outs from now on.
        OptedOut = "opted_out",
        /// It was there before.
        OptedOutBefore = "opted_out_before",
        /// The number was taken off the list.
        OptedIn = "opted_in",
        /// It was not on it.
        NotOptedOut = "not_opted_out",
        /// We answer with the text for those who ask for help.
        Helped = "helped",
        /// The provider has answered.
        HelpedByProvider = "helped_by_provider",
        /// Nobody answers.
        NotHelped = "not_helped",
        /// The alert is acknowledged by it.
        Acknowledged = "acknowledged",
        /// It was acknowledged before.
        AcknowledgedBefore = "acknowledged_before",
        /// Its ticket is no longer critical.
        NotCritical = "not_critical",
        /// Several alerts are open, and it names none.
        SeveralOpen = "several_open",
        /// It names none that is open.
        WrongCode = "wrong_code",
        /// This person was told of nothing that is open.
        NothingOpen = "nothing_open",
        /// It belongs to an alert.
        ToAlert = "to_alert",
        /// It belongs to none.
        ToNone = "to_none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_asks_for_help_gets_two_answers() {
        use {HelpAnswers::*, ProviderAnswers::*};
        for (ours, provider, is_usual, answers) in [
            (Auto, This, true, false),
            (Auto, This, false, false),
            (Auto, UsualWords, true, false),
            (Auto, UsualWords, false, true),
            (Auto, Nothing, true, true),
            (Never, Nothing, true, false),
            (Always, This, true, true),
        ] {
            assert_eq!(
                ours.answers(provider, is_usual),
                answers,
                "{ours:?} {provider:?} {is_usual}"
            );
        }
    }
}
