//! What `cloakroom check --online` asks of the store: PING, write, read, delete and what else sessions need, one line each.
//!
//! Where there are several servers, each is asked: they have an ACL and settings of their own.

use super::{Backend, Kind, Store, StoreError, StoreKey};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// How long the probe's keys live if their delete fails.
pub(super) const PROBE_TTL: Duration = Duration::from_secs(10);
/// What is tried of the store's operations, in order; PING goes before.
const TRIED: [&str; 5] = ["write", "read", "delete", "lease", "list"];

/// One step of the check.
#[derive(Clone, Debug)]
pub struct OnlineStep {
    /// What was tried: `PING`, `write`, `read`, `delete`; or what was looked at. The server's name goes before, where
    /// there are several.
    pub tried: String,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, with what to do about it; never a secret.
    pub outcome: Result<(), String>,
    /// What is unwise although nothing failed.
    pub doubt: Option<String>,
}

impl OnlineStep {
    pub(super) fn new(tried: impl Into<String>, began: Instant, outcome: Result<(), String>) -> Self {
        Self {
            tried: tried.into(),
            took: began.elapsed(),
            outcome,
            doubt: None,
        }
    }

    pub(super) fn doubted(self, doubt: Option<String>) -> Self {
        Self { doubt, ..self }
    }
}

/// A hash that no session has.
///
/// # Panics
/// Where the system has no random bytes.
pub(super) fn random_hash() -> [u8; 32] {
    let mut hash = [0; 32];
    aws_lc_rs::rand::fill(&mut hash).expect("the system has random bytes");
    hash
}

impl Store {
    /// Tries what sessions need, in order; what follows a failed step is not tried.
    ///
    /// # Panics
    /// Where the system has no random bytes.
    pub async fn check_online(&self) -> Vec<OnlineStep> {
        let mut steps = match &self.backend {
            Backend::Memory(_) => Vec::new(),
            Backend::Redis(redis) => redis.find_servers().await,
        };
        if steps.iter().any(|step| step.outcome.is_err()) {
            return steps;
        }
        let began = Instant::now();
        let ping = self.ping().await.map_err(|StoreError(what)| what);
        let failed = ping.is_err();
        steps.push(OnlineStep::new("PING", began, ping));
        if failed {
            return steps;
        }
        let servers = match &self.backend {
            Backend::Memory(_) => vec![(String::new(), random_hash())],
            Backend::Redis(redis) => redis.probes().await,
        };
        for (server, hash) in servers {
            self.check_server(&server, hash, &mut steps).await;
        }
        steps
    }

    /// Tries the server that has the keys of this hash.
    async fn check_server(&self, server: &str, hash: [u8; 32], steps: &mut Vec<OnlineStep>) {
        let kind = Kind::Probe;
        let key = StoreKey { kind, hash };
        for tried in TRIED {
            let began = Instant::now();
            let outcome = self.probe(tried, key).await;
            let failed = outcome.is_err();
            steps.push(OnlineStep::new(format!("{server}{tried}"), began, outcome));
            if failed {
                return;
            }
        }
        if let Backend::Redis(redis) = &self.backend {
            steps.extend(redis.look_at(server, key).await);
        }
    }

    async fn probe(&self, step: &str, key: StoreKey) -> Result<(), String> {
        match self.has_done(step, key).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("what was just written is not there: the server evicts keys (set `maxmemory-policy noeviction`), or writes and reads go to different servers".into()),
            Err(StoreError(what)) => Err(what),
        }
    }

    /// Does one step; false where something of it is not as it was just written.
    async fn has_done(&self, step: &str, key: StoreKey) -> Result<bool, StoreError> {
        let value = Bytes::from_static(b"probe");
        Ok(match step {
            "write" => {
                self.create(key, value, PROBE_TTL).await?;
                true
            }
            "read" => self.read(key).await?.is_some_and(|record| record.sealed == value),
            "delete" => self.delete(key).await?,
            "lease" => {
                let owner = [1; 16];
                let ours =
                    self.claim(key, &owner, PROBE_TTL).await? && self.renew(key, &owner, PROBE_TTL).await?;
                self.release(key, &owner).await?;
                ours
            }
            _ => {
                let (member, count) = (
                    key.hash,
                    self.enlist(key, &key.hash, value.clone(), PROBE_TTL).await?,
                );
                let listed = self.listed(key).await?;
                self.strike(key, &[member]).await?;
                count == 1 && listed == [(member, value)]
            }
        })
    }
}
