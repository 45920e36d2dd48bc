//! Clocks that are wrong, or turned: nothing is sent twice, nothing waits for a time that is over, nothing is deleted
//! too early.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    smtp::{Mail, Mode, Smtp},
    twilio::Answers,
};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

stories![
    with_a_wrong_clock_a_lost_answer_is_found_and_the_alarm_says_so,
    with_a_wrong_clock_nothing_is_taken_for_absent,
    begun_by_a_wrong_clock_that_is_right_again_it_is_not_sent_twice,
    begun_by_a_wrong_clock_that_a_restart_corrects_it_is_not_sent_twice,
    lost_by_a_wrong_clock_that_a_restart_corrects_it_is_not_sent_twice,
    a_clock_that_went_back_leaves_no_delivery_waiting,
    a_clock_that_went_back_while_the_service_was_down_leaves_no_delivery_waiting,
    after_a_jump_forward_nothing_expires_and_nothing_is_deleted,
    what_waits_beside_deliveries_does_not_wait_for_an_old_future_either,
];

const PHONE: &str = "+14155550101";

/// Short times, so that a story need not wait.
fn hasty(database: Database) -> Plan {
    Plan::on(database)
        .set("SMS__TIMEOUT", "500ms")
        .set("SMS__LEASE", "2s")
        .set("SMS__RECONCILE_AFTER", "1s")
        .set("SMS__POLL_AFTER", "1s")
}

/// The real time and so many minutes, as clocks are turned.
fn minutes_from_now(minutes: i64) -> String {
    let time = Timestamp::now() + SignedDuration::from_mins(minutes);
    time.strftime("%F %T").to_string()
}

/// A service whose clock is wrong by so many minutes, beside a provider whose clock is right.
async fn with_wrong_clock(plan: Plan, minutes: i64, story: &str) -> Option<TestEnv> {
    let env = plan.at(&minutes_from_now(minutes), story)?.build().await;
    env.twilio.set_clock(0);
    Some(env)
}

async fn alarm(env: &TestEnv, kind: &str) -> String {
    eventually(&format!("the alarm {kind}"), async || {
        let sql = format!("select detail from alarm where kind = '{kind}'");
        env.database.texts(&sql).await.pop().ok_or_else(|| env.service.log())
    })
    .await
}

async fn with_a_wrong_clock_a_lost_answer_is_found_and_the_alarm_says_so(database: Database) {
    let is_sqlite = database.is_sqlite;
    for (minutes, direction) in [(12, "ahead of"), (-12, "behind")] {
        let database = if is_sqlite {
            Database::sqlite()
        } else {
            match Database::postgres("a wrong clock").await {
                Some(database) => database,
                None => return,
            }
        };
        let smtp = Smtp::start(Mode::Plain).await;
        // Found at the first lookup: nobody needs to be told that it may be lost.
        let plan = hasty(database)
            .mailing(&smtp)
            .set("SMS__TIMEOUT", "2s")
            .set("SMS__LEASE", "5s")
            .set("SMS__RECONCILE_AFTER", "20s");
        let Some(env) = with_wrong_clock(plan, minutes, "a wrong clock").await else {
            return;
        };
        let lost = env.phone(PHONE, [Answers::AcceptsWithoutAnswer]);

        let alert = env.raise(&critical("1", &[lost])).await;

        let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
        assert_eq!(delivery["attempts"], 1, "{delivery}");
        assert_eq!(delivery["provider_message_id"], env.twilio.messages()[0].sid.as_str());
        let detail = alarm(&env, "clock_differs").await;
        assert!(
            detail.contains(direction) && (detail.contains("12 min") || detail.contains("11 min")),
            "{detail}"
        );
        let mail = smtp.received(1).await.remove(0);
        assert_eq!(mail.subject(), "Nightbell: this machine's clock is wrong");
        assert!(mail.text().contains("NTP"), "{}", mail.text());
        assert_eq!(env.twilio.messages().len(), 1, "{minutes}");
        assert_eq!(
            env.database
                .number("select count(*) from alarm where kind = 'clock_differs'")
                .await,
            1,
            "once a day"
        );
    }
}

