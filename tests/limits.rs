//! The daily limit: never overshot, oldest first, released as soon as there are slots.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
};
use reqwest::Method;
use serde_json::{Value, json};

stories![
    twenty_five_alerts_with_a_limit_of_ten_send_exactly_ten_and_the_rest_in_order,
    a_limit_of_nothing_sends_nothing_and_raises_an_alarm_once,
    what_waits_too_long_expires,
    a_restart_keeps_the_admins_limit,
    a_bad_limit_is_refused,
    a_source_may_have_a_daily_limit_of_its_own,
];

fn number(index: usize) -> String {
    format!("+14155550{:03}", 100 + index)
}

/// Raises alerts one after the other and returns the numbers in that order.
async fn raise_many(env: &TestEnv, count: usize) -> Vec<String> {
    for index in 0..count {
        env.raise(&critical(&index.to_string(), &[person(&number(index))]))
            .await;
    }
    (0..count).map(number).collect()
}

async fn limit_settles(env: &TestEnv, expected: Value) {
    eventually(&format!("a limit of {expected}"), async || {
        let mut seen = env.get("/v1/limit").await;
        seen.as_object_mut()
            .unwrap()
            .retain(|name, _| expected.get(name).is_some());
        if seen == expected { Ok(()) } else { Err(seen) }
    })
    .await;
}

/// The numbers that were texted, once there are `count`.
async fn texted(env: &TestEnv, count: usize) -> Vec<String> {
    let mut numbers: Vec<String> = env
        .twilio
        .accepted(count)
        .await
        .into_iter()
        .map(|message| message.to)
        .collect();
    numbers.sort();
    numbers
}

async fn twenty_five_alerts_with_a_limit_of_ten_send_exactly_ten_and_the_rest_in_order(database: Database) {
    let plan = Plan::on(database)
        .set("DAILY_LIMIT", "10")
        .set("SMS__MAX_IN_FLIGHT", "8")
        .set("TIME_ZONE", "Europe/Berlin");
    let Some(plan) = plan.at("2026-11-20 12:00:00", "the daily limit") else {
        return;
    };
    let env = plan.build().await;
    let numbers = raise_many(&env, 25).await;
    limit_settles(
        &env,
        json!({"day": "2026-11-20", "time_zone": "Europe/Berlin", "limit": 10, "used": 10, "deferred": 15}),
    )
    .await;
    assert_eq!(texted(&env, 10).await, numbers[..10], "the oldest ten");
    env.service.logged("alarm=\"limit_reached\"").await;
    assert_eq!(env.service.log().matches("alarm=\"limit_reached\"").count(), 1);

    let raised = env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 20}))).await;
    assert_eq!(raised.status, 200, "{raised:?}");
    limit_settles(&env, json!({"limit": 20, "used": 20, "deferred": 5})).await;
    assert_eq!(texted(&env, 20).await, numbers[..20], "exactly ten more, the oldest");

    env.turn_clock_to("2026-11-20 22:59:58");
    limit_settles(&env, json!({"day": "2026-11-20", "used": 20, "deferred": 5})).await;
    env.turn_clock_to("2026-11-20 23:00:01");
    limit_settles(
        &env,
        json!({"day": "2026-11-21", "limit": 20, "used": 5, "deferred": 0}),
    )
    .await;
    assert_eq!(texted(&env, 25).await, numbers, "the next day in Berlin the rest");
}

async fn a_limit_of_nothing_sends_nothing_and_raises_an_alarm_once(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    raise_many(&env, 3).await;

    limit_settles(&env, json!({"limit": 0, "used": 0, "deferred": 3})).await;
    let deferred = env.get("/v1/deliveries?state=deferred").await;
    assert!(
        deferred["items"][0]["due_at"].is_string() && deferred["items"][0]["reason"] == "limit",
        "{deferred}"
    );
    env.service.logged("alarm=\"limit_reached\"").await;
    assert_eq!(env.service.log().matches("alarm=\"limit_reached\"").count(), 1);
    assert_eq!(
        env.service.log().matches("alarm=\"nobody_told\"").count(),
        3,
        "everybody is deferred, so nobody is told"
    );
    assert_eq!(env.twilio.messages().len(), 0);
}

