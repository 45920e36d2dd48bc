//! What comes in: events, good and bad, once and a thousand times.

use crate::support::{
    database::Database,
    env::{ADMIN, INTAKE, Plan, TestEnv, critical, person},
    eventually,
    twilio::Answers,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

stories![
    a_critical_ticket_becomes_one_sms_for_each_recipient_and_its_receipts_are_applied,
    a_thousand_repeats_of_an_event_are_one_alert_and_one_sms_each,
    bad_input_gets_a_clear_error_and_nothing_is_stored,
    odd_input_is_taken_and_cleaned,
    only_good_tokens_are_accepted,
    unauthenticated_clients_behind_a_proxy_are_counted_apart,
    what_asks_for_nothing_is_ignored_and_says_why,
    resolving_cancels_what_has_not_begun,
    a_later_event_adds_people_only_if_nobody_was_told,
    a_source_may_text_each_later_recipient,
    the_fallback_recipients_of_a_source_are_used_when_an_event_names_none,
    a_canceled_delivery_comes_back_when_the_ticket_is_critical_again,
    a_ticket_critical_again_while_its_sms_is_on_its_way_is_still_owed,
    a_late_lowering_does_not_close_what_came_after_it,
];

async fn a_critical_ticket_becomes_one_sms_for_each_recipient_and_its_receipts_are_applied(database: Database) {
    let env = TestEnv::on(database).await;
    let people = [
        person("+14155550101"),
        json!({"staff_id": 3, "role": "project_manager", "name": "Mona", "phone": "030 1234567", "region": "DE"}),
    ];

    let reply = env.post(&critical("3", &people)).await;

    assert_eq!((reply.status, &reply.body["outcome"]), (202, &json!("accepted")));
    assert_eq!(
        reply.body["deliveries"][1]["recipient"],
        json!({"staff_id": "3", "role": "project_manager", "name": "Mona"})
    );
    let messages = env.twilio.accepted(2).await;
    let grace = messages.iter().find(|message| message.to == "+14155550101").unwrap();
    let mona = messages.iter().find(|message| message.to == "+49301234567").unwrap();
    assert!(
        grace.body.starts_with(
            "🚨 CRITICAL TICKET #103\nSubject: Printer on fire\nClient: Acme Corp\nUrgency: CRITICAL\nView: https://"
        ),
        "{}",
        grace.body
    );
    // A receipt may come before the provider's answer is recorded; here it should not.
    let alert = reply.body["alert_id"].as_str().unwrap();
    env.stand(alert, &["accepted", "accepted"]).await;
    assert_eq!(env.report(grace, "sent", None).await, 204);
    assert_eq!(env.report(grace, "delivered", None).await, 204);
    assert_eq!(env.report(mona, "undelivered", Some("30003")).await, 204);
    let deliveries = env.stand(alert, &["delivered", "undelivered"]).await;
    assert_eq!(deliveries[0]["provider_message_id"], grace.sid.as_str());
    assert_eq!(
        (&deliveries[1]["error_code"], &deliveries[1]["reason"]),
        (&json!(30003), &json!("provider_failed"))
    );
    assert_eq!(deliveries[0]["phone"], "+1415****101");
    let steps: Vec<&str> = deliveries[0]["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["what"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["pending", "sending", "accepted", "sent", "delivered"]);
    let revealed = env
        .get(&format!(
            "/v1/deliveries/{}?reveal=phone",
            deliveries[0]["id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(revealed["phone"], "+14155550101");
    assert_eq!(
        env.get("/v1/deliveries?phone=+14155550101&state=delivered&ticket_id=3&day=")
            .await["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

async fn a_thousand_repeats_of_an_event_are_one_alert_and_one_sms_each(database: Database) {
    let env = Arc::new(TestEnv::on(database).await);
    let event = Arc::new(critical("3", &[person("+14155550101"), person("+14155550102")]));

    let connections: Vec<_> = (0..50)
        .map(|_| {
            let (env, event) = (Arc::clone(&env), Arc::clone(&event));
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for _ in 0..20 {
                    statuses.push(env.post(&event).await.status);
                }
                statuses
            })
        })
        .collect();
    let statuses: Vec<u16> = futures::future::join_all(connections)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();

    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 999);
    env.twilio.accepted(2).await;
    let alert = env.get("/v1/alerts?ticket_id=3").await["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    env.stand(&alert, &["accepted", "accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 2);
}

async fn bad_input_gets_a_clear_error_and_nothing_is_stored(database: Database) {
    let env = TestEnv::on(database).await;
    let ticket = |members: Value| {
        let mut ticket = json!({"id": "1", "subject": "x", "urgency": "critical"});
        ticket
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        json!({"ticket": ticket}).to_string().into_bytes()
    };
    let crowd: Vec<Value> = (0..500).map(|_| person("+14155550101")).collect();

    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        (b"{\"ticket\": {\"id\": ".to_vec(), 400, ""),
        (b"".to_vec(), 400, ""),
        (b"\xff\xfe".to_vec(), 400, ""),
        (
            br#"{"ticket":{"id":"1","id":"2","subject":"x","urgency":"critical"}}"#.to_vec(),
            400,
            "",
        ),
        (b"[]".to_vec(), 422, ""),
        (ticket(json!({"id": ["1"]})), 422, "/ticket/id"),
        (ticket(json!({"subject": null})), 422, "/ticket/subject"),
        (ticket(json!({"url": "javascript:alert(1)"})), 422, "/ticket/url"),
        (
            json!({"ticket": {"id": "1", "subject": "x", "urgency": "critical"}, "recipients": crowd})
                .to_string()
                .into_bytes(),
            422,
            "/recipients",
        ),
        (
            json!({"source": "nowhere", "ticket": {"id": "1", "subject": "x", "urgency": "critical"}})
                .to_string()
                .into_bytes(),
            422,
            "/source",
        ),
        (vec![b' '; 2 * 1024 * 1024], 413, ""),
    ];
    for (body, status, pointer) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let reply = env.post_raw(body).await;
        assert_eq!(
            (reply.status, reply.content_type.as_str()),
            (status, "application/problem+json"),
            "{shown}: {reply:?}"
        );
        if !pointer.is_empty() {
            assert_eq!(reply.body["errors"][0]["pointer"], pointer, "{shown}");
        }
    }

    let bearer = format!("Bearer {INTAKE}");
    let reply = env
        .request(
            Method::POST,
            "/v1/events",
            &[("authorization", &bearer), ("content-type", "text/plain")],
            b"{}".to_vec(),
        )
        .await;
    assert_eq!(reply.status, 415);
    assert_eq!(env.get("/v1/alerts").await["items"], json!([]));
    assert_eq!(env.twilio.messages().len(), 0);
}

async fn odd_input_is_taken_and_cleaned(database: Database) {
    let env = TestEnv::on(database).await;
    let mut event = critical(
        "1",
        &[
            json!({"phone": "+14155550101"}),
            json!({"phone": "(415) 555-0101"}),
            json!({"phone": "1-415-555-0101"}),
            json!({"phone": "abc"}),
            json!({"name": "Nobody"}),
        ],
    );
    event["ticket"]["subject"] = json!(format!("Prin\0ter \u{202E}on fire {}", "x".repeat(10_000)));
    event["client"]["organisation"] = json!("y".repeat(10_000));
    event["occurred_at"] = json!("9999-12-31T23:59:59Z");

    let alert = env.raise(&event).await;

    let deliveries = env.stand(&alert, &["accepted", "failed", "failed"]).await;
    assert_eq!(
        (&deliveries[1]["reason"], &deliveries[2]["reason"]),
        (&json!("invalid_number"), &json!("no_number"))
    );
    let text = &env.twilio.messages()[0].body;
    assert!(
        text.contains("\nSubject: Printer on fire xxx") && text.contains("…\n") && text.chars().count() <= 1_600,
        "{text}"
    );
    let seen = env.get(&format!("/v1/alerts/{alert}")).await;
    assert_eq!(seen["occurred_at"], seen["received_at"]);

    event["ticket"]["id"] = json!(2);
    event["occurred_at"] = json!("1970-01-01T00:00:00Z");
    let seen = env.get(&format!("/v1/alerts/{}", env.raise(&event).await)).await;
    assert_eq!(
        (&seen["ticket_id"], &seen["occurred_at"]),
        (&json!("2"), &seen["received_at"])
    );
}

async fn only_good_tokens_are_accepted(database: Database) {
    let env = Plan::on(database)
        .set("SOURCES__ACME__TOKENS", "acme-token")
        .build()
        .await;
    let event = critical("1", &[person("+14155550101")]).to_string().into_bytes();
    let post = async |authorization: &str| {
        let headers = [("authorization", authorization), ("content-type", "application/json")];
        env.request(Method::POST, "/v1/events", &headers, event.clone())
            .await
            .status
    };

    assert_eq!(post("Bearer wrong").await, 401);
    assert_eq!(post(&format!("Basic {INTAKE}")).await, 401);
    assert_eq!(
        post(&format!("Bearer {ADMIN}")).await,
        401,
        "the admin's token is not for events"
    );
    assert_eq!(post("Bearer acme-token").await, 403, "a token of another source");
    assert_eq!(post(&format!("Bearer {INTAKE}")).await, 202);
    let bearer = format!("Bearer {INTAKE}");
    assert_eq!(
        env.request(Method::GET, "/v1/alerts", &[("authorization", &bearer)], Vec::new())
            .await
            .status,
        401,
        "nor an intake token for reading"
    );
    let unauthenticated = futures::future::join_all((0..300).map(|_| post("Bearer wrong"))).await;
    assert!(
        unauthenticated.contains(&429),
        "a flood of unauthenticated requests is slowed"
    );
    assert_eq!(post(&format!("Bearer {INTAKE}")).await, 200, "and nobody else");
    assert_eq!(env.request(Method::GET, "/healthz", &[], Vec::new()).await.status, 200);
    assert_eq!(
        env.request(Method::GET, "/readyz", &[], Vec::new()).await.body["status"],
        "ready"
    );
    assert_eq!(env.request(Method::GET, "/nothing", &[], Vec::new()).await.status, 404);
}

async fn unauthenticated_clients_behind_a_proxy_are_counted_apart(database: Database) {
    let env = Plan::on(database)
        .set("HTTP__TRUSTED_PROXIES", "127.0.0.1")
        .build()
        .await;
    let knock = async |from: String| {
        let headers = [("x-forwarded-for", from.as_str())];
        env.request(Method::POST, "/v1/events", &headers, Vec::new())
            .await
            .status
    };

    for (flood, another) in [
        ("198.51.100.1:PORT", "198.51.100.2:80"),
        ("[2001:db8:0:1::PORT]:443", "[2001:db8:0:2::1]:443"),
        ("192.0.2.99, 198.51.100.3:PORT", "192.0.2.99, 198.51.100.4:80"),
    ] {
        let answers =
            futures::future::join_all((1..300).map(|port: u32| knock(flood.replace("PORT", &port.to_string())))).await;
        assert!(answers.contains(&429), "{flood}: a flood is slowed");
        assert_eq!(
            knock(another.to_owned()).await,
            401,
            "{another} is somebody else than {flood}"
        );
    }
}

async fn what_asks_for_nothing_is_ignored_and_says_why(database: Database) {
    let env = TestEnv::on(database).await;

    for (event, reason) in [
        (json!({"ticket": {"id": "1", "urgency": "normal"}}), "not_critical"),
        (json!({"ticket": {"id": "1", "urgency": "Purple"}}), "unknown_urgency"),
        (json!({"type": "ticket.closed", "ticket": {"id": "1"}}), "ticket_closed"),
    ] {
        let reply = env.post(&event).await;
        assert_eq!(
            (reply.status, &reply.body["outcome"], &reply.body["reason"]),
            (200, &json!("ignored"), &json!(reason)),
            "{event}"
        );
    }
    assert!(
        env.post(&json!({"ticket": {"id": "1", "urgency": "Purple"}}))
            .await
            .body
            .to_string()
            .contains("Purple"),
        "the value is named"
    );
}

async fn resolving_cancels_what_has_not_begun(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "1").build().await;
    let alert = env
        .raise(&critical("1", &[person("+14155550101"), person("+14155550102")]))
        .await;
    env.stand(&alert, &["accepted", "deferred"]).await;

    let reply = env.post(&json!({"ticket": {"id": "1", "urgency": "low"}})).await;

    assert_eq!(
        (reply.status, &reply.body),
        (200, &json!({"outcome": "resolved", "alert_id": alert, "canceled": 1}))
    );
    let deliveries = env.stand(&alert, &["accepted", "canceled"]).await;
    assert_eq!(deliveries[1]["reason"], "ticket_closed");
    assert!(env.get(&format!("/v1/alerts/{alert}")).await["closed_at"].is_string());
    assert_eq!(
        env.post(&json!({"type": "ticket.resolved", "ticket": {"id": "1"}}))
            .await
            .body["canceled"],
        0
    );
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 100}))).await;
    env.raise(&critical("2", &[person("+14155550103")])).await;
    assert_eq!(
        env.twilio.accepted(2).await[1].to,
        "+14155550103",
        "a canceled delivery is never sent"
    );
}

