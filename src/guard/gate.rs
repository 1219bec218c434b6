//! May this request pass, and as whom: the whole decision, whichever listener asks (contract 2.7, 2.8, 4.1–4.8).
//!
//! On a request's way this stands behind the finding of the route. The public listener forwards what is let through
//! here; `bff::forward_auth` tells an ingress that it may. Both decide by this code alone, so what an ingress guards is
//! guarded by the same rules as what cloakroom forwards itself.
//!
//! INVARIANT: what is refused has written nothing to the store and opened no upstream connection.

use super::authenticate::{self, Caller, Presented, SessionCookie, satisfies};
use super::csrf::Provenance;
use crate::answer::Failure;
use crate::config::{Auth, Csrf, Destination, RouteSettings, RouteTable};
use crate::protocol::fetch_metadata::Site;
use crate::protocol::path::RequestPath;
use crate::protocol::{framing, host, websocket};
use crate::session::{FreshError, Session, SessionId, Sessions};
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use std::sync::Arc;

/// The longest request target, bytes.
const LONGEST_TARGET: usize = 8 * 1024;
/// What `Allow` names where a method is refused everywhere.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What decides: the routes and the sessions.
#[derive(Debug)]
pub struct Gate {
    /// Where paths belong.
    pub routes: Arc<RouteTable>,
    /// All sessions.
    pub sessions: Arc<Sessions>,
    /// The session cookie.
    pub cookie: SessionCookie,
}

/// What of a request is decided by, beside its path.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its protocol version.
    pub version: Version,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Whether its host is `public_url`'s.
    pub ours: bool,
    /// What the browser says of where it comes from.
    pub provenance: Provenance,
    /// Our request id, for the log.
    pub request_id: &'a str,
}

/// How a request is let in.
#[derive(Debug)]
pub enum Admitted {
    /// As somebody, or as nobody in particular.
    As(Option<(SessionId, Arc<Session>)>),
    /// Not yet: a navigation that has to go elsewhere first.
    Not(Yet),
}

/// Where a navigation without a session goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yet {
    /// To the same place again, from our own origin: a Strict cookie does not come from another site (contract 4.1).
    FromHere,
    /// To the login.
    SignedIn {
        /// A session's cookie came, and the store does not know the session.
        is_gone: bool,
    },
}

/// A token that lives.
#[derive(Debug)]
pub struct Living {
    /// `Authorization: Bearer …`, marked sensitive.
    pub bearer: HeaderValue,
    /// The session as a refresh has just left it; `None`: it is as it was.
    pub renewed: Option<Arc<Session>>,
}

/// What must hold of any request's head, whoever sends it (contract 2.8): it can be read in one way only, and expects
/// nothing that is not done here. The host that it is for.
///
/// # Errors
/// [`Failure::BadRequest`], [`Failure::ExpectationFailed`]
pub fn check_head<'a>(
    version: Version,
    method: &Method,
    target: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<&'a str, Failure> {
    let host = host::authority(version, method, target, headers).map_err(Failure::BadRequest)?;
    if !framing::is_plain(headers) {
        return Err(Failure::BadRequest(
            "The request's body is framed in a way that is not taken here.",
        ));
    }
    // "A server that receives an Expect field value containing a member other than 100-continue MAY respond with a 417
    // (Expectation Failed) status code", and none that came over HTTP/1.0 counts (RFC 9110 §10.1.1).
    let expects_else = |line: &HeaderValue| !line.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if version > Version::HTTP_10 && headers.get_all(header::EXPECT).iter().any(expects_else) {
        return Err(Failure::ExpectationFailed);
    }
    Ok(host)
}

/// Methods that nobody forwards (contract 4.2).
///
/// # Errors
/// [`Failure::MethodNotAllowed`]
pub fn check_method(method: &Method) -> Result<(), Failure> {
    if matches!(*method, Method::TRACE | Method::CONNECT) || method.as_str().eq_ignore_ascii_case("TRACK") {
        return Err(Failure::MethodNotAllowed(METHODS));
    }
    Ok(())
}

/// One parse of the path, for everybody (contract 4.2). `target`: path and query.
///
/// # Errors
/// [`Failure::BadRequest`] where it can be read in two ways, [`Failure::TargetTooLong`].
pub fn parse_path(target: &str, path: &str) -> Result<RequestPath, Failure> {
    if target.len() > LONGEST_TARGET {
        return Err(Failure::TargetTooLong);
    }
    RequestPath::parse(path).map_err(|doubt| Failure::BadRequest(doubt.0))
}

impl Gate {
    /// Leaves a trace of a refusal that somebody may have to look into. The session is named where its cookie came and it
    /// is in memory: a refused request asks the store nothing, and what a stranger made up is no session.
    pub fn audit(&self, failure: &Failure, route: &str, headers: &HeaderMap, request_id: &str) {
        let Failure::Csrf(reason) = failure else {
            return;
        };
        let session = match self.cookie.presented(headers) {
            Presented::Id(id) => self.sessions.reference_in_memory(&id),
            Presented::Nothing | Presented::Unusable => None,
        };
        let session = session.map(tracing::field::display);
        tracing::info!(target: "cloakroom::audit", event = "csrf_refused", session, route, reason, request_id);
    }

