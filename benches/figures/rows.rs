//! What is measured, row by row.

use crate::{
    http::{Connection, post},
    provider::{InProcess, Provider, Threads},
    subject::{Running, Setting, Subject, fresh_folder, phone},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

/// One measurement, which may give several figures.
pub struct Plan {
    pub name: &'static str,
    pub what: What,
    pub reference: Reference,
    /// Name, unit and goal of each.
    pub figures: &'static [(&'static str, &'static str, &'static str)],
}

#[derive(Clone, Copy)]
pub enum Reference {
    None,
    /// Commits of one row through the same database library.
    Commits,
    Peer,
    /// The same, but nobody is configured to hear of lifecycle events.
    NoEndpoints,
}

/// Who is measured.
#[derive(Clone, Copy)]
pub enum Who {
    Subject(Subject),
    /// With two endpoints that hear of every lifecycle event.
    WithEndpoints(Subject),
    Commits,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject(subject) | Self::WithEndpoints(subject) => subject.name(),
            Self::Commits => "one-row commits",
        }
    }
}

#[derive(Clone, Copy)]
pub enum What {
    /// Events are accepted on so many connections, and their messages sent as they come.
    Flow(usize, Kind),
    /// Events are accepted while messages hardly go: ours one a second, a peer's not at all.
    AcceptPaced(usize),
    Latency,
    Duplicates,
    Receipts,
    Memory,
    Start,
    SlowProvider,
}

/// Which fake provider.
#[derive(Clone, Copy)]
pub enum Kind {
    InProcess,
    Threads,
    /// Threads that answer in two writes.
    TwoWrites,
}

