//! A session's record: what is sealed into the store.
//!
//! On a request's way the opened bytes become a [`Session`] here:
//!
//! ```text
//! record = length of the head (4 bytes, big-endian) ‖ head ‖ access token ‖ refresh token ‖ ID token ‖ claims
//! ```
//!
//! The head is JSON. It has what is short, the lengths of what follows, and a schema version `v`. What is long stands behind it as
//! it is: to look through some kilobytes for the end of a JSON string, and for what is escaped in it, costs more than to
//! decrypt them, and a request that finds no session in memory pays for that.
//!
//! - A field at the head's top that a release does not know is kept as it is when the record is written again, so a replica of an older
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
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

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

/// What a record says.
#[derive(Clone)]
pub(super) struct Payload {
    pub(super) provider: String,
    pub(super) sub: String,
    pub(super) sid: Option<String>,
    pub(super) claims: ClaimSet,
    pub(super) tokens: Tokens,
    pub(super) begun: UnixTime,
    pub(super) used: UnixTime,
    /// A refresh token is kept whose answer's ID token could not be checked; the next answer's must be.
    pub(super) unconfirmed: bool,
    /// How often the refresh token was shown to the provider, as far as no answer of its told what became of it.
    pub(super) shown: u32,
    /// The last of these times. `None` where there was one: an older release noted it, and says no more.
    pub(super) showing: Option<Showing>,
    /// The head as it was read, for what a newer release wrote beside; empty where nothing was read.
    head: Wiped,
}

/// A record's head as it is written.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    v: u32,
    provider: Cow<'a, str>,
    sub: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<Cow<'a, str>>,
    obtained: UnixTime,
    expires: UnixTime,
    scopes: Cow<'a, [String]>,
    lengths: Lengths,
    begun: UnixTime,
    used: UnixTime,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unconfirmed: bool,
    #[serde(default, skip_serializing_if = "is_none")]
    shown: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    showing: Option<Showing>,
}

/// A head's fields, all of them.
pub(super) const FIELDS: [&str; 13] = [
    "v",
    "provider",
    "sub",
    "sid",
    "obtained",
    "expires",
    "scopes",
    "lengths",
    "begun",
    "used",
    "unconfirmed",
    "shown",
    "showing",
];

/// What is written: the fields, and what a newer release wrote beside.
#[derive(Serialize)]
struct WithBeside<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    #[serde(flatten)]
    beside: BTreeMap<String, &'a RawValue>,
}

/// How long each of the texts behind the head is, bytes.
#[derive(Serialize, Deserialize)]
struct Lengths {
    access: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<usize>,
    claims: usize,
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
            head: Wiped::default(),
        }
    }

    /// Joins what another replica wrote meanwhile: the use that it noted, and what it wrote beside if its release is newer.
    pub(super) fn join(&mut self, theirs: Self) {
        self.used = self.used.max(theirs.used);
        self.head = theirs.head;
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
        let tokens = &self.tokens;
        let refresh = tokens.refresh_token.as_ref().map(RefreshToken::expose);
        let id = tokens.id_token.as_ref().map(IdToken::expose);
        let (access, claims) = (tokens.access_token.expose(), self.claims.text());
        let head = Head {
            v: SCHEMA,
            provider: self.provider.as_str().into(),
            sub: self.sub.as_str().into(),
            sid: self.sid.as_deref().map(Into::into),
            obtained: tokens.obtained,
            expires: tokens.expires,
            scopes: (&tokens.scopes[..]).into(),
            lengths: Lengths {
                access: access.len(),
                refresh: refresh.map(str::len),
                id: id.map(str::len),
                claims: claims.len(),
            },
            begun: self.begun,
            used: self.used,
            unconfirmed: self.unconfirmed,
            shown: self.shown,
            showing: self.showing,
        };
        let head = WithBeside {
            head,
            beside: self.beside(),
        };
        // Measured first, here and below: a buffer that grows leaves copies behind.
        let mut size = Size(0);
        serde_json::to_writer(&mut size, &head).map_err(|_| RecordError::TooLarge)?;
        let mut written = Wiped::new(Vec::with_capacity(size.0));
        serde_json::to_writer(&mut *written, &head).map_err(|_| RecordError::TooLarge)?;
        let length = u32::try_from(size.0)
            .map_err(|_| RecordError::TooLarge)?
            .to_be_bytes();
        let texts = [
            access,
            refresh.unwrap_or_default(),
            id.unwrap_or_default(),
            claims,
        ]
        .map(str::as_bytes);
        let parts = [&length, &written[..]].into_iter().chain(texts);
        let size = parts.clone().map(<[u8]>::len).sum();
        if size > MAX {
            return Err(RecordError::TooLarge);
        }
        let mut bytes = Wiped::new(Vec::with_capacity(size));
        parts.for_each(|part| bytes.extend_from_slice(part));
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let (length, rest) = bytes.split_first_chunk().ok_or(RecordError::Malformed)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| RecordError::Malformed)?;
        let (head, texts) = rest.split_at_checked(length).ok_or(RecordError::Malformed)?;
        // All of it: serde_json lets in what is passed over whatever bytes there are, and it is to be written again.
        let head = std::str::from_utf8(head).map_err(|_| RecordError::Malformed)?;
        match serde_json::from_str::<Head<'_>>(head) {
            Ok(found) if found.v <= SCHEMA => {
                let mut payload = Self::of(found, texts)?;
                payload.head = Wiped::new(head.into());
                Ok(payload)
            }
            // A newer record may lack what this release wants: its version is asked before it is called malformed.
            _ => match serde_json::from_str::<Version>(head) {
                Ok(version) if version.v > SCHEMA => Err(RecordError::Newer),
                _ => Err(RecordError::Malformed),
            },
        }
    }

    /// What a newer release wrote into the head. It is looked for when the record is written again, which is seldom, and not
    /// each time that one is read.
    fn beside(&self) -> BTreeMap<String, &RawValue> {
        // Left as text: what cannot be understood, such as numbers without an end, is kept all the same.
        let mut beside: BTreeMap<String, &RawValue> = serde_json::from_slice(&self.head).unwrap_or_default();
        beside.retain(|name, _| !FIELDS.contains(&name.as_str()));
        beside
    }

    fn of(head: Head<'_>, texts: &[u8]) -> Result<Self, RecordError> {
        let mut rest = std::str::from_utf8(texts).map_err(|_| RecordError::Malformed)?;
        let mut text = |length| {
            let (text, after) = rest.split_at_checked(length).ok_or(RecordError::Malformed)?;
            rest = after;
            Ok(text)
        };
        let access = text(head.lengths.access)?;
        let refresh = head.lengths.refresh.map(&mut text).transpose()?;
        let id = head.lengths.id.map(&mut text).transpose()?;
        let claims = text(head.lengths.claims)?;
        if !rest.is_empty() {
            return Err(RecordError::Malformed);
        }
        Ok(Self {
            provider: head.provider.into_owned(),
            sub: head.sub.into_owned(),
            sid: head.sid.map(Cow::into_owned),
            claims: ClaimSet::of_text(claims),
            tokens: Tokens {
                access_token: AccessToken::new(access),
                obtained: head.obtained,
                expires: head.expires,
                refresh_token: refresh.map(RefreshToken::new),
                id_token: id.map(IdToken::new),
                scopes: head.scopes.into_owned(),
            },
            begun: head.begun,
            used: head.used,
            unconfirmed: head.unconfirmed,
            shown: head.shown,
            showing: head.showing,
            head: Wiped::default(),
        })
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
