//! Endpoints that hear of lifecycle events: how an event is posted to one. A signed webhook (`http`); kinds that are data
//! (`kind`, `kinds/`), with the words in which people are told of an event (`words`); those of a note on a ticket (`note`).
//! Knows nothing of the database: which events an endpoint has heard of, and when one is tried again, is the worker's business
//! (see `worker::webhooks`).

mod addresses;
pub mod client;
mod http;
mod kind;
mod kind_settings;
mod note;
mod posted;
mod samples;
mod secret;
mod settings;
mod words;

pub use kind::open;
pub use kind_settings::Destination;
pub use note::note;
pub use posted::{Post, Posted};
pub use secret::Secret;
pub use settings::{Filter, Settings, TICKETS, wanted};
pub use words::Telling;

use crate::domain::lifecycle::LifecycleEvent;
use http::HttpTarget;
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// All that are configured, by name.
pub type Endpoints = BTreeMap<String, Arc<Endpoint>>;

/// How much longer than its own limit a post may take before it is cut off.
const GRACE: Duration = Duration::from_secs(1);

/// Where an endpoint's events go.
pub enum Target {
    /// A signed webhook.
    Http(HttpTarget),
    /// Every other kind.
    Other(Post),
}

/// An endpoint, ready to be posted to.
pub struct Endpoint {
    pub settings: Settings,
    target: Target,
}

impl Endpoint {
    /// Opens a signed webhook.
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
