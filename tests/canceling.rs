//! Stories of admins who hold messages back, and of how that ends while they are being sent.

use crate::{
    admin_commands::with_commands,
    pages::Browser,
    support::{
        database::Database,
        env::{Plan, TestEnv, critical, person},
    },
};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

stories![
    what_has_not_begun_is_held_back,
    what_was_handed_to_the_provider_cannot_be_held_back,
    a_ticket_that_is_critical_again_is_told_after_all,
    cancel_and_resend_beside_a_worker_say_what_really_happened,
];

async fn cancel(env: &TestEnv, what: &str, id: &str) -> crate::support::env::Reply {
    env.admin(Method::POST, &format!("/v1/{what}/{id}/cancel"), None).await
}

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap()
}

fn people() -> [Value; 3] {
    ["+14155550101", "+14155550102", "+14155550103"].map(person)
}

async fn what_has_not_begun_is_held_back(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env.raise(&critical("1", &people())).await;
    let deliveries = env.stand(&alert, &["deferred"; 3]).await;

    let canceled = cancel(&env, "deliveries", id(&deliveries[0])).await;

    assert_eq!(canceled.status, 200, "{canceled:?}");
    assert_eq!(
        (&canceled.body["state"], &canceled.body["reason"]),
        (&json!("canceled"), &json!("canceled"))
    );
    let timeline = canceled.body["timeline"].as_array().unwrap();
    assert_eq!(
        timeline.last().unwrap()["detail"],
        "an admin canceled it before it was sent"
    );
    let again = cancel(&env, "deliveries", id(&deliveries[0])).await;
    assert_eq!(
        (again.status, &again.body["timeline"]),
        (200, &canceled.body["timeline"])
    );
    let all = cancel(&env, "alerts", &alert).await;
    assert_eq!((all.status, &all.body["canceled"]), (200, &json!(2)), "{all:?}");
    assert_eq!(all.body["deliveries"][2]["state"], "canceled");
    assert_eq!(cancel(&env, "alerts", &alert).await.body["canceled"], 0);

    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;
    let other = env.raise(&critical("2", &people()[..1])).await;
    env.stand(&other, &["accepted"]).await;
    env.stand(&alert, &["canceled"; 3]).await;
    assert_eq!(env.twilio.messages().len(), 1);
    for what in ["deliveries", "alerts"] {
        assert_eq!(cancel(&env, what, "nothing").await.status, 404);
    }
}

async fn what_was_handed_to_the_provider_cannot_be_held_back(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = env
        .raise(&critical("1", &[person("+14155550101"), json!({"phone": "abc"})]))
        .await;
    let deliveries = env.stand(&alert, &["accepted", "failed"]).await;

    for (delivery, why) in deliveries
        .iter()
        .zip(["`accepted`: it was handed to", "`failed`: it has ended"])
    {
        let refused = cancel(&env, "deliveries", id(delivery)).await;
        assert_eq!(refused.status, 409);
        assert_eq!(refused.content_type, "application/problem+json");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{detail}");
    }
    let all = cancel(&env, "alerts", &alert).await;
    assert_eq!((all.status, &all.body["canceled"]), (200, &json!(0)));
    env.stand(&alert, &["accepted", "failed"]).await;
}

async fn a_ticket_that_is_critical_again_is_told_after_all(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env.raise(&critical("1", &people()[..1])).await;
    env.stand(&alert, &["deferred"]).await;
    assert_eq!(cancel(&env, "alerts", &alert).await.body["canceled"], 1);
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 10}))).await;

    assert_eq!(env.raise(&critical("1", &people()[..1])).await, alert);

    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages().len(), 1);
}

/// How an admin asks for something.
#[derive(Clone, Copy, Debug)]
enum By {
    Api,
    Page,
    Command,
}

/// An admin with every way to ask, logged in.
struct Admin<'a> {
    env: &'a TestEnv,
    browser: Browser,
    csrf: String,
}

impl Admin<'_> {
    /// Asks for `action`; returns whether it was done. All that may be said otherwise is that it is too late, or too early.
    async fn asks(&self, by: By, action: &str, delivery: &str) -> bool {
        match by {
            By::Api => {
                let path = format!("/v1/deliveries/{delivery}/{action}");
                match self.env.admin(Method::POST, &path, None).await.status {
                    200 | 201 => true,
                    409 => false,
                    other => panic!("{other} by the API"),
                }
            }
            By::Page => {
                let fields = [("action", action), ("delivery", delivery), ("csrf", &self.csrf)];
                let path = format!("/admin/deliveries/{delivery}");
                match self.browser.clone().post(&path, &fields).await.status.as_u16() {
                    303 => true,
                    409 => false,
                    other => panic!("{other} by the page"),
                }
            }
            By::Command => match self.env.run(&["delivery", action, delivery]).await {
                (0, _, _) => true,
                (1, _, err) if err.contains("this delivery") => false,
                other => panic!("{other:?} by the command"),
            },
        }
    }
}

/// Many deliveries, each canceled and sent again at the same time while workers send them: from the API, from a page, and by
/// a command, in all combinations.
async fn cancel_and_resend_beside_a_worker_say_what_really_happened(database: Database) {
    // A thousand in the long form of the torture.
    let count = if std::env::var("NIGHTBELL_TORTURE").is_ok() {
        1_000
    } else {
        90
    };
    let plan = Plan::on(database)
        .set("DAILY_LIMIT", "5000")
        .set("SMS__MAX_IN_FLIGHT", "2");
    let env = with_commands(plan).await;
    let mut browser = Browser::on(&env).await;
    let csrf = browser.get("/admin/").await.field("csrf");
    let admin = Admin {
        env: &env,
        browser,
        csrf,
    };
    let ways = [By::Api, By::Page, By::Command];
    let phone = |number: usize| format!("+1415{}", 2_000_000 + number);
    let asked = futures::stream::iter(0..count).map(|number| {
        let (admin, phone) = (&admin, phone(number));
        async move {
            let alert = admin.env.raise(&critical(&number.to_string(), &[person(&phone)])).await;
            let delivery = id(&admin.env.deliveries(&alert).await[0]).to_owned();
            let (canceled, resent) = tokio::join!(
                admin.asks(ways[number % 3], "cancel", &delivery),
                admin.asks(ways[number / 3 % 3], "resend", &delivery)
            );
            (alert, canceled, resent)
        }
    });
    let answers: Vec<(String, bool, bool)> = asked.buffered(16).collect().await;

    let mut seen = [0; 3];
    for (number, (alert, canceled, resent)) in answers.iter().enumerate() {
        let (kind, states): (usize, &[&str]) = match (canceled, resent) {
            (true, true) => (0, &["canceled", "accepted"]),
            (true, false) => (1, &["canceled"]),
            (false, false) => (2, &["accepted"]),
            (false, true) => panic!("{number} was sent again though it could not be canceled"),
        };
        seen[kind] += 1;
        env.stand(alert, states).await;
        let told = states.iter().filter(|state| **state == "accepted").count();
        assert_eq!(
            env.twilio.messages_to(&phone(number)).len(),
            told,
            "{states:?} of {number}"
        );
    }
    assert!(
        seen[2] > 0 && seen[0] + seen[1] > 0,
        "both sides win now and then: {seen:?}"
    );
}
