//! Stories of alerts that somebody acknowledges: by the API, on a page, by a command, by the link in a message. Replies stand
//! in `acknowledge_replies`.

use crate::{
    admin_commands::with_commands,
    pages::Browser,
    support::{
        client,
        database::Database,
        env::{PUBLIC, Plan, Reply, TestEnv, critical, person},
        eventually,
        twilio::Answers,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use futures::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::BTreeSet;

stories![
    whoever_is_first_is_named_to_everybody_who_comes_later,
    of_many_at_once_one_is_first,
    what_others_have_not_been_sent_is_held_back_and_nobody_is_alarmed,
    what_an_admin_sends_again_is_not_held_back,
    everybody_is_told_all_the_same_if_so_configured,
    what_turns_out_not_sent_is_not_sent_again,
    what_became_due_beside_an_acknowledgement_is_not_begun,
    a_later_event_tells_nobody_else,
    whoever_is_named_later_is_told_where_each_is,
    a_ticket_that_is_critical_again_has_to_be_acknowledged_again,
    alerts_are_listed_by_whether_somebody_acknowledged_them,
    an_admin_acknowledges_on_a_page,
    an_admin_acknowledges_by_a_command_and_explain_tells_it,
    looking_at_a_link_changes_nothing_and_its_button_acknowledges,
    a_link_that_is_not_ours_or_too_old_leads_nowhere,
    a_rotation_of_the_secret_leaves_sent_links_in_force,
    each_message_names_a_code_of_its_own,
    a_code_that_is_taken_is_replaced_in_the_text,
    without_codes_and_links_nothing_is_asked_or_written_of_them,
    the_codes_of_what_is_long_over_are_forgotten,
];

const GRACE: &str = "+14155550101";
const MONA: &str = "+14155550102";
const NINA: &str = "+14155550103";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn people() -> [Value; 3] {
    [GRACE, MONA, NINA].map(person)
}

fn named(phone: &str, name: &str) -> Value {
    json!({"staff_id": phone, "role": "assignee", "name": name, "phone": phone})
}

fn closed(ticket: &str) -> Value {
    json!({"type": "ticket.closed", "ticket": {"id": ticket}})
}

async fn acknowledge(env: &TestEnv, alert: &str, by: &str) -> Reply {
    let path = format!("/v1/alerts/{alert}/acknowledge");
    env.admin(Method::POST, &path, Some(json!({"by": by}))).await
}

async fn set_limit(env: &TestEnv, limit: i64) {
    let set = env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": limit}))).await;
    assert_eq!(set.status, 200, "{set:?}");
}

fn last_detail(delivery: &Value) -> &str {
    let timeline = delivery["timeline"].as_array().unwrap();
    timeline.last().unwrap()["detail"].as_str().unwrap()
}

async fn alarms(env: &TestEnv) -> i64 {
    env.database
        .number("select count(*) from alarm where kind = 'nobody_told'")
        .await
}

async fn whoever_is_first_is_named_to_everybody_who_comes_later(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = env.raise(&critical("1", &[person(GRACE)])).await;
    env.stand(&alert, &["accepted"]).await;
    let open = env.get(&format!("/v1/alerts/{alert}")).await;
    assert!(open["acknowledged_at"].is_null() && open["acknowledged_via"].is_null());

    let first = acknowledge(&env, &alert, " Mona\u{7} Meyer ").await;
    let second = acknowledge(&env, &alert, "Nina").await;

    assert_eq!(
        (first.status, &first.body["acknowledged"]),
        (200, &json!(true)),
        "{first:?}"
    );
    assert_eq!(first.body["deliveries"][0]["state"], "accepted");
    assert_eq!((second.status, &second.body["acknowledged"]), (200, &json!(false)));
    for alert in [&first.body, &second.body] {
        assert_eq!(alert["acknowledged_by"], "Mona Meyer");
        assert_eq!(alert["acknowledged_via"], "api");
        assert_eq!(alert["acknowledged_at"], first.body["acknowledged_at"]);
    }
    env.post(&closed("1")).await;
    let late = acknowledge(&env, &alert, "Nina").await;
    assert_eq!(
        (late.status, &late.body["acknowledged_by"]),
        (200, &json!("Mona Meyer"))
    );

    let other = env.raise(&critical("2", &[person(GRACE)])).await;
    env.post(&closed("2")).await;
    let over = acknowledge(&env, &other, "Nina").await;
    assert_eq!(
        (over.status, &over.body["type"]),
        (409, &json!("/docs/problems#alert-closed"))
    );
    assert_eq!(acknowledge(&env, "nothing", "Nina").await.status, 404);
    let path = format!("/v1/alerts/{alert}/acknowledge");
    let wrong = env
        .admin(Method::POST, &path, Some(json!({"by": 7, "via": "sms"})))
        .await;
    assert_eq!(
        (wrong.status, wrong.body["errors"].as_array().unwrap().len()),
        (422, 2),
        "{wrong:?}"
    );
    let nobody = env.raise(&critical("3", &[person(GRACE)])).await;
    let path = format!("/v1/alerts/{nobody}/acknowledge");
    let nameless = env.admin(Method::POST, &path, None).await;
    assert_eq!(
        (nameless.status, &nameless.body["acknowledged_by"]),
        (200, &Value::Null)
    );
    assert!(!env.service.log().contains("Mona"));
}

async fn of_many_at_once_one_is_first(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let others = match env.database.is_sqlite {
        true => Vec::new(),
        false => vec![env.start_another(), env.start_another()],
    };
    let addresses: Vec<&str> = others
        .iter()
        .chain([&env.service])
        .map(|service| service.address.as_str())
        .collect();
    for ticket in 0..5 {
        let alert = env.raise(&critical(&ticket.to_string(), &people())).await;
        env.stand(&alert, &["deferred"; 3]).await;
        let ask = async |place: usize| {
            let address = addresses[place % addresses.len()];
            let url = format!("http://{address}/v1/alerts/{alert}/acknowledge");
            let request = client().post(url).bearer_auth(crate::support::env::ADMIN);
            let request = request.header("content-type", "application/json");
            let response = request
                .body(json!({"by": format!("p{place}")}).to_string())
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
            serde_json::from_slice::<Value>(&response.bytes().await.unwrap()).unwrap()
        };
        let answers: Vec<Value> = join_all((0..12).map(ask)).await;

        let first: Vec<&Value> = answers.iter().filter(|answer| answer["acknowledged"] == true).collect();
        assert_eq!(first.len(), 1, "{answers:#?}");
        assert_eq!(first[0]["canceled"], 3);
        for answer in &answers {
            assert_eq!(answer["acknowledged_by"], first[0]["acknowledged_by"]);
        }
    }
}

async fn what_others_have_not_been_sent_is_held_back_and_nobody_is_alarmed(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "1").build().await;
    let alert = env.raise(&critical("1", &people())).await;
    env.stand(&alert, &["accepted", "deferred", "deferred"]).await;

    let done = acknowledge(&env, &alert, "Grace").await;

    assert_eq!(done.body["canceled"], 2, "{done:?}");
    let deliveries = env.stand(&alert, &["accepted", "canceled", "canceled"]).await;
    for delivery in &deliveries[1..] {
        assert_eq!(delivery["reason"], "canceled");
        assert_eq!(last_detail(delivery), "somebody acknowledged the alert");
    }
    assert_eq!(alarms(&env).await, 0);
    // Of an alert that nobody was told of somebody knows by now.
    set_limit(&env, 0).await;
    let untold = env.raise(&critical("2", &people()[..1])).await;
    env.stand(&untold, &["deferred"]).await;
    let before = alarms(&env).await;
    acknowledge(&env, &untold, "Grace").await;
    env.stand(&untold, &["canceled"]).await;
    assert_eq!(alarms(&env).await, before);
    set_limit(&env, 9).await;
    let other = env.raise(&critical("3", &people()[..1])).await;
    env.stand(&other, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 2);
}

async fn what_an_admin_sends_again_is_not_held_back(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env.raise(&critical("1", &people()[..2])).await;
    let deliveries = env.stand(&alert, &["deferred", "deferred"]).await;
    acknowledge(&env, &alert, "Grace").await;

    let path = format!("/v1/deliveries/{}/resend", deliveries[0]["id"].as_str().unwrap());
    assert_eq!(env.admin(Method::POST, &path, None).await.status, 201);
    env.stand(&alert, &["canceled", "canceled", "deferred"]).await;
    set_limit(&env, 9).await;

    env.stand(&alert, &["canceled", "canceled", "accepted"]).await;
    assert_eq!(env.twilio.messages_to(GRACE).len(), 1);
}

async fn everybody_is_told_all_the_same_if_so_configured(database: Database) {
    let plan = Plan::on(database).set("DAILY_LIMIT", "1");
    let env = plan.set("ACKNOWLEDGE__CANCELS_OTHERS", "false").build().await;
    let alert = env.raise(&critical("1", &people())).await;
    env.stand(&alert, &["accepted", "deferred", "deferred"]).await;

    let done = acknowledge(&env, &alert, "Grace").await;

    assert_eq!(
        (&done.body["acknowledged"], &done.body["canceled"]),
        (&json!(true), &json!(0))
    );
    set_limit(&env, 9).await;
    env.stand(&alert, &["accepted"; 3]).await;
}

async fn what_turns_out_not_sent_is_not_sent_again(database: Database) {
    let env = Plan::on(database)
        .set("SMS__TIMEOUT", "500ms")
        .set("SMS__LEASE", "2s")
        .set("SMS__RECONCILE_AFTER", "1s")
        .build()
        .await;
    let alert = env
        .raise(&critical("1", &[env.phone(GRACE, [Answers::Hangs]), person(MONA)]))
        .await;
    env.stand(&alert, &["unknown", "accepted"]).await;

    let done = acknowledge(&env, &alert, "Mona").await;

    assert_eq!(done.body["canceled"], 0, "it may have been sent");
    let delivery = env.stand(&alert, &["canceled", "accepted"]).await.remove(0);
    assert_eq!(delivery["reason"], "canceled");
    assert!(
        last_detail(&delivery).ends_with("never sent; somebody acknowledged the alert"),
        "{delivery}"
    );
    let told = delivery["timeline"].as_array().unwrap().last().unwrap()["text"]
        .as_str()
        .unwrap();
    assert!(
        told.ends_with("and not sent again, since somebody acknowledged the alert"),
        "{told}"
    );
    assert_eq!(env.get("/v1/limit").await["used"], 1, "its slot is free again");
    assert_eq!((env.twilio.messages_to(GRACE).len(), alarms(&env).await), (0, 0));
}

/// As if it had become due in a transaction that did not see the acknowledgement yet.
async fn what_became_due_beside_an_acknowledgement_is_not_begun(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env.raise(&critical("1", &people()[..2])).await;
    env.stand(&alert, &["deferred", "deferred"]).await;
    let later = jiff::Timestamp::now().as_millisecond() + 1_000;
    env.database
        .execute(&format!(
            "update alert set acknowledged_at = {later}, acknowledged_via = 'api', quieted_at = {later}"
        ))
        .await;

    set_limit(&env, 9).await;

    for delivery in env.stand(&alert, &["canceled", "canceled"]).await {
        assert_eq!(delivery["reason"], "canceled");
        assert_eq!(last_detail(&delivery), "somebody acknowledged the alert");
    }
    assert_eq!(env.twilio.messages().len(), 0);
}

async fn a_later_event_tells_nobody_else(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env.raise(&critical("1", &people()[..1])).await;
    env.stand(&alert, &["deferred"]).await;
    acknowledge(&env, &alert, "Grace").await;
    set_limit(&env, 9).await;

    for id in [None, Some("evt-2")] {
        let mut event = critical("1", &people());
        event["id"] = json!(id);
        let again = env.post(&event).await;
        assert_eq!(
            (again.status, &again.body["outcome"]),
            (200, &json!("duplicate")),
            "{again:?}"
        );
    }

    let other = env.raise(&critical("2", &people()[..1])).await;
    env.stand(&other, &["accepted"]).await;
    env.stand(&alert, &["canceled"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn whoever_is_named_later_is_told_where_each_is(database: Database) {
    let plan = Plan::on(database).set("SOURCES__DEFAULT__LATER_RECIPIENTS", "each");
    let env = plan.set("DAILY_LIMIT", "1").build().await;
    let alert = env.raise(&critical("1", &people()[..2])).await;
    env.stand(&alert, &["accepted", "deferred"]).await;
    acknowledge(&env, &alert, "Grace").await;
    env.stand(&alert, &["accepted", "canceled"]).await;
    // Also if a process whose clock is ahead took the acknowledgement.
    env.database
        .execute("update alert set quieted_at = quieted_at + 60000")
        .await;
    set_limit(&env, 9).await;

    assert_eq!(env.raise(&critical("1", &people())).await, alert);

    env.stand(&alert, &["accepted", "canceled", "accepted"]).await;
    assert_eq!(env.twilio.messages_to(NINA).len(), 1);
    assert!(env.get(&format!("/v1/alerts/{alert}")).await["acknowledged_at"].is_string());
}

async fn a_ticket_that_is_critical_again_has_to_be_acknowledged_again(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env.raise(&critical("1", &people()[..1])).await;
    env.stand(&alert, &["deferred"]).await;
    acknowledge(&env, &alert, "Grace").await;
    env.post(&closed("1")).await;
    set_limit(&env, 9).await;

    assert_eq!(env.raise(&critical("1", &people()[..1])).await, alert);

    env.stand(&alert, &["accepted"]).await;
    let again = env.get(&format!("/v1/alerts/{alert}")).await;
    for member in ["closed_at", "acknowledged_at", "acknowledged_by", "acknowledged_via"] {
        assert!(again[member].is_null(), "{again}");
    }
    assert_eq!(acknowledge(&env, &alert, "Mona").await.body["acknowledged"], true);
}

async fn alerts_are_listed_by_whether_somebody_acknowledged_them(database: Database) {
    let env = with_commands(Plan::on(database)).await;
    let mut alerts = Vec::new();
    for ticket in ["1", "2", "3"] {
        alerts.push(env.raise(&critical(ticket, &[person(GRACE)])).await);
    }
    acknowledge(&env, &alerts[1], "Grace").await;
    env.post(&closed("3")).await;
    let listed = async |query: &str| -> Vec<String> {
        let page = env.get(&format!("/v1/alerts?{query}")).await;
        let ids = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|alert| alert["id"].as_str().unwrap().to_owned());
        ids.collect()
    };

    assert_eq!(listed("acknowledged=true").await, [alerts[1].as_str()]);
    assert_eq!(listed("acknowledged=false").await, [alerts[2].as_str(), &alerts[0]]);
    assert_eq!(listed("acknowledged=false&state=open").await, [alerts[0].as_str()]);
    assert_eq!(listed("acknowledged=true&ticket_id=1").await, [""; 0]);
    let wrong = env.admin(Method::GET, "/v1/alerts?acknowledged=maybe", None).await;
    assert_eq!(
        (wrong.status, &wrong.body["errors"][0]["pointer"]),
        (422, &json!("/acknowledged"))
    );
    let (code, out, err) = env.run(&["alert", "list", "--acknowledged", "true"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains(&alerts[1]) && out.contains("acknowledged by Grace") && !out.contains(&alerts[0]),
        "{out}"
    );
}

async fn an_admin_acknowledges_on_a_page(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "1").build().await;
    let alert = env.raise(&critical("1", &people()[..2])).await;
    env.stand(&alert, &["accepted", "deferred"]).await;
    let mut browser = Browser::on(&env).await;
    let path = format!("/admin/alerts/{alert}");
    browser.get(&path).await.has("by nobody yet");
    browser.get("/admin/alerts").await.has("not acknowledged");
    browser.get("/admin/").await.has("not acknowledged");

    let pressed = browser.submit(&path, &[("action", "acknowledge")]).await;

    assert_eq!(
        (pressed.status.as_u16(), pressed.leads_to()),
        (303, format!("{path}?done=acknowledged").as_str())
    );
    let shown = browser.get(pressed.leads_to()).await;
    shown.has("Acknowledged: it is shown");
    shown.has("on these pages");
    shown.has_not("id=\"acknowledge\"");
    env.stand(&alert, &["accepted", "canceled"]).await;
    let again = browser.submit("/admin/settings", &[("action", "none")]).await;
    assert_ne!(again.status.as_u16(), 303);
    let csrf = browser.get("/admin/").await.field("csrf");
    let late = browser.post(&path, &[("action", "acknowledge"), ("csrf", &csrf)]).await;
    assert_eq!(late.leads_to(), format!("{path}?done=acknowledged-before"));
    browser.get("/admin/").await.has("chip good\">acknowledged");
    browser.get("/admin/alerts?acknowledged=true").await.has(&alert);
    browser.get("/admin/alerts?acknowledged=false").await.has_not(&alert);
    let seen = env.get(&format!("/v1/alerts/{alert}")).await;
    assert_eq!(
        (&seen["acknowledged_via"], &seen["acknowledged_by"]),
        (&json!("page"), &Value::Null)
    );
}

async fn an_admin_acknowledges_by_a_command_and_explain_tells_it(database: Database) {
    let env = with_commands(Plan::on(database).set("DAILY_LIMIT", "1")).await;
    let alert = env.raise(&critical("1", &people()[..2])).await;
    env.stand(&alert, &["accepted", "deferred"]).await;
    let (_, before, _) = env.run(&["explain", "1"]).await;
    assert!(before.contains("Nobody has acknowledged it."), "{before}");

    let (code, out, err) = env.run(&["alert", "acknowledge", &alert, "--by", "Mona Meyer"]).await;

    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("acknowledged; held back 1 message\n"), "{out}");
    let (code, again, _) = env.run(&["alert", "acknowledge", &alert, "--by", "Nina"]).await;
    assert_eq!(code, 0);
    assert!(
        again.starts_with("somebody was first; nothing was changed\n"),
        "{again}"
    );
    let (_, told, _) = env.run(&["explain", "1"]).await;
    assert!(
        told.contains("Acknowledged by Mona Meyer at ") && told.contains(", by a command\n"),
        "{told}"
    );
    assert!(told.contains("not sent: somebody acknowledged the alert"), "{told}");
    assert!(told.contains("Somebody acknowledged it."), "{told}");
    let (_, json, _) = env.run(&["alert", "show", &alert, "--json"]).await;
    let shown: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&shown["acknowledged_via"], &shown["acknowledged_by"]),
        (&json!("command"), &json!("Mona Meyer"))
    );
    env.post(&closed("2")).await;
    let (code, _, err) = env.run(&["alert", "acknowledge", "nothing"]).await;
    assert_eq!(code, 1, "{err}");
}

