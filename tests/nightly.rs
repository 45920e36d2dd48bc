//! The nightly report: one for each local day of what went wrong, by mail, whatever happens meanwhile.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    smtp::{Mail, Mode, Smtp},
    twilio::Answers,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;

stories![
    the_report_lists_each_bad_outcome_once,
    the_mail_reads_well_in_a_terminal_and_as_a_page,
    opt_outs_of_earlier_versions_are_listed_once,
    no_cell_of_the_report_is_a_formula_and_no_word_is_markup,
    a_delivery_that_fails_after_midnight_is_reported_once,
    a_day_without_bad_outcomes_is_mailed_only_when_asked_for,
    missed_days_are_caught_up_oldest_first,
    a_mail_that_cannot_go_is_kept_and_tried_again,
    one_bad_address_keeps_the_mail_from_nobody_else,
    killed_before_the_mail_is_kept_one_mail_goes,
    killed_with_the_mail_kept_one_mail_goes,
    killed_while_the_server_thinks_the_second_copy_is_recognised,
    killed_before_our_note_the_second_copy_is_recognised,
    without_a_mail_server_the_report_is_kept_and_logged,
    the_report_is_made_on_request_and_only_once,
    a_dry_run_changes_nothing,
];

const NOON: &str = "2026-11-20 12:00:00";
/// Midnight in Berlin, as the clock is turned.
const MIDNIGHT: &str = "2026-11-20 23:00:01";
const NEXT_MIDNIGHT: &str = "2026-11-21 23:00:01";

/// A service in Berlin at noon that mails through `smtp`; `None` if this machine cannot turn clocks.
fn in_berlin(database: Database, smtp: &Smtp, story: &str) -> Option<Plan> {
    let plan = Plan::on(database).mailing(smtp).set("TIME_ZONE", "Europe/Berlin");
    plan.at(NOON, story)
}

/// An alert that two people were not told of, and one that came through.
async fn a_bad_day(env: &TestEnv) {
    let refused = env.phone("+14155550101", [Answers::Refuses(400, 21211)]);
    let nobody = json!({"role": "manager", "name": "Mona Meyer", "phone": "call me"});
    let alert = env.raise(&critical("1", &[refused, nobody])).await;
    env.stand(&alert, &["failed", "failed"]).await;
    let alert = env
        .raise(&critical("2", &[person("+14155550102"), person("+14155550103")]))
        .await;
    env.stand(&alert, &["accepted", "accepted"]).await;
    for (phone, status, code) in [
        ("+14155550102", "delivered", None),
        ("+14155550103", "undelivered", Some("30003")),
    ] {
        let message = env.twilio.messages_to(phone).remove(0);
        assert_eq!(env.report(&message, status, code).await, 204);
    }
    env.stand(&alert, &["delivered", "undelivered"]).await;
}

/// Only reports: alarms are mailed too, and have stories of their own.
fn reports(mails: Vec<Mail>) -> Vec<Mail> {
    mails
        .into_iter()
        .filter(|mail| mail.message_id().starts_with("report."))
        .collect()
}

/// Turns the clock past midnight, once the service has noted that its nights begin with this one: one that saw no other day
/// before has nothing to report of it.
async fn pass_midnight(env: &TestEnv) {
    eventually("the day from which nights count", async || {
        let noted = "select count(*) from job_run where job = 'report'";
        match env.database.number(noted).await {
            0 => Err(()),
            _ => Ok(()),
        }
    })
    .await;
    env.turn_clock_to(MIDNIGHT);
}

async fn received(smtp: &Smtp, count: usize) -> Vec<Mail> {
    eventually(&format!("{count} reports"), async || {
        let mails = reports(smtp.mails());
        if mails.len() >= count {
            Ok(mails)
        } else {
            Err(smtp.mails())
        }
    })
    .await
}

/// Waits until the report of a day is done. Not for the clean-up: where a story turns the clock of a running service, that
/// waits for an hour.
async fn report_is_done(env: &TestEnv, day: &str) {
    is_done(env, "report", day).await;
}

