//! Trouble around the process: the database locked, full or gone; the process stopped at a step, frozen and thawed.

use crate::support::{
    database::{Database, Folder},
    env::{Plan, TestEnv, critical, person},
    eventually, left_out,
    twilio::Answers,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{process::Command, sync::Arc, time::Duration};

stories![
    killed_before_the_accept_commits_nothing_is_stored_and_the_retry_is_new,
    killed_between_commit_and_202_the_retry_is_a_duplicate_and_one_sms_goes_out,
    killed_between_claim_and_begin_send_one_sms_goes_out,
    killed_between_begin_send_and_the_call_one_sms_goes_out,
    killed_between_the_answer_and_its_record_one_sms_went_out,
    frozen_past_the_lease_and_thawed_one_sms_went_out,
    frozen_before_the_call_one_sms_goes_out_after_the_thaw,
    a_row_that_cannot_be_read_is_set_aside_and_the_rest_goes_on,
    a_database_that_refuses_is_answered_with_503_and_comes_back,
    a_database_that_somebody_else_holds_is_answered_with_503,
    a_clock_that_jumps_sends_nothing_twice,
    connections_that_are_not_made_are_tried_again,
    every_state_that_is_not_final_has_a_way_out_in_a_fresh_process,
    tasks_that_panic_are_said_and_started_anew,
    tasks_that_go_on_panicking_end_the_process,
];

/// Later than the calendar goes (the year 9999), so that reading the clock fails inside the program.
const BEYOND_THE_CALENDAR: i64 = 400_000_000_000;

fn at_the_present(database: Database, story: &str) -> Option<Plan> {
    let now = jiff::Timestamp::now().strftime("%F %T").to_string();
    hasty(database).at(&now, story)
}

async fn tasks_that_panic_are_said_and_started_anew(database: Database) {
    let Some(plan) = at_the_present(database, "tasks that panic") else {
        return;
    };
    let env = plan.build().await;
    let first = env.raise(&critical("0", &[person("+14155550100")])).await;
    env.stand(&first, &["accepted"]).await;

    env.turn_clock_by(BEYOND_THE_CALENDAR);
    for task in [
        "sweep",
        "reconcile",
        "make the nightly report",
        "clean up",
        "begin to send",
    ] {
        env.service.logged(&format!("task=\"{task}\"")).await;
    }
    env.turn_clock_by(0);

    // The call never comes back: the sweep has to notice, and the search to find that it was never there.
    let somebody = env.phone("+14155550101", [Answers::Hangs]);
    let alert = env.raise(&critical("1", &[somebody])).await;
    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    assert!(delivery["attempts"].as_i64() >= Some(2), "{delivery}");
    assert_eq!(env.twilio.messages_to("+14155550101").len(), 1);
}

async fn tasks_that_go_on_panicking_end_the_process(database: Database) {
    let Some(plan) = at_the_present(database, "tasks that go on panicking") else {
        return;
    };
    let mut env = plan.build().await;
    let first = env.raise(&critical("0", &[person("+14155550100")])).await;
    env.stand(&first, &["accepted"]).await;

    env.turn_clock_by(BEYOND_THE_CALENDAR);
    let status = env.service.ended().await;

    assert_eq!(status.code(), Some(1), "{status:?}");
    let log = env.service.log();
    assert!(
        log.contains("nightbell: the task `") && log.contains("failed 5 times within a minute"),
        "{log}"
    );
}

fn hasty(database: Database) -> Plan {
    Plan::on(database)
        .set("SMS__TIMEOUT", "900ms")
        .set("SMS__LEASE", "2s")
        .set("SMS__RECONCILE_AFTER", "1s")
        .set("SMS__POLL_AFTER", "1s")
}

async fn post_in_background(env: &TestEnv, event: &Value) -> tokio::task::JoinHandle<bool> {
    let url = format!("http://{}/v1/events", env.service.address);
    let request = crate::support::client()
        .post(url)
        .bearer_auth(crate::support::env::INTAKE)
        .header("content-type", "application/json")
        .body(event.to_string());
    tokio::spawn(async move { request.send().await.is_ok() })
}

async fn killed_before_the_accept_commits_nothing_is_stored_and_the_retry_is_new(database: Database) {
    let mut env = hasty(database).build().await;
    let event = critical("1", &[person("+14155550101")]);
    // Somebody else holds the write lock, so the accept stands before its commit.
    let holder = env.database.hold_writes().await;
    let posted = post_in_background(&env, &event).await;
    eventually("the request to reach the service", async || {
        if env.service.has_open_requests() {
            Ok(())
        } else {
            Err("none")
        }
    })
    .await;
    env.service.kill();
    drop(holder);
    assert!(!posted.await.unwrap(), "the caller got no answer");
    assert_eq!(env.database.number("select count(*) from alert").await, 0);

    env.restart();
    let alert = env.raise(&event).await;
    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn killed_between_commit_and_202_the_retry_is_a_duplicate_and_one_sms_goes_out(database: Database) {
    let mut env = hasty(database).build().await;
    let event = critical("1", &[person("+14155550101")]);

    // The caller is gone before it reads an answer; the commit alone is seen, from beside.
    post_in_background(&env, &event).await.abort();
    let posted = post_in_background(&env, &event).await;
    eventually("the commit", async || {
        let alerts = env.database.number("select count(*) from alert").await;
        if alerts == 1 { Ok(()) } else { Err(alerts) }
    })
    .await;
    posted.abort();
    env.service.kill();
    env.restart();

    assert_eq!(env.post(&event).await.body["outcome"], "duplicate");
    let alert = env.get("/v1/alerts?ticket_id=1").await["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn killed_between_claim_and_begin_send_one_sms_goes_out(database: Database) {
    let mut env = hasty(database).build().await;
    env.database.break_writes("insert", "attempt").await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    eventually("a claim whose send cannot begin", async || {
        if env.service.log().contains("cannot begin to send") {
            Ok(())
        } else {
            Err(env.service.log())
        }
    })
    .await;
    assert_eq!(env.get("/v1/limit").await["used"], 0, "nothing half-done");

    env.service.kill();
    env.database.mend("attempt").await;
    env.restart();

    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    assert_eq!((&delivery["attempts"], env.twilio.messages().len()), (&json!(1), 1));
}

async fn killed_between_begin_send_and_the_call_one_sms_goes_out(database: Database) {
    // A listener whose queue is full: connections to it hang, so the call stands right before its request.
    let wall = Wall::build();
    let mut env = hasty(database).build().await;
    env.settings.insert("NIGHTBELL_TWILIO__BASE_URL".into(), wall.url());
    env.service.kill();
    env.restart();
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["sending"]).await;

    env.service.kill();
    env.settings
        .insert("NIGHTBELL_TWILIO__BASE_URL".into(), env.twilio.url.clone());
    env.restart();

    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    assert_eq!(
        (&delivery["attempts"], env.twilio.messages().len()),
        (&json!(2), 1),
        "{delivery}"
    );
}

async fn killed_between_the_answer_and_its_record_one_sms_went_out(database: Database) {
    let mut env = hasty(database).build().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWhenLet(Arc::clone(&gate))])],
        ))
        .await;
    env.twilio.accepted(1).await;
    env.database.break_writes("insert", "timeline").await;
    gate.notify_one();
    eventually("an answer that cannot be recorded", async || {
        if env.service.log().contains("cannot record") {
            Ok(())
        } else {
            Err(env.service.log())
        }
    })
    .await;

    env.service.kill();
    env.database.mend("timeline").await;
    env.restart();

    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    assert_eq!(
        (&delivery["attempts"], env.twilio.messages().len()),
        (&json!(1), 1),
        "{delivery}"
    );
}

