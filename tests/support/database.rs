//! Databases for stories: a SQLite file of its own, or a database of its own on a private PostgreSQL server that is
//! started once per test run.

use super::left_out;
use sqlx::Connection;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// Where a story keeps its data. The folder goes when the story ends.
pub struct Database {
    pub url: String,
    pub folder: Folder,
    pub is_sqlite: bool,
}

/// A temporary folder.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!(
            "nightbell-story-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Database {
    pub fn sqlite() -> Self {
        let folder = Folder::new();
        Self {
            url: format!("sqlite://{}/nightbell.db", folder.path().display()),
            folder,
            is_sqlite: true,
        }
    }

    /// A new database on the private server, or `None` if PostgreSQL is not on this machine.
    pub async fn postgres(story: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(server) = Server::running() else {
            left_out("postgres", story);
            return None;
        };
        let name = format!("story_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = server.connect().await;
        sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}")))
            .execute(&mut admin)
            .await
            .unwrap();
        Some(Self {
            url: format!("postgres://postgres@127.0.0.1:{}/{name}", server.port),
            folder: Folder::new(),
            is_sqlite: false,
        })
    }

    /// A database on a server of its own, which the story may restart.
    /// Stories are not about power cuts, so only a measurement lets it wait for its disk (`is_durable`).
    pub async fn own_postgres(story: &str, is_durable: bool) -> Option<(Self, Server)> {
        let Some(binaries) = find_binaries() else {
            left_out("postgres", story);
            return None;
        };
        let server = tokio::task::spawn_blocking(move || Server::start(&binaries, is_durable))
            .await
            .unwrap();
        drop(server.connect().await);
        let database = Self {
            url: format!("postgres://postgres@127.0.0.1:{}/postgres", server.port),
            folder: Folder::new(),
            is_sqlite: false,
        };
        Some((database, server))
    }

    /// Runs one statement beside the service, to look or to break something.
    pub async fn execute(&self, sql: &str) -> u64 {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected()
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected()
        }
    }

    /// Makes every `insert`, `update` or `delete` of a table fail, as a database in trouble would.
    pub async fn break_writes(&self, kind: &str, table: &str) {
        if self.is_sqlite {
            self.execute(&format!(
                "create trigger broken before {kind} on {table} begin select raise(abort, 'broken'); end"
            ))
            .await;
        } else {
            self.execute("create function broken() returns trigger language plpgsql as $$ begin raise exception using errcode = '53100', message = 'disk full'; end $$").await;
            self.execute(&format!(
                "create trigger broken before {kind} on {table} for each row execute function broken()"
            ))
            .await;
        }
    }

    /// Makes the write of single rows fail: those for which `condition` is true of `new`.
    pub async fn break_rows(&self, kind: &str, table: &str, condition: &str) {
        if self.is_sqlite {
            self.execute(&format!(
                "create trigger broken before {kind} on {table} when {condition} begin select raise(abort, 'broken'); end"
            ))
            .await;
        } else {
            self.execute(&format!(
                "create function broken() returns trigger language plpgsql as $$ begin
                    if {condition} then raise exception 'broken'; end if; return new; end $$"
            ))
            .await;
            self.execute(&format!(
                "create trigger broken before {kind} on {table} for each row execute function broken()"
            ))
            .await;
        }
    }

    pub async fn mend(&self, table: &str) {
        if self.is_sqlite {
            self.execute("drop trigger broken").await;
        } else {
            self.execute(&format!("drop trigger broken on {table}")).await;
            self.execute("drop function broken").await;
        }
    }

    /// Keeps everybody else from writing alerts, and what people text us, until it is dropped.
    pub async fn hold_writes(&self) -> Holder {
        if self.is_sqlite {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query("begin immediate").execute(&mut connection).await.unwrap();
            Holder::Sqlite(connection)
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::query("begin").execute(&mut connection).await.unwrap();
            sqlx::query("lock table alert, inbound_message in exclusive mode")
                .execute(&mut connection)
                .await
                .unwrap();
            Holder::Postgres(connection)
        }
    }

    /// Asks for one column of texts.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
        }
    }

    /// How the database would carry a statement out, whatever its arguments and however large its tables: line by line.
    pub async fn plan(&self, statement: &str) -> Vec<String> {
        use sqlx::Row;
        if self.is_sqlite {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            let sql = sqlx::AssertSqlSafe(format!("explain query plan {statement}"));
            let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
            return rows.iter().map(|row| row.get("detail")).collect();
        }
        let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
        // On tables this small PostgreSQL would rather read them whole: it may only where there is no other way.
        let arguments = (1..20)
            .rev()
            .find(|number| statement.contains(&format!("${number}")))
            .unwrap_or(0);
        let arguments = vec!["null"; arguments].join(", ");
        let arguments = if arguments.is_empty() {
            arguments
        } else {
            format!("({arguments})")
        };
        let sql = format!(
            "set enable_seqscan = off; set plan_cache_mode = force_generic_plan; prepare it as {statement}; explain execute it{arguments}"
        );
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Asks for one number.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
        }
    }
}

