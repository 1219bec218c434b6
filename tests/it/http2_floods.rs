//! HTTP/2 as a weapon: each attack is bounded in time and in what it makes us hold, and nobody else notices it.
//!
//! Sources: RFC 9113 §10.5; CVE-2023-44487 (rapid reset), CVE-2024-27316 and its kin (CONTINUATION), CVE-2025-8671 (resets
//! that the server is made to send), CVE-2019-9512, -9515, -9518 (PING, SETTINGS, empty DATA), CVE-2016-6581 (HPACK bomb).

use crate::support::h2::{self, H2};
use crate::support::rig::Rig;
use crate::support::upstream::{After, Play};
use crate::support::{until, within};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const MIB: u64 = 1024 * 1024;

/// What a client does wrong, and its frames on a stream.
type Mistake<'a> = (&'a str, Box<dyn Fn(u32) -> Vec<u8> + 'a>);

async fn rig() -> Rig {
    let rig = Rig::start().await;
    rig.upstream
        .on("/api/public/hang", Play::Pieces(Vec::new(), After::Hang));
    rig.upstream.on("/api/public/deaf", Play::Deaf);
    rig
}

async fn connect(rig: &Rig) -> H2<TcpStream> {
    H2::connect(rig.cloakroom.address()).await
}

/// The connection was ended for what it did.
fn is_ended(connection: &H2<TcpStream>) -> bool {
    connection.closed || connection.goaway.is_some()
}

/// Others are answered, not much memory was taken, and no upstream work is left.
async fn assert_unharmed(rig: &Rig, before: u64, name: &str) {
    let asked = within(5, name, async {
        let mut honest = connect(rig).await;
        let stream = honest.fresh();
        honest
            .send(&h2::headers(
                stream,
                &h2::request("GET", "/api/public/honest"),
                true,
            ))
            .await;
        honest.answer(stream).await
    });
    assert_eq!(asked.await.status, 200, "{name}");
    let grown = rig.cloakroom.resident().saturating_sub(before);
    assert!(grown < 64 * MIB, "{name}: {} MiB more", grown / MIB);
    // One connection may be kept for the next request.
    until(5, &format!("the end of what {name} began"), || {
        rig.upstream.connections() - rig.upstream.ended() <= 100
    })
    .await;
}

#[tokio::test]
async fn lm_04_class_h_rapid_resets_end_the_connection_and_their_upstream_work() {
    let rig = rig().await;
    let before = rig.cloakroom.resident();
    for (name, path, apart) in [
        // Before a stream is taken up, and after.
        ("resets at once", "/api/public/hang", 10_000),
        ("resets in rounds", "/api/public/hang", 50),
        ("resets of what is answered", "/api/public/x", 10_000),
    ] {
        let mut connection = connect(&rig).await;
        let mut begun = 0;
        while begun < 10_000 && !is_ended(&connection) {
            let mut flood = Vec::new();
            let streams: Vec<u32> = (0..apart.min(10_000)).map(|_| connection.fresh()).collect();
            if apart == 50 {
                let heads: Vec<u8> = streams
                    .iter()
                    .flat_map(|s| h2::headers(*s, &h2::request("GET", path), true))
                    .collect();
                connection.flood(&heads).await;
                connection.settle().await;
                flood.extend(streams.iter().flat_map(|s| h2::reset(*s, h2::CANCEL)));
            } else {
                for stream in &streams {
                    flood.extend(h2::headers(*stream, &h2::request("GET", path), true));
                    flood.extend(h2::reset(*stream, h2::CANCEL));
                }
            }
            connection.flood(&flood).await;
            begun += streams.len();
        }
        connection.until("the end", |c| c.goaway.is_some()).await;
        assert!(is_ended(&connection), "{name}");
        if let Some((_, code)) = connection.goaway {
            assert_eq!(code, h2::ENHANCE_YOUR_CALM, "{name}");
        }
        assert!(
            rig.upstream.count() < 1_500,
            "{name}: {} went up",
            rig.upstream.count()
        );
        assert_unharmed(&rig, before, name).await;
    }
    until(5, "the end of all upstream work", || {
        rig.upstream.connections() - rig.upstream.ended() <= 3
    })
    .await;
}

