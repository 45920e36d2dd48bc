//! Group commit. An fsync and a round trip to the database cost the same for one row and for a hundred, so what comes while
//! a transaction is under way goes together in the next one, each job with its own result after the commit they share. A
//! lone job goes at once, but for one that nobody is in a hurry about: that waits a moment for company.
//!
//! A batch that fails is rolled back and tried again job by job, so that one bad row fails nobody else; one that stood in
//! the way of another transaction is first tried again as it is. While the database is not there, everybody who waits gets
//! the same error at once. Nothing waits without an end: the queue is bounded, and a batch has its time.
//!
//! Absent: what the jobs are and what is done with them (see `writes`).

use super::{error::StoreError, session::no_answer};
use crate::supervise::{self, Fatal, keep_running};
use futures::FutureExt;
use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::{Mutex, mpsc, oneshot};

/// More jobs than this share no transaction, nor do jobs with more rows: the first of them should not wait for long, and
/// nobody beside them for their locks.
const MAX_JOBS: usize = 256;
pub const MAX_ROWS: usize = 2_000;
/// More jobs than this do not wait: whoever comes then is told to come again.
const QUEUE: usize = 4_096;
/// How long jobs wait for company that can.
const LINGER: Duration = Duration::from_millis(1);
/// How often a batch is tried again as it is, if another transaction stood in its way.
const RERUNS: usize = 3;

/// What a batcher asks of its jobs.
pub trait Work: Send + Sync + 'static {
    /// How many rows it writes, about.
    fn rows(&self) -> usize;

    /// Whether it is done in the background: also if whoever asked is gone, and after a moment's wait for company, so that
    /// an fsync serves them both. Who goes away from other jobs got no answer, and asks again.
    fn is_background(&self) -> bool {
        false
    }

    /// Whether it takes hardly longer than asking for it, so that a batcher that went at once would always find one or two.
    /// It lets those go first that are about to ask.
    fn is_brief(&self) -> bool {
        false
    }
}

/// A job that waits, and who for.
struct Ask<J, A> {
    job: Arc<J>,
    reply: oneshot::Sender<Result<A, StoreError>>,
}

/// The way to one batcher.
pub struct Batcher<J, A>(mpsc::Sender<Ask<J, A>>);

