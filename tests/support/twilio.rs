//! A fake Twilio: takes messages over HTTP, misbehaves as it is told, remembers what it accepted, and signs its
//! callbacks with code of its own. What it accepted and nobody expected fails the story (see `TestEnv`).

use axum::{
    Form, Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

pub const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub const AUTH_TOKEN: &str = "fake-auth-token";
/// A sender that may not send (test credentials, "Messages From").
pub const BAD_SENDER: &str = "+15005550007";

/// How the fake answers one attempt.
#[derive(Clone, Debug)]
pub enum Answers {
    Accepts,
    /// 429, and nothing was sent.
    Busy,
    /// A 4xx with an error code.
    Refuses(u16, i64),
    /// Takes the message and never answers.
    AcceptsWithoutAnswer,
    /// Never answers and takes nothing.
    Hangs,
    /// Takes the message and answers 500.
    AcceptsWith500,
    /// Answers 500 and takes nothing.
    Fails500,
    /// Takes the message; the answer breaks off half-way.
    AcceptsWithHalfAnswer,
    /// Takes the message; the answer drips, a byte at a time.
    AcceptsWithDrips,
    /// Takes the message; the answer comes when the story lets it.
    AcceptsWhenLet(Arc<tokio::sync::Notify>),
}

/// A message that the fake accepted.
#[derive(Clone, Debug)]
pub struct Message {
    pub sid: String,
    pub to: String,
    pub from: String,
    pub body: String,
    pub callback: Option<String>,
    pub form: HashMap<String, String>,
    pub status: String,
    pub at: jiff::Timestamp,
}

impl Message {
    /// Posts a receipt for it to the process at this address; `None` if there was no answer.
    pub async fn report_to(
        &self,
        client: &reqwest::Client,
        address: &str,
        status: &str,
        code: Option<&str>,
    ) -> Option<u16> {
        let mut form = vec![
            ("AccountSid", ACCOUNT),
            ("To", self.to.as_str()),
            ("MessageSid", &self.sid),
            ("MessageStatus", status),
        ];
        form.extend(code.map(|code| ("ErrorCode", code)));
        let url = self.callback.clone().unwrap();
        let query = url.split('#').next().unwrap().split_once('?').unwrap().1.to_owned();
        let answer = client
            .post(format!("http://{address}/twilio/status?{query}"))
            .header("x-twilio-signature", sign(AUTH_TOKEN, &url, &form))
            .form(&form)
            .send()
            .await;
        Some(answer.ok()?.status().as_u16())
    }
}

#[derive(Default)]
struct FakeState {
    scripts: HashMap<String, VecDeque<Answers>>,
    messages: Vec<Message>,
    /// Every call to create a message, whatever came of it: the number called and how it signed in.
    calls: Vec<(String, String)>,
    refuses_account: bool,
    /// What lists and fetches answer instead, if anything.
    reads_fail: bool,
    /// Whether whoever signs in may send and not read, as a restricted API key may.
    reads_forbidden: bool,
    /// Put before every text, as trial accounts have it.
    prefix: &'static str,
    next_sid: u64,
    /// How many seconds its clock is ahead of the real time.
    ahead_s: i64,
    /// Numbers whose lists are never answered.
    slow: HashSet<String>,
}

impl FakeState {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now() + jiff::SignedDuration::from_secs(self.ahead_s)
    }
}

/// The fake and its state.
#[derive(Clone)]
pub struct Twilio {
    pub url: String,
    state: Arc<Mutex<FakeState>>,
    closed: Arc<watch::Sender<bool>>,
}

/// The fake's listener: while it is closed, connections are refused.
struct ClosableListener {
    address: std::net::SocketAddr,
    /// Keeps the port while the listener is closed, so that no other test's fake opens there and gets our calls.
    _keeper: tokio::net::TcpSocket,
    listener: Option<tokio::net::TcpListener>,
    closed: Arc<watch::Sender<bool>>,
}

impl ClosableListener {
    fn open() -> Self {
        let keeper = socket_at("127.0.0.1:0".parse().unwrap());
        let address = keeper.local_addr().unwrap();
        Self {
            address,
            _keeper: keeper,
            listener: Some(socket_at(address).listen(1024).unwrap()),
            closed: Arc::new(watch::Sender::new(false)),
        }
    }
}

