//! Stories of `nightbell import osticket-sms`: what PHP code for SMS left in osTicket's database is taken over.

use crate::{
    admin_commands::with_commands,
    support::{
        database::Database,
        env::{Plan, TestEnv, critical, person},
        mariadb::MariaDb,
        osticket::OsTicket,
    },
};
use reqwest::Method;
use serde_json::{Value, json};

stories![
    tickets_that_were_texted_about_never_are_again_and_opt_outs_stay,
    a_dry_run_counts_and_changes_nothing,
    it_is_taken_over_without_a_service_too,
    an_alert_that_was_taken_over_is_told_as_what_it_is,
];

/// Its tables as such code has them: a row for each text, and times of the helpdesk's machine.
const OLD_TABLES: &str = "
create table ost_ticket_sms_alert (id int auto_increment primary key, ticket_id int unsigned not null, phone varchar(32), twilio_sid varchar(64),
    sent_at datetime);
insert into ost_ticket_sms_alert (ticket_id, sent_at) values (7, '2026-03-01 12:00:00'), (7, '2026-03-01 12:00:05'),
    (8, '2026-03-02 12:00:00'), (9, null), (0, now());
create table ost_twilio_sms_optout (phone_number varchar(32) not null, staff_id int, created datetime);
insert into ost_twilio_sms_optout values ('(415) 555-0101', 2, '2026-01-01 00:00:00'), ('+14155550102', 0, null), ('555-01', 3, now()),
    ('+1 415 555 0102', 4, now());
";

async fn old_helpdesk<'a>(server: &'a MariaDb) -> OsTicket<'a> {
    let osticket = OsTicket::on(server).await;
    osticket.run(OLD_TABLES).await;
    osticket
}

async fn import(env: &TestEnv, url: &str, more: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["import", "osticket-sms", "--url", url, "--region", "US"];
    arguments.extend(more);
    env.run(&arguments).await
}

async fn import_json(env: &TestEnv, url: &str, more: &[&str]) -> (i32, Value) {
    let (code, said, trouble) = import(env, url, &[&["--json"], more].concat()).await;
    let document = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said} {trouble}"));
    (code, document)
}

fn counts(part: &Value) -> (i64, i64, usize) {
    let number = |name: &str| part[name].as_i64().unwrap();
    (
        number("added"),
        number("known"),
        part["refused"].as_array().unwrap().len(),
    )
}

