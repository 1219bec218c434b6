//! `/bff/backchannel-logout`: the provider says that somebody signed out (contract 3.9; OpenID Connect Back-Channel
//! Logout 1.0).
//!
//! The provider's server calls, not a browser: no cookie, no CSRF check, and further names under which it may call
//! (`server.hosts`). Its word is the signed logout token.
//!
//! | what comes                                        | what happens                                        |
//! | ------------------------------------------------- | --------------------------------------------------- |
//! | a token that holds, for the first time            | 200: the sessions that it names are over            |
//! | one that does not hold, or was seen before        | 400, nothing changes                                |
//! | any, while the store or the provider's keys are away | 503: nothing is remembered, so it may come again |
//!
//! INVARIANT: a token is remembered only after all that it names has ended, and as long as it would hold.
//! INVARIANT: the tombstone stands before the sessions are looked up: a login that ends meanwhile sees the one or is seen
//! by the other.

use super::ending::Asker;
use super::{Bff, Visit};
use crate::answer::{self, Body, Failure};
use crate::protocol::jws::Compact;
use crate::protocol::logout_token::LogoutToken;
use crate::protocol::query::{self, Parameter};
use crate::provider::{LogoutTokenFault, Provider};
use crate::session::{SessionError, Wanted, Whose};
use crate::store::{Kind, StoreKey};
use aws_lc_rs::digest;
use http::{HeaderMap, Method, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The longest form that is read, in bytes.
const LONGEST_FORM: usize = 64 * 1024;
/// How long the form may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who remembers a token does it for all: the mark is nobody's in particular.
const MARK: [u8; 16] = [0; 16];

impl Bff {
    pub(super) async fn backchannel_logout(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        body: Incoming,
    ) -> Result<Response<Body>, Failure> {
        // §2.5: the provider asks by HTTP POST.
        if visit.method != Method::POST {
            return Err(Failure::MethodNotAllowed("POST"));
        }
        let form = read_form(visit.headers, body).await?;
        let token = Compact::parse(logout_token(&form)?).map_err(|fault| refused(visit, None, &fault))?;
        let issuer = token.claims.get("iss").and_then(Value::as_str);
        let provider = self
            .providers
            .iter()
            .find(|provider| Some(provider.settings().issuer.as_str()) == issuer)
            .ok_or_else(|| refused(visit, None, &"no provider of this issuer is configured"))?;
        let said = provider.verify_logout(&token).await.map_err(|fault| {
            if let LogoutTokenFault::NoKeys(_) = fault {
                note_put_off(visit, provider, &fault);
                return Failure::ProviderUnavailable;
            }
            refused(visit, Some(provider), &fault)
        })?;
        // The provider may hang up before the store has answered: what it said holds all the same.
        let acting = {
            let (bff, provider, said) = (Arc::clone(self), Arc::clone(provider), said.clone());
            self.tasks
                .spawn(async move { bff.log_out(&provider, &said).await })
        };
        match acting.await {
            Ok(Ok(true)) => Ok(answer::done()),
            Ok(Ok(false)) => Err(refused(visit, Some(provider), &"the token was seen before")),
            Ok(Err(error)) => {
                note_put_off(visit, provider, &error);
                Err(Failure::StoreUnavailable)
            }
            Err(_) => Err(Failure::Internal),
        }
    }

    /// Does what the token says. False: it was done before.
    async fn log_out(&self, provider: &Provider, logout: &LogoutToken) -> Result<bool, SessionError> {
        let issuer = &provider.settings().issuer;
        let (seen, left) = (
            self.seen(issuer, &logout.jti),
            logout.until.since(self.clock.now()),
        );
        // §2.6 (8): "Optionally verify that another Logout Token with the same jti value has not been recently received";
        // asked before anything is done, because the user may have signed in anew since.
        if self.store.read(seen).await?.is_some() {
            return Ok(false);
        }
        let (user, session) = (logout.sub.as_deref(), logout.sid.as_deref());
        self.sessions
            .log_out_at_provider(issuer, user, session, logout.issued)
            .await?;
        // §2.7: a session is found by the sid, or all of the user's by the sub; whoever is not found is logged out already.
        // §2.4: "If a sid Claim is not present, the intent is that all sessions at the RP for the End-User identified by the
        // iss and sub Claims be logged out".
        let mut whose = match (session, user) {
            (Some(sid), _) => {
                self.sessions
                    .find(Whose::Sid { issuer, sid }, Wanted::ToEnd)
                    .await?
            }
            (None, Some(sub)) => {
                self.sessions
                    .find(Whose::Sub { issuer, sub }, Wanted::ToEnd)
                    .await?
            }
            (None, None) => Vec::new(),
        };
        whose.retain(|listed| user.is_none_or(|user| listed.sub == user));
        // §2.7: "Refresh tokens issued without the offline_access property to a session being logged out SHOULD be revoked".
        // That cannot be done here: they are sealed under a key that takes the browser's cookie to derive (contract 5.2).
        // They are gone with the record, and the provider that ended its own session can end them by itself.
        let asker = Asker {
            cause: "backchannel",
            by: None,
            request_id: None,
        };
        self.end_listed(&whose, asker).await.confirmed()?;
        // Now, and not before: what did not succeed may come again.
        Ok(self.store.claim(seen, &MARK, left).await?)
    }

    /// Where a token is remembered: names it to this deployment.
    fn seen(&self, issuer: &str, jti: &str) -> StoreKey {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"cloakroom logout token v1\0");
        // No issuer holds a zero byte.
        context.update(issuer.as_bytes());
        context.update(&[0]);
        context.update(jti.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        StoreKey {
            kind: Kind::LogoutToken,
            hash: self.keys.scoped(hash),
        }
    }
}

/// Reads a form of at most [`LONGEST_FORM`].
async fn read_form(headers: &HeaderMap, body: Incoming) -> Result<Vec<(String, String)>, Failure> {
    // §2.5: the body is application/x-www-form-urlencoded.
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (kind, None) = (types.next(), types.next()) else {
        return Err(Failure::BadRequest("The request has more than one Content-Type."));
    };
    let kind = kind.and_then(|kind| kind.to_str().ok()?.split(';').next());
    if !kind.is_some_and(|kind| {
        kind.trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }) {
        return Err(Failure::BadRequest(
            "A logout token comes as application/x-www-form-urlencoded.",
        ));
    }
    let read = tokio::time::timeout(PATIENCE, Limited::new(body, LONGEST_FORM).collect()).await;
    let bytes = match read {
        Ok(Ok(read)) => read.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Failure::TooLarge),
        Ok(Err(_)) => return Err(Failure::BadRequest("The request's body broke off.")),
        Err(_) => return Err(Failure::TooSlow),
    };
    let text = str::from_utf8(&bytes).ok();
    text.and_then(query::parse)
        .ok_or(Failure::BadRequest("The request's body is no form."))
}

