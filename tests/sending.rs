//! What goes out: how the provider is called, and what its answers do.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    twilio::{ACCOUNT, AUTH_TOKEN, Answers},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;

stories![
    the_request_says_all_that_twilio_needs,
    an_api_key_and_a_messaging_service_are_used_where_they_are_set,
    a_busy_provider_is_tried_again,
    a_refusal_is_final_and_keeps_its_slot,
    a_person_who_opted_out_at_the_provider_is_not_tried_again,
    an_opted_out_person_is_not_texted,
    opt_outs_are_kept_in_one_form,
    refused_credentials_hold_everything_until_they_are_good,
    a_held_account_is_probed_every_minute_and_goes_on_by_itself,
    held_deliveries_are_claimed_at_most_once_a_second,
    an_ambiguous_answer_is_never_sent_again_blindly,
    a_stop_waits_for_the_call_under_way,
    no_more_calls_are_made_at_once_than_configured,
    an_own_template_is_used_and_a_bad_one_is_not,
    the_test_mode_delivers_to_the_log,
    nothing_personal_is_logged,
];

async fn the_request_says_all_that_twilio_needs(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;

    let message = &env.twilio.accepted(1).await[0];

    let delivery = env.deliveries(&alert).await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        message.callback.as_deref(),
        Some(
            format!("https://nightbell.example.test/behind/proxy/twilio/status?d={delivery}&a=1#rc=5&rp=all").as_str()
        )
    );
    assert_eq!(
        (
            message.form["From"].as_str(),
            message.form["ValidityPeriod"].as_str(),
            message.form["RiskCheck"].as_str()
        ),
        ("+15005550006", "14400", "disable")
    );
    assert_eq!(
        env.twilio.sign_ins(),
        [format!("Basic {}", BASE64.encode(format!("{ACCOUNT}:{AUTH_TOKEN}")))]
    );
}

async fn an_api_key_and_a_messaging_service_are_used_where_they_are_set(database: Database) {
    let plan = Plan::on(database)
        .set("TWILIO__API_KEY_SID", "SK1")
        .set("TWILIO__API_KEY_SECRET", "secret")
        .set("TWILIO__MESSAGING_SERVICE_SID", "MG1");
    let env = plan.unset("PUBLIC_URL").build().await;
    env.raise(&critical("1", &[person("+14155550101")])).await;

    let message = &env.twilio.accepted(1).await[0];

    assert_eq!(
        (
            message.form.get("MessagingServiceSid").map(String::as_str),
            message.form.get("From")
        ),
        (Some("MG1"), None)
    );
    assert_eq!(
        message.callback, None,
        "without a public address there is nobody to call back"
    );
    assert_eq!(
        env.twilio.sign_ins(),
        [format!("Basic {}", BASE64.encode("SK1:secret"))]
    );
}

async fn a_busy_provider_is_tried_again(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::Busy, Answers::Accepts])],
        ))
        .await;

    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);

    assert_eq!(delivery["attempts"], 2);
    assert_eq!(env.twilio.messages().len(), 1);
    assert_eq!(
        env.get("/v1/limit").await["used"],
        1,
        "the slot of the busy attempt was given back"
    );
    assert!(
        delivery["timeline"]
            .to_string()
            .contains("not sent, the provider is busy (code 20429); again in"),
        "{delivery}"
    );
}

async fn a_refusal_is_final_and_keeps_its_slot(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::Refuses(400, 21211)])],
        ))
        .await;

    let delivery = env.stand(&alert, &["failed"]).await.remove(0);

    assert_eq!(
        (&delivery["reason"], &delivery["error_code"]),
        (&json!("refused"), &json!(21211))
    );
    assert_eq!(env.get("/v1/limit").await["used"], 1);
    assert_eq!(env.twilio.calls_to("+14155550101"), 1);
}

