//! The authorization request and its answer (RFC 6749 §4.1, RFC 7636, RFC 9207, `OpenID` Connect Core §3.1.2).

use crate::secret::CodeVerifier;

/// What goes into the authorization URL beside what the provider's settings say.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// `prompt`.
    pub prompt: Option<String>,
    /// `login_hint`.
    pub login_hint: Option<String>,
    /// `acr_values`.
    pub acr_values: Option<String>,
    /// `max_age`, seconds.
    pub max_age: Option<u64>,
}

/// The secrets of one login attempt: fresh for each, 256 random bits each, base64url (43 characters).
#[derive(Clone, Debug)]
pub struct AttemptSecrets {
    /// `state` (RFC 6749 §10.12).
    pub state: crate::secret::Secret,
    /// `nonce` (Core §15.5.2).
    pub nonce: crate::secret::Secret,
    /// `code_verifier` (RFC 7636 §4.1).
    pub code_verifier: CodeVerifier,
}

impl AttemptSecrets {
    /// Fresh ones.
    #[must_use]
    pub fn random() -> Self { unimplemented!() }
}
