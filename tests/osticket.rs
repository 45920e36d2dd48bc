//! Stories of an osTicket whose database is polled: a real MariaDB with osTicket's tables, and agents who work there.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv},
    eventually,
    mariadb::MariaDb,
    osticket::{OsTicket, log_of},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row};
use std::collections::BTreeSet;

stories![
    a_ticket_that_is_raised_is_texted_about_once_to_everybody_it_names,
    what_is_critical_at_the_first_start_is_left_alone,
    a_ticket_that_is_closed_or_lowered_is_texted_about_no_more,
    a_team_is_texted_while_nobody_of_it_has_the_ticket,
    a_cache_that_is_missing_hides_no_ticket,
    a_helpdesk_that_was_down_is_asked_again_and_nothing_is_missed,
    a_restart_misses_nothing,
    an_event_that_is_committed_late_is_found,
    a_change_without_an_event_is_found_by_looking_at_all,
    a_list_of_events_that_begins_anew_is_followed,
];

const SOURCE: &str = "help";

/// A service that polls this osTicket ten times a second, and looks at all of it only at the beginning.
fn polling(database: Database, url: &str) -> Plan {
    Plan::on(database)
        .set("SOURCES__HELP__KIND", "osticket")
        .set("SOURCES__HELP__URL", url)
        .set("SOURCES__HELP__BASE_URL", "https://tickets.example.com/support/")
        .set("SOURCES__HELP__POLL_EVERY", "100ms")
        .set("SOURCES__HELP__SWEEP_EVERY", "1h")
}

/// The service, after its first look.
async fn begun(plan: Plan) -> TestEnv {
    let env = plan.build().await;
    env.service.logged("the helpdesk is polled from now on").await;
    env
}

/// The alert of a ticket, once there is one that stands as wanted.
async fn alert(env: &TestEnv, ticket: i64, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/v1/alerts?source={SOURCE}&ticket_id={ticket}");
    eventually("the alert of a ticket", async || {
        let found = env.get(&path).await["items"][0].clone();
        if !found.is_null() && is_wanted(&found) {
            Ok(found)
        } else {
            Err(found)
        }
    })
    .await
}

/// Waits until the poll has read all events of the helpdesk, and with them the whole change of this moment.
async fn caught_up(env: &TestEnv, osticket: &OsTicket<'_>) {
    let newest = osticket
        .number("select max(id) from ost_thread_event")
        .await
        .to_string();
    eventually("the poll to catch up", async || {
        let position = env.database.texts("select position from source_poll").await;
        let id = position.first().and_then(|position| position.split('.').next());
        if id == Some(&*newest) { Ok(()) } else { Err(position) }
    })
    .await;
}

