//! The server keys: read from text, and what is derived from each.
//!
//! On a request's way `seal` asks these for the one key of each sealed thing.
//!
//! INVARIANT: nothing is sealed or signed with a configured key itself, only with what is derived from it.
//!
//! Sources: RFC 5869 (HKDF), standards SE-03, SE-05.

use super::super::id::hash;
use super::{KEY_ID, TAG, fill};
use crate::secret::{SESSION_KEY_BYTES as KEY, Secret, session_key};
use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The keys as they are now.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) first: Arc<ServerKey>,
    /// The other configured ones, then those that were configured before.
    others: Vec<Arc<ServerKey>>,
}

pub(super) struct ServerKey {
    pub(super) id: [u8; KEY_ID],
    /// For the keys of what is sealed.
    sealing: hmac::Key,
    /// For context tags.
    tags: hmac::Key,
    /// For what is signed rather than sealed.
    pub(super) signatures: hmac::Key,
}

impl std::fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerKey(***)")
    }
}

struct OutputLength(usize);

impl hkdf::KeyType for OutputLength {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256 to `out.len()` bytes.
fn derive(salt: &[u8], secret: &[u8], info: &[u8], out: &mut [u8]) {
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], OutputLength(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("HKDF gives up to 8160 bytes");
}

impl ServerKey {
    fn new(bits: &[u8; KEY]) -> Self {
        let mac_key = |label: &str| {
            let mut key = Zeroizing::new([0; 32]);
            derive(b"cloakroom", bits, label.as_bytes(), &mut *key);
            hmac::Key::new(hmac::HMAC_SHA256, &*key)
        };
        let mut id = [0; KEY_ID];
        derive(b"cloakroom", bits, b"key-id", &mut id);
        Self {
            id,
            sealing: mac_key("sealing"),
            tags: mac_key("context-tag"),
            signatures: mac_key("signature"),
        }
    }

    fn random() -> Self {
        let mut bits = Zeroizing::new([0; KEY]);
        fill(&mut *bits);
        Self::new(&bits)
    }

    pub(super) fn context_tag(&self, salt: &[u8], bound: &[u8]) -> [u8; TAG] {
        let mut context = hmac::Context::with_key(&self.tags);
        context.update(salt);
        context.update(bound);
        let mut tag = [0; TAG];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG]);
        tag
    }

    /// The one key for this salt and cookie: the first block of HKDF-Expand (RFC 5869 §2.3), for a secret that was made ready
    /// once. Of all that is done to open a session, deriving its key would take the longest otherwise.
    pub(super) fn sealing(&self, salt: &[u8], cookie: &[u8], bound: &[u8]) -> LessSafeKey {
        let mut context = hmac::Context::with_key(&self.sealing);
        // Both have one length, so no two infos are alike.
        context.update(salt);
        context.update(&*Zeroizing::new(hash("cloakroom/cookie", cookie)));
        context.update(bound);
        context.update(&[1]);
        // What lies on the stack is written over by whatever comes next; it opens nothing but this one thing, which is open.
        let key = UnboundKey::new(&AES_256_GCM, context.sign().as_ref());
        LessSafeKey::new(key.expect("a block of SHA-256 has the length of AES-256's key"))
    }
}

impl Keys {
    pub(super) fn random() -> Self {
        Self {
            first: Arc::new(ServerKey::random()),
            others: Vec::new(),
        }
    }

    pub(super) fn new(keys: &[Secret]) -> Result<Self, String> {
        let mut ring: Vec<Arc<ServerKey>> = Vec::with_capacity(keys.len());
        for (n, key) in keys.iter().enumerate() {
            let key = session_key(key).map_err(|fault| {
                format!("`session.keys[{n}]` {fault}; wanted: 256 bits in base64url (43 characters): make one with `cloakroom keys generate`")
            })?;
            let key = ServerKey::new(&key);
            if let Some(twin) = ring.iter().position(|other| other.id == key.id) {
                return Err(format!(
                    "`session.keys[{n}]` is the same key as `session.keys[{twin}]`: remove one"
                ));
            }
            ring.push(Arc::new(key));
        }
        let mut keys = ring.into_iter();
        let first = keys
            .next()
            .ok_or("`session.keys` is empty: make a key with `cloakroom keys generate`")?;
        Ok(Self {
            first,
            others: keys.collect(),
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ServerKey> {
        std::iter::once(&self.first).chain(&self.others).map(|key| &**key)
    }

    /// Keeps what `former` could open.
    pub(super) fn after(mut self, former: &Self) -> Self {
        for key in std::iter::once(&former.first).chain(&former.others) {
            if !self.all().any(|known| known.id == key.id) {
                self.others.push(Arc::clone(key));
            }
        }
        self
    }
}