async fn is_done(env: &TestEnv, job: &str, day: &str) {
    let done =
        format!("select count(*) from job_run where job = '{job}' and day = '{day}' and finished_at is not null");
    eventually(&format!("the end of the {job} of {day}"), async || {
        let done = env.database.number(&done).await;
        if done == 1 {
            Ok(())
        } else {
            Err((done, env.service.log()))
        }
    })
    .await;
}

async fn the_report_lists_each_bad_outcome_once(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "the nightly report") else {
        return;
    };
    let env = plan.build().await;
    a_bad_day(&env).await;

    pass_midnight(&env).await;
    report_is_done(&env, "2026-11-20").await;
    env.turn_clock_to(NEXT_MIDNIGHT);
    report_is_done(&env, "2026-11-21").await;

    let mails = reports(smtp.mails());
    assert_eq!(mails.len(), 1, "the second day was quiet");
    let mail = &mails[0];
    assert_eq!(
        mail.subject(),
        "Nightbell 2026-11-20: 2 failed, 1 undelivered, nobody told of 1 ticket; 1 delivered"
    );
    assert_eq!(mail.to, ["duty@example.test", "boss@example.test"]);
    assert_eq!(mail.from, "nightbell@example.test");
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert!(mail.header("Reply-To").contains("duty@example.test"), "{}", mail.raw);
    assert!(
        mail.message_id().starts_with("report.2026-11-20."),
        "{}",
        mail.message_id()
    );
    let list = env.get("/v1/reports").await;
    let days: Vec<(&Value, &Value)> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|report| (&report["day"], &report["mail"]["state"]))
        .collect();
    assert_eq!(
        days,
        [
            (&json!("2026-11-21"), &json!("kept")),
            (&json!("2026-11-20"), &json!("sent"))
        ]
    );
}

async fn the_mail_reads_well_in_a_terminal_and_as_a_page(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "the look of the report") else {
        return;
    };
    let env = plan.build().await;
    a_bad_day(&env).await;
    let sly = json!({"type": "ticket.urgency_changed", "ticket": {"id": "3", "urgency": "critical",
        "subject": "=HYPERLINK(1) <b>bold</b> & \"quoted\""}, "recipients": [{"name": "Eve", "phone": "none"}]});
    env.raise(&sly).await;
    pass_midnight(&env).await;
    let mail = received(&smtp, 1).await.remove(0);

    let text = mail.text();
    let wide: Vec<&str> = text
        .lines()
        .filter(|line| line.chars().count() > 80 && !line.contains("http"))
        .collect();
    assert!(wide.is_empty(), "{wide:#?}");
    for wanted in [
        "2026-11-20, Europe/Berlin",
        "NOBODY WAS TOLD",
        "SOMEBODY ELSE WAS TOLD",
        "#101: Printer on fire",
        "https://tickets.example.com/1",
        "Grace Hopper (assignee), +1415****103",
        "undelivered at 2026-11-20 13:0",
        "code 30003",
        "Means: The number in the helpdesk cannot be texted.",
        "To do: ",
        "Daily limit: 3 of 200 used.",
        "Opt-outs gained: 0.",
        "THE LAST 14 DAYS",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
    }
    let html = mail.html();
    assert!(
        html.contains("href=\"https:&#x2f;&#x2f;tickets.example.com&#x2f;1\""),
        "{html}"
    );
    assert!(
        html.contains("&lt;b&gt;bold&lt;") && !html.contains("<b>bold"),
        "what others write is no markup"
    );
    let (name, csv) = mail.attachment().unwrap();
    assert_eq!(name, "nightbell-2026-11-20.csv");
    assert_eq!(csv.lines().count(), 5, "{csv}");
    assert!(
        csv.contains("'=HYPERLINK"),
        "no spreadsheet takes it for a formula: {csv}"
    );
    for secret in ["+14155550101", "+14155550103"] {
        assert!(!mail.raw.contains(secret) && !text.contains(secret) && !csv.contains(secret));
    }
}

