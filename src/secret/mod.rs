//! Secrets: values that are never printed and are wiped when dropped.
//!
//! Stands on the ground floor; every token, code, verifier, key and password on a request's way is one of these.
//!
//! INVARIANT: no `Display`, a redacted `Debug`, no `Serialize`: a secret reaches an output only through
//! [`Secret::expose`], which is easy to search for.

mod session_key;
mod wiped;

pub use session_key::{NoSessionKey, SESSION_KEY_BYTES, session_key};
pub use wiped::Wiped;

use std::fmt;

/// A string that must not be seen: wiped on drop, redacted in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the value in.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wiped::wipe(&mut std::mem::take(&mut self.0).into_bytes());
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

macro_rules! kinds_of_secret {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(Secret);

        impl $name {
            /// Takes the value in.
            #[must_use]
            pub fn new(value: impl Into<String>) -> Self {
                Self(Secret::new(value))
            }

            /// The value itself, for the one place that sends it.
            #[must_use]
            pub fn expose(&self) -> &str {
                self.0.expose()
            }
        }
    )+};
}

kinds_of_secret! {
    /// What upstreams are shown (RFC 6749 §1.4).
    AccessToken,
    /// What the provider's token endpoint is shown for a new access token (RFC 6749 §1.5).
    RefreshToken,
    /// Who signed in, signed by the provider (`OpenID` Connect Core §2). Kept for `id_token_hint` only.
    IdToken,
    /// What cloakroom proves its own identity with at the provider (RFC 6749 §2.3.1).
    ClientSecret,
    /// What the provider hands over through the browser, once (RFC 6749 §1.3.1).
    AuthorizationCode,
    /// What ties a code to the login attempt that asked for it (RFC 7636 §4.1).
    CodeVerifier,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_a_secret() {
        let token = AccessToken::new("canary");
        assert!(!format!("{token:?} {:?}", Secret::new("canary")).contains("canary"));
        assert_eq!(token.expose(), "canary");
    }
}
