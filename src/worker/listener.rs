//! Is notified by other processes on the same PostgreSQL that something is due. Only a help: without it a delivery waits a
//! second at most. Absent: how they notify (`store::pace`).

use super::{context::Worker, workers::TimedJob};
use crate::store::StoreError;
use std::{sync::Arc, time::Duration};

/// After the connection was lost or could not be made.
const EVERY: Duration = Duration::from_secs(2);

/// A round lasts as long as its connection.
pub fn job(worker: &Arc<Worker>) -> TimedJob {
    TimedJob::new("listen to the other processes", EVERY, worker, listen)
}

async fn listen(worker: Arc<Worker>) -> Result<(), StoreError> {
    worker.store.listen().await
}