async fn opt_outs_of_earlier_versions_are_listed_once(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "opt-outs of earlier versions") else {
        return;
    };
    let env = plan.build().await;
    // As earlier versions stored them: one that a person added, one that the provider told us of.
    for (phone, staff_id, reason) in [
        ("+49711234567", "'7'", "=asked by mail"),
        ("+14155550160", "null", "the provider says that this person opted out"),
    ] {
        env.database
            .execute(&format!(
                "insert into opt_out (phone, staff_id, reason, opted_out_at) values ('{phone}', {staff_id}, '{reason}', 1780000000000)"
            ))
            .await;
    }
    let added = json!({"phone": "(415) 555-0150"});
    let reply = env.admin(Method::POST, "/v1/opt-outs", Some(added)).await;
    assert_eq!(
        (reply.status, &reply.body["phone_text"]),
        (201, &json!("(415) 555-0150"))
    );
    let (code, out, err) = env.run(&["nightly", "--dry-run"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("1 opt-out to check"), "{out}");

    pass_midnight(&env).await;
    report_is_done(&env, "2026-11-20").await;
    env.turn_clock_to(NEXT_MIDNIGHT);
    report_is_done(&env, "2026-11-21").await;

    let mails = reports(smtp.mails());
    assert_eq!(mails.len(), 1, "it is listed once, though nothing failed");
    let mail = &mails[0];
    assert_eq!(mail.subject(), "Nightbell 2026-11-20: 1 opt-out to check; 0 delivered");
    let (text, html, (_, csv)) = (mail.text(), mail.html(), mail.attachment().unwrap());
    for wanted in [
        "1 opt-out is to be compared",
        "OPT-OUTS TO COMPARE WITH THE HELPDESK",
        "+4971****567, staff id 7, since 2026-05-28",
        "`GET /v1/opt-outs`",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
    }
    assert!(html.contains("+4971****567") && html.contains("staff id 7"), "{html}");
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(
        csv.contains("'+4971****567,opt_out_to_check,'=asked by mail") && csv.trim_end().ends_with(",7"),
        "{csv}"
    );
    for other in ["+49711234567", "+1415****150", "+1415****160"] {
        assert!(
            !text.contains(other) && !html.contains(other) && !csv.contains(other),
            "{other}"
        );
    }
}

/// What a spreadsheet would take for a formula stands in no cell, wherever the text came from.
async fn no_cell_of_the_report_is_a_formula_and_no_word_is_markup(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "formulas in the report") else {
        return;
    };
    let env = plan.build().await;
    for (index, sly) in [
        "=1+1",
        "+1",
        "-1",
        "@SUM(1)",
        "＝1",
        "＋1",
        "－1",
        "＠1",
        "\" =1",
        "fire; =1",
        "\u{200B}=1",
        "<script>alert('1')</script>",
    ]
    .into_iter()
    .enumerate()
    {
        let event = json!({"ticket": {"id": format!("{sly}{index}"), "number": sly, "subject": sly, "urgency": "critical"},
            "recipients": [{"name": sly, "role": sly, "phone": "none"}]});
        env.raise(&event).await;
    }
    pass_midnight(&env).await;
    let mail = received(&smtp, 1).await.remove(0);

    assert!(!mail.html().contains("<script"), "{}", mail.html());
    assert!(mail.html().contains("&lt;script&gt;"), "{}", mail.html());
    let (_, table) = mail.attachment().unwrap();
    let mut rows = csv::Reader::from_reader(table.trim_start_matches('\u{FEFF}').as_bytes());
    let mut count = 0;
    for cell in rows
        .records()
        .flat_map(|row| row.unwrap().iter().map(str::to_owned).collect::<Vec<_>>())
    {
        for part in cell.split(';') {
            let first = part
                .chars()
                .find(|c| !c.is_whitespace() && !matches!(c, '"' | '\u{200B}'));
            assert!(
                !first.is_some_and(|c| "=+-@＝＋－＠".contains(c)),
                "{cell:?} begins with a formula"
            );
        }
        count += 1;
    }
    assert_eq!(count, 12 * 17);
}