async fn frozen_past_the_lease_and_thawed_one_sms_went_out(database: Database) {
    let env = hasty(database).build().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWhenLet(Arc::clone(&gate))])],
        ))
        .await;
    env.twilio.accepted(1).await;

    env.service.signal("STOP");
    gate.notify_one();
    past_the_lease().await;
    env.service.signal("CONT");

    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    assert_eq!(
        (&delivery["attempts"], env.twilio.messages().len()),
        (&json!(1), 1),
        "{delivery}"
    );
}

async fn frozen_before_the_call_one_sms_goes_out_after_the_thaw(database: Database) {
    let env = hasty(database).build().await;
    // Frozen somewhere between the accept and the call, past the lease. That a call is refused once its deadline has
    // passed is shown by a unit test of `worker::send`, which can stand exactly there.
    let holder = env.database.hold_writes().await;
    let event = critical("1", &[person("+14155550101")]);
    let posted = post_in_background(&env, &event).await;
    eventually("the request to reach the service", async || {
        if env.service.has_open_requests() {
            Ok(())
        } else {
            Err("none")
        }
    })
    .await;
    drop(holder);
    env.service.signal("STOP");
    past_the_lease().await;
    env.service.signal("CONT");
    assert!(posted.await.unwrap());

    let alert = env.get("/v1/alerts?ticket_id=1").await["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn a_row_that_cannot_be_read_is_set_aside_and_the_rest_goes_on(database: Database) {
    let env = hasty(database).set("DAILY_LIMIT", "0").build().await;
    let odd = env.raise(&critical("1", &[person("+14155550101")])).await;
    let good = env.raise(&critical("2", &[person("+14155550102")])).await;
    env.stand(&odd, &["deferred"]).await;
    env.stand(&good, &["deferred"]).await;
    env.database
        .execute(&format!("update delivery set phone = null where alert_id = '{odd}'"))
        .await;

    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;

    let delivery = env.stand(&odd, &["failed"]).await.remove(0);
    assert_eq!(delivery["reason"], "internal_error");
    env.stand(&good, &["accepted"]).await;
    env.service.logged("a pending delivery without a phone").await;
}

async fn a_database_that_refuses_is_answered_with_503_and_comes_back(database: Database) {
    let env = hasty(database).build().await;
    let first = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&first, &["accepted"]).await;
    let message = env.twilio.messages().remove(0);
    env.database.break_writes("insert", "timeline").await;

    let refused = env.post(&critical("2", &[person("+14155550102")])).await;
    assert_eq!(
        (refused.status, refused.content_type.as_str()),
        (503, "application/problem+json"),
        "{refused:?}"
    );
    assert_eq!(env.report(&message, "delivered", None).await, 503);
    assert_eq!(
        env.post(&critical("1", &[person("+14155550101")])).await.status,
        200,
        "what is known is still answered"
    );
    assert_eq!(
        env.database.number("select count(*) from alert").await,
        1,
        "nothing half-stored"
    );
    assert_eq!(env.database.number("select count(*) from receipt").await, 0);
    env.database.mend("timeline").await;

    let second = env.raise(&critical("2", &[person("+14155550102")])).await;
    env.stand(&second, &["accepted"]).await;
    assert_eq!(env.report(&message, "delivered", None).await, 204);
}

