//! A real nginx or Caddy with the very files of `deploy/`: only addresses and names are put into them.
//!
//! For the suites `it` and `browser` alike, which each build a world of their own behind it.

use std::fmt::{Display, Formatter};
use std::fs::{File, create_dir_all, read_to_string, write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `auth_request`.
    Nginx,
    /// `forward_auth`.
    Caddy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Nginx, Self::Caddy];

    /// `server.forward_auth_dialect`.
    pub fn dialect(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "forwarded",
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Who stands where, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The ingress: what browsers know as `app.localhost`.
    pub ingress: u16,
    /// `server.listen`.
    pub public: u16,
    /// `server.forward_auth`.
    pub forward_auth: u16,
    /// The app.
    pub app: u16,
}

/// A running ingress.
pub struct Ingress {
    /// What it is.
    pub kind: Kind,
    child: Child,
    folder: TempDir,
}

impl Ingress {
    /// Starts it and waits until it listens.
    pub fn start(kind: Kind, places: Places) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut command = match kind {
            Kind::Nginx => nginx(folder.path(), places),
            Kind::Caddy => caddy(folder.path(), places),
        };
        let log = File::create(folder.path().join("log")).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{kind} does not start ({error}): run tests/run, which installs what the tests need")
        });
        let mut ingress = Self { kind, child, folder };
        let address = SocketAddr::from(([127, 0, 0, 1], places.ingress));
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = ingress.child.try_wait().expect("a child that can be asked");
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "{kind} does not listen: {ended:?}"
            );
            sleep(Duration::from_millis(10));
        }
        ingress
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        // nginx ends its workers only where it is asked to.
        let ask = format!("kill -TERM {}", self.child.id());
        let _asked = Command::new("sh").args(["-c", &ask]).status();
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < PATIENCE {
            sleep(Duration::from_millis(5));
        }
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            let log = read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let from = log.floor_char_boundary(log.len().saturating_sub(3000));
            eprintln!("--- the end of the log of {} ---\n{}", self.kind, &log[from..]);
        }
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Copies a file of `deploy/` with real places instead of the example's, each of which must be there.
fn copy(file: &str, into: &Path, examples: &[(&str, String)]) {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut text = read_to_string(deploy.join(file)).unwrap_or_else(|error| panic!("deploy/{file}: {error}"));
    // In two steps: a real port may begin with an example's digits.
    for (n, (example, _)) in examples.iter().enumerate() {
        assert!(text.contains(example), "no {example} in deploy/{file}");
        text = text.replace(example, &format!("\u{1}{n}\u{1}"));
    }
    for (n, (_, real)) in examples.iter().enumerate() {
        text = text.replace(&format!("\u{1}{n}\u{1}"), real);
    }
    create_dir_all(into.parent().expect("a file in a folder")).expect("a folder");
    write(into, text).expect("a file");
}

/// As on Debian: `conf.d`, `snippets` and `sites-available` beside the main file, of which only that is the test's own.
fn nginx(folder: &Path, places: Places) -> Command {
    let files: [(&str, &[(&str, String)]); 4] = [
        (
            "conf.d/cloakroom.conf",
            &[
                ("127.0.0.1:8080", address(places.public)),
                ("127.0.0.1:9091", address(places.forward_auth)),
            ],
        ),
        ("snippets/cloakroom-server.conf", &[]),
        ("snippets/cloakroom-guard.conf", &[]),
        (
            "sites-available/app.conf",
            &[
                ("listen 80;", format!("listen {};", address(places.ingress))),
                ("app.example.com", "app.localhost".to_owned()),
                ("127.0.0.1:3000", address(places.app)),
            ],
        ),
    ];
    for (file, examples) in files {
        copy(&format!("nginx/{file}"), &folder.join(file), examples);
    }
    let main = "daemon off; worker_processes 1; pid pid; error_log stderr info; events { }\n\
        http { access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
        uwsgi_temp_path uwsgi; scgi_temp_path scgi; include conf.d/*.conf; include sites-available/*.conf; }\n";
    write(folder.join("nginx.conf"), main).expect("a file");
    let mut command = Command::new("nginx");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.arg("-p").arg(folder).args(["-e", "stderr", "-c"]);
    command.arg(folder.join("nginx.conf"));
    command
}

/// The example's Caddyfile, imported by one that only turns the admin endpoint's fixed port off.
fn caddy(folder: &Path, places: Places) -> Command {
    copy(
        "caddy/cloakroom.caddy",
        &folder.join("cloakroom.caddy"),
        &[
            ("127.0.0.1:8080", address(places.public)),
            ("127.0.0.1:9091", address(places.forward_auth)),
        ],
    );
    let site = format!("http://app.localhost:{} {{\n\tbind 127.0.0.1", places.ingress);
    copy(
        "caddy/Caddyfile",
        &folder.join("site.caddy"),
        &[
            ("app.example.com {", site),
            ("127.0.0.1:3000", address(places.app)),
        ],
    );
    let main = "{\n\tadmin off\n}\nimport site.caddy\n";
    write(folder.join("Caddyfile"), main).expect("a file");
    let mut command = Command::new("caddy");
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder);
    command.args(["run", "--adapter", "caddyfile", "--config"]);
    command.arg(folder.join("Caddyfile"));
    command
}
