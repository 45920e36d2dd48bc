//! Asks helpdesks that are polled, one process each, and makes events of what has changed on their tickets: every round what
//! changed since the last, now and then all that is critical. Reading a ticket twice, by poll and by webhook, by two
//! processes or after a crash, changes nothing: its event is a duplicate. Absent: how each helpdesk is asked (see
//! `helpdesk`), and who is told (see `intake`).

use super::{
    helpdesk::Helpdesk,
    seen::{HelpdeskError, SeenTicket},
    settings::Settings,
};
use crate::{
    domain::{day::after, json::Fault, source::Source, urgency::Level},
    intake::{Intake, Outcome, Via},
    store::{Db, KnownTicket, StoreError, TicketState, Turn, new_id},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::Arc};

/// How long a turn belongs to a process that does not come back; every page that is read renews it. A round that takes longer
/// is another's too, which costs a few questions and changes nothing.
const LEASE: SignedDuration = SignedDuration::from_secs(30);
/// A helpdesk that does not answer is asked again after this at the latest.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// By which clocks of processes may differ.
const DRIFT: SignedDuration = SignedDuration::from_mins(2);
/// How long a webhook may take to bring a ticket that the poll has seen. Zammad tries for 100 s.
const WEBHOOK_GRACE: SignedDuration = SignedDuration::from_mins(10);
/// Tickets are looked up so many at once.
const LOOK_UP: usize = 100;

/// Polls one helpdesk.
pub struct Poller {
    pub settings: Settings,
    pub source: Source,
    pub helpdesk: Arc<Helpdesk>,
    pub intake: Arc<Intake>,
    pub store: Db,
    /// What time it is.
    pub clock: fn() -> Timestamp,
}

/// Why a round ended early.
enum Failed {
    Helpdesk(HelpdeskError),
    Store(StoreError),
    /// Another process has the turn by now.
    Lost,
}

