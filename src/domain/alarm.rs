//! Alarms: what people must know at once, and what to do about it. Absent: raising them (`store::alarms`).

use super::words::words;
use jiff::Timestamp;

words! {
    /// What an alarm says.
    AlarmKind {
        /// Nobody is being told of an alert.
        NobodyTold = "nobody_told",
        /// The provider does not accept our credentials; all sends are held.
        CredentialsRefused = "credentials_refused",
        /// The provider does not accept who our messages are from; all sends are held.
        SenderRefused = "sender_refused",
        /// The account may not send; all sends are held.
        AccountRefused = "account_refused",
        /// The provider does not accept how we are configured; all sends are held.
        SettingsRefused = "settings_refused",
        /// No call to the provider has brought an answer for a while.
        ProviderUnreachable = "provider_unreachable",
        /// The provider answers again.
        ProviderReachable = "provider_reachable",
        /// Nobody knows whether a message was sent.
        Unconfirmed = "unconfirmed",
        /// The daily limit was reached for the first time today.
        LimitReached = "limit_reached",
        /// Everybody that a source names has opted out.
        LastRecipientOptedOut = "last_recipient_opted_out",
        /// Our clock and the provider's differ.
        ClockDiffers = "clock_differs",
        /// Our clock went forward by more than an hour at once.
        ClockJumped = "clock_jumped",
        /// An endpoint gets no more lifecycle events.
        WebhookDisabled = "webhook_disabled",
    }
}

impl AlarmKind {
    /// The alarm in a few words, for a subject line.
    pub fn title(self) -> &'static str {
        match self {
            Self::NobodyTold => "nobody was told",
            Self::CredentialsRefused => "the provider refuses our credentials",
            Self::SenderRefused => "the provider refuses our sender",
            Self::AccountRefused => "the provider refuses our account",
            Self::SettingsRefused => "the provider refuses our settings",
            Self::ProviderUnreachable => "the provider cannot be reached",
            Self::ProviderReachable => "the provider can be reached again",
            Self::Unconfirmed => "a message may not have been sent",
            Self::LimitReached => "the daily limit is reached",
            Self::LastRecipientOptedOut => "the last recipient opted out",
            Self::ClockDiffers => "this machine's clock is wrong",
            Self::ClockJumped => "this machine's clock jumped forward",
            Self::WebhookDisabled => "an endpoint gets no more events",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NobodyTold => {
                "Call somebody now, then look at the deliveries of the alert: each says why its person was not told."
            }
            Self::CredentialsRefused => {
                "Check the account and what it signs in with. Everything is kept: sends go on by themselves once the account is accepted, and at once after a restart with other credentials."
            }
            Self::SenderRefused => {
                "Check the sender, and in the console of the provider that it belongs to this account. Everything is kept: a delivery is tried every 3 minutes, and at once after a restart with another sender; all go on when one is accepted."
            }
            Self::AccountRefused => {
                "Check the account, and in the console of the provider its balance, its limits and its state. Everything is kept: a delivery is tried every 3 minutes; all go on when one is accepted."
            }
            Self::SettingsRefused => {
                "Check the settings that the provider refuses, and restart. Everything is kept: a delivery is tried every 3 minutes; all go on when one is accepted."
            }
            Self::ProviderUnreachable => {
                "Check that this machine reaches the provider: its name server, its firewall, its proxy, and the provider's status page. Everything is kept and tried again; tell people of urgent tickets in another way meanwhile."
            }
            Self::ProviderReachable => "Nothing: what waited is being sent.",
            Self::Unconfirmed => {
                "Call the person, or send it again by POST /v1/deliveries/<id>/resend with {\"force\": true}. Nightbell goes on searching for the message."
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
            Self::WebhookDisabled => {
                "Mend the endpoint, look whether it answers (`nightbell webhook test NAME`), and enable it (`nightbell webhook enable NAME`): it goes on where it stopped, as far as events are kept (`retention.event_days`). Texts are not affected."
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
            Self::CredentialsRefused | Self::SenderRefused | Self::AccountRefused | Self::SettingsRefused => 1,
            Self::ProviderUnreachable => 2,
            Self::LastRecipientOptedOut => 3,
            Self::Unconfirmed => 4,
            Self::LimitReached => 5,
            Self::ClockDiffers => 6,
            Self::ClockJumped => 7,
            Self::WebhookDisabled => 8,
            Self::ProviderReachable => 9,
        }
    }
}

/// An alarm as its mail shows it.
#[derive(Clone, Debug)]
pub struct Alarm {
    pub id: String,
    pub kind: AlarmKind,
    pub raised_at: Timestamp,
    pub detail: String,
    pub ticket: Option<TicketRef>,
    /// Whom it is about, the number masked.
    pub person: Option<String>,
}

/// A ticket as mails name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketRef {
    pub source: String,
    pub id: String,
    pub number: Option<String>,
    pub subject: Option<String>,
    pub url: Option<String>,
}

impl TicketRef {
    /// The number that people know it by.
    pub fn name(&self) -> String {
        format!("#{}", self.number.as_deref().unwrap_or(&self.id))
    }
}
