//! The timeline of a delivery in words: one sentence for each entry, for pages, commands and the API alike. Pure: what is
//! stored stays as it was written, so an entry of an earlier version gets today's words. Absent: what an error code means
//! (each carrier says), and when entries are written (`store::ledger`).

use super::{acknowledge::ACKNOWLEDGED, delivery::State, route::ProviderName};

/// What the entries alone do not say of their delivery.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The number of its newest attempt.
    pub attempts: i64,
    /// The newest attempt's, as is the id of its message.
    pub provider: Option<&'a str>,
    pub message_id: Option<&'a str>,
}

/// One sentence for each entry (`what` and `detail`), in their order, oldest first.
pub fn sentences<'a>(entries: impl IntoIterator<Item = (&'a str, Option<&'a str>)>, about: &About<'_>) -> Vec<String> {
    let mut narrator = Narrator {
        about,
        begun_by: None,
        was_sent: false,
    };
    let told = entries.into_iter().map(|(what, detail)| narrator.tell(what, detail));
    told.collect()
}

/// Tells entry after entry: who was called last stands in the entry that began the call.
struct Narrator<'a> {
    about: &'a About<'a>,
    begun_by: Option<&'a str>,
    /// Whether a carrier had it: the log never says so, but who plays a provider in its place does.
    was_sent: bool,
}

impl<'a> Narrator<'a> {
    fn tell(&mut self, what: &str, detail: Option<&'a str>) -> String {
        let entry = Entry::read(detail.unwrap_or_default());
        let sentence = match State::parse(what) {
            Some(State::Sending) => self.begins(&entry),
            Some(state) => {
                self.was_sent |= state == State::Sent;
                self.moves(state, &entry)
            }
            None => self.notes(what, &entry),
        };
        sentence.unwrap_or_else(|| match detail {
            Some(detail) => format!("{what}: {detail}"),
            None => what.to_owned(),
        })
    }

    fn begins(&mut self, entry: &Entry<'a>) -> Option<String> {
        let number = entry.attempt?;
        self.begun_by = Some(entry.rest.strip_prefix("by ")?);
        Some(if self.is_log() {
            format!("writing it to the log, in test mode (attempt {number})")
        } else {
            format!("handing it to {} (attempt {number})", self.provider())
        })
    }

    /// What is said of an entry that goes with a move to `state`; `None` if its detail is none that we know.
    fn moves(&self, state: State, entry: &Entry<'_>) -> Option<String> {
        let by = self.provider();
        let rest = entry.rest;
        Some(match state {
            State::Pending => return self.is_owed(entry),
            State::Sending => return None,
            State::Deferred => "held back: the daily limit is reached; it waits for a slot".to_owned(),
            State::Unknown => format!(
                "no certain answer{}: {}; {by} may have it, so nothing is sent again until that is found out",
                entry.which(),
                self.named(rest.trim_end_matches("; the provider may have it"))
            ),
            State::Unconfirmed if entry.attempt.is_some() => {
                format!("{}{}: a person has to decide", self.named(rest), entry.which())
            }
            State::Accepted if self.is_log() => "the log took it (test mode)".to_owned(),
            State::Accepted => format!("{by} accepted it{}", self.message_of(entry)),
            State::Sent if self.is_log() => "the played provider handed it to the carrier".to_owned(),
            State::Sent => format!("{by} handed it to the carrier{}", entry.code()),
            State::Delivered if self.is_log() && !self.was_sent => {
                "written to the log; in test mode that counts as delivered".to_owned()
            }
            State::Delivered => "the carrier confirmed delivery".to_owned(),
            State::Undelivered => format!("the carrier did not deliver it{}", entry.code()),
            State::Failed if entry.attempt.is_some() => self.fails(entry),
            State::Canceled if entry.attempt.is_some() => format!(
                "not sent{}: {}; and not sent again, since {}",
                entry.which(),
                self.named(entry.without_next_step()),
                if rest.ends_with(ACKNOWLEDGED) {
                    ACKNOWLEDGED
                } else {
                    "the ticket is no longer critical"
                }
            ),
            State::Canceled | State::Expired | State::Failed | State::Suppressed | State::Unconfirmed
                if !rest.is_empty() =>
            {
                format!("not sent: {rest}")
            }
            State::Canceled | State::Expired | State::Failed | State::Suppressed | State::Unconfirmed => return None,
        })
    }

