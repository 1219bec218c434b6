//! What an operator does about a provider that cannot be used: remedies for the log and for `check --online`.
//!
//! INVARIANT: made of the config's names and of fixed words; nothing that was sent is in it.

use super::ProviderError;

/// What to do about an OAuth error code (RFC 6749 §4.1.2.1, §5.2; RFC 8707 §2), from the token endpoint or the browser.
/// `name` is the provider's.
#[must_use]
pub fn on_refusal(code: &str, name: &str) -> String {
    match code {
        "invalid_client" => format!(
            "compare providers.{name}.client_id and client_secret with what the provider knows, and client_auth with \
             how it wants the secret to be sent"
        ),
        "unauthorized_client" | "unsupported_response_type" | "unsupported_grant_type" => {
            "allow this client the authorization code flow and refresh tokens at the provider".to_owned()
        }
        "invalid_scope" => format!(
            "providers.{name}.scopes asks for what this client may not have (often offline_access): allow it at the \
             provider, or leave it out"
        ),
        "invalid_target" => "allow this client the API's audience at the provider".to_owned(),
        "invalid_request" | "redirect_uri_mismatch" => {
            "compare the redirect URI that the start of the log names with those that the provider knows, and see its \
             own log"
                .to_owned()
        }
        _ => "see the provider's own log".to_owned(),
    }
}

/// What to do about metadata or keys that cannot be had.
pub(super) fn on_error(error: &ProviderError, name: &str) -> String {
    match error {
        ProviderError::Away(_) => format!(
            "check that its name resolves and its port is open from here (HTTPS_PROXY and NO_PROXY count); for an \
             unknown certificate issuer, name its PEM file in providers.{name}.ca"
        ),
        ProviderError::Bad(_) | ProviderError::Mismatch(_) => {
            format!("compare providers.{name}.issuer with the issuer that the provider itself names")
        }
    }
}
