//! Stories of people who acknowledge by a reply: which alert they mean, and what they are answered.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    twilio::Message,
};
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;

stories![
    the_only_open_alert_needs_no_code,
    of_two_open_alerts_the_code_says_which,
    the_code_in_the_message_is_enough_by_itself,
    a_wrong_code_acknowledges_nothing,
    a_late_reply_is_told_that_it_is_late,
    a_second_person_is_told_who_was_first,
    whoever_was_not_told_acknowledges_nothing,
    replies_at_once_at_several_processes_make_one_acknowledgement,
];

const GRACE: &str = "+14155550101";
const MONA: &str = "+14155550102";
const NINA: &str = "+14155550103";

fn named(phone: &str, name: &str) -> Value {
    json!({"staff_id": phone, "role": "assignee", "name": name, "phone": phone})
}

async fn told(env: &TestEnv, ticket: &str, people: &[Value]) -> String {
    let alert = env.raise(&critical(ticket, people)).await;
    env.stand(&alert, &vec!["accepted"; people.len()]).await;
    alert
}

/// A reply, and what it is answered: the next message to this phone.
async fn replies(env: &TestEnv, phone: &str, text: &str) -> Message {
    let before = env.twilio.messages_to(phone).len();
    let status = env.text_from(phone, text).await;
    assert_eq!(status, 200, "{text}");
    eventually(&format!("an answer to {text:?}"), async || {
        let mut messages = env.twilio.messages_to(phone);
        if messages.len() > before {
            Ok(messages.remove(before))
        } else {
            Err(messages)
        }
    })
    .await
}

/// A reply that is not answered.
async fn texts(env: &TestEnv, phone: &str, text: &str) {
    assert_eq!(env.text_from(phone, text).await, 200, "{text}");
}

/// Who acknowledged an alert, and how; nulls if nobody did.
async fn acknowledged(env: &TestEnv, alert: &str) -> [Value; 2] {
    let alert = env.get(&format!("/v1/alerts/{alert}")).await;
    assert_eq!(alert["acknowledged_at"].is_null(), alert["acknowledged_via"].is_null());
    [alert["acknowledged_by"].clone(), alert["acknowledged_via"].clone()]
}

fn by(name: &str) -> [Value; 2] {
    [json!(name), json!("sms")]
}

const NOBODY: [Value; 2] = [Value::Null, Value::Null];

/// The code that this phone has for an alert.
async fn code(env: &TestEnv, phone: &str, alert: &str) -> String {
    let sql = format!("select code from ack_code where phone = '{phone}' and alert_id = '{alert}'");
    let codes = env.database.texts(&sql).await;
    assert_eq!(codes.len(), 1, "{codes:?}");
    codes[0].clone()
}

async fn the_only_open_alert_needs_no_code(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "1").build().await;
    let alert = env
        .raise(&critical("1", &[named(GRACE, "Grace Hopper"), person(MONA)]))
        .await;
    env.stand(&alert, &["accepted", "deferred"]).await;

    texts(&env, GRACE, "ACK").await;

    let deliveries = env.stand(&alert, &["accepted", "canceled"]).await;
    assert_eq!(acknowledged(&env, &alert).await, by("Grace Hopper"));
    let timeline = deliveries[0]["timeline"].as_array().unwrap();
    assert_eq!(
        timeline.last().unwrap()["text"],
        "this person acknowledged the alert by a reply"
    );
}

async fn of_two_open_alerts_the_code_says_which(database: Database) {
    let env = TestEnv::on(database).await;
    let first = told(&env, "1", &[named(GRACE, "Grace Hopper")]).await;
    let second = told(&env, "2", &[named(GRACE, "Grace Hopper")]).await;

    let listed = replies(&env, GRACE, "ACK").await.body;

    assert_eq!(acknowledged(&env, &first).await, NOBODY);
    assert_eq!(acknowledged(&env, &second).await, NOBODY);
    let codes = [code(&env, GRACE, &first).await, code(&env, GRACE, &second).await];
    for part in [codes[0].as_str(), &codes[1], "101", "102"] {
        assert!(listed.contains(part), "{part} is not in {listed}");
    }
    let again = replies(&env, GRACE, "ack").await.body;
    assert!(
        again.contains(&codes[0]) && again.contains(&codes[1]),
        "the codes stay: {again}"
    );
    texts(&env, GRACE, &format!("Ack {}", codes[0].to_lowercase())).await;
    assert_eq!(acknowledged(&env, &first).await, by("Grace Hopper"));
    assert_eq!(acknowledged(&env, &second).await, NOBODY);

    // Only one is open by now.
    texts(&env, GRACE, "ACK").await;
    assert_eq!(acknowledged(&env, &second).await, by("Grace Hopper"));
}

async fn the_code_in_the_message_is_enough_by_itself(database: Database) {
    let env = Plan::on(database).set("ACKNOWLEDGE__CODE", "true").build().await;
    let first = told(&env, "1", &[named(GRACE, "Grace Hopper")]).await;
    let second = told(&env, "2", &[named(GRACE, "Grace Hopper")]).await;
    let text = env.twilio.messages_to(GRACE)[1].body.clone();
    let code = text.lines().last().unwrap().strip_prefix("Reply ACK ").unwrap();

    texts(&env, GRACE, &format!(" {}. ", code.to_lowercase())).await;

    assert_eq!(acknowledged(&env, &first).await, NOBODY);
    assert_eq!(acknowledged(&env, &second).await, by("Grace Hopper"));
}