async fn a_later_event_adds_people_only_if_nobody_was_told(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = env.raise(&critical("1", &[json!({"phone": "abc"})])).await;
    env.stand(&alert, &["failed"]).await;
    env.service.logged("nobody_told").await;

    assert_eq!(
        env.post(&critical("1", &[json!({"phone": "abc"})])).await.status,
        200,
        "the same unusable person adds nothing"
    );
    assert_eq!(env.raise(&critical("1", &[person("+14155550101")])).await, alert);
    env.stand(&alert, &["failed", "accepted"]).await;
    assert_eq!(
        env.post(&critical("1", &[person("+14155550102")])).await.body["outcome"],
        "duplicate"
    );
    assert_eq!(env.twilio.messages().len(), 1);

    let refused = env
        .raise(&critical(
            "2",
            &[env.phone("+14155550103", [Answers::Refuses(400, 21211)])],
        ))
        .await;
    env.stand(&refused, &["failed"]).await;
    env.raise(&critical("2", &[person("+14155550103"), person("+14155550104")]))
        .await;
    env.stand(&refused, &["failed", "accepted"]).await;
    assert_eq!(
        env.twilio.calls_to("+14155550103"),
        1,
        "a number that was refused is not tried again"
    );
}

async fn a_source_may_text_each_later_recipient(database: Database) {
    let env = Plan::on(database)
        .set("SOURCES__DEFAULT__LATER_RECIPIENTS", "each")
        .build()
        .await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["accepted"]).await;

    assert_eq!(env.post(&critical("1", &[person("+14155550101")])).await.status, 200);
    assert_eq!(
        env.raise(&critical("1", &[person("+14155550101"), person("+14155550102")]))
            .await,
        alert
    );
    env.stand(&alert, &["accepted", "accepted"]).await;
    assert_eq!(env.post(&critical("1", &[person("+14155550102")])).await.status, 200);
    env.post(&json!({"type": "ticket.closed", "ticket": {"id": "1"}})).await;
    assert_eq!(
        env.post(&critical("1", &[person("+14155550103")])).await.status,
        200,
        "a closed alert takes nobody more"
    );
    assert_eq!(env.twilio.messages().len(), 2);
}

