//! A private MariaDB server for stories of helpdesks that keep their data in one (Debian: `mariadb-server`): started once per
//! test run, or for one story that stops it.

use super::{PATIENCE, eventually, left_out};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

/// A running server.
pub struct MariaDb {
    pub port: u16,
    folder: PathBuf,
    /// Its guard ends the server when this process is gone, however it went: its standard input closes then.
    _guard: Child,
}

impl MariaDb {
    /// The server of this test run, or `None` if MariaDB is not on this machine.
    pub async fn running(story: &str) -> Option<&'static Self> {
        static SERVER: OnceLock<Option<MariaDb>> = OnceLock::new();
        let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(Self::begin).as_ref());
        let server = server.await.unwrap();
        if server.is_none() {
            left_out("mariadb", story);
        }
        server
    }

    /// A server that the story may stop.
    pub async fn own(story: &str) -> Option<Self> {
        let server = tokio::task::spawn_blocking(Self::begin).await.unwrap();
        if server.is_none() {
            left_out("mariadb", story);
        }
        server
    }

    fn begin() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !Path::new(PROGRAM).exists() || !Path::new(PREPARE).exists() {
            return None;
        }
        let folder = std::env::temp_dir().join(format!(
            "nightbell-mariadb-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = folder.display();
        let own = if is_root() {
            format!("chown mysql {place}")
        } else {
            "true".to_owned()
        };
        let prepare = format!(
            "{own} && {} env TMPDIR={place} {PREPARE} --no-defaults --datadir={place}/data --auth-root-authentication-method=normal --skip-test-db",
            as_nobody()
        );
        let prepared = shell(&prepare).output().unwrap();
        let said = String::from_utf8_lossy(&prepared.stderr);
        assert!(prepared.status.success(), "mariadb-install-db: {said}");
        let guard = format!(
            "cat >/dev/null; {}; rm -rf {place}",
            format_args!("[ ! -e {place}/pid ] || kill -KILL $(cat {place}/pid)")
        );
        let guard = shell(&guard).stdin(Stdio::piped()).spawn().unwrap();
        let server = Self {
            port,
            folder,
            _guard: guard,
        };
        server.start();
        Some(server)
    }

    /// Starts it, again after it was stopped.
    pub fn start(&self) {
        let (place, port) = (self.folder.display(), self.port);
        // In a zone of its own, as helpdesks' machines are.
        let serve = format!(
            "{} env TZ=XXX5 {PROGRAM} --no-defaults --datadir={place}/data --socket={place}/socket --pid-file={place}/pid \
             --bind-address=127.0.0.1 --port={port} {SETTINGS} </dev/null >>{place}/log 2>&1 &",
            as_nobody()
        );
        assert!(shell(&serve).status().unwrap().success());
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "MariaDB did not start: {log}");
            std::thread::yield_now();
        }
    }

    /// Stops it in good order.
    pub async fn stop(&self) {
        let pid = self.folder.join("pid");
        let stop = format!("kill -TERM $(cat {})", pid.display());
        assert!(shell(&stop).status().unwrap().success());
        eventually(
            "MariaDB to stop",
            async || if pid.exists() { Err("running") } else { Ok(()) },
        )
        .await;
    }

    /// Where its own admin works in a database, with the times of its machine.
    pub fn admin_url(&self, database: &str) -> String {
        let socket = self.folder.join("socket");
        format!(
            "mysql://root@localhost/{database}?socket={}&timezone=SYSTEM",
            socket.display()
        )
    }

    pub async fn connect(&self, database: &str) -> MySqlConnection {
        let url = self.admin_url(database);
        eventually("MariaDB to take connections", async || {
            MySqlConnection::connect(&url).await
        })
        .await
    }

    /// A new empty database; its name.
    pub async fn create_database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("story_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let sql = format!("create database {name} character set utf8mb3");
        let mut admin = self.connect("mysql").await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
        name
    }
}

const PROGRAM: &str = "/usr/sbin/mariadbd";
const PREPARE: &str = "/usr/bin/mariadb-install-db";

/// Its databases are small and gone in a moment.
const SETTINGS: &str = "--skip-log-bin --skip-name-resolve --max-connections=300 --performance-schema=off \
     --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=0 --log-output=TABLE";

/// It refuses to run as root.
fn as_nobody() -> &'static str {
    if is_root() { "runuser -u mysql --" } else { "" }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

fn shell(script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir("/tmp");
    shell
}
