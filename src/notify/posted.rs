//! What comes of posting one event, and what posts it. In a file of its own, which imports none of the others.

use crate::domain::lifecycle::LifecycleEvent;
use futures::future::BoxFuture;
use std::{sync::Arc, time::Duration};

/// Posts an event in a way of its own.
pub type Post = Arc<dyn Fn(LifecycleEvent) -> BoxFuture<'static, Posted> + Send + Sync>;

/// What came of posting one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    Taken {
        status: Option<u16>,
    },
    /// Not now.
    Failed {
        /// It is this event that is not taken: the endpoint itself works.
        is_of_event: bool,
        status: Option<u16>,
        /// In plain words, without anything secret of its address.
        why: String,
        /// How long the endpoint wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Nothing to post of this event.
    Skipped,
}

impl Posted {
    /// Failed with this answer. What it says of the endpoint itself is told by its status; everything else is said of the event.
    pub fn answered(status: u16, why: String, retry_after: Option<Duration>) -> Self {
        Self::Failed {
            is_of_event: !matches!(status, 200..=399 | 401 | 403 | 407 | 408 | 410 | 429 | 500..),
            status: Some(status),
            why,
            retry_after,
        }
    }

    /// Failed without an answer.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed {
            is_of_event: false,
            status: None,
            why: why.into(),
            retry_after: None,
        }
    }
}
