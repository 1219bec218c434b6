//! A session's record: what is sealed into the store.
//!
//! On a request's way the opened bytes become a [`Session`] here. The record is JSON with a schema version `v`:
//!
//! - A field at the top that a release does not know is kept as it is when the record is written again, so a replica of an older
//!   release beside a newer one loses nothing (standards SE-11). Such additions leave `v` as it is.
//! - A change that an older release would misread raises `v`, and the older release calls the record unreadable (503).
//!
//! INVARIANT: lifetimes are judged from the sealed moments `begun` and `used`, never from the store's TTL alone.
//! INVARIANT: at most `MAX` bytes.

use super::claim_set::ClaimSet;
use super::lifetime::Lifetime;
use crate::clock::UnixTime;
use crate::secret::{AccessToken, IdToken, RefreshToken, Wiped};
use bytes::Bytes;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The largest record, in bytes.
const MAX: usize = 64 * 1024;

/// The schema version that this release writes, and the newest that it reads.
const SCHEMA: u32 = 1;

/// The tokens of a session.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Sent up.
    pub access_token: AccessToken,
    /// When the access token was asked for (the moment the token request left).
    pub obtained: UnixTime,
    /// When the access token expires, counted from `obtained`.
    pub expires: UnixTime,
    /// For the next one.
    pub refresh_token: Option<RefreshToken>,
    /// For `id_token_hint`.
    pub id_token: Option<IdToken>,
    /// The scopes granted.
    pub scopes: Vec<String>,
}

impl Tokens {
    /// The value of `Authorization` for the upstream (RFC 6750 §2.1), marked sensitive so that it is neither logged
    /// nor indexed, and wiped when its last copy goes. `None`: the provider's token holds what no header can.
    fn bearer(&self) -> Option<HeaderValue> {
        let text = Wiped::new(["Bearer ", self.access_token.expose()].concat().into_bytes());
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// What a login brings.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The provider's name in the config.
    pub provider: String,
    /// Who.
    pub sub: String,
    /// The provider's own session (Back-Channel Logout §2.1).
    pub sid: Option<String>,
    /// ID token claims, joined by userinfo's.
    pub claims: Map<String, Value>,
    /// The tokens.
    pub tokens: Tokens,
    /// When the login was begun.
    pub attempted: UnixTime,
}

/// A session, opened.
#[derive(Clone, Debug)]
pub struct Session {
    /// The provider's name in the config.
    pub provider: String,
    /// Who.
    pub sub: String,
    /// The provider's own session.
    pub sid: Option<String>,
    /// ID token claims, joined by userinfo's; renewed at each refresh.
    pub claims: ClaimSet,
    /// The tokens.
    pub tokens: Tokens,
    /// When the user signed in.
    pub begun: UnixTime,
    /// When it was last used, to a tenth of the idle timeout.
    pub used: UnixTime,
    /// When it ends if it stays idle.
    pub idle_end: UnixTime,
    /// When it ends whatever happens.
    pub absolute_end: UnixTime,
    /// The stored record's version.
    pub version: u64,
    /// `Authorization: Bearer …`, made once. `None`: the provider's token holds what no header can.
    pub bearer: Option<HeaderValue>,
}

/// Why a record cannot be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the record would be larger than 64 KiB")]
    TooLarge,
    #[error("the record was written by a newer release")]
    Newer,
    #[error("the record is no session's")]
    Malformed,
}

/// The record as it is written.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Payload {
    v: u32,
    pub(super) provider: String,
    pub(super) sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sid: Option<String>,
    pub(super) claims: ClaimSet,
    #[serde(with = "tokens")]
    pub(super) tokens: Tokens,
    pub(super) begun: UnixTime,
    pub(super) used: UnixTime,
    /// A refresh token is kept whose answer's ID token could not be checked; the next answer's must be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unconfirmed: bool,
    /// How often the refresh token was shown to the provider, as far as no answer of its told what became of it.
    #[serde(default, skip_serializing_if = "is_none")]
    pub(super) shown: u32,
    /// The last of these times. `None` where there was one: an older release noted it, and says no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) showing: Option<Showing>,
    /// What a newer release wrote beside.
    #[serde(flatten)]
    beside: Map<String, Value>,
}

/// When a refresh token was shown to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Showing {
    pub(super) at: UnixTime,
    /// The replica whose call is under way, as far as anybody knows. `None`: the call has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<u64>,
}

