//! The pages for admins, as a browser without JavaScript uses them: logging in and out, what each page shows, what its forms
//! do, and what they refuse.

use crate::support::{
    client,
    database::Database,
    env::{ADMIN, Plan, TestEnv, critical, person},
    eventually,
};
use futures::future::join_all;
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::json;

stories![
    only_the_right_token_logs_in_and_its_cookie_is_kept_from_scripts,
    without_a_session_every_page_leads_to_the_log_in,
    a_wrong_csrf_token_changes_nothing,
    a_log_out_ends_the_session_and_a_restart_does_not,
    a_token_that_is_taken_away_ends_its_sessions,
    every_page_is_shown_with_what_came_from_outside_escaped,
    opt_outs_are_added_imported_found_and_removed,
    the_limit_and_test_mode_are_changed_in_the_settings,
    a_delivery_is_sent_again_and_what_may_still_arrive_only_after_a_question,
    what_waits_is_canceled,
    a_number_is_shown_once_it_is_asked_for_and_that_is_logged,
    a_flood_of_wrong_tokens_keeps_no_admin_out,
    a_trusted_proxy_says_who_the_admin_is_and_nobody_else_does,
    what_needs_attention_stands_on_the_overview,
];

const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
const GRACE: &str = "+14155550101";

/// Whoever looks at the pages, with a cookie.
#[derive(Clone)]
pub struct Browser {
    address: String,
    client: reqwest::Client,
    cookie: String,
    /// Sent with every request.
    headers: HeaderMap,
}

/// What a browser got.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn leads_to(&self) -> &str {
        self.headers.get("location").map_or("", |place| place.to_str().unwrap())
    }

    #[track_caller]
    pub fn has(&self, text: &str) {
        assert!(
            self.text.contains(text),
            "no {text:?} in {}: {}",
            self.status,
            self.text
        );
    }

    #[track_caller]
    pub fn has_not(&self, text: &str) {
        assert!(!self.text.contains(text), "{text:?} in {}: {}", self.status, self.text);
    }

    /// The value of a hidden field.
    pub fn field(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let rest = self
            .text
            .split_once(&mark)
            .unwrap_or_else(|| panic!("no {name} in {}", self.text))
            .1;
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    fn new(address: &str) -> Self {
        client();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            address: address.to_owned(),
            client,
            cookie: String::new(),
            headers: HeaderMap::new(),
        }
    }

    /// Logged in.
    pub async fn on(env: &TestEnv) -> Self {
        let mut browser = Self::new(&env.service.address);
        let answer = browser.log_in(ADMIN).await;
        assert_eq!(
            (answer.status.as_u16(), answer.leads_to()),
            (303, "/admin/"),
            "{answer:?}"
        );
        browser
    }

    async fn log_in(&mut self, token: &str) -> Answer {
        let csrf = self.get("/admin/login").await.field("csrf");
        self.post("/admin/login", &[("csrf", &csrf), ("token", token)]).await
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let request = self.client.get(format!("http://{}{path}", self.address));
        self.send(request).await
    }

    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        let request = self
            .client
            .post(format!("http://{}{path}", self.address))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.finish());
        self.send(request).await
    }

    /// Looks at a page, and sends one of its forms to the same address.
    pub async fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.get(path).await.field("csrf");
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", csrf.as_str())]).collect();
        self.post(path, &fields).await
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let request = request.header("cookie", &self.cookie).headers(self.headers.clone());
        let response = request.send().await.unwrap();
        for set in response.headers().get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            self.cookie = pair.to_owned();
        }
        let answer = Answer {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        };
        assert_eq!(answer.headers["content-security-policy"], POLICY, "{answer:?}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["referrer-policy"], "same-origin");
        answer
    }
}

async fn only_the_right_token_logs_in_and_its_cookie_is_kept_from_scripts(database: Database) {
    let env = Plan::on(database)
        .set("PUBLIC_URL", "http://nightbell.example.test")
        .build()
        .await;
    let mut browser = Browser::new(&env.service.address);

    let wrong = browser.log_in("not-the-token").await;
    assert_eq!(wrong.status, 401);
    wrong.has("not an admin token");
    let right = browser.log_in(ADMIN).await;

    let cookie = right.headers["set-cookie"].to_str().unwrap();
    assert_eq!((right.status.as_u16(), right.leads_to()), (303, "/admin/"));
    for part in ["nightbell_session=", "; Path=/;", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "nobody could log in over http: {cookie}");
    assert_eq!(browser.get("/admin/").await.status, 200);
    let kept = env.database.texts("select id || token_proof from admin_session").await;
    let value = browser.cookie.split('=').nth(1).unwrap();
    assert!(kept.len() == 1 && !kept[0].contains(value) && !kept[0].contains(ADMIN));
    assert!(!env.service.log().contains(value), "a cookie is as good as a token");
}

