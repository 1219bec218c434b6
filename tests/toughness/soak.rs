//! Ordinary load of every kind for a long time, and nothing that grows: signed-in sessions whose tokens live for seconds,
//! logins and logouts, uploads, downloads, event streams, WebSockets, HTTP/2, files, strangers, and browsers that leave in the
//! middle of anything. Memory and file descriptors are sampled; the medians of the last third are held against those of the
//! first after a warm-up.
//!
//! `SOAK_SECONDS=3600 cargo test --release --test toughness soak -- --nocapture` for the hour; without it a minute and a half.

use crate::crowd::make_room;
use crate::liar::{Liar, listen};
use crate::siege::{files, turn};
use crate::support::browser::SESSION;
use crate::support::cloakroom::Cloakroom;
use crate::support::config::Config;
use crate::support::free_port;
use crate::support::h2::{self, H2};
use crate::support::oidc_provider::OidcProvider;
use crate::support::secrets::canary;
use crate::support::upstream::echo;
use crate::support::websocket;
use crate::support::wire::{Head, Wire};
use crate::visitor::Visitor;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long it goes on, unless `SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 90;
/// Its first quarter, in which all comes to be that is needed.
const WARM_UP: usize = 4;
/// How much more memory the last third may hold than the first, bytes: the allocator's pieces never fit alike. Of the hundred
/// requests in a second each would leave some 20 bytes, if it took an hour to leave so much.
const MORE_MEMORY: u64 = 4 * crate::MIB;
/// And how many more descriptors.
const MORE_FILES: u64 = 12;
/// How long an access token lives, seconds.
const TOKEN: u64 = 4;
/// How long a session lives at most.
const SESSION_FOR: Duration = Duration::from_secs(20);
/// Bytes.
const UPLOAD: usize = 1024 * 1024;
const DOWNLOAD: usize = 2 * 1024 * 1024;

/// What the load has done so far, by kind.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    fn add(&self, kind: &'static str) {
        *self.0.lock().unwrap().entry(kind).or_default() += 1;
    }
}

/// What all browsers share.
struct Site {
    origin: String,
    port: u16,
    over: Instant,
    tally: Tally,
}

impl Site {
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.over
    }

    fn host(&self) -> &str {
        self.origin.split("//").nth(1).unwrap()
    }

    async fn sign_in(&self, name: &str) -> Visitor {
        let mut visitor = Visitor::new(&self.origin);
        visitor.sign_in(self.port, name).await.unwrap();
        self.tally.add("logins");
        visitor
    }

    /// Sends a request by hand with this browser's cookie; the answer's head.
    async fn open(&self, visitor: &Visitor, line: &str, more: &str, body: &[u8]) -> (Head, Wire<TcpStream>) {
        let mut wire = Wire::new(TcpStream::connect(self.address()).await.unwrap());
        let cookie = cookie(visitor, self.host());
        let host = self.host();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nOrigin: {}\r\nSec-Fetch-Site: same-origin\r\nCookie: {cookie}\r\n{more}\r\n",
            self.origin
        );
        wire.send(head.as_bytes()).await.unwrap();
        wire.send(body).await.unwrap();
        let head = timeout(Duration::from_secs(15), wire.head())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        (head, wire)
    }
}

fn cookie(visitor: &Visitor, host: &str) -> String {
    let mine = visitor.jar.named(host.split(':').next().unwrap(), SESSION);
    let session = mine.iter().find(|cookie| cookie.name == SESSION);
    session.map_or(String::new(), |cookie| format!("{SESSION}={}", cookie.value))
}

/// Asks now and then, as somebody whose token has to be renewed all the while; signs in again when the session is over.
async fn guest(site: Arc<Site>, n: usize) {
    let mut visitor = site.sign_in(&format!("guest{n}")).await;
    while site.goes_on() {
        sleep(Duration::from_millis(150 + 37 * (n as u64 % 8))).await;
        let reply = visitor.fetch(site.port, "/api/x").await.unwrap();
        match reply.status {
            200 => site.tally.add("requests"),
            401 => visitor = site.sign_in(&format!("guest{n}")).await,
            status => panic!("{status} {}", reply.text()),
        }
    }
}

/// Signs in, looks around, signs out; now and then it only goes away.
async fn passer_by(site: Arc<Site>, n: usize) {
    for round in 0.. {
        if !site.goes_on() {
            return;
        }
        let mut visitor = site.sign_in(&format!("passer{n}")).await;
        assert_eq!(visitor.fetch(site.port, "/bff/user").await.unwrap().status, 200);
        if round % 4 != 0 {
            let (head, _) = site
                .open(&visitor, "POST /bff/logout", "Content-Length: 0\r\n", b"")
                .await;
            assert_eq!(head.status(), 303);
            assert_eq!(visitor.fetch(site.port, "/api/x").await.unwrap().status, 401);
            site.tally.add("logouts");
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Uploads, downloads, streams and tunnels, by turns; of each kind some are left in the middle.
async fn streamer(site: Arc<Site>, n: usize) {
    let name = format!("streamer{n}");
    let (mut visitor, mut since) = (site.sign_in(&name).await, Instant::now());
    let megabyte = vec![b'u'; UPLOAD];
    for round in n.. {
        if !site.goes_on() {
            return;
        }
        // Before its session's end, which would end what is under way.
        if since.elapsed() > SESSION_FOR / 2 {
            (visitor, since) = (site.sign_in(&name).await, Instant::now());
        }
        let leaves = round % 3 == 0;
        match round % 5 {
            0 => {
                let length = UPLOAD + usize::from(leaves);
                let more = format!("Content-Length: {length}\r\n");
                let sent = site.open(&visitor, "POST /api/upload", &more, &megabyte);
                match timeout(Duration::from_millis(if leaves { 300 } else { 15_000 }), sent).await {
                    Ok((head, _)) => assert_eq!((head.status(), leaves), (200, false)),
                    Err(_) => assert!(leaves),
                }
                site.tally.add("uploads");
            }
            1 => {
                let (head, mut wire) = site.open(&visitor, "GET /api/download", "", b"").await;
                assert_eq!(head.status(), 200);
                if !leaves {
                    let body = wire.body(head.response_framing("GET")).await.unwrap();
                    assert_eq!(body.len(), DOWNLOAD);
                }
                site.tally.add("downloads");
            }
            2 => {
                let (head, mut wire) = site
                    .open(
                        &visitor,
                        "GET /api/liar/events",
                        "Accept: text/event-stream\r\n",
                        b"",
                    )
                    .await;
                let mut framing = head.response_framing("GET");
                for _ in 0..50 {
                    wire.piece(&mut framing).await.unwrap().unwrap();
                }
                site.tally.add("event streams");
            }
            3 => {
                let more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                let (head, mut wire) = site.open(&visitor, "GET /api/ws", more, b"").await;
                assert_eq!(head.status(), 101);
                for _ in 0..20 {
                    websocket::write(&mut wire, websocket::TEXT, b"hello", true)
                        .await
                        .unwrap();
                    assert_eq!(websocket::read(&mut wire).await.unwrap().1, b"hello");
                }
                if !leaves {
                    websocket::write(&mut wire, websocket::CLOSE, b"", true)
                        .await
                        .unwrap();
                    websocket::read(&mut wire).await.unwrap();
                }
                site.tally.add("WebSockets");
            }
            _ => {
                // An answer that nobody reads, for a while.
                let (head, _wire) = site.open(&visitor, "GET /api/liar/body", "", b"").await;
                assert_eq!(head.status(), 200);
                sleep(Duration::from_millis(500)).await;
                site.tally.add("slow readers");
            }
        }
    }
}

/// Twenty streams at a time over HTTP/2, some of which are given up.
async fn browser2(site: Arc<Site>, n: usize) {
    let name = format!("browser{n}");
    let mut visitor = site.sign_in(&name).await;
    while site.goes_on() {
        let mut connection = H2::connect(site.address()).await;
        let cookie = cookie(&visitor, site.host());
        let mut asked = Vec::new();
        for round in 0..20 {
            let path = if round % 2 == 0 { "/api/x" } else { "/app.js" };
            let fields = [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", site.host()),
                (":path", path),
                ("sec-fetch-site", "same-origin"),
                ("cookie", &cookie),
            ];
            let stream = connection.open(&fields, true).await;
            if round % 7 == 3 {
                connection.send(&h2::reset(stream, h2::CANCEL)).await;
            } else {
                asked.push(stream);
            }
        }
        let mut is_gone = false;
        for stream in asked {
            let answer = connection.answer(stream).await;
            assert!(matches!(answer.status, 200 | 401), "{answer:?}");
            is_gone |= answer.status == 401;
            site.tally.add("HTTP/2 streams");
        }
        if is_gone {
            visitor = site.sign_in(&name).await;
        }
        sleep(Duration::from_millis(150)).await;
    }
}

/// Who has no session: files, refusals, logins that are begun, and requests that break off.
async fn stranger(site: Arc<Site>, n: usize) {
    let host = site.host().to_owned();
    for round in n.. {
        if !site.goes_on() {
            return;
        }
        let (request, wanted) = match round % 7 {
            0 => (format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 200),
            1 => (
                format!("GET /app.js HTTP/1.1\r\nHost: {host}\r\nRange: bytes=0-3\r\n\r\n"),
                206,
            ),
            2 => (format!("GET /api/x HTTP/1.1\r\nHost: {host}\r\n\r\n"), 401),
            3 => (format!("GET /nothing HTTP/1.1\r\nHost: {host}\r\n\r\n"), 404),
            4 => (
                format!(
                    "GET /bff/login HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: none\r\n\r\n"
                ),
                302,
            ),
            5 => (
                format!(
                    "POST /api/public/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
                ),
                400,
            ),
            _ => (format!("GET /api/public/x HTTP/1.1\r\nHost: {host}\r\nX: "), 0),
        };
        let mut wire = Wire::new(TcpStream::connect(site.address()).await.unwrap());
        wire.send(request.as_bytes()).await.unwrap();
        if wanted != 0 {
            let head = timeout(Duration::from_secs(15), wire.head())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert_eq!(head.status(), wanted, "{request}");
        }
        site.tally.add("strangers");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The API, which remembers nothing: an upload's end, a download, an echo, and a word for everything else.
async fn serve(mut wire: Wire<TcpStream>) -> std::io::Result<()> {
    while let Some(head) = wire.head().await? {
        let mut framing = head.request_framing();
        while wire.piece(&mut framing).await?.is_some() {}
        if head.value("sec-websocket-key").is_some() {
            return echo(wire, &head).await;
        }
        let length = if head.start.contains("/download") {
            DOWNLOAD
        } else {
            2
        };
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())
            .await?;
        wire.send(&vec![b'd'; length]).await?;
    }
    Ok(())
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    make_room();
    let _turn = turn().await;
    let seconds = std::env::var("SOAK_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let (api, liar, secret) = (
        listen(|stream| serve(Wire::new(stream))).await,
        Liar::start().await,
        canary("client-secret"),
    );
    let port = free_port();
    let config = Config::new(
        &format!("http://127.0.0.1:{port}"),
        &secret,
        &format!("http://{}", api.0),
    )
    .set("log.level", "warn")
    // Sessions come and go many times over, also those that nobody ends.
    .set("session.idle_timeout", "8s")
    .set("session.absolute_timeout", format!("{}s", SESSION_FOR.as_secs()))
    .set("session.refresh_before", "2s")
    .route(json!({ "path": "/api/liar", "upstream": liar.url() }));
    let origin = config.public_url();
    let _provider = OidcProvider::start(&json!({
        "issuer_host": "127.0.0.1",
        "port": port,
        "clients": [{
            "client_id": "app",
            "client_secret": secret,
            "redirect_uris": [format!("{origin}/bff/callback")],
            "post_logout_redirect_uris": [format!("{origin}/")],
        }],
        "access_token_ttl": TOKEN,
        "login": "auto",
    }));
    let cloakroom = Cloakroom::start(&config).await;
    let begun = Instant::now();
    let site = Arc::new(Site {
        origin,
        port: config.port,
        over: begun + Duration::from_secs(seconds),
        tally: Tally::default(),
    });
    let mut load = JoinSet::new();
    for n in 0..12 {
        load.spawn(guest(site.clone(), n));
    }
    for n in 0..2 {
        load.spawn(passer_by(site.clone(), n));
        load.spawn(browser2(site.clone(), n));
        load.spawn(stranger(site.clone(), n));
    }
    for n in 0..5 {
        load.spawn(streamer(site.clone(), n));
    }
    let every = Duration::from_millis((seconds * 1_000 / 400).clamp(200, 5_000));
    let (mut samples, mut shown) = (Vec::new(), 0);
    println!("{:>8} {:>10} {:>6}", "seconds", "KiB", "files");
    while site.goes_on() {
        sleep(every).await;
        let at = begun.elapsed().as_secs();
        let (resident, open) = (cloakroom.resident(), files(cloakroom.id()));
        samples.push((resident, open as u64));
        if at * 12 / seconds > shown {
            shown = at * 12 / seconds;
            println!("{at:>8} {:>10} {open:>6}", resident / 1024);
        }
        if let Some(ended) = load.try_join_next() {
            ended.unwrap();
        }
    }
    load.join_all().await;
    for (kind, count) in &*site.tally.0.lock().unwrap() {
        println!("{kind:<16} {count:>10}");
    }
    let warm = &samples[samples.len() / WARM_UP..];
    let third = warm.len() / 3;
    let of = |part: &[(u64, u64)]| {
        let memory = median(part.iter().map(|(memory, _)| *memory).collect());
        (memory, median(part.iter().map(|(_, files)| *files).collect()))
    };
    let (first, last) = (of(&warm[..third]), of(&warm[warm.len() - third..]));
    println!(
        "first third: {} KiB, {} files; last third: {} KiB, {} files",
        first.0 / 1024,
        first.1,
        last.0 / 1024,
        last.1
    );
    assert!(last.0 < first.0 + MORE_MEMORY, "memory grows");
    assert!(last.1 < first.1 + MORE_FILES, "descriptors grow");
}
