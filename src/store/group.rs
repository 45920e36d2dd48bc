//! Group commit. An fsync and a trip to the database cost the same for one row and for a hundred, so what comes while a
//! transaction is under way goes together in the next one: accepted events, begun sends, answers and receipts, each with
//! its own result after the commit they share. Who comes alone goes at once; nobody waits for company.
//!
//! SQLite has one writer, so one lane takes all kinds. On PostgreSQL each kind has its own, and they run side by side.
//! A group that fails is rolled back and tried again one by one, so that one bad row fails nobody else.
//!
//! On SQLite a worker with nothing to do leaves its order with the writer: what an event brings is then begun in the very
//! transaction that accepts it, which spares a commit on the way to the provider.

use super::{
    Engine, StoreError,
    alerts::{self, Lookup, NewAlert},
    receipts::{self, Received, Recorded},
    sending::{self, Answered, Begun, DueRules},
};
use futures::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};
use tokio::sync::{mpsc, oneshot};

/// More than this share no transaction: the first of them should not wait for long.
const MOST: usize = 256;

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

/// The ways into the groups of one database.
#[derive(Clone)]
pub(super) struct Groups {
    accept: mpsc::UnboundedSender<Job>,
    begin: mpsc::UnboundedSender<Job>,
    finish: mpsc::UnboundedSender<Job>,
    receive: mpsc::UnboundedSender<Job>,
    look_up: mpsc::UnboundedSender<Ask<Lookup, Option<String>>>,
}

impl Groups {
    /// Starts the lanes; they end with the last `Groups`.
    pub fn over(engine: &Engine) -> Self {
        let lane = || {
            let (sender, jobs) = mpsc::unbounded_channel();
            tokio::spawn(run(engine.clone(), jobs));
            sender
        };
        let (look_up, lookups) = mpsc::unbounded_channel();
        tokio::spawn(run_lookups(engine.clone(), lookups));
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
        let _ = self.accept.send(Job::Accept(ask));
        receive(answer).await
    }

    /// Begins to send what is due. If nothing is, waits until an event brings something, or until `given_up` ends. Once
    /// asked, the answer must be awaited: what was begun has to be called.
    pub async fn begin(&self, rules: DueRules, given_up: impl Future<Output = ()>) -> Result<BegunBatch, StoreError> {
        let (ask, answer) = ask(Arc::new(rules));
        let _ = self.begin.send(Job::Begin(ask));
        let answer = receive(answer);
        tokio::pin!(answer);
        tokio::select! {
            biased;
            begun = &mut answer => return begun,
            () = given_up => {}
        }
        let _ = self.begin.send(Job::Withdraw);
        answer.await
    }

    /// Records an answer.
    pub async fn finish(&self, answered: Arc<Answered>) -> Result<(), StoreError> {
        let (ask, answer) = ask(answered);
        let _ = self.finish.send(Job::Finish(ask));
        receive(answer).await
    }

    /// Records a receipt.
    pub async fn receive(&self, received: Received) -> Result<Recorded, StoreError> {
        let (ask, answer) = ask(Arc::new(received));
        let _ = self.receive.send(Job::Receive(ask));
        receive(answer).await
    }

    /// Finds the alert of a ticket, from what is committed.
    pub async fn look_up(&self, lookup: Lookup) -> Result<Option<String>, StoreError> {
        let (ask, answer) = ask(Arc::new(lookup));
        let _ = self.look_up.send(ask);
        receive(answer).await
    }
}

fn ask<Q, A>(question: Arc<Q>) -> (Ask<Q, A>, oneshot::Receiver<Result<A, StoreError>>) {
    let (reply, answer) = oneshot::channel();
    (Ask { question, reply }, answer)
}

/// A lane that is gone answers nobody: the process is about to end.
async fn receive<A>(answer: oneshot::Receiver<Result<A, StoreError>>) -> Result<A, StoreError> {
    answer
        .await
        .unwrap_or_else(|_| Err(StoreError::from(sqlx::Error::PoolClosed)))
}

async fn run(engine: Engine, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut waiting = Vec::new();
    let mut order = None;
    while jobs.recv_many(&mut waiting, MOST).await > 0 {
        let group = Group::of(waiting.drain(..), order.take());
        order = group.settle(&engine).await;
    }
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
        for job in jobs {
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
    /// Returns the order that goes on waiting.
    async fn settle(mut self, engine: &Engine) -> Option<Order> {
        if self.len() == 0 {
            return self.begin;
        }
        let outcome = AssertUnwindSafe(self.transact(engine)).catch_unwind().await;
        match outcome.unwrap_or(Err(StoreError::Broken)) {
            Ok(done) => {
                self.accepts.answer(Ok(done.accepts));
                self.finishes.answer(Ok(done.finishes));
                self.receipts.answer(Ok(done.receipts));
                let order = self.begin?;
                if done.batch.begun.is_empty() && engine.is_sqlite() && order.question.waits() {
                    return Some(order);
                }
                let _ = order.reply.send(Ok(done.batch));
                None
            }
            Err(error) if self.len() > 1 && !error.is_outage() => {
                tracing::debug!(error = %error.explain(), jobs = self.len(), "a shared transaction failed; each is tried alone");
                // An order begins with no event that it might have failed.
                let begin = self.begin.take().map(Job::Begin);
                for job in self.into_jobs().chain(begin) {
                    if let Some(order) = Box::pin(Self::of([job], None).settle(engine)).await {
                        return Some(order);
                    }
                }
                None
            }
            Err(error) => {
                let begins = self.begins().is_some();
                self.accepts.answer(Err(error.clone()));
                self.finishes.answer(Err(error.clone()));
                self.receipts.answer(Err(error.clone()));
                let order = self.begin?;
                if !begins {
                    return Some(order);
                }
                let _ = order.reply.send(Err(error));
                None
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

/// What came of a group.
struct Done {
    accepts: Vec<bool>,
    batch: BegunBatch,
    finishes: Vec<()>,
    receipts: Vec<Recorded>,
}

/// Questions that come while one is being answered are asked together next. They write nothing, so they need no writer.
async fn run_lookups(engine: Engine, mut lookups: mpsc::UnboundedReceiver<Ask<Lookup, Option<String>>>) {
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
        for ask in waiting.drain(..) {
            kind.push(ask);
        }
        let found = alerts::look_up_all(&engine, &mut reader, &kind.questions).await;
        kind.answer(found);
    }
}
