//! `/bff/logout`: ends a session here, then at the provider (contract 3.8).
//!
//! | what comes                                     | what happens                                             |
//! | ---------------------------------------------- | -------------------------------------------------------- |
//! | POST that passes 4.3                           | the cookie's session ends                                |
//! | navigation with a valid value (`logout_url`)   | the value's session ends; the cookie's too if it is the same, or if our own pages asked |
//! | anything else                                  | 403, nothing changes                                     |
//!
//! INVARIANT: the session goes from the store before the provider hears of it. INVARIANT: a value proves a logout of
//! its own session only: somebody else's value in a link from elsewhere ends nothing of this browser's.
//!
//! Sources: OpenID Connect RP-Initiated Logout §2, RFC 7009.

use super::{Bff, Visit};
use crate::answer::{self, Body, Failure};
use crate::guard::authenticate::Presented;
use crate::protocol::fetch_metadata::{self, Site};
use crate::protocol::query::{self, Parameter};
use crate::secret::Secret;
use crate::session::{Session, SessionError};
use http::{HeaderValue, Method, Response, StatusCode, header};

/// What is to be ended.
struct Ending {
    /// Store key hashes of sessions.
    hashes: Vec<[u8; 32]>,
    /// The session of the cookie, opened: only its tokens can be revoked.
    opened: Option<Box<Session>>,
    /// The provider that the user is signed out at.
    provider: Option<String>,
    /// Whether the browser's cookies are cleared.
    clear: bool,
}

impl Bff {
    pub(super) async fn logout(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        let (ending, kind) = match *visit.method {
            Method::POST => {
                visit.provenance.check(false)?;
                (self.ending_by_cookie(visit).await, "post")
            }
            Method::GET => (self.ending_by_value(visit).await?, "logout_url"),
            _ => return Err(Failure::MethodNotAllowed("GET, POST")),
        };
        let mut incomplete = false;
        for hash in &ending.hashes {
            match self.sessions.end(*hash).await {
                Ok(was_there) => {
                    tracing::info!(target: "cloakroom::audit", event = "logout", cause = kind, was_there);
                }
                Err(error) => {
                    tracing::warn!(target: "cloakroom::audit", event = "logout", cause = kind, %error, "incomplete");
                    incomplete = true;
                }
            }
        }
        self.metrics.logout(kind);
        let clear = if ending.clear {
            self.clear_cookies(visit.headers)
        } else {
            Vec::new()
        };
        let mut response = if incomplete {
            let login_path = self.own_path("/login");
            let asking = answer::Asking {
                request_id: visit.request_id,
                navigation: visit.provenance.navigation,
                login_path: &login_path,
            };
            Failure::LogoutIncomplete.answer(asking)
        } else {
            let target = self.sign_out_at_provider(&ending).await;
            let script =
                visit.method == Method::POST && fetch_metadata::accepts(visit.headers, "application/json");
            if script {
                self.continue_later(target.as_ref()).await?
            } else {
                let location = target
                    .as_ref()
                    .map_or(self.settings.logout.landing.as_str(), Secret::expose);
                answer::redirect(StatusCode::SEE_OTHER, location)
            }
        };
        append_cookies(&mut response, clear);
        Ok(response)
    }

    /// POST: the cookie's session. Without one the logout succeeds all the same.
    async fn ending_by_cookie(&self, visit: &Visit<'_>) -> Ending {
        let came = self.cookie.came(visit.headers);
        match self.cookie.presented(visit.headers) {
            Presented::Id(id) => {
                let opened = self.look_up_for_logout(&id).await;
                Ending {
                    hashes: vec![id.store_key()],
                    provider: opened.as_ref().map(|session| session.provider.clone()),
                    opened,
                    clear: true,
                }
            }
            Presented::Nothing | Presented::Unusable => Ending {
                hashes: Vec::new(),
                opened: None,
                provider: None,
                clear: came,
            },
        }
    }

    /// GET: the value's session, and the cookie's where it is the same or a page of ours asked.
    async fn ending_by_value(&self, visit: &Visit<'_>) -> Result<Ending, Failure> {
        let refused =
            Failure::Csrf("Signing out needs the sign-out link of your session, or a button of this site.");
        if !visit.provenance.navigation {
            return Err(refused);
        }
        visit.provenance.check(true)?;
        let parameters = query::parse(visit.query.unwrap_or_default()).ok_or(refused.clone())?;
        let Parameter::One(value) = query::find(&parameters, "session") else {
            return Err(refused);
        };
        let (hash, provider) = self.sessions.open_logout_value(value).ok_or(refused)?;
        let mut ending = Ending {
            hashes: vec![hash],
            opened: None,
            provider: Some(provider),
            clear: false,
        };
        let ours_asked = !matches!(visit.provenance.site, Site::SameSite | Site::CrossSite);
        if let Presented::Id(id) = self.cookie.presented(visit.headers) {
            if id.store_key() == hash || ours_asked {
                ending.opened = self.look_up_for_logout(&id).await;
                ending.clear = true;
                if id.store_key() != hash {
                    ending.hashes.push(id.store_key());
                }
            }
        } else if ours_asked {
            // What is left of marks and unusable cookies goes as well; there is no session cookie to lose.
            ending.clear = true;
        }
        Ok(ending)
    }

    /// The session as it is, for its tokens; a store that is away is found out by the delete that follows.
    async fn look_up_for_logout(&self, id: &crate::session::SessionId) -> Option<Box<Session>> {
        match self.sessions.look_up(id).await {
            Ok(session) => session.map(Box::new),
            Err(SessionError::Store(_) | SessionError::Unreadable(_)) => None,
        }
    }

    /// Revokes what can be revoked (best effort, 2 s), and says where the browser signs out at the provider.
    async fn sign_out_at_provider(&self, ending: &Ending) -> Option<Secret> {
        let provider = self.provider(ending.provider.as_deref()?)?;
        let mut hint = None;
        if let Some(session) = &ending.opened {
            if let Some(its_provider) = self.provider(&session.provider) {
                let tokens = &session.tokens;
                its_provider
                    .revoke(tokens.refresh_token.as_ref(), Some(&tokens.access_token))
                    .await;
            }
            if session.provider == provider.settings().name {
                hint = session.tokens.id_token.as_ref();
            }
        }
        let back = self.settings.public_url.url(&self.settings.logout.landing);
        provider.end_session_url(hint, &back)
    }
}

/// Adds `Set-Cookie` lines.
pub(super) fn append_cookies(response: &mut Response<Body>, cookies: Vec<HeaderValue>) {
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}
