//! The real binary: started, waited for, stopped, and everything it wrote searched for secrets.

use super::browser::{Browser, Reply, Request};
use super::config::Config;
use super::secrets;
use super::{signal, system_clock};
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running cloakroom.
pub struct Cloakroom {
    /// The origin that browsers see.
    pub origin: String,
    /// The public listener's port.
    pub port: u16,
    /// The admin listener's port.
    pub admin: u16,
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    searched: bool,
    _folder: TempDir,
    _config: Config,
}

fn read_into(mut from: impl Read + Send + 'static, output: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let output = output.clone();
    std::thread::spawn(move || {
        let mut piece = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            output.lock().unwrap().extend_from_slice(&piece[..count]);
        }
    })
}

/// The binary with nothing of this process's environment but the path.
fn command() -> Command {
    bare(Command::new(env!("CARGO_BIN_EXE_cloakroom")))
}

fn bare(mut command: Command) -> Command {
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null());
    command
}

/// Runs it to its end, at most ten seconds; what it wrote is searched for secrets.
pub fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut child = command()
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let (out, err) = (Arc::default(), Arc::default());
    let readers = [
        read_into(child.stdout.take().unwrap(), &out),
        read_into(child.stderr.take().unwrap(), &err),
    ];
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("cloakroom {arguments:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    for reader in readers {
        reader.join().unwrap();
    }
    let [stdout, stderr] = [out, err].map(|bytes| bytes.lock().unwrap().clone());
    let output = Output {
        status,
        stdout,
        stderr,
    };
    let text = format!("{}{}", text(&output.stdout), text(&output.stderr));
    if arguments.first() != Some(&"keys") {
        secrets::assert_none_in(&format!("class_n: cloakroom {arguments:?}"), &text);
    }
    assert!(!text.contains("panicked at"), "{text}");
    output
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Cloakroom {
    /// Starts it and waits until it is ready.
    pub async fn start(config: &Config) -> Self {
        let mut cloakroom = Self::spawn(config);
        cloakroom.becomes(200).await;
        cloakroom
    }

    /// Starts it and waits until it listens, ready or not.
    pub async fn start_unready(config: &Config) -> Self {
        let mut cloakroom = Self::spawn(config);
        cloakroom.becomes(0).await;
        cloakroom
    }

    /// Starts it with these limits of open files, and waits until it is ready.
    pub async fn start_with_open_files(soft: u32, hard: u32, config: &Config) -> Self {
        let mut shell = Command::new("sh");
        let limited = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_cloakroom")]);
        let mut cloakroom = Self::spawn_by(bare(shell), config);
        cloakroom.becomes(200).await;
        cloakroom
    }

    fn spawn(config: &Config) -> Self {
        Self::spawn_by(command(), config)
    }

    fn spawn_by(mut command: Command, config: &Config) -> Self {
        let folder = TempDir::new().unwrap();
        let file = config.write(folder.path());
        let mut child = command
            .args(["run", "--config", file.to_str().unwrap()])
            .envs(config.environment.iter().cloned())
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::default();
        let readers = vec![
            read_into(child.stdout.take().unwrap(), &output),
            read_into(child.stderr.take().unwrap(), &output),
        ];
        Self {
            origin: config.public_url(),
            port: config.port,
            admin: config.admin,
            child,
            output,
            readers,
            searched: false,
            _folder: folder,
            _config: config.clone(),
        }
    }

    /// Waits until `/readyz` answers this status (0: until it answers).
    pub async fn becomes(&mut self, status: u16) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                panic!("cloakroom ended with {ended}:\n{}", self.log());
            }
            let admin = SocketAddr::from(([127, 0, 0, 1], self.admin));
            let public = SocketAddr::from(([127, 0, 0, 1], self.port));
            if let Ok(stream) = TcpStream::connect(admin)
                && let Some(found) =
                    ask(stream, "/readyz").and_then(|answer| answer.get(9..12)?.parse::<u16>().ok())
                && (found == status || status == 0)
                && (status != 200 && status != 0 || TcpStream::connect(public).is_ok())
            {
                return;
            }
            assert!(
                Instant::now() < end,
                "/readyz never became {status}:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A fresh browser.
    pub fn browser(&self) -> Browser {
        Browser::new(&self.origin, self.port)
    }

    /// Where browsers reach it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What the admin listener answers.
    pub async fn admin(&self, path: &str) -> Reply {
        let mut browser = Browser::new(&format!("http://127.0.0.1:{}", self.admin), self.admin);
        browser.send(Request::bare("GET", path)).await
    }

    /// What the admin listener answers, with this admin token.
    pub async fn ask_admin(&self, method: &str, path: &str, token: Option<&str>) -> Reply {
        let mut browser = Browser::new(&format!("http://127.0.0.1:{}", self.admin), self.admin);
        let mut request = Request::bare(method, path);
        if let Some(token) = token {
            request = request.with("Authorization", &format!("Bearer {token}"));
        }
        browser.send(request).await
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        text(&self.output.lock().unwrap())
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it holds, bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        kib * 1024
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end: the exit code, or -1 for a signal.
    pub async fn ended(&mut self) -> i32 {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "cloakroom does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it as a supervisor does, and searches what it wrote.
    pub async fn stop(mut self) -> i32 {
        self.metrics();
        self.signal("TERM");
        let code = self.ended().await;
        self.search();
        code
    }

    fn metrics(&self) {
        let admin = SocketAddr::from(([127, 0, 0, 1], self.admin));
        let Ok(stream) = TcpStream::connect_timeout(&admin, Duration::from_millis(200)) else {
            return;
        };
        if let Some(metrics) = ask(stream, "/metrics") {
            secrets::assert_none_in("class_n: /metrics", &metrics);
        }
    }

    fn search(&mut self) {
        self.searched = true;
        for reader in self.readers.drain(..) {
            let _ended = reader.join();
        }
        let log = self.log();
        secrets::assert_none_in("class_n: the log", &log);
        assert!(!log.contains("panicked at"), "{log}");
    }
}

/// One plain GET over a blocking connection, at most half a second.
fn ask(mut stream: TcpStream, path: &str) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let _late = stream.read_to_end(&mut answer);
    Some(text(&answer)).filter(|answer| answer.starts_with("HTTP/1.1 "))
}

impl Drop for Cloakroom {
    fn drop(&mut self) {
        if !self.searched && !std::thread::panicking() {
            self.metrics();
        }
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        system_clock::clear_up(self.child.id());
        if std::thread::panicking() {
            let log = self.log();
            let from = log.floor_char_boundary(log.len().saturating_sub(3000));
            eprintln!("--- the end of cloakroom's log ---\n{}", &log[from..]);
        } else if !self.searched {
            self.search();
        }
    }
}
