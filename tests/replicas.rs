//! Several processes on one PostgreSQL: the same promise. And the transfer to it.

use crate::{
    support::{
        client,
        database::Database,
        env::{INTAKE, Plan, TestEnv, critical, person},
        eventually,
        service::{Service, command},
        twilio::{Answers, Message},
    },
    torture::{build, compare, drain, torture_seed, torture_size},
    trouble::past_the_lease,
};
use futures::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::{io::Write, time::Duration};

const TWO_WORKERS: usize = 2;

/// Posts an event as a helpdesk does: again, here or there, until it is answered.
async fn post_until_taken(addresses: &[String], event: &Value) -> u16 {
    let client = client();
    let mut turn = 0;
    eventually("an answer to an event", async || {
        turn += 1;
        let url = format!("http://{}/v1/events", addresses[turn % addresses.len()]);
        let answer = client
            .post(url)
            .bearer_auth(INTAKE)
            .header("content-type", "application/json")
            .timeout(Duration::from_millis(700))
            .body(event.to_string())
            .send()
            .await;
        match answer.map(|answer| answer.status().as_u16()) {
            Ok(status @ (200 | 202)) => Ok(status),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// Posts a receipt as Twilio does: again until it is taken.
async fn report_until_taken(env: &mut TestEnv, addresses: &[String], message: &Message, word: &str) {
    let mut round = 0;
    eventually("a receipt to be taken", async || {
        env.service.address.clone_from(&addresses[round % addresses.len()]);
        round += 1;
        match env.try_report(message, word).await {
            Some(204) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_under_torture_send_once_and_lose_nothing() {
    let Some((database, server)) = Database::own_postgres("three replicas under torture", false).await else {
        return;
    };
    let (deliveries, kills) = torture_size();
    let seed = torture_seed();
    let mut dice = StdRng::seed_from_u64(seed);
    let (mut env, phones) = build(Plan::on(database), deliveries, &mut dice).await;
    let mut others: Vec<Service> = (0..TWO_WORKERS).map(|_| env.start_another()).collect();

    let started = std::time::Instant::now();
    let (mut posted, mut frozen, mut restarts) = (0, 0, 0);
    for kill in 0..kills {
        // One of the others stands still for longer than its lease, while the rest goes on.
        let still = (kill % 4 == 1).then(|| dice.random_range(0..others.len()));
        if let Some(still) = still {
            others[still].signal("STOP");
            frozen += 1;
        }
        // A load balancer leaves out who does not answer.
        let awake = others.iter().enumerate().filter(|(index, _)| Some(*index) != still);
        let addresses: Vec<String> = awake
            .map(|(_, service)| service.address.clone())
            .chain([env.service.address.clone()])
            .collect();
        let until = deliveries * (kill + 1) / kills;
        while posted < until {
            env.twilio.close(dice.random_range(0..20) == 0);
            post_until_taken(&addresses, &critical(&posted.to_string(), &[person(&phones[posted])])).await;
            posted += 1;
            let messages = env.twilio.messages();
            if !messages.is_empty() && dice.random_bool(0.5) {
                let message = messages[dice.random_range(0..messages.len())].clone();
                env.twilio.set_status(&message.sid, "delivered");
                for word in ["delivered", "sent"] {
                    let own = env.service.address.clone();
                    report_until_taken(&mut env, &addresses, &message, word).await;
                    env.service.address = own;
                }
            }
        }
        env.twilio.close(false);
        if kill % 3 == 2 {
            server.restart_immediately();
            restarts += 1;
        }
        if let Some(still) = still {
            past_the_lease().await;
            others[still].signal("CONT");
        }
        match dice.random_range(0..=others.len()) {
            0 => {
                env.service.kill();
                env.restart();
            }
            index => {
                others[index - 1].kill();
                others[index - 1] = env.start_another();
            }
        }
    }
    let settled = drain(&env, deliveries).await;

    let outcome = compare(&settled, &env.twilio.messages());
    let _ = writeln!(
        std::io::stderr(),
        "torture of 3 replicas: {deliveries} deliveries, {kills} kills, {restarts} restarts of PostgreSQL, {frozen} freezes past the lease, \
         {} calls, {} messages in {:.0} s (seed {seed}): {} with two messages, {} lost, {} in disagreement",
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_never_overshoot_the_limit() {
    let Some(database) = Database::postgres("three_replicas_never_overshoot_the_limit").await else {
        return;
    };
    let mut env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    for ticket in 0..10 {
        let people: Vec<Value> = (0..100)
            .map(|one| person(&format!("+1415{}", 2_000_000 + ticket * 100 + one)))
            .collect();
        env.raise(&critical(&ticket.to_string(), &people)).await;
    }
    env.service.kill();
    // All at once: a thousand are owed, and three processes begin together.
    env.database
        .execute("update delivery set state = 'pending', due_at = received_at, lease_until = null, lease_token = null")
        .await;
    env.settings.insert("NIGHTBELL_DAILY_LIMIT".into(), "100".into());
    env.restart();
    let others = [env.start_another(), env.start_another()];

    eventually("a limit that is used up", async || {
        let limit = env.get("/v1/limit").await;
        if limit["used"] == 100 && limit["deferred"] == 900 {
            Ok(())
        } else {
            Err(limit)
        }
    })
    .await;
    assert_eq!(env.twilio.messages().len(), 100);
    assert_eq!(others.len(), 2);
}

/// Every replica gets receipts for the same messages at the same time, in opposite orders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_overlap_in_three_replicas_are_all_taken() {
    let Some(database) = Database::postgres("receipts_that_overlap_in_three_replicas").await else {
        return;
    };
    // Four thousand receipts in the long form of the torture.
    let (people, rounds) = if std::env::var("NIGHTBELL_TORTURE").is_ok() {
        (400, 3)
    } else {
        (100, 1)
    };
    let env = Plan::on(database).set("DAILY_LIMIT", "100000").build().await;
    let others = [env.start_another(), env.start_another()];
    for ticket in 0..people / 20 {
        let twenty: Vec<Value> = (0..20)
            .map(|one| person(&format!("+1415{}", 2_000_000 + ticket * 20 + one)))
            .collect();
        env.raise(&critical(&ticket.to_string(), &twenty)).await;
    }
    let messages = env.twilio.accepted(people).await;
    let addresses = [&env.service.address, &others[0].address, &others[1].address];
    // In each batch one half is good statuses, decided together, and the other half bad ones, decided one by one; what is the
    // first half of one replica's batch is the second half of another's.
    let mut answers = Vec::new();
    let client = client();
    for hundred in messages.chunks(100) {
        for round in 0..rounds {
            let client = &client;
            let replicas = addresses.iter().enumerate().map(|(replica, address)| {
                join_all(hundred.iter().enumerate().map(move |(index, message)| {
                    let is_good = (index < hundred.len() / 2) == ((replica + round) % 2 == 0);
                    let code = (30_003 + replica * 10 + round).to_string();
                    async move {
                        if is_good {
                            message.report_to(client, address, "sent", None).await
                        } else {
                            message.report_to(client, address, "undelivered", Some(&code)).await
                        }
                    }
                }))
            });
            answers.extend(join_all(replicas).await.concat());
        }
        let last = hundred
            .iter()
            .map(|message| message.report_to(&client, addresses[0], "delivered", None));
        answers.extend(join_all(last).await);
    }

    let refused = answers.iter().filter(|status| **status != Some(204)).count();
    let _ = writeln!(
        std::io::stderr(),
        "{} overlapping receipts in 3 replicas: {refused} not taken",
        answers.len()
    );
    assert_eq!((answers.len(), refused), (people * (3 * rounds + 1), 0));
    let open = "select count(*) from delivery where state <> 'delivered'";
    assert_eq!(env.database.number(open).await, 0);
}

/// At one message a second, a hundred people who opted out must not cost a hundred seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suppressed_deliveries_use_up_no_turn_of_the_pace() {
    let Some(database) = Database::postgres("suppressed_deliveries_use_up_no_turn_of_the_pace").await else {
        return;
    };
    let env = Plan::on(database).set("SMS__PER_SECOND", "1").build().await;
    let number = |one: usize| format!("+1415{}", 2_000_000 + one);
    for one in 0..100 {
        let body = json!({"phone": number(one)});
        let added = env.admin(reqwest::Method::POST, "/v1/opt-outs", Some(body)).await;
        assert_eq!(added.status, 201);
    }
    let opted_out: Vec<Value> = (0..100).map(|one| person(&number(one))).collect();
    env.raise(&critical("1", &opted_out)).await;

    let alert = env.raise(&critical("2", &[person("+14155550101")])).await;

    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_takes_in_another_sends() {
    let Some(database) = Database::postgres("what_one_process_takes_in_another_sends").await else {
        return;
    };
    let mut env = Plan::on(database).build().await;
    let worker = Service::start_as(&env.settings, env.database.folder.path(), &["--role", "worker"]);
    env.service.kill();
    env.service = Service::start_as(&env.settings, env.database.folder.path(), &["--role", "intake"]);

    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["accepted"]).await;

    worker.logged("the provider accepted it").await;
    let endpoint = async |path: &str| {
        let answer = client()
            .get(format!("http://{}{path}", worker.address))
            .send()
            .await
            .unwrap();
        answer.status().as_u16()
    };
    assert_eq!(
        (
            endpoint("/healthz").await,
            endpoint("/readyz").await,
            endpoint("/v1/alerts").await
        ),
        (200, 200, 404)
    );
    // The listener's own connection is cut, as all others are: it is made again.
    env.database
        .execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'nightbell' and datname = current_database()")
        .await;
    let event = critical("2", &[person("+14155550102")]);
    post_until_taken(&[env.service.address.clone()], &event).await;
    env.twilio.accepted(2).await;
    assert_eq!(env.twilio.messages().len(), 2);
}

#[tokio::test]
async fn a_sqlite_file_has_one_process_and_no_roles() {
    let database = Database::sqlite();
    let settings = std::collections::BTreeMap::from([("NIGHTBELL_DATABASE_URL".to_owned(), database.url.clone())]);

    let ended = command(&settings, database.folder.path())
        .args(["serve", "--role", "intake"])
        .env("NIGHTBELL_LISTEN", "127.0.0.1:0")
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1));
    assert!(said.contains("need a PostgreSQL"), "{said}");
}

stories![
    a_database_of_a_newer_version_is_left_alone,
    the_tables_are_brought_up_to_date_by_hand,
    a_backup_taken_while_the_service_runs_is_whole,
];

async fn a_database_of_a_newer_version_is_left_alone(database: Database) {
    let mut env = Plan::on(database).build().await;
    env.database
        .execute("insert into _sqlx_migrations (version, description, success, checksum, execution_time) select 9999, 'from the future', true, checksum, 0 from _sqlx_migrations where version = 1")
        .await;

    env.service.kill();
    let log = Service::try_start(&env.settings, env.database.folder.path())
        .err()
        .unwrap();
    assert!(
        log.contains("belongs to a newer Nightbell") && log.contains("9999"),
        "{log}"
    );
    for arguments in [
        vec!["migrate"],
        vec!["migrate", "--dry-run"],
        vec!["nightly", "--dry-run"],
    ] {
        let (code, _, err) = env.run(&arguments).await;
        assert_eq!(code, 1, "{arguments:?}: {err}");
    }
    env.database
        .execute("delete from _sqlx_migrations where version = 9999")
        .await;
    env.restart();
}

async fn the_tables_are_brought_up_to_date_by_hand(database: Database) {
    let mut settings = std::collections::BTreeMap::new();
    settings.insert("NIGHTBELL_DATABASE_URL".to_owned(), database.url.clone());
    let run = |arguments: &[&str]| {
        let output = command(&settings, database.folder.path())
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };

    let (code, before) = run(&["migrate", "--dry-run"]);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
    let migrations = std::fs::read_dir(folder).unwrap().count();
    assert_eq!((code, before.lines().count()), (Some(0), migrations), "{before}");
    assert!(before.starts_with("to do: 0001 spine"), "{before}");
    assert_eq!(run(&["migrate"]).0, Some(0));
    let (code, after) = run(&["migrate", "--dry-run"]);
    assert_eq!((code, after.as_str()), (Some(0), "the tables are up to date\n"));
}

async fn a_backup_taken_while_the_service_runs_is_whole(database: Database) {
    let mut env = Plan::on(database).build().await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["accepted"]).await;

    let (code, _, err) = env.run(&["backup", "copy.db"]).await;
    if !env.database.is_sqlite {
        assert_eq!(code, 1);
        assert!(err.contains("pg_dump"), "{err}");
        return;
    }
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = env.run(&["backup", "copy.db"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("is there already"), "{err}");
    env.service.kill();
    env.settings
        .insert("NIGHTBELL_DATABASE_URL".into(), "sqlite://copy.db".into());
    env.restart();
    env.stand(&alert, &["accepted"]).await;
    let again = env.post(&critical("1", &[person("+14155550101")])).await;
    assert_eq!(again.body["outcome"], "duplicate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transferred_to_postgresql_with_sends_under_way_nothing_is_sent_twice() {
    let Some(target) = Database::postgres("transferred_to_postgresql").await else {
        return;
    };
    // Ten thousand in the long form of the torture.
    let count: usize = if std::env::var("NIGHTBELL_TORTURE").is_ok() {
        10_000
    } else {
        200
    };
    let mut env = Plan::on(Database::sqlite())
        .set("DAILY_LIMIT", &(count - 20).to_string())
        .set("SMS__TIMEOUT", "800ms")
        .set("SMS__LEASE", "2s")
        .set("SMS__RECONCILE_AFTER", "1s")
        .build()
        .await;
    env.admin(
        reqwest::Method::POST,
        "/v1/opt-outs",
        Some(json!({"phone": "+14155550199"})),
    )
    .await;
    for index in 0..count {
        // Some calls get no answer: what became of them is not known when the database is transferred.
        let answer = if index % 7 == 0 {
            Answers::AcceptsWithoutAnswer
        } else {
            Answers::Accepts
        };
        let somebody = env.phone(&format!("+1415{}", 2_000_000 + index), [answer]);
        env.raise(&critical(&index.to_string(), &[somebody])).await;
    }
    env.service.kill();
    let sent_before = env.twilio.messages().len();

    let (code, out, err) = env.run(&["export", "nightbell.jsonl"]).await;
    assert_eq!(code, 0, "{out}{err}");
    env.settings
        .insert("NIGHTBELL_DATABASE_URL".into(), "sqlite://elsewhere.db".into());
    let (code, _, err) = env.run(&["export", "nothing.jsonl"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("there is no database"), "{err}");
    env.settings.insert("NIGHTBELL_DATABASE_URL".into(), target.url.clone());
    let whole = std::fs::read_to_string(env.database.folder.path().join("nightbell.jsonl")).unwrap();
    let half: Vec<&str> = whole.lines().take(whole.lines().count() / 2).collect();
    std::fs::write(env.database.folder.path().join("half.jsonl"), half.join("\n")).unwrap();
    let (code, out, err) = env.run(&["import", "half.jsonl"]).await;
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("nothing was imported"), "{err}");
    assert_eq!(target.number("select count(*) from alert").await, 0);
    let (code, out, err) = env.run(&["import", "nightbell.jsonl"]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains(&format!("alert: {count} of {count}")) && out.contains("everything is here"),
        "{out}"
    );
    let (code, _, err) = env.run(&["import", "nightbell.jsonl"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("is not empty"), "{err}");
    env.settings
        .insert("NIGHTBELL_DAILY_LIMIT".into(), (count * 2).to_string());
    env.restart();

    eventually("everything that was owed", async || {
        let open = target
            .number("select count(*) from delivery where state not in ('accepted', 'sent', 'delivered')")
            .await;
        if open == 0 { Ok(()) } else { Err(open) }
    })
    .await;
    let mut texted: Vec<String> = env.twilio.messages().into_iter().map(|message| message.to).collect();
    assert!(
        texted.len() == count && sent_before < count,
        "{} of {count}, {sent_before} before",
        texted.len()
    );
    texted.sort();
    texted.dedup();
    assert_eq!(texted.len(), count, "nobody twice");
    assert_eq!(env.get("/v1/opt-outs").await["items"].as_array().unwrap().len(), 1);
    let again = env.post(&critical("0", &[person("+14152000000")])).await;
    assert_eq!(again.body["outcome"], "duplicate");
}
