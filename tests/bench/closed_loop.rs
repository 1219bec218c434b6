//! Asks as often as goes on so many connections and compares every answer byte by byte; `tests/bench/run` builds and starts it.
//!
//! For what wrk and h2load do not look at: whether the bodies of large answers are what they should be, uploads, and
//! WebSocket messages, of which each must come back before the next one goes. A connection finishes what it has begun when the
//! time is over, so that every request that reached the server has been answered. All run on one thread. One line of JSON on
//! stdout says what happened.

use clap::Parser;
use client::{Error, Sender, Target};
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::{self, Message};

mod client;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// As many requests as go, each answer compared with what it should be.
#[derive(Parser)]
struct Load {
    #[arg(long)]
    connections: u32,
    /// For how long new requests are sent.
    #[arg(long)]
    seconds: u64,
    /// A file with the body that every answer must have.
    #[arg(long, value_parser = client::read, required_unless_present = "messages")]
    answer: Option<Bytes>,
    /// Instead of requests: WebSocket messages of so many bytes (12 at least) that must come back as they went.
    #[arg(long, value_parser = clap::value_parser!(u32).range(12..))]
    messages: Option<u32>,
    #[command(flatten)]
    target: Target,
}

/// What became of the requests, or messages.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    answered: u64,
    /// Of those, the ones whose answer was not what it should be.
    wrong: u64,
    /// Without an answer.
    failed: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.wrong += other.wrong;
        self.failed += other.failed;
    }
}

enum Connection {
    Http(Sender),
    Socket(Box<WebSocketStream<TcpStream>>),
}

fn main() -> Result<(), Error> {
    let load = Arc::new(Load::parse());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (outcome, took) = runtime.block_on(drive(&load))?;
    println!(
        r#"{{"answered":{},"wrong":{},"failed":{},"seconds":{}}}"#,
        outcome.answered,
        outcome.wrong,
        outcome.failed,
        took.as_secs_f64()
    );
    Ok(())
}

/// Connects all, then lets all of them ask; what came of it, and how long it took.
async fn drive(load: &Arc<Load>) -> Result<(Outcome, Duration), Error> {
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(connect(load).await?);
    }
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    for (connection, number) in connections.into_iter().zip(0..) {
        tasks.spawn(ask_until(
            start + Duration::from_secs(load.seconds),
            load.clone(),
            connection,
            number,
        ));
    }
    let mut all = Outcome::default();
    while let Some(one) = tasks.join_next().await {
        all += one?;
    }
    Ok((all, start.elapsed()))
}

