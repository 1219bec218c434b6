//! A real Redis: started, paused, killed, looked into.

use super::secrets::{self, canary};
use super::{free_port, signal, until};
use redis::Commands as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running Redis.
pub struct Redis {
    /// How cloakroom reaches it: with its user and password.
    pub url: String,
    /// The authority that signed its certificate, where it speaks TLS.
    pub ca: Option<PathBuf>,
    plain: String,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
    folder: TempDir,
}

/// A key as it is in the store.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Its content, whatever its type; fields and members one after the other.
    pub content: Vec<u8>,
    /// Milliseconds to live; -1: for ever.
    pub ttl: i64,
}

impl Redis {
    /// Starts one with a password, on a free port.
    pub async fn start() -> Self {
        let password = canary("redis");
        let arguments = vec!["--requirepass".to_owned(), password.clone()];
        Self::with(format!("redis://:{password}@127.0.0.1"), arguments, None).await
    }

    /// Starts one that speaks TLS, to a named user.
    pub async fn start_tls() -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args([
                "-subj",
                "/CN=127.0.0.1",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-days",
                "2",
            ])
            .args(["-addext", "basicConstraints=critical,CA:false"])
            .args(["-keyout", &path("key.pem"), "-out", &path("cert.pem")])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let password = canary("redis");
        let arguments = [
            "--tls-cert-file",
            &path("cert.pem"),
            "--tls-key-file",
            &path("key.pem"),
            "--tls-ca-cert-file",
            &path("cert.pem"),
            "--tls-auth-clients",
            "no",
            "--user",
            "default",
            "off",
            "--user",
            "cloakroom",
            "on",
            &format!(">{password}"),
            "~cloakroom:*",
            "&*",
            "+@all",
            "-@dangerous",
            "+info",
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        Self::with(
            format!("rediss://cloakroom:{password}@127.0.0.1"),
            arguments,
            Some(folder),
        )
        .await
    }

    async fn with(url: String, arguments: Vec<String>, tls: Option<TempDir>) -> Self {
        let port = free_port();
        let ca = tls.as_ref().map(|folder| folder.path().join("cert.pem"));
        let folder = tls.unwrap_or_else(|| TempDir::new().unwrap());
        let plain = url
            .split_once("://:")
            .map(|(_, rest)| rest.split('@').next().unwrap().to_owned());
        let plain = plain.unwrap_or_default();
        let mut redis = Self {
            url: format!("{url}:{port}/0"),
            ca,
            plain,
            port,
            arguments,
            child: None,
            folder,
        };
        redis.open().await;
        redis
    }

    /// Starts (again) on the same port, empty.
    pub async fn open(&mut self) {
        let port = self.port.to_string();
        let ports = if self.ca.is_some() {
            ["--port", "0", "--tls-port", &port]
        } else {
            ["--port", &port, "--tcp-backlog", "64"]
        };
        let child = Command::new("redis-server")
            .args(ports)
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--daemonize",
                "no",
            ])
            .args(["--dir", self.folder.path().to_str().unwrap()])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let port = self.port;
        until(10, "Redis", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
    }

    /// Ends it, with all it knew.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it in its tracks: connections stay open, nothing answers.
    pub fn pause(&self) {
        signal(self.child.as_ref().unwrap().id(), "STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal(self.child.as_ref().unwrap().id(), "CONT");
    }

    /// A connection of the suite's own (not over TLS).
    pub fn connection(&self) -> redis::Connection {
        let url = format!("redis://:{}@127.0.0.1:{}/0", self.plain, self.port);
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    /// Everything in it.
    pub fn dump(&self) -> Vec<Entry> {
        let mut connection = self.connection();
        let keys: Vec<String> = connection.keys("*").unwrap();
        let mut entries = Vec::new();
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).unwrap();
            let ttl: i64 = connection.pttl(&key).unwrap();
            let parts: Vec<Vec<u8>> = match kind.as_str() {
                "string" => vec![connection.get(&key).unwrap()],
                "hash" => redis::cmd("HGETALL").arg(&key).query(&mut connection).unwrap(),
                "set" => connection.smembers(&key).unwrap(),
                "zset" => connection.zrange(&key, 0, -1).unwrap(),
                "list" => connection.lrange(&key, 0, -1).unwrap(),
                "none" => continue,
                other => panic!("{key} is a {other}"),
            };
            entries.push(Entry {
                key,
                content: parts.concat(),
                ttl,
            });
        }
        entries
    }

    /// Panics where anything in it can be read, or lives for ever (contract 5.5).
    pub fn search(&self) {
        for entry in self.dump() {
            assert!(entry.ttl > 0, "se_07: {} lives for ever", entry.key);
            let content = String::from_utf8_lossy(&entry.content).into_owned();
            secrets::assert_none_in("class_n: a Redis key", &entry.key);
            secrets::assert_none_in("class_n: a Redis value", &content);
            for word in ["alice", "example.com", "127.0.0.1", "access_token"] {
                assert!(
                    !entry.key.contains(word) && !content.contains(word),
                    "{word} in {}",
                    entry.key
                );
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _may_run = std::panic::catch_unwind(|| self.resume());
            if !std::thread::panicking() && self.ca.is_none() {
                self.search();
            }
            self.kill();
        }
    }
}
