//! A late retry changes nothing: whatever was said before the ticket was closed does not open its alert again.

use crate::support::{
    database::Database,
    env::{Plan, Reply, TestEnv, critical, person},
    eventually,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

stories![
    the_same_event_after_the_close_reopens_nothing,
    an_event_of_a_time_before_the_close_reopens_nothing,
    an_event_of_a_time_after_the_close_reopens_the_alert,
    an_id_that_was_only_answered_duplicate_is_seen_as_well,
    a_late_close_does_not_close_what_was_opened_again,
    a_close_that_comes_twice_is_answered_twice,
    a_retry_adds_nobody,
    retries_at_once_are_one_event,
    the_event_ids_of_an_alert_are_deleted_with_its_personal_data,
];

const PHONE: &str = "+14155550101";

fn with_id(mut event: Value, id: &str) -> Value {
    event["id"] = json!(id);
    event
}

fn at(mut event: Value, time: &str) -> Value {
    event["occurred_at"] = json!(time);
    event
}

/// So many minutes from now.
fn minutes(count: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(count)).to_string()
}

fn closed(ticket: &str) -> Value {
    json!({"type": "ticket.closed", "ticket": {"id": ticket}})
}

fn outcome(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.body["outcome"].as_str().unwrap_or_default())
}

/// Nothing is sent, so that every alert can be canceled: the limit is zero.
async fn quiet(database: Database) -> TestEnv {
    Plan::on(database).set("DAILY_LIMIT", "0").build().await
}

async fn is_closed(env: &TestEnv, alert: &str) -> bool {
    env.get(&format!("/v1/alerts/{alert}")).await["closed_at"].is_string()
}

async fn the_same_event_after_the_close_reopens_nothing(database: Database) {
    let env = quiet(database).await;
    let event = with_id(critical("1", &[person(PHONE)]), "evt-1");
    let alert = env.raise(&event).await;
    env.stand(&alert, &["deferred"]).await;
    assert_eq!(
        outcome(&env.post(&with_id(closed("1"), "evt-2")).await),
        (200, "resolved")
    );
    env.stand(&alert, &["canceled"]).await;

    let reply = env.post(&event).await;

    assert_eq!(
        (outcome(&reply), &reply.body["alert_id"]),
        ((200, "duplicate"), &json!(alert))
    );
    assert!(is_closed(&env, &alert).await);
    env.stand(&alert, &["canceled"]).await;
    // Without an id there is nothing to recognise it by: it is critical again.
    assert_eq!(env.post(&critical("1", &[person(PHONE)])).await.status, 202);
    env.stand(&alert, &["deferred"]).await;
}

async fn an_event_of_a_time_before_the_close_reopens_nothing(database: Database) {
    let env = quiet(database).await;
    let event = at(critical("1", &[person(PHONE)]), &minutes(-30));
    let alert = env.raise(&event).await;
    env.stand(&alert, &["deferred"]).await;
    let end = minutes(-10);
    assert_eq!(env.post(&at(closed("1"), &end)).await.body["canceled"], 1);

    for (time, id) in [
        (&minutes(-30), None),
        (&minutes(-30), Some("evt-1")),
        (&minutes(-11), None),
        (&minutes(-11), Some("evt-2")),
        (&end, None),
    ] {
        let event = at(critical("1", &[person(PHONE)]), time);
        let event = id.map_or(event.clone(), |id| with_id(event, id));
        let reply = env.post(&event).await;
        assert_eq!(outcome(&reply), (200, "duplicate"), "{time} {id:?}");
    }
    assert!(is_closed(&env, &alert).await);
    env.stand(&alert, &["canceled"]).await;
    // A second close moves the end.
    assert_eq!(
        outcome(&env.post(&at(closed("1"), &minutes(-5))).await),
        (200, "resolved")
    );
    assert_eq!(outcome(&env.post(&at(event, &minutes(-6))).await), (200, "duplicate"));

    // Closed without a time of its own: at the moment when that came.
    let alert = env.raise(&at(critical("2", &[person(PHONE)]), &minutes(-30))).await;
    env.stand(&alert, &["deferred"]).await;
    env.post(&closed("2")).await;
    let reply = env.post(&at(critical("2", &[person(PHONE)]), &minutes(-1))).await;
    assert_eq!(outcome(&reply), (200, "duplicate"));
    // Helpdesks date to the second: within it, an id that nobody has seen reopens the alert.
    let alert = env.raise(&at(critical("4", &[person(PHONE)]), &end)).await;
    env.stand(&alert, &["deferred"]).await;
    env.post(&at(closed("4"), &end)).await;
    let reply = env
        .post(&with_id(at(critical("4", &[person(PHONE)]), &end), "evt-4"))
        .await;
    assert_eq!(outcome(&reply), (202, "accepted"));
    // A clock that is hours ahead says nothing of what is to come.
    let alert = env.raise(&critical("3", &[person(PHONE)])).await;
    env.stand(&alert, &["deferred"]).await;
    env.post(&at(closed("3"), &minutes(300))).await;
    let reply = env.post(&at(critical("3", &[person(PHONE)]), &minutes(60))).await;
    assert_eq!(outcome(&reply), (202, "accepted"));
}