#[tokio::test]
async fn lm_04_no_more_streams_than_were_offered_are_taken_up() {
    let rig = rig().await;
    let before = rig.cloakroom.resident();
    let mut connection = connect(&rig).await;
    let streams: Vec<u32> = (0..150).map(|_| connection.fresh()).collect();
    let flood: Vec<u8> = streams
        .iter()
        .flat_map(|stream| h2::headers(*stream, &h2::request("GET", "/api/public/hang"), true))
        .collect();
    connection.flood(&flood).await;
    connection.settle().await;
    until(5, "those that are taken", || rig.upstream.count() >= 100).await;
    let refused = streams.iter().filter(|stream| {
        let answer = connection.answers.get(stream);
        answer.is_some_and(|answer| answer.reset == Some(h2::REFUSED_STREAM))
    });
    assert_eq!((refused.count(), rig.upstream.count()), (50, 100));
    // Who goes on like that is not listened to.
    for _ in 0..20 {
        let streams: Vec<u32> = (0..50).map(|_| connection.fresh()).collect();
        let flood = streams
            .iter()
            .flat_map(|stream| h2::headers(*stream, &h2::request("GET", "/api/public/x"), true));
        connection.flood(&flood.collect::<Vec<u8>>()).await;
        if !is_ended(&connection) {
            connection.settle().await;
        }
    }
    assert_eq!(
        connection.goaway.map(|(_, code)| code),
        Some(h2::ENHANCE_YOUR_CALM)
    );
    assert_eq!(rig.upstream.count(), 100);
    drop(connection);
    assert_unharmed(&rig, before, "too many streams").await;
}

#[tokio::test]
async fn lm_05_class_h_a_header_block_has_an_end() {
    let rig = rig().await;
    let before = rig.cloakroom.resident();
    let literal = |length: usize| h2::block(&[("x-flood", "y".repeat(length))]);
    let floods: [(&str, Vec<u8>, usize); 5] = [
        ("large CONTINUATIONs", literal(16_000), 5_000),
        ("small CONTINUATIONs", literal(1), 100_000),
        ("empty CONTINUATIONs", Vec::new(), 200_000),
        ("CONTINUATIONs of one byte", vec![0x10], 100_000),
        ("table size updates", vec![0x20; 1_000], 20_000),
    ];
    for (name, payload, count) in floods {
        let mut connection = connect(&rig).await;
        let stream = connection.fresh();
        let first = h2::frame(
            h2::HEADERS,
            h2::END_STREAM,
            stream,
            &h2::request("GET", "/api/public/flood"),
        );
        let more = h2::frame(h2::CONTINUATION, 0, stream, &payload);
        connection.flood(&first).await;
        // As long as it is listened to, at most 80 MB.
        let (piece, mut sent) = (more.repeat(100), 0);
        while sent < count && !is_ended(&connection) {
            sent += 100;
            if connection.flood(&piece).await < piece.len() {
                break;
            }
        }
        connection.until("the end", |c| c.goaway.is_some()).await;
        assert!(is_ended(&connection), "{name}: {sent}");
        assert_unharmed(&rig, before, name).await;
    }
    // A block that is whole, but far too large for its few bytes.
    for (name, value, times) in [
        ("an HPACK bomb", 4_000, 16_000),
        ("a small HPACK bomb", 10, 60_000),
    ] {
        let mut connection = connect(&rig).await;
        let stream = connection.fresh();
        let mut block = h2::request("GET", "/api/public/flood");
        // A literal that goes into the table (RFC 7541 §6.2.1), then the first entry of the table again and again.
        block.push(0x40);
        for text in ["x-bomb", &"b".repeat(value)] {
            h2::integer(&mut block, 0, 7, text.len());
            block.extend(text.bytes());
        }
        // The first entry of the dynamic table.
        block.extend(std::iter::repeat_n(0xbe, times));
        connection.flood(&h2::headers(stream, &block, true)).await;
        let answer = connection.answer(stream).await;
        assert!(
            answer.status == 431 || answer.reset.is_some() || is_ended(&connection),
            "{name}: {answer:?}"
        );
        assert_unharmed(&rig, before, name).await;
    }
    let seen = rig.upstream.requests();
    assert!(seen.iter().all(|request| request.target == "/api/public/honest"));
}

