//! The store in Redis, shared by all replicas.
//!
//! A value is its version (8 bytes, big-endian) and then the sealed bytes, so one GET brings both and one script
//! compares the version without a second key. Leases and claims hold the same: version 1, then their owner.
//!
//! INVARIANT: only GET, SET, DEL, EVALSHA, EVAL, HSET, HGETALL, HDEL, HLEN, PTTL, PEXPIRE and PING are used (AUTH and
//! SELECT when connecting), so the ACL user may be allowed just these, on keys under the prefix. `check --online` tries INFO
//! as well, and does without.
//! INVARIANT: every SET has a PX and every HSET is followed by a PEXPIRE in one script, so no key is without a TTL.
//! INVARIANT: all keys of one session share a hash tag, so they live on one node of a cluster.

mod fault;
mod link;
mod target;
#[cfg(test)]
mod tests;

use super::changes::{Changes, Source};
use super::{Members, PATIENCE, Record, Replaced, StoreError, StoreKey};
use crate::config::RedisSettings;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use fault::Fault;
use link::Link;
use redis::{Cmd, ErrorKind, FromRedisValue, Script, ServerErrorKind, Value, cmd};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Sets the key to ARGV\[2\] if its version is ARGV\[1\]. 1: done, 0: another version, -1: not there.
const REPLACE: &str = "local v = redis.call('GET', KEYS[1])
if not v then return -1 end
if string.sub(v, 1, 8) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// Prolongs the key if its value is ARGV\[1\].
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// Deletes the key if its value is ARGV\[1\].
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// Puts the member ARGV\[1\] with its summary ARGV\[2\] into the set, which lives ARGV\[3\] milliseconds at least.
const ENLIST: &str = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return redis.call('HLEN', KEYS[1])";

/// The length of a version, in bytes.
const VERSION: usize = 8;

/// The store in Redis.
#[derive(Debug)]
pub(super) struct RedisStore {
    link: Link,
    key_prefix: String,
    replace: Script,
    renew: Script,
    release: Script,
    enlist: Script,
    changes: Arc<Changes>,
}

/// A value as it is kept.
fn value(version: u64, sealed: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes(), sealed].concat()
}

/// A time to live in whole milliseconds; Redis refuses 0.
fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis())
        .unwrap_or(u64::MAX >> 12)
        .clamp(1, u64::MAX >> 12)
}

impl RedisStore {
    pub(super) fn new(settings: &RedisSettings, changes: Arc<Changes>) -> Result<Self, String> {
        Ok(Self {
            link: Link::new(settings)?,
            key_prefix: settings.key_prefix.clone(),
            replace: Script::new(REPLACE),
            renew: Script::new(RENEW),
            release: Script::new(RELEASE),
            enlist: Script::new(ENLIST),
            changes,
        })
    }

    fn key(&self, key: StoreKey) -> String {
        format!(
            "{}{{{}}}:{}",
            self.key_prefix,
            BASE64_URL_SAFE_NO_PAD.encode(key.hash),
            key.kind.word()
        )
    }

