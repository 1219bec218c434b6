//! For tests: a real Redis (a process of our own in a folder of its own, ended when it is dropped), and outages.

use super::{Store, StoreError};
use crate::config::{RedisSettings, SecretSource, Sentinel};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name of a sentinel's own file, and what marks the arguments of one.
const SENTINEL: &str = "sentinel.conf";

/// A running `redis-server`.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    pub(crate) arguments: Vec<String>,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// On a free port of the loopback address.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        for _ in 0..10 {
            let port = free_port();
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
        let mut command = Command::new("redis-server");
        // A sentinel's first argument is its file, which it writes to as well.
        if arguments.first().is_some_and(|first| first == SENTINEL) {
            std::fs::write(folder.path().join(SENTINEL), "").unwrap();
            command.current_dir(folder.path());
            let end = [
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--logfile",
                "log",
                "--sentinel",
            ];
            command.arg(SENTINEL).args(&arguments[1..]).args(end);
            let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
            return quiet.spawn().expect("redis-server is installed");
        }
        command
            .arg("--port")
            .arg(port.to_string())
            .args(
                "--bind 127.0.0.1 --appendonly no --repl-diskless-sync-delay 0 --logfile log --save"
                    .split(' '),
            )
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
            if text.contains("Ready to accept connections") || text.contains("Sentinel ID is") {
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

    /// As [`Self::start_again`], with what it saved; it may still be loading that.
    pub(crate) fn start_again_loading(&mut self) {
        self.child = Self::spawn(self.port, &self.folder, &self.arguments);
        becomes("a server that listens", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
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

    fn source(&self) -> SecretSource {
        SecretSource::plain(&format!("redis://127.0.0.1:{}", self.port))
    }

    /// How many keys it has.
    pub(crate) fn count(&self) -> usize {
        self.cli(&["DBSIZE"]).parse().unwrap_or(0)
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

/// A port that nobody listens on now, nor on the one that Redis gives its cluster bus for it.
pub(crate) fn free_port() -> u16 {
    loop {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// A primary, two replicas and three sentinels.
#[derive(Debug)]
pub(crate) struct Replicated {
    pub(crate) primary: RedisServer,
    pub(crate) replicas: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl Replicated {
    /// Whether most sentinels name another primary than the first one.
    pub(crate) fn agree_on_another(&self) -> bool {
        let first = self.primary.port.to_string();
        let names_another = |sentinel: &&RedisServer| {
            let named = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
            !named.is_empty() && !named.ends_with(&first)
        };
        self.sentinels.iter().filter(names_another).count() > 1
    }

    /// Waits until the sentinels know each other and the replicas.
    pub(crate) fn start() -> Self {
        let primary = RedisServer::start();
        let port = primary.port.to_string();
        let replicas = (0..2)
            .map(|_| RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]))
            .collect();
        let sentinels: Vec<_> = (0..3).map(|_| RedisServer::start_with(&[SENTINEL])).collect();
        for sentinel in &sentinels {
            for said in [
                &["MONITOR", "main", "127.0.0.1", &port, "2"][..],
                &["SET", "main", "down-after-milliseconds", "600"],
                &["SET", "main", "failover-timeout", "2000"],
            ] {
                assert_eq!(sentinel.cli(&[&["SENTINEL"], said].concat()), "OK");
            }
        }
        let all = Self {
            primary,
            replicas,
            sentinels,
        };
        becomes("sentinels that know each other", || {
            all.sentinels.iter().all(|sentinel| {
                let told = sentinel.cli(&["SENTINEL", "MASTER", "main"]);
                let lines: Vec<_> = told.lines().collect();
                let has = |name, value| lines.windows(2).any(|pair| pair == [name, value]);
                has("num-slaves", "2") && has("num-other-sentinels", "2") && has("flags", "master")
            })
        });
        all
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        RedisSettings {
            url: None,
            sentinel: Some(Sentinel {
                master: "main".into(),
                urls: self.sentinels.iter().map(RedisServer::source).collect(),
                user: None,
                password: None,
            }),
            ..settings("")
        }
    }
}

/// Three primaries, each with some of the slots and a replica.
#[derive(Debug)]
pub(crate) struct Clustered {
    pub(crate) nodes: Vec<RedisServer>,
}

impl Clustered {
    /// Waits until every node knows who has which slots.
    pub(crate) fn start(replicas: usize) -> Self {
        let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let nodes: Vec<_> = (0..3 * (1 + replicas))
            .map(|_| RedisServer::start_with(&arguments))
            .collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        let output = create.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        let all = Self { nodes };
        becomes("a cluster", || {
            all.nodes.iter().all(|node| {
                node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                    && node.cli(&["CLUSTER", "NODES"]).matches("slave ").count() == 3 * replicas
            })
        });
        all
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        RedisSettings {
            url: None,
            cluster: Some(self.nodes.iter().take(2).map(RedisServer::source).collect()),
            ..settings("")
        }
    }
}

/// Asks again and again until it holds.
pub(crate) fn becomes(what: &str, holds: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < patience, "waited for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        url: Some(SecretSource::plain(url)),
        sentinel: None,
        cluster: None,
        user: None,
        password: None,
        database: None,
        ca: None,
        client_cert: None,
        key_prefix: "cloakroom:".into(),
    }
}

/// When a failing operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fails {
    /// Before it was done.
    Before,
    /// After it was done: only its answer is lost.
    After,
    /// Not at all, but it takes nearly as long as an operation may.
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
        // To the session layer both are the end of a record.
        let operation = if operation == "end" { "delete" } else { operation };
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
                tokio::time::sleep(super::PATIENCE.mul_f64(0.93)).await;
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

impl Store {
    /// As if the link to a server had been lost and were there again.
    pub(crate) fn link_is_back(&self) {
        self.changes.note_all();
    }
}
