//! Stories of connections: floods of half-sent requests, bodies that nobody vouched for, a stop.

use crate::support::{
    PATIENCE,
    database::Database,
    env::{INTAKE, Plan, TestEnv, critical, person},
    service::OPEN_FILES,
};
use reqwest::Method;
use std::{
    cell::Cell,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

stories![
    events_pass_a_flood_of_half_open_and_unsigned_connections,
    events_pass_a_flood_at_the_cap_of_connections,
    events_pass_when_no_more_files_can_be_opened,
    half_sent_heads_are_cut_off_and_idle_connections_kept,
    an_unsigned_receipt_is_refused_before_its_body_is_read,
    a_body_that_is_too_large_is_refused_before_it_is_read,
    idle_and_half_open_connections_do_not_hold_up_a_stop,
];

const HALF_HEADS: [&str; 3] = [
    "",
    "GET /healthz HTT",
    "POST /v1/events HTTP/1.1\r\nHost: nightbell\r\nX-Pad: 1",
];
/// Not half a head but half a body, with a signature that nobody has looked at yet: such a one only waits, too.
const HALF_BODY: &str =
    "POST /twilio/status HTTP/1.1\r\nHost: x\r\nX-Twilio-Signature: bm8=\r\nContent-Length: 1000\r\n\r\nMessageSid=";
const MEBIBYTE: usize = 1024 * 1024;

/// Where clients connect from.
const HELPDESK: &str = "127.0.0.1";
const ELSEWHERE: &str = "127.0.0.2";

async fn connect(address: &str, from: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0))?;
    socket.connect(address.parse().unwrap()).await
}

/// Opens a connection and sends this.
async fn send(address: &str, text: &str) -> TcpStream {
    let mut stream = timeout(PATIENCE, TcpStream::connect(address)).await.unwrap().unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Everything that comes until the other side closes; a reset closes too.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..count]);
        }
    };
    timeout(PATIENCE, reading)
        .await
        .expect("the service to close the connection");
    String::from_utf8(all).unwrap()
}

/// The head and the body of one answer on a connection that stays open.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let count = timeout(PATIENCE, stream.read(&mut buffer))
            .await
            .expect("an answer")
            .unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        let length = |head: &str| {
            head.lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0)
        };
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= length(head)
        {
            return text;
        }
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

/// As many connections as wanted that send half a request and then nothing. They live as long as what is returned. Those
/// that cannot be opened are left out: a service that accepts no connections takes no more.
async fn half_open(address: &str, from: &'static str, wanted: usize) -> Vec<TcpStream> {
    // This process needs files for its own ends of all of them.
    let _ = Command::new("prlimit")
        .args([&format!("--pid={}", std::process::id()), "--nofile=20000:"])
        .output();
    let mut opening = JoinSet::new();
    for number in 0..wanted {
        let address = address.to_owned();
        opening.spawn(async move {
            let mut stream = timeout(Duration::from_secs(5), connect(&address, from))
                .await
                .ok()?
                .ok()?;
            let half = HALF_HEADS.get(number % 4).copied().unwrap_or(HALF_BODY);
            stream.write_all(half.as_bytes()).await.ok()?;
            Some(stream)
        });
    }
    opening.join_all().await.into_iter().flatten().collect()
}

/// So many clients that post a mebibyte without a signature, but for its last byte, so that one who reads it all has to
/// keep it all.
fn unsigned_receipts(address: &str, from: &'static str, wanted: usize) -> JoinSet<()> {
    let mut sending = JoinSet::new();
    for _ in 0..wanted {
        let address = address.to_owned();
        sending.spawn(async move {
            let mut stream = connect(&address, from).await.unwrap();
            let head = format!("POST /twilio/status HTTP/1.1\r\nHost: x\r\nContent-Length: {MEBIBYTE}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&vec![b'a'; MEBIBYTE - 1]).await;
            let _ = stream.read(&mut [0; 4096]).await;
        });
    }
    sending
}

/// Posts events of new tickets at a steady pace, each of which must be answered 202; returns how long each took, sorted.
async fn post_events(env: &TestEnv, ticket: &str, count: usize) -> Vec<Duration> {
    let client = crate::support::client();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut posting = JoinSet::new();
    for number in 0..count {
        ticks.tick().await;
        let request = client
            .post(format!("http://{}/v1/events", env.service.address))
            .bearer_auth(INTAKE)
            .timeout(PATIENCE)
            .header("content-type", "application/json")
            .body(critical(&format!("{ticket}-{number}"), &[person("+14155550101")]).to_string());
        posting.spawn(async move {
            let began = Instant::now();
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status(), 202);
            began.elapsed()
        });
    }
    let mut took = posting.join_all().await;
    took.sort();
    took
}