async fn a_person_who_opted_out_at_the_provider_is_not_tried_again(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::Refuses(400, 21610)])],
        ))
        .await;
    env.stand(&alert, &["failed"]).await;
    assert_eq!(env.get("/v1/opt-outs").await["items"][0]["phone"], "+14155550101");

    let second = env
        .raise(&critical("2", &[person("+14155550101"), person("+14155550102")]))
        .await;
    env.stand(&second, &["suppressed", "accepted"]).await;
    let message = env.twilio.messages().remove(0);
    assert_eq!(env.report(&message, "failed", Some("21610")).await, 204);
    env.stand(&second, &["suppressed", "failed"]).await;

    let phones = env.get("/v1/opt-outs").await["items"].as_array().unwrap().len();
    assert_eq!(phones, 2, "a receipt says it as well");
    assert_eq!(env.twilio.calls_to("+14155550101"), 1);
}

async fn an_opted_out_person_is_not_texted(database: Database) {
    let env = TestEnv::on(database).await;
    let added = env
        .admin(
            Method::POST,
            "/v1/opt-outs",
            Some(json!({"phone": "(415) 555-0101", "staff_id": "2", "reason": "asked"})),
        )
        .await;
    assert_eq!(added.status, 201);

    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;

    let delivery = env.stand(&alert, &["suppressed"]).await.remove(0);
    assert_eq!(delivery["reason"], "opted_out");
    env.service.logged("nobody_told").await;
    assert_eq!(env.twilio.messages().len(), 0);
}

async fn opt_outs_are_kept_in_one_form(database: Database) {
    let env = TestEnv::on(database).await;
    let add = async |phone: &str| {
        env.admin(Method::POST, "/v1/opt-outs", Some(json!({"phone": phone})))
            .await
    };

    assert_eq!(add("(415) 555-0101").await.status, 201);
    assert_eq!(add("+14155550101").await.status, 200, "the same person");
    assert_eq!(add("+49301234567").await.status, 201);
    let bad = add("abc").await;
    assert_eq!((bad.status, &bad.body["errors"][0]["pointer"]), (422, &json!("/phone")));
    let first = env.get("/v1/opt-outs?limit=1").await;
    assert_eq!(
        (&first["items"][0]["phone"], &first["next"]),
        (&json!("+14155550101"), &json!("+14155550101"))
    );
    let second = env.get("/v1/opt-outs?limit=1&cursor=%2B14155550101").await;
    assert_eq!(
        (&second["items"][0]["phone"], &second["next"]),
        (&json!("+49301234567"), &json!(null))
    );
    assert_eq!(
        env.admin(Method::DELETE, "/v1/opt-outs/+14155550101", None)
            .await
            .status,
        204
    );
    assert_eq!(
        env.admin(Method::DELETE, "/v1/opt-outs/%2B14155550101", None)
            .await
            .status,
        404
    );
}

