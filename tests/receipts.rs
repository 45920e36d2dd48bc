//! Receipts: only signed ones, in any order and number, early and late, and never lost.

use crate::support::{
    database::Database,
    env::{TestEnv, critical, person},
    eventually,
    twilio::{ACCOUNT, AUTH_TOKEN, Answers, Message, sign},
};
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;

stories![
    orders_and_repeats_end_as_the_state_machine_says,
    a_forged_receipt_changes_nothing,
    a_receipt_before_the_answer_is_not_lost,
    a_receipt_whose_message_nobody_knows_waits_for_it,
    an_unknown_status_word_is_kept_and_changes_nothing,
    a_receipt_that_cannot_be_stored_is_not_answered_with_success,
    both_tokens_are_good_during_a_rotation,
];

async fn one_message(env: &TestEnv, ticket: &str, phone: &str) -> (String, Message) {
    let alert = env.raise(&critical(ticket, &[person(phone)])).await;
    let message = eventually("the message", async || {
        env.twilio.messages_to(phone).pop().ok_or("none")
    })
    .await;
    env.stand(&alert, &["accepted"]).await;
    (alert, message)
}

/// Every order of the words, some with repeats.
fn orders(words: &[&'static str]) -> Vec<Vec<&'static str>> {
    if words.len() <= 1 {
        return vec![words.to_vec()];
    }
    let mut all = Vec::new();
    for (index, first) in words.iter().enumerate() {
        let mut rest = words.to_vec();
        rest.remove(index);
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, first);
            order
        }));
    }
    all
}

async fn orders_and_repeats_end_as_the_state_machine_says(database: Database) {
    let env = TestEnv::on(database).await;
    let mut ticket = 0;
    for (words, end) in [
        (&["queued", "sending", "sent", "delivered"][..], "delivered"),
        (&["queued", "sent", "undelivered"], "undelivered"),
        (&["sending", "sent", "failed"], "failed"),
        (&["failed", "delivered", "sent"], "delivered"),
    ] {
        for order in orders(words) {
            ticket += 1;
            let (alert, message) = one_message(&env, &ticket.to_string(), &format!("+1415555{ticket:04}")).await;
            for word in order.iter().chain(&order) {
                assert_eq!(env.report(&message, word, None).await, 204, "{word}");
            }
            let delivery = env.deliveries(&alert).await.remove(0);
            assert_eq!(delivery["state"], end, "{order:?}: {delivery}");
            let moves = delivery["timeline"].as_array().unwrap().len();
            assert!(
                moves <= 3 + order.len(),
                "repeats write no timeline entries: {delivery}"
            );
        }
    }
}

async fn a_forged_receipt_changes_nothing(database: Database) {
    let env = TestEnv::on(database).await;
    let (alert, message) = one_message(&env, "1", "+14155550101").await;
    let url = message.callback.clone().unwrap();
    let form = [
        ("AccountSid", ACCOUNT),
        ("MessageSid", message.sid.as_str()),
        ("MessageStatus", "delivered"),
    ];
    let changed = [
        ("AccountSid", ACCOUNT),
        ("MessageSid", message.sid.as_str()),
        ("MessageStatus", "deliverex"),
    ];
    let good = sign(AUTH_TOKEN, &url, &form);
    let local = format!(
        "http://{}/twilio/status?{}",
        env.service.address,
        url.split_once('?').unwrap().1
    );

    assert_eq!(env.post_receipt(&url, &changed, &good).await, 403, "one changed byte");
    assert_eq!(env.post_receipt(&url, &form, "").await, 403, "no signature");
    assert_eq!(
        env.post_receipt(&url, &form, &sign("another token", &url, &form)).await,
        403,
        "a wrong token"
    );
    assert_eq!(
        env.post_receipt(&url, &form, &sign("", &url, &form)).await,
        403,
        "an empty token"
    );
    assert_eq!(
        env.post_receipt(&url, &form, &sign(AUTH_TOKEN, &local, &form)).await,
        403,
        "the bound address instead of the public one"
    );
    assert_eq!(
        env.post_receipt(&url.replace("a=1", "a=2"), &form, &good).await,
        403,
        "another attempt in the query"
    );
    let body = format!(
        "AccountSid={ACCOUNT}&MessageSid={}&MessageStatus=delivered",
        message.sid
    )
    .into_bytes();
    let query = url.split('#').next().unwrap().split_once('?').unwrap().1;
    let forged = sign(
        AUTH_TOKEN,
        &format!("https://evil.example/twilio/status?{query}"),
        &form,
    );
    let headers = [
        ("host", "evil.example"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-twilio-signature", forged.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    assert_eq!(
        env.request(Method::POST, &format!("/twilio/status?{query}"), &headers, body)
            .await
            .status,
        403,
        "a forged Host header"
    );
    let delivery = env.deliveries(&alert).await.remove(0);
    assert_eq!(
        (&delivery["state"], &delivery["provider_status"]),
        (&json!("accepted"), &json!("queued")),
        "nothing changed"
    );
    assert_eq!(env.database.number("select count(*) from receipt").await, 0);
    let rejected = env.get("/v1/receipts/rejected").await;
    assert_eq!(rejected["count"], 7);
    assert!(!rejected.to_string().contains(&message.sid), "redacted: {rejected}");

    assert_eq!(
        env.post_receipt(&url, &form, &good).await,
        204,
        "and the true one is good"
    );
    env.stand(&alert, &["delivered"]).await;
}

async fn a_receipt_before_the_answer_is_not_lost(database: Database) {
    let env = TestEnv::on(database).await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWhenLet(Arc::clone(&gate))])],
        ))
        .await;
    let message = env.twilio.accepted(1).await.remove(0);

    assert_eq!(env.report(&message, "delivered", None).await, 204);
    env.stand(&alert, &["delivered"]).await;
    gate.notify_one();

    eventually("the recorded answer", async || {
        let recorded = env
            .database
            .number("select count(*) from attempt where outcome = 'accepted'")
            .await;
        if recorded == 1 { Ok(()) } else { Err(recorded) }
    })
    .await;
    let delivery = env.deliveries(&alert).await.remove(0);
    assert_eq!(
        (&delivery["state"], &delivery["provider_message_id"]),
        (&json!("delivered"), &json!(message.sid))
    );
}

