//! A real Request Tracker 5 (Debian: `request-tracker5`, `rt5-db-sqlite`), with a database and a configuration of its own.
//! Set up once per test run; each story has a copy, which it may stop and start.

use super::{PATIENCE, client, database::Folder, eventually, free_port, left_out};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

const SETUP: &str = "/usr/sbin/rt-setup-database-5";
const SERVER: &str = "/usr/share/request-tracker5/libexec/rt-server";
/// What the scrip signs with.
pub const SECRET: &str = "whsec_c3Rvcnktc2VjcmV0LW9mLXJlcXVlc3QtdHJhY2tlcg==";

/// What every copy is made of.
struct Template {
    folder: PathBuf,
    token: String,
    /// Takes the folder away when this process is gone: its standard input closes then.
    _guard: Child,
}

pub struct RequestTracker {
    folder: Folder,
    pub url: String,
    /// The token of the user that Nightbell asks as.
    pub token: String,
    port: u16,
    server: Option<Child>,
    client: reqwest::Client,
}

impl RequestTracker {
    /// One that is not started yet, or `None` if Request Tracker is not on this machine.
    pub fn prepare(story: &str) -> Option<Self> {
        static TEMPLATE: OnceLock<Option<Template>> = OnceLock::new();
        let Some(template) = TEMPLATE.get_or_init(set_up) else {
            left_out("rt", story);
            return None;
        };
        let folder = Folder::new();
        std::fs::copy(template.folder.join("rt.db"), folder.path().join("rt.db")).unwrap();
        let port = free_port();
        configure(folder.path(), port, "");
        Some(Self {
            folder,
            url: format!("http://127.0.0.1:{port}"),
            token: template.token.clone(),
            port,
            server: None,
            client: client(),
        })
    }

    /// Lets the scrip tell this address.
    pub fn tell(&self, url: &str) {
        let settings = format!("Set($NightbellURL, '{url}'); Set($NightbellSecret, '{SECRET}');");
        configure(self.folder.path(), self.port, &settings);
    }

    pub async fn start(&mut self) {
        let (port, log) = (self.port, self.folder.path().join("log"));
        // Ends with this process, however it went.
        let serve = format!(
            "{SERVER} --server Standalone --host 127.0.0.1 --port {port} >>{} 2>&1 & cat >/dev/null; kill -KILL $!; wait",
            log.display()
        );
        let server = command("sh", self.folder.path())
            .args(["-c", &serve])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.server = Some(server.unwrap());
        eventually("Request Tracker to answer", async || {
            let question = self.client.get(format!("{}/REST/2.0/rt", self.url)).timeout(PATIENCE);
            let answer = question.send().await;
            answer.map_err(|error| (error.to_string(), std::fs::read_to_string(&log)))
        })
        .await;
    }

    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            drop(server.stdin.take());
            server.wait().unwrap();
        }
    }

    /// Creates a ticket of Grace's; returns its id.
    pub async fn create(&self, priority: u32, subject: &str) -> String {
        let ticket = json!({"Queue": "General", "Subject": subject, "Owner": "grace", "AdminCc": ["mona"], "Priority": priority,
            "Requestor": "bo@client.test", "CustomFields": {"AI Confidence": "93 %"}, "TimeEstimated": 270});
        let created = self.call(Method::POST, "ticket", &ticket).await;
        created["id"].as_str().unwrap().to_owned()
    }

    pub async fn change(&self, ticket: &str, change: Value) {
        let done = self.call(Method::PUT, &format!("ticket/{ticket}"), &change).await;
        assert!(done.is_array(), "{done}");
    }

    /// What a ticket's history says of comments.
    pub async fn comments(&self, ticket: &str) -> usize {
        let path = format!("ticket/{ticket}/history?fields=Type&per_page=100");
        let history = self.call(Method::GET, &path, &Value::Null).await;
        let items = history["items"].as_array().unwrap();
        items.iter().filter(|item| item["Type"] == "Comment").count()
    }

    /// The text of the newest comment.
    pub async fn last_comment(&self, ticket: &str) -> String {
        let path = format!("ticket/{ticket}/history?fields=Type&per_page=100");
        let history = self.call(Method::GET, &path, &Value::Null).await;
        let items = history["items"].as_array().unwrap().iter().rev();
        let comment = items.into_iter().find(|item| item["Type"] == "Comment").unwrap();
        let path = format!(
            "transaction/{}/attachments?fields=Content",
            comment["id"].as_str().unwrap()
        );
        let attachments = self.call(Method::GET, &path, &Value::Null).await;
        let contents = attachments["items"].as_array().unwrap().iter();
        let decode =
            |text: &str| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text.replace('\n', ""));
        contents
            .filter_map(|item| item["Content"].as_str())
            .map(|text| {
                decode(text).map_or_else(
                    |_| text.to_owned(),
                    |bytes| String::from_utf8_lossy(&bytes).into_owned(),
                )
            })
            .collect()
    }

    /// Speaks as Request Tracker's own administrator.
    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method, format!("{}/REST/2.0/{path}", self.url));
        let request = request.basic_auth("root", Some("password"));
        let request = match body {
            Value::Null => request,
            body => request
                .header("content-type", "application/json")
                .body(body.to_string()),
        };
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for RequestTracker {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log"));
            println!("--- log of Request Tracker ---\n{}", log.unwrap_or_default());
        }
    }
}

/// Fills a database once; `None` without Request Tracker.
fn set_up() -> Option<Template> {
    if !Path::new(SETUP).exists() || !Path::new(SERVER).exists() {
        return None;
    }
    let folder = std::env::temp_dir().join(format!("nightbell-request-tracker-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let guard = Command::new("sh")
        .args(["-c", &format!("cat >/dev/null; rm -rf {}", folder.display())])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    configure(&folder, 80, "");
    run(command(SETUP, &folder).args(["--action", "init", "--skip-create"]));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let filled = run(command("perl", &folder).arg(sources.join("tests/data/request_tracker.pl")));
    let token = filled.lines().find_map(|line| line.strip_prefix("token ")).unwrap();
    // As an admin would.
    run(command("perl", &folder).arg(sources.join("integrations/request-tracker/install.pl")));
    Some(Template {
        token: token.to_owned(),
        folder,
        _guard: guard,
    })
}

fn run(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap();
    let (out, errors) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{command:?}:\n{out}\n{errors}");
    out.into_owned()
}

/// A command that knows only this configuration: nothing in /etc is read or changed.
fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("RT_SITE_CONFIG", folder.join("RT_SiteConfig.pm"))
        .env("RT_SITE_CONFIG_DIR", folder.join("more"));
    command
}

fn configure(folder: &Path, port: u16, settings: &str) {
    for name in ["more", "mason", "sessions"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    let place = folder.display();
    let text = format!(
        "Set($rtname, 'story.example.test'); Set($Organization, 'story.example.test');
        Set($WebDomain, '127.0.0.1'); Set($WebPort, {port}); Set($WebBaseURL, 'http://127.0.0.1:{port}');
        Set($DatabaseType, 'SQLite'); Set($DatabaseName, '{place}/rt.db'); Set($Timezone, 'Europe/Berlin');
        Set($LogToSyslog, undef); Set($LogToSTDERR, 'warning'); Set($MailCommand, 'testfile');
        Set($WebSessionClass, 'Apache::Session::File'); Set($MasonDataDir, '{place}/mason');
        Set($MasonSessionDir, '{place}/sessions');
        {settings}
        1;\n"
    );
    std::fs::write(folder.join("RT_SiteConfig.pm"), text).unwrap();
}