async fn without_a_session_every_page_leads_to_the_log_in(database: Database) {
    let env = TestEnv::on(database).await;
    let mut browser = Browser::new(&env.service.address);

    for path in [
        "/admin/",
        "/admin/alerts",
        "/admin/opt-outs.csv",
        "/admin/settings",
        "/admin/nothing",
    ] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 303, "{path}");
        assert!(answer.leads_to().starts_with("/admin/login"), "{path}");
    }
    let posted = browser.post("/admin/settings", &[("action", "test-on")]).await;
    assert_eq!((posted.status.as_u16(), posted.leads_to()), (303, "/admin/login"));
    browser.cookie = format!("__Host-nightbell_session={}", "a".repeat(64));
    assert_eq!(browser.get("/admin/").await.status, 303, "a cookie that we never gave");
    browser.cookie.clear();
    let csrf = browser
        .get("/admin/login?next=/admin/alerts?state%3Dfailed")
        .await
        .field("csrf");
    let fields = [
        ("csrf", csrf.as_str()),
        ("token", ADMIN),
        ("next", "/admin/alerts?state=failed"),
    ];
    assert_eq!(
        browser.post("/admin/login", &fields).await.leads_to(),
        "/admin/alerts?state=failed"
    );
    let root = env.request(Method::GET, "/", &[], Vec::new()).await;
    assert_eq!(root.status, 200, "`/` leads to the pages");
}

async fn a_wrong_csrf_token_changes_nothing(database: Database) {
    let env = TestEnv::on(database).await;
    let mut browser = Browser::on(&env).await;
    let right = browser.get("/admin/settings").await.field("csrf");
    let mut other = Browser::on(&env).await;
    let others = other.get("/admin/settings").await.field("csrf");

    for csrf in ["", "wrong", &others] {
        let refused = browser
            .post(
                "/admin/settings",
                &[("action", "limit"), ("limit", "7"), ("csrf", csrf)],
            )
            .await;
        assert_eq!(refused.status, 403, "{csrf:?}");
        refused.has("nothing was changed");
        let refused = browser.post("/admin/logout", &[("csrf", csrf)]).await;
        assert_eq!(refused.status, 403, "{csrf:?}");
    }
    browser.headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
    let fields = [("action", "limit"), ("limit", "7"), ("csrf", right.as_str())];
    assert_eq!(browser.post("/admin/settings", &fields).await.status, 403);
    browser.headers.clear();

    assert_eq!(env.get("/v1/limit").await["limit"], 200);
    assert_eq!(browser.get("/admin/").await.status, 200, "still logged in");
    let mut unknown = Browser::new(&env.service.address);
    unknown.get("/admin/login").await;
    let refused = unknown
        .post("/admin/login", &[("token", ADMIN), ("csrf", &right)])
        .await;
    assert_eq!(refused.status, 403, "the form of the log-in has one too");
    assert_eq!(
        browser.post("/admin/settings", &fields).await.status,
        303,
        "the right one does"
    );
}

async fn a_log_out_ends_the_session_and_a_restart_does_not(database: Database) {
    let mut env = TestEnv::on(database).await;
    let mut browser = Browser::on(&env).await;
    env.service.kill();
    env.restart();
    browser.address = env.service.address.clone();
    assert_eq!(
        browser.get("/admin/").await.status,
        200,
        "the session is in the database"
    );

    let cookie = browser.cookie.clone();
    let csrf = browser.get("/admin/").await.field("csrf");
    let out = browser.post("/admin/logout", &[("csrf", &csrf)]).await;

    assert_eq!((out.status.as_u16(), out.leads_to()), (303, "/admin/login"));
    browser.cookie = cookie;
    assert_eq!(
        browser.get("/admin/").await.status,
        303,
        "a cookie that somebody kept is of no use"
    );
}

