//! The process is killed between any two steps: at most one SMS, and none lost without a trace.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    service::Service,
    twilio::Answers,
};
use std::sync::Arc;

stories![
    killed_right_after_the_202_the_sms_still_goes_out_once,
    killed_while_the_provider_has_it_the_sms_goes_out_once,
    killed_before_the_provider_answers_the_attempt_is_never_repeated_blindly,
    killed_again_and_again_no_delivery_has_two_messages,
    a_second_process_on_the_same_sqlite_file_is_refused,
];

async fn killed_right_after_the_202_the_sms_still_goes_out_once(database: Database) {
    let mut env = Plan::on(database)
        .set("SMS__LEASE", "2s")
        .set("SMS__TIMEOUT", "1s")
        // The kill may fall between begin_send and the call: then the message has to be proven absent first.
        .set("SMS__RECONCILE_AFTER", "1s")
        .build()
        .await;
    let event = critical("1", &[person("+14155550101")]);

    let alert = env.raise(&event).await;
    env.service.kill();
    env.restart();

    assert_eq!(
        env.post(&event).await.body["outcome"],
        "duplicate",
        "the caller's retry"
    );
    eventually("the one message, or its trace", async || {
        let delivery = env.deliveries(&alert).await.remove(0);
        let settled =
            delivery["state"] == "accepted" || (delivery["attempts"] == 1 && env.twilio.messages().len() == 1);
        if settled { Ok(()) } else { Err(delivery) }
    })
    .await;
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn killed_while_the_provider_has_it_the_sms_goes_out_once(database: Database) {
    let mut env = Plan::on(database)
        .set("SMS__LEASE", "2s")
        .set("SMS__TIMEOUT", "1s")
        .build()
        .await;
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWithoutAnswer])],
        ))
        .await;
    let message = env.twilio.accepted(1).await.remove(0);

    env.service.kill();
    env.restart();

    eventually("the trace of a lost answer", async || {
        let delivery = env.deliveries(&alert).await.remove(0);
        if delivery["timeline"]
            .to_string()
            .contains("no answer was recorded in time")
        {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;
    assert_eq!(env.report(&message, "delivered", None).await, 204);
    let delivery = env.stand(&alert, &["delivered"]).await.remove(0);
    assert_eq!(delivery["attempts"], 1);
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn killed_before_the_provider_answers_the_attempt_is_never_repeated_blindly(database: Database) {
    let mut env = Plan::on(database)
        .set("SMS__LEASE", "2s")
        .set("SMS__TIMEOUT", "1s")
        .build()
        .await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let alert = env
        .raise(&critical(
            "1",
            &[env.phone("+14155550101", [Answers::AcceptsWhenLet(gate)])],
        ))
        .await;
    env.twilio.accepted(1).await;

    for _ in 0..3 {
        env.service.kill();
        env.restart();
        assert!(env.deliveries(&alert).await[0]["attempts"] == 1);
    }

    assert_eq!(env.twilio.calls_to("+14155550101"), 1);
}

async fn killed_again_and_again_no_delivery_has_two_messages(database: Database) {
    let mut env = Plan::on(database)
        .set("SMS__LEASE", "2s")
        .set("SMS__TIMEOUT", "1s")
        .set("SMS__MAX_IN_FLIGHT", "4")
        .build()
        .await;
    let mut alerts = Vec::new();
    for index in 0..40 {
        alerts.push(
            env.raise(&critical(
                &index.to_string(),
                &[person(&format!("+14155550{:03}", 100 + index))],
            ))
            .await,
        );
        if index % 5 == 4 {
            env.service.kill();
            env.restart();
        }
    }

    for alert in &alerts {
        eventually("a delivery that was attempted", async || {
            let delivery = env.deliveries(alert).await.remove(0);
            let state = delivery["state"].as_str().unwrap();
            if state != "pending" && state != "sending" {
                Ok(())
            } else {
                Err(delivery)
            }
        })
        .await;
    }
    let messages = env.twilio.messages();
    let mut texted: Vec<&str> = messages.iter().map(|message| message.to.as_str()).collect();
    texted.sort_unstable();
    let all = texted.len();
    texted.dedup();
    assert_eq!(texted.len(), all, "two messages for one delivery");
    for message in &messages {
        assert_eq!(env.report(message, "delivered", None).await, 204);
    }
    for alert in &alerts {
        let delivery = env.deliveries(alert).await.remove(0);
        let had = messages.iter().any(|message| {
            message
                .callback
                .as_ref()
                .unwrap()
                .contains(delivery["id"].as_str().unwrap())
        });
        assert_eq!(
            delivery["state"] == "delivered",
            had,
            "the provider and we agree: {delivery}"
        );
    }
}

async fn a_second_process_on_the_same_sqlite_file_is_refused(database: Database) {
    let is_sqlite = database.is_sqlite;
    let env = TestEnv::on(database).await;

    let second = Service::try_start(&env.settings, env.database.folder.path());

    match second {
        Err(log) => assert!(is_sqlite && log.contains("another process is writing to"), "{log}"),
        Ok(_) => assert!(!is_sqlite, "PostgreSQL takes several"),
    }
}
