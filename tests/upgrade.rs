//! Upgrades: a big database is brought up to date while the version before goes on working on it, and both versions work
//! on one PostgreSQL, there and back.
//!
//! The ordinary run of the first has 20,000 deliveries and plays the version before by its statements; `NIGHTBELL_TORTURE` makes it
//! 1,000,000, and `NIGHTBELL_TEST_BEFORE` names the program of the version before, which then really runs beside. Without it the second is left out.

use crate::{
    support::{
        ANSWER, PATIENCE, client,
        database::Database,
        env::{INTAKE, Plan, critical, person},
        eventually, left_out,
        service::{PROGRAM, Service, binary_before},
        twilio::{Answers, Message, Twilio},
    },
    torture::{compare, drain, odd_answer, tell_story_of, torture_seed},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    collections::{HashMap, HashSet},
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// The newest tables of the version that came before this story.
const BEFORE: i64 = 4;

/// Raises an alert as that version does.
const RAISE: &str = "with a as (insert into alert (id, source, ticket_id, subject, occurred_at, received_at)
        values ($1, 'default', $1, 'x', 1, 1) returning id),
    d as (insert into delivery (id, alert_id, channel, phone, round, message, segments, state, attempts, claims, looks,
        timeline_length, received_at, created_at, updated_at)
        select id, id, 'sms', '+14155550101', 0, 'x', 1, 'accepted', 1, 0, 0, 1, 1, 1, 1 from a returning id),
    t as (insert into attempt (delivery_id, number, provider, account, limit_day, begun_at, deadline_at)
        select id, 1, 'twilio', 'x', '2026-11-20', 1, 1 from d returning delivery_id)
    insert into timeline (delivery_id, seq, at, what) select delivery_id, 1, 1, 'pending' from t";

async fn fill(url: &str, rows: usize) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
    let migrator = sqlx::migrate::Migrator::new(Path::new(folder)).await.unwrap();
    migrator.run_direct(Some(BEFORE), &mut connection, false).await.unwrap();
    for sql in [
        format!(
            "insert into alert (id, source, ticket_id, subject, occurred_at, received_at)
             select 'a' || n, 'default', 'old' || n, 'x', n, n from generate_series(1, {rows}) as n"
        ),
        format!(
            "insert into delivery (id, alert_id, channel, phone, round, message, segments, state, attempts, provider,
                claims, looks, timeline_length, received_at, created_at, updated_at, moved_at)
             select 'd' || n, 'a' || n, 'sms', '+1415' || (2000000 + n), 0, 'x', 1, 'delivered', 1, 'twilio', 0, 0, 1, n, n, n, n
             from generate_series(1, {rows}) as n"
        ),
        format!(
            "insert into attempt (delivery_id, number, provider, account, message_id, limit_day, begun_at, deadline_at,
                answered_at, outcome)
             select 'd' || n, 1, 'twilio', 'x', 'SM' || n, '2026-11-20', n, n, n, 'accepted'
             from generate_series(1, {rows}) as n"
        ),
        "analyze".to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
}

/// Raises alerts through the service until `stop`; returns how many, and the longest wait for one that was taken.
async fn raise_by_service(address: String, mut stop: watch::Receiver<bool>) -> (usize, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !*stop.borrow_and_update() {
        let event = critical(&format!("new{count}"), &[person("+14155550101")]);
        let begun = Instant::now();
        loop {
            let posting = client().post(format!("http://{address}/v1/events")).bearer_auth(INTAKE);
            let answer = posting
                .header("content-type", "application/json")
                .body(event.to_string())
                .send()
                .await
                .unwrap();
            if answer.status().as_u16() == 202 {
                break;
            }
            assert_eq!(answer.status().as_u16(), 503, "{answer:?}");
        }
        longest = longest.max(begun.elapsed());
        count += 1;
    }
    (count, longest)
}

