//! One refresh from beginning to end: lease, re-read, note, ask, check, save, land.
//!
//! It runs as a task of its own, which nobody's going away cancels.

use super::Freshness;
use super::flights::Flight;
use super::lease::Lease;
use super::save::{Saved, renew};
use crate::clock::UnixTime;
use crate::protocol::id_token::IdTokenClaims;
use crate::protocol::token_response::{TokenError, TokenResponse};
use crate::provider::ProviderError;
use crate::secret::RefreshToken;
use crate::session::{EndReason, FreshError, Opened, Reference, SessionId, Sessions};
use crate::store::{Kind, StoreKey};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The longest wait for another replica's refresh.
const WAITING: Duration = super::WAIT;
/// The pauses between looks at what another replica wrote, where the store does not tell of it.
const FIRST_LOOK: Duration = Duration::from_millis(25);
pub(super) const LONGEST_LOOK: Duration = Duration::from_millis(200);
/// The longest call to the provider, whose own timeout (10 s) should end it first.
pub(super) const CALL: Duration = Duration::from_secs(12);

/// A refresh under way.
pub(super) struct Turn {
    pub(super) sessions: Arc<Sessions>,
    pub(super) id: SessionId,
    hash: [u8; 32],
    /// When the token was asked for that the request found too old.
    seen: UnixTime,
    pub(super) flight: Flight,
}

impl Turn {
    pub(super) fn new(sessions: &Arc<Sessions>, id: &SessionId, seen: UnixTime, flight: Flight) -> Self {
        Self {
            sessions: Arc::clone(sessions),
            id: id.clone(),
            hash: id.store_key(),
            seen,
            flight,
        }
    }

    fn key(&self) -> StoreKey {
        self.sessions.key(Kind::RefreshLock, self.hash)
    }

    pub(super) async fn run(mut self) {
        let Some(lease) = self.take_lease().await else {
            return;
        };
        let sessions = Arc::clone(&self.sessions);
        tokio::select! {
            () = self.under_lease() => {}
            never = lease.keep(&sessions.store) => match never {},
        }
        sessions.leases.give_back(&sessions.store, lease).await;
    }

    /// Takes the lease, or lands with what its holder brought.
    async fn take_lease(&mut self) -> Option<Lease> {
        let deadline = Instant::now() + WAITING;
        let mut pause = FIRST_LOOK;
        let mut news = self.sessions.watch(&self.id);
        loop {
            match self.sessions.leases.take(&self.sessions.store, self.key()).await {
                Ok(Some(lease)) => return Some(lease),
                Ok(None) => {}
                Err(error) => {
                    self.flight.land(Err(error.into()));
                    return None;
                }
            }
            if Instant::now() >= deadline {
                // Not remembered: the provider may be well, and its answer be there a moment later.
                self.flight.land(Err(FreshError::ProviderAway));
                return None;
            }
            // The holder's write, or the end of its lease, is told at once where the store can tell.
            self.flight.waits_for_provider();
            let _told_or_not = timeout(pause, news.changed()).await;
            self.flight.waits_for_store();
            pause = (pause * 2).min(LONGEST_LOOK);
            self.read_or_land().await.as_ref()?;
        }
    }

    /// Reads the record anew; lands if that settles it.
    pub(super) async fn read_or_land(&mut self) -> Option<Opened> {
        match self.sessions.read(&self.id).await {
            Ok(Some(opened)) if self.is_refreshed(&opened) => self.land_with(&opened),
            Ok(Some(opened)) => return Some(opened),
            Ok(None) => self.flight.land(Err(FreshError::Ended(EndReason::Gone))),
            Err(error) => self.flight.land(Err(error.into())),
        }
        None
    }

    fn freshness(&self, opened: &Opened) -> Freshness {
        Freshness::of(
            &opened.payload.tokens,
            self.sessions.clock.now(),
            self.sessions.refresh_before,
        )
    }

    /// Whether somebody has done it already.
    fn is_refreshed(&self, opened: &Opened) -> bool {
        match self.freshness(opened) {
            Freshness::Fresh => true,
            Freshness::Ageing => opened.payload.tokens.obtained > self.seen,
            Freshness::Expired => false,
        }
    }

    fn land_with(&mut self, opened: &Opened) {
        let session = self.sessions.session(opened.clone());
        self.flight.land(Ok(Arc::new(session)));
    }

