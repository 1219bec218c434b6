//! Tests of [`super`]: both sides by hand, over pipes that hold little, with a clock that stands.

use super::*;
use crate::patience::SEND_STALL;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{DuplexStream, ReadBuf, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

struct Rig {
    browser: DuplexStream,
    upstream: DuplexStream,
    end: Option<oneshot::Sender<()>>,
    spoken: Arc<AtomicUsize>,
    joined: JoinHandle<io::Result<()>>,
}

/// A tunnel between two pipes that hold `capacity` bytes.
fn rig(capacity: usize) -> Rig {
    let (browser, ours) = duplex(capacity);
    let (theirs, upstream) = duplex(capacity);
    let (end, over) = oneshot::channel();
    let spoken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&spoken);
    let joined = TaskTracker::new().spawn(async move {
        let over = async { over.await.unwrap() };
        join(ours, theirs, over, || {
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .await
    });
    Rig {
        browser,
        upstream,
        end: Some(end),
        spoken,
        joined,
    }
}

impl Rig {
    fn end(&mut self) {
        self.end.take().unwrap().send(()).unwrap();
    }

    fn spoken(&self) -> usize {
        self.spoken.load(Ordering::SeqCst)
    }
}

/// What contract 4.9 allows.
const SECOND: Duration = Duration::from_secs(1);
const MASK: [u8; 4] = [9, 8, 7, 6];

/// A frame with a payload of that length, as this side sends it.
fn frame(sender: Sender, first: u8, length: u16) -> Vec<u8> {
    let masked = if sender == Sender::Browser { 0x80 } else { 0 };
    let mut frame = vec![first];
    if length < 126 {
        frame.push(masked | u8::try_from(length).unwrap());
    } else {
        frame.push(masked + 126);
        frame.extend(length.to_be_bytes());
    }
    if masked != 0 {
        frame.extend(MASK);
    }
    // A payload that looks like close frames.
    frame.extend([0x88, 0].iter().cycle().take(length.into()));
    frame
}

/// What the browser is told at the session's end.
fn farewell() -> Vec<u8> {
    [&[0x88, 15, 0x03, 0xf0], &b"session ended"[..]].concat()
}

/// Whether this is what the upstream is told: 1001, masked.
fn is_farewell_to_upstream(bytes: &[u8]) -> bool {
    let Some((&[0x88, 0x8f, a, b, c, d], masked)) = bytes.split_first_chunk() else {
        return false;
    };
    let mask = [a, b, c, d];
    let plain: Vec<u8> = masked
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    mask != [0; 4] && plain == [&[0x03, 0xe9], &b"session ended"[..]].concat()
}

async fn read(from: &mut DuplexStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn read_all(from: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn both_sides_are_told_and_closed_once_they_have_answered() {
    let mut rig = rig(1024);
    let began = Instant::now();
    rig.end();
    assert_eq!(read(&mut rig.browser, 17).await, farewell());
    let told = read(&mut rig.upstream, 21).await;
    assert!(is_farewell_to_upstream(&told), "{told:x?}");
    // What comes meanwhile, from either side, goes nowhere.
    rig.browser
        .write_all(&frame(Sender::Browser, 0x82, 300))
        .await
        .unwrap();
    rig.upstream
        .write_all(&frame(Sender::Upstream, 0x82, 300))
        .await
        .unwrap();
    rig.browser
        .write_all(&frame(Sender::Browser, 0x88, 2))
        .await
        .unwrap();
    assert_eq!(
        read_all(&mut rig.browser).await,
        b"",
        "nothing follows a close frame"
    );
    rig.upstream
        .write_all(&frame(Sender::Upstream, 0x88, 2))
        .await
        .unwrap();
    assert_eq!(
        read_all(&mut rig.upstream).await,
        b"",
        "nothing follows a close frame"
    );
    rig.joined.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_close_comes_between_two_frames_wherever_the_session_ends() {
    let conversation = |sender| {
        [
            frame(sender, 0x81, 5),
            frame(sender, 0x01, 0),
            frame(sender, 0x89, 3),
            frame(sender, 0x80, 200),
            frame(sender, 0x8a, 0),
            frame(sender, 0x82, 7),
        ]
    };
    for capacity in [1, 7, 1024] {
        let (up, down) = (conversation(Sender::Browser), conversation(Sender::Upstream));
        let boundaries = |frames: &[Vec<u8>]| {
            let ends = frames.iter().scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            });
            [0].into_iter().chain(ends).collect::<Vec<_>>()
        };
        let (up_ends, down_ends) = (boundaries(&up), boundaries(&down));
        let (up, down) = (up.concat(), down.concat());
        for at in 0..up.len() {
            let mut rig = rig(capacity);
            let (up_at, down_at) = (at, at.min(down.len()));
            // So much has gone through when the session ends; what follows may lie in any buffer.
            let (mut from_browser, mut to_browser) = split(rig.browser);
            let (mut from_upstream, mut to_upstream) = split(rig.upstream);
            let ended = CancellationToken::new();
            let halves = async {
                let (mut at_browser, mut at_upstream) = (vec![0; down_at], vec![0; up_at]);
                tokio::try_join!(
                    from_browser.read_exact(&mut at_browser),
                    from_upstream.read_exact(&mut at_upstream)
                )
                .unwrap();
                rig.end.take().unwrap().send(()).unwrap();
                ended.cancel();
                tokio::try_join!(
                    from_browser.read_to_end(&mut at_browser),
                    from_upstream.read_to_end(&mut at_upstream)
                )
                .unwrap();
                (at_browser, at_upstream)
            };
            let writing = async {
                let browser_says = async {
                    let _gone = to_browser.write_all(&up).await;
                    ended.cancelled().await;
                    let _gone = to_browser.write_all(&frame(Sender::Browser, 0x88, 2)).await;
                };
                let upstream_says = async {
                    let _gone = to_upstream.write_all(&down[..down_at]).await;
                    ended.cancelled().await;
                    let _gone = to_upstream.write_all(&down[down_at..]).await;
                    let _gone = to_upstream.write_all(&frame(Sender::Upstream, 0x88, 2)).await;
                };
                tokio::join!(browser_says, upstream_says);
            };
            let began = Instant::now();
            let ((at_browser, at_upstream), ()) = tokio::join!(halves, writing);
            assert_eq!(began.elapsed(), Duration::ZERO, "{at}");
            rig.joined.await.unwrap().unwrap();
            // The upstream held back the rest, so the close comes at the very next boundary.
            let end = *down_ends.iter().find(|end| **end >= down_at).unwrap();
            let wanted = [&down[..end], &farewell()].concat();
            assert_eq!(at_browser, wanted, "at {at}, {capacity} bytes at a time");
            // The browser did not: whatever had gone when the session ended, a boundary it is.
            let end = at_upstream.len().checked_sub(21).unwrap();
            assert!(end >= up_at && up_ends.contains(&end), "{at}: {end}");
            assert_eq!(at_upstream[..end], up[..end]);
            assert!(is_farewell_to_upstream(&at_upstream[end..]), "{at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut_after_a_second_and_the_other_is_told_at_once() {
    let mut rig = rig(64);
    let flood = frame(Sender::Upstream, 0x82, 60_000);
    let mut upstream = std::mem::replace(&mut rig.upstream, duplex(1).0);
    let pouring = TaskTracker::new().spawn(async move {
        // The tunnel takes no more than its buffer and the pipes hold.
        let poured = tokio::time::timeout(Duration::from_secs(5), upstream.write_all(&flood)).await;
        (upstream, poured.is_err())
    });
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (mut upstream, is_held_back) = pouring.await.unwrap();
    assert!(is_held_back, "ws_05: the tunnel took 60 kB that nobody read");
    let began = Instant::now();
    rig.end();
    let told = read(&mut upstream, 21).await;
    assert!(is_farewell_to_upstream(&told));
    assert_eq!(began.elapsed(), Duration::ZERO);
    rig.joined.await.unwrap().unwrap();
    assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
    let left = read_all(&mut rig.browser).await;
    assert!(left.len() <= 64 && !left.ends_with(b"session ended"));
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_not_finished_in_time_gets_no_close_in_its_middle() {
    let mut rig = rig(1024);
    let half = &frame(Sender::Upstream, 0x82, 300)[..100];
    rig.upstream.write_all(half).await.unwrap();
    assert_eq!(read(&mut rig.browser, 100).await, half);
    let began = Instant::now();
    rig.end();
    assert!(is_farewell_to_upstream(&read(&mut rig.upstream, 21).await));
    assert_eq!(read_all(&mut rig.browser).await, b"");
    assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
    // The same the other way: it is the upstream that gets no close, and the browser that does.
    let mut rig = super::tests::rig(1024);
    let half = &frame(Sender::Browser, 0x82, 300)[..100];
    rig.browser.write_all(half).await.unwrap();
    assert_eq!(read(&mut rig.upstream, 100).await, half);
    rig.end();
    assert_eq!(read(&mut rig.browser, 17).await, farewell());
    assert_eq!(read_all(&mut rig.upstream).await, b"");
    rig.joined.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_has_closed_already_is_told_nothing_more() {
    let mut rig = rig(1024);
    let close = frame(Sender::Upstream, 0x88, 2);
    rig.upstream.write_all(&close).await.unwrap();
    assert_eq!(read(&mut rig.browser, 4).await, close);
    let began = Instant::now();
    rig.end();
    assert!(is_farewell_to_upstream(&read_all(&mut rig.upstream).await));
    rig.browser
        .write_all(&frame(Sender::Browser, 0x88, 2))
        .await
        .unwrap();
    assert_eq!(read_all(&mut rig.browser).await, b"");
    rig.joined.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_side_that_has_gone_is_not_waited_for() {
    let mut rig = rig(1024);
    rig.browser.shutdown().await.unwrap();
    assert_eq!(read_all(&mut rig.upstream).await, b"");
    let message = frame(Sender::Upstream, 0x81, 9);
    rig.upstream.write_all(&message).await.unwrap();
    assert_eq!(read(&mut rig.browser, message.len()).await, message);
    rig.end();
    assert_eq!(read_all(&mut rig.browser).await, farewell());
    rig.upstream.shutdown().await.unwrap();
    let began = Instant::now();
    rig.joined.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_websocket_is_not_passed_on() {
    for (from_browser, bytes) in [
        (true, frame(Sender::Upstream, 0x81, 5)),
        (false, frame(Sender::Browser, 0x81, 5)),
        (true, b"GET / HTTP/1.1\r\nHost: inside\r\n\r\n".to_vec()),
        (false, [frame(Sender::Upstream, 0x81, 5), vec![0x09, 0]].concat()),
    ] {
        let mut rig = rig(1024);
        let sender = if from_browser {
            &mut rig.browser
        } else {
            &mut rig.upstream
        };
        sender.write_all(&bytes).await.unwrap();
        let ended = timeout(Duration::from_secs(5), rig.joined).await;
        let ended = ended.expect("it is cut").unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_all(&mut rig.browser).await, b"");
        assert_eq!(read_all(&mut rig.upstream).await, b"");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_browsers_messages_count() {
    let mut rig = rig(1024);
    let mut counted = 0;
    for (first, counts) in [
        (0x81, true),
        (0x89, false),
        (0x01, true),
        (0x8a, false),
        (0x80, true),
        (0x82, true),
        (0x88, false),
    ] {
        let said = frame(Sender::Browser, first, 3);
        rig.browser.write_all(&said).await.unwrap();
        assert_eq!(read(&mut rig.upstream, said.len()).await, said);
        let back = frame(Sender::Upstream, first, 3);
        rig.upstream.write_all(&back).await.unwrap();
        assert_eq!(read(&mut rig.browser, back.len()).await, back);
        counted += usize::from(counts);
        assert_eq!(rig.spoken(), counted, "{first:x}");
    }
}

#[tokio::test(start_paused = true)]
async fn lm_08_a_side_that_takes_nothing_is_not_waited_for_for_ever() {
    let mut rig = rig(64);
    // Quiet for as long as they like.
    sleep(3 * SEND_STALL).await;
    let said = frame(Sender::Upstream, 0x82, 20_000);
    let said = TaskTracker::new().spawn(async move { rig.upstream.write_all(&said).await });
    // A little now and then is enough.
    let almost = SEND_STALL.saturating_sub(SECOND);
    for _ in 0..5 {
        sleep(almost).await;
        read(&mut rig.browser, 32).await;
    }
    let began = Instant::now();
    let error = rig.joined.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed(), SEND_STALL);
    assert!(said.await.unwrap().is_err(), "the upstream is told");
}

/// A side whose end cannot be said to it, as over HTTP/2 while the browser gives no room.
struct Full(DuplexStream);

impl AsyncRead for Full {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Full {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn lm_08_a_side_that_does_not_take_even_the_end_is_not_waited_for_for_ever() {
    let (_browser, ours) = duplex(64);
    let (theirs, upstream) = duplex(64);
    drop(upstream);
    let began = Instant::now();
    let joined = join(Full(ours), theirs, std::future::pending(), || {}).await;
    assert_eq!(joined.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed(), SEND_STALL + FAREWELL);
}
