//! Clocks that are wrong, or turned: nothing is sent twice, nothing waits for a time that is over, nothing is forgotten
//! too early.

use crate::support::{
    database::Database,
    eventually,
    smtp::{Mail, Mode, Smtp},
    town::{Plan, Town, critical, person},
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
    after_a_jump_forward_nothing_expires_and_nothing_is_forgotten,
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
async fn with_wrong_clock(plan: Plan, minutes: i64, story: &str) -> Option<Town> {
    let town = plan.at(&minutes_from_now(minutes), story)?.build().await;
    town.twilio.set_clock(0);
    Some(town)
}

async fn alarm(town: &Town, kind: &str) -> String {
    eventually(&format!("the alarm {kind}"), async || {
        let sql = format!("select detail from alarm where kind = '{kind}'");
        town.database.texts(&sql).await.pop().ok_or_else(|| town.service.log())
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
        // Found at the first look: nobody needs to be told that it may be lost.
        let plan = hasty(database)
            .mailing(&smtp)
            .set("SMS__TIMEOUT", "2s")
            .set("SMS__LEASE", "5s")
            .set("SMS__RECONCILE_AFTER", "20s");
        let Some(town) = with_wrong_clock(plan, minutes, "a wrong clock").await else {
            return;
        };
        let lost = town.phone(PHONE, [Answers::AcceptsInSilence]);

        let alert = town.raise(&critical("1", &[lost])).await;

        let delivery = town.stand(&alert, &["accepted"]).await.remove(0);
        assert_eq!(delivery["attempts"], 1, "{delivery}");
        assert_eq!(delivery["provider_message_id"], town.twilio.messages()[0].sid.as_str());
        let detail = alarm(&town, "clock_differs").await;
        assert!(
            detail.contains(direction) && (detail.contains("12 min") || detail.contains("11 min")),
            "{detail}"
        );
        let mail = smtp.received(1).await.remove(0);
        assert_eq!(mail.subject(), "Nightbell: this machine's clock is wrong");
        assert!(mail.text().contains("NTP"), "{}", mail.text());
        assert_eq!(town.twilio.messages().len(), 1, "{minutes}");
        assert_eq!(
            town.database
                .number("select count(*) from alarm where kind = 'clock_differs'")
                .await,
            1,
            "once a day"
        );
    }
}

async fn with_a_wrong_clock_nothing_is_taken_for_absent(database: Database) {
    let Some(town) = with_wrong_clock(hasty(database), 12, "absence by a wrong clock").await else {
        return;
    };
    let lost = town.phone(PHONE, [Answers::Hangs]);

    let alert = town.raise(&critical("1", &[lost])).await;

    town.stand(&alert, &["unconfirmed"]).await;
    assert_eq!(town.twilio.calls_to(PHONE), 1);
    assert!(alarm(&town, "clock_differs").await.contains("ahead of"));
    assert!(alarm(&town, "unconfirmed").await.contains("may or may not"));
}

/// A delivery that is being sent, its message taken in silence, by a clock that is wrong by so many minutes.
async fn a_call_under_way(town: &Town) -> String {
    let lost = town.phone(PHONE, [Answers::AcceptsInSilence]);
    let alert = town.raise(&critical("1", &[lost])).await;
    town.twilio.accepted(1).await;
    alert
}

/// Waits until nobody can tell, or it is found; never sent again.
async fn is_not_sent_again(town: &Town, alert: &str) {
    let delivery = eventually("an end that is not another message", async || {
        let delivery = town.deliveries(alert).await.remove(0);
        match delivery["state"].as_str().unwrap() {
            "unconfirmed" | "accepted" => Ok(delivery),
            _ => Err(delivery),
        }
    })
    .await;
    assert_eq!(
        (&delivery["attempts"], town.twilio.messages_to(PHONE).len()),
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
        let Some(town) = with_wrong_clock(plan, minutes, "a corrected clock").await else {
            return;
        };
        let alert = a_call_under_way(&town).await;

        town.turn_own_clock_to(&minutes_from_now(0));

        is_not_sent_again(&town, &alert).await;
        town.service.logged("absence is never concluded").await;
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
        let Some(mut town) = with_wrong_clock(hasty(database), minutes, "a restart corrects the clock").await else {
            return;
        };
        let alert = a_call_under_way(&town).await;

        town.service.kill();
        town.turn_own_clock_to(&minutes_from_now(0));
        town.restart();

        is_not_sent_again(&town, &alert).await;
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
        let Some(mut town) = with_wrong_clock(plan, minutes, "a lost answer, then a corrected clock").await else {
            return;
        };
        town.twilio.fail_reads(true);
        let alert = a_call_under_way(&town).await;
        // The attempt has its end, by the wrong clock, and no list was read.
        town.stand(&alert, &["unknown"]).await;

        town.service.kill();
        town.turn_own_clock_to(&minutes_from_now(0));
        town.twilio.fail_reads(false);
        town.settings
            .insert("NIGHTBELL_SMS__RECONCILE_AFTER".into(), "1s".into());
        town.restart();

        is_not_sent_again(&town, &alert).await;
    }
}

/// One delivery that waits for its next try, and one whose call was lost.
async fn two_that_wait(town: &Town) -> (String, String) {
    // Busy again and again: the wait grows beyond a blink.
    let busy = town.phone("+14155550102", [Answers::Busy, Answers::Busy, Answers::Busy]);
    let waits = town.raise(&critical("2", &[busy])).await;
    let lost = town.phone(PHONE, [Answers::AcceptsInSilence]);
    let lost = town.raise(&critical("1", &[lost])).await;
    town.twilio.accepted(1).await;
    eventually("a delivery that waits for its next try", async || {
        let delivery = town.deliveries(&waits).await.remove(0);
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
    let town = plan.build().await;
    let (waits, lost) = two_that_wait(&town).await;

    town.turn_clock_to(&minutes_from_now(0));

    town.stand(&waits, &["accepted"]).await;
    is_not_sent_again(&town, &lost).await;
    // What was accepted in the old future is asked about in time as well.
    let sid = town.twilio.messages_to("+14155550102")[0].sid.clone();
    town.twilio.set_status(&sid, "delivered");
    town.stand(&waits, &["delivered"]).await;
}

async fn a_clock_that_went_back_while_the_service_was_down_leaves_no_delivery_waiting(database: Database) {
    let Some(plan) = hasty(database)
        .set("DAILY_LIMIT", "3")
        .at(&minutes_from_now(120), "a clock that went back")
    else {
        return;
    };
    let mut town = plan.build().await;
    let silent = town.raise(&critical("3", &[person("+14155550103")])).await;
    town.stand(&silent, &["accepted"]).await;
    let (waits, lost) = two_that_wait(&town).await;
    let deferred = town
        .raise(&critical("4", &[person("+14155550104"), person("+14155550105")]))
        .await;
    eventually("one that waits for a slot", async || {
        let deliveries = town.deliveries(&deferred).await;
        if deliveries.iter().any(|delivery| delivery["state"] == "deferred") {
            Ok(())
        } else {
            Err(deliveries)
        }
    })
    .await;

    town.service.kill();
    town.turn_clock_to(&minutes_from_now(0));
    let sid = town.twilio.messages_to("+14155550103")[0].sid.clone();
    town.twilio.set_status(&sid, "delivered");
    town.settings.insert("NIGHTBELL_DAILY_LIMIT".into(), "10".into());
    town.restart();

    town.stand(&waits, &["accepted"]).await;
    is_not_sent_again(&town, &lost).await;
    town.stand(&silent, &["delivered"]).await;
    town.stand(&deferred, &["accepted", "accepted"]).await;
}

async fn after_a_jump_forward_nothing_expires_and_nothing_is_forgotten(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let plan = Plan::on(database)
        .mailing(&smtp)
        .set("DAILY_LIMIT", "1")
        .set("RETENTION__RECEIPT_DAYS", "1")
        .set("RETENTION__PERSONAL_DAYS", "2");
    let Some(plan) = plan.at("2026-11-20 12:00:00", "a jump forward") else {
        return;
    };
    let mut town = plan.build().await;
    let told = town.raise(&critical("1", &[person(PHONE)])).await;
    let message = town.twilio.accepted(1).await.remove(0);
    town.stand(&told, &["accepted"]).await;
    assert_eq!(town.report(&message, "delivered", None).await, 204);
    let deferred = town.raise(&critical("2", &[person("+14155550102")])).await;
    town.stand(&deferred, &["deferred"]).await;
    town.twilio.close(true);
    town.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 2}))).await;
    eventually("a try in vain", async || {
        let delivery = town.deliveries(&deferred).await.remove(0);
        if delivery["attempts"].as_i64() >= Some(1) {
            Ok(())
        } else {
            Err(delivery)
        }
    })
    .await;
    let waits = town
        .raise(&critical("3", &[person("+14155550103"), person("+14155550104")]))
        .await;

    town.turn_clock_to("2026-11-23 13:00:00");
    town.twilio.close(false);
    town.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;

    town.stand(&deferred, &["accepted"]).await;
    town.stand(&waits, &["accepted", "accepted"]).await;
    let detail = alarm(&town, "clock_jumped").await;
    assert!(detail.contains("3 d "), "{detail}");
    eventually("the mail of the alarm", async || {
        let subjects: Vec<String> = smtp.mails().iter().map(Mail::subject).collect();
        let told = subjects
            .iter()
            .any(|subject| subject.contains("this machine's clock jumped forward"));
        if told { Ok(()) } else { Err(subjects) }
    })
    .await;
    let finished = async |job: &str| {
        let sql = format!(
            "select count(*) from job_run where job = '{job}' and day = '2026-11-22' and finished_at is not null"
        );
        town.database.number(&sql).await
    };
    eventually("the report of the night", async || {
        let done = finished("report").await;
        if done == 1 { Ok(()) } else { Err(town.service.log()) }
    })
    .await;
    assert_eq!(finished("cleanup").await, 0);
    assert_eq!(town.database.number("select count(*) from receipt").await, 1);

    // Started anew by this clock, it is what it is.
    town.service.kill();
    town.restart();
    eventually("the clean-up", async || {
        let receipts = town.database.number("select count(*) from receipt").await;
        if receipts == 0 { Ok(()) } else { Err(town.service.log()) }
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
    let town = plan.build().await;
    smtp.close(true);
    town.twilio.refuse_account(true);
    let alert = town.raise(&critical("1", &[person(PHONE)])).await;
    alarm(&town, "credentials_refused").await;
    town.service.logged("the mail is kept and will be tried again").await;

    town.turn_clock_to(&minutes_from_now(0));
    smtp.close(false);
    let mail = smtp.received(1).await.remove(0);
    assert!(mail.subject().contains("refuses our credentials"), "{}", mail.subject());
    town.twilio.refuse_account(false);
    let probe = "select count(*) from route_hold where probe_at > (select max(updated_at) from setting) + 120000";
    eventually("a probe that is due soon", async || {
        let far: Value = town.database.number(probe).await.into();
        if far == 0 { Ok(()) } else { Err(far) }
    })
    .await;
    town.turn_clock_to(&minutes_from_now(2));

    town.stand(&alert, &["accepted"]).await;
}