fn with_links(database: Database) -> Plan {
    Plan::on(database)
        .set("ACKNOWLEDGE__LINK", "true")
        .set("ACKNOWLEDGE__SECRET", SECRET)
}

/// The token of the link in a message, by which it is reached without the proxy.
fn token(text: &str) -> String {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Ack: "))
        .unwrap_or_else(|| panic!("{text}"));
    line.strip_prefix(&format!("{PUBLIC}/a/"))
        .unwrap_or_else(|| panic!("{line}"))
        .to_owned()
}

/// Made with this file's own code.
fn make_token(delivery: &str, expires_at: i64) -> String {
    let mut bytes = uuid::Uuid::parse_str(delivery).unwrap().as_bytes().to_vec();
    bytes.extend_from_slice(&expires_at.to_be_bytes()[3..]);
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(b"nightbell: acknowledge an alert, 1\0");
    mac.update(&bytes);
    bytes.extend_from_slice(&mac.finalize().into_bytes()[..18]);
    BASE64.encode(bytes)
}

async fn page(env: &TestEnv, method: Method, token: &str) -> (u16, reqwest::header::HeaderMap, String) {
    let url = format!("http://{}/a/{token}", env.service.address);
    let response = client().request(method, url).send().await.unwrap();
    (
        response.status().as_u16(),
        response.headers().clone(),
        response.text().await.unwrap(),
    )
}

