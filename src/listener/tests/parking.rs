//! Parking, with the clock held still: when a connection is parked, when it is not, and that nobody can tell.

use super::super::connection::Connection;
use super::super::following::Following;
use super::super::http1::{self, LARGE_BUFFERS, speak};
use super::super::parking::next;
use super::super::wire::{Fresh, PARKED_AFTER, Wire};
use super::tls;
use super::*;
use bytes::BytesMut;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};

/// Longer than it takes to be parked, and shorter than the head and the body may take.
const LONGER: Duration = Duration::from_secs(9);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn connection(echo: &Echo) -> Connection<Echo> {
    Connection {
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        bounds: bounds(),
        service: echo.clone(),
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
        refused: None,
    }
}

pub(super) async fn fresh<T>(stream: T) -> Fresh<T> {
    Fresh {
        stream,
        begun: BytesMut::new(),
        since: Instant::now(),
        place: Place::with(places(1).acquire_owned().await.unwrap()),
    }
}

/// A connection that speaks once: until it is parked, or ends.
async fn once<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: T,
    connection: &Connection<Echo>,
) -> Option<Box<Wire<T>>> {
    let following = Arc::new(Following::default());
    let wire = Wire::new(fresh(stream).await, &connection.bounds, following.clone());
    speak(Box::new(wire), &following, connection).await
}

