//! What waits for the database, and since when: that is how a process notices that it takes events in and gets nothing
//! done. In memory: it speaks of this process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Everything that waits in this process.
#[derive(Clone, Default)]
pub struct Waits(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    next: u64,
    since: BTreeMap<u64, (&'static str, Instant)>,
}

/// One thing that waits, for as long as it lives.
pub struct Wait {
    number: u64,
    waits: Waits,
}

impl Waits {
    /// `what` begins to wait. Its failures do not end the wait; only what it waits for does.
    pub fn begin(&self, what: &'static str) -> Wait {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.since.insert(number, (what, Instant::now()));
        Wait {
            number,
            waits: self.clone(),
        }
    }

    /// What has waited for longest, and for how long.
    pub fn longest(&self) -> Option<(&'static str, Duration)> {
        let waiting = self.lock();
        // Numbered in the order in which they began.
        let (what, since) = waiting.since.first_key_value()?.1;
        Some((what, since.elapsed()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waits.lock().since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_wait_is_reported_until_it_is_over() {
        let waits = Waits::default();
        assert!(waits.longest().is_none());

        let first = waits.begin("first");
        let second = waits.begin("second");

        assert_eq!(waits.longest().map(|(what, _)| what), Some("first"));
        drop(first);
        assert_eq!(waits.longest().map(|(what, _)| what), Some("second"));
        drop(second);
        assert!(waits.longest().is_none());
    }
}
