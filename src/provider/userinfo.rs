//! What the userinfo endpoint says of a user (`OpenID` Connect Core §5.3).
//!
//! Stands after the ID token, at login and at each refresh, where the config asks for it.
//!
//! INVARIANT: an answer about another user is discarded whole; one about this user cannot replace what the ID token
//! says of issuer, audience, times and sign-in.

use super::http::CALL_LIMIT;
use super::source::is_passing;
use super::{Provider, ProviderError};
use crate::protocol::json;
use crate::protocol::token_response::is_media_type;
use crate::secret::AccessToken;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde_json::{Map, Value};

/// What only an ID token can say.
const ID_TOKEN_ONLY: [&str; 12] = [
    "iss",
    "aud",
    "azp",
    "exp",
    "iat",
    "nbf",
    "jti",
    "nonce",
    "at_hash",
    "auth_time",
    "acr",
    "sid",
];

impl Provider {
    /// Asks the userinfo endpoint; `sub` must be the ID token's (Core §5.3.2).
    /// # Errors
    /// [`ProviderError`]
    pub async fn userinfo(
        &self,
        token: &AccessToken,
        sub: &str,
    ) -> Result<Map<String, Value>, ProviderError> {
        let bad = |fault: &str| ProviderError::Bad(fault.to_owned());
        let metadata = self.source.metadata().await?;
        let endpoint = metadata
            .userinfo_endpoint
            .as_deref()
            .ok_or_else(|| bad("it has no userinfo endpoint"))?;
        let mut request = http::Request::new(Vec::new());
        *request.uri_mut() = endpoint
            .parse()
            .map_err(|_| bad("its userinfo endpoint is not a URL"))?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| bad("its access token cannot be sent"))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        request.headers_mut().insert(
            ACCEPT,
            HeaderValue::from_static("application/json, application/jwt"),
        );
        let answer = self
            .source
            .ask("userinfo", request, CALL_LIMIT)
            .await
            .map_err(|error| ProviderError::Away(error.to_string()))?;
        if answer.status != 200 {
            let reason = format!("its userinfo came with status {}", answer.status);
            return Err(if is_passing(answer.status) {
                ProviderError::Away(reason)
            } else {
                ProviderError::Bad(reason)
            });
        }
        // Core §5.3.2: "The UserInfo Response … MUST use the application/json" type, or application/jwt where signed
        let content_type = answer.content_type().unwrap_or_default();
        let mut claims = if is_media_type(content_type, "application/jwt") {
            let token = std::str::from_utf8(&answer.body).map_err(|_| bad("its userinfo is not a token"))?;
            let token = self.addressed(token.trim())?;
            self.verify_signature(&token, |found| found.userinfo_algorithms.as_ref())
                .await?;
            token.claims
        } else if is_media_type(content_type, "application/json") {
            json::object(&answer.body).map_err(|fault| ProviderError::Bad(format!("its userinfo {fault}")))?
        } else {
            return Err(bad("its userinfo is neither JSON nor a token"));
        };
        // Core §5.3.2: "The sub Claim in the UserInfo Response MUST be verified to exactly match the sub Claim in the
        // ID Token; if they do not match, the UserInfo Response values MUST NOT be used"
        if claims.get("sub").and_then(Value::as_str) != Some(sub) {
            return Err(bad("its userinfo is about another user"));
        }
        claims.retain(|name, _| !ID_TOKEN_ONLY.contains(&name.as_str()));
        Ok(claims)
    }
}