fn socket_at(address: std::net::SocketAddr) -> tokio::net::TcpSocket {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl axum::serve::Listener for ClosableListener {
    type Io = tokio::net::TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let mut closed = self.closed.subscribe();
        loop {
            if *closed.borrow_and_update() {
                self.listener = None;
                closed.changed().await.unwrap();
                continue;
            }
            let listener = match &self.listener {
                Some(listener) => listener,
                None => self.listener.insert(socket_at(self.address).listen(1024).unwrap()),
            };
            tokio::select! {
                accepted = listener.accept() => if let Ok(accepted) = accepted { return accepted },
                changed = closed.changed() => changed.unwrap(),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl Twilio {
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(FakeState::default()));
        let router = Router::new()
            .route("/2010-04-01/Accounts/{account}/Messages.json", post(create).get(list))
            .route("/2010-04-01/Accounts/{account}/Messages/{sid}", get(fetch))
            // Connections are not kept, so that a closed listener is noticed.
            .layer(axum::middleware::map_response(|mut response: Response| async {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, "close".parse().unwrap());
                response
            }))
            .layer(axum::middleware::map_response_with_state(Arc::clone(&state), date))
            .with_state(Arc::clone(&state));
        let listener = ClosableListener::open();
        let url = format!("http://{}", listener.address);
        let closed = Arc::clone(&listener.closed);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state, closed }
    }

    /// Scripts the next answers for a number; after them it accepts.
    pub fn script(&self, phone: &str, answers: impl IntoIterator<Item = Answers>) {
        self.state
            .lock()
            .unwrap()
            .scripts
            .entry(phone.to_owned())
            .or_default()
            .extend(answers);
    }

    /// From now on connections are refused, or taken again.
    pub fn close(&self, closed: bool) {
        self.closed.send_replace(closed);
    }

    /// From now on the account is refused, or accepted again.
    pub fn refuse_account(&self, refuse: bool) {
        self.state.lock().unwrap().refuses_account = refuse;
    }

    /// From now on lists and single messages cannot be read, or can be again.
    pub fn fail_reads(&self, fail: bool) {
        self.state.lock().unwrap().reads_fail = fail;
    }

    /// Sets its clock, which its replies and its messages show, to so many seconds ahead of the real time.
    pub fn set_clock(&self, ahead_s: i64) {
        self.state.lock().unwrap().ahead_s = ahead_s;
    }

    /// From now on lists of this number are never answered.
    pub fn hang_lists_of(&self, phone: &str) {
        self.state.lock().unwrap().slow.insert(phone.to_owned());
    }

    /// From now on lists and single messages are forbidden, as to a restricted API key, or allowed again.
    pub fn forbid_reads(&self, forbid: bool) {
        self.state.lock().unwrap().reads_forbidden = forbid;
    }

    /// From now on texts are changed as a trial account's are.
    pub fn behave_like_a_trial(&self) {
        self.state.lock().unwrap().prefix = "Sent from your Twilio trial account - ";
    }

    /// What became of a message; it shows in lists, and receipts are the story's business.
    pub fn set_status(&self, sid: &str, status: &str) {
        let mut state = self.state.lock().unwrap();
        state
            .messages
            .iter_mut()
            .find(|message| message.sid == sid)
            .unwrap()
            .status = status.to_owned();
    }

    /// What was accepted, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.state.lock().unwrap().messages.clone()
    }

    pub fn messages_to(&self, phone: &str) -> Vec<Message> {
        self.messages()
            .into_iter()
            .filter(|message| message.to == phone)
            .collect()
    }

    /// How often a message for this number was posted, whatever came of it.
    pub fn calls_to(&self, phone: &str) -> usize {
        self.state
            .lock()
            .unwrap()
            .calls
            .iter()
            .filter(|(to, _)| to == phone)
            .count()
    }

    pub fn sign_ins(&self) -> Vec<String> {
        self.state
            .lock()
            .unwrap()
            .calls
            .iter()
            .map(|(_, sign_in)| sign_in.clone())
            .collect()
    }

    /// Waits until this many messages were accepted.
    pub async fn accepted(&self, count: usize) -> Vec<Message> {
        super::eventually(&format!("{count} messages at the fake Twilio"), async || {
            let messages = self.messages();
            if messages.len() >= count {
                Ok(messages)
            } else {
                Err(messages.len())
            }
        })
        .await
    }
}

