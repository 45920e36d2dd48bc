//! osTicket as every polled helpdesk answers. Absent: when it is asked (see `source::poll`).

use super::{
    connection::Connection,
    questions::{EventRow, MOST_EVENTS, OVERLAP, PriorityRow, Questions, StaffRow},
    tickets::{People, Seen},
};
use crate::{
    domain::{
        source::Source,
        urgency::{Level, Urgencies},
    },
    source::seen::{Changes, HelpdeskError, SeenTicket},
};
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap, HashSet};
use url::Url;

/// Tickets that are asked for at once.
const AT_ONCE: usize = 500;

/// An osTicket that is polled.
pub struct OsTicket {
    connection: Connection,
    base_url: Option<Url>,
    urgencies: Urgencies,
}

impl OsTicket {
    pub fn new(connection: Connection, source: &Source) -> Self {
        Self {
            connection,
            base_url: source.base_url.clone(),
            urgencies: source.urgencies.clone(),
        }
    }

    /// The tickets of all events after `position`, an event's id, and of some before it (see [`OVERLAP`]): as they are now,
    /// each once.
    pub async fn changes(&self, position: Option<&str>) -> Result<Changes, HelpdeskError> {
        let kept = position.and_then(|text| text.parse::<i64>().ok());
        let Some(position) = kept else {
            if position.is_some() {
                tracing::warn!("the position that was kept is not one of osTicket's: it is read from now on");
            }
            return self.stand().await;
        };
        let after = position.saturating_sub(OVERLAP).max(0);
        let events: Vec<EventRow> = self.connection.ask(self.questions().events_after(after)).await?;
        let Some(last) = events.last() else {
            // The list ends far before: it is another one now, as after a back-up was restored. What stands last in it is
            // read by the next question.
            let stand = self.stand().await?;
            let has_more = stand.position != "0";
            return Ok(Changes { has_more, ..stand });
        };
        let (position_now, has_more) = (last.id.to_string(), events.len() == MOST_EVENTS);
        let changed = newest_of_each(&events, position);
        let ids: Vec<i64> = changed.iter().map(|(id, _)| *id).collect();
        let mut seen = self.see(&ids).await?;
        let tickets = changed
            .into_iter()
            .filter_map(|(id, at)| Some(seen.remove(&id)?.dated(at)));
        Ok(Changes {
            tickets: tickets.collect(),
            position: position_now,
            has_more,
        })
    }

    /// All open tickets at a priority that is critical.
    pub async fn critical(&self) -> Result<Vec<SeenTicket>, HelpdeskError> {
        let priorities: Vec<PriorityRow> = self.connection.ask(self.questions().priorities()).await?;
        let is_critical = |name: &str| self.urgencies.level(name) == Some(Level::Critical);
        let critical = priorities.iter().filter(|priority| is_critical(&priority.name));
        let priority_ids: Vec<i64> = critical.map(|priority| priority.id).collect();
        if priority_ids.is_empty() {
            let names: Vec<&str> = priorities.iter().map(|priority| priority.name.as_str()).collect();
            return Err(HelpdeskError(format!(
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
            people.add_members(connection.ask(questions.members(&sorted(team_ids))).await?);
        }
        let staff_ids = people.named_by(&tickets);
        if !staff_ids.is_empty() {
            let staff: Vec<StaffRow> = connection.ask(questions.staff(&sorted(staff_ids))).await?;
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

fn sorted(ids: BTreeSet<i64>) -> Vec<i64> {
    ids.into_iter().collect()
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
}
