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
    /// Failed without an answer.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed {
            status: None,
            why: why.into(),
            retry_after: None,
        }
    }
}
