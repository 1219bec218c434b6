//! Every way to say twice where a request ends, against the running process: lengths beside codings in every order, folded,
//! with bare line feeds, among doubled hosts. Whatever cloakroom makes of it, the request that hides behind it never comes up,
//! and the upstream is never told two lengths. `tests/it/framing.rs` judges the answers, spelling by spelling.

use crate::crowd::many;
use crate::siege::{Siege, allowed};
use crate::support::upstream::Recorded;
use crate::support::wire::Wire;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const LENGTHS: [&str; 9] = [
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: 40",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length : 5",
    "Content-Length:\r\n 5",
    "content-length: 05",
    "Content-Length: 5\r\nContent-Length: 6",
];

const CODINGS: [&str; 12] = [
    "Transfer-Encoding: chunked",
    "transfer-encoding: Chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: \u{b}chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    " Transfer-Encoding: chunked",
];

const HOSTS: [&str; 4] = [
    "Host: app.example",
    "Host: app.example\r\nHost: app.example",
    "Host: app.example\r\nHost: elsewhere.example",
    "Host:\r\n app.example",
];

const HIDDEN: &str = "GET /api/public/smuggled HTTP/1.1\r\nHost: app.example\r\n\r\n";

/// Every head out of these, in every order, with line ends of both kinds.
fn heads() -> Vec<String> {
    let mut heads = Vec::new();
    for length in LENGTHS {
        for coding in CODINGS {
            for host in HOSTS {
                for [a, b, c] in [
                    [host, length, coding],
                    [host, coding, length],
                    [length, host, coding],
                    [coding, host, length],
                    [length, coding, host],
                    [coding, length, host],
                ] {
                    for end in ["\r\n", "\n"] {
                        heads.push(format!(
                            "POST /api/public/x HTTP/1.1{end}{a}{end}{b}{end}{c}{end}{end}"
                        ));
                    }
                }
            }
        }
    }
    heads
}

fn judge(probe: &str, requests: &[Recorded]) {
    for request in requests {
        assert!(!request.target.contains("smuggled"), "{probe:?}: {request:?}");
        let framings = request.values("content-length").len() + request.values("transfer-encoding").len();
        assert!(framings <= 1, "{probe:?}: {request:?}");
        assert_eq!(request.values("host").len(), 1, "{probe:?}: {request:?}");
    }
}

#[tokio::test]
async fn hp_03_to_hp_08_what_hides_behind_a_doubtful_end_never_comes_up() {
    let mut siege = Siege::start(|config| config).await;
    let heads = heads();
    println!("{} heads", heads.len());
    for (name, body) in [
        ("a chunked body", format!("5\r\nhello\r\n0\r\n\r\n{HIDDEN}")),
        ("a body of a length", format!("hello{HIDDEN}")),
        (
            "a chunk that hides it",
            format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len()),
        ),
    ] {
        siege
            .under(&format!("smuggling: {name}"), allowed(24, 12), async |siege| {
                let (heads, body, siege) = (&heads, &body, siege);
                let address = siege.rig.cloakroom.address();
                many(heads.len(), 30, |n| {
                    let probe = format!("{}{body}", heads[n]);
                    async move {
                        let bytes: Vec<u8> = probe
                            .chars()
                            .map(|c| u8::try_from(u32::from(c)).unwrap())
                            .collect();
                        let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
                        let _cut = wire.send(&bytes).await;
                        let mut answer = Vec::new();
                        let _ended = wire.stream.read_to_end(&mut answer).await;
                        let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count();
                        assert!(answers <= 1, "{probe:?}: {}", String::from_utf8_lossy(&answer));
                    }
                })
                .await;
                judge(name, &siege.rig.upstream.requests());
            })
            .await;
    }
}
