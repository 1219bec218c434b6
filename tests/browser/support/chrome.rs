//! Chromium, driven over `WebDriver`: each with an empty profile of its own, gone without a trace when dropped.

use super::process::{Running, folder, in_checkout, kill_users_of};
use super::{DEADLINE, free_port};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// How long a browser lives. Whoever still waits for it then, whatever for, gets an error and fails.
const LONGEST: Duration = Duration::from_mins(2);

const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,700",
    // A page that scrolls smoothly is still moving when it is clicked.
    "--force-prefers-reduced-motion",
];

/// A browser.
pub struct Chrome {
    pub client: Client,
    /// How long it waits for something to show.
    pub patience: Duration,
    _driver: Running,
    profile: TempDir,
    _alive: Sender<()>,
}

/// A cookie as the browser keeps it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cookie {
    pub name: String,
    pub value: String,
    pub domain: String,
    pub path: String,
    pub http_only: bool,
    pub secure: bool,
    /// Whether it ends with the browser.
    pub session: bool,
    pub same_site: Option<String>,
}

impl Chrome {
    pub async fn start(prefs: Value) -> Self {
        let profile = folder();
        let mut command = Command::new("chromedriver");
        // A port of its own choice, it takes on one of IPv4 and IPv6 and gives up if the other's is in use.
        // Its own log is named so that it is found by the folder, like the browser.
        let log = profile.path().join("driver.own.log");
        command
            .arg(format!("--port={}", free_port()))
            .arg(format!("--log-path={}", log.display()))
            .stdout(Stdio::piped());
        let mut driver = Running::start(&mut command, profile.path().join("driver.log"));
        let alive = watch(profile.path().to_owned());
        let port: u16 = driver.first_line(|line| {
            let port = line.split_once("started successfully on port ")?.1;
            port.trim_end_matches('.').parse().ok()
        });
        let mut flags = FLAGS.map(String::from).to_vec();
        flags.push(format!(
            "--user-data-dir={}",
            profile.path().join("profile").display()
        ));
        let patience = DEADLINE.as_millis();
        let wanted = json!({
            // The tests' own certificates; those that must be refused are the integration tests' matter.
            "acceptInsecureCerts": true,
            "timeouts": { "script": patience, "pageLoad": patience },
            "goog:chromeOptions": { "args": flags, "prefs": prefs },
        });
        let wanted = wanted.as_object().expect("an object").clone();
        let mut client = ClientBuilder::new(HttpConnector::new());
        let client = client
            .capabilities(wanted)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await;
        let client = client.unwrap_or_else(|error| {
            panic!(
                "Chromium does not start (is it installed? tests/run does that): {error}\n{}",
                driver.output()
            )
        });
        Self {
            client,
            patience: DEADLINE,
            _driver: driver,
            profile,
            _alive: alive,
        }
    }

    pub async fn goto(&self, url: &str) {
        self.client.goto(url).await.expect("a navigation");
    }

    pub async fn url(&self) -> String {
        self.client.current_url().await.expect("an address").to_string()
    }

    /// Waits for what `css` names, and clicks it.
    pub async fn click(&self, css: &str) {
        self.wait(
            css,
            "return document.querySelector(arguments[0]) !== null",
            |there| there == &json!(true),
        )
        .await;
        self.client
            .find(Locator::Css(css))
            .await
            .expect("an element")
            .click()
            .await
            .expect("a click");
    }

    /// Waits for the field that `css` names, and types into it.
    pub async fn fill(&self, css: &str, text: &str) {
        self.wait(
            css,
            "return document.querySelector(arguments[0]) !== null",
            |there| there == &json!(true),
        )
        .await;
        self.client
            .find(Locator::Css(css))
            .await
            .expect("a field")
            .send_keys(text)
            .await
            .expect("typing");
    }

