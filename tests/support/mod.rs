//! What stories run in: the service as a process of its own, a fake Twilio, a database.

pub mod browser;
pub mod clock;
pub mod database;
pub mod env;
pub mod mariadb;
pub mod osticket;
pub mod proxy;
pub mod receiver;
pub mod redmine;
pub mod rt;
pub mod service;
pub mod services;
pub mod smtp;
pub mod twilio;
pub mod zammad;

use std::time::Duration;

/// Longer than anything here takes on a busy machine; only a story that fails waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a caller that will try again waits for an answer.
pub const ANSWER: Duration = Duration::from_millis(700);

/// Runs every story on SQLite and on PostgreSQL. Each takes the database to run on.
macro_rules! stories {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::database::Database::sqlite()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(database) = $crate::support::database::Database::postgres(stringify!($name)).await {
                    super::$name(database).await;
                }
            })+
        }
    };
}

/// A client for talking to the service.
pub fn client() -> reqwest::Client {
    // As in the program: the first to install a crypto provider wins.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// A port that nobody listens on just now, for a server that can only be told one.
pub fn free_port() -> u16 {
    // Closed at once: a listener that stays would take the server's connections and never answer.
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port()
}

/// Waits until `look` sees what the story waits for; fails with what was seen last.
pub async fn eventually<T, S: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, S>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let started = std::time::Instant::now();
    loop {
        ticks.tick().await;
        match look().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > PATIENCE => {
                panic!("waited in vain for {what}; last seen: {seen:#?}")
            }
            Err(_) => {}
        }
    }
}

/// Says that stories are left out because something is not on this machine, or fails if it must be.
pub fn left_out(service: &str, story: &str) {
    use std::io::Write;
    let required = std::env::var("NIGHTBELL_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == service),
        "{service} is required by NIGHTBELL_TEST_REQUIRE and is not on this machine"
    );
    // Past the test harness, which swallows what passing tests print.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {story}: {service} is not on this machine");
}
