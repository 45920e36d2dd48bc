//! Who carries messages: the registry of carriers, which of them each channel has, and one type for all. What a carrier
//! does stands in its own file. Absent: the database, when to send, and what an answer does to a delivery.
//!
//! A new carrier is a file that implements [`Driver`], a `mod` line and a line of the registry here, a word in
//! `domain::route` for its provider (and its channel, if that is new), and `<channel>.driver` in the configuration.

mod driver;
mod log;
pub mod twilio;

pub use driver::{Address, Capabilities, Outgoing};

use crate::{
    config::{self, Reader},
    domain::{
        answer::{Answer, ProbeAnswer, Reachability},
        clock::Stamp,
        delivery::State,
        report::Explanation,
        route::{Channel, ChannelRules, ProviderName, Route},
        search::{Listed, Listing},
    },
};
use driver::{Driver, Reading};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use url::Url;

/// Makes, of one line a carrier, the type for all of them and the settings of all of them.
macro_rules! carriers {
    ($($section:ident: $name:ident = $driver:ty,)+) => {
        /// A carrier that is ready to send.
        #[allow(clippy::large_enum_variant, reason = "there is one for each channel, behind an `Arc`")]
        pub enum Carrier { $($name($driver)),+ }

        /// What can be asked of a carrier, as [`Driver`] says it.
        impl Carrier {
            /// Opens the carrier that a channel has.
            fn open(chosen: Chosen, sections: &Sections, timeout: Duration) -> anyhow::Result<Self> {
                $(if chosen.is::<$driver>() {
                    return Ok(Self::$name(<$driver>::open(&sections.$section, timeout)?));
                })+
                anyhow::bail!("`{}.driver` names no carrier of this version", chosen.channel)
            }

            pub fn route(&self) -> &Arc<Route> {
                match self { $(Self::$name(driver) => driver.route()),+ }
            }

            pub fn capabilities(&self) -> Capabilities {
                match self { $(Self::$name(_) => <$driver>::CAPABILITIES),+ }
            }

            pub async fn send(&self, message: &Outgoing<'_>) -> Answer {
                match self { $(Self::$name(driver) => driver.send(message).await),+ }
            }

            pub async fn search(&self, to: Address<'_>, since: Option<Timestamp>) -> Option<Listing> {
                match self { $(Self::$name(driver) => driver.search(to, since).await),+ }
            }

            pub async fn look_up(&self, message_id: &str) -> Option<Listed> {
                match self { $(Self::$name(driver) => driver.look_up(message_id).await),+ }
            }

            pub async fn probe(&self) -> ProbeAnswer {
                match self { $(Self::$name(driver) => driver.probe().await),+ }
            }

            pub fn clock(&self) -> Option<Stamp> {
                match self { $(Self::$name(driver) => driver.clock()),+ }
            }

            pub fn take_reachability(&self) -> Option<Reachability> {
                match self { $(Self::$name(driver) => driver.take_reachability()),+ }
            }
        }

        /// What the sections of all carriers say, chosen or not.
        pub struct Sections { $(pub $section: <$driver as Driver>::Settings),+ }

        impl Sections {
            fn read(reader: &mut Reader, chosen: &[Chosen], public_url: Option<&Url>) -> Self {
                Self {
                    $($section: {
                        let is_chosen = chosen.iter().any(|chosen| chosen.is::<$driver>());
                        <$driver>::read(reader, Reading { is_chosen, public_url })
                    }),+
                }
            }
        }

        /// Every carrier, by its channel and its provider's word.
        const ALL: &[Chosen] = &[$(Chosen { channel: <$driver>::CHANNEL, provider: <$driver>::PROVIDER }),+];

        fn explain_code(provider: ProviderName, code: i64) -> Option<Explanation> {
            // In the demo the log plays a provider: a code is that of whoever knows it.
            let is_played = provider == ProviderName::Log;
            $(if (is_played || provider == <$driver>::PROVIDER)
                && let Some(explanation) = <$driver>::explain(code)
            {
                return Some(explanation);
            })+
            None
        }
    };
}

carriers! {
    log: Log = log::Log,
    twilio: TwilioMessages = twilio::Messages,
}

/// What a provider's code means and what to do about it; `None` where the outcome is not of its making.
pub fn explain(provider: Option<&str>, state: State, code: Option<i64>) -> Option<Explanation> {
    if !matches!(state, State::Failed | State::Undelivered) {
        return None;
    }
    explain_code(ProviderName::parse(provider?)?, code?)
}

/// Which carrier a channel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    channel: Channel,
    provider: ProviderName,
}

impl Chosen {
    fn is<D: Driver>(self) -> bool {
        self.channel == D::CHANNEL && self.provider == D::PROVIDER
    }

