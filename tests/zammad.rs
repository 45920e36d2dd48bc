//! Zammad by poll: a fake one, in the shape of the real one's answers.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv},
    eventually,
    zammad::{TOKEN, Zammad},
};
use serde_json::json;

stories![
    a_poll_texts_the_owner_of_a_ticket_of_high_priority,
    a_change_that_the_poll_cannot_see_is_found_by_looking_at_everything,
    a_wrong_token_is_said_in_the_log,
    what_a_webhook_misses_is_alerted_on_and_counted,
    a_ticket_raised_again_after_a_webhook_closed_it_is_a_change_to_the_poll,
    what_was_critical_before_is_left_alone_whoever_is_on_it,
    a_ticket_that_is_hidden_for_a_while_keeps_its_alert_and_is_told_of_once,
];

pub fn polled(database: Database, zammad: &Zammad) -> Plan {
    Plan::on(database)
        .set("SOURCES__ACME__KIND", "zammad")
        .set("SOURCES__ACME__URL", &zammad.url)
        .set("SOURCES__ACME__TOKEN", TOKEN)
        .set("SOURCES__ACME__POLL_EVERY", "100ms")
}

async fn alert(env: &TestEnv, ticket: u64) -> String {
    eventually("an alert", async || {
        let alerts = env.get(&format!("/v1/alerts?source=acme&ticket_id={ticket}")).await;
        alerts["items"][0]["id"].as_str().map(str::to_owned).ok_or(alerts)
    })
    .await
}

async fn a_poll_texts_the_owner_of_a_ticket_of_high_priority(database: Database) {
    let zammad = Zammad::start().await;
    let env = polled(database, &zammad).build().await;
    env.service.logged("is polled from now on").await;
    // More than fit on a page, all of them later than the first look.
    for id in 1..=120 {
        zammad.create(id, "2 normal");
    }
    zammad.create(200, "2 normal");

    zammad.change(1, "priority", json!("3 high"));

    let message = &env.twilio.accepted(1).await[0];
    assert_eq!(message.to, "+46701234567");
    for part in [
        "#311",
        "Oven too hot",
        "Bakers Ltd",
        &format!("{}/#ticket/zoom/1", zammad.url),
    ] {
        assert!(message.body.contains(part), "{part} is not in {}", message.body);
    }
    let alert = alert(&env, 1).await;
    zammad.change(1, "state_id", json!(4));
    eventually("the alert to be closed", async || {
        let alert = env.get(&format!("/v1/alerts/{alert}")).await;
        if alert["closed_at"].is_null() {
            Err(alert)
        } else {
            Ok(())
        }
    })
    .await;
    // Its owner and its customer, once.
    assert_eq!(zammad.users_asked_for(), 2);
}

async fn a_change_that_the_poll_cannot_see_is_found_by_looking_at_everything(database: Database) {
    let zammad = Zammad::start().await;
    zammad.create(1, "1 low");
    let env = polled(database, &zammad)
        .set("SOURCES__ACME__SWEEP_EVERY", "300ms")
        .build()
        .await;
    env.service.logged("is polled from now on").await;

    zammad.change_unseen(1, "priority", json!("3 high"));

    assert_eq!(env.twilio.accepted(1).await.len(), 1);
    zammad.change_unseen(1, "priority", json!("1 low"));
    let alert = alert(&env, 1).await;
    eventually("the alert to be closed", async || {
        let alert = env.get(&format!("/v1/alerts/{alert}")).await;
        if alert["closed_at"].is_null() {
            Err(alert)
        } else {
            Ok(())
        }
    })
    .await;
}

async fn a_wrong_token_is_said_in_the_log(database: Database) {
    let zammad = Zammad::start().await;
    let env = polled(database, &zammad)
        .set("SOURCES__ACME__TOKEN", "an-old-token")
        .build()
        .await;

    let log = env
        .service
        .logged("refuses the token (HTTP 401): set `sources.acme.token`")
        .await;

    assert!(!log.contains("an-old-token"), "{log}");
}

