//! How the statements that every event costs are carried out: each by an index, however much the ledger has grown. The
//! statements are those that a real service was heard to run.

use crate::{
    pages::Browser,
    support::{
        database::Database,
        env::{Plan, critical, person},
        eventually,
        receiver::{Answer, Receiver},
        zammad::Zammad,
    },
    zammad,
};
use serde_json::Value;
use std::collections::BTreeSet;

stories![
    no_acknowledgement_reads_a_whole_table,
    no_statement_on_the_path_of_an_event_reads_a_whole_table,
    no_search_reads_a_whole_table,
    nobody_is_looked_for_by_reading_the_whole_directory,
    no_round_at_a_helpdesk_reads_a_whole_table,
    nothing_that_people_text_us_reads_a_whole_table,
    no_round_at_an_endpoint_reads_a_whole_table,
];

/// The tables that grow with every event, and those of the staff directory, which may be large.
const GROWING: [&str; 14] = [
    "alert",
    "alert_event",
    "delivery",
    "attempt",
    "timeline",
    "receipt",
    "staff",
    "staff_key",
    "source_ticket",
    "ticket_note",
    "ack_code",
    "inbound_message",
    "lifecycle_event",
    "webhook_hold",
];

async fn no_statement_on_the_path_of_an_event_reads_a_whole_table(database: Database) {
    let env = Plan::on(database)
        .set("LOG__FILTER", "sqlx::query=debug")
        .set("LOG__FORMAT", "json")
        .build()
        .await;
    let (grace, mona, nina) = (person("+14155550101"), person("+14155550102"), person("+14155550103"));

    let alert = env.raise(&critical("1", &[grace.clone(), mona])).await;
    env.stand(&alert, &["accepted", "accepted"]).await;
    let duplicate = env.post(&critical("1", std::slice::from_ref(&grace))).await;
    assert_eq!(duplicate.body["outcome"], "duplicate");
    // An id that the alert has not seen, twice.
    for _ in 0..2 {
        let mut retry = critical("1", std::slice::from_ref(&grace));
        retry["id"] = serde_json::json!("evt-2");
        assert_eq!(env.post(&retry).await.body["outcome"], "duplicate");
    }
    for message in env.twilio.accepted(2).await {
        assert_eq!(env.report(&message, "sent", None).await, 204);
        assert_eq!(env.report(&message, "sent", None).await, 204);
    }
    let messages = env.twilio.messages();
    assert_eq!(env.report(&messages[0], "delivered", None).await, 204);
    assert_eq!(env.report(&messages[1], "undelivered", Some("30003")).await, 204);
    let other = env.raise(&critical("2", &[nina])).await;
    env.stand(&other, &["accepted"]).await;
    eventually("the work of a second", async || {
        let log = env.service.log();
        let seen = ["receipt r cross join attempt", "state = 'deferred'"];
        if seen.iter().all(|text| log.contains(text)) {
            Ok(())
        } else {
            Err(log.len())
        }
    })
    .await;

    let statements = statements(&env.service.log());
    for needed in [
        "insert into alert",
        "update delivery set state",
        "insert into receipt",
        "insert into attempt",
    ] {
        assert!(
            statements.iter().any(|statement| statement.starts_with(needed)),
            "`{needed}` was not heard among {statements:#?}"
        );
    }
    for statement in &statements {
        let plan = env.database.plan(statement).await;
        for line in &plan {
            assert!(!reads_everything(line), "{line}\nof {plan:#?}\nfor {statement}");
        }
    }
}

