//! Much at once over HTTP/1.1: heads without an end, requests whose answers nobody reads, strangers in thousands, each with
//! something new to remember.

use crate::crowd::{ask, connect, many};
use crate::siege::{Siege, allowed};
use crate::support::random;
use crate::support::tls::Authority;
use crate::support::within;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Writes `first`, then `again` until the other side ends it, at most so many bytes; what comes back is read away.
async fn pour(mut stream: TcpStream, first: &[u8], again: &[u8], most: usize) {
    let _cut = stream.write_all(first).await;
    let (mut from, mut to) = stream.split();
    let pieces = again.repeat((16 * 1024 / again.len()).max(1));
    let pouring = async {
        let mut poured = 0;
        while poured < most && to.write_all(&pieces).await.is_ok() {
            poured += pieces.len();
        }
        let _gone = to.shutdown().await;
    };
    let mut answer = Vec::new();
    let _ended = tokio::join!(pouring, from.read_to_end(&mut answer));
    assert!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn lm_03_heads_without_an_end_are_cut_off() {
    let mut siege = Siege::start(|config| config).await;
    let start = b"GET /api/public/x HTTP/1.1\r\nHost: app.example\r\n";
    let cases: [(&str, &[u8], &[u8]); 8] = [
        ("many lines", start, b"X: y\r\n"),
        (
            "new lines",
            start,
            b"A-rather-long-name-of-a-header-field: with a value\r\n",
        ),
        (
            "a long line",
            b"GET / HTTP/1.1\r\nHost: app.example\r\nX: ",
            b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
        ),
        (
            "a long name",
            b"GET / HTTP/1.1\r\nHost: app.example\r\n",
            b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ),
        ("a long target", b"GET /", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("a long method", b"GET", b"TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT"),
        ("empty lines", b"\r\n", b"\r\n"),
        ("many cookies", start, b"Cookie: a=b\r\n"),
    ];
    for (name, first, again) in cases {
        siege
            .under(
                &format!("100 heads without an end: {name}"),
                allowed(48, 12),
                async |siege| {
                    let address = siege.rig.cloakroom.address();
                    let all = many(100, 50, |_| async move {
                        pour(
                            TcpStream::connect(address).await.unwrap(),
                            first,
                            again,
                            4_000_000,
                        )
                        .await;
                    });
                    within(30, name, all).await;
                },
            )
            .await;
    }
    // An upload in which only the framing grows.
    let post = b"POST /brief/deaf HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (name, again) in [
        (
            "chunk extensions",
            &b"1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nx\r\n"[..],
        ),
        // Takes as long as it is: each byte of it is looked at, and none is kept.
        ("a chunk size", b"0"),
        ("chunks of one byte", b"1\r\nx\r\n"),
        ("trailers", b"0\r\nX: y\r\nX: y\r\nX: y\r\n"),
    ] {
        siege
            .under(&format!("20 uploads of {name}"), allowed(48, 12), async |siege| {
                let address = siege.rig.cloakroom.address();
                let all = many(20, 20, |_| async move {
                    pour(TcpStream::connect(address).await.unwrap(), post, again, 100_000).await;
                });
                within(30, name, all).await;
            })
            .await;
    }
}

#[tokio::test]
async fn lm_08_requests_whose_answers_nobody_reads_are_not_answered_ahead() {
    let mut siege = Siege::start(|config| config).await;
    let (cookie, host) = (siege.cookie(), siege.host());
    for (name, path) in [
        ("a proxied route", "/api/x"),
        ("a file", "/app.js"),
        ("our own answers", "/bff/user"),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\n\r\n"
        );
        siege
            .under(
                &format!("50 pipelines that nobody reads: {name}"),
                allowed(48, 12),
                async |siege| {
                    let before = siege.rig.upstream.count();
                    let mut silent = connect(siege, 50).await;
                    let flood = request.repeat(20_000);
                    let pushing = silent.iter_mut().map(|stream| {
                        // As far as it goes; a second after nothing more does, it is full.
                        timeout(Duration::from_secs(3), stream.write_all(flood.as_bytes()))
                    });
                    futures_util::future::join_all(pushing).await;
                    // In this time thousands are answered for whoever reads.
                    sleep(Duration::from_secs(2)).await;
                    let asked = siege.rig.upstream.count() - before;
                    assert!(asked < 50 * 20_000, "{asked} went up");
                },
            )
            .await;
    }
}

