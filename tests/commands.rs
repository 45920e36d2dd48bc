//! The commands, as a person or a script calls them.

use crate::support::{
    database::Folder,
    service::{Service, command},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    process::{Output, Stdio},
};

fn run(environment: &[(&str, &str)], arguments: &[&str], input: &[u8]) -> Output {
    let folder = Folder::new();
    let environment: BTreeMap<String, String> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut child = command(&environment, folder.path())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn receipt_verify_gives_every_vector_of_the_official_library_its_verdict() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("data/signature_vectors.json")).unwrap();

    for vector in &vectors {
        let member = |name: &str| vector[name].as_str().unwrap_or_default();
        // A fault elsewhere in the configuration is none of its business.
        let environment = [
            ("NIGHTBELL_TWILIO__AUTH_TOKEN", member("auth_token")),
            ("NIGHTBELL_SMS__DRIVER", "pigeon"),
        ];
        let arguments = [
            "receipt",
            "verify",
            "--json",
            "--url",
            member("url"),
            "--signature",
            member("signature"),
            "--content-type",
            member("content_type"),
        ];
        let output = run(&environment, &arguments, member("body_raw").as_bytes());
        let valid = vector["valid"].as_bool().unwrap();
        assert_eq!(
            output.status.code(),
            Some(i32::from(!valid)),
            "{}: {output:?}",
            member("name")
        );
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["valid"], valid);
    }
}

#[test]
fn receipt_verify_says_why_and_what_would_be_right() {
    let body = b"CallSid=CA1234567890ABCDE&Caller=%2B14158675310&Digits=1234&From=%2B14158675310&To=%2B18005551212";
    let arguments = |url| {
        [
            "receipt",
            "verify",
            "--url",
            url,
            "--signature",
            "L/OH5YylLD5NRKLltdqwSvS0BnU=",
        ]
    };

    let wrong = run(
        &[("NIGHTBELL_TWILIO__AUTH_TOKEN", "12345")],
        &arguments("http://example.com/myapp.php?foo=1&bar=2"),
        body,
    );
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        text(&wrong.stdout).contains("it would be valid for https://example.com/myapp.php?foo=1&bar=2"),
        "{wrong:?}"
    );

    let without_token = run(&[], &arguments("https://example.com/myapp.php?foo=1&bar=2"), body);
    assert_eq!(without_token.status.code(), Some(2));
    assert!(text(&without_token.stderr).contains("twilio.auth_token"));
}

#[test]
fn sms_preview_counts_standard_input_exactly_as_it_is() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("data/segments.json")).unwrap();
    for vector in vectors.iter().filter(|vector| vector["smart_encoding"] == false) {
        let output = run(
            &[],
            &["sms", "preview", "--text", "-", "--json"],
            vector["text"].as_str().unwrap().as_bytes(),
        );
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
        let figures = |value: &Value| ["encoding", "units", "segments"].map(|name| value[name].clone());
        assert_eq!(figures(&seen), figures(vector), "{vector}");
    }

    let event = json!({"ticket": {"id": 7, "subject": "Fire", "urgency": "critical"}}).to_string();
    let shown = run(
        &[("NIGHTBELL_LISTEN", "nowhere")],
        &["sms", "preview", "--event", "-"],
        event.as_bytes(),
    );
    assert_eq!(
        text(&shown.stdout),
        "🚨 CRITICAL TICKET #7\nSubject: Fire\nUrgency: CRITICAL\n\nUCS-2, 53 units, 1 segment\n"
    );
    assert_eq!(
        run(&[], &["sms", "preview", "--event", "-"], b"{").status.code(),
        Some(2)
    );
    assert_eq!(
        run(&[("NIGHTBELL_SMS__ENCODING", "morse")], &["sms", "preview"], b"")
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn config_check_names_every_fault_and_hides_every_secret() {
    let faulty = run(
        &[
            ("NIGHTBELL_SMS__DRIVER", "pigeon"),
            ("NIGHTBELL_TIME_ZONE", "Mars"),
            ("NIGHTBELL_TWILIO__AUTH_TOKEN", "hush"),
            ("NIGHTBELL_SMS__DRIVRE", "x"),
        ],
        &["config", "check"],
        b"",
    );
    let (out, err) = (text(&faulty.stdout), text(&faulty.stderr));
    assert_eq!(faulty.status.code(), Some(2));
    assert!(
        err.contains("2 faults")
            && err.contains("`sms.driver` is `pigeon`, which is not one of `log`, `twilio`")
            && err.contains("`time_zone` is `Mars`"),
        "{err}"
    );
    assert!(err.contains("did you mean `sms.driver`?"), "{err}");
    assert!(
        out.contains("twilio.auth_token = \"********\"") && !out.contains("hush") && !err.contains("hush"),
        "{out}"
    );

    let good = run(&[], &["config", "check", "--json"], b"");
    let seen: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(
        (good.status.code(), &seen["valid"], &seen["effective"]["daily_limit"]),
        (Some(0), &json!(true), &json!("200"))
    );
    assert_eq!(
        run(&[("NIGHTBELL_SMS__DRIVER", "pigeon")], &["serve"], b"")
            .status
            .code(),
        Some(2)
    );
    assert_eq!(run(&[], &["swerve"], b"").status.code(), Some(2));
}

#[test]
fn a_file_is_read_under_the_environment_and_secrets_may_be_files() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("token"), "from-a-file\n").unwrap();
    std::fs::write(path("nightbell.toml"), "daily_limit = 5\n[sms]\ndefault_region = \"DE\"\nmax_segment = 3\n[sources.acme]\nfallback_recipients = [{ phone = \"030 1234567\", name = \"Mona\" }, \"+14155550101\"]\nregion = \"DE\"\n").unwrap();
    let (token, file) = (path("token"), path("nightbell.toml"));
    let environment = [
        ("NIGHTBELL_DAILY_LIMIT", "9"),
        ("NIGHTBELL_TWILIO__AUTH_TOKEN_FILE", token.as_str()),
    ];

    let checked = run(&environment, &["config", "check", "--config", &file], b"");

    let (out, err) = (text(&checked.stdout), text(&checked.stderr));
    assert!(
        out.contains("daily_limit = \"9\"")
            && out.contains("sms.default_region = \"DE\"")
            && out.contains("twilio.auth_token = \"********\""),
        "{out}"
    );
    assert!(
        err.contains("1 fault")
            && err.contains("unknown setting `sms.max_segment`; remove it (did you mean `sms.max_segments`?)"),
        "{err}"
    );
    let missing = run(&[], &["config", "check", "--config", &path("none.toml")], b"");
    assert!(
        missing.status.code() == Some(2) && text(&missing.stderr).contains("cannot be read"),
        "{missing:?}"
    );
}

