//! What every handler works with. Absent: how it is made (see `app`).

use super::{
    admin::pages::Pages,
    auth::{RateLimiter, Tokens},
    deadline::now,
    readiness::Readiness,
    webhooks::Webhooks,
};
use crate::{
    domain::{
        acknowledge::Acknowledging, day::LocalDay, nightly::NightlyTime, phone::Region, reply::Keywords, route::Route,
    },
    intake::Intake,
    notify::Endpoints,
    store::{Db, InboundRules},
};
use axum::extract::State;
use jiff::{SignedDuration, tz::TimeZone};
use std::sync::Arc;

/// How handlers ask for it.
pub type SharedState = State<Arc<AppState>>;

/// What every handler works with.
pub struct AppState {
    /// How people acknowledge alerts.
    pub acknowledging: Acknowledging,
    pub store: Db,
    pub intake: Intake,
    pub intake_tokens: Tokens,
    pub admin_tokens: Tokens,
    pub rate_limiter: RateLimiter,
    pub default_region: Region,
    pub time_zone: TimeZone,
    pub daily_limit: i64,
    pub poll_after: SignedDuration,
    pub route: Arc<Route>,
    pub webhooks: Webhooks,
    /// What texts of people mean, and what decides over them.
    pub keywords: Keywords,
    pub inbound: Arc<InboundRules>,
    pub readiness: Readiness,
    /// When the nightly jobs are due.
    pub nightly: NightlyTime,
    /// Whether mails have a server and somebody to go to.
    pub has_mail: bool,
    /// Who hears of lifecycle events.
    pub endpoints: Endpoints,
    /// What the admin pages are made with.
    pub pages: Pages,
}

impl AppState {
    /// The local day that it is now.
    pub fn today(&self) -> LocalDay {
        LocalDay::of(now(), &self.time_zone)
    }
}
