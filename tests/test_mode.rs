//! Stories of test mode: nothing leaves the machine while it is on.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    twilio::Answers,
};
use reqwest::Method;
use serde_json::json;

stories![
    in_test_mode_messages_go_to_the_log_at_once_and_for_every_process,
    test_mode_goes_on_after_a_restart_and_though_the_provider_refuses_us,
    what_says_neither_on_nor_off_changes_nothing,
    no_message_leaves_after_test_mode_was_turned_on_in_the_middle_of_many,
];

async fn set(env: &TestEnv, on: bool) {
    let reply = env.admin(Method::PUT, "/v1/test-mode", Some(json!({"on": on}))).await;
    assert_eq!((reply.status, &reply.body["on"]), (200, &json!(on)));
}

async fn in_test_mode_messages_go_to_the_log_at_once_and_for_every_process(database: Database) {
    let env = TestEnv::on(database).await;
    let other = (!env.database.is_sqlite).then(|| env.start_another());
    set(&env, true).await;

    for ticket in ["1", "2", "3"] {
        let alert = env
            .raise(&critical(ticket, &[person("+14155550101"), person("+14155550102")]))
            .await;
        for delivery in env.stand(&alert, &["delivered"; 2]).await {
            assert_eq!(delivery["provider"], "log");
        }
    }
    assert!(env.twilio.messages().is_empty());
    assert_eq!(env.get("/v1/test-mode").await, json!({"on": true, "driver": "twilio"}));
    env.slots_are_used(6).await;
    set(&env, false).await;
    let alert = env.raise(&critical("4", &[person("+14155550101")])).await;
    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.accepted(1).await.len(), 1);
    drop(other);
}

async fn test_mode_goes_on_after_a_restart_and_though_the_provider_refuses_us(database: Database) {
    let mut env = TestEnv::on(database).await;
    env.twilio.script("+14155550101", [Answers::Refuses(401, 20003)]);
    let held = env.raise(&critical("1", &[person("+14155550101")])).await;
    crate::support::eventually("a hold", async || {
        let delivery = env.deliveries(&held).await.remove(0);
        if delivery["reason"] == "provider_refused_credentials" {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;
    set(&env, true).await;
    env.service.kill();
    env.restart();

    let alert = env.raise(&critical("2", &[person("+14155550102")])).await;

    env.stand(&alert, &["delivered"]).await;
    assert!(env.twilio.messages().is_empty());
}

async fn what_says_neither_on_nor_off_changes_nothing(database: Database) {
    let env = TestEnv::on(database).await;
    for body in [json!({}), json!({"on": "yes"}), json!([]), json!({"on": null})] {
        let reply = env.admin(Method::PUT, "/v1/test-mode", Some(body)).await;
        assert_eq!(reply.status, 422);
    }
    assert_eq!(env.get("/v1/test-mode").await["on"], false);
}

async fn no_message_leaves_after_test_mode_was_turned_on_in_the_middle_of_many(database: Database) {
    let env = Plan::on(database)
        .set("DAILY_LIMIT", "10000")
        .set("SMS__MAX_IN_FLIGHT", "4")
        .build()
        .await;
    let people: Vec<_> = (0..100).map(|number| person(&format!("+1415555{number:04}"))).collect();
    env.raise(&critical("1", &people)).await;
    env.raise(&critical("2", &people)).await;
    env.twilio.accepted(10).await;

    set(&env, true).await;

    // What was begun before may still be called: as many as may be under way.
    let begun = "select count(*) from attempt where provider = 'twilio'";
    let begun_by_twilio = env.database.number(begun).await;
    crate::support::eventually("all deliveries to be sent", async || {
        let waiting = env
            .database
            .number("select count(*) from delivery where state in ('pending', 'sending')")
            .await;
        if waiting == 0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    assert_eq!(
        env.database.number(begun).await,
        begun_by_twilio,
        "none was begun after the answer"
    );
    assert!(begun_by_twilio < 200);
    assert_eq!(env.twilio.messages().len(), usize::try_from(begun_by_twilio).unwrap());
}
