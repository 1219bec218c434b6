//! Tests of [`super`]: a session that ends under a stream, read and unread.

use super::*;
use crate::proxy::tie::{Opener, Streams};
use crate::session::SessionId;
use crate::session::testing::World;
use http::HeaderValue;
use http_body::Body as _;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(5);

/// An upstream's body: what a test sends.
struct Channel(mpsc::Receiver<Result<Bytes, BodyError>>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.0.poll_recv(cx);
        polled.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// The upstream's end, what the browser is given, and the session.
async fn stream(world: &World) -> (mpsc::Sender<Result<Bytes, BodyError>>, Body, SessionId) {
    let (sender, receiver) = mpsc::channel(8);
    let (id, session) = world.begin().await;
    let streams = Streams::new(Arc::clone(&world.sessions), world.clock.clone());
    let opener = Opener {
        streams: &streams,
        id: &id,
        session: &session,
    };
    let body = tied(Channel(receiver).boxed_unsync(), opener.tie(), &world.tasks);
    (sender, body, id)
}

#[test]
fn only_event_streams_are_event_streams() {
    let is = |value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
        is_one(&headers)
    };
    for one in [
        "text/event-stream",
        "Text/Event-Stream",
        "text/event-stream; charset=utf-8",
        "text/event-stream ;x",
    ] {
        assert!(is(one), "{one}");
    }
    for other in [
        "text/plain",
        "text/event-streams",
        "application/json; x=text/event-stream",
        "",
    ] {
        assert!(!is(other), "{other}");
    }
    assert!(!is_one(&HeaderMap::new()));
}

#[tokio::test(start_paused = true)]
async fn ws_04_a_stream_ends_with_its_session_and_lets_go_of_the_upstream() {
    let world = World::new();
    let (upstream, mut body, id) = stream(&world).await;
    upstream.send(Ok("data: 1\n\n".into())).await.unwrap();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: 1\n\n");
    assert!(!body.is_end_stream());
    let reading = world.tasks.spawn(async move { body.frame().await.is_none() });
    sleep(Duration::from_secs(1)).await;
    assert!(!reading.is_finished() && !upstream.is_closed());
    let ended = Instant::now();
    world.sessions.end_known(id.store_key()).await.unwrap();
    let read = timeout(SOON, reading).await.expect("it ends");
    assert!(read.unwrap(), "a clean end");
    assert!(upstream.is_closed());
    assert_eq!(ended.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nothing_more_goes_to_a_browser_that_reads_on_late() {
    let world = World::new();
    let (upstream, mut body, id) = stream(&world).await;
    upstream.send(Ok("data: 1\n\n".into())).await.unwrap();
    upstream.send(Ok("data: 2\n\n".into())).await.unwrap();
    assert!(body.frame().await.unwrap().is_ok());
    world.sessions.end_known(id.store_key()).await.unwrap();
    // The browser takes nothing, so nobody asks the body; the upstream is let go of all the same.
    timeout(SOON, upstream.closed()).await.expect("it is let go of");
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_by_itself_leaves_no_watcher_behind() {
    let world = World::new();
    for how in 0..3 {
        let (upstream, mut body, _) = stream(&world).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(world.tasks.len(), 1);
        match how {
            0 => drop(body),
            1 => {
                drop(upstream);
                assert!(body.frame().await.is_none());
                drop(body);
            }
            _ => {
                upstream.send(Err("it broke".into())).await.unwrap();
                assert!(body.frame().await.unwrap().is_err());
                drop(body);
            }
        }
        timeout(SOON, world.settle()).await.expect("nothing runs on");
    }
}