async fn looking_at_a_link_changes_nothing_and_its_button_acknowledges(database: Database) {
    let env = with_links(database).set("LOG__FILTER", "debug").build().await;
    let mut event = critical("1", &[named(GRACE, "Grace <b>Hopper"), named(MONA, "Mona Meyer")]);
    event["ticket"]["subject"] = json!("<script>alert(1)</script> on fire");
    let alert = env.raise(&event).await;
    env.stand(&alert, &["accepted", "accepted"]).await;
    let grace = token(&env.twilio.messages_to(GRACE)[0].body);
    let mona = token(&env.twilio.messages_to(MONA)[0].body);
    assert_ne!(grace, mona);

    for method in [Method::GET, Method::HEAD, Method::GET] {
        let (status, headers, text) = page(&env, method.clone(), &grace).await;
        assert_eq!(status, 200);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-robots-tag", "noindex, nofollow"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(headers[name], value);
        }
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("script"),
            "{policy}"
        );
        match method {
            Method::HEAD => assert_eq!(text, ""),
            _ => assert!(
                text.contains("Nobody has acknowledged it yet") && text.contains("#101"),
                "{text}"
            ),
        }
        assert!(!text.contains("<script>") && !text.contains("4155550"), "{text}");
    }
    let seen = env.get(&format!("/v1/alerts/{alert}")).await;
    assert!(seen["acknowledged_at"].is_null(), "looking is not pressing");

    let (status, _, text) = page(&env, Method::POST, &grace).await;

    assert_eq!(status, 200);
    assert!(text.contains("You acknowledged it at "), "{text}");
    let seen = env.get(&format!("/v1/alerts/{alert}")).await;
    assert_eq!(
        (&seen["acknowledged_via"], &seen["acknowledged_by"]),
        (&json!("link"), &json!("Grace <b>Hopper"))
    );
    let first = &seen["deliveries"][0]["timeline"];
    let told = first.as_array().unwrap().last().unwrap()["text"].as_str().unwrap();
    assert_eq!(told, "this person acknowledged the alert by the link in its message");
    for method in [Method::POST, Method::GET] {
        let (_, _, text) = page(&env, method, &mona).await;
        assert!(text.contains("Grace &lt;b&gt;Hopper acknowledged it at "), "{text}");
        assert!(!text.contains("<button"), "{text}");
    }
    let (_, _, again) = page(&env, Method::POST, &grace).await;
    assert!(again.contains("You acknowledged it"), "{again}");
    env.post(&closed("1")).await;
    let (_, _, over) = page(&env, Method::GET, &mona).await;
    assert!(over.contains("no longer critical"), "{over}");
    let log = env.service.log();
    for secret in [&grace, &mona, "Grace", "on fire", "4155550"] {
        assert!(!log.contains(secret), "`{secret}` in the log:\n{log}");
    }
}

