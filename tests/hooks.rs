//! Webhooks as helpdesks send them: each preset with a sample of our own, signatures made here, wrong mappings and tokens.

use crate::support::{
    database::Database,
    env::{INTAKE, Plan, Reply, TestEnv},
    twilio::Answers,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;
use std::io::Write;

stories![
    every_preset_reads_its_helpdesk,
    a_document_that_lacks_something_names_field_place_and_what_stands_there,
    a_source_without_a_secret_needs_a_token,
    our_own_form_may_be_signed_by_standard_webhooks,
    words_that_nobody_has_explained_are_counted_and_named,
];

const SECRET: &str = "shared-secret";
const FALLBACK: &str = "+14155550109";

/// How a helpdesk signs.
#[derive(Clone, Copy)]
enum Signed {
    /// Not at all: it has a token.
    No,
    Sha1Hex(&'static str),
    Sha256Hex(&'static str),
    Zendesk,
    Glpi,
    FreeScout,
}

fn sha1(message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Signed {
    /// The headers of a body that is sent at this time.
    fn headers(self, body: &str, at: jiff::Timestamp) -> Vec<(&'static str, String)> {
        let seconds = at.as_second();
        match self {
            Self::No => vec![("authorization", format!("Bearer {INTAKE}"))],
            Self::Sha1Hex(header) => vec![(header, format!("sha1={}", hex(&sha1(body.as_bytes()))))],
            Self::Sha256Hex(header) => {
                vec![(
                    header,
                    format!("sha256={}", hex(&sha256(SECRET.as_bytes(), body.as_bytes()))),
                )]
            }
            Self::Zendesk => vec![
                (
                    "x-zendesk-webhook-signature",
                    BASE64.encode(sha256(SECRET.as_bytes(), format!("{at}{body}").as_bytes())),
                ),
                ("x-zendesk-webhook-signature-timestamp", at.to_string()),
            ],
            Self::Glpi => vec![
                (
                    "x-glpi-signature",
                    hex(&sha256(SECRET.as_bytes(), format!("{body}{seconds}").as_bytes())),
                ),
                ("x-glpi-timestamp", seconds.to_string()),
            ],
            Self::FreeScout => vec![("x-freescout-signature", BASE64.encode(sha1(body.as_bytes())))],
        }
    }
}

/// A helpdesk's own form of a ticket of this id and urgency.
struct Sample {
    preset: &'static str,
    signed: Signed,
    critical: &'static str,
    lower: &'static str,
    body: fn(&str, &str) -> Value,
    /// Who is told.
    phone: &'static str,
    /// What the SMS must hold.
    link: &'static str,
}

fn samples() -> Vec<Sample> {
    vec![
        Sample {
            preset: "zammad",
            signed: Signed::Sha1Hex("x-hub-signature"),
            critical: "3 high",
            lower: "2 normal",
            body: |id, urgency| {
                json!({"ticket": {"id": id.parse::<u64>().unwrap(), "number": format!("91{id}"), "title": "Payroll export hangs",
                    "priority": {"id": 3, "name": urgency}, "state": {"name": "open"}, "group": {"name": "Service Desk"},
                    "organization": {"name": "Northwind"}, "customer": {"firstname": "Bo", "lastname": "Client", "email": "bo@northwind.test"},
                    "owner": {"id": 4, "login": "grace@acme.test", "firstname": "Grace", "lastname": "Hopper", "email": "grace@acme.test", "mobile": "", "phone": "+14155550101"},
                    "updated_at": jiff::Timestamp::now().to_string()}, "article": {"body": "x"}})
            },
            phone: "+14155550101",
            link: "View: https://help.example.com/#ticket/zoom/",
        },
        Sample {
            preset: "zendesk",
            signed: Signed::Zendesk,
            critical: "URGENT",
            lower: "HIGH",
            body: |id, urgency| {
                json!({"type": "zen:event-type:ticket.priority_changed", "account_id": 11, "id": uuid::Uuid::new_v4().to_string(), "time": jiff::Timestamp::now().to_string(),
                    "subject": format!("zen:ticket:{id}"), "detail": {"id": id, "subject": "Login loop", "status": "OPEN", "priority": urgency},
                    "event": {"current": urgency, "previous": "NORMAL"}})
            },
            phone: FALLBACK,
            link: "View: https://help.example.com/agent/tickets/",
        },
        Sample {
            preset: "freshdesk",
            signed: Signed::No,
            critical: "Urgent",
            lower: "Low",
            body: |id, urgency| {
                json!({"freshdesk_webhook": {"ticket_id": id, "ticket_subject": "Label printer offline", "ticket_priority": urgency, "ticket_status": "Open",
                    "ticket_url": format!("help.example.com/helpdesk/tickets/{id}"), "requester_name": "Bo Client",
                    "triggered_event": "{priority:{from:3,to:1}}"}})
            },
            phone: FALLBACK,
            link: "View: https://help.example.com/helpdesk/tickets/",
        },
        Sample {
            preset: "jira",
            signed: Signed::Sha256Hex("x-hub-signature"),
            critical: "Highest",
            lower: "Major",
            body: |id, urgency| {
                json!({"webhookEvent": "jira:issue_updated", "timestamp": jiff::Timestamp::now().as_millisecond(),
                    "issue": {"id": id, "key": format!("OPS-{id}"), "fields": {"summary": "Disk full on db2", "priority": {"name": urgency},
                        "status": {"name": "To Do", "statusCategory": {"key": "new"}}, "project": {"key": "OPS"},
                        "assignee": {"accountId": "5b10", "displayName": "Grace Hopper", "emailAddress": "grace@acme.test"}, "reporter": {"displayName": "Bo Client"}}},
                    "changelog": {"items": [{"field": "priority", "fromString": "Critical", "toString": urgency}]}})
            },
            phone: FALLBACK,
            link: "View: https://help.example.com/browse/OPS-",
        },
        Sample {
            preset: "freescout",
            signed: Signed::FreeScout,
            critical: "Urgent",
            lower: "Normal",
            body: |id, urgency| {
                json!({"id": id.parse::<u64>().unwrap(), "number": 7, "subject": "Mail gateway rejects", "status": "active",
                    "customFields": [{"id": 9, "name": "Site", "text": "North"}, {"id": 3, "name": "Priority", "value": "4", "text": urgency}],
                    "customer": {"firstName": "Bo", "lastName": "Client", "email": "bo@northwind.test"}, "assignee": {"id": 2, "firstName": "Grace", "lastName": "Hopper", "email": "grace@acme.test"},
                    "updatedAt": jiff::Timestamp::now().to_string()})
            },
            phone: FALLBACK,
            link: "View: https://help.example.com/conversation/",
        },
        Sample {
            preset: "glpi",
            signed: Signed::Glpi,
            critical: "6",
            lower: "3",
            body: |id, urgency| {
                json!({"event": "update", "item": {"id": id.parse::<u64>().unwrap(), "name": "Switch dead in room 4", "priority": urgency.parse::<u64>().unwrap(),
                    "status": {"id": 2, "name": "Processing"}, "entity": {"name": "Northwind"}, "date_mod": jiff::Timestamp::now().to_string(),
                    "team": [{"role": "requester", "name": "bo"}, {"role": "assigned", "id": 5, "name": "grace"}]}})
            },
            phone: FALLBACK,
            link: "View: https://help.example.com/front/ticket.form.php?id=",
        },
        Sample {
            preset: "redmine",
            signed: Signed::No,
            critical: "Immediate",
            lower: "Normal",
            body: |id, urgency| {
                json!({"payload": {"action": "updated", "issue": {"id": id.parse::<u64>().unwrap(), "subject": "Build farm stuck", "priority": {"name": urgency},
                    "status": {"name": "New"}, "project": {"name": "Support"}, "estimated_hours": 4.5, "updated_on": jiff::Timestamp::now().to_string(),
                    "assignee": {"id": 5, "login": "grace", "mail": "grace@acme.test", "firstname": "Grace", "lastname": "Hopper"}}}})
            },
            phone: FALLBACK,
            link: "Est. Hours: 4.5",
        },
        Sample {
            preset: "django-helpdesk",
            signed: Signed::No,
            critical: "1",
            lower: "4",
            body: |id, urgency| {
                json!({"queue_slug": "support", "ticket": {"id": id.parse::<u64>().unwrap(), "title": "Shop cannot take cards", "priority": urgency.parse::<u64>().unwrap(),
                    "status": 1, "assigned_to": 2, "submitter_email": "bo@northwind.test", "custom_estimated_hours": "4.50", "custom_ai_confidence": 93}})
            },
            phone: FALLBACK,
            link: "Urgency: CRITICAL (93%)",
        },
        Sample {
            preset: "rt",
            signed: Signed::No,
            critical: "100",
            lower: "50",
            body: |id, urgency| {
                json!({"ticket": {"id": id, "subject": "VPN down", "urgency": urgency.parse::<u64>().unwrap()},
                    "recipients": [{"login": "grace", "role": "assignee", "phone": "(415) 555-0101"}]})
            },
            phone: "+14155550101",
            link: "Subject: VPN down",
        },
        Sample {
            preset: "osticket",
            signed: Signed::No,
            critical: "Emergency",
            lower: "Normal",
            body: |id, urgency| {
                json!({"ticket": {"id": id, "number": "203258", "subject": "Phones dead", "urgency": urgency},
                    "recipients": [{"staff_id": "2", "role": "assignee", "name": "Grace Hopper", "phone": "+14155550101"}]})
            },
            phone: "+14155550101",
            link: "CRITICAL TICKET #203258",
        },
    ]
}

async fn send(env: &TestEnv, source: &str, headers: &[(&str, String)], body: &str) -> Reply {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
    let path = format!("/v1/hooks/{source}");
    env.request(Method::POST, &path, &all, body.as_bytes().to_vec()).await
}

fn with_presets(database: Database) -> Plan {
    let mut plan = Plan::on(database);
    for sample in samples() {
        let key = |member: &str| format!("SOURCES__{}__{member}", sample.preset.to_uppercase());
        plan = plan
            .set(&key("PRESET"), sample.preset)
            .set(&key("BASE_URL"), "https://help.example.com/")
            .set(&key("FALLBACK_RECIPIENTS"), FALLBACK);
        if !matches!(sample.signed, Signed::No) {
            plan = plan.set(&key("SECRET"), &format!("{SECRET},another-secret"));
        }
    }
    plan
}

async fn every_preset_reads_its_helpdesk(database: Database) {
    let env = with_presets(database).build().await;
    let mut sent = 0;

    for Sample {
        preset,
        signed,
        critical,
        lower,
        body,
        phone,
        link,
    } in samples()
    {
        let now = jiff::Timestamp::now();
        let post = async |id: &str, urgency: &str, delivery: &str| {
            let body = body(id, urgency).to_string();
            let mut headers = signed.headers(&body, now);
            headers.push(("webhook-id", delivery.to_owned()));
            send(&env, preset, &headers, &body).await
        };

        let first = post("81", critical, "one").await;
        assert_eq!(
            (first.status, &first.body["outcome"]),
            (202, &json!("accepted")),
            "{preset}: {first:?}"
        );
        sent += 1;
        let message = env.twilio.accepted(sent).await.pop().unwrap();
        assert!(
            message.body.contains(link) && message.to == phone,
            "{preset}: {message:?}"
        );
        let again = post("81", critical, "one").await;
        assert_eq!(
            (again.status, &again.body["outcome"]),
            (200, &json!("duplicate")),
            "{preset}: {again:?}"
        );

        // A lowering never alerts: it closes an alert, or there is nothing to do.
        let lowered = post("81", lower, "two").await;
        assert_eq!(lowered.body["outcome"], "resolved", "{preset}: {lowered:?}");
        let unknown = post("82", lower, "three").await;
        assert_eq!(
            (&unknown.body["outcome"], &unknown.body["reason"]),
            (&json!("ignored"), &json!("not_critical")),
            "{preset}: {unknown:?}"
        );

        let text = body("83", critical).to_string();
        let headers = signed.headers(&text, now);
        let flipped = text.replacen("83", "84", 1);
        let reply = send(&env, preset, &headers, &flipped).await;
        let is_signed = !matches!(signed, Signed::No);
        assert_eq!(reply.status, if is_signed { 403 } else { 202 }, "{preset}: {reply:?}");
        sent += usize::from(!is_signed);
        env.twilio.accepted(sent).await;
        let without = send(&env, preset, &[], &text).await;
        assert_eq!(
            without.status,
            if is_signed { 403 } else { 401 },
            "{preset}: {without:?}"
        );
    }

    // A time of sending that is long ago is a repeat by somebody else; GLPI's is of queueing, so it may be old.
    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(2);
    for (signed, preset, status) in [(Signed::Zendesk, "zendesk", 403), (Signed::Glpi, "glpi", 200)] {
        let sample = samples().into_iter().find(|sample| sample.preset == preset).unwrap();
        let body = (sample.body)("99", sample.lower).to_string();
        let reply = send(&env, preset, &signed.headers(&body, long_ago), &body).await;
        assert_eq!(reply.status, status, "{preset}: {reply:?}");
    }
    // GLPI asks whether we have the secret.
    let proof = env
        .request(Method::GET, "/v1/hooks/glpi?crc_token=abc", &[], Vec::new())
        .await;
    assert_eq!(
        (proof.status, proof.body.as_str().unwrap()),
        (200, &*hex(&sha256(SECRET.as_bytes(), b"abc")))
    );
    for path in [
        "/v1/hooks/glpi",
        "/v1/hooks/glpi?crc_token=",
        "/v1/hooks/glpi?crc_token=%7B%22item%22%3A%7B%7D%7D1763630678",
        "/v1/hooks/zammad?crc_token=abc",
    ] {
        assert_eq!(
            env.request(Method::GET, path, &[], Vec::new()).await.status,
            404,
            "{path}"
        );
    }
    let log = env.service.log();
    assert!(
        log.contains("rejected a webhook") && !log.contains(SECRET) && !log.contains("Payroll"),
        "{log}"
    );
}

async fn a_document_that_lacks_something_names_field_place_and_what_stands_there(database: Database) {
    let env = with_presets(database).build().await;
    let send_signed = async |body: &str| {
        let headers = Signed::Sha1Hex("x-hub-signature").headers(body, jiff::Timestamp::now());
        send(&env, "zammad", &headers, body).await
    };

    let reply = send_signed(r#"{"ticket": {"id": {"x": 1}, "title": "T", "priority": null}}"#).await;

    assert_eq!(reply.status, 422, "{reply:?}");
    let errors = reply.body["errors"].to_string();
    for part in [
        "`ticket.id`",
        "an object at `/ticket/id`",
        "`ticket.urgency`",
        "nothing at `/ticket/priority/name`",
        "`null` at `/ticket/priority`",
    ] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
    // Without a subject a critical ticket cannot be told of; without a readable link it can.
    let reply = send_signed(r#"{"ticket": {"id": 1, "priority": {"name": "3 high"}}}"#).await;
    assert!(
        reply.status == 422 && reply.body["errors"].to_string().contains("nothing at `/ticket/title`"),
        "{reply:?}"
    );
    assert_eq!(send_signed("[]").await.status, 422);
    assert_eq!(send_signed("{").await.status, 400);
    assert!(env.get("/v1/alerts").await["items"].as_array().unwrap().is_empty());

    let body = json!({"freshdesk_webhook": {"ticket_id": 5, "ticket_subject": "T", "ticket_priority": "Urgent", "ticket_url": "see the portal"}});
    let reply = send(
        &env,
        "freshdesk",
        &Signed::No.headers("", jiff::Timestamp::now()),
        &body.to_string(),
    )
    .await;
    assert_eq!(reply.status, 202, "{reply:?}");
    env.twilio.accepted(1).await;
}

async fn a_source_without_a_secret_needs_a_token(database: Database) {
    let env = Plan::on(database)
        .set("SOURCES__ACME__TOKENS", "acme-token")
        .set("SOURCES__ACME__FALLBACK_RECIPIENTS", FALLBACK)
        .set("SOURCES__OTHER__TOKENS", "other-token")
        .build()
        .await;
    let body = json!({"ticket": {"id": "1", "urgency": "low"}}).to_string();
    let basic = |password: &str| format!("Basic {}", BASE64.encode(format!("nightbell:{password}")));

    for (authorization, status) in [
        ("Bearer acme-token".to_owned(), 200),
        (format!("Bearer {INTAKE}"), 200),
        (basic("acme-token"), 200),
        (basic("wrong"), 401),
        ("Basic acme-token".to_owned(), 401),
        ("Bearer other-token".to_owned(), 403),
        (String::new(), 401),
    ] {
        let reply = send(&env, "acme", &[("authorization", authorization.clone())], &body).await;
        assert_eq!(reply.status, status, "{authorization}: {reply:?}");
    }
    let bearer = [("authorization", format!("Bearer {INTAKE}"))];
    let unknown = send(&env, "nobody", &bearer, &body).await;
    assert!(
        unknown.status == 404 && unknown.body.to_string().contains("sources.<name>"),
        "{unknown:?}"
    );
    let foreign = json!({"source": "other", "ticket": {"id": "1", "urgency": "low"}}).to_string();
    let reply = send(&env, "acme", &bearer, &foreign).await;
    assert!(
        reply.status == 422 && reply.body["errors"][0]["pointer"] == "/source",
        "{reply:?}"
    );
}

async fn our_own_form_may_be_signed_by_standard_webhooks(database: Database) {
    let key = b"a key of our own";
    let env = Plan::on(database)
        .set("SOURCES__ACME__SECRET", &format!("whsec_{}", BASE64.encode(key)))
        .build()
        .await;
    env.twilio.script("+14155550101", [Answers::Accepts]);
    let body = json!({"ticket": {"id": "1", "subject": "S", "urgency": "critical"}, "recipients": [{"phone": "+14155550101"}]}).to_string();
    let sign = |id: &str, at: i64, body: &str| {
        let signature = BASE64.encode(sha256(key, format!("{id}.{at}.{body}").as_bytes()));
        vec![
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", at.to_string()),
            ("webhook-signature", format!("v1,{}= v1,{signature}", "A".repeat(43))),
        ]
    };
    let now = jiff::Timestamp::now().as_second();

    assert_eq!(
        send(&env, "acme", &sign("m1", now - 3_600, &body), &body).await.status,
        403,
        "stale"
    );
    assert_eq!(
        send(&env, "acme", &sign("m1", now, &body), &body.replace('S', "T"))
            .await
            .status,
        403,
        "flipped"
    );
    assert_eq!(
        send(&env, "acme", &[("authorization", format!("Bearer {INTAKE}"))], &body)
            .await
            .status,
        403,
        "unsigned"
    );
    assert_eq!(send(&env, "acme", &sign("m1", now, &body), &body).await.status, 202);
    env.twilio.accepted(1).await;
    let again = send(&env, "acme", &sign("m1", now, &body), &body).await;
    assert_eq!(again.body["outcome"], "duplicate", "{again:?}");
}

async fn words_that_nobody_has_explained_are_counted_and_named(database: Database) {
    let env = Plan::on(database)
        .set("SOURCES__ACME__URGENCY__SEV1", "critical")
        .set("SOURCES__ACME__FALLBACK_RECIPIENTS", FALLBACK)
        .build()
        .await;
    let post = async |urgency: &str| {
        let body = json!({"source": "acme", "ticket": {"id": urgency, "subject": "S", "urgency": urgency}});
        env.post(&body).await.body
    };

    for (urgency, reason) in [
        ("sev2", "unknown_urgency"),
        ("SEV2", "unknown_urgency"),
        ("sev2", "unknown_urgency"),
        ("high", "not_critical"),
    ] {
        assert_eq!(post(urgency).await["reason"], reason, "{urgency}");
    }
    assert_eq!(post("Sev1").await["outcome"], "accepted");
    env.twilio.accepted(1).await;

    let sources = env.get("/v1/sources").await;
    let acme = sources["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|source| source["name"] == "acme")
        .unwrap()
        .clone();
    let words: Vec<(&str, i64)> = acme["unknown_urgencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|unknown| (unknown["word"].as_str().unwrap(), unknown["count"].as_i64().unwrap()))
        .collect();
    assert_eq!(words, [("sev2", 2), ("SEV2", 1)]);
    let (code, out, _) = env.run(&["source", "list"]).await;
    assert!(code == 0 && out.contains("sev2, SEV2"), "{out}");
}

/// Runs `source try` with this payload.
fn try_payload(plan: &Plan, arguments: &[&str], payload: &str) -> (i32, String, String) {
    let mut command = crate::support::service::command(plan.settings(), plan.folder());
    let mut child = command
        .args(["source", "try"])
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(payload.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_payload_can_be_tried_without_storing_or_sending_anything() {
    let plan = with_presets(Database::sqlite());
    let zammad = samples().remove(0);
    let payload = (zammad.body)("81", "3 high").to_string();

    let (code, out, _) = try_payload(&plan, &["zammad"], &payload);

    assert_eq!(code, 0, "{out}");
    for part in [
        "/ticket/owner/phone",
        "By the urgency `3 high` it is critical",
        "Grace Hopper (assignee): +1415****101",
        "🚨 CRITICAL TICKET #9181",
        "https://help.example.com/#ticket/zoom/81",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let (code, out, _) = try_payload(
        &plan,
        &["zammad"],
        r#"{"ticket": {"id": 7, "title": "T", "priority": {"name": "4 panic"}}}"#,
    );
    assert!(
        code == 0 && out.contains("Nobody has said what the urgency `4 panic` means"),
        "{out}"
    );
    let (code, out, _) = try_payload(
        &plan,
        &["zammad"],
        r#"{"ticket": {"title": "T", "priority": {"name": "3 high"}}}"#,
    );
    assert!(
        code == 1 && out.contains("`ticket.id`") && out.contains("nothing at `/ticket/id`"),
        "{out}"
    );
    let (code, out, _) = try_payload(&plan, &["zammad", "--json"], &payload);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && shown["event"]["ticket"]["urgency"] == "critical", "{out}");
    let (code, _, err) = try_payload(&plan, &["nobody"], &payload);
    assert!(
        code == 2 && err.contains("`nobody` is not a configured source"),
        "{err}"
    );
    assert!(!plan.folder().join("nightbell.db").exists());
}

#[test]
fn a_wrong_mapping_is_named_at_the_start() {
    let database = Database::sqlite();
    let file = database.folder.path().join("nightbell.toml");
    let text = r#"
[sources.acme]
kind = "webhook"
secret = "x"
[sources.acme.verify]
header = "x-signature"
signed = "{timestamp}"
[sources.acme.urgency]
sev1 = "catastrophic"
">=" = "critical"
[sources.acme.map]
"ticket.id" = "{ticket.id}"
"ticket.color" = "/color"
"ticket.subject" = "$.["
"#;
    std::fs::write(&file, text).unwrap();
    let plan = Plan::on(database);
    let mut command = crate::support::service::command(plan.settings(), plan.folder());
    let output = command
        .args(["--config", file.to_str().unwrap(), "config", "check"])
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);

    assert_eq!(output.status.code(), Some(2), "{out}");
    for part in [
        "sources.acme.verify.signed",
        "sources.acme.urgency.sev1",
        "sources.acme.urgency.>=",
        "sources.acme.map.ticket.id",
        "sources.acme.map.ticket.color",
        "sources.acme.map.ticket.subject",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
}