async fn a_database_that_somebody_else_holds_is_answered_with_503(database: Database) {
    let env = hasty(database).build().await;
    let holder = env.database.hold_writes().await;

    let refused = env.post(&critical("1", &[person("+14155550101")])).await;
    assert_eq!(refused.status, 503, "after five seconds, not for ever: {refused:?}");
    drop(holder);

    // The answer may have come before the database's: then it may have been stored after all, and this is a duplicate.
    let again = env.post(&critical("1", &[person("+14155550101")])).await;
    assert!([200, 202].contains(&again.status), "{again:?}");
    let alert = again.body["alert_id"].as_str().expect("an alert");
    env.stand(alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn a_clock_that_jumps_sends_nothing_twice(database: Database) {
    let now = jiff::Timestamp::now();
    let shown = |at: jiff::Timestamp| at.strftime("%F %T").to_string();
    let Some(plan) = Plan::on(database).at(&shown(now), "a clock that jumps") else {
        return;
    };
    let env = plan.build().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWhenLet(Arc::clone(&gate))])],
        ))
        .await;
    env.twilio.accepted(1).await;

    env.turn_clock_to(&shown(now + jiff::SignedDuration::from_hours(2)));
    env.stand(&alert, &["unknown"]).await;
    env.turn_clock_to(&shown(now - jiff::SignedDuration::from_hours(2)));
    gate.notify_one();

    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

