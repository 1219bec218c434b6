//! What `cloakroom check --online` looks at in Redis: how its servers are found, and what may go wrong later.

use super::memory::policy;
use super::topology::Topology;
use super::{RedisStore, command};
use crate::store::online::{OnlineStep, PROBE_TTL, random_hash};
use crate::store::{Kind, StoreKey};
use redis::{Value, cmd};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long the news of a change may be under way.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

impl RedisStore {
    /// How the servers are found, a step for each that names others; nothing where the URL is the server.
    pub(in crate::store) async fn find_servers(&self) -> Vec<OnlineStep> {
        let began = Instant::now();
        match &self.topology {
            Topology::One(_) => Vec::new(),
            Topology::Sentinel(_, sentinels) => {
                let said = sentinels.each().await;
                let answered = said.iter().filter(|said| said.is_ok()).count();
                let most = sentinels.verdict().await.ok().map(|verdict| verdict.primary);
                let steps = said.into_iter().enumerate().map(|(i, said)| match said {
                    Ok(primary) => {
                        let doubt = (Some(&primary) != most.as_ref()).then(|| {
                            "it names another primary than most of the sentinels: see its log".to_owned()
                        });
                        OnlineStep::new(format!("sentinel {}: primary is {primary}", i + 1), began, Ok(()))
                            .doubted(doubt)
                    }
                    Err(fault) => {
                        let (tried, why) = (format!("sentinel {}", i + 1), fault.words());
                        // Enough of the others are there: it is one less to be lost.
                        if answered > sentinels.count() / 2 {
                            OnlineStep::new(tried, began, Ok(())).doubted(Some(why))
                        } else {
                            OnlineStep::new(tried, began, Err(why))
                        }
                    }
                });
                steps.collect()
            }
            Topology::Cluster(cluster) => {
                let found = cluster.primaries().await;
                let outcome = match found.as_ref() {
                    Err(fault) => Err(fault.words()),
                    Ok(_) if cluster.uncovered() > 0 => Err(format!(
                        "{} of the 16384 hash slots have no node: sessions there cannot be kept; see `redis-cli --cluster check`",
                        cluster.uncovered()
                    )),
                    Ok(_) => Ok(()),
                };
                let count = found.map_or(0, |found| found.len());
                vec![OnlineStep::new(
                    format!("cluster slots: {count} primaries"),
                    began,
                    outcome,
                )]
            }
        }
    }

    /// What each server that takes writes is called, and a hash whose keys it has.
    pub(in crate::store) async fn probes(&self) -> Vec<(String, [u8; 32])> {
        let Topology::Cluster(cluster) = &self.topology else {
            return vec![(String::new(), random_hash())];
        };
        let mut probes = Vec::new();
        for (address, _) in cluster.primaries().await.unwrap_or_default() {
            // A node with one slot in a thousand is found as well.
            for _ in 0..20_000 {
                let (kind, hash) = (Kind::Probe, random_hash());
                if cluster.owns(&address, self.key(StoreKey { kind, hash }).as_bytes()) {
                    probes.push((format!("{address}: "), hash));
                    break;
                }
            }
        }
        probes
    }

    /// What may go wrong later at the server that has this key.
    pub(in crate::store) async fn look_at(&self, server: &str, key: StoreKey) -> Vec<OnlineStep> {
        let step = |tried: &str, began, outcome| OnlineStep::new(format!("{server}{tried}"), began, outcome);
        let began = Instant::now();
        let mut steps = vec![step("time to live", began, self.lives_for_a_while(key).await)];
        let began = Instant::now();
        if let Some(wrong) = self.is_replica(key).await {
            steps.push(step("role", began, Err(wrong)));
        }
        let began = Instant::now();
        let doubt = self.untold(key).await.err().map(|why| {
            format!(
                "{why}; without it every request reads the store, and streams hear late of a logout at another replica"
            )
        });
        steps.push(step("news of changes", began, Ok(())).doubted(doubt));
        let began = Instant::now();
        if let Some(policy) = self.eviction(key).await {
            let doubt = format!(
                "when its memory is full, the server drops keys ({policy}), and with them sessions of people who are \
                 signed in; set `maxmemory-policy noeviction`"
            );
            let doubt = (policy != "noeviction").then_some(doubt);
            steps.push(step("eviction policy", began, Ok(())).doubted(doubt));
        }
        steps
    }