pub const ALL: &[Plan] = &[
    Plan {
        name: "flow_1",
        what: What::Flow(1, Kind::InProcess),
        reference: Reference::Peer,
        figures: &[
            ("flow_1_accepted", "/s", ""),
            ("flow_1_sent", "/s", ">= 1,500"),
            ("flow_1_cpu", "us", ""),
        ],
    },
    Plan {
        name: "flow_64",
        what: What::Flow(64, Kind::InProcess),
        reference: Reference::Peer,
        figures: &[
            ("flow_64_accepted", "/s", ""),
            ("flow_64_sent", "/s", ">= 0.8 x"),
            ("flow_64_cpu", "us", "<= 1 x"),
        ],
    },
    Plan {
        name: "flow_1_threads",
        what: What::Flow(1, Kind::Threads),
        reference: Reference::Peer,
        figures: &[
            ("flow_1_threads_accepted", "/s", ""),
            ("flow_1_threads_sent", "/s", ">= 1,500"),
            ("flow_1_threads_cpu", "us", ""),
        ],
    },
    Plan {
        name: "flow_64_threads",
        what: What::Flow(64, Kind::Threads),
        reference: Reference::Peer,
        figures: &[
            ("flow_64_threads_accepted", "/s", ""),
            ("flow_64_threads_sent", "/s", ">= 0.8 x"),
            ("flow_64_threads_cpu", "us", "<= 1 x"),
        ],
    },
    Plan {
        name: "flow_64_two_writes",
        what: What::Flow(64, Kind::TwoWrites),
        reference: Reference::Peer,
        figures: &[
            ("flow_64_two_writes_accepted", "/s", ""),
            ("flow_64_two_writes_sent", "/s", "sms.max_in_flight / 0.04 s at most"),
            ("flow_64_two_writes_cpu", "us", ""),
        ],
    },
    Plan {
        name: "accept_1_paced",
        what: What::AcceptPaced(1),
        reference: Reference::Commits,
        figures: &[("accept_1_paced", "/s", ">= 0.5 x one-row commits")],
    },
    Plan {
        name: "accept_64_paced",
        what: What::AcceptPaced(64),
        reference: Reference::Peer,
        figures: &[("accept_64_paced", "/s", ">= 10,000")],
    },
    Plan {
        name: "latency_50",
        what: What::Latency,
        reference: Reference::Peer,
        figures: &[
            ("latency_50_to_provider_p50", "ms", "<= 1.2 x"),
            ("latency_50_to_provider_p99", "ms", "<= 1.5 x"),
            ("latency_50_answer_p50", "ms", ""),
            ("latency_50_answer_p99", "ms", ""),
        ],
    },
    Plan {
        name: "duplicates_16",
        what: What::Duplicates,
        reference: Reference::Peer,
        figures: &[("duplicates_16", "/s", ">= 1 x")],
    },
    Plan {
        name: "receipts_16",
        what: What::Receipts,
        reference: Reference::None,
        figures: &[("receipts_16", "/s", ">= 10,000")],
    },
    Plan {
        name: "memory",
        what: What::Memory,
        reference: Reference::None,
        figures: &[
            ("memory_idle", "MB", "<= 15"),
            ("memory_after_1000", "MB", ""),
            ("memory_after_100000", "MB", "<= 10 more than after 1,000"),
        ],
    },
    Plan {
        name: "start",
        what: What::Start,
        reference: Reference::Peer,
        figures: &[("start_to_first_200", "ms", "<= 40")],
    },
    Plan {
        name: "slow_provider",
        what: What::SlowProvider,
        reference: Reference::None,
        figures: &[
            ("slow_provider_150_ms", "/s", ">= 384, 0.9 x 64 / 0.15 s"),
            ("slow_provider_answer_p50", "ms", "as latency_50_answer_p50"),
        ],
    },
    Plan {
        name: "endpoints_flow_1",
        what: What::Flow(1, Kind::InProcess),
        reference: Reference::NoEndpoints,
        figures: &[
            ("endpoints_flow_1_accepted", "/s", ""),
            ("endpoints_flow_1_sent", "/s", ""),
            ("endpoints_flow_1_cpu", "us", ""),
        ],
    },
    Plan {
        name: "endpoints_flow_64",
        what: What::Flow(64, Kind::InProcess),
        reference: Reference::NoEndpoints,
        figures: &[
            ("endpoints_flow_64_accepted", "/s", ""),
            ("endpoints_flow_64_sent", "/s", ""),
            ("endpoints_flow_64_cpu", "us", ""),
        ],
    },
    Plan {
        name: "endpoints_latency_50",
        what: What::Latency,
        reference: Reference::NoEndpoints,
        figures: &[
            ("endpoints_latency_50_to_provider_p50", "ms", ""),
            ("endpoints_latency_50_to_provider_p99", "ms", ""),
            ("endpoints_latency_50_answer_p50", "ms", ""),
            ("endpoints_latency_50_answer_p99", "ms", ""),
        ],
    },
    Plan {
        name: "endpoints_receipts_16",
        what: What::Receipts,
        reference: Reference::NoEndpoints,
        figures: &[("endpoints_receipts_16", "/s", "")],
    },
];

/// What every run uses.
pub struct Bench {
    provider: InProcess,
    /// Those that hear of lifecycle events in this run.
    endpoints: RefCell<Vec<Threads>>,
    span: Duration,
    database: Option<PathBuf>,
    /// How many messages the filled ledger has to begin with.
    filled: usize,
}

const AT_ONCE: Duration = Duration::ZERO;

impl Bench {
    pub async fn start(span: Duration, database: Option<PathBuf>, filled: u64) -> Self {
        Self {
            provider: InProcess::start().await,
            endpoints: RefCell::default(),
            span,
            database,
            filled: usize::try_from(filled).unwrap(),
        }
    }

