//! Trouble with the provider that is nobody's recipient's fault: it refuses us, our sender, or does not answer at all.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    service::Service,
    smtp::{Mail, Mode, Smtp},
    twilio::{Answers, BAD_SENDER},
};
use reqwest::Method;
use serde_json::{Value, json};

stories![
    a_key_that_may_not_ask_is_tried_with_one_delivery_every_few_minutes,
    a_delivery_that_holds_up_all_others_is_begun_last_and_in_the_end_set_aside,
    a_wrong_sender_holds_and_nothing_fails,
    the_alarm_of_a_hold_is_repeated_every_day,
    ten_minutes_without_an_answer_are_an_alarm_and_so_is_their_end,
    a_provider_out_of_reach_for_long_leaves_few_rows,
];

/// A second process, where there can be one.
fn replica(env: &TestEnv) -> Option<Service> {
    (!env.database.is_sqlite).then(|| env.start_another())
}

async fn held(env: &TestEnv, alert: &str) {
    eventually("the hold", async || {
        let delivery = env.deliveries(alert).await.remove(0);
        if delivery["reason"] == "provider_refused_credentials" {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;
}

async fn called(env: &TestEnv, phone: &str, times: usize) {
    eventually(&format!("call {times} for {phone}"), async || {
        let calls = env.twilio.calls_to(phone);
        if calls == times { Ok(()) } else { Err(calls) }
    })
    .await;
}

/// Waits until a query that counts brings at least this.
async fn counted(env: &TestEnv, sql: &str, wanted: i64) {
    eventually(sql, async || {
        let count = env.database.number(sql).await;
        if count >= wanted { Ok(()) } else { Err(count) }
    })
    .await;
}

fn ms(time: &str) -> i64 {
    let at: jiff::Timestamp = format!("2026-11-20T{time}Z").parse().unwrap();
    at.as_millisecond()
}

async fn provider_status(env: &TestEnv) -> String {
    let ready = env.request(Method::GET, "/readyz", &[], Vec::new()).await;
    assert_eq!(
        ready.status, 200,
        "trouble of the provider shows in the details only: {ready:?}"
    );
    ready.body["details"]["provider"]["status"].as_str().unwrap().to_owned()
}

async fn stop(env: &mut TestEnv) {
    env.service.signal("TERM");
    env.service.ended().await;
}

async fn a_key_that_may_not_ask_is_tried_with_one_delivery_every_few_minutes(database: Database) {
    let Some(plan) = Plan::on(database).at("2026-11-20 12:00:00", "a restricted API key") else {
        return;
    };
    let env = plan.build().await;
    let _replica = replica(&env);
    env.twilio.refuse_account(true);
    let first = env.raise(&critical("1", &[person("+14155550101")])).await;
    held(&env, &first).await;
    let refused = env.phone("+14155550102", [Answers::Refuses(401, 20003)]);
    let second = env.raise(&critical("2", &[refused])).await;
    let third = env.raise(&critical("3", &[person("+14155550103")])).await;

    // The account is good again, and its key may send and not ask.
    env.twilio.forbid_reads(true);
    env.twilio.refuse_account(false);
    env.turn_clock_to("2026-11-20 12:01:30");
    called(&env, "+14155550102", 1).await;
    held(&env, &second).await;
    env.turn_clock_to("2026-11-20 12:02:40");
    counted(
        &env,
        &format!("select count(*) from route_hold where probe_at > {}", ms("12:03:00")),
        1,
    )
    .await;

    let calls = ["+14155550101", "+14155550102", "+14155550103"].map(|phone| env.twilio.calls_to(phone));
    assert_eq!(calls, [1, 1, 0], "one is tried, the rest stays held");
    env.turn_clock_to("2026-11-20 12:05:00");
    for alert in [&first, &second, &third] {
        env.stand(alert, &["accepted"]).await;
    }
    let calls = ["+14155550101", "+14155550102", "+14155550103"].map(|phone| env.twilio.calls_to(phone));
    assert_eq!(calls, [2, 2, 1], "the one that was accepted let everything go on");
    assert_eq!(env.twilio.messages()[0].to, "+14155550103");
    assert_eq!(provider_status(&env).await, "ok");
    env.slots_are_used(3).await;
}

async fn a_delivery_that_holds_up_all_others_is_begun_last_and_in_the_end_set_aside(database: Database) {
    let Some(plan) = Plan::on(database).at("2026-11-20 12:00:00", "a delivery that holds up all others") else {
        return;
    };
    let mut env = plan.build().await;
    let odd = env.phone("+14155550101", vec![Answers::Refuses(401, 20003); 9]);
    let odd = env.raise(&critical("1", &[odd])).await;
    held(&env, &odd).await;
    // A restart asks at once, and says nothing against it.
    for calls in [2, 3] {
        stop(&mut env).await;
        env.restart();
        called(&env, "+14155550101", calls).await;
        held(&env, &odd).await;
    }

    for (calls, ticket, clock) in [(4, "2", "12:01:30"), (5, "3", "12:03:00")] {
        let other = env
            .raise(&critical(ticket, &[person(&format!("+1415555010{ticket}"))]))
            .await;
        assert_eq!(env.deliveries(&other).await[0]["state"], "pending", "all is held");
        env.turn_clock_to(&format!("2026-11-20 {clock}"));
        called(&env, "+14155550101", calls).await;
        assert_eq!(
            env.twilio.calls_to(&format!("+1415555010{ticket}")),
            1,
            "the others go first"
        );
        env.stand(&other, &["accepted"]).await;
    }

    let delivery = env.stand(&odd, &["failed"]).await.remove(0);
    assert_eq!(
        (&delivery["reason"], &delivery["error_code"], &delivery["attempts"]),
        (&json!("internal_error"), &json!(20003), &json!(5)),
        "{delivery}"
    );
    assert!(delivery["timeline"].to_string().contains("set aside"), "{delivery}");
    env.slots_are_used(2).await;
    let free = env.raise(&critical("4", &[person("+14155550104")])).await;
    env.stand(&free, &["accepted"]).await;
    assert_eq!(env.twilio.calls_to("+14155550101"), 5, "it holds up nobody any more");
}

async fn a_wrong_sender_holds_and_nothing_fails(database: Database) {
    let Some(plan) = Plan::on(database).at("2026-11-20 12:00:00", "a wrong sender") else {
        return;
    };
    let mut env = plan.set("TWILIO__FROM", BAD_SENDER).build().await;
    let first = env.raise(&critical("1", &[person("+14155550101")])).await;
    held(&env, &first).await;
    let log = env.service.logged("alarm=\"sender_refused\"").await;
    assert!(
        log.contains("code 21606") && log.contains("twilio.from"),
        "what is wrong, and what to do: {log}"
    );
    assert!(
        provider_status(&env).await.contains("refuses our sender"),
        "{}",
        provider_status(&env).await
    );
    // Tried alone again and again, it is not to blame: nothing says that another message would go.
    for (calls, clock) in [(2, "12:01:30"), (3, "12:05:00"), (4, "12:09:00"), (5, "12:13:00")] {
        env.turn_clock_to(&format!("2026-11-20 {clock}"));
        called(&env, "+14155550101", calls).await;
    }
    let second = env.raise(&critical("2", &[person("+14155550102")])).await;
    env.slots_are_used(0).await;
    for alert in [&first, &second] {
        assert_eq!(env.deliveries(alert).await[0]["state"], "pending");
    }

    stop(&mut env).await;
    env.settings
        .insert("NIGHTBELL_TWILIO__FROM".into(), "+15005550006".into());
    env.restart();

    let delivery = env.stand(&first, &["accepted"]).await.remove(0);
    env.stand(&second, &["accepted"]).await;
    assert!(
        delivery["timeline"]
            .to_string()
            .contains("attempts 1 to 5 were not sent, the provider refused our sender (code 21606): 5 times"),
        "{delivery}"
    );
    env.slots_are_used(2).await;
}

async fn the_alarm_of_a_hold_is_repeated_every_day(database: Database) {
    let Some(plan) = Plan::on(database).at("2026-11-18 12:00:00", "the alarm of a hold") else {
        return;
    };
    let env = plan.build().await;
    let _replica = replica(&env);
    env.twilio.refuse_account(true);
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    held(&env, &alert).await;
    let alarms = "select count(*) from alarm where kind = 'credentials_refused'";
    assert_eq!(env.database.number(alarms).await, 1);

    for (day, count) in [(19, 2), (20, 3)] {
        for time in ["12:00:00", "12:01:30", "12:03:00"] {
            env.turn_clock_to(&format!("2026-11-{day} {time}"));
            let at: jiff::Timestamp = format!("2026-11-{day}T{time}Z").parse().unwrap();
            let probed = format!(
                "select count(*) from route_hold where probe_at > {}",
                at.as_millisecond()
            );
            counted(&env, &probed, 1).await;
        }
        counted(&env, alarms, count).await;
        assert_eq!(env.database.number(alarms).await, count, "once a day");
    }
}

async fn ten_minutes_without_an_answer_are_an_alarm_and_so_is_their_end(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = Plan::on(database)
        .mailing(&smtp)
        .at("2026-11-20 12:00:00", "a provider out of reach")
    else {
        return;
    };
    let mut env = plan.build().await;
    let _replica = replica(&env);
    env.twilio.close(true);
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    eventually("trouble in the details", async || {
        let status = provider_status(&env).await;
        if status.contains("cannot be reached since 2026-11-20T12:00") {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    let tried_after = |time: &str| format!("select count(*) from route_contact where failed_at >= {}", ms(time));
    env.turn_clock_to("2026-11-20 12:06:00");
    counted(&env, &tried_after("12:06:00"), 1).await;
    assert_eq!(env.database.number("select count(*) from alarm").await, 0);
    // Not in the middle of a call: what became of that would first have to be found out.
    env.stand(&alert, &["pending"]).await;
    env.service.kill();
    env.restart();
    env.turn_clock_to("2026-11-20 12:11:00");

    let mail = smtp.received(1).await.remove(0);
    assert_eq!(mail.subject(), "Nightbell: the provider cannot be reached");
    assert!(mail.text().contains("firewall"), "{}", mail.text());
    env.twilio.close(false);
    env.turn_clock_to("2026-11-20 12:13:00");
    env.stand(&alert, &["accepted"]).await;
    let mails = smtp.received(2).await;
    assert_eq!(
        mails.iter().map(Mail::subject).collect::<Vec<_>>()[1],
        "Nightbell: the provider can be reached again"
    );
    // Each replica notes once a second what it saw, so one may note a failed call after the other's answered one. The next
    // call puts that right, or what the provider is asked after a minute without one.
    env.turn_clock_to("2026-11-20 12:15:00");
    eventually("no trouble in the details", async || {
        let status = provider_status(&env).await;
        if status == "ok" { Ok(()) } else { Err(status) }
    })
    .await;
    assert_eq!(env.database.number("select count(*) from alarm").await, 2);
}

async fn a_provider_out_of_reach_for_long_leaves_few_rows(database: Database) {
    let env = Plan::on(database).build().await;
    env.twilio.close(true);
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    let delivery = async || env.deliveries(&alert).await.remove(0);
    eventually("many tries", async || {
        env.database
            .execute("update delivery set due_at = 1 where state = 'pending'")
            .await;
        let delivery = delivery().await;
        if delivery["attempts"].as_i64() >= Some(12) {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;

    let lines = |delivery: &Value| delivery["timeline"].as_array().unwrap().len();
    let seen = delivery().await;
    let attempts = env.database.number("select count(*) from attempt").await;
    assert!(
        lines(&seen) <= 4 && attempts <= 3,
        "{attempts} rows of attempts, {seen:#}"
    );
    env.twilio.close(false);
    // A try that was under way when the provider came back waits once more.
    let settled = eventually("a delivery that is accepted", async || {
        env.database
            .execute("update delivery set due_at = 1 where state = 'pending'")
            .await;
        let delivery = delivery().await;
        if delivery["state"] == "accepted" {
            Ok(delivery)
        } else {
            Err(delivery)
        }
    })
    .await;
    let tries = settled["attempts"].as_i64().unwrap();
    let run = format!(
        "attempts 1 to {0} were not sent, the provider could not be reached: {0} times, last at 20",
        tries - 1
    );
    assert!(
        settled["timeline"].to_string().contains(&run) && lines(&settled) <= 5,
        "{settled:#}"
    );
    env.slots_are_used(1).await;
    assert_eq!(env.twilio.messages().len(), 1);
}
