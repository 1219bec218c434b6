//! The store in Redis, shared by all replicas.
//!
//! A value is its version (8 bytes, big-endian) and then the sealed bytes, so one GET brings both and one script
//! compares the version without a second key. Leases and claims hold the same: version 1, then their owner.
//!
//! Below the operations: `topology` (one server, Sentinel, Cluster) chooses a `link`, which keeps one connection to one
//! server, `live`, on which the server's `news` of changes come as well.
//!
//! INVARIANT: only GET, SET, DEL, EVALSHA, EVAL, HSET, HGETALL, HDEL, HLEN, PTTL, PEXPIRE and PING are used (AUTH, HELLO and
//! SELECT when connecting; CLUSTER SLOTS and ASKING in a cluster), so the ACL user may be allowed just these, on keys under
//! the prefix. ROLE and CLIENT TRACKING are for the cache, INFO is for a warning; all three are done without where they
//! are refused.
//! INVARIANT: every SET has a PX and every HSET is followed by a PEXPIRE in one script, so no key is without a TTL.
//! INVARIANT: all keys of one session share a hash tag, so they live on one node of a cluster; a command names keys of one
//! session only.

mod cluster;
mod fault;
mod link;
mod live;
mod memory;
mod news;
mod online;
mod repeat;
mod sentinel;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod topology;

use super::changes::{Changes, Source};
use super::{Kind, Members, PATIENCE, Record, Replaced, StoreError, StoreKey};
use crate::config::RedisSettings;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use fault::Fault;
use live::Live;
use news::News;
use redis::{Cmd, ErrorKind, FromRedisValue, Script, ServerErrorKind, Value, cmd};
use repeat::{END, Recent, mark_millis, mark_of};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use topology::Topology;

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

/// Puts the member ARGV\[1\] with its summary ARGV\[2\] into the set, which lives ARGV\[3\] milliseconds at least. Where
/// that cannot be said (an ACL that allows one and not the other), what was written goes, rather than live for ever.
const ENLIST: &str = "local left = redis.call('PTTL', KEYS[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if left < tonumber(ARGV[3]) then
  local set = redis.pcall('PEXPIRE', KEYS[1], ARGV[3])
  if type(set) == 'table' and set.err then
    if left < 0 then redis.call('DEL', KEYS[1]) end
    return set
  end
end
return redis.call('HLEN', KEYS[1])";

/// The length of a version, in bytes.
const VERSION: usize = 8;
/// The length of a hash in a key's name: 256 bits in base64url.
const HASH: usize = 43;

/// The store in Redis.
#[derive(Debug)]
pub(super) struct RedisStore {
    topology: Topology,
    key_prefix: String,
    replace: Script,
    renew: Script,
    release: Script,
    enlist: Script,
    end: Script,
    changes: Arc<Changes>,
    /// Where a server may be replaced by one that has not got everything.
    recent: Option<Arc<Recent>>,
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

/// A command about one key.
fn command(name: &str, key: &str, rest: &[&[u8]]) -> Cmd {
    let size = name.len() + key.len() + rest.iter().map(|argument| argument.len()).sum::<usize>();
    let mut command = Cmd::with_capacity(2 + rest.len(), size);
    command.arg(name).arg(key);
    for argument in rest {
        command.arg(*argument);
    }
    command
}

/// A key's name. What stands in braces decides where it lives in a cluster.
fn name(key_prefix: &str, key: StoreKey) -> String {
    let word = key.kind.word();
    // Put together by hand: each request that finds no session in memory asks for one.
    let mut name = String::with_capacity(key_prefix.len() + 1 + HASH + 2 + word.len());
    name.push_str(key_prefix);
    name.push('{');
    BASE64_URL_SAFE_NO_PAD.encode_string(key.hash, &mut name);
    name.push_str("}:");
    name.push_str(word);
    name
}

/// Which key a text is the name of. `None`: none of ours.
fn key_of(key_prefix: &str, text: &[u8]) -> Option<StoreKey> {
    let text = text.strip_prefix(key_prefix.as_bytes())?.strip_prefix(b"{")?;
    let end = text.iter().position(|b| *b == b'}')?;
    let word = text[end..].strip_prefix(b"}:")?;
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.word().as_bytes() == word)?;
    let hash = BASE64_URL_SAFE_NO_PAD
        .decode(&text[..end])
        .ok()?
        .try_into()
        .ok()?;
    Some(StoreKey { kind, hash })
}

