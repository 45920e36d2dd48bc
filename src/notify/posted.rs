//! What comes of posting an event, and what posts it. In a file of its own, which imports none of the others.

use crate::domain::lifecycle::LifecycleEvent;
use futures::future::BoxFuture;
use std::{sync::Arc, time::Duration};

/// What came of posting one event.
#[derive(Debug, PartialEq, Eq)]
pub enum Posted {
    Taken {
        status: Option<u16>,
    },
    /// Not now.
    Failed {
        status: Option<u16>,
        /// In words that may stand in logs and on pages: no address, no name, no number.
        why: String,
        /// The endpoint wants to be left alone for so long.
        retry_after: Option<Duration>,
    },
    /// Nothing to post of this event.
    Skipped,
}

/// Posts an event in a way of its own.
pub type Other = Arc<dyn Fn(LifecycleEvent) -> BoxFuture<'static, Posted> + Send + Sync>;
