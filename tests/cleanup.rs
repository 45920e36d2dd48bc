//! Clean-up: what is old goes, the dedup key stays, and nothing that is still needed is touched.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    twilio::Answers,
};
use serde_json::json;

stories![
    old_receipts_go_and_personal_data_is_taken_out,
    the_event_of_a_stripped_alert_is_still_a_duplicate,
    recipients_are_added_again_to_a_stripped_alert_that_reached_nobody,
    killed_in_the_middle_the_clean_up_is_complete_after_the_restart,
];

/// Turns the clock while the service is down: a running one would take it for a clock that jumped, and clean up nothing.
fn restart_at(env: &mut TestEnv, time: &str) {
    env.service.kill();
    env.turn_clock_to(time);
    env.restart();
}

async fn cleaned_up(env: &TestEnv, day: &str) {
    let sql =
        format!("select count(*) from job_run where job = 'cleanup' and day = '{day}' and finished_at is not null");
    eventually(&format!("the clean-up of {day}"), async || {
        let done = env.database.number(&sql).await;
        if done == 1 { Ok(()) } else { Err(env.service.log()) }
    })
    .await;
}

/// A service that keeps receipts for 5 and people for 20 days.
fn with_short_retention(database: Database, story: &str) -> Option<Plan> {
    Plan::on(database)
        .set("RETENTION__RECEIPT_DAYS", "5")
        .set("RETENTION__PERSONAL_DAYS", "20")
        .at("2026-11-01 12:00:00", story)
}

async fn a_delivered_alert(env: &TestEnv, ticket: &str, phone: &str) -> String {
    let alert = env.raise(&critical(ticket, &[person(phone)])).await;
    env.stand(&alert, &["accepted"]).await;
    let message = env.twilio.messages_to(phone).remove(0);
    assert_eq!(env.report(&message, "delivered", None).await, 204);
    env.stand(&alert, &["delivered"]).await;
    alert
}

async fn old_receipts_go_and_personal_data_is_taken_out(database: Database) {
    let Some(plan) = with_short_retention(database, "clean-up") else {
        return;
    };
    let mut env = plan.build().await;
    let old = a_delivered_alert(&env, "1", "+14155550101").await;
    env.admin(
        reqwest::Method::POST,
        "/v1/opt-outs",
        Some(json!({"phone": "+14155550199"})),
    )
    .await;

    restart_at(&mut env, "2026-11-07 00:00:01");
    cleaned_up(&env, "2026-11-06").await;
    assert_eq!(env.database.number("select count(*) from receipt").await, 0);
    assert_eq!(
        env.deliveries(&old).await[0]["recipient"]["name"],
        "Grace Hopper",
        "too young to be deleted"
    );
    let young = a_delivered_alert(&env, "2", "+14155550102").await;

    restart_at(&mut env, "2026-11-22 00:00:01");
    cleaned_up(&env, "2026-11-21").await;

    let alert = env.get(&format!("/v1/alerts/{old}")).await;
    assert_eq!(
        (&alert["ticket_id"], &alert["source"]),
        (&json!("1"), &json!("default"))
    );
    assert!(alert["subject"].is_null(), "{alert}");
    let delivery = &alert["deliveries"][0];
    assert_eq!(delivery["state"], "delivered", "what became of it stays");
    assert!(
        delivery["phone"].is_null() && delivery["recipient"]["name"].is_null(),
        "{delivery}"
    );
    assert_eq!(delivery["timeline"], json!([]));
    let counts = "select count(*) from daily_count where day < '2026-11-02'";
    assert_eq!(env.database.number(counts).await, 0);
    assert_eq!(env.deliveries(&young).await[0]["recipient"]["name"], "Grace Hopper");
    let opt_outs = env.get("/v1/opt-outs").await;
    assert_eq!(
        opt_outs["items"][0]["phone"], "+14155550199",
        "an opt-out is never deleted"
    );
    for (table, column) in [("alert", "client_name"), ("delivery", "message")] {
        let sql = format!("select count(*) from {table} where {column} <> ''");
        assert_eq!(
            env.database.number(&sql).await,
            1,
            "{table}.{column} of the young one only"
        );
    }
    if env.database.is_sqlite {
        // Checkpointed, so that the file holds what the log held.
        env.database.execute("pragma wal_checkpoint(truncate)").await;
        let file = std::fs::read(env.database.folder.path().join("nightbell.db")).unwrap();
        let holds = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(
            holds("+14155550102") && !holds("+14155550101"),
            "not even in the file's free space"
        );
    }
}