#[tokio::test]
async fn serve_needs_no_configuration_and_prints_its_address_and_tokens() {
    let folder = Folder::new();
    // Only the port differs from no configuration at all, so that stories do not meet.
    let environment = BTreeMap::from([("NIGHTBELL_LISTEN".to_owned(), "127.0.0.1:0".to_owned())]);
    let service = Service::start(&environment, folder.path());
    let printed = crate::support::eventually("the tokens", async || {
        let printed = service.stdout.lock().unwrap().clone();
        if printed.contains("admin token") {
            Ok(printed)
        } else {
            Err(printed)
        }
    })
    .await;

    let token = printed
        .lines()
        .find_map(|line| line.strip_prefix("intake token, for this start only: "))
        .unwrap();
    let event = json!({"ticket": {"id": 7, "subject": "Fire", "urgency": "critical"}, "recipients": [{"phone": "+14155550101"}]}).to_string();
    let request = crate::support::client()
        .post(format!("http://{}/v1/events", service.address))
        .bearer_auth(token);
    let reply = request
        .header("content-type", "application/json")
        .body(event)
        .send()
        .await
        .unwrap();

    assert_eq!(reply.status(), 202);
    assert!(folder.path().join("nightbell.db").exists());
    assert!(!service.log().contains(token), "tokens are never logged");
}

#[test]
fn an_open_address_without_tokens_is_refused() {
    let output = run(&[("NIGHTBELL_LISTEN", "0.0.0.0:0")], &["serve"], b"");

    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("auth.intake_tokens") && text(&output.stderr).contains("auth.admin_tokens"));
}

#[test]
fn an_empty_token_in_a_list_is_refused() {
    let folder = Folder::new();
    let file = folder.path().join("nightbell.toml");
    std::fs::write(&file, "[sources.acme]\ntokens = [\"a\", \"\"]\n").unwrap();
    let environment = [
        ("NIGHTBELL_AUTH__INTAKE_TOKENS", "secret-a,,secret-b"),
        ("NIGHTBELL_AUTH__ADMIN_TOKENS", "secret-c,"),
    ];

    let output = run(
        &environment,
        &["config", "check", "--config", file.to_str().unwrap()],
        b"",
    );

    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    for key in ["auth.intake_tokens", "auth.admin_tokens", "sources.acme.tokens"] {
        assert!(err.contains(&format!("`{key}` has an empty entry")), "{err}");
    }
    assert!(!err.contains("secret-"), "tokens are never shown: {err}");
    let not_set = run(&[("NIGHTBELL_AUTH__INTAKE_TOKENS", "")], &["config", "check"], b"");
    assert_eq!(not_set.status.code(), Some(0), "{not_set:?}");
}
