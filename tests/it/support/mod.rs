//! The parts of the suite: the real binary, real Redis, a provider of our own that can misbehave, a recording
//! upstream, and a browser over raw sockets that keeps cookies as strictly as browsers do.
//!
//! All servers of the suite live on one runtime of their own, so that a test may block.

pub mod behind;
pub mod browser;
pub mod cloakroom;
pub mod config;
pub mod form;
pub mod h2;
pub mod html;
pub mod jar;
pub mod jwt;
pub mod keys;
pub mod message;
pub mod oidc_provider;
pub mod question;
pub mod redis;
pub mod redis_group;
pub mod refusals;
pub mod rig;
pub mod rogue;
pub mod rogue_endpoints;
pub mod secrets;
pub mod system_clock;
pub mod tls;
pub mod upstream;
pub mod websocket;
pub mod wire;

use socket2::{Domain, Socket, Type};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

/// The runtime on which the suite's own servers live.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    })
}

/// A port that nobody listens on, below the range that outgoing connections take theirs from.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let start = 11_000 + std::process::id() * 157 % 20_000;
        AtomicU16::new(u16::try_from(start).unwrap())
    });
    loop {
        let port = next.fetch_add(1, Ordering::Relaxed);
        let port = if port >= 32_000 {
            11_000 + port % 20_000
        } else {
            port
        };
        if !is_listened_on(port) {
            return port;
        }
    }
}

/// Asks by a socket that does not listen: one that did would be in the way of whoever listens next, for as long as a child
/// that is being started has it still.
pub fn is_listened_on(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())
        .is_err()
}

/// Unix time in seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Waits for `done`, and says what for where it does not come.
pub async fn within<T>(seconds: u64, what: &str, done: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(seconds), done).await;
    waited.unwrap_or_else(|late| panic!("waited {seconds} s for {what}: {late}"))
}

/// Asks again and again until `holds`, at most `seconds` long.
pub async fn until(seconds: u64, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < end, "waited {seconds} s for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sends a signal to one process that the suite started.
pub fn signal(pid: u32, name: &str) {
    let command = format!("kill -{name} {pid}");
    let sent = std::process::Command::new("sh")
        .args(["-c", &command])
        .status()
        .unwrap();
    assert!(sent.success(), "{command}");
}

/// Random bytes, base64url.
pub fn random(bytes: usize) -> String {
    use base64::Engine as _;
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random)
}
