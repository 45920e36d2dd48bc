//! What is measured: Nightbell, or a peer that does a like job. Each is a process of its own with a fresh folder.

use crate::http::{Connection, post};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// By this binary.
    Nightbell(&'static Path),
    Alertmanager,
}

/// How it is to be run.
#[derive(Clone)]
pub struct Setting {
    /// Whether messages go out as fast as they can; else only one a second, a long code's pace (a peer holds them all back).
    pub sends: bool,
    /// A database to begin with.
    pub database: Option<PathBuf>,
    /// Whether receipts are asked for.
    pub receipts: bool,
    /// Where lifecycle events are posted.
    pub endpoints: Vec<String>,
}

pub struct Running {
    pub subject: Subject,
    child: Child,
    pub folder: PathBuf,
    pub address: String,
    /// From its start to its first 200.
    pub start_took: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn fresh_folder() -> PathBuf {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("nightbell-figures-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nightbell(_) => "nightbell",
            Self::Alertmanager => "alertmanager",
        }
    }

    pub fn is_nightbell(self) -> bool {
        matches!(self, Self::Nightbell(_))
    }

    pub async fn start(self, provider: &str, setting: &Setting) -> Running {
        let folder = fresh_folder();
        if let Some(database) = &setting.database {
            std::fs::copy(database, folder.join("nightbell.db")).unwrap();
            // Or the service's first fsync would be the copy's.
            std::fs::File::open(folder.join("nightbell.db"))
                .unwrap()
                .sync_all()
                .unwrap();
        }
        let started = Instant::now();
        let (child, address) = match self {
            Self::Nightbell(binary) => start_nightbell(binary, &folder, provider, setting),
            Self::Alertmanager => start_alertmanager(&folder, provider, setting),
        };
        let path = if self.is_nightbell() { "/readyz" } else { "/-/ready" };
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut connection = Connection::open(&address).await;
        while connection.ask(request.as_bytes()).await != 200 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Running {
            subject: self,
            child,
            folder,
            address,
            start_took: started.elapsed(),
        }
    }

    /// The request that raises an alert for ticket `number`.
    pub fn event(self, number: usize) -> Vec<u8> {
        let phone = phone(number);
        match self {
            Self::Nightbell(_) => post(
                "/v1/events",
                "bench",
                "application/json",
                "",
                &format!(
                    r#"{{"id":"evt-{number}","type":"ticket.urgency_changed","occurred_at":"2026-11-20T09:24:38Z","ticket":{{"id":"{number}","number":"{number}","subject":"Checkout page 500 error","urgency":"critical","url":"https://tickets.example.com/scp/tickets.php?number={number}","estimated_hours":4.5,"ai":{{"confidence_percent":95}}}},"client":{{"name":"Bo Client","organisation":"Acme Corp"}},"recipients":[{{"staff_id":"2","role":"assignee","name":"Grace Hopper","phone":"{phone}"}}]}}"#
                ),
            ),
            Self::Alertmanager => post(
                "/api/v2/alerts",
                "bench",
                "application/json",
                "",
                &format!(
                    r#"[{{"labels":{{"alertname":"critical","source":"default","ticket":"{phone}"}},"annotations":{{"subject":"Checkout page 500 error","client":"Bo Client, Acme Corp","hours":"4.5","confidence":"95","assignee":"Grace Hopper","phone":"{phone}"}},"generatorURL":"https://tickets.example.com/scp/tickets.php?number={number}"}}]"#
                ),
            ),
        }
    }
}

pub fn phone(number: usize) -> String {
    format!("+1415{:07}", 2_000_000 + number)
}

