//! What the server tells of changes (`CLIENT TRACKING … BCAST`): the names of keys, by whomever they were written.
//!
//! INVARIANT: what cannot be understood counts as a change of everything.

use super::key_of;
use super::repeat::Recent;
use crate::seldom::Seldom;
use crate::store::changes::Changes;
use redis::{PushInfo, PushKind, Value};
use std::sync::Arc;
use std::time::Duration;

/// How often the same thing is said in the log.
const SAID_EVERY: Duration = Duration::from_mins(10);

/// How often who waits for news has to look for itself where the server tells nothing: open streams end within a second of
/// their session's end all the same (contract 4.9).
const UNTOLD: Duration = Duration::from_millis(700);

/// Who passes the server's news on, over all connections of one store.
#[derive(Debug)]
pub(super) struct News {
    pub(super) changes: Arc<Changes>,
    pub(super) key_prefix: String,
    /// What is written again at a server that may not have got it.
    pub(super) recent: Option<Arc<Recent>>,
    /// The servers are nodes of a cluster.
    pub(super) is_cluster: bool,
    /// That there is no news has been said.
    pub(super) none: Seldom,
    /// That the server drops sessions has been said.
    pub(super) eviction: Seldom,
}

impl News {
    pub(super) fn new(
        changes: Arc<Changes>,
        key_prefix: &str,
        recent: Option<Arc<Recent>>,
        is_cluster: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            changes,
            key_prefix: key_prefix.to_owned(),
            recent,
            is_cluster,
            none: Seldom::every(SAID_EVERY),
            eviction: Seldom::every(SAID_EVERY),
        })
    }

    /// A push has come, before any answer that follows it is handed out.
    pub(super) fn hear(&self, push: &PushInfo) {
        match (&push.kind, push.data.first()) {
            (PushKind::Invalidate, Some(Value::Array(keys))) => {
                for key in keys {
                    match key {
                        Value::BulkString(text) => self.key(text),
                        _ => self.changes.note_all(),
                    }
                }
            }
            // The server was emptied (nil), or the connection has ended.
            (PushKind::Invalidate | PushKind::Disconnection, _) => self.changes.note_all(),
            _ => {}
        }
    }

    /// For a server that tells nothing: every so often anything may have changed. Never ends.
    pub(super) async fn of_nothing(&self) {
        loop {
            tokio::time::sleep(UNTOLD).await;
            self.changes.note_all();
        }
    }

    /// One key has changed. Other keys under the prefix are nobody's.
    fn key(&self, text: &[u8]) {
        if let Some(key) = key_of(&self.key_prefix, text) {
            self.changes.note(&key);
        }
    }
}
