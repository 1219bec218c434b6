//! The value in `logout_url`: names a session to this deployment and tells nothing of its cookie (contract 3.8).
//!
//! ```text
//! value = base64url(store key hash (32 bytes) ‖ HMAC-SHA256 (32) ‖ provider's name)
//! ```
//!
//! The first server key signs and all verify, so a key can be rotated under a page that shows the link.

use super::Sessions;
use super::id::SessionId;
use super::record::Session;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

const PURPOSE: &str = "logout-value";
/// The longest value that is looked at, in characters: no provider's name is as long.
const LONGEST: usize = 512;

fn message(hash: &[u8; 32], provider: &str) -> Vec<u8> {
    [hash, provider.as_bytes()].concat()
}

impl Sessions {
    /// The value in a session's `logout_url`: names the session to this deployment, proves itself by a MAC under the
    /// server key, and tells nothing of the cookie.
    #[must_use]
    pub fn logout_value(&self, id: &SessionId, session: &Session) -> String {
        let hash = id.store_key();
        let signature = self.keys.sign(PURPOSE, &message(&hash, &session.provider));
        BASE64_URL_SAFE_NO_PAD.encode([&hash, &signature, session.provider.as_bytes()].concat())
    }

    /// The store key hash and provider name in a logout value; `None` where it is not ours.
    #[must_use]
    pub fn open_logout_value(&self, value: &str) -> Option<([u8; 32], String)> {
        if value.len() > LONGEST {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(value).ok()?;
        let (hash, rest) = bytes.split_first_chunk::<32>()?;
        let (signature, provider) = rest.split_first_chunk::<32>()?;
        let provider = std::str::from_utf8(provider).ok()?;
        self.keys
            .verify(PURPOSE, &message(hash, provider), signature)
            .then(|| (*hash, provider.to_owned()))
    }
}
