//! What the results of a round mean: what is through, what is held, how far the endpoint has come, and how it stands. Pure:
//! time and chance are arguments.

use super::{
    gaps::{PATIENCE, next_probe, next_try},
    round::{GONE, Item, PostedRound, Result},
};
use crate::{
    domain::day::after,
    notify::Posted,
    store::{Disabling, EndpointTurn, NewHold, NewTry, RoundDone, TryOutcome},
};
use jiff::Timestamp;
use std::time::Duration;

/// What came of a round, and what is said of it.
#[derive(Debug, Default)]
pub struct Done {
    pub round: RoundDone,
    /// Whether another round may find something at once.
    pub has_more: bool,
    given_up: Vec<String>,
    gives_up: bool,
    taken: usize,
    failed: usize,
    /// Of these, new events and those that failed because of the endpoint: only by them it is failing. And the latter alone.
    counted: i64,
    of_endpoint: usize,
    wish: Option<Duration>,
    is_gone: bool,
    /// Not tried: of streams that were not come to, and behind one that is held.
    left: Vec<(i64, String)>,
    behind: Vec<(i64, String)>,
    /// The highest place of a new event that was tried.
    furthest: i64,
}

impl PostedRound {
    pub fn outcome(self, turn: &EndpointTurn, now: Timestamp, chance: &mut dyn FnMut() -> f64) -> Done {
        let is_taken = |result: &Result| matches!(result.posted, Posted::Taken { .. });
        let has_taken = self.chains.iter().any(|(_, results)| results.iter().any(is_taken));
        let mut done = Done {
            // Of an endpoint that takes nothing at all, no event is to blame; if it is one only, that one is.
            gives_up: turn.failing_since.is_none() || has_taken || (!turn.is_paused && turn.tries <= 1),
            furthest: turn.place,
            behind: self
                .behind
                .into_iter()
                .map(|placed| (placed.place, placed.stream))
                .collect(),
            ..Done::default()
        };
        for (chain, results) in self.chains {
            let (mut results, mut has_failed) = (results.into_iter(), false);
            for item in chain.items {
                match results.next() {
                    Some(result) => has_failed |= done.note(item, result, now, chance),
                    None if item.held.is_some() => {}
                    None if has_failed => done.behind.push((item.placed.place, item.placed.stream)),
                    None => done.left.push((item.placed.place, item.placed.stream)),
                }
            }
        }
        done.move_on(self.end);
        done.stand(turn, now);
        let is_through = done.round.place == self.end && !self.is_full;
        let has_moved = done.round.place > turn.place || done.taken > 0 || !done.round.released.is_empty();
        let may_be_more = !is_through || done.round.releases_all || !done.round.streams.is_empty();
        done.has_more = has_moved && may_be_more && done.round.due_at.is_none();
        done
    }
}

impl Done {
    /// Takes in one result; returns whether it failed.
    fn note(&mut self, item: Item, result: Result, now: Timestamp, chance: &mut dyn FnMut() -> f64) -> bool {
        let Item { placed, event, held } = item;
        match held {
            Some(_) => self.round.streams.push(placed.stream.clone()),
            None => self.furthest = self.furthest.max(placed.place),
        }
        let mut new_try = NewTry {
            event_id: event.id.clone(),
            event_type: placed.kind.clone(),
            at: result.at,
            took_ms: i64::try_from(result.took.as_millis()).unwrap_or(i64::MAX),
            status: None,
            outcome: TryOutcome::Taken,
            error: None,
        };
        let (is_over, has_failed) = match result.posted {
            Posted::Skipped => (true, false),
            Posted::Taken { status } => {
                self.taken += 1;
                new_try.status = status;
                self.round.tries.push(new_try);
                (true, false)
            }
            Posted::Failed {
                is_of_event,
                status,
                why,
                retry_after,
            } => {
                self.failed += 1;
                self.of_endpoint += usize::from(!is_of_event);
                let is_new = held.is_none_or(|(tries, _)| tries == 0);
                self.counted += i64::from(is_new || !is_of_event);
                self.is_gone |= status == Some(GONE);
                self.wish = self.wish.max(retry_after);
                let (tries, since) = held.unwrap_or((0, now));
                let is_given_up = self.gives_up && since <= after(now, -PATIENCE);
                new_try.status = status;
                new_try.error = Some(why.clone());
                new_try.outcome = if is_given_up {
                    TryOutcome::GivenUp
                } else {
                    TryOutcome::Failed
                };
                self.round.tries.push(new_try);
                self.round.last_error = Some(why.clone());
                if is_given_up {
                    self.given_up.push(event.id);
                } else {
                    self.round.held.push(NewHold {
                        place: placed.place,
                        stream: placed.stream.clone(),
                        tries: tries + 1,
                        due_at: Some(next_try(tries + 1, chance(), retry_after, now)),
                        last_error: Some(why),
                    });
                }
                (is_given_up, true)
            }
        };
        if is_over && held.is_some() {
            self.round.released.push(placed.place);
        }
        has_failed
    }

