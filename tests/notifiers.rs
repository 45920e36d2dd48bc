//! Notifiers: services of a team, mail, and tickets hear of what happens, each in its own form.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
    eventually,
    services::{NTFY_TOKEN, Services},
    smtp::{Mode, Smtp},
    twilio::Answers,
};
use reqwest::Method;
use serde_json::json;

stories![
    each_service_hears_of_an_alert_in_its_own_form,
    names_and_subjects_are_told_only_where_it_is_wanted,
    a_service_that_refuses_hears_of_it_again_and_a_slow_one_keeps_nobody_waiting,
    an_event_is_mailed_to_whom_the_endpoint_names_once,
    any_helpdesk_is_written_back_to_by_a_template,
    who_was_reached_by_a_second_message_was_reached,
];

/// An endpoint `name` of this kind, which listens on this machine.
fn with(plan: Plan, name: &str, kind: &str, url: &str) -> Plan {
    let key = |member: &str| format!("WEBHOOKS__{name}__{member}");
    plan.set(&key("KIND"), kind)
        .set(&key("URL"), url)
        .set(&key("ALLOW_PRIVATE"), "true")
}

/// All services of a team.
fn team(database: Database, services: &Services) -> Plan {
    let mut plan = Plan::on(database);
    for name in ["slack", "mattermost", "teams"] {
        plan = with(plan, &name.to_uppercase(), name, &format!("{}/{name}", services.url));
    }
    with(plan, "PHONES", "ntfy", &services.url)
        .set("WEBHOOKS__PHONES__TOPIC", "night-alerts")
        .set("WEBHOOKS__PHONES__TOKEN", NTFY_TOKEN)
}

async fn report(env: &TestEnv, phone: &str, status: &str, code: Option<&str>) {
    let message = env.twilio.messages_to(phone).remove(0);
    eventually("a receipt to be taken", async || {
        let answer = env.report(&message, status, code).await;
        if answer == 204 { Ok(()) } else { Err(answer) }
    })
    .await;
}