async fn a_link_that_is_not_ours_or_too_old_leads_nowhere(database: Database) {
    let env = with_links(database).build().await;
    let alert = env.raise(&critical("1", &[person(GRACE)])).await;
    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    let (id, good) = (delivery["id"].as_str().unwrap(), token(&env.twilio.messages()[0].body));
    let now = jiff::Timestamp::now().as_second();
    assert_eq!(
        page(&env, Method::GET, &make_token(id, now + 60)).await.0,
        200,
        "as the story makes them"
    );

    let mut tampered = good.clone().into_bytes();
    tampered[3] = if tampered[3] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    let nobody = make_token("019aa6f0-1234-7abc-8def-0123456789ab", now + 60);
    let expired = make_token(id, now - 1);
    for method in [Method::GET, Method::POST, Method::HEAD] {
        for (token, status) in [
            (&tampered, 404),
            (&nobody, 404),
            (&"x".to_owned(), 404),
            (&expired, 410),
        ] {
            let (answered, headers, text) = page(&env, method.clone(), token).await;
            assert_eq!(answered, status, "{method} {token}");
            assert_eq!(headers["content-type"], "text/html; charset=utf-8");
            assert_eq!(headers["cache-control"], "no-store");
            assert!(!text.contains("#101") && !text.contains("Printer"), "{text}");
        }
    }
    assert!(env.get(&format!("/v1/alerts/{alert}")).await["acknowledged_at"].is_null());
    let (http, url) = (client(), format!("http://{}/a/{tampered}", env.service.address));
    let asked = (0..300).map(async |_| http.post(&url).send().await.unwrap().status().as_u16());
    let flood: Vec<u16> = join_all(asked).await;
    assert!(flood.contains(&429), "{flood:?}");
    assert_eq!(
        page(&env, Method::GET, &good).await.0,
        200,
        "whoever has a good one is not limited"
    );
}