async fn a_token_that_is_taken_away_ends_its_sessions(database: Database) {
    let mut env = Plan::on(database)
        .set("AUTH__ADMIN_TOKENS", "admin-token,old")
        .build()
        .await;
    let mut old = Browser::new(&env.service.address);
    old.log_in("old").await;
    let mut new = Browser::on(&env).await;
    assert_eq!(old.get("/admin/").await.status, 200);

    env.settings.insert("NIGHTBELL_AUTH__ADMIN_TOKENS".into(), ADMIN.into());
    env.service.kill();
    env.restart();

    (old.address, new.address) = (env.service.address.clone(), env.service.address.clone());
    assert_eq!(old.get("/admin/").await.status, 303);
    assert_eq!(new.get("/admin/").await.status, 200);
}

async fn every_page_is_shown_with_what_came_from_outside_escaped(database: Database) {
    let env = TestEnv::on(database).await;
    let mut event = critical(
        "1",
        &[json!({"name": "Ada \"<b>the first</b>\" O'Byron", "phone": GRACE, "role": "assignee"})],
    );
    event["ticket"]["subject"] = json!("<script>alert(1)</script>");
    let alert = env.raise(&event).await;
    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    let delivery = delivery["id"].as_str().unwrap();
    let opt_out = json!({"phone": "+14155550109", "reason": "<img src=x onerror=alert(1)>"});
    env.admin(Method::POST, "/v1/opt-outs", Some(opt_out)).await;
    let mut browser = Browser::on(&env).await;

    for path in [
        "/admin/",
        "/admin/alerts",
        "/admin/alerts?subject=%3Cscript%3E&state=accepted&source=default",
        "/admin/deliveries",
        "/admin/deliveries?state=accepted&ticket_id=1&phone=%2B14155550101&reveal=phone",
        "/admin/opt-outs",
        "/admin/opt-outs?phone=%3Cscript%3E",
        "/admin/reports",
        "/admin/settings",
        &format!("/admin/alerts/{alert}"),
        &format!("/admin/deliveries/{delivery}"),
    ] {
        let page = browser.get(path).await;
        assert_eq!(
            (page.status.as_u16(), &page.headers["content-type"]),
            (200, &"text/html; charset=utf-8".parse().unwrap()),
            "{path}"
        );
        assert_eq!(page.headers["cache-control"], "no-store");
        for harmful in [
            "<script",
            "<b>",
            "<img src=x",
            "style=\"",
            GRACE.trim_start_matches('+'),
        ] {
            let is_typed = path.contains("phone=%2B") && harmful.starts_with("1415");
            assert!(
                is_typed || !page.text.contains(harmful),
                "{harmful} on {path}: {}",
                page.text
            );
        }
        assert_eq!(page.text.matches("<h1").count(), 1, "{path}");
    }
    let page = browser.get(&format!("/admin/alerts/{alert}")).await;
    page.has("&lt;script&gt;alert(1)&lt;&#x2f;script&gt;");
    page.has("+1415****101");
    page.has("segment");
    page.has("aria-current=\"page\"");
    for (path, status) in [
        ("/admin/alerts/none", 404),
        ("/admin/deliveries/none", 404),
        ("/admin/reports/2020-01-01", 404),
        ("/admin/reports/<b>", 422),
        ("/admin/alerts/%00", 404),
        ("/admin/nothing", 404),
        ("/admin/alerts?day=<b>", 422),
        ("/admin/deliveries?phone=abc", 422),
    ] {
        let page = browser.get(path).await;
        assert_eq!(page.status, status, "{path}");
        page.has("<h1");
        page.has_not("<b>");
    }
    let name = page
        .text
        .split("/admin/assets/")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let style = browser.get(&format!("/admin/assets/{name}")).await;
    assert_eq!(style.headers["content-type"], "text/css; charset=utf-8");
    assert!(style.headers["cache-control"].to_str().unwrap().contains("immutable"));
}

