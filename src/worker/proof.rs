//! What the provider's lists prove of a message whose answer was lost: whether it is absent. Counted by this process's
//! monotonic clock and in memory only: a restart begins the count anew. Absent: reading the lists (see `reconcile`).

use crate::{
    domain::id::{AttemptNo, DeliveryId},
    store::Lookup,
};
use jiff::SignedDuration;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// No two lookups of a delivery are further apart.
pub const LONGEST_GAP: SignedDuration = SignedDuration::from_hours(6);
/// Absence is believed after this many complete lists.
const LISTS_FOR_ABSENCE: usize = 3;
/// From here on, searches that ended otherwise are forgotten.
const MANY_SEARCHES: usize = 10_000;

/// What one lookup brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A complete list without it; `whole` if no date was asked for.
    NotThere { whole: bool },
    /// A complete list that leaves it open.
    Open,
    /// No complete list.
    Nothing,
}

/// What the lookups of a search have shown so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    /// The time is not over.
    Open,
    Absent,
    CannotTell,
}

/// What this process has seen in the lists of one search.
struct Search {
    attempt: AttemptNo,
    began: Instant,
    /// When complete lists did not have it. Emptied by a list that leaves it open.
    not_there: Vec<Instant>,
}

impl Search {
    fn new(attempt: AttemptNo, at: Instant) -> Self {
        Self {
            attempt,
            began: at,
            not_there: Vec::new(),
        }
    }

    /// Adds what a lookup at `at` brought. Absent takes enough complete lists, spread over `reconcile_after`, the last of
    /// them whole.
    fn add(&mut self, seen: Seen, reconcile_after: Duration, at: Instant) -> Proof {
        match seen {
            Seen::NotThere { .. } => self.not_there.push(at),
            Seen::Open => self.not_there.clear(),
            Seen::Nothing => {}
        }
        let spread = self
            .not_there
            .first()
            .map_or(Duration::ZERO, |first| at.duration_since(*first));
        let elapsed = at.duration_since(self.began);
        match seen {
            Seen::NotThere { whole: true }
                if self.not_there.len() >= LISTS_FOR_ABSENCE && spread >= reconcile_after =>
            {
                Proof::Absent
            }
            // It is going well: let the lists be spread out.
            Seen::NotThere { .. } if elapsed < reconcile_after * 2 => Proof::Open,
            Seen::NotThere { .. } | Seen::Open | Seen::Nothing if elapsed >= reconcile_after => Proof::CannotTell,
            Seen::NotThere { .. } | Seen::Open | Seen::Nothing => Proof::Open,
        }
    }
}

/// The searches of this process by delivery.
#[derive(Default)]
pub struct Searches(Mutex<HashMap<DeliveryId, Search>>);

impl Searches {
    /// How long this process has been searching for it.
    pub fn elapsed(&self, lookup: &Lookup, at: Instant) -> Duration {
        let mut searches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let search = searches
            .entry(lookup.delivery_id.clone())
            .or_insert_with(|| Search::new(lookup.attempt, at));
        if search.attempt != lookup.attempt {
            *search = Search::new(lookup.attempt, at);
        }
        at.duration_since(search.began)
    }

    pub fn add(&self, lookup: &Lookup, seen: Seen, reconcile_after: Duration, at: Instant) -> Proof {
        let mut searches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if searches.len() > MANY_SEARCHES {
            // Those that a receipt ended stay here; a live one begins its count anew.
            searches.retain(|_, search| at.duration_since(search.began) < LONGEST_GAP.unsigned_abs());
        }
        let search = searches
            .entry(lookup.delivery_id.clone())
            .or_insert_with(|| Search::new(lookup.attempt, at));
        search.add(seen, reconcile_after, at)
    }

    pub fn forget(&self, lookup: &Lookup) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&lookup.delivery_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: Duration = Duration::from_secs(180);
    const DATED: Seen = Seen::NotThere { whole: false };
    const WHOLE: Seen = Seen::NotThere { whole: true };

    fn proofs(lookups: &[(u64, Seen)]) -> Vec<Proof> {
        let start = Instant::now();
        let mut search = Search::new(AttemptNo(1), start);
        lookups
            .iter()
            .map(|(second, seen)| search.add(*seen, R, start + Duration::from_secs(*second)))
            .collect()
    }

    #[test]
    fn absence_takes_three_complete_lists_spread_out_the_last_one_whole() {
        assert_eq!(
            proofs(&[(0, DATED), (90, DATED), (180, WHOLE)]),
            [Proof::Open, Proof::Open, Proof::Absent]
        );
        assert_eq!(
            proofs(&[(0, DATED), (90, DATED), (180, DATED), (270, WHOLE)]).pop(),
            Some(Proof::Absent)
        );
        assert_eq!(
            proofs(&[(0, WHOLE), (1, WHOLE), (2, WHOLE)]).pop(),
            Some(Proof::Open),
            "too close together"
        );
        assert_eq!(
            proofs(&[(0, DATED), (180, WHOLE)]).pop(),
            Some(Proof::Open),
            "two are not enough yet"
        );
        assert_eq!(
            proofs(&[(100, DATED), (190, DATED), (370, WHOLE)]).pop(),
            Some(Proof::Absent)
        );
    }

    #[test]
    fn without_complete_lists_nobody_can_tell() {
        assert_eq!(
            proofs(&[(0, Seen::Nothing), (90, Seen::Nothing), (180, Seen::Nothing)]),
            [Proof::Open, Proof::Open, Proof::CannotTell]
        );
        assert_eq!(
            proofs(&[(0, DATED), (90, Seen::Open), (180, WHOLE), (360, WHOLE)]).pop(),
            Some(Proof::CannotTell),
            "an open list starts the count anew"
        );
        assert_eq!(
            proofs(&[(0, Seen::Nothing), (600, WHOLE), (1_000, WHOLE), (2_000, WHOLE)]).pop(),
            Some(Proof::Absent),
            "late, but proven"
        );
    }
}
