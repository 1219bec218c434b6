//! cloakroom's own endpoints, under the prefix (contract §3): a file per endpoint.
//!
//! `router` sends here what is under the prefix; nothing here is ever forwarded, and nothing that is forwarded comes
//! through here. INVARIANT: every answer carries `Cache-Control: no-store`.

mod authorization_response;
mod backchannel_logout;
mod callback;
mod ending;
pub mod forward_auth;
mod frontchannel_logout;
mod landing;
mod login;
mod login_rate;
mod logout;
mod logout_continue;
mod resume;
mod sessions;
mod stuck;
mod trouble;
mod uncertain_claims;
mod user;

use crate::answer::{Body, Failure};
use crate::clock::Clock;
use crate::config::{RouteTable, Settings};
use crate::guard::SessionCookie;
use crate::guard::csrf::Provenance;
use crate::metrics::Metrics;
use crate::protocol::path::RequestPath;
use crate::protocol::{cookie, fetch_metadata, host, query};
use crate::provider::Provider;
use crate::seldom::Seldom;
use crate::session::Sessions;
use crate::session::login_attempt::{Attempts, LIFETIME};
use crate::session::seal::KeyRing;
use crate::store::Store;
use http::{HeaderMap, Method, Response};
use hyper::body::Incoming;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Where the provider posts its logout tokens, under the prefix.
const BACKCHANNEL_LOGOUT: &str = "/backchannel-logout";

/// What the endpoints need; one for the whole process.
#[derive(Debug)]
pub struct Bff {
    settings: Arc<Settings>,
    routes: Arc<RouteTable>,
    providers: Vec<Arc<Provider>>,
    sessions: Arc<Sessions>,
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    attempts: Attempts,
    cookie: SessionCookie,
    clock: Clock,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    login_rate: Option<login_rate::LoginRate>,
    uncertain_claims: uncertain_claims::UncertainClaims,
    gone_soon: Seldom,
    strangers: Seldom,
}

/// The parts of [`Bff`] that `app` makes.
#[derive(Debug)]
pub struct Parts {
    /// The checked config.
    pub settings: Arc<Settings>,
    /// Where a login may land.
    pub routes: Arc<RouteTable>,
    /// In the config's order.
    pub providers: Vec<Arc<Provider>>,
    /// All sessions.
    pub sessions: Arc<Sessions>,
    /// For claims and results of login attempts.
    pub store: Arc<Store>,
    /// For login attempts and logout continuations.
    pub keys: Arc<KeyRing>,
    /// The time of day.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What no disconnect may cancel runs here.
    pub tasks: TaskTracker,
}

/// One request to an endpoint.
#[derive(Debug)]
pub struct Visit<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its path, parsed once.
    pub path: &'a RequestPath,
    /// Its query, as sent.
    pub query: Option<&'a str>,
    /// Who asks, after trusted proxies.
    pub client: IpAddr,
    /// What the browser says of where it comes from.
    pub provenance: Provenance,
    /// Our request id.
    pub request_id: &'a str,
}

