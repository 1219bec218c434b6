//! The whole way of a request, in one function: `Router::way`. The numbers are the public contract's rules.
//!
//! What stops a request is a [`Failure`], and `Router::answer` turns it into HTTP; nothing else does.

mod head;
mod notices;

pub use notices::Notices;

use crate::answer::{self, Asking, Body, Failure};
use crate::bff::{Bff, Visit};
use crate::clock::Clock;
use crate::config::{Destination, RouteSettings, Settings};
use crate::guard::Gate;
use crate::guard::csrf::Provenance;
use crate::guard::gate::{self, Admitted, Head, Yet};
use crate::listener::{Refusal, Service};
use crate::metrics::Metrics;
use crate::protocol::forwarded;
use crate::protocol::path::RequestPath;
use crate::proxy::{self, Opener, Passage, Streams};
use crate::session::{Session, SessionId};
use crate::static_files::StaticFiles;
use crate::upstream::Upstream;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What stands behind a route.
#[derive(Debug)]
pub enum Target {
    /// An API.
    Upstream(Upstream),
    /// Files.
    Files(StaticFiles),
    /// Nothing to be asked directly: the route serves forward-auth only.
    Nothing,
}

/// The public listener's service.
#[derive(Clone, Debug)]
pub struct Router(Arc<Inner>);

/// The parts that `app` puts together.
#[derive(Debug)]
pub struct Inner {
    /// The checked config.
    pub settings: Arc<Settings>,
    /// Decides who may pass.
    pub gate: Arc<Gate>,
    /// What stands behind each of the gate's routes, in its order.
    pub targets: Vec<Target>,
    /// cloakroom's own endpoints.
    pub bff: Arc<Bff>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time of day.
    pub clock: Clock,
    /// Ends streams with their sessions.
    pub streams: Arc<Streams>,
    /// Tunnels: they outlive their answers, and draining waits for them.
    pub tunnels: TaskTracker,
    /// Cancelled when what is still under way is cut.
    pub cut: CancellationToken,
    /// What was told to the operator lately.
    pub notices: Notices,
}

impl Service for Router {
    const WEBSOCKETS: bool = true;
    type Body = Body;

    async fn call(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Response<Body>, Infallible> {
        let (mut head, body) = request.into_parts();
        Ok(self.answer(&mut head, body, peer).await)
    }

    fn refuse(
        &self,
        refusal: Refusal,
        request: Option<&Request<Incoming>>,
        peer: SocketAddr,
    ) -> Option<Response<Body>> {
        let inner = &*self.0;
        let failure = Failure::from(refusal);
        let mut response = if let Some(request) = request {
            let way = Way::begin(inner, request.method(), request.headers(), peer);
            inner.fail(&failure, &way, request.headers(), "other")
        } else {
            let request_id = answer::request_id();
            tracing::error!(request_id, "answered 500 after a panic");
            failure.answer(Asking {
                request_id: &request_id,
                navigation: false,
                login_path: "",
            })
        };
        // "An HSTS Host MUST NOT include the STS header field in HTTP responses conveyed over non-secure transport" (RFC
        // 6797 §7.2).
        if refusal != Refusal::PlainHttp {
            answer::mark(&mut response, &inner.settings.public_url);
        }
        let status = response.status().as_u16();
        inner.metrics.request("other", status, Duration::ZERO);
        Some(response)
    }
}

impl Router {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Inner) -> Self {
        Self(Arc::new(parts))
    }

