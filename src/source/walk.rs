//! Walks through a helpdesk's tickets from the one that changed last, back to where the walk before began. Pure: pages are
//! handed in. For helpdesks whose tickets carry the time of their last change.
//!
//! Newest first, because a ticket that changes while pages are read then only moves to where the walk has been: it may be
//! read twice and is never skipped. And because it needs no trust in how the helpdesk reads a time in a question: where
//! to stop is decided here, by the times in the answers.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::HashSet;

/// How many tickets are asked for at once: the most that Request Tracker and Redmine give.
pub const PAGE: usize = 100;
/// More changes than this are not read back to the end: what is critical among the older ones is found by asking for all
/// that is critical, which is done every few minutes anyway.
const MAX_PAGES: usize = 10;
/// A change can be seen a while after the time that it carries: Request Tracker commits it after its scrips, which send
/// mails; and times have whole seconds.
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);

/// A ticket as it stands on a page.
pub struct Row {
    pub id: String,
    pub changed_at: Timestamp,
    pub ticket: Value,
}

/// A walk that is under way.
pub struct Walk {
    /// Up to where the walk before saw everything.
    position: Option<Timestamp>,
    rows: Vec<Row>,
    ids: HashSet<String>,
    pages: usize,
    newest: Option<Timestamp>,
    /// What the helpdesk's clock read when the first page was written.
    date: Option<Timestamp>,
}

impl Walk {
    /// Begins at the newest change. Without a position it only finds out where that is.
    pub fn new(position: Option<&str>) -> Self {
        let read = position.and_then(|position| position.parse().ok());
        if position.is_some() && read.is_none() {
            tracing::warn!(
                "the position that was kept for a helpdesk is of another kind of helpdesk: reading goes on from its newest change, and what is critical is found by asking for it"
            );
        }
        Self {
            position: read,
            rows: Vec::new(),
            ids: HashSet::new(),
            pages: 0,
            newest: None,
            date: None,
        }
    }

    /// No older change is wanted; `None` if only the newest is.
    pub fn since(&self) -> Option<Timestamp> {
        let overlapping = self.position?.checked_sub(OVERLAP);
        Some(overlapping.unwrap_or_default().max(Timestamp::UNIX_EPOCH))
    }

    /// How many tickets a page is to have.
    pub fn page_size(&self) -> usize {
        if self.position.is_some() { PAGE } else { 1 }
    }

    /// The number of the page that is wanted next, from 1.
    pub fn next_page(&self) -> usize {
        self.pages + 1
    }

    /// Takes the next page, and what the helpdesk's clock read. Says whether another page is wanted.
    pub fn take(&mut self, page: Vec<Row>, date: Option<Timestamp>) -> bool {
        self.pages += 1;
        self.date = self.date.or(date);
        self.newest = self.newest.max(page.iter().map(|row| row.changed_at).max());
        let Some(since) = self.since() else {
            return false;
        };
        let is_full = page.len() >= PAGE;
        let is_newer = |row: &Row| row.changed_at >= since;
        let is_through = !page.iter().all(is_newer);
        for row in page.into_iter().filter(is_newer) {
            if self.ids.insert(row.id.clone()) {
                self.rows.push(row);
            }
        }
        is_full && !is_through && self.pages < MAX_PAGES
    }

    /// What was found, the oldest change first, and the position for the next walk: the helpdesk's own times. A time ahead
    /// of the helpdesk's clock (it was turned back) is no position: changes after it would look old for as long.
    pub fn end(mut self) -> (Vec<Row>, String) {
        self.rows.sort_by_key(|row| row.changed_at);
        let newest = self.newest.max(self.position).or(self.date);
        let newest = newest.unwrap_or(Timestamp::UNIX_EPOCH);
        let position = self.date.map_or(newest, |date| newest.min(date));
        (self.rows, position.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        format!("2026-11-20T{time}Z").parse().unwrap()
    }

    fn row(id: usize, time: &str) -> Row {
        Row {
            id: id.to_string(),
            changed_at: at(time),
            ticket: Value::Null,
        }
    }

    fn ids(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.id.as_str()).collect()
    }

    #[test]
    fn without_a_position_only_the_newest_change_is_looked_at() {
        let mut walk = Walk::new(None);
        assert_eq!((walk.since(), walk.page_size()), (None, 1));

        assert!(!walk.take(vec![row(7, "09:00:00")], Some(at("10:00:00"))));

        let (rows, position) = walk.end();
        assert_eq!((rows.len(), position.as_str()), (0, "2026-11-20T09:00:00Z"));
    }

    #[test]
    fn a_helpdesk_without_tickets_is_read_from_its_own_clock_on() {
        let mut walk = Walk::new(None);

        assert!(!walk.take(Vec::new(), Some(at("10:00:00"))));

        assert_eq!(walk.end().1, "2026-11-20T10:00:00Z");
    }

    #[test]
    fn a_walk_goes_back_a_little_over_its_position_and_returns_the_oldest_first() {
        let mut walk = Walk::new(Some("2026-11-20T09:00:00Z"));
        assert_eq!(walk.since(), Some(at("08:59:00")));
        let page = vec![row(3, "09:05:00"), row(2, "08:59:30"), row(1, "08:58:00")];

        assert!(!walk.take(page, Some(at("09:05:10"))));

        let (rows, position) = walk.end();
        assert_eq!(
            (ids(&rows), position.as_str()),
            (vec!["2", "3"], "2026-11-20T09:05:00Z")
        );
    }

    #[test]
    fn pages_are_read_until_one_reaches_back_and_a_ticket_that_moved_stands_once() {
        let mut walk = Walk::new(Some("2026-11-20T09:00:00Z"));
        let first: Vec<Row> = (0..PAGE).map(|id| row(id, "09:05:00")).collect();

        assert!(walk.take(first, None));
        assert_eq!(walk.next_page(), 2);
        assert!(!walk.take(vec![row(PAGE - 1, "09:05:00"), row(500, "09:01:00")], None));

        let (rows, _) = walk.end();
        assert_eq!((rows.len(), rows[0].id.as_str()), (PAGE + 1, "500"));
    }

    #[test]
    fn a_walk_ends_although_everything_has_changed() {
        let mut walk = Walk::new(Some("2026-11-20T09:00:00Z"));
        let mut pages = 0;
        while walk.take((0..PAGE).map(|id| row(pages * PAGE + id, "09:05:00")).collect(), None) {
            pages += 1;
        }

        assert_eq!(walk.end().0.len(), MAX_PAGES * PAGE);
    }

    #[test]
    fn a_time_ahead_of_the_helpdesks_clock_does_not_become_the_position() {
        let mut walk = Walk::new(Some("2026-11-20T09:00:00Z"));
        walk.take(vec![row(1, "23:00:00"), row(2, "09:01:00")], Some(at("09:01:30")));

        assert_eq!(walk.end().1, "2026-11-20T09:01:30Z");
    }

    #[test]
    fn nothing_new_leaves_the_position_and_one_of_another_kind_begins_anew() {
        let mut walk = Walk::new(Some("2026-11-20T09:00:00Z"));
        assert!(!walk.take(Vec::new(), Some(at("10:00:00"))));
        assert_eq!(walk.end().1, "2026-11-20T09:00:00Z");

        assert_eq!(Walk::new(Some("48211")).since(), None);
    }
}