/// The same by that version's statements.
async fn raise_by_statements(url: String, mut stop: watch::Receiver<bool>) -> (usize, Duration) {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !*stop.borrow_and_update() {
        let begun = Instant::now();
        sqlx::query(RAISE)
            .bind(format!("new{count}"))
            .execute(&mut connection)
            .await
            .unwrap();
        longest = longest.max(begun.elapsed());
        count += 1;
    }
    (count, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_database_is_changed_while_the_version_before_works() {
    let Some(database) = Database::postgres("a_big_database_is_changed").await else {
        return;
    };
    let rows = if std::env::var("NIGHTBELL_TORTURE").is_ok() {
        1_000_000
    } else {
        20_000
    };
    fill(&database.url, rows).await;
    let url = database.url.clone();
    let plan = Plan::on(database);
    let (stop, stopping) = watch::channel(false);
    let settings = plan.settings().clone();
    let old = binary_before().map(|program| {
        // Its sends are not what this is about: nobody takes them.
        let nowhere = ("NIGHTBELL_TWILIO__BASE_URL".to_owned(), "http://127.0.0.1:9".to_owned());
        let mut settings = settings.clone();
        settings.extend([nowhere, (PROGRAM.to_owned(), program)]);
        Service::start(&settings, plan.folder())
    });
    let raising = match &old {
        Some(old) => tokio::spawn(raise_by_service(old.address.clone(), stopping)),
        None => tokio::spawn(raise_by_statements(url.clone(), stopping)),
    };

    // Two of the new version come at the same time.
    let begun = Instant::now();
    let (env, other) = tokio::join!(plan.build(), async {
        tokio::task::spawn_blocking({
            let (settings, folder) = (settings.clone(), crate::support::database::Folder::new());
            move || {
                let mut command = crate::support::service::command(&settings, folder.path());
                command.arg("migrate").output().unwrap()
            }
        })
        .await
        .unwrap()
    });
    let took = begun.elapsed();
    stop.send_replace(true);
    let (count, longest) = raising.await.unwrap();

    assert!(other.status.success(), "{other:?}");
    let _ = writeln!(
        std::io::stderr(),
        "brought up to date beside {}: {rows} deliveries, two processes ready after {:.1} s, {count} alerts raised meanwhile, \
         the longest wait {:.3} s",
        if old.is_some() {
            "the version before"
        } else {
            "its statements"
        },
        took.as_secs_f64(),
        longest.as_secs_f64(),
    );
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    let alerts = i64::try_from(rows + count).unwrap();
    assert_eq!(env.database.number("select count(*) from alert").await, alerts);
}

/// Events and receipts that never pause, whatever happens to the processes.
struct Traffic {
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    raising: JoinHandle<Raised>,
    reporting: JoinHandle<usize>,
}

/// What was raised.
#[derive(Default)]
struct Raised {
    events: usize,
    /// The numbers to which the provider answered every call well.
    answered_well: HashSet<String>,
}

/// Who is asked, and how many events and receipts each process has taken since the last step.
#[derive(Default, Debug)]
struct Tally {
    addresses: Vec<String>,
    events: HashMap<String, usize>,
    receipts: HashMap<String, usize>,
}

impl Traffic {
    fn through(address: &str, twilio: &Twilio, seed: u64) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        tally.lock().unwrap().addresses.push(address.to_owned());
        let stop = watch::Sender::new(false);
        let raising = keep_raising(twilio.clone(), Arc::clone(&tally), stop.subscribe(), seed);
        let reporting = keep_reporting(twilio.clone(), Arc::clone(&tally), stop.subscribe(), seed);
        Self {
            raising: tokio::spawn(raising),
            reporting: tokio::spawn(reporting),
            tally,
            stop,
        }
    }

    /// Asks these processes from now on, and waits until each of them has taken its share.
    async fn flows_through(&self, step: &str, processes: &[&Service]) {
        let addresses: Vec<String> = processes.iter().map(|process| process.address.clone()).collect();
        *self.tally.lock().unwrap() = Tally {
            addresses: addresses.clone(),
            ..Tally::default()
        };
        let (events, receipts) = if std::env::var("NIGHTBELL_TORTURE").is_ok() {
            (300, 100)
        } else {
            (30, 10)
        };
        eventually(step, async || {
            assert!(
                !self.raising.is_finished() && !self.reporting.is_finished(),
                "traffic has ended"
            );
            let tally = self.tally.lock().unwrap();
            let has =
                |of: &HashMap<String, usize>, address, share| of.get(address).is_some_and(|count| *count >= share);
            let is_enough = |address| has(&tally.events, address, events) && has(&tally.receipts, address, receipts);
            if addresses.iter().all(is_enough) {
                Ok(())
            } else {
                Err(format!("{tally:?}"))
            }
        })
        .await;
    }

    /// Ends it; returns what was raised, and how many receipts there were.
    async fn end(self) -> (Raised, usize) {
        self.stop.send_replace(true);
        (self.raising.await.unwrap(), self.reporting.await.unwrap())
    }
}

/// Raises alerts at a steady pace, some by two requests at once, to a provider that misbehaves.
async fn keep_raising(twilio: Twilio, tally: Arc<Mutex<Tally>>, mut stop: watch::Receiver<bool>, seed: u64) -> Raised {
    let (client, mut dice) = (client(), StdRng::seed_from_u64(seed));
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut raised = Raised::default();
    while !*stop.borrow_and_update() {
        ticks.tick().await;
        let count = raised.events;
        let phone = format!("+1415{}", 2_000_000 + count);
        let answers = [odd_answer(&mut dice), odd_answer(&mut dice)];
        if answers.iter().all(|answer| matches!(answer, Answers::Accepts)) {
            raised.answered_well.insert(phone.clone());
        }
        twilio.script(&phone, answers);
        let event = Call::Event(critical(&count.to_string(), &[person(&phone)]).to_string());
        let taken = if count % 5 == 0 {
            let both = (
                event.until_taken(&client, &tally, count),
                event.until_taken(&client, &tally, count + 1),
            );
            <[String; 2]>::from(tokio::join!(both.0, both.1)).into()
        } else {
            vec![event.until_taken(&client, &tally, count).await]
        };
        let mut tally = tally.lock().unwrap();
        for address in taken {
            *tally.events.entry(address).or_default() += 1;
        }
        raised.events += 1;
    }
    raised
}

/// How receipts come: in order, in disorder, not at all.
const WORDS: [&[&str]; 3] = [&["sent", "delivered"], &["delivered", "sent"], &[]];

/// Posts receipts for what the provider accepts; returns how many.
async fn keep_reporting(twilio: Twilio, tally: Arc<Mutex<Tally>>, mut stop: watch::Receiver<bool>, seed: u64) -> usize {
    let (client, mut dice) = (client(), StdRng::seed_from_u64(seed));
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let (mut seen, mut count) = (0, 0);
    while !*stop.borrow_and_update() {
        ticks.tick().await;
        for message in twilio.messages().split_off(seen) {
            seen += 1;
            let words = WORDS[dice.random_range(0..WORDS.len())];
            if !words.is_empty() {
                twilio.set_status(&message.sid, "delivered");
            }
            for word in words {
                let receipt = Call::Receipt(message.clone(), word);
                let address = receipt.until_taken(&client, &tally, dice.random_range(0..10)).await;
                *tally.lock().unwrap().receipts.entry(address).or_default() += 1;
                count += 1;
            }
        }
    }
    count
}

/// What callers ask again and again, here or there, until it is taken.
enum Call {
    Event(String),
    Receipt(Message, &'static str),
}

impl Call {
    /// Asks one process after the other; returns which has taken it.
    async fn until_taken(&self, client: &reqwest::Client, tally: &Mutex<Tally>, first: usize) -> String {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        for turn in first.. {
            ticks.tick().await;
            let address = {
                let tally = tally.lock().unwrap();
                tally.addresses[turn % tally.addresses.len()].clone()
            };
            if timeout(ANSWER, self.is_taken(client, &address)).await == Ok(true) {
                return address;
            }
            assert!(started.elapsed() < PATIENCE, "not taken by {:?}", tally.lock());
        }
        unreachable!("the turns do not end")
    }

    async fn is_taken(&self, client: &reqwest::Client, address: &str) -> bool {
        match self {
            Self::Event(event) => {
                let posting = client.post(format!("http://{address}/v1/events"));
                let posting = posting.bearer_auth(INTAKE).header("content-type", "application/json");
                let answer = posting.body(event.clone()).send().await;
                answer.is_ok_and(|answer| matches!(answer.status().as_u16(), 200 | 202))
            }
            Self::Receipt(message, word) => message.report_to(client, address, word, None).await == Some(204),
        }
    }
}

/// Stops a process as its administrator would.
async fn stop(mut process: Service) {
    process.signal("TERM");
    let status = process.ended().await;
    assert!(status.success(), "{status}: {}", process.log());
}

/// The upgrade of a service that must not stand still, and the way back. A version that finds newer tables does not start:
/// then the way back is that processes of the version before, which still run, go on when those of this one are stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_and_the_way_back_send_once_and_lose_nothing() {
    let story = "a rolling upgrade and the way back";
    let Some(before) = binary_before() else {
        left_out("the program of the version before (NIGHTBELL_TEST_BEFORE)", story);
        return;
    };
    let Some(database) = Database::postgres(story).await else {
        return;
    };
    let seed = torture_seed();
    let started = Instant::now();
    let mut env = Plan::on(database)
        .environment(PROGRAM, &before)
        .set("DAILY_LIMIT", "1000000")
        .set("SMS__TIMEOUT", "800ms")
        .set("SMS__LEASE", "2s")
        .set("SMS__RECONCILE_AFTER", "4s")
        .set("SMS__POLL_AFTER", "2s")
        .set("LOG__FILTER", "error")
        .build()
        .await;
    let settings_before = env.settings.clone();
    let folder = env.database.folder.path().to_owned();
    let mut old = env.start_another();
    env.settings.remove(PROGRAM);
    let traffic = Traffic::through(&env.service.address, &env.twilio, seed);
    traffic
        .flows_through("the version before alone", &[&env.service, &old])
        .await;

    // There: this version comes beside it, and each loses a process at once.
    let mut new = env.start_another();
    traffic
        .flows_through("both versions", &[&env.service, &old, &new])
        .await;
    new.kill();
    new = env.start_another();
    traffic
        .flows_through("both, after a kill of this one", &[&env.service, &old, &new])
        .await;
    env.service.kill();
    traffic
        .flows_through("both, after a kill of the one before", &[&old, &new])
        .await;
    let comes_back = match Service::try_start(&settings_before, &folder) {
        Ok(another) => {
            stop(std::mem::replace(&mut old, another)).await;
            traffic
                .flows_through("both, one before started again", &[&old, &new])
                .await;
            stop(old).await;
            traffic.flows_through("this version alone", &[&new]).await;
            old = Service::start(&settings_before, &folder);
            traffic
                .flows_through("both, the one before come back", &[&old, &new])
                .await;
            true
        }
        Err(log) => {
            assert!(log.contains("belongs to a newer Nightbell"), "{log}");
            false
        }
    };

    // Back, and there again.
    stop(new).await;
    traffic.flows_through("the version before alone again", &[&old]).await;
    new = env.start_another();
    traffic.flows_through("both again", &[&old, &new]).await;
    stop(old).await;
    traffic.flows_through("this version alone in the end", &[&new]).await;
    env.service = new;
    let (raised, receipts) = traffic.end().await;
    let events = raised.events;
    let settled = drain(&env, events).await;

    let messages = env.twilio.messages();
    let outcome = compare(&settled, &messages);
    let _ = writeln!(
        std::io::stderr(),
        "rolling upgrade, the version before {}: {events} events, {receipts} receipts, {} calls, {} messages in {:.0} s (seed {seed}): \
         {} with two messages, {} lost, {} in disagreement",
        if comes_back {
            "started again"
        } else {
            "refuses newer tables"
        },
        env.twilio.sign_ins().len(),
        messages.len(),
        started.elapsed().as_secs_f64(),
        outcome.doubled.len(),
        outcome.lost.len(),
        outcome.disagreeing.len(),
    );
    assert!(outcome.is_good(), "seed {seed}: {outcome:#?}");
    assert_eq!(messages.len(), events, "seed {seed}: one message for each event");
    let went_through = async |states: &str| {
        let phones = format!(
            "select distinct d.phone from timeline t join delivery d on d.id = t.delivery_id where t.what in ({states})"
        );
        env.database.texts(&phones).await
    };
    let mut bad = went_through("'failed', 'undelivered', 'expired', 'suppressed', 'canceled'").await;
    // A call without an answer may stay uncertain for longer than the lists have time for; one with an answer may not.
    let uncertain = went_through("'unconfirmed'").await;
    bad.extend(
        uncertain
            .into_iter()
            .filter(|phone| raised.answered_well.contains(phone)),
    );
    for phone in bad.iter().take(3) {
        tell_story_of(&env, &settled[phone].to_string()).await;
    }
    assert!(bad.is_empty(), "seed {seed}: {} went through a bad state", bad.len());
    assert_eq!(env.get("/v1/limit").await["used"], events, "one slot for each");
}
