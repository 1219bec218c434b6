//! Several real Redis servers as people run them: Sentinel (1 primary, 2 replicas, 3 sentinels) and Cluster (3 primaries,
//! 3 replicas), with TLS both ways, passwords, and an ACL user that has the rights that the documentation names and no others.

use super::secrets::canary;
use super::tls::{Authority, Leaf};
use super::{free_port, is_listened_on, signal, until};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// What cloakroom's ACL user needs (README).
const RIGHTS: &str = "+get +set +del +hset +hgetall +hdel +hlen +pttl +pexpire +eval +evalsha +ping +role \
                      +client|tracking +info +cluster|slots +asking";

/// The servers of one store.
pub struct Group {
    /// Those that keep data: the primary first, or the primaries.
    pub data: Vec<Server>,
    /// Those that say who the primary is.
    pub sentinels: Vec<Server>,
    /// `session.store.redis`.
    pub settings: Value,
}

/// One server.
pub struct Server {
    /// Where it listens.
    pub port: u16,
    child: Option<Child>,
    folder: TempDir,
    arguments: Vec<String>,
    access: Access,
}

/// How the suite gets in.
#[derive(Clone)]
struct Access {
    ca: String,
    leaf: Leaf,
    password: String,
}

impl Access {
    fn cli(&self) -> Command {
        let mut cli = Command::new("redis-cli");
        cli.args(["--tls", "--cacert", &self.ca])
            .args(["--cert", self.leaf.cert.to_str().unwrap()])
            .args(["--key", self.leaf.key.to_str().unwrap()])
            .env("REDISCLI_AUTH", &self.password);
        cli
    }

    /// What every server is started with.
    fn arguments(&self) -> Vec<String> {
        let (cert, key) = (self.leaf.cert.to_str().unwrap(), self.leaf.key.to_str().unwrap());
        [
            ["--tls-cert-file", cert],
            ["--tls-key-file", key],
            ["--tls-ca-cert-file", &self.ca],
            ["--tls-auth-clients", "yes"],
            ["--tls-replication", "yes"],
            ["--bind", "127.0.0.1"],
        ]
        .concat()
        .into_iter()
        .map(String::from)
        .collect()
    }
}

/// A port that nobody listens on, nor on the one of its cluster bus.
fn port_with_bus() -> u16 {
    loop {
        let port = free_port();
        if !is_listened_on(port + 10_000) {
            return port;
        }
    }
}