async fn opt_outs_are_added_imported_found_and_removed(database: Database) {
    let env = TestEnv::on(database).await;
    let mut browser = Browser::on(&env).await;
    const PATH: &str = "/admin/opt-outs";
    browser.get(PATH).await.has("Nobody has opted out");

    let added = browser
        .submit(
            PATH,
            &[("action", "add"), ("phone", "(415) 555-0101"), ("reason", "asked")],
        )
        .await;
    assert_eq!(
        (added.status.as_u16(), added.leads_to()),
        (303, "/admin/opt-outs?done=opted-out")
    );
    let again = browser.submit(PATH, &[("action", "add"), ("phone", GRACE)]).await;
    assert_eq!(again.leads_to(), "/admin/opt-outs?done=opted-out-before");
    let wrong = browser
        .submit(PATH, &[("action", "add"), ("phone", "12"), ("reason", "typed before")])
        .await;
    assert_eq!(wrong.status, 422);
    wrong.has("not one phone number");
    wrong.has("typed before");

    let lines = "phone,reason\n+14155550102,\"=cmd\"\nabc,\n+14155550101,\n";
    let imported = browser.submit(PATH, &[("action", "import"), ("lines", lines)]).await;
    assert_eq!(imported.status, 200);
    imported.has("<strong>1</strong> added, <strong>1</strong> known already, <strong>1</strong> refused");
    let csrf = imported.field("csrf");
    let part =
        |name: &str, value: &str| format!("--x\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n");
    let file =
        "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\n+14155550103\n\r\n--x--\r\n";
    let body = format!("{}{}{file}", part("\"csrf\"", &csrf), part("\"action\"", "import"));
    let request = browser
        .client
        .post(format!("http://{}{PATH}", browser.address))
        .header("content-type", "multipart/form-data; boundary=x")
        .body(body);
    browser.send(request).await.has("<strong>1</strong> added");

    let listed = browser.get(PATH).await;
    listed.has("+1415****101");
    listed.has_not("4155550101");
    let entry = listed
        .text
        .split("remove?entry=")
        .nth(3)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let found = browser.get(&format!("{PATH}?phone=%28415%29%20555-0101")).await;
    found.has("asked");
    browser
        .get(&format!("{PATH}?phone=%2B14155550199"))
        .await
        .has("not on the list");
    let shown = browser.submit(PATH, &[("action", "reveal"), ("entry", &entry)]).await;
    shown.has(GRACE);
    browser.get(PATH).await.has_not(GRACE);
    env.service.logged("an admin was shown an opted-out number").await;

    let question = browser.get(&format!("{PATH}/remove?entry={entry}")).await;
    question.has("Remove this opt-out?");
    assert_eq!(
        env.get("/v1/opt-outs").await["items"].as_array().unwrap().len(),
        3,
        "it only asks"
    );
    let removed = browser.submit(PATH, &[("action", "remove"), ("entry", &entry)]).await;
    assert_eq!(removed.leads_to(), "/admin/opt-outs?done=opted-in");
    let gone = env.admin(Method::GET, "/v1/opt-outs/+14155550101", None).await;
    assert_eq!(gone.status, 404);
    let twice = browser.submit(PATH, &[("action", "remove"), ("entry", &entry)]).await;
    assert_eq!(twice.status, 404);
    let csv = browser.get("/admin/opt-outs.csv").await;
    assert!(
        csv.text.contains("'+14155550102") && csv.text.contains("'=cmd"),
        "{csv:?}"
    );
    assert!(!env.service.log().contains("4155550101"));
}

async fn the_limit_and_test_mode_are_changed_in_the_settings(database: Database) {
    let env = TestEnv::on(database).await;
    let mut browser = Browser::on(&env).await;
    const PATH: &str = "/admin/settings";
    browser.get(PATH).await.has_not("id=\"test-mode\" aria-label");

    let set = browser.submit(PATH, &[("action", "limit"), ("limit", "7")]).await;
    assert_eq!(set.leads_to(), "/admin/settings?done=limit");
    assert_eq!(env.get("/v1/limit").await["limit"], 7);
    browser.get(set.leads_to()).await.has("The daily limit is changed");
    for wrong in ["", "-1", "1.5", "many", "10000001"] {
        let refused = browser.submit(PATH, &[("action", "limit"), ("limit", wrong)]).await;
        assert_eq!(refused.status, 422, "{wrong}");
        refused.has("whole number");
    }
    browser.submit(PATH, &[("action", "limit-configured")]).await;
    assert_eq!(env.get("/v1/limit").await["limit"], 200);

    let on = browser.submit(PATH, &[("action", "test-on")]).await;
    assert_eq!(on.leads_to(), "/admin/settings?done=test-on");
    for page in ["/admin/", "/admin/alerts", PATH] {
        browser.get(page).await.has("Test mode is on.");
    }
    browser.submit(PATH, &[("action", "test-off")]).await;
    browser.get("/admin/").await.has_not("Test mode is on.");
    assert_eq!(browser.submit(PATH, &[("action", "dance")]).await.status, 422);
}

