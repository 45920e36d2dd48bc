//! The fake provider, twice: one in the client's own thread, and one in a process of its own with a thread for each
//! connection. The first wakes once for many requests, the second once for each, as a service far away would have it. Both
//! take everything and answer Twilio's calls as Twilio does, and a peer's webhook with 200.

use crate::http::message_of;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The argument with which this program starts itself as a provider.
pub const THREADS_ARGUMENT: &str = "--serve-as-provider-with-threads";
/// Added, it writes the head and the body of an answer apart and leaves Nagle's algorithm on, as simple servers do: the body
/// then waits for the client's delayed acknowledgement of the head, 40 ms on Linux.
const TWO_WRITES_ARGUMENT: &str = "--in-two-writes";

pub trait Provider {
    fn address(&self) -> &str;
    /// How many messages came.
    async fn count(&self) -> usize;
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

/// The provider in the client's thread: it can be slow, and knows what came and when.
#[derive(Clone)]
pub struct InProcess {
    address: String,
    pub arrivals: Arc<Mutex<Arrivals>>,
    delay: Rc<std::cell::Cell<Duration>>,
}

impl Provider for InProcess {
    fn address(&self) -> &str {
        &self.address
    }

    async fn count(&self) -> usize {
        self.arrivals.lock().unwrap().count
    }
}

impl InProcess {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
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

    async fn serve(self, mut stream: tokio::net::TcpStream) {
        let mut buffer = Vec::with_capacity(16 * 1024);
        loop {
            let (head, length) = loop {
                if let Some(message) = message_of(&buffer) {
                    break message;
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
        let call = Call::read(body);
        let mut arrivals = self.arrivals.lock().unwrap();
        arrivals.count += 1;
        if let (Some(sid), Some(callback)) = (call.sid(), &call.callback) {
            arrivals.callbacks.push((sid, callback.clone()));
        }
        let answer = call.answer();
        arrivals.times.entry(call.to).or_insert(now);
        answer
    }
}

/// The provider in a process of its own, with a thread for each connection. It only counts.
pub struct Threads {
    process: Child,
    address: String,
}

impl Drop for Threads {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Provider for Threads {
    fn address(&self) -> &str {
        &self.address
    }

    async fn count(&self) -> usize {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(b"COUNT / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut count = String::new();
        stream.read_to_string(&mut count).await.unwrap();
        count.parse().unwrap()
    }
}

impl Threads {
    pub fn start(in_two_writes: bool) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg(THREADS_ARGUMENT)
            .args(in_two_writes.then_some(TWO_WRITES_ARGUMENT))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            process,
            address: line.trim().to_owned(),
        }
    }

    /// What the process does, until it is killed.
    pub fn run() -> ! {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        println!("{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let in_two_writes = std::env::args().any(|argument| argument == TWO_WRITES_ARGUMENT);
        loop {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nodelay(!in_two_writes).unwrap();
            let count = Arc::clone(&count);
            // A client that goes away half-way ends its thread and nothing else.
            std::thread::spawn(move || Self::serve(stream, &count, in_two_writes));
        }
    }

    fn serve(mut stream: std::net::TcpStream, count: &AtomicUsize, in_two_writes: bool) -> std::io::Result<()> {
        let (mut buffer, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            if buffer.starts_with(b"COUNT") {
                return write!(stream, "{}", count.load(Ordering::Relaxed));
            }
            if let Some((head, length)) = message_of(&buffer) {
                count.fetch_add(1, Ordering::Relaxed);
                let answer = Call::read(&buffer[head..head + length]).answer();
                let first = if in_two_writes {
                    answer.find("\r\n\r\n").unwrap() + 4
                } else {
                    answer.len()
                };
                stream.write_all(&answer.as_bytes()[..first])?;
                stream.write_all(&answer.as_bytes()[first..])?;
                buffer.drain(..head + length);
                continue;
            }
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&chunk[..read]);
        }
    }
}

/// One message that is to be sent.
struct Call {
    /// The number, or of a peer the ticket.
    to: String,
    callback: Option<String>,
    is_twilio: bool,
}

impl Call {
    fn read(body: &[u8]) -> Self {
        if body.first() == Some(&b'{') {
            let text = std::str::from_utf8(body).unwrap();
            let ticket = text
                .split_once("\"ticket\":\"")
                .map(|(_, rest)| rest.split('"').next().unwrap());
            return Self {
                to: ticket.unwrap_or_default().to_owned(),
                callback: None,
                is_twilio: false,
            };
        }
        let (mut to, mut callback) = (String::new(), None);
        for (name, value) in url::form_urlencoded::parse(body) {
            match name.as_ref() {
                "To" => to = value.into_owned(),
                "StatusCallback" => callback = Some(value.into_owned()),
                _ => {}
            }
        }
        Self {
            to,
            callback,
            is_twilio: true,
        }
    }

    fn sid(&self) -> Option<String> {
        self.is_twilio.then(|| format!("SM{:0>32}", &self.to[1..]))
    }

    fn answer(&self) -> String {
        let Some(sid) = self.sid() else {
            return "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned();
        };
        let body = format!(
            r#"{{"sid":"{sid}","status":"queued","date_created":"Sat, 21 Nov 2026 09:00:00 +0000","error_code":null,"error_message":null}}"#
        );
        format!(
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}
