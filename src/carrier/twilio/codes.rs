//! Twilio's error codes: what each means, what follows from it for the message and for all others, and advice for a
//! human. The table is compiled in from codes.json (gathered from Twilio's own pages; see its `name` for the term to
//! search for).

use crate::domain::{answer::HoldCause, report::Explanation};
use serde::Deserialize;
use std::{collections::HashMap, sync::LazyLock};

/// What is known of one error code.
#[derive(Debug, Deserialize)]
pub struct Code {
    code: i64,
    pub class: Class,
    name: String,
    summary: String,
    action: String,
}

/// What follows from a code in the answer to a message. Who is at fault decides: what is about this recipient, this text
/// or this country is refused for good, and what every message would meet is held, because it is our fault and not the
/// recipient's. Codes that only receipts bring have a class all the same, in case an answer brings one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// This message will never go.
    Refuse,
    /// Nor will any other one to this person: they said so.
    OptedOut,
    /// Surely not sent, and may go later.
    Again,
    /// Twilio's own page says that it may have gone all the same.
    MaybeSent,
    HoldCredentials,
    HoldSender,
    HoldAccount,
    HoldSettings,
}

impl Class {
    /// What is at fault, if every message would be refused.
    pub fn fault(self) -> Option<HoldCause> {
        match self {
            Self::HoldCredentials => Some(HoldCause::Credentials),
            Self::HoldSender => Some(HoldCause::Sender),
            Self::HoldAccount => Some(HoldCause::Account),
            Self::HoldSettings => Some(HoldCause::Settings),
            Self::Refuse | Self::OptedOut | Self::Again | Self::MaybeSent => None,
        }
    }
}

/// The person answered STOP (twilio.com/docs/api/errors/21610).
pub const OPTED_OUT: i64 = 21610;

static CODES: LazyLock<HashMap<i64, Code>> = LazyLock::new(|| {
    // Compiled in and read by a test, so it cannot fail to parse here.
    let codes: Vec<Code> = serde_json::from_str(include_str!("codes.json")).unwrap_or_default();
    codes.into_iter().map(|code| (code.code, code)).collect()
});

/// Looks a code up; Twilio adds codes, so an unknown one is nothing special.
pub fn find(code: i64) -> Option<&'static Code> {
    CODES.get(&code)
}

/// What a code means to a person, and what to do.
pub fn explain(code: i64) -> Explanation {
    match find(code) {
        Some(known) => Explanation {
            meaning: format!("{}: {}", known.name, known.summary),
            advice: known.action.clone(),
        },
        None => Explanation {
            meaning: format!("Twilio's error {code}, which this version does not know."),
            advice: format!("Look it up: https://www.twilio.com/docs/api/errors/{code}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        assert_eq!(CODES.len(), 120);
        assert_eq!(find(OPTED_OUT).map(|code| code.class), Some(Class::OptedOut));
    }

    /// What every message would meet holds, and nothing else does: each code of it, written out.
    #[test]
    fn what_holds_is_as_listed() {
        let mut holding: Vec<(i64, HoldCause)> = CODES
            .values()
            .filter_map(|code| Some((code.code, code.class.fault()?)))
            .collect();
        holding.sort_by_key(|(code, _)| *code);

        assert_eq!(
            holding,
            [
                (20003, HoldCause::Credentials),
                (20005, HoldCause::Account),
                (20008, HoldCause::Credentials),
                (20404, HoldCause::Account),
                (21205, HoldCause::Settings),
                (21210, HoldCause::Sender),
                (21212, HoldCause::Sender),
                (21213, HoldCause::Sender),
                (21601, HoldCause::Sender),
                (21603, HoldCause::Sender),
                (21606, HoldCause::Sender),
                (21609, HoldCause::Settings),
                (21659, HoldCause::Sender),
                (21660, HoldCause::Sender),
                (21701, HoldCause::Sender),
                (21703, HoldCause::Sender),
                (21705, HoldCause::Sender),
                (30002, HoldCause::Account),
                (30033, HoldCause::Sender),
                (30037, HoldCause::Account),
                (30042, HoldCause::Sender),
                (30045, HoldCause::Settings),
                (30454, HoldCause::Account),
                (63001, HoldCause::Credentials),
                (63007, HoldCause::Sender),
                (63020, HoldCause::Account),
                (63038, HoldCause::Account),
            ]
        );
    }
}
