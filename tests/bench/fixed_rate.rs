//! Sends requests at a fixed rate and says how long they took; `tests/bench/run` builds and starts it.
//!
//! Open loop: every request has a time at which it is due, whatever became of those before it, and its latency counts from
//! then. A server that stalls so makes all the requests wait that fell due meanwhile, as it would in life, and not just
//! the one that it stalled on (coordinated omission).
//!
//! Each connection has a thread of its own that sleeps until its next request is due, with a nanosecond of timer slack:
//! tokio's timers are a millisecond coarse, twenty times what is measured. One line of JSON on stdout says what happened.

use clap::Parser;
use client::{Error, Sender, Target};
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

mod client;

/// Requests at a fixed rate, with latencies from the moment at which each was due.
#[derive(Parser)]
struct Load {
    /// Requests per second, on all connections together.
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    connections: u32,
    /// For how long requests fall due; what has no answer after twice that time is given up.
    #[arg(long)]
    seconds: u32,
    /// The length that every response's body must have.
    #[arg(long)]
    bytes: usize,
    #[command(flatten)]
    target: Target,
}

/// What became of one connection's requests.
#[derive(Default)]
struct Outcome {
    latencies: Vec<Duration>,
    /// Answers that were no 2xx or not of the right length.
    wrong: u32,
    /// Requests without an answer.
    failed: u32,
    /// Requests that were due but without an answer at the end, most of them never sent: the server did not keep up.
    late: u32,
}

fn main() {
    let load = Load::parse();
    // Threads started later have it from this one. Elsewhere than on Linux they sleep as well as they can.
    let _coarser = std::fs::write("/proc/self/timerslack_ns", "1");
    let outcomes = drive(&load);
    let mut latencies: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.latencies).collect();
    latencies.sort_unstable();
    let sum = |count: fn(&Outcome) -> u32| outcomes.iter().map(count).sum::<u32>();
    let percentile = |percent| {
        latencies
            .get(latencies.len() * percent / 100)
            .map_or(0, |latency: &&Duration| latency.as_micros())
    };
    println!(
        r#"{{"answered":{},"wrong":{},"failed":{},"late":{},"p50_us":{},"p99_us":{}}}"#,
        latencies.len(),
        sum(|outcome| outcome.wrong),
        sum(|outcome| outcome.failed),
        sum(|outcome| outcome.late),
        percentile(50),
        percentile(99),
    );
}

fn drive(load: &Load) -> Vec<Outcome> {
    let (connected, start) = (&Barrier::new(load.connections as usize), &OnceLock::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..load.connections)
            .map(|number| scope.spawn(move || run(load, number, connected, start)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a connection's thread panicked"))
            .collect()
    })
}

/// One connection's requests: every `connections`-th of all, beginning with `number`.
fn run(load: &Load, number: u32, connected: &Barrier, start: &OnceLock<Instant>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let sender = runtime.block_on(load.target.connect(runtime.handle()));
    connected.wait();
    let start = *start.get_or_init(|| Instant::now() + Duration::from_millis(20));
    let end = start + 2 * Duration::from_secs(load.seconds.into());
    let mut outcome = Outcome::default();
    let mine = (number..load.rate * load.seconds).step_by(load.connections as usize);
    let mut sender = match sender {
        Ok(sender) => sender,
        Err(error) => {
            eprintln!("connection {number}: {error}");
            outcome.failed = u32::try_from(mine.count()).unwrap_or(u32::MAX);
            return outcome;
        }
    };
    for nth in mine {
        let due = start + Duration::from_secs(1) * nth / load.rate;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if Instant::now() >= end {
            outcome.late += 1;
            continue;
        }
        let answer = async { tokio::time::timeout(end - Instant::now(), ask(&mut sender, load)).await };
        match runtime.block_on(answer) {
            Ok(Ok(good)) => {
                outcome.latencies.push(due.elapsed());
                outcome.wrong += u32::from(!good);
            }
            Ok(Err(error)) => {
                eprintln!("connection {number}: {error}");
                outcome.failed += 1;
            }
            Err(_given_up) => outcome.late += 1,
        }
    }
    outcome
}

/// One request to the end of its answer's body: whether that was what it should be.
async fn ask(sender: &mut Sender, load: &Load) -> Result<bool, Error> {
    let mut body = sender.send(load.target.request()?).await?;
    let (status, mut length) = (body.status(), 0);
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(status.is_success() && length == load.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    /// What becomes of one second's load at 200/s on two connections, of which the `nth` request of each meets `stall`.
    fn outcomes(answer: &'static str, nth: usize, stall: Duration) -> Vec<Outcome> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let serve = move |stream: std::net::TcpStream| {
                let heads = BufReader::new(stream.try_clone().unwrap())
                    .lines()
                    .map_while(Result::ok);
                for (number, _) in heads.filter(String::is_empty).enumerate() {
                    std::thread::sleep(if number == nth { stall } else { Duration::ZERO });
                    if (&stream).write_all(answer.as_bytes()).is_err() {
                        break; // the other side has given up
                    }
                }
            };
            let connections: Vec<_> = (0..2)
                .map(|_| {
                    let (stream, _) = listener.accept().unwrap();
                    std::thread::spawn(move || serve(stream))
                })
                .collect();
            for connection in connections {
                connection.join().unwrap();
            }
        });
        let load = [
            "fixed_rate",
            "--rate",
            "200",
            "--connections",
            "2",
            "--seconds",
            "1",
            "--bytes",
            "2",
            &url,
        ];
        let outcomes = drive(&Load::parse_from(load));
        server.join().unwrap();
        outcomes
    }

    fn sum(outcomes: &[Outcome], count: impl Fn(&Outcome) -> usize) -> usize {
        outcomes.iter().map(count).sum()
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    #[test]
    fn a_stall_counts_for_every_request_that_fell_due_in_it() {
        let all = outcomes(GOOD, 20, Duration::from_millis(500));
        assert_eq!(sum(&all, |one| one.latencies.len()), 200);
        assert_eq!(sum(&all, |one| (one.wrong + one.failed + one.late) as usize), 0);
        // Of the 100 that fell due in this half second, 80 had to wait for more than a tenth.
        let slow = sum(&all, |one| {
            one.latencies
                .iter()
                .filter(|latency| **latency > Duration::from_millis(100))
                .count()
        });
        assert!(slow >= 79, "{slow}");
    }

    #[test]
    fn redirects_and_bodies_of_another_length_are_wrong() {
        for answer in [
            "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{ }",
        ] {
            assert_eq!(
                sum(&outcomes(answer, 0, Duration::ZERO), |one| one.wrong as usize),
                200,
                "{answer}"
            );
        }
    }

    #[test]
    fn what_the_server_does_not_get_to_in_twice_the_time_is_late() {
        let all = outcomes(GOOD, 0, Duration::from_millis(2500));
        assert_eq!(sum(&all, |one| one.late as usize), 200);
    }
}
