//! A container without an engine: a read-only root that holds what the base image holds and what is put there, a user
//! without rights, a network of its own. Made by bubblewrap, which needs no root and no daemon.

use super::succeeds;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long a service may take that is quick.
pub const QUICK: Duration = Duration::from_mins(1);
/// Where the image has its binary.
pub const BINARY: &str = "/usr/local/bin/cloakroom";
/// The Debian packages whose libraries gcr.io/distroless/cc has, less the one for C++ and the one for OpenMP.
const BASE: [&str; 2] = ["libc6", "libgcc-s1"];

/// A container that is not running.
pub struct Container {
    bound: Vec<(PathBuf, String)>,
    folder: TempDir,
    user: u32,
    more: Vec<String>,
}

impl Container {
    fn empty() -> Self {
        Self {
            bound: Vec::new(),
            folder: TempDir::new().unwrap(),
            user: 65532,
            more: Vec::new(),
        }
    }

    /// The base image, with this machine's Debian in place of the image's, and a binary.
    pub fn new(binary: &Path) -> Self {
        let mut container = Self::empty().with(&["--dir", "/home/nonroot", "--chdir", "/home/nonroot"]);
        let files = succeeds(Command::new("dpkg-query").arg("-L").args(BASE));
        for library in files.lines().filter_map(library) {
            container.bind(Path::new(library), &format!("/usr{library}"));
        }
        container.bind(binary, BINARY);
        container.file("/etc/nsswitch.conf", "hosts: files dns\n", 0o644);
        container
    }

    /// An image with all programs of this machine.
    pub fn of_this_machine() -> Self {
        let mut container = Self::empty();
        for folder in ["/usr", "/etc"] {
            container.bind(Path::new(folder), folder);
        }
        container
    }

    /// The base image and the binary under test.
    pub fn of_the_suite() -> Self {
        Self::new(Path::new(env!("CARGO_BIN_EXE_cloakroom")))
    }

    /// Run by another user.
    pub fn user(mut self, user: u32) -> Self {
        self.user = user;
        self
    }

    /// With these options of bubblewrap as well.
    pub fn with(mut self, options: &[&str]) -> Self {
        self.more
            .extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Puts a file or folder of this machine there, read-only.
    pub fn bind(&mut self, from: &Path, to: &str) {
        self.bound.push((from.to_owned(), to.to_owned()));
    }

    /// Puts a file there.
    pub fn file(&mut self, path: &str, content: &str, mode: u32) {
        let file = self.folder.path().join(self.bound.len().to_string());
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        self.bound.push((file, path.to_owned()));
    }

    /// The command that runs this in it, as its first process. Nothing of the environment comes along but the network,
    /// and it ends with the caller.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("bwrap");
        command.args("--die-with-parent --unshare-all --share-net --as-pid-1 --clearenv".split(' '));
        command.args("--tmpfs / --proc /proc --dev /dev".split(' '));
        for folder in ["bin", "lib", "lib64"] {
            command.args(["--symlink", &format!("usr/{folder}"), &format!("/{folder}")]);
        }
        for (from, to) in &self.bound {
            command.arg("--ro-bind").arg(from).arg(to);
        }
        let user = self.user.to_string();
        command
            .args(&self.more)
            .args(["--remount-ro", "/", "--cap-drop", "ALL"]);
        command
            .args(["--uid", &user, "--gid", &user, "--"])
            .args(arguments);
        command
    }

    /// Runs this in it to its end: whether it succeeded, and all it wrote.
    pub fn outcome(&self, arguments: &[&str]) -> (bool, String) {
        super::outcome(&mut self.command(arguments))
    }

    /// Runs `cloakroom check` in it: the config has to be good. What it warned of, a line each.
    pub fn check(&self, config: &str) -> Vec<String> {
        let (good, said) = self.outcome(&[BINARY, "check", "--config", config]);
        assert!(good && said.contains("The config is good."), "{said}");
        let warnings = said.lines().filter(|line| line.starts_with("warning: "));
        warnings.map(String::from).collect()
    }
}

/// A command in a container.
pub type Service<'a> = (&'a Container, &'a [&'a str]);

/// Starts services beside each other and waits, so long at most, until a probe succeeds, which must fail before; then stops each with
/// SIGTERM, the last one first, after which it has to end well. What all of them wrote.
///
/// They share a network of their own, so their ports are free. That takes a container around all, and a shell to start
/// them in it.
pub fn together(services: &[Service<'_>], probe: Service<'_>, patience: Duration) -> String {
    let patience = patience.as_secs();
    let probe = shell_line(&probe.0.command(probe.1));
    let folder = TempDir::new().unwrap();
    let (mut starts, mut stops) = (String::new(), String::new());
    for (i, (container, command)) in services.iter().enumerate() {
        let line = shell_line(&container.command(command)).replacen("'bwrap'", "bwrap --info-fd 3", 1);
        let info = folder.path().join(i.to_string()).display().to_string();
        starts = format!("{starts}\n{line} 3>{info} & s{i}=$!; all=\"$all $s{i}\"");
        // The child of bwrap, which is the service itself. 143 is what Java says of a stop by SIGTERM.
        let child = format!(r#"$(sed -n 's/.*"child-pid": *\([0-9]*\).*/\1/p' {info})"#);
        let ended = format!(
            r#"timeout 60 tail --pid=$s{i} -f /dev/null || fail "service {i} does not end"
        wait $s{i}; case $? in 0|143) ;; *) fail "service {i} ended badly" ;; esac"#
        );
        stops = format!("kill -TERM \"{child}\"; {ended}\n{stops}");
    }
    let script = format!(
        r#"
        fail() {{ echo "$1"; exit 1; }}
        {probe} && fail "the probe succeeds before anything runs"
        {starts}
        end=$(($(date +%s) + {patience}))
        until {probe}; do
            kill -0 $all || fail "a service has ended"
            [ "$(date +%s)" -lt $end ] || fail "the probe never succeeds"
            sleep 0.05
        done
        {stops}"#
    );
    let mut around = Command::new("bwrap");
    around.args([
        "--die-with-parent",
        "--unshare-user",
        "--unshare-net",
        "--dev-bind",
        "/",
        "/",
    ]);
    succeeds(around.args(["--", "sh", "-c", &script]))
}

/// The path without `/usr` of a Debian package's file that the dynamic linker looks for, or that is the linker itself.
fn library(file: &str) -> Option<&str> {
    let path = file.strip_prefix("/usr").unwrap_or(file);
    let (folder, name) = path.rsplit_once('/')?;
    let is_one = folder.starts_with("/lib") && folder.matches('/').count() <= 2 && name.contains(".so.");
    is_one.then_some(path)
}

/// A command as a shell reads it.
fn shell_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''")));
    let line: Vec<_> = quoted.collect();
    line.join(" ")
}