async fn a_delivery_that_fails_after_midnight_is_reported_once(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "a failure after midnight") else {
        return;
    };
    let env = plan
        .set("REPORT__WHEN", "always")
        .set("SMS__POLL_AFTER", "12h")
        .build()
        .await;
    env.turn_clock_to("2026-11-20 22:58:00");
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    let message = env.twilio.accepted(1).await.remove(0);
    env.stand(&alert, &["accepted"]).await;

    pass_midnight(&env).await;
    received(&smtp, 1).await;
    env.turn_clock_to("2026-11-20 23:03:00");
    assert_eq!(env.report(&message, "failed", Some("30008")).await, 204);
    env.stand(&alert, &["failed"]).await;
    env.turn_clock_to(NEXT_MIDNIGHT);
    received(&smtp, 2).await;
    env.turn_clock_to("2026-11-22 23:00:01");
    let mails = received(&smtp, 3).await;

    let listed: Vec<bool> = mails
        .iter()
        .map(|mail| mail.text().contains("failed at 2026-11-21 00:0"))
        .collect();
    assert_eq!(listed, [false, true, false]);
    assert_eq!(
        mails[1].subject(),
        "Nightbell 2026-11-21: 1 failed, nobody told of 1 ticket; 0 delivered"
    );
}

async fn a_day_without_bad_outcomes_is_mailed_only_when_asked_for(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "a day without bad outcomes") else {
        return;
    };
    let mut env = plan.set("SMS__DRIVER", "log").build().await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["delivered"]).await;
    pass_midnight(&env).await;
    report_is_done(&env, "2026-11-20").await;
    assert!(smtp.mails().is_empty());

    env.settings.insert("NIGHTBELL_REPORT__WHEN".into(), "always".into());
    env.service.kill();
    env.restart();
    env.turn_clock_to(NEXT_MIDNIGHT);

    let mail = received(&smtp, 1).await.remove(0);
    assert_eq!(mail.subject(), "Nightbell 2026-11-21: a quiet day");
    assert!(mail.attachment().is_none());
}

async fn missed_days_are_caught_up_oldest_first(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "missed days") else {
        return;
    };
    let mut env = plan.set("REPORT__WHEN", "always").build().await;
    a_bad_day(&env).await;
    env.service.kill();

    env.turn_clock_to("2026-12-01 12:00:00");
    env.restart();
    let mails = received(&smtp, 8).await;
    report_is_done(&env, "2026-11-30").await;

    let subjects: Vec<String> = mails.iter().map(Mail::subject).collect();
    assert!(
        subjects[0].starts_with("Nightbell 2026-11-20: 2 failed"),
        "{subjects:#?}"
    );
    for (index, subject) in subjects[1..7].iter().enumerate() {
        assert_eq!(*subject, format!("Nightbell 2026-11-{}: a quiet day", 21 + index));
    }
    assert_eq!(subjects[7], "Nightbell 2026-11-27 to 2026-11-30: a quiet day");
    assert_eq!(reports(smtp.mails()).len(), 8);
}

