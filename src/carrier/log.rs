//! The test mode: writes the SMS to the log, phone masked, and reports it delivered. Nothing leaves the machine.

use super::driver::{Capabilities, Driver, Outgoing, Reading};
use crate::{
    config::Reader,
    domain::{
        answer::Answer,
        delivery::MessageStatus,
        route::{Channel, ProviderName, Route},
        sms::{self, Size},
    },
};
use std::{sync::Arc, time::Duration};

/// Carries messages to the log.
pub struct Log {
    route: Arc<Route>,
    /// What it says of every message.
    status: MessageStatus,
}

impl Log {
    /// Says that every message arrived at once.
    pub fn new() -> Self {
        Self {
            route: Arc::new(Route::to_log(<Self as Driver>::CHANNEL)),
            status: MessageStatus::Delivered,
        }
    }

    /// Only takes messages: somebody else plays the provider that reports what becomes of them.
    pub fn accepting() -> Self {
        Self {
            status: MessageStatus::Accepted,
            ..Self::new()
        }
    }
}

impl Driver for Log {
    const CHANNEL: Channel = Channel::Sms;
    const PROVIDER: ProviderName = ProviderName::Log;
    const CAPABILITIES: Capabilities = Capabilities {
        searches_lists: false,
        looks_up_by_id: false,
    };
    type Settings = ();

    fn read(_: &mut Reader, _: Reading<'_>) {}

    fn open((): &(), _: Duration) -> anyhow::Result<Self> {
        Ok(Self::new())
    }

    fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Logs the message. The one place where the text of an SMS may appear in the log.
    async fn send(&self, message: &Outgoing<'_>) -> Answer {
        let Size { segments, .. } = sms::measure(message.text);
        tracing::info!(delivery.id = message.delivery_id, attempt = message.attempt, to = %message.to, segments, text = ?message.text, "SMS (test mode, nothing was sent)");
        Answer::Accepted {
            message_id: format!("log-{}-{}", message.delivery_id, message.attempt),
            word: self.status.as_str().to_owned(),
            status: Some(self.status),
        }
    }
}
