//! The promise under torture: a provider that misbehaves in every way, receipts in every disorder, and the process
//! killed again and again. At the end the provider's own records and the database agree, delivery by delivery.
//!
//! The ordinary run is short. `NIGHTBELL_TORTURE=3000` (deliveries) makes it long, with at least 40 kills.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    twilio::{Answers, Message},
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use std::{
    collections::HashMap,
    io::Write,
    time::{Duration, Instant},
};

stories![never_twice_never_lost, never_twice_with_clocks_that_are_wrong];

/// How far a wrong clock is off, in seconds: right, 12 minutes either way, an hour and a half.
const CLOCKS: [i64; 6] = [0, 0, 12 * 60, -12 * 60, 90 * 60, -90 * 60];

/// Longer than draining takes: searches of 2 seconds, and back-off of some seconds after refused connections.
fn longest_drain(deliveries: usize) -> Duration {
    Duration::from_secs(60) + Duration::from_millis(100) * u32::try_from(deliveries).unwrap()
}

pub fn torture_size() -> (usize, usize) {
    match std::env::var("NIGHTBELL_TORTURE")
        .ok()
        .and_then(|size| size.parse().ok())
    {
        Some(deliveries) => (deliveries, 40.max(deliveries / 75)),
        None => (120, 5),
    }
}

/// `NIGHTBELL_TORTURE_SEED`, to see a run again, or one by chance.
pub fn torture_seed() -> u64 {
    let seed = std::env::var("NIGHTBELL_TORTURE_SEED").ok();
    seed.and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| rand::rng().next_u64())
}

/// A service in a hurry, and people whose phones answer in odd ways.
pub async fn build(plan: Plan, deliveries: usize, dice: &mut StdRng) -> (TestEnv, Vec<String>) {
    let env = plan
        .set("DAILY_LIMIT", "1000000")
        .set("SMS__TIMEOUT", "800ms")
        .set("SMS__LEASE", "2s")
        .set("SMS__RECONCILE_AFTER", "2s")
        .set("SMS__POLL_AFTER", "2s")
        .set("LOG__FILTER", "error")
        .build()
        .await;
    let phones: Vec<String> = (0..deliveries)
        .map(|index| format!("+1415{}", 2_000_000 + index))
        .collect();
    for phone in &phones {
        env.twilio.script(phone, [odd_answer(dice), odd_answer(dice)]);
    }
    (env, phones)
}

/// How the provider answers one attempt.
pub fn odd_answer(dice: &mut StdRng) -> Answers {
    match dice.random_range(0..100) {
        0..5 => Answers::Busy,
        5..15 => Answers::AcceptsWithoutAnswer,
        15..20 => Answers::Hangs,
        20..25 => Answers::AcceptsWith500,
        25..30 => Answers::AcceptsWithHalfAnswer,
        _ => Answers::Accepts,
    }
}

async fn never_twice_never_lost(database: Database) {
    let (deliveries, kills) = torture_size();
    let seed = torture_seed();
    let engine = if database.is_sqlite { "SQLite" } else { "PostgreSQL" };
    let mut dice = StdRng::seed_from_u64(seed);
    let (mut env, phones) = build(Plan::on(database), deliveries, &mut dice).await;

    let started = Instant::now();
    let mut posted = 0;
    let mut reported = 0;
    for kill in 0..kills {
        let round_ends = Instant::now() + Duration::from_millis(dice.random_range(200..500));
        let until = deliveries * (kill + 1) / kills;
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while Instant::now() < round_ends || posted < until {
            let until = until.max(posted);
            ticks.tick().await;
            // One moment in twenty the provider refuses connections.
            env.twilio.close(dice.random_range(0..20) == 0);
            let burst = posted..until.min(posted + 20);
            posted = burst.end;
            post_all(&env, burst, &phones).await;
            reported += report_some(&env, &mut dice).await;
        }
        env.twilio.close(false);
        // Killed while a burst shares its transactions; whoever got no answer asks again, as a helpdesk does.
        let burst = posted..(posted + 20).min(deliveries);
        let moment = Duration::from_micros(dice.random_range(0..15_000));
        let _ = tokio::time::timeout(moment, post_all(&env, burst.clone(), &phones)).await;
        env.service.kill();
        env.restart();
        posted = burst.end;
        post_all(&env, burst, &phones).await;
    }
    // What the receipts did not tell, the provider tells when asked.
    let settled = drain(&env, deliveries).await;

    let outcome = compare(&settled, &env.twilio.messages());
    let _ = writeln!(
        std::io::stderr(),
        "torture on {engine}: {deliveries} deliveries, {kills} kills, {} calls, {} messages, {reported} receipts posted in {:.0} s (seed {seed}): \
         {} with two messages, {} lost, {} in disagreement",
        env.twilio.sign_ins().len(),
        env.twilio.messages().len(),
        started.elapsed().as_secs_f64(),
        outcome.doubled.len(),
        outcome.lost.len(),
        outcome.disagreeing.len(),
    );
    assert!(outcome.is_good(), "seed {seed}: {outcome:#?}");
    assert_eq!(env.get("/v1/limit").await["used"], deliveries, "one slot for each");
}

