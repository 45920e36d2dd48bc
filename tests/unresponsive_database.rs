//! A database that stops answering without closing its connections: nothing waits without an end, nothing is lost or sent
//! twice, and everything goes on by itself.
//!
//! In the ordinary run it stops twice. `NIGHTBELL_TORTURE` makes it long: five times, and each kind of call at least once.

use crate::support::{
    PATIENCE,
    database::Database,
    env::{INTAKE, Plan, TestEnv, critical, person},
    eventually,
    proxy::Proxy,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};
use std::{
    io::Write,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// A piece of the statement of each kind of call that a process makes while events flow.
const CALLS: [&str; 12] = [
    "begin",
    "commit",
    "insert into alert ",
    "insert into attempt",
    "outcome = r.outcome",
    "insert into receipt",
    "pg_notify",
    "insert into route_pace",
    "from receipt r cross join attempt",
    "select id from delivery where lease_until",
    "updated_at) values ($1, '', $2)",
    "cross join alert a cross join delivery d",
];

/// A service whose connections to the database go through a proxy.
async fn env_behind_proxy(story: &str) -> Option<(TestEnv, Proxy)> {
    let database = Database::postgres(story).await?;
    let url = url::Url::parse(&database.url).unwrap();
    let proxy = Proxy::to(url.port().unwrap()).await;
    let mut through = url.clone();
    through.set_port(Some(proxy.port)).unwrap();
    let env = Plan::on(database)
        .set("DATABASE_URL", through.as_str())
        .set("DAILY_LIMIT", "1000000")
        .set("SMS__PER_SECOND", "500")
        .set("SMS__TIMEOUT", "2s")
        .set("SMS__LEASE", "5s")
        .set("SMS__RECONCILE_AFTER", "2s")
        .set("LOG__FILTER", "warn,sqlx=error")
        .build()
        .await;
    Some((env, proxy))
}

/// Posts an event once; says how it was answered. Nothing within ten seconds is no answer.
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
async fn an_unresponsive_database_loses_nothing_and_is_used_again_by_itself() {
    let Some((env, proxy)) = env_behind_proxy("an_unresponsive_database").await else {
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
        let posting = tokio::spawn(keep_posting(env.service.address.clone(), posted, stopping));
        let before = env.twilio.messages().len();
        env.twilio.accepted(before + 20).await;
        proxy.stop_answering_at(call);
        eventually(&format!("the call `{call}`"), async || {
            // Receipts, repeats and health checks are calls too.
            if let Some(message) = env.twilio.messages().last() {
                let _ = env.try_report(message, "delivered").await;
            }
            let _ = tokio::time::timeout(Duration::from_millis(300), env.post(&critical("0", &[]))).await;
            let ready = format!("http://{}/readyz", env.service.address);
            let _ = crate::support::client()
                .get(ready)
                .timeout(Duration::from_millis(300))
                .send()
                .await;
            if proxy.is_unresponsive() {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await;
        // What was begun or answered in that very moment is unknown with the rest, for a while.
        let mut ticks = tokio::time::interval(Duration::from_secs(3));
        ticks.tick().await;
        ticks.tick().await;
        let (stopped_at, sent) = (Instant::now(), env.twilio.messages().len());
        proxy.let_pass();
        env.twilio.accepted(sent + 20).await;
        recoveries.push((call, stopped_at.elapsed().as_secs_f64()));
        stop.send_replace(true);
        let (next, unanswered) = posting.await.unwrap();
        assert_eq!(unanswered, Vec::<String>::new(), "seed {seed}, `{call}`");
        posted = next;
    }
    eventually("everything to be sent", async || {
        let open = env
            .database
            .number("select count(*) from delivery where state not in ('accepted', 'sent', 'delivered')")
            .await;
        if open == 0 { Ok(()) } else { Err(open) }
    })
    .await;

    let mut texted: Vec<String> = env.twilio.messages().into_iter().map(|message| message.to).collect();
    texted.sort();
    let calls = texted.len();
    texted.dedup();
    let slowest = recoveries.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    let _ = writeln!(
        std::io::stderr(),
        "unresponsive database: {} times, {posted} events, {} texted, {} texted twice, slowest recovery {slowest:.1} s (seed {seed}): {recoveries:.1?}",
        recoveries.len(),
        texted.len(),
        calls - texted.len(),
    );
    assert_eq!(
        (texted.len(), calls),
        (posted, posted),
        "seed {seed}: each once, nobody twice"
    );
    assert_eq!(
        env.database.number("select count(*) from alert").await,
        i64::try_from(posted).unwrap()
    );
}

/// The database takes events in and lets none of them be sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_gets_nothing_done_is_not_ready() {
    let Some(database) = Database::postgres("a_process_that_gets_nothing_done_is_not_ready").await else {
        return;
    };
    let env = Plan::on(database).build().await;
    env.database.break_writes("insert", "attempt").await;
    let alert = env.raise(&critical("1", &[person(&phone(1))])).await;
    let ready = async || env.request(reqwest::Method::GET, "/readyz", &[], Vec::new()).await;

    eventually("a process that is not ready", async || {
        let answer = ready().await;
        if answer.status == 503 { Ok(()) } else { Err(answer) }
    })
    .await;
    let status = ready().await.body["details"]["database"]["status"].to_string();
    assert!(status.contains("trying to begin to send"), "{status}");
    env.database.mend("attempt").await;

    env.stand(&alert, &["accepted"]).await;
    eventually("a process that is ready", async || {
        let answer = ready().await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_database_shows_in_readyz_and_does_not_hold_up_a_stop() {
    let Some((mut env, proxy)) = env_behind_proxy("an_unresponsive_database_and_a_stop").await else {
        return;
    };
    env.raise(&critical("1", &[person(&phone(1))])).await;
    env.twilio.accepted(1).await;

    proxy.stop_answering();
    assert_eq!(
        post_once(&env.service.address, &critical("2", &[person(&phone(2))])).await,
        Ok(503)
    );
    let ready = env.request(reqwest::Method::GET, "/readyz", &[], Vec::new()).await;
    assert_eq!(ready.status, 503, "{ready:?}");
    let stopped_at = Instant::now();
    env.service.signal("TERM");
    let status = env.service.ended().await;

    assert!(status.success(), "{status:?}");
    // `sms.timeout` is 2 s here.
    let took = stopped_at.elapsed();
    assert!(took < Duration::from_secs(2 + 15), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_database_gives_503_within_ten_seconds() {
    for (statement, event) in [
        ("insert into alert", critical("2", &[person("+14155550101")])),
        (
            "update alert set closed_at = coalesce",
            json!({"type": "ticket.closed", "ticket": {"id": "1"}}),
        ),
    ] {
        let Some((env, proxy)) = env_behind_proxy("an_unresponsive_database_gives_503").await else {
            return;
        };
        env.raise(&critical("1", &[person("+14155550101")])).await;
        proxy.stop_answering_at(statement);
        let began = Instant::now();

        let reply = timeout(PATIENCE, env.post(&event)).await.expect("an answer");

        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(
            (reply.status, reply.content_type.as_str()),
            (503, "application/problem+json")
        );
        let detail = reply.body["detail"].as_str().unwrap();
        assert!(detail.contains("send it again"), "{detail}");
        let ready = env.request(reqwest::Method::GET, "/readyz", &[], Vec::new());
        let ready = timeout(PATIENCE, ready).await.expect("an answer");
        assert_eq!((ready.status, &ready.body["status"]), (503, &json!("not ready")));
    }
}