async fn a_receipt_whose_message_nobody_knows_waits_for_it(database: Database) {
    let env = TestEnv::on(database).await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWhenLet(Arc::clone(&gate))])],
        ))
        .await;
    let message = env.twilio.accepted(1).await.remove(0);
    // A receipt by a callback address of the Messaging Service's own: it does not name our delivery.
    let url = "https://nightbell.example.test/behind/proxy/twilio/status";
    let form = [
        ("AccountSid", ACCOUNT),
        ("MessageSid", message.sid.as_str()),
        ("MessageStatus", "undelivered"),
        ("ErrorCode", "30005"),
    ];
    let signature = sign(AUTH_TOKEN, url, &form);

    assert_eq!(env.post_receipt(url, &form, &signature).await, 204);
    assert_eq!(env.post_receipt(url, &form, &signature).await, 204, "again");
    assert_eq!(env.deliveries(&alert).await[0]["state"], "sending");
    assert_eq!(
        env.database.number("select count(*) from receipt").await,
        1,
        "exact repeats are recognised"
    );
    gate.notify_one();

    let delivery = env.stand(&alert, &["undelivered"]).await.remove(0);
    assert_eq!(delivery["error_code"], 30005);
    let form = [("MessageSid", "SM_of_somebody_else"), ("MessageStatus", "sent")];
    assert_eq!(
        env.post_receipt(url, &form, &sign(AUTH_TOKEN, url, &form)).await,
        204,
        "kept, though nobody knows it"
    );
    let form = [("MessageSid", "SM1")];
    assert_eq!(
        env.post_receipt(url, &form, &sign(AUTH_TOKEN, url, &form)).await,
        422,
        "signed, and no status callback"
    );
}

async fn an_unknown_status_word_is_kept_and_changes_nothing(database: Database) {
    let env = TestEnv::on(database).await;
    let (alert, message) = one_message(&env, "1", "+14155550101").await;

    assert_eq!(env.report(&message, "teleported", None).await, 204);

    let delivery = env.deliveries(&alert).await.remove(0);
    assert_eq!(
        (&delivery["state"], &delivery["provider_status"]),
        (&json!("accepted"), &json!("teleported"))
    );
    assert!(delivery["timeline"].to_string().contains("teleported"));
    assert_eq!(env.report(&message, "delivered", None).await, 204);
    assert_eq!(env.report(&message, "beamed", None).await, 204);
    assert_eq!(env.deliveries(&alert).await[0]["provider_status"], "delivered");
}

async fn a_receipt_that_cannot_be_stored_is_not_answered_with_success(database: Database) {
    let env = TestEnv::on(database).await;
    let (alert, message) = one_message(&env, "1", "+14155550101").await;

    env.database.execute("alter table receipt rename to receipt_gone").await;
    assert_eq!(env.report(&message, "delivered", None).await, 503);
    assert_eq!(
        env.deliveries(&alert).await[0]["state"],
        "accepted",
        "nothing half-done"
    );
    env.database.execute("alter table receipt_gone rename to receipt").await;

    assert_eq!(env.report(&message, "delivered", None).await, 204, "Twilio comes again");
    env.stand(&alert, &["delivered"]).await;
}

async fn both_tokens_are_good_during_a_rotation(database: Database) {
    let env = crate::support::env::Plan::on(database)
        .set("TWILIO__SECONDARY_AUTH_TOKEN", "next-token")
        .build()
        .await;
    let (alert, message) = one_message(&env, "1", "+14155550101").await;
    let url = message.callback.clone().unwrap();
    let form = [("MessageSid", message.sid.as_str()), ("MessageStatus", "sent")];

    assert_eq!(
        env.post_receipt(&url, &form, &sign("next-token", &url, &form)).await,
        204
    );

    env.stand(&alert, &["sent"]).await;
}