    /// It is to be sent: for the first time, or again.
    fn is_owed(&self, entry: &Entry<'_>) -> Option<String> {
        let (rest, which) = (entry.rest, entry.which());
        if let Some(why) = rest.strip_prefix("not sent, ") {
            return Some(format!("not sent{which}: {}", self.named(why)));
        }
        if rest.contains("prove that it was never sent") {
            let lists = format!("{}'s lists", self.provider());
            return Some(format!("{lists} prove that it was never sent{which}; to be sent again"));
        }
        if entry.attempt.is_some() {
            return Some(format!("not sent{which}: {}", self.named(rest)));
        }
        if rest.starts_with("attempts ") {
            return Some(self.named(rest));
        }
        if let Some(id) = rest.strip_prefix("to be sent again, instead of ") {
            return Some(format!("to be sent again, instead of delivery {id}"));
        }
        match rest {
            "" => None,
            "to be sent" => Some(rest.to_owned()),
            why => Some(format!("{why}: to be sent")),
        }
    }

    fn fails(&self, entry: &Entry<'_>) -> String {
        let (by, code) = (self.provider(), entry.code());
        if entry.rest.starts_with("the provider refused it") {
            format!("{by} refused it{code}")
        } else {
            format!("{by} could not send it{code}")
        }
    }

    /// What is said of an entry that goes with no move.
    fn notes(&self, what: &str, entry: &Entry<'_>) -> Option<String> {
        let (by, which) = (self.provider(), entry.which());
        match what {
            "receipt" => Some(format!("{}{which}", self.named(entry.rest))),
            "resent" => {
                let id = entry.rest.strip_prefix("sent again as ")?;
                Some(format!("an admin had it sent again, as delivery {id}"))
            }
            "acknowledged" => Some(format!("this person acknowledged the alert {}", entry.rest)),
            "other_message" => Some(format!(
                "{by} names a message that is not this attempt's own{which}: the person may have got two"
            )),
            _ => None,
        }
    }

    fn word(&self) -> Option<&str> {
        self.begun_by.or(self.about.provider)
    }

    fn is_log(&self) -> bool {
        self.word().and_then(ProviderName::parse) == Some(ProviderName::Log)
    }

    /// Who was called, as people say it.
    fn provider(&self) -> &str {
        let word = self.word().unwrap_or("the provider");
        ProviderName::parse(word).map_or(word, |name| name.title())
    }

    /// The same text with the provider's name in it.
    fn named(&self, text: &str) -> String {
        text.replace("the provider", self.provider())
    }

    /// The id of the message, if it is this attempt's.
    fn message_of(&self, entry: &Entry<'_>) -> String {
        match (entry.attempt, self.about.message_id) {
            (Some(number), Some(id)) if number == self.about.attempts => format!(" ({id})"),
            _ => String::new(),
        }
    }
}

/// A detail, taken apart.
struct Entry<'a> {
    attempt: Option<i64>,
    rest: &'a str,
}

impl<'a> Entry<'a> {
    /// `attempt 2: why`, or `attempt 2 by twilio`, or no attempt at all.
    fn read(detail: &'a str) -> Self {
        let numbered = detail.strip_prefix("attempt ").and_then(|text| {
            let (number, rest) = text.split_once([' ', ':'])?;
            Some((number.parse().ok()?, rest.trim_start()))
        });
        match numbered {
            Some((number, rest)) => Self {
                attempt: Some(number),
                rest,
            },
            None => Self {
                attempt: None,
                rest: detail,
            },
        }
    }

    fn which(&self) -> String {
        self.attempt
            .map_or_else(String::new, |number| format!(" (attempt {number})"))
    }

