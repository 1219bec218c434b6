//! A WebSocket's handshake goes up, and only if the upstream agrees do the two connections become one tunnel.
//!
//! Whether the browser may open it was decided by the guard, from `Origin`. The answer `101` of the upstream is what
//! opens the tunnel; whatever the browser sent before it waits, and if another answer comes it is thrown away with the
//! connection.
//!
//! INVARIANT: no byte of the browser's goes up outside HTTP before a `101` for this very handshake came down.
//!
//! Sources: RFC 6455 §4; RFC 9110 §7.8, §15.2.2.

use super::tie::Tie;
use super::tunnel;
use crate::protocol::websocket;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::future::pending;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
    pub fn restore(&self, headers: &mut HeaderMap) {
        websocket::say_upgrade(headers);
        for (name, value) in &self.0 {
            headers.insert(name, value.clone());
        }
    }

    /// Whether the upstream's `101` answers this handshake: it is for a WebSocket, and has read the key. "If the response
    /// lacks a |Sec-WebSocket-Accept| header field or the |Sec-WebSocket-Accept| contains a value other than the
    /// base64-encoded SHA-1 of the concatenation […], the client MUST _Fail the WebSocket Connection_" (RFC 6455 §4.1).
    pub fn is_accepted(&self, headers: &HeaderMap) -> bool {
        let only = |name| {
            let mut lines = headers.get_all(name).iter();
            lines.next().filter(|_| lines.next().is_none())
        };
        let key = self.0.iter().find(|(name, _)| *name == SEC_WEBSOCKET_KEY);
        only(UPGRADE).is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && key.is_some_and(|(_, key)| {
                only(SEC_WEBSOCKET_ACCEPT).is_some_and(|line| *line == derive_accept_key(key.as_bytes()))
            })
    }
}

/// Joins the two connections as soon as both have switched, until either ends, the session does, or `cut` is cancelled.
/// `held`: what is kept as long.
pub fn tunnel(
    browser: OnUpgrade,
    upstream: OnUpgrade,
    held: impl Send + 'static,
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
        let _held = held;
        tokio::select! {
            () = cut.cancelled() => {}
            ended = joined => if let Err(error) = ended {
                tracing::debug!(%error, "a tunnel ended early");
            },
        }
    });
}
