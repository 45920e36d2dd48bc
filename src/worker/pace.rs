//! How fast messages go: one pace for each sender. A single process keeps it in memory; replicas take turns in the
//! database, so that all of them together keep it. A turn is taken only when something is due, so none is hoarded.

use crate::{
    domain::delivery::ProviderName,
    store::{Db, StoreError},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::{collections::VecDeque, num::NonZeroU32, time::Duration};
use tokio::time::Instant;

/// A turn that could not be used for this long is gone: others went meanwhile.
const STALE: Duration = Duration::from_millis(200);

/// The pace of one process.
pub enum Pace {
    Unpaced,
    /// Alone.
    Own(DefaultDirectRateLimiter),
    /// Beside others: the turns that were taken and not used yet.
    Shared {
        turns: VecDeque<Instant>,
        per_second: f64,
    },
}

impl Pace {
    /// `per_second` messages; 0 is unpaced.
    pub fn new(per_second: f64, is_shared: bool) -> Self {
        if per_second <= 0.0 {
            return Self::Unpaced;
        }
        if is_shared {
            return Self::Shared {
                turns: VecDeque::new(),
                per_second,
            };
        }
        let quota = Quota::with_period(Duration::from_secs_f64(1.0 / per_second));
        quota.map_or(Self::Unpaced, |quota| {
            Self::Own(RateLimiter::direct(quota.allow_burst(burst(per_second))))
        })
    }

    /// Whether others take turns too: then no turn is taken before something is due.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Shared { .. })
    }

    /// Waits until a message may go.
    pub async fn ready(&mut self, store: &Db, provider: ProviderName, account: &str) -> Result<(), StoreError> {
        match self {
            Self::Unpaced => {}
            Self::Own(limiter) => limiter.until_ready().await,
            Self::Shared { turns, per_second } => {
                turns.retain(|turn| turn.elapsed() < STALE);
                if turns.is_empty() {
                    let count = burst(*per_second).get();
                    let gap = Duration::from_secs_f64(1.0 / *per_second);
                    let wait = store.take_turn(provider, account, gap * count).await?;
                    let first = Instant::now() + wait;
                    turns.extend((0..count).map(|turn| first + gap * turn));
                }
                if let Some(turn) = turns.pop_front() {
                    tokio::time::sleep_until(turn).await;
                }
            }
        }
        Ok(())
    }

    /// A right was kept for a while before it was used, and meanwhile the next one grew: two messages would go at once.
    /// Lets that one lapse.
    pub fn forget_one(&self) {
        if let Self::Own(limiter) = self {
            let _ = limiter.check();
        }
    }
}

/// How many messages may go together. A burst hides the grain of the timer at high rates, and spares the database a
/// question for each message; at low ones messages go strictly one by one.
fn burst(per_second: f64) -> NonZeroU32 {
    NonZeroU32::new((per_second / 10.0) as u32).unwrap_or(NonZeroU32::MIN)
}
