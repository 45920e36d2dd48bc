//! The members of every answer of the admin API: programs read them by these names.

use crate::support::{
    database::Database,
    env::{ADMIN, TestEnv, critical, person},
    eventually,
};
use reqwest::Method;
use serde_json::{Value, json};

stories![
    every_answer_has_the_members_of_the_contract,
    each_page_links_to_the_next,
];

const ALERT: &str = "acknowledged_at acknowledged_by acknowledged_via closed_at imported_at deliveries id occurred_at received_at source subject ticket_id ticket_number urgency url";
const INBOUND: &str = "alert_id answer_id channel delivery_id from id kind media outcome provider provider_message_id
    received_at text to";
const DELIVERY: &str = "alert_id attempts channel created_at due_at error_code id phone provider provider_message_id
    provider_status reason recipient resend_of round segments state updated_at";
const OPT_OUT: &str = "message_id opted_out_at phone phone_text reason staff_id";

/// The names of an object's members, sorted.
fn members(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn words(names: &str) -> Vec<&str> {
    let mut words: Vec<&str> = names.split_whitespace().collect();
    words.sort_unstable();
    words
}

async fn every_answer_has_the_members_of_the_contract(database: Database) {
    let env = TestEnv::on(database).await;
    let id = env.raise(&critical("1", &[person("+14155550100")])).await;
    let delivery = env.stand(&id, &["accepted"]).await.remove(0);
    let with_timeline = format!("{DELIVERY} message timeline");

    let alert = env.get(&format!("/v1/alerts/{id}")).await;
    assert_eq!(members(&alert), words(&format!("{ALERT} inbound")));
    assert_eq!(members(&alert["deliveries"][0]), words(&with_timeline));
    assert_eq!(members(&delivery["recipient"]), words("staff_id role name"));
    assert_eq!(delivery["channel"], "sms");
    assert_eq!(delivery["segments"], 2);
    let first = &alert["deliveries"][0]["timeline"][0];
    assert_eq!(members(first), words("at what detail text"));
    for (object, name) in [
        (&alert, "received_at"),
        (&delivery, "created_at"),
        (&delivery, "updated_at"),
        (first, "at"),
    ] {
        let time = object[name].as_str().unwrap();
        assert!(
            time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'),
            "{name}: {time}"
        );
    }
    assert_eq!((&alert["closed_at"], &delivery["reason"]), (&Value::Null, &Value::Null));

    let listed = env.get("/v1/alerts?ticket_id=1").await;
    assert_eq!(members(&listed), words("items next"));
    assert_eq!(members(&listed["items"][0]), words(ALERT));
    let listed = env.get("/v1/deliveries?ticket_id=1").await;
    assert_eq!(members(&listed["items"][0]), words(DELIVERY), "without its timeline");
    let shown = env
        .get(&format!("/v1/deliveries/{}", delivery["id"].as_str().unwrap()))
        .await;
    assert_eq!(members(&shown), words(&with_timeline));

    assert_eq!(env.text("+14155550100", "On my way").await.status, 200);
    let alert = env.get(&format!("/v1/alerts/{id}")).await;
    assert_eq!(members(&alert["inbound"][0]), words(INBOUND));
    let listed = env.get("/v1/inbound").await;
    assert_eq!(members(&listed["items"][0]), words(INBOUND));

    let body = json!({"phone": "+14155550101", "staff_id": "7", "reason": "on leave"});
    let added = env.admin(Method::POST, "/v1/opt-outs", Some(body)).await;
    assert_eq!(added.status, 201, "{added:?}");
    let listed = env.get("/v1/opt-outs").await;
    assert_eq!(members(&listed), words("items next"));
    assert_eq!(members(&listed["items"][0]), words(OPT_OUT));
    assert_eq!(
        members(&env.get("/v1/limit").await),
        words("day time_zone limit used deferred")
    );

    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let path = format!("/v1/reports/{}", today.yesterday().unwrap());
    let asked = env.admin(Method::POST, &path, None).await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let report = eventually("the report", async || {
        let reply = env.admin(Method::GET, &path, None).await;
        if reply.status == 200 {
            Ok(reply.body)
        } else {
            Err(reply)
        }
    })
    .await;
    assert_eq!(members(&report), words("created_at day first_day mail subject text"));
    assert_eq!(members(&report["mail"]), words("last_error sent_at state tries"));
    let listed = env.get("/v1/reports").await;
    assert_eq!(
        members(&listed["items"][0]),
        words("created_at day first_day mail subject")
    );
}

/// Follows the links of a list from its first page; how many items each page has.
async fn follow(env: &TestEnv, path: &str) -> Vec<usize> {
    let client = crate::support::client();
    let (mut path, mut sizes) = (path.to_owned(), Vec::new());
    loop {
        let url = format!("http://{}{path}", env.service.address);
        let response = client.get(url).bearer_auth(ADMIN).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let link = response
            .headers()
            .get("link")
            .map(|link| link.to_str().unwrap().to_owned());
        let page: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        sizes.push(page["items"].as_array().unwrap().len());
        assert_eq!(link.is_some(), page["next"].is_string(), "{page}");
        let Some(link) = link else { return sizes };
        path = link
            .strip_prefix('<')
            .unwrap()
            .strip_suffix(">; rel=\"next\"")
            .unwrap()
            .to_owned();
    }
}

async fn each_page_links_to_the_next(database: Database) {
    let env = TestEnv::on(database).await;
    for number in 0..5 {
        let phone = format!("+1415555010{number}");
        let alert = env.raise(&critical(&number.to_string(), &[person(&phone)])).await;
        env.stand(&alert, &["accepted"]).await;
        let added = env
            .admin(Method::POST, "/v1/opt-outs", Some(json!({"phone": phone})))
            .await;
        assert_eq!(added.status, 201);
    }

    for list in [
        "/v1/alerts?limit=2&source=default",
        "/v1/deliveries?limit=2&state=accepted",
        "/v1/opt-outs?limit=2",
    ] {
        assert_eq!(follow(&env, list).await, [2, 2, 1], "{list}");
    }
    assert_eq!(follow(&env, "/v1/deliveries?limit=2&state=failed").await, [0]);
    assert_eq!(follow(&env, "/v1/reports?limit=2").await, [0]);
}
