//! Clean-up: what is old goes, the dedup key stays, and nothing that is still needed is touched.

use crate::support::{
    database::Database,
    eventually,
    town::{Plan, Town, critical, person},
    twilio::Answers,
};
use serde_json::json;

stories![
    old_receipts_go_and_personal_data_is_taken_out,
    the_event_of_a_forgotten_ticket_is_still_a_duplicate,
    people_are_named_anew_on_a_forgotten_alert_that_told_nobody,
    killed_in_the_middle_the_clean_up_is_complete_after_the_restart,
];

/// Turns the clock while the service is down: a running one would take it for a clock that jumped, and clean up nothing.
fn restart_at(town: &mut Town, time: &str) {
    town.service.kill();
    town.turn_clock_to(time);
    town.restart();
}

async fn cleaned_up(town: &Town, day: &str) {
    let sql =
        format!("select count(*) from job_run where job = 'cleanup' and day = '{day}' and finished_at is not null");
    eventually(&format!("the clean-up of {day}"), async || {
        let done = town.database.number(&sql).await;
        if done == 1 { Ok(()) } else { Err(town.service.log()) }
    })
    .await;
}

/// A service that keeps receipts for 5 and people for 20 days.
fn forgetful(database: Database, story: &str) -> Option<Plan> {
    Plan::on(database)
        .set("RETENTION__RECEIPT_DAYS", "5")
        .set("RETENTION__PERSONAL_DAYS", "20")
        .at("2026-11-01 12:00:00", story)
}

async fn a_delivered_alert(town: &Town, ticket: &str, phone: &str) -> String {
    let alert = town.raise(&critical(ticket, &[person(phone)])).await;
    town.stand(&alert, &["accepted"]).await;
    let message = town.twilio.messages_to(phone).remove(0);
    assert_eq!(town.report(&message, "delivered", None).await, 204);
    town.stand(&alert, &["delivered"]).await;
    alert
}

async fn old_receipts_go_and_personal_data_is_taken_out(database: Database) {
    let Some(plan) = forgetful(database, "clean-up") else {
        return;
    };
    let mut town = plan.build().await;
    let old = a_delivered_alert(&town, "1", "+14155550101").await;
    town.admin(
        reqwest::Method::POST,
        "/v1/opt-outs",
        Some(json!({"phone": "+14155550199"})),
    )
    .await;

    restart_at(&mut town, "2026-11-07 00:00:01");
    cleaned_up(&town, "2026-11-06").await;
    assert_eq!(town.database.number("select count(*) from receipt").await, 0);
    assert_eq!(
        town.deliveries(&old).await[0]["recipient"]["name"],
        "Grace Hopper",
        "too young to forget"
    );
    let young = a_delivered_alert(&town, "2", "+14155550102").await;

    restart_at(&mut town, "2026-11-22 00:00:01");
    cleaned_up(&town, "2026-11-21").await;

    let alert = town.get(&format!("/v1/alerts/{old}")).await;
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
    assert_eq!(town.database.number(counts).await, 0);
    assert_eq!(town.deliveries(&young).await[0]["recipient"]["name"], "Grace Hopper");
    let opt_outs = town.get("/v1/opt-outs").await;
    assert_eq!(
        opt_outs["items"][0]["phone"], "+14155550199",
        "a wish is never forgotten"
    );
    for (table, column) in [("alert", "client_name"), ("delivery", "message")] {
        let sql = format!("select count(*) from {table} where {column} <> ''");
        assert_eq!(
            town.database.number(&sql).await,
            1,
            "{table}.{column} of the young one only"
        );
    }
    if town.database.is_sqlite {
        // Checkpointed, so that the file holds what the log held.
        town.database.execute("pragma wal_checkpoint(truncate)").await;
        let file = std::fs::read(town.database.folder.path().join("nightbell.db")).unwrap();
        let holds = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(
            holds("+14155550102") && !holds("+14155550101"),
            "not even in the file's free space"
        );
    }
}