async fn each_service_hears_of_an_alert_in_its_own_form(database: Database) {
    let services = Services::start().await;
    let env = team(database, &services).build().await;
    let grace = env.phone("+14155550101", [Answers::Accepts]);

    let alert = env.raise(&critical("1", &[grace])).await;
    env.stand(&alert, &["accepted"]).await;
    let slack = &services.receives("/slack", 1).await[0];
    report(&env, "+14155550101", "undelivered", Some("30003")).await;

    let text = slack.body["text"].as_str().unwrap();
    assert!(
        text.starts_with("*Critical ticket: #101*\nOne person is being told.\nSource default, "),
        "{text}"
    );
    assert!(text.ends_with("\n<https://tickets.example.com/1|Open>"), "{text}");
    let text = services.receives("/mattermost", 1).await[0].body["text"].to_string();
    assert!(
        text.contains("**Critical ticket: \\\\#101**") && text.contains("[Open](https://tickets.example.com/1)"),
        "{text}"
    );
    let card = &services.receives("/teams", 1).await[0].body["attachments"][0]["content"];
    assert_eq!(card["body"][0]["inlines"][0]["text"], "Critical ticket: #101");
    assert_eq!(card["actions"][0]["url"], "https://tickets.example.com/1");
    // Everything that is there by default, in the order in which it happened.
    let heard: Vec<(String, i64)> = services
        .receives("/", 3)
        .await
        .into_iter()
        .filter(|taken| taken.path == "/")
        .map(|taken| {
            (
                taken.body["title"].as_str().unwrap().to_owned(),
                taken.body["priority"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(heard[0], ("Critical ticket: #101".to_owned(), 4));
    let titles = eventually("three messages to the phones", async || {
        let taken = services.taken("/").into_iter().filter(|taken| taken.path == "/");
        let titles: Vec<String> = taken
            .map(|taken| taken.body["title"].as_str().unwrap().to_owned())
            .collect();
        if titles.len() == 3 { Ok(titles) } else { Err(titles) }
    })
    .await;
    assert_eq!(
        titles,
        [
            "Critical ticket: #101",
            "SMS failed: #101",
            "Alarm (nobody was told): #101"
        ]
    );
    let everything = format!("{:?}", services.taken(""));
    assert!(
        !everything.contains("Printer on fire") && !everything.contains("Grace"),
        "{everything}"
    );
}

async fn names_and_subjects_are_told_only_where_it_is_wanted(database: Database) {
    let services = Services::start().await;
    let env = team(database, &services)
        .set("WEBHOOKS__SLACK__INCLUDE_PERSONAL", "true")
        .set("WEBHOOKS__SLACK__EVENTS", "delivery.*")
        .set("WEBHOOKS__TEAMS__SOURCES", "other")
        .set("SOURCES__OTHER__TOKENS", "other-token")
        .build()
        .await;
    let mut grace = env.phone("+14155550101", [Answers::Accepts]);
    grace["staff_id"] = json!("2");
    let mut event = critical("1", &[grace]);
    event["ticket"]["subject"] = json!("Printer <!channel> & @all on \"fire\"");

    let alert = env.raise(&event).await;
    env.stand(&alert, &["accepted"]).await;
    report(&env, "+14155550101", "delivered", None).await;

    let text = services.receives("/slack", 1).await[0].body["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        text.starts_with("*SMS delivered: #101 Printer &lt;!channel&gt; &amp; @all on \"fire\"*\n"),
        "{text}"
    );
    assert!(
        text.contains("The message to Grace Hopper (assignee) was delivered."),
        "{text}"
    );
    assert!(!text.contains("5550101"), "{text}");
    let plain = services.receives("/mattermost", 1).await[0].body.to_string();
    assert!(
        plain.contains("Critical ticket") && !plain.contains("Printer"),
        "{plain}"
    );
    assert!(
        services.taken("/teams").is_empty(),
        "it wants to hear of another source"
    );
}

async fn a_service_that_refuses_hears_of_it_again_and_a_slow_one_keeps_nobody_waiting(database: Database) {
    let services = Services::start().await;
    services.refuse("/slack", 429, "rate_limited", Some("1"));
    services.refuse("/slack", 200, "<html>please sign in</html>", None);
    let env = team(database, &services).build().await;

    let alert = env.raise(&critical("1", &[person("+14155550101")])).await;
    env.stand(&alert, &["accepted"]).await;

    services.receives("/mattermost", 1).await;
    services.receives("/slack", 1).await;
    assert_eq!(services.refused(), 2);
    assert_eq!(services.taken("/mattermost").len(), 1);
}

async fn an_event_is_mailed_to_whom_the_endpoint_names_once(database: Database) {
    let smtp = Smtp::start(Mode::Plain).await;
    let plan = Plan::on(database)
        .mailing(&smtp)
        .set("WEBHOOKS__OPS__KIND", "mail")
        .set("WEBHOOKS__OPS__TO", "Ops <ops@example.test>")
        .set("WEBHOOKS__OPS__INCLUDE_PERSONAL", "true")
        .set("WEBHOOKS__OPS__EVENTS", "alert.created");
    let env = plan.build().await;
    let mut event = critical("1", &[person("+14155550101")]);
    event["ticket"]["subject"] = json!("Printer <b>on</b> fire");

    env.raise(&event).await;

    let mail = smtp.received(1).await.remove(0);
    assert_eq!(mail.to, ["ops@example.test"]);
    assert_eq!(
        mail.subject(),
        "Nightbell: Critical ticket: #101 Printer <b>on</b> fire"
    );
    assert!(
        mail.text().contains("One person is being told.\n") && mail.text().contains("https://tickets.example.com/1"),
        "{}",
        mail.text()
    );
    assert!(
        mail.html().contains("Printer &lt;b&gt;on&lt;") && !mail.html().contains("<b>"),
        "{}",
        mail.html()
    );
    let events = env
        .database
        .number("select count(*) from mail where subject_key like 'notice/ops/%'")
        .await;
    assert_eq!(events, 1);
    assert!(mail.message_id().starts_with("notice.ops."), "{}", mail.message_id());
}

async fn any_helpdesk_is_written_back_to_by_a_template(database: Database) {
    let services = Services::start().await;
    let url = format!("{}/json/tickets/{{ticket_id}}/notes?by={{ticket_number}}", services.url);
    let env = with(Plan::on(database), "DESK", "json", &url)
        .set("WEBHOOKS__DESK__EVENTS", "alert.settled")
        .set("WEBHOOKS__DESK__TEMPLATE", r#"{"note": {"body": {{ (title ~ "\n" ~ text)|tojson }}, "internal": true}, "who": {{ data.alert.people|tojson }}}"#)
        .set("WEBHOOKS__DESK__HEADERS__X_KEY", "desk-key")
        .build()
        .await;
    let (mut grace, mut mona) = (person("+14155550101"), person("+14155550102"));
    grace["staff_id"] = json!("2");
    mona["staff_id"] = json!("3");

    let alert = env.raise(&critical("7/../8", &[grace, mona])).await;
    env.stand(&alert, &["accepted", "accepted"]).await;
    report(&env, "+14155550101", "delivered", None).await;
    report(&env, "+14155550102", "undelivered", Some("30003")).await;

    let note = services.receives("/json/", 1).await.remove(0);
    assert_eq!(note.path, "/json/tickets/7%2F..%2F8/notes?by=107%2F..%2F8");
    assert_eq!(note.headers["x_key"], "desk-key");
    let text = note.body["note"]["body"].as_str().unwrap();
    assert!(text.starts_with("Not everyone was reached: #107/../8\n1 of 2 people was reached by SMS.\n- the assignee (staff 2): delivered, "), "{text}");
    let people = note.body["who"].as_array().unwrap();
    assert_eq!(
        (&people[1]["state"], &people[1]["error_code"]),
        (&json!("undelivered"), &json!(30003))
    );
}

async fn who_was_reached_by_a_second_message_was_reached(database: Database) {
    let services = Services::start().await;
    let env = with(
        Plan::on(database),
        "DESK",
        "json",
        &format!("{}/json/hook", services.url),
    )
    .set("WEBHOOKS__DESK__EVENTS", "alert.settled")
    .set("WEBHOOKS__DESK__TEMPLATE", "{{ data.alert }}")
    .build()
    .await;
    let alert = env
        .raise(&critical("1", &[person("+14155550101"), person("+14155550102")]))
        .await;
    let deliveries = env.stand(&alert, &["accepted", "accepted"]).await;
    report(&env, "+14155550101", "undelivered", Some("30003")).await;
    let resend = format!("/v1/deliveries/{}/resend", deliveries[0]["id"].as_str().unwrap());
    assert_eq!(env.admin(Method::POST, &resend, Some(json!({}))).await.status, 201);
    env.stand(&alert, &["undelivered", "accepted", "accepted"]).await;
    let message = env.twilio.messages_to("+14155550101").remove(1);
    assert_eq!(env.report(&message, "delivered", None).await, 204);
    assert!(
        services.taken("/json/").is_empty(),
        "nobody knows yet whether Mona was reached"
    );

    report(&env, "+14155550102", "delivered", None).await;

    let told = services.receives("/json/", 1).await.remove(0);
    assert_eq!(
        (&told.body["reached"], &told.body["of"]),
        (&json!(2), &json!(2)),
        "{told:?}"
    );
}

/// No database is asked for it.
#[tokio::test]
async fn everything_that_is_wrong_with_notifiers_is_said_at_the_start() {
    let env = Plan::on(Database::sqlite());
    let folder = env.folder().to_owned();
    let settings = [
        ("WEBHOOKS__TEAM__KIND", "slack"),
        ("WEBHOOKS__PHONES__KIND", "ntfy"),
        ("WEBHOOKS__PHONES__URL", "https://ntfy.example.test/alerts"),
        ("WEBHOOKS__DESK__KIND", "json"),
        ("WEBHOOKS__DESK__URL", "https://desk.example.test/"),
        ("WEBHOOKS__DESK__TEMPLATE", r#"{"note": "{{ title }}"}"#),
        ("WEBHOOKS__OPS__KIND", "mail"),
    ];
    let plan = settings
        .into_iter()
        .fold(env, |plan, (key, value)| plan.set(key, value));

    let mut command = crate::support::service::command(plan.settings(), &folder);
    let output = tokio::task::spawn_blocking(move || command.args(["config", "check"]).output().unwrap())
        .await
        .unwrap();

    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in [
        "`webhooks.team.url` is not set",
        "`webhooks.phones.url` names more than the server",
        "`webhooks.phones.topic` is not set",
        "`webhooks.desk.template` makes no JSON of an event `alert.created`",
        "`webhooks.ops.kind` is `mail` and needs a mail server",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}
