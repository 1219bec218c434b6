//! Forward-auth (contract §6): an ingress asks whether a request may pass, and is told as whom.
//!
//! Served on a listener of its own, `server.forward_auth`, that browsers never reach: the answer to a request that may
//! pass bears the token. It is the gate's decision, like that about a request on the public listener; here stands only
//! how the question is read and how the answer is put.
//!
//! | decision                          | dialect `forwarded`     | dialect `nginx`                                |
//! | --------------------------------- | ----------------------- | ---------------------------------------------- |
//! | may pass                          | 200, identity headers   | the same                                       |
//! | no session, navigation            | 302 to the login        | 401, `Location` and `X-Auth-Request-Redirect`  |
//! | no session, anything else         | 401, `Location`         | the same                                       |
//! | store or provider away            | 503                     | the same                                       |
//! | everything else, doubts included  | 403                     | the same                                       |
//! | the question's own head is faulty | 400                     | the same                                       |
//!
//! nginx lets no 302 through from here, so it is told where a navigation goes by `X-Auth-Request-Redirect`. A navigation
//! from another site without its Strict cookie goes to `login/resume`, which asks again from our own origin.
//!
//! INVARIANT: who is not in `trusted_proxies` is told nothing.
//! INVARIANT: no answer sets or clears a cookie. Ingresses differ in what they pass on of it, and half of it would be worse
//! than nothing; what a browser asks on the public listener next (`/bff/user`, the login) does it.

mod complaints;
mod identity;

use super::Bff;
use crate::answer::{self, Asking, Body, Failure};
use crate::config::{Destination, Dialect, Settings};
use crate::guard::Gate;
use crate::guard::csrf::Provenance;
use crate::guard::gate::{self, Admitted, Head, Yet};
use crate::listener::{Refusal, Service};
use crate::metrics::Metrics;
use crate::protocol::original_request::{self, Original, Unclear};
use complaints::{Complaint, Complaints};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a navigation is to be sent instead of being shown the 401: for an ingress that cannot pass a 302 on.
const REDIRECT: HeaderName = HeaderName::from_static("x-auth-request-redirect");

/// The forward-auth listener's service.
#[derive(Clone, Debug)]
pub struct ForwardAuth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Arc<Settings>,
    gate: Arc<Gate>,
    bff: Arc<Bff>,
    metrics: Arc<Metrics>,
    complaints: Complaints,
}

/// What is known of a question as soon as it is known, for the answer and the log.
struct Question<'a> {
    request_id: String,
    /// Where its answers are counted.
    label: &'a str,
    navigation: bool,
    /// Where a login leads that is begun for it.
    login: String,
}

impl ForwardAuth {
    /// Puts it together.
    #[must_use]
    pub fn new(settings: Arc<Settings>, gate: Arc<Gate>, bff: Arc<Bff>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            settings,
            gate,
            bff,
            metrics,
            complaints: Complaints::default(),
        }))
    }
}

impl Service for ForwardAuth {
    type Body = Body;

    async fn call(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Response<Body>, Infallible> {
        Ok(self.0.answer(request.into_parts().0, peer).await)
    }

    fn refuse(
        &self,
        refusal: Refusal,
        _request: Option<&Request<Incoming>>,
        _peer: SocketAddr,
    ) -> Option<Response<Body>> {
        let failure = match refusal {
            Refusal::Fragment
            | Refusal::PlainHttp
            | Refusal::OddSpace
            | Refusal::TargetTooLong
            | Refusal::HeadTooLarge => NOT_ASKED,
            Refusal::Panic => Failure::Internal,
        };
        let response = self.0.refuse(&failure, &Question::new(&self.0));
        let status = response.status().as_u16();
        self.0
            .metrics
            .request("forward-auth other", status, Duration::ZERO);
        Some(response)
    }
}

impl Question<'_> {
    fn new(inner: &Inner) -> Self {
        Self {
            request_id: answer::request_id(),
            label: "other",
            navigation: false,
            login: inner.settings.public_url.url(&inner.bff.login_path()),
        }
    }
}

