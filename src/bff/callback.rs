//! The redirect URI: finishes a login (contract 3.3–3.5).
//!
//! | what comes                               | what happens                                              |
//! | ---------------------------------------- | --------------------------------------------------------- |
//! | an attempt under way, and its code       | claimed in the store, redeemed once, session, landing     |
//! | the same again while that runs or after  | waits for the first one's result, same session, landing   |
//! | the mark of a finished attempt           | landing                                                   |
//! | anything else                            | a page that says what happened and offers the way back    |
//!
//! INVARIANT: a code goes to the provider at most once: whoever claims the attempt redeems it, and the claim is given
//! back only where the code cannot have reached the provider. INVARIANT: redeeming runs in a task that no disconnect
//! cancels. INVARIANT: nothing that was sent is reflected.
//!
//! Sources: RFC 6749 §4.1.2, §10.12; RFC 9207 §2.4; OpenID Connect Core §3.1.2.5, §3.1.3.

use super::authorization_response::AuthorizationResponse;
use super::trouble::Trouble;
use super::{Bff, Visit, clear_attempt};
use crate::answer::{Body, Failure};
use crate::clock::UnixTime;
use crate::protocol::id_token::LoginExpectations;
use crate::protocol::token_response::{TokenError, TokenResponse};
use crate::provider::{Provider, ProviderError, advice};
use crate::secret::{AuthorizationCode, Wiped};
use crate::session::login_attempt::{LIFETIME, LoginAttempt, Opened, hash_of_state};
use crate::session::seal::Purpose;
use crate::session::{BeginError, NewSession, Reference, SessionError, SessionId, Tokens};
use crate::store::{Kind, StoreKey};
use bytes::Bytes;
use http::{Method, Response, header};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long the result of a redeemed attempt is kept for a callback that comes twice.
const RESULT_LIFETIME: Duration = Duration::from_mins(1);
/// How long a doubled callback waits for the first one's result, and how often it looks.
const WAIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How an attempt ended.
enum Outcome {
    SignedIn(SessionId),
    Failed(Trouble),
    /// Failed, and the same callback may be tried again.
    Released(Trouble),
}

/// What the store keeps of an outcome, sealed.
#[derive(Serialize, Deserialize)]
enum Kept {
    SignedIn(String),
    Failed(Trouble),
}

impl Bff {
    pub(super) async fn callback(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        provider: &Arc<Provider>,
    ) -> Result<Response<Body>, Failure> {
        if visit.method != Method::GET {
            return Err(Failure::MethodNotAllowed("GET"));
        }
        let name = &provider.settings().name;
        let Some(answer) = AuthorizationResponse::read(visit.query.unwrap_or_default()) else {
            return Ok(self.failed(visit, name, None, Trouble::Malformed));
        };
        match self.attempts.find(visit.headers, &answer.state, self.clock.now()) {
            Some(Opened::Finished { return_to, .. }) => Ok(self.land(&self.landing_for(Some(&return_to)))),
            Some(Opened::UnderWay(attempt)) if attempt.provider == *name => {
                self.finish(visit, provider, *attempt, answer).await
            }
            found => {
                let why = match found {
                    Some(_) => "it was begun at another provider",
                    None => self.attempts.why_unfound(visit.headers, &answer.state),
                };
                Ok(self.failed_because(visit, name, None, Trouble::NoAttempt, Some(why)))
            }
        }
    }

    async fn finish(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        provider: &Arc<Provider>,
        attempt: LoginAttempt,
        answer: AuthorizationResponse,
    ) -> Result<Response<Body>, Failure> {
        let name = &provider.settings().name;
        let cookie_name = self.attempts.cookie_name(attempt.secrets.state.expose());
        // RFC 9207 §2.4: clients MUST compare `iss`, in error responses as well, before anything is sent anywhere.
        match provider.check_response_issuer(answer.iss.as_deref()).await {
            Ok(()) => {}
            Err(ProviderError::Away(_)) => return Ok(self.failed(visit, name, None, Trouble::ProviderAway)),
            Err(_) => return Ok(self.failed(visit, name, Some(&cookie_name), Trouble::WrongIssuer)),
        }
        let code = match answer.outcome {
            Ok(code) => code,
            Err(error) if attempt.silent && error.wants_interaction() => {
                // A refused `prompt=none` is an answer, not a failure; the old session is untouched (3.1).
                let mut response = self.land(&self.landing_for(Some(&attempt.return_to)));
                response
                    .headers_mut()
                    .append(header::SET_COOKIE, clear_attempt(&cookie_name));
                return Ok(response);
            }
            Err(error) => {
                let why = error
                    .known()
                    .map(|code| format!("{code}; {}", advice::on_refusal(code, name)));
                return Ok(self.failed_because(
                    visit,
                    name,
                    Some(&cookie_name),
                    error.trouble(),
                    why.as_deref(),
                ));
            }
        };
        let (bff, provider, task_attempt) = (self.clone(), provider.clone(), attempt.clone());
        let task = self
            .tasks
            .spawn(async move { bff.redeem_once(&provider, &task_attempt, &code).await });
        match task.await.map_err(|_| Failure::Internal)? {
            Outcome::SignedIn(id) => {
                let now = self.clock.now();
                let mut response = self.land(&self.landing_for(Some(&attempt.return_to)));
                let headers = response.headers_mut();
                headers.append(header::SET_COOKIE, self.cookie.set(&id));
                let mark = self.attempts.seal_mark(&attempt, now);
                headers.append(header::SET_COOKIE, self.mark_cookie(&cookie_name, &mark));
                Ok(response)
            }
            // A lost answer stays a lost answer when the page is loaded again.
            Outcome::Failed(Trouble::AnswerLost) => Ok(self.failed(visit, name, None, Trouble::AnswerLost)),
            Outcome::Failed(trouble) => Ok(self.failed(visit, name, Some(&cookie_name), trouble)),
            Outcome::Released(trouble) => Ok(self.failed(visit, name, None, trouble)),
        }
    }