    /// Up to where everything was posted or is held. What was not come to is read again, unless something after it was
    /// posted.
    fn move_on(&mut self, end: i64) {
        let furthest = self.furthest;
        let next = self
            .left
            .iter()
            .map(|(place, _)| *place)
            .filter(|place| *place > furthest);
        let place = next.min().map_or(end, |place| place - 1);
        self.round.place = place;
        let waiting = self.left.drain(..).chain(self.behind.drain(..));
        for (at, stream) in waiting.filter(|(at, _)| *at <= place) {
            self.round.streams.push(stream.clone());
            self.round.held.push(NewHold {
                place: at,
                stream,
                tries: 0,
                due_at: None,
                last_error: None,
            });
        }
        self.round.streams.sort_unstable();
        self.round.streams.dedup();
    }

    /// How the endpoint stands after it. What only says that one event is refused brings about no pause: that event waits by
    /// itself, and whatever is new is posted at once.
    fn stand(&mut self, turn: &EndpointTurn, now: Timestamp) {
        let round = &mut self.round;
        (round.failing_tries, round.failing_since) = (turn.tries, turn.failing_since);
        if self.taken > 0 {
            (round.failing_tries, round.failing_since) = (0, None);
            round.has_succeeded = true;
            round.releases_all = turn.failing_since.is_some();
        } else if self.of_endpoint > 0 {
            round.failing_tries += 1;
            round.failing_since.get_or_insert(now);
            round.due_at = Some(next_probe(round.failing_tries, self.wish, now));
        } else if self.counted > 0 {
            round.failing_tries += self.counted;
            round.failing_since.get_or_insert(now);
        } else if !self.given_up.is_empty() {
            // It was to blame alone.
            (round.failing_tries, round.failing_since) = (0, None);
        } else if self.failed == 0 {
            round.last_error.clone_from(&turn.last_error);
        }
        let why = match round.failing_since {
            _ if self.is_gone => Some("answered 410: it wants no more events".to_owned()),
            // Why stands with the endpoint and in the log: it may name its address, which is no other endpoint's business.
            Some(since) if self.counted > 0 && since <= after(now, -PATIENCE) => {
                Some(format!("has taken no event since {since:.0}"))
            }
            _ => None,
        };
        round.disabling = why.map(|why| Disabling { why });
    }

    /// Says what is new.
    pub fn log(&self, turn: &EndpointTurn) {
        let (endpoint, round) = (&turn.name, &self.round);
        for event_id in &self.given_up {
            let days = PATIENCE.as_hours() / 24;
            tracing::error!(%endpoint, event.id = %event_id, days, "gave up an event: the endpoint did not take it for days; those of the same alert go on: {}", round.last_error.as_deref().unwrap_or_default());
        }
        match (turn.failing_since, round.failing_since) {
            (None, Some(_)) if round.due_at.is_some() => {
                tracing::warn!(%endpoint, "the endpoint takes no events; they are kept and tried again: {}", round.last_error.as_deref().unwrap_or_default());
            }
            (Some(since), None) if self.taken > 0 => {
                tracing::info!(%endpoint, %since, "the endpoint takes events again")
            }
            (None, _) if self.failed > 0 => {
                tracing::warn!(%endpoint, failed = self.failed, "the endpoint did not take an event, which is tried again: {}", round.last_error.as_deref().unwrap_or_default());
            }
            (None | Some(_), None | Some(_)) => {}
        }
        tracing::debug!(%endpoint, taken = self.taken, failed = self.failed, place = round.place, "posted events");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::lifecycle::{EventType, LifecycleEvent},
        store::PlacedEvent,
        worker::webhooks::round::Chain,
    };
    use jiff::SignedDuration;
    use serde_json::Map;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn placed(place: i64, stream: &str) -> PlacedEvent {
        PlacedEvent {
            place,
            stream: stream.to_owned(),
            kind: "alert.created".to_owned(),
            source: None,
            at: NOW,
            event: Some(LifecycleEvent {
                id: format!("e{place}"),
                kind: EventType::AlertCreated,
                at: NOW,
                source: None,
                alert: None,
                delivery: None,
                message: None,
                phone: None,
                data: Map::new(),
            }),
        }
    }

