//! The session's id: the cookie's bits, and the store key made of them.

/// 256 random bits: what the cookie holds (contract 5.1). Never logged, never stored.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        unimplemented!()
    }
    /// Out of a cookie: exactly 43 base64url characters.
    #[must_use]
    pub fn parse(_cookie: &[u8]) -> Option<Self> {
        unimplemented!()
    }
    /// For the cookie.
    #[must_use]
    pub fn cookie_value(&self) -> String {
        unimplemented!()
    }
    /// The hash under which the store keeps the session.
    #[must_use]
    pub fn store_key(&self) -> [u8; 32] {
        unimplemented!()
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionId(***)")
    }
}
