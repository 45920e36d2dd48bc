//! Somebody who receives webhooks: a server of its own code that answers as a story wants it to, and checks signatures by its
//! own reading of Standard Webhooks.

use super::eventually;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// What a receiver does with an event.
#[derive(Clone, Debug)]
pub enum Answer {
    Takes,
    /// Takes it after so long.
    TakesAfter(Duration),
    Says(u16),
    /// The status, and one header.
    SaysWith(u16, &'static str, String),
    /// Says nothing and keeps the connection open.
    Hangs,
    /// Closes the connection in the middle of its answer.
    Closes,
}

/// An event that came.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    /// Their names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub answer: Answer,
}

impl Received {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub fn document(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.document()["type"].as_str().unwrap().to_owned()
    }

    /// The alert that it is about.
    pub fn alert(&self) -> String {
        self.document()["data"]["alert"]["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn was_taken(&self) -> bool {
        matches!(self.answer, Answer::Takes | Answer::TakesAfter(_))
    }

    /// How many of its signatures are by this secret.
    pub fn signatures_by(&self, secret: &str) -> usize {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(self.id().as_bytes());
        mac.update(b".");
        mac.update(self.headers["webhook-timestamp"].as_bytes());
        mac.update(b".");
        mac.update(&self.body);
        let wanted = BASE64.encode(mac.finalize().into_bytes());
        let given = self
            .headers
            .get("webhook-signature")
            .map(String::as_str)
            .unwrap_or_default();
        given
            .split(' ')
            .filter(|signature| signature.strip_prefix("v1,") == Some(&wanted))
            .count()
    }
}

type Rule = Box<dyn Fn(&Received, usize) -> Answer + Send>;

#[derive(Default)]
struct State {
    received: Vec<Received>,
    rule: Option<Rule>,
}

pub struct Receiver {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks/hush-hush", self.port)
    }

    /// From now on it answers so; the rule is given the event and how many came before it.
    pub fn answers(&self, rule: impl Fn(&Received, usize) -> Answer + Send + 'static) {
        self.state.lock().unwrap().rule = Some(Box::new(rule));
    }

    /// Everything that came so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// How many came so far.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().received.len()
    }

    /// What it has taken.
    pub fn taken(&self) -> Vec<Received> {
        self.received().into_iter().filter(Received::was_taken).collect()
    }

    /// The same where some may have been taken too late, and came again.
    pub async fn hears_at_last(&self, alert: &str, kinds: &[&str]) {
        eventually(&format!("{kinds:?} of {alert}, some twice"), async || {
            let mut heard: Vec<String> = Vec::new();
            for one in self.taken_of(alert) {
                if !heard.contains(&one.kind()) {
                    heard.push(one.kind());
                }
            }
            if heard == kinds { Ok(()) } else { Err(heard) }
        })
        .await;
    }

    /// What it has taken of an alert, but for `alert.settled`: that comes whenever the look for it finds it.
    fn taken_of(&self, alert: &str) -> Vec<Received> {
        let mut taken = self.taken();
        taken.retain(|one| one.alert() == alert && one.kind() != "alert.settled");
        taken
    }

    /// Waits until it has taken these types of events of an alert, in this order.
    pub async fn hears(&self, alert: &str, kinds: &[&str]) -> Vec<Received> {
        eventually(&format!("{kinds:?} of {alert}"), async || {
            let of_alert = self.taken_of(alert);
            let heard: Vec<String> = of_alert.iter().map(Received::kind).collect();
            if heard == kinds { Ok(of_alert) } else { Err(heard) }
        })
        .await
    }
}

async fn serve(connection: TcpStream, state: Arc<Mutex<State>>) {
    let mut connection = BufReader::new(connection);
    while let Some(mut received) = read(&mut connection).await {
        let answer = {
            let mut state = state.lock().unwrap();
            let before = state.received.len();
            let answer = state
                .rule
                .as_ref()
                .map_or(Answer::Takes, |rule| rule(&received, before));
            received.answer = answer.clone();
            state.received.push(received);
            answer
        };
        let text = match answer {
            Answer::Takes => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            Answer::TakesAfter(time) => {
                tokio::time::sleep(time).await;
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
            }
            Answer::Says(status) => format!("HTTP/1.1 {status} So\r\ncontent-length: 2\r\n\r\nno"),
            Answer::SaysWith(status, name, value) => {
                format!("HTTP/1.1 {status} So\r\n{name}: {value}\r\ncontent-length: 0\r\n\r\n")
            }
            Answer::Hangs => {
                // Until the other side has had enough.
                let _ = connection.read_u8().await;
                return;
            }
            Answer::Closes => {
                let _ = connection.write_all(b"HTTP/1.1 2").await;
                return;
            }
        };
        if connection.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(connection: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    connection.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    connection.read_exact(&mut body).await.ok()?;
    Some(Received {
        path,
        headers,
        body,
        answer: Answer::Hangs,
    })
}
