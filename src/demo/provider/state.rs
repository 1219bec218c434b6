//! What the embedded provider remembers: who is signed in, codes, grants. In memory, gone with the process.
//!
//! INVARIANT: every collection has a bound; the oldest entry makes room for the newest.
//! INVARIANT: codes, refresh tokens and cookies are kept as hashes only.

use crate::clock::UnixTime;
use std::collections::{HashMap, VecDeque};

/// A map that never outgrows its bound.
#[derive(Debug)]
pub struct Bounded<V> {
    entries: HashMap<String, V>,
    order: VecDeque<String>,
    most: usize,
}

impl<V> Bounded<V> {
    /// An empty one for at most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            most,
        }
    }

    /// Puts a value in; the oldest goes, where there is no more room.
    pub fn insert(&mut self, key: String, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        // What was removed is still in the order: it is skipped here, and swept before it outgrows the entries.
        while self.entries.len() > self.most {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.entries.remove(&oldest);
        }
        if self.order.len() > 2 * self.most {
            self.order.retain(|key| self.entries.contains_key(key));
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&V> {
        self.entries.get(key)
    }

    /// The value of a key, to change it.
    pub fn find_mut(&mut self, key: &str) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        self.entries.remove(key)
    }
}

/// Somebody's sign-in at the provider, and what the tokens made of it say.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// Who: `sub`.
    pub sub: &'static str,
    /// When they said so.
    pub at: UnixTime,
    /// `sid`: names this sign-in to the relying party; no secret.
    pub sid: String,
}

/// What a code stands for.
#[derive(Clone, Debug)]
pub struct Code {
    /// Whose it is.
    pub sign_in: SignIn,
    /// The `code_challenge` (RFC 7636 §4.3).
    pub challenge: String,
    /// Where it was sent.
    pub redirect_uri: String,
    /// Core §3.1.2.1.
    pub nonce: Option<String>,
    /// What was granted.
    pub scope: Vec<String>,
    /// Until when it may be exchanged.
    pub expires: UnixTime,
    /// The grant that was made of it, once it was exchanged.
    pub grant: Option<String>,
}

/// What a family of refresh tokens stands for.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Whose it is.
    pub sign_in: SignIn,
    /// What was granted.
    pub scope: Vec<String>,
    /// The hash of the one refresh token that is good now, where there is one.
    pub refresh_hash: Option<String>,
    /// `jti` of the access token that came last.
    pub last_jti: String,
}

/// All of it.
#[derive(Debug)]
pub struct State {
    /// By the hash of the cookie.
    pub sign_ins: Bounded<SignIn>,
    /// By the hash of the code.
    pub codes: Bounded<Code>,
    /// By the grant's id, with which its refresh tokens begin.
    pub grants: Bounded<Grant>,
    /// `jti` of access tokens that were revoked before their time.
    pub revoked: Bounded<()>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            sign_ins: Bounded::new(1_000),
            codes: Bounded::new(10_000),
            grants: Bounded::new(10_000),
            revoked: Bounded::new(10_000),
        }
    }
}

impl State {
    /// Ends a grant: its refresh tokens and the access token that came last are good no more.
    pub fn end_grant(&mut self, id: &str) {
        if let Some(grant) = self.grants.remove(id) {
            self.revoked.insert(grant.last_jti, ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_what_was_removed_does_not_pile_up() {
        let mut map = Bounded::new(2);
        for n in 0..3 {
            map.insert(n.to_string(), n);
        }
        assert_eq!(
            (map.find("0"), map.find("1"), map.find("2")),
            (None, Some(&1), Some(&2))
        );
        for n in 10..1000 {
            map.insert(n.to_string(), n);
            map.remove(&n.to_string());
        }
        assert!(map.order.len() <= 4, "{}", map.order.len());
    }
}