async fn the_fallback_recipients_of_a_source_are_used_when_an_event_names_none(database: Database) {
    let env = Plan::on(database)
        .set("SOURCES__DEFAULT__FALLBACK_RECIPIENTS", "+14155550199")
        .build()
        .await;

    env.raise(&critical("1", &[])).await;
    env.raise(&critical("2", &[json!({"phone": "abc"})])).await;
    env.raise(&critical("3", &[person("+14155550101")])).await;

    let messages = env.twilio.accepted(3).await;
    let mut texted: Vec<&str> = messages.iter().map(|message| message.to.as_str()).collect();
    texted.sort_unstable();
    assert_eq!(texted, ["+14155550101", "+14155550199", "+14155550199"]);
}

async fn a_canceled_delivery_comes_back_when_the_ticket_is_critical_again(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["deferred"]).await;
    env.post(&json!({"type": "ticket.urgency_lowered", "ticket": {"id": "1"}}))
        .await;
    env.stand(&alert, &["canceled"]).await;

    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;
    let reply = env.post(&critical("1", &[person("+14155550101")])).await;

    assert_eq!((reply.status, &reply.body["alert_id"]), (202, &json!(alert)));
    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.get(&format!("/v1/alerts/{alert}")).await["closed_at"], json!(null));
    assert_eq!(env.twilio.messages_to("+14155550101").len(), 1);
    eventually("one slot used", async || {
        let used = env.get("/v1/limit").await["used"].clone();
        if used == 1 { Ok(()) } else { Err(used) }
    })
    .await;
}