    /// The error code that it names.
    fn code(&self) -> String {
        let code = self.rest.rsplit_once("code ").map(|(_, code)| code);
        let digits = code.filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
        digits.map_or_else(String::new, |code| format!(" (code {code})"))
    }

    /// Without what was to happen next.
    fn without_next_step(&self) -> &'a str {
        let why = self.rest.strip_prefix("not sent, ").unwrap_or(self.rest);
        why.split_once(';').map_or(why, |(why, _)| why)
    }
}

/// Where a delivery stands, in a few words.
pub fn state_in_words(state: State) -> &'static str {
    match state {
        State::Pending => "to be sent",
        State::Deferred => "held back by the daily limit",
        State::Sending => "being sent",
        State::Unknown => "sent or not: being found out",
        State::Unconfirmed => "sent or not: nobody can tell",
        State::Accepted => "the provider has it",
        State::Sent => "handed to the carrier",
        State::Delivered => "delivered",
        State::Undelivered => "not delivered by the carrier",
        State::Failed => "failed",
        State::Suppressed => "not sent: opted out",
        State::Canceled => "not sent: canceled",
        State::Expired => "not sent: too late",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_told(provider: &str, entries: &[(&str, &str, &str)]) {
        let about = About {
            attempts: 2,
            provider: Some(provider),
            message_id: Some("SM1"),
        };
        let told = sentences(entries.iter().map(|(what, detail, _)| (*what, Some(*detail))), &about);
        let expected: Vec<&str> = entries.iter().map(|(_, _, sentence)| *sentence).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_message_on_its_way_is_told_by_the_names_of_those_who_carry_it() {
        assert_told(
            "twilio",
            &[
                ("pending", "to be sent", "to be sent"),
                ("sending", "attempt 1 by twilio", "handing it to Twilio (attempt 1)"),
                (
                    "pending",
                    "attempt 1: not sent, the provider is busy (code 20429); again in 1.5 s",
                    "not sent (attempt 1): Twilio is busy (code 20429); again in 1.5 s",
                ),
                ("sending", "attempt 2 by twilio", "handing it to Twilio (attempt 2)"),
                (
                    "accepted",
                    "attempt 1: the provider says `queued`",
                    "Twilio accepted it",
                ),
                (
                    "accepted",
                    "attempt 2: the provider says `queued`",
                    "Twilio accepted it (SM1)",
                ),
                (
                    "sent",
                    "attempt 2: the provider says `sent`",
                    "Twilio handed it to the carrier",
                ),
                (
                    "delivered",
                    "attempt 2: the provider says `delivered`",
                    "the carrier confirmed delivery",
                ),
            ],
        );
    }

    #[test]
    fn what_was_not_sent_is_told_with_the_reason() {
        assert_told(
            "twilio",
            &[
                ("suppressed", "this person opted out", "not sent: this person opted out"),
                (
                    "deferred",
                    "the daily limit is reached",
                    "held back: the daily limit is reached; it waits for a slot",
                ),
                (
                    "pending",
                    "a slot of the daily limit is free",
                    "a slot of the daily limit is free: to be sent",
                ),
                (
                    "expired",
                    "it waited too long to be of use",
                    "not sent: it waited too long to be of use",
                ),
                ("failed", "no number was given", "not sent: no number was given"),
                (
                    "canceled",
                    "the ticket is no longer critical",
                    "not sent: the ticket is no longer critical",
                ),
                (
                    "canceled",
                    "attempt 1: not sent, the provider could not be reached; again in 1.5 s",
                    "not sent (attempt 1): Twilio could not be reached; and not sent again, since the ticket is no longer critical",
                ),
                (
                    "canceled",
                    "attempt 1: not sent, the provider could not be reached; again in 1.5 s; somebody acknowledged the alert",
                    "not sent (attempt 1): Twilio could not be reached; and not sent again, since somebody acknowledged the alert",
                ),
                (
                    "acknowledged",
                    "by the link in its message",
                    "this person acknowledged the alert by the link in its message",
                ),
                (
                    "failed",
                    "attempt 1: the provider refused it with code 21211",
                    "Twilio refused it (code 21211)",
                ),
                (
                    "failed",
                    "attempt 1: the provider says `failed`, code 30005",
                    "Twilio could not send it (code 30005)",
                ),
                (
                    "undelivered",
                    "attempt 1: the provider says `undelivered`, code 30003",
                    "the carrier did not deliver it (code 30003)",
                ),
                (
                    "undelivered",
                    "attempt 1: the provider says `undelivered`",
                    "the carrier did not deliver it",
                ),
            ],
        );
    }

    #[test]
    fn what_nobody_knows_for_sure_is_told_as_that() {
        assert_told(
            "twilio",
            &[
                (
                    "unknown",
                    "attempt 1: the provider did not answer in time; the provider may have it",
                    "no certain answer (attempt 1): Twilio did not answer in time; Twilio may have it, so nothing is sent again until that is found out",
                ),
                (
                    "pending",
                    "attempt 1: the provider's lists prove that it was never sent",
                    "Twilio's lists prove that it was never sent (attempt 1); to be sent again",
                ),
                (
                    "pending",
                    "attempt 1: the provider refused our sender (code 21606); held until it accepts us",
                    "not sent (attempt 1): Twilio refused our sender (code 21606); held until it accepts us",
                ),
                (
                    "pending",
                    "attempts 1 to 7 were not sent, the provider could not be reached: 7 times, last at 2026-11-22T08:00:00Z; again in 2.0 s",
                    "attempts 1 to 7 were not sent, Twilio could not be reached: 7 times, last at 2026-11-22T08:00:00Z; again in 2.0 s",
                ),
                (
                    "unconfirmed",
                    "attempt 2: nobody can tell whether the provider had it",
                    "nobody can tell whether Twilio had it (attempt 2): a person has to decide",
                ),
                (
                    "receipt",
                    "attempt 2: the provider says `lost`, which is no status we know",
                    "Twilio says `lost`, which is no status we know (attempt 2)",
                ),
                (
                    "resent",
                    "sent again as 019a",
                    "an admin had it sent again, as delivery 019a",
                ),
                (
                    "pending",
                    "to be sent again, instead of 019a",
                    "to be sent again, instead of delivery 019a",
                ),
                (
                    "other_message",
                    "attempt 2: the provider names a message that is not this attempt's own",
                    "Twilio names a message that is not this attempt's own (attempt 2): the person may have got two",
                ),
            ],
        );
    }

    #[test]
    fn in_test_mode_nothing_is_said_to_have_reached_a_person() {
        assert_told(
            "log",
            &[
                (
                    "sending",
                    "attempt 2 by log",
                    "writing it to the log, in test mode (attempt 2)",
                ),
                (
                    "accepted",
                    "attempt 2: the provider says `delivered`",
                    "the log took it (test mode)",
                ),
                (
                    "delivered",
                    "attempt 2: the provider says `delivered`",
                    "written to the log; in test mode that counts as delivered",
                ),
            ],
        );
    }

    #[test]
    fn an_entry_that_this_version_does_not_know_is_shown_as_it_stands() {
        assert_told(
            "",
            &[
                ("forwarded", "to a colleague", "forwarded: to a colleague"),
                ("sending", "to somebody", "sending: to somebody"),
                ("resent", "twice", "resent: twice"),
            ],
        );
        let bare = sentences([("forwarded", None), ("canceled", None)], &About::default());
        assert_eq!(bare, ["forwarded", "canceled"]);
    }

    #[test]
    fn an_attempt_is_told_by_the_name_of_who_was_called_for_it() {
        let about = About {
            attempts: 2,
            provider: Some("log"),
            message_id: None,
        };
        let told = sentences(
            [
                ("sending", Some("attempt 1 by twilio")),
                ("failed", Some("attempt 1: the provider refused it with code 21211")),
                ("sending", Some("attempt 2 by log")),
            ],
            &about,
        );

        assert_eq!(told[1], "Twilio refused it (code 21211)");
        assert_eq!(told[2], "writing it to the log, in test mode (attempt 2)");
    }
}
