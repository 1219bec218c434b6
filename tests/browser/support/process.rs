//! Child processes that end with their owner, and the folders that tests write to.

use super::DEADLINE;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A child that is killed, and waited for, when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command` with its stderr, and its stdout unless that is piped already, in `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = fs::File::create(&log).expect("a log file");
        let child = command.stderr(file).spawn().unwrap_or_else(|error| {
            let program = command.get_program().display();
            match error.kind() {
                ErrorKind::NotFound => {
                    panic!("{program} is not installed: run tests/run, which installs what the tests need")
                }
                _ => panic!("{program} does not start: {error}"),
            }
        });
        Self { child, log }
    }

    /// The first line of a piped stdout for which `wanted` has an answer. The rest of it is read and forgotten.
    pub fn first_line<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let lines = BufReader::new(self.child.stdout.take().expect("a piped stdout")).lines();
        let (said, heard) = mpsc::sync_channel(16);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Nobody listens any more once it is ready; it must not be stopped by a full pipe.
                let _ = said.send(line);
            }
        });
        let (began, mut lines) = (Instant::now(), Vec::new());
        loop {
            match heard.recv_timeout(DEADLINE.saturating_sub(began.elapsed())) {
                Ok(line) => match wanted(&line) {
                    Some(found) => return found,
                    None => lines.push(line),
                },
                Err(why) => {
                    let (ended, log) = (self.child.try_wait(), self.output());
                    panic!("not ready: {why}; it ended: {ended:?}; it said {lines:?} and:\n{log}")
                }
            }
        }
    }

    /// What it wrote to its log so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child that can be asked")
            .is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.stdin.take();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<_> = output.lines().rev().take(30).collect();
            eprintln!("--- the end of {}:", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Kills every process whose command line names `folder`, and waits until they are gone: a driver's browser outlives it.
pub fn kill_users_of(folder: &Path) {
    let name = folder.display().to_string();
    let alive = || {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let uses = |entry: &fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&name)
        };
        all.filter(uses)
            .filter_map(|entry| entry.file_name().into_string().ok()?.parse().ok())
            .collect::<Vec<u32>>()
    };
    let began = Instant::now();
    while let pids @ [_, ..] = alive().as_slice()
        && began.elapsed() < DEADLINE
    {
        let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
        let _ = Command::new("sh")
            .args(["-c", &format!("kill -KILL {}", pids.join(" "))])
            .stderr(Stdio::null())
            .status();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A new folder for one test, removed with it.
pub fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("browser-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a folder")
}

/// Where something is kept that the checkout brings along.
pub fn in_checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
