//! Stories of the staff directory: people whom a helpdesk names without telling their phones, found and told all the same.

use crate::{
    admin_commands::with_commands,
    pages::Browser,
    support::{
        database::Database,
        env::{ADMIN, Plan, Reply, TestEnv, critical},
    },
};
use reqwest::Method;
use serde_json::{Value, json};

stories![
    people_are_told_by_whatever_an_event_names_them_by,
    nobody_is_guessed_and_who_is_not_found_stays_to_be_seen,
    managers_of_the_group_are_told_too,
    a_source_that_is_not_trusted_with_phones_is_told_them,
    an_event_that_tells_all_numbers_asks_the_directory_nothing,
    an_entry_is_added_replaced_found_and_removed,
    a_bad_entry_is_refused_with_every_field_named,
    a_file_of_staff_is_read_line_by_line,
    the_directory_leaves_as_a_file_that_is_harmless_and_comes_back_the_same,
    the_page_adds_changes_and_removes_people,
    the_page_reads_files_and_shows_a_number_only_when_asked,
    the_commands_do_the_same_whether_the_service_runs_or_not,
];

const GRACE: &str = "+14155550101";
const MONA: &str = "+14155550102";
const NINA: &str = "+14155550103";
const JO: &str = "+14155550104";

async fn put(env: &TestEnv, staff_id: &str, entry: Value) -> Reply {
    env.admin(Method::PUT, &format!("/v1/staff/default/{staff_id}"), Some(entry))
        .await
}

/// Grace and Mona with everything, Nina and Jo of one name.
async fn fill(env: &TestEnv) {
    for (staff_id, entry) in [
        (
            "2",
            json!({"login": "grace", "email": "Grace@Acme.test", "name": "Grace Hopper", "phone": "(415) 555-0101",
                "role": "assignee"}),
        ),
        (
            "3",
            json!({"login": "mona", "email": "mona@acme.test", "name": "Mona Meyer", "phone": MONA,
                "manages": ["Billing", "Sales, EMEA"]}),
        ),
        (
            "4",
            json!({"name": "Sam Lee", "email": "desk@acme.test", "phone": NINA}),
        ),
        ("5", json!({"name": "sam  LEE", "email": "desk@acme.test", "phone": JO})),
    ] {
        let reply = put(env, staff_id, entry).await;
        assert_eq!(reply.status, 201, "{reply:?}");
    }
}

/// The deliveries of an alert: number, name, role, reason.
async fn told(env: &TestEnv, alert: &str) -> Vec<String> {
    let deliveries = env.get(&format!("/v1/alerts/{alert}?reveal=phone")).await["deliveries"].clone();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |delivery: &Value| {
        let person = &delivery["recipient"];
        let words = [
            &delivery["phone"],
            &person["name"],
            &person["role"],
            &delivery["reason"],
        ];
        words.map(text).join(" | ")
    };
    deliveries.as_array().unwrap().iter().map(line).collect()
}

async fn people_are_told_by_whatever_an_event_names_them_by(database: Database) {
    let env = TestEnv::on(database).await;
    fill(&env).await;
    for (ticket, (named, wanted)) in [
        (json!({"staff_id": 2}), "+14155550101 | Grace Hopper | assignee | -"),
        (
            json!({"login": "GRACE", "name": "G. H."}),
            "+14155550101 | G. H. | assignee | -",
        ),
        (
            json!({"email": "grace@acme.TEST", "role": "boss"}),
            "+14155550101 | Grace Hopper | boss | -",
        ),
        (json!({"name": " mona\tmeyer"}), "+14155550102 | mona meyer | - | -"),
        (
            json!({"staff_id": "9", "login": "mona", "phone": "ext. 12"}),
            "+14155550102 | Mona Meyer | - | -",
        ),
        (json!({"staff_id": "2", "phone": JO}), "+14155550104 | - | - | -"),
    ]
    .into_iter()
    .enumerate()
    {
        let alert = env.raise(&critical(&ticket.to_string(), &[named])).await;

        env.stand(&alert, &["accepted"]).await;
        assert_eq!(told(&env, &alert).await, [wanted]);
    }
    assert_eq!(env.twilio.messages_to(GRACE).len(), 3);
    assert_eq!(env.twilio.messages_to(MONA).len(), 2);
    // By two names it is one person, and one message.
    let twice = [json!({"staff_id": 2}), json!({"email": "grace@acme.test"})];
    let alert = env.raise(&critical("twice", &twice)).await;
    env.stand(&alert, &["accepted"]).await;
}

