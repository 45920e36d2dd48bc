//! Group commit. An fsync and a trip to the database cost the same for one row and for a hundred, so what comes while a
//! transaction is under way goes together in the next one: accepted events, begun sends, answers and receipts, each with
//! its own result after the commit they share. Who comes alone goes at once; nobody waits for company.
//!
//! SQLite has one writer, so one lane takes all kinds. On PostgreSQL each kind has its own, and they run side by side.
//! A group that fails is rolled back and tried again one by one, so that one bad row fails nobody else; one that stood in
//! the way of another transaction is first tried again as it is. While the database is not there, everybody who waits
//! gets the same error at once. What nobody waits for any more is left out, unless it is owed. Nothing waits without an
//! end: queues are bounded, and a transaction has its time.
//!
//! On SQLite a worker with nothing to do leaves its order with the writer: what an event brings is then begun in the very
//! transaction that accepts it, which spares a commit on the way to the provider.

use super::session::silent;
use super::{
    Engine, StoreError,
    alerts::{self, Lookup, NewAlert},
    receipts::{self, Received, Recorded},
    sending::{self, Answered, Begun, DueRules},
};
use crate::supervise::{Fatal, keep_running};
use futures::FutureExt;
use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc, time::Instant};
use tokio::sync::{Mutex, mpsc, oneshot};

/// More jobs than this share no transaction, nor do jobs with more rows: the first of them should not wait for long, and
/// nobody beside them for their locks.
const MOST: usize = 256;
pub(super) const MOST_ROWS: usize = 2_000;
/// More jobs than this do not wait: whoever comes then is told to come again.
const QUEUE: usize = 4_096;
/// How often a group is tried again as it is, if another transaction stood in its way.
const RERUNS: usize = 3;

/// Who asks, and for what.
struct Ask<Q, A> {
    question: Arc<Q>,
    reply: oneshot::Sender<Result<A, StoreError>>,
}

enum Job {
    Accept(Ask<NewAlert, bool>),
    Begin(Ask<DueRules, BegunBatch>),
    /// Whoever left an order waits no longer.
    Withdraw,
    Finish(Ask<Answered, ()>),
    Receive(Ask<Received, Recorded>),
}

impl Job {
    /// How many rows it writes, about.
    fn rows(&self) -> usize {
        match self {
            Self::Accept(ask) => 1 + ask.question.deliveries.len(),
            Self::Begin(ask) => ask.question.most(),
            Self::Withdraw => 0,
            Self::Finish(ask) => weight(ask.question.is_plain()),
            Self::Receive(ask) => weight(ask.question.is_plain()),
        }
    }

    /// Whether whoever asked has gone away, and nothing is owed: they got no answer, so they ask again. An answer of the
    /// provider is owed whoever brought it.
    fn is_idle(&self) -> bool {
        match self {
            Self::Accept(ask) => ask.reply.is_closed(),
            Self::Begin(ask) => ask.reply.is_closed(),
            Self::Receive(ask) => ask.reply.is_closed(),
            Self::Withdraw | Self::Finish(_) => false,
        }
    }
}

/// What is decided together is a row of one statement; what is decided by itself takes about so many statements.
fn weight(is_plain: bool) -> usize {
    if is_plain { 1 } else { 20 }
}

/// The ways into the groups of one database.
#[derive(Clone)]
pub(super) struct Groups {
    accept: mpsc::Sender<Job>,
    begin: mpsc::Sender<Job>,
    finish: mpsc::Sender<Job>,
    receive: mpsc::Sender<Job>,
    look_up: mpsc::Sender<LookupAsk>,
}

type LookupAsk = Ask<Lookup, Option<String>>;