async fn no_acknowledgement_reads_a_whole_table(database: Database) {
    let env = Plan::on(database)
        .set("ACKNOWLEDGE__CODE", "true")
        .set("ACKNOWLEDGE__LINK", "true")
        .set("ACKNOWLEDGE__SECRET", "0123456789abcdef0123456789abcdef")
        .set("LOG__FILTER", "sqlx::query=debug")
        .set("LOG__FORMAT", "json")
        .build()
        .await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["accepted"]).await;
    let text = env.twilio.messages().remove(0).body;
    let token = text.split_once("/a/").unwrap().1.split_whitespace().next().unwrap();
    let other = env.raise(&critical("2", &[person("+14155550101")])).await;
    env.stand(&other, &["accepted"]).await;
    for (path, status) in [
        (format!("/a/{token}"), 200),
        (format!("/v1/alerts/{other}/acknowledge"), 200),
    ] {
        assert_eq!(env.admin(reqwest::Method::POST, &path, None).await.status, status);
    }

    let all = statements(&env.service.log());
    for needed in [
        "insert into ack_code",
        "select a.id as alert_id",
        "update alert set acknowledged_at",
    ] {
        let found = all.iter().any(|statement| statement.starts_with(needed));
        assert!(found, "`{needed}` was not heard among {all:#?}");
    }
    for statement in &all {
        let plan = env.database.plan(statement).await;
        for line in &plan {
            assert!(!reads_everything(line), "{line}\nof {plan:#?}\nfor {statement}");
        }
    }
}

async fn no_search_reads_a_whole_table(database: Database) {
    let env = Plan::on(database)
        .set("LOG__FILTER", "sqlx::query=debug")
        .set("LOG__FORMAT", "json")
        .build()
        .await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    let day = delivery["created_at"].as_str().unwrap().split('T').next().unwrap();

    let (phone, day) = ("phone=%2B14155550101".to_owned(), format!("day={day}"));
    for search in [
        "state=accepted".to_owned(),
        "ticket_id=1".to_owned(),
        format!("{phone}&state=accepted"),
        format!("{day}&state=accepted"),
        format!("{phone}&{day}"),
        phone,
        day,
    ] {
        for cursor in ["", "&cursor=ffff", "&cursor=9999999999999_ffff"] {
            let page = env.get(&format!("/v1/deliveries?{search}{cursor}")).await;
            assert_eq!(page["items"][0]["id"], delivery["id"], "{search}");
        }
    }
    assert_eq!(
        env.get("/v1/deliveries?state=failed").await["items"],
        serde_json::json!([])
    );

    for search in [
        "",
        "source=default",
        "ticket_id=1",
        "subject=printer",
        "state=open",
        "state=accepted",
        "acknowledged=false",
        "acknowledged=false&state=open",
    ] {
        let page = env.get(&format!("/v1/alerts?{search}")).await;
        assert_eq!(page["items"][0]["id"], alert, "{search}");
    }

    let path = format!("/v1/alerts/{alert}/acknowledge");
    assert_eq!(env.admin(reqwest::Method::POST, &path, None).await.status, 200);
    let page = env.get("/v1/alerts?acknowledged=true").await;
    assert_eq!(page["items"][0]["id"], alert);

    let mut browser = Browser::on(&env).await;
    for page in ["/admin/".to_owned(), format!("/admin/alerts/{alert}")] {
        assert_eq!(browser.get(&page).await.status, 200);
    }

    // A line may be a moment behind what it tells of.
    env.get("/v1/inbound?kind=help").await;
    env.service.logged("and i.kind = ").await;
    let all = statements(&env.service.log());
    let with = |start: &str| {
        let found = all.iter().filter(|statement| statement.starts_with(start));
        found.cloned().collect::<Vec<String>>()
    };
    let mut searches = with("select * from (select d.id");
    assert_eq!(searches.len(), 17, "{searches:#?}");
    let alerts = with("select a.id, a.source");
    assert_eq!(alerts.len(), 11, "with that of one alert: {alerts:#?}");
    searches.extend(alerts);
    searches.extend(with("select id from alert where id >= $1"));
    // What the overview asks, and the page of an alert.
    for asked in [
        "select id, alert_id, name, role",
        "select client_name",
        "select state, count(*)",
    ] {
        let found = with(asked);
        assert!(!found.is_empty(), "`{asked}` was not heard among {all:#?}");
        searches.extend(found);
    }
    for statement in &searches {
        let plan = env.database.plan(statement).await;
        for line in &plan {
            assert!(!reads_everything(line), "{line}\nof {plan:#?}\nfor {statement}");
        }
    }
}