#[tokio::test]
async fn lm_09_strangers_leave_nothing_to_remember() {
    let mut siege = Siege::start(|config| config).await;
    let address = siege.rig.cloakroom.address();
    let host = siege.host();
    let metrics = siege.rig.cloakroom.admin("/metrics").await.text().lines().count();
    type Write = fn(&str) -> String;
    let cases: [(&str, u16, Write); 6] = [
        ("sessions that are not there", 401, |host| {
            let cookie = random(32);
            format!("GET /api/x HTTP/1.1\r\nHost: {host}\r\nCookie: __Host-Http-cloakroom={cookie}\r\n")
        }),
        ("paths that are not there", 404, |host| {
            format!("GET /bff/{} HTTP/1.1\r\nHost: {host}\r\n", random(200))
        }),
        ("methods that nobody knows", 401, |host| {
            let method: String = random(12).chars().filter(char::is_ascii_alphabetic).collect();
            format!("M{method} /api/x HTTP/1.1\r\nHost: {host}\r\n")
        }),
        ("hosts that are not ours", 421, |_| {
            let host: String = random(12).chars().filter(char::is_ascii_alphabetic).collect();
            format!("GET /api/x HTTP/1.1\r\nHost: {host}.example\r\n")
        }),
        ("callbacks that nobody began", 400, |host| {
            format!(
                "GET /bff/callback?code={}&state={} HTTP/1.1\r\nHost: {host}\r\n",
                random(20),
                random(32)
            )
        }),
        ("logins that are not finished", 302, |host| {
            let page = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: none\r\n";
            format!(
                "GET /bff/login?return_to=/{} HTTP/1.1\r\nHost: {host}\r\n{page}",
                random(100)
            )
        }),
    ];
    for (name, status, write) in cases {
        siege
            .under(&format!("1500 {name}"), allowed(24, 12), async |_| {
                let host = &host;
                many(1_500, 50, |_| {
                    let request = write(host) + "Connection: close\r\n\r\n";
                    async move { assert_eq!(ask(address, request.as_bytes()).await, status, "{request}") }
                })
                .await;
            })
            .await;
    }
    let now = siege.rig.cloakroom.admin("/metrics").await.text().lines().count();
    assert!(now < metrics + 60, "{metrics} lines of metrics became {now}");
    siege
        .under("3000 connections that come and go", allowed(24, 12), async |_| {
            many(3_000, 50, |n| async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let said: &[u8] = match n % 5 {
                    0 => b"",
                    1 => b"\x16\x03\x01\x02\x00\x01\x00",
                    2 => b"GET / HTTP/1.1\r\nHost: app.exa",
                    3 => b"\0\xff\0\xff\r\n\r\n",
                    _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0",
                };
                let _cut = stream.write_all(said).await;
                // A reset instead of an end, now and then.
                if n % 3 == 0 {
                    let _unset = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn lm_10_handshakes_that_stop_half_way_end_in_time() {
    let authority = Authority::new();
    let mut siege = Siege::over_tls(&authority, |config| config.set("server.header_timeout", "2s")).await;
    let connector = authority.client(&["h2"]);
    siege
        .under(
            "600 handshakes that stop, or lead to nothing",
            allowed(64, 12),
            async |siege| {
                let mut stopping = JoinSet::new();
                for (n, mut stream) in connect(siege, 600).await.into_iter().enumerate() {
                    let connector = connector.clone();
                    stopping.spawn(async move {
                        let mut answer = Vec::new();
                        let begun: &[u8] = match n % 3 {
                            // A record that says it is longer than what comes of it, and one that is no handshake.
                            0 => b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03",
                            1 => b"\x17\x03\x03\x40\x00",
                            _ => {
                                let name = "app.localhost".try_into().unwrap();
                                let mut secured = connector.connect(name, stream).await.unwrap();
                                let _ended = secured.read_to_end(&mut answer).await;
                                return;
                            }
                        };
                        let _cut = stream.write_all(begun).await;
                        let _ended = stream.read_to_end(&mut answer).await;
                    });
                }
                within(15, "all of them to be cut off", stopping.join_all()).await;
            },
        )
        .await;
}
