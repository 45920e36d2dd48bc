//! What becomes of a task that must run for as long as the process does and has failed: that is said in the log, and it is
//! started anew after a pause; after five failures within a minute the whole process is to end with an error, so that
//! whoever started it (systemd) starts it again. The workers are started anew by apalis (`worker::workers`), which neither
//! counts nor waits; `keep_running` is for the batchers of the store, which are there without any worker too, as in a
//! process that only takes events. Absent: what the tasks do.

use std::{
    any::Any,
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::SetOnce, task::JoinSet};

/// This many failures of one task within `WITHIN` are not to be mended by starting it once more.
const MOST_FAILURES: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);
/// The pause after a first failure; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The way in which a task says that the process cannot go on.
#[derive(Clone, Debug, Default)]
pub struct Fatal(Arc<SetOnce<String>>);

impl Fatal {
    /// The first to say so is heard.
    pub fn report(&self, why: String) {
        let _ = self.0.set(why);
    }

    /// Waits until a task has said so; returns why.
    pub async fn reported(&self) -> String {
        self.0.wait().await.clone()
    }
}

/// The failures of one task.
#[derive(Debug, Default)]
pub struct Failures(VecDeque<Instant>);

impl Failures {
    /// Notes a failure at `at`. Returns how long to wait before the task is started again; `None` if that would not help.
    pub fn add(&mut self, at: Instant) -> Option<Duration> {
        self.0.retain(|failure| at.saturating_duration_since(*failure) < WITHIN);
        self.0.push_back(at);
        let doublings = u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX);
        (self.0.len() < MOST_FAILURES).then(|| FIRST_PAUSE * 2_u32.saturating_pow(doublings))
    }

    /// Notes a failure now and says so in the log. Returns how long to wait, or `None` after telling `fatal`.
    pub fn log(&mut self, task: &str, why: &str, fatal: &Fatal) -> Option<Duration> {
        let pause = self.add(Instant::now());
        if let Some(pause) = pause {
            let restart_in_ms = pause.as_millis();
            tracing::error!(task, restart_in_ms, "a task failed inside Nightbell: {why}");
        } else {
            let often = format!("failed {MOST_FAILURES} times within a minute: {why}");
            tracing::error!(task, "a task {often}");
            fatal.report(format!("the task `{task}` {often}"));
        }
        pause
    }
}

/// Runs what `start` makes again and again. A normal end is a failure unless `may_end` says that it is right.
pub async fn keep_running<F>(task: &'static str, fatal: Fatal, may_end: impl Fn() -> bool, mut start: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut failures = Failures::default();
    loop {
        // Ends with us, if we are dropped.
        let mut running = JoinSet::new();
        running.spawn(start());
        let why = match running.join_next().await {
            Some(Err(error)) if error.is_panic() => message(error.into_panic().as_ref()),
            Some(Err(_)) | None => return,
            Some(Ok(())) if may_end() => return,
            Some(Ok(())) => "it ended too early".to_owned(),
        };
        match failures.log(task, &why, &fatal) {
            Some(pause) if !may_end() => tokio::time::sleep(pause).await,
            Some(_) | None => return,
        }
    }
}

/// What a panic said.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().copied();
    let text = literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn five_failures_within_a_minute_are_the_end_and_five_in_an_hour_are_not() {
        let start = Instant::now();
        let seconds = |second| start + Duration::from_secs(second);
        let mut failures = Failures::default();

        let pauses: Vec<_> = [0, 1, 2, 3, 4].map(|second| failures.add(seconds(second))).into();
        assert_eq!(
            pauses,
            [Some(500), Some(1_000), Some(2_000), Some(4_000), None].map(|ms| ms.map(Duration::from_millis))
        );

        let mut failures = Failures::default();
        for minute in 0..60 {
            assert!(failures.add(seconds(minute * 61)).is_some(), "{minute}");
        }
    }

    #[test]
    fn the_fifth_failure_is_reported_with_its_cause() {
        let (fatal, mut failures) = (Fatal::default(), Failures::default());

        for _ in 1..MOST_FAILURES {
            assert!(failures.log("test", "a bug", &fatal).is_some());
        }
        assert!(fatal.0.get().is_none());
        assert!(failures.log("test", "a bug", &fatal).is_none());

        let why = fatal.0.get().unwrap();
        assert!(why.contains("`test`") && why.contains("a bug"), "{why}");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_started_anew_until_it_may_end() {
        let starts = Arc::new(AtomicUsize::new(0));
        let (counted, seen) = (Arc::clone(&starts), Arc::clone(&starts));

        keep_running(
            "test",
            Fatal::default(),
            move || seen.load(Ordering::Relaxed) == 2,
            move || {
                let start = counted.fetch_add(1, Ordering::Relaxed);
                async move { assert!(start > 0, "a bug") }
            },
        )
        .await;

        assert_eq!(starts.load(Ordering::Relaxed), 2);
    }
}