async fn what_a_webhook_misses_is_alerted_on_and_counted(database: Database) {
    let zammad = Zammad::start().await;
    let now = jiff::Timestamp::now().strftime("%F %T").to_string();
    let plan = polled(database, &zammad)
        .set("SOURCES__ACME__TOKENS", "acme-token")
        .set("SOURCES__ACME__SWEEP_EVERY", "200ms");
    let Some(plan) = plan.at(&now, "what a webhook misses") else {
        return;
    };
    let env = plan.build().await;
    env.service.logged("is polled from now on").await;

    // One that the webhook brings, and one that it does not.
    zammad.create(7, "3 high");
    let body = json!({"ticket": {"id": 7, "title": "Oven too hot", "priority": {"name": "3 high"}, "owner": {"login": "emil", "mobile": "+46701234567"}}});
    let headers = [
        ("authorization", "Bearer acme-token"),
        ("content-type", "application/json"),
    ];
    let brought = env
        .request(
            reqwest::Method::POST,
            "/v1/hooks/acme",
            &headers,
            body.to_string().into_bytes(),
        )
        .await;
    assert!([200, 202].contains(&brought.status), "{brought:?}");
    zammad.create(8, "3 high");
    alert(&env, 8).await;
    env.twilio.accepted(2).await;
    let status = async || env.get("/v1/sources").await["items"][0]["poll"].clone();
    eventually("both tickets to be seen by the poll", async || {
        let poll = status().await;
        if poll["seen"] == 2 && poll["missed"] == 0 {
            Ok(())
        } else {
            Err(poll)
        }
    })
    .await;

    // The webhook has had its time.
    env.turn_clock_by(11 * 60);

    eventually("the missed ticket to be counted", async || {
        let poll = status().await;
        if poll["missed"] == 1 { Ok(()) } else { Err(poll) }
    })
    .await;
    let log = env.service.logged("the webhook did not bring a critical ticket").await;
    assert!(log.contains("ticket.id=8 missed=1 of=2"), "{log}");
    let (code, out, _) = env.run(&["source", "list"]).await;
    assert!(code == 0 && out.contains("with its token; missed 1 of 2"), "{out}");
}

async fn a_ticket_raised_again_after_a_webhook_closed_it_is_a_change_to_the_poll(database: Database) {
    let zammad = Zammad::start().await;
    let env = polled(database, &zammad)
        .set("SOURCES__ACME__TOKENS", "acme-token")
        .set("SOURCES__ACME__DAILY_LIMIT", "0")
        .build()
        .await;
    env.service.logged("is polled from now on").await;
    zammad.create(7, "3 high");
    let alert = alert(&env, 7).await;
    env.stand(&alert, &["deferred"]).await;

    // Lowered and raised again between two looks; the webhook of the raise is lost.
    let body = json!({"ticket": {"id": 7, "title": "Oven too hot", "priority": {"name": "2 normal"}}});
    let headers = [
        ("authorization", "Bearer acme-token"),
        ("content-type", "application/json"),
    ];
    let lowered = env
        .request(
            reqwest::Method::POST,
            "/v1/hooks/acme",
            &headers,
            body.to_string().into_bytes(),
        )
        .await;
    assert_eq!(lowered.body["outcome"], "resolved", "{lowered:?}");
    zammad.change(7, "title", json!("Oven far too hot"));

    env.stand(&alert, &["deferred"]).await;
    let shown = env.get(&format!("/v1/alerts/{alert}")).await;
    assert_eq!(shown["closed_at"], serde_json::Value::Null, "{shown}");
    let story = shown["deliveries"][0]["timeline"].to_string();
    assert!(story.contains("the ticket is critical again"), "{story}");
}

async fn what_was_critical_before_is_left_alone_whoever_is_on_it(database: Database) {
    let zammad = Zammad::start().await;
    zammad.create(7, "3 high");
    let env = polled(database, &zammad)
        .set("SOURCES__ACME__SWEEP_EVERY", "200ms")
        .build()
        .await;
    env.service.logged("is polled from now on").await;

    zammad.change(7, "owner_id", json!(1));
    zammad.create(8, "3 high");

    // The look that found the second has seen the first.
    alert(&env, 8).await;
    let listed = env.get("/v1/alerts?source=acme").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
}

async fn a_ticket_that_is_hidden_for_a_while_keeps_its_alert_and_is_told_of_once(database: Database) {
    let zammad = Zammad::start().await;
    let env = polled(database, &zammad)
        .set("SOURCES__ACME__SWEEP_EVERY", "200ms")
        .build()
        .await;
    env.service.logged("is polled from now on").await;
    zammad.create(7, "3 high");
    let alert_id = alert(&env, 7).await;
    env.twilio.accepted(1).await;

    let hidden = zammad.hide(7);
    env.service
        .logged("shows a ticket no more that was critical; its alert stays as it is")
        .await;
    zammad.show(hidden);
    // A later one is told of, so the first has been looked at again.
    zammad.create(8, "3 high");
    alert(&env, 8).await;

    let texts = env.twilio.accepted(2).await;
    assert_eq!(texts.iter().filter(|text| text.body.contains("#317")).count(), 1);
    let shown = env.get(&format!("/v1/alerts/{alert_id}")).await;
    assert!(shown["closed_at"].is_null(), "{shown}");

    zammad.change(7, "priority", json!("2 normal"));
    eventually("the alert to be closed", async || {
        let shown = env.get(&format!("/v1/alerts/{alert_id}")).await;
        if shown["closed_at"].is_null() {
            Err(shown)
        } else {
            Ok(())
        }
    })
    .await;
}
