//! What people text us: kept once, done what it asks for, and never answered by what Twilio is answered.

use crate::{
    pages::Browser,
    support::{
        database::Database,
        env::{OUR_NUMBER, PUBLIC, Plan, Reply, TestEnv, critical, person},
        eventually,
        twilio::{AUTH_TOKEN, Answers, sign, text_form},
    },
};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

stories![
    a_reply_reaches_the_newest_alert_of_its_thread,
    a_stop_ends_all_texts_and_a_start_brings_them_back,
    a_stop_is_heard_in_every_writing_and_only_alone,
    a_stop_suppresses_what_is_deferred,
    a_stop_while_a_call_is_under_way_is_answered_in_time_and_ends_the_rest,
    a_thousand_stops_at_once_leave_an_exact_list_and_no_text_after_the_answer,
    the_same_message_twice_happens_once,
    a_forged_text_changes_nothing,
    whatever_a_form_looks_like_it_is_taken_or_refused,
    a_reply_after_a_week_belongs_to_no_alert,
    what_strangers_send_is_limited,
    a_text_that_cannot_be_stored_is_not_answered_with_success,
    who_asks_for_help_gets_one_answer_and_no_more_than_a_handful,
    old_texts_are_stripped_and_opt_outs_stay,
    an_acknowledgement_that_does_not_work_is_answered,
    the_pages_and_the_command_show_what_was_sent,
];

const GRACE: &str = "+14155550101";
const MONA: &str = "+14155550102";

#[track_caller]
fn assert_taken(reply: &Reply) {
    assert_eq!(
        (reply.status, reply.content_type.as_str()),
        (200, "text/xml; charset=utf-8"),
        "{reply:?}"
    );
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";
    assert_eq!(reply.body, expected, "nothing is to be sent back");
}

/// The newest message that we were sent.
async fn newest(env: &TestEnv) -> Value {
    env.get("/v1/inbound?limit=1&reveal=phone").await["items"][0].clone()
}

async fn texts(env: &TestEnv, from: &str, body: &str) -> Value {
    assert_taken(&env.text(from, body).await);
    newest(env).await
}

