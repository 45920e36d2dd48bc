//! The nightly failure report: what it counts, and what each bad outcome means to a person who has to do something
//! about it. Absent: reading it from the database (`store::reports`) and how it looks (`mail::render`).

use super::{
    alarm::TicketRef,
    day::LocalDay,
    delivery::{Reason, State},
    nightly::Span,
};
use jiff::Timestamp;
use std::collections::HashSet;

/// The trend shows this many days.
pub const TREND_DAYS: usize = 14;
/// More rows than this are in nobody's interest; the report says how many there are.
pub const MAX_ROWS: usize = 20_000;

/// What one report shows.
#[derive(Clone, Debug)]
pub struct Report {
    pub days: Span,
    /// Whether the day is not over yet.
    pub so_far: bool,
    /// The deliveries received on these days, by where they stand now.
    pub totals: Vec<(State, i64)>,
    /// Bad outcomes that no earlier report listed, at most [`MAX_ROWS`].
    pub rows: Vec<BadOutcome>,
    /// How many there are in all.
    pub row_count: i64,
    /// Deliveries that wait for a slot of the daily limit now.
    pub deferred: i64,
    /// Slots of the limit that were taken on these days, and the limit of one day.
    pub used: i64,
    pub limit: i64,
    pub opt_outs_gained: i64,
    /// Opt-outs that a person should compare with the helpdesk, listed by no earlier report; at most [`MAX_ROWS`].
    pub doubtful_opt_outs: Vec<DoubtfulOptOut>,
    /// How many there are in all.
    pub doubtful_opt_out_count: i64,
    /// The newest [`TREND_DAYS`] days, oldest first.
    pub trend: Vec<TrendDay>,
}

impl Report {
    /// How many deliveries these days had.
    pub fn deliveries(&self) -> i64 {
        self.totals.iter().map(|(_, count)| count).sum()
    }

    /// The subject line: the day and what is bad about it.
    pub fn subject(&self) -> String {
        let mut bad: Vec<String> = State::ALL
            .iter()
            .rev()
            .filter(|state| state.is_bad())
            .filter_map(|state| {
                let count = self.rows.iter().filter(|row| row.state == *state).count();
                (count > 0).then(|| format!("{count} {state}"))
            })
            .collect();
        let hidden = self.row_count - i64::try_from(self.rows.len()).unwrap_or(i64::MAX);
        if hidden > 0 {
            bad.push(format!("{hidden} more"));
        }
        let untold = self.untold_tickets();
        if untold > 0 {
            bad.push(format!("nobody told of {untold} ticket{}", plural(untold)));
        }
        let doubtful = usize::try_from(self.doubtful_opt_out_count).unwrap_or(usize::MAX);
        if doubtful > 0 {
            bad.push(format!("{doubtful} opt-out{} to check", plural(doubtful)));
        }
        let of_delivered = self.totals.iter().filter(|(state, _)| *state == State::Delivered);
        let delivered: i64 = of_delivered.map(|(_, count)| count).sum();
        let days = self.days_text();
        if bad.is_empty() && self.deliveries() == 0 {
            format!("Nightbell {days}: a quiet day")
        } else if bad.is_empty() {
            format!("Nightbell {days}: {delivered} of {} delivered", self.deliveries())
        } else {
            format!("Nightbell {days}: {}; {delivered} delivered", bad.join(", "))
        }
    }

    /// Whether a person has something to do after reading it.
    pub fn asks_for_attention(&self) -> bool {
        self.row_count > 0 || self.doubtful_opt_out_count > 0
    }

    /// How many tickets nobody was told of.
    pub fn untold_tickets(&self) -> usize {
        let untold = self.rows.iter().filter(|row| row.nobody_told);
        let alerts: HashSet<&str> = untold.filter_map(|row| row.alert_id.as_deref()).collect();
        alerts.len()
    }

    /// The days in words.
    pub fn days_text(&self) -> String {
        if self.days.first == self.days.last {
            let so_far = if self.so_far { " so far" } else { "" };
            format!("{}{so_far}", self.days.last)
        } else {
            format!("{} to {}", self.days.first, self.days.last)
        }
    }
}

