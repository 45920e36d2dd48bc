//! Stories of a newcomer who runs the demo.

use crate::support::{client, database::Folder, eventually, service::command};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

/// The demo, with an address of its own and its temporary folder in ours.
fn start(folder: &Folder, arguments: &[&str]) -> Child {
    let environment = BTreeMap::from([
        ("NIGHTBELL_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        // What is set for a service of this machine is none of the demo's business.
        (
            "NIGHTBELL_DATABASE_URL".to_owned(),
            "postgres://nobody@127.0.0.1:1/nothing".to_owned(),
        ),
        ("NIGHTBELL_SMS__DRIVER".to_owned(), "twilio".to_owned()),
        ("TMPDIR".to_owned(), folder.path().to_str().unwrap().to_owned()),
    ]);
    command(&environment, folder.path())
        .arg("demo")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_shows_all_fates_and_what_it_says_is_what_the_api_says() {
    let folder = Folder::new();
    let mut demo = start(&folder, &[]);
    let mut said = String::new();
    let mut out = BufReader::new(demo.stdout.take().unwrap());
    while !said.contains("/docs\n") {
        assert!(out.read_line(&mut said).unwrap() > 0, "it ended after {said}");
    }
    for told in [
        "answer: duplicate",
        "this person opted out",
        "30003",
        "Today's limit is used up",
    ] {
        assert!(said.contains(told), "{told} in {said}");
    }
    let token = said.split("with the token ").nth(1).unwrap().split(')').next().unwrap();
    let address = said.split("pages    ").nth(1).unwrap().split("/admin").next().unwrap();

    let ask = async |path: &str| -> Value {
        let answer = client()
            .get(format!("{address}{path}"))
            .bearer_auth(token)
            .send()
            .await
            .unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    };
    let listed = ask("/v1/deliveries").await;
    let mut fates: Vec<(String, Value)> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| {
            (
                delivery["state"].as_str().unwrap().to_owned(),
                delivery["error_code"].clone(),
            )
        })
        .collect();
    fates.sort_by(|a, b| a.0.cmp(&b.0));
    let states: Vec<&str> = fates.iter().map(|(state, _)| state.as_str()).collect();
    assert_eq!(
        states,
        [
            "deferred",
            "delivered",
            "delivered",
            "delivered",
            "failed",
            "suppressed",
            "undelivered"
        ]
    );
    assert_eq!(fates[6].1, 30003);
    assert_eq!(
        ask("/v1/alerts").await["items"].as_array().unwrap().len(),
        5,
        "the repeat raised none"
    );

    std::process::Command::new("kill")
        .arg(demo.id().to_string())
        .status()
        .unwrap();
    eventually("the end of the demo", async || {
        demo.try_wait().unwrap().ok_or("it runs")
    })
    .await;
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "its database is gone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_ends_by_itself_if_asked_to() {
    let folder = Folder::new();

    let output = tokio::task::spawn_blocking(move || start(&folder, &["--exit"]).wait_with_output().unwrap());

    let output = output.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