    /// A refresh that brought nothing; the session is kept.
    fn audit_failure(&self, opened: &Opened, reason: &'static str, error: &dyn std::fmt::Display) {
        let (session, provider) = (Reference::of(self.hash), opened.provider.name());
        tracing::warn!(
            target: "cloakroom::audit", event = "refresh_failed", %session, provider, reason, %error,
            "a refresh brought no token: the session is kept, and goes on while its token lives"
        );
    }

    fn count(&self, opened: &Opened, outcome: &'static str) {
        self.sessions.metrics.refresh(opened.provider.name(), outcome);
    }

    async fn under_lease(&mut self) {
        let Some(opened) = self.read_or_land().await else {
            return;
        };
        let Some(opened) = self.await_overdue(opened).await else {
            return;
        };
        let throttle = self.sessions.throttle(opened.provider.name());
        let place = match throttle.enter(WAITING, || self.flight.waits_for_provider()).await {
            Ok(place) => place,
            Err(rest) => return self.flight.land_without_provider(rest),
        };
        self.flight.waits_for_store();
        let Some((opened, used)) = self.mark(opened).await else {
            return;
        };
        let provider = Arc::clone(&opened.provider);
        self.flight.waits_for_provider();
        let asked = self.sessions.clock.now();
        let answer = timeout(CALL, provider.refresh(&used)).await;
        drop(place);
        let answer = answer.unwrap_or_else(|_| {
            Err(TokenError::NoAnswer {
                unreadable: false,
                reason: "no answer in time".into(),
                retry_after: None,
            })
        });
        if let Err(TokenError::NoAnswer {
            retry_after: Some(wish),
            ..
        }) = &answer
        {
            throttle.leave_alone(*wish);
        }
        match answer {
            Ok(response) => self.take_answer(opened, asked, response).await,
            Err(error) => self.take_refusal(opened, &used, &error).await,
        }
    }

    async fn take_refusal(&mut self, opened: Opened, used: &RefreshToken, error: &TokenError) {
        let (outcome, retry_after, is_unused) = match error {
            TokenError::InvalidGrant => return self.take_invalid_grant(&opened, used).await,
            TokenError::Refused(_) => ("refused", None, true),
            TokenError::Unreachable(_) => ("unreachable", None, true),
            TokenError::NoAnswer { retry_after, .. } => ("no_answer", *retry_after, false),
        };
        self.count(&opened, outcome);
        self.audit_failure(&opened, outcome, error);
        self.flight.land_without_provider(retry_after);
        // Nobody waits for that note, which a slow store would make long.
        self.unmark(opened, is_unused).await;
    }

    /// RFC 6749 §5.2: `invalid_grant`: the refresh token is "invalid, expired, revoked". Unless another replica has
    /// replaced it meanwhile (a lease that ran out under a paused process), the session is over.
    async fn take_invalid_grant(&mut self, opened: &Opened, used: &RefreshToken) {
        match self.sessions.read(&self.id).await {
            Ok(Some(now)) if now.payload.tokens.refresh_token.as_ref() != Some(used) => {
                self.count(opened, "overtaken");
                if self.freshness(&now) == Freshness::Expired {
                    self.flight.land(Err(FreshError::ProviderAway));
                } else {
                    self.land_with(&now);
                }
            }
            // It was logged out, and its token revoked, while this refresh was under way: whoever did that has told it.
            Ok(None) => {
                self.count(opened, "gone");
                self.flight.land(Err(FreshError::Ended(EndReason::Gone)));
            }
            // It was shown before, and that answer never came: the provider took it then, and this is the price.
            Ok(Some(_)) if opened.payload.shown > 1 => {
                self.end(opened, EndReason::AnswerLost).await;
            }
            Ok(Some(_)) => self.end(opened, EndReason::InvalidGrant).await,
            // It is not known whether it is over: the next request asks again.
            Err(error) => self.flight.land(Err(error.into())),
        }
    }

    /// Ends the session, for requests that wait as for those that come. Where the store does not confirm the delete,
    /// `end` refuses the session here and repeats it.
    async fn end(&mut self, opened: &Opened, why: EndReason) {
        self.count(opened, why.word());
        tracing::info!(
            target: "cloakroom::audit",
            event = "session_ended",
            reason = why.word(),
            session = %Reference::of(self.hash),
            provider = opened.provider.name(),
            "a session has ended: {why}"
        );
        let _repeated_in_the_background = self.sessions.end_known(self.hash).await;
        self.flight.land(Err(FreshError::Ended(why)));
    }

