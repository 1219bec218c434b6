//! What the provider sends back through the browser (RFC 6749 §4.1.2).

use super::trouble::Trouble;
use crate::protocol::authorization::known_error;
use crate::protocol::query::{self, Parameter};
use crate::secret::AuthorizationCode;

/// The authorization response (RFC 6749 §4.1.2): extra parameters are ignored, doubled ones refused (§3.1).
pub(super) struct AuthorizationResponse {
    pub(super) state: String,
    pub(super) iss: Option<String>,
    pub(super) outcome: Result<AuthorizationCode, ErrorCode>,
}

impl AuthorizationResponse {
    pub(super) fn read(query: &str) -> Option<Self> {
        let parameters = query::parse(query)?;
        let one = |name: &str| match query::find(&parameters, name) {
            Parameter::Absent => Some(None),
            Parameter::One(value) => Some(Some(value.to_owned())),
            Parameter::Doubled => None,
        };
        let (state, iss, code, error) = (one("state")??, one("iss")?, one("code")?, one("error")?);
        let outcome = match (code, error) {
            (Some(code), None) if !code.is_empty() => Ok(AuthorizationCode::new(code)),
            (None, Some(error)) => Err(ErrorCode(error)),
            _ => return None,
        };
        Some(Self { state, iss, outcome })
    }
}

/// `error` of an authorization response: compared with what is known, never shown as it came.
pub(super) struct ErrorCode(String);

impl ErrorCode {
    /// What a provider answers to `prompt=none` where it would have to show something (Core §3.1.2.6).
    pub(super) fn wants_interaction(&self) -> bool {
        matches!(
            self.0.as_str(),
            "login_required" | "interaction_required" | "consent_required" | "account_selection_required"
        )
    }

    /// The code, where it is one that a specification names.
    pub(super) fn known(&self) -> Option<&'static str> {
        known_error(&self.0)
    }

    pub(super) fn trouble(&self) -> Trouble {
        match self.0.as_str() {
            "access_denied" => Trouble::Denied,
            "temporarily_unavailable" => Trouble::ProviderAway,
            "server_error" => Trouble::BadAnswer,
            _ => Trouble::Refused,
        }
    }
}