    /// Whether what is written ends by itself.
    async fn lives_for_a_while(&self, key: StoreKey) -> Result<(), String> {
        let (name, ttl) = (self.key(key), PROBE_TTL.as_millis().to_string());
        let set = command("SET", &name, &[b"probe", b"PX", ttl.as_bytes()]);
        let asked = async {
            self.topology.ask::<Value>(&name, &set, true).await?;
            let (left, _) = self
                .topology
                .ask::<i64>(&name, &command("PTTL", &name, &[]), true)
                .await?;
            self.topology
                .ask::<Value>(&name, &command("DEL", &name, &[]), true)
                .await?;
            Ok(left)
        };
        let left = asked.await.map_err(|fault: super::Fault| fault.words())?;
        match u128::try_from(left) {
            Ok(left) if left <= PROBE_TTL.as_millis() => Ok(()),
            Ok(_) => Err("a key lives longer than it was told to: see what stands between cloakroom and Redis".into()),
            Err(_) if left == -1 => Err("a key that was written with a time to live lives for ever: sessions would never leave the store; see what stands between cloakroom and Redis, and what else writes under `key_prefix`".into()),
            Err(_) => Err("what was just written is not there: the server evicts keys (set `maxmemory-policy noeviction`)".into()),
        }
    }

    /// A replica that was made to take writes: they are lost when it next hears from its primary.
    async fn is_replica(&self, key: StoreKey) -> Option<String> {
        let name = self.key(key);
        let (told, _) = self
            .topology
            .ask::<Vec<Value>>(&name, &cmd("ROLE"), true)
            .await
            .ok()?;
        (told.first() == Some(&Value::BulkString(b"slave".to_vec()))).then(|| {
            "it is a replica that takes writes (`replica-read-only no`), and its primary knows nothing of them: point \
             `session.store.redis` at the primary"
                .to_owned()
        })
    }

    /// Whether the server tells of a change, tried with one.
    async fn untold(&self, key: StoreKey) -> Result<(), String> {
        let kind = Kind::Session;
        let name = self.key(StoreKey { kind, ..key });
        let get = self
            .topology
            .ask::<Value>(&name, &command("GET", &name, &[]), true)
            .await;
        let (_, live) = get.map_err(|fault| fault.words())?;
        if let Some(why) = live.untracked() {
            return Err(why.to_owned());
        }
        let mut news = self.changes.watch(key.hash);
        let ttl = PROBE_TTL.as_millis().to_string();
        for change in [
            command("SET", &name, &[b"probe", b"PX", ttl.as_bytes()]),
            command("DEL", &name, &[]),
        ] {
            let done = self.topology.ask::<Value>(&name, &change, true).await;
            done.map_err(|fault| fault.words())?;
            let told = timeout(TOLD_WITHIN, news.changed()).await;
            told.map_err(|_| {
                "it accepted `CLIENT TRACKING` and did not tell of a change: see what stands between cloakroom and Redis"
                    .to_owned()
            })?;
        }
        Ok(())
    }

    /// `maxmemory_policy`; `noeviction` also where the server has no bound at all. `None`: it does not say.
    async fn eviction(&self, key: StoreKey) -> Option<String> {
        let (name, info) = (self.key(key), cmd("INFO").arg("memory").to_owned());
        let (told, _) = self.topology.ask::<String>(&name, &info, true).await.ok()?;
        policy(&told)
    }
}
