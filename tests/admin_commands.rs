//! Stories of admins at a shell: each command says and does the same whether the service runs or not, and says in its exit
//! code what came of it.

use crate::support::{
    database::{Database, Folder},
    env::{Plan, TestEnv, critical, person},
    eventually,
    service::command,
    twilio::Answers,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

stories![
    every_look_shows_the_same_whether_the_service_runs_or_not,
    every_change_counts_whether_the_service_runs_or_not,
    bad_arguments_are_a_wrong_call_and_what_is_not_there_is_a_no,
    explain_tells_the_whole_story_in_words,
    explain_says_what_stands_in_the_way,
    opt_outs_leave_and_come_as_a_file,
    many_commands_at_once_all_count,
    a_service_without_a_token_is_not_asked,
    a_test_sms_is_followed_until_it_is_delivered,
    a_limit_of_requests_only_makes_a_command_slower,
    phones_are_masked_unless_they_are_asked_for,
];

const DONE: i32 = 0;
const NO: i32 = 1;
const WRONG_CALL: i32 = 2;

/// The service with commands that know where it listens.
pub async fn with_commands(plan: Plan) -> TestEnv {
    let mut env = plan.build().await;
    let address = env.service.address.clone();
    env.settings.insert("NIGHTBELL_LISTEN".into(), address);
    env
}

/// Runs a command that must end so; returns what it printed.
async fn run(env: &TestEnv, expected: i32, arguments: &[&str]) -> String {
    let (code, out, err) = env.run(arguments).await;
    assert_eq!(code, expected, "{arguments:?}: {out}{err}");
    assert!(code != WRONG_CALL || out.is_empty(), "{arguments:?}: {out}");
    assert!(!err.contains("panicked"), "{arguments:?}: {err}");
    out + &err
}

/// The same of a command that prints JSON.
async fn run_json(env: &TestEnv, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    let (code, out, err) = env.run(&arguments).await;
    assert_eq!(code, DONE, "{arguments:?}: {out}{err}");
    serde_json::from_str(&out).unwrap()
}

fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}

/// One ticket with a message in each of several states: accepted, deferred, suppressed, failed.
async fn a_mixed_ticket(env: &TestEnv) -> (String, Vec<Value>) {
    let body = json!({"phone": "+14155550103", "reason": "asked"});
    env.admin(Method::POST, "/v1/opt-outs", Some(body)).await;
    let grace = |phone: &str| json!({"staff_id": "7", "role": "assignee", "name": "Grace Hopper", "phone": phone});
    let people = [
        grace("+14155550101"),
        grace("+14155550102"),
        grace("+14155550103"),
        json!({"name": "Ada", "phone": "abc"}),
    ];
    let alert = env.raise(&critical("1", &people[..1])).await;
    env.stand(&alert, &["accepted"]).await;
    env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 1}))).await;
    let other = env.raise(&critical("2", &people[1..])).await;
    let deliveries = env.stand(&other, &["deferred", "suppressed", "failed"]).await;
    (other, deliveries)
}

/// Everything that can be looked at, as JSON.
async fn look_at_everything(env: &TestEnv, alert: &str, delivery: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    for arguments in [
        &["limit", "show"][..],
        &["opt-out", "list"],
        &["opt-out", "list", "--reveal"],
        &["alert", "list"],
        &["alert", "list", "--ticket", "2", "--source", "default"],
        &["alert", "list", "--subject", "printer", "--state", "open"],
        &["alert", "show", alert],
        &["delivery", "list"],
        &["delivery", "list", "--state", "deferred", "--reveal"],
        &["delivery", "list", "--phone", "+1 415 555 0101"],
        &["delivery", "list", "--ticket", "2", "--limit", "2"],
        &["delivery", "show", delivery],
        &["explain", "2"],
    ] {
        let mut shown = run_json(env, arguments).await;
        // The only thing that differs: whether somebody is at work.
        if let Some(explained) = shown.as_object_mut() {
            explained.remove("readiness");
        }
        seen.push(shown);
    }
    seen
}

