//! For tests: a real Redis (a process of our own in a folder of its own, ended when it is dropped), and outages.

use super::{Store, StoreError};
use crate::config::{RedisSettings, SecretSource};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running `redis-server`.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// On a free port of the loopback address.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            // Somebody else may be quicker to take it: then the next one is tried.
            if let Some(server) = Self::start_on(port, tempfile::tempdir().unwrap(), arguments) {
                return server;
            }
        }
        panic!("there is no free port");
    }

    /// `None`: the port is taken.
    pub(crate) fn start_on(port: u16, folder: TempDir, arguments: &[&str]) -> Option<Self> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self {
            child: Self::spawn(port, &folder, &arguments),
            port,
            folder,
            arguments,
        };
        server.becomes_ready().then_some(server)
    }

    fn spawn(port: u16, folder: &TempDir, arguments: &[String]) -> Child {
        let _ = std::fs::remove_file(folder.path().join("log"));
        Command::new("redis-server")
            .arg("--port")
            .arg(port.to_string())
            .args("--bind 127.0.0.1 --appendonly no --logfile log --save".split(' '))
            .args(["", "--dir"])
            .arg(folder.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed")
    }

    /// Waits until the server says that it is ready. False: its port is taken.
    fn becomes_ready(&mut self) -> bool {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            if text.contains("Ready to accept connections") {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                assert!(
                    text.contains("Address already in use"),
                    "redis-server did not start: {text}"
                );
                return false;
            }
            assert!(Instant::now() < patience, "redis-server did not start: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the server; its data is lost.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port, empty.
    pub(crate) fn start_again(&mut self) {
        self.child = Self::spawn(self.port, &self.folder, &self.arguments);
        assert!(self.becomes_ready());
    }

    /// Sends the server process a signal (`STOP`, `CONT`).
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// What `redis-cli` answers.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// All keys, with their times to live in milliseconds (-1: none).
    pub(crate) fn keys(&self) -> Vec<(String, i64)> {
        let keys = self.cli(&["--scan"]);
        keys.lines()
            .map(|key| (key.to_owned(), self.cli(&["PTTL", key]).parse().unwrap()))
            .collect()
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        settings(&format!("redis://127.0.0.1:{}", self.port))
    }

    pub(crate) fn store(&self) -> Store {
        Store::redis(&self.settings()).unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        url: Some(SecretSource::plain(url)),
        password: None,
        ca: None,
        key_prefix: "cloakroom:".into(),
        sentinel: None,
        cluster: None,
    }
}

/// When a failing operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fails {
    /// Before it was done.
    Before,
    /// After it was done: only its answer is lost.
    After,
    /// Not at all, but it takes 2 s.
    Late,
}

/// Who decides when each operation goes on, and how it ends.
pub(crate) trait Gate: std::fmt::Debug + Send + Sync {
    /// Waits for the decision; `None`: all goes well.
    fn pass(
        &self,
        operation: &'static str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Option<Fails>> + Send + '_>>;
}

/// Operations that fail on a test's wish.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    failing: Mutex<Vec<(&'static str, Fails)>>,
    gate: std::sync::OnceLock<std::sync::Arc<dyn Gate>>,
}

impl Outage {
    /// From now on these operations fail.
    pub(crate) fn begin(&self, operations: &[&'static str], fails: Fails) {
        let mut failing = self.failing.lock().unwrap();
        failing.extend(operations.iter().map(|operation| (*operation, fails)));
    }

    /// From now on nothing fails.
    pub(crate) fn end(&self) {
        self.failing.lock().unwrap().clear();
    }

    /// From now on each operation waits at this gate.
    pub(crate) fn guard(&self, gate: std::sync::Arc<dyn Gate>) {
        self.gate.set(gate).expect("one gate");
    }

    async fn decide(&self, operation: &'static str) -> Option<Fails> {
        if let Some(gate) = self.gate.get() {
            return gate.pass(operation).await;
        }
        let failing = self.failing.lock().unwrap();
        let found = failing.iter().find(|(name, _)| *name == operation);
        found.map(|(_, fails)| *fails)
    }

    pub(super) async fn around<T>(
        &self,
        operation: &'static str,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.decide(operation).await {
            None => asked.await,
            Some(Fails::Late) => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                asked.await
            }
            Some(fails) => {
                if fails == Fails::After {
                    drop(asked.await);
                }
                Err(StoreError("outage".into()))
            }
        }
    }
}
