//! HTTP/1.1 by hand, on both sides: what measures must cost little beside what is measured, and both run on the same
//! cores. Keep-alive connections, one request at a time on each.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// One keep-alive connection of a client.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
        }
    }

    /// Sends a request and reads its whole answer; returns the status.
    pub async fn ask(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).await.unwrap();
        self.buffer.clear();
        loop {
            assert_ne!(
                self.stream.read_buf(&mut self.buffer).await.unwrap(),
                0,
                "the connection was closed: {}",
                String::from_utf8_lossy(&self.buffer)
            );
            if let Some((head, length)) = message_of(&self.buffer)
                && self.buffer.len() >= head + length
            {
                return std::str::from_utf8(&self.buffer[9..12]).unwrap().parse().unwrap();
            }
        }
    }
}

/// The length of a message's head and of its body, once the head is there. 204 has no body.
fn message_of(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().unwrap())
    });
    Some((head, length.unwrap_or(0)))
}

pub fn post(path: &str, token: &str, kind: &str, extra: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\ncontent-type: {kind}\r\n{extra}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What arrived at the fake provider.
#[derive(Default)]
pub struct Arrivals {
    /// When each number (or, of a peer, each ticket) arrived first.
    pub times: HashMap<String, Instant>,
    /// The callback address of each message, in order.
    pub callbacks: Vec<(String, String)>,
    pub count: usize,
}

/// A provider that takes everything, after `delay`. Answers Twilio's calls as Twilio does, and a peer's webhook with 200.
#[derive(Clone)]
pub struct Provider {
    pub address: String,
    pub arrivals: Arc<Mutex<Arrivals>>,
    delay: Rc<std::cell::Cell<Duration>>,
}

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Self {
            address: listener.local_addr().unwrap().to_string(),
            arrivals: Arc::default(),
            delay: Rc::default(),
        };
        let serving = provider.clone();
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::task::spawn_local(serving.clone().serve(stream));
            }
        });
        provider
    }

    /// Forgets what came, and from now on takes `delay` for each call.
    pub fn reset(&self, delay: Duration) {
        *self.arrivals.lock().unwrap() = Arrivals::default();
        self.delay.set(delay);
    }

    pub fn count(&self) -> usize {
        self.arrivals.lock().unwrap().count
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut buffer = Vec::with_capacity(16 * 1024);
        loop {
            let (head, length) = loop {
                if let Some((head, length)) = message_of(&buffer)
                    && buffer.len() >= head + length
                {
                    break (head, length);
                }
                match stream.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            };
            let answer = self.take(&buffer[head..head + length]);
            buffer.drain(..head + length);
            if !self.delay.get().is_zero() {
                tokio::time::sleep(self.delay.get()).await;
            }
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn take(&self, body: &[u8]) -> String {
        let now = Instant::now();
        let mut arrivals = self.arrivals.lock().unwrap();
        arrivals.count += 1;
        if body.first() == Some(&b'{') {
            let text = std::str::from_utf8(body).unwrap();
            let ticket = text
                .split_once("\"ticket\":\"")
                .map(|(_, rest)| rest.split('"').next().unwrap());
            arrivals
                .times
                .entry(ticket.unwrap_or_default().to_owned())
                .or_insert(now);
            return "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned();
        }
        let (mut to, mut callback) = (String::new(), None);
        for (name, value) in url::form_urlencoded::parse(body) {
            match name.as_ref() {
                "To" => to = value.into_owned(),
                "StatusCallback" => callback = Some(value.into_owned()),
                _ => {}
            }
        }
        let sid = format!("SM{:0>32}", &to[1..]);
        if let Some(callback) = callback {
            arrivals.callbacks.push((sid.clone(), callback));
        }
        arrivals.times.entry(to).or_insert(now);
        let body = format!(
            r#"{{"sid":"{sid}","status":"queued","date_created":"Sat, 21 Nov 2026 09:00:00 +0000","error_code":null,"error_message":null}}"#
        );
        format!(
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}
