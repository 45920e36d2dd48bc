//! What a carrier is: the questions that every one answers, and what it is given. A carrier stands in a file of its own,
//! translates its own words at its edge and knows nothing of the database: callers record what it returns. Absent: which
//! carriers there are (see the registry in `carrier`), when to send, and what an answer does to a delivery.

use crate::{
    config::Reader,
    domain::{
        answer::{Answer, ProbeAnswer, Reachability},
        clock::Stamp,
        phone::PhoneNumber,
        report::Explanation,
        route::{Channel, ProviderName, Route},
        search::{Listed, Listing},
    },
};
use jiff::Timestamp;
use std::{fmt, sync::Arc, time::Duration};
use url::Url;

/// Who a message is for, as the channel addresses people. Later: a mail address, a WhatsApp account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address<'a> {
    Phone(&'a PhoneNumber),
}

impl fmt::Display for Address<'_> {
    /// Masked, as people are in every log.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phone(phone) => phone.fmt(out),
        }
    }
}

/// One message to be carried.
pub struct Outgoing<'a> {
    pub delivery_id: &'a str,
    pub attempt: i64,
    pub to: Address<'a>,
    pub text: &'a str,
}

/// What a carrier can do, as far as it is asked for today. To come with what asks for it: whether status callbacks arrive
/// (a carrier without them is asked sooner), free text or templates only, and answer keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Lists all messages to a recipient, so that a message whose answer was lost can be found, or proven absent.
    pub searches_lists: bool,
    /// Reports one message by its id, so that one without a status for long can be asked about.
    pub looks_up_by_id: bool,
}

/// What an absent setting is measured by.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// Whether a channel has this carrier: then what it cannot do without is a fault if it is not set.
    pub is_chosen: bool,
    /// Where the outside reaches this service.
    pub public_url: Option<&'a Url>,
}

/// One carrier's code. What has a default is what a carrier may not be able to do.
pub trait Driver: Sized {
    const CHANNEL: Channel;
    const PROVIDER: ProviderName;
    const CAPABILITIES: Capabilities;
    /// What its own section of the configuration says.
    type Settings;

    /// Reads its own section, whether or not it is chosen.
    fn read(reader: &mut Reader, reading: Reading<'_>) -> Self::Settings;

    /// Prepares the carrier; connects to nothing yet. `timeout` is the most that one call may take.
    fn open(settings: &Self::Settings, timeout: Duration) -> anyhow::Result<Self>;

    /// How its messages go.
    fn route(&self) -> &Arc<Route>;

    /// Calls the provider once. Never retries, and never takes longer than the time-out.
    async fn send(&self, message: &Outgoing<'_>) -> Answer;

    /// Every message to a recipient that the provider has, or only those since `since`. `None` if the list is not complete
    /// or cannot be read: then it says nothing.
    async fn search(&self, _to: Address<'_>, _since: Option<Timestamp>) -> Option<Listing> {
        None
    }

    /// One message by its id; `None` if it cannot be read now.
    async fn look_up(&self, _message_id: &str) -> Option<Listed> {
        None
    }

    /// Whether the provider accepts our account now. Costs one cheap request at most and sends nothing.
    async fn probe(&self) -> ProbeAnswer {
        ProbeAnswer::Accepted
    }

    /// What the provider's clock read in its latest reply; `None` if it has none or says nothing.
    fn clock(&self) -> Option<Stamp> {
        None
    }

    /// Whether calls of any kind brought an answer since this was last asked; `None` if there were none.
    fn take_reachability(&self) -> Option<Reachability> {
        None
    }

    /// What a code of the provider means and what to do about it.
    fn explain(_code: i64) -> Option<Explanation> {
        None
    }
}