async fn a_delivery_is_sent_again_and_what_may_still_arrive_only_after_a_question(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = env.raise(&critical("1", &[person(GRACE)])).await;
    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    let delivery = delivery["id"].as_str().unwrap();
    let mut browser = Browser::on(&env).await;
    let path = format!("/admin/alerts/{alert}");

    let question = browser
        .submit(&path, &[("action", "resend"), ("delivery", delivery)])
        .await;
    assert_eq!(question.status, 409);
    question.has("<strong>twice</strong>");
    assert_eq!(env.deliveries(&alert).await.len(), 1);
    let forced = browser
        .submit(
            &path,
            &[("action", "resend"), ("delivery", delivery), ("force", "true")],
        )
        .await;
    assert_eq!(forced.leads_to(), format!("{path}?done=resent"));
    env.stand(&alert, &["accepted", "accepted"]).await;

    let message = env.twilio.accepted(2).await.remove(1);
    assert_eq!(env.report(&message, "undelivered", Some("30003")).await, 204);
    let states = env.stand(&alert, &["accepted", "undelivered"]).await;
    let second = states[1]["id"].as_str().unwrap();
    let page = browser.get(&path).await;
    page.has("Code 30003");
    page.has("What to do:");
    let own = format!("/admin/deliveries/{second}");
    let again = browser
        .submit(&own, &[("action", "resend"), ("delivery", second)])
        .await;
    assert_eq!(again.leads_to(), format!("{own}?done=resent"));
    env.twilio.accepted(3).await;
}

async fn what_waits_is_canceled(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "0").build().await;
    let alert = env
        .raise(&critical(
            "1",
            &[person(GRACE), person("+14155550102"), person("+14155550103")],
        ))
        .await;
    let waiting = env.stand(&alert, &["deferred", "deferred", "deferred"]).await;
    let mut browser = Browser::on(&env).await;
    let path = format!("/admin/alerts/{alert}");

    let one = browser
        .submit(
            &path,
            &[("action", "cancel"), ("delivery", waiting[0]["id"].as_str().unwrap())],
        )
        .await;
    assert_eq!(one.leads_to(), format!("{path}?done=canceled"));
    env.stand(&alert, &["canceled", "deferred", "deferred"]).await;
    let all = browser.submit(&path, &[("action", "cancel-all")]).await;
    assert_eq!(all.leads_to(), format!("{path}?done=all-canceled"));
    env.stand(&alert, &["canceled", "canceled", "canceled"]).await;
    assert_eq!(
        browser.submit(&path, &[("action", "cancel-all")]).await.leads_to(),
        format!("{path}?done=none-canceled")
    );

    let sent = TestEnv::on(Database::sqlite()).await;
    let alert = sent.raise(&critical("1", &[person(GRACE)])).await;
    let delivery = sent.stand(&alert, &["accepted"]).await.remove(0);
    let own = format!("/admin/deliveries/{}", delivery["id"].as_str().unwrap());
    let late = Browser::on(&sent).await.submit(&own, &[("action", "cancel")]).await;
    assert_eq!(late.status, 409);
    late.has("cannot be held back");
}

async fn a_number_is_shown_once_it_is_asked_for_and_that_is_logged(database: Database) {
    let env = TestEnv::on(database).await;
    let grace = json!({"name": "Grace Hopper", "phone": GRACE});
    let alert = env.raise(&critical("1", &[grace])).await;
    let delivery = env.stand(&alert, &["accepted"]).await.remove(0);
    let delivery = delivery["id"].as_str().unwrap();
    let mut browser = Browser::on(&env).await;
    let path = format!("/admin/deliveries/{delivery}");
    browser.get(&format!("{path}?reveal=phone")).await.has_not(GRACE);

    let shown = browser
        .submit(&path, &[("action", "reveal"), ("delivery", delivery)])
        .await;

    assert_eq!(shown.status, 200);
    shown.has(GRACE);
    browser.get(&path).await.has_not(GRACE);
    let log = env.service.logged("an admin was shown a phone number").await;
    let line = log
        .lines()
        .find(|line| line.contains("an admin was shown a phone number"))
        .unwrap();
    assert!(line.contains(delivery) && line.contains("who=\"session "), "{line}");
    assert!(!log.contains("4155550101"));
}