impl Server {
    fn new(access: &Access, arguments: &[&str]) -> Self {
        let mut server = Self {
            port: port_with_bus(),
            child: None,
            folder: TempDir::new().unwrap(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            access: access.clone(),
        };
        server.open();
        server
    }

    /// Starts it (again), with what its files hold: never data.
    pub fn open(&mut self) {
        let mut command = Command::new("redis-server");
        if self
            .arguments
            .first()
            .is_some_and(|first| first == "sentinel.conf")
        {
            let file = self.folder.path().join("sentinel.conf");
            if !file.exists() {
                std::fs::write(file, "").unwrap();
            }
        }
        command
            .current_dir(self.folder.path())
            .args(&self.arguments)
            .args(["--port", "0", "--tls-port", &self.port.to_string()])
            .args(self.access.arguments());
        if self
            .arguments
            .first()
            .is_some_and(|first| first == "sentinel.conf")
        {
            command.arg("--sentinel");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    /// What it answers.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let output = self
            .access
            .cli()
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Kills it, by its process id.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Group {
    fn access(authority: &Authority) -> Access {
        Access {
            ca: authority.file().to_str().unwrap().to_owned(),
            leaf: authority.leaf("127.0.0.1"),
            password: canary("redis"),
        }
    }

    /// A server that keeps data, with cloakroom's user.
    fn data(access: &Access, user: &str, more: &[&str]) -> Server {
        let usual = [
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
            "--requirepass",
            &access.password,
            "--masterauth",
            &access.password,
        ];
        let rights = format!("--user cloakroom on >{user} ~cloakroom:* resetchannels -@all {RIGHTS}");
        let rights: Vec<_> = rights.split_whitespace().collect();
        Server::new(access, &[&usual[..], more, &rights].concat())
    }

    /// What cloakroom is told beside where the servers are.
    fn settings(access: &Access, user: &str, place: (&str, Value)) -> Value {
        let mut settings = json!({
            "user": "cloakroom", "password": user, "ca": access.ca,
            "client_cert": { "cert": access.leaf.cert, "key": access.leaf.key },
        });
        settings[place.0] = place.1;
        settings
    }

    /// A primary, two replicas and three sentinels that know each other.
    pub async fn sentinel(authority: &Authority) -> Self {
        let access = Self::access(authority);
        let (user, theirs) = (canary("redis-user"), canary("sentinel-user"));
        let mut data = vec![Self::data(&access, &user, &[])];
        let primary = data[0].port.to_string();
        until(10, "the primary", || data[0].ask(&["PING"]) == "PONG").await;
        for _ in 0..2 {
            data.push(Self::data(
                &access,
                &user,
                &["--replicaof", "127.0.0.1", &primary],
            ));
        }
        let sentinels: Vec<_> = (0..3)
            .map(|_| Server::new(&access, &["sentinel.conf", "--requirepass", &access.password]))
            .collect();
        for sentinel in &sentinels {
            until(10, "a sentinel", || sentinel.ask(&["PING"]) == "PONG").await;
            let rights = format!(
                "ACL SETUSER watcher on >{theirs} resetkeys resetchannels -@all +sentinel|get-master-addr-by-name +ping"
            );
            assert_eq!(sentinel.ask(&rights.split(' ').collect::<Vec<_>>()), "OK");
            for said in [
                &["CONFIG", "SET", "sentinel-pass", &access.password][..],
                &["MONITOR", "main", "127.0.0.1", &primary, "2"],
                &["SET", "main", "auth-pass", &access.password],
                &["SET", "main", "down-after-milliseconds", "600"],
                &["SET", "main", "failover-timeout", "2000"],
            ] {
                assert_eq!(sentinel.ask(&[&["SENTINEL"], said].concat()), "OK", "{said:?}");
            }
        }
        until(15, "sentinels that know each other", || {
            sentinels.iter().all(|sentinel| {
                let told = sentinel.ask(&["SENTINEL", "MASTER", "main"]);
                let lines: Vec<_> = told.lines().collect();
                let has = |name, value| lines.windows(2).any(|pair| pair == [name, value]);
                has("num-slaves", "2") && has("num-other-sentinels", "2") && has("flags", "master")
            })
        })
        .await;
        let urls: Vec<_> = sentinels
            .iter()
            .map(|sentinel| format!("rediss://127.0.0.1:{}", sentinel.port))
            .collect();
        let place = json!({ "master": "main", "urls": urls, "user": "watcher", "password": theirs });
        Self {
            settings: Self::settings(&access, &user, ("sentinel", place)),
            data,
            sentinels,
        }
    }

    /// Three primaries, and a replica of each where there are `replicas`.
    pub async fn cluster(authority: &Authority, replicas: bool) -> Self {
        let access = Self::access(authority);
        let user = canary("redis-user");
        let count = if replicas { 6 } else { 3 };
        let more = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--tls-cluster",
            "yes",
        ];
        let data: Vec<_> = (0..count).map(|_| Self::data(&access, &user, &more)).collect();
        for node in &data {
            until(10, "a node", || node.ask(&["PING"]) == "PONG").await;
        }
        let nodes: Vec<_> = data
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        let mut create = access.cli();
        create.args(["--cluster", "create"]).args(&nodes);
        create.args([
            "--cluster-replicas",
            if replicas { "1" } else { "0" },
            "--cluster-yes",
        ]);
        let output = create.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        until(20, "a cluster", || {
            data.iter().all(|node| {
                node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                    && node.ask(&["CLUSTER", "NODES"]).matches("slave ").count() == count - 3
            })
        })
        .await;
        let urls: Vec<_> = nodes
            .iter()
            .take(2)
            .map(|node| format!("rediss://{node}"))
            .collect();
        Self {
            settings: Self::settings(&access, &user, ("cluster", json!(urls))),
            data,
            sentinels: Vec::new(),
        }
    }

    /// How many keys the data servers have, each.
    pub fn counts(&self) -> Vec<usize> {
        let counts = self.data.iter().map(|node| node.ask(&["DBSIZE"]));
        counts.map(|count| count.parse().unwrap_or(0)).collect()
    }

    /// Kills the first data server, a primary, with everything that it had: its replicas, which are returned, have got none
    /// of it.
    pub fn lose_the_first(&mut self) -> Vec<usize> {
        let mut replicas = Vec::new();
        let first = &self.data[0];
        let port = first.port.to_string();
        // Stopped, so that nothing more comes to the replicas from it.
        signal(first.child.as_ref().unwrap().id(), "STOP");
        for (n, node) in self.data.iter().enumerate().skip(1) {
            let role = node.ask(&["ROLE"]);
            if role.starts_with("slave") && role.lines().nth(2) == Some(&port) {
                assert_eq!(node.ask(&["CONFIG", "SET", "replica-read-only", "no"]), "OK");
                assert_eq!(node.ask(&["FLUSHALL"]), "OK");
                assert_eq!(node.ask(&["CONFIG", "SET", "replica-read-only", "yes"]), "OK");
                assert_eq!(node.ask(&["DBSIZE"]), "0");
                replicas.push(n);
            }
        }
        self.data[0].kill();
        replicas
    }

    /// Waits until one of these has taken the first's place.
    pub async fn succeeded_by(&self, replicas: &[usize]) {
        until(30, "a new primary", || {
            replicas
                .iter()
                .any(|n| self.data[*n].ask(&["ROLE"]).starts_with("master"))
        })
        .await;
    }

    /// Panics where anything lives for ever (contract 5.5).
    pub fn all_end(&self) {
        for node in self.data.iter().filter(|node| node.child.is_some()) {
            if node.ask(&["ROLE"]).starts_with("slave") {
                continue;
            }
            for key in node.ask(&["--scan"]).lines() {
                let left: i64 = node.ask(&["PTTL", key]).parse().unwrap();
                assert!(left > 0 || left == -2, "se_07: {key} lives for ever");
            }
        }
    }
}

/// One server that nobody has told anything: a sentinel that watches nobody, or a node of no cluster.
pub struct Bare {
    /// Where it listens.
    pub port: u16,
    child: Child,
    _folder: TempDir,
}

impl Bare {
    /// Starts a `--sentinel` or a node of a `cluster`, without TLS or password.
    pub async fn start(what: &str) -> Self {
        let (port, folder) = (port_with_bus(), TempDir::new().unwrap());
        let mut command = Command::new("redis-server");
        command.current_dir(folder.path());
        let listen = ["--port", &port.to_string(), "--bind", "127.0.0.1"];
        if what == "cluster" {
            command
                .args(listen)
                .args(["--save", "", "--cluster-enabled", "yes"]);
        } else {
            std::fs::write(folder.path().join("sentinel.conf"), "").unwrap();
            command.arg("sentinel.conf").args(listen).arg(what);
        }
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let bare = Self {
            port,
            child: quiet.spawn().unwrap(),
            _folder: folder,
        };
        until(10, "a server", || bare.ask(&["PING"]) == "PONG").await;
        bare
    }

    /// What it answers.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        let output = cli
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