impl Groups {
    /// Starts the lanes; they end with the last `Groups`.
    pub fn over(engine: &Engine, fatal: &Fatal) -> Self {
        let lane = || {
            let (sender, jobs) = mpsc::channel(QUEUE);
            let (engine, fatal, jobs) = (engine.clone(), fatal.clone(), Arc::new(Mutex::new(jobs)));
            tokio::spawn(keep_running(
                "write to the database",
                fatal,
                || true,
                move || run(engine.clone(), Arc::clone(&jobs)),
            ));
            sender
        };
        let (look_up, lookups) = mpsc::channel(QUEUE);
        let (reading, fatal, lookups) = (engine.clone(), fatal.clone(), Arc::new(Mutex::new(lookups)));
        tokio::spawn(keep_running(
            "look up tickets",
            fatal.clone(),
            || true,
            move || run_lookups(reading.clone(), Arc::clone(&lookups)),
        ));
        match engine {
            Engine::Sqlite { .. } => {
                let lane = lane();
                Self {
                    accept: lane.clone(),
                    begin: lane.clone(),
                    finish: lane.clone(),
                    receive: lane,
                    look_up,
                }
            }
            Engine::Postgres(_) => Self {
                accept: lane(),
                begin: lane(),
                finish: lane(),
                receive: lane(),
                look_up,
            },
        }
    }

    /// Inserts an alert with its deliveries; says whether it is new.
    pub async fn accept(&self, alert: NewAlert) -> Result<bool, StoreError> {
        let (ask, answer) = ask(Arc::new(alert));
        queue(&self.accept, Job::Accept(ask))?;
        receive(answer).await
    }

    /// Begins to send what is due. If nothing is, waits until an event brings something, or until `given_up` ends. Once
    /// asked, the answer must be awaited: what was begun has to be called.
    pub async fn begin(&self, rules: DueRules, given_up: impl Future<Output = ()>) -> Result<BegunBatch, StoreError> {
        let (ask, answer) = ask(Arc::new(rules));
        let _ = self.begin.send(Job::Begin(ask)).await;
        let answer = receive(answer);
        tokio::pin!(answer);
        tokio::select! {
            biased;
            begun = &mut answer => return begun,
            () = given_up => {}
        }
        let _ = self.begin.send(Job::Withdraw).await;
        answer.await
    }

    /// Records an answer.
    pub async fn finish(&self, answered: Arc<Answered>) -> Result<(), StoreError> {
        let (ask, answer) = ask(answered);
        // Owed, so it waits for a place.
        let _ = self.finish.send(Job::Finish(ask)).await;
        receive(answer).await
    }

    /// Records a receipt.
    pub async fn receive(&self, received: Received) -> Result<Recorded, StoreError> {
        let (ask, answer) = ask(Arc::new(received));
        queue(&self.receive, Job::Receive(ask))?;
        receive(answer).await
    }

    /// Finds the alert of a ticket, from what is committed.
    pub async fn look_up(&self, lookup: Lookup) -> Result<Option<String>, StoreError> {
        let (ask, answer) = ask(Arc::new(lookup));
        queue(&self.look_up, ask)?;
        receive(answer).await
    }
}

fn ask<Q, A>(question: Arc<Q>) -> (Ask<Q, A>, oneshot::Receiver<Result<A, StoreError>>) {
    let (reply, answer) = oneshot::channel();
    (Ask { question, reply }, answer)
}

/// Puts a job into its queue, if there is room.
fn queue<J>(lane: &mpsc::Sender<J>, job: J) -> Result<(), StoreError> {
    lane.try_send(job).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => StoreError::Busy,
        mpsc::error::TrySendError::Closed(_) => StoreError::from(sqlx::Error::PoolClosed),
    })
}

/// A lane that is gone answers nobody: the process is about to end.
async fn receive<A>(answer: oneshot::Receiver<Result<A, StoreError>>) -> Result<A, StoreError> {
    answer
        .await
        .unwrap_or_else(|_| Err(StoreError::from(sqlx::Error::PoolClosed)))
}

async fn run(engine: Engine, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    let mut jobs = jobs.lock().await;
    let (mut waiting, mut order) = (VecDeque::new(), None);
    loop {
        if waiting.is_empty() {
            match jobs.recv().await {
                Some(job) => waiting.push_back(job),
                None => return,
            }
        }
        while waiting.len() < MOST
            && let Ok(job) = jobs.try_recv()
        {
            waiting.push_back(job);
        }
        let group = Group::of(first_rows(&mut waiting), order.take());
        order = group.settle(&engine).await.order;
    }
}