async fn an_event_of_a_time_after_the_close_reopens_the_alert(database: Database) {
    let env = quiet(database).await;
    let alert = env
        .raise(&with_id(at(critical("1", &[person(PHONE)]), &minutes(-30)), "evt-1"))
        .await;
    env.stand(&alert, &["deferred"]).await;
    env.post(&with_id(at(closed("1"), &minutes(-20)), "evt-2")).await;

    let again = with_id(at(critical("1", &[person(PHONE)]), &minutes(-19)), "evt-3");
    assert_eq!(outcome(&env.post(&again).await), (202, "accepted"));

    env.stand(&alert, &["deferred"]).await;
    assert!(!is_closed(&env, &alert).await);
    assert_eq!(outcome(&env.post(&again).await), (200, "duplicate"));
    env.post(&with_id(at(closed("1"), &minutes(-10)), "evt-4")).await;
    assert_eq!(
        outcome(&env.post(&again).await),
        (200, "duplicate"),
        "one that opened it again is seen too"
    );
    assert!(is_closed(&env, &alert).await);
}

async fn an_id_that_was_only_answered_duplicate_is_seen_as_well(database: Database) {
    let mut env = quiet(database).await;
    let people = [person(PHONE)];
    let alert = env.raise(&with_id(critical("1", &people), "evt-1")).await;
    env.stand(&alert, &["deferred"]).await;
    let second = with_id(critical("1", &people), "evt-2");
    assert_eq!(outcome(&env.post(&second).await), (200, "duplicate"));
    // One that could not add anybody.
    let useless = env
        .raise(&with_id(critical("2", &[json!({"phone": "abc"})]), "evt-1"))
        .await;
    let third = with_id(critical("2", &[json!({"phone": "abc"})]), "evt-3");
    assert_eq!(outcome(&env.post(&third).await), (200, "duplicate"));

    env.service.kill();
    env.restart();
    env.post(&closed("1")).await;
    env.post(&closed("2")).await;

    assert_eq!(outcome(&env.post(&second).await), (200, "duplicate"));
    let mut third = third;
    third["recipients"] = json!(people);
    assert_eq!(outcome(&env.post(&third).await), (200, "duplicate"));
    assert!(is_closed(&env, &alert).await && is_closed(&env, &useless).await);
    env.stand(&alert, &["canceled"]).await;
    env.stand(&useless, &["failed"]).await;
}

async fn a_late_close_does_not_close_what_was_opened_again(database: Database) {
    let env = quiet(database).await;
    let alert = env.raise(&with_id(critical("1", &[person(PHONE)]), "evt-1")).await;
    env.stand(&alert, &["deferred"]).await;
    let close = with_id(closed("1"), "evt-2");
    assert_eq!(env.post(&close).await.body["canceled"], 1);
    assert_eq!(
        outcome(&env.post(&with_id(critical("1", &[person(PHONE)]), "evt-3")).await),
        (202, "accepted")
    );

    let reply = env.post(&close).await;

    assert_eq!(
        (outcome(&reply), &reply.body["alert_id"]),
        ((200, "duplicate"), &json!(alert))
    );
    env.stand(&alert, &["deferred"]).await;
    assert!(!is_closed(&env, &alert).await);
    let reply = env.post(&with_id(closed("1"), "evt-4")).await;
    assert_eq!(
        (outcome(&reply), &reply.body["canceled"]),
        ((200, "resolved"), &json!(1))
    );
}

