//! Upstreams that lie, over HTTP/1.1 and HTTP/2: the browser gets an error or a body that breaks off, in time, and nothing
//! of the flood is kept.

use crate::liar::Lie2;
use crate::siege::{Siege, allowed};
use crate::support::h2;
use crate::support::wire::Wire;
use crate::support::within;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How many ask at one time, for each lie.
const ASKING: usize = 8;

/// What a browser gets of a lie: the status, and whether the body came to a clean end. It reads 4 MB at most, and goes where
/// nothing comes for a while.
async fn told(siege: &Siege, path: &str) -> (u16, bool) {
    let mut wire = Wire::new(TcpStream::connect(siege.rig.cloakroom.address()).await.unwrap());
    let request = format!("GET {path} HTTP/1.1\r\nHost: app.example\r\n\r\n");
    let _cut = wire.send(request.as_bytes()).await;
    let Ok(Some(head)) = wire.head().await else {
        return (0, false);
    };
    let mut framing = head.response_framing("GET");
    let mut left = 4 * 1024 * 1024_usize;
    while left > 0 {
        match timeout(Duration::from_secs(2), wire.piece(&mut framing)).await {
            Ok(Ok(Some(piece))) => left = left.saturating_sub(piece.len()),
            Ok(Ok(None)) => return (head.status(), true),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    (head.status(), false)
}

#[tokio::test]
async fn upstreams_that_lie_are_502_or_break_off_and_leave_nothing_behind() {
    let mut siege = Siege::start(|config| config).await;
    // The lie, the status that the browser is told, and whether the body that follows seems whole.
    for (lie, status, whole) in [
        ("nothing", 502, true),
        ("half-head", 502, true),
        ("many-fields", 502, true),
        ("long-field", 502, true),
        ("long-status", 502, true),
        ("slow-head", 504, true),
        ("interim", 502, true),
        ("empty-lines", 502, true),
        ("bad-chunk", 200, false),
        ("cut-chunk", 200, false),
        ("short-body", 200, false),
        ("chunk-size", 200, false),
        ("chunk-extension", 200, false),
        ("chunk-extensions", 200, false),
        ("trailers", 200, false),
        ("long-trailer", 200, false),
        ("huge-chunk", 200, false),
        ("unasked", 200, true),
    ] {
        siege
            .under(&format!("upstream: {lie}"), allowed(24, 12), async |siege| {
                // The one that is late by itself is not to be waited for long.
                let route = if status == 504 { "brief" } else { "liar" };
                let path = format!("/{route}/{lie}");
                let asking = (0..ASKING).map(|_| told(siege, &path));
                let told = within(30, lie, futures_util::future::join_all(asking)).await;
                for (got, seemed_whole) in told {
                    // What breaks off at once may take its head with it.
                    let none = !whole && got == 0;
                    assert!(
                        (got, seemed_whole) == (status, whole) || none,
                        "{lie}: {got}, {seemed_whole}"
                    );
                }
            })
            .await;
    }
}

/// A response's head over HTTP/2.
fn head(status: &str) -> Vec<u8> {
    h2::block(&[(":status", status)])
}

#[tokio::test]
async fn upstreams_that_lie_over_http2_are_502_or_break_off_and_leave_nothing_behind() {
    let mut siege = Siege::start(|config| config).await;
    // All share a connection, on which the first one's stream is lied to: the others are late, or end with it.
    let lies: [(&str, Lie2); 14] = [
        ("SETTINGS", |_| (Vec::new(), h2::settings(&[]))),
        ("PING", |_| (Vec::new(), h2::frame(h2::PING, 0, 0, b"pingping"))),
        ("CONTINUATION", |s| {
            let more = h2::block(&[("x-flood", "y".repeat(16_000))]);
            (
                h2::frame(h2::HEADERS, 0, s, &head("200")),
                h2::frame(h2::CONTINUATION, 0, s, &more),
            )
        }),
        ("empty CONTINUATION", |s| {
            (
                h2::frame(h2::HEADERS, 0, s, &head("200")),
                h2::frame(h2::CONTINUATION, 0, s, b""),
            )
        }),
        ("interim answers", |s| {
            (Vec::new(), h2::headers(s, &head("103"), false))
        }),
        ("resets", |s| (h2::reset(s, h2::CANCEL), h2::reset(s, h2::CANCEL))),
        ("a window beyond its bound", |s| {
            (h2::window_update(s, (1 << 31) - 1), Vec::new())
        }),
        ("a push", |s| {
            (
                h2::frame(h2::PUSH_PROMISE, h2::END_HEADERS, s, &[0, 0, 0, 2]),
                Vec::new(),
            )
        }),
        ("no HTTP", |_| {
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Vec::new())
        }),
        ("an HPACK bomb", |s| {
            let mut block = head("200");
            block.extend(h2::block::<&str, &str>(&[]));
            block.push(0x40);
            for text in ["x-bomb", &"b".repeat(4_000)] {
                h2::integer(&mut block, 0, 7, text.len());
                block.extend(text.bytes());
            }
            block.extend(std::iter::repeat_n(0xbe, 16_000));
            (h2::headers(s, &block, false), Vec::new())
        }),
        ("DATA beyond the window", |s| {
            (
                h2::headers(s, &head("200"), false),
                h2::data(s, &[b'x'; 16_000], false),
            )
        }),
        ("empty DATA", |s| {
            (h2::headers(s, &head("200"), false), h2::data(s, b"", false))
        }),
        ("a head in the middle of the body", |s| {
            (
                h2::headers(s, &head("200"), false),
                h2::headers(s, &head("200"), false),
            )
        }),
        ("a long trailer", |s| {
            let more = h2::block(&[("x-flood", "y".repeat(16_000))]);
            let first = h2::frame(h2::HEADERS, h2::END_STREAM, s, &more);
            (
                [h2::headers(s, &head("200"), false), first].concat(),
                h2::frame(h2::CONTINUATION, 0, s, &more),
            )
        }),
    ];
    for (name, lie) in lies {
        siege.liar2.lies(lie).await;
        siege
            .under(
                &format!("upstream over HTTP/2: {name}"),
                allowed(24, 12),
                async |siege| {
                    let asking = (0..ASKING).map(|_| told(siege, "/liar2/x"));
                    let told = within(20, name, futures_util::future::join_all(asking)).await;
                    for (got, seemed_whole) in told {
                        assert_ne!((got, seemed_whole), (200, true), "{name}");
                        assert!(matches!(got, 0 | 200 | 502 | 504), "{name}: {got}");
                    }
                },
            )
            .await;
    }
}