async fn nobody_is_guessed_and_who_is_not_found_stays_to_be_seen(database: Database) {
    let env = Plan::on(database)
        .set("SOURCES__DEFAULT__FALLBACK_RECIPIENTS", MONA)
        .build()
        .await;
    fill(&env).await;
    let shared = json!({"name": "Sam Lee", "email": "desk@acme.test", "role": "assignee"});
    let other = json!({"name": "Grace Hopper", "email": "grace@elsewhere.test"});

    let alert = env
        .raise(&critical("1", &[shared, other, json!({"role": "watcher"})]))
        .await;

    env.stand(&alert, &["failed", "failed", "failed", "accepted"]).await;
    assert_eq!(
        told(&env, &alert).await,
        [
            "- | Sam Lee | assignee | no_number",
            "- | Grace Hopper | - | no_number",
            "- | - | watcher | no_number",
            "+14155550102 | - | - | -"
        ]
    );
    let by_id = env
        .raise(&critical("2", &[json!({"staff_id": "5", "name": "Sam Lee"})]))
        .await;
    env.stand(&by_id, &["accepted"]).await;
    assert_eq!(told(&env, &by_id).await, ["+14155550104 | Sam Lee | - | -"]);
    // Of another source, nobody has these names.
    let entries = env.get("/v1/staff?source=acme").await;
    assert_eq!(entries["items"], json!([]));
}

async fn managers_of_the_group_are_told_too(database: Database) {
    let env = TestEnv::on(database).await;
    fill(&env).await;
    let everything = json!({"name": "Nina", "phone": NINA, "manages": ["*"], "role": "chief"});
    assert_eq!(put(&env, "4", everything).await.status, 200);
    let raise = async |ticket: &str, group: &str, people: &[Value]| {
        let mut event = critical(ticket, people);
        event["ticket"]["group"] = json!(group);
        let alert = env.raise(&event).await;
        told(&env, &alert).await
    };
    let (mona, nina) = (
        "+14155550102 | Mona Meyer | manager | -",
        "+14155550103 | Nina | manager | -",
    );
    let grace = json!({"name": "Grace", "phone": GRACE});

    assert_eq!(
        raise("1", " billing ", std::slice::from_ref(&grace)).await,
        ["+14155550101 | Grace | - | -", mona, nina]
    );
    assert_eq!(raise("2", "Sales, EMEA", &[]).await, [mona, nina]);
    assert_eq!(raise("3", "Network", &[]).await, [nina]);
    // Who is named anyway is told once.
    let named = json!({"staff_id": "3", "role": "assignee"});
    assert_eq!(
        raise("4", "Billing", &[named]).await,
        ["+14155550102 | Mona Meyer | assignee | -", nina]
    );
    let none = env.raise(&critical("5", &[grace])).await;
    assert_eq!(told(&env, &none).await.len(), 1);
}

async fn a_source_that_is_not_trusted_with_phones_is_told_them(database: Database) {
    let env = Plan::on(database)
        .set("SOURCES__DEFAULT__TRUST_PHONES", "false")
        .build()
        .await;
    fill(&env).await;
    let people = [
        json!({"staff_id": 2, "phone": "+14155550199"}),
        json!({"name": "Nobody", "phone": "+14155550198"}),
    ];

    let alert = env.raise(&critical("1", &people)).await;

    env.stand(&alert, &["accepted", "failed"]).await;
    assert_eq!(
        told(&env, &alert).await,
        [
            "+14155550101 | Grace Hopper | assignee | -",
            "- | Nobody | - | no_number"
        ]
    );
}

