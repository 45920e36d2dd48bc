//! Looking for a message whose answer was lost: is it in the provider's list? Pure; who asks for the list, and how
//! often, is the worker's business.
//!
//! The marker of a message is its text, with its number and its time. It survives what carriers do to texts: other
//! punctuation and blanks for the same (smart encoding), and trimmed blanks.

use super::{clock::Stamp, day::after, delivery::MessageStatus};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashSet;

/// How far the provider's clock may be from ours. Wider is safer: it can only make us less certain.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_mins(10);
/// How much further away the same text still may be it: our clock may have been wrong when the attempt began, and right
/// again since.
const WRONG_CLOCK_SLACK: SignedDuration = SignedDuration::from_mins(30);

/// A complete list of the messages to a number.
#[derive(Debug)]
pub struct Listing {
    pub messages: Vec<Listed>,
    /// What the provider's clock read while it answered.
    pub stamps: Vec<Stamp>,
}

/// A message in the provider's list, to the number that was asked for.
#[derive(Debug, Clone)]
pub struct Listed {
    pub message_id: String,
    /// The provider's own word, and what it means.
    pub word: String,
    pub status: Option<MessageStatus>,
    pub error_code: Option<i64>,
    /// Whether the code says that the person opted out.
    pub opted_out: bool,
    /// Without what the provider put before it; `None` if it cannot be read any more.
    pub text: Option<String>,
    pub created_at: Option<Timestamp>,
}

/// What we look for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub text: &'a str,
    /// When the attempt began.
    pub begun_at: Timestamp,
    /// When its answer was recorded; now, if none was.
    pub ended_at: Timestamp,
    /// How far the provider's clock is ahead of ours.
    pub ahead: SignedDuration,
}

impl Wanted<'_> {
    /// Whether a message may be it by its time. One without a time may be of any time.
    fn is_near(&self, message: &Listed) -> bool {
        self.is_within(CLOCK_SLACK, message)
    }

    /// Whether a message may be it if our clock was wrong when the attempt began. No other message matters.
    pub fn is_around(&self, message: &Listed) -> bool {
        self.is_within(CLOCK_SLACK + WRONG_CLOCK_SLACK, message)
    }

    /// Whether it was made while the attempt lasted, give or take `slack`, by our clock or by the provider's. By a clock that
    /// went back meanwhile, the attempt ended before it began.
    fn is_within(&self, slack: SignedDuration, message: &Listed) -> bool {
        let (first, last) = (self.begun_at.min(self.ended_at), self.begun_at.max(self.ended_at));
        let from = first.min(after(first, self.ahead));
        let to = last.max(after(last, self.ahead));
        let window = after(from, -slack)..=after(to, slack);
        message.created_at.is_none_or(|at| window.contains(&at))
    }
}

/// What one complete list says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Here it is; the place in the list.
    Found(usize),
    /// Every message to that number in that time is another one.
    NotThere,
    /// Some message may be it, or may not.
    CannotTell,
}

/// Judges a complete list. `owned` are the messages that belong to attempts already.
pub fn judge(wanted: Wanted<'_>, list: &[Listed], owned: &HashSet<String>) -> Verdict {
    let mut verdict = Verdict::NotThere;
    let mut oldest: Option<usize> = None;
    for (place, message) in list.iter().enumerate() {
        if owned.contains(&message.message_id) {
            continue;
        }
        let is_near = wanted.is_near(message);
        match message.text.as_deref().map(|text| compare(wanted.text, text)) {
            Some(Likeness::Same) if is_near => {
                if oldest.is_none_or(|oldest| message.created_at < list[oldest].created_at) {
                    oldest = Some(place);
                }
            }
            Some(Likeness::Same) if wanted.is_around(message) => verdict = Verdict::CannotTell,
            Some(Likeness::Unclear) | None if is_near => verdict = Verdict::CannotTell,
            Some(Likeness::Same | Likeness::Different | Likeness::Unclear) | None => {}
        }
    }
    oldest.map_or(verdict, Verdict::Found)
}

#[derive(Debug, PartialEq, Eq)]
enum Likeness {
    Same,
    Different,
    /// The same figures in other words: perhaps changed on its way in a manner that we do not know.
    Unclear,
}

fn compare(ours: &str, theirs: &str) -> Likeness {
    let (ours, theirs) = (skeleton(ours), skeleton(theirs));
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    if theirs.is_empty() {
        Likeness::Unclear
    } else if ours == theirs {
        Likeness::Same
    } else if digits(&ours) == digits(&theirs) {
        Likeness::Unclear
    } else {
        Likeness::Different
    }
}