async fn tickets_that_were_texted_about_never_are_again_and_opt_outs_stay(database: Database) {
    let Some(server) = MariaDb::running("tickets_that_were_texted_about_never_are_again").await else {
        return;
    };
    let osticket = old_helpdesk(server).await;
    let env = with_commands(Plan::on(database).set("SOURCES__DEFAULT__LATER_RECIPIENTS", "each")).await;
    env.raise(&critical("9", &[person("+14155550109")])).await;

    let (code, said, _) = import(&env, &osticket.url(), &[]).await;

    assert_eq!(code, 1, "lines were left out: {said}");
    for line in [
        "opt-outs: `ost_twilio_sms_optout`, opted out from `created`, phone from `phone_number`, staff id from `staff_id`",
        "  2 opt-outs added, 1 known before, 1 line left out",
        "alerts: `ost_ticket_sms_alert`, sent from `sent_at`, ticket id from `ticket_id`; not read: id, phone, twilio_sid",
        "  2 tickets added, 1 known before, 1 line left out",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert!(!said.contains("555-01"), "{said}");
    // Whatever comes of these tickets, however it comes.
    let mut event = critical("7", &[person("+14155550103")]);
    for id in [Value::Null, json!("a"), json!("b")] {
        event["id"] = id;
        let reply = env.post(&event).await;
        assert_eq!(
            (reply.status, &reply.body["outcome"]),
            (200, &json!("duplicate")),
            "{reply:?}"
        );
    }
    let over = json!({"type": "ticket.closed", "ticket": {"id": "7"}});
    assert_eq!(env.post(&over).await.body["outcome"], "resolved");
    event["id"] = json!("c");
    assert_eq!(env.post(&event).await.body["outcome"], "duplicate");
    // Others are told of, but for who opted out.
    let people = [person("+14155550101"), person("+14155550102"), person("+14155550104")];
    let alert = env.raise(&critical("10", &people)).await;
    env.stand(&alert, &["suppressed", "suppressed", "accepted"]).await;
    let numbers: Vec<String> = env.twilio.messages().into_iter().map(|message| message.to).collect();
    assert_eq!(numbers, ["+14155550109", "+14155550104"]);

    let (_, again) = import_json(&env, &osticket.url(), &[]).await;

    assert_eq!(
        (counts(&again["alerts"]), counts(&again["opt_outs"])),
        ((0, 3, 1), (0, 3, 1))
    );
    assert_eq!(env.twilio.messages().len(), 2);
}

async fn a_dry_run_counts_and_changes_nothing(database: Database) {
    let Some(server) = MariaDb::running("a_dry_run_counts_and_changes_nothing").await else {
        return;
    };
    let osticket = old_helpdesk(server).await;
    let env = with_commands(Plan::on(database)).await;
    env.raise(&critical("8", &[person("+14155550109")])).await;
    let opt_out = json!({"phone": "+14155550101"});
    env.admin(Method::POST, "/v1/opt-outs", Some(opt_out)).await;

    let (_, counted) = import_json(&env, &osticket.url(), &["--dry-run"]).await;

    assert_eq!(counted["dry_run"], true);
    assert_eq!(
        (counts(&counted["alerts"]), counts(&counted["opt_outs"])),
        ((2, 1, 1), (1, 2, 1))
    );
    assert_eq!(counted["alerts"]["columns"]["ticket id"], "ticket_id");
    assert_eq!(env.get("/v1/alerts").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(env.get("/v1/opt-outs").await["items"].as_array().unwrap().len(), 1);
    let (_, done) = import_json(&env, &osticket.url(), &[]).await;
    assert_eq!(
        (counts(&done["alerts"]), counts(&done["opt_outs"])),
        ((2, 1, 1), (1, 2, 1))
    );
    let (_, only) = import_json(&env, &osticket.url(), &["--only", "alerts"]).await;
    assert!(
        only["opt_outs"].is_null() && counts(&only["alerts"]) == (0, 3, 1),
        "{only}"
    );
}

async fn it_is_taken_over_without_a_service_too(database: Database) {
    let Some(server) = MariaDb::running("it_is_taken_over_without_a_service_too").await else {
        return;
    };
    let osticket = old_helpdesk(server).await;
    // The way there may stand in the configuration.
    let plan = Plan::on(database)
        .set("SOURCES__HELP__KIND", "osticket")
        .set("SOURCES__HELP__URL", &osticket.url())
        .set("SOURCES__HELP__REGION", "US");
    let mut env = plan.build().await;
    env.service.kill();

    let (code, said, trouble) = env.run(&["import", "osticket-sms", "--source", "help"]).await;

    assert!(
        code == 1 && said.contains("3 tickets added, 0 known before"),
        "{said} {trouble}"
    );
    env.restart();
    let event = json!({"source": "help", "ticket": {"id": 9, "subject": "x", "urgency": "critical"},
        "recipients": [person("+14155550103")]});
    assert_eq!(env.post(&event).await.body["outcome"], "duplicate");
}

async fn an_alert_that_was_taken_over_is_told_as_what_it_is(database: Database) {
    let Some(server) = MariaDb::running("an_alert_that_was_taken_over_is_told_as_what_it_is").await else {
        return;
    };
    let osticket = old_helpdesk(server).await;
    let env = with_commands(Plan::on(database)).await;
    import(&env, &osticket.url(), &[]).await;
    let new = env.raise(&critical("10", &[person("+14155550104")])).await;

    let alerts = env.get("/v1/alerts").await["items"].clone();
    let explained = env.run(&["explain", "7"]).await;

    // It stands where it belongs, by the time of the helpdesk's own zone, five hours behind.
    let order: Vec<&Value> = alerts
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| &alert["ticket_id"])
        .collect();
    assert_eq!(order, ["10", "9", "8", "7"]);
    assert_eq!(alerts[0]["id"], new);
    assert_eq!(alerts[3]["received_at"], "2026-03-01T17:00:00Z");
    assert!(!alerts[3]["imported_at"].is_null() && alerts[3]["closed_at"] == alerts[3]["imported_at"]);
    assert!(alerts[0]["imported_at"].is_null());
    assert!(
        explained
            .1
            .contains("The system before Nightbell texted for this ticket"),
        "{explained:?}"
    );
    let day = env.get("/v1/alerts?day=2026-03-01").await;
    assert_eq!(day["items"].as_array().unwrap().len(), 1, "{day}");
    let overview = env.get("/v1/alerts?state=open").await;
    assert_eq!(overview["items"].as_array().unwrap().len(), 1, "{overview}");
}

/// What cannot be taken over is said, and then nothing is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_not_understood_are_refused() {
    let Some(server) = MariaDb::running("tables_that_are_not_understood_are_refused").await else {
        return;
    };
    let osticket = OsTicket::on(server).await;
    let env = with_commands(Plan::on(Database::sqlite())).await;
    let url = osticket.url();

    let (code, _, said) = import(&env, &url, &[]).await;
    assert!(
        code == 1 && said.contains("there is no table `ost_ticket_sms_alert`"),
        "{code} {said}"
    );

    osticket
        .run("create table ost_ticket_sms_alert (id int, sid text); create table ost_twilio_sms_optout (staff_id int)")
        .await;
    let (code, _, said) = import(&env, &url, &[]).await;
    let wanted = "has no column for the ticket id (looked for ticket_id, ticket; it has id, sid)";
    assert!(code == 1 && said.contains(wanted), "{code} {said}");
    let (code, _, said) = import(&env, &url, &["--only", "opt-outs"]).await;
    assert!(
        code == 1 && said.contains("has no column for the phone"),
        "{code} {said}"
    );

    let (code, _, said) = import(&env, &osticket.url_with("wrong"), &[]).await;
    assert!(
        code == 1 && said.contains("refuses the user or the password") && !said.contains("wrong@"),
        "{code} {said}"
    );
    let (code, _, said) = import(&env, "postgres://x", &[]).await;
    assert!(
        code == 2 && said.contains("`--url` is not the address of a MySQL"),
        "{code} {said}"
    );
    let (code, _, said) = import(&env, &url, &["--source", "acme"]).await;
    assert!(
        code == 2 && said.contains("no source `acme` is configured"),
        "{code} {said}"
    );
    let (code, _, said) = env.run(&["import", "osticket-sms"]).await;
    assert!(
        code == 2 && said.contains("osTicket's database is not named"),
        "{code} {said}"
    );
    assert_eq!(env.get("/v1/alerts").await["items"].as_array().unwrap().len(), 0);
}
