//! A session's name for logs and administrators.
//!
//! INVARIANT: neither the cookie nor anything that opens the session can be computed from it.

use std::fmt;
use std::str::FromStr;

/// What logs and the admin listener call a session: its store key hash, in hexadecimal. The cookie cannot be computed
/// from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference([u8; 32]);

impl Reference {
    /// The hash that [`Sessions::end_known`](crate::session::Sessions::end_known) takes.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.0
    }

    /// Of the session with that store key hash (see [`SessionId::store_key`](crate::session::SessionId::store_key)).
    #[must_use]
    pub const fn of(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// It is no reference: 64 hexadecimal digits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session's reference is 64 hexadecimal digits")]
pub struct NoReference;

impl FromStr for Reference {
    type Err = NoReference;

    fn from_str(text: &str) -> Result<Self, NoReference> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NoReference);
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NoReference)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NoReference)?;
        }
        Ok(Self(hash))
    }
}