async fn the_event_of_a_forgotten_ticket_is_still_a_duplicate(database: Database) {
    let Some(plan) = forgetful(database, "a forgotten ticket") else {
        return;
    };
    let plan = plan.set("SOURCES__DEFAULT__LATER_RECIPIENTS", "each");
    let mut town = plan.build().await;
    let alert = a_delivered_alert(&town, "1", "+14155550101").await;
    restart_at(&mut town, "2026-12-24 00:00:01");
    cleaned_up(&town, "2026-12-23").await;
    assert!(town.get(&format!("/v1/alerts/{alert}")).await["subject"].is_null());

    let again = town.post(&critical("1", &[person("+14155550101")])).await;

    assert_eq!(
        (again.status, &again.body["outcome"]),
        (200, &json!("duplicate")),
        "{again:?}"
    );
    assert_eq!(again.body["alert_id"], alert.as_str());
    assert_eq!(town.twilio.messages().len(), 1);
}

async fn people_are_named_anew_on_a_forgotten_alert_that_told_nobody(database: Database) {
    let Some(plan) = forgetful(database, "a forgotten alert that told nobody") else {
        return;
    };
    let mut town = plan.build().await;
    let refused = town.phone("+14155550101", [Answers::Refuses(400, 21211), Answers::Accepts]);
    let alert = town.raise(&critical("1", std::slice::from_ref(&refused))).await;
    town.stand(&alert, &["failed"]).await;
    // What no report has told yet is not forgotten.
    restart_at(&mut town, "2026-11-02 00:00:01");
    eventually("the report", async || {
        let told = town
            .database
            .number("select count(*) from delivery where report_day is not null")
            .await;
        if told == 1 { Ok(()) } else { Err(town.service.log()) }
    })
    .await;
    restart_at(&mut town, "2026-12-24 00:00:01");
    cleaned_up(&town, "2026-12-23").await;

    let again = town.post(&critical("1", &[refused])).await;

    assert_eq!(
        (again.status, &again.body["alert_id"]),
        (202, &json!(alert)),
        "{again:?}"
    );
    town.stand(&alert, &["failed", "accepted"]).await;
    assert_eq!(
        town.get(&format!("/v1/alerts/{alert}")).await["subject"],
        "Printer on fire"
    );
    restart_at(&mut town, "2026-12-26 00:00:01");
    cleaned_up(&town, "2026-12-25").await;
    assert_eq!(
        town.get(&format!("/v1/alerts/{alert}")).await["subject"],
        "Printer on fire",
        "it is new again"
    );
}

async fn killed_in_the_middle_the_clean_up_is_complete_after_the_restart(database: Database) {
    let Some(plan) = forgetful(database, "a clean-up that was killed") else {
        return;
    };
    let mut town = plan.build().await;
    for index in 0..5 {
        a_delivered_alert(&town, &index.to_string(), &format!("+1415555010{index}")).await;
    }
    // Receipts go, and then it stops: alerts cannot be changed.
    town.database.break_writes("update", "alert").await;
    restart_at(&mut town, "2026-12-24 00:00:01");
    eventually("a clean-up that stands half-way", async || {
        let receipts = town.database.number("select count(*) from receipt").await;
        let log = town.service.log();
        if receipts == 0 && log.contains("cannot clean up") {
            Ok(())
        } else {
            Err((receipts, log))
        }
    })
    .await;

    town.service.kill();
    town.database.mend("alert").await;
    town.turn_clock_to("2026-12-24 00:05:00");
    town.restart();
    cleaned_up(&town, "2026-12-23").await;

    assert_eq!(
        town.database
            .number("select count(*) from alert where stripped_at is null")
            .await,
        0
    );
    assert_eq!(town.database.number("select count(*) from timeline").await, 0);
    assert_eq!(town.database.number("select count(*) from alert").await, 5);
}