/// §2.5: there is a `logout_token`; "Values that are not understood by the implementation MUST be ignored", and one that
/// comes twice is not understood in one way only.
fn logout_token(form: &[(String, String)]) -> Result<&str, Failure> {
    match query::find(form, "logout_token") {
        Parameter::One(token) => Ok(token),
        Parameter::Absent => Err(Failure::BadRequest("There is no logout_token.")),
        Parameter::Doubled => Err(Failure::BadRequest("There is more than one logout_token.")),
    }
}

/// A token that is not acted on, ever: why is for the operator.
fn refused(visit: &Visit<'_>, provider: Option<&Arc<Provider>>, why: &dyn std::fmt::Display) -> Failure {
    let provider = provider.map(|provider| provider.settings().name.as_str());
    tracing::warn!(
        target: "cloakroom::audit", event = "logout_refused", cause = "backchannel", provider, %why,
        request_id = visit.request_id, "a logout token was refused"
    );
    Failure::BadRequest("The logout token does not hold, or was seen before: cloakroom's log says why.")
}

/// A token that may come again.
fn note_put_off(visit: &Visit<'_>, provider: &Provider, why: &dyn std::fmt::Display) {
    tracing::warn!(
        target: "cloakroom::audit", event = "logout", cause = "backchannel", provider = provider.settings().name, %why,
        request_id = visit.request_id, "incomplete: the provider is asked to send its logout token again"
    );
}
