//! Answers that were lost: found again, proven absent, or said to be uncertain. Never sent again blindly.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    twilio::Answers,
};
use reqwest::Method;
use serde_json::{Value, json};

stories![
    a_lost_answer_is_found_in_the_list,
    a_trial_accounts_texts_are_recognised,
    a_message_that_was_never_made_is_sent_again_once,
    a_message_that_was_never_made_waits_for_a_person_if_so_configured,
    without_lists_nobody_can_tell_and_late_truth_is_taken,
    a_late_receipt_lifts_what_nobody_could_tell,
    twins_with_the_same_text_are_not_confused,
    another_accounts_lists_prove_nothing,
    a_ticket_closed_meanwhile_ends_canceled,
    a_message_without_any_receipts_is_asked_about,
    an_operator_may_send_again,
    many_lost_answers_end_accepted_without_a_second_message,
    the_provider_is_down_for_an_hour_and_nothing_fails,
    a_slow_number_holds_up_nobody_else,
    what_needs_no_call_waits_for_no_call,
    a_list_without_end_proves_nothing,
];

/// Short times, so that a story need not wait.
fn hasty(database: Database) -> Plan {
    Plan::on(database)
        .set("SMS__TIMEOUT", "500ms")
        .set("SMS__LEASE", "2s")
        .set("SMS__RECONCILE_AFTER", "1s")
        .set("SMS__POLL_AFTER", "1s")
}

fn entries(delivery: &Value) -> Vec<&str> {
    delivery["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["what"].as_str().unwrap())
        .collect()
}

async fn a_lost_answer_is_found_in_the_list(database: Database) {
    let env = hasty(database).build().await;
    let odd = [
        Answers::AcceptsWithoutAnswer,
        Answers::AcceptsWith500,
        Answers::AcceptsWithHalfAnswer,
        Answers::AcceptsWithDrips,
    ];
    let people: Vec<Value> = odd
        .into_iter()
        .enumerate()
        .map(|(index, answer)| env.phone(&format!("+1415555020{index}"), [answer]))
        .collect();

    let alert = env.raise(&critical("1", &people)).await;

    for (delivery, message) in env
        .stand(&alert, &["accepted"; 4])
        .await
        .iter()
        .zip(["200", "201", "202", "203"])
    {
        assert_eq!(
            entries(delivery),
            ["pending", "sending", "unknown", "accepted"],
            "{delivery}"
        );
        assert_eq!(
            delivery["provider_message_id"],
            env.twilio.messages_to(&format!("+1415555{message:0>4}"))[0]
                .sid
                .as_str()
        );
    }
    assert_eq!(env.twilio.messages().len(), 4);
    assert_eq!(env.get("/v1/limit").await["used"], 4);
}

async fn a_trial_accounts_texts_are_recognised(database: Database) {
    let env = hasty(database).build().await;
    env.twilio.behave_like_a_trial();

    let alert = env
        .raise(&critical("1", &[env.phone("+14155550101", [Answers::AcceptsWith500])]))
        .await;

    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn a_message_that_was_never_made_is_sent_again_once(database: Database) {
    let env = hasty(database).build().await;
    let alert = env
        .raise(&critical(
            "1",
            &[
                env.phone("+14155550101", [Answers::Hangs]),
                env.phone("+14155550102", [Answers::Fails500]),
            ],
        ))
        .await;

    for delivery in env.stand(&alert, &["accepted", "accepted"]).await {
        assert_eq!(
            entries(&delivery),
            ["pending", "sending", "unknown", "pending", "sending", "accepted"],
            "{delivery}"
        );
        assert_eq!(delivery["attempts"], 2);
    }
    assert_eq!(env.twilio.messages().len(), 2);
    assert_eq!(
        env.get("/v1/limit").await["used"],
        2,
        "the slots of the absent ones were given back"
    );
}

async fn a_message_that_was_never_made_waits_for_a_person_if_so_configured(database: Database) {
    let env = hasty(database).set("SMS__RESEND_WHEN_ABSENT", "false").build().await;
    let alert = env
        .raise(&critical("1", &[env.phone("+14155550101", [Answers::Hangs])]))
        .await;

    let delivery = env.stand(&alert, &["unconfirmed"]).await.remove(0);

    assert_eq!(delivery["reason"], "not_found");
    env.service.logged("alarm=\"unconfirmed\"").await;
    assert_eq!(env.twilio.messages().len(), 0);
    assert_eq!(
        env.get("/v1/limit").await["used"],
        1,
        "an unconfirmed one keeps its slot"
    );
}

async fn without_lists_nobody_can_tell_and_late_truth_is_taken(database: Database) {
    let env = hasty(database).build().await;
    env.twilio.fail_reads(true);
    let alert = env
        .raise(&critical(
            "1",
            &[
                env.phone("+14155550101", [Answers::AcceptsWithoutAnswer]),
                env.phone("+14155550102", [Answers::Hangs]),
            ],
        ))
        .await;

    env.stand(&alert, &["unconfirmed", "unconfirmed"]).await;
    env.service.logged("alarm=\"unconfirmed\"").await;
    assert_eq!(env.service.log().matches("alarm=\"unconfirmed\"").count(), 2);
    assert!(
        env.get("/v1/deliveries?state=unconfirmed").await["items"][0]["due_at"].is_string(),
        "the lookups go on"
    );
    env.twilio.fail_reads(false);

    env.stand(&alert, &["accepted", "accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 2);
}

async fn a_late_receipt_lifts_what_nobody_could_tell(database: Database) {
    let env = hasty(database).build().await;
    env.twilio.fail_reads(true);
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWithoutAnswer])],
        ))
        .await;
    env.stand(&alert, &["unconfirmed"]).await;

    let message = env.twilio.messages().remove(0);
    assert_eq!(env.report(&message, "delivered", None).await, 204);

    env.stand(&alert, &["delivered"]).await;
}