async fn a_wrong_code_acknowledges_nothing(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = told(&env, "1", &[person(GRACE)]).await;

    let answer = replies(&env, GRACE, "ACK 77C").await.body;

    assert_eq!(acknowledged(&env, &alert).await, NOBODY);
    let code = code(&env, GRACE, &alert).await;
    assert!(answer.contains(&code) && answer.contains("101"), "{answer}");
    // Another phone's code is none of this one's.
    let other = told(&env, "2", &[person(MONA)]).await;
    replies(&env, MONA, &format!("ACK {code}")).await;
    assert_eq!(acknowledged(&env, &alert).await, NOBODY);
    assert_eq!(acknowledged(&env, &other).await, NOBODY);
}

async fn a_late_reply_is_told_that_it_is_late(database: Database) {
    let env = Plan::on(database).set("ACKNOWLEDGE__CODE", "true").build().await;
    let old = told(&env, "1", &[person(GRACE)]).await;
    let late = code(&env, GRACE, &old).await;
    env.post(&json!({"type": "ticket.closed", "ticket": {"id": "1"}})).await;
    let over = replies(&env, GRACE, "ACK").await.body;
    assert!(over.contains("101"), "{over}");
    let open = told(&env, "2", &[person(GRACE)]).await;

    let answer = replies(&env, GRACE, &format!("ACK {late}")).await.body;

    assert!(answer.contains("101") && !answer.contains("102"), "{answer}");
    assert_eq!(acknowledged(&env, &old).await, NOBODY);
    assert_eq!(acknowledged(&env, &open).await, NOBODY);
}

async fn a_second_person_is_told_who_was_first(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = told(&env, "1", &[named(GRACE, "Grace Hopper"), named(MONA, "Mona Meyer")]).await;
    texts(&env, GRACE, "ACK").await;

    let late = replies(&env, MONA, "ACK").await.body;

    assert!(late.contains("Grace Hopper"), "{late}");
    assert_eq!(acknowledged(&env, &alert).await, by("Grace Hopper"));
    let again = replies(&env, GRACE, "ACK").await.body;
    assert!(again.contains("101") && !again.contains("Mona"), "{again}");
}

async fn whoever_was_not_told_acknowledges_nothing(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "1").build().await;
    let alert = env.raise(&critical("1", &[person(GRACE), person(MONA)])).await;
    env.stand(&alert, &["accepted", "deferred"]).await;

    for phone in [MONA, NINA] {
        assert_eq!(env.text_from(phone, "ACK").await, 200);
    }

    env.stand(&alert, &["accepted", "deferred"]).await;
    assert_eq!(acknowledged(&env, &alert).await, NOBODY);
}

async fn replies_at_once_at_several_processes_make_one_acknowledgement(database: Database) {
    let env = Plan::on(database).set("ACKNOWLEDGE__CODE", "true").build().await;
    let others = match env.database.is_sqlite {
        true => Vec::new(),
        false => vec![env.start_another(), env.start_another()],
    };
    let addresses: Vec<String> = others
        .iter()
        .chain([&env.service])
        .map(|service| service.address.clone())
        .collect();
    let people = [named(GRACE, "Grace"), named(MONA, "Mona"), named(NINA, "Nina")];
    for ticket in 1..=4 {
        let alert = told(&env, &ticket.to_string(), &people).await;
        let mut texts = Vec::new();
        for (place, phone) in [GRACE, MONA, NINA, GRACE, MONA, NINA].into_iter().enumerate() {
            let with_code = format!("ACK {}", code(&env, phone, &alert).await);
            let text = if place < 3 { "ACK".to_owned() } else { with_code };
            texts.push((&addresses[place % addresses.len()], phone, text));
        }
        let posted = texts
            .iter()
            .map(|(address, phone, text)| env.text_to(address, phone, text));
        assert_eq!(join_all(posted).await, [200; 6]);

        let deliveries = env.deliveries(&alert).await;
        let names: BTreeSet<&str> = deliveries
            .iter()
            .filter(|delivery| {
                let entries = delivery["timeline"].as_array().unwrap();
                entries.iter().any(|entry| entry["what"] == "acknowledged")
            })
            .map(|delivery| delivery["recipient"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names.len(), 1, "{deliveries:#?}");
        assert_eq!(acknowledged(&env, &alert).await, by(names.first().unwrap()));
    }
    // Lists at once: each alert has one code for a phone, whoever made it.
    let env = match others.is_empty() {
        true => return,
        false => env,
    };
    env.database.execute("delete from ack_code").await;
    let open = [told(&env, "8", &people).await, told(&env, "9", &people).await];
    env.database.execute("delete from ack_code").await;
    let posted = addresses.iter().map(|address| env.text_to(address, GRACE, "ACK"));
    assert_eq!(join_all(posted).await, [200; 3]);
    for alert in &open {
        code(&env, GRACE, alert).await;
        assert_eq!(acknowledged(&env, alert).await, NOBODY);
    }
}