/// The server cuts connections, then takes none for a while: 503 meanwhile, and recovery without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_gone_for_a_while_is_waited_for() {
    let Some(database) = Database::postgres("a_postgres_that_is_gone_for_a_while_is_waited_for").await else {
        return;
    };
    let env = hasty(database).build().await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    let name = env.database.url.rsplit('/').next().unwrap().to_owned();
    let first = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&first, &["accepted"]).await;
    let admin = Database {
        url: env.database.url.replace(&name, "postgres"),
        folder: Folder::new(),
        is_sqlite: false,
    };

    admin
        .execute(&format!("alter database {name} with allow_connections false"))
        .await;
    admin
        .number(&cut.replace("current_database()", &format!("'{name}'")))
        .await;
    let refused = env.post(&critical("2", &[person("+14155550102")])).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    admin
        .execute(&format!("alter database {name} with allow_connections true"))
        .await;

    let second = env.raise(&critical("2", &[person("+14155550102")])).await;
    env.stand(&second, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 2);
}

async fn connections_that_are_not_made_are_tried_again(database: Database) {
    let folder = Folder::new();
    let mut env = hasty(database).build().await;
    let refused = format!("http://127.0.0.1:{}", closed_port());
    // A plain server where TLS is spoken, and a name that nobody has.
    for (ticket, url) in [
        ("1", refused),
        ("2", env.twilio.url.replace("http://", "https://")),
        ("3", "http://nobody.invalid".to_owned()),
    ] {
        // Stopped, not killed: a call that is cut off would be unknown, and rightly keep its slot.
        env.service.signal("TERM");
        env.service.ended().await;
        env.settings.insert("NIGHTBELL_TWILIO__BASE_URL".into(), url.clone());
        env.restart();
        let alert = env
            .raise(&critical(ticket, &[person(&format!("+1415555010{ticket}"))]))
            .await;
        eventually(&format!("a second try of {url}"), async || {
            let delivery = env.deliveries(&alert).await.remove(0);
            let tried = delivery["timeline"]
                .to_string()
                .contains("not sent, the provider could not be reached");
            if tried { Ok(()) } else { Err(delivery) }
        })
        .await;
    }
    env.slots_are_used(0).await;
    env.service.kill();
    env.settings
        .insert("NIGHTBELL_TWILIO__BASE_URL".into(), env.twilio.url.clone());
    env.restart();
    env.twilio.accepted(3).await;
    drop(folder);
}

