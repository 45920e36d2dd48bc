//! A database that falls silent without closing its connections: nothing waits without an end, nothing is lost or sent
//! twice, and everything goes on by itself.
//!
//! The ordinary run falls silent twice. `NIGHTBELL_TORTURE` makes it long: five times, and each kind of call at least once.

use crate::support::{
    database::Database,
    eventually,
    proxy::Proxy,
    town::{INTAKE, Plan, Town, critical, person},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::Value;
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// A piece of the statement of each kind of call that a process makes while events flow.
const CALLS: [&str; 12] = [
    "begin",
    "commit",
    "insert into alert ",
    "insert into attempt",
    "outcome = r.value",
    "insert into receipt",
    "pg_notify",
    "insert into route_pace",
    "from receipt r cross join attempt",
    "select id from delivery where lease_until",
    "'last_ready_check'",
    "cross join alert a cross join delivery d",
];

/// A service whose connections to the database go through a proxy.
async fn town_behind_proxy(story: &str) -> Option<(Town, Proxy)> {
    let database = Database::postgres(story).await?;
    let url = url::Url::parse(&database.url).unwrap();
    let proxy = Proxy::to(url.port().unwrap()).await;
    let mut through = url.clone();
    through.set_port(Some(proxy.port)).unwrap();
    let town = Plan::on(database)
        .set("DATABASE_URL", through.as_str())
        .set("DAILY_LIMIT", "1000000")
        .set("SMS__PER_SECOND", "500")
        .set("SMS__TIMEOUT", "2s")
        .set("SMS__LEASE", "5s")
        .set("SMS__RECONCILE_AFTER", "2s")
        .set("LOG__FILTER", "warn,sqlx=error")
        .build()
        .await;
    Some((town, proxy))
}

/// Posts an event once; says how it was answered. Silence for longer than ten seconds is no answer.
async fn post_once(address: &str, event: &Value) -> Result<u16, String> {
    let answer = crate::support::client()
        .post(format!("http://{address}/v1/events"))
        .bearer_auth(INTAKE)
        .header("content-type", "application/json")
        .timeout(Duration::from_secs(12))
        .body(event.to_string())
        .send()
        .await;
    answer
        .map(|answer| answer.status().as_u16())
        .map_err(|error| error.to_string())
}

/// Posts events as a helpdesk does, each until it is taken, until `stop`; returns how many. Every try must be answered.
async fn keep_posting(address: String, first: usize, stop: tokio::sync::watch::Receiver<bool>) -> (usize, Vec<String>) {
    let (mut ticket, mut unanswered) = (first, Vec::new());
    while !*stop.borrow() {
        let event = critical(&ticket.to_string(), &[person(&phone(ticket))]);
        loop {
            match post_once(&address, &event).await {
                Ok(200 | 202) => break,
                Ok(503) => {}
                Ok(other) => unanswered.push(format!("{ticket}: {other}")),
                Err(error) => unanswered.push(format!("{ticket}: {error}")),
            }
        }
        ticket += 1;
    }
    (ticket, unanswered)
}

fn phone(ticket: usize) -> String {
    format!("+1415{}", 2_000_000 + ticket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_loses_nothing_and_is_used_again_by_itself() {
    let Some((town, proxy)) = town_behind_proxy("a_database_that_falls_silent").await else {
        return;
    };
    let is_long = std::env::var("NIGHTBELL_TORTURE").is_ok();
    let seed = std::env::var("NIGHTBELL_TORTURE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| rand::rng().next_u64());
    let mut dice = StdRng::seed_from_u64(seed);
    let mut calls = CALLS.to_vec();
    calls.shuffle(&mut dice);
    calls.truncate(if is_long { CALLS.len() } else { 2 });

    let (mut posted, mut recoveries) = (0, Vec::new());
    for call in calls {
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let posting = tokio::spawn(keep_posting(town.service.address.clone(), posted, stopping));
        let before = town.twilio.messages().len();
        town.twilio.accepted(before + 20).await;
        proxy.fall_silent_at(call);
        eventually(&format!("the call `{call}`"), async || {
            // Receipts, repeats and health checks are calls too.
            if let Some(message) = town.twilio.messages().last() {
                let _ = town.try_report(message, "delivered").await;
            }
            let _ = tokio::time::timeout(Duration::from_millis(300), town.post(&critical("0", &[]))).await;
            let ready = format!("http://{}/readyz", town.service.address);
            let _ = crate::support::client()
                .get(ready)
                .timeout(Duration::from_millis(300))
                .send()
                .await;
            if proxy.is_silent() { Ok(()) } else { Err("not yet") }
        })
        .await;
        // What was begun or answered in that very moment is in the dark with the rest, for a while.
        let mut ticks = tokio::time::interval(Duration::from_secs(3));
        ticks.tick().await;
        ticks.tick().await;
        let (silent_at, sent) = (Instant::now(), town.twilio.messages().len());
        proxy.let_pass();
        town.twilio.accepted(sent + 20).await;
        recoveries.push((call, silent_at.elapsed().as_secs_f64()));
        stop.send_replace(true);
        let (next, unanswered) = posting.await.unwrap();
        assert_eq!(unanswered, Vec::<String>::new(), "seed {seed}, `{call}`");
        posted = next;
    }
    eventually("everything to be sent", async || {
        let open = town
            .database
            .number("select count(*) from delivery where state not in ('accepted', 'sent', 'delivered')")
            .await;
        if open == 0 { Ok(()) } else { Err(open) }
    })
    .await;

    let mut told: Vec<String> = town.twilio.messages().into_iter().map(|message| message.to).collect();
    told.sort();
    let calls = told.len();
    told.dedup();
    let slowest = recoveries.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    let _ = writeln!(
        std::io::stderr(),
        "silent database: {} times, {posted} events, {} told, {} told twice, slowest recovery {slowest:.1} s (seed {seed}): {recoveries:.1?}",
        recoveries.len(),
        told.len(),
        calls - told.len(),
    );
    assert_eq!(
        (told.len(), calls),
        (posted, posted),
        "seed {seed}: each once, nobody twice"
    );
    assert_eq!(
        town.database.number("select count(*) from alert").await,
        i64::try_from(posted).unwrap()
    );
}

/// The database takes events in and lets none of them be sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_gets_nothing_done_is_not_ready() {
    let Some(database) = Database::postgres("a_process_that_gets_nothing_done_is_not_ready").await else {
        return;
    };
    let town = Plan::on(database).build().await;
    town.database.break_writes("insert", "attempt").await;
    let alert = town.raise(&critical("1", &[person(&phone(1))])).await;
    let ready = async || town.request(reqwest::Method::GET, "/readyz", &[], Vec::new()).await;

    eventually("a process that is not ready", async || {
        let answer = ready().await;
        if answer.status == 503 { Ok(()) } else { Err(answer) }
    })
    .await;
    let status = ready().await.body["details"]["database"]["status"].to_string();
    assert!(status.contains("trying to begin to send"), "{status}");
    town.database.mend("attempt").await;

    town.stand(&alert, &["accepted"]).await;
    eventually("a process that is ready", async || {
        let answer = ready().await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_database_is_told_by_readyz_and_does_not_keep_a_stop_from_ending() {
    let Some((mut town, proxy)) = town_behind_proxy("a_silent_database_and_a_stop").await else {
        return;
    };
    town.raise(&critical("1", &[person(&phone(1))])).await;
    town.twilio.accepted(1).await;

    proxy.fall_silent();
    assert_eq!(
        post_once(&town.service.address, &critical("2", &[person(&phone(2))])).await,
        Ok(503)
    );
    let ready = town.request(reqwest::Method::GET, "/readyz", &[], Vec::new()).await;
    assert_eq!(ready.status, 503, "{ready:?}");
    let stopped_at = Instant::now();
    town.service.signal("TERM");
    let status = town.service.ended().await;

    assert!(status.success(), "{status:?}");
    // `sms.timeout` is 2 s here.
    let took = stopped_at.elapsed();
    assert!(took < Duration::from_secs(2 + 15), "{took:?}");
}
