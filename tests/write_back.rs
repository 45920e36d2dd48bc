//! Notes on tickets: a real Request Tracker and a real Redmine are told who was reached, once.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv},
    eventually,
    rt::RequestTracker,
};
use serde_json::json;

stories![who_was_reached_is_noted_on_the_ticket_once];

/// Reports every message that was accepted as delivered, or the last of them as not.
async fn report_all(env: &TestEnv, count: usize, fails: bool) {
    let messages = env.twilio.accepted(count).await;
    for (index, message) in messages.iter().enumerate() {
        let (status, code) = if fails && index + 1 == count {
            ("undelivered", Some("30003"))
        } else {
            ("delivered", None)
        };
        eventually("a receipt to be taken", async || {
            let answer = env.report(message, status, code).await;
            if answer == 204 { Ok(()) } else { Err(answer) }
        })
        .await;
    }
}

async fn who_was_reached_is_noted_on_the_ticket_once(database: Database) {
    let Some(mut rt) = RequestTracker::prepare("who_was_reached_is_noted_on_the_ticket_once") else {
        return;
    };
    rt.start().await;
    let mut env = Plan::on(database)
        .set("SOURCES__RT__KIND", "rt")
        .set("SOURCES__RT__URL", &rt.url)
        .set("SOURCES__RT__TOKEN", &rt.token)
        .set("SOURCES__RT__WRITE_BACK", "true")
        .set("SOURCES__RT__POLL_EVERY", "300ms")
        .build()
        .await;
    env.service.logged("is polled from now on").await;
    let ticket = rt.create(100, "Printer on fire").await;
    env.twilio.accepted(3).await;
    assert_eq!(rt.comments(&ticket).await, 0, "nobody knows yet who was reached");

    report_all(&env, 3, true).await;

    eventually("a note on the ticket", async || {
        let comments = rt.comments(&ticket).await;
        if comments == 1 { Ok(()) } else { Err(comments) }
    })
    .await;
    let text = rt.last_comment(&ticket).await;
    for part in ["2 of 3 people were reached by SMS", "code 30003", "Grace"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("415555"), "{text}");
    // Another start, another look: the note is there already.
    env.service.signal("TERM");
    env.service.ended().await;
    env.restart();
    let other = rt.create(100, "Cooler on fire").await;
    rt.change(&other, json!({"Subject": "Cooler still on fire"})).await;
    report_all(&env, 6, false).await;
    eventually("a note on the other ticket", async || {
        let comments = rt.comments(&other).await;
        if comments == 1 { Ok(()) } else { Err(comments) }
    })
    .await;
    assert_eq!(rt.comments(&ticket).await, 1);
}
