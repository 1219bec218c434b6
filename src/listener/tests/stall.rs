//! Browsers that take nothing of what they asked for, with the clock held still.

use super::super::connection::Connection;
use super::super::http2;
use super::super::wire::Wire;
use super::parking::fresh;
use super::*;
use crate::patience::SEND_STALL;
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

#[tokio::test(start_paused = true)]
async fn lm_08_a_browser_that_takes_nothing_is_not_waited_for_for_ever() {
    let bounds = bounds();
    let (stream, mut browser) = duplex(64);
    let mut wire = Wire::new(fresh(stream).await, &bounds, Arc::default());
    let almost = SEND_STALL.saturating_sub(Duration::from_secs(1));
    let began = Instant::now();
    // As long as it takes a byte now and then, it may be slow.
    let slow = async {
        for _ in 0..10 {
            sleep(almost).await;
            browser.read_exact(&mut [0; 8]).await.unwrap();
        }
    };
    let (sent, ()) = tokio::join!(wire.write_all(&[7; 64 + 80]), slow);
    sent.unwrap();
    assert_eq!(began.elapsed(), 10 * almost);
    let began = Instant::now();
    let error = wire.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed(), SEND_STALL);
    // With nothing to send it is only idle.
    let (stream, _browser) = duplex(64);
    let mut wire = Wire::new(fresh(stream).await, &bounds, Arc::default());
    wire.write_all(b"x").await.unwrap();
    sleep(2 * SEND_STALL).await;
    wire.write_all(b"x").await.unwrap();
}

/// Answers by path.
#[derive(Clone, Default)]
struct Answers {
    ended: Arc<AtomicUsize>,
}

/// So much takes a slow link a quarter of an hour.
const LARGE: usize = 200 * 1024;

/// How long two sides may take to part, and between two looks at what is on its way.
const PARTING: Duration = Duration::from_secs(5);

/// Longer than a browser may take nothing.
const SILENCE: Duration = Duration::from_hours(3);

/// A body in pieces, each after a pause.
struct Pieces {
    left: u32,
    size: usize,
    pause: Duration,
    next: Pin<Box<Sleep>>,
    _counted: Counted,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.next.as_mut().poll(cx));
        let next = Instant::now() + self.pause;
        self.next.as_mut().reset(next);
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(vec![b'.'; self.size].into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}

impl Service for Answers {
    type Body = Pieces;

    async fn call(
        &self,
        request: Request<Incoming>,
        _: SocketAddr,
    ) -> Result<Response<Self::Body>, Infallible> {
        let (left, size, pause) = match request.uri().path() {
            "/pieces" => (20, 5, Duration::ZERO),
            "/drops" => (3, 1, SILENCE),
            "/large" => (1, LARGE, Duration::ZERO),
            _ => (1, 100, Duration::ZERO),
        };
        Ok(Response::new(Pieces {
            left,
            size,
            pause,
            next: Box::pin(sleep(pause)),
            _counted: Counted(self.ended.clone()),
        }))
    }

    fn refuse(
        &self,
        _: Refusal,
        _: Option<&Request<Incoming>>,
        _: SocketAddr,
    ) -> Option<Response<Self::Body>> {
        None
    }
}

impl Answers {
    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

/// Serves HTTP/2 on one connection.
async fn serve_http2(service: &Answers, bounds: Bounds, stream: DuplexStream) -> Served {
    let stop = CancellationToken::new();
    let connection = Connection {
        peer: ([127, 0, 0, 1], 1).into(),
        bounds,
        service: service.clone(),
        stop: stop.clone(),
        cut: CancellationToken::new(),
        refused: None,
    };
    let serving = TaskTracker::new().spawn(http2::serve(fresh(stream).await, connection));
    Served { serving, stop }
}

/// The same, with a browser at the other end that takes so many bytes of each answer at a time.
async fn over_http2(
    service: &Answers,
    bounds: Bounds,
    (stream, other): (DuplexStream, DuplexStream),
    window: u32,
) -> (Browser, Served) {
    let served = serve_http2(service, bounds, stream).await;
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(other)).await.unwrap();
    TaskTracker::new().spawn(connection);
    (Browser(sender), served)
}

struct Served {
    serving: JoinHandle<()>,
    stop: CancellationToken,
}

impl Served {
    async fn ended(&mut self) {
        (&mut self.serving).await.unwrap();
    }
}

struct Browser(SendRequest<Full<Bytes>>);

impl Browser {
    async fn ask(&mut self, path: &str) -> Incoming {
        let request = Request::get(format!("http://app.example{path}"));
        let answer = self.0.send_request(request.body(Full::default()).unwrap());
        answer.await.unwrap().into_body()
    }
}

async fn size(body: Incoming) -> usize {
    body.collect().await.unwrap().to_bytes().len()
}

#[tokio::test(start_paused = true)]
async fn lm_08_a_stream_that_nobody_reads_is_not_kept_for_ever_and_the_others_are() {
    let service = Answers::default();
    let (mut browser, _served) = over_http2(&service, bounds(), duplex(64 * 1024), 10).await;
    let began = Instant::now();
    let drops = browser.ask("/drops").await;
    let unread = [browser.ask("/pieces").await, browser.ask("/large").await];
    let mut slow = browser.ask("/pieces").await;
    // A piece now and then is enough.
    let almost = SEND_STALL.saturating_sub(Duration::from_secs(1));
    let mut taken = 0;
    while let Some(piece) = slow.frame().await {
        taken += piece.unwrap().into_data().unwrap().len();
        if began.elapsed() < SEND_STALL {
            assert_eq!(service.ended(), 0);
        }
        if taken == 50 {
            assert_eq!(service.ended(), unread.len());
            assert_eq!(size(browser.ask("/pieces").await).await, 100);
        }
        sleep(almost).await;
    }
    assert_eq!(taken, 100);
    // What it was sent before is no answer.
    for unread in unread {
        assert!(unread.collect().await.is_err());
    }
    // A service that says nothing for long does not make its browser one that reads nothing.
    assert_eq!(size(drops).await, 3);
}

