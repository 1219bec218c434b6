//! The way up and back: what leaves for the upstream, what returns to the browser (contract 4.11, 4.12).

use crate::answer::{Body, Failure};
use crate::config::RouteSettings;
use crate::protocol::origin::PublicUrl;
use crate::protocol::path::RequestPath;
use crate::upstream::Upstream;
use http::HeaderValue;
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::net::IpAddr;

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
}

/// Forwards a request and brings its answer back, both streaming; WebSocket upgrades become tunnels.
///
/// # Errors
/// [`Failure`]: nothing has gone back to the browser yet.
pub async fn forward(_request: Request<Incoming>, _passage: Passage<'_>) -> Result<Response<Body>, Failure> {
    unimplemented!()
}
