//! Stories of messages that no ticket is the cause of.

use crate::support::{
    database::Database,
    env::{Plan, Reply, TestEnv},
    eventually,
    smtp::{Mode, Smtp},
    twilio::Answers,
};
use reqwest::Method;
use serde_json::{Value, json};

stories![
    a_message_is_sent_as_every_other_one,
    a_request_that_comes_again_sends_nothing_more,
    a_request_that_comes_many_times_at_once_sends_one_message,
    what_is_wrong_with_a_message_is_named,
    a_message_minds_the_limit_and_opt_outs,
    a_message_is_canceled_and_sent_again_as_others_are,
    no_round_of_a_message_is_sent_beside_another_one,
    a_lost_answer_of_a_message_is_found_in_the_list,
    a_message_that_failed_stands_in_the_report,
    a_message_is_forgotten_after_its_time,
];

async fn send(env: &TestEnv, key: Option<&str>, body: &Value) -> Reply {
    let mut headers = vec![
        ("authorization", "Bearer admin-token"),
        ("content-type", "application/json"),
    ];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    let body = body.to_string().into_bytes();
    env.request(Method::POST, "/v1/messages", &headers, body).await
}

fn hello() -> Value {
    json!({"phone": "(415) 555-0101", "text": "Server room: 41 °C\nGo and look.", "name": "Grace Hopper", "staff_id": 7})
}

/// Waits until a delivery is in a state.
async fn is(env: &TestEnv, id: &str, state: &str) -> Value {
    eventually(&format!("a delivery that is {state}"), async || {
        let delivery = env.get(&format!("/v1/deliveries/{id}")).await;
        if delivery["state"] == state {
            Ok(delivery)
        } else {
            Err(delivery)
        }
    })
    .await
}

fn id(reply: &Reply) -> &str {
    reply.body["id"].as_str().unwrap()
}

async fn a_message_is_sent_as_every_other_one(database: Database) {
    let env = TestEnv::on(database).await;

    let sent = send(&env, None, &hello()).await;

    assert_eq!(sent.status, 202, "{sent:?}");
    assert_eq!(
        (&sent.body["alert_id"], &sent.body["state"], &sent.body["phone"]),
        (&Value::Null, &json!("pending"), &json!("+1415****101"))
    );
    let message = env.twilio.accepted(1).await.remove(0);
    assert_eq!(
        (&*message.to, &*message.body),
        ("+14155550101", "Server room: 41 °C\nGo and look.")
    );
    is(&env, id(&sent), "accepted").await;
    assert_eq!(env.report(&message, "delivered", None).await, 204);
    let delivery = is(&env, id(&sent), "delivered").await;
    assert_eq!(delivery["message"], message.body);
    assert_eq!(
        delivery["recipient"],
        json!({"staff_id": "7", "role": null, "name": "Grace Hopper"})
    );
    let listed = env.get("/v1/deliveries?phone=%2B14155550101").await;
    assert_eq!(
        (&listed["items"][0]["id"], &listed["items"][0]["alert_id"]),
        (&sent.body["id"], &Value::Null)
    );
    assert_eq!(listed["items"][0]["message"], Value::Null, "in single views only");
    env.slots_are_used(1).await;
    assert_eq!(
        send(&env, None, &hello()).await.status,
        202,
        "without a key each is one of its own"
    );
    env.twilio.accepted(2).await;
}

async fn a_request_that_comes_again_sends_nothing_more(database: Database) {
    let mut env = TestEnv::on(database).await;
    let first = send(&env, Some("\"key-1\""), &hello()).await;
    env.twilio.accepted(1).await;
    env.service.kill();
    env.restart();

    let again = send(&env, Some("key-1"), &hello()).await;
    let mut other = hello();
    other["text"] = json!("Something else");
    let refused = send(&env, Some("key-1"), &other).await;

    assert_eq!((again.status, &again.body), (202, &first.body), "the first answer");
    assert_eq!(
        (refused.status, &*refused.content_type),
        (409, "application/problem+json")
    );
    assert_eq!(send(&env, Some("key-2"), &other).await.status, 202);
    assert_eq!(env.twilio.accepted(2).await.len(), 2);
}

async fn a_request_that_comes_many_times_at_once_sends_one_message(database: Database) {
    let env = TestEnv::on(database).await;

    let body = hello();
    let replies = futures::future::join_all((0..20).map(|_| send(&env, Some("key"), &body))).await;

    for reply in &replies {
        assert_eq!((reply.status, &reply.body), (202, &replies[0].body));
    }
    env.twilio.accepted(1).await;
    is(&env, id(&replies[0]), "accepted").await;
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn what_is_wrong_with_a_message_is_named(database: Database) {
    let env = TestEnv::on(database).await;

    for (body, pointers) in [
        (json!({}), &["/phone", "/text"] as &[&str]),
        (json!([]), &["", "/phone", "/text"]),
        (json!({"phone": "12", "text": " \u{0} \n"}), &["/phone", "/text"]),
        (json!({"phone": "+14155550101", "text": "x".repeat(1_601)}), &["/text"]),
        (
            json!({"phone": 5, "text": 5, "region": "nowhere", "name": []}),
            &["/region", "/phone", "/text", "/name"],
        ),
    ] {
        let reply = send(&env, Some("key"), &body).await;
        assert_eq!(reply.status, 422, "{body}");
        let errors = reply.body["errors"].as_array().unwrap().iter();
        assert_eq!(
            errors
                .map(|error| error["pointer"].as_str().unwrap())
                .collect::<Vec<_>>(),
            pointers
        );
    }
    for key in ["", " ", "\"\"", &"k".repeat(256)] {
        assert_eq!(send(&env, Some(key), &hello()).await.status, 400, "{key}");
    }
    let longest = json!({"phone": "030 1234567", "region": "DE", "text": "x".repeat(1_600)});
    assert_eq!(
        send(&env, Some("key"), &longest).await.status,
        202,
        "a refused request keeps no key"
    );
    assert_eq!(env.twilio.accepted(1).await[0].to, "+49301234567");
}

async fn a_message_minds_the_limit_and_opt_outs(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "1").build().await;
    let opt_out = json!({"phone": "+14155550102"});
    assert_eq!(
        env.admin(Method::POST, "/v1/opt-outs", Some(opt_out.clone()))
            .await
            .status,
        201
    );

    let opted_out = send(&env, None, &json!({"phone": "+14155550102", "text": "Hello"})).await;
    is(&env, id(&opted_out), "suppressed").await;
    let sent = send(&env, None, &hello()).await;
    is(&env, id(&sent), "accepted").await;
    let waiting = send(&env, None, &hello()).await;
    is(&env, id(&waiting), "deferred").await;
    assert_eq!(env.get("/v1/limit").await["deferred"], 1);
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 2}))).await;
    is(&env, id(&waiting), "accepted").await;
    assert_eq!(env.twilio.messages().len(), 2);
}