async fn nobody_is_looked_for_by_reading_the_whole_directory(database: Database) {
    let env = Plan::on(database)
        .set("LOG__FILTER", "sqlx::query=debug")
        .set("LOG__FORMAT", "json")
        .build()
        .await;
    for _ in 0..2 {
        let entry = serde_json::json!({"phone": "+14155550101", "name": "Grace", "manages": ["Billing"]});
        env.admin(reqwest::Method::PUT, "/v1/staff/default/2", Some(entry))
            .await;
    }
    let mut event = critical("1", &[serde_json::json!({"name": "Grace"})]);
    event["ticket"]["group"] = serde_json::json!("Billing");
    let alert = env.raise(&event).await;
    env.stand(&alert, &["accepted"]).await;
    env.admin(reqwest::Method::DELETE, "/v1/staff/default/2", None).await;

    let all = statements(&env.service.log());
    let of_staff = all.iter().filter(|statement| statement.contains(" staff"));
    let (mut looks, mut writes) = (0, 0);
    for statement in of_staff {
        let plan = env.database.plan(statement).await;
        for line in &plan {
            assert!(!reads_everything(line), "{line}\nof {plan:#?}\nfor {statement}");
        }
        looks += usize::from(statement.starts_with("select k.key"));
        writes += usize::from(!statement.starts_with("select"));
    }
    assert!(looks == 1 && writes >= 6, "{looks} {writes} of {all:#?}");
}