impl Inner {
    async fn answer(&self, mut parts: Parts, peer: SocketAddr) -> Response<Body> {
        let begun = Instant::now();
        let under_way = self.metrics.begin();
        let mut question = Question::new(self);
        let decided = match self.check_question(&parts, peer, &question.request_id) {
            Ok(()) => self.decide(&mut parts, &mut question).await.map_err(|failure| {
                tracing::debug!(
                    request_id = question.request_id,
                    ?failure,
                    "forward-auth lets a request not pass"
                );
                narrowed(&failure)
            }),
            Err(failure) => Err(failure),
        };
        let response = decided.unwrap_or_else(|failure| {
            let label = question.label;
            self.gate
                .audit(&failure, label, &parts.headers, &question.request_id);
            self.refuse(&failure, &question)
        });
        drop(under_way);
        let (status, route) = (response.status().as_u16(), question.label);
        self.metrics
            .request(&format!("forward-auth {route}"), status, begun.elapsed());
        tracing::debug!(
            target: "cloakroom::access",
            request_id = %question.request_id, forward_auth = true, route, status, micros = begun.elapsed().as_micros(),
        );
        response
    }

    /// The way of a question.
    async fn decide<'a>(
        &'a self,
        parts: &mut Parts,
        question: &mut Question<'a>,
    ) -> Result<Response<Body>, Failure> {
        let settings = &*self.settings;
        let complain = |complaint| self.complaints.note(&complaint, &question.request_id);
        if settings.server.forward_auth_dialect == Dialect::Forwarded {
            original_request::restore_upgrade(&mut parts.headers);
        }
        let original = self.original(parts).map_err(|unclear| {
            complain(Complaint::Unclear(unclear));
            Failure::Forbidden("It is not clear which request is asked about.")
        })?;
        let provenance = Provenance::of(&original.method, &parts.headers, &settings.public_url);
        question.navigation = provenance.navigation;
        question.login = settings.public_url.url(&self.bff.login_for(&original.target));
        // 6.3, 2.8: our own host only, on every route.
        if !settings.public_url.is_host(original.host) {
            complain(Complaint::OtherHost);
            return Err(Failure::Misdirected);
        }
        // An ingress would let these through, beside what we say or instead of it.
        if original_request::poses_as_somebody(&parts.headers) {
            complain(Complaint::Posing);
            return Err(Failure::Forbidden(
                "The request brings headers that only a proxy may write.",
            ));
        }
        // 4.2: one parse of the path, for everybody.
        gate::check_method(&original.method)?;
        let path = gate::parse_path(&original.target, original.path())?;
        let route = match self.gate.place(&path)? {
            Destination::Route(_, route) => route,
            Destination::Nowhere => return Err(Failure::NotFound),
            Destination::Own => {
                question.label = &settings.prefix;
                complain(Complaint::Own);
                return Err(Failure::Forbidden(
                    "This address is not served behind forward-auth.",
                ));
            }
        };
        question.label = &route.path;
        // 2.7, 4.1, 4.3–4.6: may it pass, and as whom?
        let head = Head {
            method: &original.method,
            version: parts.version,
            headers: &parts.headers,
            ours: true,
            provenance,
            request_id: &question.request_id,
        };
        let admitted = self.gate.admit(route, &head).await;
        // 3.6: as on the public listener.
        if let Ok(Admitted::Not(Yet::SignedIn { is_gone: true }))
        | Err(Failure::Unauthenticated { clear_cookie: true }) = admitted
        {
            self.bff.note_gone(head.headers);
        }
        match admitted? {
            Admitted::Not(yet) => Ok(self.elsewhere_first(yet, &original.target, question)),
            Admitted::As(None) => Ok(identity::nobody()),
            // 4.7, 4.8: with a token that lives.
            Admitted::As(Some((id, session))) => {
                match self.gate.living(route, &id, &session, head.request_id).await? {
                    None => Ok(identity::nobody()),
                    Some(living) => {
                        let session = living.renewed.as_deref().unwrap_or(&session);
                        Ok(identity::somebody(living.bearer, session))
                    }
                }
            }
        }
    }

    /// Whether somebody asks who may, and the one thing that can be asked (6.1, 6.3), with a head like any other's (2.8).
    fn check_question(&self, parts: &Parts, peer: SocketAddr, request_id: &str) -> Result<(), Failure> {
        let peer = peer.ip().to_canonical();
        let trusted = &self.settings.server.trusted_proxies;
        if !trusted.iter().any(|net| net.contains(&peer)) {
            self.complaints.note(&Complaint::Stranger(peer), request_id);
            return Err(Failure::Forbidden("Only a trusted proxy may ask here."));
        }
        // A query is passed over: Caddy leaves the original request's there.
        if parts.method != Method::GET || parts.uri.path() != "/" {
            self.complaints.note(&Complaint::Other, request_id);
            return Err(NOT_ASKED);
        }
        let checked = gate::check_head(parts.version, &parts.method, &parts.uri, &parts.headers);
        checked.map(drop).map_err(|failure| {
            self.complaints.note(&Complaint::Head, request_id);
            match failure {
                // 2.8: "400 everywhere".
                Failure::BadRequest(_) => failure,
                failure => narrowed(&failure),
            }
        })
    }

    /// What is asked about, in the configured dialect (6.3).
    fn original<'p>(&self, parts: &'p Parts) -> Result<Original<'p>, Unclear> {
        match self.settings.server.forward_auth_dialect {
            Dialect::Forwarded => original_request::from_forwarded(&parts.headers),
            Dialect::Nginx => original_request::from_nginx(&parts.headers),
        }
    }

    /// Sends a navigation without a session elsewhere (4.1, 6.2).
    fn elsewhere_first(&self, yet: Yet, target: &str, question: &Question<'_>) -> Response<Body> {
        let location = match yet {
            Yet::FromHere => self.settings.public_url.url(&self.bff.resume_for(target)),
            Yet::SignedIn { .. } => question.login.clone(),
        };
        if self.settings.server.forward_auth_dialect == Dialect::Forwarded {
            return answer::redirect(StatusCode::FOUND, &location);
        }
        let mut response = self.refuse(&Failure::Unauthenticated { clear_cookie: false }, question);
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location.clone());
            response.headers_mut().insert(REDIRECT, location);
        }
        response
    }

    fn refuse(&self, failure: &Failure, question: &Question<'_>) -> Response<Body> {
        let login_path = self.bff.login_path();
        let mut response = failure.answer(Asking {
            request_id: &question.request_id,
            navigation: question.navigation,
            login_path: &login_path,
        });
        if response.status() == StatusCode::UNAUTHORIZED
            && let Ok(login) = HeaderValue::try_from(&question.login)
        {
            response.headers_mut().insert(header::LOCATION, login);
        }
        answer::mark(&mut response, &self.settings.public_url);
        response
    }
}

const NOT_ASKED: Failure = Failure::Forbidden("This listener answers `GET /` and nothing else.");

/// What an ingress can tell apart (6.2): no session, not now, and no.
fn narrowed(failure: &Failure) -> Failure {
    match failure {
        Failure::Unauthenticated { .. }
        | Failure::Csrf(_)
        | Failure::Forbidden(_)
        | Failure::StoreUnavailable
        | Failure::ProviderUnavailable
        | Failure::Internal => failure.clone(),
        Failure::BadRequest(why) => Failure::Forbidden(why),
        Failure::NotFound => Failure::Forbidden("No route is configured for this address."),
        Failure::Misdirected => Failure::Forbidden("This service is reached under another host name."),
        Failure::MethodNotAllowed(_) => Failure::Forbidden("This address does not answer this method."),
        _ => Failure::Forbidden("The request may not pass."),
    }
}