async fn an_event_that_tells_all_numbers_asks_the_directory_nothing(database: Database) {
    let env = Plan::on(database)
        .set("LOG__FILTER", "sqlx::query=debug")
        .set("LOG__FORMAT", "json")
        .build()
        .await;
    fill(&env).await;
    let asked = || env.service.log().matches("select k.key").count();
    let grace = json!({"staff_id": "2", "name": "Grace", "phone": GRACE});

    let alert = env.raise(&critical("1", std::slice::from_ref(&grace))).await;
    env.stand(&alert, &["accepted"]).await;
    assert_eq!(asked(), 0);

    let by_name = [grace, json!({"name": "Mona Meyer"})];
    let alert = env.raise(&critical("2", &by_name)).await;
    env.stand(&alert, &["accepted", "accepted"]).await;
    let once = asked();
    assert!(once > 0);
    for _ in 0..3 {
        assert_eq!(env.post(&critical("2", &by_name)).await.body["outcome"], "duplicate");
    }
    assert_eq!(asked(), once, "a repeat asks nothing");
}

async fn an_entry_is_added_replaced_found_and_removed(database: Database) {
    let env = TestEnv::on(database).await;
    fill(&env).await;
    let ids = async |query: &str| {
        let items = env.get(&format!("/v1/staff?{query}")).await["items"].clone();
        let ids = items
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["staff_id"].as_str().unwrap());
        ids.collect::<Vec<_>>().join(" ")
    };
    let entry = env.get("/v1/staff/default/3").await;
    assert_eq!(
        (&entry["phone"], &entry["manages"]),
        (&json!("+1415****102"), &json!(["Billing", "Sales", "EMEA"]))
    );
    assert_eq!(env.get("/v1/staff/default/3?reveal=phone").await["phone"], MONA);
    for (query, found) in [
        ("", "2 3 4 5"),
        ("q=ACME", "2 3 4 5"),
        ("q=mona+m", "3"),
        ("q=emea", "3"),
        ("q=%25", ""),
        ("q=name", ""),
        ("q=(415)+555-0104", "5"),
        ("q=sam&source=default", "4 5"),
        ("q=sam&source=acme", ""),
    ] {
        assert_eq!(ids(query).await, found, "{query}");
    }
    let first = env.get("/v1/staff?limit=3&q=acme").await;
    let next = first["next"].as_str().unwrap();
    assert_eq!(
        ids(&format!("limit=3&q=acme&cursor={}", next.replace('/', "%2F"))).await,
        "5"
    );

    let replaced = put(
        &env,
        "2",
        json!({"phone": "030 1234567", "region": "de", "login": "hopper"}),
    )
    .await;
    assert_eq!(
        (replaced.status, &replaced.body["name"], &replaced.body["region"]),
        (200, &json!(null), &json!("DE"))
    );
    let gone = env
        .raise(&critical("1", &[json!({"login": "grace"}), json!({"login": "hopper"})]))
        .await;
    assert_eq!(
        told(&env, &gone).await,
        ["- | - | - | no_number", "+49301234567 | - | - | -"]
    );
    let path = "/v1/staff/default/2";
    assert_eq!(env.admin(Method::DELETE, path, None).await.status, 204);
    for method in [Method::DELETE, Method::GET] {
        assert_eq!(env.admin(method, path, None).await.status, 404);
    }
    assert_eq!(
        env.database
            .number("select count(*) from staff_key where staff_id = '2'")
            .await,
        0
    );
    // An id may have anything in it.
    let odd = put(&env, "a%2Fb%20%C3%BC", json!({"phone": GRACE})).await;
    assert_eq!((odd.status, &odd.body["staff_id"]), (201, &json!("a/b ü")));
    assert_eq!(
        env.admin(Method::DELETE, "/v1/staff/default/a%2Fb%20%C3%BC", None)
            .await
            .status,
        204
    );
}