    /// Where a path belongs.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] where it could belong to two places.
    pub fn place(&self, path: &RequestPath) -> Result<Destination<'_>, Failure> {
        self.routes
            .place(path)
            .map_err(|doubt| Failure::BadRequest(doubt.0))
    }

    /// Lets a request in, as somebody or as nobody; somebody's session is noted as used (contract 4.9).
    ///
    /// # Errors
    /// [`Failure`]: why it may not pass.
    pub async fn admit(&self, route: &RouteSettings, head: &Head<'_>) -> Result<Admitted, Failure> {
        // 2.8: routes that look at sessions answer under our own name only.
        if route.auth() != Auth::None && !head.ours {
            return Err(Failure::Misdirected);
        }
        // 4.1 (pages), 4.3–4.5: where does it come from?
        self.check_provenance(route, head)?;
        // 4.1, 4.6, 2.7: whose is it?
        self.identify(route, head).await
    }

    /// A session that lacks what the route requires. Which that is, by its name in the config, is for the operator.
    fn lacking(&self, id: &SessionId, session: &Session, route: &RouteSettings, request_id: &str) -> Failure {
        let missing = authenticate::missing(session, &route.require);
        tracing::info!(
            target: "cloakroom::audit", event = "forbidden", session = %self.sessions.reference(id),
            provider = session.provider, route = route.path, missing, request_id,
            "a session lacks what the route requires"
        );
        Failure::Forbidden("Your session does not have what this address requires.")
    }

    fn check_provenance(&self, route: &RouteSettings, head: &Head<'_>) -> Result<(), Failure> {
        let provenance = &head.provenance;
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
            if websocket::is_upgrade(head.method, head.version, head.headers) {
                return Ok(());
            }
        }
        if route.csrf == Csrf::Header && !provenance.header {
            return Err(Failure::Csrf("This address wants the header X-CSRF: 1."));
        }
        // Who brings no cookie of ours acts for nobody.
        match provenance.check(route.pages()) {
            Err(_) if !self.cookie.came(head.headers) => Ok(()),
            checked => checked,
        }
    }

    async fn identify(&self, route: &RouteSettings, head: &Head<'_>) -> Result<Admitted, Failure> {
        let auth = route.auth();
        if auth == Auth::None {
            return Ok(Admitted::As(None));
        }
        let is_gone = match authenticate::authenticate(&self.cookie, &self.sessions, head.headers).await? {
            Caller::Known(id, session) => {
                if !satisfies(&session, &route.require) {
                    return Err(self.lacking(&id, &session, route, head.request_id));
                }
                self.sessions.touch(&id, &session);
                return Ok(Admitted::As(Some((id, session))));
            }
            Caller::Gone => true,
            Caller::Anonymous => false,
        };
        if auth == Auth::Optional {
            admit_anonymous(route)?;
            return Ok(Admitted::As(None));
        }
        if !head.provenance.navigation {
            return Err(Failure::Unauthenticated {
                clear_cookie: is_gone,
            });
        }
        // 4.1: a Strict cookie does not come from another site: ask again from our own origin.
        let may_be_held_back = head.provenance.site == Site::CrossSite && self.cookie.is_strict();
        if may_be_held_back && !self.cookie.came(head.headers) {
            return Ok(Admitted::Not(Yet::FromHere));
        }
        Ok(Admitted::Not(Yet::SignedIn { is_gone }))
    }

    /// A token that lives (4.7, 4.8). `None`: the session is gone, and the route is open to nobody in particular.
    ///
    /// # Errors
    /// [`Failure`]
    ///
    /// # Cancel safety
    /// Dropped, it leaves a refresh running: nothing that the provider sends is lost.
    pub async fn living(
        &self,
        route: &RouteSettings,
        id: &SessionId,
        session: &Session,
        request_id: &str,
    ) -> Result<Option<Living>, Failure> {
        match self.sessions.fresh(id, session).await {
            Ok(renewed) => {
                let session = renewed.as_deref().unwrap_or(session);
                // A refresh brings the claims anew (2.7): what was let in before it may not be any more.
                if !satisfies(session, &route.require) {
                    return Err(self.lacking(id, session, route, request_id));
                }
                let bearer = session.bearer.clone().ok_or(Failure::ProviderUnavailable)?;
                Ok(Some(Living { bearer, renewed }))
            }
            // A session that is gone: anonymous where that is allowed.
            Err(FreshError::Ended(_)) if route.auth() == Auth::Optional => {
                admit_anonymous(route)?;
                Ok(None)
            }
            Err(FreshError::Ended(why)) => {
                tracing::debug!(reason = why.word(), "a request's session has ended");
                Err(Failure::Unauthenticated { clear_cookie: true })
            }
            Err(FreshError::ProviderAway) => Err(Failure::ProviderUnavailable),
            Err(FreshError::Session(error)) => Err(authenticate::unavailable(&error)),
        }
    }
}

/// Whether nobody in particular may pass on an optional route: not where it requires what only a session has (2.7).
fn admit_anonymous(route: &RouteSettings) -> Result<(), Failure> {
    if route.require.scopes.is_empty() && route.require.claims.is_empty() {
        return Ok(());
    }
    Err(Failure::Forbidden(
        "This address requires what only a session has.",
    ))
}
