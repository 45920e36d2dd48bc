//! What several processes on one PostgreSQL do together: messages a second with 1, 2 and 3 replicas against a provider that
//! takes 100 ms, and whether 3 replicas keep one pace. PostgreSQL waits for its disk.
//!
//!     cargo bench --bench replicas [-- --deliveries 3000 --seconds 60]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unused_macros,
    reason = "a measurement that cannot go on should panic, and uses only some of the stories' support"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use axum::{Form, Json, Router, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use support::{database::Database, service::Service};

type Arrivals = Arc<Mutex<Vec<Instant>>>;

/// Takes a tenth of a second for each message, as a provider across an ocean does.
async fn create(
    State(arrivals): State<Arrivals>,
    Form(form): Form<HashMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    arrivals.lock().unwrap().push(Instant::now());
    tokio::time::sleep(Duration::from_millis(100)).await;
    (
        StatusCode::CREATED,
        Json(json!({"sid": format!("SM{}", &form["To"][1..]), "status": "queued"})),
    )
}

fn argument(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    arguments
        .iter()
        .position(|argument| argument == name)
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(default)
}

/// Lets `replicas` processes send `deliveries`; returns when each arrived at the provider, at the latest after `longest`.
async fn send(
    url: &str,
    provider: &str,
    arrivals: &Arrivals,
    replicas: usize,
    (per_second, in_flight): (&str, &str),
    deliveries: u64,
    longest: Duration,
) -> Vec<Instant> {
    arrivals.lock().unwrap().clear();
    let settings: BTreeMap<String, String> = [
        ("LISTEN", "127.0.0.1:0"),
        ("AUTH__INTAKE_TOKENS", "bench"),
        ("DATABASE_URL", url),
        ("SMS__DRIVER", "twilio"),
        ("SMS__PER_SECOND", per_second),
        ("SMS__MAX_IN_FLIGHT", in_flight),
        ("DAILY_LIMIT", "1000000"),
        ("TWILIO__ACCOUNT_SID", "AC1"),
        ("TWILIO__AUTH_TOKEN", "token"),
        ("TWILIO__FROM", "+15005550006"),
        ("TWILIO__BASE_URL", provider),
        ("LOG__FILTER", "error"),
    ]
    .map(|(name, value)| (format!("NIGHTBELL_{name}"), value.to_owned()))
    .into();
    let folder = std::env::temp_dir();
    let services: Vec<Service> = (0..replicas).map(|_| Service::start(&settings, &folder)).collect();
    let client = support::client();
    for ticket in 0..deliveries.div_ceil(100) {
        let people: Vec<Value> = (0..100.min(deliveries - ticket * 100))
            .map(|one| json!({"phone": format!("+1415{:07}", 2_000_000 + ticket * 100 + one)}))
            .collect();
        let event = json!({"ticket": {"id": ticket, "subject": "Printer on fire", "urgency": "critical"}, "recipients": people});
        let answer = client
            .post(format!("http://{}/v1/events", services[0].address))
            .bearer_auth("bench")
            .header("content-type", "application/json")
            .body(event.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 202);
    }
    let begun = Instant::now();
    while begun.elapsed() < longest && (arrivals.lock().unwrap().len() as u64) < deliveries {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(services);
    let mut times = arrivals.lock().unwrap().clone();
    times.sort();
    times
}

#[tokio::main]
async fn main() {
    let (deliveries, seconds) = (argument("--deliveries", 3_000), argument("--seconds", 60));
    let Some((database, server)) = Database::own_postgres("the measurement of replicas", true).await else {
        return;
    };
    let arrivals = Arrivals::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/2010-04-01/Accounts/{account}/Messages.json", post(create))
        .with_state(Arc::clone(&arrivals));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let fresh = async |name: &str| {
        database.execute(&format!("create database {name}")).await;
        format!("{}/{name}", database.url.rsplit_once('/').unwrap().0)
    };

    println!(
        "messages a second at a provider that takes 100 ms; {deliveries} deliveries, PostgreSQL with fsync, 2 cores for all"
    );
    // Few calls at once: the provider's latency bounds a replica. Many: the cores that replicas and database share.
    for in_flight in ["8", "64"] {
        let mut alone = 0.0;
        for replicas in 1..=3 {
            let url = fresh(&format!("curve_{in_flight}_{replicas}")).await;
            let (longest, how) = (Duration::from_secs(120), ("0", in_flight));
            let times = send(&url, &provider, &arrivals, replicas, how, deliveries, longest).await;
            // The first and last tenth are the run-up and the tail.
            let (from, until) = (times.len() / 10, times.len() * 9 / 10);
            let rate = (until - from) as f64 / (times[until] - times[from]).as_secs_f64();
            if replicas == 1 {
                alone = rate;
            }
            println!(
                "{in_flight:>2} calls at once, {replicas} replicas: {rate:4.0} a second, {:.2} times one",
                rate / alone
            );
        }
    }
    let url = fresh("pace").await;
    let times = send(
        &url,
        &provider,
        &arrivals,
        3,
        ("10", "64"),
        seconds * 12,
        Duration::from_secs(seconds + 5),
    )
    .await;
    let first = times[0];
    let within = times
        .iter()
        .filter(|time| time.duration_since(first) < Duration::from_secs(seconds))
        .count();
    println!(
        "pace 10 a second, 3 replicas, {seconds} s: {:.2} a second at the provider",
        within as f64 / seconds as f64
    );
    drop(server);
}