    async fn take_answer(&mut self, mut opened: Opened, asked: UnixTime, response: TokenResponse) {
        let provider = Arc::clone(&opened.provider);
        let before = opened.payload.tokens.clone();
        let checked = match &response.id_token {
            // Core §12.2: the response "might not contain an id_token". But where the answer before this one had one
            // that could not be checked, whose refresh token this is was never confirmed, and still is not.
            None if opened.payload.unconfirmed => Err(ProviderError::Bad(
                "there is none, after one that did not hold".into(),
            )),
            None => Ok(None),
            Some(token) => timeout(CALL, provider.verify_refreshed(token, &opened.payload.sub))
                .await
                .unwrap_or_else(|_| Err(ProviderError::Away("no answer in time".into())))
                .and_then(|new| has_original_nonce(&new, &opened.payload.claims))
                .map(Some),
        };
        let new = match checked {
            Ok(new) => new,
            // Core §12.2: "its iss Claim Value MUST be the same as in the ID Token issued when the original
            // authentication occurred", and so sub; "its aud Claim Value MUST include the original".
            Err(ProviderError::Mismatch(why)) => {
                tracing::error!(
                    provider = provider.name(),
                    why,
                    "a refresh brought somebody else's ID token: session ended"
                );
                self.end(&opened, EndReason::Mismatch).await;
                provider
                    .revoke(response.refresh_token.as_ref(), Some(&response.access_token))
                    .await;
                return;
            }
            // A signature, a time or a key that cannot be fetched: nobody knows whose answer that is, so its access
            // token is not used. Nor is the session ended: only what names another user does that (contract 4.8). The
            // refresh token may have been rotated, though, and the old one be dead: the new one is kept for the next
            // try, whose ID token must hold.
            Err(error @ (ProviderError::Bad(_) | ProviderError::Away(_))) => {
                self.count(&opened, "unverified");
                self.audit_failure(&opened, "unverified", &error);
                if let Some(rotated) = &response.refresh_token {
                    opened.payload.tokens.refresh_token = Some(rotated.clone());
                    opened.payload.unconfirmed = true;
                    opened.payload.forget_showings();
                    if matches!(self.save(opened, &before).await, Saved::Gone) {
                        provider.revoke(Some(rotated), Some(&response.access_token)).await;
                    }
                }
                self.flight.land_without_provider(None);
                return;
            }
        };
        renew(&mut opened, asked, &response, new.as_ref());
        match self.save(opened.clone(), &before).await {
            Saved::Ours(saved) => {
                self.count(&saved, "refreshed");
                self.land_with(&saved);
                if provider.asks_userinfo() {
                    self.renew_claims(&saved, new.as_ref(), before.id_token.as_ref())
                        .await;
                }
            }
            // Ours are not revoked: a provider that rotates would revoke theirs with them (RFC 9700 §4.14.2).
            Saved::Theirs(theirs) => {
                self.count(&theirs, "overtaken");
                self.land_with(&theirs);
            }
            Saved::Gone => {
                self.count(&opened, "gone");
                self.flight.land(Err(FreshError::Ended(EndReason::Gone)));
                provider
                    .revoke(response.refresh_token.as_ref(), Some(&response.access_token))
                    .await;
            }
            Saved::Failed(error) => {
                self.count(&opened, "unsaved");
                tracing::error!(
                    provider = provider.name(),
                    "a refresh's tokens could not be saved and are lost"
                );
                self.audit_failure(&opened, "unsaved", &error);
                self.flight.land(Err(error.into()));
            }
        }
    }
}

/// Core §12.2: a refreshed ID token "SHOULD NOT have a nonce Claim … however, if it is present, its value MUST be the
/// same as in the ID Token issued at the time of the original authentication".
fn has_original_nonce(
    new: &IdTokenClaims,
    original: &serde_json::Map<String, serde_json::Value>,
) -> Result<IdTokenClaims, ProviderError> {
    match (new.all.get("nonce"), original.get("nonce")) {
        (Some(now), Some(then)) if now != then => Err(ProviderError::Bad(
            "a refreshed ID token has another nonce".into(),
        )),
        _ => Ok(new.clone()),
    }
}