async fn a_rotation_of_the_secret_leaves_sent_links_in_force(database: Database) {
    let mut env = with_links(database).build().await;
    let first = env.raise(&critical("1", &[person(GRACE)])).await;
    env.stand(&first, &["accepted"]).await;
    let old = token(&env.twilio.messages()[0].body);
    let (new, key) = ("fedcba9876543210fedcba9876543210", "NIGHTBELL_ACKNOWLEDGE__SECRET");

    env.service.kill();
    env.settings.insert(key.into(), format!("{new},{SECRET}"));
    env.restart();
    assert_eq!(page(&env, Method::GET, &old).await.0, 200);
    let second = env.raise(&critical("2", &[person(MONA)])).await;
    env.stand(&second, &["accepted"]).await;
    let young = token(&env.twilio.messages_to(MONA)[0].body);

    env.service.kill();
    env.settings.insert(key.into(), new.into());
    env.restart();
    assert_eq!(page(&env, Method::GET, &old).await.0, 404);
    assert_eq!(page(&env, Method::GET, &young).await.0, 200);
}

/// The code that a message ends with.
fn code(text: &str) -> &str {
    let line = text.lines().last().unwrap();
    line.strip_prefix("Reply ACK ").unwrap_or_else(|| panic!("{text}"))
}