async fn opted_out(env: &TestEnv) -> Vec<String> {
    let listed = env.get("/v1/opt-outs?limit=200").await;
    let items = listed["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["phone"].as_str().unwrap().to_owned())
        .collect()
}

async fn told(env: &TestEnv, ticket: &str, phone: &str) -> String {
    let alert = env.raise(&critical(ticket, &[person(phone)])).await;
    env.stand(&alert, &["accepted"]).await;
    alert
}

async fn a_reply_reaches_the_newest_alert_of_its_thread(database: Database) {
    let env = TestEnv::on(database).await;
    let (first, second) = (told(&env, "1", GRACE).await, told(&env, "2", GRACE).await);
    let other = told(&env, "3", MONA).await;

    let reply = texts(&env, GRACE, "On my way 🚗\nten minutes").await;

    assert_eq!(
        (&reply["kind"], &reply["outcome"]),
        (&json!("reply"), &json!("to_alert"))
    );
    assert_eq!(reply["text"], "On my way 🚗\nten minutes");
    assert_eq!((&reply["from"], &reply["to"]), (&json!(GRACE), &json!(OUR_NUMBER)));
    assert_eq!(reply["alert_id"], second, "the newest one");
    let shown = env.get(&format!("/v1/alerts/{second}")).await;
    assert_eq!(shown["inbound"][0]["id"], reply["id"]);
    assert_eq!(shown["inbound"][0]["from"], "+1415****101");
    assert_eq!(shown["deliveries"][0]["id"], reply["delivery_id"]);
    for alert in [&first, &other] {
        assert_eq!(env.get(&format!("/v1/alerts/{alert}")).await["inbound"], json!([]));
    }

    // To another number of ours: that is another thread.
    let form = text_form("SM1", GRACE, "+15005550099", "Wrong number?");
    assert_taken(&env.post_text(&form).await);
    let reply = newest(&env).await;
    assert_eq!(
        (&reply["outcome"], &reply["alert_id"]),
        (&json!("to_none"), &json!(null))
    );

    // A picture is noted and not fetched.
    let mut form = text_form("MM1", MONA, OUR_NUMBER, "");
    form.retain(|(name, _)| *name != "NumMedia");
    form.extend([
        ("NumMedia", "1"),
        ("MediaContentType0", "image/jpeg"),
        ("MediaUrl0", "https://api.twilio.com/nowhere"),
    ]);
    assert_taken(&env.post_text(&form).await);
    let reply = newest(&env).await;
    assert_eq!((&reply["alert_id"], &reply["text"]), (&json!(other), &json!("")));
    assert_eq!(reply["media"], json!({"count": 1, "types": ["image/jpeg"]}));

    let shown = env.get(&format!("/v1/inbound/{}", reply["id"].as_str().unwrap())).await;
    assert_eq!(shown["from"], "+1415****102");
    for (filter, count) in [
        ("phone=%2B14155550101", 2),
        ("kind=reply", 3),
        ("kind=opt_out", 0),
        (&format!("alert_id={second}"), 1),
        (&format!("alert_id={second}&kind=reply"), 1),
    ] {
        let listed = env.get(&format!("/v1/inbound?{filter}")).await;
        assert_eq!(listed["items"].as_array().unwrap().len(), count, "{filter}: {listed}");
    }
    let (wrong, gone) = (
        env.admin(Method::GET, "/v1/inbound?kind=poem", None).await,
        env.admin(Method::GET, "/v1/inbound/none", None).await,
    );
    assert_eq!((wrong.status, gone.status), (422, 404));
    let log = env.service.log();
    for word in ["On my way", "4155550101"] {
        assert!(!log.contains(word), "`{word}` in {log}");
    }
}

async fn a_stop_ends_all_texts_and_a_start_brings_them_back(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = told(&env, "1", GRACE).await;

    let stop = texts(&env, GRACE, "Stop.").await;
    let again = texts(&env, GRACE, "STOP").await;

    assert_eq!(
        (&stop["kind"], &stop["outcome"]),
        (&json!("opt_out"), &json!("opted_out"))
    );
    assert_eq!(again["outcome"], "opted_out_before");
    let entry = env.get(&format!("/v1/opt-outs/{GRACE}")).await;
    assert_eq!(
        (&entry["message_id"], &entry["reason"]),
        (&stop["id"], &json!("texted STOP"))
    );
    let later = env.raise(&critical("2", &[person(GRACE)])).await;
    env.stand(&later, &["suppressed"]).await;

    let start = texts(&env, GRACE, "yes!").await;
    assert_eq!(
        (&start["kind"], &start["outcome"]),
        (&json!("opt_in"), &json!("opted_in"))
    );
    assert_eq!(opted_out(&env).await, [""; 0]);
    let delivery = env.deliveries(&later).await.remove(0);
    let resend = format!("/v1/deliveries/{}/resend", delivery["id"].as_str().unwrap());
    assert_eq!(env.admin(Method::POST, &resend, None).await.status, 201);
    env.stand(&later, &["suppressed", "accepted"]).await;
    assert_eq!(texts(&env, GRACE, "START").await["outcome"], "not_opted_out");

    // What the provider reported is lifted too.
    let refused = env
        .raise(&critical("3", &[env.phone(MONA, [Answers::Refuses(400, 21610)])]))
        .await;
    env.stand(&refused, &["failed"]).await;
    assert_eq!(opted_out(&env).await, [MONA]);
    assert_eq!(texts(&env, MONA, "unstop").await["outcome"], "opted_in");
    told(&env, "4", MONA).await;
    assert_eq!(
        env.twilio.messages_to(GRACE).len(),
        2,
        "of the first alert, and the resend: {alert}"
    );
}

async fn a_stop_is_heard_in_every_writing_and_only_alone(database: Database) {
    let env = Plan::on(database)
        .set("INBOUND__STOP_WORDS", "STOPP, Arrêt, BAJA")
        .build()
        .await;
    told(&env, "1", GRACE).await;

    for body in [
        "STOP",
        " stop ",
        "Stop!!!",
        "🛑 STOP 🛑",
        "stopall",
        "Opt-out",
        "arret",
        "Stopp.",
        "baja 🙏🏽",
    ] {
        assert_eq!(texts(&env, GRACE, body).await["kind"], "opt_out", "{body}");
        assert_eq!(opted_out(&env).await, [GRACE], "{body}");
        assert_eq!(texts(&env, GRACE, "Start").await["outcome"], "opted_in", "{body}");
    }
    for body in ["Stop the printer", "please stop", "STOP PLEASE", "nonstop", ""] {
        let reply = texts(&env, GRACE, body).await;
        assert_eq!(
            (&reply["kind"], &reply["outcome"]),
            (&json!("reply"), &json!("to_alert")),
            "{body}"
        );
    }
    // What Twilio says wins.
    let mut form = text_form("SM1", GRACE, OUR_NUMBER, "Adieu!");
    form.push(("OptOutType", "STOP"));
    assert_taken(&env.post_text(&form).await);
    assert_eq!(opted_out(&env).await, [GRACE]);
}

async fn a_stop_suppresses_what_is_deferred(database: Database) {
    let env = Plan::on(database).set("DAILY_LIMIT", "1").build().await;
    told(&env, "1", MONA).await;
    let alert = env.raise(&critical("2", &[person(GRACE)])).await;
    env.stand(&alert, &["deferred"]).await;

    assert_taken(&env.text(GRACE, "STOP").await);

    let delivery = env.deliveries(&alert).await.remove(0);
    assert_eq!(
        (&delivery["state"], &delivery["reason"]),
        (&json!("suppressed"), &json!("opted_out")),
        "at once"
    );
    assert!(delivery["timeline"].to_string().contains("opted out"), "{delivery}");
    let limit = env.admin(Method::PUT, "/v1/limit", Some(json!({"limit": 20}))).await;
    assert_eq!((limit.status, &limit.body["used"]), (200, &json!(1)));
    assert_eq!(env.twilio.calls_to(GRACE), 0);
}

async fn a_stop_while_a_call_is_under_way_is_answered_in_time_and_ends_the_rest(database: Database) {
    let env = TestEnv::on(database).await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let slow = env.phone(GRACE, [Answers::AcceptsWhenLet(Arc::clone(&gate))]);
    let alert = env.raise(&critical("1", &[slow])).await;
    env.twilio.accepted(1).await;

    let asked = Instant::now();
    assert_taken(&env.text(GRACE, "STOP").await);
    let took = asked.elapsed();

    assert!(took >= Duration::from_millis(500), "it waits for the call: {took:?}");
    assert!(took < Duration::from_secs(2), "and not for ever: {took:?}");
    let later = env.raise(&critical("2", &[person(GRACE)])).await;
    env.stand(&later, &["suppressed"]).await;
    gate.notify_one();
    env.stand(&alert, &["accepted"]).await;
    assert_eq!(env.twilio.messages_to(GRACE).len(), 1);

    // A short call is waited for until it is over.
    let gate = Arc::new(tokio::sync::Notify::new());
    let slow = env.phone(MONA, [Answers::AcceptsWhenLet(Arc::clone(&gate))]);
    let alert = env.raise(&critical("3", &[slow])).await;
    env.twilio.accepted(2).await;
    let letting = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.notify_one();
    };
    let (reply, ()) = tokio::join!(env.text(MONA, "STOP"), letting);
    assert_taken(&reply);
    assert_eq!(
        env.deliveries(&alert).await[0]["state"],
        "accepted",
        "before the answer"
    );
}