impl RedisStore {
    pub(super) fn new(settings: &RedisSettings, changes: Arc<Changes>) -> Result<Self, String> {
        let is_replaced = settings.sentinel.is_some() || settings.cluster.is_some();
        let recent = is_replaced.then(|| Arc::new(Recent::new(&settings.key_prefix)));
        let news = News::new(
            Arc::clone(&changes),
            &settings.key_prefix,
            recent.clone(),
            settings.cluster.is_some(),
        );
        Ok(Self {
            topology: Topology::new(settings, &news)?,
            key_prefix: settings.key_prefix.clone(),
            replace: Script::new(REPLACE),
            renew: Script::new(RENEW),
            release: Script::new(RELEASE),
            enlist: Script::new(ENLIST),
            end: Script::new(END),
            changes,
            recent,
        })
    }

    fn key(&self, key: StoreKey) -> String {
        name(&self.key_prefix, key)
    }

    /// Sends a command that does the same when it is done twice.
    async fn command<T: FromRedisValue>(
        &self,
        key: StoreKey,
        name: &str,
        rest: &[&[u8]],
    ) -> Result<T, StoreError> {
        self.command_over(key, name, rest).await.map(|(answer, _)| answer)
    }

    /// As [`Self::command`], with the connection that the answer came over.
    async fn command_over<T: FromRedisValue>(
        &self,
        key: StoreKey,
        name: &str,
        rest: &[&[u8]],
    ) -> Result<(T, Arc<Live>), StoreError> {
        let key = self.key(key);
        let answer = self.topology.ask(&key, &command(name, &key, rest), true).await;
        answer.map_err(Fault::into_store_error)
    }

    /// Runs a script by its hash, and by its text where the server does not know it (yet, or any more). All but one do the
    /// same when they are done twice.
    async fn script(
        &self,
        script: &Script,
        text: &str,
        keys: &[StoreKey],
        arguments: &[&[u8]],
    ) -> Result<i64, StoreError> {
        let names: Vec<String> = keys.iter().map(|key| self.key(*key)).collect();
        let key = &names[0];
        let repeatable = text != REPLACE;
        let call = |how: &str, what: &str| {
            let mut command = cmd(how);
            command.arg(what).arg(names.len()).arg(&names);
            for argument in arguments {
                command.arg(*argument);
            }
            command
        };
        // Two commands at most, and one command's patience for both.
        let asked = timeout(PATIENCE, async {
            match self
                .topology
                .ask(key, &call("EVALSHA", script.get_hash()), repeatable)
                .await
            {
                Err(fault) if fault.kind() == Some(ErrorKind::Server(ServerErrorKind::NoScript)) => {
                    self.topology.ask(key, &call("EVAL", text), repeatable).await
                }
                answer => answer,
            }
        });
        asked
            .await
            .unwrap_or_else(|_| Err(Fault::late()))
            .map(|(answer, _)| answer)
            .map_err(Fault::into_store_error)
    }

    pub(super) async fn read(&self, key: StoreKey) -> Result<(Option<Record>, Source), StoreError> {
        let (bytes, live) = self.command_over::<Option<Vec<u8>>>(key, "GET", &[]).await?;
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
        Ok((record, live.source()))
    }

    /// Never drops another session for it: `false`.
    pub(super) async fn create(
        &self,
        key: StoreKey,
        sealed: Bytes,
        wanted: Duration,
    ) -> Result<bool, StoreError> {
        let (value, ttl) = (value(1, &sealed), millis(wanted).to_string());
        let rest: [&[u8]; 3] = [&value, b"PX", ttl.as_bytes()];
        let created = self.command::<Value>(key, "SET", &rest).await.map(|_ok| false);
        self.changes.note(&key);
        if let (Some(recent), Ok(_)) = (&self.recent, &created) {
            recent.put(key, value, wanted);
        }
        created
    }

