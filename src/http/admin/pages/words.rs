//! The words of the database as people read them.

use crate::domain::{
    acknowledge::Via,
    delivery::{Reason, State},
    inbound::InboundOutcome,
    report::Explanation,
    timeline::state_in_words,
};

/// How a state is coloured: `good`, `moving`, `waiting`, `doubtful`, `bad` or `off`. The chip says its word too.
pub fn tone(state: &str) -> &'static str {
    match State::parse(state) {
        Some(State::Delivered) => "good",
        Some(State::Sending | State::Accepted | State::Sent) => "moving",
        Some(State::Pending | State::Deferred) => "waiting",
        Some(State::Unknown | State::Unconfirmed) => "doubtful",
        Some(State::Undelivered | State::Failed | State::Expired) => "bad",
        Some(State::Suppressed | State::Canceled) | None => "off",
    }
}

/// What a state means; nothing for one of a newer version.
pub fn meaning(state: &str) -> &'static str {
    State::parse(state).map_or("", state_in_words)
}

/// Why a delivery stands where it stands.
pub fn reason(word: &str) -> String {
    let known = match Reason::parse(word) {
        Some(Reason::InvalidNumber) => "not a usable number",
        Some(Reason::NoNumber) => "no number",
        Some(Reason::OptedOut) => "opted out",
        Some(Reason::TicketClosed) => "the ticket was closed",
        Some(Reason::Canceled) => "canceled before it was sent",
        Some(Reason::Limit) => "the daily limit is reached",
        Some(Reason::Expired) => "too old",
        Some(Reason::Refused) => "the provider refused it",
        Some(Reason::ProviderFailed) => "the provider could not send it",
        Some(Reason::ProviderRefusedCredentials) => "the provider refuses our account or settings",
        Some(Reason::NotFound) => "the provider does not know it any more",
        Some(Reason::InternalError) => "an error inside Nightbell",
        None => return word.replace('_', " "),
    };
    known.to_owned()
}

/// How an alert was acknowledged.
pub fn via(word: &str) -> &str {
    match Via::parse(word) {
        Some(Via::Sms) => "by SMS",
        Some(Via::Link) => "by the link in the message",
        Some(Via::Api) => "by the API",
        Some(Via::Page) => "on these pages",
        Some(Via::Command) => "by a command",
        None => word,
    }
}

/// What came of a message that somebody sent us.
pub fn outcome(word: &str) -> String {
    let known = match InboundOutcome::parse(word) {
        Some(InboundOutcome::OptedOut) => "opted out: gets no more texts",
        Some(InboundOutcome::OptedOutBefore) => "had opted out before",
        Some(InboundOutcome::OptedIn) => "opted in: gets texts again",
        Some(InboundOutcome::NotOptedOut) => "had not opted out",
        Some(InboundOutcome::Helped) => "answered with the help text",
        Some(InboundOutcome::HelpedByProvider) => "the provider answers it",
        Some(InboundOutcome::NotHelped) => "not answered",
        Some(InboundOutcome::Acknowledged) => "acknowledged the alert",
        Some(InboundOutcome::AcknowledgedBefore) => "the alert was acknowledged before",
        Some(InboundOutcome::NotCritical) => "the ticket was no longer critical",
        Some(InboundOutcome::SeveralOpen) => "several alerts were open",
        Some(InboundOutcome::WrongCode) => "no open alert has this code",
        Some(InboundOutcome::NothingOpen) => "nothing was open",
        Some(InboundOutcome::ToAlert) => "a reply to an alert",
        Some(InboundOutcome::ToNone) => "a reply to no alert",
        None => return word.replace('_', " "),
    };
    known.to_owned()
}

/// What an outcome means and what to do about it; `None` where nothing is to be done.
pub fn explain(state: &str, reason: Option<&str>, by_code: Option<Explanation>) -> Option<Explanation> {
    let state = State::parse(state)?;
    let reason = reason.and_then(Reason::parse);
    state
        .is_bad()
        .then(|| by_code.unwrap_or_else(|| Explanation::of(state, reason)))
}
