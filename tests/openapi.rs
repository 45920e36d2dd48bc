//! Stories of what describes the API: the document, the pages for people, the kinds of problems, what is left of a quota,
//! and the formats of a report.

use crate::support::{
    client,
    database::Database,
    env::{ADMIN, Plan, TestEnv, critical, person},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

stories![
    the_document_is_whole_and_needs_no_token,
    bodies_are_read_as_they_are_described,
    the_pages_for_people_need_nothing_from_elsewhere,
    every_answer_says_what_is_left_of_the_quota,
    an_export_says_that_the_database_is_out,
    a_report_is_answered_in_every_format,
];

async fn fetch(env: &TestEnv, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = client().get(format!("http://{}{path}", env.service.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn header<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
        .unwrap_or_default()
}

/// Every `$ref` within.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

async fn the_document_is_whole_and_needs_no_token(database: Database) {
    let env = TestEnv::on(database).await;

    let response = fetch(&env, "/openapi.json", &[]).await;

    assert_eq!(header(&response, "content-type"), "application/json");
    let document: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut all = Vec::new();
    references(&document, &mut all);
    assert!(all.len() > 100);
    for reference in all {
        assert!(
            document.pointer(reference.trim_start_matches('#')).is_some(),
            "{reference} leads nowhere"
        );
    }
    // Each address is there, with a token of its own kind: what is documented is routed.
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let address = path
                .replace("{id}", "x")
                .replace("{source}", "default")
                .replace("{day}", "2026-11-20")
                .replace("{phone}", "+14155550109");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let reply = env.request(method.clone(), &address, &[], Vec::new()).await;
            let documented = operation["responses"].get(reply.status.to_string());
            assert!(documented.is_some(), "{method} {path}: {reply:?}");
            assert_eq!(
                reply.status == 401,
                operation["security"].is_array(),
                "{method} {path}: {reply:?}"
            );
        }
    }
    let states = &document["components"]["schemas"]["DeliveryState"]["enum"];
    assert!(states.as_array().unwrap().contains(&json!("unconfirmed")), "{states}");
}

/// The first example of a member, which may be a reference, or one of several shapes.
fn example<'a>(document: &'a Value, member: &'a Value) -> &'a Value {
    let referred = [
        &member["$ref"],
        &member["oneOf"][0]["$ref"],
        &member["oneOf"][1]["$ref"],
    ];
    match referred.into_iter().find_map(Value::as_str) {
        Some(reference) => example(document, document.pointer(reference.trim_start_matches('#')).unwrap()),
        None => &member["examples"][0],
    }
}

/// The body of an event is compared in a unit test, which sees more of it.
async fn bodies_are_read_as_they_are_described(database: Database) {
    let env = TestEnv::on(database).await;
    let document = env.get("/openapi.json").await;
    for (method, path) in [
        (Method::POST, "/v1/messages"),
        (Method::POST, "/v1/opt-outs"),
        (Method::PUT, "/v1/limit"),
        (Method::PUT, "/v1/test-mode"),
    ] {
        let operation = &document["paths"][path][method.as_str().to_lowercase()];
        let reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
        let schema = document.pointer(reference.unwrap().trim_start_matches('#')).unwrap();
        let members = schema["properties"].as_object().unwrap();
        let body: serde_json::Map<String, Value> = members
            .iter()
            .map(|(name, member)| (name.clone(), example(&document, member).clone()))
            .collect();

        let reply = env.admin(method.clone(), path, Some(body.clone().into())).await;

        assert!((200..300).contains(&reply.status), "{path}: {body:?} {reply:?}");
        for name in members.keys() {
            let mut wrong = body.clone();
            wrong[name] = json!([]);
            let reply = env.admin(method.clone(), path, Some(wrong.into())).await;
            assert_eq!(
                reply.body["errors"][0]["pointer"],
                format!("/{name}"),
                "{path}: {reply:?}"
            );
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let mut without = body.clone();
            without.remove(name.as_str().unwrap());
            let reply = env.admin(method.clone(), path, Some(without.into())).await;
            assert_eq!(reply.status, 422, "{path} without {name}: {reply:?}");
        }
    }
}

async fn the_pages_for_people_need_nothing_from_elsewhere(database: Database) {
    let env = TestEnv::on(database).await;

    for path in ["/docs", "/docs/problems"] {
        let page = fetch(&env, path, &[]).await;

        assert_eq!(
            (page.status(), header(&page, "content-type")),
            (StatusCode::OK, "text/html; charset=utf-8")
        );
        let policy = header(&page, "content-security-policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let html = page.text().await.unwrap();
        assert!(
            !html.contains("<script") && !html.contains(" style=") && !html.contains("<style"),
            "{path}"
        );
        let linked = ["src=\"", "href=\""]
            .into_iter()
            .flat_map(|name| html.split(name).skip(1));
        for address in linked.map(|rest| rest.split('"').next().unwrap()) {
            assert!(
                address.starts_with(['#', '/']) && !address.starts_with("//") || address == "data:,",
                "{address}"
            );
        }
        let style = html
            .split("rel=\"stylesheet\" href=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let style = fetch(&env, style, &[]).await;
        assert_eq!(
            (style.status(), header(&style, "content-type")),
            (StatusCode::OK, "text/css; charset=utf-8")
        );
        assert!(!style.text().await.unwrap().contains("url("));
    }
    let problem = env.request(Method::GET, "/v1/alerts", &[], Vec::new()).await;
    let section = problem.body["type"]
        .as_str()
        .unwrap()
        .strip_prefix("/docs/problems#")
        .unwrap()
        .to_owned();
    let page = fetch(&env, "/docs/problems", &[]).await.text().await.unwrap();
    assert!(page.contains(&format!("id=\"{section}\"")), "{section}");
}

async fn every_answer_says_what_is_left_of_the_quota(database: Database) {
    let env = Plan::on(database).set("HTTP__PER_SECOND", "5").build().await;
    let bearer = format!("Bearer {ADMIN}");
    let admin: &[(&str, &str)] = &[("authorization", &bearer)];

    let first = fetch(&env, "/v1/limit", admin).await;
    let missing = fetch(&env, "/v1/alerts/none", admin).await;

    assert_eq!(header(&first, "ratelimit-policy"), "\"token\";q=5;w=1");
    assert_eq!(header(&first, "ratelimit"), "\"token\";r=4;t=1");
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert!(header(&missing, "ratelimit").starts_with("\"token\";r="));
    let event = env.post(&critical("1", &[person("+14155550101")])).await;
    assert_eq!(event.status, 202, "an intake token has a quota of its own");
    let answers = futures::future::join_all((0..50).map(|_| fetch(&env, "/v1/limit", admin))).await;
    let refused = answers
        .iter()
        .find(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS)
        .unwrap();
    assert_eq!(header(refused, "ratelimit"), "\"token\";r=0;t=1");
    assert_eq!(header(refused, "ratelimit-policy"), "\"token\";q=5;w=1");
    assert_eq!(header(refused, "retry-after"), "1");
}

async fn an_export_says_that_the_database_is_out(database: Database) {
    let env = TestEnv::on(database).await;
    env.database.execute("drop table opt_out").await;

    let reply = env.admin(Method::GET, "/v1/opt-outs.csv", None).await;

    assert_eq!(
        (reply.status, &reply.body["type"]),
        (503, &json!("/docs/problems#database-unavailable"))
    );
}

async fn a_report_is_answered_in_every_format(database: Database) {
    let env = TestEnv::on(database).await;
    let day = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
        .yesterday()
        .unwrap();
    let path = format!("/v1/reports/{day}");
    let made = env.admin(Method::POST, &path, None).await;
    assert!([200, 202].contains(&made.status), "{made:?}");
    crate::support::eventually("the report", async || {
        let reply = env.admin(Method::GET, &path, None).await;
        if reply.status == 200 { Ok(()) } else { Err(reply) }
    })
    .await;
    let bearer = format!("Bearer {ADMIN}");
    let get = async |query: &str, accept: &str| {
        let headers = [("authorization", bearer.as_str()), ("accept", accept)];
        fetch(&env, &format!("{path}{query}"), &headers).await
    };

    let no_file = get("", "text/csv").await;
    assert_eq!(no_file.status(), StatusCode::NOT_FOUND);
    assert!(no_file.text().await.unwrap().contains("nothing is to be listed"));
    env.database
        .execute("update mail set attachment_name = 'report.csv', attachment = 'ticket,source,subject'")
        .await;

    let json = get("", "*/*").await;
    let html = get("?format=html", "*/*").await;
    let csv = get("", "text/csv").await;
    let text = get("?format=text", "text/html").await;
    let unknown = get("?format=pdf", "*/*").await;

    assert_eq!(header(&json, "content-type"), "application/json");
    assert_eq!(header(&html, "content-type"), "text/html; charset=utf-8");
    let policy = header(&html, "content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.ends_with("sandbox"),
        "{policy}"
    );
    assert_eq!(header(&csv, "content-type"), "text/csv; charset=utf-8");
    let disposition = header(&csv, "content-disposition");
    assert_eq!(disposition, "attachment; filename=\"report.csv\"");
    assert_eq!(header(&text, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(unknown.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let kept: Value = serde_json::from_str(&json.text().await.unwrap()).unwrap();
    assert_eq!(kept["text"], text.text().await.unwrap());
    assert!(html.text().await.unwrap().contains("<html"));
    assert!(csv.text().await.unwrap().contains("ticket,source,subject"));
}
