//! A rolling upgrade: what a newer version writes of channels and providers that this one does not know is that one's
//! business. This one leaves it alone, and it holds up nobody.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    twilio::Answers,
};
use serde_json::json;

stories![
    a_delivery_of_an_unknown_channel_is_left_alone_and_holds_up_nobody,
    an_attempt_of_an_unknown_provider_is_left_to_who_knows_it,
];

/// What stands in a delivery's row, but for when it was looked at.
async fn row(env: &TestEnv, id: &str) -> Vec<String> {
    let sql = format!(
        "select state || ' ' || coalesce(reason, '-') || ' ' || attempts || ' ' || claims || ' ' || timeline_length || ' '
            || coalesce(lease_until, 0) from delivery where id = '{id}'"
    );
    env.database.texts(&sql).await
}

async fn a_delivery_of_an_unknown_channel_is_left_alone_and_holds_up_nobody(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "3").build().await;
    let first = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&first, &["accepted"]).await;
    // As old as can be, so that it is before all others in every queue: waiting, deferred, and long expired.
    for (id, state, received_at) in [("x1", "pending", 1), ("x2", "deferred", 2), ("x3", "pending", 3)] {
        env.database
            .execute(&format!(
                "insert into delivery (id, alert_id, channel, phone, round, message, segments, state, attempts, due_at,
                    claims, looks, timeline_length, received_at, created_at, updated_at)
                 values ('{id}', '{first}', 'pigeon', '+1415555019{received_at}', 0, 'x', 1, '{state}', 0, {received_at},
                    0, 0, 0, {received_at}, {received_at}, {received_at})"
            ))
            .await;
    }
    let before = [row(&env, "x1").await, row(&env, "x2").await, row(&env, "x3").await];

    // Two slots are left for three.
    let mut alerts = Vec::new();
    for number in 2..=4 {
        let recipient = person(&format!("+1415555010{number}"));
        alerts.push(env.raise(&critical(&number.to_string(), &[recipient])).await);
    }

    env.stand(&alerts[0], &["accepted"]).await;
    env.stand(&alerts[1], &["accepted"]).await;
    env.stand(&alerts[2], &["deferred"]).await;
    env.admin(reqwest::Method::PUT, "/v1/limit", Some(json!({"limit": 9})))
        .await;
    env.stand(&alerts[2], &["accepted"]).await;
    let after = [row(&env, "x1").await, row(&env, "x2").await, row(&env, "x3").await];
    assert_eq!(after, before);
    assert_eq!(env.twilio.messages().len(), 4);
}

async fn an_attempt_of_an_unknown_provider_is_left_to_who_knows_it(database: Database) {
    let env = Plan::on(database).set("SMS__RECONCILE_AFTER", "1s").build().await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["accepted"]).await;
    for (id, state, columns) in [
        ("x1", "sending", "null, 1"),
        ("x2", "unknown", "1, null"),
        ("x3", "sent", "1, null"),
    ] {
        env.database
            .execute(&format!(
                "insert into delivery (id, alert_id, channel, phone, round, message, segments, state, attempts, provider,
                    due_at, lease_until, claims, looks, timeline_length, received_at, created_at, updated_at)
                 values ('{id}', '{alert}', 'sms', '+141555501{id}', 0, 'x', 1, '{state}', 1, 'pigeon', {columns},
                    0, 0, 0, 1, 1, 1)"
            ))
            .await;
        env.database
            .execute(&format!(
                "insert into attempt (delivery_id, number, provider, account, limit_day, begun_at, deadline_at)
                 values ('{id}', 1, 'pigeon', 'loft', '2026-11-20', 1, 1)"
            ))
            .await;
    }
    let before = [row(&env, "x1").await, row(&env, "x2").await, row(&env, "x3").await];

    // One of ours whose answer is lost comes after them in the sweep and in what the provider is asked about.
    let lost = env
        .raise(&critical("2", &[env.phone("+14155550102", [Answers::AcceptsWith500])]))
        .await;

    env.stand(&lost, &["accepted"]).await;
    let after = [row(&env, "x1").await, row(&env, "x2").await, row(&env, "x3").await];
    assert_eq!(after, before);
}