async fn a_bad_entry_is_refused_with_every_field_named(database: Database) {
    let env = TestEnv::on(database).await;
    let pointers = |reply: &Reply| {
        let errors = reply.body["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("{reply:?}"))
            .iter();
        errors
            .map(|fault| fault["pointer"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };

    let wrong = put(
        &env,
        "2",
        json!({"phone": "12", "email": "grace", "manages": "Billing"}),
    )
    .await;
    assert_eq!((wrong.status, pointers(&wrong)), (422, vec!["/manages".to_owned()]));
    let wrong = put(&env, "2", json!({"phone": "12", "email": "grace"})).await;
    assert_eq!(pointers(&wrong), ["/email", "/phone"]);
    let wrong = put(&env, "2", json!({"phone": "+1415****101", "region": "Mars"})).await;
    assert_eq!(pointers(&wrong), ["/region"]);
    let path = "/v1/staff/nowhere/2";
    let elsewhere = env.admin(Method::PUT, path, Some(json!({"phone": "12"}))).await;
    assert_eq!(pointers(&elsewhere), ["/source", "/phone"]);
    assert_eq!(env.get("/v1/staff").await["items"], json!([]));
}

const CSV: (&str, &str) = ("content-type", "text/csv");

async fn import(env: &TestEnv, query: &str, file: impl Into<Vec<u8>>) -> Reply {
    let admin = format!("Bearer {ADMIN}");
    let headers = [("authorization", admin.as_str()), CSV];
    env.request(Method::POST, &format!("/v1/staff.csv{query}"), &headers, file.into())
        .await
}

async fn export(env: &TestEnv) -> String {
    let reply = env.admin(Method::GET, "/v1/staff.csv", None).await;
    assert_eq!(
        (reply.status, reply.content_type.as_str()),
        (200, "text/csv; charset=utf-8")
    );
    reply.body.as_str().unwrap().to_owned()
}

async fn a_file_of_staff_is_read_line_by_line(database: Database) {
    let env = Plan::on(database).set("SOURCES__ACME__REGION", "DE").build().await;
    put(&env, "2", json!({"phone": GRACE, "name": "Before"})).await;
    let file = "Phone;Staff_ID;Name;Manages;Source;Shoe size\r\n\
        (415) 555-0101;2;Grace;\"Billing; Sales\";;39\r\n\
        030 1234567;7;Bo;*;acme;\r\n\
        abc;3;Mona;;;\r\n\
        +14155550103;;Nina;;;\r\n\
        +14155550104;2;Jo;;;\r\n\
        +14155550105;8;Pat;;nowhere;\r\n";

    let reply = import(&env, "", file).await;

    assert_eq!(reply.status, 200, "{reply:?}");
    let counts = ["added", "changed", "unchanged"].map(|name| reply.body[name].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 0]);
    let refused: Vec<String> = reply.body["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| format!("{} {}: {}", refused["line"], refused["staff_id"], refused["detail"]))
        .collect();
    for (line, said) in refused.iter().zip([
        "4 \"3\": \"`phone`: this is not one phone number",
        "5 \"\": \"`staff_id`: this is missing",
        "6 \"2\": \"this person stands in line 2 already",
        "7 \"8\": \"`source`: `nowhere` is not a configured source: write one of `acme`, `default`",
    ]) {
        assert!(line.starts_with(said), "{line}, not {said}");
    }
    assert_eq!(refused.len(), 4);
    let bo = env.get("/v1/staff/acme/7?reveal=phone").await;
    assert_eq!((&bo["phone"], &bo["manages"]), (&json!("+49301234567"), &json!(["*"])));
    let grace = env.get("/v1/staff/default/2").await;
    assert_eq!(
        (&grace["name"], &grace["manages"]),
        (&json!("Grace"), &json!(["Billing", "Sales"]))
    );

    let again = import(
        &env,
        "?source=acme",
        "staff_id,phone,name,manages\n7,+49301234567,Bo,*\n",
    )
    .await;
    assert_eq!(
        again.body,
        json!({"added": 0, "changed": 0, "unchanged": 1, "refused": []})
    );
    for (file, status, said) in [
        ("2,+14155550101\n", 422, "does not name the columns"),
        (
            "staff_id,phone\n9,\"+14155550101\n10,+14155550102\n",
            200,
            "a quote that opens here",
        ),
        ("", 200, "\"added\":0"),
    ] {
        let reply = import(&env, "", file).await;
        assert!(
            reply.status == status && reply.body.to_string().contains(said),
            "{reply:?}"
        );
    }
    let json = env.admin(Method::POST, "/v1/staff.csv", Some(json!({}))).await;
    assert_eq!(json.status, 415);
}

async fn the_directory_leaves_as_a_file_that_is_harmless_and_comes_back_the_same(database: Database) {
    let env = TestEnv::on(database).await;
    let lines: String = (0..2_500)
        .map(|number| format!("{number},+1415{},Person {number}\n", 2_000_000 + number))
        .collect();
    let imported = import(&env, "", format!("staff_id,phone,name\n{lines}")).await;
    assert_eq!(imported.body["added"], 2_500, "{imported:?}");
    let formula = json!({"phone": GRACE, "name": "=cmd|' /C calc'!A0", "login": "@SUM(1)", "manages": ["-a", "+b"]});
    assert_eq!(put(&env, "=1", formula).await.status, 201);

    let exported = export(&env).await;

    assert_eq!(
        exported.lines().next(),
        Some("\u{feff}source,staff_id,name,phone,email,login,role,region,manages")
    );
    assert_eq!(exported.lines().count(), 2_502);
    for harmless in ["'=cmd|", "'@SUM(1)", "'=1,", "'+14155550101", "\"'-a, +b\""] {
        assert!(exported.contains(harmless), "{harmless}");
    }
    let again = import(&env, "", exported.clone()).await;
    assert_eq!(
        again.body,
        json!({"added": 0, "changed": 0, "unchanged": 2_501, "refused": []})
    );

    env.database.execute("delete from staff_key").await;
    env.database.execute("delete from staff").await;
    assert_eq!(import(&env, "", exported.clone()).await.body["added"], 2_501);
    assert_eq!(export(&env).await, exported);
    let alert = env.raise(&critical("1", &[json!({"name": "person 2499"})])).await;
    assert_eq!(told(&env, &alert).await, ["+14152002499 | person 2499 | - | -"]);
}

const PATH: &str = "/admin/staff";

async fn the_page_adds_changes_and_removes_people(database: Database) {
    let env = TestEnv::on(database).await;
    let mut browser = Browser::on(&env).await;
    let empty = browser.get(PATH).await;
    empty.has("Nobody is in the directory yet");
    empty.has("aria-current=\"page\">Staff");
    let person = [
        ("source", "default"),
        ("staff_id", "2 & 3"),
        ("name", "<script>alert(1)</script>"),
        ("phone", "(415) 555-0101"),
        ("email", "grace@acme.test"),
        ("manages", "Billing, *"),
    ];
    let with = |changes: &[(&'static str, &'static str)]| {
        let mut fields: Vec<(&str, &str)> = person.to_vec();
        for (name, value) in changes {
            fields.retain(|(known, _)| known != name);
            fields.push((name, value));
        }
        fields
    };

    let wrong = browser
        .submit(
            PATH,
            &with(&[
                ("action", "add"),
                ("phone", "12"),
                ("email", "x"),
                ("role", "typed before"),
            ]),
        )
        .await;
    assert_eq!(wrong.status, 422);
    for text in [
        "Nothing was saved yet",
        "not one phone number",
        "no e-mail address",
        "typed before",
        "aria-invalid",
    ] {
        wrong.has(text);
    }
    let added = browser.submit(PATH, &with(&[("action", "add")])).await;
    assert_eq!(
        (added.status.as_u16(), added.leads_to()),
        (303, "/admin/staff?done=staff-added")
    );
    let twice = browser
        .submit(PATH, &with(&[("action", "add"), ("name", "Another")]))
        .await;
    assert_eq!(twice.status, 422);
    twice.has("Somebody with this id is in the directory already");

    let listed = browser.get(PATH).await;
    listed.has("&lt;script&gt;");
    listed.has_not("<script");
    listed.has("+1415****101");
    listed.has("every group");
    listed.has("staff_id=2+%26+3");
    let form = browser.get("/admin/staff/edit?source=default&staff_id=2+%26+3").await;
    form.has("Leave it empty to keep");
    form.has("grace@acme.test");
    for page in [&listed, &form] {
        page.has_not("4155550101");
    }
    let changes = [("action", "change"), ("phone", ""), ("name", "Grace")];
    let changed = browser.submit(PATH, &with(&changes)).await;
    assert_eq!(changed.leads_to(), "/admin/staff?done=staff-changed");
    let entry = env.get("/v1/staff/default/2%20&%203?reveal=phone").await;
    assert_eq!((&entry["name"], &entry["phone"]), (&json!("Grace"), &json!(GRACE)));
    browser
        .get("/admin/staff?q=nobody")
        .await
        .has("Nobody in the directory matches");
    browser.get("/admin/staff?q=GRACE").await.has("+1415****101");

    let question = browser.get("/admin/staff/remove?source=default&staff_id=2+%26+3").await;
    question.has("Remove this person?");
    env.get("/v1/staff/default/2%20&%203").await;
    let removed = browser.submit(PATH, &with(&[("action", "remove")])).await;
    assert_eq!(removed.leads_to(), "/admin/staff?done=staff-removed");
    let gone = browser.submit(PATH, &with(&[("action", "remove")])).await;
    assert_eq!(gone.status, 404);
    browser.get(PATH).await.has("Nobody is in the directory yet");
}

async fn the_page_reads_files_and_shows_a_number_only_when_asked(database: Database) {
    let env = Plan::on(database).set("SOURCES__ACME__REGION", "DE").build().await;
    let mut browser = Browser::on(&env).await;

    let nothing = browser.submit(PATH, &[("action", "import"), ("source", "acme")]).await;
    assert_eq!(nothing.status, 422);
    nothing.has("Choose a file");
    let headless = browser
        .submit(
            PATH,
            &[("action", "import"), ("source", "acme"), ("lines", "7,030 1234567")],
        )
        .await;
    assert_eq!(headless.status, 422);
    headless.has("does not name the columns");
    headless.has("7,030 1234567");
    let lines = "staff_id,phone,name\n7,030 1234567,Bo\n8,12,\n";
    let imported = browser
        .submit(PATH, &[("action", "import"), ("source", "acme"), ("lines", lines)])
        .await;
    imported.has("<strong>1</strong> added, <strong>0</strong> changed, <strong>0</strong> as they were, <strong>1</strong> refused");

    let asked = [
        ("action", "reveal"),
        ("source", "acme"),
        ("staff_id", "7"),
        ("list_source", "acme"),
    ];
    let shown = browser.submit(PATH, &asked).await;
    shown.has("+49301234567");
    shown.has("<option selected>acme");
    browser.get(PATH).await.has_not("+49301234567");
    env.service
        .logged("an admin was shown a number of the staff directory")
        .await;
    browser.get("/admin/staff.csv").await.has("acme,7,Bo,'+49301234567");
    assert!(!env.service.log().contains("301234567"));
}

async fn the_commands_do_the_same_whether_the_service_runs_or_not(database: Database) {
    let mut env = with_commands(Plan::on(database)).await;
    let folder = env.database.folder.path().to_owned();
    for is_running in [true, false] {
        if !is_running {
            env.service.kill();
        }
        let file = |name: &str| folder.join(format!("{is_running}-{name}")).to_str().unwrap().to_owned();
        let (people, exported) = (file("people.csv"), file("staff.csv"));
        std::fs::write(&people, "staff_id,phone,name\n7,+14155550107,Bo\n8,12,Al\n").unwrap();
        for (expected, arguments, said) in [
            (0, &["staff", "list"][..], "Nobody is found"),
            (
                0,
                &[
                    "staff",
                    "add",
                    "2",
                    "(415) 555-0101",
                    "--name",
                    "Grace",
                    "--manages",
                    "Billing,Sales",
                ],
                "added: Grace, +1415****101",
            ),
            (0, &["staff", "add", "2", GRACE, "--name", "Grace"], "replaced: Grace"),
            (2, &["staff", "add", "2", "12"], "not one phone number"),
            (
                2,
                &["staff", "add", "2", GRACE, "--source", "nowhere"],
                "not a configured source",
            ),
            (2, &["staff", "add", "..", GRACE], "write the id"),
            (
                1,
                &["staff", "import", &people],
                "1 added, 0 changed, 0 as they were, 1 line left out",
            ),
            (0, &["staff", "list", "--search", "grace"], "Grace  +1415****101"),
            (0, &["staff", "list", "--reveal"], "+14155550107"),
            (0, &["staff", "export", &exported], "wrote"),
            (
                0,
                &["staff", "import", &exported],
                "0 added, 0 changed, 2 as they were, 0 lines left out",
            ),
            (0, &["staff", "remove", "2"], "removed"),
            (1, &["staff", "remove", "2"], "nobody with this id"),
            (0, &["staff", "remove", "7"], "removed"),
        ] {
            let (code, out, err) = env.run(arguments).await;
            let told = out + &err;
            assert!(code == expected && told.contains(said), "{arguments:?}: {code} {told}");
        }
        let (_, out, _) = env.run(&["staff", "list", "--json"]).await;
        assert_eq!(out.trim(), "{\"items\":[],\"more\":false}");
    }
}
