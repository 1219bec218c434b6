//! A session's record in the store: read and opened, sealed and written over the version that was read.
//!
//! Stands between [`Sessions`] and the store. What a record says is `record`'s, how it is sealed is `seal`'s.

use super::record::{Payload, RecordError};
use super::refresh::RefreshAt;
use super::seal::{OpenError, Purpose};
use super::{SessionError, SessionId, Sessions};
use crate::store::{Kind, Record, Replaced, StoreKey, Ticket};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// A record as it was read: what a write must be based on.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) payload: Payload,
    pub(super) version: u64,
    pub(super) provider: Arc<dyn RefreshAt>,
}

impl Sessions {
    pub(super) fn seal(&self, id: &SessionId, opened: &Opened) -> Result<Vec<u8>, SessionError> {
        let plain = opened.payload.encode().map_err(|error| {
            tracing::error!(%error, provider = opened.payload.provider, "a session cannot be kept: ask for fewer claims");
            SessionError::Unreadable("it would be larger than 64 KiB")
        })?;
        let context = [opened.provider.issuer(), opened.provider.client_id()];
        Ok(self.keys.seal(Purpose::Session, id.bits(), &context, &plain))
    }

    /// Writes over the version that was read.
    pub(super) async fn replace(&self, id: &SessionId, opened: &Opened) -> Result<Replaced, SessionError> {
        let (key, sealed, ttl) = self.as_stored(id, opened)?;
        Ok(self.store.replace(key, opened.version, sealed, ttl).await?)
    }

    /// As [`Self::replace`], with new tokens: above whatever others write over that version.
    pub(super) async fn replace_tokens(
        &self,
        id: &SessionId,
        opened: &Opened,
    ) -> Result<Replaced, SessionError> {
        let (key, sealed, ttl) = self.as_stored(id, opened)?;
        Ok(self.store.replace_above(key, opened.version, sealed, ttl).await?)
    }

    fn as_stored(
        &self,
        id: &SessionId,
        opened: &Opened,
    ) -> Result<(StoreKey, Bytes, Duration), SessionError> {
        let sealed = self.seal(id, opened)?;
        let ttl = self.lifetime.ttl(&opened.payload, self.clock.now());
        Ok((self.key(Kind::Session, id.store_key()), sealed.into(), ttl))
    }

    pub(super) async fn read(&self, id: &SessionId) -> Result<Option<Opened>, SessionError> {
        Ok(self.read_with_ticket(id, id.store_key()).await?.0)
    }

    /// The session in the store, what tells whether it is still so, and the size of its record in bytes.
    pub(super) async fn read_with_ticket(
        &self,
        id: &SessionId,
        hash: [u8; 32],
    ) -> Result<(Option<Opened>, Ticket, usize), SessionError> {
        let key = self.key(Kind::Session, hash);
        let was_refused = self.refused.holds(&hash);
        let (record, ticket) = self.store.read_with_ticket(key).await?;
        // Asked before and after: an end that fails meanwhile is seen, and so is one whose delete is confirmed while the
        // answer from before it is under way.
        let Some(record) = record.filter(|_| !was_refused && !self.refused.holds(&hash)) else {
            return Ok((None, ticket, 0));
        };
        let opened = self.open(id, key, &record)?;
        let now = self.clock.now();
        let opened = opened.filter(|opened| !self.lifetime.is_over(&opened.payload, now));
        Ok((opened, ticket, record.sealed.len()))
    }

    /// Opens a record. `None`: it is not this session's, or none of ours.
    fn open(&self, id: &SessionId, key: StoreKey, record: &Record) -> Result<Option<Opened>, SessionError> {
        let contexts: Vec<[&str; 2]> = self
            .providers
            .iter()
            .map(|p| [p.issuer(), p.client_id()])
            .collect();
        let contexts_of = contexts.iter().map(|context| &context[..]);
        let plain = match self
            .keys
            .open_any(Purpose::Session, id.bits(), contexts_of, &record.sealed)
        {
            Ok(Some(opened)) => Some(opened),
            Ok(None) => return Err(SessionError::Elsewhere),
            Err(error @ (OpenError::UnknownKey | OpenError::UnknownFormat)) => {
                if let Some(unsaid) = self.unopened.due() {
                    tracing::error!(
                        ?key, %error, unsaid,
                        "a session cannot be opened here: its owner gets 503; give all replicas the same session.keys, \
                         and leave an old key in the list until its sessions have ended"
                    );
                }
                return Err(SessionError::Unreadable(
                    "sealed with another key or by another release",
                ));
            }
            Err(OpenError::Broken) => {
                tracing::error!(?key, "a session's record was tampered with");
                None
            }
        };
        let Some((n, plain)) = plain else {
            return Ok(None);
        };
        let mut payload = match Payload::decode(&plain) {
            Ok(payload) => payload,
            Err(error @ RecordError::Newer) => {
                tracing::error!(?key, %error, "a session cannot be read here: its owner gets 503");
                return Err(SessionError::Unreadable("written by a newer release"));
            }
            Err(error) => {
                tracing::error!(?key, %error, "a session's record makes no sense");
                return Ok(None);
            }
        };
        // The issuer and client are bound; the name is only what the config calls them, and may have changed.
        let found = &self.providers[n];
        let provider = self
            .provider(&payload.provider)
            .filter(|named| named.issuer() == found.issuer() && named.client_id() == found.client_id())
            .unwrap_or_else(|| Arc::clone(found));
        provider.name().clone_into(&mut payload.provider);
        Ok(Some(Opened {
            payload,
            version: record.version,
            provider,
        }))
    }
}