async fn with_a_wrong_clock_nothing_is_taken_for_absent(database: Database) {
    let Some(env) = with_wrong_clock(hasty(database), 12, "absence by a wrong clock").await else {
        return;
    };
    let lost = env.phone(PHONE, [Answers::Hangs]);

    let alert = env.raise(&critical("1", &[lost])).await;

    env.stand(&alert, &["unconfirmed"]).await;
    assert_eq!(env.twilio.calls_to(PHONE), 1);
    assert!(alarm(&env, "clock_differs").await.contains("ahead of"));
    assert!(alarm(&env, "unconfirmed").await.contains("may or may not"));
}

/// A delivery that is being sent, its message accepted without an answer, by a clock that is wrong by so many minutes.
async fn a_call_under_way(env: &TestEnv) -> String {
    let lost = env.phone(PHONE, [Answers::AcceptsWithoutAnswer]);
    let alert = env.raise(&critical("1", &[lost])).await;
    env.twilio.accepted(1).await;
    alert
}

/// Waits until nobody can tell, or it is found; never sent again.
async fn is_not_sent_again(env: &TestEnv, alert: &str) {
    let delivery = eventually("an end that is not another message", async || {
        let delivery = env.deliveries(alert).await.remove(0);
        match delivery["state"].as_str().unwrap() {
            "unconfirmed" | "accepted" => Ok(delivery),
            _ => Err(delivery),
        }
    })
    .await;
    assert_eq!(
        (&delivery["attempts"], env.twilio.messages_to(PHONE).len()),
        (&json!(1), 1),
        "{delivery}"
    );
}

async fn begun_by_a_wrong_clock_that_is_right_again_it_is_not_sent_twice(database: Database) {
    let is_sqlite = database.is_sqlite;
    // Beyond the half hour only the step itself says that the clock was wrong.
    for minutes in [12, -12, 180, -180] {
        let database = if is_sqlite {
            Database::sqlite()
        } else {
            match Database::postgres("a corrected clock").await {
                Some(database) => database,
                None => return,
            }
        };
        // The call is under way for long enough to turn the clock meanwhile.
        let plan = hasty(database).set("SMS__TIMEOUT", "2s").set("SMS__LEASE", "5s");
        let Some(env) = with_wrong_clock(plan, minutes, "a corrected clock").await else {
            return;
        };
        let alert = a_call_under_way(&env).await;

        env.turn_own_clock_to(&minutes_from_now(0));

        is_not_sent_again(&env, &alert).await;
        env.service.logged("absence is never concluded").await;
    }
}

async fn begun_by_a_wrong_clock_that_a_restart_corrects_it_is_not_sent_twice(database: Database) {
    let is_sqlite = database.is_sqlite;
    for minutes in [-12, 12, -25, 25] {
        let database = if is_sqlite {
            Database::sqlite()
        } else {
            match Database::postgres("a clock that a restart corrects").await {
                Some(database) => database,
                None => return,
            }
        };
        let Some(mut env) = with_wrong_clock(hasty(database), minutes, "a restart corrects the clock").await else {
            return;
        };
        let alert = a_call_under_way(&env).await;

        env.service.kill();
        env.turn_own_clock_to(&minutes_from_now(0));
        env.restart();

        is_not_sent_again(&env, &alert).await;
    }
}

