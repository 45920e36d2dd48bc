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
        Some(known) => Explanation::new(format!("{}: {}", known.name, known.summary), &known.action),
        None => Explanation::new(
            format!("Twilio's error {code}, which this version does not know."),
            format!("Look it up: https://www.twilio.com/docs/api/errors/{code}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_is_whole() {
        assert_eq!(CODES.len(), 120);
        assert_eq!(find(OPTED_OUT).map(|code| code.class), Some(Class::OptedOut));
    }

    /// What every message would meet holds, and nothing else does: each code of it, written out.
    #[test]
    fn what_holds_is_as_listed() {
        for (fault, expected) in [
            (HoldCause::Credentials, &[20003, 20008, 63001][..]),
            (
                HoldCause::Sender,
                &[
                    21210, 21212, 21213, 21601, 21603, 21606, 21659, 21660, 21701, 21703, 21705, 30033, 30042, 63007,
                ],
            ),
            (HoldCause::Account, &[20005, 20404, 30002, 30037, 30454, 63020, 63038]),
            (HoldCause::Settings, &[21205, 21609, 30045]),
        ] {
            let holding = CODES.values().filter(|code| code.class.fault() == Some(fault));
            let codes: BTreeSet<i64> = holding.map(|code| code.code).collect();
            assert!(codes.iter().eq(expected), "{fault}: {codes:?}");
        }
    }
}
