//! The session's id: the cookie's bits, and the store key made of them.
//!
//! On a request's way the cookie becomes a [`SessionId`] here; `Sessions` finds the session that it opens.
//!
//! INVARIANT: the bits leave only in `Set-Cookie`. The store and the logs see a hash, from which they cannot be
//! computed: 256 random bits cannot be guessed, so a plain hash suffices (standards SE-01, SE-02).

use crate::secret::Wiped;
use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::hash::{Hash, Hasher};
use zeroize::Zeroizing;

/// The length of an id as a cookie value: 256 bits in base64url.
const COOKIE_LENGTH: usize = 43;

/// 256 random bits: what the cookie holds (contract 5.1). Never logged, never stored.
#[derive(Clone)]
pub struct SessionId(Zeroizing<[u8; 32]>);

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&*self.0, &*other.0).is_ok()
    }
}

impl Eq for SessionId {}

/// For maps of this process, whose hashes nobody outside can know.
impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&*self.0);
    }
}

impl SessionId {
    /// A new one.
    ///
    /// # Panics
    /// Where the system has no random bytes: better no session than one that can be guessed.
    #[must_use]
    pub fn random() -> Self {
        let mut bits = Zeroizing::new([0; 32]);
        rand::fill(&mut *bits).expect("the system has random bytes");
        Self(bits)
    }

    /// Out of a cookie: exactly 43 base64url characters.
    #[must_use]
    pub fn parse(cookie: &[u8]) -> Option<Self> {
        if cookie.len() != COOKIE_LENGTH {
            return None;
        }
        // Padding, other alphabets and set bits behind the 256th are refused: one session has one cookie value.
        let mut decoded = Zeroizing::new([0; 33]);
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(cookie, &mut *decoded).ok()?;
        let bits: &[u8; 32] = decoded.get(..length)?.try_into().ok()?;
        Some(Self(Zeroizing::new(*bits)))
    }

    /// For the cookie.
    #[must_use]
    pub fn cookie_value(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(*self.0)
    }

    /// The hash that names the session to us: in the store (see [`super::Sessions`]) and in `logout_url`.
    #[must_use]
    pub fn store_key(&self) -> [u8; 32] {
        hash("cloakroom/session-id", &*self.0)
    }

    /// The bits, for the session's sealing key.
    pub(super) fn bits(&self) -> &[u8] {
        &*self.0
    }
}

/// SHA-256 with a label in front, so that equal bytes hash differently for different ends.
pub(super) fn hash(label: &str, bytes: &[u8]) -> [u8; 32] {
    // In one piece: to begin and end a hash that goes on costs the library more than to compute one of this length.
    let mut message = Wiped::new(Vec::with_capacity(label.len() + 1 + bytes.len()));
    message.extend_from_slice(label.as_bytes());
    // No label holds a zero byte, so no label and bytes run into another pair.
    message.push(0);
    message.extend_from_slice(bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, &message).as_ref());
    out
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionId(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_cookie() {
        let id = SessionId::random();
        let cookie = id.cookie_value();
        assert_eq!(cookie.len(), 43);
        assert!(
            cookie
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
        assert!(SessionId::parse(cookie.as_bytes()) == Some(id));
    }

    #[test]
    fn only_43_characters_of_base64url_are_an_id() {
        let good = "A".repeat(43);
        assert!(SessionId::parse(good.as_bytes()).is_some());
        for bad in [
            String::new(),
            "A".repeat(42),
            "A".repeat(44),
            "A".repeat(42) + "=",
            "A".repeat(42) + "B", // bits behind the 256th
            "A".repeat(42) + "+",
            "A".repeat(42) + "/",
            "A".repeat(42) + " ",
            "A".repeat(42) + ".",
            "\"".to_owned() + &"A".repeat(41) + "\"",
        ] {
            assert!(SessionId::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(SessionId::parse(&[0xff; 43]).is_none());
    }

    #[test]
    fn se_01_ids_are_random_in_every_bit() {
        let mut ones = [0u32; 256];
        for _ in 0..2000 {
            let id = SessionId::random();
            for (n, count) in ones.iter_mut().enumerate() {
                *count += u32::from(id.0[n / 8] >> (n % 8) & 1);
            }
        }
        // Eight standard deviations: a fair bit is outside once in 10^15 runs.
        assert!(ones.iter().all(|n| (820..1180).contains(n)), "{ones:?}");
    }

    #[test]
    fn se_02_the_store_key_is_no_part_of_the_cookie() {
        let id = SessionId::random();
        assert_ne!(id.store_key(), *id.0);
        assert_eq!(id.store_key(), id.clone().store_key());
        assert_ne!(id.store_key(), SessionId::random().store_key());
        assert!(!format!("{id:?}").contains(&id.cookie_value()));
    }
}