async fn a_mail_that_cannot_go_is_kept_and_tried_again(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "a mail server in trouble") else {
        return;
    };
    let mut env = plan.build().await;
    a_bad_day(&env).await;
    // Alarms of that day go first; the trouble is the report's.
    smtp.received(1).await;
    eventually("the note that the alarm went", async || {
        let noted = env
            .database
            .number("select count(*) from mail where sent_at is not null")
            .await;
        if noted == 1 { Ok(()) } else { Err(noted) }
    })
    .await;
    smtp.close(true);
    // Turned while the service is down: a clock that jumps is trouble of its own, and keeps clean-up waiting.
    let restart_at = |env: &mut TestEnv, time: &str| {
        env.service.kill();
        env.turn_clock_to(time);
        env.restart();
    };
    restart_at(&mut env, MIDNIGHT);
    is_done(&env, "cleanup", "2026-11-20").await;

    let mut hour = 0;
    for (answer, reason) in [
        (None, "no connection to"),
        (Some("451 4.3.0 later"), "put the mail off (451)"),
        (Some("554 5.7.1 no"), "refused the mail (554)"),
    ] {
        smtp.close(answer.is_none());
        smtp.answer_data(answer);
        hour += 1;
        restart_at(&mut env, &format!("2026-11-21 {hour:02}:00:00"));
        let mail = eventually("the trouble in /readyz", async || {
            let ready = env.admin(Method::GET, "/readyz", None).await;
            assert_eq!(ready.status, 200, "mail is not what we live for");
            let mail = ready.body["details"]["mail"].clone();
            if mail["reason"].as_str().is_some_and(|text| text.contains(reason)) {
                Ok(mail)
            } else {
                Err(mail)
            }
        })
        .await;
        assert_eq!(mail["waiting"], 1, "{mail}");
        for headers in [&[][..], &[("authorization", "Bearer wrong")]] {
            let anybody = env.request(Method::GET, "/readyz", headers, Vec::new()).await;
            let shown = &anybody.body["details"]["mail"];
            assert_eq!((&shown["status"], &shown["since"]), (&mail["status"], &mail["since"]));
            assert_eq!(shown["waiting"], 1, "how many is no secret");
            assert_eq!(shown["reason"], Value::Null, "the mail server's name is: {shown}");
        }
        env.service.logged(reason).await;
        let report = env.get("/v1/reports/2026-11-20").await;
        assert_eq!(report["mail"]["state"], "mailing");
    }
    let done = "select job from job_run where day = '2026-11-20' and finished_at is not null";
    assert_eq!(
        env.database.texts(done).await,
        ["cleanup"],
        "clean-up did not wait, the report does"
    );

    smtp.close(false);
    smtp.answer_data(None);
    restart_at(&mut env, "2026-11-21 12:00:00");
    report_is_done(&env, "2026-11-20").await;
    assert_eq!(reports(smtp.mails()).len(), 1);
    let ready = env.request(Method::GET, "/readyz", &[], Vec::new()).await;
    assert_eq!(ready.body["details"]["mail"]["status"], "ok");
}

async fn one_bad_address_keeps_the_mail_from_nobody_else(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "a bad address") else {
        return;
    };
    let env = plan.build().await;
    smtp.refuse("boss@example.test", "550 5.1.1 no such user");
    a_bad_day(&env).await;
    pass_midnight(&env).await;
    report_is_done(&env, "2026-11-20").await;

    let mails = reports(smtp.mails());
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ["duty@example.test"]);
    assert!(
        mails[0].header("To").contains("boss@example.test"),
        "the mail itself is the same"
    );
    let log = env.service.log();
    assert!(
        log.contains("refuses an address") && log.contains("b***@example.test") && !log.contains("boss@"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_over_starttls_and_tls_with_a_password() {
    for mode in [Mode::StartTls, Mode::Tls] {
        let smtp = Smtp::start(mode).await;
        smtp.ask_for("nightbell@example.test", "p:w/ä");
        let good = smtp.url("nightbell%40example.test:p%3Aw%2F%C3%A4");
        let plan = Plan::on(Database::sqlite())
            .mailing(&smtp)
            .set("REPORT__SMTP_URL", &good);
        let mut env = plan.build().await;

        let (code, out, err) = env.run(&["send-test", "--mail", "me@example.test"]).await;
        assert_eq!(code, 0, "{out}{err}");
        let mail = smtp.received(1).await.remove(0);
        assert!(
            mail.over_tls && mail.user.as_deref() == Some("nightbell@example.test"),
            "{mail:?}"
        );
        assert_eq!(mail.to, ["me@example.test"]);

        let mut try_with = async |name: &str, value: &str| {
            let before = env.settings.insert(name.to_owned(), value.to_owned());
            let (code, _, err) = env.run(&["send-test", "--mail", "me@example.test"]).await;
            env.settings.insert(name.to_owned(), before.unwrap());
            assert_eq!(code, 1);
            err
        };
        let err = try_with(
            "NIGHTBELL_REPORT__SMTP_URL",
            &smtp.url("nightbell%40example.test:wrong"),
        )
        .await;
        assert!(
            err.contains("does not accept our user name and password (535)"),
            "{err}"
        );
        let err = try_with("SSL_CERT_FILE", "/dev/null").await;
        assert!(err.contains("certificate"), "{err}");
        assert_eq!(
            smtp.mails().len(),
            1,
            "no password and no mail went to a server that nobody vouches for"
        );
    }
}

async fn killed_before_the_mail_is_kept_one_mail_goes(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "killed before the mail is kept") else {
        return;
    };
    let mut env = plan.build().await;
    a_bad_day(&env).await;
    smtp.received(1).await;
    env.database.break_writes("insert", "mail").await;
    pass_midnight(&env).await;
    let marked = "select count(*) from delivery where report_day = '2026-11-20'";
    eventually("outcomes that are marked and not yet mailed", async || {
        let count = env.database.number(marked).await;
        if count == 3 { Ok(()) } else { Err(count) }
    })
    .await;

    env.service.kill();
    env.database.mend("mail").await;
    env.turn_clock_to("2026-11-20 23:02:00");
    env.restart();
    report_is_done(&env, "2026-11-20").await;

    let mails = reports(smtp.mails());
    assert_eq!(mails.len(), 1);
    assert!(
        mails[0].subject().contains("2 failed, 1 undelivered"),
        "{}",
        mails[0].subject()
    );
}

async fn killed_with_the_mail_kept_one_mail_goes(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "killed with the mail kept") else {
        return;
    };
    let mut env = plan.build().await;
    a_bad_day(&env).await;
    smtp.received(1).await;
    smtp.close(true);
    pass_midnight(&env).await;
    eventually("a mail that cannot go", async || {
        let log = env.service.log();
        if log.contains("mail=report") { Ok(()) } else { Err(log) }
    })
    .await;

    env.service.kill();
    smtp.close(false);
    env.turn_clock_to("2026-11-20 23:10:00");
    env.restart();
    report_is_done(&env, "2026-11-20").await;

    assert_eq!(reports(smtp.mails()).len(), 1);
}

