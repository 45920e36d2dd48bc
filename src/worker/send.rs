//! One delivery from its begun attempt to the recorded answer: the call, then `finish`. Nothing is open in the database
//! while the provider is called. Always comes to an end that apalis need not know of.

use super::{
    clock::uptime,
    context::{Worker, now},
};
use crate::{
    carrier::{Address, Outgoing},
    domain::{answer::Answer, day::LocalDay, delivery::MAX_CLAIMS},
    store::{AnswerRules, Answered, BeginRules, Begun, BegunBatch, Claimed, Sending, StoreError},
};
use futures::FutureExt;
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::OwnedSemaphorePermit;

/// How often an answer is tried to be recorded that the database as a whole is not to blame for.
const MAX_TRIES: u32 = 10;
/// The longest wait between two tries to record an answer.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Makes the call of an attempt that was begun at `started`, and records the answer, whatever fails on the way. Lets go of
/// `calling` in between: then another call may be made.
pub async fn deliver(worker: Arc<Worker>, sending: Sending, started: Instant, calling: OwnedSemaphorePermit) {
    let id = sending.delivery_id.clone();
    let asking = AssertUnwindSafe(call(&worker, &sending, started)).catch_unwind();
    let answer = asking.await.unwrap_or(Answer::Broken);
    drop(calling);
    log_answer(&sending, &answer);
    let recording = record(&worker, sending, answer);
    if AssertUnwindSafe(recording).catch_unwind().await.is_err() {
        tracing::error!(delivery.id = %id, "recording an answer failed inside Nightbell; it will be looked for");
    }
}

/// Handles one claim: for a delivery that cannot be begun together with others. Its claims are counted, so it cannot fail
/// for ever.
pub async fn deliver_claimed(worker: Arc<Worker>, claim: Claimed, calling: OwnedSemaphorePermit) {
    if claim.claims > MAX_CLAIMS {
        return set_aside(&worker, &claim, "it was claimed again and again without a send").await;
    }
    match guard(begin(&worker, &claim)).await {
        Ok(batch) => {
            if let Some(sending) = batch.begun.into_iter().find_map(to_send) {
                deliver(Arc::clone(&worker), sending, batch.began_at, calling).await;
            }
        }
        Err(error @ StoreError::Unreadable { .. }) => {
            tracing::error!(delivery.id = %claim.delivery_id, %error, "cannot read a delivery; set aside");
            set_aside(&worker, &claim, "this version of Nightbell cannot read it").await;
        }
        Err(error @ (StoreError::Database(_) | StoreError::Busy | StoreError::Broken)) => {
            tracing::warn!(delivery.id = %claim.delivery_id, %error, "cannot begin to send; will try again");
            // If this fails too, the lease ends by itself.
            let _ = worker.store.give_back(&claim, error.is_outage()).await;
            tokio::time::sleep(LONGEST_RETRY / 10).await;
        }
    }
}

/// The right to call, if that is what came of beginning.
pub fn to_send(begun: Begun) -> Option<Sending> {
    match begun {
        Begun::Send(sending) => Some(sending),
        Begun::Stopped { delivery_id, state } => {
            tracing::info!(delivery.id = %delivery_id, %state, "not sent");
            None
        }
        Begun::Later => None,
    }
}

/// Makes an error of a panic, so that it is counted while the rest goes on.
async fn guard<T>(handling: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let outcome = AssertUnwindSafe(handling).catch_unwind().await;
    outcome.unwrap_or(Err(StoreError::Broken))
}

async fn begin(worker: &Worker, claim: &Claimed) -> Result<BegunBatch, StoreError> {
    let now = now();
    let rules = begin_rules(worker, now);
    worker.store.begin_claimed(rules, claim.clone(), now).await
}

/// What sends begin by at this time.
pub fn begin_rules(worker: &Worker, now: jiff::Timestamp) -> BeginRules {
    let rules = &worker.rules;
    let day = LocalDay::of(now, &worker.time_zone);
    BeginRules {
        route: Arc::clone(worker.carrier.route()),
        day,
        tomorrow: day.end(&worker.time_zone),
        configured_limit: worker.daily_limit,
        source_limits: Arc::clone(&worker.source_limits),
        lease: rules.lease,
        expire_after: worker.clock.expire_after(rules.expire_after),
        uptime: uptime(),
    }
}