    /// Answers a request, whatever becomes of it.
    async fn answer(&self, head: &mut Parts, body: Incoming, peer: SocketAddr) -> Response<Body> {
        let inner = &*self.0;
        let begun = Instant::now();
        let method = head.method.clone();
        let is_connect = head::read_extended_connect(head);
        let way = Way::begin(inner, &head.method, &head.headers, peer);
        inner
            .notices
            .look(&inner.settings, way.peer, way.provenance, &head.headers);
        let under_way = inner.metrics.begin();
        let mut route = "other";
        let mut answered = inner.way(head, body, &way, &mut route).await;
        if is_connect {
            answered = answered.and_then(head::answer_extended_connect);
        }
        let (mut response, own) = match answered {
            Ok(response) => (response, route == inner.settings.prefix),
            // What has gone up has left no headers here, and no failure after that asks for any.
            Err(failure) => (inner.fail(&failure, &way, &head.headers, route), true),
        };
        if own {
            answer::mark(&mut response, &inner.settings.public_url);
        }
        drop(under_way);
        let status = response.status().as_u16();
        let took = begun.elapsed();
        inner.metrics.request(route, status, took);
        tracing::debug!(
            target: "cloakroom::access",
            request_id = %way.request_id, %method, route, status, micros = took.as_micros(),
        );
        response
    }
}

/// What is known of a request before it is let in anywhere.
#[derive(Debug)]
struct Way {
    request_id: String,
    peer: IpAddr,
    client: IpAddr,
    provenance: Provenance,
}

impl Way {
    fn begin(inner: &Inner, method: &Method, headers: &HeaderMap, peer: SocketAddr) -> Self {
        let settings = &inner.settings;
        Self {
            request_id: answer::request_id(),
            peer: peer.ip(),
            client: forwarded::client_address(peer.ip(), headers, &settings.server.trusted_proxies),
            provenance: Provenance::of(method, headers, &settings.public_url),
        }
    }
}

