//! A WebSocket's handshake goes up, and only if the upstream agrees do the two connections become one tunnel.
//!
//! Whether the browser may open it was decided by the guard, from `Origin`. The answer `101` of the upstream is what
//! opens the tunnel; whatever the browser sent before it waits, and if another answer comes it is thrown away with the
//! connection.
//!
//! INVARIANT: no byte of the browser's goes up outside HTTP before a `101` with `Upgrade: websocket` came down.
//!
//! Sources: RFC 6455 §4; RFC 9110 §7.8, §15.2.2.

use super::tie::Tie;
use super::tunnel;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::future::pending;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const SWITCH: HeaderValue = HeaderValue::from_static("Upgrade");

/// What makes a request an opening handshake, kept safe from what its `Connection` names.
pub struct Opening(Vec<(HeaderName, HeaderValue)>);

impl Opening {
    /// Takes note of it before hop-by-hop headers are removed.
    pub fn take(headers: &HeaderMap) -> Self {
        let needed = [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION];
        let lines = needed
            .into_iter()
            .filter_map(|name| headers.get(&name).cloned().map(|value| (name, value)));
        Self(lines.collect())
    }

    /// Puts it into the head that goes up.
    pub fn restore(self, headers: &mut HeaderMap) {
        accept(headers);
        for (name, value) in self.0 {
            headers.insert(name, value);
        }
    }
}

/// Whether the upstream's `101` is for a WebSocket.
pub fn is_accepted(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (lines.next(), lines.next()) else {
        return false;
    };
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// Says to the next hop that this message switches.
pub fn accept(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, SWITCH);
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Joins the two connections as soon as both have switched, until either ends, the session does, or `cut` is cancelled.
pub fn tunnel(
    browser: OnUpgrade,
    upstream: OnUpgrade,
    tie: Option<Tie>,
    tasks: &TaskTracker,
    cut: CancellationToken,
) {
    let joined = async move {
        let (browser, upstream) = tokio::try_join!(browser, upstream).map_err(std::io::Error::other)?;
        let (browser, upstream) = (TokioIo::new(browser), TokioIo::new(upstream));
        match tie {
            Some(tie) => tunnel::join(browser, upstream, tie.severed(), || tie.spoken()).await,
            None => tunnel::join(browser, upstream, pending(), || {}).await,
        }
    };
    tasks.spawn(async move {
        tokio::select! {
            () = cut.cancelled() => {}
            ended = joined => if let Err(error) = ended {
                tracing::debug!(%error, "a tunnel ended early");
            },
        }
    });
}