async fn a_thousand_stops_at_once_leave_an_exact_list_and_no_text_after_the_answer(database: Database) {
    const PEOPLE: usize = 1_000;
    let env = Plan::on(database).set("DAILY_LIMIT", "5000").build().await;
    let number = |index: usize| format!("+1415556{index:04}");
    // One after the other, so that most of it is still to be sent while the texts come.
    let raising = async {
        for ticket in 0..10 {
            let people: Vec<Value> = (0..100).map(|index| person(&number(ticket * 100 + index))).collect();
            env.raise(&critical(&ticket.to_string(), &people)).await;
        }
    };
    let answered = Mutex::new(BTreeMap::new());
    let (longest, again) = (Mutex::new(Duration::ZERO), Mutex::new(0));
    let stopping = futures::stream::iter(0..PEOPLE).for_each_concurrent(64, |index| {
        let (env, answered, longest, again) = (&env, &answered, &longest, &again);
        async move {
            let (from, sid) = (number(index), format!("SM{index:032x}"));
            loop {
                let asked = Instant::now();
                let reply = env.post_text(&text_form(&sid, &from, OUR_NUMBER, "STOP")).await;
                let took = asked.elapsed();
                let mut longest = longest.lock().unwrap();
                *longest = took.max(*longest);
                if reply.status == 200 {
                    answered.lock().unwrap().insert(from, jiff::Timestamp::now());
                    return;
                }
                // As Twilio does where its webhook says `rp=all`.
                assert_eq!(reply.status, 503, "{reply:?}");
                *again.lock().unwrap() += 1;
            }
        }
    });

    tokio::join!(raising, stopping);

    let (answered, again) = (answered.into_inner().unwrap(), again.into_inner().unwrap());
    println!(
        "{PEOPLE} STOPs: the longest answer took {:?}, {again} were asked for again",
        longest.into_inner().unwrap()
    );
    let mut expected: Vec<String> = (0..PEOPLE).map(number).collect();
    expected.sort();
    let list = env.database.texts("select phone from opt_out order by phone").await;
    assert_eq!(list, expected, "the list is exact");
    assert_eq!(env.database.number("select count(*) from inbound_message").await, 1_000);
    eventually("everything to have ended", async || {
        let sql = "select count(*) from delivery where state not in ('suppressed', 'accepted')";
        match env.database.number(sql).await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    let messages = env.twilio.messages();
    for message in &messages {
        let at = answered[&message.to];
        assert!(
            message.at <= at,
            "{}: sent at {}, answered at {at}",
            message.to,
            message.at
        );
    }
    println!("{} of {PEOPLE} messages went before their STOP", messages.len());
    let accepted = "select count(*) from delivery where state = 'accepted'";
    assert_eq!(
        env.database.number(accepted).await,
        i64::try_from(messages.len()).unwrap()
    );
    // The slots of what was not sent are given back.
    env.slots_are_used(i64::try_from(messages.len()).unwrap()).await;
}

async fn the_same_message_twice_happens_once(database: Database) {
    let env = TestEnv::on(database).await;
    told(&env, "1", GRACE).await;
    let stop = text_form("SM1", GRACE, OUR_NUMBER, "STOP");
    let reply = text_form("SM2", GRACE, OUR_NUMBER, "On my way");

    for form in [&stop, &reply] {
        let both = tokio::join!(env.post_text(form), env.post_text(form));
        assert_taken(&both.0);
        assert_taken(&both.1);
    }
    assert_eq!(texts(&env, GRACE, "START").await["outcome"], "opted_in");
    assert_taken(&env.post_text(&stop).await);

    assert_eq!(
        opted_out(&env).await,
        [""; 0],
        "a repeat that comes late opts nobody out"
    );
    assert_eq!(env.database.number("select count(*) from inbound_message").await, 3);
}

async fn a_forged_text_changes_nothing(database: Database) {
    let env = TestEnv::on(database).await;
    let form = text_form("SM1", GRACE, OUR_NUMBER, "STOP");
    assert!(form.len() >= 15);
    let url = format!("{PUBLIC}/twilio/inbound");
    let good = sign(AUTH_TOKEN, &url, &form);
    let mut more = form.clone();
    more.push(("OptOutType", "STOP"));
    let mut fewer = form.clone();
    fewer.pop();
    let mut changed = form.clone();
    changed[17] = ("From", MONA);

    for (form, signature, what) in [
        (&form, String::new(), "no signature"),
        (&form, sign("another", &url, &form), "another token"),
        (&form, sign("", &url, &form), "an empty token"),
        (
            &form,
            sign(AUTH_TOKEN, &format!("{PUBLIC}/twilio/status"), &form),
            "the address of receipts",
        ),
        (
            &form,
            sign(
                AUTH_TOKEN,
                &format!("http://{}/twilio/inbound", env.service.address),
                &form,
            ),
            "our own address",
        ),
        (&more, good.clone(), "one field more"),
        (&fewer, good.clone(), "one field less"),
        (&changed, good.clone(), "somebody else's number"),
    ] {
        let reply = env.post_text_signed(form, &signature).await;
        assert_eq!(reply.status, 403, "{what}: {reply:?}");
    }

    assert_eq!(env.database.number("select count(*) from inbound_message").await, 0);
    assert_eq!(opted_out(&env).await, [""; 0]);
    let rejected = env.get("/v1/receipts/rejected").await;
    assert_eq!(rejected["count"], 8);
    assert!(!rejected.to_string().contains("4155550101"), "{rejected}");
    // A receipt is not good for a text either.
    let receipt = env.post_receipt(&url, &form, &good).await;
    assert_eq!(receipt, 403);
    assert_taken(&env.post_text_signed(&form, &good).await);
    assert_eq!(opted_out(&env).await, [GRACE]);
}

async fn whatever_a_form_looks_like_it_is_taken_or_refused(database: Database) {
    let env = Plan::on(database)
        .set("TWILIO__INBOUND_URL", "https://elsewhere.example.test/texts")
        .build()
        .await;
    let post = async |form: &[(&str, &str)]| {
        // Of repeated names Twilio's libraries sign each pair once, in order.
        let mut signed = form.to_vec();
        signed.sort();
        signed.dedup();
        env.post_text_signed(form, &sign(AUTH_TOKEN, "https://elsewhere.example.test/texts", &signed))
            .await
    };

    for (sid, form) in [
        ("SM1", vec![("Body", "")]),
        ("SM2", vec![("Body", "no sender and no receiver \0 and a NUL")]),
        (
            "SM3",
            vec![
                ("From", "whatsapp:+14155550101"),
                ("To", "whatsapp:+15005550006"),
                ("Body", "STOP"),
            ],
        ),
        ("SM4", vec![("From", "rcs:agent"), ("Body", "HELP")]),
        ("SM5", vec![("From", "TWILIO"), ("To", ""), ("Body", "1")]),
        ("SM6", vec![("From", "12345"), ("To", "67890"), ("Body", "👍")]),
        (
            "SM7",
            vec![("From", GRACE), ("Body", "one"), ("Body", "two"), ("From", MONA)],
        ),
        (
            "SM8",
            vec![
                ("From", GRACE),
                ("Body", "👨‍👩‍👧‍👦 🏳️‍🌈 ٣ עברית"),
                ("", ""),
                ("x\0y", "\u{1}"),
                ("ä", "ö"),
            ],
        ),
        ("SM9", vec![("From", "+1"), ("Body", "STOP")]),
        ("SM10", vec![("From", GRACE), ("NumMedia", "many"), ("Body", "x")]),
    ] {
        let mut form = form;
        form.push(("MessageSid", sid));
        let reply = post(&form).await;
        assert_taken(&reply);
    }
    assert_eq!(opted_out(&env).await, [""; 0], "no number, no opt-out");
    let listed = env.get("/v1/inbound?reveal=phone").await;
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 10);
    let by_channel = items
        .iter()
        .filter(|item| item["channel"] == "whatsapp")
        .collect::<Vec<_>>();
    assert_eq!(by_channel[0]["from"], "whatsapp:+14155550101");
    for form in [
        vec![("From", GRACE), ("Body", "no id")],
        vec![("MessageSid", "SM1"), ("MessageStatus", "delivered")],
        vec![],
    ] {
        assert_eq!(post(&form).await.status, 422, "{form:?}");
    }
}

async fn a_reply_after_a_week_belongs_to_no_alert(database: Database) {
    let plan = Plan::on(database).at("2026-11-01 12:00:00", "a reply after a week");
    let Some(plan) = plan else { return };
    let env = plan.build().await;
    let alert = told(&env, "1", GRACE).await;
    env.turn_clock_to("2026-11-08 11:55:00");

    let in_time = texts(&env, GRACE, "done").await;
    env.turn_clock_to("2026-11-08 12:05:00");
    let too_late = texts(&env, GRACE, "really done").await;

    assert_eq!(in_time["alert_id"], alert);
    assert_eq!(
        (&too_late["alert_id"], &too_late["outcome"]),
        (&json!(null), &json!("to_none"))
    );
}

async fn what_strangers_send_is_limited(database: Database) {
    let env = TestEnv::on(database).await;
    told(&env, "1", GRACE).await;
    let staff = json!({"phone": MONA, "name": "Mona"});
    assert_eq!(
        env.admin(Method::PUT, "/v1/staff/default/2", Some(staff)).await.status,
        201
    );

    for _ in 0..25 {
        for from in ["+14155550177", GRACE, MONA] {
            assert_taken(&env.text(from, "hello").await);
        }
    }

    let count = async |from: &str| {
        let sql = format!("select count(*) from inbound_message where from_phone = '{from}'");
        env.database.number(&sql).await
    };
    assert_eq!(count("+14155550177").await, 20);
    assert_eq!(
        (count(GRACE).await, count(MONA).await),
        (25, 25),
        "known, by a message or by the directory"
    );
    assert!(
        env.service
            .logged("nobody knows who texted us")
            .await
            .contains("+1415****177")
    );
    assert!(!env.service.log().contains("4155550177"));

    // All of them together.
    let (kept, now) = (480, jiff::Timestamp::now().as_millisecond());
    for number in 0..kept - 1 {
        let sql = format!(
            "insert into inbound_message (id, provider, provider_message_id, channel, kind, outcome, unknown_at, received_at)
             values ('x{number}', 'twilio', 'SMX{number}', 'sms', 'reply', 'to_none', {now}, {now})"
        );
        env.database.execute(&sql).await;
    }
    assert_taken(&env.text("+14155550178", "the last one").await);
    assert_taken(&env.text("+14155550179", "one too many").await);
    assert_eq!((count("+14155550178").await, count("+14155550179").await), (1, 0));
    assert_taken(&env.text("+14155550179", "STOP").await);
    assert_taken(&env.text(GRACE, "still here").await);
    assert_eq!(
        (count("+14155550179").await, count(GRACE).await),
        (1, 26),
        "who must be heard is"
    );
    assert_eq!(opted_out(&env).await, ["+14155550179"]);
    assert_eq!(env.twilio.messages().len(), 1, "nobody was answered");
}

async fn a_text_that_cannot_be_stored_is_not_answered_with_success(database: Database) {
    let env = TestEnv::on(database).await;
    let form = text_form("SM1", GRACE, OUR_NUMBER, "STOP");

    env.database.break_writes("insert", "inbound_message").await;
    assert_eq!(env.post_text(&form).await.status, 503);
    env.database.mend("inbound_message").await;
    assert_eq!(opted_out(&env).await, [""; 0], "nothing half-done");

    let holder = env.database.hold_writes().await;
    let asked = Instant::now();
    let reply = env.post_text(&form).await;
    let took = asked.elapsed();
    drop(holder);
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(took < Duration::from_millis(1_500), "{took:?}");

    eventually("Twilio to come again", async || {
        let reply = env.post_text(&form).await;
        if reply.status == 200 { Ok(()) } else { Err(reply) }
    })
    .await;
    assert_eq!(opted_out(&env).await, [GRACE]);
}

async fn who_asks_for_help_gets_one_answer_and_no_more_than_a_handful(database: Database) {
    let plan = Plan::on(database)
        .set("INBOUND__HELP_WORDS", "HILFE")
        .set("TEMPLATES__DIR", "templates");
    std::fs::create_dir_all(plan.folder().join("templates/sms")).unwrap();
    std::fs::write(plan.folder().join("templates/sms/help.txt"), "Ruf 030 1234567 an.\n").unwrap();
    let env = plan.build().await;
    told(&env, "1", GRACE).await;
    let answers = async || {
        let messages = env.twilio.messages();
        messages
            .into_iter()
            .filter(|message| message.body.contains("030 1234567"))
            .collect::<Vec<_>>()
    };

    let usual = texts(&env, GRACE, "HELP").await;
    assert_eq!(
        (&usual["kind"], &usual["outcome"]),
        (&json!("help"), &json!("helped_by_provider"))
    );
    let ours = texts(&env, GRACE, "Hilfe!").await;
    assert_eq!(ours["outcome"], "helped");
    let delivery = env
        .get(&format!("/v1/deliveries/{}", ours["answer_id"].as_str().unwrap()))
        .await;
    assert_eq!(
        (&delivery["alert_id"], &delivery["recipient"]["name"]),
        (&json!(null), &json!("Grace Hopper"))
    );
    env.twilio.accepted(2).await;
    assert_eq!(answers().await[0].to, GRACE);

    // To a short code Twilio answers nothing.
    let mut form = text_form("SM1", GRACE, "12345", "help");
    assert_taken(&env.post_text(&form).await);
    assert_eq!(newest(&env).await["outcome"], "helped");
    form[5] = ("SmsMessageSid", "SM2");
    form[15] = ("MessageSid", "SM2");
    form.push(("OptOutType", "HELP"));
    assert_taken(&env.post_text(&form).await);
    assert_eq!(newest(&env).await["outcome"], "helped_by_provider");

    // Never to a stranger, nor to somebody who wants no more texts.
    assert_eq!(texts(&env, "+14155550177", "Hilfe").await["outcome"], "not_helped");
    texts(&env, GRACE, "STOP").await;
    assert_eq!(texts(&env, GRACE, "Hilfe").await["outcome"], "not_helped");
    texts(&env, GRACE, "START").await;

    // Two machines do not answer each other for ever.
    let mut outcomes = Vec::new();
    for _ in 0..6 {
        outcomes.push(texts(&env, GRACE, "Hilfe").await["outcome"].clone());
    }
    assert_eq!(
        outcomes.iter().filter(|outcome| **outcome == "helped").count(),
        3,
        "five in an hour: {outcomes:?}"
    );
    env.twilio.accepted(6).await;
    assert_eq!(answers().await.len(), 5);
    assert_eq!(texts(&env, GRACE, "OK").await["kind"], "acknowledge");
}

async fn old_texts_are_stripped_and_opt_outs_stay(database: Database) {
    let plan = Plan::on(database)
        .set("RETENTION__PERSONAL_DAYS", "20")
        .at("2026-11-01 12:00:00", "old texts");
    let Some(plan) = plan else { return };
    let mut env = plan.build().await;
    told(&env, "1", GRACE).await;
    let old = texts(&env, GRACE, "On my way").await;
    texts(&env, GRACE, "STOP").await;

    env.service.kill();
    env.turn_clock_to("2026-11-22 00:00:01");
    env.restart();

    let stripped = eventually("the text to be stripped", async || {
        let message = env
            .get(&format!("/v1/inbound/{}?reveal=phone", old["id"].as_str().unwrap()))
            .await;
        if message["text"].is_null() {
            Ok(message)
        } else {
            Err(message)
        }
    })
    .await;
    for name in ["from", "to", "text", "provider_message_id"] {
        assert!(stripped[name].is_null(), "{name}: {stripped}");
    }
    assert_eq!(
        (&stripped["kind"], &stripped["outcome"]),
        (&json!("reply"), &json!("to_alert"))
    );
    eventually("both", async || {
        match env
            .database
            .number("select count(*) from inbound_message where form is not null")
            .await
        {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    assert_eq!(opted_out(&env).await, [GRACE]);
}

async fn an_acknowledgement_that_does_not_work_is_answered(database: Database) {
    let env = TestEnv::on(database).await;
    let (first, second) = (told(&env, "1", GRACE).await, told(&env, "2", GRACE).await);
    // The answer to this text.
    let answered = async |body: &str| {
        let message = texts(&env, GRACE, body).await;
        let text = match message["answer_id"].as_str() {
            None => String::new(),
            Some(id) => env.get(&format!("/v1/deliveries/{id}")).await["message"]
                .as_str()
                .unwrap()
                .to_owned(),
        };
        (message, text)
    };

    let (several, list) = answered("OK").await;
    assert_eq!(
        (&several["kind"], &several["outcome"]),
        (&json!("acknowledge"), &json!("several_open"))
    );
    assert!(
        list.contains("#101 Printer on fire") && list.contains("#102 Printer on fire"),
        "{list}"
    );
    let line = list.lines().find(|line| line.contains("#101")).unwrap();
    let code = line.split(':').next().unwrap().to_owned();
    assert_eq!(code.len(), 3, "{list}");

    let (wrong, list) = answered("ack !!").await;
    assert_eq!(wrong["outcome"], "several_open", "{list}");
    let absent = if code == "ZZZ" { "YYY" } else { "ZZZ" };
    let (wrong, list) = answered(&format!("ok {absent}")).await;
    assert_eq!(wrong["outcome"], "wrong_code");
    assert!(list.contains(absent) && list.contains("#102"), "{list}");

    let (right, nothing) = answered(&format!("{}!", code.to_lowercase())).await;
    assert_eq!(
        (&right["outcome"], &right["alert_id"]),
        (&json!("acknowledged"), &json!(first))
    );
    assert_eq!(nothing, "", "a success is not answered");
    let (again, text) = answered(&format!("ACK {code}")).await;
    assert_eq!(
        (&again["outcome"], &again["alert_id"]),
        (&json!("acknowledged_before"), &json!(first))
    );
    assert!(
        text.starts_with("Ticket #101 was acknowledged before by you, at "),
        "{text}"
    );

    let (right, _) = answered("👍🏽").await;
    assert_eq!(
        (&right["outcome"], &right["alert_id"]),
        (&json!("acknowledged"), &json!(second))
    );
    env.twilio.accepted(6).await;
    let shown = env.get(&format!("/v1/alerts/{first}")).await;
    assert_eq!(shown["inbound"].as_array().unwrap().len(), 2);

    // A stranger is not answered.
    let reply = texts(&env, MONA, "OK").await;
    assert_eq!(
        (&reply["outcome"], &reply["answer_id"]),
        (&json!("nothing_open"), &json!(null))
    );
    assert_eq!(env.twilio.calls_to(MONA), 0);
    // What was told and is no longer critical.
    let closed = told(&env, "3", MONA).await;
    let over = json!({"source": "default", "type": "ticket.closed", "ticket": {"id": "3"}});
    assert_eq!(env.post(&over).await.body["outcome"], "resolved");
    let reply = texts(&env, MONA, "1").await;
    assert_eq!(
        (&reply["outcome"], &reply["alert_id"]),
        (&json!("not_critical"), &json!(closed))
    );
    let answer = env
        .get(&format!("/v1/deliveries/{}", reply["answer_id"].as_str().unwrap()))
        .await;
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("#103 is no longer critical"),
        "{answer}"
    );
}

async fn the_pages_and_the_command_show_what_was_sent(database: Database) {
    let env = TestEnv::on(database).await;
    let alert = told(&env, "1", GRACE).await;
    let reply = texts(&env, GRACE, "<b>On my way</b>").await;
    let stop = texts(&env, MONA, "STOP").await;

    let mut browser = Browser::on(&env).await;
    let id = reply["id"].as_str().unwrap();
    for page in [
        "/admin/inbound".to_owned(),
        "/admin/inbound?kind=reply&phone=%2B14155550101".to_owned(),
        format!("/admin/inbound/{id}"),
        format!("/admin/alerts/{alert}"),
    ] {
        let shown = browser.get(&page).await;
        assert_eq!(shown.status, 200, "{page}");
        assert!(shown.text.contains("&lt;b&gt;On my way&lt;"), "{page}: {}", shown.text);
        assert!(!shown.text.contains("4155550101") || page.contains("phone="), "{page}");
    }
    let opt_outs = browser.get("/admin/opt-outs").await;
    assert!(
        opt_outs
            .text
            .contains(&format!("/admin/inbound/{}", stop["id"].as_str().unwrap()))
    );
    assert_eq!(browser.get("/admin/inbound?kind=poem").await.status, 422);
    assert_eq!(browser.get("/admin/inbound/none").await.status, 404);

    let (code, out, error) = env.run(&["inbound", "list"]).await;
    assert_eq!(code, 0, "{error}");
    assert!(
        out.contains("opt_out") && out.contains("On my way") && out.contains("+1415****101"),
        "{out}"
    );
    let (code, out, _) = env
        .run(&["inbound", "list", "--kind", "opt_out", "--reveal", "--json"])
        .await;
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &listed["items"][0]["from"]), (0, &json!(MONA)));
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}