    /// One run, from a fresh process and folder; returns the figures of its plan.
    pub async fn run(&self, what: What, who: Who) -> Vec<f64> {
        self.provider.reset(AT_ONCE);
        self.endpoints.borrow_mut().clear();
        let subject = match who {
            Who::Subject(subject) => subject,
            Who::WithEndpoints(subject) => {
                let two = || Threads::start(false);
                self.endpoints.borrow_mut().extend([two(), two()]);
                subject
            }
            Who::Commits => return vec![commits(self.span).await],
        };
        match what {
            What::Flow(connections, provider) => match provider {
                Kind::InProcess => self.flow(subject, connections, &self.provider).await,
                Kind::Threads => self.flow(subject, connections, &Threads::start(false)).await,
                Kind::TwoWrites => self.flow(subject, connections, &Threads::start(true)).await,
            },
            What::AcceptPaced(connections) => vec![self.accept_paced(subject, connections).await],
            What::Latency => self.latency(subject, AT_ONCE).await,
            What::Duplicates => vec![self.duplicates(subject).await],
            What::Receipts => vec![self.receipts(subject).await],
            What::Memory => self.memory(subject).await,
            What::Start => {
                let running = self.begin(subject, false, &self.provider).await;
                vec![running.start_took.as_secs_f64() * 1_000.0]
            }
            What::SlowProvider => self.slow_provider(subject).await,
        }
    }

    async fn begin(&self, subject: Subject, sends: bool, provider: &impl Provider) -> Running {
        let setting = Setting {
            sends,
            database: self.database.clone().filter(|_| subject.is_nightbell()),
            receipts: false,
            endpoints: self.addresses(),
        };
        subject.start(provider.address(), &setting).await
    }

    /// Events accepted a second; the same from the first post to the last message at the provider, its id stored; and what
    /// each cost.
    async fn flow(&self, subject: Subject, connections: usize, provider: &impl Provider) -> Vec<f64> {
        let running = self.begin(subject, true, provider).await;
        let storm = Storm::of_events(&running, connections);
        storm.run(self.span / 4).await;
        self.all_arrived(&running, provider, storm.posted()).await;
        let (cpu, begun) = (running.cpu(), Instant::now());
        let stormed = storm.run(self.span).await;
        self.all_arrived(&running, provider, storm.posted()).await;
        let (took, cpu) = (begun.elapsed(), running.cpu() - cpu);
        let count = stormed.count as f64;
        vec![
            stormed.per_second,
            count / took.as_secs_f64(),
            cpu.as_secs_f64() * 1_000_000.0 / count,
        ]
    }

    /// Events accepted a second while messages hardly go.
    async fn accept_paced(&self, subject: Subject, connections: usize) -> f64 {
        let running = self.begin(subject, false, &self.provider).await;
        let storm = Storm::of_events(&running, connections);
        storm.run(self.span / 4).await;
        storm.run(self.span).await.per_second
    }