async fn a_ticket_critical_again_while_its_sms_is_on_its_way_is_still_owed(database: Database) {
    let env = Plan::on(database)
        .set("SMS__TIMEOUT", "900ms")
        .set("SMS__LEASE", "2s")
        .set("SMS__RECONCILE_AFTER", "1s")
        .build()
        .await;
    let event = critical("1", &[env.phone("+14155550101", [Answers::Hangs])]);
    let alert = env.raise(&event).await;
    eventually("the call", async || {
        if env.twilio.calls_to("+14155550101") == 1 {
            Ok(())
        } else {
            Err("none")
        }
    })
    .await;

    env.post(&json!({"type": "ticket.closed", "ticket": {"id": "1"}})).await;
    assert_eq!(env.post(&event).await.body["outcome"], "duplicate");

    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn a_late_lowering_does_not_close_what_came_after_it(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let now = jiff::Timestamp::now();
    let at = |minutes_ago: i64| (now - jiff::SignedDuration::from_mins(minutes_ago)).to_string();
    let mut raised = critical("1", &[person("+14155550101")]);
    raised["occurred_at"] = at(5).into();
    let alert = env.raise(&raised).await;
    env.stand(&alert, &["deferred"]).await;
    let lowered = |minutes_ago| json!({"occurred_at": at(minutes_ago), "ticket": {"id": "1", "urgency": "normal"}});

    // A retry of what was said before the ticket turned critical, and what is said after it.
    let late = env.post(&lowered(10)).await;
    assert_eq!(late.body["outcome"], "duplicate", "{late:?}");
    env.stand(&alert, &["deferred"]).await;
    let after = env.post(&lowered(1)).await;
    assert_eq!(after.body["outcome"], "resolved", "{after:?}");
    env.stand(&alert, &["canceled"]).await;
}
