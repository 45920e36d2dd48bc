//! A real browser: Chromium without a window, driven by its own driver (Debian: `chromium`, `chromium-driver`).

use super::{eventually, left_out};
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Map, Value, json};
use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

/// How a browser is set up.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub has_scripts: bool,
    pub is_dark: bool,
    pub width: u32,
}

impl Look {
    pub const DESK: Self = Self {
        has_scripts: true,
        is_dark: false,
        width: 1200,
    };
}

/// A browser with one page.
pub struct Browser {
    pub client: Client,
    /// Where the service is.
    address: String,
    _driver: Driver,
}

/// The driver's process; it ends the browser with itself.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        // The browser too, which goes on without its driver where a story did not close it.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.0.wait();
    }
}

impl Browser {
    /// Starts a browser before a service, or says that the story is left out.
    pub async fn open(address: &str, look: Look, story: &str) -> Option<Self> {
        let Some((driver, port)) = start_driver() else {
            left_out("chromium", story);
            return None;
        };
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            // Chromium refuses to run as root otherwise, which is what containers do.
            "--no-sandbox".to_owned(),
            format!("--window-size={},1400", look.width),
        ];
        if look.is_dark {
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        // 2 is "blocked".
        let scripts = if look.has_scripts { 1 } else { 2 };
        let options = json!({
            "args": arguments,
            "prefs": {"profile.managed_default_content_settings.javascript": scripts},
        });
        let capabilities = Map::from_iter([("goog:chromeOptions".to_owned(), options)]);
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        let address = format!("http://{address}");
        Some(Self {
            client,
            address,
            _driver: driver,
        })
    }

    pub async fn goto(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.address)).await.unwrap();
    }

    pub async fn log_in(&self, token: &str) {
        self.goto("/admin/").await;
        self.fill("#token", token).await;
        self.press("#log-in").await;
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Presses what leads to another page, or to this one anew, and waits until it is there.
    pub async fn press(&self, css: &str) {
        let page = self.find("html").await;
        self.find(css).await.click().await.unwrap();
        eventually("another page", async || match page.tag_name().await {
            Ok(_) => Err("it stays"),
            Err(_) => Ok(()),
        })
        .await;
    }

    pub async fn find(&self, css: &str) -> fantoccini::elements::Element {
        let found = self.client.find(Locator::Css(css)).await;
        match found {
            Ok(element) => element,
            Err(error) => panic!("no `{css}` ({error}) on {}", self.text().await),
        }
    }

    /// What a person reads on the page.
    pub async fn text(&self) -> String {
        let body = self.client.find(Locator::Css("body")).await.unwrap();
        body.text().await.unwrap()
    }

    /// Where it is, without the service's address.
    pub async fn path(&self) -> String {
        let url = self.client.current_url().await.unwrap();
        url[url::Position::BeforePath..].to_owned()
    }

    /// What a checker of accessibility finds wrong with the page: each rule with the elements that break it.
    pub async fn violations(&self, checker: &str) -> Vec<String> {
        self.client.execute(checker, Vec::new()).await.unwrap();
        let run = "const done = arguments[arguments.length - 1]; axe.run().then(r => done(r.violations))";
        let found = self.client.execute_async(run, Vec::new()).await.unwrap();
        let words = |violation: &Value| {
            let nodes = violation["nodes"].as_array().into_iter().flatten();
            let targets: Vec<String> = nodes.map(|node| node["target"].to_string()).collect();
            format!("{}: {} {}", violation["id"], violation["help"], targets.join(" "))
        };
        found.as_array().unwrap().iter().map(words).collect()
    }

    /// Keeps a picture of the page, if a folder for pictures is named by `NIGHTBELL_TEST_PICTURES`.
    pub async fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("NIGHTBELL_TEST_PICTURES") {
            let picture = self.client.screenshot().await.unwrap();
            std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), picture).unwrap();
        }
    }

    pub async fn close(self) {
        self.client.clone().close().await.unwrap();
    }
}

/// Starts the driver on a free port; `None` if there is none on this machine.
fn start_driver() -> Option<(Driver, u16)> {
    // The port that it found free may be another's by the time that it takes it.
    for _ in 0..TRIES {
        if let Some(started) = try_driver()? {
            return Some(started);
        }
    }
    panic!("chromedriver did not start in {TRIES} tries");
}

const TRIES: u32 = 5;

/// Starts the driver; `None` without one, `Some(None)` if it ends at once.
fn try_driver() -> Option<Option<(Driver, u16)>> {
    let child = Command::new("chromedriver")
        .arg("--port=0")
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut driver = Driver(child.ok()?);
    let out = BufReader::new(driver.0.stdout.take().unwrap());
    let said = out.lines().map_while(Result::ok);
    let mut started = said.filter_map(|line| {
        let port = line.split_once("started successfully on port ")?.1;
        port.trim_end_matches('.').parse().ok()
    });
    let Some(port) = started.next() else {
        return Some(None);
    };
    // Whoever writes to a pipe that nobody reads would wait.
    std::thread::spawn(move || started.count());
    Some(Some((driver, port)))
}
