//! The way up and back: what leaves for the upstream, what returns to the browser (contract 4.11, 4.12).
//!
//! Comes last on a request's way: the guard has let it through, the session's token is fresh. The heads are changed in
//! place by `request` and `response`; the bodies pass through, a frame at a time, each side waiting for the other.
//!
//! INVARIANT: a request that is refused here has opened no upstream connection.
//! INVARIANT: a body that breaks off on one side breaks off on the other; it never ends as if it were whole.
//!
//! Sources: RFC 9110 §7.6, §9.2.2, §10.1.1; RFC 9112 §6.3, §8.

mod body;
mod cookies;
mod event_stream;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod tie;
mod trace_context;
mod tunnel;
mod upgrade;

use crate::answer::{Body, Failure};
use crate::config::RouteSettings;
use crate::listener::Hold;
use crate::protocol::origin::PublicUrl;
use crate::protocol::path::RequestPath;
use crate::protocol::websocket;
use crate::upstream::{Upstream, UpstreamError};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use std::net::IpAddr;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[cfg(fuzzing)]
pub use cookies::{may_be_set, strip};
pub use tie::{Opener, Streams};

/// What is known of a request when it is let through.
#[derive(Debug)]
pub struct Passage<'a> {
    /// The route.
    pub route: &'a RouteSettings,
    /// Its upstream.
    pub upstream: &'a Upstream,
    /// The path, parsed once.
    pub path: &'a RequestPath,
    /// `Authorization: Bearer …`, marked sensitive; `None` on open routes and for anonymous requests.
    pub bearer: Option<HeaderValue>,
    /// Who asks, after trusted proxies.
    pub client: IpAddr,
    /// Our request id: `X-Request-Id`.
    pub request_id: &'a str,
    /// The origin browsers see.
    pub public_url: &'a PublicUrl,
    /// The session cookie's name.
    pub session_cookie: &'a str,
    /// The session that it came with: what streams it opens end with that.
    pub opener: Option<Opener<'a>>,
    /// Where tunnels run and what ends event streams, and nothing else; draining waits for it.
    pub tasks: &'a TaskTracker,
    /// Cuts tunnels, when draining has lasted long enough.
    pub cut: &'a CancellationToken,
}

/// Forwards a request and brings its answer back, both streaming; WebSocket upgrades become tunnels. What goes up of the
/// head is taken from it.
///
/// # Errors
/// [`Failure`]: nothing has gone back to the browser yet.
///
/// # Cancel safety
/// Dropping the future breaks the upstream request off: it may have been carried out or not.
pub async fn forward(
    head: &mut Parts,
    incoming: Incoming,
    passage: Passage<'_>,
) -> Result<Response<Body>, Failure> {
    if request::comes_from_us(&head.headers) {
        tracing::error!(route = passage.route.path, "the route's upstream leads back here");
        return Err(Failure::Loop);
    }
    let length = incoming.size_hint().exact();
    if let (Some(limit), Some(length)) = (passage.route.body_limit, length)
        && length > limit
    {
        return Err(Failure::TooLarge);
    }
    let is_websocket = websocket::is_upgrade(&head.method, head.version, &head.headers);
    let takes_trailers = response::takes_trailers(&head.headers);
    let sitter = passage.opener.filter(|_| is_websocket);
    let taken_seat = sitter.map(|opener| opener.seat()).transpose()?;
    let browser = is_websocket
        .then(|| head.extensions.remove::<OnUpgrade>())
        .flatten();
    let hold = head.extensions.remove::<Hold>();

    let opening = is_websocket.then(|| upgrade::Opening::take(&head.headers));
    request::prepare(head, &passage, length.is_none(), takes_trailers)?;
    if let Some(opening) = &opening {
        opening.restore(&mut head.headers);
    }
    let (body, watch) = body::watched(incoming, passage.route.body_limit);
    let mut request = Request::new(body);
    *request.method_mut() = std::mem::take(&mut head.method);
    *request.uri_mut() = std::mem::take(&mut head.uri);
    *request.headers_mut() = std::mem::take(&mut head.headers);
    let sent = passage.upstream.send(request, passage.route.timeout).await;
    if let Some(fault) = watch.fault() {
        return Err(fault);
    }
    watch.answered();
    let mut response = sent.map_err(|error| {
        tracing::warn!(request_id = passage.request_id, route = passage.route.path, %error, "no answer from the upstream");
        match error {
            UpstreamError::Timeout => Failure::UpstreamTimeout,
            UpstreamError::Unavailable(_) => Failure::UpstreamUnavailable,
        }
    })?;

    let upstream = hyper::upgrade::on(&mut response);
    let (mut parts, body) = response.into_parts();
    let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let is_accepted = |opening: &upgrade::Opening| opening.is_accepted(&parts.headers);
    if switched && !opening.as_ref().is_some_and(is_accepted) {
        tracing::warn!(
            route = passage.route.path,
            "the upstream switched to a protocol that nobody asked for"
        );
        return Err(Failure::UpstreamUnavailable);
    }
    response::prepare(&mut parts, &passage, takes_trailers)?;
    if switched {
        let Some(browser) = browser else {
            return Err(Failure::UpstreamUnavailable);
        };
        websocket::say_upgrade(&mut parts.headers);
        let tie = passage.opener.map(|opener| opener.tie());
        upgrade::tunnel(
            browser,
            upstream,
            (hold, taken_seat),
            tie,
            passage.tasks,
            passage.cut.clone(),
        );
    }
    let body = body.map_err(Into::into).map_frame(response::pass).boxed_unsync();
    let body = match passage.opener {
        Some(opener) if event_stream::is_one(&parts.headers) && !body.is_end_stream() => {
            event_stream::tied(body, opener.tie(), passage.tasks)
        }
        _ => body,
    };
    Ok(Response::from_parts(parts, body))
}
