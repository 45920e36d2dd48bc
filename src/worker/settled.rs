//! Looks for alerts of which it is known who was reached, so that others hear of it. Absent: what is asked and written (see
//! `store::notes`), and who hears of it (see `notify`).

use super::{context::now, workers::TimedJob};
use crate::store::{Db, StoreError};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_secs(2);
/// A look may take a twentieth of the time: it goes through all alerts of some days, which may be very many.
const REST: u32 = 19;

struct Settling {
    store: Db,
    /// Sources on whose tickets notes are written.
    noted: Vec<String>,
    /// When it is looked again.
    due_at: Mutex<Option<Instant>>,
}

/// `noted`: the sources on whose tickets notes are written.
pub fn job(store: &Db, noted: Vec<String>) -> TimedJob {
    let settling = Arc::new(Settling {
        store: store.clone(),
        noted,
        due_at: Mutex::default(),
    });
    TimedJob::new("look for alerts that are settled", EVERY, &settling, look)
}

async fn look(settling: Arc<Settling>) -> Result<(), StoreError> {
    let due_at = *settling.due_at.lock().unwrap_or_else(PoisonError::into_inner);
    if due_at.is_some_and(|due_at| Instant::now() < due_at) {
        return Ok(());
    }
    let begun = Instant::now();
    let looked = async {
        for source in &settling.noted {
            settling.store.take_over_notes(source, now()).await?;
        }
        settling.store.tell_settled(now()).await
    };
    let looked = looked.await.map(drop);
    let rest = begun.elapsed().saturating_mul(REST);
    *settling.due_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(rest);
    looked
}
