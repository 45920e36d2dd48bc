//! Who opted out a moment ago, for calls that began before and have not been made. In memory: after a restart there are no
//! such calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// No call is made so long after it was begun: that is many times `sms.lease`.
const KEPT: Duration = Duration::from_secs(3_600);
/// Beyond so many entries, old ones are looked for.
const MANY: usize = 1_000;

/// The numbers that opted out in this process, each with when that was committed.
#[derive(Clone, Default)]
pub struct JustOptedOut(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    since: HashMap<String, Instant>,
    /// How many entries there are before it is worth looking for old ones.
    look_at: usize,
}

impl JustOptedOut {
    pub fn add(&self, e164: String, at: Instant) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.since.insert(e164, at);
        if inner.since.len() > inner.look_at.max(MANY) {
            inner
                .since
                .retain(|_, since| at.saturating_duration_since(*since) < KEPT);
            inner.look_at = inner.since.len() * 2;
        }
    }

    /// Whether this number opted out after `begun`.
    pub fn has_since(&self, e164: &str, begun: Instant) -> bool {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.since.get(e164).is_some_and(|since| *since >= begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_begun_before_is_stopped_and_old_entries_go() {
        let (all, begun) = (JustOptedOut::default(), Instant::now());
        all.add("+14155550101".into(), begun + Duration::from_secs(1));

        assert!(all.has_since("+14155550101", begun));
        assert!(
            !all.has_since("+14155550101", begun + Duration::from_secs(2)),
            "opted in since"
        );
        assert!(!all.has_since("+14155550102", begun));

        for number in 0..2 * MANY {
            all.add(format!("+1415{number}"), begun + 2 * KEPT);
        }
        assert!(!all.has_since("+14155550101", begun));
    }
}
