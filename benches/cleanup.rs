//! What the nightly clean-up costs the events that come meanwhile: 1,000,000 receipts and 200,000 deliveries, half of them
//! old. Events are posted at a steady rate before and during the clean-up; the answer's p99 is given as a ratio of the two.
//!
//!     cargo bench --bench cleanup [-- --rate 50 --receipts 1000000 --deliveries 200000]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on should panic"
)]

#[allow(
    dead_code,
    unused_macros,
    reason = "only some of the stories' support is needed here"
)]
#[path = "../tests/support/mod.rs"]
mod support;

use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use support::{database::Folder, service::Service};

/// Fills the tables as two years of alerts would have: the first half of everything is old.
async fn fill(database: &mut SqliteConnection, receipts: u64, deliveries: u64) {
    let now = jiff::Timestamp::now().as_millisecond();
    let (old, young) = (now - 500 * 86_400_000, now - 2 * 86_400_000);
    let alerts = deliveries / 2;
    let count =
        |rows: u64| format!("with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < {rows})");
    let when = |rows: u64| format!("case when i < {} then {old} + i else {young} + i end", rows / 2);
    let id = |letter: char| format!("printf('%012x-{letter}', i)");
    let statements = [
        format!(
            "insert into alert (id, source, ticket_id, ticket_number, subject, url, client_name, occurred_at, received_at)
             {} select {}, 'default', 'old-' || i, i, 'Printer on fire in room ' || i, 'https://tickets.example.com/' || i,
                'Bo Client', {}, {} from n",
            count(alerts), id('a'), when(alerts), when(alerts)
        ),
        format!(
            "insert into delivery (id, alert_id, channel, phone, round, role, name, message, segments, state, attempts,
                provider, provider_message_id, claims, looks, timeline_length, moved_at, received_at, created_at, updated_at)
             {} select {}, printf('%012x-a', i / 2), 'sms', '+1415' || (2000000 + i), 0, 'assignee', 'Grace Hopper',
                'CRITICAL TICKET Printer on fire', 2, 'delivered', 1, 'twilio', 'SM' || i, 0, 0, 4, {}, {}, {}, {} from n",
            count(deliveries), id('d'), when(deliveries), when(deliveries), when(deliveries), when(deliveries)
        ),
        format!(
            "insert into attempt (delivery_id, number, provider, account, message_id, limit_day, begun_at, deadline_at)
             {} select {}, 1, 'twilio', 'AC1', 'SM' || i, '2025-01-01', {}, 0 from n",
            count(deliveries), id('d'), when(deliveries)
        ),
        format!(
            "insert into timeline (delivery_id, seq, at, what, detail)
             {} select printf('%012x-d', i / 4), i % 4 + 1, 0, 'sent', 'the provider says so' from n",
            count(deliveries * 4)
        ),
        format!(
            "insert into receipt (id, provider, message_id, status, news, error_code, delivery_id, attempt, received_at, applied_at)
             {} select {}, 'twilio', 'SM' || (i / 5), 'status-' || (i % 5), 'sent', '', printf('%012x-d', i / 5), 1, {}, 0 from n",
            count(receipts), id('r'), when(receipts)
        ),
    ];
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut *database)
            .await
            .unwrap();
    }
}

/// Posts events at a steady rate until `is_over`; returns how long each answer took.
async fn post(address: &str, label: &str, rate: u64, mut is_over: impl AsyncFnMut(usize) -> bool) -> Vec<Duration> {
    let client = support::client();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64));
    let mut posts = Vec::new();
    while !is_over(posts.len()).await {
        ticks.tick().await;
        let index = posts.len();
        let event =
            json!({"ticket": {"id": format!("{label}-{index}"), "subject": "Printer on fire", "urgency": "critical"},
            "recipients": [{"phone": format!("+1415{:07}", 3_000_000 + index)}]})
            .to_string();
        let request = client
            .post(format!("{address}/v1/events"))
            .bearer_auth("bench")
            .header("content-type", "application/json")
            .body(event);
        posts.push(tokio::spawn(async move {
            let posted = Instant::now();
            assert_eq!(request.send().await.unwrap().status(), 202);
            posted.elapsed()
        }));
    }
    let mut times: Vec<Duration> = futures::future::join_all(posts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    times.sort();
    times
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
    let rate = argument("--rate", 50);
    let (receipts, deliveries) = (argument("--receipts", 1_000_000), argument("--deliveries", 200_000));
    let folder = Folder::new();
    let settings: BTreeMap<String, String> = [
        ("LISTEN", "127.0.0.1:0"),
        ("AUTH__INTAKE_TOKENS", "bench"),
        ("AUTH__ADMIN_TOKENS", "bench"),
        ("SMS__PER_SECOND", "0"),
        ("DAILY_LIMIT", "1000000"),
        ("LOG__FILTER", "warn,nightbell::worker::cleanup=info"),
    ]
    .map(|(name, value)| (format!("NIGHTBELL_{name}"), value.to_owned()))
    .into();
    drop(Service::start(&settings, folder.path()));
    let file = folder.path().join("nightbell.db");
    let mut database = SqliteConnection::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap();
    fill(&mut database, receipts, deliveries).await;
    sqlx::query("pragma wal_checkpoint(truncate)")
        .execute(&mut database)
        .await
        .unwrap();
    let size = std::fs::metadata(&file).unwrap().len();
    let service = Service::start(&settings, folder.path());
    let address = format!("http://{}", service.address);
    // The first phone reads the numbering plans.
    post(&address, "warm", rate, async |posted| posted >= 50).await;

    let quiet = post(&address, "quiet", rate, async |posted| posted as u64 >= rate * 20).await;
    let yesterday = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
        .yesterday()
        .unwrap();
    let begun = Instant::now();
    let asked = support::client()
        .post(format!("{address}/v1/reports/{yesterday}"))
        .bearer_auth("bench")
        .send()
        .await
        .unwrap();
    assert_eq!(asked.status(), 202);
    let done = "select count(*) from job_run where job = 'cleanup' and finished_at is not null";
    let cleaning = post(&address, "cleaning", rate, async |posted| {
        let is_over: i64 = if posted as u64 % rate == rate - 1 {
            sqlx::query_scalar(done).fetch_one(&mut database).await.unwrap()
        } else {
            0
        };
        is_over > 0
    })
    .await;
    let took = begun.elapsed();
    let left: (i64, i64) =
        sqlx::query_as("select (select count(*) from receipt), (select count(*) from delivery where phone is null)")
            .fetch_one(&mut database)
            .await
            .unwrap();
    eprint!("{}", service.log());
    drop(service);

    println!(
        "{receipts} receipts and {deliveries} deliveries, half of them old; {rate} events/s, SQLite, every commit fsync'd"
    );
    println!(
        "cleaned up in {:.0} s: {} receipts left, {} deliveries without a number",
        took.as_secs_f64(),
        left.0,
        left.1
    );
    let (before, during) = (percentile(&quiet, 99), percentile(&cleaning, 99));
    for (when, times) in [("quiet   ", &quiet), ("cleaning", &cleaning)] {
        let (p50, p99) = (percentile(times, 50), percentile(times, 99));
        println!("event posted -> 202, {when}   p50 {p50:6.2} ms   p99 {p99:6.2} ms");
    }
    println!("p99 while cleaning / quiet      {:.2}", during / before);
    println!(
        "file {:.0} MB before, {:.0} MB after",
        size as f64 / 1e6,
        std::fs::metadata(&file).unwrap().len() as f64 / 1e6
    );
}
