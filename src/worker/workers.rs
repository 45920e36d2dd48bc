//! Runs what this process does in the background as workers under one apalis `Monitor`: the deliveries, and the timed
//! jobs, each in a file of its own. A worker that panics is said in the log and started anew after a pause; one that goes on
//! panicking ends the process (see `supervise`). The only file that names apalis. Absent: what the workers do.
//!
//! Two things are not left to apalis 1.0:
//! - What a worker has begun is a tokio task of its own, which apalis only waits for. Under load, one stop in a dozen was
//!   seen in which apalis no longer drove its handlers, and an answer that the provider had given was not recorded. So what
//!   is under way holds a slot, and a stop ends when the slots are free, whatever apalis has come to. All workers of a
//!   monitor are polled by one task besides: work that keeps the processor busy would hold up the others.
//! - The pause before a restart: `should_restart` can only say yes or no, so the pause is kept for the new worker.

use crate::{
    store::StoreError,
    supervise::{Failures, Fatal},
};
use apalis::prelude::{Monitor, WorkerBuilder, WorkerError};
use futures::{
    FutureExt, StreamExt,
    future::{self, BoxFuture, join_all},
    stream::{self, BoxStream},
};
use std::{
    collections::HashMap,
    convert::Infallible,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinError, JoinHandle},
    time::MissedTickBehavior,
};

/// After the time that a round has at a stop, it is cut off; that takes no longer than this.
const CUT_OFF: Duration = Duration::from_secs(1);

/// Tasks that were begun together, for apalis to wait for. Each holds a slot for as long as it lives.
pub type Tasks = Vec<JoinHandle<()>>;

/// Work that is done again and again. The files of the jobs make these.
pub struct TimedJob {
    /// What it does, as in "cannot sweep; will try again".
    name: &'static str,
    /// From the beginning of a round to the next one, unless the round takes longer.
    every: Duration,
    /// How long a round that is under way at a stop may take to end; nothing is lost with most of them.
    drain: Duration,
    round: Box<dyn Fn() -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>,
    /// Ends when a round is wanted before its time.
    wake: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl TimedJob {
    pub fn new<T, F>(
        name: &'static str,
        every: Duration,
        context: &Arc<T>,
        round: impl Fn(Arc<T>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: Send + Sync + 'static,
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let context = Arc::clone(context);
        Self {
            name,
            every,
            drain: Duration::ZERO,
            round: Box::new(move || round(Arc::clone(&context)).boxed()),
            wake: Box::new(|| future::pending().boxed()),
        }
    }

    /// Begins a round also when this ends.
    pub fn woken_by<T, F>(self, context: &Arc<T>, wake: impl Fn(Arc<T>) -> F + Send + Sync + 'static) -> Self
    where
        T: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let context = Arc::clone(context);
        Self {
            wake: Box::new(move || wake(Arc::clone(&context)).boxed()),
            ..self
        }
    }

    /// Lets a round that is under way at a stop go on for so long.
    pub fn drained_for(self, drain: Duration) -> Self {
        Self { drain, ..self }
    }

    /// One round, unless a stop cuts it off.
    async fn run(&self, mut stop: watch::Receiver<bool>) {
        let cut_off = async {
            stopped(&mut stop).await;
            tokio::time::sleep(self.drain).await;
        };
        tokio::select! {
            done = (self.round)() => if let Err(error) = done {
                tracing::warn!(%error, "cannot {}; will try again", self.name);
            },
            () = cut_off => {}
        }
    }
}

/// The workers of this process.
pub struct Workers {
    monitor: Monitor,
    failed: Arc<Failed>,
    stop: watch::Receiver<bool>,
    /// Each ends when what its worker has begun has ended after a stop, or has had its time.
    drained: Vec<BoxFuture<'static, ()>>,
}

impl Workers {
    pub fn new(fatal: Fatal, stop: watch::Receiver<bool>) -> Self {
        let failed = Arc::new(Failed {
            workers: Mutex::default(),
            fatal,
        });
        let counted = Arc::clone(&failed);
        let monitor = Monitor::new().should_restart(move |worker, error| {
            let why = match error {
                WorkerError::PanicError(text) => format!("it panicked: {text}"),
                error => error.to_string(),
            };
            counted.may_restart(worker.name(), &why)
        });
        Self {
            monitor,
            failed,
            stop,
            drained: Vec::new(),
        }
    }

    /// Adds a worker that does a job again and again, one round after the other.
    pub fn timed(self, job: TimedJob) -> Self {
        let (job, stop) = (Arc::new(job), self.stop.clone());
        let (name, grace) = (job.name, job.drain + CUT_OFF);
        self.add(name, 1, grace, move |slots| {
            let mut ticks = tokio::time::interval(job.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let state = (ticks, Arc::clone(&job), slots, stop.clone());
            let rounds = stream::unfold(state, |(mut ticks, job, slots, stop)| async move {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = (job.wake)() => {}
                }
                let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
                let (doing, stopping) = (Arc::clone(&job), stop.clone());
                let round = tokio::spawn(async move {
                    doing.run(stopping).await;
                    drop(slot);
                });
                Some((vec![round], (ticks, job, slots, stop)))
            });
            rounds.boxed()
        })
    }

    /// Adds a worker whose tasks the stream of `begin` begins, one for each slot at most; at a stop they may take `grace`
    /// to end. The stream must not end before: its worker would stay without work, and apalis would not say so.
    pub fn add(
        mut self,
        name: &'static str,
        most: usize,
        grace: Duration,
        begin: impl Fn(Arc<Semaphore>) -> BoxStream<'static, Tasks> + Send + Sync + 'static,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(most));
        let (failed, free) = (Arc::clone(&self.failed), Arc::clone(&slots));
        self.monitor = self.monitor.register(move |_| {
            let pause = tokio::time::sleep(failed.pause(name));
            let begun = begin(Arc::clone(&slots)).map(Ok::<_, Infallible>);
            WorkerBuilder::new(name)
                .backend(stream::once(pause.map(|()| begun)).flatten().boxed())
                .build(async |begun: Tasks| {
                    for task in begun {
                        pass_panic_on(task.await);
                    }
                })
        });
        let mut stop = self.stop.clone();
        self.drained.push(
            async move {
                stopped(&mut stop).await;
                // All slots free again means that nothing is begun and nothing is under way.
                let all = free.acquire_many(u32::try_from(most).unwrap_or(u32::MAX));
                if tokio::time::timeout(grace, all).await.is_err() {
                    tracing::warn!(
                        task = name,
                        after_s = grace.as_secs(),
                        "cut off what did not end; its leases end by themselves"
                    );
                }
            }
            .boxed(),
        );
        self
    }

    /// Runs until the stop, and until what was begun has ended or has had its time.
    pub async fn run(self) {
        let Self {
            monitor,
            failed,
            mut stop,
            drained,
        } = self;
        let drained = join_all(drained);
        tokio::pin!(drained);
        let stopping = stop.clone();
        let signal = async {
            stopped(&mut stop).await;
            Ok(())
        };
        tokio::select! {
            ended = monitor.run_with_signal(signal) => {
                if !*stopping.borrow() {
                    failed.fatal.report(format!("apalis ended: {ended:?}"));
                }
                drained.await;
            }
            _ = &mut drained => {}
        }
    }
}

/// How often the workers failed lately.
struct Failed {
    /// The failures of each, and how long it has to wait before it begins anew.
    workers: Mutex<HashMap<String, (Failures, Duration)>>,
    fatal: Fatal,
}

impl Failed {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Failures, Duration)>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a failure; returns whether the worker is to be started anew.
    fn may_restart(&self, worker: &str, why: &str) -> bool {
        let mut workers = self.lock();
        let (failures, pause) = workers.entry(worker.to_owned()).or_default();
        let next = failures.log(worker, why, &self.fatal);
        *pause = next.unwrap_or_default();
        next.is_some()
    }

