//! osTicket as every polled helpdesk answers. Absent: when it is asked (see `source::poll`).

use super::{
    connection::Connection,
    people::People,
    questions::{EventRow, MOST_EVENTS, PriorityRow, Questions, StaffRow},
    tickets::Seen,
};
use crate::{
    domain::{
        source::Source,
        urgency::{Level, Urgencies},
    },
    source::seen::{Changes, HelpdeskError, SeenTicket},
};
use jiff::Timestamp;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, PoisonError},
};
use url::Url;

/// So many event ids before the newest may still come.
const OVERLAP: i64 = 200;
/// Tickets that are asked for at once.
const AT_ONCE: usize = 500;

/// An osTicket that is polled.
pub struct OsTicket {
    connection: Connection,
    /// What was read when it was asked for changes last.
    last: Mutex<Option<Read>>,
    base_url: Option<Url>,
    urgencies: Urgencies,
}

impl OsTicket {
    pub fn new(connection: Connection, source: &Source) -> Self {
        Self {
            connection,
            last: Mutex::default(),
            base_url: source.base_url.clone(),
            urgencies: source.urgencies.clone(),
        }
    }

    /// The tickets of events that were not read before `position`, as they are now, each once.
    pub async fn changes(&self, position: Option<&str>) -> Result<Changes, HelpdeskError> {
        let Some(position) = position else {
            return self.stand().await;
        };
        let Some(read) = self.read_until(position) else {
            tracing::warn!("the position that was kept is not one of osTicket's: it is read from now on");
            return self.stand().await;
        };
        let question = self.questions().events_after(read.overlap(), &read.ids);
        let events: Vec<EventRow> = self.connection.ask(question).await?;
        if events.is_empty() {
            return self.nothing_new(read, position).await;
        }
        let changed = newest_of_each(&events, read.newest);
        let ids: Vec<i64> = changed.iter().map(|(id, _)| *id).collect();
        let mut seen = self.see(&ids).await?;
        let tickets = changed
            .into_iter()
            .filter_map(|(id, at)| Some(seen.remove(&id)?.dated(at)));
        let read = read.and(events.iter().map(|event| event.id));
        let changes = Changes {
            tickets: tickets.collect(),
            position: read.position(),
            has_more: events.len() == MOST_EVENTS,
        };
        self.keep(Some(read));
        Ok(changes)
    }

    /// No event that was not read: usually because nothing happened.
    async fn nothing_new(&self, read: Read, position: &str) -> Result<Changes, HelpdeskError> {
        let stand = self.stand().await?;
        let is_shorter = stand.position.parse().is_ok_and(|newest: i64| newest < read.newest);
        if is_shorter {
            // The list is another one now, as after a back-up was restored. What stands last in it is read next.
            self.keep(None);
            let has_more = stand.position != "0";
            return Ok(Changes { has_more, ..stand });
        }
        let changes = Changes {
            tickets: Vec::new(),
            position: position.to_owned(),
            has_more: false,
        };
        self.keep(Some(read));
        Ok(changes)
    }

    /// What was read before a position: by this process, if it handed the position out, else nobody knows exactly.
    fn read_until(&self, position: &str) -> Option<Read> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.take().filter(|read| read.position() == position);
        known.or_else(|| Read::at(position))
    }

    fn keep(&self, read: Option<Read>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = read;
    }

    /// All open tickets at a priority that is critical.
    pub async fn critical(&self) -> Result<Vec<SeenTicket>, HelpdeskError> {
        let priorities: Vec<PriorityRow> = self.connection.ask(self.questions().priorities()).await?;
        let is_critical = |name: &str| self.urgencies.level(name) == Some(Level::Critical);
        let critical = priorities.iter().filter(|priority| is_critical(&priority.name));
        let priority_ids: Vec<i64> = critical.map(|priority| priority.id).collect();
        if priority_ids.is_empty() {
            let names: Vec<&str> = priorities.iter().map(|priority| priority.name.as_str()).collect();
            return Err(HelpdeskError::new(format!(
                "none of osTicket's priorities ({}) counts as critical: name one in `urgency` of the source, like `urgency.{} = \"critical\"`",
                names.join(", "),
                names.first().unwrap_or(&"emergency"),
            )));
        }
        let ids: Vec<(i64,)> = self
            .connection
            .ask(self.questions().open_tickets_of(&priority_ids))
            .await?;
        let ids: Vec<i64> = ids.into_iter().map(|(id,)| id).collect();
        let seen = self.see(&ids).await?.into_values();
        // A priority that stands there as a text alone was not judged yet, and what was open may be closed by now.
        let critical = seen.filter(|seen| seen.is_open && is_critical(&seen.urgency));
        Ok(critical.map(Seen::undated).collect())
    }

    /// These tickets as they are now.
    pub async fn tickets(&self, ids: &[String]) -> Result<Vec<SeenTicket>, HelpdeskError> {
        // An id that is no number is none of osTicket's.
        let ids: Vec<i64> = ids
            .iter()
            .filter_map(|id| id.parse().ok())
            .filter(|id| *id > 0)
            .collect();
        Ok(self.see(&ids).await?.into_values().map(Seen::undated).collect())
    }

    /// Where the list of events ends.
    async fn stand(&self) -> Result<Changes, HelpdeskError> {
        let newest: Vec<(i64,)> = self.connection.ask(self.questions().newest_event()).await?;
        let newest = newest.first().map_or(0, |(id,)| *id);
        Ok(Changes {
            tickets: Vec::new(),
            position: newest.to_string(),
            has_more: false,
        })
    }

    async fn see(&self, ids: &[i64]) -> Result<HashMap<i64, Seen>, HelpdeskError> {
        let mut seen = HashMap::with_capacity(ids.len());
        for some in ids.chunks(AT_ONCE) {
            self.see_some(some, &mut seen).await?;
        }
        Ok(seen)
    }

    async fn see_some(&self, ids: &[i64], seen: &mut HashMap<i64, Seen>) -> Result<(), HelpdeskError> {
        let (connection, questions) = (&self.connection, self.questions());
        if ids.is_empty() {
            return Ok(());
        }
        let tickets = connection.ask(questions.tickets(ids)).await?;
        let answers = connection.ask(questions.answers(ids)).await?;
        let mut people = People::default();
        let team_ids = People::teams_of(&tickets);
        if !team_ids.is_empty() {
            people.add_members(connection.ask(questions.members(&team_ids)).await?);
        }
        let staff_ids = people.named_by(&tickets);
        if !staff_ids.is_empty() {
            let staff: Vec<StaffRow> = connection.ask(questions.staff(&staff_ids)).await?;
            people.add_staff(staff);
        }
        let found = Seen::put_together(tickets, answers, &people, self.base_url.as_ref());
        seen.extend(found.into_iter().map(|ticket| (ticket.id, ticket)));
        Ok(())
    }

    fn questions(&self) -> Questions<'_> {
        Questions(self.connection.prefix())
    }
}