async fn a_ticket_that_is_raised_is_texted_about_once_to_everybody_it_names(database: Database) {
    let Some(server) = MariaDb::running("a_ticket_that_is_raised_is_texted_about_once").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let grace = osticket.staff("Grace", "(415) 555-0101").await;
    let mona = osticket.staff("Mona", "").await;
    let ivan = osticket.staff("Ivan", "+14155550103").await;
    osticket
        .run(&format!(
            "update ost_staff set phone = '+1 415 555 0102', onvacation = 1 where staff_id = {mona};
             update ost_department set manager_id = {mona};
             update ost_organization set manager = 's{ivan}'"
        ))
        .await;
    let env = begun(polling(database, &osticket.url())).await;
    let ticket = osticket.ticket("Checkout page 500 error").await;
    osticket.answer(ticket, "95", "4.5").await;
    osticket.assign(ticket, grace).await;

    osticket.raise(ticket).await;

    let messages = env.twilio.accepted(3).await;
    let numbers: BTreeSet<&str> = messages.iter().map(|message| message.to.as_str()).collect();
    assert_eq!(
        numbers,
        BTreeSet::from(["+14155550101", "+14155550102", "+14155550103"])
    );
    for piece in [
        "Checkout page 500 error".to_owned(),
        "Client: Acme Corp".to_owned(),
        "CRITICAL (95%)".to_owned(),
        "Est. Hours: 4.5".to_owned(),
        format!("https://tickets.example.com/support/scp/tickets.php?id={ticket}"),
    ] {
        assert!(messages[0].body.contains(&piece), "{piece} in {}", messages[0].body);
    }
    let raised = alert(&env, ticket, |_| true).await;
    let mut roles: Vec<String> = raised["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| format!("{} {}", delivery["recipient"]["role"], delivery["recipient"]["name"]))
        .collect();
    roles.sort();
    assert_eq!(
        roles,
        [
            r#""assignee" "Grace Hopper""#,
            r#""manager" "Mona Hopper""#,
            r#""project_manager" "Ivan Hopper""#
        ]
    );
    // The machine of the helpdesk has another time zone.
    let at: jiff::Timestamp = raised["occurred_at"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(at);
    assert!(age.abs().as_secs() < 120, "{raised}");

    // Whatever else happens to it, nobody is texted again.
    osticket.set_priority(ticket, "high").await;
    caught_up(&env, &osticket).await;
    alert(&env, ticket, |alert| !alert["closed_at"].is_null()).await;
    osticket.raise(ticket).await;
    osticket.assign(ticket, ivan).await;
    let other = osticket.ticket("Another").await;
    osticket.assign(other, ivan).await;
    osticket.raise(other).await;
    caught_up(&env, &osticket).await;
    let messages = env.twilio.accepted(5).await;
    let about_first = messages.iter().filter(|message| message.body.contains("Checkout"));
    assert_eq!((about_first.count(), messages.len()), (3, 5));
}

async fn what_is_critical_at_the_first_start_is_left_alone(database: Database) {
    let Some(server) = MariaDb::running("what_is_critical_at_the_first_start").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let grace = osticket.staff("Grace", "+14155550101").await;
    for number in 0..5 {
        let ticket = osticket.ticket(&format!("Old {number}")).await;
        osticket.assign(ticket, grace).await;
        osticket.raise(ticket).await;
    }
    let env = begun(polling(database, &osticket.url())).await;

    let ticket = osticket.ticket("New").await;
    osticket.assign(ticket, grace).await;
    osticket.raise(ticket).await;

    let messages = env.twilio.accepted(1).await;
    assert!(messages.len() == 1 && messages[0].body.contains("New"), "{messages:?}");
    let log = env.service.logged("the helpdesk is polled from now on").await;
    assert!(log.contains("tickets=5"), "{log}");
}

async fn a_ticket_that_is_closed_or_lowered_is_texted_about_no_more(database: Database) {
    let Some(server) = MariaDb::running("a_ticket_that_is_closed_or_lowered").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let grace = osticket.staff("Grace", "+14155550101").await;
    let env = begun(polling(database, &osticket.url()).set("DAILY_LIMIT", "0")).await;
    let (closed, lowered) = (osticket.ticket("Closed").await, osticket.ticket("Lowered").await);
    for ticket in [closed, lowered] {
        osticket.assign(ticket, grace).await;
        osticket.raise(ticket).await;
        alert(&env, ticket, |alert| alert["deliveries"][0]["state"] == "deferred").await;
    }

    osticket.close(closed).await;
    osticket.set_priority(lowered, "low").await;

    for ticket in [closed, lowered] {
        alert(&env, ticket, |alert| alert["deliveries"][0]["state"] == "canceled").await;
    }
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;
    let other = osticket.ticket("Other").await;
    osticket.assign(other, grace).await;
    osticket.raise(other).await;
    let messages = env.twilio.accepted(1).await;
    assert!(
        messages.len() == 1 && messages[0].body.contains("Other"),
        "{messages:?}"
    );
}

async fn a_team_is_texted_while_nobody_of_it_has_the_ticket(database: Database) {
    let Some(server) = MariaDb::running("a_team_is_texted").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let mut people = Vec::new();
    for (name, phone) in [
        ("Ada", "+14155550101"),
        ("Bob", "+14155550102"),
        ("Cyd", "+14155550103"),
    ] {
        people.push(osticket.staff(name, phone).await);
    }
    let (ada, bob, cyd) = (people[0], people[1], people[2]);
    osticket
        .run(&format!(
            "insert into ost_team values (1, {ada}, 'Night');
             insert into ost_team_member (team_id, staff_id) values (1, {ada}), (1, {bob}), (1, {cyd});
             update ost_staff set isactive = 0 where staff_id = {cyd}"
        ))
        .await;
    let env = begun(polling(database, &osticket.url())).await;
    let ticket = osticket.ticket("For the team").await;
    osticket.assign(ticket, cyd).await;
    osticket.assign_team(ticket, 1).await;

    osticket.raise(ticket).await;

    let messages = env.twilio.accepted(2).await;
    let numbers: BTreeSet<&str> = messages.iter().map(|message| message.to.as_str()).collect();
    assert_eq!(numbers, BTreeSet::from(["+14155550101", "+14155550102"]));
}

async fn a_cache_that_is_missing_hides_no_ticket(database: Database) {
    let Some(server) = MariaDb::running("a_cache_that_is_missing_hides_no_ticket").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let grace = osticket.staff("Grace", "+14155550101").await;
    let env = begun(polling(database, &osticket.url()).set("SOURCES__HELP__SWEEP_EVERY", "100ms")).await;
    let first = osticket.ticket("First").await;
    osticket.assign(first, grace).await;

    // As an admin's change of a form does.
    osticket.run("drop table ost_ticket__cdata").await;
    osticket.raise(first).await;

    env.twilio.accepted(1).await;
    let second = osticket.ticket("Second").await;
    osticket.assign(second, grace).await;
    osticket.raise(second).await;
    env.twilio.accepted(2).await;
    assert!(!env.service.log().contains("cannot ask the helpdesk"));
}

async fn a_helpdesk_that_was_down_is_asked_again_and_nothing_is_missed(database: Database) {
    let Some(server) = MariaDb::own("a_helpdesk_that_was_down").await else {
        return;
    };
    let osticket = OsTicket::on(&server).await;
    let grace = osticket.staff("Grace", "+14155550101").await;
    let ticket = osticket.ticket("While you were out").await;
    osticket.assign(ticket, grace).await;
    let env = begun(polling(database, &osticket.url())).await;

    server.stop().await;
    let log = env.service.logged("cannot ask the helpdesk").await;
    server.start();
    osticket.raise(ticket).await;

    let messages = env.twilio.accepted(1).await;
    assert!(messages[0].body.contains("While you were out"));
    env.service.logged("the helpdesk answers again").await;
    assert!(!log.contains("hush"), "{log}");
    let complaints = env.service.log().matches("cannot ask the helpdesk").count();
    assert_eq!(complaints, 1, "a helpdesk that stays down is told of once");
}

async fn a_restart_misses_nothing(database: Database) {
    let Some(server) = MariaDb::running("a_restart_misses_nothing").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let grace = osticket.staff("Grace", "+14155550101").await;
    let mut env = begun(polling(database, &osticket.url())).await;
    let mut tickets = Vec::new();
    for number in 0..3 {
        let ticket = osticket.ticket(&format!("Number {number}")).await;
        osticket.assign(ticket, grace).await;
        tickets.push(ticket);
    }
    osticket.raise(tickets[0]).await;
    env.twilio.accepted(1).await;

    env.service.kill();
    // What it was at, if it was at something, belongs to it for two minutes.
    env.database.execute("update source_poll set lease_until = null").await;
    osticket.raise(tickets[1]).await;
    // More than is read at once.
    let lines = vec!["(1, 9, now())"; 700].join(", ");
    osticket
        .run(&format!(
            "insert into ost_thread_event (thread_id, event_id, timestamp) values {lines}"
        ))
        .await;
    osticket.raise(tickets[2]).await;
    env.restart();

    let messages = env.twilio.accepted(3).await;
    let texts: BTreeSet<bool> = (0..3)
        .map(|number| {
            messages
                .iter()
                .filter(|message| message.body.contains(&format!("Number {number}")))
                .count()
                == 1
        })
        .collect();
    assert_eq!(texts, BTreeSet::from([true]), "{messages:?}");
}

async fn an_event_that_is_committed_late_is_found(database: Database) {
    let Some(server) = MariaDb::running("an_event_that_is_committed_late_is_found").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let grace = osticket.staff("Grace", "+14155550101").await;
    let (late, early) = (osticket.ticket("Late").await, osticket.ticket("Early").await);
    osticket.assign(late, grace).await;
    osticket.assign(early, grace).await;
    let env = begun(polling(database, &osticket.url())).await;

    let mut slow = osticket.connect().await;
    sqlx::raw_sql("begin").execute(&mut slow).await.unwrap();
    let insert = AssertSqlSafe(log_of(late, "edited", "{}"));
    sqlx::raw_sql(insert).execute(&mut slow).await.unwrap();
    osticket.raise(early).await;
    env.twilio.accepted(1).await;
    caught_up(&env, &osticket).await;
    osticket.set_priority_silently(late, "emergency").await;
    sqlx::raw_sql("commit").execute(&mut slow).await.unwrap();

    let messages = env.twilio.accepted(2).await;
    assert!(messages[1].body.contains("Late"), "{messages:?}");
}

async fn a_change_without_an_event_is_found_by_looking_at_all(database: Database) {
    let Some(server) = MariaDb::running("a_change_without_an_event_is_found").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let grace = osticket.staff("Grace", "+14155550101").await;
    let ticket = osticket.ticket("Behind your back").await;
    osticket.assign(ticket, grace).await;
    // So far back that its own events are not read again.
    let lines = vec!["(0, 9, now())"; 300].join(", ");
    osticket
        .run(&format!(
            "insert into ost_thread_event (thread_id, event_id, timestamp) values {lines}"
        ))
        .await;
    let env = begun(polling(database, &osticket.url()).set("SOURCES__HELP__SWEEP_EVERY", "200ms")).await;

    osticket.set_priority_silently(ticket, "emergency").await;

    let messages = env.twilio.accepted(1).await;
    assert!(messages[0].body.contains("Behind your back"));
    osticket
        .run(&format!(
            "update ost_ticket set status_id = 3 where ticket_id = {ticket}"
        ))
        .await;
    alert(&env, ticket, |alert| !alert["closed_at"].is_null()).await;
}

async fn a_list_of_events_that_begins_anew_is_followed(database: Database) {
    let Some(server) = MariaDb::running("a_list_of_events_that_begins_anew_is_followed").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let grace = osticket.staff("Grace", "+14155550101").await;
    let ticket = osticket.ticket("Restored").await;
    osticket.assign(ticket, grace).await;
    osticket
        .run("insert into ost_thread_event (id, thread_id, event_id, timestamp) values (5000, 0, 9, now())")
        .await;
    let env = begun(polling(database, &osticket.url())).await;
    caught_up(&env, &osticket).await;

    // As after an older back-up was restored.
    osticket
        .run("delete from ost_thread_event where id > 1; alter table ost_thread_event auto_increment = 2")
        .await;
    osticket.raise(ticket).await;

    let messages = env.twilio.accepted(1).await;
    assert!(messages[0].body.contains("Restored"));
    caught_up(&env, &osticket).await;
}

/// What an admin has to do is said, without the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_way_to_the_helpdesk_is_said() {
    let Some(server) = MariaDb::running("what_is_wrong_with_the_way_to_the_helpdesk_is_said").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let name = osticket.name();
    let limited = format!("{name}_l");
    osticket
        .run(&format!(
            "create user {limited} identified by 'hush'; grant select on {name}.ost_thread_event to {limited}"
        ))
        .await;
    let port = server.port;
    let cases = [
        (
            osticket.url_with("hushed"),
            "ost_",
            "refuses the user or the password in `url`",
        ),
        (
            osticket.url(),
            "support_",
            "has no table `support_thread_event`: is `table_prefix` (`support_`) right?",
        ),
        (
            format!("mysql://{limited}:hush@127.0.0.1:{port}/{name}"),
            "ost_",
            "does not let the user in `url` read `ost_ticket_priority`: `GRANT SELECT` on it",
        ),
        (
            format!("mysql://{name}:hush@127.0.0.1:{port}/osticket"),
            "ost_",
            "has no database `osticket`, or the user in `url` may not use it",
        ),
        (
            "mysql://sms:hush@127.0.0.1:1/osticket".to_owned(),
            "ost_",
            "127.0.0.1:1 does not answer: is it running",
        ),
        (
            "mysql://sms:hush@nowhere.invalid/osticket".to_owned(),
            "ost_",
            "is the host in `url` right",
        ),
    ];
    // It takes connections and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute_url = format!("mysql://sms:hush@{}/osticket", mute.local_addr().unwrap());
    let mute_case = (mute_url, "ost_", "did not answer within 10 seconds");
    for (url, prefix, wanted) in cases.into_iter().chain([mute_case]) {
        let plan = polling(Database::sqlite(), &url).set("SOURCES__HELP__TABLE_PREFIX", prefix);
        let env = plan.build().await;

        let log = env.service.logged("cannot ask the helpdesk").await;

        assert!(log.contains(wanted) && !log.contains("hush"), "{wanted} in {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_helpdesk_without_a_critical_priority_is_no_silent_one() {
    let Some(server) = MariaDb::running("a_helpdesk_without_a_critical_priority_is_no_silent_one").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let plan = polling(Database::sqlite(), &osticket.url()).set("SOURCES__HELP__URGENCY__EMERGENCY", "high");
    let env = plan.build().await;

    let log = env.service.logged("cannot ask the helpdesk").await;

    let wanted = "none of osTicket's priorities (emergency, high, normal, low) counts as critical";
    assert!(log.contains(wanted), "{log}");
}

/// Every question goes by a key, so that it costs a helpdesk of any size the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_question_reads_a_whole_table() {
    let Some(server) = MariaDb::own("no_question_reads_a_whole_table").await else {
        return;
    };
    let osticket = OsTicket::on(&server).await;
    osticket
        .run(
            "insert into ost_staff (username, firstname) select concat('s', seq), 'x' from seq_1_to_5000;
             insert into ost_team (lead_id, name) select seq, concat('t', seq) from seq_1_to_5000;
             insert into ost_team_member (team_id, staff_id) select 1 + seq % 5000, 1 + seq % 4999 from seq_1_to_20000;
             insert into ost_department (name, manager_id) select concat('d', seq), seq from seq_1_to_5000;
             insert into ost_organization (name, manager) select concat('o', seq), concat('t', seq) from seq_1_to_5000;
             insert into ost_user (org_id, name) select 1 + seq % 5000, 'x' from seq_1_to_5000;
             insert into ost_form_field (form_id, type, label, name) select 3, 'text', 'x', concat('f', seq) from seq_1_to_100;
             insert into ost_ticket (number, user_id, status_id, dept_id, team_id, created, updated)
                select seq, seq, if(seq % 10 = 0, 1, 3), seq, seq, now(), now() from seq_1_to_5000;
             insert into ost_form_entry (form_id, object_id, created) select 2, ticket_id, now() from ost_ticket order by ticket_id;
             insert into ost_form_entry_values select id, 20, 'x', null from ost_form_entry;
             insert into ost_form_entry_values select id, 22, 'Normal', if(id % 100 = 0, 4, 2) from ost_form_entry;
             insert into ost_thread (object_id, object_type, created) select ticket_id, 'T', now() from ost_ticket;
             insert into ost_thread_event (thread_id, event_id, timestamp) select 1 + seq % 5000, 9, now() from seq_1_to_20000;
             analyze table ost_ticket, ost_form_entry, ost_form_entry_values, ost_thread, ost_thread_event, ost_staff, ost_team,
                ost_team_member, ost_department, ost_organization, ost_user, ost_form_field;
             set global general_log = on",
        )
        .await;
    let grace = osticket.staff("Grace", "+14155550101").await;
    let plan = polling(Database::sqlite(), &osticket.url()).set("SOURCES__HELP__SWEEP_EVERY", "100ms");
    let env = begun(plan).await;
    let ticket = osticket.ticket("Slow").await;
    osticket.assign(ticket, grace).await;
    osticket.raise(ticket).await;
    env.twilio.accepted(1).await;
    osticket.close(ticket).await;
    alert(&env, ticket, |alert| !alert["closed_at"].is_null()).await;

    let mut admin = osticket.connect().await;
    let said = sqlx::query_scalar::<_, String>(AssertSqlSafe(format!(
        "select distinct cast(argument as char) from mysql.general_log where user_host like '{}%' and argument like '%select%ost\\_%'",
        osticket.name()
    )));
    let questions = said.fetch_all(&mut admin).await.unwrap();

    let mut kinds = BTreeSet::new();
    for question in &questions {
        let rows = sqlx::raw_sql(AssertSqlSafe(format!("explain {question}")))
            .fetch_all(&mut admin)
            .await
            .unwrap();
        for row in rows {
            let (table, way): (Option<String>, Option<String>) = (row.get("table"), row.get("type"));
            let table = table.unwrap_or_default();
            // The four priorities are read whole.
            let is_scan = matches!(way.as_deref(), Some("ALL" | "index")) && table != "ost_ticket_priority";
            assert!(
                !is_scan || table.starts_with("<union"),
                "{table} is read whole for {question}"
            );
            kinds.insert(table);
        }
    }
    let tables = [
        "e",
        "f",
        "fo",
        "ost_staff",
        "ost_team_member",
        "p",
        "t",
        "te",
        "th",
        "u",
        "v",
    ];
    assert!(tables.iter().all(|table| kinds.contains(*table)), "{kinds:?}");
}