    /// Sends a command that does the same when it is done twice.
    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let answer = self.link.ask(command, true).await;
        answer.map_err(Fault::into_store_error)
    }

    /// Sends a command whose second run would answer otherwise than its first.
    async fn command_once<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let answer = self.link.ask(command, false).await;
        answer.map_err(Fault::into_store_error)
    }

    /// Runs a script by its hash, and by its text where the server does not know it (yet, or any more).
    async fn script(
        &self,
        script: &Script,
        text: &str,
        key: StoreKey,
        arguments: &[&[u8]],
    ) -> Result<i64, StoreError> {
        let call = |how: &str, what: &str| {
            let mut command = cmd(how);
            command.arg(what).arg(1).arg(self.key(key));
            for argument in arguments {
                command.arg(*argument);
            }
            command
        };
        // Two commands at most, and one command's patience for both.
        let asked = timeout(PATIENCE, async {
            match self.link.ask(&call("EVALSHA", script.get_hash()), false).await {
                Err(fault) if fault.kind() == Some(ErrorKind::Server(ServerErrorKind::NoScript)) => {
                    self.link.ask(&call("EVAL", text), false).await
                }
                answer => answer,
            }
        });
        asked
            .await
            .unwrap_or_else(|_| Err(Fault::late()))
            .map_err(Fault::into_store_error)
    }

    pub(super) async fn read(&self, key: StoreKey) -> Result<(Option<Record>, Source), StoreError> {
        let bytes = self
            .command::<Option<Vec<u8>>>(cmd("GET").arg(self.key(key)))
            .await?;
        let record = bytes
            .map(Bytes::from)
            .map(|bytes| match bytes.first_chunk::<VERSION>() {
                Some(version) => Record {
                    version: u64::from_be_bytes(*version),
                    sealed: bytes.slice(VERSION..),
                },
                // Not written by us. Sealed bytes that do not open are judged by who knows about sealing.
                None => Record {
                    version: 0,
                    sealed: Bytes::new(),
                },
            });
        Ok((record, Source::Nowhere))
    }

    /// Never drops another session for it: `false`.
    pub(super) async fn create(
        &self,
        key: StoreKey,
        sealed: Bytes,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let mut set = cmd("SET");
        set.arg(self.key(key))
            .arg(value(1, &sealed))
            .arg("PX")
            .arg(millis(ttl));
        let created = self.command::<Value>(&set).await.map(|_ok| false);
        self.changes.note(&key);
        created
    }

    pub(super) async fn replace(
        &self,
        key: StoreKey,
        expected: u64,
        sealed: Bytes,
        ttl: Duration,
    ) -> Result<Replaced, StoreError> {
        let version = expected + 1;
        let (value, ttl) = (value(version, &sealed), millis(ttl).to_string());
        let arguments: [&[u8]; 3] = [&expected.to_be_bytes(), &value, ttl.as_bytes()];
        let replaced = self.script(&self.replace, REPLACE, key, &arguments).await;
        self.changes.note(&key);
        Ok(match replaced? {
            1 => Replaced::Done(version),
            0 => Replaced::Changed,
            _ => Replaced::Gone,
        })
    }

    pub(super) async fn delete(&self, key: StoreKey) -> Result<bool, StoreError> {
        let deleted = self.command(cmd("DEL").arg(self.key(key))).await;
        self.changes.note(&key);
        deleted
    }

    pub(super) async fn claim(
        &self,
        key: StoreKey,
        owner: &[u8; 16],
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let mut set = cmd("SET");
        set.arg(self.key(key))
            .arg(value(1, owner))
            .arg("NX")
            .arg("PX")
            .arg(millis(ttl));
        // OK where it was set, nil where the key was there.
        Ok(self.command_once::<Value>(&set).await? != Value::Nil)
    }

    pub(super) async fn renew(
        &self,
        key: StoreKey,
        owner: &[u8; 16],
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let (value, ttl) = (value(1, owner), millis(ttl).to_string());
        let arguments: [&[u8]; 2] = [&value, ttl.as_bytes()];
        Ok(self.script(&self.renew, RENEW, key, &arguments).await? == 1)
    }

    pub(super) async fn release(&self, key: StoreKey, owner: &[u8; 16]) -> Result<(), StoreError> {
        let value = value(1, owner);
        let released = self.script(&self.release, RELEASE, key, &[&value]).await;
        self.changes.note(&key);
        released.map(drop)
    }

    pub(super) async fn enlist(
        &self,
        key: StoreKey,
        member: &[u8; 32],
        sealed: Bytes,
        ttl: Duration,
    ) -> Result<usize, StoreError> {
        let ttl = millis(ttl).to_string();
        let arguments: [&[u8]; 3] = [member, &sealed, ttl.as_bytes()];
        let count = self.script(&self.enlist, ENLIST, key, &arguments).await?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    pub(super) async fn listed(&self, key: StoreKey) -> Result<Members, StoreError> {
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = self.command(cmd("HGETALL").arg(self.key(key))).await?;
        // A member of another length was not written by us.
        let members = pairs
            .into_iter()
            .filter_map(|(member, sealed)| Some((member.try_into().ok()?, sealed.into())));
        Ok(members.collect())
    }

    pub(super) async fn strike(&self, key: StoreKey, members: &[[u8; 32]]) -> Result<(), StoreError> {
        let mut command = cmd("HDEL");
        command.arg(self.key(key));
        for member in members {
            command.arg(member.as_slice());
        }
        self.command::<Value>(&command).await.map(drop)
    }

    /// `maxmemory_policy`; `noeviction` also where the server has no bound at all. `None`: it does not say.
    pub(super) async fn eviction(&self) -> Option<String> {
        let told: String = self.link.ask(cmd("INFO").arg("memory"), true).await.ok()?;
        let value = |name: &str| {
            let mut lines = told.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        let policy = value("maxmemory_policy")?;
        let is_word = policy.len() <= 32 && policy.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        match value("maxmemory") {
            Some("0") => Some("noeviction".to_owned()),
            _ => is_word.then(|| policy.to_owned()),
        }
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.command::<Value>(&cmd("PING")).await.map(drop)
    }
}
