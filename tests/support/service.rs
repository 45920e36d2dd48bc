//! The program as a process of its own: started, stopped, killed, frozen and started again.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

/// The version before this one, if `NIGHTBELL_TEST_BEFORE` names its program: for stories of upgrades.
pub fn binary_before() -> Option<String> {
    std::env::var("NIGHTBELL_TEST_BEFORE").ok()
}

/// The program under test. `NIGHTBELL_TEST_BINARY` names another build of it, to see a story fail on an older one.
fn binary() -> String {
    std::env::var("NIGHTBELL_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_nightbell").to_owned())
}

/// The variable in a service's settings that names another program to run than the one under test.
pub const PROGRAM: &str = "STORY_PROGRAM";

/// The variable in a service's settings that limits how many files it may open.
pub const OPEN_FILES: &str = "STORY_OPEN_FILES";

/// A running `nightbell serve`.
pub struct Service {
    child: Child,
    pub address: String,
    /// What it printed first.
    pub stdout: Arc<Mutex<String>>,
    log: Arc<Mutex<String>>,
    /// Ends with the log.
    reader: std::thread::JoinHandle<()>,
}

impl Service {
    /// Starts it and waits until it listens; fails with its log if it does not.
    pub fn start(environment: &BTreeMap<String, String>, folder: &std::path::Path) -> Self {
        Self::try_start(environment, folder).unwrap_or_else(|log| panic!("the service did not start:\n{log}"))
    }

    /// Starts it with more arguments after `serve`.
    pub fn start_as(environment: &BTreeMap<String, String>, folder: &std::path::Path, arguments: &[&str]) -> Self {
        Self::try_start_as(environment, folder, arguments)
            .unwrap_or_else(|log| panic!("the service did not start:\n{log}"))
    }

    /// Starts it; `Err` holds its log if it ended before it listened.
    pub fn try_start(environment: &BTreeMap<String, String>, folder: &std::path::Path) -> Result<Self, String> {
        Self::try_start_as(environment, folder, &[])
    }

    fn try_start_as(
        environment: &BTreeMap<String, String>,
        folder: &std::path::Path,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let mut child = command(environment, folder)
            .arg("serve")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stdout = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let reader = collect(BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        let Some(address) = first.trim().strip_prefix("listening on http://").map(str::to_owned) else {
            child.wait().unwrap();
            reader.join().unwrap();
            return Err(std::mem::take(&mut *log.lock().unwrap()));
        };
        stdout.lock().unwrap().push_str(&first);
        collect(lines, Arc::clone(&stdout));
        Ok(Self {
            child,
            address,
            stdout,
            log,
            reader,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has logged this; a line may be a moment behind what it tells of. Returns the log.
    pub async fn logged(&self, text: &str) -> String {
        super::eventually(&format!("a log with {text:?}"), async || {
            let log = self.log();
            if log.contains(text) { Ok(log) } else { Err(log) }
        })
        .await
    }

    /// Whether a client is connected to it right now.
    pub fn has_open_requests(&self) -> bool {
        let port: u16 = self.address.rsplit(':').next().unwrap().parse().unwrap();
        let suffix = format!(":{port:04X}");
        // The second column is the local address, the fourth the state; 01 is established (proc(5), /proc/net/tcp).
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .any(|columns| columns[1].ends_with(&suffix) && columns[3] == "01")
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &self.pid().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, and for the last of its log.
    pub async fn ended(&mut self) -> ExitStatus {
        super::eventually("the service to end", async || {
            let status = self.child.try_wait().unwrap().filter(|_| self.reader.is_finished());
            status.ok_or("still running")
        })
        .await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- log of the service ---\n{}", self.log());
        }
    }
}

/// The program with a clean environment and these settings.
pub fn command(environment: &BTreeMap<String, String>, folder: &std::path::Path) -> Command {
    let program = environment.get(PROGRAM).cloned().unwrap_or_else(binary);
    let mut command = match environment.get(OPEN_FILES) {
        None => Command::new(program),
        Some(count) => {
            let mut limited = Command::new("/usr/bin/prlimit");
            limited.args([&format!("--nofile={count}:{count}"), &program]);
            limited
        }
    };
    command.env_clear().envs(environment).current_dir(folder);
    command
}

fn collect(mut lines: impl BufRead + Send + 'static, into: Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            into.lock().unwrap().push_str(&line);
            line.clear();
        }
    })
}