    fn pause(&self, worker: &str) -> Duration {
        self.lock().get(worker).map_or(Duration::ZERO, |(_, pause)| *pause)
    }
}

/// Lets the panic of a task go on in the worker: that is how apalis notices it. `None` where the runtime ends.
pub fn pass_panic_on<T>(ended: Result<T, JoinError>) -> Option<T> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(value) => Some(value),
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => None,
    }
}

/// Ends when `stop` turns true. Its sender lives as long as the process; if it is gone, stopping is right too.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::Instant;

    const SOON: Duration = Duration::from_millis(1);

    /// Runs one job until `enough`, then stops; returns how long the stop took.
    async fn run(job: TimedJob, fatal: &Fatal, enough: impl Future<Output = ()>) -> Duration {
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(Workers::new(fatal.clone(), stopping).timed(job).run());
        enough.await;
        let stopped_at = Instant::now();
        stop.send_replace(true);
        running.await.unwrap();
        stopped_at.elapsed()
    }

    async fn reaches(count: &AtomicUsize, wanted: usize) {
        while count.load(Ordering::SeqCst) < wanted {
            tokio::time::sleep(SOON).await;
        }
    }

    #[tokio::test]
    async fn a_job_that_panics_is_started_anew_after_a_pause() {
        let (rounds, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let job = TimedJob::new("test", SOON, &rounds, async |rounds: Arc<AtomicUsize>| {
            assert!(rounds.fetch_add(1, Ordering::SeqCst) != 1, "a bug");
            Ok(())
        });

        run(job, &Fatal::default(), reaches(&rounds, 4)).await;

        assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_worker_that_goes_on_panicking_is_fatal_and_the_others_go_on() {
        let failed = Failed {
            workers: Mutex::default(),
            fatal: Fatal::default(),
        };

        let restarts: Vec<bool> = (0..5)
            .map(|_| failed.may_restart("one", "it panicked: a bug"))
            .collect();

        assert_eq!(restarts, [true, true, true, true, false]);
        let why = failed.fatal.reported().await;
        assert!(why.contains("`one`") && why.contains("it panicked: a bug"), "{why}");
        assert!(failed.may_restart("another", "it panicked: a bug"));
        assert_eq!(failed.pause("another"), Duration::from_millis(500));
        assert_eq!(failed.pause("a third"), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_round_under_way_at_a_stop_has_its_time_and_no_more() {
        for (needs_ms, drain_ms, ends) in [(50, 5_000, true), (60_000, 100, false), (60_000, 0, false)] {
            let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let context = Arc::new((Arc::clone(&begun), Arc::clone(&ended)));
            let job = TimedJob::new("test", SOON, &context, move |context| async move {
                context.0.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(needs_ms)).await;
                context.1.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });

            let job = job.drained_for(Duration::from_millis(drain_ms));
            let took = run(job, &Fatal::default(), reaches(&begun, 1)).await;

            assert_eq!(ended.load(Ordering::SeqCst), usize::from(ends));
            assert!(took < Duration::from_millis(needs_ms.min(drain_ms) + 900), "{took:?}");
        }
    }
}
