//! The local day: what the daily limit counts by. Absent: the clock; every function takes the time.

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, Time},
    tz::TimeZone,
};

/// The IANA name of a zone.
pub fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

/// A calendar day in the configured time zone. Stored and shown as `2026-11-20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalDay(Date);

impl LocalDay {
    /// The local day that `at` falls on in `zone`.
    pub fn of(at: Timestamp, zone: &TimeZone) -> Self {
        Self(at.to_zoned(zone.clone()).date())
    }

    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    /// The first instant of the day. Where clocks skip midnight (Cairo, Santiago), the first instant that exists.
    /// Dates at the very end of what the calendar holds have none and give the latest timestamp.
    pub fn start(self, zone: &TimeZone) -> Timestamp {
        self.at(Time::midnight(), zone)
    }

    /// The day after this one, skipping days that the zone never had (Apia, 2011-12-30).
    pub fn next(self, zone: &TimeZone) -> Self {
        self.neighbour(zone, Date::tomorrow)
    }

    /// The day before this one, skipping days that the zone never had.
    pub fn previous(self, zone: &TimeZone) -> Self {
        self.neighbour(zone, Date::yesterday)
    }

    fn neighbour(self, zone: &TimeZone, step: fn(Date) -> Result<Date, jiff::Error>) -> Self {
        let mut day = self;
        while let Ok(date) = step(day.0) {
            day = Self(date);
            if Self::of(day.start(zone), zone) == day {
                break;
            }
        }
        day
    }

    /// The instant at which clocks show `time` on this day. Where they skip it, the instant that long after the gap
    /// began; where they show it twice, the first.
    pub fn at(self, time: Time, zone: &TimeZone) -> Timestamp {
        self.0
            .to_datetime(time)
            .to_zoned(zone.clone())
            .map_or(Timestamp::MAX, |at| at.timestamp())
    }

    /// The first instant after this day: when the limit starts anew.
    pub fn end(self, zone: &TimeZone) -> Timestamp {
        self.next(zone).start(zone)
    }
}

impl std::fmt::Display for LocalDay {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

/// The present, to the millisecond that the database keeps. Called at the edge only.
pub fn to_millisecond(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

/// Adds a duration and stays within what a timestamp can hold.
pub fn after(at: Timestamp, wait: SignedDuration) -> Timestamp {
    at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// Zones that skip or repeat hours, midnights (Cairo, Santiago), half hours (Lord Howe) and a day (Apia).
#[cfg(test)]
pub const ODD_ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Santiago",
    "Pacific/Apia",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_is_the_local_one() {
        let late = at("2026-11-20T23:30:00Z");

        assert_eq!(LocalDay::of(late, &TimeZone::UTC).to_string(), "2026-11-20");
        assert_eq!(LocalDay::of(late, &zone("Europe/Berlin")).to_string(), "2026-11-21");
        assert_eq!(LocalDay::of(late, &zone("America/New_York")).to_string(), "2026-11-20");
    }

    #[test]
    fn a_day_in_autumn_has_25_hours_and_one_in_spring_23() {
        let hours = |name: &str, day: &str| {
            let (zone, day) = (zone(name), LocalDay::parse(day).unwrap());
            day.end(&zone).duration_since(day.start(&zone)).as_mins() as f64 / 60.0
        };

        assert_eq!(hours("Europe/Berlin", "2026-10-25"), 25.0);
        assert_eq!(hours("Europe/Berlin", "2027-03-28"), 23.0);
        assert_eq!(hours("Australia/Lord_Howe", "2026-10-04"), 23.5);
        assert_eq!(hours("Pacific/Apia", "2011-12-29"), 24.0);
    }

    #[test]
    fn a_day_without_midnight_starts_at_its_first_instant() {
        let cairo = zone("Africa/Cairo");
        let day = LocalDay::parse("2026-04-24").unwrap();

        assert_eq!(day.start(&cairo).to_zoned(cairo.clone()).time().to_string(), "01:00:00");
        assert_eq!(LocalDay::of(day.start(&cairo), &cairo), day);
    }

    #[test]
    fn days_follow_each_other_without_gap_or_overlap_for_ten_years() {
        for name in ODD_ZONES {
            let zone = zone(name);
            let mut day = LocalDay::parse("2008-01-01").unwrap();
            for _ in 0..3_700 {
                let (end, next) = (day.end(&zone), day.next(&zone));
                let last = after(end, SignedDuration::from_millis(-1));

                assert_eq!(LocalDay::of(last, &zone), day, "{name}");
                assert_eq!(LocalDay::of(end, &zone), next, "{name}");
                assert_eq!(next.previous(&zone), day, "{name}");
                day = next;
            }
        }
    }

    #[test]
    fn a_day_that_never_was_is_skipped() {
        let before = LocalDay::parse("2011-12-29").unwrap();

        assert_eq!(before.next(&zone("Pacific/Apia")).to_string(), "2011-12-31");
    }
}
