//! What can be known of our wall clock: how far it is from the provider's, and whether somebody turned it. Decided by the
//! monotonic clock, which nobody turns. Pure: what both clocks read is an argument.

use super::day::after;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Clocks that differ by more, or are turned by more, cannot prove that a message is absent.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(2);
/// Turned forward by more than this, a clock makes everything seem old.
const JUMP: SignedDuration = SignedDuration::from_hours(1);
/// Over which steps are added up, and for which nothing expires after a jump.
const HOUR: Duration = Duration::from_secs(3_600);

/// What the provider's clock read at a moment of our monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub date: Timestamp,
    pub at: Instant,
}

impl Stamp {
    /// Reads the `Date` header of a reply. It was written somewhere between `sent` and `received`, and it names whole
    /// seconds: the middle of both is the best guess. `None` if it cannot be read.
    pub fn of_reply(date: &str, sent: Instant, received: Instant) -> Option<Self> {
        let date = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
        Some(Self {
            date: after(date, SignedDuration::from_millis(500)),
            at: sent + received.saturating_duration_since(sent) / 2,
        })
    }

    /// How far the provider's clock is ahead of ours, which reads `wall` at `at`.
    pub fn ahead(&self, at: Instant, wall: Timestamp) -> SignedDuration {
        after(self.date, between(self.at, at)).duration_since(wall)
    }
}

/// Whether clocks that are so far apart prove nothing.
pub fn differs(ahead: SignedDuration) -> bool {
    ahead.abs() > TOLERANCE
}

/// A time span for people: the two largest units.
pub fn span(length: SignedDuration) -> String {
    let seconds = length.as_secs().unsigned_abs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else {
        format!("{minutes} min {} s", seconds % 60)
    }
}

/// Somebody turned our wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Forward, or back if negative.
    pub by: SignedDuration,
    /// Whether the clock went forward by more than an hour, with the steps of the hour before.
    pub is_jump: bool,
}

/// Watches the wall clock by the monotonic one.
#[derive(Debug, Default)]
pub struct Watch {
    /// A reading of both, at most an hour old: slower drifts are no steps.
    base: Option<(Instant, Timestamp)>,
    /// The steps of the last hour.
    steps: VecDeque<(Instant, SignedDuration)>,
    stepped_at: Option<Instant>,
    held_until: Option<Instant>,
    unsettled: Vec<Step>,
}

impl Watch {
    /// Takes a reading of both clocks. A step that it shows is `unsettled` until the caller has dealt with it.
    pub fn read(&mut self, at: Instant, wall: Timestamp) {
        let Some((base_at, base_wall)) = self.base else {
            self.base = Some((at, wall));
            return;
        };
        let by = wall.duration_since(base_wall) - between(base_at, at);
        if by.abs() > TOLERANCE {
            self.base = Some((at, wall));
            self.stepped_at = Some(at);
            self.steps
                .retain(|(step_at, _)| at.saturating_duration_since(*step_at) < HOUR);
            self.steps.push_back((at, by));
            let steps = self.steps.iter().map(|(_, by)| *by);
            let total = steps.fold(SignedDuration::ZERO, SignedDuration::saturating_add);
            let is_jump = by.is_positive() && total > JUMP;
            if is_jump {
                self.held_until = Some(at + HOUR);
            }
            self.unsettled.push(Step { by, is_jump });
        } else if at.saturating_duration_since(base_at) >= HOUR {
            self.base = Some((at, wall));
        }
    }

    /// Whether things may seem old only because the clock jumped: within an hour nothing expires and nothing is forgotten.
    pub fn holds(&self, at: Instant) -> bool {
        self.held_until.is_some_and(|until| at < until)
    }

    /// The steps that nobody has dealt with yet, in order.
    pub fn unsettled(&self) -> &[Step] {
        &self.unsettled
    }

    /// The first so many of them are dealt with.
    pub fn settle(&mut self, count: usize) {
        self.unsettled.drain(..count.min(self.unsettled.len()));
    }

    /// Whether a stamp may be compared with our clock: not one from before a step, since a machine that slept has no
    /// monotonic time of its sleep.
    pub fn trusts(&self, stamp: &Stamp) -> bool {
        self.stepped_at.is_none_or(|stepped_at| stamp.at > stepped_at)
    }
}

/// The time from `start` to `end`, negative if that is the other way round.
fn between(start: Instant, end: Instant) -> SignedDuration {
    let length = |from: Instant, to: Instant| {
        SignedDuration::try_from(to.saturating_duration_since(from)).unwrap_or(SignedDuration::MAX)
    };
    length(start, end) - length(end, start)
}

/// A reading of a clock that nobody turns: how long ago this machine started. It also goes on over a restart of the
/// process, and while the machine sleeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uptime {
    /// Which start it counts from.
    pub machine_start: String,
    pub ms: i64,
}

impl Uptime {
    /// When an attempt was begun and ended, by our clock of `now` (this reading's moment). What was written by a clock that
    /// is turned since, as `begun` shows, is widened to both times.
    pub fn span_of(
        &self,
        begun: &Self,
        (begun_at, ended_at): (Timestamp, Timestamp),
        now: Timestamp,
    ) -> (Timestamp, Timestamp) {
        if self.machine_start != begun.machine_start {
            return (begun_at, ended_at);
        }
        let by_uptime = after(now, SignedDuration::from_millis(begun.ms - self.ms));
        if by_uptime.duration_since(begun_at).abs() <= TURNED {
            return (begun_at, ended_at);
        }
        (begun_at.min(by_uptime), ended_at.max(now))
    }
}