/// The most memory that the process ever had, in MB.
fn peak_memory_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Past the test harness, which swallows what passing tests print.
fn tell(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Events of `HELPDESK` pass while 2,000 clients hold half a request each and 300 post a mebibyte that nobody signed.
async fn flood(env: &TestEnv, from: &'static str, wanted_open: usize, what: &str) {
    // The first phone number loads the numbering plans.
    post_events(env, "first", 10).await;
    let calm = post_events(env, "calm", 100).await;
    let before_mb = peak_memory_mb(env.service.pid());

    let half_open = half_open(&env.service.address, from, 2000).await;
    assert!(half_open.len() >= wanted_open, "only {} could connect", half_open.len());
    let unsigned = unsigned_receipts(&env.service.address, from, 300);
    let took = post_events(env, "flood", 500).await;

    let peak_mb = peak_memory_mb(env.service.pid());
    let figures = |took: &[Duration]| {
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        format!("p50 {:?}, p99 {:?}, most {:?}", at(0.5), at(0.99), at(1.0))
    };
    tell(&format!(
        "{what}: before {} events: {}; with {} half open and 300 unsigned {}: {}; peak memory {before_mb} -> {peak_mb} MB",
        calm.len(),
        figures(&calm),
        half_open.len(),
        took.len(),
        figures(&took)
    ));
    assert!(
        peak_mb < before_mb + 150,
        "peak memory rose from {before_mb} to {peak_mb} MB"
    );
    drop((half_open, unsigned));
    assert_eq!(env.request(Method::GET, "/healthz", &[], Vec::new()).await.status, 200);
}

async fn events_pass_a_flood_of_half_open_and_unsigned_connections(database: Database) {
    let engine = if database.is_sqlite { "SQLite" } else { "PostgreSQL" };
    let env = TestEnv::on(database).await;

    flood(&env, HELPDESK, 2000, &format!("flood, {engine}")).await;
}

/// At its cap the service closes connections of the address that the flood comes from, but for those that a helpdesk there
/// keeps; nobody else's.
async fn events_pass_a_flood_at_the_cap_of_connections(database: Database) {
    let engine = if database.is_sqlite { "SQLite" } else { "PostgreSQL" };
    let env = Plan::on(database).environment(OPEN_FILES, "1024").build().await;
    let post = |ticket: &str| {
        let event = critical(ticket, &[person("+14155550101")]).to_string();
        format!(
            "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {INTAKE}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{event}",
            event.len()
        )
    };
    let mut kept = Vec::new();
    for number in 0..8 {
        let mut stream = connect(&env.service.address, ELSEWHERE).await.unwrap();
        stream
            .write_all(post(&format!("kept-{number}")).as_bytes())
            .await
            .unwrap();
        assert_eq!(status(&read_answer(&mut stream).await), "202");
        kept.push(stream);
    }

    let what = format!("flood at the cap, {engine}");
    let is_over = Cell::new(false);
    let flooding = async {
        // A service that stops accepting takes some of them; this one takes all, and closes some.
        flood(&env, ELSEWHERE, 1000, &what).await;
        is_over.set(true);
    };
    let keeping = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        let mut number = 0;
        while !is_over.get() {
            for stream in &mut kept {
                ticks.tick().await;
                number += 1;
                let event = post(&format!("kept-again-{number}"));
                stream.write_all(event.as_bytes()).await.unwrap();
                assert_eq!(status(&read_answer(stream).await), "202");
            }
        }
    };
    tokio::join!(flooding, keeping);

    env.service.logged("closed connections that only waited").await;
}

async fn events_pass_when_no_more_files_can_be_opened(database: Database) {
    let env = TestEnv::on(database).await;
    post_events(&env, "calm", 10).await;
    let limited = Command::new("prlimit")
        .args([&format!("--pid={}", env.service.pid()), "--nofile=100:100"])
        .status()
        .unwrap();
    assert!(limited.success());

    let half_open = half_open(&env.service.address, HELPDESK, 300).await;

    for number in 0..20 {
        let event = critical(&format!("full-{number}"), &[person("+14155550101")]);
        let reply = timeout(PATIENCE, env.post(&event)).await.expect("an answer");
        assert_eq!(reply.status, 202, "{reply:?}");
    }
    env.service.logged("cannot take connections").await;
    drop(half_open);
}

