//! Stories of admins who hold messages back, and of how that ends while they are being sent.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

stories![
    what_has_not_begun_is_held_back,
    what_was_handed_to_the_provider_cannot_be_held_back,
    a_ticket_that_is_critical_again_is_told_after_all,
    cancel_and_resend_beside_a_worker_say_what_really_happened,
];

async fn cancel(env: &TestEnv, what: &str, id: &str) -> crate::support::env::Reply {
    env.admin(Method::POST, &format!("/v1/{what}/{id}/cancel"), None).await
}

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap()
}

fn people() -> [Value; 3] {
    ["+14155550101", "+14155550102", "+14155550103"].map(person)
}

async fn what_has_not_begun_is_held_back(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env.raise(&critical("1", &people())).await;
    let deliveries = env.stand(&alert, &["deferred"; 3]).await;

    let canceled = cancel(&env, "deliveries", id(&deliveries[0])).await;

    assert_eq!(canceled.status, 200, "{canceled:?}");
    assert_eq!(
        (&canceled.body["state"], &canceled.body["reason"]),
        (&json!("canceled"), &json!("canceled"))
    );
    let timeline = canceled.body["timeline"].as_array().unwrap();
    assert_eq!(
        timeline.last().unwrap()["detail"],
        "an admin canceled it before it was sent"
    );
    let again = cancel(&env, "deliveries", id(&deliveries[0])).await;
    assert_eq!(
        (again.status, &again.body["timeline"]),
        (200, &canceled.body["timeline"])
    );
    let all = cancel(&env, "alerts", &alert).await;
    assert_eq!((all.status, &all.body["canceled"]), (200, &json!(2)), "{all:?}");
    assert_eq!(all.body["deliveries"][2]["state"], "canceled");
    assert_eq!(cancel(&env, "alerts", &alert).await.body["canceled"], 0);

    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;
    let other = env.raise(&critical("2", &people()[..1])).await;
    env.stand(&other, &["accepted"]).await;
    env.stand(&alert, &["canceled"; 3]).await;
    assert_eq!(env.twilio.messages().len(), 1);
    for what in ["deliveries", "alerts"] {
        assert_eq!(cancel(&env, what, "nothing").await.status, 404);
    }
}

async fn what_was_handed_to_the_provider_cannot_be_held_back(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = env
        .raise(&critical("1", &[person("+14155550101"), json!({"phone": "abc"})]))
        .await;
    let deliveries = env.stand(&alert, &["accepted", "failed"]).await;

    for (delivery, why) in deliveries
        .iter()
        .zip(["`accepted`: it was handed to", "`failed`: it has ended"])
    {
        let refused = cancel(&env, "deliveries", id(delivery)).await;
        assert_eq!(refused.status, 409);
        assert_eq!(refused.content_type, "application/problem+json");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{detail}");
    }
    let all = cancel(&env, "alerts", &alert).await;
    assert_eq!((all.status, &all.body["canceled"]), (200, &json!(0)));
    env.stand(&alert, &["accepted", "failed"]).await;
}

async fn a_ticket_that_is_critical_again_is_told_after_all(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env.raise(&critical("1", &people()[..1])).await;
    env.stand(&alert, &["deferred"]).await;
    assert_eq!(cancel(&env, "alerts", &alert).await.body["canceled"], 1);
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;

    assert_eq!(env.raise(&critical("1", &people()[..1])).await, alert);

    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

/// Many deliveries, each canceled and sent again at the same time while workers send them.
async fn cancel_and_resend_beside_a_worker_say_what_really_happened(database: Database) {
    // A thousand in the long form of the torture.
    let count = if std::env::var("NIGHTBELL_TORTURE").is_ok() {
        1_000
    } else {
        100
    };
    let env = Plan::on(database)
        .set("DAILY_LIMIT", "5000")
        .set("SMS__MAX_IN_FLIGHT", "2")
        .build()
        .await;
    let phone = |number: usize| format!("+1415{}", 2_000_000 + number);
    let asked = futures::stream::iter(0..count).map(|number| {
        let (env, phone) = (&env, phone(number));
        async move {
            let alert = env.raise(&critical(&number.to_string(), &[person(&phone)])).await;
            let delivery = id(&env.deliveries(&alert).await[0]).to_owned();
            let resend = format!("/v1/deliveries/{delivery}/resend");
            let (canceled, resent) = tokio::join!(
                cancel(env, "deliveries", &delivery),
                env.admin(Method::POST, &resend, None)
            );
            (alert, canceled.status, resent.status)
        }
    });
    let answers: Vec<(String, u16, u16)> = asked.buffered(16).collect().await;

    let mut seen = [0; 3];
    for (number, (alert, canceled, resent)) in answers.iter().enumerate() {
        let (kind, states): (usize, &[&str]) = match (canceled, resent) {
            (200, 201) => (0, &["canceled", "accepted"]),
            (200, 409) => (1, &["canceled"]),
            (409, 409) => (2, &["accepted"]),
            other => panic!("{other:?} of {number}"),
        };
        seen[kind] += 1;
        env.stand(alert, states).await;
        let told = states.iter().filter(|state| **state == "accepted").count();
        assert_eq!(
            env.twilio.messages_to(&phone(number)).len(),
            told,
            "{states:?} of {number}"
        );
    }
    assert!(
        seen[2] > 0 && seen[0] + seen[1] > 0,
        "both sides win now and then: {seen:?}"
    );
}