    /// Waits until every event has led to a message, and (Nightbell) its id is in the database.
    async fn all_arrived(&self, running: &Running, provider: &impl Provider, count: usize) {
        let waiting = Instant::now();
        loop {
            let arrived = provider.count().await;
            if arrived >= count {
                break;
            }
            assert!(waiting.elapsed() < Duration::from_secs(120), "{arrived} of {count}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if running.subject.is_nightbell() {
            while running.stored().await < count + self.filled {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// 50 events a second: from the post to the request at the provider, and to the answer.
    async fn latency(&self, subject: Subject, delay: Duration) -> Vec<f64> {
        let running = self.begin(subject, true, &self.provider).await;
        self.provider.reset(delay);
        let rate = 50.0;
        let total = (rate * self.span.as_secs_f64() * 2.5) as usize;
        // The first ones find caches cold and connections not made.
        let warm = 50;
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        let idle: Rc<RefCell<Vec<Connection>>> = Rc::default();
        let mut posts = Vec::new();
        for number in 0..warm + total {
            ticks.tick().await;
            let (idle, address, request) = (Rc::clone(&idle), running.address.clone(), subject.event(number));
            posts.push(tokio::task::spawn_local(async move {
                let free = idle.borrow_mut().pop();
                let mut connection = match free {
                    Some(connection) => connection,
                    None => Connection::open(&address).await,
                };
                let posted = Instant::now();
                let status = connection.ask(&request).await;
                assert!(matches!(status, 200 | 202), "{status}");
                idle.borrow_mut().push(connection);
                (number, posted, posted.elapsed())
            }));
        }
        let (mut answers, mut posted) = (Vec::new(), Vec::new());
        for post in posts {
            let (number, at, answered) = post.await.unwrap();
            if number >= warm {
                posted.push((number, at));
                answers.push(answered);
            }
        }
        while self.provider.count().await < warm + total {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let arrivals = self.provider.arrivals.lock().unwrap();
        let mut to_provider: Vec<Duration> = posted
            .iter()
            .map(|(number, at)| arrivals.times[&phone(*number)] - *at)
            .collect();
        vec![
            percentile(&mut to_provider, 50),
            percentile(&mut to_provider, 99),
            percentile(&mut answers, 50),
            percentile(&mut answers, 99),
        ]
    }

    /// Repeats a second of events of a thousand tickets.
    async fn duplicates(&self, subject: Subject) -> f64 {
        let running = self.begin(subject, true, &self.provider).await;
        let first = Storm::of_events(&running, 16);
        first.run_for(1_000).await;
        self.all_arrived(&running, &self.provider, 1_000).await;
        let storm = Storm::new(&running.address, 16, &[200], move |number| {
            subject.event(number % 1_000)
        });
        storm.run(self.span / 4).await;
        let rate = storm.run(self.span).await.per_second;
        assert_eq!(self.provider.count().await, 1_000, "a repeat sent a message");
        rate
    }

    /// Signed receipts recorded a second: `sent`, then `delivered`, for every message.
    async fn receipts(&self, subject: Subject) -> f64 {
        let setting = Setting {
            sends: true,
            database: self.database.clone(),
            receipts: true,
            endpoints: self.addresses(),
        };
        let running = subject.start(self.provider.address(), &setting).await;
        let messages = (10_000.0 * self.span.as_secs_f64() / 2.0) as usize;
        Storm::of_events(&running, 64).run_for(messages).await;
        self.all_arrived(&running, &self.provider, messages).await;
        let callbacks = std::mem::take(&mut self.provider.arrivals.lock().unwrap().callbacks);
        let requests: Vec<Vec<u8>> = ["sent", "delivered"]
            .iter()
            .flat_map(|status| callbacks.iter().map(|(sid, callback)| receipt(sid, callback, status)))
            .collect();
        let count = requests.len();
        let storm = Storm::new(&running.address, 16, &[204], move |number| requests[number].clone());
        storm.run_for(count).await.per_second
    }

    fn addresses(&self) -> Vec<String> {
        self.endpoints
            .borrow()
            .iter()
            .map(|endpoint| endpoint.address().to_owned())
            .collect()
    }

    async fn memory(&self, subject: Subject) -> Vec<f64> {
        let running = self.begin(subject, true, &self.provider).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let idle = running.memory();
        let storm = Storm::of_events(&running, 64);
        let mut figures = vec![idle];
        for count in [1_000, 100_000] {
            storm.run_for(count - storm.posted()).await;
            self.all_arrived(&running, &self.provider, count).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            figures.push(running.memory());
        }
        figures
    }

    /// A provider that takes 150 ms: messages a second with plenty waiting, and what events feel of it.
    async fn slow_provider(&self, subject: Subject) -> Vec<f64> {
        let delay = Duration::from_millis(150);
        let rate = {
            let running = self.begin(subject, true, &self.provider).await;
            self.provider.reset(delay);
            let total = (430.0 * self.span.as_secs_f64() * 1.5) as usize;
            Storm::of_events(&running, 16).run_for(total).await;
            let (from, begun) = (self.provider.count().await, Instant::now());
            tokio::time::sleep(self.span).await;
            (self.provider.count().await - from) as f64 / begun.elapsed().as_secs_f64()
        };
        self.provider.reset(delay);
        let latency = self.latency(subject, delay).await;
        vec![rate, latency[2]]
    }
}

/// Commits of one row each, a second, by one connection as the service's writer is.
async fn commits(span: Duration) -> f64 {
    use sqlx::{
        ConnectOptions, Connection,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    };
    let folder = fresh_folder();
    let mut connection = SqliteConnectOptions::new()
        .filename(folder.join("commits.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await
        .unwrap();
    sqlx::query("create table row (id integer primary key, value text not null) strict")
        .execute(&mut connection)
        .await
        .unwrap();
    let synchronous: i64 = sqlx::query_scalar("pragma synchronous")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(synchronous, 2, "a commit that survives a power loss");
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < span {
        sqlx::query("insert into row (value) values ($1)")
            .bind("Checkout page 500 error")
            .execute(&mut connection)
            .await
            .unwrap();
        count += 1;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    connection.close().await.unwrap();
    let _ = std::fs::remove_dir_all(folder);
    rate
}

/// A signed status callback, by our own code.
fn receipt(sid: &str, callback: &str, status: &str) -> Vec<u8> {
    let url = callback.split('#').next().unwrap();
    let fields = [
        ("AccountSid", "AC1"),
        ("MessageSid", sid),
        ("MessageStatus", status),
        ("SmsSid", sid),
        ("SmsStatus", status),
    ];
    let body: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let mut mac = Hmac::<Sha1>::new_from_slice(b"token").unwrap();
    mac.update(url.as_bytes());
    for (name, value) in fields {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    let signature = BASE64.encode(mac.finalize().into_bytes());
    let path = url.strip_prefix("http://bench.example.com").unwrap();
    let kind = "application/x-www-form-urlencoded";
    post(path, "-", kind, &format!("x-twilio-signature: {signature}\r\n"), &body)
}

/// Many connections that each post as fast as they are answered.
struct Storm {
    address: String,
    connections: usize,
    expected: &'static [u16],
    next: Rc<Cell<usize>>,
    request: Rc<dyn Fn(usize) -> Vec<u8>>,
}

struct Stormed {
    count: usize,
    per_second: f64,
}

impl Storm {
    fn new(
        address: &str,
        connections: usize,
        expected: &'static [u16],
        request: impl Fn(usize) -> Vec<u8> + 'static,
    ) -> Self {
        Self {
            address: address.to_owned(),
            connections,
            expected,
            next: Rc::default(),
            request: Rc::new(request),
        }
    }

    fn of_events(running: &Running, connections: usize) -> Self {
        let subject = running.subject;
        Self::new(&running.address, connections, &[200, 202], move |number| {
            subject.event(number)
        })
    }

    fn posted(&self) -> usize {
        self.next.get()
    }

    async fn run(&self, span: Duration) -> Stormed {
        let end = Instant::now() + span;
        self.go(usize::MAX, end).await
    }

    async fn run_for(&self, count: usize) -> Stormed {
        self.go(self.next.get() + count, Instant::now() + Duration::from_secs(300))
            .await
    }

    async fn go(&self, until: usize, end: Instant) -> Stormed {
        let (from, begun) = (self.next.get(), Instant::now());
        let mut tasks = Vec::new();
        for _ in 0..self.connections {
            let (address, expected) = (self.address.clone(), self.expected);
            let (next, request) = (Rc::clone(&self.next), Rc::clone(&self.request));
            tasks.push(tokio::task::spawn_local(async move {
                let mut connection = Connection::open(&address).await;
                while next.get() < until && Instant::now() < end {
                    let number = next.replace(next.get() + 1);
                    let status = connection.ask(&request(number)).await;
                    assert!(expected.contains(&status), "answered {status}");
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let count = self.next.get() - from;
        Stormed {
            count,
            per_second: count as f64 / begun.elapsed().as_secs_f64(),
        }
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1_000.0
}