async fn killed_while_the_server_thinks_the_second_copy_is_recognised(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "killed before the server's yes") else {
        return;
    };
    let mut env = plan.build().await;
    a_bad_day(&env).await;
    smtp.received(1).await;
    // The server has the mail and says so only after we are gone: the one window in which a mail goes twice.
    smtp.hold_answer(Some(Arc::new(Notify::new())));
    pass_midnight(&env).await;
    received(&smtp, 1).await;

    env.service.kill();
    smtp.hold_answer(None);
    env.turn_clock_to("2026-11-20 23:10:00");
    env.restart();
    report_is_done(&env, "2026-11-20").await;

    two_copies(&reports(smtp.mails()));
}

async fn killed_before_our_note_the_second_copy_is_recognised(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "killed after the server's yes") else {
        return;
    };
    let mut env = plan.build().await;
    a_bad_day(&env).await;
    smtp.received(1).await;
    let gate = Arc::new(Notify::new());
    smtp.hold_answer(Some(Arc::clone(&gate)));
    pass_midnight(&env).await;
    received(&smtp, 1).await;
    env.database.break_writes("update", "mail").await;
    gate.notify_one();
    eventually("a yes that cannot be noted", async || {
        let log = env.service.log();
        if log.contains("cannot note what came of a mail") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;

    env.service.kill();
    smtp.hold_answer(None);
    env.database.mend("mail").await;
    env.turn_clock_to("2026-11-20 23:10:00");
    env.restart();
    report_is_done(&env, "2026-11-20").await;

    two_copies(&reports(smtp.mails()));
    env.service.kill();
    env.restart();
    env.turn_clock_to(NEXT_MIDNIGHT);
    report_is_done(&env, "2026-11-21").await;
    assert_eq!(reports(smtp.mails()).len(), 2, "what was noted stays noted");
}

fn two_copies(mails: &[Mail]) {
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0].message_id(), mails[1].message_id());
    assert_eq!(mails[0].header("Date"), mails[1].header("Date"));
    assert_eq!(mails[0].text(), mails[1].text());
}

