//! Acknowledging an alert: by which ways, by which rules, and the short codes that tell alerts apart in a reply. Absent: the
//! links (see `ack_link`), and whose alert is acknowledged (see `store::acknowledge`).

use super::{ack_link::Links, id::DeliveryId, words::words};
use jiff::Timestamp;
use std::sync::LazyLock;

words! {
    /// How an alert was acknowledged.
    #[derive(utoipa::ToSchema)]
    #[schema(as = AcknowledgedVia)]
    Via {
        /// By a reply.
        Sms = "sms",
        /// By the link in a message.
        Link = "link",
        Api = "api",
        /// By an admin, on a page.
        Page = "page",
        Command = "command",
    }
}

impl Via {
    /// How it reads after "acknowledged".
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Sms => "by a reply",
            Self::Link => "by the link in its message",
            Self::Api => "by the API",
            Self::Page => "on the admin pages",
            Self::Command => "by a command",
        }
    }
}

/// What the timeline says of a message that is canceled because of an acknowledgement. No name: it is not the business of
/// whoever reads the timeline of somebody else's message for long.
pub const ACKNOWLEDGED: &str = "somebody acknowledged the alert";

/// What follows from an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcknowledgeRules {
    /// Whether others, whose message has not begun to be sent, are told no more.
    pub cancels_others: bool,
}

impl Default for AcknowledgeRules {
    fn default() -> Self {
        Self { cancels_others: true }
    }
}

/// How people may acknowledge, as it is configured.
#[derive(Clone, Default)]
pub struct Acknowledging {
    pub rules: AcknowledgeRules,
    /// Whether each message names a code.
    pub has_code: bool,
    /// Whether each message has a link.
    pub has_link: bool,
    /// By which links are made and read; those in messages that went out are read whether or not new ones are made.
    pub links: Option<Links>,
}

impl Acknowledging {
    /// The link for the message of this delivery, if it is to have one.
    pub fn link(&self, delivery: &DeliveryId, now: Timestamp) -> Option<String> {
        self.links.as_ref().filter(|_| self.has_link)?.make(delivery, now)
    }
}

/// Letters that are no vowels, so that no code is a word, and none that is taken for another or for a digit.
const LETTERS: &[u8] = b"CFHJKMNPRTWXY";
const DIGITS: &[u8] = b"34679";

/// Every code: three of these with a letter and a digit among them, so that none is a keyword or a number in any language.
static CODES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let all = || LETTERS.iter().chain(DIGITS).map(|byte| char::from(*byte));
    let every = all().flat_map(|a| all().flat_map(move |b| all().map(move |c| [a, b, c])));
    let is_mixed =
        |code: &[char; 3]| code.iter().any(char::is_ascii_digit) && code.iter().any(char::is_ascii_alphabetic);
    every.filter(is_mixed).map(|code| code.iter().collect()).collect()
});

/// A code at random that does not occur in `text`: so that it can be found there once it is put in.
pub fn code_apart_from(text: &str, mut random: impl FnMut() -> u32) -> &'static str {
    // Whoever writes a text in which every code occurs gets one that does.
    let mut last = "";
    for _ in 0..CODES.len() {
        last = code_of(random());
        if !text.contains(last) {
            break;
        }
    }
    last
}

/// The code that a number stands for.
pub fn code_of(random: u32) -> &'static str {
    let place = usize::try_from(random).unwrap_or(0) % CODES.len();
    CODES.get(place).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_code_looks_like_another_or_is_a_word_or_a_number() {
        let all: BTreeSet<&String> = CODES.iter().collect();

        assert_eq!((CODES.len(), all.len()), (3_510, 3_510));
        for code in all {
            assert_eq!(code.len(), 3);
            assert!(!code.contains(|c| "0O1IL5S8B2ZUVAEQDG".contains(c)), "{code}");
            assert!(code.bytes().any(|byte| byte.is_ascii_digit()), "{code}");
            assert!(code.bytes().any(|byte| byte.is_ascii_uppercase()), "{code}");
        }
        assert!(CODES.iter().any(|code| code == "K7P"));
        for word in ["ACK", "END", "YES", "OUT", "347"] {
            assert!(!CODES.iter().any(|code| code == word), "{word}");
        }
    }

    #[test]
    fn every_number_stands_for_a_code_and_all_codes_are_reached() {
        let reached: BTreeSet<&str> = (0..10_000).map(code_of).collect();

        assert_eq!(reached.len(), CODES.len());
        assert_eq!(code_of(u32::MAX).len(), 3);
    }

    #[test]
    fn a_code_is_chosen_that_the_text_does_not_have() {
        let (first, second) = (code_of(0), code_of(1));
        let mut numbers = 0..;
        let mut next = || numbers.next().unwrap();

        assert_eq!(code_apart_from(&format!("Room {first}"), &mut next), second);
        let every = CODES.join(" ");
        assert_eq!(code_apart_from(&every, rand::random).len(), 3, "it ends all the same");
    }
}
