//! How long an event takes to reach the provider, what the idle process weighs, and how fast it starts. Starts the
//! release binary and a fake provider on loopback, posts events at a steady rate, and prints a table.
//!
//!     cargo bench --bench latency [-- --rate 50 --seconds 20]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on should panic"
)]

use axum::{Form, Json, Router, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

type Arrivals = Arc<Mutex<HashMap<String, Instant>>>;

/// Answers like Twilio at once and notes when each number was called.
async fn create(
    State(arrivals): State<Arrivals>,
    Form(form): Form<HashMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    arrivals.lock().unwrap().insert(form["To"].clone(), Instant::now());
    (
        StatusCode::CREATED,
        Json(json!({"sid": format!("SM{}", &form["To"][1..]), "status": "queued"})),
    )
}

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &std::path::Path, provider: &str) -> (Service, String, Duration) {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_nightbell"))
        .arg("serve")
        .current_dir(folder)
        .env_clear()
        .envs([
            ("NIGHTBELL_LISTEN", "127.0.0.1:0"),
            ("NIGHTBELL_AUTH__INTAKE_TOKENS", "bench"),
            ("NIGHTBELL_AUTH__ADMIN_TOKENS", "bench"),
            ("NIGHTBELL_SMS__DRIVER", "twilio"),
            ("NIGHTBELL_SMS__PER_SECOND", "0"),
            ("NIGHTBELL_DAILY_LIMIT", "1000000"),
            ("NIGHTBELL_TWILIO__ACCOUNT_SID", "AC1"),
            ("NIGHTBELL_TWILIO__AUTH_TOKEN", "token"),
            ("NIGHTBELL_TWILIO__FROM", "+15005550006"),
            ("NIGHTBELL_TWILIO__BASE_URL", provider),
            ("NIGHTBELL_LOG__FILTER", "warn"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    (Service(child), address, started.elapsed())
}

/// Proportional set size in kB: what the process adds to the machine.
fn pss(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap()
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1_000.0
}

fn argument(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    arguments
        .iter()
        .position(|argument| argument == name)
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(default)
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (rate, seconds) = (argument("--rate", 50), argument("--seconds", 20));
    let arrivals = Arrivals::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/2010-04-01/Accounts/{account}/Messages.json", post(create))
        .with_state(Arc::clone(&arrivals));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let folder = std::env::temp_dir().join(format!("nightbell-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    drop(start(&folder, &provider));

    let (service, address, start_took) = start(&folder, &provider);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = pss(service.0.id());

    let client = reqwest::Client::new();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64));
    let mut posts = Vec::new();
    for index in 0..rate * seconds {
        ticks.tick().await;
        let phone = format!("+1415{:07}", 2_000_000 + index);
        let event = json!({"ticket": {"id": index, "subject": "Printer on fire", "urgency": "critical"}, "recipients": [{"phone": phone}]}).to_string();
        let request = client
            .post(format!("{address}/v1/events"))
            .bearer_auth("bench")
            .header("content-type", "application/json")
            .body(event);
        posts.push(tokio::spawn(async move {
            let posted = Instant::now();
            assert_eq!(request.send().await.unwrap().status(), 202);
            (phone, posted, posted.elapsed())
        }));
    }
    let posts: Vec<(String, Instant, Duration)> = futures::future::join_all(posts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let waiting = Instant::now();
    while arrivals.lock().unwrap().len() < posts.len() && waiting.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let arrivals = arrivals.lock().unwrap();
    let mut answers: Vec<Duration> = posts.iter().map(|(_, _, answered)| *answered).collect();
    let mut to_provider: Vec<Duration> = posts
        .iter()
        .map(|(phone, posted, _)| arrivals[phone] - *posted)
        .collect();
    answers.sort();
    to_provider.sort();
    println!("{rate} events/s for {seconds} s, SQLite, every commit fsync'd");
    println!(
        "event posted -> 202           p50 {:6.2} ms   p99 {:6.2} ms",
        percentile(&answers, 50),
        percentile(&answers, 99)
    );
    println!(
        "event posted -> at provider   p50 {:6.2} ms   p99 {:6.2} ms",
        percentile(&to_provider, 50),
        percentile(&to_provider, 99)
    );
    println!(
        "start -> listening            {:.0} ms",
        start_took.as_secs_f64() * 1_000.0
    );
    println!(
        "PSS idle {:.1} MB, after {} events {:.1} MB",
        idle as f64 / 1_000.0,
        posts.len(),
        pss(service.0.id()) as f64 / 1_000.0
    );
    drop(service);
    let _ = std::fs::remove_dir_all(folder);
}