/// The same with a clock that is off by minutes, jumps while calls are under way, and differs from start to start. Then
/// some losses cannot be told from messages that were sent: those are left to people, and counted.
async fn never_twice_with_clocks_that_are_wrong(database: Database) {
    let (mut deliveries, mut kills) = torture_size();
    if deliveries < 1_000 {
        (deliveries, kills) = (deliveries / 2, 3);
    }
    let seed = torture_seed();
    let engine = if database.is_sqlite { "SQLite" } else { "PostgreSQL" };
    let mut dice = StdRng::seed_from_u64(seed);
    let now = jiff::Timestamp::now().strftime("%F %T").to_string();
    let Some(plan) = Plan::on(database).at(&now, "never twice with clocks that are wrong") else {
        return;
    };
    let (mut env, phones) = build(plan, deliveries, &mut dice).await;

    let started = Instant::now();
    let (mut posted, mut turns) = (0, 0);
    for kill in 0..kills {
        let until = deliveries * (kill + 1) / kills;
        while posted < until {
            let burst = posted..until.min(posted + 10);
            posted = burst.end;
            post_all(&env, burst, &phones).await;
            report_some(&env, &mut dice).await;
            if dice.random_range(0..3) == 0 {
                env.turn_clock_by(CLOCKS[dice.random_range(0..CLOCKS.len())]);
                turns += 1;
            }
        }
        env.service.kill();
        env.turn_clock_by(CLOCKS[dice.random_range(0..CLOCKS.len())]);
        env.restart();
    }
    env.turn_clock_by(0);
    let settled = eventually_settled(&env, deliveries).await;

    let messages = env.twilio.messages();
    let outcome = compare(&settled, &messages);
    let unsettled = |delivery: &&String| delivery.contains("\"state\":\"unconfirmed\"");
    let cannot_tell = settled
        .values()
        .filter(|delivery| delivery["state"] == "unconfirmed")
        .count();
    let lost = outcome.lost.iter().filter(|delivery| !unsettled(delivery)).count();
    let disagreeing = outcome
        .disagreeing
        .iter()
        .filter(|delivery| !unsettled(delivery))
        .count();
    let _ = writeln!(
        std::io::stderr(),
        "torture with wrong clocks on {engine}: {deliveries} deliveries, {kills} kills, {turns} turns of the clock, {} messages \
         in {:.0} s (seed {seed}): {} with two messages, {lost} lost, {disagreeing} in disagreement, {cannot_tell} that nobody can tell",
        messages.len(),
        started.elapsed().as_secs_f64(),
        outcome.doubled.len(),
    );
    for doubled in &outcome.doubled {
        tell_story_of(&env, doubled).await;
    }
    assert!(
        outcome.doubled.is_empty() && lost + disagreeing == 0,
        "seed {seed}: {outcome:#?}"
    );
}

/// Prints what led to two messages: both sides' records.
pub async fn tell_story_of(env: &TestEnv, delivery: &str) {
    let delivery: Value = serde_json::from_str(delivery).unwrap();
    let id = delivery["id"].as_str().unwrap();
    for line in env.get(&format!("/v1/deliveries/{id}")).await["timeline"]
        .as_array()
        .unwrap()
    {
        println!("{id} {line}");
    }
    let attempts = format!(
        "select number || ' ' || begun_at || ' ' || coalesce(answered_at, 0) || ' ' || coalesce(outcome, '-') || ' ' ||
            coalesce(clock_doubtful_at, 0) from attempt where delivery_id = '{id}' order by number"
    );
    println!("{:#?}", env.database.texts(&attempts).await);
    for message in env.twilio.messages_to(delivery["phone"].as_str().unwrap()) {
        println!("{} {} {}", message.sid, message.at, message.at.as_millisecond());
    }
}

