//! The product itself: the binary that this package builds, started as a user would.

use super::http::ask;
use super::process::{Running, in_checkout};
use super::{Provider, Upstream, Wish};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long anything may take before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running cloakroom.
pub struct Cloakroom {
    running: Running,
    /// `public_url`.
    pub origin: String,
}

impl Cloakroom {
    /// `cloakroom run` with this config; returns when it is ready.
    pub async fn run(folder: &Path, origin: String, admin: u16, config: &str) -> Self {
        let file = folder.join("cloakroom.yaml");
        fs::write(&file, config).expect("a config file");
        let mut command = binary();
        command.arg("run").arg("--config").arg(file);
        let app = Self::started(&mut command, folder, origin);
        app.wait_for(&format!("127.0.0.1:{admin}"), "/readyz").await
    }

    /// `cloakroom demo` on this port; returns when its page is there.
    pub async fn demo(folder: &Path, port: u16) -> Self {
        let mut command = binary();
        command.arg("demo").arg("--port").arg(port.to_string());
        let app = Self::started(&mut command, folder, format!("http://localhost:{port}"));
        app.wait_for(&format!("localhost:{port}"), "/").await
    }

    fn started(command: &mut Command, folder: &Path, origin: String) -> Self {
        Self {
            running: Running::start(command, folder.join("cloakroom.log")),
            origin,
        }
    }

    async fn wait_for(mut self, authority: &str, path: &str) -> Self {
        let began = Instant::now();
        loop {
            let answer = ask("GET", authority, path, "").await;
            if matches!(answer, Ok((200, _))) {
                return self;
            }
            assert!(
                !self.running.has_ended(),
                "cloakroom ended at once:\n{}",
                self.log()
            );
            assert!(
                began.elapsed() < DEADLINE,
                "cloakroom is not ready: {answer:?}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.running.output()
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command
        .env_remove("CLOAKROOM_CONFIG")
        .stdout(std::process::Stdio::null());
    command
}

/// A port of this machine that is free on IPv4 and IPv6, and that no other test is given.
///
/// It lies below those that the kernel hands out by itself, to every outgoing connection too: one of those might be gone
/// again until somebody listens on it. Each test process begins elsewhere, so that two suites may run side by side.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Asked by a socket that does not listen: one that did would be in the way of whoever listens next, for as long as a
    // child that is being started has it still.
    let is_free = |port| {
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
            .into_iter()
            .all(|ip| {
                let address = SocketAddr::new(ip, port);
                let bound =
                    Socket::new(Domain::for_address(address), Type::STREAM, None).and_then(|socket| {
                        socket.set_reuse_address(true)?;
                        socket.bind(&address.into())
                    });
                !bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
            })
    };
    let mut ports = std::iter::repeat_with(|| {
        let place = (std::process::id() % 1000) * 100 + GIVEN.fetch_add(1, Ordering::Relaxed);
        u16::try_from(16_000 + place % 16_000).expect("a port below 32000")
    });
    ports
        .by_ref()
        .take(1000)
        .find(|port| is_free(*port))
        .expect("a free port")
}

/// A fresh certificate for the app, in the place where its config looks for it.
pub fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["app.localhost".to_owned()]).expect("a certificate");
    fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).expect("a key file");
    fs::write(folder.join("tls.crt"), made.cert.pem()).expect("a certificate file");
}

/// Where a cloakroom listens.
pub struct Ports {
    pub public: u16,
    pub admin: u16,
    /// The folder of its certificate, where it speaks TLS.
    pub tls: Option<PathBuf>,
    /// Where it leads from http to https, where it speaks TLS.
    pub redirect: u16,
    /// Where it is asked by an ingress.
    pub behind: Option<Behind>,
}

/// An ingress's side.
pub struct Behind {
    pub dialect: &'static str,
    /// Where browsers reach it.
    pub ingress: u16,
    pub forward_auth: u16,
}

/// A config as a user would write it. The provider is named by its own name for the browser, and by its address for
/// cloakroom, because not every system's resolver knows `*.localhost`.
pub fn config(origin: &str, ports: &Ports, op: &Provider, upstream: &Upstream, wish: &Wish) -> String {
    let (issuer, direct, api, spa) = (
        &op.issuer,
        &op.address,
        upstream.origin(),
        in_checkout("tests/browser/pages/spa").display().to_string(),
    );
    let (same_site, session) = (wish.same_site, wish.session);
    let Ports { public, admin, .. } = ports;
    let tls = ports.tls.as_ref().map_or_else(String::new, |folder| {
        let folder = folder.display();
        let redirect = ports.redirect;
        format!(", tls: {{ cert: {folder}/tls.crt, key: {folder}/tls.key }}, redirect: 127.0.0.1:{redirect}")
    });
    let (asked, routes) = match &ports.behind {
        None => (
            String::new(),
            format!(
                "  - {{ path: /api, upstream: {api:?} }}
  - {{ path: /docs, upstream: {api:?}, pages: true }}
  - {{ path: /, static: {{ root: {spa}, fallback: index.html }} }}"
            ),
        ),
        Some(Behind {
            dialect,
            forward_auth,
            ..
        }) => (
            format!(
                ", forward_auth: 127.0.0.1:{forward_auth}, forward_auth_dialect: {dialect}, trusted_proxies: [127.0.0.1]"
            ),
            "  - { path: /api }
  - { path: /docs, pages: true }
  - { path: /, auth: none }"
                .to_owned(),
        ),
    };
    format!(
        "public_url: {origin}
server: {{ listen: 127.0.0.1:{public}, admin: 127.0.0.1:{admin}, drain_delay: 0s, drain_timeout: 1s{tls}{asked} }}
providers:
  main:
    issuer: {issuer}
    discovery_url: {direct}/.well-known/openid-configuration
    endpoints: {{ token: {direct}/token, jwks: {direct}/jwks, revocation: {direct}/token/revocation }}
    client_id: app
    client_secret: \"a secret of the tests & nobody else's\"
    scopes: [openid, profile, email, groups, offline_access]
session:
  cookie: {{ same_site: {same_site} }}
{session}
routes:
{routes}
log: {{ format: json, level: trace }}
"
    )
}
