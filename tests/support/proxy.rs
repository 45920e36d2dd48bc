//! A proxy in front of PostgreSQL that can stop answering: it goes on accepting bytes and answers nothing, as a network does
//! that drops packets. It reads the client's messages, so a story can choose the statement at which that happens.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The proxy and what it is to do.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    orders: Arc<Mutex<Orders>>,
    /// Counts the times it stopped: a connection that was open before the newest is never answered again.
    stops: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Orders {
    /// A piece of the statement at which nothing is answered any more, until it was met.
    trigger: Option<String>,
    /// Whether new connections get no answer either.
    is_down: bool,
    /// Statements whose name was seen, by connection.
    prepared: HashMap<(u64, String), String>,
    next_connection: u64,
}

impl Proxy {
    /// Starts a proxy to the server on this port.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            orders: Arc::default(),
            stops: Arc::new(watch::Sender::new(0)),
        };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(accepting.clone().carry(client, server));
            }
        });
        proxy
    }

    /// Stops answering on every connection, old and new, as soon as a client runs a statement with this text.
    pub fn stop_answering_at(&self, statement: &str) {
        self.orders.lock().unwrap().trigger = Some(statement.to_owned());
    }

    /// Stops answering now.
    pub fn stop_answering(&self) {
        self.orders.lock().unwrap().is_down = true;
        self.stops.send_modify(|count| *count += 1);
    }

    /// Whether the statement was met.
    pub fn is_unresponsive(&self) -> bool {
        self.orders.lock().unwrap().is_down
    }

    /// Carries new connections again. Those that got no answer never get one.
    pub fn let_pass(&self) {
        let mut orders = self.orders.lock().unwrap();
        orders.is_down = false;
        orders.trigger = None;
    }

    async fn carry(self, client: TcpStream, server: u16) {
        let (number, is_down) = {
            let mut orders = self.orders.lock().unwrap();
            orders.next_connection += 1;
            (orders.next_connection, orders.is_down)
        };
        if is_down {
            return discard(client).await;
        }
        let mut stops = self.stops.subscribe();
        let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let mut messages = Messages::default();
        let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        loop {
            tokio::select! {
                // No answers from here on: both ends stay open, and whatever is still said is lost.
                _ = stops.changed() => {
                    let _server = (from_server, to_server);
                    let _ = tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await;
                    drop(to_client);
                    return;
                }
                read = from_client.read(&mut up) => match read {
                    Ok(count) if count > 0 => {
                        if self.meets(number, messages.read(&up[..count])) {
                            self.stop_answering();
                        } else if to_server.write_all(&up[..count]).await.is_err() {
                            return;
                        }
                    }
                    _ => return,
                },
                read = from_server.read(&mut down) => match read {
                    Ok(count) if count > 0 => {
                        if to_client.write_all(&down[..count]).await.is_err() {
                            return;
                        }
                    }
                    _ => return,
                },
            }
        }
    }

    /// Whether one of these messages runs the statement that is waited for.
    fn meets(&self, connection: u64, messages: Vec<Message>) -> bool {
        let mut orders = self.orders.lock().unwrap();
        let mut met = false;
        for message in messages {
            let text = match message {
                Message::Parse { name, text } => {
                    orders.prepared.insert((connection, name), text);
                    continue;
                }
                Message::Bind { name } => orders.prepared.get(&(connection, name)).cloned(),
                Message::Query { text } => Some(text),
            };
            let is_met = |trigger: &String| text.as_ref().is_some_and(|text| text.contains(trigger.as_str()));
            if orders.trigger.as_ref().is_some_and(is_met) {
                orders.trigger = None;
                met = true;
            }
        }
        met
    }
}

/// Accepts everything and answers nothing.
async fn discard(mut client: TcpStream) {
    let (mut reading, _writing) = client.split();
    let _ = tokio::io::copy(&mut reading, &mut tokio::io::sink()).await;
}

/// What a client says that matters here.
enum Message {
    Parse { name: String, text: String },
    Bind { name: String },
    Query { text: String },
}

/// Cuts a client's bytes into messages (PostgreSQL's documentation, "Message Formats"): a letter, four bytes of length, the
/// rest. Only the first message has no letter.
#[derive(Default)]
struct Messages {
    bytes: VecDeque<u8>,
    has_started: bool,
}

impl Messages {
    fn read(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.bytes.extend(bytes);
        let mut found = Vec::new();
        loop {
            let head = usize::from(self.has_started);
            if self.bytes.len() < head + 4 {
                return found;
            }
            let length: Vec<u8> = self.bytes.range(head..head + 4).copied().collect();
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.bytes.len() < head + length {
                return found;
            }
            let message: Vec<u8> = self.bytes.drain(..head + length).collect();
            if self.has_started {
                found.extend(understand(message[0], &message[5..]));
            } else {
                // A request for TLS is answered with no, and the real start follows in the same way.
                const TLS_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
                self.has_started = message[4..] != TLS_REQUEST;
            }
        }
    }
}

fn understand(letter: u8, body: &[u8]) -> Option<Message> {
    let mut texts = body.split(|byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
    match letter {
        b'P' => Some(Message::Parse {
            name: text(),
            text: text(),
        }),
        b'B' => {
            let _portal = text();
            Some(Message::Bind { name: text() })
        }
        b'Q' => Some(Message::Query { text: text() }),
        _ => None,
    }
}
