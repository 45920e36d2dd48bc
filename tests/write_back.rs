//! Notes on tickets: a real Request Tracker, and a fake Zammad, are told who was reached, once.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    rt::RequestTracker,
    zammad::Zammad,
};
use reqwest::Method;
use serde_json::json;

stories![
    who_was_reached_is_noted_on_the_ticket_once,
    a_note_waits_for_a_helpdesk_that_takes_none,
    what_the_version_before_has_kept_is_noted_once,
    nothing_is_noted_in_test_mode,
    what_is_known_as_told_is_forgotten_when_nobody_asks_any_more,
];

/// Reports every message that was accepted as delivered, or the last of them as not.
async fn report_all(env: &TestEnv, count: usize, fails: bool) {
    let messages = env.twilio.accepted(count).await;
    for (index, message) in messages.iter().enumerate() {
        let (status, code) = if fails && index + 1 == count {
            ("undelivered", Some("30003"))
        } else {
            ("delivered", None)
        };
        eventually("a receipt to be taken", async || {
            let answer = env.report(message, status, code).await;
            if answer == 204 { Ok(()) } else { Err(answer) }
        })
        .await;
    }
}

async fn who_was_reached_is_noted_on_the_ticket_once(database: Database) {
    let Some(mut rt) = RequestTracker::prepare("who_was_reached_is_noted_on_the_ticket_once") else {
        return;
    };
    rt.start().await;
    let mut env = Plan::on(database)
        .set("SOURCES__RT__KIND", "rt")
        .set("SOURCES__RT__URL", &rt.url)
        .set("SOURCES__RT__TOKEN", &rt.token)
        .set("SOURCES__RT__WRITE_BACK", "true")
        .set("SOURCES__RT__POLL_EVERY", "300ms")
        .build()
        .await;
    env.service.logged("is polled from now on").await;
    let ticket = rt.create(100, "Printer on fire").await;
    env.twilio.accepted(3).await;
    assert_eq!(rt.comments(&ticket).await, 0, "nobody knows yet who was reached");

    report_all(&env, 3, true).await;

    eventually("a note on the ticket", async || {
        let comments = rt.comments(&ticket).await;
        if comments == 1 { Ok(()) } else { Err(comments) }
    })
    .await;
    let text = rt.last_comment(&ticket).await;
    for part in ["2 of 3 people were reached by SMS", "code 30003", "Grace"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("415555"), "{text}");
    // Another start, another look: the note is there already.
    env.service.signal("TERM");
    env.service.ended().await;
    env.restart();
    let other = rt.create(100, "Cooler on fire").await;
    rt.change(&other, json!({"Subject": "Cooler still on fire"})).await;
    report_all(&env, 6, false).await;
    eventually("a note on the other ticket", async || {
        let comments = rt.comments(&other).await;
        if comments == 1 { Ok(()) } else { Err(comments) }
    })
    .await;
    assert_eq!(rt.comments(&ticket).await, 1);
}

/// A Zammad that is polled and written back to.
fn noting(database: Database, zammad: &Zammad) -> Plan {
    crate::zammad::polled(database, zammad).set("SOURCES__ACME__WRITE_BACK", "true")
}

/// The notes on a ticket, once there are any.
async fn notes(zammad: &Zammad, ticket: u64) -> Vec<String> {
    eventually("a note on the ticket", async || {
        let notes = zammad.notes(ticket);
        if notes.is_empty() { Err("none") } else { Ok(notes) }
    })
    .await
}

/// Waits until so many alerts are told of as settled.
async fn told(env: &TestEnv, count: i64) {
    eventually("alerts that were told of as settled", async || {
        let told = env.database.number("select count(*) from ticket_note").await;
        if told == count { Ok(()) } else { Err(told) }
    })
    .await;
}