impl Payload {
    pub(super) fn new(new: NewSession, now: UnixTime) -> Self {
        Self {
            v: SCHEMA,
            provider: new.provider,
            sub: new.sub,
            sid: new.sid,
            claims: new.claims.into(),
            tokens: new.tokens,
            begun: now,
            used: now,
            unconfirmed: false,
            shown: 0,
            showing: None,
            beside: Map::new(),
        }
    }

    /// Notes that this replica is about to show the refresh token.
    pub(super) const fn show(&mut self, at: UnixTime, by: u64) {
        self.shown = self.shown.saturating_add(1);
        self.showing = Some(Showing { at, by: Some(by) });
    }

    /// Notes that the call has ended without an answer; `is_unused`: nor did the provider use the token.
    pub(super) const fn end_showing(&mut self, is_unused: bool) {
        if is_unused {
            self.shown = self.shown.saturating_sub(1);
        }
        if let Some(showing) = &mut self.showing {
            showing.by = None;
        }
    }

    /// Notes that an answer told what became of the refresh token.
    pub(super) const fn forget_showings(&mut self) {
        self.shown = 0;
        self.showing = None;
    }

    /// The session as everybody else sees it.
    pub(super) fn session(self, lifetime: &Lifetime, version: u64) -> Session {
        let (idle_end, absolute_end) = lifetime.ends(&self);
        let bearer = self.tokens.bearer();
        Session {
            provider: self.provider,
            sub: self.sub,
            sid: self.sid,
            claims: self.claims,
            tokens: self.tokens,
            begun: self.begun,
            used: self.used,
            idle_end,
            absolute_end,
            version,
            bearer,
        }
    }

    /// As bytes to seal. Where it would be too large, the ID token goes first: it serves as `id_token_hint` only,
    /// and a provider that gets none asks the user.
    pub(super) fn encode(&self) -> Result<Wiped, RecordError> {
        if let Ok(bytes) = self.encode_whole() {
            return Ok(bytes);
        }
        let mut smaller = self.clone();
        smaller.tokens.id_token = None;
        smaller.encode_whole()
    }

    fn encode_whole(&self) -> Result<Wiped, RecordError> {
        // Measured first: a buffer that grows leaves copies behind, and one with room for the largest is long to wipe.
        let mut size = Size(0);
        serde_json::to_writer(&mut size, self).map_err(|_| RecordError::TooLarge)?;
        let mut bytes = Wiped::new(Vec::with_capacity(size.0));
        serde_json::to_writer(&mut *bytes, self).map_err(|_| RecordError::TooLarge)?;
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        match serde_json::from_slice::<Self>(bytes) {
            Ok(record) if record.v <= SCHEMA => Ok(record),
            // A newer record may lack what this release wants: its version is asked before it is called malformed.
            _ => match serde_json::from_slice::<Version>(bytes) {
                Ok(version) if version.v > SCHEMA => Err(RecordError::Newer),
                _ => Err(RecordError::Malformed),
            },
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_none(count: &u32) -> bool {
    *count == 0
}

/// Counts what is written, up to [`MAX`].
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        if self.0 > MAX {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// serde for the tokens. Nowhere but here does a token become text that is written, and this is sealed.
mod tokens {
    use super::{AccessToken, IdToken, RefreshToken, Tokens, UnixTime};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::borrow::Cow;

    #[derive(Serialize, Deserialize)]
    struct Text<'a> {
        access: Cow<'a, str>,
        obtained: UnixTime,
        expires: UnixTime,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refresh: Option<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<Cow<'a, str>>,
        scopes: Cow<'a, [String]>,
    }

    pub(super) fn serialize<S: Serializer>(tokens: &Tokens, serializer: S) -> Result<S::Ok, S::Error> {
        Text {
            access: tokens.access_token.expose().into(),
            obtained: tokens.obtained,
            expires: tokens.expires,
            refresh: tokens.refresh_token.as_ref().map(|token| token.expose().into()),
            id: tokens.id_token.as_ref().map(|token| token.expose().into()),
            scopes: (&tokens.scopes[..]).into(),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tokens, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Ok(Tokens {
            access_token: AccessToken::new(text.access),
            obtained: text.obtained,
            expires: text.expires,
            refresh_token: text.refresh.map(RefreshToken::new),
            id_token: text.id.map(IdToken::new),
            scopes: text.scopes.into_owned(),
        })
    }
}