async fn a_close_that_comes_twice_is_answered_twice(database: Database) {
    let env = quiet(database).await;
    let alert = env.raise(&with_id(critical("1", &[person(PHONE)]), "evt-1")).await;
    env.stand(&alert, &["deferred"]).await;
    let close = with_id(closed("1"), "evt-2");
    assert_eq!(env.post(&close).await.body["canceled"], 1);
    // Sent again by a person, for whom the ticket's end does not matter.
    let id = env.deliveries(&alert).await[0]["id"].as_str().unwrap().to_owned();
    let resent = env
        .admin(Method::POST, &format!("/v1/deliveries/{id}/resend"), Some(json!({})))
        .await;
    assert_eq!(resent.status, 201, "{resent:?}");
    env.stand(&alert, &["canceled", "deferred"]).await;

    let reply = env.post(&close).await;

    assert_eq!(
        (outcome(&reply), &reply.body["canceled"]),
        ((200, "resolved"), &json!(0))
    );
    env.stand(&alert, &["canceled", "deferred"]).await;
}

async fn a_retry_adds_nobody(database: Database) {
    let env = Plan::on(database)
        .set("SOURCES__DEFAULT__LATER_RECIPIENTS", "each")
        .build()
        .await;
    let alert = env.raise(&with_id(critical("1", &[person(PHONE)]), "evt-1")).await;
    env.stand(&alert, &["accepted"]).await;
    let both = [person(PHONE), person("+14155550102")];

    assert_eq!(
        outcome(&env.post(&with_id(critical("1", &both), "evt-1")).await),
        (200, "duplicate")
    );
    assert_eq!(
        outcome(&env.post(&with_id(critical("1", &both), "evt-2")).await),
        (202, "accepted")
    );
    assert_eq!(
        outcome(&env.post(&with_id(critical("1", &both), "evt-2")).await),
        (200, "duplicate")
    );

    env.stand(&alert, &["accepted", "accepted"]).await;
}

async fn retries_at_once_are_one_event(database: Database) {
    let env = Arc::new(quiet(database).await);
    let alert = env.raise(&with_id(critical("1", &[person(PHONE)]), "evt-1")).await;
    env.stand(&alert, &["deferred"]).await;
    let post_often = async |event: Value| -> Vec<String> {
        let posts = (0..20).map(|_| {
            let (env, event) = (Arc::clone(&env), event.clone());
            tokio::spawn(async move {
                let reply = env.post(&event).await;
                format!(
                    "{} {}",
                    reply.status,
                    reply.body["outcome"].as_str().unwrap_or_default()
                )
            })
        });
        futures::future::join_all(posts.collect::<Vec<_>>())
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect()
    };
    let count = |outcomes: &[String], wanted: &str| outcomes.iter().filter(|outcome| *outcome == wanted).count();

    let closes = post_often(with_id(closed("1"), "evt-2")).await;
    assert_eq!(count(&closes, "200 resolved"), 20, "{closes:?}");
    let again = post_often(with_id(critical("1", &[person(PHONE)]), "evt-3")).await;
    assert_eq!(
        (count(&again, "202 accepted"), count(&again, "200 duplicate")),
        (1, 19),
        "{again:?}"
    );
    let late = post_often(with_id(closed("1"), "evt-2")).await;
    assert_eq!(count(&late, "200 duplicate"), 20, "{late:?}");

    env.stand(&alert, &["deferred"]).await;
}

async fn the_event_ids_of_an_alert_are_deleted_with_its_personal_data(database: Database) {
    let plan = Plan::on(database).set("RETENTION__PERSONAL_DAYS", "20");
    let Some(plan) = plan.at("2026-11-01 12:00:00", "deleted event ids") else {
        return;
    };
    let mut env = plan.set("SMS__DRIVER", "log").build().await;
    let alert = env.raise(&with_id(critical("1", &[person(PHONE)]), "evt-1")).await;
    env.stand(&alert, &["delivered"]).await;
    assert_eq!(
        outcome(&env.post(&with_id(critical("1", &[person(PHONE)]), "evt-2")).await),
        (200, "duplicate")
    );
    assert_eq!(env.database.number("select count(*) from alert_event").await, 1);

    env.service.kill();
    env.turn_clock_to("2026-12-24 00:00:01");
    env.restart();

    eventually("the ids to be deleted", async || {
        let ids = env.database.number("select count(*) from alert_event").await;
        if ids == 0 { Ok(()) } else { Err(ids) }
    })
    .await;
    assert_eq!(
        outcome(&env.post(&with_id(critical("1", &[person(PHONE)]), "evt-3")).await),
        (200, "duplicate")
    );
}