async fn a_note_waits_for_a_helpdesk_that_takes_none(database: Database) {
    let zammad = Zammad::start().await;
    let env = noting(database, &zammad).build().await;
    env.service.logged("is polled from now on").await;
    zammad.refuse_notes(true);
    zammad.create(1, "3 high");
    report_all(&env, 1, false).await;
    told(&env, 1).await;
    zammad.refuses_a_note().await;

    zammad.refuse_notes(false);

    let notes = notes(&zammad, 1).await;
    assert!(
        notes[0].starts_with("Nightbell: everyone was reached by SMS.\n- Emil Ek"),
        "{notes:?}"
    );
    assert!(!notes[0].contains("467012"), "{notes:?}");
    assert_eq!(zammad.notes(1).len(), 1);
}

async fn what_the_version_before_has_kept_is_noted_once(database: Database) {
    let zammad = Zammad::start().await;
    let mut env = noting(database, &zammad)
        .unset("SOURCES__ACME__WRITE_BACK")
        .build()
        .await;
    env.service.logged("is polled from now on").await;
    for ticket in [1, 2, 3] {
        zammad.create(ticket, "3 high");
    }
    report_all(&env, 3, false).await;
    env.service.signal("TERM");
    env.service.ended().await;
    // The first was kept and not written, the second was written, and of the third it had not heard.
    for (ticket, due_at, written_at) in [(1, "1", "null"), (2, "null", "1")] {
        let kept = format!(
            "insert into ticket_note (alert_id, source, ticket_id, text, due_at, tries, written_at, created_at)
             select id, source, ticket_id, 'as it was', {due_at}, 3, {written_at}, 1 from alert where ticket_id = '{ticket}'"
        );
        assert_eq!(env.database.execute(&kept).await, 1);
    }

    env.settings
        .insert("NIGHTBELL_SOURCES__ACME__WRITE_BACK".into(), "true".into());
    env.restart();

    assert!(notes(&zammad, 1).await[0].contains("everyone was reached"));
    assert!(notes(&zammad, 3).await[0].contains("everyone was reached"));
    told(&env, 3).await;
    assert_eq!([1, 2, 3].map(|ticket| zammad.notes(ticket).len()), [1, 0, 1]);
}

async fn nothing_is_noted_in_test_mode(database: Database) {
    let zammad = Zammad::start().await;
    let env = noting(database, &zammad).build().await;
    env.service.logged("is polled from now on").await;
    let test_mode = async |on: bool| {
        let reply = env.admin(Method::PUT, "/v1/test-mode", Some(json!({"on": on}))).await;
        assert_eq!(reply.status, 200);
    };
    test_mode(true).await;
    zammad.create(1, "3 high");
    // Others may hear of it all the same.
    told(&env, 1).await;

    test_mode(false).await;
    zammad.create(2, "3 high");
    report_all(&env, 1, false).await;

    notes(&zammad, 2).await;
    assert!(zammad.notes(1).is_empty(), "{:?}", zammad.notes(1));
}

async fn what_is_known_as_told_is_forgotten_when_nobody_asks_any_more(database: Database) {
    let zammad = Zammad::start().await;
    let plan = noting(database, &zammad).set("RETENTION__RECEIPT_DAYS", "1");
    let Some(plan) = plan.at("2026-11-01 12:00:00", "the clean-up of notes") else {
        return;
    };
    let mut env = plan.build().await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    report_all(&env, 1, false).await;
    told(&env, 1).await;

    for (time, day, left) in [
        ("2026-11-07 00:00:01", "2026-11-06", 1),
        ("2026-11-12 00:00:01", "2026-11-11", 0),
    ] {
        env.service.kill();
        env.turn_clock_to(time);
        env.restart();
        let done =
            format!("select count(*) from job_run where job = 'cleanup' and day = '{day}' and finished_at is not null");
        eventually("the clean-up", async || {
            let done = env.database.number(&done).await;
            if done == 1 { Ok(()) } else { Err(done) }
        })
        .await;
        assert_eq!(
            env.database.number("select count(*) from ticket_note").await,
            left,
            "{time}"
        );
    }
    let told = format!("select count(*) from lifecycle_event where alert_id = '{alert}' and type = 'alert.settled'");
    assert!(
        env.database.number(&told).await <= 1,
        "told once, whatever was forgotten since"
    );
}