    fn chain(places: &[i64], stream: &str, held: Option<(i64, Timestamp)>, results: &[Posted]) -> (Chain, Vec<Result>) {
        let items = places.iter().map(|place| {
            let placed = placed(*place, stream);
            let event = placed.event.clone().unwrap();
            Item { placed, event, held }
        });
        let results = results.iter().map(|posted| Result {
            at: NOW,
            took: Duration::ZERO,
            posted: posted.clone(),
        });
        (Chain { items: items.collect() }, results.collect())
    }

    fn taken() -> Posted {
        Posted::Taken { status: Some(204) }
    }

    fn failed(status: u16) -> Posted {
        Posted::answered(status, format!("it answered {status}"), None)
    }

    fn outcome(turn: &EndpointTurn, chains: Vec<(Chain, Vec<Result>)>, behind: Vec<PlacedEvent>, end: i64) -> Done {
        let round = PostedRound {
            chains,
            behind,
            end,
            is_full: false,
        };
        round.outcome(turn, NOW, &mut || 0.5)
    }

    fn held(done: &Done) -> Vec<(i64, i64, bool)> {
        let mut held: Vec<_> = done
            .round
            .held
            .iter()
            .map(|hold| (hold.place, hold.tries, hold.due_at.is_some()))
            .collect();
        held.sort_unstable();
        held
    }

    #[test]
    fn what_was_taken_costs_nothing_but_the_place() {
        let chains = vec![
            chain(&[1, 3], "a", None, &[taken(), taken()]),
            chain(&[2], "b", None, &[taken()]),
        ];

        let done = outcome(&EndpointTurn::at(0, None), chains, vec![], 4);

        assert_eq!((done.round.place, held(&done).len(), done.round.tries.len()), (4, 0, 3));
        assert!(!done.has_more && done.round.has_succeeded && done.round.failing_since.is_none());
    }

    #[test]
    fn what_follows_a_failed_event_of_its_stream_waits_and_nothing_else_does() {
        let chains = vec![
            chain(&[1, 3], "a", None, &[failed(500)]),
            chain(&[2], "b", None, &[taken()]),
        ];

        let done = outcome(&EndpointTurn::at(0, None), chains, vec![placed(4, "c")], 4);

        assert_eq!(done.round.place, 4);
        assert_eq!(held(&done), [(1, 1, true), (3, 0, false), (4, 0, false)]);
        assert!(done.round.failing_since.is_none(), "it has taken something");
    }

    #[test]
    fn what_a_round_has_no_time_for_is_read_again_or_held_if_something_after_it_was_taken() {
        let chains = vec![
            chain(&[1, 3, 7], "a", None, &[taken()]),
            chain(&[2], "b", None, &[taken()]),
            chain(&[4], "c", None, &[taken()]),
            chain(&[6], "d", None, &[]),
        ];

        let done = outcome(
            &EndpointTurn::at(0, None),
            chains,
            vec![placed(5, "e"), placed(8, "e")],
            8,
        );

        assert_eq!(done.round.place, 5);
        assert_eq!(held(&done), [(3, 0, false), (5, 0, false)]);
        assert!(done.has_more);
    }

    #[test]
    fn an_endpoint_that_takes_nothing_is_left_alone_ever_longer_and_disabled_after_five_days() {
        let days_ago = |days: i64| Some(after(NOW, -SignedDuration::from_hours(24 * days)));
        for (since, pause, is_disabled) in [(None, 5, false), (days_ago(4), 40, false), (days_ago(5), 40, true)] {
            let chains = vec![chain(&[1], "a", None, &[failed(500)])];

            let done = outcome(&EndpointTurn::at(0, since), chains, vec![], 1);

            assert_eq!(done.round.due_at.unwrap().as_second(), pause);
            assert_eq!(done.round.failing_since, since.or(Some(NOW)));
            assert_eq!(done.round.disabling.is_some(), is_disabled, "{since:?}");
            assert!(!done.has_more);
        }
    }

