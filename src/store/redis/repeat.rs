//! What was written a moment ago, done again at a server that may not have got it.
//!
//! Redis replicates behind its answers, so a primary that dies takes with it what it had confirmed and not passed on yet:
//! a rotated refresh token, a session that had just begun, a logout. Where another server can take its place (Sentinel,
//! Cluster), each replica of ours remembers what it wrote in the last seconds, and does it again before anything else is
//! asked of a new connection.
//!
//! Doing it again must not revive what somebody ended meanwhile. Ending a session leaves a mark beside it, in the same
//! step, and where the mark is, nothing is written again; whoever ended it ends it again as well, so the mark is there even
//! where it was lost with the primary.
//!
//! INVARIANT: a newer version is never overwritten. INVARIANT: bounded, in time and in bytes.

use super::{ENLIST, millis, name};
use crate::store::{Kind, StoreKey};
use bytes::Bytes;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, RedisError, Value, cmd, pipe};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How far before the last write a write is remembered: what is lost was written just before the primary died.
const REMEMBERED: Duration = Duration::from_secs(5);
/// How long after the last write it may all be written again. A failover takes as long as somebody waits before they call the
/// primary dead: half a minute by Sentinel's own defaults.
const OUTAGE: Duration = Duration::from_mins(5);
/// The most that is remembered, bytes: so much goes out within an attempt to connect.
const MOST: usize = 4 * 1024 * 1024;
/// What a write takes beside its value, bytes.
const OVERHEAD: usize = 256;
/// How long the mark of an ended session stays: longer than anybody writes again what they wrote.
const MARK: Duration = Duration::from_mins(10);
/// What a server answers that will take writes in a while.
const NOT_READY: [&str; 5] = ["CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "BUSY"];
/// How long after a failover no refresh begins: so long the replicas take at most, one after the other, to find the new
/// primary and write again what it has lost. Whoever began earlier might show a refresh token that another has shown.
const SETTLING: Duration = Duration::from_millis(700);
/// How many writes are sent at once.
const AT_ONCE: usize = 256;

/// Deletes the record and leaves the mark, for ARGV\[1\] milliseconds. 1: it was there.
pub(super) const END: &str = "local was = redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], '', 'PX', ARGV[1])
return was";

/// Writes the record ARGV\[1\] again, unless the session was ended or what is there is as new. 1: written.
const AGAIN: &str = "if redis.call('GET', KEYS[2]) then return 0 end
local there = redis.call('GET', KEYS[1])
if there then
  for i = 1, 8 do
    local old, new = string.byte(there, i) or 0, string.byte(ARGV[1], i)
    if old > new or (old == new and i == 8) then return 0 end
    if old < new then break end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// What this process wrote in the last seconds.
#[derive(Debug)]
pub(super) struct Recent {
    key_prefix: String,
    writes: Mutex<Writes>,
    settled: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Writes {
    queue: VecDeque<(Instant, Write)>,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Write {
    /// A session's record as it is kept, and when its time ends.
    Put(StoreKey, Bytes, Instant),
    Ended(StoreKey),
    /// A set's member with its summary, and when the set's time ends at the earliest.
    Enlisted(StoreKey, [u8; 32], Bytes, Instant),
}

impl Write {
    fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Put(_, value, _) | Self::Enlisted(_, _, value, _) => value.len(),
                Self::Ended(_) => 0,
            }
    }
}

/// The mark of an ended session, beside its record.
pub(super) const fn mark_of(session: StoreKey) -> StoreKey {
    StoreKey {
        kind: Kind::Ended,
        hash: session.hash,
    }
}

/// How long that mark stays, as an argument.
pub(super) fn mark_millis() -> String {
    millis(MARK).to_string()
}

impl Recent {
    pub(super) fn new(key_prefix: &str) -> Self {
        Self {
            key_prefix: key_prefix.to_owned(),
            writes: Mutex::default(),
            settled: Mutex::default(),
        }
    }

    /// There is a new connection, perhaps in the place of one that was lost.
    pub(super) fn connected(&self) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        *settled = Some(Instant::now() + SETTLING);
    }

    /// Waits until every replica has written again what a failover lost.
    pub(super) async fn settle(&self) {
        let settled = *self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(settled) = settled {
            tokio::time::sleep_until(settled).await;
        }
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, write: Write) {
        let now = Instant::now();
        let mut writes = self.writes();
        writes.bytes += write.size();
        writes.queue.push_back((now, write));
        while let Some((at, oldest)) = writes.queue.front() {
            if writes.bytes <= MOST && now.duration_since(*at) < REMEMBERED {
                break;
            }
            writes.bytes -= oldest.size();
            writes.queue.pop_front();
        }
    }

    /// A record was written: as it is kept, with its version in front.
    pub(super) fn put(&self, key: StoreKey, value: Vec<u8>, ttl: Duration) {
        // A session's record, what a login brought, and what keeps a code or a logout token from counting twice. A lease is
        // renewed by its holder, and what leads on from a logout counts once.
        if matches!(
            key.kind,
            Kind::Session | Kind::AttemptClaim | Kind::AttemptResult | Kind::LogoutMark | Kind::LogoutToken
        ) {
            self.remember(Write::Put(key, value.into(), Instant::now() + ttl));
        }
    }

    /// A claim was given back: nobody is to find it again.
    pub(super) fn given_back(&self, key: StoreKey) {
        let mut writes = self.writes();
        let Writes { queue, bytes } = &mut *writes;
        queue.retain(|(_, write)| {
            let is_it = matches!(write, Write::Put(of, ..) if *of == key);
            if is_it {
                *bytes -= write.size();
            }
            !is_it
        });
    }

    pub(super) fn ended(&self, key: StoreKey) {
        self.remember(Write::Ended(key));
    }

    pub(super) fn enlisted(&self, key: StoreKey, member: &[u8; 32], sealed: Bytes, ttl: Duration) {
        self.remember(Write::Enlisted(key, *member, sealed, Instant::now() + ttl));
    }

    /// Does it all again, in order. In a cluster each server takes what is its own and refuses the rest.
    ///
    /// # Errors
    /// The server's: it is not ready yet (it loads, its cluster is down), so nothing else is to be asked of it either.
    pub(super) async fn repeat(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let now = Instant::now();
        let writes: Vec<Write> = {
            let writes = self.writes();
            let is_due = writes
                .queue
                .back()
                .is_some_and(|(last, _)| now.duration_since(*last) < OUTAGE);
            let all = writes.queue.iter().map(|(_, write)| write.clone());
            all.filter(|_| is_due).collect()
        };
        let mut written = 0;
        for some in writes.chunks(AT_ONCE) {
            let mut commands = pipe();
            for write in some {
                commands.add_command(self.command(write, now));
            }
            let answers = connection.req_packed_commands(&commands, 0, some.len()).await?;
            for (write, answer) in some.iter().zip(answers) {
                match answer {
                    Value::Int(1) if matches!(write, Write::Put(..)) => written += 1,
                    Value::ServerError(error) => {
                        let error = RedisError::from(error);
                        if error.code().is_some_and(|code| NOT_READY.contains(&code)) {
                            return Err(error);
                        }
                    }
                    _ => {}
                }
            }
        }
        if written > 0 {
            tracing::warn!(
                written,
                "the session store had lost what was written a moment ago: it was written again"
            );
        }
        Ok(())
    }

    fn command(&self, write: &Write, now: Instant) -> Cmd {
        let name = |key: &StoreKey| name(&self.key_prefix, *key);
        let left = |ends: &Instant| millis(ends.saturating_duration_since(now)).to_string();
        match write {
            Write::Put(key, value, ends) => {
                let mut again = cmd("EVAL");
                again.arg(AGAIN).arg(2).arg(name(key)).arg(name(&mark_of(*key)));
                again.arg(&value[..]).arg(left(ends));
                again
            }
            Write::Ended(key) => {
                let mut end = cmd("EVAL");
                end.arg(END).arg(2).arg(name(key)).arg(name(&mark_of(*key)));
                end.arg(mark_millis());
                end
            }
            Write::Enlisted(key, member, sealed, ends) => {
                let mut enlist = cmd("EVAL");
                enlist.arg(ENLIST).arg(1).arg(name(key));
                enlist.arg(&member[..]).arg(&sealed[..]).arg(left(ends));
                enlist
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{RedisServer, becomes};

    const MINUTE: Duration = Duration::from_mins(1);

    fn session(n: u8) -> StoreKey {
        StoreKey {
            kind: Kind::Session,
            hash: [n; 32],
        }
    }

    fn record(version: u64, text: &str) -> Vec<u8> {
        super::super::value(version, text.as_bytes())
    }

    struct There {
        redis: RedisServer,
        connection: MultiplexedConnection,
        recent: Recent,
    }

    impl There {
        async fn start() -> Self {
            let server = RedisServer::start();
            let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
            let connection = client.get_multiplexed_async_connection().await.unwrap();
            Self {
                redis: server,
                connection,
                recent: Recent::new("p:"),
            }
        }

        async fn find(&mut self, key: StoreKey) -> Option<Vec<u8>> {
            let mut get = cmd("GET");
            get.arg(name("p:", key));
            get.query_async(&mut self.connection).await.unwrap()
        }

        async fn repeat(&mut self) {
            self.recent.repeat(&mut self.connection).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_lost_is_there_again_and_nothing_newer_is_overwritten() {
        let mut there = There::start().await;
        there.recent.put(session(1), record(1, "begun"), MINUTE);
        there.recent.put(session(1), record(300, "refreshed"), MINUTE);
        there.recent.put(session(2), record(256, "older"), MINUTE);
        let newer = record(257, "newer");
        let mut set = cmd("SET");
        set.arg(name("p:", session(2))).arg(&newer);
        set.query_async::<Value>(&mut there.connection).await.unwrap();
        let user = StoreKey {
            kind: Kind::UserIndex,
            hash: [3; 32],
        };
        // Over what was there in common another replica noted a use, and we saved new tokens.
        there
            .recent
            .put(session(4), record(1 << 32, "new tokens"), MINUTE);
        let mut touch = cmd("SET");
        touch.arg(name("p:", session(4))).arg(record(6, "touched"));
        touch.query_async::<Value>(&mut there.connection).await.unwrap();
        there
            .recent
            .enlisted(user, &[1; 32], Bytes::from_static(b"summary"), MINUTE);
        // Twice, as after two failovers.
        there.repeat().await;
        there.repeat().await;
        assert_eq!(there.find(session(1)).await, Some(record(300, "refreshed")));
        assert_eq!(there.find(session(2)).await, Some(newer));
        assert_eq!(there.find(session(4)).await, Some(record(1 << 32, "new tokens")));
        assert_eq!(there.redis.cli(&["HLEN", &name("p:", user)]), "1");
        let ttl: i64 = there
            .redis
            .cli(&["PTTL", &name("p:", session(1))])
            .parse()
            .unwrap();
        assert!((1..=60_000).contains(&ttl), "{ttl}");
    }

    #[tokio::test]
    async fn lo_06_what_was_ended_is_not_revived_whoever_comes_first() {
        for order in [[0, 1], [1, 0]] {
            let mut there = There::start().await;
            let (writer, ender) = (Recent::new("p:"), Recent::new("p:"));
            writer.put(session(1), record(7, "touched"), MINUTE);
            ender.ended(session(1));
            for who in order {
                let repeats = if who == 0 { &writer } else { &ender };
                repeats.repeat(&mut there.connection).await.unwrap();
            }
            assert_eq!(there.find(session(1)).await, None, "{order:?}");
            writer.repeat(&mut there.connection).await.unwrap();
            assert_eq!(there.find(session(1)).await, None, "{order:?}");
            assert!(there.redis.keys().iter().all(|(_, ttl)| *ttl > 0));
        }
    }

    #[tokio::test]
    async fn az_06_a_claimed_code_stays_claimed_unless_it_was_given_back() {
        let mut there = There::start().await;
        let claim = |n| StoreKey {
            kind: Kind::AttemptClaim,
            hash: [n; 32],
        };
        there.recent.put(claim(1), record(1, "owner"), MINUTE);
        there.recent.put(claim(2), record(1, "owner"), MINUTE);
        there.recent.given_back(claim(2));
        there.repeat().await;
        assert_eq!(there.find(claim(1)).await, Some(record(1, "owner")));
        assert_eq!(there.find(claim(2)).await, None);
        there.recent.given_back(claim(1));
        assert_eq!(there.recent.writes().bytes, 0);
    }

    #[tokio::test]
    async fn fa_01_a_server_that_takes_no_writes_yet_is_asked_for_nothing_else() {
        let recent = Recent::new("p:");
        recent.put(session(1), record(1, "begun"), MINUTE);
        // A node of a cluster that has no slots yet.
        let redis = RedisServer::start_with(&["--cluster-enabled", "yes"]);
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", redis.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let refused = recent.repeat(&mut connection).await.unwrap_err();
        assert_eq!(refused.code(), Some("CLUSTERDOWN"));
        let slots: Vec<String> = (0..16384).map(|n: u16| n.to_string()).collect();
        let add = ["CLUSTER", "ADDSLOTS"].into_iter();
        redis.cli(&add.chain(slots.iter().map(String::as_str)).collect::<Vec<_>>());
        becomes("a cluster of one", || {
            redis.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
        recent.repeat(&mut connection).await.unwrap();
        let mut there = There {
            redis,
            connection,
            recent,
        };
        assert_eq!(there.find(session(1)).await, Some(record(1, "begun")));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_it_takes_to_settle() {
        let (recent, begun) = (Recent::new("p:"), Instant::now());
        recent.settle().await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nothing was connected yet");
        recent.connected();
        recent.settle().await;
        recent.settle().await;
        assert_eq!(begun.elapsed(), SETTLING);
    }

    #[tokio::test(start_paused = true)]
    async fn class_h_it_is_bounded_in_time_and_in_bytes() {
        let recent = Recent::new("p:");
        for n in 0..200 {
            recent.put(session(n), vec![0; 1024 * 1024], MINUTE);
        }
        let held = |recent: &Recent| {
            let writes = recent.writes();
            (writes.queue.len(), writes.bytes)
        };
        let (count, bytes) = held(&recent);
        assert!((2..=4).contains(&count) && bytes <= MOST, "{count}, {bytes}");
        tokio::time::advance(REMEMBERED).await;
        recent.ended(session(1));
        assert_eq!(held(&recent), (1, OVERHEAD));
    }
}