    /// Reads which carrier each channel has: `<channel>.driver`. Without it SMS go to the log, and nothing else goes.
    pub fn read(reader: &mut Reader) -> Vec<Self> {
        let read = |channel: &Channel| {
            let key = format!("{channel}.driver");
            let choices: Vec<(&str, Self)> = ALL
                .iter()
                .filter(|carrier| carrier.channel == *channel)
                .map(|carrier| (carrier.provider.as_str(), *carrier))
                .collect();
            if *channel == Channel::Sms {
                Some(reader.choice(&key, ProviderName::Log.as_str(), &choices))
            } else {
                reader.optional_choice(&key, &choices)
            }
        };
        Channel::ALL.iter().filter_map(read).collect()
    }
}

/// What the configuration says of carriers.
pub struct Settings {
    /// The channels that have a carrier, and what each sends by.
    channels: Vec<(Chosen, ChannelRules)>,
    /// The section of each carrier, chosen or not.
    pub sections: Sections,
}

impl Settings {
    /// Reads `<channel>.…` of the channels that have a carrier, then every carrier's own section.
    pub fn read(reader: &mut Reader, chosen: &[Chosen], public_url: Option<&Url>) -> Self {
        let rules = |chosen: &Chosen| (*chosen, config::read_channel(reader, chosen.channel.as_str()));
        Self {
            channels: chosen.iter().map(rules).collect(),
            sections: Sections::read(reader, chosen, public_url),
        }
    }

    /// What a channel sends by, if it has a carrier.
    pub fn rules(&self, channel: Channel) -> Option<&ChannelRules> {
        self.channels().find(|(own, _)| *own == channel).map(|(_, rules)| rules)
    }

    /// The channels that have a carrier, and what each sends by.
    pub fn channels(&self) -> impl Iterator<Item = (Channel, &ChannelRules)> {
        self.channels.iter().map(|(chosen, rules)| (chosen.channel, rules))
    }
}

/// The carrier of each channel. One can be put in the place of another while the service runs: who holds the one before
/// goes on with it, because an attempt belongs to the account that it was begun for, and asks here for the next.
pub struct Carriers(RwLock<HashMap<Channel, Arc<Carrier>>>);

impl Carriers {
    /// Prepares the carriers that the configuration names; connects to nothing yet.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let carriers = Self(RwLock::default());
        for (chosen, rules) in &settings.channels {
            let timeout = rules.timeout.unsigned_abs();
            carriers.put(Carrier::open(*chosen, &settings.sections, timeout)?);
        }
        Ok(carriers)
    }

    /// Lets a channel have this carrier from now on.
    fn put(&self, carrier: Carrier) {
        let mut carriers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        carriers.insert(carrier.route().channel, Arc::new(carrier));
    }

    /// Lets SMS go to the log, which only takes them: the caller plays the provider that reports what becomes of them.
    pub fn put_log_that_accepts(&self) {
        self.put(Carrier::Log(log::Log::accepting()));
    }

    /// What carries the messages of SMS in test mode.
    pub fn to_log() -> Arc<Carrier> {
        Arc::new(Carrier::Log(log::Log::new()))
    }

    /// The carrier that a channel has now.
    pub fn of(&self, channel: Channel) -> Option<Arc<Carrier>> {
        let carriers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        carriers.get(&channel).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(environment: &[(&str, &str)]) -> (Settings, Vec<String>) {
        let mut reader = Reader::with(environment);
        let chosen = Chosen::read(&mut reader);
        let settings = Settings::read(&mut reader, &chosen, None);
        (settings, reader.fault_keys())
    }

    #[test]
    fn without_a_setting_sms_go_to_the_log() {
        let (settings, faults) = with(&[]);
        let carrier = Carriers::open(&settings).unwrap().of(Channel::Sms).unwrap();

        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(carrier.route().key(), "sms/log/log/");
    }

    #[test]
    fn a_channel_has_the_carrier_that_its_driver_names() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (settings, faults) = with(&[
            ("SMS__DRIVER", "twilio"),
            ("TWILIO__ACCOUNT_SID", "AC1"),
            ("TWILIO__AUTH_TOKEN", "secret"),
            ("TWILIO__FROM", "+15005550006"),
        ]);
        let carrier = Carriers::open(&settings).unwrap().of(Channel::Sms).unwrap();

        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(carrier.route().key(), "sms/twilio/AC1/+15005550006");
    }

    #[test]
    fn a_carrier_takes_the_place_of_another_and_who_holds_the_one_before_keeps_it() {
        let (settings, _) = with(&[]);
        let carriers = Carriers::open(&settings).unwrap();
        let before = carriers.of(Channel::Sms).unwrap();

        carriers.put(Carrier::Log(log::Log::new()));

        let now = carriers.of(Channel::Sms).unwrap();
        assert!(!Arc::ptr_eq(&before, &now));
        assert_eq!(before.route(), now.route());
    }

    #[test]
    fn a_driver_that_is_not_known_is_named_with_those_that_are() {
        let (_, faults) = with(&[("SMS__DRIVER", "carrier-pigeon")]);

        assert_eq!(faults, ["sms.driver"]);
    }
}