/// Letters and digits only, in ASCII: what is left of a text when punctuation, blanks and look-alikes are taken for
/// each other.
fn skeleton(text: &str) -> String {
    let ascii = text
        .chars()
        .flat_map(|c| deunicode::deunicode_char(c).unwrap_or_default().chars());
    ascii.filter(char::is_ascii_alphanumeric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str =
        "🚨 CRITICAL TICKET #108749\nSubject: “Checkout” – page 500 error…\nView: https://tickets.example.com/1";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn wanted() -> Wanted<'static> {
        Wanted {
            text: OURS,
            begun_at: at(0),
            ended_at: at(60),
            ahead: SignedDuration::ZERO,
        }
    }

    fn listed<'a>(id: &str, second: i64, text: impl Into<Option<&'a str>>) -> Listed {
        Listed {
            message_id: id.into(),
            word: "sent".into(),
            status: Some(MessageStatus::Sent),
            error_code: None,
            opted_out: false,
            text: text.into().map(str::to_owned),
            created_at: Some(at(second)),
        }
    }

    fn verdict(list: &[Listed], owned: &[&str]) -> String {
        verdict_on(wanted(), list, owned)
    }

    fn verdict_on(wanted: Wanted<'_>, list: &[Listed], owned: &[&str]) -> String {
        match judge(wanted, list, &owned.iter().map(|id| (*id).to_owned()).collect()) {
            Verdict::Found(place) => list[place].message_id.clone(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_carriers_do_to_a_text_does_not_hide_it() {
        let blanks = format!("  {} ", OURS.replace('\n', " "));
        let smart = "🚨 CRITICAL TICKET #108749\nSubject: \"Checkout\" - page 500 error...\nView: https://tickets.example.com/1";
        for theirs in [OURS, &blanks, smart] {
            assert_eq!(verdict(&[listed("SM1", 5, theirs)], &[]), "SM1", "{theirs}");
        }
    }

    #[test]
    fn other_messages_are_not_it_and_what_cannot_be_read_cannot_be_told() {
        let other = OURS.replace("108749", "108750");
        let reworded = OURS.replace("page", "site");
        let undated = Listed {
            created_at: None,
            ..listed("SM1", 0, None)
        };

        for (why, list, expected) in [
            ("no message at all", vec![], "NotThere"),
            ("another ticket", vec![listed("SM1", 5, &*other)], "NotThere"),
            ("another attempt's", vec![listed("owned", 5, OURS)], "NotThere"),
            (
                "another time",
                vec![listed("SM1", -3_600, OURS), listed("SM2", 3_600, OURS)],
                "NotThere",
            ),
            ("unreadable", vec![listed("SM1", 5, None)], "CannotTell"),
            ("redacted", vec![listed("SM1", 5, "")], "CannotTell"),
            ("the same figures", vec![listed("SM1", 5, &*reworded)], "CannotTell"),
            ("of any time", vec![undated], "CannotTell"),
            (
                "found all the same",
                vec![listed("SM1", 5, None), listed("SM2", 5, OURS)],
                "SM2",
            ),
            (
                "the oldest of several",
                vec![listed("SM2", 9, OURS), listed("SM1", 5, OURS)],
                "SM1",
            ),
            (
                "a little late, another ticket",
                vec![listed("SM1", 700, &*other)],
                "NotThere",
            ),
            (
                "a little late, the same figures",
                vec![listed("SM1", 700, &*reworded)],
                "NotThere",
            ),
            ("a little late, unreadable", vec![listed("SM1", 700, None)], "NotThere"),
            (
                "one a little late",
                vec![listed("SM1", 700, OURS), listed("SM2", 5, OURS)],
                "SM2",
            ),
        ] {
            assert_eq!(verdict(&list, &["owned"]), expected, "{why}");
        }
    }

    #[test]
    fn the_same_text_a_little_outside_of_its_time_leaves_it_open() {
        for second in [-700, 700, -2_300, 2_300] {
            let list = [listed("SM1", second, OURS)];
            // A clock may have been wrong; but not if it is another attempt's.
            assert_eq!(verdict(&list, &[]), "CannotTell", "{second}");
            assert_eq!(verdict(&list, &["SM1"]), "NotThere", "{second}");
        }
    }

    #[test]
    fn the_window_is_as_much_wider_as_the_clocks_differ() {
        for minutes in [12, -12, 300, -300] {
            let ahead = SignedDuration::from_mins(minutes);
            let by_their_clock = Wanted { ahead, ..wanted() };
            for second in [5, 5 + minutes * 60] {
                let list = [listed("SM1", second, OURS)];
                assert_eq!(verdict_on(by_their_clock, &list, &[]), "SM1", "{minutes} {second}");
            }
        }
    }

    #[test]
    fn an_attempt_that_ended_before_it_began_is_looked_for_at_both_times() {
        let turned_back = Wanted {
            ended_at: at(-7_200),
            ..wanted()
        };
        for second in [5, -7_195] {
            let list = [listed("SM1", second, OURS)];
            assert_eq!(verdict_on(turned_back, &list, &[]), "SM1", "{second}");
        }
    }
}
