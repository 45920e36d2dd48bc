//! A real Redmine 5 (Debian: `redmine`, `redmine-sqlite`, `ruby-webrick`), copied into a folder of its own with a database of
//! its own. Debian's own set-up of it is not needed.

use super::{PATIENCE, client, database::Folder, eventually, free_port, left_out};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

const PLACE: &str = "/usr/share/redmine";

pub struct Redmine {
    folder: Folder,
    pub url: String,
    /// The API key of its administrator.
    pub key: String,
    /// The id of Ruben, who has a phone.
    user: String,
    server: Child,
    client: reqwest::Client,
}

impl Redmine {
    /// Sets one up and starts it, or `None` if Redmine is not on this machine.
    pub async fn start(story: &str) -> Option<Self> {
        let is_there = Path::new(PLACE).join("Gemfile").exists() && Path::new("/usr/bin/bundle").exists();
        if !is_there {
            left_out("redmine", story);
            return None;
        }
        let folder = Folder::new();
        let said = copy(folder.path());
        let find = |name: &str| {
            said.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .to_owned()
        };
        let port = free_port();
        // Ends with this process, however it went.
        let serve = format!(
            "ruby bin/rails server -u webrick -e production -b 127.0.0.1 -p {port} >server.log 2>&1 & cat >/dev/null; kill -KILL $!; wait"
        );
        let server = command("sh", folder.path())
            .args(["-c", &serve])
            .stdin(Stdio::piped())
            .spawn();
        let redmine = Self {
            url: format!("http://127.0.0.1:{port}"),
            key: find("key "),
            user: find("user "),
            server: server.unwrap(),
            client: client(),
            folder,
        };
        eventually("Redmine to answer", async || {
            let answer = redmine.client.get(&redmine.url).timeout(PATIENCE).send().await;
            answer.map_err(|error| (error.to_string(), redmine.log()))
        })
        .await;
        Some(redmine)
    }

    /// Creates an issue that is assigned to Ruben; returns its id.
    pub async fn create(&self, subject: &str, priority: &str) -> String {
        let priority = self.priority(priority).await;
        let issue = json!({"issue": {"project_id": "plant", "subject": subject, "assigned_to_id": self.user, "priority_id": priority, "estimated_hours": 3}});
        self.call(Method::POST, "issues.json", &issue).await["issue"]["id"].to_string()
    }

    pub async fn change_priority(&self, issue: &str, priority: &str) {
        let change = json!({"issue": {"priority_id": self.priority(priority).await}});
        self.call(Method::PUT, &format!("issues/{issue}.json"), &change).await;
    }

    async fn priority(&self, name: &str) -> Value {
        let list = self
            .call(Method::GET, "enumerations/issue_priorities.json", &Value::Null)
            .await;
        let priorities = list["issue_priorities"].as_array().unwrap();
        priorities.iter().find(|priority| priority["name"] == name).unwrap()["id"].clone()
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method, format!("{}/{path}", self.url));
        let request = request
            .header("x-redmine-api-key", &self.key)
            .header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }
}

impl Drop for Redmine {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        let _ = self.server.wait();
        if std::thread::panicking() {
            println!("--- log of Redmine ---\n{}", self.log());
        }
    }
}

/// Copies Redmine's files and fills a database; returns what the filling said.
fn copy(folder: &Path) -> String {
    let place = folder.display();
    let task = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/redmine.rb");
    let task = task.display();
    // One process migrates and another fills: what has migrated still believes in the old columns. The copy has links to Debian's configuration that lead nowhere, about which `cp` complains.
    let prepare = format!(
        "for part in app bin config db extra lib public Gemfile Rakefile config.ru; do cp -rL {PLACE}/$part {place}/ 2>/dev/null; done
        cd {place} && mkdir -p tmp log files plugins && for part in config tmp log files plugins public; do mkdir -p instances/default/$part; done
        printf 'production:\\n  adapter: sqlite3\\n  database: {place}/redmine.db\\n' >instances/default/config/database.yml
        echo \"RedmineApp::Application.config.secret_key_base = '$(head -c 64 /dev/urandom | sha256sum | cut -c1-64)'\" >config/initializers/secret_token.rb
        echo \"task(:story => :environment) {{ load '{task}' }}\" >lib/tasks/story.rake
        sed -i \"s#^Dir\\['.*database.yml'\\]#Dir['{place}/instances/default/config/database.yml']#; /^group :test do/,/^end/d\" Gemfile
        echo \"gem 'webrick'\" >>Gemfile
        bundle lock --local && ruby -S rake db:migrate && ruby -S rake redmine:load_default_data story"
    );
    let done = command("sh", folder)
        .args(["-c", &prepare])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, errors) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{out}\n{errors}");
    out.into_owned()
}

fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env("RAILS_ENV", "production")
        .env("REDMINE_LANG", "en")
        .env("X_DEBIAN_SITEID", "default")
        .env("BUNDLE_GEMFILE", folder.join("Gemfile"));
    command
}
