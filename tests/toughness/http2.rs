//! HTTP/2 as a weapon: floods of frames that are cheap to send, streams that are given up, and blocks that have no end.

use crate::siege::{Allowed, Siege, allowed};
use crate::support::h2::{self, H2};
use crate::support::upstream::{After, Play};
use crate::support::within;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How many attack at one time.
const ATTACKERS: usize = 10;
/// What all of them together may make it hold.
const ALLOWED: Allowed = allowed(64, 12);

fn is_ended(connection: &H2<TcpStream>) -> bool {
    connection.closed || connection.goaway.is_some()
}

async fn siege() -> Siege {
    let siege = Siege::start(|config| config).await;
    let hang = Play::Pieces(Vec::new(), After::Hang);
    siege.rig.upstream.on("/api/public/hang", hang);
    siege
}

/// So many connections at once that open with `first` and say `again` until they are cut off or it is enough, in bytes.
/// Returns how many were cut off. Half of them do not read what comes back.
async fn attack(siege: &Siege, first: &[u8], again: &[u8], most: usize) -> usize {
    let (mut attackers, address) = (JoinSet::new(), siege.rig.cloakroom.address());
    let pieces = again.repeat((64 * 1024 / again.len()).max(1));
    for n in 0..ATTACKERS {
        let (first, pieces) = (first.to_vec(), pieces.clone());
        attackers.spawn(async move {
            let mut connection = H2::connect(address).await;
            connection.send(&first).await;
            let mut said = 0;
            while said < most && !is_ended(&connection) {
                said += pieces.len();
                if n % 2 == 0 {
                    if connection.flood(&pieces).await < pieces.len() {
                        return true;
                    }
                } else {
                    let writing = connection.stream.write_all(&pieces);
                    match tokio::time::timeout(Duration::from_secs(1), writing).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return true,
                        // It waits until what it says is read: as good.
                        Err(_) => return false,
                    }
                }
            }
            if n % 2 == 0 && !is_ended(&connection) {
                // It has all been read, or the connection has ended over it.
                connection.settle().await;
            }
            is_ended(&connection)
        });
    }
    let ended = within(60, "the attackers", attackers.join_all()).await;
    ended.into_iter().filter(|ended| *ended).count()
}

#[tokio::test]
async fn lm_04_streams_that_are_given_up_end_their_connection() {
    let mut siege = siege().await;
    for (name, path, early) in [
        ("rapid reset, at once", "/api/public/hang", true),
        ("rapid reset, once taken up", "/api/public/hang", false),
        ("rapid reset of what is answered", "/api/public/x", true),
    ] {
        siege
            .under(name, ALLOWED, async |siege| {
                let (mut attackers, address) = (JoinSet::new(), siege.rig.cloakroom.address());
                for _ in 0..ATTACKERS {
                    attackers.spawn(async move {
                        let mut connection = H2::connect(address).await;
                        for _ in 0..100 {
                            let streams: Vec<u32> = (0..100).map(|_| connection.fresh()).collect();
                            let begin = |s: &u32| h2::headers(*s, &h2::request("GET", path), true);
                            if early {
                                let both = |s: &u32| [begin(s), h2::reset(*s, h2::CANCEL)].concat();
                                connection
                                    .flood(&streams.iter().flat_map(both).collect::<Vec<u8>>())
                                    .await;
                            } else {
                                connection
                                    .flood(&streams.iter().flat_map(begin).collect::<Vec<u8>>())
                                    .await;
                                connection.settle().await;
                                let resets = streams.iter().flat_map(|s| h2::reset(*s, h2::CANCEL));
                                connection.flood(&resets.collect::<Vec<u8>>()).await;
                            }
                            if is_ended(&connection) {
                                return;
                            }
                        }
                        connection.until("the end", is_ended).await;
                    });
                }
                within(60, name, attackers.join_all()).await;
            })
            .await;
    }
    // CVE-2025-8671.
    type Mistake = fn(u32) -> Vec<u8>;
    let mistakes: [(&str, Mistake); 4] = [
        ("a window of nothing", |s| h2::window_update(s, 0)),
        ("a window beyond its bound", |s| {
            h2::window_update(s, (1 << 31) - 1)
        }),
        ("a body after the end", |s| h2::data(s, b"x", true)),
        ("a head after the end", |s| {
            h2::headers(s, &h2::request("GET", "/api/public/hang"), true)
        }),
    ];
    for (name, mistake) in mistakes {
        siege
            .under(&format!("made to reset: {name}"), ALLOWED, async |siege| {
                let (mut attackers, address) = (JoinSet::new(), siege.rig.cloakroom.address());
                for _ in 0..ATTACKERS {
                    attackers.spawn(async move {
                        let mut connection = H2::connect(address).await;
                        for _ in 0..200 {
                            let streams: Vec<u32> = (0..20).map(|_| connection.fresh()).collect();
                            let both = |s: &u32| {
                                [
                                    h2::headers(*s, &h2::request("GET", "/api/public/hang"), true),
                                    mistake(*s),
                                ]
                                .concat()
                            };
                            connection
                                .flood(&streams.iter().flat_map(both).collect::<Vec<u8>>())
                                .await;
                            if is_ended(&connection) {
                                return;
                            }
                            connection.settle().await;
                        }
                        connection.until("the end", is_ended).await;
                    });
                }
                within(60, name, attackers.join_all()).await;
            })
            .await;
    }
}