/// Calls the provider, unless so much time has passed since the attempt began that others may take it for lost: a
/// process that was frozen must not send late; and unless its person has opted out since. Both clocks are asked, since either may stand still in a frozen machine.
async fn call(worker: &Worker, sending: &Sending, started: Instant) -> Answer {
    let margin = worker.rules.lease - worker.rules.timeout;
    // A database that does not answer now does not hold up what it has let begin.
    let has_opted_out = worker.store.has_opted_out_since(&sending.to, started)
        || worker.store.has_opted_out_elsewhere(&sending.to).await.unwrap_or(false);
    let too_late = started.elapsed() >= margin.unsigned_abs() || now() >= sending.deadline_at - worker.rules.timeout;
    if has_opted_out {
        return Answer::NotSent {
            retry_after: None,
            why: "this person has opted out in this moment",
            code: None,
        };
    }
    if too_late {
        return Answer::NotSent {
            retry_after: None,
            why: "this process was held up for too long",
            code: None,
        };
    }
    let message = Outgoing {
        delivery_id: sending.delivery_id.as_str(),
        attempt: sending.attempt.0,
        to: Address::Phone(&sending.to),
        text: &sending.message,
    };
    // Boxed, so that the task of a delivery is small where it is handed on.
    Box::pin(worker.carrier_of(&sending.route).send(&message)).await
}

