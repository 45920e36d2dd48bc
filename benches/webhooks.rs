//! How fast events reach endpoints that have a lot to catch up with: 100,000 events of 20,000 alerts, to one endpoint on this
//! machine that takes everything at once, and to two side by side. On SQLite; on PostgreSQL with NIGHTBELL_TEST_POSTGRES as
//! the stories have it.
//!
//!     cargo bench --bench webhooks [-- --events 100000]
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

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use support::{
    database::Database,
    env::{Plan, TestEnv},
    receiver::Receiver,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// How many events each alert has.
const OF_EACH: u64 = 5;

/// Writes events down as if they had just been committed.
async fn fill(env: &TestEnv, events: u64) {
    let now = jiff::Timestamp::now().as_millisecond();
    let alerts = events / OF_EACH;
    let is_postgres = env.database.url.starts_with("postgres");
    let numbers = |rows: u64| {
        if is_postgres {
            format!("(select i from generate_series(0, {rows} - 1) as s(i)) as n")
        } else {
            format!(
                "(with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < {rows}) select i from n) as n"
            )
        }
    };
    let id = |number: &str| {
        if is_postgres {
            format!("lpad(to_hex({number}), 12, '0')")
        } else {
            format!("printf('%012x', {number})")
        }
    };
    let (own, alert) = (id("i"), id(&format!("i / {OF_EACH}")));
    env.database
        .execute(&format!(
            "insert into alert (id, source, ticket_id, ticket_number, subject, url, client_name, occurred_at, received_at)
             select {own}, 'default', 'old-' || i, cast(i as text), 'Printer on fire in room ' || i, 'https://tickets.example.com/' || i,
                'Bo Client', {now}, {now} from {}",
            numbers(alerts)
        ))
        .await;
    env.database
        .execute(&format!(
            "insert into lifecycle_event (id, type, source, stream, alert_id, at, data)
             select {own} || '-e', 'alert.created', 'default', {alert}, {alert}, {now}, '{{\"deliveries\":2}}'
             from {} order by i",
            numbers(events)
        ))
        .await;
}

async fn measure(database: Database, events: u64, endpoints: usize) {
    let name = if database.url.starts_with("postgres") {
        "PostgreSQL"
    } else {
        "SQLite"
    };
    let mut receivers = Vec::new();
    let mut plan = Plan::on(database);
    for number in 0..endpoints {
        let receiver = Receiver::start().await;
        plan = plan
            .set(&format!("WEBHOOKS__E{number}__URL"), &receiver.url())
            .set(&format!("WEBHOOKS__E{number}__SECRET"), SECRET)
            .set(&format!("WEBHOOKS__E{number}__ALLOW_PRIVATE"), "true");
        receivers.push(receiver);
    }
    let mut env = plan.build().await;
    env.service.logged("ready").await;
    env.service.kill();
    fill(&env, events).await;
    env.restart();
    while receivers.iter().all(|receiver| receiver.count() == 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    let wanted = usize::try_from(events).unwrap();
    while receivers.iter().any(|receiver| receiver.count() < wanted) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    for receiver in &receivers {
        let received = receiver.received();
        let ids: BTreeSet<&str> = received.iter().map(|one| one.id()).collect();
        assert_eq!((ids.len(), received.len()), (wanted, wanted), "each once");
    }
    println!(
        "{name}, {endpoints} endpoint(s): {events} events each in {took:.1} s: {:.0} events/s each",
        events as f64 / took
    );
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments.iter().position(|argument| argument == "--events");
    let events = given.map_or(100_000, |at| arguments[at + 1].parse().unwrap());
    for endpoints in [1, 2] {
        measure(Database::sqlite(), events, endpoints).await;
        if let Some(database) = Database::postgres("webhooks").await {
            measure(database, events, endpoints).await;
        }
    }
}