/// Takes the first jobs out, as many as share a transaction.
fn first_rows(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut taken, mut rows) = (Vec::with_capacity(waiting.len()), 0);
    while let Some(job) = waiting.pop_front_if(|job| rows == 0 || rows + job.rows() <= MOST_ROWS) {
        rows += job.rows();
        taken.push(job);
    }
    taken
}

type Order = Ask<DueRules, BegunBatch>;

/// What shares a transaction.
#[derive(Default)]
struct Group {
    accepts: Kind<NewAlert, bool>,
    /// From this process's one worker.
    begin: Option<Order>,
    /// Whether `begin` is only left here until an event comes.
    begin_waits: bool,
    finishes: Kind<Answered, ()>,
    receipts: Kind<Received, Recorded>,
}

/// The jobs of one kind: what is asked, and by whom.
struct Kind<Q, A> {
    questions: Vec<Arc<Q>>,
    replies: Vec<oneshot::Sender<Result<A, StoreError>>>,
}

impl<Q, A> Default for Kind<Q, A> {
    fn default() -> Self {
        Self {
            questions: Vec::new(),
            replies: Vec::new(),
        }
    }
}

impl<Q, A> Kind<Q, A> {
    fn push(&mut self, ask: Ask<Q, A>) {
        self.questions.push(ask.question);
        self.replies.push(ask.reply);
    }

    fn into_asks(self) -> impl Iterator<Item = Ask<Q, A>> {
        let asks = self.questions.into_iter().zip(self.replies);
        asks.map(|(question, reply)| Ask { question, reply })
    }

