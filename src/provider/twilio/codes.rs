//! Twilio's error codes: what each means, whether sending again may help, and advice for a human. The table is compiled
//! in from codes.json (gathered from Twilio's own pages; see its `name` for the term to search for).

use crate::domain::report::Explanation;
use serde::Deserialize;
use std::{collections::HashMap, sync::LazyLock};

/// What is known of one error code.
#[derive(Debug, Deserialize)]
pub struct Code {
    code: i64,
    pub kind: Kind,
    /// Whether sending again later may succeed without a human.
    pub retryable: bool,
    name: String,
    summary: String,
    action: String,
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Account,
    Auth,
    Carrier,
    Compliance,
    Content,
    Destination,
    Fraud,
    Geo,
    OptOut,
    Platform,
    Rate,
    Request,
    Sender,
    Unknown,
    Webhook,
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
        assert_eq!(find(OPTED_OUT).map(|code| code.kind), Some(Kind::OptOut));
    }
}