async fn no_round_at_a_helpdesk_reads_a_whole_table(database: Database) {
    let zammad = Zammad::start().await;
    let env = zammad::polled(database, &zammad)
        .set("SOURCES__ACME__SECRET", "shared-secret")
        .set("SOURCES__ACME__SWEEP_EVERY", "200ms")
        .set("SOURCES__ACME__WRITE_BACK", "true")
        .set("SOURCES__ACME__DAILY_LIMIT", "1")
        .set("LOG__FILTER", "sqlx::query=debug,nightbell=info")
        .set("LOG__FORMAT", "json")
        .build()
        .await;
    env.service.logged("is polled from now on").await;
    zammad.create(1, "3 high");
    zammad.create(2, "3 high");
    let message = env.twilio.accepted(1).await.remove(0);
    eventually("a receipt to be taken", async || {
        match env.report(&message, "delivered", None).await {
            204 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    env.service.logged("wrote a note on the ticket").await;
    env.get("/v1/sources").await;

    let all = statements(&env.service.log());
    for needed in [
        "select state, people, changes",
        "select ticket_id from source_ticket",
        "select 1 from source_ticket",
        "insert into source_ticket",
        "select a.id, a.source, a.ticket_id from alert",
        "insert into ticket_note",
        "select count(*) from attempt where limited_source",
        "select distinct held_source",
    ] {
        let found = all.iter().any(|statement| statement.starts_with(needed));
        assert!(found, "`{needed}` was not heard among {all:#?}");
    }
    for statement in &all {
        let plan = env.database.plan(statement).await;
        for line in &plan {
            assert!(!reads_everything(line), "{line}\nof {plan:#?}\nfor {statement}");
        }
    }
}

async fn nothing_that_people_text_us_reads_a_whole_table(database: Database) {
    let env = Plan::on(database)
        .set("INBOUND__HELP_WORDS", "HILFE")
        .set("LOG__FILTER", "sqlx::query=debug")
        .set("LOG__FORMAT", "json")
        .build()
        .await;
    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["accepted"]).await;
    for from in ["+14155550101", "+14155550102"] {
        for body in ["on my way", "OK", "K7P", "Hilfe", "STOP", "START"] {
            assert_eq!(env.text(from, body).await.status, 200);
        }
    }
    for search in ["", "phone=%2B14155550101", "kind=opt_in", &format!("alert_id={alert}")] {
        let page = env.get(&format!("/v1/inbound?{search}")).await;
        assert!(!page["items"].as_array().unwrap().is_empty(), "{search}");
    }

    // A line may be a moment behind what it tells of.
    env.service.logged("and i.alert_id = ").await;
    let all = statements(&env.service.log());
    for needed in [
        "insert into inbound_message",
        "update inbound_message",
        "select part.alert_id, part.id, t.route",
        "select 1 from staff where phone",
        "select count(*) from (select 1 from inbound_message where unknown_at",
        "select count(*) from inbound_message where from_phone",
        "select i.id, i.channel",
    ] {
        let found = all.iter().any(|statement| statement.starts_with(needed));
        assert!(found, "`{needed}` was not heard among {all:#?}");
    }
    for statement in &all {
        let plan = env.database.plan(statement).await;
        for line in &plan {
            assert!(!reads_everything(line), "{line}\nof {plan:#?}\nfor {statement}");
        }
    }
}

/// What the service ran, each once: scripts taken apart, set-up left out.
fn statements(log: &str) -> BTreeSet<String> {
    let texts = log.lines().filter_map(|line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        // A statement of a few words is its own summary.
        let text = entry["db.statement"].as_str().filter(|text| !text.is_empty());
        Some(text.or(entry["summary"].as_str())?.to_owned())
    });
    let texts = texts.filter(|text| !text.contains("create index"));
    let parts = texts.flat_map(|text| text.split(';').map(|part| part.trim().to_owned()).collect::<Vec<_>>());
    parts
        .filter(|part| {
            let verb = part.split_whitespace().next().unwrap_or_default().to_lowercase();
            ["select", "insert", "update", "delete", "with"].contains(&verb.as_str())
                && GROWING.iter().any(|table| part.contains(table))
                && !part.contains("_sqlx_migrations")
        })
        .collect()
}

/// A step of a plan of either database that goes through a table, or a whole index of it.
fn reads_everything(line: &str) -> bool {
    if let Some(on) = line.split_once("Seq Scan on ").map(|(_, rest)| rest) {
        return GROWING.iter().any(|table| on.split_whitespace().next() == Some(*table));
    }
    let Some(rest) = line.strip_prefix("SCAN ") else {
        return false;
    };
    let name = rest.split_whitespace().next().unwrap_or_default();
    // Rows of an argument, of no table, and of subqueries that have steps of their own; and tables that stay small.
    const SMALL: &str =
        "line ahead part kept failed undelivered expired alarm mail job_run opt_out w webhook_endpoint oldest u";
    let is_small = SMALL.split(' ').any(|table| table == name);
    // It has what was written in the last moments.
    let is_small = is_small || rest.ends_with("INDEX lifecycle_event_unplaced");
    !(rest.contains("VIRTUAL TABLE") || rest.contains("CONSTANT ROW") || name.starts_with('(') || is_small)
}

async fn no_round_at_an_endpoint_reads_a_whole_table(database: Database) {
    let desk = Receiver::start().await;
    let env = Plan::on(database)
        .set("LOG__FILTER", "sqlx::query=debug")
        .set("LOG__FORMAT", "json")
        .set("WEBHOOKS__DESK__URL", &desk.url())
        .set("WEBHOOKS__DESK__ALLOW_PRIVATE", "true")
        .build()
        .await;
    desk.answers(|_, before| if before < 2 { Answer::Says(500) } else { Answer::Takes });
    let alert = env.raise(&critical("1", &[])).await;
    desk.hears(&alert, &["alert.created", "alarm.raised"]).await;
    let path = "/v1/webhooks/desk/replay";
    let body = serde_json::json!({"from": "2020-01-01T00:00:00Z"});
    assert_eq!(env.admin(reqwest::Method::POST, path, Some(body)).await.status, 200);
    assert_eq!(
        env.admin(reqwest::Method::POST, "/v1/webhooks/desk/enable", None)
            .await
            .status,
        200
    );
    env.get("/v1/webhooks").await;

    let all = statements(&env.service.log());
    let of_endpoints =
        |statement: &&String| statement.contains("lifecycle_event") || statement.contains("webhook_hold");
    let heard: Vec<&String> = all.iter().filter(of_endpoints).collect();
    for needed in [
        "update lifecycle_event set place",
        "insert into webhook_hold",
        "delete from webhook_hold",
        "select h.tries",
        "select e.place",
        "select w.name",
    ] {
        assert!(
            heard.iter().any(|statement| statement.contains(needed)),
            "`{needed}` was not heard among {heard:#?}"
        );
    }
    for statement in heard {
        let plan = env.database.plan(statement).await;
        for line in &plan {
            assert!(!reads_everything(line), "{line}\nof {plan:#?}\nfor {statement}");
        }
    }
}