    /// Hands out what came of it. Who does not listen any more has gone away.
    fn answer(self, answers: Result<Vec<A>, StoreError>) {
        match answers {
            Ok(answers) => {
                for (reply, answer) in self.replies.into_iter().zip(answers) {
                    let _ = reply.send(Ok(answer));
                }
            }
            Err(error) => {
                for reply in self.replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

impl Group {
    fn of(jobs: impl IntoIterator<Item = Job>, order: Option<Order>) -> Self {
        let mut group = Self {
            begin_waits: order.is_some(),
            begin: order,
            ..Self::default()
        };
        for job in jobs.into_iter().filter(|job| !job.is_idle()) {
            match job {
                Job::Accept(ask) => group.accepts.push(ask),
                Job::Begin(ask) => {
                    group.begin = Some(ask);
                    group.begin_waits = false;
                }
                Job::Withdraw => {
                    if let Some(order) = group.begin.take_if(|_| group.begin_waits) {
                        let _ = order.reply.send(Ok(BegunBatch::empty()));
                    } else if let Some(order) = &group.begin {
                        order.question.withdraw();
                    }
                }
                Job::Finish(ask) => group.finishes.push(ask),
                Job::Receive(ask) => group.receipts.push(ask),
            }
        }
        group
    }

    /// What is to be begun now: an order that waits is for events only.
    fn begins(&self) -> Option<&DueRules> {
        let order = self.begin.as_ref()?;
        (!self.begin_waits || !self.accepts.questions.is_empty()).then_some(&order.question)
    }

    fn len(&self) -> usize {
        let begins = usize::from(self.begins().is_some());
        self.accepts.questions.len() + begins + self.finishes.questions.len() + self.receipts.questions.len()
    }

    /// Does it in one transaction and answers; what fails is tried once more by itself, unless the database is not there.
    async fn settle(self, engine: &Engine) -> Settled {
        if self.len() == 0 {
            return Settled::with(self.begin);
        }
        match self.transact_again(engine).await {
            Ok(done) => {
                self.accepts.answer(Ok(done.accepts));
                self.finishes.answer(Ok(done.finishes));
                self.receipts.answer(Ok(done.receipts));
                let Some(order) = self.begin else {
                    return Settled::with(None);
                };
                if done.batch.begun.is_empty() && engine.is_sqlite() && order.question.waits() {
                    return Settled::with(Some(order));
                }
                let _ = order.reply.send(Ok(done.batch));
                Settled::with(None)
            }
            Err(Failure { error, was_slow })
                if self.len() > 1 && (was_slow || !error.is_outage() || error.is_conflict()) =>
            {
                tracing::debug!(error = %error.explain(), jobs = self.len(), "a shared transaction failed; each is tried alone");
                self.settle_each(engine).await
            }
            Err(Failure { error, .. }) => self.refuse(error),
        }
    }

    /// Each job in a transaction of its own. Once the database is not there, the rest gets the same error.
    async fn settle_each(mut self, engine: &Engine) -> Settled {
        // An order begins with no event that it might have failed.
        let begin = self.begin.take().map(Job::Begin);
        let mut settled = Settled::with(None);
        for job in self.into_jobs().chain(begin) {
            let single = Self::of([job], None);
            let one = match settled.outage.clone() {
                Some(error) => single.refuse(error),
                None => Box::pin(single.settle(engine)).await,
            };
            settled.order = settled.order.or(one.order);
            settled.outage = settled.outage.or(one.outage);
        }
        settled
    }

    /// Answers everybody with an error, but for an order that was not to be carried out yet.
    fn refuse(self, error: StoreError) -> Settled {
        let begins = self.begins().is_some();
        self.accepts.answer(Err(error.clone()));
        self.finishes.answer(Err(error.clone()));
        self.receipts.answer(Err(error.clone()));
        let outage = error.is_outage().then(|| error.clone());
        let order = match self.begin {
            Some(order) if begins => {
                let _ = order.reply.send(Err(error));
                None
            }
            waiting => waiting,
        };
        Settled { order, outage }
    }

    /// Does it in one transaction, within its time; again as it is where another transaction stood in its way.
    async fn transact_again(&self, engine: &Engine) -> Result<Done, Failure> {
        let mut reruns = 0;
        loop {
            let transacting = AssertUnwindSafe(self.transact(engine)).catch_unwind();
            let mut was_slow = false;
            let outcome = match tokio::time::timeout(engine.batch_time(), transacting).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => {
                    tracing::error!(
                        "a transaction failed inside Nightbell: {}",
                        crate::supervise::message(&*panic)
                    );
                    Err(StoreError::Broken)
                }
                // Each call was answered in time, so there were too many.
                Err(_) => {
                    was_slow = true;
                    Err(StoreError::from(silent()))
                }
            };
            match outcome {
                Err(error) if error.is_conflict() && reruns < RERUNS => reruns += 1,
                outcome => return outcome.map_err(|error| Failure { error, was_slow }),
            }
        }
    }

    /// All of it or nothing. Sends begin last: slots that came back are free, and new events are there.
    async fn transact(&self, engine: &Engine) -> Result<Done, StoreError> {
        // Taken before the transaction, so that a process which is frozen in it knows how late its calls are.
        let began_at = Instant::now();
        let mut tx = engine.begin().await?;
        let receipts = receipts::record_all(&mut tx, &self.receipts.questions).await?;
        let finishes = sending::finish_all(&mut tx, &self.finishes.questions).await?;
        let new = &self.accepts.questions;
        let mut born = match self.begins() {
            Some(due) if !new.is_empty() => sending::begin_new(&mut tx, due, new, began_at).await?,
            Some(_) | None => None,
        };
        if !new.is_empty() {
            alerts::queue_inserts(&mut tx, new, born.as_ref()).await?;
        }
        let mut begun = Vec::new();
        if let Some(born) = &born {
            born.queue_attempts(&mut tx);
        } else if let Some(due) = self.begins() {
            let newest = new.iter().map(|alert| alert.at).max();
            begun = sending::begin_due(&mut tx, due, newest, began_at).await?;
        }
        let accepts = if new.is_empty() {
            tx.commit().await?;
            Vec::new()
        } else {
            alerts::commit_inserts(tx, new).await?
        };
        if let Some(born) = &mut born {
            let accepted = new.iter().zip(&accepts).filter(|(_, is_new)| **is_new);
            let deliveries = accepted.flat_map(|(alert, _)| &alert.deliveries);
            begun.extend(deliveries.filter_map(|new| born.take(&new.id)));
        }
        Ok(Done {
            accepts,
            batch: BegunBatch { began_at, begun },
            finishes,
            receipts,
        })
    }

    /// Its jobs but the order.
    fn into_jobs(self) -> impl Iterator<Item = Job> {
        let accepts = self.accepts.into_asks().map(Job::Accept);
        let finishes = self.finishes.into_asks().map(Job::Finish);
        let receipts = self.receipts.into_asks().map(Job::Receive);
        receipts.chain(finishes).chain(accepts)
    }
}

/// Deliveries that were begun together.
pub struct BegunBatch {
    /// Not later than the times that their leases run from.
    pub began_at: Instant,
    pub begun: Vec<Begun>,
}

impl BegunBatch {
    fn empty() -> Self {
        Self {
            began_at: Instant::now(),
            begun: Vec::new(),
        }
    }
}

/// Why a group's transaction failed.
struct Failure {
    error: StoreError,
    /// Whether it only took too long in all.
    was_slow: bool,
}

/// What is left of a group once everybody has their answer.
struct Settled {
    /// The order that goes on waiting.
    order: Option<Order>,
    /// Why the database could not be reached, if it could not.
    outage: Option<StoreError>,
}

impl Settled {
    fn with(order: Option<Order>) -> Self {
        Self { order, outage: None }
    }
}

/// What came of a group.
struct Done {
    accepts: Vec<bool>,
    batch: BegunBatch,
    finishes: Vec<()>,
    receipts: Vec<Recorded>,
}

/// Questions that come while one is being answered are asked together next. They write nothing, so they need no writer.
async fn run_lookups(engine: Engine, lookups: Arc<Mutex<mpsc::Receiver<LookupAsk>>>) {
    let mut lookups = lookups.lock().await;
    let mut reader = None;
    let mut waiting = Vec::new();
    let closing = async {
        match &engine {
            Engine::Sqlite { reader, .. } => reader.close_event().await,
            Engine::Postgres(_) => std::future::pending().await,
        }
    };
    tokio::pin!(closing);
    loop {
        // Closing waits for every connection to be given back.
        tokio::select! {
            count = lookups.recv_many(&mut waiting, MOST) => if count == 0 { return },
            () = &mut closing => return,
        }
        let mut kind = Kind::default();
        for ask in waiting.drain(..).filter(|ask| !ask.reply.is_closed()) {
            kind.push(ask);
        }
        let looking = alerts::look_up_all(&engine, &mut reader, &kind.questions);
        let found = tokio::time::timeout(engine.batch_time(), looking).await;
        kind.answer(found.unwrap_or_else(|_| Err(StoreError::from(silent()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{answer::Receipt, route::ProviderName};
    use jiff::{SignedDuration, Timestamp};

    fn receipt() -> (Job, oneshot::Receiver<Result<Recorded, StoreError>>) {
        let receipt = Receipt {
            provider: ProviderName::Log,
            message_id: "m".into(),
            status: "sent".into(),
            news: Some(crate::domain::delivery::News::Sent),
            read: false,
            error_code: None,
            opted_out: false,
            attempt: None,
        };
        let received = Received::new(receipt, SignedDuration::ZERO, Timestamp::UNIX_EPOCH);
        let (ask, answer) = ask(Arc::new(received));
        (Job::Receive(ask), answer)
    }

    #[test]
    fn a_group_ends_where_it_would_have_too_many_rows() {
        let mut waiting: VecDeque<Job> = (0..MOST_ROWS + 10).map(|_| receipt().0).collect();

        assert_eq!(first_rows(&mut waiting).len(), MOST_ROWS);
        assert_eq!(first_rows(&mut waiting).len(), 10);
        assert!(first_rows(&mut waiting).is_empty());
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_left_out() {
        let (kept, _answer) = receipt();
        let (idle, gone) = receipt();
        drop(gone);

        let group = Group::of([idle, kept], None);

        assert_eq!(group.len(), 1);
    }

    #[test]
    fn who_finds_the_queue_full_is_told_to_come_again() {
        let (lane, _jobs) = mpsc::channel(1);
        assert!(queue(&lane, receipt().0).is_ok());

        assert!(matches!(queue(&lane, receipt().0), Err(StoreError::Busy)));
    }
}
