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

use super::ending::{Asker, Ends};
use super::{Bff, Visit};
use crate::answer::{self, Body, Failure};
use crate::guard::authenticate::Presented;
use crate::protocol::fetch_metadata::{self, Site};
use crate::protocol::query::{self, Parameter};
use crate::secret::Secret;
use crate::session::{Reference, Session, SessionError};
use futures_util::future::join;
use http::{HeaderValue, Method, Response, StatusCode, header};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long a logout may wait for the provider.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(2);

/// What is to be ended.
pub(super) struct Ending {
    /// Store key hashes of sessions, and whether each is known to be one of ours: strangers' guesses must not crowd out
    /// the ends of real sessions while the store is away.
    hashes: Vec<([u8; 32], bool)>,
    /// The session of the cookie, opened: only its tokens can be revoked.
    opened: Option<Arc<Session>>,
    /// The provider that the user is signed out at.
    provider: Option<String>,
    /// Whether the browser's cookies are cleared.
    clear: Clear,
    /// Whether the store was found away already.
    store_away: bool,
}

/// Whether the browser's cookies are cleared.
enum Clear {
    Always,
    /// Where a session ends. The cookie did not come, so it cannot be said whose it is: whoever sends a browser here
    /// from elsewhere pays with a session of their own, each time.
    WhereOneEnds,
    Never,
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
        let asker = Asker {
            cause: kind,
            by: None,
            request_id: Some(visit.request_id),
        };
        let ends = self.end_noted(&ending, asker).await;
        let clear = match ending.clear {
            Clear::Always => self.clear_cookies(visit.headers),
            Clear::WhereOneEnds if ends.ended > 0 => self.clear_cookies(visit.headers),
            Clear::WhereOneEnds | Clear::Never => Vec::new(),
        };
        let mut response = if ends.unconfirmed > 0 {
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

    /// Ends what is to be ended. Where the store does not confirm it, the tokens are revoked nevertheless, as far as they
    /// are known: other replicas take the session for a living one until it does.
    pub(super) async fn end_noted(&self, ending: &Ending, asker: Asker<'_>) -> Ends {
        let (mut ends, provider) = (Ends::default(), ending.provider.as_deref());
        for (hash, is_known) in &ending.hashes {
            let session = Reference::of(*hash);
            if ending.store_away || ends.unconfirmed > 0 {
                // It was just asked for its whole patience: do not ask again before answering (contract 4.6).
                if *is_known {
                    self.sessions.refuse_known(*hash);
                } else {
                    self.sessions.refuse(*hash);
                }
                let error = "the session store does not answer";
                ends.note_unconfirmed(session, provider, &error, asker);
                continue;
            }
            let end = if *is_known {
                self.sessions.end_known(*hash).await
            } else {
                self.sessions.end(*hash).await
            };
            ends.note(session, provider, end, asker);
        }
        self.metrics.logouts(asker.cause, ends.ended);
        if ends.unconfirmed > 0 {
            drop(self.revoke(ending));
        }
        ends
    }

    /// POST: the cookie's session. Without one the logout succeeds all the same.
    pub(super) async fn ending_by_cookie(&self, visit: &Visit<'_>) -> Ending {
        let mut ending = Ending {
            hashes: Vec::new(),
            opened: None,
            provider: None,
            clear: if self.cookie.came(visit.headers) {
                Clear::Always
            } else {
                Clear::Never
            },
            store_away: false,
        };
        if let Presented::Id(id) = self.cookie.presented(visit.headers) {
            self.open_for_logout(&mut ending, &id).await;
            ending.provider = ending.opened.as_ref().map(|session| session.provider.clone());
        }
        ending
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
        // A link in a mail comes as `none`: only a page of ours speaks for the browser's own session.
        let ours_asked = visit.provenance.site == Site::SameOrigin;
        let mut ending = Ending {
            hashes: Vec::new(),
            opened: None,
            provider: Some(provider),
            clear: if ours_asked {
                Clear::Always
            } else {
                Clear::WhereOneEnds
            },
            store_away: false,
        };
        match self.cookie.presented(visit.headers) {
            Presented::Id(id) if id.store_key() == hash || ours_asked => {
                self.open_for_logout(&mut ending, &id).await;
                ending.clear = Clear::Always;
            }
            // Another session's cookie came, and somebody else sent the browser here: that session is left alone.
            Presented::Id(_) => ending.clear = Clear::Never,
            Presented::Nothing | Presented::Unusable => {}
        }
        ending.hashes.retain(|(other, _)| *other != hash);
        ending.hashes.push((hash, true));
        Ok(ending)
    }

    /// Notes the cookie's session for its end, opened for the sake of its tokens.
    async fn open_for_logout(&self, ending: &mut Ending, id: &crate::session::SessionId) {
        match self.sessions.look_up_in_store(id).await {
            Ok(session) => ending.opened = session,
            Err(SessionError::Store(_)) => ending.store_away = true,
            // It can be deleted all the same.
            Err(SessionError::Unreadable(_) | SessionError::Elsewhere) => {}
        }
        ending.hashes.push((id.store_key(), ending.opened.is_some()));
    }

    /// Revokes the opened session's tokens (best effort), whoever goes on waiting for that.
    fn revoke(&self, ending: &Ending) -> JoinHandle<()> {
        let opened = ending.opened.clone();
        let provider = opened
            .as_ref()
            .and_then(|session| self.provider(&session.provider))
            .cloned();
        self.tasks.spawn(async move {
            if let (Some(provider), Some(session)) = (provider, opened) {
                let tokens = &session.tokens;
                provider
                    .revoke(tokens.refresh_token.as_ref(), Some(&tokens.access_token))
                    .await;
            }
        })
    }

    /// Revokes what can be revoked (best effort, two seconds), and says where the browser signs out at the provider.
    ///
    /// # Cancel safety
    /// A browser that goes away leaves the revocation running.
    pub(super) async fn sign_out_at_provider(&self, ending: &Ending) -> Option<Secret> {
        let provider = self.provider(ending.provider.as_deref()?)?;
        let opened = ending.opened.as_deref();
        let known = async {
            if !provider.is_known() {
                // The first since the start: without metadata the user would stay signed in there.
                provider.warm_up().await;
            }
        };
        let both = join(self.revoke(ending), known);
        let _done_or_late = tokio::time::timeout(PROVIDER_PATIENCE, both).await;
        let hint = opened
            .filter(|session| session.provider == provider.settings().name)
            .and_then(|session| session.tokens.id_token.as_ref());
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
