//! What the jobs around deliveries work with, and what time it is.

use super::clock::Clock;
use crate::{
    carrier::Carrier,
    domain::{
        day::to_millisecond,
        route::{ChannelRules, Route},
        source::SourceLimits,
    },
    store::Db,
};
use jiff::{Timestamp, tz::TimeZone};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, Semaphore, watch};

/// How often most jobs ask whether there is something to do.
pub const EVERY_SECOND: Duration = Duration::from_secs(1);

/// What the jobs around deliveries work with.
pub struct Worker {
    pub store: Db,
    pub carrier: Arc<Carrier>,
    /// What carries its messages in test mode.
    pub log: Arc<Carrier>,
    /// Those of the carrier's channel.
    pub rules: ChannelRules,
    /// A permit for each call to the provider that may be made at once.
    pub calls: Arc<Semaphore>,
    pub time_zone: TimeZone,
    pub daily_limit: i64,
    pub source_limits: Arc<SourceLimits>,
    /// Marks the leases of this process.
    pub owner: String,
    /// What is known of the wall clock.
    pub clock: Arc<Clock>,
    /// The routes of all carriers of this process: who else could ask about an attempt?
    pub routes: Vec<Arc<Route>>,
    /// Changes when a delivery may be due.
    pub wake: Mutex<watch::Receiver<()>>,
}

impl Worker {
    /// Who carries what was begun to go by this route.
    pub fn carrier_of(&self, route: &Route) -> &Carrier {
        if self.carrier.route().as_ref() == route {
            &self.carrier
        } else {
            &self.log
        }
    }
}

/// The present, as the database keeps it. The edge: below here, time is an argument.
pub fn now() -> Timestamp {
    to_millisecond(Timestamp::now())
}