/// The form of a text that a person sends to a number of ours, as Twilio posts it today.
pub fn text_form<'a>(sid: &'a str, from: &'a str, to: &'a str, body: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("ToCountry", "US"),
        ("ToState", "CA"),
        ("SmsMessageSid", sid),
        ("NumMedia", "0"),
        ("ToCity", ""),
        ("FromZip", "94105"),
        ("SmsSid", sid),
        ("FromState", "CA"),
        ("SmsStatus", "received"),
        ("FromCity", "SAN FRANCISCO"),
        ("Body", body),
        ("FromCountry", "US"),
        ("To", to),
        ("ToZip", ""),
        ("NumSegments", "1"),
        ("MessageSid", sid),
        ("AccountSid", ACCOUNT),
        ("From", from),
        ("ApiVersion", "2010-04-01"),
    ]
}

/// Signs a form as Twilio's security page tells it, with this file's own code.
pub fn sign(token: &str, url: &str, form: &[(&str, &str)]) -> String {
    let mut pairs: Vec<(&str, &str)> = form.to_vec();
    pairs.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    let text = pairs
        .iter()
        .fold(url.split('#').next().unwrap().to_owned(), |text, (name, value)| {
            text + name + value
        });
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(token.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    BASE64.encode(mac.finalize().into_bytes())
}

type SharedState = State<Arc<Mutex<FakeState>>>;

/// Dates every reply, as servers do (RFC 9110, 6.6.1).
async fn date(State(state): SharedState, mut response: Response) -> Response {
    let now = state.lock().unwrap().now();
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    response.headers_mut().insert(header::DATE, date.parse().unwrap());
    response
}

fn refusal(status: u16, code: i64) -> Response {
    let body = json!({"code": code, "message": "The 'To' number +14155550101 …", "more_info": format!("https://www.twilio.com/docs/errors/{code}"), "status": status});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn create(State(state): SharedState, headers: HeaderMap, Form(form): Form<HashMap<String, String>>) -> Response {
    let to = form["To"].clone();
    let answer = {
        let mut state = state.lock().unwrap();
        let sign_in = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        state.calls.push((to.clone(), sign_in));
        if state.refuses_account {
            Answers::Refuses(401, 20003)
        } else if form.get("From").is_some_and(|from| from == BAD_SENDER) {
            Answers::Refuses(400, 21606)
        } else {
            state
                .scripts
                .get_mut(&to)
                .and_then(VecDeque::pop_front)
                .unwrap_or(Answers::Accepts)
        }
    };
    match answer {
        Answers::Busy => refusal(429, 20429),
        Answers::Refuses(status, code) => refusal(status, code),
        Answers::Hangs => std::future::pending().await,
        Answers::Fails500 => refusal(500, 20500),
        Answers::Accepts => (StatusCode::CREATED, Json(write_down(&state, form))).into_response(),
        Answers::AcceptsWithoutAnswer => {
            write_down(&state, form);
            std::future::pending().await
        }
        Answers::AcceptsWith500 => {
            write_down(&state, form);
            refusal(500, 20500)
        }
        Answers::AcceptsWithHalfAnswer => {
            let text = write_down(&state, form).to_string();
            let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
            let chunks = futures::stream::iter([Ok(half), Err(std::io::Error::other("cut"))]);
            (
                StatusCode::CREATED,
                [(header::CONTENT_LENGTH, text.len().to_string())],
                Body::from_stream(chunks),
            )
                .into_response()
        }
        Answers::AcceptsWithDrips => {
            let text = write_down(&state, form).to_string();
            let drops = futures::stream::unfold(
                (
                    text.into_bytes().into_iter(),
                    tokio::time::interval(std::time::Duration::from_millis(100)),
                ),
                |(mut bytes, mut ticks)| async move {
                    ticks.tick().await;
                    bytes
                        .next()
                        .map(|byte| (Ok::<_, std::io::Error>(Bytes::copy_from_slice(&[byte])), (bytes, ticks)))
                },
            );
            (StatusCode::CREATED, Body::from_stream(drops)).into_response()
        }
        Answers::AcceptsWhenLet(gate) => {
            let body = write_down(&state, form);
            gate.notified().await;
            (StatusCode::CREATED, Json(body)).into_response()
        }
    }
}

/// Notes a message and makes Twilio's answer.
fn write_down(state: &Mutex<FakeState>, form: HashMap<String, String>) -> Value {
    let mut state = state.lock().unwrap();
    state.next_sid += 1;
    let message = Message {
        sid: format!("SM{:032x}", state.next_sid),
        to: form["To"].clone(),
        from: form
            .get("From")
            .or(form.get("MessagingServiceSid"))
            .cloned()
            .unwrap_or_default(),
        body: format!("{}{}", state.prefix, form["Body"]),
        callback: form.get("StatusCallback").cloned(),
        form,
        status: "queued".into(),
        at: state.now(),
    };
    let shown = show(&message);
    state.messages.push(message);
    shown
}

/// A message as the API shows it; `num_media` and `num_segments` really are texts, and a message that waits in Twilio's
/// queue has no `date_sent`.
fn show(message: &Message) -> Value {
    let date = message.at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
    let sent = (message.status != "queued").then_some(&date);
    json!({"sid": message.sid, "account_sid": ACCOUNT, "api_version": "2010-04-01", "body": message.body, "to": message.to, "from": message.from,
        "status": message.status, "direction": "outbound-api", "date_created": date, "date_updated": date, "date_sent": sent,
        "error_code": null, "error_message": null, "num_media": "0", "num_segments": "1", "price": null, "price_unit": "USD"})
}

/// How many messages a page of this fake has, whatever is asked for: small, so that pages must be followed.
const PAGE: usize = 2;

async fn list(
    State(state): SharedState,
    Path(account): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let is_slow = query
        .get("To")
        .is_some_and(|to| state.lock().unwrap().slow.contains(to));
    if is_slow {
        return std::future::pending().await;
    }
    let state = state.lock().unwrap();
    if state.refuses_account || account != ACCOUNT {
        return refusal(401, 20003);
    }
    if state.reads_forbidden {
        return refusal(403, 20003);
    }
    if state.reads_fail {
        return refusal(503, 20503);
    }
    let to = query.get("To");
    // Messages that wait in the queue have no date, so a filter by date passes them over.
    let is_wanted = |message: &&Message| {
        to.is_none_or(|to| *to == message.to) && (!query.contains_key("DateSent>") || message.status != "queued")
    };
    let wanted: Vec<&Message> = state.messages.iter().rev().filter(is_wanted).collect();
    let page: usize = query.get("Page").map_or(0, |page| page.parse().unwrap());
    let shown: Vec<Value> = wanted
        .iter()
        .skip(page * PAGE)
        .take(PAGE)
        .map(|message| show(message))
        .collect();
    let next = (wanted.len() > (page + 1) * PAGE).then(|| {
        let mut link = url::form_urlencoded::Serializer::new(format!("/2010-04-01/Accounts/{account}/Messages.json?"));
        link.extend_pairs(query.iter().filter(|(name, _)| *name != "Page"))
            .append_pair("Page", &(page + 1).to_string());
        link.finish().replace("?&", "?")
    });
    Json(json!({"messages": shown, "next_page_uri": next})).into_response()
}

async fn fetch(State(state): SharedState, Path((_, file)): Path<(String, String)>) -> Response {
    let state = state.lock().unwrap();
    if state.reads_forbidden {
        return refusal(403, 20003);
    }
    if state.reads_fail {
        return refusal(503, 20503);
    }
    let sid = file.trim_end_matches(".json");
    match state.messages.iter().find(|message| message.sid == sid) {
        Some(message) => Json(show(message)).into_response(),
        None => refusal(404, 20404),
    }
}
