//! Who takes its time: heads and bodies that drip, readers that do not read, upstreams that do not read either. What passes
//! through waits where it comes from; nothing is collected here.

use crate::crowd::connect;
use crate::siege::{Siege, allowed};
use crate::support::browser::Request;
use crate::support::h2::{self, H2};
use crate::support::wire::Wire;
use crate::support::{until, within};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long those who do not read are watched. The other side would fill gigabytes in that time.
const WATCHED: Duration = Duration::from_secs(2);

/// What may come and go meanwhile: the allocator gives memory back a while after it was freed, and the bystander takes some.
const STILL: u64 = 16 * crate::MIB;

#[tokio::test]
async fn lm_01_lm_02_slow_heads_and_bodies_end_in_time() {
    let mut siege = Siege::start(|config| config.set("server.header_timeout", "2s")).await;
    siege
        .twice_under("1000 heads that drip", allowed(48, 12), async |siege| {
            let mut dripping = JoinSet::new();
            for (n, mut stream) in connect(siege, 1_000).await.into_iter().enumerate() {
                dripping.spawn(async move {
                    let begun: &[u8] = match n % 4 {
                        0 => b"",
                        1 => b"GET /api/public/x HTTP/1.1\r\nHost: app.example\r\nX: ",
                        2 => h2::PREFACE.split_at(16).0,
                        _ => b"POST ",
                    };
                    let _cut = stream.write_all(begun).await;
                    let (mut from, mut to) = stream.split();
                    let drips = async {
                        while n % 2 == 1 && to.write_all(b"y").await.is_ok() {
                            sleep(Duration::from_millis(150)).await;
                        }
                        std::future::pending::<()>().await;
                    };
                    let mut answer = Vec::new();
                    tokio::select! {
                        _ended = from.read_to_end(&mut answer) => {}
                        () = drips => {}
                    }
                });
            }
            within(8, "all of them to be cut off", dripping.join_all()).await;
        })
        .await;
    let (cookie, host) = (siege.cookie(), siege.host());
    siege
        .under("300 bodies that drip", allowed(48, 12), async |siege| {
            let mut dripping = JoinSet::new();
            for (n, stream) in connect(siege, 300).await.into_iter().enumerate() {
                let framing = if n % 2 == 0 {
                    "Content-Length: 100000\r\n"
                } else {
                    "Transfer-Encoding: chunked\r\n"
                };
                let head = format!(
                    "POST /api/x HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\n{framing}\r\n"
                );
                dripping.spawn(async move {
                    let begun = Instant::now();
                    let mut wire = Wire::new(stream);
                    wire.send(head.as_bytes()).await.unwrap();
                    let drop: &[u8] = if n % 2 == 0 { b"y" } else { b"1\r\ny\r\n" };
                    loop {
                        let _cut = wire.send(drop).await;
                        if let Ok(answer) = timeout(Duration::from_millis(500), wire.head()).await {
                            assert_eq!(answer.unwrap().unwrap().status(), 408, "{n}");
                            break;
                        }
                        assert!(begun.elapsed() < Duration::from_secs(40), "{n} goes on");
                    }
                });
            }
            dripping.join_all().await;
        })
        .await;
}

/// Connections on each of which this was asked and the answer's head has come.
async fn readers(siege: &Siege, count: usize, path: &str) -> Vec<Wire<TcpStream>> {
    let mut browser = siege.bystander();
    let request = if path.ends_with("socket") {
        Request::bare("GET", path)
            .with("Origin", &siege.rig.cloakroom.origin)
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    } else {
        Request::fetch("GET", path)
    };
    let mut readers = Vec::new();
    for _ in 0..count {
        let (head, wire) = browser.open(&request).await;
        assert!(matches!(head.status(), 101 | 200), "{}", head.start);
        readers.push(wire);
    }
    readers
}

/// Waits until the upstreams get rid of nothing more and what came is where it stays: every buffer on the way is full. A
/// parser of small pieces is busy for a while with what the kernel holds, and asks for nothing meanwhile.
async fn all_stand_still(siege: &Siege) {
    let settling = async {
        let (mut poured, mut resident) = (u64::MAX, 0);
        while siege.liar.poured() != poured || siege.held().resident > resident {
            (poured, resident) = (siege.liar.poured(), siege.held().resident + 64 * 1024);
            sleep(Duration::from_secs(1)).await;
        }
    };
    within(60, "a standstill", settling).await;
}

#[tokio::test]
async fn lm_08_whoever_does_not_read_stops_whoever_sends() {
    let mut siege = Siege::start(|config| config).await;
    let kinds = [
        ("a body", "/api/liar/body"),
        ("chunks", "/api/liar/chunks"),
        ("chunks of one byte", "/api/liar/tiny-chunks"),
        ("events", "/api/liar/events"),
        ("an event without an end", "/api/liar/no-event"),
        ("a WebSocket", "/api/liar/socket"),
    ];
    for (name, path) in kinds {
        // One alone: what it adds is what one may add.
        let name = format!("one who does not read {name}");
        siege
            .under(&name, allowed(2, 8), async |siege| {
                stall(siege, &name, 1, path).await;
            })
            .await;
    }
    // Not those of one byte: to read so many of them on would take half a minute without optimisation.
    for (name, path) in kinds
        .into_iter()
        .filter(|(name, _)| *name != "chunks of one byte")
    {
        let name = format!("50 who do not read {name}");
        siege
            .under(&name, allowed(64, 16), async |siege| {
                stall(siege, &name, 50, path).await;
            })
            .await;
    }
    let (_, body) = kinds[0];
    siege
        .twice_under("50 again", allowed(64, 16), async |siege| {
            stall(siege, "again", 50, body).await;
        })
        .await;
}

