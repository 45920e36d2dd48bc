//! Writes a private note on a ticket once it is known who was reached, where the source has `write_back`. A note is kept until
//! the helpdesk has taken it; a process that dies in between writes it again. Absent: how each helpdesk takes a note (see
//! `helpdesk`).

use super::helpdesk::Helpdesk;
use crate::{
    domain::{day::after, delivery::State, mail::retry_after, timeline::state_in_words},
    store::{Db, Reached, StoreError},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::{fmt::Write, sync::Arc};

/// Longer than any call to a helpdesk.
const LEASE: SignedDuration = SignedDuration::from_mins(1);
/// After so many tries, over about two days, a note is nobody's news any more.
const MOST_TRIES: i64 = 40;

/// Writes the notes of one source.
pub struct WriteBack {
    pub source: String,
    pub helpdesk: Arc<Helpdesk>,
    pub store: Db,
    pub time_zone: TimeZone,
    /// What time it is.
    pub clock: fn() -> Timestamp,
}

impl WriteBack {
    /// Keeps notes of what was settled, and writes those that are due.
    pub async fn round(&self) -> Result<(), StoreError> {
        let now = (self.clock)();
        for settled in self.store.settled_alerts(&self.source, now).await? {
            let text = note(&settled.people, &self.time_zone);
            self.store.keep_note(&self.source, &settled, &text, now).await?;
        }
        loop {
            let now = (self.clock)();
            let Some(due) = self.store.take_note(&self.source, now, after(now, LEASE)).await? else {
                return Ok(());
            };
            let Err(error) = self.helpdesk.note(&due.ticket_id, &due.text).await else {
                self.store.note_written(&due, (self.clock)()).await?;
                tracing::info!(source = %self.source, alert.id = %due.alert_id, tries = due.tries, "wrote a note on the ticket");
                continue;
            };
            let wait = retry_after(due.tries);
            let gives_up = due.tries >= MOST_TRIES;
            if gives_up {
                tracing::error!(source = %self.source, alert.id = %due.alert_id, tries = due.tries, "cannot write a note on the ticket, and gave it up: {error}");
            } else {
                tracing::warn!(source = %self.source, alert.id = %due.alert_id, tries = due.tries, retry_in_s = wait.as_secs(), "cannot write a note on the ticket; it is kept and will be tried again: {error}");
            }
            let due_at = (!gives_up).then(|| after((self.clock)(), wait));
            self.store.put_off_note(&due, &error.to_string(), due_at).await?;
            // A helpdesk that is down takes the others no better.
            return Ok(());
        }
    }
}

/// Who was reached, in words, for a note that customers do not see. Names are those of the event, the staff directory or the
/// fallback recipients; no number is in it.
fn note(people: &[Reached], zone: &TimeZone) -> String {
    let (all, reached) = (
        people.len(),
        people.iter().filter(|person| person.state == State::Delivered).count(),
    );
    let mut text = match reached {
        0 => "Nightbell: nobody could be reached by SMS.".to_owned(),
        count if count == all => "Nightbell: everyone was reached by SMS.".to_owned(),
        count => format!(
            "Nightbell: {count} of {all} people {} reached by SMS.",
            if count == 1 { "was" } else { "were" }
        ),
    };
    for person in people {
        let name = person.name.as_deref().unwrap_or("somebody");
        let role = person
            .role
            .as_deref()
            .map(|role| format!(" ({role})"))
            .unwrap_or_default();
        let code = person
            .error_code
            .map(|code| format!(", code {code}"))
            .unwrap_or_default();
        let at = person.moved_at.to_zoned(zone.clone()).strftime("%F %T %Z").to_string();
        // Writing to a text cannot fail.
        let _ = write!(text, "\n- {name}{role}: {}{code}, {at}", state_in_words(person.state));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_who_was_reached() {
        let person = |name: &str, state, error_code| Reached {
            name: Some(name.to_owned()),
            role: Some("assignee".to_owned()),
            state,
            error_code,
            moved_at: "2026-11-20T09:24:41Z".parse().unwrap(),
        };
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let first = |people: &[Reached]| note(people, &zone).lines().next().unwrap().to_owned();
        let (grace, mona) = (
            || person("Grace", State::Delivered, None),
            || person("Mona", State::Undelivered, Some(30003)),
        );

        assert_eq!(first(&[grace()]), "Nightbell: everyone was reached by SMS.");
        assert_eq!(first(&[mona()]), "Nightbell: nobody could be reached by SMS.");
        assert_eq!(
            first(&[grace(), mona(), mona()]),
            "Nightbell: 1 of 3 people was reached by SMS."
        );
        let text = note(&[mona()], &zone);
        assert!(
            text.contains("- Mona (assignee): ") && text.contains("code 30003, 2026-11-20 10:24:41 CET"),
            "{text}"
        );
    }
}