impl<J, A> Clone for Batcher<J, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<J: Work, A: Send + 'static> Batcher<J, A> {
    /// Starts a batcher; it ends with the last way to it. `run` does jobs together, all or none, within `time`, and returns
    /// what came of each, in their order.
    pub fn start<F>(
        task: &'static str,
        time: Duration,
        fatal: &Fatal,
        run: impl Fn(Vec<Arc<J>>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Vec<A>, StoreError>> + Send,
    {
        let (sender, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let start = move || {
            let runner = Runner { time, run: run.clone() };
            let queue = Arc::clone(&queue);
            async move { runner.serve(&mut *queue.lock().await).await }
        };
        tokio::spawn(keep_running(task, fatal.clone(), || true, start));
        Self(sender)
    }

    /// Has a job done. Refused if too many wait.
    pub async fn submit(&self, job: J) -> Result<A, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Arc::new(job);
        self.0.try_send(Ask { job, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => gone(),
        })?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Has a job done; waits for a place in the queue.
    pub async fn submit_waiting(&self, job: Arc<J>) -> Result<A, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Ask { job, reply }).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// A batcher that is gone answers nobody: the process is about to end.
fn gone() -> StoreError {
    sqlx::Error::PoolClosed.into()
}

struct Runner<R> {
    time: Duration,
    run: R,
}

/// Why a batch failed.
struct Failure {
    error: StoreError,
    /// Whether it only took too long in all.
    was_slow: bool,
}

impl<R> Runner<R> {
    async fn serve<J: Work, A, F>(&self, queue: &mut mpsc::Receiver<Ask<J, A>>)
    where
        R: Fn(Vec<Arc<J>>) -> F,
        F: Future<Output = Result<Vec<A>, StoreError>>,
    {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match queue.recv().await {
                    Some(ask) => waiting.push_back(ask),
                    None => return,
                }
            }
            if waiting.iter().all(|ask| ask.job.is_brief()) {
                tokio::task::yield_now().await;
            }
            fill(&mut waiting, queue);
            if waiting.iter().all(|ask| ask.job.is_background())
                && let Ok(Some(ask)) = tokio::time::timeout(LINGER, queue.recv()).await
            {
                waiting.push_back(ask);
                fill(&mut waiting, queue);
            }
            let mut batch = first_rows(&mut waiting);
            batch.retain(|ask| ask.job.is_background() || !ask.reply.is_closed());
            if !batch.is_empty() {
                self.settle(batch).await;
            }
        }
    }

    /// Does a batch and answers; if it fails, job by job, unless the database is not there.
    async fn settle<J: Work, A, F>(&self, batch: Vec<Ask<J, A>>)
    where
        R: Fn(Vec<Arc<J>>) -> F,
        F: Future<Output = Result<Vec<A>, StoreError>>,
    {
        match self.run_again(&batch).await {
            Ok(answers) => answer(batch, answers),
            Err(Failure { error, was_slow })
                if batch.len() > 1 && (was_slow || !error.is_outage() || error.is_conflict()) =>
            {
                tracing::debug!(%error, jobs = batch.len(), "a shared transaction failed; each job is tried alone");
                let mut outage = None;
                for ask in batch {
                    let single = [ask];
                    let outcome = match &outage {
                        Some(error) => Err(StoreError::clone(error)),
                        None => self.run_again(&single).await.map_err(|failure| failure.error),
                    };
                    if let Err(error) = &outcome
                        && error.is_outage()
                    {
                        outage = Some(error.clone());
                    }
                    match outcome {
                        Ok(answers) => answer(single, answers),
                        Err(error) => refuse(single, &error),
                    }
                }
            }
            Err(Failure { error, .. }) => refuse(batch, &error),
        }
    }

    /// Runs it within its time; again as it is where another transaction stood in its way.
    async fn run_again<J: Work, A, F>(&self, batch: &[Ask<J, A>]) -> Result<Vec<A>, Failure>
    where
        R: Fn(Vec<Arc<J>>) -> F,
        F: Future<Output = Result<Vec<A>, StoreError>>,
    {
        let mut reruns = 0;
        loop {
            let jobs = batch.iter().map(|ask| Arc::clone(&ask.job)).collect();
            let running = AssertUnwindSafe((self.run)(jobs)).catch_unwind();
            let mut was_slow = false;
            let outcome = match tokio::time::timeout(self.time, running).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => {
                    tracing::error!("a transaction failed inside Nightbell: {}", supervise::message(&*panic));
                    Err(StoreError::Broken)
                }
                // Each call was answered in time, so there were too many.
                Err(_) => {
                    was_slow = true;
                    Err(no_answer().into())
                }
            };
            match outcome {
                Err(error) if error.is_conflict() && reruns < RERUNS => reruns += 1,
                outcome => return outcome.map_err(|error| Failure { error, was_slow }),
            }
        }
    }
}

/// Adds what is in the queue by now.
fn fill<J, A>(waiting: &mut VecDeque<Ask<J, A>>, queue: &mut mpsc::Receiver<Ask<J, A>>) {
    while waiting.len() < MAX_JOBS
        && let Ok(ask) = queue.try_recv()
    {
        waiting.push_back(ask);
    }
}

/// Takes the first jobs out, as many as share a transaction.
fn first_rows<J: Work, A>(waiting: &mut VecDeque<Ask<J, A>>) -> Vec<Ask<J, A>> {
    let (mut taken, mut rows) = (Vec::with_capacity(waiting.len().min(MAX_JOBS)), 0);
    while let Some(ask) = waiting.pop_front_if(|ask| rows == 0 || rows + ask.job.rows() <= MAX_ROWS) {
        rows += ask.job.rows();
        taken.push(ask);
    }
    taken
}