async fn what_waits_too_long_expires(database: Database) {
    let Some(plan) = Plan::on(database)
        .set("DAILY_LIMIT", "0")
        .at("2026-11-20 12:00:00", "expiry")
    else {
        return;
    };
    let mut env = plan.build().await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["deferred"]).await;

    // Three days without the service: a running one would take them for a clock that jumped.
    env.service.kill();
    env.turn_clock_to("2026-11-23 12:00:30");
    env.restart();

    let delivery = env.stand(&alert, &["expired"]).await.remove(0);
    assert_eq!(delivery["reason"], "expired");
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;
    env.raise(&critical("2", &[person("+14155550102")])).await;
    assert_eq!(
        env.twilio.accepted(1).await[0].to,
        "+14155550102",
        "an alarm that is three days old wakes nobody"
    );
}

async fn a_restart_keeps_the_admins_limit(database: Database) {
    let mut env = TestEnv::on(database).await;
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 7}))).await;
    env.service.kill();
    env.restart();

    assert_eq!(env.get("/v1/limit").await["limit"], 7);
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": null}))).await;
    assert_eq!(env.get("/v1/limit").await["limit"], 200, "the configured one again");
}

async fn a_bad_limit_is_refused(database: Database) {
    let env = TestEnv::on(database).await;

    for bad in [
        json!({"limit": -1}),
        json!({"limit": "20"}),
        json!({"limit": 1.5}),
        json!({}),
        json!([]),
    ] {
        let reply = env.admin(Method::PUT, "/v1/limit", Some(bad.clone())).await;
        assert_eq!(
            (reply.status, &reply.body["errors"][0]["pointer"]),
            (422, &json!("/limit")),
            "{bad}"
        );
    }
    assert_eq!(env.get("/v1/limit").await["limit"], 200);
}

async fn a_source_may_have_a_daily_limit_of_its_own(database: Database) {
    let mut env = Plan::on(database)
        .set("SOURCES__ACME__DAILY_LIMIT", "2")
        .set("DAILY_LIMIT", "6")
        .build()
        .await;
    let raise = async |env: &TestEnv, source: &str, index: usize| {
        let mut event = critical(&index.to_string(), &[person(&number(index))]);
        event["source"] = source.into();
        env.raise(&event).await
    };

    let mut alerts = Vec::new();
    for index in 0..5 {
        alerts.push(raise(&env, "acme", index).await);
    }
    let held = env.stand(&alerts[4], &["deferred"]).await.remove(0);
    let other = raise(&env, "default", 5).await;

    // What it holds takes nobody else's place.
    env.stand(&other, &["accepted"]).await;
    assert_eq!(texted(&env, 3).await, [number(0), number(1), number(5)]);
    assert_eq!(held["reason"], "limit");
    let story = env
        .get(&format!("/v1/deliveries/{}", held["id"].as_str().unwrap()))
        .await["timeline"]
        .to_string();
    assert!(
        story.contains("the daily limit of the source `acme` is reached"),
        "{story}"
    );
    let sources = env.get("/v1/sources").await;
    let acme = &sources["items"].as_array().unwrap()[0];
    assert_eq!(
        (&acme["name"], &acme["daily_limit"], &acme["used"]),
        (&json!("acme"), &json!(2), &json!(2))
    );
    limit_settles(&env, json!({"used": 3, "deferred": 3})).await;

    // With a slot more the oldest goes, with none of its own all do, as far as the limit of all reaches.
    for (limit, sent) in [("3", 4), ("", 6)] {
        env.service.kill();
        env.settings
            .insert("NIGHTBELL_SOURCES__ACME__DAILY_LIMIT".into(), limit.into());
        env.restart();
        let mut expected: Vec<String> = (0..sent - 1).chain([5]).map(number).collect();
        expected.sort();
        assert_eq!(texted(&env, sent).await, expected);
    }
    limit_settles(&env, json!({"used": 6, "deferred": 0})).await;
}