async fn codes_kept(env: &TestEnv, phone: &str) -> BTreeSet<String> {
    let sql = format!("select code from ack_code where phone = '{phone}' and alert_id <> 'other'");
    env.database.texts(&sql).await.into_iter().collect()
}

async fn each_message_names_a_code_of_its_own(database: Database) {
    let mut env = Plan::on(database).set("ACKNOWLEDGE__CODE", "true").build().await;
    for ticket in ["1", "2"] {
        let unusable = json!({"name": "No Number", "phone": "abc"});
        let alert = env
            .raise(&critical(ticket, &[person(GRACE), person(MONA), unusable]))
            .await;
        env.stand(&alert, &["accepted", "accepted", "failed"]).await;
    }

    for phone in [GRACE, MONA] {
        let texts = env.twilio.messages_to(phone);
        let codes: BTreeSet<String> = texts.iter().map(|message| code(&message.body).to_owned()).collect();
        assert_eq!(codes.len(), 2, "{texts:?}");
        assert_eq!(codes_kept(&env, phone).await, codes);
    }
    // The tickets are known; a process that does not know that yet asks, and keeps nothing.
    env.service.kill();
    env.restart();
    let again = env.post(&critical("1", &[person(GRACE)])).await;
    assert_eq!(again.body["outcome"], "duplicate");
    assert_eq!(env.database.number("select count(*) from ack_code").await, 4);
    let delivery = env.get("/v1/deliveries?ticket_id=1").await["items"][1].clone();
    let path = format!("/v1/deliveries/{}/resend?force=true", delivery["id"].as_str().unwrap());
    assert_eq!(env.admin(Method::POST, &path, None).await.status, 201);
    let phone = delivery["recipient"]["staff_id"].as_str().unwrap();
    let texts = eventually("the message sent again", async || {
        let texts = env.twilio.messages_to(phone);
        if texts.len() == 3 { Ok(texts) } else { Err(texts.len()) }
    })
    .await;
    assert_eq!(texts[2].body, texts[0].body, "a resend keeps text and code");
}