    /// Waits until what `css` names contains `text`, and returns the whole of it.
    pub async fn text(&self, css: &str, text: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? null";
        let found = self
            .wait(css, script, |now| {
                now.as_str().is_some_and(|now| now.contains(text))
            })
            .await;
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the address is this one.
    pub async fn arrives_at(&self, url: &str) {
        self.wait(url, "return location.href", |now| now == url).await;
    }

    /// Asks the page `script` of `argument` until `good` accepts the answer.
    pub async fn wait(&self, argument: &str, script: &str, good: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            // A page that is just being left cannot answer: that is no failure yet.
            let now = self.client.execute(script, vec![json!(argument)]).await;
            match now {
                Ok(value) if good(&value) => return value,
                _ if began.elapsed() < self.patience => tokio::time::sleep(Duration::from_millis(25)).await,
                last => {
                    let page = self.client.source().await.unwrap_or_default();
                    let url = self.url().await;
                    panic!("waited in vain for {argument:?} at {url}: {script} gave {last:?}\n{page:.3000}")
                }
            }
        }
    }

    /// The page's answer to a script at once.
    pub async fn run(&self, script: &str) -> Value {
        self.client
            .execute(script, Vec::new())
            .await
            .expect("a script that runs")
    }

    /// The page's answer to `expression`, a promise.
    pub async fn promise(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             ({expression}).then(done, (error) => done({{ error: String(error) }}));"
        );
        self.client
            .execute_async(&script, Vec::new())
            .await
            .expect("a script that runs")
    }

    /// Status, final address and text of a `fetch` from the page.
    pub async fn fetch(&self, path: &str, options: &Value) -> Value {
        let expression = format!(
            "fetch({path:?}, {options}).then(async (answer) => ({{ status: answer.status, url: answer.url, text: await answer.text() }}))"
        );
        self.promise(&expression).await
    }

    /// Every cookie in the jar, whatever its site and flags.
    pub async fn cookies(&self) -> Vec<Cookie> {
        let answer = self.devtools("Network.getAllCookies", json!({})).await;
        serde_json::from_value(answer["cookies"].clone()).expect("cookies")
    }

    /// A command of the Chrome `DevTools` protocol.
    pub async fn devtools(&self, method: &'static str, params: Value) -> Value {
        self.client
            .issue_cmd(DevTools { method, params })
            .await
            .expect("a DevTools answer")
    }

    /// Writes the whole page, as wide as this many pixels and in this colour scheme, to `tests/out/NAME.png`.
    pub async fn portrait(&self, name: &str, width: u32, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }))
            .await;
        // As high as the page, so that nothing sticks to an edge in its middle.
        let mut wide = Value::Null;
        for height in ["800", "Math.max(800, document.documentElement.scrollHeight)"] {
            let height = self.run(&format!("return {height}")).await;
            let size =
                json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
            self.devtools("Emulation.setDeviceMetricsOverride", size).await;
            let drawn = "new Promise((settle) => { scrollTo(0, 0); requestAnimationFrame(() => requestAnimationFrame(settle)); })";
            self.promise(drawn).await;
            wide = self.run("return document.documentElement.scrollWidth").await;
        }
        let whole = json!({ "format": "png" });
        let picture = self.devtools("Page.captureScreenshot", whole).await;
        let picture = STANDARD
            .decode(picture["data"].as_str().expect("a picture"))
            .expect("base64");
        write_picture(name, &picture);
        self.devtools("Emulation.clearDeviceMetricsOverride", json!({}))
            .await;
        assert!(
            wide.as_u64() <= Some(width.into()),
            "{name} is {wide} wide and has to be scrolled sideways"
        );
    }

    /// Writes what is seen to `tests/out/NAME.png`.
    pub async fn screenshot(&self, name: &str) {
        write_picture(name, &self.client.screenshot().await.expect("a screenshot"));
    }
}

fn write_picture(name: &str, picture: &[u8]) {
    let folder = in_checkout("tests/out");
    fs::create_dir_all(&folder).expect("a folder for screenshots");
    fs::write(folder.join(format!("{name}.png")), picture).expect("a picture");
}

impl Drop for Chrome {
    fn drop(&mut self) {
        kill_users_of(self.profile.path());
    }
}

/// Ends the driver and the browser in this folder when they have lived for [`LONGEST`], unless the sender is dropped before.
fn watch(folder: PathBuf) -> Sender<()> {
    let (alive, ended) = mpsc::channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
            eprintln!("a browser was still there after {LONGEST:?}: it is ended");
            kill_users_of(&folder);
        }
    });
    alive
}

#[derive(Debug)]
struct DevTools {
    method: &'static str,
    params: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _url: &url::Url) -> (http::Method, Option<String>) {
        (
            http::Method::POST,
            Some(json!({ "cmd": self.method, "params": self.params }).to_string()),
        )
    }
}