async fn ask(browser: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Vec<u8> {
    browser.write_all(GET).await.unwrap();
    answer(browser).await
}

/// One answer, without its date.
async fn answer(browser: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let answer = until(browser, b"\r\n\r\nhello").await;
    let text = String::from_utf8(answer).unwrap();
    let lines = text.split("\r\n").filter(|line| !line.starts_with("date:"));
    lines.collect::<Vec<_>>().join("\r\n").into_bytes()
}

async fn until(browser: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let byte = timeout(Duration::from_mins(2), browser.read_u8()).await;
        read.push(byte.expect("an answer in time").unwrap());
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_parked_when_it_is_idle_and_serves_the_next_request_like_the_first() {
    let echo = Echo::default();
    let connection = connection(&echo);
    let (mut browser, stream) = duplex(4096);
    let following = Arc::new(Following::default());
    let mut wire = Box::new(Wire::new(
        fresh(stream).await,
        &connection.bounds,
        following.clone(),
    ));
    let (mut first, mut begun) = (None, 0);
    for wait in [1, 100, 70_000, PARKED_AFTER.as_millis().try_into().unwrap()] {
        let asking = async {
            browser.write_all(&GET[begun..]).await.unwrap();
            let answer = answer(&mut browser).await;
            assert_eq!(&answer, first.get_or_insert(answer.clone()));
            Instant::now()
        };
        let (parked, answered) = tokio::join!(speak(wire, &following, &connection), asking);
        assert_eq!(answered.elapsed(), PARKED_AFTER);
        wire = parked.expect("it is parked");
        tokio::time::sleep(Duration::from_millis(wait)).await;
        // The first byte of the next request wakes it; the others come when they come.
        let waiting = Instant::now();
        let woken = next(&mut wire, &connection.stop, &connection.cut);
        let (woken, ()) = tokio::join!(woken, async { browser.write_all(&GET[..1]).await.unwrap() });
        assert!(woken && waiting.elapsed().is_zero());
        begun = 1;
    }
}

/// hyper reads once while a request is under way, and not again when it is over. In a task of its own, which nobody else wakes.
#[tokio::test(start_paused = true)]
async fn a_connection_is_parked_soon_also_where_the_answer_took_a_while() {
    let echo = Echo::default();
    let (mut browser, stream) = duplex(4096);
    let following = Arc::new(Following::default());
    let mut wire = Box::new(Wire::new(fresh(stream).await, &bounds(), following.clone()));
    let (wait, read) = (
        &b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"[..],
    );
    let tasks = TaskTracker::new();
    // The first request of a connection, one right after parking, and one with a body that is long in coming.
    for (head, begun, following_one) in [(wait, 0, wait), (wait, 1, read), (read, 1, wait)] {
        let (connection, following) = (connection(&echo), following.clone());
        let speaking = tasks.spawn(async move { speak(wire, &following, &connection).await });
        browser.write_all(&head[begun..]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        if head == read {
            browser.write_all(b"x").await.unwrap();
            until(&mut browser, b"\r\n\r\nx").await;
        } else {
            echo.release.notify_one();
            until(&mut browser, b"\r\n\r\nwaited").await;
        }
        let answered = Instant::now();
        wire = speaking.await.unwrap().expect("it is parked");
        let took = answered.elapsed();
        let what = String::from_utf8_lossy(head);
        assert!(took <= 2 * PARKED_AFTER, "{took:?} after {what}");
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let woken = next(&mut wire, &stop, &cut);
        tokio::join!(woken, async {
            browser.write_all(&following_one[..1]).await.unwrap();
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_in_the_moment_of_parking_is_answered() {
    let echo = Echo::default();
    for halves in [1, 9, 14, GET.len()] {
        let (mut browser, stream) = duplex(4096);
        let serving = http1::serve(fresh(stream).await, connection(&echo));
        let asking = async {
            ask(&mut browser).await;
            for late in 0..7 {
                // Of the same millisecond, which side is first is the scheduler's choice: both orders come up.
                tokio::time::sleep(
                    PARKED_AFTER.saturating_sub(Duration::from_millis(3)) + Duration::from_millis(late),
                )
                .await;
                for _ in 0..late {
                    tokio::task::yield_now().await;
                }
                browser.write_all(&GET[..halves]).await.unwrap();
                tokio::task::yield_now().await;
                browser.write_all(&GET[halves..]).await.unwrap();
                answer(&mut browser).await;
            }
            drop(browser);
        };
        tokio::join!(serving, asking);
        assert_eq!(asked(&echo), 8);
    }
}

/// How many were asked since.
fn asked(echo: &Echo) -> usize {
    std::mem::take(&mut *echo.asked.lock().unwrap()).len()
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_not_parked() {
    let echo = Echo::default();
    let connection = connection(&echo);
    let wait = b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let body = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n123";
    let chunked = b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n";
    for (name, said) in [
        ("nothing yet", &b""[..]),
        ("a head", b"GET / HTTP/1.1\r\n"),
        ("a request without an answer", wait),
        ("a body", body),
        ("a chunked body", chunked),
    ] {
        let (mut browser, stream) = duplex(4096);
        if !said.is_empty() {
            browser.write_all(GET).await.unwrap();
        }
        browser.write_all(said).await.unwrap();
        let spoken = timeout(LONGER, once(stream, &connection)).await;
        assert!(spoken.is_err(), "{name}: parked is {}", spoken.unwrap().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_not_parked() {
    let echo = Echo::default();
    let connection = connection(&echo);
    let (mut browser, stream) = duplex(4096);
    let switch = b"GET /switch HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    browser.write_all(switch).await.unwrap();
    assert!(once(stream, &connection).await.is_none());
    let switching = echo.switching.lock().unwrap().take().unwrap();
    let mut tunnel = TokioIo::new(switching.await.unwrap());
    let mut word = [0; 4];
    assert!(
        timeout(LONGER, tunnel.read_exact(&mut word)).await.is_err(),
        "it is silent, not over"
    );
    browser.write_all(b"word").await.unwrap();
    tunnel.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"word");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_for_the_browser_is_not_cut_off() {
    let echo = Echo::default();
    let connection = connection(&echo);
    // Far less room than the answer needs.
    let (mut browser, stream) = duplex(40);
    let reading = async {
        browser.write_all(GET).await.unwrap();
        tokio::time::sleep(PARKED_AFTER * 20).await;
        answer(&mut browser).await
    };
    let (parked, _) = tokio::join!(once(stream, &connection), reading);
    assert!(parked.is_some(), "then it is parked");
    // For longer than an idle connection is kept.
    let (mut browser, stream) = duplex(40);
    let reading = async {
        browser.write_all(GET).await.unwrap();
        tokio::time::sleep(2 * IDLE_TIMEOUT).await;
        answer(&mut browser).await
    };
    tokio::join!(once(stream, &connection), reading);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_parked_after_a_long_request_too() {
    let echo = Echo::default();
    let connection = connection(&echo);
    let (mut browser, stream) = duplex(4096);
    let asking = async {
        browser
            .write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        echo.release.notify_one();
        Instant::now()
    };
    let (parked, over) = tokio::join!(once(stream, &connection), asking);
    assert!(parked.is_some());
    assert!(over.elapsed() <= Duration::from_secs(20), "{:?}", over.elapsed());
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_parked_connections_at_once() {
    for cut in [false, true] {
        let rig = rig(|_| {}).await;
        let mut parked = rig.connect().await;
        parked.write_all(GET).await.unwrap();
        read_response(&mut parked, "hello").await;
        tokio::time::sleep(PARKED_AFTER * 4).await;
        let stopped = Instant::now();
        if cut {
            rig.cut.cancel();
        } else {
            rig.stop.cancel();
        }
        assert_eq!(read_all(&mut parked).await, "");
        rig.ended().await;
        assert_eq!(stopped.elapsed(), Duration::ZERO);
    }
}

#[tokio::test]
async fn a_connection_under_tls_is_parked_as_well() {
    let tls = tls::secured(&tls::pair()).await;
    let mut browser = tls.connect(rustls::ALL_VERSIONS, &["http/1.1"]).await.unwrap();
    let first = ask(&mut browser).await;
    tokio::time::pause();
    for wait in [PARKED_AFTER * 3, Duration::from_secs(70)] {
        tokio::time::sleep(wait).await;
        assert_eq!(ask(&mut browser).await, first);
    }
    // The idle time is over: the connection ends, and says so.
    let idle = Instant::now();
    assert_eq!(browser.read(&mut [0; 9]).await.unwrap(), 0);
    assert!(
        (74..=76).contains(&idle.elapsed().as_secs()),
        "{:?}",
        idle.elapsed()
    );
}

/// Notes the most that was asked for at once.
struct Asked(tokio::io::DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Asked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.1.fetch_max(buf.remaining(), Ordering::SeqCst);
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Asked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn buffers_are_large_for_as_many_as_may_have_them_and_parked_connections_do_not_count() {
    let echo = Echo::default();
    let connection = connection(&echo);
    let body = "x".repeat(2_000_000);
    let upload = format!(
        "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for (others, largest) in [
        (0, 256),
        (LARGE_BUFFERS - 1, 256),
        (LARGE_BUFFERS, 64),
        (9_999, 64),
    ] {
        connection.bounds.speaking.store(others, Ordering::SeqCst);
        let (mut browser, stream) = duplex(1024 * 1024);
        let asked = Arc::new(AtomicUsize::new(0));
        let uploading = async {
            browser.write_all(upload.as_bytes()).await.unwrap();
            read_to_the_end_of(&body, &mut browser).await;
        };
        let (parked, ()) = tokio::join!(once(Asked(stream, asked.clone()), &connection), uploading);
        assert!(parked.is_some());
        assert_eq!(connection.bounds.speaking.load(Ordering::SeqCst), others);
        // Room in the buffer is what is left of it, and a little more than was asked for.
        let asked = asked.load(Ordering::SeqCst) / 1024;
        assert!(
            (largest / 2..=largest + 8).contains(&asked),
            "{others} others: {asked} KiB"
        );
    }
}

async fn read_to_the_end_of(body: &str, browser: &mut (impl AsyncRead + Unpin)) {
    let mut read = Vec::new();
    while !read.ends_with(body.as_bytes()) {
        assert!(browser.read_buf(&mut read).await.unwrap() > 0);
    }
}