/// Half of all codes belong to other alerts already, for one phone; all of them for another.
async fn a_code_that_is_taken_is_replaced_in_the_text(database: Database) {
    let env = Plan::on(database).set("ACKNOWLEDGE__CODE", "true").build().await;
    let all = || b"CFHJKMNPRTWXY34679".iter().map(|byte| char::from(*byte));
    let every = all().flat_map(|a| all().flat_map(move |b| all().map(move |c| [a, b, c])));
    let mixed =
        every.filter(|code| code.iter().any(char::is_ascii_digit) && code.iter().any(char::is_ascii_alphabetic));
    let codes: Vec<String> = mixed.map(|code| code.iter().collect()).collect();
    let half = codes.iter().step_by(2).map(|code| (GRACE, code));
    let whole = codes.iter().map(|code| (MONA, code));
    let rows: Vec<String> = half
        .chain(whole)
        .map(|(phone, code)| format!("('{phone}', '{code}', 'other', '{phone}{code}', 0)"))
        .collect();
    env.database
        .execute(&format!(
            "insert into ack_code (phone, code, alert_id, delivery_id, created_at) values {}",
            rows.join(", ")
        ))
        .await;

    for ticket in 0..8 {
        let alert = env
            .raise(&critical(&ticket.to_string(), &[person(GRACE), person(MONA)]))
            .await;
        let deliveries = env.stand(&alert, &["accepted", "accepted"]).await;
        let taken = code(deliveries[0]["message"].as_str().unwrap()).to_owned();
        let place = codes.iter().position(|known| *known == taken);
        assert_eq!(place.map(|place| place % 2), Some(1), "{taken} was free");
        let last = deliveries[1]["message"].as_str().unwrap().lines().last().unwrap();
        assert_eq!(last, "Reply ACK", "no code is better than another alert's");
    }
    let sent: BTreeSet<String> = env
        .twilio
        .messages_to(GRACE)
        .iter()
        .map(|message| code(&message.body).to_owned())
        .collect();
    assert_eq!(sent.len(), 8);
    assert_eq!(codes_kept(&env, GRACE).await, sent);
}

