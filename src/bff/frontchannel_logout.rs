//! `/bff/frontchannel-logout`: the provider's page asks in a frame that a session end (`OpenID` Connect Front-Channel
//! Logout 1.0). Off unless a provider's `frontchannel_logout` says otherwise.
//!
//! Nobody signs this call and no cookie comes with it (a frame on the provider's page is another site's), so it may be
//! anybody's: what it takes is to know the provider's own session id, which only the provider and those know whom it told.
//!
//! INVARIANT: only sessions end that the index shows for this very issuer and `sid`; tokens are not revoked, and no mark
//! keeps a login out.
//! INVARIANT: the answer is the same whether there was such a session or not.

use super::ending::Asker;
use super::{Bff, Visit};
use crate::answer::{self, Body, Failure};
use crate::protocol::query::{self, Parameter};
use crate::provider::Provider;
use crate::session::{SessionError, Wanted, Whose};
use http::{Method, Response};
use std::sync::Arc;

impl Bff {
    pub(super) async fn frontchannel_logout(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        let is_on = |provider: &&Arc<Provider>| provider.settings().frontchannel_logout;
        if !self.providers.iter().any(|provider| is_on(&provider)) {
            return Err(Failure::NotFound);
        }
        if visit.method != Method::GET {
            return Err(Failure::MethodNotAllowed("GET"));
        }
        let parameters = query::parse(visit.query.unwrap_or_default()).unwrap_or_default();
        // Front-Channel Logout §2: iss and sid come together or not at all. Without them it would be the cookie's session
        // that ends, and no cookie comes.
        let (Parameter::One(issuer), Parameter::One(sid)) =
            (query::find(&parameters, "iss"), query::find(&parameters, "sid"))
        else {
            return Ok(answer::blank(None));
        };
        let asked = self
            .providers
            .iter()
            .filter(is_on)
            .find(|provider| provider.settings().issuer == issuer);
        let Some(provider) = asked.filter(|_| !sid.is_empty()) else {
            return Ok(answer::blank(None));
        };
        self.end_at(issuer, sid, visit).await.map_err(|error| {
            tracing::warn!(
                target: "cloakroom::audit", event = "logout", cause = "frontchannel", %error,
                provider = provider.settings().name, request_id = visit.request_id, "incomplete"
            );
            Failure::StoreUnavailable
        })?;
        Ok(answer::blank(origin(issuer)))
    }

    async fn end_at(&self, issuer: &str, sid: &str, visit: &Visit<'_>) -> Result<(), SessionError> {
        let found = self
            .sessions
            .find(Whose::Sid { issuer, sid }, Wanted::ToEnd)
            .await?;
        let asker = Asker {
            cause: "frontchannel",
            by: None,
            request_id: Some(visit.request_id),
        };
        self.end_listed(&found, asker).await.confirmed()
    }
}

/// Scheme, host and port of an issuer.
fn origin(issuer: &str) -> Option<&str> {
    let host = issuer.find("://")? + "://".len();
    let end = issuer[host..].find('/').map_or(issuer.len(), |at| host + at);
    Some(&issuer[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuers_origin_is_what_may_frame() {
        for (issuer, expected) in [
            ("https://id.example.com", "https://id.example.com"),
            ("https://id.example.com/", "https://id.example.com"),
            (
                "https://id.example.com:8443/realms/acme",
                "https://id.example.com:8443",
            ),
            ("http://[::1]:8180/realms/acme", "http://[::1]:8180"),
        ] {
            assert_eq!(origin(issuer), Some(expected));
        }
    }
}
