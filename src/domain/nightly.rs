//! When the nightly jobs are due, and which local days a run covers. The cron expression only names a time of day; that
//! each local day has its run exactly once is decided by the ledger (`store::job_runs`) with the functions here.
//! Absent: the clock and the jobs.

use super::{day::LocalDay, words::words};
use cron::{Schedule, TimeUnitSpec};
use jiff::{Timestamp, civil::Time, tz::TimeZone};
use std::str::FromStr;

/// After a long absence this many missed days have a run of their own; one more covers the rest.
pub const MAX_SINGLE_DAYS: usize = 7;

words! {
    /// What is done every night: two jobs, so that a dead mail server never stops the clean-up.
    NightlyJob { Report = "report", Cleanup = "cleanup" }
}

/// The time of day at which the jobs are due, on the day after the one that they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NightlyTime(Time);

impl NightlyTime {
    /// Reads a cron expression with seconds that comes once a day, like `0 0 0 * * *`. Fails with what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.split_whitespace().count() == 5 {
            return Err("has five fields, but the first of six is the second: put `0 ` before it");
        }
        let schedule = Schedule::from_str(text)
            .map_err(|_| "is not a cron expression: write it like `0 30 2 * * *` for 02:30:00")?;
        let is_daily = schedule.days_of_month().is_all()
            && schedule.months().is_all()
            && schedule.days_of_week().is_all()
            && schedule.years().is_all();
        if !is_daily {
            return Err(
                "leaves days out, but every day needs its report and clean-up: end it with `* * *` (to get mail only when something failed, set `report.when`)",
            );
        }
        let (Some(hour), Some(minute), Some(second)) = (
            only(schedule.hours()),
            only(schedule.minutes()),
            only(schedule.seconds()),
        ) else {
            return Err("comes more than once a day: name one second, minute and hour, like `0 30 2 * * *`");
        };
        Time::new(hour, minute, second, 0)
            .map(Self)
            .map_err(|_| "is not a time of day: write it like `0 30 2 * * *` for 02:30:00")
    }

    /// When the run about `day` is due. Exactly one instant, also where the clocks of that night skip the time or show it
    /// twice.
    pub fn due(self, day: LocalDay, zone: &TimeZone) -> Timestamp {
        day.next(zone).at(self.0, zone)
    }

    /// The newest day whose run is due.
    pub fn newest_due(self, now: Timestamp, zone: &TimeZone) -> LocalDay {
        let mut day = LocalDay::of(now, zone).previous(zone);
        while self.due(day, zone) > now {
            day = day.previous(zone);
        }
        day
    }
}

/// The number that a unit of a schedule names, if it is a single one.
fn only(unit: &impl TimeUnitSpec) -> Option<i8> {
    let number = unit.iter().next().filter(|_| unit.count() == 1);
    number.and_then(|number| i8::try_from(number).ok())
}

/// The days that one run covers, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: LocalDay,
    pub last: LocalDay,
}