/// Which events were read. Their ids are given before the commit, so one that is smaller than another may come later: of
/// the last ids each is known, and the others are asked for again.
#[derive(Clone, Debug, Default, PartialEq)]
struct Read {
    newest: i64,
    /// How often something was read since the newest: whoever hands the same position in again has not taken that, or it
    /// would be another one.
    since: u64,
    ids: BTreeSet<i64>,
}

impl Read {
    /// Reads a position, `500000` or `500000.3`.
    fn at(position: &str) -> Option<Self> {
        let (newest, since) = position.split_once('.').unwrap_or((position, "0"));
        Some(Self {
            newest: newest.parse().ok()?,
            since: since.parse().ok()?,
            ids: BTreeSet::new(),
        })
    }

    fn position(&self) -> String {
        match self.since {
            0 => self.newest.to_string(),
            since => format!("{}.{since}", self.newest),
        }
    }

    /// After which id every event is asked for that is not known.
    fn overlap(&self) -> i64 {
        self.newest.saturating_sub(OVERLAP).max(0)
    }

    /// With these, too.
    fn and(mut self, ids: impl Iterator<Item = i64>) -> Self {
        let before = self.newest;
        self.ids.extend(ids);
        self.newest = self.ids.last().map_or(before, |last| before.max(*last));
        self.since = if self.newest > before { 0 } else { self.since + 1 };
        let overlap = self.overlap();
        self.ids.retain(|id| *id > overlap);
        self
    }
}

/// The tickets of events, in the order of their newest ones, each with when that was if it is after `position`: an older
/// one is read again, and what it was about may have changed again since without an event.
fn newest_of_each(events: &[EventRow], position: i64) -> Vec<(i64, Option<Timestamp>)> {
    let mut known = HashSet::new();
    let mut changed = Vec::new();
    for event in events.iter().rev() {
        let Some(ticket_id) = event.ticket_id.filter(|id| known.insert(*id)) else {
            continue;
        };
        let at = event.at.filter(|_| event.id > position);
        changed.push((ticket_id, at.and_then(|at| Timestamp::from_second(at).ok())));
    }
    changed.reverse();
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_a_ticket_become_one_change_in_the_order_of_the_newest() {
        let event = |id, ticket_id| EventRow {
            id,
            ticket_id,
            at: Some(id),
        };
        let events = [
            event(8, Some(1)),
            event(9, Some(2)),
            event(10, Some(1)),
            event(11, Some(3)),
            event(12, None),
            event(13, Some(1)),
        ];

        let changed = newest_of_each(&events, 10);

        let dated = |id, at| (id, Some(Timestamp::from_second(at).unwrap()));
        assert_eq!(changed, [(2, None), dated(3, 11), dated(1, 13)]);
    }

    #[test]
    fn of_the_last_ids_each_is_known_and_a_late_one_gives_another_position() {
        let read = Read::at("1000").unwrap();
        assert_eq!((read.overlap(), read.position()), (800, "1000".to_owned()));

        let read = read.and([900, 998, 1100, 1102].into_iter());
        assert_eq!((read.overlap(), read.position()), (902, "1102".to_owned()));
        assert_eq!(read.ids, BTreeSet::from([998, 1100, 1102]));

        let read = read.and(std::iter::once(1101));
        assert_eq!(read.position(), "1102.1");
        let read = read.and(std::iter::once(1000));
        assert_eq!(read.position(), "1102.2");
        assert_eq!(
            Read::at("1102.2").map(|read| (read.newest, read.since)),
            Some((1102, 2))
        );
        for other in ["", "x", "1.x", "2026-11-20 00:00:00"] {
            assert_eq!(Read::at(other), None, "{other}");
        }
    }
}