#[tokio::test]
async fn lm_05_class_h_resets_that_we_are_made_to_send_count_like_those_that_are_sent() {
    let rig = rig().await;
    let before = rig.cloakroom.resident();
    let hang = h2::request("GET", "/api/public/hang");
    let post = h2::request("POST", "/api/public/hang");
    let short = [post.clone(), h2::block(&[("content-length", "1")])].concat();
    let mistakes: [Mistake<'_>; 7] = [
        (
            "a window update of nothing",
            Box::new(|s| [h2::headers(s, &hang, true), h2::window_update(s, 0)].concat()),
        ),
        (
            "a window beyond its bound",
            Box::new(|s| [h2::headers(s, &hang, true), h2::window_update(s, (1 << 31) - 1)].concat()),
        ),
        (
            "more body than was said",
            Box::new(|s| [h2::headers(s, &short, false), h2::data(s, b"too much", true)].concat()),
        ),
        (
            "a body after the end",
            Box::new(|s| [h2::headers(s, &hang, true), h2::data(s, b"x", true)].concat()),
        ),
        (
            "a head after the end",
            Box::new(|s| [h2::headers(s, &hang, true), h2::headers(s, &hang, true)].concat()),
        ),
        (
            "a stream that depends on itself",
            Box::new(|s| {
                let own = [&s.to_be_bytes()[..], &[0]].concat();
                [h2::headers(s, &hang, true), h2::frame(h2::PRIORITY, 0, s, &own)].concat()
            }),
        ),
        (
            "a malformed head",
            Box::new(|s| h2::headers(s, &h2::block(&[(":method", "GET"), ("Upper", "x")]), true)),
        ),
    ];
    for (name, mistake) in mistakes {
        let mut connection = connect(&rig).await;
        let mut begun = 0;
        while begun < 3_000 && !is_ended(&connection) {
            let streams: Vec<u32> = (0..20).map(|_| connection.fresh()).collect();
            let flood: Vec<u8> = streams.iter().flat_map(|s| mistake(*s)).collect();
            connection.flood(&flood).await;
            connection.settle().await;
            begun += 20;
            // What is no mistake to the library is given up here, so that the next round has streams to open.
            let open = streams
                .iter()
                .filter(|s| connection.answers.get(s).is_none_or(|a| a.reset.is_none()));
            let rest: Vec<u8> = open.flat_map(|s| h2::reset(*s, h2::CANCEL)).collect();
            connection.flood(&rest).await;
        }
        assert!(is_ended(&connection), "{name}: {begun} and no end");
        assert_unharmed(&rig, before, name).await;
    }
}

#[tokio::test]
async fn lm_05_class_h_frames_that_say_nothing_cost_nothing() {
    let rig = rig().await;
    let before = rig.cloakroom.resident();
    let opening = {
        let mut opening = h2::headers(1, &h2::request("POST", "/api/public/deaf"), false);
        opening.extend(h2::headers(3, &h2::request("GET", "/api/public/hang"), true));
        opening
    };
    for (name, one, count) in [
        ("empty DATA", h2::data(1, b"", false), 200_000),
        (
            "padded empty DATA",
            h2::frame(h2::DATA, 8, 1, &[&[255][..], &[0; 255]].concat()),
            20_000,
        ),
        ("DATA of one byte", h2::data(1, b"x", false), 200_000),
        ("SETTINGS", h2::settings(&[]), 200_000),
        (
            "SETTINGS of windows",
            h2::settings(&[(h2::INITIAL_WINDOW_SIZE, 1)]),
            100_000,
        ),
        ("PING", h2::frame(h2::PING, 0, 0, b"pingping"), 200_000),
        (
            "PRIORITY",
            h2::frame(h2::PRIORITY, 0, 5, &[0, 0, 0, 3, 16]),
            200_000,
        ),
        ("window updates", h2::window_update(3, 1), 200_000),
        ("frames of no kind", h2::frame(0x77, 0, 0, &[0; 100]), 100_000),
        ("resets of a closed stream", h2::reset(3, h2::CANCEL), 100_000),
    ] {
        // Who reads what comes back, and who does not.
        for reads in [true, false] {
            let mut connection = connect(&rig).await;
            connection.send(&opening).await;
            let flood = one.repeat(count);
            if reads {
                connection.flood(&flood).await;
            } else {
                let writing = connection.stream.write_all(&flood);
                let _stopped = tokio::time::timeout(Duration::from_secs(2), writing).await;
            }
            assert_unharmed(&rig, before, name).await;
        }
    }
}

