//! Alarms by mail: at once, with what to do, and never a burst of mails.

use crate::support::{
    database::Database,
    env::{Plan, critical, person},
    smtp::{Mail, Mode, Smtp},
    twilio::Answers,
};
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;

stories![
    nobody_told_is_mailed_at_once,
    an_event_that_names_nobody_at_all_is_an_alarm,
    a_burst_of_alarms_makes_one_mail_a_minute,
    each_kind_of_alarm_says_what_to_do,
    the_last_recipient_of_a_source_who_opts_out_is_an_alarm,
    an_alarm_does_not_wait_behind_a_report_that_hangs,
];

async fn nobody_told_is_mailed_at_once(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let env = Plan::on(database).mailing(&smtp).build().await;

    let refused = env.phone("+14155550101", [Answers::Refuses(400, 21211)]);
    env.raise(&critical("1", &[refused])).await;

    let mail = smtp.received(1).await.remove(0);
    assert_eq!(mail.subject(), "Nightbell: nobody was told (ticket #101)");
    let html = mail.html().replace("&#x2f;", "/");
    for wanted in [
        "#101",
        "Printer on fire",
        "https://tickets.example.com/1",
        "Call somebody now",
    ] {
        assert!(
            mail.text().contains(wanted) && html.contains(wanted),
            "{wanted}: {}\n{html}",
            mail.text()
        );
    }
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert!(
        mail.text().lines().all(|line| line.chars().count() <= 80),
        "{}",
        mail.text()
    );
}

async fn an_event_that_names_nobody_at_all_is_an_alarm(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let env = Plan::on(database).mailing(&smtp).build().await;

    env.raise(&critical("1", &[])).await;
    env.post(&critical("1", &[])).await;

    let mail = smtp.received(1).await.remove(0);
    assert_eq!(mail.subject(), "Nightbell: nobody was told (ticket #101)");
    assert_eq!(env.database.number("select count(*) from alarm").await, 1);
}

async fn a_burst_of_alarms_makes_one_mail_a_minute(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = Plan::on(database)
        .mailing(&smtp)
        .at("2026-11-20 12:00:00", "a storm of alarms")
    else {
        return;
    };
    let env = plan.build().await;
    let nobody = json!({"name": "Mona", "phone": "none"});
    for ticket in 0..60 {
        env.raise(&critical(&ticket.to_string(), std::slice::from_ref(&nobody)))
            .await;
    }
    let mut mails = smtp.received(1).await;
    while env
        .database
        .number("select count(*) from alarm where mailed_at is null")
        .await
        > 0
    {
        env.turn_clock_to(&format!("2026-11-20 12:{:02}:00", mails.len() * 2));
        mails = smtp.received(mails.len() + 1).await;
    }

    assert!((2..=4).contains(&mails.len()), "{}", mails.len());
    let named: usize = mails
        .iter()
        .map(|mail| mail.text().matches("nobody is being told of alert").count())
        .sum();
    assert_eq!(
        named,
        60,
        "each once: {:?}",
        mails.iter().map(Mail::subject).collect::<Vec<_>>()
    );
}

async fn each_kind_of_alarm_says_what_to_do(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = Plan::on(database)
        .mailing(&smtp)
        .at("2026-11-20 12:00:00", "kinds of alarms")
    else {
        return;
    };
    let env = plan
        .set("DAILY_LIMIT", "1")
        .set("SMS__TIMEOUT", "500ms")
        .set("SMS__LEASE", "2s")
        .set("SMS__RECONCILE_AFTER", "1s")
        .set("SMS__RESEND_WHEN_ABSENT", "false")
        .build()
        .await;
    let alert = env
        .raise(&critical("1", &[env.phone("+14155550101", [Answers::Hangs])]))
        .await;
    env.stand(&alert, &["unconfirmed"]).await;
    let first = smtp.received(1).await.remove(0);
    assert_eq!(
        first.subject(),
        "Nightbell: a message may not have been sent (ticket #101)"
    );

    env.turn_clock_to("2026-11-20 12:05:00");
    let alert = env.raise(&critical("2", &[person("+14155550102")])).await;
    env.stand(&alert, &["deferred"]).await;
    let second = smtp.received(2).await.remove(1);
    assert_eq!(
        second.subject(),
        "Nightbell: nobody was told (ticket #102); the daily limit is reached"
    );

    let all: String = smtp.mails().iter().map(Mail::text).collect();
    assert!(
        all.contains("Grace Hopper, +1415****101") && all.contains("PUT /v1/limit"),
        "{all}"
    );
}

async fn the_last_recipient_of_a_source_who_opts_out_is_an_alarm(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let env = Plan::on(database)
        .mailing(&smtp)
        .set("SOURCES__ACME__TOKENS", "acme-token")
        .set("SOURCES__ACME__FALLBACK_RECIPIENTS", "+14155550101,+14155550102")
        .build()
        .await;
    let opt_out = async |phone: &str| {
        let reply = env
            .admin(Method::POST, "/v1/opt-outs", Some(json!({"phone": phone})))
            .await;
        assert_eq!(reply.status, 201);
    };

    opt_out("+14155550101").await;
    crate::support::eventually("the opt-out to be looked at", async || {
        let open = env
            .database
            .number("select count(*) from opt_out where checked_at is null")
            .await;
        if open == 0 { Ok(()) } else { Err(open) }
    })
    .await;
    assert_eq!(
        env.database.number("select count(*) from alarm").await,
        0,
        "one is left"
    );
    opt_out("+14155550102").await;

    let mail = smtp.received(1).await.remove(0);
    assert_eq!(mail.subject(), "Nightbell: the last recipient opted out");
    assert!(
        mail.text().contains("source acme") && mail.text().contains("+1415****102"),
        "{}",
        mail.text()
    );
}

async fn an_alarm_does_not_wait_behind_a_report_that_hangs(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = Plan::on(database)
        .mailing(&smtp)
        .set("REPORT__WHEN", "always")
        .at("2026-11-20 23:59:00", "a report that hangs")
    else {
        return;
    };
    let env = plan.build().await;
    env.service.logged("ready").await;
    // The server has the report and thinks about it for as long as it is waited for.
    smtp.hold_answer(Some(Arc::new(Notify::new())));
    crate::support::eventually("the beginning of the ledger", async || {
        let runs = env.database.number("select count(*) from job_run").await;
        if runs == 2 { Ok(()) } else { Err(runs) }
    })
    .await;
    env.turn_clock_to("2026-11-21 00:00:01");
    let report = smtp.received(1).await.remove(0);
    assert!(report.message_id().starts_with("report."), "{}", report.subject());

    smtp.hold_answer(None);
    let refused = env.phone("+14155550101", [Answers::Refuses(400, 21211)]);
    env.raise(&critical("1", &[refused])).await;

    let alarm = smtp.received(2).await.remove(1);
    assert_eq!(alarm.subject(), "Nightbell: nobody was told (ticket #101)");
}
