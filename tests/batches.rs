//! Batches: what shares a transaction shares its fsync and nothing else: each event, send and receipt has its own result, and one
//! that cannot be written fails alone.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
};
use serde_json::json;

stories![
    one_event_that_cannot_be_written_fails_none_of_its_neighbours,
    one_delivery_that_cannot_be_begun_keeps_none_of_its_neighbours_from_being_sent,
    one_receipt_that_cannot_be_written_fails_none_of_its_neighbours,
    of_many_events_for_one_ticket_that_come_at_once_one_raises_the_alert,
];

/// So many that most of them share a transaction with others.
const MANY: usize = 40;

fn number(index: usize) -> String {
    format!("+1415555{index:04}")
}

/// Posts events for tickets 0 and up, all at once, while somebody else keeps the first from being written; returns the
/// answers' statuses.
async fn post_together(env: &TestEnv) -> Vec<u16> {
    let events: Vec<_> = (0..MANY)
        .map(|index| critical(&index.to_string(), &[person(&number(index))]))
        .collect();
    let holder = env.database.hold_writes().await;
    let posting = futures::future::join_all(events.iter().map(|event| env.post(event)));
    let release = async {
        eventually("requests that wait", async || {
            if env.service.has_open_requests() {
                Ok(())
            } else {
                Err("none")
            }
        })
        .await;
        drop(holder);
    };
    let (replies, ()) = tokio::join!(posting, release);
    replies.into_iter().map(|reply| reply.status).collect()
}

async fn one_event_that_cannot_be_written_fails_none_of_its_neighbours(database: Database) {
    let env = Plan::on(database).build().await;
    env.database.break_rows("insert", "alert", "new.ticket_id = '13'").await;

    let statuses = post_together(&env).await;

    for (index, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, if index == 13 { 503 } else { 202 }, "ticket {index}");
    }
    env.database.mend("alert").await;
    assert_eq!(env.post(&critical("13", &[person(&number(13))])).await.status, 202);
    assert_eq!(env.twilio.accepted(MANY).await.len(), MANY);
}

async fn one_delivery_that_cannot_be_begun_keeps_none_of_its_neighbours_from_being_sent(database: Database) {
    let env = Plan::on(database)
        .set("SMS__LEASE", "4s")
        .set("SMS__TIMEOUT", "2s")
        .build()
        .await;
    let bad = format!(
        "new.delivery_id in (select id from delivery where phone = '{}')",
        number(13)
    );
    env.database.break_rows("insert", "attempt", &bad).await;

    let statuses = post_together(&env).await;

    assert!(statuses.iter().all(|status| *status == 202), "{statuses:?}");
    env.twilio.accepted(MANY - 1).await;
    let alerts = env.get("/v1/alerts?source=default&ticket_id=13").await;
    let alert = alerts["items"][0]["id"].as_str().unwrap().to_owned();
    let delivery = env.stand(&alert, &["failed"]).await.remove(0);
    assert_eq!(delivery["reason"], "internal_error", "tried five times, then set aside");
    assert_eq!(env.get("/v1/limit").await["used"], MANY - 1);
}

async fn one_receipt_that_cannot_be_written_fails_none_of_its_neighbours(database: Database) {
    let env = Plan::on(database).build().await;
    post_together(&env).await;
    let messages = env.twilio.accepted(MANY).await;
    eventually("every answer to be recorded", async || {
        let page = env.get("/v1/deliveries?state=accepted&limit=200").await;
        let count = page["items"].as_array().unwrap().len();
        if count == MANY { Ok(()) } else { Err(count) }
    })
    .await;
    let bad = format!("new.message_id = '{}'", messages[13].sid);
    env.database.break_rows("insert", "receipt", &bad).await;

    let reports = messages.iter().map(|message| env.report(message, "delivered", None));
    let statuses = futures::future::join_all(reports).await;

    for (index, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, if index == 13 { 503 } else { 204 }, "receipt {index}");
    }
    env.database.mend("receipt").await;
    assert_eq!(env.report(&messages[13], "delivered", None).await, 204);
    let page = env.get("/v1/deliveries?state=delivered&limit=200").await;
    assert_eq!(page["items"].as_array().unwrap().len(), MANY);
}

async fn of_many_events_for_one_ticket_that_come_at_once_one_raises_the_alert(database: Database) {
    let mut env = Plan::on(database).build().await;
    let event = critical("1", &[person("+14155550101")]);

    let replies = futures::future::join_all((0..MANY).map(|_| env.post(&event))).await;

    let accepted: Vec<_> = replies.iter().filter(|reply| reply.status == 202).collect();
    assert_eq!(accepted.len(), 1);
    let alert = &accepted[0].body["alert_id"];
    for reply in replies.iter().filter(|reply| reply.status != 202) {
        assert_eq!(
            (reply.status, &reply.body["outcome"]),
            (200, &json!("duplicate")),
            "{reply:?}"
        );
        assert_eq!(&reply.body["alert_id"], alert);
    }
    env.stand(alert.as_str().unwrap(), &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);

    // The connection that looked for duplicates keeps nobody from stopping.
    env.service.signal("TERM");
    env.service.ended().await;
    env.service.logged("stopped").await;
}