/// Hands out what came of the jobs. Who does not listen any more has gone away.
fn answer<J, A>(asks: impl IntoIterator<Item = Ask<J, A>>, answers: Vec<A>) {
    for (ask, answer) in asks.into_iter().zip(answers) {
        let _ = ask.reply.send(Ok(answer));
    }
}

fn refuse<J, A>(asks: impl IntoIterator<Item = Ask<J, A>>, error: &StoreError) {
    for ask in asks {
        let _ = ask.reply.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Job {
        rows: usize,
        background: bool,
    }

    impl Work for Job {
        fn rows(&self) -> usize {
            self.rows
        }

        fn is_background(&self) -> bool {
            self.background
        }
    }

    fn ask(rows: usize) -> Ask<Job, usize> {
        Ask {
            job: Arc::new(Job {
                rows,
                background: false,
            }),
            reply: oneshot::channel().0,
        }
    }

    #[test]
    fn a_batch_ends_where_it_would_have_too_many_rows() {
        let mut waiting: VecDeque<_> = [MAX_ROWS - 1, 1, 1, MAX_ROWS + 1, 1].map(ask).into();

        let taken: Vec<usize> =
            std::iter::from_fn(|| Some(first_rows(&mut waiting).len()).filter(|taken| *taken > 0)).collect();

        assert_eq!(taken, [2, 1, 1, 1]);
    }

    /// A batcher that fails whenever job 13 is among the jobs, and counts.
    fn counting(runs: &Arc<std::sync::Mutex<Vec<usize>>>) -> Batcher<Job, usize> {
        let runs = Arc::clone(runs);
        Batcher::start(
            "test",
            Duration::from_secs(5),
            &Fatal::default(),
            move |jobs: Vec<Arc<Job>>| {
                runs.lock().unwrap().push(jobs.len());
                let bad = jobs.iter().any(|job| job.rows == 13);
                async move {
                    if bad {
                        return Err(StoreError::Broken);
                    }
                    Ok(jobs.iter().map(|job| job.rows).collect())
                }
            },
        )
    }

    #[tokio::test]
    async fn a_bad_job_fails_alone() {
        let batcher = counting(&Arc::default());

        let jobs = (10..20).map(|rows| {
            batcher.submit(Job {
                rows,
                background: false,
            })
        });
        let answers = futures::future::join_all(jobs).await;

        for (rows, answer) in (10..20).zip(answers) {
            match answer {
                Ok(answer) => assert_eq!((answer, rows == 13), (rows, false)),
                Err(_) => assert_eq!(rows, 13),
            }
        }
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_is_left_out_unless_it_is_done_in_the_background() {
        let runs = Arc::default();
        let batcher = counting(&runs);
        drop(
            batcher
                .submit(Job {
                    rows: 1,
                    background: false,
                })
                .now_or_never(),
        );
        drop(
            batcher
                .submit_waiting(Arc::new(Job {
                    rows: 2,
                    background: true,
                }))
                .now_or_never(),
        );

        assert_eq!(
            batcher
                .submit(Job {
                    rows: 3,
                    background: false
                })
                .await
                .ok(),
            Some(3)
        );

        assert_eq!(*runs.lock().unwrap(), [2], "the one in the background and the last");
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_is_told_to_come_again() {
        let (sender, _queue) = mpsc::channel(1);
        let batcher: Batcher<Job, usize> = Batcher(sender);
        let _waiting = batcher
            .submit(Job {
                rows: 1,
                background: false,
            })
            .now_or_never();

        let refused = batcher
            .submit(Job {
                rows: 1,
                background: false,
            })
            .now_or_never();

        assert!(matches!(refused, Some(Err(StoreError::Busy))));
    }
}
