//! `GET /bff/user` and `POST /bff/session/extend`: who is signed in, for how long (contract 3.7).
//!
//! INVARIANT: never a token; claims by an allow-list. Asking does not extend the session.

use super::{Bff, Visit};
use crate::answer::{self, Body, Failure};
use crate::guard::authenticate::{self, Caller, Presented};
use crate::session::{Session, SessionError, SessionId};
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::sync::Arc;

impl Bff {
    pub(super) async fn user(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        if !matches!(*visit.method, Method::GET | Method::HEAD) {
            return Err(Failure::MethodNotAllowed("GET, HEAD"));
        }
        self.check_where_cookie(visit)?;
        let (id, session) = self.caller(visit).await?;
        Ok(self.document(&id, &session))
    }

    /// Who asks, by the cookie alone.
    pub(super) async fn caller(&self, visit: &Visit<'_>) -> Result<(SessionId, Arc<Session>), Failure> {
        match authenticate::authenticate(&self.cookie, &self.sessions, visit.headers).await? {
            Caller::Known(id, session) => Ok((id, session)),
            Caller::Gone => {
                self.note_gone(visit.headers);
                Err(Failure::Unauthenticated { clear_cookie: true })
            }
            Caller::Anonymous => Err(Failure::Unauthenticated { clear_cookie: false }),
        }
    }

    pub(super) async fn extend(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        if visit.method != Method::POST {
            return Err(Failure::MethodNotAllowed("POST"));
        }
        self.check_where_cookie(visit)?;
        let Presented::Id(id) = self.cookie.presented(visit.headers) else {
            return Err(Failure::Unauthenticated { clear_cookie: false });
        };
        match self.sessions.extend(&id).await {
            Ok(Some(session)) => Ok(self.document(&id, &session)),
            Ok(None) => Err(Failure::Unauthenticated { clear_cookie: true }),
            Err(SessionError::Elsewhere) => Err(Failure::Unauthenticated { clear_cookie: false }),
            Err(error) => Err(authenticate::unavailable(&error)),
        }
    }

    fn document(&self, id: &SessionId, session: &Session) -> Response<Body> {
        let now = self.clock.now();
        let claims: Map<String, Value> = self
            .settings
            .session
            .claims
            .iter()
            .filter_map(|name| Some((name.clone(), session.claims.get(name)?.clone())))
            .collect();
        let logout_url = format!(
            "{}?session={}",
            self.own_path("/logout"),
            self.sessions.logout_value(id, session)
        );
        answer::json(
            StatusCode::OK,
            &json!({
                "sub": session.sub,
                "provider": session.provider,
                "claims": claims,
                "session": {
                    "expires_in": session.absolute_end.since(now).as_secs(),
                    "idle_expires_in": session.idle_end.since(now).as_secs(),
                    "access_token_expires_in": session.tokens.expires.since(now).as_secs(),
                },
                "logout_url": logout_url,
            }),
        )
    }
}