async fn every_state_that_is_not_final_has_a_way_out_in_a_fresh_process(database: Database) {
    let mut env = hasty(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWithoutAnswer])],
        ))
        .await;
    env.stand(&alert, &["deferred"]).await;
    env.twilio.fail_reads(true);
    env.service.kill();
    env.settings.insert("NIGHTBELL_DAILY_LIMIT".into(), "10".into());
    env.restart();
    env.twilio.accepted(1).await;
    env.service.kill();
    env.restart();
    // sending -> unknown -> unconfirmed, each in a process of its own.
    eventually("`unknown`", async || {
        let delivery = env.deliveries(&alert).await.remove(0);
        if delivery["timeline"].to_string().contains("\"unknown\"") {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;
    env.service.kill();
    env.restart();
    env.stand(&alert, &["unconfirmed"]).await;
    env.service.kill();
    env.twilio.fail_reads(false);
    env.restart();
    env.stand(&alert, &["accepted"]).await;
    for status in ["sent", "delivered"] {
        env.service.kill();
        env.twilio.set_status(&env.twilio.messages()[0].sid, status);
        env.restart();
        env.stand(&alert, &[status]).await;
    }
    assert_eq!(env.twilio.messages().len(), 1);
}

/// A small disk that fills up: the exact answers, and full recovery once there is space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing() {
    let folder = Folder::new();
    let disk = folder.path().join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs", disk.to_str().unwrap()])
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return left_out("tmpfs", "a_full_disk_loses_nothing");
    }
    let _unmount = Unmount(disk.clone());
    let mut database = Database::sqlite();
    database.url = format!("sqlite://{}/nightbell.db", disk.display());
    let env = hasty(database).build().await;
    let first = env.raise(&critical("first", &[person("+14155550100")])).await;
    env.stand(&first, &["accepted"]).await;
    let message = env.twilio.messages().remove(0);

    std::fs::write(disk.join("ballast"), vec![0; 1]).unwrap();
    let ballast = Command::new("sh")
        .args(["-c", &format!("cat /dev/zero > {}/ballast", disk.display())])
        .output()
        .unwrap();
    assert!(!ballast.status.success(), "the disk is full");
    let mut answers = Vec::new();
    for ticket in 0..40 {
        answers.push(
            env.post(&critical(
                &ticket.to_string(),
                &[person(&format!("+14155550{:03}", 200 + ticket))],
            ))
            .await,
        );
    }
    let refused: Vec<_> = answers.iter().filter(|reply| reply.status == 503).collect();
    assert!(
        !refused.is_empty() && answers.iter().all(|reply| [202, 503].contains(&reply.status)),
        "{answers:?}"
    );
    assert_eq!(
        refused[0].body["detail"],
        "the database cannot be written now; nothing was stored, so send it again"
    );
    assert_eq!(env.report(&message, "delivered", None).await, 503, "Twilio comes again");
    eventually("not ready", async || {
        let ready = env.request(Method::GET, "/readyz", &[], Vec::new()).await;
        if ready.status == 503 { Ok(()) } else { Err(ready) }
    })
    .await;
    std::fs::remove_file(disk.join("ballast")).unwrap();

    eventually("ready again", async || {
        let ready = env.request(Method::GET, "/readyz", &[], Vec::new()).await;
        if ready.status == 200 { Ok(()) } else { Err(ready) }
    })
    .await;
    assert_eq!(env.report(&message, "delivered", None).await, 204);
    for ticket in 0..40 {
        let reply = env
            .post(&critical(
                &ticket.to_string(),
                &[person(&format!("+14155550{:03}", 200 + ticket))],
            ))
            .await;
        assert!([200, 202].contains(&reply.status), "{reply:?}");
        let alert = reply.body["alert_id"].as_str().unwrap().to_owned();
        env.stand(&alert, &["accepted"]).await;
    }
    assert_eq!(env.twilio.messages().len(), 41, "each once");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Waits until a lease of two seconds is surely over: a frozen process shows no sign that could be waited for.
pub async fn past_the_lease() {
    let mut ticks = tokio::time::interval(Duration::from_secs(3));
    ticks.tick().await;
    ticks.tick().await;
}

fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A listener that takes nobody: its queue is full, so whoever connects hangs.
struct Wall {
    listener: tokio::net::TcpListener,
    _queue: Vec<std::net::TcpStream>,
}

impl Wall {
    fn build() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queue.push(stream);
        }
        Self {
            listener,
            _queue: queue,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}
