//! What commands read of the admin API's answers. Members that are not shown are not here, and new ones do no harm.

use crate::domain::{
    delivery::{Reason, State},
    report::Explanation,
    route::ProviderName,
    timeline::state_in_words,
};
use jiff::Timestamp;
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Alert {
    pub id: String,
    pub source: String,
    pub ticket_id: String,
    pub ticket_number: Option<String>,
    pub subject: Option<String>,
    pub received_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub acknowledged_at: Option<Timestamp>,
    pub acknowledged_by: Option<String>,
    pub acknowledged_via: Option<String>,
    /// When it was taken over from the system before.
    pub imported_at: Option<Timestamp>,
    pub deliveries: Vec<Delivery>,
}

#[derive(Deserialize)]
pub struct Delivery {
    pub id: String,
    pub recipient: Recipient,
    /// Masked, unless it was asked for in full.
    pub phone: Option<String>,
    pub state: String,
    pub reason: Option<String>,
    pub attempts: i64,
    pub provider: Option<String>,
    pub error_code: Option<i64>,
    /// In single views only; empty once the clean-up took it out.
    pub message: Option<String>,
    pub due_at: Option<Timestamp>,
    pub created_at: Timestamp,
    #[serde(default)]
    pub timeline: Vec<Entry>,
}

#[derive(Deserialize)]
pub struct Recipient {
    pub role: Option<String>,
    pub name: Option<String>,
}

#[derive(Deserialize)]
pub struct Entry {
    pub at: Timestamp,
    pub text: String,
}

/// A message that somebody sent us.
#[derive(Deserialize)]
pub struct Inbound {
    /// Masked, unless it was asked for in full.
    pub from: Option<String>,
    pub text: Option<String>,
    pub kind: String,
    pub outcome: String,
    pub received_at: Timestamp,
}

#[derive(Deserialize)]
pub struct OptOut {
    pub phone: String,
    pub staff_id: Option<String>,
    pub reason: Option<String>,
    pub opted_out_at: Timestamp,
}

#[derive(Deserialize)]
pub struct StaffMember {
    pub source: String,
    pub staff_id: String,
    pub name: Option<String>,
    /// Masked, unless it was asked for in full.
    pub phone: String,
    pub email: Option<String>,
    pub login: Option<String>,
    pub manages: Vec<String>,
}

#[derive(Deserialize)]
pub struct DailyLimit {
    pub day: String,
    pub time_zone: String,
    pub limit: i64,
    pub used: i64,
    pub deferred: i64,
}

#[derive(Deserialize)]
pub struct Sources {
    pub items: Vec<SourceStatus>,
}

#[derive(Deserialize)]
pub struct SourceStatus {
    pub name: String,
    pub kind: String,
    pub signed: bool,
    pub webhook: bool,
    pub poll: Option<PollStatus>,
    pub unknown_urgencies: Vec<UnknownUrgency>,
}

#[derive(Deserialize)]
pub struct PollStatus {
    pub polled_at: Option<Timestamp>,
    pub failing_since: Option<Timestamp>,
    pub last_error: Option<String>,
    pub seen: i64,
    pub missed: i64,
}

#[derive(Deserialize)]
pub struct UnknownUrgency {
    pub word: String,
}

impl SourceStatus {
    /// Whether it says by itself what happens, and what that missed.
    pub fn webhook_in_words(&self) -> String {
        let how = match (self.signed, self.webhook) {
            (true, _) => "signed",
            (false, true) => "with its token",
            (false, false) => "with any intake token",
        };
        match &self.poll {
            Some(poll) if poll.missed > 0 => format!("{how}; missed {} of {}", poll.missed, poll.seen),
            Some(_) | None => how.to_owned(),
        }
    }

    /// Whether it answers.
    pub fn poll_in_words(&self) -> String {
        let Some(poll) = &self.poll else {
            return "-".to_owned();
        };
        match (poll.failing_since, poll.polled_at) {
            (Some(since), _) => format!(
                "failing since {since}: {}",
                poll.last_error.as_deref().unwrap_or("unknown")
            ),
            (None, Some(at)) => format!("ok at {at}"),
            (None, None) => "not yet".to_owned(),
        }
    }
}

impl Delivery {
    /// The state, if it is one that this version knows.
    pub fn state(&self) -> Option<State> {
        State::parse(&self.state)
    }

    /// Whether it was only written to the log, for testing.
    pub fn is_test(&self) -> bool {
        self.provider.as_deref().and_then(ProviderName::parse) == Some(ProviderName::Log)
    }

    /// The state in words.
    pub fn state_in_words(&self) -> &str {
        if self.is_test() && self.state() == Some(State::Delivered) {
            return "written to the log only (test mode)";
        }
        self.state().map_or(&self.state, |state| state_in_words(state))
    }

    /// The state with the reason and the code, as they are written in the API.
    pub fn state_with_reason(&self) -> String {
        let code = self.error_code.map(|code| format!("code {code}"));
        let why: Vec<String> = self.reason.clone().into_iter().chain(code).collect();
        if why.is_empty() {
            self.state.clone()
        } else {
            format!("{} ({})", self.state, why.join(", "))
        }
    }

    /// What a bad end means and what to do about it.
    pub fn explanation(&self) -> Option<Explanation> {
        let state = self.state().filter(|state| state.is_bad())?;
        let by_code = crate::carrier::explain(self.provider.as_deref(), state, self.error_code);
        let reason = self.reason.as_deref().and_then(Reason::parse);
        Some(by_code.unwrap_or_else(|| Explanation::of(state, reason)))
    }

    /// Who it is for: the name and the role, as far as they are known, and the number.
    pub fn person(&self) -> String {
        let phone = self.phone.as_deref().unwrap_or("no number");
        let (name, role) = (self.recipient.name.as_deref(), self.recipient.role.as_deref());
        match (name, role) {
            (Some(name), Some(role)) => format!("{name} ({role}), {phone}"),
            (Some(one), None) | (None, Some(one)) => format!("{one}, {phone}"),
            (None, None) => phone.to_owned(),
        }
    }
}

impl DailyLimit {
    /// In one sentence.
    pub fn in_words(&self) -> String {
        let Self {
            day,
            time_zone,
            limit,
            used,
            deferred,
        } = self;
        let waiting = match deferred {
            0 => "nothing waits for a slot".to_owned(),
            1 => "1 delivery waits for a slot".to_owned(),
            count => format!("{count} deliveries wait for a slot"),
        };
        format!("{used} of {limit} messages used on {day} ({time_zone}); {waiting}")
    }
}