async fn connect(load: &Load) -> Result<Connection, Error> {
    if load.messages.is_none() {
        return Ok(Connection::Http(load.target.connect(&Handle::current()).await?));
    }
    let (mut parts, _) = load.target.request()?.into_parts();
    let host = parts.headers.get("host").ok_or("no host")?.to_str()?;
    parts.uri = format!("ws://{host}{}", parts.uri).parse()?;
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", &generate_key()),
    ] {
        parts.headers.insert(name, value.parse()?);
    }
    let request = hyper::Request::from_parts(parts, ());
    match tokio_tungstenite::client_async(request, load.target.stream().await?).await {
        Ok((socket, _)) => Ok(Connection::Socket(Box::new(socket))),
        Err(tungstenite::Error::Http(response)) => {
            let why = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default());
            Err(format!("no WebSocket: {} {why}", response.status()).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// One connection's requests, until the end or the first that fails.
async fn ask_until(end: Instant, load: Arc<Load>, mut connection: Connection, number: u32) -> Outcome {
    let mut outcome = Outcome::default();
    while Instant::now() < end {
        let answer = async {
            match &mut connection {
                Connection::Http(sender) => ask(sender, &load).await,
                Connection::Socket(socket) => say(socket, &load, number, outcome.answered).await,
            }
        };
        let problem = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(good)) => {
                outcome.answered += 1;
                outcome.wrong += u64::from(!good);
                continue;
            }
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        eprintln!("connection {number}: {problem}");
        outcome.failed += 1;
        break;
    }
    if let Connection::Socket(mut socket) = connection {
        let _gone_already = socket.close().await;
    }
    outcome
}

/// One request to the end of its answer's body: whether that was what it should be.
async fn ask(sender: &mut Sender, load: &Load) -> Result<bool, Error> {
    let mut response = sender.send(load.target.request()?).await?;
    let mut left = load.answer.as_deref().unwrap_or_default();
    let mut good = response.status().is_success();
    while let Some(frame) = response.frame().await {
        if let Some(data) = frame?.data_ref() {
            let rest = left.strip_prefix(&**data);
            good &= rest.is_some();
            left = rest.unwrap_or_default();
        }
    }
    Ok(good && left.is_empty())
}

/// One message, like no other, and the next that comes: whether that is the same.
async fn say(
    socket: &mut WebSocketStream<TcpStream>,
    load: &Load,
    number: u32,
    count: u64,
) -> Result<bool, Error> {
    let mut text = [&number.to_be_bytes()[..], &count.to_be_bytes()].concat();
    text.resize(load.messages.unwrap_or_default() as usize, b'x');
    let text = Bytes::from(text);
    socket.send(Message::Binary(text.clone())).await?;
    let back = socket.next().await.ok_or("the socket was closed")??;
    Ok(back == Message::Binary(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    /// What comes of a second's load on one connection, to a server that gives these answers in turn and then ends.
    fn outcome(answers: &'static [&'static str]) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let heads = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok);
            for (answer, _) in answers.iter().zip(heads.filter(String::is_empty)) {
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
        });
        let wanted = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&wanted, "{}").unwrap();
        let load = Load::parse_from([
            "closed_loop",
            "--connections",
            "1",
            "--seconds",
            "1",
            "--answer",
            wanted.path().to_str().unwrap(),
            &url,
        ]);
        let found = run(load);
        server.join().unwrap();
        found
    }

    fn run(load: Load) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(drive(&Arc::new(load))).unwrap().0
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    #[test]
    fn each_answer_counts_and_one_that_never_comes_has_failed() {
        let wanted = Outcome {
            answered: 3,
            wrong: 0,
            failed: 1,
        };
        assert_eq!(outcome(&[GOOD, GOOD, GOOD]), wanted);
    }

    #[test]
    fn whatever_is_not_the_answer_is_wrong() {
        for answer in [
            "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{} ",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ] {
            let answers: &'static [_] = Box::leak(Box::new([GOOD, answer, GOOD]));
            let found = outcome(answers);
            assert_eq!((found.answered, found.wrong), (3, 1), "{answer}");
        }
    }

    #[test]
    fn a_body_that_ends_early_has_failed() {
        let found = outcome(&[GOOD, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{"]);
        assert_eq!((found.answered, found.failed), (1, 1));
    }

    /// What comes of one connection's messages, where `echo` makes of each the one that comes back, and of the third nothing.
    fn said(echo: fn(Vec<u8>) -> Vec<u8>) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut socket = tungstenite::accept(stream).unwrap();
            for _ in 0..2 {
                let message = socket.read().unwrap().into_data().to_vec();
                socket.send(Message::Binary(echo(message).into())).unwrap();
            }
        });
        let found = run(Load::parse_from([
            "closed_loop",
            "--connections",
            "1",
            "--seconds",
            "1",
            "--messages",
            "40",
            &url,
        ]));
        server.join().unwrap();
        found
    }

    #[test]
    fn a_message_that_comes_back_changed_is_wrong() {
        let found = |wrong| Outcome {
            answered: 2,
            wrong,
            failed: 1,
        };
        assert_eq!(said(|message| message), found(0));
        assert_eq!(said(|message| message[1..].to_vec()), found(2));
        assert_eq!(
            said(|mut message| {
                message[11] = 0; // as the first one
                message
            }),
            found(1)
        );
    }
}