    pub(super) async fn replace(
        &self,
        key: StoreKey,
        expected: u64,
        version: u64,
        sealed: Bytes,
        wanted: Duration,
    ) -> Result<Replaced, StoreError> {
        let (value, ttl) = (value(version, &sealed), millis(wanted).to_string());
        let arguments: [&[u8]; 3] = [&expected.to_be_bytes(), &value, ttl.as_bytes()];
        let replaced = self.script(&self.replace, REPLACE, &[key], &arguments).await;
        self.changes.note(&key);
        if let (Some(recent), Ok(1)) = (&self.recent, &replaced) {
            recent.put(key, value, wanted);
        }
        Ok(match replaced? {
            1 => Replaced::Done(version),
            0 => Replaced::Changed,
            _ => Replaced::Gone,
        })
    }

    pub(super) async fn delete(&self, key: StoreKey) -> Result<bool, StoreError> {
        let deleted = self.command(key, "DEL", &[]).await;
        self.changes.note(&key);
        deleted
    }

    /// As [`Self::delete`]; with the mark that keeps it from being written again, where that can happen.
    pub(super) async fn end(&self, key: StoreKey) -> Result<bool, StoreError> {
        let Some(recent) = &self.recent else {
            return self.delete(key).await;
        };
        let (keys, mark) = ([key, mark_of(key)], mark_millis());
        let ended = self.script(&self.end, END, &keys, &[mark.as_bytes()]).await;
        self.changes.note(&key);
        if ended.is_ok() {
            recent.ended(key);
        }
        ended.map(|count| count > 0)
    }

    pub(super) async fn claim(
        &self,
        key: StoreKey,
        owner: &[u8; 16],
        wanted: Duration,
    ) -> Result<bool, StoreError> {
        if let (Some(recent), Kind::RefreshLock) = (&self.recent, key.kind) {
            recent.settle().await;
        }
        let (name, value, ttl) = (self.key(key), value(1, owner), millis(wanted).to_string());
        let set = command("SET", &name, &[&value, b"NX", b"PX", ttl.as_bytes()]);
        // A second run would answer otherwise than the first. OK where it was set, nil where the key was there.
        let answer = self.topology.ask::<Value>(&name, &set, false).await;
        let (answer, _) = answer.map_err(Fault::into_store_error)?;
        let is_ours = answer != Value::Nil;
        if let (Some(recent), true) = (&self.recent, is_ours) {
            recent.put(key, value, wanted);
        }
        Ok(is_ours)
    }

    pub(super) async fn renew(
        &self,
        key: StoreKey,
        owner: &[u8; 16],
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let (value, ttl) = (value(1, owner), millis(ttl).to_string());
        let arguments: [&[u8]; 2] = [&value, ttl.as_bytes()];
        Ok(self.script(&self.renew, RENEW, &[key], &arguments).await? == 1)
    }

    pub(super) async fn release(&self, key: StoreKey, owner: &[u8; 16]) -> Result<(), StoreError> {
        let value = value(1, owner);
        if let (Some(recent), Kind::AttemptClaim) = (&self.recent, key.kind) {
            recent.given_back(key);
        }
        let released = self.script(&self.release, RELEASE, &[key], &[&value]).await;
        self.changes.note(&key);
        released.map(drop)
    }

    pub(super) async fn enlist(
        &self,
        key: StoreKey,
        member: &[u8; 32],
        sealed: Bytes,
        wanted: Duration,
    ) -> Result<usize, StoreError> {
        let ttl = millis(wanted).to_string();
        let arguments: [&[u8]; 3] = [member, &sealed, ttl.as_bytes()];
        let count = self.script(&self.enlist, ENLIST, &[key], &arguments).await?;
        if let Some(recent) = &self.recent {
            recent.enlisted(key, member, sealed, wanted);
        }
        Ok(usize::try_from(count).unwrap_or(0))
    }

    pub(super) async fn listed(&self, key: StoreKey) -> Result<Members, StoreError> {
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = self.command(key, "HGETALL", &[]).await?;
        // A member of another length was not written by us.
        let members = pairs
            .into_iter()
            .filter_map(|(member, sealed)| Some((member.try_into().ok()?, sealed.into())));
        Ok(members.collect())
    }

    pub(super) async fn strike(&self, key: StoreKey, members: &[[u8; 32]]) -> Result<(), StoreError> {
        let members: Vec<&[u8]> = members.iter().map(<[u8; 32]>::as_slice).collect();
        self.command::<Value>(key, "HDEL", &members).await.map(drop)
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.topology.ping().await.map_err(Fault::into_store_error)
    }
}
