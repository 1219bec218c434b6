//! What `cloakroom check --online` asks of the store: PING, write, read, delete, one line each.

use super::{Backend, Kind, Store, StoreError, StoreKey};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// How long the probe's key lives if its delete fails.
const PROBE_TTL: Duration = Duration::from_secs(10);

/// One step of the check.
#[derive(Clone, Debug)]
pub struct OnlineStep {
    /// What was tried: `PING`, `write`, `read`, `delete`; or what was looked at.
    pub tried: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, with what to do about it; never a secret.
    pub outcome: Result<(), String>,
    /// What is unwise although nothing failed.
    pub doubt: Option<String>,
}

impl Store {
    /// Tries what sessions need, in order; what follows a failed step is not tried.
    ///
    /// # Panics
    /// Where the system has no random bytes.
    pub async fn check_online(&self) -> Vec<OnlineStep> {
        let mut hash = [0; 32];
        aws_lc_rs::rand::fill(&mut hash).expect("the system has random bytes");
        let key = StoreKey {
            kind: Kind::Probe,
            hash,
        };
        let mut steps = Vec::new();
        for tried in ["PING", "write", "read", "delete"] {
            let began = Instant::now();
            let outcome = self.probe(tried, key).await;
            let failed = outcome.is_err();
            steps.push(OnlineStep {
                tried,
                took: began.elapsed(),
                outcome,
                doubt: None,
            });
            if failed {
                return steps;
            }
        }
        steps.extend(self.eviction().await);
        steps
    }

    /// Whether a full server drops sessions; nothing where it does not say.
    async fn eviction(&self) -> Option<OnlineStep> {
        let Backend::Redis(redis) = &self.backend else {
            return None;
        };
        let began = Instant::now();
        let policy = redis.eviction().await?;
        let doubt = format!(
            "when its memory is full, the server drops keys ({policy}), and with them sessions of people who are \
             signed in; set `maxmemory-policy noeviction`"
        );
        Some(OnlineStep {
            tried: "eviction policy",
            took: began.elapsed(),
            outcome: Ok(()),
            doubt: (policy != "noeviction").then_some(doubt),
        })
    }

    async fn probe(&self, step: &str, key: StoreKey) -> Result<(), String> {
        let value = Bytes::from_static(b"probe");
        let held = match step {
            "PING" => self.ping().await.map(|()| true),
            "write" => self.create(key, value, PROBE_TTL).await.map(|()| true),
            "read" => self
                .read(key)
                .await
                .map(|record| record.is_some_and(|r| r.sealed == value)),
            _ => self.delete(key).await,
        };
        match held {
            Ok(true) => Ok(()),
            Ok(false) => Err("what was just written is not there: the server evicts keys (set `maxmemory-policy noeviction`), or writes and reads go to different servers".into()),
            Err(StoreError(what)) => Err(what),
        }
    }
}
