//! A big database is brought up to date while the version before goes on working on it.
//!
//! The ordinary run has 20,000 deliveries and plays the version before by its statements; `NIGHTBELL_TORTURE` makes it
//! 1,000,000, and `NIGHTBELL_TEST_BEFORE` names the program of the version before, which then really runs beside.

use crate::support::{
    client,
    database::Database,
    env::{INTAKE, Plan, critical, person},
    service::{Service, binary_before},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// The newest tables of the version that came before this story.
const BEFORE: i64 = 4;

/// Raises an alert as that version does.
const RAISE: &str = "with a as (insert into alert (id, source, ticket_id, subject, occurred_at, received_at)
        values ($1, 'default', $1, 'x', 1, 1) returning id),
    d as (insert into delivery (id, alert_id, channel, phone, round, message, segments, state, attempts, claims, looks,
        timeline_length, received_at, created_at, updated_at)
        select id, id, 'sms', '+14155550101', 0, 'x', 1, 'accepted', 1, 0, 0, 1, 1, 1, 1 from a returning id),
    t as (insert into attempt (delivery_id, number, provider, account, limit_day, begun_at, deadline_at)
        select id, 1, 'twilio', 'x', '2026-11-20', 1, 1 from d returning delivery_id)
    insert into timeline (delivery_id, seq, at, what) select delivery_id, 1, 1, 'pending' from t";

async fn fill(url: &str, rows: usize) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
    let migrator = sqlx::migrate::Migrator::new(Path::new(folder)).await.unwrap();
    migrator.run_direct(Some(BEFORE), &mut connection, false).await.unwrap();
    for sql in [
        format!(
            "insert into alert (id, source, ticket_id, subject, occurred_at, received_at)
             select 'a' || n, 'default', 'old' || n, 'x', n, n from generate_series(1, {rows}) as n"
        ),
        format!(
            "insert into delivery (id, alert_id, channel, phone, round, message, segments, state, attempts, provider,
                claims, looks, timeline_length, received_at, created_at, updated_at, moved_at)
             select 'd' || n, 'a' || n, 'sms', '+1415' || (2000000 + n), 0, 'x', 1, 'delivered', 1, 'twilio', 0, 0, 1, n, n, n, n
             from generate_series(1, {rows}) as n"
        ),
        format!(
            "insert into attempt (delivery_id, number, provider, account, message_id, limit_day, begun_at, deadline_at,
                answered_at, outcome)
             select 'd' || n, 1, 'twilio', 'x', 'SM' || n, '2026-11-20', n, n, n, 'accepted'
             from generate_series(1, {rows}) as n"
        ),
        "analyze".to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
}

/// Raises alerts through the service until `stop`; returns how many, and the longest wait for one that was taken.
async fn raise_by_service(address: String, mut stop: tokio::sync::watch::Receiver<bool>) -> (usize, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !*stop.borrow_and_update() {
        let event = critical(&format!("new{count}"), &[person("+14155550101")]);
        let begun = Instant::now();
        loop {
            let posting = client().post(format!("http://{address}/v1/events")).bearer_auth(INTAKE);
            let answer = posting
                .header("content-type", "application/json")
                .body(event.to_string())
                .send()
                .await
                .unwrap();
            if answer.status().as_u16() == 202 {
                break;
            }
            assert_eq!(answer.status().as_u16(), 503, "{answer:?}");
        }
        longest = longest.max(begun.elapsed());
        count += 1;
    }
    (count, longest)
}

/// The same by that version's statements.
async fn raise_by_statements(url: String, mut stop: tokio::sync::watch::Receiver<bool>) -> (usize, Duration) {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !*stop.borrow_and_update() {
        let begun = Instant::now();
        sqlx::query(RAISE)
            .bind(format!("new{count}"))
            .execute(&mut connection)
            .await
            .unwrap();
        longest = longest.max(begun.elapsed());
        count += 1;
    }
    (count, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_database_is_changed_while_the_version_before_works() {
    let Some(database) = Database::postgres("a_big_database_is_changed").await else {
        return;
    };
    let rows = if std::env::var("NIGHTBELL_TORTURE").is_ok() {
        1_000_000
    } else {
        20_000
    };
    fill(&database.url, rows).await;
    let url = database.url.clone();
    let plan = Plan::on(database);
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let settings = plan.settings().clone();
    let old = binary_before().map(|program| Service::start_build(&program, &settings, plan.folder()));
    let raising = match &old {
        Some(old) => tokio::spawn(raise_by_service(old.address.clone(), stopping)),
        None => tokio::spawn(raise_by_statements(url.clone(), stopping)),
    };

    // Two of the new version come at the same time.
    let begun = Instant::now();
    let (env, other) = tokio::join!(plan.build(), async {
        tokio::task::spawn_blocking({
            let (settings, folder) = (settings.clone(), crate::support::database::Folder::new());
            move || {
                let mut command = crate::support::service::command(&settings, folder.path());
                command.arg("migrate").output().unwrap()
            }
        })
        .await
        .unwrap()
    });
    let took = begun.elapsed();
    stop.send_replace(true);
    let (count, longest) = raising.await.unwrap();

    assert!(other.status.success(), "{other:?}");
    let _ = writeln!(
        std::io::stderr(),
        "brought up to date beside {}: {rows} deliveries, two processes ready after {:.1} s, {count} alerts raised meanwhile, \
         the longest wait {:.3} s",
        if old.is_some() {
            "the version before"
        } else {
            "its statements"
        },
        took.as_secs_f64(),
        longest.as_secs_f64(),
    );
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    let alerts = i64::try_from(rows + count).unwrap();
    assert_eq!(env.database.number("select count(*) from alert").await, alerts);
}
