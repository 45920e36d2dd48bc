//! Alarms: what people must hear of at once, and what to do about it. Absent: raising them (`store::alarms`).

use super::words::words;
use jiff::Timestamp;

words! {
    /// What an alarm says.
    AlarmKind {
        /// Nobody is being told of an alert.
        NobodyTold = "nobody_told",
        /// The provider does not accept our account; all sends are held.
        CredentialsRefused = "credentials_refused",
        /// Nobody knows whether a message was sent.
        Unconfirmed = "unconfirmed",
        /// The daily limit was reached for the first time today.
        LimitReached = "limit_reached",
        /// Everybody that a source tells has opted out.
        LastRecipientOptedOut = "last_recipient_opted_out",
        /// Our clock and the provider's differ.
        ClockDiffers = "clock_differs",
        /// Our clock went forward by more than an hour at once.
        ClockJumped = "clock_jumped",
    }
}

impl AlarmKind {
    /// The alarm in a few words, for a subject line.
    pub fn title(self) -> &'static str {
        match self {
            Self::NobodyTold => "nobody was told",
            Self::CredentialsRefused => "the provider refuses our account",
            Self::Unconfirmed => "a message may not have been sent",
            Self::LimitReached => "the daily limit is reached",
            Self::LastRecipientOptedOut => "the last recipient opted out",
            Self::ClockDiffers => "this machine's clock is wrong",
            Self::ClockJumped => "this machine's clock jumped forward",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NobodyTold => {
                "Call somebody now, then look at the deliveries of the alert: each says why its person was not told."
            }
            Self::CredentialsRefused => {
                "Check the credentials and the balance of the account. Everything is kept: sends go on by themselves once the account is accepted."
            }
            Self::Unconfirmed => {
                "Call the person, or send it again by POST /v1/deliveries/<id>/resend with {\"force\": true}. Nightbell goes on looking for the message."
            }
            Self::LimitReached => {
                "What comes now waits until a slot is free, at the latest tomorrow. Raise the limit by PUT /v1/limit if these alerts are real."
            }
            Self::LastRecipientOptedOut => {
                "Name somebody else in the helpdesk or in the fallback recipients of the source. Until then its alerts reach nobody."
            }
            Self::ClockDiffers => {
                "Let NTP keep the clock (chrony, systemd-timesyncd; `timedatectl` shows it). Until it is right no list proves that a message is absent: where an answer was lost, a person has to decide."
            }
            Self::ClockJumped => {
                "If the new time is right, or the machine slept, nothing needs to be done. If it is wrong, set it within the hour (NTP): for so long nothing expires and nothing is cleaned up."
            }
        }
    }

    /// The most urgent first.
    pub fn urgency(self) -> u8 {
        match self {
            Self::NobodyTold => 0,
            Self::CredentialsRefused => 1,
            Self::LastRecipientOptedOut => 2,
            Self::Unconfirmed => 3,
            Self::LimitReached => 4,
            Self::ClockDiffers => 5,
            Self::ClockJumped => 6,
        }
    }
}

/// An alarm as its mail tells it.
#[derive(Clone, Debug)]
pub struct Alarm {
    pub id: String,
    pub kind: AlarmKind,
    pub raised_at: Timestamp,
    pub detail: String,
    pub ticket: Option<Ticket>,
    /// Whom it is about, the number masked.
    pub person: Option<String>,
}

/// A ticket as mails name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub source: String,
    pub id: String,
    pub number: Option<String>,
    pub subject: Option<String>,
    pub url: Option<String>,
}

impl Ticket {
    /// The number that people know it by.
    pub fn name(&self) -> String {
        format!("#{}", self.number.as_deref().unwrap_or(&self.id))
    }
}