/// The plural's ending.
pub fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// One bad outcome.
#[derive(Clone, Debug)]
pub struct BadOutcome {
    pub delivery_id: String,
    /// `None`, and no ticket, of a message that no alert is the cause of.
    pub alert_id: Option<String>,
    pub ticket: Option<TicketRef>,
    pub person: Option<String>,
    pub role: Option<String>,
    /// Masked.
    pub phone: Option<String>,
    pub state: State,
    pub reason: Option<Reason>,
    pub provider: Option<String>,
    pub code: Option<i64>,
    pub at: Timestamp,
    /// Whether nobody else was told of the ticket either.
    pub nobody_told: bool,
    /// What it means and what to do.
    pub explanation: Explanation,
}

/// An opt-out of which only the number is known and not the text that it was read from: an earlier version may have taken
/// it for another number.
#[derive(Clone, Debug)]
pub struct DoubtfulOptOut {
    /// Masked.
    pub phone: String,
    pub staff_id: Option<String>,
    pub reason: Option<String>,
    pub since: Timestamp,
}

impl DoubtfulOptOut {
    /// What each of them means, and what to do about it.
    pub fn explanation() -> Explanation {
        Explanation::new(
            "An earlier version stored this number without the text it was read from, and it could misread numbers \
             from abroad: then somebody else is never texted, and the person who opted out still is.",
            "Compare it with the helpdesk: `GET /v1/opt-outs` shows the whole number. Delete a wrong one and add the \
             right one; one that is right needs nothing.",
        )
    }
}

/// What an outcome means, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub meaning: String,
    pub advice: String,
}

impl Explanation {
    pub fn new(meaning: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            meaning: meaning.into(),
            advice: advice.into(),
        }
    }

    /// What we know without the provider's code.
    pub fn of(state: State, reason: Option<Reason>) -> Self {
        let (meaning, advice) = match (state, reason) {
            (_, Some(Reason::InvalidNumber)) => (
                "The number in the helpdesk cannot be texted.",
                "Write it there with `+` and country code, without an extension; others need `region` or `sms.default_region`.",
            ),
            (_, Some(Reason::NoNumber)) => (
                "The helpdesk named this person without a number.",
                "Add a mobile number to the person's profile in the helpdesk, or the person to the staff directory (`/admin/staff`).",
            ),
            (_, Some(Reason::OptedOut)) => (
                "This person opted out of texts.",
                "Tell them by another way, or ask them to answer START.",
            ),
            (_, Some(Reason::InternalError)) => (
                "Nightbell could not handle this delivery and set it aside.",
                "Look for its id in the log, then send it again.",
            ),
            (_, Some(Reason::NotFound)) => (
                "The provider does not know the message any more.",
                "Ask the person; send it again if it did not arrive.",
            ),
            (State::Unconfirmed, _) => (
                "Nobody can tell whether the message was sent.",
                "Ask the person; send it again with force if it did not arrive.",
            ),
            (State::Expired, _) => (
                "It waited too long to be of use.",
                "Look at what held it up: the daily limit, the credentials, or the provider.",
            ),
            (State::Undelivered, _) => (
                "The carrier did not deliver it and gave no code.",
                "Call the person; check that the number is a mobile phone.",
            ),
            (_, Some(Reason::Refused)) => (
                "The provider refused the message.",
                "Look at the delivery's timeline and at the provider's console.",
            ),
            (
                State::Pending
                | State::Deferred
                | State::Sending
                | State::Unknown
                | State::Accepted
                | State::Sent
                | State::Delivered
                | State::Failed
                | State::Suppressed
                | State::Canceled,
                _,
            ) => (
                "The provider could not send it and gave no code.",
                "Call the person; look at the message in the provider's console.",
            ),
        };
        Self::new(meaning, advice)
    }
}

/// One day of the trend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrendDay {
    pub day: LocalDay,
    pub deliveries: i64,
    pub bad: i64,
}