impl Running {
    /// Proportional set size in MB: what the process adds to the machine.
    pub fn memory(&self) -> f64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let kb: f64 = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse().ok())
            .unwrap();
        kb / 1_000.0
    }

    /// What it used of the cores so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // 100 a second on Linux (sysconf(_SC_CLK_TCK)).
        Duration::from_millis(ticks * 10)
    }

    /// How many messages the database knows the provider's id of. Asserts on the way that commits survive a power loss.
    pub async fn stored(&self) -> usize {
        use sqlx::{ConnectOptions, Connection};
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.folder.join("nightbell.db"))
            .read_only(true);
        let mut connection = options.connect().await.unwrap();
        let count: i64 = sqlx::query_scalar("select count(*) from attempt where message_id is not null")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let journal: String = sqlx::query_scalar("pragma journal_mode")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        // `synchronous` is each connection's own: the service refuses to start unless its writer's is FULL.
        assert_eq!(journal, "wal");
        connection.close().await.unwrap();
        count as usize
    }
}

fn start_nightbell(binary: &Path, folder: &Path, provider: &str, setting: &Setting) -> (Child, String) {
    let mut command = Command::new(binary);
    command.arg("serve").current_dir(folder).env_clear().envs([
        ("NIGHTBELL_LISTEN", "127.0.0.1:0"),
        ("NIGHTBELL_AUTH__INTAKE_TOKENS", "bench"),
        ("NIGHTBELL_AUTH__ADMIN_TOKENS", "bench-admin"),
        ("NIGHTBELL_SMS__DRIVER", "twilio"),
        ("NIGHTBELL_SMS__PER_SECOND", if setting.sends { "0" } else { "1" }),
        ("NIGHTBELL_DAILY_LIMIT", "10000000"),
        ("NIGHTBELL_TWILIO__ACCOUNT_SID", "AC1"),
        ("NIGHTBELL_TWILIO__AUTH_TOKEN", "token"),
        ("NIGHTBELL_TWILIO__FROM", "+15005550006"),
        ("NIGHTBELL_TWILIO__BASE_URL", &format!("http://{provider}")),
        ("NIGHTBELL_LOG__FILTER", "warn"),
    ]);
    if setting.receipts {
        command.env("NIGHTBELL_PUBLIC_URL", "http://bench.example.com");
    }
    for (number, address) in setting.endpoints.iter().enumerate() {
        let key = |member: &str| format!("NIGHTBELL_WEBHOOKS__BENCH{number}__{member}");
        command.envs([
            (key("URL"), format!("http://{address}/{number}")),
            (key("SECRET"), "whsec_YmVuY2hiZW5jaGJlbmNoYmVuY2hiZW5jaA==".to_owned()),
            (key("ALLOW_PRIVATE"), "true".to_owned()),
        ]);
    }
    // Passed on, to try other settings.
    let settings = std::env::vars().filter(|(name, _)| name.starts_with("NIGHTBELL_") && !name.contains("_BENCH_"));
    command.envs(settings);
    for name in ["TOKIO_WORKER_THREADS", "MALLOC_ARENA_MAX", "LD_PRELOAD"] {
        command.envs(std::env::var(name).map(|value| (name, value)));
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    (child, address)
}

/// Every alert is a group of its own and told at once: the nearest it has to one message for each ticket.
fn start_alertmanager(folder: &Path, provider: &str, setting: &Setting) -> (Child, String) {
    let wait = if setting.sends { "0s" } else { "1h" };
    let config = format!(
        "route:\n  receiver: hook\n  group_by: ['...']\n  group_wait: {wait}\n  group_interval: 1h\n  repeat_interval: 24h\nreceivers:\n- name: hook\n  webhook_configs:\n  - url: http://{provider}/\n    send_resolved: false\n"
    );
    std::fs::write(folder.join("alertmanager.yml"), config).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let child = Command::new("prometheus-alertmanager")
        .current_dir(folder)
        .args([
            "--config.file=alertmanager.yml",
            "--storage.path=data",
            "--log.level=error",
        ])
        .arg("--cluster.listen-address=")
        .arg(format!("--web.listen-address={port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, port.to_string())
}