/// So many readers who do not read: nothing grows while they are there. One of them reads on at last.
async fn stall(siege: &Siege, name: &str, count: usize, path: &str) {
    let mut readers = readers(siege, count, path).await;
    all_stand_still(siege).await;
    let stalled = siege.held();
    sleep(WATCHED).await;
    let grown = siege.held().resident.saturating_sub(stalled.resident);
    assert!(grown < STILL, "{name}: {grown} bytes more while nothing moves");
    let (before, mut scrap) = (siege.liar.poured(), vec![0; 64 * 1024]);
    let reading = async {
        while siege.liar.poured() < before + crate::MIB {
            assert_ne!(readers[0].stream.read(&mut scrap).await.unwrap(), 0);
        }
    };
    within(60, "what comes after a pause", reading).await;
}

#[tokio::test]
async fn lm_08_uploads_that_nobody_reads_wait_with_the_browser() {
    let mut siege = Siege::start(|config| config).await;
    for (count, allowed) in [(1, allowed(2, 8)), (50, allowed(64, 16))] {
        for (name, framing) in [
            ("uploads", "Content-Length: 1000000000000"),
            ("chunked uploads", "Transfer-Encoding: chunked"),
        ] {
            let name = format!("{count} {name} that nobody reads");
            let head = format!("POST /brief/deaf HTTP/1.1\r\nHost: app.example\r\n{framing}\r\n\r\n");
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
            siege
                .under(&name, allowed, async |siege| {
                    let mut pushing = connect(siege, count).await;
                    let pushing = pushing.iter_mut().map(async |stream| {
                        stream.write_all(head.as_bytes()).await.unwrap();
                        while stream.write_all(&chunk).await.is_ok() {}
                    });
                    // The route gives up 2 s after nothing moves, and its connection 5 s later.
                    within(30, "their end", futures_util::future::join_all(pushing)).await;
                })
                .await;
        }
    }
}

#[tokio::test]
async fn lm_08_streams_that_nobody_reads_wait_as_connections_do() {
    let mut siege = Siege::start(|config| config).await;
    let address = siege.rig.cloakroom.address();
    for window in [0, 1, 1_000] {
        siege
            .under(
                &format!("400 streams with windows of {window}"),
                allowed(64, 16),
                async |siege| {
                    let mut slow = Vec::new();
                    for _ in 0..4 {
                        let mut connection =
                            H2::over(TcpStream::connect(address).await.unwrap(), window).await;
                        let streams: Vec<u32> = (0..100).map(|_| connection.fresh()).collect();
                        let heads = streams
                            .iter()
                            .flat_map(|s| h2::headers(*s, &h2::request("GET", "/liar/body"), true));
                        connection.send(&heads.collect::<Vec<u8>>()).await;
                        let all = |c: &H2<TcpStream>| {
                            streams
                                .iter()
                                .all(|s| c.answers.get(s).is_some_and(|answer| answer.status == 200))
                        };
                        connection.until("their heads", all).await;
                        connection.settle().await;
                        slow.push(connection);
                    }
                    // Each window opens by a byte at a time, for as long as it lasts.
                    let mut crumbs = async |span: Duration| {
                        let end = Instant::now() + span;
                        while Instant::now() < end {
                            for connection in &mut slow {
                                let crumbs = (0..100).flat_map(|n| h2::window_update(2 * n + 1, 1));
                                let crumbs = [h2::window_update(0, 100), crumbs.collect()].concat();
                                connection.flood(&crumbs).await;
                            }
                            sleep(Duration::from_millis(50)).await;
                        }
                    };
                    // What may wait for a browser does so from the first byte on.
                    crumbs(WATCHED / 2).await;
                    all_stand_still(siege).await;
                    let stalled = siege.held();
                    crumbs(WATCHED).await;
                    let grown = siege.held().resident.saturating_sub(stalled.resident);
                    assert!(grown < STILL, "{grown} bytes more while nothing moves");
                },
            )
            .await;
    }
    siege
        .under(
            "100 streams that upload to nobody",
            allowed(64, 16),
            async |siege| {
                let mut connection = H2::connect(address).await;
                let allowed = 100 * 128 * 1024;
                connection.until("the windows", |c| c.window >= allowed).await;
                assert!(connection.window >= allowed);
                let before = siege.liar.asked();
                for _ in 0..100 {
                    let stream = connection.fresh();
                    connection
                        .send(&h2::headers(stream, &h2::request("POST", "/brief/deaf"), false))
                        .await;
                    connection
                        .flood(&h2::data(stream, &vec![b'x'; 60_000], false))
                        .await;
                }
                until(15, "all of them upstream", || siege.liar.asked() >= before + 100).await;
                // What the windows leave.
                let stream_of = |n: u32| 2 * n + 1;
                for n in 0..100 {
                    let rest = vec![b'x'; 128 * 1024 - 60_000];
                    connection.flood(&h2::data(stream_of(n), &rest, false)).await;
                }
                let all = |c: &H2<TcpStream>| (0..100).all(|n| c.answers.contains_key(&stream_of(n)));
                connection.until("504 or a reset for each", all).await;
                assert!(all(&connection) && connection.goaway.is_none());
            },
        )
        .await;
}
