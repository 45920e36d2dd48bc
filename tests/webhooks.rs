//! Stories of the endpoints that hear of lifecycle events: what is posted to them, what becomes of those that fail, and what
//! an admin does about it.

use crate::{
    pages::Browser,
    support::{
        database::Database,
        env::{Plan, TestEnv, critical, person},
        eventually, left_out,
        receiver::{Answer, Received, Receiver},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

stories![
    what_becomes_of_an_alert_is_posted_in_order_and_signed,
    names_and_numbers_are_posted_only_where_that_is_wanted,
    an_endpoint_hears_only_of_what_it_wants,
    nothing_is_written_down_where_nobody_listens,
    an_endpoint_that_fails_in_every_way_gets_every_event_and_holds_up_nobody,
    an_alert_that_is_refused_holds_up_no_other,
    killed_again_and_again_every_event_is_posted_in_order,
    a_graceful_stop_repeats_nothing,
    an_endpoint_that_takes_nothing_for_five_days_is_disabled_with_an_alarm_and_goes_on_when_enabled,
    an_event_that_is_refused_for_five_days_is_given_up_and_the_others_of_its_alert_go_on,
    an_endpoint_that_is_gone_is_disabled_at_once,
    events_are_posted_once_more_from_a_time_on,
    a_secret_is_changed_with_two_signatures,
    a_name_that_leads_to_this_machine_is_refused_when_it_is_connected_to,
    a_test_says_what_came_back,
    old_events_are_forgotten_whoever_has_heard_of_them,
    an_event_of_a_newer_version_waits_for_a_process_that_knows_it,
    three_replicas_post_every_event_once,
    the_official_libraries_verify_what_is_posted,
    pages_show_endpoints_and_do_what_an_admin_wants,
];

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// All types but `alert.settled`, which comes whenever the look for it finds it.
const TYPES: &str = "alert.created,alert.acknowledged,alert.closed,delivery.*,message.received,opt_out.*,alarm.raised";

/// Lets somebody on this machine hear of everything, under this name.
fn told(plan: Plan, name: &str, receiver: &Receiver) -> Plan {
    plan.set(&format!("WEBHOOKS__{name}__URL"), &receiver.url())
        .set(&format!("WEBHOOKS__{name}__EVENTS"), TYPES)
        .set(&format!("WEBHOOKS__{name}__SECRET"), SECRET)
        .set(&format!("WEBHOOKS__{name}__ALLOW_PRIVATE"), "true")
        .set(&format!("WEBHOOKS__{name}__TIMEOUT"), "1s")
}

async fn with_desk(database: Database) -> (TestEnv, Receiver) {
    let desk = Receiver::start().await;
    let env = told(Plan::on(database), "DESK", &desk).build().await;
    (env, desk)
}

/// An alert whose only message is delivered and that is closed then.
async fn run_through(env: &TestEnv, ticket: &str) -> String {
    let phone = format!("+14155550{:0>3}", ticket.parse::<u32>().unwrap() + 100);
    let grace = json!({"staff_id": format!("s{ticket}"), "role": "assignee", "name": "Grace Hopper", "phone": phone});
    let alert = env.raise(&critical(ticket, &[grace])).await;
    env.stand(&alert, &["accepted"]).await;
    let message = env
        .twilio
        .messages()
        .into_iter()
        .find(|message| message.to == phone)
        .unwrap();
    assert_eq!(env.report(&message, "delivered", None).await, 204);
    let closed = json!({"type": "ticket.closed", "ticket": {"id": ticket}});
    assert_eq!(env.post(&closed).await.body["outcome"], "resolved");
    alert
}

const WHOLE: [&str; 3] = ["alert.created", "delivery.delivered", "alert.closed"];

/// Lets commands find the service.
fn reachable(env: &mut TestEnv) {
    let address = env.service.address.clone();
    env.settings.insert("NIGHTBELL_LISTEN".into(), address);
}

async fn standing(env: &TestEnv, name: &str) -> Value {
    env.get(&format!("/v1/webhooks/{name}")).await
}

/// Waits until nothing waits for the endpoint.
async fn all_heard(env: &TestEnv, name: &str) {
    eventually("an endpoint that has heard of all", async || {
        let standing = standing(env, name).await;
        if standing["waiting"] == 0 {
            Ok(())
        } else {
            Err(standing)
        }
    })
    .await;
}

/// The ids of all events, by alert and in order, as the database has them.
async fn written(env: &TestEnv) -> BTreeMap<String, Vec<String>> {
    let rows = env
        .database
        .texts("select alert_id || ' ' || id from lifecycle_event where alert_id is not null order by seq")
        .await;
    by_alert(rows.iter().map(|row| row.split_once(' ').unwrap()))
}

fn by_alert<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, Vec<String>> {
    let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (alert, id) in rows {
        let of_alert = events.entry(alert.to_owned()).or_default();
        // A repeat keeps the first place.
        if !of_alert.iter().any(|known| known == id) {
            of_alert.push(id.to_owned());
        }
    }
    events
}

fn heard(received: &[Received]) -> BTreeMap<String, Vec<String>> {
    let rows: Vec<(String, String)> = received
        .iter()
        .filter(|one| !one.alert().is_empty())
        .map(|one| (one.alert(), one.id().to_owned()))
        .collect();
    by_alert(rows.iter().map(|(alert, id)| (alert.as_str(), id.as_str())))
}

/// Waits until every event of every alert was taken, those of each in order. Some may be written down a moment later.
async fn all_posted(env: &TestEnv, receiver: &Receiver) {
    eventually("every event, in order", async || {
        let (heard, written) = (heard(&receiver.taken()), written(env).await);
        if heard == written {
            Ok(())
        } else {
            Err((heard, written))
        }
    })
    .await;
}

async fn what_becomes_of_an_alert_is_posted_in_order_and_signed(database: Database) {
    let (env, desk) = with_desk(database).await;

    let alert = run_through(&env, "1").await;

    let events = desk.hears(&alert, &WHOLE).await;
    let ids: BTreeSet<&str> = events.iter().map(Received::id).collect();
    assert_eq!(ids.len(), 3, "each has an id of its own");
    for event in &events {
        assert_eq!(event.signatures_by(SECRET), 1);
        assert_eq!(event.path, "/hooks/hush-hush");
        assert_eq!(event.headers["content-type"], "application/json");
        assert!(event.headers["user-agent"].starts_with("Nightbell/"));
        let document = event.document();
        let at: jiff::Timestamp = document["timestamp"].as_str().unwrap().parse().unwrap();
        let signed: i64 = event.headers["webhook-timestamp"].parse().unwrap();
        assert!((signed - at.as_second()).abs() < 60, "{document}");
        assert_eq!(document["data"]["alert"]["ticket_id"], "1");
        for word in ["Grace", "4155550101", "Printer", "Bo Client"] {
            assert!(!document.to_string().contains(word), "{document}");
        }
    }
    assert_eq!(events[1].document()["data"]["delivery"]["recipient"]["staff_id"], "s1");
    all_heard(&env, "desk").await;
    assert!(!env.service.log().contains("hush-hush"));
}

async fn names_and_numbers_are_posted_only_where_that_is_wanted(database: Database) {
    let (desk, wall) = (Receiver::start().await, Receiver::start().await);
    let plan = told(told(Plan::on(database), "DESK", &desk), "WALL", &wall);
    let env = plan.set("WEBHOOKS__DESK__INCLUDE_PERSONAL", "true").build().await;

    let alert = env
        .raise(&critical(
            "1",
            &[json!({"staff_id": "s1", "name": "Grace", "phone": "+14155550101"})],
        ))
        .await;
    env.stand(&alert, &["accepted"]).await;
    let message = env.twilio.accepted(1).await.remove(0);
    env.report(&message, "undelivered", Some("30003")).await;

    let kinds = ["alert.created", "delivery.failed", "alarm.raised"];
    let (full, plain) = (desk.hears(&alert, &kinds).await, wall.hears(&alert, &kinds).await);
    assert_eq!(full[0].document()["data"]["alert"]["subject"], "Printer on fire");
    assert_eq!(full[1].document()["data"]["delivery"]["phone"], "+14155550101");
    assert!(!plain[1].document().to_string().contains("4155550101"));
    assert_eq!(
        plain[1].document()["data"]["delivery"]["error_code"],
        full[1].document()["data"]["delivery"]["error_code"]
    );
    assert_eq!(full[0].id(), plain[0].id(), "the same event has the same id everywhere");
}

async fn an_endpoint_hears_only_of_what_it_wants(database: Database) {
    let (alerts, acme) = (Receiver::start().await, Receiver::start().await);
    let plan = told(told(Plan::on(database), "ALERTS", &alerts), "ACME", &acme);
    let env = plan
        .set("SOURCES__ACME__KIND", "native")
        .set("WEBHOOKS__ALERTS__EVENTS", "alert.*, alarm.raised")
        .set("WEBHOOKS__ACME__EVENTS", "alert.created")
        .set("WEBHOOKS__ACME__SOURCES", "acme")
        .build()
        .await;

    let ours = run_through(&env, "1").await;
    let mut event = critical("2", &[person("+14155550155")]);
    event["source"] = json!("acme");
    let theirs = env.raise(&event).await;
    let nobody = env.raise(&critical("3", &[])).await;

    alerts.hears(&ours, &["alert.created", "alert.closed"]).await;
    alerts.hears(&theirs, &["alert.created"]).await;
    alerts.hears(&nobody, &["alert.created", "alarm.raised"]).await;
    acme.hears(&theirs, &["alert.created"]).await;
    all_heard(&env, "acme").await;
    assert_eq!(acme.received().len(), 1);
    let kinds: Vec<String> = env
        .database
        .texts("select distinct type from lifecycle_event order by type")
        .await;
    assert_eq!(
        kinds,
        ["alarm.raised", "alert.closed", "alert.created"],
        "others are not even written down"
    );
}

async fn nothing_is_written_down_where_nobody_listens(database: Database) {
    let env = TestEnv::on(database).await;

    run_through(&env, "1").await;

    assert!(env.database.texts("select id from lifecycle_event").await.is_empty());
    assert_eq!(env.get("/v1/webhooks").await, json!({"items": []}));
}

async fn an_endpoint_that_fails_in_every_way_gets_every_event_and_holds_up_nobody(database: Database) {
    let (bad, good) = (Receiver::start().await, Receiver::start().await);
    let plan = told(told(Plan::on(database), "BAD", &bad), "GOOD", &good);
    let story = "an_endpoint_that_fails_in_every_way_gets_every_event_and_holds_up_nobody";
    let Some(plan) = plan.at("2026-11-20 09:00:00", story) else {
        return;
    };
    let env = plan.build().await;
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    bad.answers(move |_, before| match before % 6 {
        _ if mended.load(Ordering::Relaxed) => Answer::Takes,
        0 => Answer::Says(500),
        1 => Answer::Hangs,
        2 => Answer::Closes,
        3 => Answer::SaysWith(302, "location", "http://127.0.0.1:1/".to_owned()),
        4 => Answer::TakesAfter(Duration::from_secs(5)),
        _ => Answer::SaysWith(429, "retry-after", "1".to_owned()),
    });

    let mut alerts = Vec::new();
    for ticket in 1..=8 {
        alerts.push(run_through(&env, &ticket.to_string()).await);
    }
    for alert in &alerts {
        good.hears(alert, &WHOLE).await;
    }
    // Each is left alone for a while and then tried once.
    let mut looks = 0;
    let words = ["500", "no answer within 1 s", "broke off", "302", "429"];
    eventually("every failure in words", async || {
        looks += 1;
        if looks % 20 == 0 {
            let minutes = looks / 10;
            env.turn_own_clock_to(&format!("2026-11-20 {:02}:{:02}:00", 9 + minutes / 60, minutes % 60));
        }
        let tries = standing(&env, "bad").await["tries"].to_string();
        let missing: Vec<&str> = words.into_iter().filter(|word| !tries.contains(word)).collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    })
    .await;
    let failing = standing(&env, "bad").await;
    assert!(
        failing["failing_since"].is_string() && failing["waiting"].as_i64().unwrap() > 0,
        "{failing}"
    );
    all_heard(&env, "good").await;

    is_mended.store(true, Ordering::Relaxed);
    env.turn_own_clock_to("2026-11-21 09:00:00");

    for alert in &alerts {
        bad.hears_at_last(alert, &WHOLE).await;
    }
    all_heard(&env, "bad").await;
    assert_eq!(standing(&env, "bad").await["failing_since"], Value::Null);
}

async fn an_alert_that_is_refused_holds_up_no_other(database: Database) {
    let desk = Receiver::start().await;
    let plan = told(Plan::on(database), "DESK", &desk);
    let Some(plan) = plan.at("2026-11-20 09:00:00", "an_alert_that_is_refused_holds_up_no_other") else {
        return;
    };
    let env = plan.build().await;
    let first = env.raise(&critical("9", &[])).await;
    desk.hears(&first, &["alert.created", "alarm.raised"]).await;
    let refuses = Arc::new(AtomicBool::new(true));
    let refusing = Arc::clone(&refuses);
    desk.answers(move |event, _| {
        let is_bad = event.document()["data"]["alert"]["ticket_id"] == "1";
        if is_bad && refusing.load(Ordering::Relaxed) {
            Answer::Says(400)
        } else {
            Answer::Takes
        }
    });

    let bad = run_through(&env, "1").await;
    // A probe of the endpoint may stand between: it is over at the next one that is taken.
    env.turn_own_clock_to("2026-11-20 09:05:00");
    for ticket in 2..=5 {
        let good = run_through(&env, &ticket.to_string()).await;
        desk.hears(&good, &WHOLE).await;
    }
    let standing = standing(&env, "desk").await;
    assert_eq!(
        (&standing["held"], &standing["failing_since"]),
        (&json!(3), &Value::Null),
        "{standing}"
    );
    assert!(
        desk.received()
            .iter()
            .all(|one| one.alert() != bad || one.kind() == "alert.created")
    );

    refuses.store(false, Ordering::Relaxed);
    env.turn_own_clock_to("2026-11-20 12:00:00");

    desk.hears(&bad, &WHOLE).await;
    all_heard(&env, "desk").await;
}

async fn killed_again_and_again_every_event_is_posted_in_order(database: Database) {
    let desk = Receiver::start().await;
    let mut env = told(Plan::on(database), "DESK", &desk).build().await;
    // So that a kill falls before, between and after posts, and between the last post and the note of it.
    desk.answers(|_, before| Answer::TakesAfter(Duration::from_millis([0, 3, 15, 40][before % 4])));

    let mut alerts = Vec::new();
    for ticket in 1..=24 {
        alerts.push(
            env.raise(&critical(
                &ticket.to_string(),
                &[person(&format!("+14155550{:03}", 100 + ticket))],
            ))
            .await,
        );
        let closed = json!({"type": "ticket.closed", "ticket": {"id": ticket.to_string()}});
        assert_eq!(env.post(&closed).await.status, 200);
        if ticket % 6 == 0 {
            env.service.kill();
            env.restart();
        }
    }

    all_posted(&env, &desk).await;

    let heard = heard(&desk.taken());
    assert!(alerts.iter().all(|alert| heard.contains_key(alert)));
    // What a kill falls into is repeated, and nothing else.
    let received = desk.received();
    for id in heard.values().flatten() {
        let times = received.iter().filter(|one| one.id() == id).count();
        assert!(times <= 5, "{id} came {times} times in four kills");
    }
}

async fn a_graceful_stop_repeats_nothing(database: Database) {
    let desk = Receiver::start().await;
    let mut env = told(Plan::on(database), "DESK", &desk).build().await;
    desk.answers(|_, _| Answer::TakesAfter(Duration::from_millis(60)));

    for ticket in 1..=20 {
        env.raise(&critical(&ticket.to_string(), &[])).await;
        if ticket % 7 == 0 {
            env.service.signal("TERM");
            assert!(env.service.ended().await.success());
            env.restart();
        }
    }
    all_posted(&env, &desk).await;

    let received = desk.received();
    let ids: BTreeSet<&str> = received.iter().map(Received::id).collect();
    assert_eq!(ids.len(), received.len(), "each came once");
}

async fn an_endpoint_that_takes_nothing_for_five_days_is_disabled_with_an_alarm_and_goes_on_when_enabled(
    database: Database,
) {
    let (bad, good) = (Receiver::start().await, Receiver::start().await);
    let plan = told(told(Plan::on(database), "BAD", &bad), "GOOD", &good);
    let story = "an_endpoint_that_takes_nothing_for_five_days_is_disabled_with_an_alarm_and_goes_on_when_enabled";
    let Some(plan) = plan.at("2026-11-20 09:00:00", story) else {
        return;
    };
    let env = plan.build().await;
    bad.answers(|_, _| Answer::Says(500));
    let alert = run_through(&env, "1").await;
    eventually("a failing endpoint", async || {
        let standing = standing(&env, "bad").await;
        if standing["failing_since"].is_string() {
            Ok(())
        } else {
            Err(standing)
        }
    })
    .await;

    env.turn_clock_to("2026-11-25 09:30:00");

    let disabled = eventually("a disabled endpoint", async || {
        let standing = standing(&env, "bad").await;
        if standing["disabled_at"].is_string() {
            Ok(standing)
        } else {
            Err(standing)
        }
    })
    .await;
    assert_eq!(disabled["last_error"], "it answered 500");
    env.service.logged("webhook_disabled").await;
    eventually("the alarm, as an event", async || {
        let alarms: Vec<Value> = good
            .taken()
            .iter()
            .filter(|one| one.kind() == "alarm.raised")
            .map(Received::document)
            .collect();
        let is_there = alarms
            .iter()
            .any(|alarm| alarm["data"]["alarm"]["alarm"] == "webhook_disabled");
        if is_there { Ok(()) } else { Err(alarms) }
    })
    .await;
    let tried = bad.count();
    bad.answers(|_, _| Answer::Takes);
    let other = run_through(&env, "2").await;
    good.hears(&other, &WHOLE).await;
    assert_eq!(bad.count(), tried, "nothing is posted to it");

    let reply = env.admin(Method::POST, "/v1/webhooks/bad/enable", None).await;

    assert_eq!((reply.status, &reply.body["disabled_at"]), (200, &Value::Null));
    bad.hears(&alert, &WHOLE).await;
    bad.hears(&other, &WHOLE).await;
    all_heard(&env, "bad").await;
}

async fn an_event_that_is_refused_for_five_days_is_given_up_and_the_others_of_its_alert_go_on(database: Database) {
    let desk = Receiver::start().await;
    let story = "an_event_that_is_refused_for_five_days_is_given_up_and_the_others_of_its_alert_go_on";
    let Some(plan) = told(Plan::on(database), "DESK", &desk).at("2026-11-20 09:00:00", story) else {
        return;
    };
    let env = plan.build().await;
    desk.answers(|event, _| {
        let document = event.document();
        let is_bad = document["data"]["alert"]["ticket_id"] == "1" && document["type"] == "alert.created";
        if is_bad { Answer::Says(400) } else { Answer::Takes }
    });
    let alert = run_through(&env, "1").await;
    env.turn_clock_to("2026-11-20 10:00:00");
    let other = run_through(&env, "2").await;
    desk.hears(&other, &WHOLE).await;

    env.turn_clock_to("2026-11-25 10:30:00");

    desk.hears(&alert, &["delivery.delivered", "alert.closed"]).await;
    let log = env.service.logged("gave up an event").await;
    assert!(log.contains("it answered 400"), "{log}");
    let standing = standing(&env, "desk").await;
    assert!(
        standing["tries"].to_string().contains("given_up") && standing["disabled_at"].is_null(),
        "{standing}"
    );
}

async fn an_endpoint_that_is_gone_is_disabled_at_once(database: Database) {
    let (env, desk) = with_desk(database).await;
    desk.answers(|_, _| Answer::Says(410));

    let alert = env.raise(&critical("1", &[])).await;

    let log = env.service.logged("webhook_disabled").await;
    assert!(log.contains("answered 410"), "{log}");
    assert_eq!(desk.received().len(), 1);
    desk.answers(|_, _| Answer::Takes);
    assert_eq!(
        env.admin(Method::POST, "/v1/webhooks/desk/enable", None).await.status,
        200
    );
    desk.hears(&alert, &["alert.created", "alarm.raised"]).await;
}

async fn events_are_posted_once_more_from_a_time_on(database: Database) {
    let (mut env, desk) = with_desk(database).await;
    reachable(&mut env);
    let early = run_through(&env, "1").await;
    desk.hears(&early, &WHOLE).await;
    // Events that happen in one millisecond cannot be told apart by a time.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let from = jiff::Timestamp::now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let late = run_through(&env, "2").await;
    desk.hears(&late, &WHOLE).await;
    all_heard(&env, "desk").await;

    let body = json!({"from": from.to_string()});
    let reply = env.admin(Method::POST, "/v1/webhooks/desk/replay", Some(body)).await;

    assert_eq!((reply.status, &reply.body["events"]), (200, &json!(3)), "{reply:?}");
    let twice = desk.hears(&late, &[WHOLE, WHOLE].concat()).await;
    assert_eq!(twice[0].id(), twice[3].id());
    desk.hears(&early, &WHOLE).await;
    let (code, out, error) = env
        .run(&["webhook", "replay", "desk", "--from", "2020-01-01T00:00:00Z"])
        .await;
    assert_eq!((code, out.contains("6 events once more")), (0, true), "{out}{error}");
    desk.hears(&early, &[WHOLE, WHOLE].concat()).await;
    for (path, body, status) in [
        (
            "/v1/webhooks/nobody/replay",
            json!({"from": "2020-01-01T00:00:00Z"}),
            404,
        ),
        ("/v1/webhooks/desk/replay", json!({"from": "yesterday"}), 422),
        ("/v1/webhooks/desk/replay", json!({"from": "2999-01-01T00:00:00Z"}), 422),
    ] {
        assert_eq!(env.admin(Method::POST, path, Some(body)).await.status, status, "{path}");
    }
}

async fn a_secret_is_changed_with_two_signatures(database: Database) {
    let desk = Receiver::start().await;
    let env = told(Plan::on(database), "DESK", &desk)
        .set("WEBHOOKS__DESK__SECRET", NEW_SECRET)
        .set("WEBHOOKS__DESK__PREVIOUS_SECRET", SECRET)
        .build()
        .await;

    let alert = env.raise(&critical("1", &[])).await;

    let event = desk.hears(&alert, &["alert.created", "alarm.raised"]).await.remove(0);
    assert_eq!((event.signatures_by(NEW_SECRET), event.signatures_by(SECRET)), (1, 1));
    assert_eq!(event.headers["webhook-signature"].split(' ').count(), 2);
}

async fn a_name_that_leads_to_this_machine_is_refused_when_it_is_connected_to(database: Database) {
    let desk = Receiver::start().await;
    let url = format!("http://localhost:{}/hooks/hush-hush", desk.port);
    let env = told(Plan::on(database), "DESK", &desk)
        .set("WEBHOOKS__DESK__URL", &url)
        .unset("WEBHOOKS__DESK__ALLOW_PRIVATE")
        .build()
        .await;

    env.raise(&critical("1", &[])).await;

    eventually("a refusal", async || {
        let standing = standing(&env, "desk").await;
        let error = standing["last_error"].as_str().unwrap_or_default();
        let is_named = ["`localhost` leads to", "loopback", "allow_private"]
            .iter()
            .all(|word| error.contains(word));
        if is_named { Ok(()) } else { Err(standing) }
    })
    .await;
    assert!(desk.received().is_empty());
    assert!(!env.service.log().contains("hush-hush"));
    // What is no name is seen without asking anybody.
    for address in [
        "127.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "2130706433",
    ] {
        let mut settings = env.settings.clone();
        settings.insert(
            "NIGHTBELL_WEBHOOKS__DESK__URL".into(),
            format!("https://{address}/hush-hush"),
        );
        let output = crate::support::service::command(&settings, env.database.folder.path())
            .args(["config", "check"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(
            !output.status.success() && text.contains("webhooks.desk.url") && text.contains("allow_private"),
            "{text}"
        );
        assert!(!text.contains("hush-hush"), "{text}");
    }
}

async fn a_test_says_what_came_back(database: Database) {
    let (mut env, desk) = with_desk(database).await;
    reachable(&mut env);

    let (code, out, _) = env.run(&["webhook", "test", "desk"]).await;
    assert!(code == 0 && out.contains("`desk` took a test event"), "{out}");
    let event = desk.received().remove(0);
    assert_eq!((event.kind().as_str(), event.signatures_by(SECRET)), ("test", 1));

    desk.answers(|_, _| Answer::Says(403));
    let (code, _, error) = env.run(&["webhook", "test", "desk"]).await;
    assert!(code == 1 && error.contains("it answered 403"), "{error}");
    let (code, _, error) = env.run(&["webhook", "test", "nobody"]).await;
    assert!(code == 1 && error.contains("no endpoint of this name"), "{error}");
    let (code, out, _) = env.run(&["webhook", "secret"]).await;
    assert!(code == 0 && out.starts_with("whsec_"), "{out}");
    let (code, out, _) = env.run(&["webhook", "list"]).await;
    assert!(code == 0 && out.contains("desk") && !out.contains("hush-hush"), "{out}");
}

async fn old_events_are_forgotten_whoever_has_heard_of_them(database: Database) {
    let (bad, good) = (Receiver::start().await, Receiver::start().await);
    let plan = told(told(Plan::on(database), "BAD", &bad), "GOOD", &good);
    let Some(plan) = plan.at(
        "2026-11-20 09:00:00",
        "old_events_are_forgotten_whoever_has_heard_of_them",
    ) else {
        return;
    };
    let mut env = plan.build().await;
    assert_eq!(
        env.admin(Method::POST, "/v1/webhooks/bad/disable", None).await.status,
        200
    );
    let alert = run_through(&env, "1").await;
    good.hears(&alert, &WHOLE).await;
    assert_eq!(standing(&env, "bad").await["waiting"], 3);

    env.service.kill();
    env.turn_clock_to("2026-12-22 09:00:00");
    env.restart();

    let log = env
        .service
        .logged("deleted events that the endpoint has not heard of")
        .await;
    assert!(log.contains("endpoint=bad events=3"), "{log}");
    eventually("no old event", async || {
        let left = env
            .database
            .texts("select id from lifecycle_event where alert_id is not null")
            .await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(
        env.admin(Method::POST, "/v1/webhooks/bad/enable", None).await.status,
        200
    );
    let other = run_through(&env, "2").await;
    bad.hears(&other, &WHOLE).await;
}

async fn an_event_of_a_newer_version_waits_for_a_process_that_knows_it(database: Database) {
    let desk = Receiver::start().await;
    let env = told(Plan::on(database), "DESK", &desk)
        .set("WEBHOOKS__DESK__EVENTS", "*")
        .build()
        .await;
    let alert = env.raise(&critical("1", &[])).await;
    desk.hears(&alert, &["alert.created", "alarm.raised"]).await;
    let now = jiff::Timestamp::now().as_millisecond();
    let insert = format!(
        "insert into lifecycle_event (id, type, stream, at, data) values ('new-1', 'alert.snoozed', 'x', {now}, '{{}}')"
    );

    env.database.execute(&insert).await;
    let other = env.raise(&critical("2", &[])).await;

    eventually("what waits behind it", async || {
        let standing = standing(&env, "desk").await;
        if standing["waiting"] == 3 {
            Ok(())
        } else {
            Err(standing)
        }
    })
    .await;
    assert!(desk.received().iter().all(|one| one.alert() != other));
    // Nobody has come in ten minutes.
    let then = now - 11 * 60_000;
    env.database
        .execute(&format!("update lifecycle_event set at = {then} where id = 'new-1'"))
        .await;
    desk.hears(&other, &["alert.created", "alarm.raised"]).await;
    env.service
        .logged("passes over an event of a type that this version does not know")
        .await;
}

async fn three_replicas_post_every_event_once(database: Database) {
    if !database.url.starts_with("postgres") {
        // A file has one process.
        return;
    }
    let desk = Receiver::start().await;
    let env = told(Plan::on(database), "DESK", &desk).build().await;
    let others = [env.start_another(), env.start_another()];
    let addresses = [&env.service.address, &others[0].address, &others[1].address];
    for ticket in 1..=60 {
        let url = format!("http://{}/v1/events", addresses[ticket % 3]);
        let event = critical(&ticket.to_string(), &[]);
        let request = crate::support::client()
            .post(url)
            .bearer_auth(crate::support::env::INTAKE);
        let request = request
            .header("content-type", "application/json")
            .body(event.to_string());
        assert_eq!(request.send().await.unwrap().status(), 202);
    }

    all_posted(&env, &desk).await;

    let received = desk.received();
    let ids: BTreeSet<&str> = received.iter().map(Received::id).collect();
    assert_eq!(ids.len(), received.len(), "each came once");
    assert_eq!(heard(&received).len(), 60);
}

/// `NIGHTBELL_TEST_STANDARDWEBHOOKS` names a folder with `venv` (pip install standardwebhooks) and `node` (npm install
/// standardwebhooks).
async fn the_official_libraries_verify_what_is_posted(database: Database) {
    let Ok(libraries) = std::env::var("NIGHTBELL_TEST_STANDARDWEBHOOKS") else {
        left_out("standardwebhooks", "the_official_libraries_verify_what_is_posted");
        return;
    };
    let desk = Receiver::start().await;
    let env = told(Plan::on(database), "DESK", &desk)
        .set("WEBHOOKS__DESK__SECRET", NEW_SECRET)
        .set("WEBHOOKS__DESK__PREVIOUS_SECRET", SECRET)
        .set("WEBHOOKS__DESK__INCLUDE_PERSONAL", "true")
        .build()
        .await;
    let mut event = critical("1", &[]);
    event["ticket"]["subject"] = json!("Kasse fällt aus – 🔥 \"jetzt\"");
    let alert = env.raise(&event).await;
    let posted = desk.hears(&alert, &["alert.created", "alarm.raised"]).await.remove(0);

    let case = |name: &str, secret: &str, headers: &BTreeMap<String, String>, body: &[u8], good: bool| {
        json!({
            "name": name, "secret": secret, "headers": headers, "body": BASE64.encode(body), "good": good,
        })
    };
    let (headers, body) = (&posted.headers, posted.body.as_slice());
    let changed = String::from_utf8(posted.body.clone())
        .unwrap()
        .replace("fällt", "faellt")
        .into_bytes();
    let seconds: i64 = headers["webhook-timestamp"].parse().unwrap();
    let with = |name: &str, value: String| {
        let mut headers = headers.clone();
        headers.insert(name.to_owned(), value);
        headers
    };
    let cases = json!([
        case("good, with the new secret", NEW_SECRET, headers, body, true),
        case("good, with the previous secret", SECRET, headers, body, true),
        case(
            "another secret",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            headers,
            body,
            false
        ),
        case("a changed body", NEW_SECRET, headers, &changed, false),
        case(
            "another id",
            NEW_SECRET,
            &with("webhook-id", "other".to_owned()),
            body,
            false
        ),
        case(
            "an old time",
            NEW_SECRET,
            &with("webhook-timestamp", (seconds - 3_600).to_string()),
            body,
            false
        ),
    ]);
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (program, arguments) in [
        (
            format!("{libraries}/venv/bin/python"),
            vec![tests.join("standard_webhooks.py").display().to_string()],
        ),
        (
            "node".to_owned(),
            vec![
                tests.join("standard_webhooks.mjs").display().to_string(),
                format!("{libraries}/node"),
            ],
        ),
    ] {
        let mut child = std::process::Command::new(&program)
            .args(&arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), cases.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{program}:\n{text}");
        assert!(output.status.success(), "{program}: {text}");
    }
}

async fn pages_show_endpoints_and_do_what_an_admin_wants(database: Database) {
    let (env, desk) = with_desk(database).await;
    let alert = run_through(&env, "1").await;
    desk.hears(&alert, &WHOLE).await;
    all_heard(&env, "desk").await;
    let mut browser = Browser::on(&env).await;

    let list = browser.get("/admin/webhooks").await.text;
    assert!(
        list.contains("href=\"/admin/webhooks/desk\"") && list.contains(">ok<"),
        "{list}"
    );
    let page = "/admin/webhooks/desk";
    let shown = browser.get(page).await.text;
    assert!(
        shown.contains("alert.closed") && shown.contains(">taken<") && !shown.contains("hush-hush"),
        "{shown}"
    );

    let tested = browser.submit(page, &[("action", "test")]).await.text;
    assert!(tested.contains("It took a test event and answered 204"), "{tested}");
    desk.answers(|_, _| Answer::Says(500));
    let tested = browser.submit(page, &[("action", "test")]).await.text;
    assert!(
        tested.contains("It did not take a test event: it answered 500"),
        "{tested}"
    );
    desk.answers(|_, _| Answer::Takes);

    assert_eq!(browser.submit(page, &[("action", "disable")]).await.status, 303);
    assert!(browser.get("/admin/webhooks").await.text.contains(">disabled<"));
    assert_eq!(browser.submit(page, &[("action", "enable")]).await.status, 303);
    assert_eq!(
        browser
            .submit(page, &[("action", "replay"), ("from", "soon")])
            .await
            .status,
        422
    );
    assert_eq!(
        browser
            .submit(page, &[("action", "replay"), ("from", "2020-01-01T00:00")])
            .await
            .status,
        303
    );
    desk.hears(&alert, &[WHOLE, WHOLE].concat()).await;
    assert_eq!(browser.get("/admin/webhooks/nobody").await.status, 404);
    let ready = env.get("/readyz").await;
    assert_eq!(ready["details"]["webhooks"][0]["name"], "desk", "{ready}");
}
