//! Endpoints that hear of lifecycle events: how an event is posted to one. Knows nothing of the database: which events an
//! endpoint has heard of, and when one is tried again, is the worker's business (see `worker::webhooks`).

mod addresses;
pub mod client;
mod http;
mod secret;
mod settings;

pub use secret::Secret;
pub use settings::{Filter, Settings, wanted};

use crate::domain::lifecycle::LifecycleEvent;
use futures::future::BoxFuture;
use http::HttpTarget;
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// All that are configured, by name.
pub type Endpoints = BTreeMap<String, Arc<Endpoint>>;

/// Posts an event in a way of its own.
pub type Post = Arc<dyn Fn(LifecycleEvent) -> BoxFuture<'static, Posted> + Send + Sync>;

/// How much longer than its own limit a post may take before it is cut off.
const GRACE: Duration = Duration::from_secs(1);

/// Where an endpoint's events go.
pub enum Target {
    /// A signed webhook.
    Http(HttpTarget),
    /// Every other kind.
    #[allow(dead_code, reason = "the seam for the kinds of notifiers")]
    Other(Post),
}

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

/// An endpoint, ready to be posted to.
pub struct Endpoint {
    pub settings: Settings,
    target: Target,
}

impl Endpoint {
    /// Opens one that posts by itself.
    pub fn open(settings: &Settings) -> Result<Self, String> {
        let target = Target::Http(HttpTarget::open(settings)?);
        Ok(Self::with(settings, target))
    }

    pub fn with(settings: &Settings, target: Target) -> Self {
        Self {
            settings: settings.clone(),
            target,
        }
    }

    /// Posts an event; `now` is signed with it.
    pub async fn post(&self, event: &LifecycleEvent, now: Timestamp) -> Posted {
        let limit = self.settings.timeout + GRACE;
        let posting = async {
            match &self.target {
                Target::Http(http) => http.post(event, now).await,
                Target::Other(post) => post(event.clone()).await,
            }
        };
        let posted = tokio::time::timeout(limit, posting).await;
        posted.unwrap_or_else(|_| Posted::failed(format!("no answer within {} s", self.settings.timeout.as_secs())))
    }
}
