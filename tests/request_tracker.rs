//! A real Request Tracker: its tickets come by poll, by its scrip, and by both.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv},
    eventually,
    rt::{RequestTracker, SECRET},
};
use serde_json::json;

stories![poll_and_scrip_together_text_once];

/// On one database: a Request Tracker takes a while to start, and these are not about ours.
macro_rules! once {
    ($($name:ident),+ $(,)?) => {
        mod once {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::database::Database::sqlite()).await;
            })+
        }
    };
}

once![
    a_poll_texts_the_owner_and_the_managers,
    a_scrip_texts_the_owner_and_the_managers,
    what_happens_while_request_tracker_is_away_is_not_missed,
    a_priority_lowered_before_the_send_cancels,
];

/// The owner, the AdminCc of the ticket, and the one person in the group that is AdminCc of the queue.
const PHONES: [&str; 3] = ["+14155550101", "+14155550103", "+493012345678"];

/// A service beside a Request Tracker, which is asked often for what changed and seldom for everything: one must not find
/// what the other should have.
fn polled(database: Database, rt: &RequestTracker) -> Plan {
    Plan::on(database)
        .set("SOURCES__RT__KIND", "rt")
        .set("SOURCES__RT__URL", &rt.url)
        .set("SOURCES__RT__TOKEN", &rt.token)
        .set("SOURCES__RT__POLL_EVERY", "300ms")
}

/// Waits until the service has looked at Request Tracker for the first time: what is critical before is left alone.
async fn is_polled(env: &TestEnv) {
    env.service.logged("is polled from now on").await;
}

async fn phones(env: &TestEnv) -> Vec<String> {
    let messages = env.twilio.accepted(PHONES.len()).await;
    let mut phones: Vec<String> = messages.into_iter().map(|message| message.to).collect();
    phones.sort();
    phones
}

async fn a_poll_texts_the_owner_and_the_managers(database: Database) {
    let Some(mut rt) = RequestTracker::prepare("a_poll_texts_the_owner_and_the_managers") else {
        return;
    };
    rt.start().await;
    let env = polled(database, &rt).build().await;
    is_polled(&env).await;
    let ticket = rt.create(20, "Über-Printer on fire 🚨").await;

    rt.change(&ticket, json!({"Priority": 100})).await;

    assert_eq!(phones(&env).await, PHONES);
    let text = env.twilio.messages_to("+14155550101")[0].form["Body"].clone();
    for part in [
        "Über-Printer on fire 🚨",
        "Client: Acme Corp",
        "(93%)",
        "Est. Hours: 4.5",
        &format!("{}/Ticket/Display.html?id={ticket}", rt.url),
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let alerts = env.get(&format!("/v1/alerts?source=rt&ticket_id={ticket}")).await;
    let alert = alerts["items"][0]["id"].as_str().unwrap();
    let deliveries = env.deliveries(alert).await;
    let roles: Vec<&str> = deliveries
        .iter()
        .filter_map(|delivery| delivery["recipient"]["role"].as_str())
        .collect();
    assert_eq!(roles, ["assignee", "manager", "manager"]);
}

async fn a_scrip_texts_the_owner_and_the_managers(database: Database) {
    let Some(mut rt) = RequestTracker::prepare("a_scrip_texts_the_owner_and_the_managers") else {
        return;
    };
    let env = Plan::on(database)
        .set("SOURCES__RT__KIND", "rt")
        .set("SOURCES__RT__SECRET", SECRET)
        .build()
        .await;
    rt.tell(&format!("http://{}/v1/hooks/rt", env.service.address));
    rt.start().await;
    let ticket = rt.create(20, "Printer on fire").await;

    rt.change(&ticket, json!({"Priority": 100})).await;

    assert_eq!(phones(&env).await, PHONES);
    rt.change(&ticket, json!({"Priority": 20})).await;
    eventually("the alert to be closed", async || {
        let alerts = env.get(&format!("/v1/alerts?source=rt&ticket_id={ticket}")).await;
        let closed_at = alerts["items"][0]["closed_at"].clone();
        if closed_at.is_null() { Err(alerts) } else { Ok(()) }
    })
    .await;
}

async fn poll_and_scrip_together_text_once(database: Database) {
    let Some(mut rt) = RequestTracker::prepare("poll_and_scrip_together_text_once") else {
        return;
    };
    let env = polled(database, &rt).set("SOURCES__RT__SECRET", SECRET).build().await;
    rt.tell(&format!("http://{}/v1/hooks/rt", env.service.address));
    rt.start().await;
    is_polled(&env).await;
    let first = rt.create(20, "Printer on fire").await;

    rt.change(&first, json!({"Priority": 100})).await;
    rt.change(&first, json!({"Subject": "Printer still on fire"})).await;

    assert_eq!(phones(&env).await, PHONES);
    // The poll has been past the first ticket when it brings the second.
    rt.create(100, "Cooler on fire").await;
    let both = env.twilio.accepted(2 * PHONES.len()).await;
    let still = both.iter().filter(|message| message.form["Body"].contains("Printer"));
    assert_eq!(still.count(), PHONES.len());
}

async fn what_happens_while_request_tracker_is_away_is_not_missed(database: Database) {
    let Some(mut rt) = RequestTracker::prepare("what_happens_while_request_tracker_is_away_is_not_missed") else {
        return;
    };
    rt.start().await;
    let env = polled(database, &rt).build().await;
    is_polled(&env).await;
    let ticket = rt.create(20, "Printer on fire").await;
    rt.stop();
    env.service.logged("cannot ask the helpdesk").await;

    // Before Nightbell asks again, as far as it can be: it waits longer from time to time.
    rt.start().await;
    rt.change(&ticket, json!({"Priority": 100})).await;

    assert_eq!(phones(&env).await, PHONES);
    env.service.logged("the helpdesk answers again").await;
}

async fn a_priority_lowered_before_the_send_cancels(database: Database) {
    let Some(mut rt) = RequestTracker::prepare("a_priority_lowered_before_the_send_cancels") else {
        return;
    };
    rt.start().await;
    let env = polled(database, &rt).build().await;
    is_polled(&env).await;
    // Surely not sent, and tried again later.
    env.twilio.close(true);
    let ticket = rt.create(100, "Printer on fire").await;
    let alert = eventually("an alert", async || {
        let alerts = env.get(&format!("/v1/alerts?source=rt&ticket_id={ticket}")).await;
        alerts["items"][0]["id"].as_str().map(str::to_owned).ok_or(alerts)
    })
    .await;

    rt.change(&ticket, json!({"Priority": 10})).await;

    env.stand(&alert, &["canceled", "canceled", "canceled"]).await;
    env.twilio.close(false);
    assert_eq!(env.twilio.messages().len(), 0);
}
