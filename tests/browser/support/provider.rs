//! The certified provider of `tests/provider`, as a child process.

use super::http::ask;
use super::process::{Running, folder, in_checkout};
use serde_json::Value;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A provider that serves until it is dropped.
pub struct Provider {
    _running: Running,
    /// Its issuer identifier.
    pub issuer: String,
    /// The same place by its address, for those whose resolver does not know `*.localhost`.
    pub address: String,
    control: String,
    _folder: TempDir,
}

impl Provider {
    pub fn start(config: &Value) -> Self {
        assert!(
            in_checkout("tests/provider/node_modules/oidc-provider").exists(),
            "the test provider's npm packages are missing: run tests/run, which installs what the tests need"
        );
        let folder = folder();
        let mut command = Command::new("node");
        command
            .arg(in_checkout("tests/provider/provider.mjs"))
            .env("OP_CONFIG", config.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start(&mut command, folder.path().join("provider.log"));
        let ready: Value = running.first_line(|line| serde_json::from_str(line).ok());
        let text = |key: &str| ready[key].as_str().expect("a ready line").to_owned();
        Self {
            issuer: text("issuer"),
            address: format!("http://127.0.0.1:{}", ready["port"]),
            control: text("control").replace("http://", ""),
            _running: running,
            _folder: folder,
        }
    }

    async fn control(&self, method: &str, path: &str) -> Value {
        let (status, body) = ask(method, &self.control, path, "")
            .await
            .expect("an answer of the control door");
        assert_eq!(status, 200);
        serde_json::from_slice(&body).expect("JSON")
    }

    /// How often an endpoint was called: `authorization`, `token.refresh_token`, …
    pub async fn count(&self, name: &str) -> u64 {
        let counts = self.control("GET", "/control/counts").await;
        name.split('.')
            .fold(&counts, |value, key| &value[key])
            .as_u64()
            .unwrap_or_default()
    }

    /// Where it sent the last browser back to.
    pub async fn last_callback(&self) -> String {
        let answer = self.control("GET", "/control/last-callback").await;
        answer["location"]
            .as_str()
            .expect("a login was answered")
            .to_owned()
    }
}