    #[test]
    fn an_endpoint_that_answers_again_gets_all_that_it_missed() {
        let chains = vec![
            chain(&[9], "a", None, &[taken()]),
            chain(&[1], "b", Some((4, NOW)), &[]),
        ];

        let done = outcome(&EndpointTurn::at(8, Some(NOW)), chains, vec![], 9);

        assert!(done.round.releases_all && done.has_more && done.round.failing_since.is_none());
        assert_eq!((done.round.failing_tries, done.round.due_at), (0, None));
    }

    #[test]
    fn an_event_that_was_not_taken_for_five_days_is_given_up_and_its_stream_goes_on() {
        let since = after(NOW, -SignedDuration::from_hours(24 * 5));
        let chains = vec![
            chain(&[1, 2], "a", Some((20, since)), &[failed(400)]),
            chain(&[3], "b", None, &[taken()]),
        ];

        let done = outcome(&EndpointTurn::at(2, None), chains, vec![], 3);

        assert_eq!(done.round.released, [1]);
        assert_eq!(done.round.streams, ["a"]);
        assert!(done.round.held.is_empty());
        assert_eq!(done.round.tries[0].outcome, TryOutcome::GivenUp);
        assert!(done.has_more);
    }

    #[test]
    fn nothing_is_given_up_while_the_endpoint_takes_nothing_at_all() {
        let since = after(NOW, -SignedDuration::from_hours(24 * 6));
        let chains = vec![chain(&[1], "a", Some((20, since)), &[failed(500)])];

        let done = outcome(&EndpointTurn::at(2, Some(since)), chains, vec![], 2);

        assert!(done.round.released.is_empty() && done.round.disabling.is_some());
        assert_eq!(held(&done), [(1, 21, true)]);
    }

    #[test]
    fn one_event_that_is_refused_pauses_nothing_and_is_given_up_alone() {
        let first = outcome(
            &EndpointTurn::at(0, None),
            vec![chain(&[1], "a", None, &[failed(400)])],
            vec![],
            1,
        );
        assert_eq!((first.round.due_at, first.round.failing_tries), (None, 1));

        let since = after(NOW, -PATIENCE);
        let mut refused = EndpointTurn::at(1, Some(since));
        (refused.tries, refused.is_paused) = (1, false);
        let last = outcome(
            &refused,
            vec![chain(&[1], "a", Some((20, since)), &[failed(400)])],
            vec![],
            1,
        );
        assert_eq!(
            (last.round.released.as_slice(), last.round.failing_since),
            (&[1][..], None)
        );
        assert!(last.round.disabling.is_none() && last.round.due_at.is_none());
    }

    #[test]
    fn an_endpoint_that_refuses_all_is_disabled_by_a_new_event_and_loses_none() {
        let since = after(NOW, -PATIENCE);
        let mut refusing = EndpointTurn::at(3, Some(since));
        refusing.is_paused = false;
        let old = outcome(
            &refusing,
            vec![chain(&[1], "a", Some((20, since)), &[failed(400)])],
            vec![],
            3,
        );
        assert!(old.round.released.is_empty() && old.round.disabling.is_none() && old.round.due_at.is_none());
        assert_eq!((old.round.failing_since, old.round.failing_tries), (Some(since), 3));

        let new = outcome(&refusing, vec![chain(&[4], "b", None, &[failed(400)])], vec![], 4);
        let why = new.round.disabling.unwrap().why;
        assert!(!why.contains("400"), "others hear of the alarm: {why}");
    }

    #[test]
    fn an_endpoint_that_is_gone_is_disabled_at_once() {
        let done = outcome(
            &EndpointTurn::at(0, None),
            vec![chain(&[1], "a", None, &[failed(GONE)])],
            vec![],
            1,
        );

        assert!(done.round.disabling.is_some());
        assert_eq!(held(&done), [(1, 1, true)]);
    }
}