/// Records the answer, however long the database takes: it is the only copy.
async fn record(worker: &Worker, sending: Sending, answer: Answer) {
    let now = now();
    let answered = Arc::new(Answered {
        sending,
        answer,
        rules: AnswerRules {
            day: LocalDay::of(now, &worker.time_zone),
            configured_limit: worker.daily_limit,
            jitter: rand::random(),
            poll_after: worker.rules.poll_after,
        },
        now,
    });
    let id = &answered.sending.delivery_id;
    let _waiting = worker.store.waits().begin("record an answer");
    let (mut wait, mut tries) = (Duration::from_millis(50), 0);
    loop {
        tries += 1;
        match worker.store.answer(&answered).await {
            Ok(()) => return,
            // Not an outage, so trying for ever would not help: the lease ends, and the answer is looked for.
            Err(error) if !error.is_outage() && tries >= MAX_TRIES => {
                tracing::error!(delivery.id = %id, %error, "cannot record the provider's answer; it will be looked for");
                return;
            }
            Err(error) => {
                tracing::warn!(delivery.id = %id, %error, "cannot record the provider's answer; will try again")
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
            tracing::info!(delivery.id = %id, %attempt, message.id = %message_id, "the provider accepted it")
        }
        Answer::NotSent { why, code, .. } => {
            tracing::warn!(delivery.id = %id, %attempt, code, "not sent, {why}; will try again")
        }
        Answer::Refused { code, .. } => {
            tracing::error!(delivery.id = %id, %attempt, code, "the provider refused it")
        }
        Answer::Halted { fault, code, .. } => {
            tracing::error!(delivery.id = %id, %attempt, code, "not sent, the provider refused our {fault}; sends through this account are held")
        }
        Answer::Broken => {
            tracing::error!(delivery.id = %id, %attempt, "a call failed inside Nightbell; the provider may have it")
        }
        Answer::Unknown { why } => {
            tracing::warn!(delivery.id = %id, %attempt, "{why}; the provider may have it")
        }
    }
}

async fn set_aside(worker: &Worker, claim: &Claimed, why: &str) {
    match worker.store.set_aside(claim, why, now()).await {
        Ok(true) => tracing::error!(delivery.id = %claim.delivery_id, "set aside: {why}"),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(delivery.id = %claim.delivery_id, %error, "cannot set a delivery aside; its lease will end")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        carrier::Carriers,
        domain::{
            auto_reply::AutoReplies,
            database_url::DatabaseUrl,
            delivery::MAX_BROKEN,
            event,
            id::DeliveryId,
            inbound::{HelpAnswers, Inbound, ProviderAnswers},
            json,
            message::{Alphabet, Rules},
            phone::PhoneNumber,
            reply::{Keyword, Meaning},
            route::{Channel, ChannelRules, ProviderName},
            source::LaterRecipients,
        },
        store::{Db, InboundRules, Incoming, Limits, Looker, NewDelivery, Raised, Recipient, Taken, new_id},
    };
    use jiff::{SignedDuration, tz::TimeZone};
    use tokio::sync::Semaphore;

    const RULES: ChannelRules = ChannelRules {
        per_second: 0.0,
        max_in_flight: 1,
        lease: SignedDuration::from_secs(60),
        timeout: SignedDuration::from_secs(15),
        reconcile_after: SignedDuration::from_mins(3),
        resend_when_absent: true,
        poll_after: SignedDuration::from_mins(10),
        expire_after: SignedDuration::from_hours(72),
    };

    /// A worker on a new file, and one delivery that is owed. The file goes with it.
    struct Stage {
        worker: Arc<Worker>,
        id: DeliveryId,
        folder: std::path::PathBuf,
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    impl Stage {
        async fn claim(&self, at: jiff::Timestamp) -> Claimed {
            let Worker { store, carrier, .. } = self.worker.as_ref();
            let claimed = store.claim("test", carrier.route(), RULES.lease, at).await.unwrap();
            claimed.unwrap()
        }

        async fn begin(&self, claim: &Claimed) -> Sending {
            match begin(&self.worker, claim).await.unwrap().begun.pop() {
                Some(Begun::Send(sending)) => sending,
                other => panic!("not begun: {other:?}"),
            }
        }

        /// The delivery's state, and its reason if there is one.
        async fn stands(&self) -> String {
            let delivery = self.worker.store.delivery(self.id.as_str()).await.unwrap().unwrap();
            [delivery.state]
                .into_iter()
                .chain(delivery.reason)
                .collect::<Vec<_>>()
                .join(" ")
        }
    }

    async fn stage() -> Stage {
        let folder = std::env::temp_dir().join(format!("nightbell-send-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let url = format!("sqlite://{}/nightbell.db", folder.display());
        let store = Db::open(&DatabaseUrl::parse(&url).unwrap(), Limits::QUICK)
            .await
            .unwrap();
        let document = json::parse(br#"{"ticket":{"id":1,"subject":"x","urgency":"critical"}}"#).unwrap();
        let event = event::parse(&document, now()).unwrap();
        let phone = Ok(PhoneNumber::from_stored("+14155550101".into()));
        let delivery = NewDelivery {
            channel: Channel::Sms,
            recipient: Recipient::default(),
            phone,
            message: "x".into(),
            segments: 1,
            ack_code: None,
        };
        let Raised::New { deliveries, .. } = store
            .raise(&event, LaterRecipients::Untold, now(), async || {
                Ok(vec![(new_id().into(), delivery)])
            })
            .await
            .unwrap()
        else {
            panic!("known already")
        };
        let wake = store.wake();
        let worker = Worker {
            store,
            carrier: Carriers::to_log(),
            log: Carriers::to_log(),
            rules: RULES,
            calls: Arc::new(Semaphore::new(RULES.max_in_flight)),
            time_zone: TimeZone::UTC,
            daily_limit: 10,
            source_limits: Arc::default(),
            owner: "test".into(),
            clock: Arc::default(),
            routes: Vec::new(),
            wake: tokio::sync::Mutex::new(wake),
        };
        Stage {
            worker: Arc::new(worker),
            id: deliveries[0].id.clone(),
            folder,
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_rest_goes_on() {
        let outcome = guard::<()>(async { panic!("a bug") }).await;

        assert!(matches!(outcome, Err(StoreError::Broken)));
    }

    #[tokio::test]
    async fn a_delivery_whose_calls_fail_inside_us_is_set_aside_after_five() {
        let stage = stage().await;
        let store = &stage.worker.store;
        let (mut at, today) = (now(), LocalDay::of(now(), &TimeZone::UTC));
        for number in 1..=MAX_BROKEN {
            assert_eq!(stage.stands().await, "pending", "before attempt {number}");
            let claim = stage.claim(at).await;
            let sending = stage.begin(&claim).await;
            record(&stage.worker, sending, Answer::Broken).await;
            assert_eq!(stage.stands().await, "unknown");
            at += SignedDuration::from_secs(61);
            let looker = Looker {
                owner: "test",
                route: stage.worker.carrier.route(),
                lease: RULES.lease,
                uptime: None,
            };
            let lookups = store.take_lookups(looker, 1, &[], at).await.unwrap();
            assert!(store.record_absent(&lookups[0], today, 10, at).await.unwrap());
        }

        assert_eq!(stage.stands().await, "failed internal_error");
        assert_eq!(store.limit_status(today, 10).await.unwrap().used, 0);
    }

    #[tokio::test]
    async fn a_delivery_claimed_again_and_again_is_set_aside() {
        let stage = stage().await;
        let mut at = now();
        for _ in 0..MAX_CLAIMS {
            stage.claim(at).await;
            at += SignedDuration::from_secs(61);
        }
        assert_eq!(stage.stands().await, "pending");

        let calling = Arc::clone(&stage.worker.calls).try_acquire_owned().unwrap();
        deliver_claimed(Arc::clone(&stage.worker), stage.claim(at).await, calling).await;

        assert_eq!(stage.stands().await, "failed internal_error");
    }

    #[tokio::test]
    async fn a_call_is_not_made_whose_person_opts_out_between_its_beginning_and_the_call() {
        let stage = stage().await;
        let claim = stage.claim(now()).await;
        let started = Instant::now();
        let sending = stage.begin(&claim).await;
        let message = Inbound {
            provider: ProviderName::Twilio,
            provider_message_id: "SM1".into(),
            channel: "sms".into(),
            from: Some("+14155550101".into()),
            phone: Some(sending.to.clone()),
            to: None,
            text: "STOP".into(),
            keyword: None,
            provider_answers: ProviderAnswers::UsualWords,
            media: None,
            form: "[]".into(),
        };
        let rules = Rules {
            max_segments: 4,
            alphabet: Alphabet::Auto,
        };
        let incoming = Incoming {
            message,
            meaning: Meaning::Keyword(Keyword::Stop),
            rules: Arc::new(InboundRules {
                help: HelpAnswers::Auto,
                cancels_others: true,
                replies: Arc::new(AutoReplies::built_in(rules, TimeZone::UTC)),
            }),
            days: [LocalDay::of(now(), &TimeZone::UTC)].into(),
            now: now(),
        };

        let taken = stage.worker.store.take_inbound(Arc::new(incoming)).await.unwrap();
        let Taken::Kept { calling, .. } = taken else {
            panic!("{taken:?}");
        };
        assert_eq!(
            calling,
            std::slice::from_ref(&stage.id),
            "whoever answers the STOP waits for it"
        );
        let answer = call(&stage.worker, &sending, started).await;

        assert!(matches!(answer, Answer::NotSent { .. }), "{answer:?}");
        record(&stage.worker, sending, answer).await;
        assert_eq!(stage.stands().await, "pending");
        let today = LocalDay::of(now(), &TimeZone::UTC);
        assert_eq!(stage.worker.store.limit_status(today, 10).await.unwrap().used, 0);
        let later = now() + SignedDuration::from_secs(61);
        let claim = stage.claim(later).await;
        let begun = stage
            .worker
            .store
            .begin_claimed(begin_rules(&stage.worker, later), claim, later)
            .await
            .unwrap();
        assert!(matches!(begun.begun[..], [Begun::Stopped { .. }]), "{begun:?}");
        assert_eq!(stage.stands().await, "suppressed opted_out");
    }

    #[tokio::test]
    async fn a_call_that_comes_too_late_is_not_made() {
        let stage = stage().await;
        let claim = stage.claim(now()).await;
        let sending = stage.begin(&claim).await;
        // Frozen for 50 s: of the lease's 60, less than the call's 15 are left.
        let long_ago = Instant::now().checked_sub(Duration::from_secs(50)).unwrap();

        let answer = call(&stage.worker, &sending, long_ago).await;

        assert!(matches!(answer, Answer::NotSent { .. }), "{answer:?}");
        record(&stage.worker, sending, answer).await;
        assert_eq!(stage.stands().await, "pending");
    }
}