/// Holds a lock for as long as it lives.
#[allow(dead_code, reason = "the connections are held, not used")]
pub enum Holder {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
}

/// The private server of this test run, or of one story.
pub struct Server {
    port: u16,
    folder: PathBuf,
    binaries: PathBuf,
    settings: String,
    /// Its guard ends the server when this process is gone, however it went: its standard input closes then.
    _guard: Child,
}

impl Server {
    fn running() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        SERVER
            .get_or_init(|| Some(Self::start(&find_binaries()?, false)))
            .as_ref()
    }

    fn start(binaries: &Path, is_durable: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = std::env::temp_dir().join(format!(
            "nightbell-postgres-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let (folder_path, binaries_path) = (folder.clone(), binaries.to_owned());
        std::fs::create_dir_all(&folder).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (folder, binaries) = (folder.display(), binaries.display());
        // PostgreSQL refuses to run as root.
        let (own, run) = if am_root() {
            (format!("chown postgres {folder}"), "runuser -u postgres --")
        } else {
            ("true".to_owned(), "")
        };
        let prepare =
            format!("{own} && {run} {binaries}/initdb -D {folder}/data -U postgres -A trust -E UTF8 --locale=C -N");
        let prepared = Command::new("sh")
            .args(["-c", &prepare])
            .current_dir("/tmp")
            .output()
            .unwrap();
        assert!(
            prepared.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&prepared.stderr)
        );
        let fsync = if is_durable { "on" } else { "off" };
        let settings = format!("{SETTINGS} -c fsync={fsync}");
        let serve = format!(
            "{run} {binaries}/postgres -D {folder}/data -k {folder} -h 127.0.0.1 -p {port} {settings} >{folder}/log 2>&1 & \
             cat >/dev/null; kill -INT $(head -1 {folder}/data/postmaster.pid); \
             while [ -e {folder}/data/postmaster.pid ]; do sleep 0.1; done; rm -rf {folder}"
        );
        let guard = Command::new("sh")
            .args(["-c", &serve])
            .current_dir("/tmp")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            port,
            folder: folder_path,
            binaries: binaries_path,
            settings,
            _guard: guard,
        };
        let started = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < super::PATIENCE, "PostgreSQL did not start");
            std::thread::yield_now();
        }
        server
    }

    /// Ends the server as a power cut would, and starts it again.
    pub fn restart_immediately(&self) {
        let (folder, binaries, port) = (self.folder.display(), self.binaries.display(), self.port);
        let settings = &self.settings;
        let run = if am_root() { "runuser -u postgres --" } else { "" };
        let options = format!("-k {folder} -h 127.0.0.1 -p {port} {settings}");
        let restart = format!(
            "{run} {binaries}/pg_ctl restart -w -m immediate -D {folder}/data -l {folder}/data/restart.log -o '{options}' </dev/null >/dev/null 2>&1"
        );
        let done = Command::new("sh")
            .args(["-c", &restart])
            .current_dir("/tmp")
            .status()
            .unwrap();
        assert!(done.success(), "PostgreSQL did not come back");
    }

    async fn connect(&self) -> sqlx::PgConnection {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        super::eventually("PostgreSQL to take connections", async || {
            sqlx::PgConnection::connect(&url).await
        })
        .await
    }
}

/// Its databases are small and gone in a moment: nothing needs a vacuum, which would take a core from the stories.
const SETTINGS: &str = "-c max_connections=400 -c log_min_messages=fatal -c autovacuum=off";

fn am_root() -> bool {
    String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout)
        .unwrap()
        .trim()
        == "0"
}

/// The newest PostgreSQL where Debian puts it.
fn find_binaries() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    versions.retain(|path| path.join("initdb").exists() && path.join("postgres").exists());
    versions.sort();
    versions.pop()
}