/// Waits until every delivery is delivered or left to people.
async fn eventually_settled(env: &TestEnv, deliveries: usize) -> HashMap<String, Value> {
    let started = Instant::now();
    loop {
        let all = everything(env).await;
        // What was asked about for long is asked about seldom: the provider tells once more by itself.
        for message in env.twilio.messages() {
            if matches!(
                all[&message.to]["state"].as_str(),
                Some("accepted" | "sent" | "unknown")
            ) {
                env.twilio.set_status(&message.sid, "delivered");
                assert_eq!(env.report(&message, "delivered", None).await, 204);
            }
        }
        let is_settled = |delivery: &&Value| delivery["state"] == "delivered" || delivery["state"] == "unconfirmed";
        if all.len() == deliveries && all.values().all(|delivery| is_settled(&delivery)) {
            return all;
        }
        let open = all.values().find(|delivery| !is_settled(delivery));
        assert!(started.elapsed() < longest_drain(deliveries), "not settled: {open:#?}");
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        ticks.tick().await;
        ticks.tick().await;
    }
}

/// Posts the events of these tickets, all at once.
async fn post_all(env: &TestEnv, tickets: std::ops::Range<usize>, phones: &[String]) {
    let events: Vec<Value> = tickets
        .map(|ticket| critical(&ticket.to_string(), &[person(&phones[ticket])]))
        .collect();
    for reply in futures::future::join_all(events.iter().map(|event| env.post(event))).await {
        assert!([200, 202].contains(&reply.status), "{reply:?}");
    }
}

/// Posts receipts for some messages: late, repeated, shuffled, before their answer; some are lost. Whatever they say in
/// the end is also the provider's last word when it is asked.
async fn report_some(env: &TestEnv, dice: &mut StdRng) -> usize {
    let messages = env.twilio.messages();
    let mut posted = 0;
    for _ in 0..messages.len().min(10) {
        let message = &messages[dice.random_range(0..messages.len())];
        let mut words = ["sending", "sent", "delivered"];
        if dice.random_bool(0.5) {
            words.reverse();
        }
        env.twilio.set_status(&message.sid, "delivered");
        for word in words {
            let copies = match dice.random_range(0..10) {
                0..2 => 0,
                2 => 2,
                _ => 1,
            };
            for _ in 0..copies {
                assert_eq!(env.report(message, word, None).await, 204);
                posted += 1;
            }
        }
    }
    posted
}

/// Waits until every delivery is settled, and returns them by number.
pub async fn drain(env: &TestEnv, deliveries: usize) -> HashMap<String, Value> {
    let started = Instant::now();
    loop {
        for message in env
            .twilio
            .messages()
            .iter()
            .filter(|message| message.status != "delivered")
        {
            env.twilio.set_status(&message.sid, "delivered");
        }
        let all = everything(env).await;
        assert_eq!(all.len(), deliveries);
        let open: Vec<&Value> = all
            .values()
            .filter(|delivery| delivery["state"] != "delivered")
            .collect();
        if open.is_empty() {
            return all;
        }
        assert!(
            started.elapsed() < longest_drain(deliveries),
            "{} deliveries are not settled, the first: {:#}",
            open.len(),
            open[0]
        );
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        ticks.tick().await;
        ticks.tick().await;
    }
}

async fn everything(env: &TestEnv) -> HashMap<String, Value> {
    let mut all = HashMap::new();
    let mut cursor = String::new();
    loop {
        let page = eventually("a page of deliveries", async || {
            let reply = env
                .admin(
                    reqwest::Method::GET,
                    &format!("/v1/deliveries?reveal=phone&limit=200{cursor}"),
                    None,
                )
                .await;
            if reply.status == 200 {
                Ok(reply.body)
            } else {
                Err(reply)
            }
        })
        .await;
        for delivery in page["items"].as_array().unwrap() {
            all.insert(delivery["phone"].as_str().unwrap().to_owned(), delivery.clone());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub doubled: Vec<String>,
    pub lost: Vec<String>,
    pub disagreeing: Vec<String>,
}

impl Outcome {
    pub fn is_good(&self) -> bool {
        self.doubled.is_empty() && self.lost.is_empty() && self.disagreeing.is_empty()
    }
}

/// Compares the database with the provider's own records.
pub fn compare(settled: &HashMap<String, Value>, messages: &[Message]) -> Outcome {
    let mut outcome = Outcome::default();
    for (phone, delivery) in settled {
        let theirs: Vec<&Message> = messages.iter().filter(|message| message.to == *phone).collect();
        match theirs.as_slice() {
            [] => outcome.lost.push(delivery.to_string()),
            [message] => {
                if delivery["provider_message_id"] != message.sid.as_str()
                    || delivery["state"] != message.status.as_str()
                {
                    outcome.disagreeing.push(delivery.to_string());
                }
            }
            _ => outcome.doubled.push(delivery.to_string()),
        }
    }
    outcome
}