async fn every_look_shows_the_same_whether_the_service_runs_or_not(database: Database) {
    let mut env = with_commands(Plan::on(database)).await;
    let (alert, deliveries) = a_mixed_ticket(&env).await;
    let delivery = id(&deliveries[0]);

    let running = look_at_everything(&env, &alert, &delivery).await;

    let items = |place: usize| running[place]["items"].as_array().unwrap().len();
    assert_eq!([1, 3, 4, 5, 7, 8, 9, 10].map(items), [1, 2, 1, 2, 4, 1, 1, 2]);
    assert_eq!(running[0]["limit"], 1);
    assert_eq!(running[1]["items"][0]["phone"], "+1415****103");
    assert_eq!(running[2]["items"][0]["phone"], "+14155550103");
    assert_eq!(running[6], env.get(&format!("/v1/alerts/{alert}")).await);
    assert_eq!(
        (&running[7]["more"], &running[10]["more"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(running[11], env.get(&format!("/v1/deliveries/{delivery}")).await);
    assert_eq!(running[12]["alerts"][0], running[6]);

    env.service.kill();
    let stopped = look_at_everything(&env, &alert, &delivery).await;
    assert_eq!(running, stopped);
    let told = run(&env, DONE, &["limit", "show"]).await;
    assert!(
        told.contains("1 of 1 messages used") && told.contains("(UTC); 1 delivery waits"),
        "{told}"
    );
}

/// What a command changes is there for everybody, with texts that say what was done.
async fn change_everything(env: &TestEnv, deliveries: &[Value]) -> Vec<String> {
    let mut said = Vec::new();
    let deferred = id(&deliveries[0]);
    let phone = "+1 (415) 555-0109";
    for (expected, arguments) in [
        (DONE, &["opt-out", "add", phone, "--reason", "asked"][..]),
        (DONE, &["opt-out", "add", phone]),
        (DONE, &["opt-out", "remove", phone]),
        (NO, &["opt-out", "remove", phone]),
        (DONE, &["limit", "set", "0"]),
        (DONE, &["delivery", "cancel", &deferred]),
        (DONE, &["delivery", "cancel", &deferred]),
        (NO, &["delivery", "cancel", &id(&deliveries[2])]),
        (NO, &["delivery", "resend", &id(&deliveries[2])]),
        (DONE, &["delivery", "resend", &deferred]),
        (NO, &["delivery", "resend", &deferred]),
        (DONE, &["delivery", "resend", &deferred, "--force"]),
        (DONE, &["alert", "cancel", deliveries[0]["alert_id"].as_str().unwrap()]),
        (NO, &["alert", "cancel", deliveries[0]["alert_id"].as_str().unwrap()]),
    ] {
        said.push(run(env, expected, arguments).await);
    }
    said
}

async fn every_change_counts_whether_the_service_runs_or_not(database: Database) {
    let mut env = with_commands(Plan::on(database)).await;
    let (first, deliveries) = a_mixed_ticket(&env).await;
    let second = env
        .raise(&critical(
            "3",
            &[person("+14155550104"), person("+14155550103"), json!({"phone": "abc"})],
        ))
        .await;
    let others = env.stand(&second, &["deferred", "suppressed", "failed"]).await;

    for (is_running, deliveries) in [(true, deliveries), (false, others)] {
        if !is_running {
            env.service.kill();
        }
        let said = change_everything(&env, &deliveries).await;
        for (said, text) in said.iter().zip([
            "+1415****109 will not be texted any more",
            "is on the list already, since",
            "may be texted again",
            "has not opted out",
            "1 of 0 messages used",
            "held back",
            "held back",
            "it has ended",
            "no usable number",
            "to be sent again, instead of delivery",
            "may still arrive",
            "it is sent again",
            "held back 2 messages",
            "nothing could be held back",
        ]) {
            assert!(said.contains(text), "{text}: {said}");
        }
        assert_eq!(
            said[9].contains("once `nightbell serve` runs"),
            !is_running,
            "{}",
            said[9]
        );
    }
    let set = run(&env, DONE, &["limit", "set", "default"]).await;
    assert!(set.contains("1 of 200 messages used"), "{set}");

    env.restart();
    env.stand(&first, &["canceled", "suppressed", "failed", "canceled", "canceled"])
        .await;
    env.stand(&second, &["canceled", "suppressed", "failed", "canceled", "canceled"])
        .await;
    let canceled = env.deliveries(&second).await[0].clone();
    run(&env, DONE, &["delivery", "resend", &id(&canceled)]).await;
    eventually("the message that a command sent again", async || {
        let messages = env.twilio.messages_to("+14155550104").len();
        if messages == 1 { Ok(()) } else { Err(messages) }
    })
    .await;
}

async fn bad_arguments_are_a_wrong_call_and_what_is_not_there_is_a_no(database: Database) {
    let mut env = with_commands(Plan::on(database)).await;
    for is_running in [true, false] {
        if !is_running {
            env.service.kill();
        }
        for (expected, arguments, text) in [
            (
                WRONG_CALL,
                &["delivery", "list", "--state", "lost"][..],
                "`lost` is not a state",
            ),
            (
                WRONG_CALL,
                &["delivery", "list", "--day", "soon"],
                "`soon` is not a day",
            ),
            (
                WRONG_CALL,
                &["delivery", "list", "--phone", "12"],
                "not one phone number",
            ),
            (WRONG_CALL, &["alert", "list", "--limit", "0"], "--limit"),
            (
                WRONG_CALL,
                &["alert", "list", "--state", "lost"],
                "`lost` is not a state",
            ),
            (WRONG_CALL, &["alert", "show", ".."], "letters, digits and hyphens"),
            (WRONG_CALL, &["alert", "show", "a/b"], "letters, digits and hyphens"),
            (WRONG_CALL, &["opt-out", "add", "12"], "not one phone number"),
            (WRONG_CALL, &["opt-out", "remove", ".."], "write the number with `+`"),
            (WRONG_CALL, &["limit", "set", "many"], "a whole number, or `default`"),
            (WRONG_CALL, &["limit", "set", "20000000"], "a whole number from 0 to"),
            (WRONG_CALL, &["send-test"], "--mail"),
            (
                WRONG_CALL,
                &["send-test", "--mail", "a@b.c", "--to", "+14155550101"],
                "cannot be used with",
            ),
            (WRONG_CALL, &["completions", "cobol"], "cobol"),
            (NO, &["alert", "show", "nothing"], "there is no alert with this id"),
            (NO, &["alert", "cancel", "nothing"], "there is no alert with this id"),
            (
                NO,
                &["delivery", "show", "nothing"],
                "there is no delivery with this id",
            ),
            (
                NO,
                &["delivery", "resend", "nothing"],
                "there is no delivery with this id",
            ),
            (NO, &["opt-out", "import", "absent.csv"], "cannot read absent.csv"),
            (NO, &["explain", "77"], "There is no alert of ticket 77"),
        ] {
            let said = run(&env, expected, arguments).await;
            assert!(said.contains(text), "{arguments:?}: {said}");
        }
    }
    env.settings.insert("NIGHTBELL_SMS__DRIVER".into(), "pigeon".into());
    let said = run(&env, WRONG_CALL, &["limit", "show"]).await;
    assert!(said.contains("the configuration has 1 fault"), "{said}");
}

async fn explain_tells_the_whole_story_in_words(database: Database) {
    let env = with_commands(Plan::on(database).set("TIME_ZONE", "Asia/Tokyo")).await;
    let busy = env.phone("+14155550102", [Answers::Busy]);
    let refused = env.phone("+14155550103", [Answers::Refuses(400, 21211)]);
    let alert = env
        .raise(&critical("1", &[person("+14155550101"), busy, refused]))
        .await;
    env.stand(&alert, &["accepted", "accepted", "failed"]).await;
    let message = env.twilio.messages_to("+14155550101").remove(0);
    env.report(&message, "undelivered", Some("30003")).await;
    env.stand(&alert, &["undelivered", "accepted", "failed"]).await;
    let sid = message.sid.clone();

    let told = run(&env, DONE, &["explain", "1"]).await;

    for text in [
        "Ticket 101 (id 1, source default): Printer on fire",
        "still critical",
        "Grace Hopper (assignee), +1415****101: not delivered by the carrier",
        " JST  to be sent",
        " JST  handing it to Twilio (attempt 1)",
        &format!(" JST  Twilio accepted it ({sid})"),
        " JST  the carrier did not deliver it (code 30003)",
        "What it means: Handset unreachable:",
        "What to do: ",
        "+1415****102: the provider has it",
        "not sent (attempt 1): Twilio is busy",
        "handing it to Twilio (attempt 2)",
        "whether the phone got it is not known yet",
        "+1415****103: failed",
        "Twilio refused it (code 21211)",
        "In short: 0 messages delivered, 1 under way or not certain, 2 not delivered.",
    ] {
        assert!(told.contains(text), "{text}: {told}");
    }
    assert!(!told.contains("555"), "{told}");
    let by_number = run(&env, DONE, &["explain", "101"]).await;
    assert_eq!(by_number, told);
    let elsewhere = run(&env, NO, &["explain", "1", "--source", "acme"]).await;
    assert!(elsewhere.contains("from source acme, but from default"), "{elsewhere}");
    let nothing = run(&env, NO, &["explain", "2"]).await;
    for text in ["answered `ignored`", "It has another id", "A service answers at"] {
        assert!(nothing.contains(text), "{text}: {nothing}");
    }
    let shown = run(&env, DONE, &["alert", "show", &alert]).await;
    assert_eq!(
        shown.matches("CRITICAL TICKET").count(),
        1,
        "the text stands there once: {shown}"
    );
    let json = run_json(&env, &["explain", "1"]).await;
    assert_eq!(json["readiness"]["details"]["provider"]["status"], "ok");
}

async fn explain_says_what_stands_in_the_way(database: Database) {
    let mut env = with_commands(Plan::on(database).set("DAILY_LIMIT", "1")).await;
    let alert = env
        .raise(&critical("1", &[person("+14155550101"), person("+14155550102")]))
        .await;
    eventually("one message for the one slot", async || {
        let deliveries = env.deliveries(&alert).await;
        let mut states: Vec<String> = deliveries
            .iter()
            .map(|d| d["state"].as_str().unwrap().to_owned())
            .collect();
        states.sort();
        if states == ["accepted", "deferred"] {
            Ok(())
        } else {
            Err(states)
        }
    })
    .await;

    let told = run(&env, DONE, &["explain", "1"]).await;
    for text in [
        "held back by the daily limit",
        "Now: 1 of 1 messages used",
        "`nightbell limit set N` raises the limit",
    ] {
        assert!(told.contains(text), "{text}: {told}");
    }
    assert!(!told.contains("does not run"), "{told}");

    env.twilio.refuse_account(true);
    run(&env, DONE, &["limit", "set", "5"]).await;
    let told = eventually("the hold in words", async || {
        let told = run(&env, DONE, &["explain", "1"]).await;
        if told.contains("Now: the provider refuses our credentials; sends are held since") {
            Ok(told)
        } else {
            Err(told)
        }
    })
    .await;
    assert!(told.contains("Twilio refused our credentials"), "{told}");

    env.service.kill();
    let told = run(&env, DONE, &["explain", "1"]).await;
    assert!(
        told.contains("Now: nothing is sent while `nightbell serve` does not run: start it"),
        "{told}"
    );
}

async fn opt_outs_leave_and_come_as_a_file(database: Database) {
    let mut env = with_commands(Plan::on(database)).await;
    let folder = env.database.folder.path().to_owned();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    std::fs::write(
        path("in.csv"),
        "phone,reason\n+14155550101,asked\nabc,\n+14155550102,\n",
    )
    .unwrap();
    std::fs::write(path("latin.csv"), b"phone,reason\n+14155550105,m\xfcde\n").unwrap();
    for is_running in [true, false] {
        if !is_running {
            env.service.kill();
            env.database.execute("delete from opt_out").await;
        }
        let said = run(&env, NO, &["opt-out", "import", &path("in.csv")]).await;
        assert!(said.contains("2 added, 0 known before, 1 line left out"), "{said}");
        assert!(said.contains("line 3: `****`: this is not one phone number"), "{said}");
        let said = run(&env, WRONG_CALL, &["opt-out", "import", &path("latin.csv")]).await;
        assert!(said.contains("line 2 is not UTF-8"), "{said}");

        let file = path(&format!("out-{is_running}.csv"));
        run(&env, DONE, &["opt-out", "export", &file]).await;
        run(&env, NO, &["opt-out", "export", &file]).await;
        let printed = run(&env, DONE, &["opt-out", "export"]).await;
        assert_eq!(printed, std::fs::read_to_string(&file).unwrap());
        assert_eq!(printed.lines().count(), 3, "{printed}");
        let again = run_json(&env, &["opt-out", "import", &file]).await;
        assert_eq!(again, json!({"added": 0, "known": 2, "refused": []}));
    }
}

/// On SQLite they wait for each other, also where none of them is a service.
async fn many_commands_at_once_all_count(database: Database) {
    let mut env = with_commands(Plan::on(database).set("DAILY_LIMIT", "0")).await;
    let people = ["+14155550101", "+14155550102", "+14155550103", "+14155550104"].map(person);
    let first = env.raise(&critical("1", &people)).await;
    let second = env.raise(&critical("2", &people)).await;
    for (is_running, alert) in [(true, first), (false, second)] {
        let deliveries = env.stand(&alert, &["deferred"; 4]).await;
        if !is_running {
            env.service.kill();
        }
        let env = &env;
        let canceling = deliveries
            .iter()
            .map(|delivery| async { run(env, DONE, &["delivery", "cancel", &id(delivery)]).await });
        futures::future::join_all(canceling).await;
        let shown = run_json(env, &["alert", "show", &alert]).await;
        let states = shown["deliveries"].as_array().unwrap().iter();
        assert!(
            states.clone().all(|delivery| delivery["state"] == "canceled"),
            "{shown}"
        );
    }
}

async fn a_service_without_a_token_is_not_asked(database: Database) {
    let mut env = with_commands(Plan::on(database)).await;
    let is_sqlite = env.database.is_sqlite;
    env.raise(&critical("1", &[])).await;

    env.settings
        .insert("NIGHTBELL_AUTH__ADMIN_TOKENS".into(), "another".into());
    for arguments in [&["limit", "show"], &["delivery", "list"]] {
        let said = run(&env, WRONG_CALL, arguments).await;
        assert!(
            said.contains("does not take the first of `auth.admin_tokens`"),
            "{said}"
        );
    }
    env.settings.remove("NIGHTBELL_AUTH__ADMIN_TOKENS");
    let told = run(&env, DONE, &["explain", "1"]).await;
    assert!(
        told.contains("named nobody") && !told.contains("does not run"),
        "{told}"
    );
    let said = run(&env, WRONG_CALL, &["send-test", "--to", "+14155550101"]).await;
    assert!(said.contains("without `auth.admin_tokens`"), "{said}");
    // On PostgreSQL the change is made beside the service, by the same rules.
    let expected = if is_sqlite { WRONG_CALL } else { DONE };
    let said = run(&env, expected, &["limit", "set", "7"]).await;
    let text = if is_sqlite {
        "without `auth.admin_tokens`"
    } else {
        "0 of 7 messages used"
    };
    assert!(said.contains(text), "{said}");

    env.settings
        .insert("NIGHTBELL_AUTH__ADMIN_TOKENS".into(), crate::support::env::ADMIN.into());
    env.settings.insert("NIGHTBELL_LISTEN".into(), "127.0.0.1:1".into());
    let limit = if is_sqlite { "0 of 200" } else { "0 of 7" };
    assert!(run(&env, DONE, &["limit", "show"]).await.contains(limit));
    let expected = if is_sqlite { NO } else { DONE };
    let said = run(&env, expected, &["limit", "set", "8"]).await;
    let text = if is_sqlite {
        "nothing answers at 127.0.0.1:1"
    } else {
        "0 of 8 messages used"
    };
    assert!(said.contains(text), "{said}");
}

async fn a_test_sms_is_followed_until_it_is_delivered(database: Database) {
    let mut env = with_commands(Plan::on(database)).await;
    let report = async {
        let message = eventually("the test message", async || {
            let message = env.twilio.messages_to("+14155550101").into_iter().next();
            message.ok_or("no message yet")
        })
        .await;
        env.report(&message, "delivered", None).await;
        message
    };
    let send = run(
        &env,
        DONE,
        &["send-test", "--to", "+1 415 555 0101", "--text", "Hello there"],
    );
    let (said, message) = tokio::join!(send, report);
    assert_eq!(message.body, "Hello there");
    for text in [
        "to be sent\n",
        "handing it to Twilio (attempt 1)",
        "the carrier confirmed delivery\ndelivered\n",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }

    let accepted = ["send-test", "--to", "+14155550102", "--wait", "1"];
    let said = run(&env, DONE, &accepted).await;
    assert!(
        said.contains("the provider has it") && said.contains("nightbell delivery show "),
        "{said}"
    );
    env.twilio.script("+14155550103", [Answers::Refuses(400, 21211)]);
    let said = run(&env, NO, &["send-test", "--to", "+14155550103"]).await;
    assert!(
        said.contains("Twilio refused it (code 21211)") && said.contains("What to do:"),
        "{said}"
    );
    let shown = run_json(&env, &["send-test", "--to", "+14155550104", "--wait", "1"]).await;
    assert_eq!(
        (&shown["alert_id"], &shown["phone"]),
        (&Value::Null, &json!("+1415****104"))
    );
    assert_eq!(env.get("/v1/limit").await["used"], 4, "each counts against the limit");

    env.service.kill();
    let said = run(&env, NO, &["send-test", "--to", "+14155550101"]).await;
    assert!(said.contains("`nightbell serve` must run"), "{said}");
}

async fn a_limit_of_requests_only_makes_a_command_slower(database: Database) {
    let env = with_commands(Plan::on(database).set("HTTP__PER_SECOND", "2")).await;
    for _ in 0..3 {
        let told = run(&env, NO, &["explain", "1"]).await;
        assert!(told.contains("There is no alert of ticket 1"), "{told}");
    }
}

async fn phones_are_masked_unless_they_are_asked_for(database: Database) {
    let env = with_commands(Plan::on(database)).await;
    let (alert, deliveries) = a_mixed_ticket(&env).await;
    let delivery = id(&deliveries[0]);
    for arguments in [
        &["opt-out", "list"][..],
        &["alert", "show", &alert],
        &["delivery", "list"],
        &["delivery", "show", &delivery],
        &["explain", "2"],
    ] {
        for arguments in [arguments.to_vec(), [arguments, &["--json"]].concat()] {
            let masked = run(&env, DONE, &arguments).await;
            assert!(
                masked.contains("+1415****10") && !masked.contains("4155550"),
                "{arguments:?}: {masked}"
            );
            let revealed = run(&env, DONE, &[arguments.as_slice(), &["--reveal"]].concat()).await;
            assert!(revealed.contains("+1415555010"), "{arguments:?}: {revealed}");
        }
    }
}

#[test]
fn no_command_makes_a_database_where_none_is() {
    let folder = Folder::new();
    let environment = BTreeMap::from([("NIGHTBELL_LISTEN".to_owned(), "127.0.0.1:1".to_owned())]);
    for arguments in [
        &["opt-out", "add", "+14155550101"][..],
        &["limit", "show"],
        &["explain", "1"],
    ] {
        let output = command(&environment, folder.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(NO), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("there is no database at nightbell.db yet"), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn shells_complete_and_manual_pages_show_every_command() {
    let folder = Folder::new();
    let run = |arguments: &[&str]| {
        let output = command(&BTreeMap::new(), folder.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(script.contains("opt-out") && script.contains("reveal"), "{script}");
    }
    assert!(run(&["man"]).contains("nightbell\\-explain(1)"));
    run(&["man", "."]);
    for page in ["nightbell.1", "nightbell-opt-out-import.1", "nightbell-send-test.1"] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
}