/// Two clocks that are further apart were turned; a machine's own drift is less.
const TURNED: SignedDuration = SignedDuration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "2026-11-20T12:00:00Z";

    fn wall(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_attempt_that_a_wrong_clock_dated_is_looked_for_at_both_times() {
        let uptime = |machine_start: &str, minutes: i64| Uptime {
            machine_start: machine_start.to_owned(),
            ms: minutes * 60_000,
        };
        let span = |from: &str, to: &str| (wall(&format!("2026-11-21T{from}Z")), wall(&format!("2026-11-21T{to}Z")));
        let now = wall("2026-11-21T12:00:00Z");
        let (behind, ahead) = (span("10:25:00", "10:25:15"), span("13:25:00", "13:25:15"));
        for (machine, minutes, written, expected) in [
            // Five minutes ago, whatever was written.
            ("a", 105, behind, span("10:25:00", "12:00:00")),
            ("a", 105, ahead, span("11:55:00", "13:25:15")),
            // As written.
            ("a", 195, behind, behind),
            ("another", 105, behind, behind),
        ] {
            let read = uptime(machine, minutes).span_of(&uptime("a", 100), written, now);
            assert_eq!(read, expected, "{machine} {minutes}");
        }
    }

    /// A watch that has read both clocks once a second of a minute, and the moment it has come to.
    fn watch() -> (Watch, Instant, Timestamp) {
        let (mut watch, start) = (Watch::default(), Instant::now());
        for second in (0..=60).map(Duration::from_secs) {
            watch.read(start + second, wall(NOON) + second);
        }
        assert!(watch.unsettled().is_empty());
        let minute = Duration::from_secs(60);
        (watch, start + minute, wall(NOON) + minute)
    }

    #[test]
    fn the_middle_of_the_round_trip_is_compared() {
        let (sent, wall) = (Instant::now(), wall("2026-11-20T12:00:10Z"));
        let received = sent + Duration::from_secs(8);

        let stamp = Stamp::of_reply("Fri, 20 Nov 2026 12:12:05 GMT", sent, received).unwrap();

        let ahead = |minutes: i64| SignedDuration::from_millis(minutes * 60_000 - 500);
        assert_eq!(stamp.ahead(received, wall), ahead(12));
        // It goes on with the monotonic clock.
        let (later, wall) = (received + Duration::from_secs(100), wall + Duration::from_secs(40));
        assert_eq!(stamp.ahead(later, wall), ahead(13));
        assert_eq!(Stamp::of_reply("yesterday", sent, received), None);
        assert_eq!(Stamp::of_reply("", sent, received), None);
    }

    #[test]
    fn two_minutes_are_forgiven_and_no_more() {
        assert!(!differs(SignedDuration::from_secs(120)) && !differs(SignedDuration::from_secs(-120)));
        assert!(differs(SignedDuration::from_secs(121)) && differs(SignedDuration::from_secs(-121)));
    }

    #[test]
    fn a_clock_that_runs_with_the_monotonic_one_takes_no_step() {
        let (mut watch, mut at, mut wall) = watch();

        for _ in 0..50 {
            // A freeze of an hour that loses two seconds: both clocks go on meanwhile.
            at += HOUR;
            wall += SignedDuration::from_secs(3_598);
            watch.read(at, wall);
        }

        assert!(watch.unsettled().is_empty() && !watch.holds(at));
    }

    #[test]
    fn a_step_either_way_is_seen_once() {
        for minutes in [3, -3, 12, -120] {
            let (mut watch, at, wall) = watch();
            let by = SignedDuration::from_mins(minutes);

            watch.read(at + Duration::from_secs(1), wall + by + SignedDuration::from_secs(1));
            watch.read(at + Duration::from_secs(2), wall + by + SignedDuration::from_secs(2));

            assert_eq!(watch.unsettled(), [Step { by, is_jump: false }], "{minutes}");
            assert!(!watch.holds(at + Duration::from_secs(2)));
            watch.settle(1);
            assert!(watch.unsettled().is_empty());
        }
    }

    #[test]
    fn small_steps_add_up() {
        let (mut watch, mut at, mut wall) = watch();

        for _ in 0..45 {
            at += Duration::from_secs(1);
            wall += SignedDuration::from_secs(91);
            watch.read(at, wall);
        }

        assert!(watch.unsettled().iter().any(|step| step.is_jump), "{watch:?}");
        assert!(watch.holds(at));
    }

    #[test]
    fn after_a_jump_nothing_expires_for_an_hour_of_the_monotonic_clock() {
        let (mut watch, at, wall) = watch();

        let jumped = at + Duration::from_secs(1);
        watch.read(jumped, wall + SignedDuration::from_hours(73));

        assert!(watch.unsettled()[0].is_jump);
        assert!(watch.holds(jumped) && watch.holds(jumped + HOUR - Duration::from_secs(1)));
        assert!(!watch.holds(jumped + HOUR));
        watch.read(jumped + Duration::from_secs(1), wall);
        // Also when it is set right again.
        assert!(watch.holds(jumped + Duration::from_secs(1)) && !watch.unsettled()[1].is_jump);
    }

    #[test]
    fn a_stamp_from_before_a_step_proves_nothing() {
        let (mut watch, at, wall) = watch();
        let stamp = |at| Stamp { date: wall, at };
        assert!(watch.trusts(&stamp(at)));

        watch.read(at + Duration::from_secs(1), wall + SignedDuration::from_hours(3));

        assert!(!watch.trusts(&stamp(at)) && watch.trusts(&stamp(at + Duration::from_secs(2))));
    }

    #[test]
    fn spans_are_read_by_people() {
        let text = |seconds| span(SignedDuration::from_secs(seconds));

        let texts = [-725, 7_260, 262_800].map(text);
        assert_eq!(texts, ["12 min 5 s", "2 h 1 min", "3 d 1 h"]);
    }
}
