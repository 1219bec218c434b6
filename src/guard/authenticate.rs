//! Whose request it is: from the session cookie to the session.
//!
//! INVARIANT: an id is taken from the cookie alone, and an unknown one is never adopted. INVARIANT: a store that does
//! not answer is never "no session".

use crate::answer::Failure;
use crate::config;
use crate::protocol::cookie::{self, SameSite};
use crate::seldom::Seldom;
use crate::session::{Session, SessionError, SessionId, Sessions};
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

/// The session cookie, as configured.
#[derive(Clone, Debug)]
pub struct SessionCookie {
    name: String,
    same_site: SameSite,
    max_age: Option<Duration>,
}

/// What came of the session cookie.
#[derive(Clone, Debug)]
pub enum Presented {
    /// No such cookie.
    Nothing,
    /// Two of that exact name, or a value that is none of ours: no session (contract 5.1).
    Unusable,
    /// One id.
    Id(SessionId),
}

impl SessionCookie {
    /// From the config.
    #[must_use]
    pub fn new(settings: &config::SessionSettings) -> Self {
        Self {
            name: settings.cookie.name.clone(),
            same_site: match settings.cookie.same_site {
                config::SameSite::Strict => SameSite::Strict,
                config::SameSite::Lax => SameSite::Lax,
                config::SameSite::None => SameSite::None,
            },
            max_age: settings.cookie.persistent.then_some(settings.absolute_timeout),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is kept back on requests from other sites (contract 3.3, 4.1).
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.same_site == SameSite::Strict
    }

    /// What came of it with a request.
    #[must_use]
    pub fn presented(&self, headers: &HeaderMap) -> Presented {
        let mut values = cookie::values(headers, &self.name);
        match (values.next(), values.next()) {
            (None, _) => Presented::Nothing,
            (Some(value), None) => SessionId::parse(value).map_or(Presented::Unusable, Presented::Id),
            _ => Presented::Unusable,
        }
    }

    /// Whether any came, usable or not.
    #[must_use]
    pub fn came(&self, headers: &HeaderMap) -> bool {
        cookie::values(headers, &self.name).next().is_some()
    }

    /// `Set-Cookie` for a session.
    #[must_use]
    pub fn set(&self, id: &SessionId) -> HeaderValue {
        cookie::set(&self.name, &id.cookie_value(), self.same_site, self.max_age)
    }

    /// `Set-Cookie` that deletes it.
    #[must_use]
    pub fn clear(&self) -> HeaderValue {
        cookie::clear(&self.name, self.same_site)
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Nobody that we know: no cookie, or none that we can use.
    Anonymous,
    /// The store is healthy, and the cookie's session is gone.
    Gone,
    /// Somebody with a session.
    Known(SessionId, Arc<Session>),
}

/// Finds the caller: at most one round trip to the store.
///
/// # Errors
/// [`Failure::StoreUnavailable`] where it cannot be told (contract 4.6).
pub async fn authenticate(
    cookie: &SessionCookie,
    sessions: &Sessions,
    headers: &HeaderMap,
) -> Result<Caller, Failure> {
    let Presented::Id(id) = cookie.presented(headers) else {
        return Ok(Caller::Anonymous);
    };
    match sessions.look_up(&id).await {
        Ok(Some(session)) => Ok(Caller::Known(id, session)),
        Ok(None) => Ok(Caller::Gone),
        Err(SessionError::Elsewhere) => Ok(Caller::Anonymous),
        Err(error) => Err(unavailable(&error)),
    }
}

/// A session that cannot be read is 503, never anonymous.
#[must_use]
pub fn unavailable(error: &SessionError) -> Failure {
    // In an outage every request comes here.
    static TOLD: Seldom = Seldom::every(Duration::from_secs(10));
    if let Some(unsaid) = TOLD.due() {
        tracing::warn!(%error, unsaid, "a session could not be read: its owner gets 503 and stays signed in");
    }
    Failure::StoreUnavailable
}

/// Whether a session brings what a route requires (contract 2.7): all scopes; of every listed claim any one value.
#[must_use]
pub fn satisfies(session: &Session, require: &config::Require) -> bool {
    missing(session, require).is_none()
}

/// The first of a route's requirements that a session does not bring, by its name in the config.
#[must_use]
pub fn missing(session: &Session, require: &config::Require) -> Option<String> {
    let mut scopes = require.scopes.iter();
    if let Some(scope) = scopes.find(|scope| !session.tokens.scopes.contains(scope)) {
        return Some(format!("the scope {scope}"));
    }
    let lacks = |(path, wanted): &(&String, &Vec<String>)| {
        let found = path
            .split('.')
            .try_fold(None::<&serde_json::Value>, |value, key| {
                match value {
                    None => session.claims.get(key),
                    Some(value) => value.get(key),
                }
                .map(Some)
            });
        // A claim whose own name holds dots is found by its whole name first.
        let found = session.claims.get(path.as_str()).or_else(|| found.flatten());
        !found.is_some_and(|value| match value {
            serde_json::Value::Array(values) => values.iter().any(|value| is_one_of(value, wanted)),
            value => is_one_of(value, wanted),
        })
    };
    let claim = require.claims.iter().find(lacks);
    claim.map(|(path, _)| format!("a wanted value of the claim {path}"))
}

fn is_one_of(value: &serde_json::Value, wanted: &[String]) -> bool {
    match value {
        serde_json::Value::String(text) => wanted.contains(text),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => wanted.contains(&value.to_string()),
        _ => false,
    }
}