async fn held_deliveries_are_claimed_at_most_once_a_second(database: Database) {
    let env = Plan::on(database)
        .set("LOG__FILTER", "nightbell=info,sqlx::query=debug")
        .build()
        .await;
    env.twilio.refuse_account(true);
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    eventually("the hold", async || {
        let delivery = env.deliveries(&alert).await.remove(0);
        if delivery["reason"] == "provider_refused_credentials" {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;
    let count = |text: &str| env.service.log().matches(text).count();
    let (sweeps, begins) = (
        "lease_until <= $1 and state = 'sending'",
        "order by d.due_at, d.id limit $",
    );
    let (swept, begun) = (count(sweeps), count(begins));

    eventually("five sweeps, a second apart", async || {
        let more = count(sweeps) - swept;
        if more >= 5 { Ok(()) } else { Err(more) }
    })
    .await;

    let claims = count(begins) - begun;
    assert!(claims <= 20, "{claims} claims in five seconds");
}

async fn refused_credentials_hold_everything_until_they_are_good(database: Database) {
    let mut env = TestEnv::on(database).await;
    env.twilio.refuse_account(true);
    let first = env.raise(&critical("1", &[person("+14155550101")])).await;
    eventually("the hold", async || {
        let delivery = env.deliveries(&first).await.remove(0);
        if delivery["reason"] == "provider_refused_credentials" {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;

    let second = env.raise(&critical("2", &[person("+14155550102")])).await;
    let ready = env.request(Method::GET, "/readyz", &[], Vec::new()).await;
    assert_eq!(ready.status, 200, "trouble of the provider shows in the details only");
    assert!(
        ready.body["details"]["provider"]["status"]
            .as_str()
            .unwrap()
            .contains("held"),
        "{ready:?}"
    );
    env.slots_are_used(0).await;
    env.service.logged("alarm=\"credentials_refused\"").await;
    assert_eq!(env.service.log().matches("alarm=\"credentials_refused\"").count(), 1);
    env.twilio.refuse_account(false);
    env.service.signal("TERM");
    env.service.ended().await;
    env.restart();

    env.stand(&first, &["accepted"]).await;
    env.stand(&second, &["accepted"]).await;
    assert_eq!(
        env.twilio.calls_to("+14155550102"),
        1,
        "nothing was tried while all was held"
    );
}

async fn a_held_account_is_probed_every_minute_and_goes_on_by_itself(database: Database) {
    let Some(plan) = Plan::on(database).at("2026-11-20 12:00:00", "the probe of a held account") else {
        return;
    };
    let env = plan.build().await;
    env.twilio.refuse_account(true);
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    eventually("the hold", async || {
        let log = env.service.log();
        if log.contains("credentials_refused") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;

    env.turn_clock_to("2026-11-20 12:01:30");
    eventually("a probe in vain", async || {
        let log = env.service.log();
        if log.contains("still refuses our account") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    env.twilio.refuse_account(false);
    env.turn_clock_to("2026-11-20 12:03:00");

    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.calls_to("+14155550101"), 2);
}

async fn an_ambiguous_answer_is_never_sent_again_blindly(database: Database) {
    let env = Plan::on(database)
        .set("SMS__TIMEOUT", "1s")
        .set("SMS__LEASE", "3s")
        .build()
        .await;
    let odd = [
        Answers::AcceptsWithoutAnswer,
        Answers::Hangs,
        Answers::AcceptsWith500,
        Answers::Fails500,
        Answers::AcceptsWithHalfAnswer,
    ];
    let people: Vec<_> = odd
        .into_iter()
        .enumerate()
        .map(|(index, answer)| env.phone(&format!("+1415555020{index}"), [answer]))
        .collect();

    let alert = env.raise(&critical("1", &people)).await;

    eventually("five ambiguous calls, recorded", async || {
        let deliveries = env.deliveries(&alert).await;
        let recorded = deliveries
            .iter()
            .all(|delivery| delivery["timeline"].to_string().contains("the provider may have it"));
        if recorded { Ok(()) } else { Err(deliveries) }
    })
    .await;
    for message in env.twilio.messages() {
        assert_eq!(
            env.report(&message, "delivered", None).await,
            204,
            "a receipt proves that it was accepted"
        );
    }
    for delivery in env.deliveries(&alert).await {
        assert_eq!(delivery["attempts"], 1, "{delivery}");
    }
    assert_eq!(env.twilio.messages().len(), 3);
}

async fn a_stop_waits_for_the_call_under_way(database: Database) {
    let mut env = TestEnv::on(database).await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWhenLet(Arc::clone(&gate))])],
        ))
        .await;
    env.twilio.accepted(1).await;

    env.service.signal("TERM");
    eventually("the stop", async || {
        if env.service.log().contains("stopping") {
            Ok(())
        } else {
            Err(env.service.log())
        }
    })
    .await;
    gate.notify_one();
    let status = env.service.ended().await;

    assert_eq!(status.code(), Some(0), "{}", env.service.log());
    env.restart();
    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    assert_eq!(delivery["attempts"], 1);
}

async fn no_more_calls_are_made_at_once_than_configured(database: Database) {
    let env = Plan::on(database).set("SMS__MAX_IN_FLIGHT", "2").build().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let people: Vec<_> = (0..6)
        .map(|number| {
            env.phone(
                &format!("+1415555010{number}"),
                [Answers::AcceptsWhenLet(Arc::clone(&gate))],
            )
        })
        .collect();
    let alert = env.raise(&critical("1", &people)).await;

    for ended in 0..=4 {
        let called = env.twilio.accepted(ended + 2).await.len();
        assert_eq!(called, ended + 2, "{ended} calls have ended");
        gate.notify_one();
    }
    gate.notify_one();

    env.stand(&alert, &["accepted"; 6]).await;
    assert_eq!(env.twilio.messages().len(), 6);
}

async fn an_own_template_is_used_and_a_bad_one_is_not(database: Database) {
    let folder = database.folder.path().join("templates");
    std::fs::create_dir_all(folder.join("sms")).unwrap();
    std::fs::write(
        folder.join("sms/critical.txt"),
        "FEUER {{ number }} für {{ recipient_name }}\n{% if url %}{{ url }}{% endif %}",
    )
    .unwrap();
    let mut env = Plan::on(database)
        .set("TEMPLATES__DIR", folder.to_str().unwrap())
        .build()
        .await;

    env.raise(&critical("1", &[person("+14155550101")])).await;
    assert_eq!(
        env.twilio.accepted(1).await[0].body,
        "FEUER 101 für Grace Hopper\nhttps://tickets.example.com/1"
    );

    std::fs::write(folder.join("sms/critical.txt"), "{{ number.nope.nope }}").unwrap();
    env.service.signal("TERM");
    env.service.ended().await;
    env.restart();
    env.raise(&critical("2", &[person("+14155550101")])).await;
    assert!(
        env.twilio.accepted(2).await[1]
            .body
            .starts_with("🚨 CRITICAL TICKET #102")
    );
    assert!(
        env.service.log().contains("the template failed"),
        "{}",
        env.service.log()
    );
}

async fn the_test_mode_delivers_to_the_log(database: Database) {
    let env = Plan::on(database).set("SMS__DRIVER", "log").build().await;

    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;

    let delivery = env.stand(&alert, &["delivered"]).await.remove(0);
    assert_eq!(delivery["provider"], "log");
    let log = env.service.logged("the provider accepted it").await;
    assert!(
        log.contains("🚨 CRITICAL TICKET #101\\nSubject: Printer on fire")
            && log.contains("to=+1415****101")
            && !log.contains("+14155550101"),
        "{log}"
    );
    assert_eq!(env.twilio.messages().len(), 0, "nothing leaves the machine");
}

async fn nothing_personal_is_logged(database: Database) {
    let env = Plan::on(database).set("LOG__FILTER", "debug").build().await;
    let alert = env
        .raise(&critical(
            "1",
            &[
                person("+14155550101"),
                env.phone("+14155550102", [Answers::Refuses(400, 21211)]),
            ],
        ))
        .await;
    env.stand(&alert, &["accepted", "failed"]).await;
    let message = env.twilio.messages().remove(0);
    env.report(&message, "delivered", None).await;
    env.post_receipt(
        &message.callback.clone().unwrap(),
        &[("To", "+14155550101"), ("MessageSid", "SM1")],
        "bm90IGEgc2lnbmF0dXJlIQ==",
    )
    .await;
    env.get("/v1/deliveries?phone=%2B14155550101").await;
    env.admin(Method::POST, "/v1/opt-outs", Some(json!({"phone": "+14155550103"})))
        .await;
    env.admin(Method::DELETE, "/v1/opt-outs/+14155550103", None).await;

    let log = env.service.log();
    for secret in [
        "4155550",
        "Grace",
        "Hopper",
        "Printer on fire",
        "Acme",
        "intake-token",
        "admin-token",
        AUTH_TOKEN,
        "The 'To' number",
    ] {
        assert!(!log.contains(secret), "`{secret}` in the log:\n{log}");
    }
}
