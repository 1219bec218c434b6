//! Saves what a refresh brought: the tokens at once, userinfo's claims when they are there.
//!
//! Between "the provider rotated the refresh token" and "the store holds the new one" nothing gives up before
//! [`SAVING`]: an answer that is lost there costs the user the session.
//!
//! INVARIANT: every write is a compare-and-swap on what was read; of two refreshes under a broken lease the first to
//! write wins, and the other uses what it wrote.

use super::claims;
use super::turn::Turn;
use crate::clock::UnixTime;
use crate::protocol::id_token::IdTokenClaims;
use crate::protocol::token_response::TokenResponse;
use crate::secret::IdToken;
use crate::session::{Opened, SWAPS, SessionError, Tokens};
use crate::store::{Replaced, StoreError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long saving is tried.
const SAVING: Duration = Duration::from_mins(2);
/// The pauses between two tries: short, because when the store comes back no other replica should be first.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What came of saving.
pub(super) enum Saved {
    /// The store holds the new tokens.
    Ours(Opened),
    /// Another replica's are there; ours are not.
    Theirs(Opened),
    /// The session ended meanwhile.
    Gone,
    /// It cannot be saved.
    Failed(SessionError),
}

impl Turn {
    /// Writes the new tokens over the record whose tokens are still those `before`, for as long as it takes.
    pub(super) async fn save(&mut self, mut ours: Opened, before: &Tokens) -> Saved {
        let deadline = Instant::now() + SAVING;
        let mut pause = FIRST_PAUSE;
        let mut swaps = 0;
        let mut news = self.sessions.watch(&self.id);
        loop {
            // Asked before and after: an end that fails meanwhile is seen, and so is one whose delete is confirmed meanwhile.
            let was_refused = self.sessions.is_refused(&self.id);
            let error = match self.sessions.replace_tokens(&self.id, &ours).await {
                // It ended here, and the store holds it only until it takes the delete.
                Ok(Replaced::Done(_)) if was_refused || self.sessions.is_refused(&self.id) => {
                    return Saved::Gone;
                }
                Ok(Replaced::Done(version)) => return Saved::Ours(Opened { version, ..ours }),
                Ok(Replaced::Gone) => return Saved::Gone,
                // Somebody else's write came first, or our own did, whose answer was lost.
                Ok(Replaced::Changed) => match self.sessions.read(&self.id).await {
                    Ok(None) => return Saved::Gone,
                    Ok(Some(there)) => {
                        if same(&there.payload.tokens, &ours.payload.tokens) {
                            return Saved::Ours(there);
                        }
                        if !same(&there.payload.tokens, before) {
                            return Saved::Theirs(there);
                        }
                        swaps += 1;
                        // The tokens and claims are ours.
                        ours.version = there.version;
                        ours.payload.join(there.payload);
                        if swaps < SWAPS {
                            continue;
                        }
                        None
                    }
                    Err(error) => Some(error),
                },
                Err(error) => Some(error),
            };
            match error {
                Some(SessionError::Store(error)) => self.flight.store_away(error),
                Some(error @ (SessionError::Unreadable(_) | SessionError::Elsewhere)) => {
                    return Saved::Failed(error);
                }
                None => {}
            }
            if Instant::now() >= deadline {
                let late = StoreError("the new tokens could not be written".into());
                return Saved::Failed(late.into());
            }
            // The store's return is told at once, where it can tell.
            let _told_or_not = timeout(pause, news.changed()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks userinfo, and writes the claims if the tokens are still those it was asked with. Whatever fails, the old
    /// claims stay.
    pub(super) async fn renew_claims(
        &self,
        saved: &Opened,
        new: Option<&IdTokenClaims>,
        kept: Option<&IdToken>,
    ) {
        let (provider, tokens) = (&saved.provider, &saved.payload.tokens);
        let userinfo = timeout(
            super::turn::CALL,
            provider.userinfo(&tokens.access_token, &saved.payload.sub),
        )
        .await;
        let userinfo = match userinfo {
            Ok(Ok(userinfo)) => userinfo,
            Ok(Err(error)) => {
                tracing::warn!(provider = provider.name(), %error, "userinfo failed at a refresh; the old claims stay");
                return;
            }
            Err(_) => return,
        };
        let claims = claims::with_userinfo(new.map(|new| &new.all), kept, &userinfo);
        for _ in 0..SWAPS {
            let Ok(Some(mut opened)) = self.sessions.read(&self.id).await else {
                return;
            };
            let claims = claims::as_signed_in(claims.clone(), &opened.payload.claims);
            if opened.payload.tokens.access_token != tokens.access_token || *opened.payload.claims == claims {
                return;
            }
            opened.payload.claims = claims.into();
            if !matches!(
                self.sessions.replace(&self.id, &opened).await,
                Ok(Replaced::Changed)
            ) {
                return;
            }
        }
    }
}

/// Whether these are the same answer's.
fn same(a: &Tokens, b: &Tokens) -> bool {
    a.access_token == b.access_token && a.refresh_token == b.refresh_token
}

/// Puts the answer into the record.
pub(super) fn renew(
    opened: &mut Opened,
    asked: UnixTime,
    response: &TokenResponse,
    new: Option<&IdTokenClaims>,
) {
    let record = &mut opened.payload;
    let tokens = &mut record.tokens;
    tokens.access_token = response.access_token.clone();
    tokens.obtained = asked;
    tokens.expires = asked.plus(response.expires_in);
    // RFC 6749 §6: the server "MAY issue a new refresh token, in which case the client MUST discard the old refresh
    // token and replace it"; where it sends none, the old one stays.
    if response.refresh_token.is_some() {
        tokens.refresh_token.clone_from(&response.refresh_token);
    }
    if response.id_token.is_some() {
        tokens.id_token.clone_from(&response.id_token);
    }
    // RFC 6749 §5.1: `scope` is "OPTIONAL, if identical to the scope requested by the client".
    if let Some(scope) = &response.scope {
        tokens.scopes = scope.split_ascii_whitespace().map(str::to_owned).collect();
    }
    let new = claims::at_refresh(
        &record.claims,
        new.map(|new| &new.all),
        opened.provider.asks_userinfo(),
    );
    record.claims = claims::as_signed_in(new, &record.claims).into();
    record.unconfirmed = false;
    record.forget_showings();
}
