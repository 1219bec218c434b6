//! The whole way of a request, in one function: `Router::way`. The numbers are the public contract's rules.
//!
//! What stops a request is a [`Failure`], and [`Router::answer`] turns it into HTTP; nothing else does.

mod head;

use crate::answer::{self, Asking, Body, Failure};
use crate::bff::{Bff, Visit};
use crate::clock::Clock;
use crate::config::{Auth, Csrf, Destination, RouteSettings, RouteTable, Settings};
use crate::guard::authenticate::{self, Caller};
use crate::guard::csrf::Provenance;
use crate::guard::{SessionCookie, authenticate::satisfies};
use crate::listener::{Refusal, Service};
use crate::metrics::Metrics;
use crate::protocol::fetch_metadata::Site;
use crate::protocol::path::RequestPath;
use crate::protocol::{forwarded, query, websocket};
use crate::proxy::{self, Passage};
use crate::session::{FreshError, Session, SessionId, Sessions};
use crate::static_files::StaticFiles;
use crate::upstream::Upstream;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A year (RFC 6797 §6.1.1).
const HSTS: &str = "max-age=31536000";

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
    /// Where paths belong.
    pub routes: Arc<RouteTable>,
    /// What stands behind each of `routes`, in its order.
    pub targets: Vec<Target>,
    /// cloakroom's own endpoints.
    pub bff: Arc<Bff>,
    /// All sessions.
    pub sessions: Arc<Sessions>,
    /// The session cookie.
    pub cookie: SessionCookie,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time of day.
    pub clock: Clock,
    /// Tunnels: they outlive their answers, and draining waits for them.
    pub tunnels: TaskTracker,
    /// Cancelled when what is still under way is cut.
    pub cut: CancellationToken,
}

impl Service for Router {
    type Body = Body;

    async fn call(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Response<Body>, Infallible> {
        Ok(self.answer(request, peer).await)
    }

    fn refuse(
        &self,
        refusal: Refusal,
        request: Option<&Request<Incoming>>,
        peer: SocketAddr,
    ) -> Option<Response<Body>> {
        let inner = &*self.0;
        let failure = match refusal {
            Refusal::Fragment => Failure::BadRequest("A request's target has no fragment (`#`)."),
            Refusal::PlainHttp => Failure::BadRequest("TLS is spoken here: use https instead of http."),
            Refusal::TargetTooLong => Failure::TargetTooLong,
            Refusal::HeadTooLarge => Failure::HeadTooLarge,
            Refusal::Panic => Failure::Internal,
        };
        let mut response = if let Some(request) = request {
            let way = Way::begin(inner, request, peer);
            inner.fail(&failure, &way, request.headers(), "other")
        } else {
            let request_id = head::request_id();
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
            inner.mark_own(&mut response);
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
    pub async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let inner = &*self.0;
        let begun = Instant::now();
        let way = Way::begin(inner, &request, peer);
        let (method, headers) = (request.method().clone(), head::cookie_headers(&request));
        let under_way = UnderWay::begin(&inner.metrics);
        let mut route = "other";
        let (mut response, own) = match inner.way(request, &way, &mut route).await {
            Ok(response) => (response, route == inner.settings.prefix),
            Err(failure) => (inner.fail(&failure, &way, &headers, route), true),
        };
        if own {
            inner.mark_own(&mut response);
        }
        drop(under_way);
        let status = response.status().as_u16();
        inner.metrics.request(route, status, begun.elapsed());
        tracing::debug!(
            target: "cloakroom::access",
            request_id = %way.request_id, %method, route, status, micros = begun.elapsed().as_micros(),
        );
        response
    }
}

/// Counts a request as under way until it is answered, or its browser goes away.
struct UnderWay<'a>(&'a Metrics);

impl<'a> UnderWay<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        metrics.under_way(1);
        Self(metrics)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way(-1);
    }
}

/// What is known of a request before it is let in anywhere.
#[derive(Debug)]
struct Way {
    request_id: String,
    client: std::net::IpAddr,
    provenance: Provenance,
    login_path: String,
}

impl Way {
    fn begin(inner: &Inner, request: &Request<Incoming>, peer: SocketAddr) -> Self {
        let settings = &inner.settings;
        Self {
            request_id: head::request_id(),
            client: forwarded::client_address(peer.ip(), request.headers(), &settings.server.trusted_proxies),
            provenance: Provenance::of(request.method(), request.headers(), &settings.public_url),
            login_path: format!("{}/login", settings.prefix),
        }
    }
}

