//! Stories of an admin before a real browser.

use crate::support::{
    browser::{Browser, Look},
    database::Database,
    env::{ADMIN, Plan, TestEnv, critical, person},
    eventually, left_out,
};
use reqwest::Method;
use serde_json::json;

stories![
    an_admin_sees_and_steers_everything,
    a_form_with_a_wrong_csrf_token_changes_nothing,
];

/// What was raised for the pages to show: one message that the carrier did not deliver.
async fn undelivered(env: &TestEnv) -> String {
    let mut event = critical("1", &[person("+14155550101")]);
    event["ticket"]["subject"] = json!("<script>alert(1)</script> \"Printer\" on fire");
    let alert = env.raise(&event).await;
    env.stand(&alert, &["accepted"]).await;
    let message = env.twilio.messages().remove(0);
    assert_eq!(env.report(&message, "undelivered", Some("30003")).await, 204);
    env.stand(&alert, &["undelivered"]).await;
    alert
}

async fn an_admin_sees_and_steers_everything(database: Database) {
    walk(database, Look::DESK, "an_admin_sees_and_steers_everything").await;
}

/// Once: the database does not show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_sees_and_steers_everything_without_scripts() {
    let look = Look {
        has_scripts: false,
        ..Look::DESK
    };
    walk(
        Database::sqlite(),
        look,
        "an_admin_sees_and_steers_everything_without_scripts",
    )
    .await;
}

async fn walk(database: Database, look: Look, story: &str) {
    let env = TestEnv::on(database).await;
    let alert = undelivered(&env).await;
    let Some(browser) = Browser::open(&env.service.address, look, story).await else {
        return;
    };
    logs_in(&browser).await;
    looks_around(&browser, &alert).await;
    sends_again(&browser, &env, &alert).await;
    keeps_opt_outs(&browser, &env).await;
    keeps_staff(&browser, &env).await;
    sets_the_limit(&browser, &env).await;
    browser.press("#log-out").await;
    browser.goto("/admin/alerts").await;
    assert!(browser.path().await.starts_with("/admin/login"), "logged out");
    browser.close().await;
}

async fn logs_in(browser: &Browser) {
    browser.log_in("not-the-token").await;
    assert!(browser.path().await.starts_with("/admin/login"));
    browser.find("#problem").await;
    browser.log_in(ADMIN).await;
    assert_eq!(browser.path().await, "/admin/");
}

async fn looks_around(browser: &Browser, alert: &str) {
    for (page, heading) in [
        ("/admin/", "Overview"),
        ("/admin/alerts", "Alerts"),
        ("/admin/deliveries", "Deliveries"),
        ("/admin/opt-outs", "Opt-outs"),
        ("/admin/staff", "Staff"),
        ("/admin/reports", "Reports"),
        ("/admin/webhooks", "Webhooks"),
        ("/admin/settings", "Settings"),
    ] {
        browser.goto(page).await;
        assert_eq!(browser.find("h1").await.text().await.unwrap(), heading);
    }
    browser.goto("/admin/alerts?subject=printer").await;
    browser.press(&format!("a[href='/admin/alerts/{alert}']")).await;
    let page = browser.text().await;
    for shown in [
        "<script>alert(1)</script> \"Printer\" on fire",
        "30003",
        "Acme Corp",
        "Grace Hopper",
    ] {
        assert!(page.contains(shown), "{shown} is not on {page}");
    }
    assert!(!page.contains("+14155550101"), "numbers are masked");
    browser.press("button[value=reveal]").await;
    assert!(browser.text().await.contains("+14155550101"));
}

async fn sends_again(browser: &Browser, env: &TestEnv, alert: &str) {
    browser.goto(&format!("/admin/alerts/{alert}")).await;
    browser.press("button[value=resend]").await;
    env.twilio.accepted(2).await;
    env.stand(alert, &["undelivered", "accepted"]).await;
}

