//! When something that was not taken is tried again. Time and chance are arguments.

use crate::domain::day::after;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// From one try of an event to the next, in seconds; the last one goes on. They add up to more than a day.
const GAPS: [i64; 8] = [5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000];
/// By how much of itself a gap may be shorter or longer, so that what failed together does not come together again.
const SPREAD: f64 = 0.2;
/// How long an endpoint is left alone that takes nothing, at first and at most.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// What an endpoint may ask for by `Retry-After`.
const LONGEST_WISH: SignedDuration = SignedDuration::from_hours(1);
/// An event that was not taken for so long is given up; an endpoint that took nothing for so long is disabled.
pub const PATIENCE: SignedDuration = SignedDuration::from_hours(5 * 24);

/// When an event is tried again that was tried so often. `chance` is from 0 to 1.
pub fn next_try(tries: i64, chance: f64, wish: Option<Duration>, now: Timestamp) -> Timestamp {
    let index = usize::try_from(tries.max(1) - 1).unwrap_or(usize::MAX);
    let gap = GAPS.get(index).or(GAPS.last()).copied().unwrap_or_default();
    let factor = 1.0 - SPREAD + 2.0 * SPREAD * chance.clamp(0.0, 1.0);
    #[allow(clippy::cast_possible_truncation, reason = "some 43 million at most")]
    let gap = SignedDuration::from_millis((gap as f64 * 1_000.0 * factor) as i64);
    after(now, gap.max(granted(wish)))
}

/// When an endpoint is tried again that took nothing so often in a row.
pub fn next_probe(tries: i64, wish: Option<Duration>, now: Timestamp) -> Timestamp {
    let doublings = u32::try_from((tries - 1).clamp(0, 10)).unwrap_or(10);
    let pause = FIRST_PAUSE.checked_mul(1 << doublings).unwrap_or(LONGEST_PAUSE);
    after(now, pause.min(LONGEST_PAUSE).max(granted(wish)))
}

fn granted(wish: Option<Duration>) -> SignedDuration {
    let wish = wish.map(|wish| SignedDuration::try_from(wish).unwrap_or(LONGEST_WISH));
    wish.unwrap_or_default().min(LONGEST_WISH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn gap(tries: i64, chance: f64) -> i64 {
        next_try(tries, chance, None, NOW).as_second()
    }

    #[test]
    fn gaps_grow_from_five_seconds_to_ten_hours() {
        let gaps = [1, 2, 3, 4, 5, 6, 7, 8, 9, 99].map(|tries| gap(tries, 0.5));

        assert_eq!(gaps, [5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 36_000, 36_000]);
    }

    #[test]
    fn a_gap_is_a_fifth_shorter_or_longer_by_chance() {
        assert_eq!((gap(1, 0.0), gap(1, 1.0)), (4, 6));
        assert_eq!((gap(8, 0.0), gap(8, 1.0)), (28_800, 43_200));
        assert_eq!((gap(0, 0.5), gap(-1, 0.5)), (5, 5));
    }

    #[test]
    fn an_endpoint_that_takes_nothing_is_asked_every_minute_at_last() {
        let pauses = [1, 2, 3, 4, 5, 6, 99].map(|tries| next_probe(tries, None, NOW).as_second());

        assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn a_wish_to_be_left_alone_is_granted_for_an_hour_at_most() {
        let wish = |seconds| Some(Duration::from_secs(seconds));

        assert_eq!(next_try(1, 0.5, wish(90), NOW).as_second(), 90);
        assert_eq!(next_try(6, 0.5, wish(90), NOW).as_second(), 7_200);
        assert_eq!(next_probe(1, wish(90), NOW).as_second(), 90);
        assert_eq!(next_probe(1, wish(u64::MAX), NOW).as_second(), 3_600);
    }
}
