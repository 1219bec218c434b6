//! The listener for http where `public_url` is https (`server.redirect`): it leads people over, and nothing else.
//!
//! What came in clear, anybody on the way may have read or changed. So it is never passed on; who came by a page's address
//! is told the https one, and programs are told that they are wrong, for a silent redirect would hide that from them:
//! each call would go on being sent in clear first.
//!
//! | request                                                        | answer                                       |
//! | -------------------------------------------------------------- | -------------------------------------------- |
//! | GET, HEAD of a page: where one may land from elsewhere         | 308 to `public_url`, path and query as sent  |
//! | of anything else: the prefix, a route with `pages: false`      | 403                                          |
//! | any other method: a form is not silently sent a second time    | 403 (`TRACE`, `TRACK`, `CONNECT`: 405)       |
//! | a name that is not `public_url`'s, whatever the port           | 421, with a link to `public_url`             |
//! | a path that can be read in two ways, a malformed head          | 400                                          |
//!
//! 308 rather than 301: for GET both say the same, and 308 is the one that never turns a method into another.
//! `no-store`, as on all that is ours: what keeps browsers on https is `Strict-Transport-Security`, once they are there.
//!
//! INVARIANT: the target begins with `public_url`, whatever `Host` says. What was meant for another name is not passed to
//! ours: its query may hold what is none of our business.
//! INVARIANT: no cookie is read or set, and no upstream, store or provider is asked.
//!
//! Sources: OWASP ASVS 5.0 4.1.2; RFC 9110 §15.4.9; RFC 6797 §7.2 (no HSTS in clear).

use crate::answer::{self, Asking, Body, Failure};
use crate::config::{RouteTable, Settings};
use crate::guard::gate;
use crate::listener::{Refusal, Service};
use crate::metrics::Metrics;
use crate::protocol::fetch_metadata::is_navigation;
use crate::protocol::host::is_named;
use http::{HeaderMap, HeaderValue, Method, Version, header};
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How its answers are counted.
const LABEL: &str = "redirect";

const NOT_A_PAGE: Failure =
    Failure::Forbidden("This came over plain http, where anybody on the way can read it. Use https.");
const NOT_REPEATED: Failure = Failure::Forbidden(
    "This came over plain http, where anybody on the way can read it. Nothing was done with it, and it was not passed on. Use https.",
);

/// The redirect listener's service.
#[derive(Clone, Debug)]
pub struct ToHttps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Arc<Settings>,
    routes: Arc<RouteTable>,
    metrics: Arc<Metrics>,
}

impl ToHttps {
    /// Puts it together.
    #[must_use]
    pub fn new(settings: Arc<Settings>, routes: Arc<RouteTable>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            settings,
            routes,
            metrics,
        }))
    }
}

impl Service for ToHttps {
    type Body = Body;

    async fn call(&self, request: Request<Incoming>, _: SocketAddr) -> Result<Response<Body>, Infallible> {
        let begun = Instant::now();
        let answered = self.0.judge(&request);
        Ok(self.0.finish(answered, Some(&request), begun.elapsed()))
    }

    fn refuse(
        &self,
        refusal: Refusal,
        request: Option<&Request<Incoming>>,
        _: SocketAddr,
    ) -> Option<Response<Body>> {
        Some(
            self.0
                .finish(Err(Failure::from(refusal)), request, Duration::ZERO),
        )
    }
}

impl Inner {
    fn judge(&self, request: &Request<Incoming>) -> Result<Response<Body>, Failure> {
        let (method, uri) = (request.method(), request.uri());
        let host = gate::check_head(request.version(), method, uri, request.headers())?;
        gate::check_method(method)?;
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(NOT_REPEATED);
        }
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        // Else it would be read as a part of the host's name that it is put behind.
        if !target.starts_with('/') {
            return Err(Failure::BadRequest("The path does not begin with a slash."));
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::BadRequest("The target holds bytes that no URI holds."));
        }
        let path = gate::parse_path(target, uri.path())?;
        self.routes
            .place(&path)
            .map_err(|doubt| Failure::BadRequest(doubt.0))?;
        let public_url = &self.settings.public_url;
        if !is_named(host, public_url.host()) {
            return Err(Failure::Misdirected);
        }
        if !self.routes.may_land(&path) {
            return Err(NOT_A_PAGE);
        }
        Ok(answer::moved(&public_url.url(target)))
    }

    fn finish(
        &self,
        answered: Result<Response<Body>, Failure>,
        request: Option<&Request<Incoming>>,
        took: Duration,
    ) -> Response<Body> {
        let request_id = answer::request_id();
        let mut response = answered.unwrap_or_else(|failure| {
            let nothing = HeaderMap::new();
            let (method, headers) = request.map_or((&Method::GET, &nothing), |request| {
                (request.method(), request.headers())
            });
            let asking = Asking {
                request_id: &request_id,
                navigation: is_navigation(method, headers),
                login_path: "",
            };
            match failure {
                Failure::Misdirected => answer::misdirected(asking, self.settings.public_url.origin()),
                failure => failure.answer(asking),
            }
        });
        // Who has been told where to go does not come back to this connection, which takes a place.
        if request.is_some_and(|request| request.version() < Version::HTTP_2) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let status = response.status().as_u16();
        self.metrics.request(LABEL, status, took);
        tracing::debug!(target: "cloakroom::access", request_id, route = LABEL, status, micros = took.as_micros());
        response
    }
}
