//! Stories of the list of numbers that must not be texted: as a file, in and out.

use crate::support::{
    database::Database,
    env::{ADMIN, INTAKE, Reply, TestEnv, critical, person},
};
use reqwest::Method;
use serde_json::{Value, json};

stories![
    a_file_of_opt_outs_is_read_line_by_line,
    the_list_leaves_as_a_file_that_is_harmless_and_comes_back_the_same,
    what_is_no_file_of_opt_outs_is_refused,
];

const CSV: (&str, &str) = ("content-type", "text/csv");

async fn import(env: &TestEnv, file: impl Into<Vec<u8>>) -> Reply {
    let admin = format!("Bearer {ADMIN}");
    env.request(
        Method::POST,
        "/v1/opt-outs.csv",
        &[("authorization", &admin), CSV],
        file.into(),
    )
    .await
}

async fn export(env: &TestEnv) -> String {
    let url = format!("http://{}/v1/opt-outs.csv", env.service.address);
    let response = crate::support::client()
        .get(url)
        .bearer_auth(ADMIN)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/csv; charset=utf-8");
    String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap()
}

async fn a_file_of_opt_outs_is_read_line_by_line(database: Database) {
    let env = TestEnv::on(database).await;
    let body = json!({"phone": "+14155550101", "reason": "asked"});
    env.admin(Method::POST, "/v1/opt-outs", Some(body)).await;
    let file = "Phone;Staff_ID;Reason\r\n(415) 555-0101;1;again\r\n+14155550102;2;\"asked; twice\"\r\n+1 415 555 0102;;\r\nabc;3;\r\n;4;\r\n";

    let reply = import(&env, file).await;

    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!((&reply.body["added"], &reply.body["known"]), (&json!(1), &json!(2)));
    let refused = reply.body["refused"].as_array().unwrap();
    let lines: Vec<&Value> = refused.iter().map(|refused| &refused["line"]).collect();
    assert_eq!(lines, [5, 6]);
    for refused in refused {
        assert!(
            refused["detail"].as_str().unwrap().contains("not one phone number"),
            "{refused}"
        );
    }
    let first = env.get("/v1/opt-outs/+14155550101").await;
    assert_eq!(
        (&first["reason"], &first["staff_id"]),
        (&json!("asked"), &json!(null)),
        "it stays as it was"
    );
    let second = env.get("/v1/opt-outs/(415)%20555-0102").await;
    assert_eq!(
        (&second["reason"], &second["staff_id"]),
        (&json!("asked; twice"), &json!("2"))
    );
    let absent = env.admin(Method::GET, "/v1/opt-outs/+14155550109", None).await;
    assert_eq!(absent.status, 404);
    let alert = env.raise(&critical("1", &[person("+14155550102")])).await;
    env.stand(&alert, &["suppressed"]).await;
}

async fn the_list_leaves_as_a_file_that_is_harmless_and_comes_back_the_same(database: Database) {
    let env = TestEnv::on(database).await;
    let lines: String = (0..2_500)
        .map(|number| format!("+1415{},{number},\n", 2_000_000 + number))
        .collect();
    let lines =
        format!("{lines}+14155550101,,\"=cmd|' /C calc'!A0\"\n+14155550102,,\"a \"\"word\"\", and\n=another\"\n");
    assert_eq!(import(&env, lines).await.body["added"], 2_502);

    let exported = export(&env).await;

    assert_eq!(
        exported.lines().next(),
        Some("\u{feff}phone,staff_id,reason,opted_out_at,phone_text")
    );
    assert_eq!(
        exported.matches("'+1415").count(),
        2 * 2_502,
        "the number and the text that it was read from"
    );
    assert!(exported.contains("'=cmd|"), "no cell is a formula");
    let again = import(&env, exported.clone()).await;
    assert_eq!(
        (&again.body["added"], &again.body["known"]),
        (&json!(0), &json!(2_502)),
        "{again:?}"
    );

    env.database.execute("delete from opt_out").await;
    assert_eq!(import(&env, exported.clone()).await.body["added"], 2_502);
    assert_eq!(export(&env).await, exported);
}

async fn what_is_no_file_of_opt_outs_is_refused(database: Database) {
    let env = TestEnv::on(database).await;
    let post = async |headers: &[(&str, &str)], body: &[u8]| {
        env.request(Method::POST, "/v1/opt-outs.csv", headers, body.to_vec())
            .await
    };
    let admin = format!("Bearer {ADMIN}");
    let admin = ("authorization", admin.as_str());
    let intake = format!("Bearer {INTAKE}");

    assert_eq!(
        post(&[admin, ("content-type", "application/json")], b"{}").await.status,
        415
    );
    assert_eq!(post(&[CSV], b"+14155550101").await.status, 401);
    assert_eq!(
        post(&[("authorization", &intake), CSV], b"+14155550101").await.status,
        401
    );
    let latin = post(&[admin, CSV], b"phone,reason\n+14155550101,m\xfcde\n").await;
    assert_eq!(latin.status, 400);
    assert!(
        latin.body["detail"].as_str().unwrap().contains("line 2 is not UTF-8"),
        "{latin:?}"
    );
    assert_eq!(env.get("/v1/opt-outs").await["items"], json!([]));
}
