//! One claimed delivery from claim to recorded answer: `begin_send` (durable), the call, `finish`. Nothing is open in
//! the database while the provider is called. Always comes to an end that apalis need not know of.

use super::{Worker, backend::chain, now};
use crate::{
    domain::{day::LocalDay, delivery::MAX_CLAIMS, news::Answer},
    provider::Outgoing,
    store::{BeginRules, Begun, Claimed, FinishRules, Sending, StoreError},
};
use futures::FutureExt;
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

/// The longest wait between two tries to record an answer.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Handles one claim. A panic sets the delivery aside, visibly, and the rest goes on.
pub async fn deliver(worker: Arc<Worker>, claim: Claimed) {
    if claim.claims > MAX_CLAIMS {
        return set_aside(
            &worker,
            &claim,
            "it was claimed again and again without a send",
        )
        .await;
    }
    if AssertUnwindSafe(attempt(&worker, &claim))
        .catch_unwind()
        .await
        .is_err()
    {
        set_aside(
            &worker,
            &claim,
            "handling it failed inside Nightbell; see the log",
        )
        .await;
    }
}

async fn attempt(worker: &Worker, claim: &Claimed) {
    let started = Instant::now();
    match begin(worker, claim).await {
        Ok(Begun::Send(sending)) => {
            let answer = call(worker, &sending, started).await;
            log_answer(&sending, &answer);
            record(worker, &sending, &answer).await;
        }
        Ok(Begun::Stopped(state)) => {
            tracing::info!(delivery.id = %claim.delivery_id, %state, "not sent")
        }
        Ok(Begun::Gone) => {}
        Err(error @ StoreError::Unreadable { .. }) => {
            tracing::error!(delivery.id = %claim.delivery_id, error = %chain(&error), "cannot read a delivery; set aside");
            set_aside(worker, claim, "this version of Nightbell cannot read it").await;
        }
        Err(error @ StoreError::Database(_)) => {
            tracing::warn!(delivery.id = %claim.delivery_id, error = %chain(&error), "cannot begin to send; will try again");
            // If this fails too, the lease ends by itself.
            let _ = worker.store.give_back(claim).await;
            tokio::time::sleep(LONGEST_RETRY / 10).await;
        }
    }
}

async fn begin(worker: &Worker, claim: &Claimed) -> Result<Begun, StoreError> {
    let (rules, now) = (&worker.rules, now());
    let day = LocalDay::of(now, &rules.time_zone);
    let rules = BeginRules {
        provider: worker.provider.name(),
        account: worker.provider.account(),
        day,
        tomorrow: day.end(&rules.time_zone),
        configured_limit: rules.daily_limit,
        lease: rules.lease,
        expire_after: rules.expire_after,
    };
    worker.store.begin_send(claim, rules, now).await
}

/// Calls the provider, unless so much time has passed since the attempt began that others may take it for lost: a
/// process that was frozen must not send late. Both clocks are asked, since either may stand still in a frozen machine.
async fn call(worker: &Worker, sending: &Sending, started: Instant) -> Answer {
    let room = worker.rules.lease - worker.rules.timeout;
    let too_late = started.elapsed() >= room.unsigned_abs()
        || now() >= sending.deadline_at - worker.rules.timeout;
    if too_late {
        return Answer::NotSent {
            retry_after: None,
            why: "this process was held up for too long",
            code: None,
        };
    }
    let message = Outgoing {
        delivery_id: &sending.delivery_id,
        attempt: sending.attempt,
        to: &sending.to,
        text: &sending.message,
    };
    worker.provider.send(&message).await
}

/// Records the answer, however long the database takes: it is the only copy.
async fn record(worker: &Worker, sending: &Sending, answer: &Answer) {
    let mut wait = Duration::from_millis(50);
    loop {
        let now = now();
        let rules = FinishRules {
            day: LocalDay::of(now, &worker.rules.time_zone),
            configured_limit: worker.rules.daily_limit,
            jitter: rand::random(),
            poll_after: worker.rules.poll_after,
        };
        match worker.store.finish(sending, answer, rules, now).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(delivery.id = %sending.delivery_id, error = %chain(&error), "cannot record the provider's answer; will try again")
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
}

fn log_answer(sending: &Sending, answer: &Answer) {
    let (id, attempt) = (&sending.delivery_id, sending.attempt);
    match answer {
        Answer::Accepted { message_id, .. } => {
            tracing::info!(delivery.id = %id, attempt, message.id = %message_id, "the provider accepted it")
        }
        Answer::NotSent { why, code, .. } => {
            tracing::warn!(delivery.id = %id, attempt, code, "not sent, {why}; will try again")
        }
        Answer::Refused { code, .. } => {
            tracing::error!(delivery.id = %id, attempt, code, "the provider refused it")
        }
        Answer::Halted { code } => {
            tracing::error!(delivery.id = %id, attempt, code, "the provider refuses our account; all sends are held")
        }
        Answer::Unknown { why } => {
            tracing::warn!(delivery.id = %id, attempt, "{why}; the provider may have it")
        }
    }
}

async fn set_aside(worker: &Worker, claim: &Claimed, why: &str) {
    match worker.store.set_aside(claim, why, now()).await {
        Ok(true) => tracing::error!(delivery.id = %claim.delivery_id, "set aside: {why}"),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(delivery.id = %claim.delivery_id, error = %chain(&error), "cannot set a delivery aside; its lease will end")
        }
    }
}