async fn keeps_opt_outs(browser: &Browser, env: &TestEnv) {
    let listed = async || {
        let items = env.get("/v1/opt-outs").await["items"].clone();
        let phones = items.as_array().unwrap().iter();
        phones
            .map(|item| item["phone"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    browser.goto("/admin/opt-outs").await;
    browser.fill("#new-phone", "(415) 555-0102").await;
    browser.fill("#new-reason", "=cmd, said \"no\"").await;
    browser.press("#add-button").await;
    assert_eq!(listed().await, ["+14155550102"]);
    browser.fill("#lines", "+14155550103\nno number").await;
    browser.press("#import-button").await;
    assert_eq!(listed().await, ["+14155550102", "+14155550103"]);
    assert!(
        browser
            .find("#imported")
            .await
            .text()
            .await
            .unwrap()
            .contains("1 added")
    );
    browser.goto("/admin/opt-outs?phone=%2B14155550102").await;
    browser.press("td a[href^='/admin/opt-outs/remove']").await;
    assert_eq!(listed().await.len(), 2, "it is asked first");
    browser.press("#remove").await;
    assert_eq!(listed().await, ["+14155550103"]);
}

async fn keeps_staff(browser: &Browser, env: &TestEnv) {
    browser.goto("/admin/staff").await;
    browser.press("#add-person").await;
    browser.fill("#staff_id", "7").await;
    browser.fill("#name", "Bo").await;
    browser.fill("#phone", "12").await;
    browser.press("#save").await;
    assert!(browser.text().await.contains("not one phone number"));
    browser.fill("#phone", "(415) 555-0107").await;
    browser.press("#save").await;
    assert_eq!(env.get("/v1/staff/default/7").await["name"], "Bo");
    browser.press("td a[href^='/admin/staff/edit']").await;
    browser.fill("#name", "Bo Client").await;
    browser.press("#save").await;
    let kept = env.get("/v1/staff/default/7?reveal=phone").await;
    assert_eq!(
        (&kept["name"], &kept["phone"]),
        (&json!("Bo Client"), &json!("+14155550107"))
    );
    browser.press("button[value=reveal]").await;
    assert!(browser.text().await.contains("+14155550107"));
    browser.press("td a[href^='/admin/staff/remove']").await;
    browser.press("#remove").await;
    assert!(browser.text().await.contains("Nobody is in the directory yet"));
}

async fn sets_the_limit(browser: &Browser, env: &TestEnv) {
    browser.goto("/admin/settings").await;
    browser.fill("#new-limit", "7").await;
    browser.press("#set-limit").await;
    assert_eq!(env.get("/v1/limit").await["limit"], 7);
    browser.press("#test-on").await;
    browser.find("#test-mode").await;
    assert_eq!(env.get("/v1/test-mode").await["on"], true);
    browser.press("#test-off").await;
    eventually("the end of test mode", async || {
        let mode = env.get("/v1/test-mode").await;
        if mode["on"] == false { Ok(()) } else { Err(mode) }
    })
    .await;
}

async fn a_form_with_a_wrong_csrf_token_changes_nothing(database: Database) {
    let env = TestEnv::on(database).await;
    let story = "a_form_with_a_wrong_csrf_token_changes_nothing";
    let Some(browser) = Browser::open(&env.service.address, Look::DESK, story).await else {
        return;
    };
    browser.log_in(ADMIN).await;
    browser.goto("/admin/settings").await;
    let forge = "for (const field of document.querySelectorAll('[name=csrf]')) field.value = 'forged'";
    browser.client.execute(forge, Vec::new()).await.unwrap();

    browser.fill("#new-limit", "7").await;
    browser.press("#set-limit").await;

    assert!(
        browser
            .find("h1")
            .await
            .text()
            .await
            .unwrap()
            .to_lowercase()
            .contains("not")
    );
    assert_eq!(env.get("/v1/limit").await["limit"], 200);
    browser.close().await;
}

/// The checker is axe-core, whose file `NIGHTBELL_TEST_AXE` names. Once: the database does not show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_breaks_a_rule_of_accessibility() {
    let story = "no_page_breaks_a_rule_of_accessibility";
    let Some(checker) = std::env::var_os("NIGHTBELL_TEST_AXE") else {
        return left_out("axe", story);
    };
    let checker = std::fs::read_to_string(checker).unwrap();
    // With a second source, so that pages ask for one.
    let plan = Plan::on(Database::sqlite()).set("SOURCES__ACME__REGION", "DE");
    let env = plan.build().await;
    let alert = undelivered(&env).await;
    let delivery = env.deliveries(&alert).await[0]["id"].as_str().unwrap().to_owned();
    let opt_out = json!({"phone": "+14155550102", "reason": "asked by mail"});
    env.admin(Method::POST, "/v1/opt-outs", Some(opt_out)).await;
    keep_staff(&env).await;
    let other = env.raise(&critical("2", &[person("+14155550103")])).await;
    let on_its_way = env.stand(&other, &["accepted"]).await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let yesterday = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
        .yesterday()
        .unwrap();
    let made = env.admin(Method::POST, &format!("/v1/reports/{yesterday}"), None).await;
    assert!([200, 201, 202].contains(&made.status), "{made:?}");
    crate::support::eventually("the report", async || {
        let reply = env.admin(Method::GET, &format!("/v1/reports/{yesterday}"), None).await;
        if reply.status == 200 { Ok(()) } else { Err(reply) }
    })
    .await;
    for (name, is_dark, width) in [("light", false, 1200), ("dark", true, 1200), ("phone", false, 390)] {
        let look = Look {
            has_scripts: true,
            is_dark,
            width,
        };
        let Some(browser) = Browser::open(&env.service.address, look, story).await else {
            return;
        };
        browser.goto("/admin/login").await;
        check(&browser, &checker, name, "login").await;
        browser.log_in(ADMIN).await;
        for (page, path) in [
            ("overview", "/admin/".to_owned()),
            ("alerts", "/admin/alerts".to_owned()),
            ("nothing", "/admin/alerts?ticket_id=none".to_owned()),
            ("alert", format!("/admin/alerts/{alert}")),
            ("deliveries", "/admin/deliveries".to_owned()),
            ("delivery", format!("/admin/deliveries/{delivery}")),
            ("opt-outs", "/admin/opt-outs".to_owned()),
            ("staff", "/admin/staff".to_owned()),
            ("staff-nobody", "/admin/staff?q=nobody".to_owned()),
            ("staff-add", "/admin/staff/edit".to_owned()),
            ("staff-change", "/admin/staff/edit?source=default&staff_id=2".to_owned()),
            (
                "staff-remove",
                "/admin/staff/remove?source=default&staff_id=2".to_owned(),
            ),
            ("reports", "/admin/reports".to_owned()),
            ("report", format!("/admin/reports/{yesterday}")),
            ("settings", "/admin/settings".to_owned()),
            ("absent", "/admin/nothing-here".to_owned()),
            ("docs", "/docs".to_owned()),
            ("problems", "/docs/problems".to_owned()),
        ] {
            browser.goto(&path).await;
            check(&browser, &checker, name, page).await;
        }
        browser.goto("/admin/opt-outs").await;
        browser.press("a[href^='/admin/opt-outs/remove']").await;
        check(&browser, &checker, name, "opt-out-remove").await;
        browser.goto(&format!("/admin/deliveries/{on_its_way}")).await;
        browser.press("button[value=resend]").await;
        check(&browser, &checker, name, "force").await;
        browser.goto("/admin/staff/edit").await;
        for (field, text) in [("#staff_id", "9"), ("#phone", "12"), ("#region", "Mars")] {
            browser.fill(field, text).await;
        }
        browser.press("#save").await;
        check(&browser, &checker, name, "staff-refused").await;
        browser.goto("/admin/staff").await;
        browser.fill("#lines", "staff_id,phone\n9,12").await;
        browser.press("#import-button").await;
        check(&browser, &checker, name, "staff-imported").await;
        browser.close().await;
    }
}

/// People in the directory, with little said of them and with much.
async fn keep_staff(env: &TestEnv) {
    for (staff_id, person) in [
        (
            "2",
            json!({"phone": "+14155550102", "name": "Grace Hopper", "email": "grace.hopper@acme.example", "login": "grace",
            "role": "project_manager", "manages": ["Billing", "Network operations", "Sales"]}),
        ),
        (
            "3",
            json!({"phone": "+14155550103", "name": "Mona Meyer", "manages": ["*"]}),
        ),
        (
            "a-long-id-as-some-helpdesks-have-them-5b1c",
            json!({"phone": "+14155550104"}),
        ),
    ] {
        let path = format!("/v1/staff/default/{staff_id}");
        let reply = env.admin(Method::PUT, &path, Some(person)).await;
        assert_eq!(reply.status, 201, "{reply:?}");
    }
}

async fn check(browser: &Browser, checker: &str, look: &str, page: &str) {
    browser.picture(&format!("{page}-{look}")).await;
    let violations = browser.violations(checker).await;
    assert!(violations.is_empty(), "{page} in {look}: {violations:#?}");
}
