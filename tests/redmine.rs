//! A real Redmine: its issues come by poll.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv},
    eventually,
    redmine::Redmine,
};

/// Once, and on one database: a Redmine takes a while to set up, and what is special about it has nothing to do with ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issue_that_becomes_immediate_texts_its_assignee() {
    let Some(redmine) = Redmine::start("an_issue_that_becomes_immediate_texts_its_assignee").await else {
        return;
    };
    a_key_that_redmine_does_not_know_is_said_in_the_log(&redmine).await;
    let before = redmine.create("Was there before", "Immediate").await;
    let env = polled(&redmine, &redmine.key).await;
    env.service.logged("is polled from now on").await;
    let issue = redmine.create("Boiler leaks", "Normal").await;

    redmine.change_priority(&issue, "Immediate").await;

    let message = &env.twilio.accepted(1).await[0];
    assert_eq!(message.to, "+4915212345678");
    let link = format!("{}/issues/{issue}", redmine.url);
    for part in ["Boiler leaks", "Est. Hours: 3", &link] {
        assert!(message.body.contains(part), "{part} is not in {}", message.body);
    }
    redmine.change_priority(&issue, "Low").await;
    eventually("the alert to be closed", async || {
        let alerts = env.get(&format!("/v1/alerts?source=redmine&ticket_id={issue}")).await;
        let closed_at = alerts["items"][0]["closed_at"].clone();
        if closed_at.is_null() { Err(alerts) } else { Ok(()) }
    })
    .await;
    let left_alone = env.get(&format!("/v1/alerts?source=redmine&ticket_id={before}")).await;
    assert_eq!(left_alone["items"].as_array().map(Vec::len), Some(0), "{left_alone}");
}

async fn polled(redmine: &Redmine, key: &str) -> TestEnv {
    Plan::on(Database::sqlite())
        .set("SOURCES__REDMINE__KIND", "redmine")
        .set("SOURCES__REDMINE__URL", &redmine.url)
        .set("SOURCES__REDMINE__TOKEN", key)
        .set("SOURCES__REDMINE__POLL_EVERY", "200ms")
        .build()
        .await
}

/// Redmine itself would only show less.
async fn a_key_that_redmine_does_not_know_is_said_in_the_log(redmine: &Redmine) {
    let env = polled(redmine, "0123456789abcdef0123456789abcdef01234567").await;

    env.service
        .logged("refuses the token (HTTP 401): set `sources.redmine.token`")
        .await;
}
