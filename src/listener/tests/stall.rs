//! Browsers that take nothing of what they asked for, with the clock held still.

use super::super::wire::{SEND_STALL, Wire};
use super::parking::fresh;
use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::{Instant, sleep};

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