async fn half_sent_heads_are_cut_off_and_idle_connections_kept(database: Database) {
    let env = TestEnv::on(database).await;
    let address = &env.service.address;
    const WHOLE: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut idle = send(address, WHOLE).await;
    let mut half_again = send(address, WHOLE).await;
    assert_eq!(status(&read_answer(&mut idle).await), "200");
    assert_eq!(status(&read_answer(&mut half_again).await), "200");
    half_again.write_all(b"GET /healthz HTT").await.unwrap();

    let began = Instant::now();
    let mut half: Vec<TcpStream> = Vec::new();
    for head in HALF_HEADS {
        half.push(send(address, head).await);
    }
    for stream in half.iter_mut().chain([&mut half_again]) {
        assert_eq!(read_to_end(stream).await, "", "there is nothing to answer");
    }

    let waited = began.elapsed();
    assert!(
        waited > Duration::from_secs(9),
        "a slow client has its time: {waited:?}"
    );
    idle.write_all(WHOLE.as_bytes()).await.unwrap();
    assert_eq!(status(&read_answer(&mut idle).await), "200", "idle is not half-sent");
}

async fn an_unsigned_receipt_is_refused_before_its_body_is_read(database: Database) {
    let env = TestEnv::on(database).await;
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut stream = send(
            &env.service.address,
            &format!("POST /twilio/status?d=1&a=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n{expect}\r\n"),
        )
        .await;

        // All that comes, and the end: not a byte of the body was asked for.
        let answer = read_to_end(&mut stream).await;

        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    let rejected = env.get("/v1/receipts/rejected").await;
    assert_eq!(rejected["count"], 2, "{rejected}");
    assert!(
        rejected["items"][0]["why"]
            .as_str()
            .unwrap()
            .contains("X-Twilio-Signature"),
        "{rejected}"
    );
}

async fn a_body_that_is_too_large_is_refused_before_it_is_read(database: Database) {
    let env = TestEnv::on(database).await;
    let address = &env.service.address;
    let head = |path: &str, length: usize, more: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n")
    };
    let signed = "X-Twilio-Signature: bm90aGluZw==\r\n";
    let token = format!("Authorization: Bearer {INTAKE}\r\n");

    for (what, text, wanted) in [
        ("a receipt", head("/twilio/status", 64 * 1024 + 1, signed), "413"),
        ("an event", head("/v1/events", 1 << 30, &token), "413"),
        ("an unauthenticated event", head("/v1/events", MEBIBYTE, ""), "401"),
    ] {
        let mut stream = send(address, &text).await;
        assert_eq!(status(&read_to_end(&mut stream).await), wanted, "{what}");
    }

    let mut chunked = send(
        address,
        &format!("POST /twilio/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{signed}\r\n"),
    )
    .await;
    let chunk = format!("{:x}\r\n{}\r\n", 16 * 1024, "a".repeat(16 * 1024));
    for _ in 0..5 {
        // The service may close before it has all.
        let _ = chunked.write_all(chunk.as_bytes()).await;
    }
    assert!(["413", ""].contains(&status(&read_to_end(&mut chunked).await)));

    // A client with a good token that sends a little too much gets to see why it is not taken, and may go on.
    let mut trusted = send(address, &head("/v1/events", MEBIBYTE + 1, &token)).await;
    trusted.write_all(&vec![b' '; MEBIBYTE + 1]).await.unwrap();
    assert_eq!(status(&read_answer(&mut trusted).await), "413");
    trusted
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&read_answer(&mut trusted).await), "200");
    assert_eq!(env.get("/v1/alerts").await["items"], serde_json::json!([]));
}

async fn idle_and_half_open_connections_do_not_hold_up_a_stop(database: Database) {
    let mut env = TestEnv::on(database).await;
    let address = env.service.address.clone();
    let mut idle = send(&address, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_answer(&mut idle).await;
    let mut half = Vec::new();
    for head in HALF_HEADS {
        half.push(send(&address, head).await);
    }
    let event = critical("1", &[person("+14155550101")]).to_string();
    let mut under_way = send(
        &address,
        &format!(
            "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {INTAKE}\r\nExpect: 100-continue\r\n\
             Content-Length: {}\r\n\r\n",
            event.len()
        ),
    )
    .await;
    assert_eq!(status(&read_answer(&mut under_way).await), "100", "its body is awaited");

    env.service.signal("TERM");
    assert_eq!(read_to_end(&mut idle).await, "");
    for stream in &mut half {
        assert_eq!(read_to_end(stream).await, "");
    }
    under_way.write_all(event.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut under_way).await;

    assert_eq!(status(&answer), "202", "what is under way is answered: {answer}");
    assert!(env.service.ended().await.success());
    let log = env.service.log();
    assert!(!log.contains("cut off"), "{log}");
}