impl From<HelpdeskError> for Failed {
    fn from(error: HelpdeskError) -> Self {
        Self::Helpdesk(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Poller {
    /// Asks the helpdesk, if that is due and no other process does.
    pub async fn round(&self) -> Result<(), StoreError> {
        let name = &self.settings.source;
        let now = (self.clock)();
        let latest = after(now, self.settings.every.max(LONGEST_PAUSE) + DRIFT);
        let Some(turn) = self
            .store
            .take_poll(name, &new_id(), now, (after(now, LEASE), latest))
            .await?
        else {
            return Ok(());
        };
        let asked = self.ask(&turn).await;
        let now = (self.clock)();
        match asked {
            Ok(has_swept) => {
                if turn.failures > 0 {
                    tracing::info!(source = %name, "the helpdesk answers again");
                }
                let due_at = after(now, self.settings.every);
                self.store.end_turn(name, turn, has_swept, due_at, now).await?;
                self.watch_webhook(now).await
            }
            Err(Failed::Helpdesk(error)) => {
                let pause = pause_after(turn.failures, self.settings.every);
                if turn.failures == 0 {
                    tracing::warn!(source = %name, retry_in_s = pause.as_secs(), "cannot ask the helpdesk; nothing is missed, it is asked again: {error}");
                } else {
                    tracing::debug!(source = %name, failures = turn.failures, retry_in_s = pause.as_secs(), "still cannot ask the helpdesk: {error}");
                }
                self.store.fail_turn(name, turn, &error.0, after(now, pause), now).await
            }
            Err(Failed::Store(error)) => Err(error),
            Err(Failed::Lost) => Ok(()),
        }
    }

    /// One round; returns whether all critical tickets were looked at.
    async fn ask(&self, turn: &Turn) -> Result<bool, Failed> {
        let Some(position) = turn.position.clone() else {
            self.begin(turn).await?;
            return Ok(true);
        };
        let mut position = position;
        loop {
            let changes = self.helpdesk.changes(Some(&position)).await?;
            for ticket in &changes.tickets {
                self.take(ticket).await?;
            }
            let has_moved = changes.position != position;
            position = changes.position;
            if has_moved || changes.has_more {
                self.keep(turn, &position).await?;
            }
            // A helpdesk that says that there is more and gives nothing would be asked for ever.
            if !changes.has_more || !has_moved {
                break;
            }
        }
        let now = (self.clock)();
        let is_due = turn
            .swept_at
            .is_none_or(|at| after(at, self.settings.sweep_every) <= now);
        if is_due {
            self.sweep(turn, &position).await?;
        }
        Ok(is_due)
    }

    /// The first look: where the helpdesk stands, and which tickets are critical already. They are left alone unless the
    /// admin wants otherwise: a new Nightbell must not text everybody at once.
    async fn begin(&self, turn: &Turn) -> Result<(), Failed> {
        let name = &self.settings.source;
        let position = self.helpdesk.changes(None).await?.position;
        let critical = self.helpdesk.critical().await?;
        for ticket in &critical {
            if self.settings.alerts_at_first {
                self.take(ticket).await?;
            } else if self.state(ticket) == TicketState::Critical {
                let seen = (TicketState::Critical, &*digest(&ticket.event));
                self.store
                    .note_seen(name, &ticket.id, seen, true, (self.clock)())
                    .await?;
            }
        }
        self.keep(turn, &position).await?;
        let (tickets, left_alone) = (critical.len(), !self.settings.alerts_at_first);
        tracing::info!(source = %name, kind = self.source.kind.as_str(), tickets, left_alone, "the helpdesk is polled from now on; these tickets were critical before");
        Ok(())
    }

    async fn keep(&self, turn: &Turn, position: &str) -> Result<(), Failed> {
        let now = (self.clock)();
        let source = &self.settings.source;
        let is_ours = self.store.note_position(source, turn, position, after(now, LEASE));
        if is_ours.await? { Ok(()) } else { Err(Failed::Lost) }
    }

    /// Looks at all tickets that are critical, and at those that were: a change that the helpdesk has not told of is found
    /// here.
    async fn sweep(&self, turn: &Turn, position: &str) -> Result<(), Failed> {
        let critical = self.helpdesk.critical().await?;
        for ticket in &critical {
            self.take(ticket).await?;
        }
        let seen: BTreeSet<&str> = critical.iter().map(|ticket| ticket.id.as_str()).collect();
        let mut known = self.store.critical_tickets(&self.settings.source).await?;
        known.retain(|id| !seen.contains(id.as_str()));
        for ids in known.chunks(LOOK_UP) {
            self.keep(turn, position).await?;
            let tickets = self.helpdesk.tickets(ids).await?;
            for ticket in &tickets {
                self.take(ticket).await?;
            }
            let found: BTreeSet<&str> = tickets.iter().map(|ticket| ticket.id.as_str()).collect();
            for id in ids.iter().filter(|id| !found.contains(id.as_str())) {
                // Deleted, merged, or only hidden from us for a while: that is no reason to cancel anything.
                tracing::info!(source = %self.settings.source, ticket.id = %id, "the helpdesk shows a ticket no more that was critical; its alert stays as it is");
                self.store.forget_seen(&self.settings.source, id).await?;
            }
        }
        Ok(())
    }

    fn state(&self, ticket: &SeenTicket) -> TicketState {
        if !ticket.is_open {
            return TicketState::Closed;
        }
        match self.source.urgencies.level(&ticket.urgency) {
            Some(Level::Critical) => TicketState::Critical,
            Some(Level::High | Level::Normal | Level::Low) => TicketState::Lower,
            None => TicketState::Unknown,
        }
    }

    /// Makes an event of a ticket if it has changed, and notes what was seen once the event is taken.
    async fn take(&self, ticket: &SeenTicket) -> Result<(), Failed> {
        let name = &self.settings.source;
        let known = self.store.known_ticket(name, &ticket.id).await?;
        let state = self.state(ticket);
        let people = digest(&ticket.event);
        let is_as_known = known.as_ref().is_some_and(|known| {
            let is_same = known.state.as_deref() == Some(state.as_str());
            // Critical before Nightbell came, and left alone since: others on it make it no news.
            let is_left_alone = known.seen_at.is_none() && known.heard_at.is_none();
            is_same && (state != TicketState::Critical || is_left_alone || known.people.as_deref() == Some(&*people))
        });
        if is_as_known {
            return Ok(());
        }
        // A ticket that never was critical is nobody's business, unless its alert was raised and not noted here.
        let is_over = matches!(state, TicketState::Lower | TicketState::Closed);
        if known.is_none() && is_over && !self.store.has_alert(name, &ticket.id).await? {
            return Ok(());
        }
        let now = (self.clock)();
        let document = document(ticket, (state, &people), known.as_ref());
        match self.source.read_event(name, document, now, true) {
            Ok(reading) => {
                for fault in &reading.left_out {
                    tracing::warn!(source = %name, ticket.id = %ticket.id, pointer = fault.pointer, "left out of a ticket: {}", fault.detail);
                }
                let taken = self.intake.take(&reading.event, Via::Poll, now).await?;
                if let Some(Outcome::Accepted { alert_id, .. }) = taken {
                    tracing::info!(source = %name, alert.id = %alert_id, "the poll found a critical ticket");
                }
            }
            // Not noted: it is tried again whenever it is seen.
            Err(faults) => {
                self.complain(ticket, &faults);
                return Ok(());
            }
        }
        let seen = (state, &*people);
        self.store.note_seen(name, &ticket.id, seen, false, now).await?;
        Ok(())
    }

    fn complain(&self, ticket: &SeenTicket, faults: &[Fault]) {
        for fault in faults {
            tracing::error!(source = %self.settings.source, ticket.id = %ticket.id, pointer = fault.pointer, "cannot read a ticket of the helpdesk: {}", fault.detail);
        }
    }

    /// Says when webhooks did not bring what the poll has seen.
    async fn watch_webhook(&self, now: Timestamp) -> Result<(), StoreError> {
        let name = &self.settings.source;
        if !self.source.has_webhook() {
            return Ok(());
        }
        let (missed, status) = self.store.note_missed(name, after(now, -WEBHOOK_GRACE), now).await?;
        for ticket_id in missed {
            tracing::warn!(source = %name, ticket.id = %ticket_id, missed = status.missed, of = status.seen, "the webhook did not bring a critical ticket, which the poll has found: look at the helpdesk's log of webhooks");
        }
        Ok(())
    }
}

/// An event of what is seen now. Its id is that of the change, so that each change counts once.
fn document(ticket: &SeenTicket, (state, people): (TicketState, &str), known: Option<&KnownTicket>) -> Value {
    let mut event = ticket.event.clone();
    if !event.is_object() {
        event = json!({});
    }
    let changes = known.map_or(0, |known| known.changes);
    event["id"] = format!("poll-{}-{}-{people}", changes + 1, state.as_str()).into();
    if !event["ticket"].is_object() {
        event["ticket"] = json!({});
    }
    event["ticket"]["id"] = ticket.id.as_str().into();
    event["ticket"]["urgency"] = ticket.urgency.as_str().into();
    let subject = event["ticket"]["subject"].as_str().unwrap_or_default();
    if subject.trim().is_empty() {
        event["ticket"]["subject"] = "(no subject)".into();
    }
    if state == TicketState::Closed {
        event["type"] = "ticket.closed".into();
    }
    event
}

/// Whom a ticket names, so that somebody new is noticed; no name or number can be read from it.
fn digest(event: &Value) -> String {
    let mut people: Vec<String> = event["recipients"]
        .as_array()
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    people.sort();
    let digest = Sha256::digest(people.join("\n"));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// After how long a helpdesk that has not answered is asked again: twice as long each time.
fn pause_after(failures: i64, every: SignedDuration) -> SignedDuration {
    let doublings = u32::try_from(failures.clamp(0, 12)).unwrap_or(12);
    let pause = every.checked_mul(1 << doublings).unwrap_or(LONGEST_PAUSE);
    pause.min(LONGEST_PAUSE).max(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helpdesk_that_is_down_is_asked_ever_less_often() {
        let seconds = |failures| pause_after(failures, SignedDuration::from_secs(15)).as_secs();

        assert_eq!([0, 1, 2, 3, 4, 5, 99].map(seconds), [15, 30, 60, 120, 240, 300, 300]);
        assert_eq!(
            pause_after(0, SignedDuration::from_hours(1)),
            SignedDuration::from_hours(1)
        );
    }

    #[test]
    fn a_digest_tells_people_apart_and_not_their_order() {
        let one = json!({"phone": "+14155550101"});
        let two = json!({"phone": "+14155550102"});

        assert_eq!(
            digest(&json!({"recipients": [one, two]})),
            digest(&json!({"recipients": [two, one]}))
        );
        assert_ne!(
            digest(&json!({"recipients": [one]})),
            digest(&json!({"recipients": [one, two]}))
        );
        assert_eq!(digest(&json!({})), digest(&json!({"recipients": []})));
    }
}