async fn the_event_of_a_stripped_alert_is_still_a_duplicate(database: Database) {
    let Some(plan) = with_short_retention(database, "a stripped alert") else {
        return;
    };
    let plan = plan.set("SOURCES__DEFAULT__LATER_RECIPIENTS", "each");
    let mut env = plan.build().await;
    let alert = a_delivered_alert(&env, "1", "+14155550101").await;
    restart_at(&mut env, "2026-12-24 00:00:01");
    cleaned_up(&env, "2026-12-23").await;
    assert!(env.get(&format!("/v1/alerts/{alert}")).await["subject"].is_null());

    let again = env.post(&critical("1", &[person("+14155550101")])).await;

    assert_eq!(
        (again.status, &again.body["outcome"]),
        (200, &json!("duplicate")),
        "{again:?}"
    );
    assert_eq!(again.body["alert_id"], alert.as_str());
    assert_eq!(env.twilio.messages().len(), 1);
}

async fn recipients_are_added_again_to_a_stripped_alert_that_reached_nobody(database: Database) {
    let Some(plan) = with_short_retention(database, "a stripped alert that reached nobody") else {
        return;
    };
    let mut env = plan.build().await;
    let refused = env.phone("+14155550101", [Answers::Refuses(400, 21211), Answers::Accepts]);
    let alert = env.raise(&critical("1", std::slice::from_ref(&refused))).await;
    env.stand(&alert, &["failed"]).await;
    // What no report has listed yet is not stripped.
    restart_at(&mut env, "2026-11-02 00:00:01");
    eventually("the report", async || {
        let reported = env
            .database
            .number("select count(*) from delivery where report_day is not null")
            .await;
        if reported == 1 { Ok(()) } else { Err(env.service.log()) }
    })
    .await;
    restart_at(&mut env, "2026-12-24 00:00:01");
    cleaned_up(&env, "2026-12-23").await;

    let again = env.post(&critical("1", &[refused])).await;

    assert_eq!(
        (again.status, &again.body["alert_id"]),
        (202, &json!(alert)),
        "{again:?}"
    );
    env.stand(&alert, &["failed", "accepted"]).await;
    assert_eq!(
        env.get(&format!("/v1/alerts/{alert}")).await["subject"],
        "Printer on fire"
    );
    restart_at(&mut env, "2026-12-26 00:00:01");
    cleaned_up(&env, "2026-12-25").await;
    assert_eq!(
        env.get(&format!("/v1/alerts/{alert}")).await["subject"],
        "Printer on fire",
        "it is new again"
    );
}

async fn killed_in_the_middle_the_clean_up_is_complete_after_the_restart(database: Database) {
    let Some(plan) = with_short_retention(database, "a clean-up that was killed") else {
        return;
    };
    let mut env = plan.build().await;
    for index in 0..5 {
        a_delivered_alert(&env, &index.to_string(), &format!("+1415555010{index}")).await;
    }
    // Receipts go, and then it stops: alerts cannot be changed.
    env.database.break_writes("update", "alert").await;
    restart_at(&mut env, "2026-12-24 00:00:01");
    eventually("a clean-up that stands half-way", async || {
        let receipts = env.database.number("select count(*) from receipt").await;
        let log = env.service.log();
        if receipts == 0 && log.contains("cannot clean up") {
            Ok(())
        } else {
            Err((receipts, log))
        }
    })
    .await;

    env.service.kill();
    env.database.mend("alert").await;
    env.turn_clock_to("2026-12-24 00:05:00");
    env.restart();
    cleaned_up(&env, "2026-12-23").await;

    assert_eq!(
        env.database
            .number("select count(*) from alert where stripped_at is null")
            .await,
        0
    );
    assert_eq!(env.database.number("select count(*) from timeline").await, 0);
    assert_eq!(env.database.number("select count(*) from alert").await, 5);
}