#[tokio::test(start_paused = true)]
async fn lm_08_the_end_of_an_answer_is_waited_for_longer_than_an_idle_connection() {
    for stalled in [false, true] {
        let service = Answers::default();
        let (mut browser, mut served) = over_http2(&service, bounds(), duplex(64 * 1024), 10).await;
        // The only piece: hyper has given it away, and h2 waits with nine tenths of it.
        let paused = browser.ask("/whole").await;
        let began = Instant::now();
        if !stalled {
            sleep(SEND_STALL / 2).await;
            assert_eq!(service.ended(), 1);
            assert_eq!(size(paused).await, 100);
            // It was told to go meanwhile, and goes.
            served.ended().await;
            assert_eq!(began.elapsed(), SEND_STALL / 2);
            continue;
        }
        // But not for ever.
        served.ended().await;
        let lasted = began.elapsed();
        let most = IDLE_TIMEOUT + SEND_STALL + 2 * PARTING;
        assert!((SEND_STALL..most).contains(&lasted), "{lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lm_01_a_browser_that_falls_silent_is_not_waited_for() {
    let service = Answers::default();
    let (stream, mut other) = duplex(64 * 1024);
    let mut served = serve_http2(&service, bounds(), stream).await;
    let began = Instant::now();
    // Asks, takes the answer, and says nothing more: not even to a GOAWAY.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x87\x84";
    other.write_all(hello).await.unwrap();
    let mut answer = Vec::new();
    let read = other.read_to_end(&mut answer);
    let ((), read) = tokio::join!(served.ended(), read);
    assert!(read.unwrap() > 100);
    let lasted = began.elapsed();
    assert!(
        lasted >= IDLE_TIMEOUT && lasted <= IDLE_TIMEOUT + 2 * PARTING,
        "{lasted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn lm_11_a_stop_waits_for_what_is_read_and_not_for_what_is_not() {
    // While it is under way, idle, and told to go because it is.
    for later in [Duration::ZERO, IDLE_TIMEOUT / 2, 2 * IDLE_TIMEOUT] {
        let service = Answers::default();
        let (mut browser, mut served) = over_http2(&service, bounds(), duplex(64 * 1024), 10).await;
        let drops = browser.ask("/drops").await;
        assert_eq!(size(drops).await, 3);
        let _unread = browser.ask("/whole").await;
        sleep(later).await;
        let began = Instant::now();
        served.stop.cancel();
        served.ended().await;
        let lasted = began.elapsed();
        assert!(lasted <= 2 * PARTING, "{later:?} {lasted:?}");
    }
    let service = Answers::default();
    let (mut browser, mut served) = over_http2(&service, bounds(), duplex(64 * 1024), 10).await;
    let drops = browser.ask("/drops").await;
    served.stop.cancel();
    assert_eq!(size(drops).await, 3);
    served.ended().await;
}

/// A link that carries 256 bytes a second to the browser once it carries any, with room for so many bytes before it.
fn slow_link(room: usize, silence: Duration) -> (DuplexStream, DuplexStream) {
    let (stream, between) = duplex(room);
    let (far, other) = duplex(64 * 1024);
    let (mut down, mut up) = tokio::io::split(between);
    let (mut from_browser, mut to_browser) = tokio::io::split(far);
    TaskTracker::new().spawn(async move {
        sleep(silence).await;
        let mut bytes = [0; 256];
        while let Ok(read @ 1..) = down.read(&mut bytes).await {
            sleep(Duration::from_secs(1)).await;
            to_browser.write_all(&bytes[..read]).await.unwrap();
        }
        to_browser.shutdown().await.unwrap();
    });
    TaskTracker::new().spawn(async move { tokio::io::copy(&mut from_browser, &mut up).await });
    (stream, other)
}

/// What a PING is answered with would stand behind minutes of bytes, and the end of an answer is on its way for longer than a
/// connection may be idle.
#[tokio::test(start_paused = true)]
async fn lm_08_a_slow_link_gets_the_whole_answer_over_http2() {
    for (path, room, silence, length) in [
        ("/large", 64 * 1024, Duration::ZERO, LARGE),
        ("/whole", 100, SEND_STALL / 2, 100),
    ] {
        let service = Answers::default();
        let link = slow_link(room, silence);
        let (mut browser, _served) = over_http2(&service, bounds(), link, 1024 * 1024).await;
        let began = Instant::now();
        assert_eq!(size(browser.ask(path).await).await, length);
        assert!(began.elapsed() > Duration::from_mins(10), "{:?}", began.elapsed());
    }
}

/// As over HTTP/1.1, a stop waits for a slow link as long as it waits for anything.
#[tokio::test(start_paused = true)]
async fn lm_11_a_stop_waits_for_a_slow_link() {
    let service = Answers::default();
    let link = slow_link(100, SEND_STALL / 2);
    let (mut browser, mut served) = over_http2(&service, bounds(), link, 1024 * 1024).await;
    let stop = served.stop.clone();
    let answer = async { size(browser.ask("/whole").await).await };
    let stopping = async {
        sleep(SEND_STALL / 4).await;
        stop.cancel();
    };
    let (answer, ()) = tokio::join!(answer, stopping);
    assert_eq!(answer, 100);
    served.ended().await;
}