async fn without_codes_and_links_nothing_is_asked_or_written_of_them(database: Database) {
    let env = Plan::on(database).set("LOG__FILTER", "sqlx::query=debug").build().await;
    let alert = env.raise(&critical("1", &[person(GRACE)])).await;
    env.stand(&alert, &["accepted"]).await;
    env.post(&critical("1", &[person(GRACE)])).await;

    let log = env.service.log();
    for asked in ["into ack_code", "from ack_code"] {
        assert!(!log.contains(asked), "{log}");
    }
    let text = &env.twilio.messages()[0].body;
    assert!(!text.contains("Ack") && !text.contains("Reply"), "{text}");
    assert_eq!(
        page(
            &env,
            Method::GET,
            &make_token("019aa6f0-1234-7abc-8def-0123456789ab", i64::MAX)
        )
        .await
        .0,
        404
    );
}

async fn the_codes_of_what_is_long_over_are_forgotten(database: Database) {
    let plan = Plan::on(database)
        .set("ACKNOWLEDGE__CODE", "true")
        .set("RETENTION__PERSONAL_DAYS", "20");
    let story = "the codes of what is long over are forgotten";
    let Some(plan) = plan.at("2026-11-01 12:00:00", story) else {
        return;
    };
    let mut env = plan.build().await;
    let mut alerts = Vec::new();
    for ticket in ["1", "2", "3"] {
        let alert = env.raise(&critical(ticket, &[person(GRACE)])).await;
        env.stand(&alert, &["accepted"]).await;
        let message = env.twilio.messages().pop().unwrap();
        assert_eq!(env.report(&message, "delivered", None).await, 204);
        alerts.push(alert);
    }
    env.post(&closed("1")).await;
    acknowledge(&env, &alerts[1], "Grace Hopper").await;
    let kept = async |env: &TestEnv, day: &str, left: i64| {
        let sql =
            format!("select count(*) from job_run where job = 'cleanup' and day = '{day}' and finished_at is not null");
        eventually(&format!("the clean-up of {day}"), async || {
            match env.database.number(&sql).await {
                1 => Ok(()),
                _ => Err(env.service.log()),
            }
        })
        .await;
        assert_eq!(
            env.database.number("select count(*) from ack_code").await,
            left,
            "{day}"
        );
    };

    for (time, day, left) in [
        ("2026-11-08 00:05:00", "2026-11-07", 3),
        ("2026-11-10 00:05:00", "2026-11-09", 1),
        ("2026-11-25 00:05:00", "2026-11-24", 0),
    ] {
        env.service.kill();
        env.turn_clock_to(time);
        env.restart();
        kept(&env, day, left).await;
    }
    let stripped = env.get(&format!("/v1/alerts/{}", alerts[1])).await;
    assert!(
        stripped["acknowledged_by"].is_null() && stripped["acknowledged_at"].is_string(),
        "{stripped}"
    );
}
