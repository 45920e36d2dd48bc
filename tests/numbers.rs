//! A number goes to the person it names, or to nobody, wherever it comes in.

use crate::support::{
    database::{Database, Folder},
    env::{Plan, TestEnv, critical, person},
    service::command,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

stories![
    a_number_from_abroad_reaches_the_person_it_names,
    what_can_be_read_in_two_ways_reaches_nobody,
    an_opt_out_holds_in_every_writing,
    fallback_recipients_are_read_as_others_are,
];

/// Writings of one German mobile number, each of which the region US made another one of, or none.
const WRITINGS: [&str; 12] = [
    "+49 171 1234567",
    "(+49) 171 1234567",
    "+(49) 171 1234567",
    "tel:+491711234567",
    "tel:0171-1234567;phone-context=+49",
    "'+49 171 1234567",
    "\u{200B}+49 171 1234567",
    "\u{202A}+49 171 1234567\u{202C}",
    "\u{FEFF}\u{A0}+49\u{A0}171\u{A0}1234567",
    "011 49 171 1234567",
    "+49 (0)171 1234567",
    "＋４９ １７１ １２３４５６７",
];
const GRETA: &str = "+491711234567";

async fn a_number_from_abroad_reaches_the_person_it_names(database: Database) {
    let env = TestEnv::on(database).await;

    let cases = WRITINGS.iter().map(|writing| (person(writing), GRETA)).chain([
        (json!({"phone": "0039 06 1234 5678", "region": "DE"}), "+390612345678"),
        (json!({"phone": "8~10 49 89 1234567", "region": "RU"}), "+49891234567"),
    ]);
    let (mut read, mut wanted) = (Vec::new(), Vec::new());
    for (ticket, (who, number)) in cases.enumerate() {
        let alert = env
            .raise(&critical(&ticket.to_string(), std::slice::from_ref(&who)))
            .await;
        let seen = env.get(&format!("/v1/alerts/{alert}?reveal=phone")).await;
        read.push((who["phone"].clone(), seen["deliveries"][0]["phone"].clone()));
        wanted.push((who["phone"].clone(), json!(number)));
    }
    assert_eq!(read, wanted);
    let mut texted: Vec<String> = Vec::new();
    for message in env.twilio.accepted(wanted.len()).await {
        texted.push(message.to);
    }
    texted.sort_unstable();
    let mut numbers: Vec<&str> = wanted.iter().filter_map(|(_, number)| number.as_str()).collect();
    numbers.sort_unstable();
    assert_eq!(texted, numbers);
    let everyone_at_once: Vec<Value> = WRITINGS.iter().map(|writing| person(writing)).collect();
    let alert = env.raise(&critical("all", &everyone_at_once)).await;
    assert_eq!(env.deliveries(&alert).await.len(), 1, "one person is texted once");
}

async fn what_can_be_read_in_two_ways_reaches_nobody(database: Database) {
    let env = TestEnv::on(database).await;
    let disputed = [
        json!({"name": "Denmark or a slip", "phone": "010 45 20 12 34 56", "region": "DE"}),
        json!({"name": "Brazil's carrier or Germany", "phone": "0055 11 91234 5678", "region": "BR"}),
        json!({"name": "Leer or a mobile", "phone": "491711234567", "region": "DE"}),
        json!({"name": "France or Germany", "phone": "33 6 12 34 56 78", "region": "DE"}),
        json!({"name": "an extension", "phone": "(415) 555-0101 x123"}),
        json!({"name": "two numbers", "phone": "030 123456/57", "region": "DE"}),
        json!({"name": "a note", "phone": "0171 1234 neu", "region": "DE"}),
        json!({"name": "a fax", "phone": "Fax: +49 30 1234567"}),
        json!({"name": "no such region", "phone": "415 555 0101", "region": "Germany"}),
        json!({"name": "a number after 200 characters", "phone": format!("+49 30 {}1234567", " ".repeat(300))}),
    ];

    let alert = env.raise(&critical("1", &disputed)).await;

    let deliveries = env.stand(&alert, &["failed"; 10]).await;
    for delivery in &deliveries {
        assert_eq!(delivery["reason"], "invalid_number", "{delivery}");
    }
    assert_eq!(env.twilio.messages().len(), 0);
}

async fn an_opt_out_holds_in_every_writing(database: Database) {
    let env = TestEnv::on(database).await;
    let opt_out = async |phone: &str| {
        env.admin(Method::POST, "/v1/opt-outs", Some(json!({"phone": phone})))
            .await
    };

    let reply = opt_out("tel:+49-171-1234567").await;
    assert_eq!(
        (reply.status, &reply.body["phone"], &reply.body["phone_text"]),
        (201, &json!(GRETA), &json!("tel:+49-171-1234567"))
    );
    for writing in WRITINGS {
        let reply = opt_out(writing).await;
        assert_eq!((reply.status, &reply.body["phone"]), (200, &json!(GRETA)), "{writing}");
    }
    let people: Vec<Value> = WRITINGS.iter().map(|writing| person(writing)).collect();
    let alert = env.raise(&critical("1", &people)).await;
    env.stand(&alert, &["suppressed"]).await;
    assert_eq!(env.twilio.messages().len(), 0);

    for query in [
        "%2B491711234567",
        "+49 171 1234567",
        "(+49) 171 1234567",
        "tel:+491711234567",
        "%27%2B49 171 1234567",
        "011 49 171 1234567",
        "%E2%80%8B%2B49 (0)171 1234567",
    ] {
        let found = env
            .get(&format!("/v1/deliveries?phone={}", query.replace(' ', "%20")))
            .await;
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{query}: {found}");
    }

    for unclear in ["(415) 555-0101 x123", "65 9123 4567", ""] {
        let reply = opt_out(unclear).await;
        assert_eq!(
            (reply.status, &reply.body["errors"][0]["pointer"]),
            (422, &json!("/phone"))
        );
        let detail = reply.body["errors"][0]["detail"].as_str().unwrap();
        assert!(
            detail.contains("`+14155550101`") && detail.contains("extension"),
            "{detail}"
        );
    }
    let reply = env.admin(Method::GET, "/v1/deliveries?phone=65 9123 4567", None).await;
    assert_eq!(reply.status, 422);

    let removed = env
        .admin(Method::DELETE, "/v1/opt-outs/(+49)%20171%201234567", None)
        .await;
    assert_eq!(removed.status, 204);
    // What an earlier version misread and stored is removed as it is listed.
    env.database
        .execute("insert into opt_out (phone, opted_out_at) values ('+4900171123456', 1)")
        .await;
    let removed = env.admin(Method::DELETE, "/v1/opt-outs/+4900171123456", None).await;
    assert_eq!(removed.status, 204);
    assert_eq!(env.get("/v1/opt-outs").await["items"], json!([]));
}

async fn fallback_recipients_are_read_as_others_are(database: Database) {
    let env = Plan::on(database)
        .set("SOURCES__ACME__REGION", "DE")
        .set(
            "SOURCES__ACME__FALLBACK_RECIPIENTS",
            "0171 1234567, (+39) 06 1234 5678, tel:+1-415-555-0101",
        )
        .build()
        .await;
    let mut event = critical("1", &[]);
    event["source"] = json!("acme");

    let alert = env.raise(&event).await;

    env.stand(&alert, &["accepted", "accepted", "accepted"]).await;
    let mut texted: Vec<String> = env.twilio.messages().into_iter().map(|message| message.to).collect();
    texted.sort_unstable();
    assert_eq!(texted, ["+14155550101", "+390612345678", GRETA]);
}

#[test]
fn a_fallback_recipient_who_cannot_be_read_is_a_fault_of_the_configuration() {
    let folder = Folder::new();
    let check = |file: &str| {
        let path = folder.path().join("nightbell.toml");
        std::fs::write(&path, file).unwrap();
        let output = command(&BTreeMap::new(), folder.path())
            .args(["--config", path.to_str().unwrap(), "config", "check"])
            .output()
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.code(), said)
    };

    for unclear in [
        r#""+49 30 123456 ext. 7""#,
        r#""0171 1234567""#,
        r#"{ phone = "0171 1234567", region = "Germany" }"#,
    ] {
        let (code, said) = check(&format!("[sources.acme]\nfallback_recipients = [{unclear}]\n"));
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("sources.acme.fallback_recipients") && said.contains("`region` like `DE`"),
            "{said}"
        );
    }
    let (code, said) = check("[sources.acme]\nregion = \"DE\"\nfallback_recipients = [\"0171 1234567\"]\n");
    assert_eq!(code, Some(0), "{said}");
}