#[tokio::test]
async fn lm_05_frames_that_no_client_sends_end_the_connection() {
    let rig = rig().await;
    let open = h2::headers(1, &h2::request("GET", "/api/public/hang"), true);
    for (name, bytes) in [
        (
            "a push promise",
            h2::frame(h2::PUSH_PROMISE, h2::END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        (
            "an even stream",
            h2::headers(2, &h2::request("GET", "/api/public/x"), true),
        ),
        (
            "a head on stream 0",
            h2::headers(0, &h2::request("GET", "/api/public/x"), true),
        ),
        ("DATA on stream 0", h2::data(0, b"x", true)),
        ("DATA on an idle stream", h2::data(9, b"x", true)),
        ("a window of nothing", h2::window_update(0, 0)),
        ("a window beyond its bound", h2::window_update(0, (1 << 31) - 1)),
        (
            "a frame that is too large",
            h2::frame(h2::DATA, 0, 1, &vec![0; 20_000]),
        ),
        ("half a setting", h2::frame(h2::SETTINGS, 0, 0, &[0, 3, 0])),
        (
            "a window setting beyond its bound",
            h2::settings(&[(h2::INITIAL_WINDOW_SIZE, 1 << 31)]),
        ),
        (
            "a frame size setting beyond its bound",
            h2::settings(&[(h2::MAX_FRAME_SIZE, 1)]),
        ),
        ("a PING of seven bytes", h2::frame(h2::PING, 0, 0, b"pingpin")),
        (
            "a block cut short",
            h2::frame(h2::HEADERS, h2::END_HEADERS, 3, &[0x10, 0x7f]),
        ),
        (
            "an index that is not there",
            h2::frame(h2::HEADERS, h2::END_HEADERS, 3, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        (
            "another frame inside a block",
            [h2::frame(h2::HEADERS, 0, 3, &[0x82]), h2::settings(&[])].concat(),
        ),
        (
            "a CONTINUATION of nothing",
            h2::frame(h2::CONTINUATION, h2::END_HEADERS, 3, &[0x82]),
        ),
    ] {
        let mut connection = connect(&rig).await;
        connection.send(&open).await;
        connection.send(&bytes).await;
        connection.until("the end", is_ended).await;
        assert_ne!(
            connection.goaway.map(|(_, code)| code),
            Some(h2::NO_ERROR),
            "{name}"
        );
    }
    // No preface, or another one.
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        let stream = TcpStream::connect(rig.cloakroom.address()).await.unwrap();
        let mut connection = H2::saying(stream, bytes).await;
        connection.end().await;
    }
    until(5, "the end of all upstream work", || {
        rig.upstream.connections() == rig.upstream.ended()
    })
    .await;
}

#[tokio::test]
async fn lm_08_class_h_a_hundred_slow_streams_take_no_memory_to_speak_of() {
    let rig = rig().await;
    let before = rig.cloakroom.resident();
    let large = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n".to_vec(),
        vec![b'x'; 2_000_000],
    ]
    .concat();
    rig.upstream.on("/api/public/large", Play::bytes(large));
    let mut slow = Vec::new();
    // Windows of nothing, and small ones; nobody ever asks for more.
    for window in [0, 1_000] {
        let stream = TcpStream::connect(rig.cloakroom.address()).await.unwrap();
        let mut connection = H2::over(stream, window).await;
        let streams: Vec<u32> = (0..90).map(|_| connection.fresh()).collect();
        let heads: Vec<u8> = streams
            .iter()
            .flat_map(|s| h2::headers(*s, &h2::request("GET", "/api/public/large"), true))
            .collect();
        connection.send(&heads).await;
        connection
            .until("their heads", |c| {
                streams
                    .iter()
                    .all(|s| c.answers.get(s).is_some_and(|a| a.status == 200))
            })
            .await;
        connection.settle().await;
        let most = connection
            .answers
            .values()
            .map(|answer| answer.body.len())
            .max()
            .unwrap();
        assert!(most <= window as usize, "{most}");
        slow.push((connection, streams));
    }
    // 360 MB are asked for.
    for _ in 0..20 {
        let grown = rig.cloakroom.resident().saturating_sub(before);
        assert!(grown < 120 * MIB, "{} MiB more", grown / MIB);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (mut connection, streams) = slow.pop().unwrap();
    connection.send(&h2::window_update(0, 10_000_000)).await;
    connection.send(&h2::window_update(streams[7], 3_000_000)).await;
    let answer = connection.answer(streams[7]).await;
    assert_eq!((answer.body.len(), answer.complete), (2_000_000, true));
}