impl Inner {
    /// The way of a request. `label`: the route's name for the metrics, as soon as it is known.
    async fn way<'a>(
        &'a self,
        head: &mut Parts,
        body: Incoming,
        way: &Way,
        label: &mut &'a str,
    ) -> Result<Response<Body>, Failure> {
        // 2.8, 4.2: no, two or a malformed Host: 400 everywhere; methods that nobody forwards.
        let host = head::check(head)?;
        let ours = self.settings.public_url.is_host(host);
        if head.uri.path() == "*" && head.method == Method::OPTIONS {
            return Ok(head::no_content());
        }
        // 4.2: one parse of the path, for everybody.
        let path = gate::parse_path(head::target(head), head.uri.path())?;
        let (number, route) = match self.gate.place(&path)? {
            Destination::Nowhere => return Err(Failure::NotFound),
            Destination::Own => {
                *label = &self.settings.prefix;
                // 2.8: the prefix answers under its own name only, and one endpoint under further ones.
                if !ours && !self.bff.is_reached_at(host, &path) {
                    let failure = Failure::Misdirected;
                    self.note(&failure, way, host, &head.headers);
                    return Err(failure);
                }
                let visit = Visit {
                    method: &head.method,
                    headers: &head.headers,
                    path: &path,
                    query: head.uri.query(),
                    client: way.client,
                    provenance: way.provenance,
                    request_id: &way.request_id,
                };
                // Boxed, as other ways are that few requests go: a request carries the room for all of them.
                return Box::pin(self.bff.answer(visit, body)).await;
            }
            Destination::Route(number, route) => (number, route),
        };
        *label = &route.path;
        if matches!(self.targets[number], Target::Nothing) {
            return Err(Failure::NotFound);
        }
        // 2.7, 2.8, 4.1, 4.3–4.6: may it pass, and as whom?
        let asked = Head {
            method: &head.method,
            version: head.version,
            headers: &head.headers,
            ours,
            provenance: way.provenance,
            request_id: &way.request_id,
        };
        let admitted = self.gate.admit(route, &asked).await;
        let caller = match admitted.inspect_err(|failure| self.note(failure, way, host, &head.headers))? {
            Admitted::As(caller) => caller,
            Admitted::Not(yet) => return Ok(self.elsewhere_first(yet, head, way)),
        };
        // 4.7, 4.8, 4.11–4.13: up, and back.
        self.pass_on((head, body), &path, (number, route), way, caller)
            .await
    }

    /// Tells the operator of refusals that a deployment may have brought about.
    fn note(&self, failure: &Failure, way: &Way, host: &str, headers: &HeaderMap) {
        match failure {
            // 2.8: which host it was is for the operator only.
            Failure::Misdirected => self.notices.of_other_host(&self.settings, way.peer, host),
            Failure::Unauthenticated { clear_cookie: true } => self.bff.note_gone(headers),
            _ => {}
        }
    }

    /// Where a navigation without a session goes first (4.1).
    fn elsewhere_first(&self, yet: Yet, head: &Parts, way: &Way) -> Response<Body> {
        let (target, headers) = (head::target(head), &head.headers);
        let Yet::SignedIn { is_gone } = yet else {
            return answer::move_on(target);
        };
        if is_gone {
            self.bff.note_gone(headers);
        }
        // 3.6: a browser that was just signed in and brings nothing back is told why.
        let stuck = self.bff.stuck(headers, way.provenance.site, is_gone);
        stuck.unwrap_or_else(|| answer::redirect(StatusCode::FOUND, &self.bff.login_for(target)))
    }

    async fn pass_on(
        &self,
        (head, body): (&mut Parts, Incoming),
        path: &RequestPath,
        (number, route): (usize, &RouteSettings),
        way: &Way,
        caller: Option<(SessionId, Arc<Session>)>,
    ) -> Result<Response<Body>, Failure> {
        let upstream = match &self.targets[number] {
            Target::Files(files) => {
                let below = if route.strip_prefix {
                    let below = RequestPath::parse(&path.strip_prefix(&route.path));
                    Some(below.map_err(|doubt| Failure::BadRequest(doubt.0))?)
                } else {
                    None
                };
                let mut response = Box::pin(files.serve(head, below.as_ref().unwrap_or(path))).await?;
                answer::mark(&mut response, &self.settings.public_url);
                return Ok(response);
            }
            Target::Nothing => return Err(Failure::NotFound),
            Target::Upstream(upstream) => upstream,
        };
        let living = match &caller {
            None => None,
            Some((id, session)) => self.gate.living(route, id, session, &way.request_id).await?,
        };
        let opener = caller.as_ref().filter(|_| living.is_some());
        let passage = Passage {
            route,
            upstream,
            path,
            bearer: living.map(|living| living.bearer),
            client: way.client,
            request_id: &way.request_id,
            public_url: &self.settings.public_url,
            session_cookie: self.gate.cookie.name(),
            tasks: &self.tunnels,
            opener: opener.map(|(id, session)| Opener {
                streams: &self.streams,
                id,
                session,
            }),
            cut: &self.cut,
        };
        proxy::forward(head, body, passage).await
    }

    /// The answer to a request that was stopped.
    fn fail(&self, failure: &Failure, way: &Way, headers: &HeaderMap, route: &str) -> Response<Body> {
        self.gate.audit(failure, route, headers, &way.request_id);
        match failure {
            Failure::UpstreamUnavailable => self.metrics.upstream_error(route, "unavailable"),
            Failure::UpstreamTimeout => self.metrics.upstream_error(route, "timeout"),
            _ => {}
        }
        let asking = Asking {
            request_id: &way.request_id,
            navigation: way.provenance.navigation,
            login_path: &self.bff.login_path(),
        };
        let mut response = match failure {
            Failure::Misdirected => answer::misdirected(asking, self.settings.public_url.origin()),
            _ => failure.answer(asking),
        };
        let gone = matches!(failure, Failure::Unauthenticated { clear_cookie: true });
        // While a login is under way in another tab, this answer could overtake the one that brings the new cookie.
        if gone && !self.bff.is_login_under_way(headers) {
            for cookie in self.bff.clear_cookies(headers) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
        }
        response
    }
}
