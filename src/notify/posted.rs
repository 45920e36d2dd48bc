//! What comes of posting one event.

use std::time::Duration;

/// What came of posting one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    Taken {
        status: Option<u16>,
    },
    /// Not now.
    Failed {
        status: Option<u16>,
        /// In plain words, without anything secret of its address.
        why: String,
        /// How long the endpoint wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Nothing to post of this event.
    #[allow(dead_code, reason = "webhooks post every event; notifiers may not")]
    Skipped,
}

impl Posted {
    /// Failed without an answer.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed {
            status: None,
            why: why.into(),
            retry_after: None,
        }
    }
}