async fn a_flood_of_wrong_tokens_keeps_no_admin_out(database: Database) {
    let env = Plan::on(database)
        .set("HTTP__TRUSTED_PROXIES", "127.0.0.1")
        .build()
        .await;
    let addresses: Vec<String> = (1..=20).map(|host| format!("203.0.113.{host}")).collect();
    let guess = async |address: &str, tries: u32| {
        let mut browser = Browser::new(&env.service.address);
        browser.headers.insert("x-forwarded-for", address.parse().unwrap());
        let csrf = browser.get("/admin/login").await.field("csrf");
        let mut refused = 0;
        for _ in 0..tries {
            let fields = [("csrf", csrf.as_str()), ("token", "guess")];
            let answer = browser.post("/admin/login", &fields).await;
            assert!(answer.status.is_client_error(), "{answer:?}");
            refused += u32::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
        }
        refused
    };
    let log_in_from = async |address: &str| {
        let mut browser = Browser::new(&env.service.address);
        browser.headers.insert("x-forwarded-for", address.parse().unwrap());
        assert_eq!(browser.log_in(ADMIN).await.leads_to(), "/admin/", "{address}");
    };
    // More than one address may try at once.
    assert!(guess("203.0.113.100", 300).await > 0);
    log_in_from("203.0.113.100").await;

    let flood = join_all(addresses.iter().map(async |address| guess(address, 50).await));
    let admin = async {
        for address in &addresses {
            log_in_from(address).await;
        }
    };
    tokio::join!(flood, admin);
}

async fn a_trusted_proxy_says_who_the_admin_is_and_nobody_else_does(database: Database) {
    let env = Plan::on(database)
        .set("HTTP__TRUSTED_PROXIES", "127.0.0.1")
        .set("AUTH__PROXY_HEADER", "X-Forwarded-User")
        .set("PUBLIC_URL", "http://nightbell.example.test")
        .build()
        .await;
    let mut browser = Browser::new(&env.service.address);
    browser
        .headers
        .insert("x-forwarded-user", "grace@example.test".parse().unwrap());
    browser.headers.insert("x-forwarded-proto", "https".parse().unwrap());

    let page = browser.get("/admin/").await;

    page.has("grace@example.test");
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    assert!(
        cookie.starts_with("__Host-nightbell_session=") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    let set = browser
        .submit("/admin/settings", &[("action", "limit"), ("limit", "9")])
        .await;
    assert_eq!(set.status, 303);
    let log = env.service.logged("daily limit set").await;
    assert!(log.contains("proxy user grace@example.test"), "{log}");
    browser.headers.clear();
    assert_eq!(
        browser.get("/admin/").await.status,
        303,
        "the cookie alone is no session"
    );

    let plan = Plan::on(Database::sqlite()).set("HTTP__TRUSTED_PROXIES", "192.0.2.1");
    let other = plan.set("AUTH__PROXY_HEADER", "X-Forwarded-User").build().await;
    let mut stranger = Browser::new(&other.service.address);
    stranger
        .headers
        .insert("x-forwarded-user", "grace@example.test".parse().unwrap());
    assert_eq!(
        stranger.get("/admin/").await.status,
        303,
        "who is no proxy of ours says nothing"
    );
}

async fn what_needs_attention_stands_on_the_overview(database: Database) {
    let env = TestEnv::on(database).await;
    let mut browser = Browser::on(&env).await;
    browser.get("/admin/").await.has("everybody who must know was told");
    let untold = env.raise(&critical("7", &[person("12")])).await;
    let failed = env.raise(&critical("8", &[person(GRACE)])).await;
    env.stand(&failed, &["accepted"]).await;
    let message = env.twilio.accepted(1).await.remove(0);
    env.report(&message, "undelivered", Some("30003")).await;
    env.stand(&failed, &["undelivered"]).await;

    let page = eventually("today's deliveries on the overview", async || {
        let page = browser.get("/admin/").await;
        let is_counted = page.text.contains("state=undelivered&amp;day=");
        if is_counted { Ok(page) } else { Err(page.text) }
    })
    .await;

    page.has(&format!("/admin/alerts/{untold}"));
    page.has("messages failed since the last report");
    page.has("value=\"resend\"");
    page.has("<svg class=\"chart\"");
    page.has("1 of 200 messages used today");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_one_replica_holds_on_the_others() {
    let story = "a_session_of_one_replica_holds_on_the_others";
    let Some(database) = Database::postgres(story).await else {
        return;
    };
    let env = TestEnv::on(database).await;
    let other = env.start_another();
    let mut browser = Browser::on(&env).await;
    browser.address.clone_from(&other.address);

    assert_eq!(browser.get("/admin/alerts").await.status, 200);
    let csrf = browser.get("/admin/").await.field("csrf");
    let out = browser.post("/admin/logout", &[("csrf", &csrf)]).await;
    assert_eq!(out.status, 303);
    browser.address.clone_from(&env.service.address);
    assert_eq!(browser.get("/admin/").await.status, 303, "it ended everywhere");
}