impl Bff {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            settings,
            routes,
            providers,
            sessions,
            store,
            keys,
            clock,
            metrics,
            tasks,
        } = parts;
        Self {
            uncertain_claims: uncertain_claims::UncertainClaims::default(),
            gone_soon: Seldom::every(Duration::from_mins(1)),
            strangers: Seldom::every(Duration::from_mins(10)),
            attempts: Attempts::new(keys.clone(), &settings.session.cookie.name),
            cookie: SessionCookie::new(&settings.session),
            login_rate: settings.limits.logins_per_address.map(login_rate::LoginRate::new),
            settings,
            routes,
            providers,
            sessions,
            store,
            keys,
            clock,
            metrics,
            tasks,
        }
    }

    /// Whether a request for another host than `public_url`'s is let in: only the provider calls from inside the cluster.
    #[must_use]
    pub fn is_reached_at(&self, authority: &str, path: &RequestPath) -> bool {
        path.decoded().strip_prefix(self.settings.prefix.as_str()) == Some(BACKCHANNEL_LOGOUT)
            && self
                .settings
                .server
                .hosts
                .iter()
                .any(|name| host::is_named(authority, name))
    }

    /// Answers a request under the prefix.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn answer(
        self: &Arc<Self>,
        visit: Visit<'_>,
        body: Incoming,
    ) -> Result<Response<Body>, Failure> {
        let path = visit.path.decoded();
        if let Some(provider) = self
            .providers
            .iter()
            .find(|provider| self.redirect_path(provider) == path)
        {
            refuse_prefetch(visit.headers)?;
            return self.callback(&visit, provider).await;
        }
        match path
            .strip_prefix(self.settings.prefix.as_str())
            .unwrap_or_default()
        {
            "/login" => {
                refuse_prefetch(visit.headers)?;
                self.login(&visit).await
            }
            "/login/resume" => self.resume(&visit),
            "/logout" => {
                refuse_prefetch(visit.headers)?;
                self.logout(&visit).await
            }
            "/logout/continue" => {
                refuse_prefetch(visit.headers)?;
                self.logout_continue(&visit).await
            }
            BACKCHANNEL_LOGOUT => self.backchannel_logout(&visit, body).await,
            "/frontchannel-logout" => {
                refuse_prefetch(visit.headers)?;
                self.frontchannel_logout(&visit).await
            }
            "/user" => self.user(&visit).await,
            "/session/extend" => self.extend(&visit).await,
            "/sessions" => self.own_sessions(&visit).await,
            other => match other.strip_prefix("/sessions/") {
                Some(name) => self.own_session(&visit, name).await,
                None => Err(Failure::NotFound),
            },
        }
    }

    /// The path of the login.
    #[must_use]
    pub fn login_path(&self) -> String {
        self.own_path("/login")
    }

    /// Path and query of a login that leads back to `target`.
    #[must_use]
    pub fn login_for(&self, target: &str) -> String {
        format!("{}?return_to={}", self.login_path(), query::encode(target))
    }

    /// Path and query of the page that asks for `target` again from our own origin.
    #[must_use]
    pub fn resume_for(&self, target: &str) -> String {
        format!("{}/resume?return_to={}", self.login_path(), query::encode(target))
    }

    /// A path under the prefix.
    fn own_path(&self, rest: &str) -> String {
        format!("{}{rest}", self.settings.prefix)
    }

    /// Where the provider sends the browser back to: `redirect_path`, or the default for its place in the config.
    fn redirect_path(&self, provider: &Provider) -> String {
        let settings = provider.settings();
        if let Some(path) = &settings.redirect_path {
            return path.clone();
        }
        if self
            .providers
            .first()
            .is_some_and(|first| first.settings().name == settings.name)
        {
            return self.own_path("/callback");
        }
        self.own_path(&format!("/callback/{}", settings.name))
    }

    fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers
            .iter()
            .find(|provider| provider.settings().name == name)
    }

    /// Contract 4.3 and 4.4 for what is judged only where a session cookie is there.
    fn check_where_cookie(&self, visit: &Visit<'_>) -> Result<(), Failure> {
        if self.cookie.came(visit.headers) {
            visit.provenance.check(false)
        } else {
            Ok(())
        }
    }

    /// `Set-Cookie` lines that end this browser's session. Marks of finished logins are settled, because a fresh mark
    /// without a session would look like a browser that keeps no cookies; logins under way in other tabs go on.
    pub fn clear_cookies(&self, headers: &HeaderMap) -> Vec<http::HeaderValue> {
        std::iter::once(self.cookie.clear())
            .chain(self.settle_marks(headers))
            .collect()
    }

    /// Whether this browser is on its way through a login.
    #[must_use]
    pub fn is_login_under_way(&self, headers: &HeaderMap) -> bool {
        self.attempts.is_under_way(headers, self.clock.now())
    }

    fn settle_marks(&self, headers: &HeaderMap) -> Vec<http::HeaderValue> {
        let marks = self.attempts.settled_marks(headers, self.clock.now());
        marks
            .iter()
            .map(|(name, value)| self.mark_cookie(name, value))
            .collect()
    }

    /// A mark goes with the browser where the session does: what is sealed into it says when its time ends.
    fn mark_cookie(&self, name: &str, value: &str) -> http::HeaderValue {
        let max_age = self.settings.session.cookie.persistent.then_some(LIFETIME);
        cookie::set(name, value, cookie::SameSite::Lax, max_age)
    }
}

/// `Set-Cookie` that deletes an attempt's cookie.
fn clear_attempt(name: &str) -> http::HeaderValue {
    crate::protocol::cookie::clear(name, crate::protocol::cookie::SameSite::Lax)
}

/// Contract 3.10: a browser that only looks ahead changes nothing.
fn refuse_prefetch(headers: &HeaderMap) -> Result<(), Failure> {
    if fetch_metadata::is_prefetch(headers) {
        Err(Failure::Prefetch)
    } else {
        Ok(())
    }
}