    /// Redeems the code if this is the one callback that may, else waits for the result of the one that does.
    ///
    /// # Cancel safety
    /// Not: runs in a tracked task.
    async fn redeem_once(
        &self,
        provider: &Provider,
        attempt: &LoginAttempt,
        code: &AuthorizationCode,
    ) -> Outcome {
        let hash = self.keys.scoped(hash_of_state(attempt.secrets.state.expose()));
        let claim = StoreKey {
            kind: Kind::AttemptClaim,
            hash,
        };
        let result = StoreKey {
            kind: Kind::AttemptResult,
            hash,
        };
        let uncertain = self.uncertain_claims.take(&hash);
        let owner = uncertain.unwrap_or_else(random);
        let left = LIFETIME
            .saturating_sub(self.clock.now().since(attempt.begun))
            .max(RESULT_LIFETIME);
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            let claimed = match self.store.claim(claim, &owner, left).await {
                // A claim whose answer was lost may have been made all the same: then it stands under this owner.
                Ok(false) if uncertain.is_some() => self.store.renew(claim, &owner, left).await,
                answer => answer,
            };
            match claimed {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "a login attempt could not be claimed");
                    self.uncertain_claims.remember(hash, owner);
                    return Outcome::Released(Trouble::StoreAway);
                }
            }
            match self.store.read(result).await {
                Ok(Some(record)) => return self.open_result(attempt, &record.sealed),
                Ok(None) if tokio::time::Instant::now() >= deadline => {
                    return Outcome::Failed(Trouble::AnswerLost);
                }
                Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => {
                    tracing::warn!(%error, "the result of a login attempt could not be read");
                    return Outcome::Released(Trouble::StoreAway);
                }
            }
        }
        let outcome = self.redeem(provider, attempt, code).await;
        let kept = match &outcome {
            Outcome::SignedIn(id) => Kept::SignedIn(id.cookie_value()),
            Outcome::Failed(trouble) => Kept::Failed(*trouble),
            Outcome::Released(_) => {
                if let Err(error) = self.store.release(claim, &owner).await {
                    tracing::warn!(%error, "a login attempt could not be released for another try");
                }
                return outcome;
            }
        };
        if let Err(error) = self
            .store
            .create(result, self.seal_result(attempt, &kept), RESULT_LIFETIME)
            .await
        {
            // Only a callback that comes twice would have needed it.
            tracing::warn!(%error, "the result of a login attempt could not be kept");
        }
        outcome
    }

    /// Code → tokens → ID token → userinfo → session.
    async fn redeem(&self, provider: &Provider, attempt: &LoginAttempt, code: &AuthorizationCode) -> Outcome {
        let asked = self.clock.now();
        let redirect_uri = self.settings.public_url.url(&self.redirect_path(provider));
        let answer = match provider
            .exchange(code, &attempt.secrets.code_verifier, &redirect_uri)
            .await
        {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(provider = %provider.settings().name, %error, "a code was not exchanged for tokens");
                return match error {
                    TokenError::Unreachable(_) => Outcome::Released(Trouble::ProviderAway),
                    TokenError::NoAnswer {
                        unreadable: false, ..
                    } => Outcome::Failed(Trouble::AnswerLost),
                    TokenError::InvalidGrant => Outcome::Failed(Trouble::CodeRefused),
                    TokenError::Refused(_) | TokenError::NoAnswer { .. } => {
                        Outcome::Failed(Trouble::BadAnswer)
                    }
                };
            }
        };
        let new = match self.check(provider, attempt, &answer, asked).await {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(provider = %provider.settings().name, %error, "a login does not hold");
                provider
                    .revoke(answer.refresh_token.as_ref(), Some(&answer.access_token))
                    .await;
                return Outcome::Failed(match error {
                    ProviderError::Away(_) => Trouble::AnswerLost,
                    _ => Trouble::BadAnswer,
                });
            }
        };
        match self.sessions.begin(new).await {
            Ok((id, begun)) => {
                let name = &provider.settings().name;
                // The one event of a browser's that says who: all others name the session, which leads here.
                tracing::info!(
                    target: "cloakroom::audit", event = "login", session = %self.sessions.reference(&id), provider = name,
                    sub = begun.sub
                );
                self.metrics.login(name, "success", "");
                if let Some(old) = attempt.replaces {
                    self.end_replaced(old).await;
                }
                Outcome::SignedIn(id)
            }
            Err(error) => {
                tracing::warn!(%error, "a session could not be begun");
                provider
                    .revoke(answer.refresh_token.as_ref(), Some(&answer.access_token))
                    .await;
                Outcome::Failed(match error {
                    BeginError::Session(SessionError::Store(_)) => Trouble::StoreAway,
                    // Too large: that will be no better in a little while.
                    BeginError::Session(SessionError::Unreadable(_) | SessionError::Elsewhere) => {
                        Trouble::BadAnswer
                    }
                    BeginError::LoggedOut => Trouble::LoggedOut,
                })
            }
        }
    }

    /// Ends the session that a login replaces. Where the store is away, it is denied here and its delete is repeated.
    async fn end_replaced(&self, old: [u8; 32]) {
        let (session, reason) = (Reference::of(old), "replaced");
        match self.sessions.end_known(old).await {
            Ok(true) => {
                tracing::info!(target: "cloakroom::audit", event = "session_ended", reason, %session);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    target: "cloakroom::audit", event = "session_ended", reason, %session, %error, "incomplete"
                );
            }
        }
    }

    /// Nothing is used before the ID token has passed (OpenID Connect Core §3.1.3.7, RFC 9700 §4.5.3.2).
    async fn check(
        &self,
        provider: &Provider,
        attempt: &LoginAttempt,
        answer: &TokenResponse,
        asked: UnixTime,
    ) -> Result<NewSession, ProviderError> {
        let id_token = answer
            .id_token
            .as_ref()
            .ok_or_else(|| ProviderError::Bad("there is no ID token in it".into()))?;
        let expect = LoginExpectations {
            nonce: attempt.secrets.nonce.expose(),
            max_age: attempt.max_age,
            acr_values: attempt.acr_values.as_deref(),
            access_token: answer.access_token.expose(),
        };
        let verified = provider.verify_login(id_token, &expect).await?;
        let mut claims = verified.all;
        if provider.settings().userinfo == crate::config::Userinfo::OnLogin {
            for (name, value) in provider.userinfo(&answer.access_token, &verified.sub).await? {
                claims.entry(name).or_insert(value);
            }
        }
        let granted = answer.scope.as_deref().map_or_else(
            || provider.settings().scopes.clone(),
            |scope| {
                scope
                    .split(' ')
                    .filter(|word| !word.is_empty())
                    .map(String::from)
                    .collect()
            },
        );
        Ok(NewSession {
            provider: provider.settings().name.clone(),
            sub: verified.sub,
            sid: verified.sid,
            claims,
            tokens: Tokens {
                access_token: answer.access_token.clone(),
                obtained: asked,
                expires: asked.plus(answer.expires_in),
                refresh_token: answer.refresh_token.clone(),
                id_token: answer.id_token.clone(),
                scopes: granted,
            },
            attempted: attempt.begun,
        })
    }

    fn seal_result(&self, attempt: &LoginAttempt, kept: &Kept) -> Bytes {
        // Plain enums of strings always serialize.
        let plain = Wiped::new(serde_json::to_vec(kept).unwrap_or_default());
        let secret = attempt.secrets.code_verifier.expose().as_bytes();
        self.keys.seal(Purpose::AttemptResult, secret, &[], &plain).into()
    }

    fn open_result(&self, attempt: &LoginAttempt, sealed: &[u8]) -> Outcome {
        let secret = attempt.secrets.code_verifier.expose().as_bytes();
        let opened = self.keys.open(Purpose::AttemptResult, secret, &[], sealed);
        match opened.ok().and_then(|plain| serde_json::from_slice(&plain).ok()) {
            Some(Kept::SignedIn(cookie)) => SessionId::parse(cookie.as_bytes())
                .map_or(Outcome::Failed(Trouble::AnswerLost), Outcome::SignedIn),
            Some(Kept::Failed(trouble)) => Outcome::Failed(trouble),
            None => Outcome::Failed(Trouble::AnswerLost),
        }
    }
}

/// Random bytes; the process cannot go on without them.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::expect_used,
        reason = "without randomness nothing here is safe: stop rather than go on"
    )]
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}
