//! How fast messages go: one pace for each sender. A single process keeps it in memory; replicas take turns in the
//! database, so that all of them together keep it. A turn is taken only when something is due, so none is hoarded.

use crate::{
    domain::route::Route,
    store::{Db, StoreError},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::{collections::VecDeque, num::NonZeroU32, time::Duration};
use tokio::time::Instant;

/// A turn that could not be used for this long, or for half the time between two, is gone: others went meanwhile.
const STALE: Duration = Duration::from_millis(200);

/// The pace of one process.
pub enum Pace {
    Unpaced,
    /// Alone: the limiter, and the rights it gave that were not used yet.
    Own {
        limiter: DefaultDirectRateLimiter,
        held: usize,
        /// More are never held, though more grow during a nap: they would go at once.
        burst: usize,
    },
    /// Beside others: the turns that were taken and not used yet.
    Shared {
        turns: VecDeque<Instant>,
        /// Those that the last `ready` gave: what is not used goes back.
        given: Vec<Instant>,
        per_second: f64,
    },
}

impl Pace {
    /// `per_second` messages; 0 is unpaced.
    pub fn new(per_second: f64, is_shared: bool) -> Self {
        if per_second <= 0.0 {
            return Self::Unpaced;
        }
        if is_shared {
            return Self::Shared {
                turns: VecDeque::new(),
                given: Vec::new(),
                per_second,
            };
        }
        let quota = Quota::with_period(Duration::from_secs_f64(1.0 / per_second));
        quota.map_or(Self::Unpaced, |quota| Self::Own {
            limiter: RateLimiter::direct(quota.allow_burst(burst(per_second))),
            held: 0,
            burst: usize::try_from(burst(per_second).get()).unwrap_or(1),
        })
    }

    /// Waits until a message may go; returns how many may go now, at most `most`.
    pub async fn ready(&mut self, store: &Db, route: &Route, most: usize) -> Result<usize, StoreError> {
        match self {
            Self::Unpaced => Ok(most),
            Self::Own { limiter, held, burst } => {
                if *held == 0 {
                    limiter.until_ready().await;
                    *held = 1;
                }
                while *held < most.min(*burst) && limiter.check().is_ok() {
                    *held += 1;
                }
                Ok(most.min(*held))
            }
            Self::Shared {
                turns,
                given,
                per_second,
            } => {
                give_back(turns, given, 0);
                let gap = Duration::from_secs_f64(1.0 / *per_second);
                turns.retain(|turn| turn.elapsed() < STALE.max(gap / 2));
                if turns.is_empty() {
                    let count = burst(*per_second).get();
                    let wait = store.take_turn(route, gap * count).await?;
                    let first = Instant::now() + wait;
                    turns.extend((0..count).map(|turn| first + gap * turn));
                }
                let Some(turn) = turns.pop_front() else {
                    return Ok(0);
                };
                tokio::time::sleep_until(turn).await;
                given.push(turn);
                while given.len() < most
                    && let Some(turn) = turns.pop_front_if(|turn| *turn <= Instant::now())
                {
                    given.push(turn);
                }
                Ok(given.len())
            }
        }
    }

    /// `count` messages went; rights for what was stopped instead (by the limit, an opt-out) are kept. After a nap a right of
    /// our own was kept for a while before it was used, and meanwhile as many grew again: they would go at once. Lets
    /// those lapse.
    pub fn used(&mut self, count: usize, napped: bool) {
        match self {
            Self::Unpaced => {}
            Self::Own { limiter, held, .. } => {
                *held = held.saturating_sub(count);
                for _ in (0..count).filter(|_| napped) {
                    let _ = limiter.check();
                }
            }
            Self::Shared { turns, given, .. } => give_back(turns, given, count),
        }
    }

    /// Nothing is due: only one right is kept meanwhile.
    pub fn rest(&mut self) {
        if let Self::Own { held, .. } = self {
            *held = (*held).min(1);
        }
    }
}

/// Puts back the turns that were given and not used.
fn give_back(turns: &mut VecDeque<Instant>, given: &mut Vec<Instant>, used: usize) {
    for turn in given.drain(..).skip(used).rev() {
        turns.push_front(turn);
    }
}

/// How many messages may go together. A burst hides the grain of the timer at high rates, and spares the database a
/// question for each message; at low ones messages go strictly one by one.
fn burst(per_second: f64) -> NonZeroU32 {
    NonZeroU32::new((per_second / 10.0) as u32).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_ended_in_a_stop_is_used_by_the_next_message() {
        let now = Instant::now();
        let turn = |number| now + Duration::from_secs(number);
        let mut pace = Pace::Shared {
            turns: VecDeque::from([turn(3)]),
            given: vec![turn(0), turn(1), turn(2)],
            per_second: 1.0,
        };

        pace.used(1, false);

        let Pace::Shared { turns, given, .. } = pace else {
            panic!("another pace")
        };
        assert_eq!(turns, [turn(1), turn(2), turn(3)]);
        assert!(given.is_empty());
    }
}