impl Inner {
    /// The way of a request. `label`: the route's name for the metrics, as soon as it is known.
    async fn way<'a>(
        &'a self,
        request: Request<Incoming>,
        way: &Way,
        label: &mut &'a str,
    ) -> Result<Response<Body>, Failure> {
        // 2.8, 4.2: no, two or a malformed Host: 400 everywhere; methods that nobody forwards.
        let ours = self.settings.public_url.is_host(head::check(&request)?);
        if request.uri().path() == "*" && request.method() == Method::OPTIONS {
            return Ok(head::no_content());
        }
        // 4.2: one parse of the path, for everybody.
        let path = head::parse_path(&request)?;
        let place = self
            .routes
            .place(&path)
            .map_err(|doubt| Failure::BadRequest(doubt.0))?;
        let (number, route) = match place {
            Destination::Nowhere => return Err(Failure::NotFound),
            Destination::Own => {
                *label = &self.settings.prefix;
                // 2.8: the prefix answers under its own name only.
                if !ours {
                    return Err(Failure::Misdirected);
                }
                let (parts, _) = request.into_parts();
                let visit = Visit {
                    method: &parts.method,
                    headers: &parts.headers,
                    path: &path,
                    query: parts.uri.query(),
                    client: way.client,
                    provenance: way.provenance,
                    request_id: &way.request_id,
                };
                return self.bff.answer(visit).await;
            }
            Destination::Route(number, route) => (number, route),
        };
        *label = &route.path;
        if matches!(self.targets[number], Target::Nothing) {
            return Err(Failure::NotFound);
        }
        // 2.8: so do routes that look at sessions.
        if route.auth() != Auth::None && !ours {
            return Err(Failure::Misdirected);
        }
        // 4.1 (pages), 4.3–4.5: where does it come from?
        self.check_provenance(route, way, &request)?;
        // 4.1, 4.6, 2.7: whose is it?
        let caller = match self.admit(route, way, &request).await? {
            Admitted::As(caller) => caller,
            Admitted::ElsewhereFirst(response) => return Ok(response),
        };
        // 4.7, 4.8, 4.11–4.13: up, and back.
        self.pass_on(request, &path, route, number, way, caller).await
    }

    fn check_provenance(
        &self,
        route: &RouteSettings,
        way: &Way,
        request: &Request<Incoming>,
    ) -> Result<(), Failure> {
        let provenance = &way.provenance;
        if !route.pages() && provenance.is_foreign_navigation() {
            return Err(Failure::Csrf("This address cannot be opened from another site."));
        }
        provenance.check_preflight()?;
        if route.auth() == Auth::None || route.csrf == Csrf::Off {
            return Ok(());
        }
        if provenance.websocket {
            provenance.check_websocket()?;
            // What only looks like a handshake goes up as plain HTTP, so it is judged as that as well.
            if websocket::is_upgrade(request.method(), request.version(), request.headers()) {
                return Ok(());
            }
        }
        if route.csrf == Csrf::Header && !provenance.header {
            return Err(Failure::Csrf("This address wants the header X-CSRF: 1."));
        }
        if self.cookie.came(request.headers()) {
            provenance.check(route.pages())
        } else {
            Ok(())
        }
    }

    /// Lets a request in, as somebody or as nobody, or sends the browser elsewhere first.
    async fn admit(
        &self,
        route: &RouteSettings,
        way: &Way,
        request: &Request<Incoming>,
    ) -> Result<Admitted, Failure> {
        let auth = route.auth();
        if auth == Auth::None {
            return Ok(Admitted::As(None));
        }
        let headers = request.headers();
        let gone = match authenticate::authenticate(&self.cookie, &self.sessions, headers).await? {
            Caller::Known(id, session) => {
                if !satisfies(&session, &route.require) {
                    return Err(LACKING);
                }
                return Ok(Admitted::As(Some((id, session))));
            }
            Caller::Gone => true,
            Caller::Anonymous => false,
        };
        if auth == Auth::Optional {
            admit_anonymous(route)?;
            return Ok(Admitted::As(None));
        }
        if !way.provenance.navigation {
            return Err(Failure::Unauthenticated { clear_cookie: gone });
        }
        // 4.1: a Strict cookie does not come from another site: ask again from our own origin.
        let came = self.cookie.came(headers);
        if way.provenance.site == Site::CrossSite && self.cookie.is_strict() && !came {
            return Ok(Admitted::ElsewhereFirst(answer::move_on(head::target(request))));
        }
        // 3.6: a browser that was just signed in and brings nothing back is told why.
        if let Some(page) = self.bff.stuck(headers, way.provenance.site) {
            return Ok(Admitted::ElsewhereFirst(page));
        }
        let login = format!(
            "{}?return_to={}",
            way.login_path,
            query::encode(head::target(request))
        );
        Ok(Admitted::ElsewhereFirst(answer::redirect(
            StatusCode::FOUND,
            &login,
        )))
    }

    async fn pass_on(
        &self,
        request: Request<Incoming>,
        path: &RequestPath,
        route: &RouteSettings,
        number: usize,
        way: &Way,
        caller: Option<(SessionId, Box<Session>)>,
    ) -> Result<Response<Body>, Failure> {
        if let Some((id, session)) = &caller {
            self.sessions.touch(id, session);
        }
        let upstream = match &self.targets[number] {
            Target::Files(files) if route.strip_prefix => {
                let below = RequestPath::parse(&path.strip_prefix(&route.path))
                    .map_err(|doubt| Failure::BadRequest(doubt.0))?;
                return files.serve(&request, &below).await;
            }
            Target::Files(files) => return files.serve(&request, path).await,
            Target::Nothing => return Err(Failure::NotFound),
            Target::Upstream(upstream) => upstream,
        };
        let bearer = match &caller {
            None => None,
            Some((id, session)) => self.bearer(route, id, session).await?,
        };
        let passage = Passage {
            route,
            upstream,
            path,
            bearer,
            client: way.client,
            request_id: &way.request_id,
            public_url: &self.settings.public_url,
            session_cookie: self.cookie.name(),
            tasks: &self.tunnels,
            cut: &self.cut,
        };
        proxy::forward(request, passage).await
    }

    /// A token that lives, as the header that goes up (4.7, 4.8).
    async fn bearer(
        &self,
        route: &RouteSettings,
        id: &SessionId,
        session: &Session,
    ) -> Result<Option<HeaderValue>, Failure> {
        match self.sessions.fresh(id, session).await {
            Ok(landed) => {
                let session = landed.as_deref().unwrap_or(session);
                // A refresh brings the claims anew (2.7): what was let in before it may not be any more.
                if !satisfies(session, &route.require) {
                    return Err(LACKING);
                }
                let bearer = session.tokens.bearer();
                bearer.map(Some).ok_or(Failure::ProviderUnavailable)
            }
            // A session that is gone: anonymous where that is allowed.
            Err(FreshError::Ended(_)) if route.auth() == Auth::Optional => {
                admit_anonymous(route)?;
                Ok(None)
            }
            Err(FreshError::Ended(why)) => {
                tracing::debug!(reason = why, "a request's session has ended");
                Err(Failure::Unauthenticated { clear_cookie: true })
            }
            Err(FreshError::ProviderAway) => Err(Failure::ProviderUnavailable),
            Err(FreshError::Session(error)) => Err(authenticate::unavailable(&error)),
        }
    }

    /// RFC 6797 §7.1. On our own answers only: what an upstream says of its pages is its own affair.
    fn mark_own(&self, response: &mut Response<Body>) {
        if self.settings.public_url.scheme() == "https" {
            response
                .headers_mut()
                .insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
        }
    }

    /// The answer to a request that was stopped.
    fn fail(&self, failure: &Failure, way: &Way, headers: &http::HeaderMap, route: &str) -> Response<Body> {
        match failure {
            Failure::Csrf(reason) => {
                tracing::info!(target: "cloakroom::audit", event = "csrf_refused", route, reason, request_id = %way.request_id);
            }
            Failure::UpstreamUnavailable => self.metrics.upstream_error(route, "unavailable"),
            Failure::UpstreamTimeout => self.metrics.upstream_error(route, "timeout"),
            _ => {}
        }
        let asking = Asking {
            request_id: &way.request_id,
            navigation: way.provenance.navigation,
            login_path: &way.login_path,
        };
        let mut response = failure.answer(asking);
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

/// A session that lacks what the route requires.
const LACKING: Failure = Failure::Forbidden("Your session does not have what this address requires.");

/// Whether nobody in particular may pass on an optional route: not where it requires what only a session has (2.7).
fn admit_anonymous(route: &RouteSettings) -> Result<(), Failure> {
    if route.require.scopes.is_empty() && route.require.claims.is_empty() {
        return Ok(());
    }
    Err(Failure::Forbidden(
        "This address requires what only a session has.",
    ))
}

/// How a request is let in.
enum Admitted {
    /// As somebody, or as nobody.
    As(Option<(SessionId, Box<Session>)>),
    /// Not yet.
    ElsewhereFirst(Response<Body>),
}
