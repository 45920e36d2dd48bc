//! Stories of admins who search for alerts.

use crate::support::{
    database::Database,
    env::{Plan, TestEnv, critical, person},
};
use serde_json::{Value, json};

stories![
    an_alert_is_found_by_what_is_known_of_it,
    a_search_that_finds_nothing_here_says_where_to_go_on,
    a_search_that_cannot_be_read_is_a_clear_error,
    the_deliveries_of_a_day_are_listed_page_by_page,
];

/// The tickets of the alerts that a search finds, newest first.
async fn tickets(env: &TestEnv, search: &str) -> Vec<String> {
    let page = env.get(&format!("/v1/alerts?{search}")).await;
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|alert| alert["ticket_id"].as_str().unwrap().to_owned())
        .collect()
}

fn about(ticket: &str, subject: &str) -> Value {
    let mut event = critical(ticket, &[person("+14155550101")]);
    event["ticket"]["subject"] = json!(subject);
    event
}

async fn an_alert_is_found_by_what_is_known_of_it(database: Database) {
    let env = Plan::on(database).set("SOURCES__ACME__REGION", "US").build().await;
    env.raise(&about("1", "Checkout page 500 error")).await;
    let closed = env.raise(&about("2", "Ärger: 100% of <b>checkouts</b> fail")).await;
    let mut other = about("3", "Printer on fire");
    other["source"] = json!("acme");
    other["recipients"][0]["phone"] = json!("12");
    env.raise(&other).await;
    env.stand(&closed, &["accepted"]).await;
    let mut over = about("2", "");
    over["type"] = json!("ticket.closed");
    assert_eq!(env.post(&over).await.body["outcome"], "resolved");
    let today = env.get("/v1/limit").await["day"].as_str().unwrap().to_owned();

    for (search, found) in [
        ("", &["3", "2", "1"] as &[&str]),
        ("subject=CHECKOUT", &["2", "1"]),
        ("subject=%25", &["2"]),
        ("subject=_", &[]),
        ("subject=%C3%84rger", &["2"]),
        ("subject=checkout&days=1", &["2", "1"]),
        ("subject=checkout&day=2020-01-01", &[]),
        ("day=2020-01-01", &[]),
        (&format!("day={today}&source=default"), &["2", "1"]),
        ("source=acme", &["3"]),
        ("source=acme&subject=checkout", &[]),
        ("ticket_id=2", &["2"]),
        ("ticket_id=2&subject=printer", &[]),
        ("ticket_id=2&source=acme", &[]),
        ("state=open", &["3", "1"]),
        ("state=closed", &["2"]),
        ("state=failed", &["3"]),
        ("state=failed&source=default", &[]),
    ] {
        assert_eq!(tickets(&env, search).await, found, "{search}");
    }
}

/// Rows behind which only a bounded search finds an older alert: as many as one looks at.
async fn bury(env: &TestEnv) {
    let row = "id, 'default', 'old-' || n, 'Old', 0, 0 from numbers";
    let columns = "insert into alert (id, source, ticket_id, subject, occurred_at, received_at)";
    let filled = if env.database.is_sqlite {
        format!(
            "{columns} with recursive numbers(n, id) as (select 1, printf('e0000000-0000-7000-8000-%012x', 1)
             union all select n + 1, printf('e0000000-0000-7000-8000-%012x', n + 1) from numbers where n < 20001) select {row}"
        )
    } else {
        format!(
            "{columns} select {row}",
            row = row.replace(
                "numbers",
                "(select n, 'e0000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0') as id from generate_series(1, 20001) n) numbers"
            )
        )
    };
    assert_eq!(env.database.execute(&filled).await, 20_001);
}

async fn a_search_that_finds_nothing_here_says_where_to_go_on(database: Database) {
    let env = TestEnv::on(database).await;
    env.raise(&about("1", "Checkout page 500 error")).await;
    bury(&env).await;

    let first = env
        .get("/v1/alerts?state=open&source=default&limit=200&subject=checkout&days=36500")
        .await;
    assert_eq!(first["items"], json!([]), "no older one was reached");
    let next = first["next"].as_str().unwrap();
    let second = env
        .get(&format!(
            "/v1/alerts?state=open&source=default&subject=checkout&days=36500&cursor={next}"
        ))
        .await;
    assert_eq!(second["items"][0]["ticket_id"], "1");
    assert_eq!(second["next"], Value::Null);
    assert_eq!(tickets(&env, "ticket_id=1").await, ["1"], "an index finds a ticket");
}

async fn a_search_that_cannot_be_read_is_a_clear_error(database: Database) {
    let env = TestEnv::on(database).await;

    for (search, pointer) in [("state=ringing", "/state"), ("days=0", "/days"), ("day=monday", "/day")] {
        let reply = env
            .admin(reqwest::Method::GET, &format!("/v1/alerts?{search}"), None)
            .await;
        assert_eq!(
            (reply.status, &reply.body["errors"][0]["pointer"]),
            (422, &json!(pointer))
        );
    }
}

async fn the_deliveries_of_a_day_are_listed_page_by_page(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    for ticket in 1..=3 {
        let people: Vec<Value> = (0..3)
            .map(|number| person(&format!("+1415555{ticket}{number:03}")))
            .collect();
        env.raise(&critical(&ticket.to_string(), &people)).await;
    }
    let day = env.get("/v1/limit").await["day"].as_str().unwrap().to_owned();
    let ids = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = ids(&env.get(&format!("/v1/deliveries?day={day}")).await);

    let mut paged = Vec::new();
    let mut next = format!("/v1/deliveries?day={day}&limit=2");
    loop {
        let page = env.get(&next).await;
        paged.extend(ids(&page));
        let Some(cursor) = page["next"].as_str() else { break };
        next = format!("/v1/deliveries?day={day}&limit=2&cursor={cursor}");
    }

    assert_eq!(all.len(), 9);
    assert_eq!(paged, all);
}