async fn twins_with_the_same_text_are_not_confused(database: Database) {
    let env = hasty(database).set("SOURCES__TWIN__REGION", "US").build().await;
    // The same number, ticket and text from two sources: one was taken, one was not.
    let mut event = critical(
        "1",
        &[env.phone("+14155550101", [Answers::AcceptsWithoutAnswer, Answers::Hangs])],
    );
    let first = env.raise(&event).await;
    event["source"] = json!("twin");
    let second = env.raise(&event).await;

    let one = env.stand(&first, &["accepted"]).await.remove(0);
    let other = env.stand(&second, &["accepted"]).await.remove(0);

    assert_ne!(
        one["provider_message_id"], other["provider_message_id"],
        "a message belongs to one attempt only"
    );
    assert_eq!(env.twilio.messages().len(), 2, "one for each ticket");
}

async fn another_accounts_lists_prove_nothing(database: Database) {
    let mut env = hasty(database).build().await;
    env.twilio.fail_reads(true);
    let alert = env
        .raise(&critical("1", &[env.phone("+14155550101", [Answers::Hangs])]))
        .await;
    eventually("the lost answer", async || {
        let delivery = env.deliveries(&alert).await.remove(0);
        if entries(&delivery).contains(&"unknown") {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;
    env.service.kill();
    env.twilio.fail_reads(false);
    env.settings.insert(
        "NIGHTBELL_TWILIO__ACCOUNT_SID".into(),
        "AC00000000000000000000000000000002".into(),
    );
    env.restart();

    env.stand(&alert, &["unconfirmed"]).await;
    assert_eq!(env.twilio.messages().len(), 0);
}

async fn a_ticket_closed_meanwhile_ends_canceled(database: Database) {
    // Canceled, and not left to a person either: nobody needs it any more.
    let env = hasty(database).set("SMS__RESEND_WHEN_ABSENT", "false").build().await;
    let alert = env
        .raise(&critical("1", &[env.phone("+14155550101", [Answers::Hangs])]))
        .await;
    eventually("the call", async || {
        if env.twilio.calls_to("+14155550101") == 1 {
            Ok(())
        } else {
            Err("none")
        }
    })
    .await;

    assert_eq!(
        env.post(&json!({"type": "ticket.closed", "ticket": {"id": "1"}}))
            .await
            .body["canceled"],
        0,
        "it may be on its way"
    );

    let delivery = env.stand(&alert, &["canceled"]).await.remove(0);
    assert_eq!(delivery["reason"], "ticket_closed");
    env.slots_are_used(0).await;
}

async fn a_message_without_any_receipts_is_asked_about(database: Database) {
    let env = hasty(database).unset("PUBLIC_URL").build().await;
    let alert = env
        .raise(&critical("1", &[person("+14155550101"), person("+14155550102")]))
        .await;
    env.stand(&alert, &["accepted", "accepted"]).await;
    let sid = |phone| env.twilio.messages_to(phone)[0].sid.clone();

    env.twilio.set_status(&sid("+14155550101"), "sent");
    env.twilio.set_status(&sid("+14155550102"), "undelivered");
    env.stand(&alert, &["sent", "undelivered"]).await;
    env.twilio.set_status(&sid("+14155550101"), "delivered");

    env.stand(&alert, &["delivered", "undelivered"]).await;
}

async fn an_operator_may_send_again(database: Database) {
    let env = hasty(database).build().await;
    let alert = env
        .raise(&critical(
            "1",
            &[
                env.phone("+14155550101", [Answers::Refuses(400, 21211)]),
                person("+14155550102"),
                json!({"phone": "abc"}),
            ],
        ))
        .await;
    let deliveries = env.stand(&alert, &["failed", "accepted", "failed"]).await;
    let resend = async |index: usize, body: Value| {
        let id = deliveries[index]["id"].as_str().unwrap();
        env.admin(Method::POST, &format!("/v1/deliveries/{id}/resend"), Some(body))
            .await
    };

    let again = resend(0, json!({})).await;
    assert_eq!(
        (again.status, &again.body["round"], &again.body["resend_of"]),
        (201, &json!(1), &deliveries[0]["id"])
    );
    let undecided = resend(1, json!({})).await;
    assert_eq!(
        (undecided.status, undecided.content_type.as_str()),
        (409, "application/problem+json")
    );
    assert_eq!(env.twilio.messages_to("+14155550102").len(), 1);
    assert_eq!(resend(1, json!({"force": true})).await.status, 201);
    assert_eq!(resend(2, json!({})).await.status, 409, "no usable number");
    assert_eq!(
        env.admin(Method::POST, "/v1/deliveries/nothing/resend", None)
            .await
            .status,
        404
    );
    env.stand(&alert, &["failed", "accepted", "failed", "accepted", "accepted"])
        .await;
    assert_eq!(env.twilio.messages_to("+14155550101").len(), 1);
    assert_eq!(env.twilio.messages_to("+14155550102").len(), 2);

    env.admin(Method::POST, "/v1/opt-outs", Some(json!({"phone": "+14155550101"})))
        .await;
    assert_eq!(
        resend(0, json!({})).await.status,
        409,
        "a request that came twice is not carried out twice"
    );
    resend(0, json!({"force": true})).await;
    env.stand(
        &alert,
        &["failed", "accepted", "failed", "accepted", "accepted", "suppressed"],
    )
    .await;
}

async fn many_lost_answers_end_accepted_without_a_second_message(database: Database) {
    let env = hasty(database).set("DAILY_LIMIT", "5000").build().await;
    let odd = [
        Answers::AcceptsWithoutAnswer,
        Answers::AcceptsWith500,
        Answers::AcceptsWithHalfAnswer,
    ];
    let mut alerts = Vec::new();
    // A thousand in the long form of the torture, else a hundred.
    let count = if std::env::var("NIGHTBELL_TORTURE").is_ok() {
        10
    } else {
        1
    };
    for alert in 0..count {
        let people: Vec<Value> = (0..100)
            .map(|person| {
                env.phone(
                    &format!("+1415{}", 2_000_000 + alert * 100 + person),
                    [odd[person % odd.len()].clone()],
                )
            })
            .collect();
        alerts.push(env.raise(&critical(&alert.to_string(), &people)).await);
    }
    // For half of them the receipts come; for the others they do not.
    for (index, message) in env.twilio.accepted(count * 100).await.iter().enumerate() {
        if index % 2 == 0 {
            assert_eq!(env.report(message, "sent", None).await, 204);
        }
    }

    for alert in &alerts {
        eventually("lost answers that are found again", async || {
            let deliveries = env.deliveries(alert).await;
            let lost: Vec<Value> = deliveries
                .into_iter()
                .filter(|delivery| delivery["state"] != "accepted" && delivery["state"] != "sent")
                .collect();
            if lost.is_empty() { Ok(()) } else { Err(lost.len()) }
        })
        .await;
    }
    // Calls, not attempts: on a busy machine an attempt may end before its call is made, and that one is made again.
    for index in 0..count * 100 {
        assert_eq!(env.twilio.calls_to(&format!("+1415{}", 2_000_000 + index)), 1);
    }
    assert_eq!(env.twilio.messages().len(), count * 100);
}

async fn the_provider_is_down_for_an_hour_and_nothing_fails(database: Database) {
    let Some(plan) = Plan::on(database).at("2026-11-20 12:00:00", "an hour without the provider") else {
        return;
    };
    let env: TestEnv = plan.build().await;
    env.twilio.close(true);
    let people: Vec<Value> = (0..20)
        .map(|index| person(&format!("+14155550{:03}", 100 + index)))
        .collect();
    let alert = env.raise(&critical("1", &people)).await;

    let mut now: jiff::Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
    for _ in 0..30 {
        now += jiff::SignedDuration::from_mins(2);
        env.turn_clock_to(&now.strftime("%F %T").to_string());
        eventually("every delivery to wait for its next try", async || {
            let deliveries = env.deliveries(&alert).await;
            let waits = |delivery: &&Value| {
                delivery["due_at"]
                    .as_str()
                    .is_some_and(|due| due.parse::<jiff::Timestamp>().unwrap() > now)
            };
            let busy: Vec<&Value> = deliveries.iter().filter(|delivery| !waits(delivery)).collect();
            if busy.is_empty() { Ok(()) } else { Err(busy.len()) }
        })
        .await;
    }

    let deliveries = env.stand(&alert, &["pending"; 20]).await;
    for delivery in &deliveries {
        // Waits of up to 2, 4, 8 … seconds, then of up to 5 minutes with full jitter: about 30 in an hour at the cap, so
        // 60 is a bound that only a lost back-off breaks.
        let attempts = delivery["attempts"].as_i64().unwrap();
        assert!((10..=60).contains(&attempts), "{attempts} tries in an hour");
        // They are one timeline entry, but for those under way when the clock was turned: those were held up, as far as they can tell.
        let run = " were not sent, the provider could not be reached: ";
        assert!(
            delivery["timeline"].to_string().contains(run) && entries(delivery).len() <= 12,
            "{delivery}"
        );
    }
    env.slots_are_used(0).await;
    env.twilio.close(false);
    env.turn_clock_to("2026-11-20 13:06:00");
    env.stand(&alert, &["accepted"; 20]).await;
    assert_eq!(env.twilio.messages().len(), 20, "each once");
}

/// Lists that hang are waited for longer than any story has patience.
fn patient(database: Database) -> Plan {
    hasty(database).set("SMS__TIMEOUT", "120s").set("SMS__LEASE", "240s")
}

async fn a_slow_number_holds_up_nobody_else(database: Database) {
    let env = patient(database).build().await;
    let slow = "+14155550101";
    env.twilio.hang_lists_of(slow);
    for ticket in 0..12 {
        let lost = env.phone(slow, [Answers::AcceptsWith500]);
        let alert = env.raise(&critical(&ticket.to_string(), &[lost])).await;
        env.stand(&alert, &["unknown"]).await;
    }

    let lost = env.phone("+14155550102", [Answers::AcceptsWith500]);
    let alert = env.raise(&critical("12", &[lost])).await;

    env.stand(&alert, &["accepted"]).await;
}

async fn what_needs_no_call_waits_for_no_call(database: Database) {
    let mut env = patient(database).set("SMS__RECONCILE_AFTER", "4s").build().await;
    env.twilio.fail_reads(true);
    let lost = env.phone("+14155550101", [Answers::AcceptsWith500]);
    let of_another_account = env.raise(&critical("1", &[lost])).await;
    env.stand(&of_another_account, &["unknown"]).await;
    env.service.kill();
    env.settings.insert(
        "NIGHTBELL_TWILIO__ACCOUNT_SID".into(),
        "AC00000000000000000000000000000002".into(),
    );
    env.restart();

    let people: Vec<Value> = (0..20)
        .map(|index| {
            let phone = format!("+14155550{}", 200 + index);
            env.twilio.hang_lists_of(&phone);
            env.phone(&phone, [Answers::AcceptsWith500])
        })
        .collect();
    env.raise(&critical("2", &people)).await;

    env.stand(&of_another_account, &["unconfirmed"]).await;
}

async fn a_list_without_end_proves_nothing(database: Database) {
    let env = hasty(database).build().await;
    let phone = "+14155550101";
    // The fake gives two messages a page: more pages than are read.
    for ticket in 0..82 {
        env.raise(&critical(&ticket.to_string(), &[person(phone)])).await;
    }
    env.twilio.accepted(82).await;

    let lost = env.phone(phone, [Answers::Hangs]);
    let alert = env.raise(&critical("lost", &[lost])).await;

    env.stand(&alert, &["unconfirmed"]).await;
    assert_eq!(env.twilio.messages_to(phone).len(), 82);
}