async fn lost_by_a_wrong_clock_that_a_restart_corrects_it_is_not_sent_twice(database: Database) {
    let is_sqlite = database.is_sqlite;
    for minutes in [-12, 12, -25, 25] {
        let database = if is_sqlite {
            Database::sqlite()
        } else {
            match Database::postgres("a lost answer and a clock that a restart corrects").await {
                Some(database) => database,
                None => return,
            }
        };
        let plan = hasty(database).set("SMS__RECONCILE_AFTER", "10s");
        let Some(mut env) = with_wrong_clock(plan, minutes, "a lost answer, then a corrected clock").await else {
            return;
        };
        env.twilio.fail_reads(true);
        let alert = a_call_under_way(&env).await;
        // The attempt has its end, by the wrong clock, and no list was read.
        env.stand(&alert, &["unknown"]).await;

        env.service.kill();
        env.turn_own_clock_to(&minutes_from_now(0));
        env.twilio.fail_reads(false);
        env.settings
            .insert("NIGHTBELL_SMS__RECONCILE_AFTER".into(), "1s".into());
        env.restart();

        is_not_sent_again(&env, &alert).await;
    }
}

/// One delivery that waits for its next try, and one whose call was lost.
async fn two_that_wait(env: &TestEnv) -> (String, String) {
    // Busy again and again: the wait grows beyond a moment.
    let busy = env.phone("+14155550102", [Answers::Busy, Answers::Busy, Answers::Busy]);
    let waits = env.raise(&critical("2", &[busy])).await;
    let lost = env.phone(PHONE, [Answers::AcceptsWithoutAnswer]);
    let lost = env.raise(&critical("1", &[lost])).await;
    env.twilio.accepted(1).await;
    eventually("a delivery that waits for its next try", async || {
        let delivery = env.deliveries(&waits).await.remove(0);
        if delivery["state"] == "pending" && delivery["attempts"].as_i64() >= Some(1) {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;
    (waits, lost)
}

async fn a_clock_that_went_back_leaves_no_delivery_waiting(database: Database) {
    let plan = hasty(database).set("SMS__TIMEOUT", "2s").set("SMS__LEASE", "5s");
    let Some(plan) = plan.at(&minutes_from_now(120), "a clock that went back") else {
        return;
    };
    let env = plan.build().await;
    let (waits, lost) = two_that_wait(&env).await;

    env.turn_clock_to(&minutes_from_now(0));

    env.stand(&waits, &["accepted"]).await;
    is_not_sent_again(&env, &lost).await;
    // What was accepted in the old future is asked about in time as well.
    let sid = env.twilio.messages_to("+14155550102")[0].sid.clone();
    env.twilio.set_status(&sid, "delivered");
    env.stand(&waits, &["delivered"]).await;
}

async fn a_clock_that_went_back_while_the_service_was_down_leaves_no_delivery_waiting(database: Database) {
    let Some(plan) = hasty(database)
        .set("DAILY_LIMIT", "3")
        .at(&minutes_from_now(120), "a clock that went back")
    else {
        return;
    };
    let mut env = plan.build().await;
    let without_receipt = env.raise(&critical("3", &[person("+14155550103")])).await;
    env.stand(&without_receipt, &["accepted"]).await;
    let (waits, lost) = two_that_wait(&env).await;
    let deferred = env
        .raise(&critical("4", &[person("+14155550104"), person("+14155550105")]))
        .await;
    eventually("one that waits for a slot", async || {
        let deliveries = env.deliveries(&deferred).await;
        if deliveries.iter().any(|delivery| delivery["state"] == "deferred") {
            Ok(())
        } else {
            Err(deliveries)
        }
    })
    .await;

    env.service.kill();
    env.turn_clock_to(&minutes_from_now(0));
    let sid = env.twilio.messages_to("+14155550103")[0].sid.clone();
    env.twilio.set_status(&sid, "delivered");
    env.settings.insert("NIGHTBELL_DAILY_LIMIT".into(), "10".into());
    env.restart();

    env.stand(&waits, &["accepted"]).await;
    is_not_sent_again(&env, &lost).await;
    env.stand(&without_receipt, &["delivered"]).await;
    env.stand(&deferred, &["accepted", "accepted"]).await;
}

async fn after_a_jump_forward_nothing_expires_and_nothing_is_deleted(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let plan = Plan::on(database)
        .mailing(&smtp)
        .set("DAILY_LIMIT", "1")
        .set("RETENTION__RECEIPT_DAYS", "1")
        .set("RETENTION__PERSONAL_DAYS", "2");
    let Some(plan) = plan.at("2026-11-20 12:00:00", "a jump forward") else {
        return;
    };
    let mut env = plan.build().await;
    let sent = env.raise(&critical("1", &[person(PHONE)])).await;
    let message = env.twilio.accepted(1).await.remove(0);
    env.stand(&sent, &["accepted"]).await;
    assert_eq!(env.report(&message, "delivered", None).await, 204);
    let deferred = env.raise(&critical("2", &[person("+14155550102")])).await;
    env.stand(&deferred, &["deferred"]).await;
    env.twilio.close(true);
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 2}))).await;
    eventually("a try in vain", async || {
        let delivery = env.deliveries(&deferred).await.remove(0);
        if delivery["attempts"].as_i64() >= Some(1) {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;
    let waits = env
        .raise(&critical("3", &[person("+14155550103"), person("+14155550104")]))
        .await;

    env.turn_clock_to("2026-11-23 13:00:00");
    env.twilio.close(false);
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;

    env.stand(&deferred, &["accepted"]).await;
    env.stand(&waits, &["accepted", "accepted"]).await;
    let detail = alarm(&env, "clock_jumped").await;
    assert!(detail.contains("3 d "), "{detail}");
    eventually("the mail of the alarm", async || {
        let subjects: Vec<String> = smtp.mails().iter().map(Mail::subject).collect();
        let is_mailed = subjects
            .iter()
            .any(|subject| subject.contains("this machine's clock jumped forward"));
        if is_mailed { Ok(()) } else { Err(subjects) }
    })
    .await;
    let finished = async |job: &str| {
        let sql = format!(
            "select count(*) from job_run where job = '{job}' and day = '2026-11-22' and finished_at is not null"
        );
        env.database.number(&sql).await
    };
    eventually("the nightly report", async || {
        let done = finished("report").await;
        if done == 1 { Ok(()) } else { Err(env.service.log()) }
    })
    .await;
    assert_eq!(finished("cleanup").await, 0);
    assert_eq!(env.database.number("select count(*) from receipt").await, 1);

    // Started again by this clock, it is what it is.
    env.service.kill();
    env.restart();
    eventually("the clean-up", async || {
        let receipts = env.database.number("select count(*) from receipt").await;
        if receipts == 0 { Ok(()) } else { Err(env.service.log()) }
    })
    .await;
}

async fn what_waits_beside_deliveries_does_not_wait_for_an_old_future_either(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = Plan::on(database)
        .mailing(&smtp)
        .at(&minutes_from_now(120), "probes, mails and runs")
    else {
        return;
    };
    let env = plan.build().await;
    smtp.close(true);
    env.twilio.refuse_account(true);
    let alert = env.raise(&critical("1", &[person(PHONE)])).await;
    alarm(&env, "credentials_refused").await;
    env.service.logged("the mail is kept and will be tried again").await;

    env.turn_clock_to(&minutes_from_now(0));
    smtp.close(false);
    let mail = smtp.received(1).await.remove(0);
    assert!(mail.subject().contains("refuses our credentials"), "{}", mail.subject());
    env.twilio.refuse_account(false);
    let probe = "select count(*) from route_hold where probe_at > (select max(updated_at) from setting) + 120000";
    eventually("a probe that is due soon", async || {
        let far: Value = env.database.number(probe).await.into();
        if far == 0 { Ok(()) } else { Err(far) }
    })
    .await;
    env.turn_clock_to(&minutes_from_now(2));

    env.stand(&alert, &["accepted"]).await;
}