async fn without_a_mail_server_the_report_is_kept_and_logged(database: Database) {
    let plan = Plan::on(database).set("TIME_ZONE", "Europe/Berlin");
    let Some(plan) = plan.at(NOON, "a report without a mail server") else {
        return;
    };
    let env = plan.build().await;
    a_bad_day(&env).await;
    pass_midnight(&env).await;
    report_is_done(&env, "2026-11-20").await;

    let report = env.get("/v1/reports/2026-11-20").await;
    assert_eq!(report["mail"]["state"], "kept");
    assert!(report["text"].as_str().unwrap().contains("NOBODY WAS TOLD"), "{report}");
    let log = env.service.logged("made the nightly report").await;
    assert!(
        log.contains("made the nightly report") && log.contains("bad_outcomes=3"),
        "{log}"
    );
    assert!(
        !log.contains("Printer on fire") && !log.contains("Grace"),
        "nothing personal is logged"
    );
}

async fn the_report_is_made_on_request_and_only_once(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let mut env = Plan::on(database).mailing(&smtp).build().await;
    a_bad_day(&env).await;
    let address = env.service.address.clone();
    env.settings.insert("NIGHTBELL_LISTEN".into(), address);
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let yesterday = today.yesterday().unwrap().to_string();
    let tomorrow = today.tomorrow().unwrap().to_string();

    // Beside the service: on SQLite it is asked to, on PostgreSQL the command does it itself.
    let (code, out, err) = env.run(&["nightly", "--day", &yesterday]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("2 failed, 1 undelivered") && out.contains("NOBODY WAS TOLD"),
        "{out}"
    );
    received(&smtp, 1).await;
    let (code, _, err) = env.run(&["nightly"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("made before"), "{err}");
    let (code, _, err) = env.run(&["nightly", "--day", &tomorrow]).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("has not come yet"), "{err}");
    let (code, _, err) = env.run(&["nightly", "--day", "soon"]).await;
    assert_eq!(code, 2, "{err}");
    let reply = env.admin(Method::POST, &format!("/v1/reports/{today}"), None).await;
    assert_eq!(
        (reply.status, reply.content_type.as_str()),
        (409, "application/problem+json")
    );
    assert_eq!(reports(smtp.mails()).len(), 1);

    // And with nobody else there.
    env.service.kill();
    let (code, out, err) = env.run(&["nightly", "--day", &today.to_string()]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains(&format!("Nightbell {today} so far")), "{out}");
}

async fn a_dry_run_changes_nothing(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let env = Plan::on(database).mailing(&smtp).build().await;
    a_bad_day(&env).await;
    let rows = "select count(*) from job_run";
    eventually("the beginning of the ledger", async || {
        let count = env.database.number(rows).await;
        if count == 2 { Ok(()) } else { Err(count) }
    })
    .await;

    for day in [
        None,
        Some(
            jiff::Timestamp::now()
                .to_zoned(jiff::tz::TimeZone::UTC)
                .date()
                .to_string(),
        ),
    ] {
        let mut arguments = vec!["nightly", "--dry-run"];
        arguments.extend(day.as_deref().map(|day| ["--day", day]).into_iter().flatten());
        let (code, out, err) = env.run(&arguments).await;
        assert_eq!(code, 0, "{err}");
        assert!(
            out.starts_with("Subject: Nightbell ") && out.contains("#101: Printer on fire"),
            "{out}"
        );
    }

    assert_eq!(env.database.number(rows).await, 2);
    assert_eq!(
        env.database
            .number("select count(*) from delivery where report_day is not null")
            .await,
        0
    );
    assert!(reports(smtp.mails()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_at_one_midnight_send_one_mail() {
    let Some(database) = Database::postgres("two_processes_at_one_midnight_send_one_mail").await else {
        return;
    };
    let smtp = Smtp::start(Mode::Plain).await;
    let Some(plan) = in_berlin(database, &smtp, "two processes at midnight") else {
        return;
    };
    let env = plan.set("REPORT__WHEN", "always").build().await;
    let second = env.start_another();
    a_bad_day(&env).await;

    for day in 20..30 {
        env.turn_clock_to(&format!("2026-11-{day} 23:00:01"));
        report_is_done(&env, &format!("2026-11-{day}")).await;
    }

    let ids: std::collections::BTreeSet<String> = reports(smtp.mails()).iter().map(Mail::message_id).collect();
    assert_eq!((ids.len(), reports(smtp.mails()).len()), (10, 10));
    let both = env.service.log() + &second.log();
    assert_eq!(both.matches("made the nightly report").count(), 10, "{both}");
}