#[tokio::test]
async fn lm_05_frames_that_cost_nothing_to_send_cost_little_to_receive() {
    let mut siege = siege().await;
    let open = [
        h2::headers(1, &h2::request("POST", "/brief/deaf"), false),
        h2::headers(3, &h2::request("GET", "/api/public/hang"), true),
    ]
    .concat();
    let literal = h2::block(&[("x-flood", "y".repeat(16_000))]);
    let begun = h2::frame(
        h2::HEADERS,
        h2::END_STREAM,
        1,
        &h2::request("GET", "/api/public/x"),
    );
    let mut bomb = h2::request("GET", "/api/public/x");
    bomb.push(0x40);
    for text in ["x-bomb", &"b".repeat(4_000)] {
        h2::integer(&mut bomb, 0, 7, text.len());
        bomb.extend(text.bytes());
    }
    bomb.extend(std::iter::repeat_n(0xbe, 16_000));
    let mut bombs = Vec::new();
    for stream in 0..200 {
        bombs.extend(h2::headers(2 * stream + 1, &bomb, true));
    }
    for (name, first, again, most, cut) in [
        ("SETTINGS", &open, h2::settings(&[]), 400_000, false),
        (
            "SETTINGS of windows",
            &open,
            h2::settings(&[(h2::INITIAL_WINDOW_SIZE, 1)]),
            400_000,
            false,
        ),
        (
            "PING",
            &open,
            h2::frame(h2::PING, 0, 0, b"pingping"),
            400_000,
            false,
        ),
        (
            "PRIORITY",
            &open,
            h2::frame(h2::PRIORITY, 0, 5, &[0, 0, 0, 3, 16]),
            400_000,
            false,
        ),
        ("window updates", &open, h2::window_update(3, 1), 400_000, false),
        ("empty DATA", &open, h2::data(1, b"", false), 4_000_000, true),
        (
            "DATA of one byte",
            &open,
            h2::data(1, b"x", false),
            400_000,
            false,
        ),
        (
            "CONTINUATION",
            &begun,
            h2::frame(h2::CONTINUATION, 0, 1, &literal),
            4_000_000,
            true,
        ),
        (
            "CONTINUATION of nothing",
            &begun,
            h2::frame(h2::CONTINUATION, 0, 1, b""),
            400_000,
            true,
        ),
        ("HPACK bombs", &Vec::new(), bombs, 1_000_000, false),
    ] {
        siege
            .under(&format!("HTTP/2: {name}"), ALLOWED, async |siege| {
                let ended = attack(siege, first, &again, most).await;
                // Who does not read does not learn of it.
                assert!(!cut || ended >= ATTACKERS / 2, "{name}: {ended} were cut off");
            })
            .await;
    }
}