async fn a_message_is_canceled_and_sent_again_as_others_are(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let sent = send(&env, None, &hello()).await;
    is(&env, id(&sent), "deferred").await;
    let path = |what: &str, id: &str| format!("/v1/deliveries/{id}/{what}");

    let canceled = env.admin(Method::POST, &path("cancel", id(&sent)), None).await;
    assert_eq!((canceled.status, &canceled.body["state"]), (200, &json!("canceled")));
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 9}))).await;
    let resent = env.admin(Method::POST, &path("resend", id(&sent)), None).await;
    assert_eq!(resent.status, 201, "{resent:?}");
    assert_eq!(
        (&resent.body["round"], &resent.body["resend_of"]),
        (&json!(1), &sent.body["id"])
    );
    is(&env, id(&resent), "accepted").await;
    let twice = env.admin(Method::POST, &path("resend", id(&sent)), None).await;
    assert_eq!(twice.status, 409, "a later round tells: {twice:?}");
    let forced = env
        .admin(Method::POST, &format!("{}?force=true", path("resend", id(&sent))), None)
        .await;
    assert_eq!(forced.status, 201);
    env.twilio.accepted(2).await;
}

/// Whoever sends a round again knows of all the others, whichever of them it begins from.
async fn no_round_of_a_message_is_sent_beside_another_one(database: Database) {
    let env = TestEnv::on(database).await;
    let refuses = || Answers::Refuses(400, 21211);
    env.twilio
        .script("+14155550101", [refuses(), refuses(), Answers::Accepts]);
    let resend = async |id: &str| {
        let path = format!("/v1/deliveries/{id}/resend");
        env.admin(Method::POST, &path, None).await
    };

    let first = send(&env, None, &hello()).await;
    is(&env, id(&first), "failed").await;
    let second = resend(id(&first)).await;
    is(&env, id(&second), "failed").await;
    let third = resend(id(&first)).await;
    assert_eq!((third.status, &third.body["round"]), (201, &json!(2)), "{third:?}");
    is(&env, id(&third), "accepted").await;

    for round in [&first, &second] {
        assert_eq!(resend(id(round)).await.status, 409);
    }
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn a_lost_answer_of_a_message_is_found_in_the_list(database: Database) {
    let env = Plan::on(database).set("SMS__RECONCILE_AFTER", "1s").build().await;
    env.twilio.script("+14155550101", [Answers::AcceptsWithHalfAnswer]);

    let sent = send(&env, None, &hello()).await;

    let delivery = is(&env, id(&sent), "accepted").await;
    assert_eq!(delivery["attempts"], 1);
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn a_message_that_failed_stands_in_the_report(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let env = Plan::on(database).mailing(&smtp).build().await;
    let sent = send(&env, None, &hello()).await;
    let message = env.twilio.accepted(1).await.remove(0);
    assert_eq!(env.report(&message, "undelivered", Some("30003")).await, 204);
    is(&env, id(&sent), "undelivered").await;

    let day = env.get("/v1/limit").await["day"].as_str().unwrap().to_owned();
    let (code, report, problems) = env.run(&["nightly", "--day", &day, "--dry-run"]).await;

    assert_eq!(code, 0, "{problems}");
    assert!(
        report.contains("A message of its own") && report.contains("30003"),
        "{report}"
    );
    assert!(!report.contains("nobody"), "no ticket, nobody untold: {report}");
}

async fn a_message_is_forgotten_after_its_time(database: Database) {
    let mut env = TestEnv::on(database).await;
    let sent = send(&env, Some("key"), &hello()).await;
    let message = env.twilio.accepted(1).await.remove(0);
    assert_eq!(env.report(&message, "delivered", None).await, 204);
    is(&env, id(&sent), "delivered").await;
    env.service.kill();
    let day_s = 86_400_000_i64;
    env.database
        .execute(&format!(
            "update delivery set received_at = received_at - {}",
            400 * day_s
        ))
        .await;
    env.database
        .execute(&format!(
            "update message_request set received_at = received_at - {}",
            40 * day_s
        ))
        .await;

    let yesterday = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24);
    let yesterday = yesterday.to_string();
    let (code, _, problems) = env.run(&["nightly", "--day", &yesterday[..10]]).await;

    assert_eq!(code, 0, "{problems}");
    let left = "select count(*) from delivery where phone is null and name is null and message = ''";
    assert_eq!(env.database.number(left).await, 1);
    for gone in ["timeline", "attempt", "message_request"] {
        assert_eq!(
            env.database.number(&format!("select count(*) from {gone}")).await,
            0,
            "{gone}"
        );
    }
}