/// The runs for the days after `last_run` up to `newest`, oldest first: each day its own, at most
/// [`MAX_SINGLE_DAYS`], then one that covers the rest.
pub fn missed(last_run: LocalDay, newest: LocalDay, zone: &TimeZone) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut day = last_run;
    while day < newest {
        let first = day.next(zone);
        day = if spans.len() < MAX_SINGLE_DAYS { first } else { newest };
        spans.push(Span { first, last: day });
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::day::ODD_ZONES;
    use jiff::SignedDuration;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn day(text: &str) -> LocalDay {
        LocalDay::parse(text).unwrap()
    }

    /// Lives through the years, checking every so many minutes; returns every day that got a run, in order.
    fn live(schedule: &str, zone: &TimeZone, from: &str, until: &str, steps: &[i64]) -> Vec<LocalDay> {
        let time = NightlyTime::parse(schedule).unwrap();
        let (mut now, until): (Timestamp, Timestamp) = (from.parse().unwrap(), until.parse().unwrap());
        let mut last_run = time.newest_due(now, zone);
        let mut covered = Vec::new();
        for step in steps.iter().cycle() {
            for span in missed(last_run, time.newest_due(now, zone), zone) {
                assert!(
                    time.due(span.last, zone) <= now,
                    "no day is reported before it is over and its run due"
                );
                let mut day = span.first;
                while day <= span.last {
                    covered.push(day);
                    day = day.next(zone);
                }
                last_run = span.last;
            }
            if now > until {
                break;
            }
            now += SignedDuration::from_mins(*step);
        }
        covered
    }

    #[test]
    fn each_local_day_has_its_run_exactly_once_over_ten_years() {
        // Midnight, the hours that clocks skip or repeat, and the end of the day.
        let schedules = ["0 0 0 * * *", "0 30 2 * * *", "0 15 0 * * *", "59 59 23 * * *"];
        // In minutes: steady, and with nights off: two days, and now and then three weeks.
        let rhythms = [&[433][..], &[61, 2_880, 5, 5, 30_240, 700, 700]];
        for name in ODD_ZONES {
            let zone = zone(name);
            for schedule in schedules {
                for steps in rhythms {
                    // Ten years in which Cairo, Santiago and Lord Howe change their clocks; Apia drops a day in 2011.
                    for (from, until) in [
                        ("2008-03-01T12:00:00Z", "2018-03-01T12:00:00Z"),
                        ("2023-01-01T12:00:00Z", "2033-01-01T12:00:00Z"),
                    ] {
                        let covered = live(schedule, &zone, from, until, steps);

                        assert!(covered.len() > 3_640, "{name}: {}", covered.len());
                        for pair in covered.windows(2) {
                            assert_eq!(pair[0].next(&zone), pair[1], "{name} {schedule}: a gap, or a day twice");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_is_due_once_in_nights_that_skip_or_repeat_its_time() {
        let (berlin, half_past_two) = (zone("Europe/Berlin"), NightlyTime::parse("0 30 2 * * *").unwrap());
        for (before, due) in [
            ("2027-03-27", "2027-03-28T03:30:00+02:00"), // 02:30 is skipped
            ("2026-10-24", "2026-10-25T02:30:00+02:00"), // the first of two
        ] {
            let due: Timestamp = due.parse().unwrap();
            assert_eq!(half_past_two.due(day(before), &berlin), due, "{before}");
        }
    }

    #[test]
    fn where_midnight_is_skipped_the_run_is_due_at_the_days_first_instant() {
        let midnight = NightlyTime::parse("0 0 0 * * *").unwrap();
        for (name, before) in [("Africa/Cairo", "2026-04-23"), ("America/Santiago", "2026-09-05")] {
            let zone = zone(name);

            assert_eq!(midnight.due(day(before), &zone), day(before).end(&zone), "{name}");
        }
    }

    #[test]
    fn a_long_absence_is_caught_up_by_seven_reports_and_one_summary() {
        let spans = missed(day("2026-11-01"), day("2026-11-20"), &TimeZone::UTC);

        assert_eq!(spans.len(), 8);
        assert!(spans[..7].iter().all(|span| span.first == span.last));
        assert_eq!((spans[0].first, spans[6].last), (day("2026-11-02"), day("2026-11-08")));
        assert_eq!((spans[7].first, spans[7].last), (day("2026-11-09"), day("2026-11-20")));
        for last_run in ["2026-11-20", "2026-11-21"] {
            let spans = missed(day(last_run), day("2026-11-20"), &TimeZone::UTC);
            assert_eq!(spans, [], "{last_run}");
        }
    }

    #[test]
    fn the_schedule_is_one_time_a_day_with_seconds() {
        for good in [
            "0 0 0 * * *",
            "30 15 7 * * *",
            "0 0 0 * * ? *",
            "0 0 0 ? * *",
            "0 0 2 1-31 * *",
        ] {
            assert!(NightlyTime::parse(good).is_ok(), "{good}");
        }
        for (bad, hint) in [
            ("0 0 * * *", "five fields"),
            ("0 0 7 * * MON-FRI", "leaves days out"),
            ("0 0 0 1 * *", "leaves days out"),
            ("0 */5 * * * *", "more than once"),
            ("midnight", "not a cron expression"),
            ("0 0 25 * * *", "not a cron expression"),
        ] {
            assert!(NightlyTime::parse(bad).unwrap_err().contains(hint), "{bad}");
        }
    }
}
