//! The store in this process: one machine, lost on restart.
//!
//! Every operation is a handful of tree and hash look-ups under one lock that is never held across an `await`.
//!
//! INVARIANT: an entry whose time has come is not there, whether or not it has been swept yet.
//! INVARIANT: bounded. Beyond `max_sessions` the session goes whose last write is oldest: uses are written (to a
//! tenth of the idle timeout), so that is the longest idle one. Claims, leases and results are bounded in the same
//! number, or [`LEAST_REST`]; there the one that would end first goes. Sets hold living sessions only, give or take, and
//! a session is in three at most.

use super::changes::{Changes, Source};
use super::{Kind, Members, Record, Replaced, StoreKey};
use crate::clock::{Clock, UnixTime};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many entries whose time has come are swept with each write: more than one, so that sweeping keeps up.
const SWEEP: usize = 4;

/// Room for claims, leases and results that even the smallest store has: with less, a few logins at one time could
/// push out each other's claims.
const LEAST_REST: usize = 10_000;

/// The store in this process.
#[derive(Debug)]
pub(super) struct MemoryStore {
    clock: Clock,
    max: usize,
    sessions: Mutex<Rack>,
    /// Claims, leases and results.
    rest: Mutex<Rack>,
    sets: Mutex<Sets>,
    changes: Arc<Changes>,
    evicted: AtomicU64,
}

/// Sets, and how many there may be before those of nobody are looked for.
#[derive(Debug)]
struct Sets {
    by_key: HashMap<StoreKey, Set>,
    room: usize,
}

/// A set of sessions, by their hashes.
#[derive(Debug)]
struct Set {
    members: HashMap<[u8; 32], Bytes>,
    ends: UnixTime,
}

#[derive(Debug, Default)]
struct Rack {
    entries: HashMap<StoreKey, Entry>,
    by_end: BTreeSet<(UnixTime, u64, StoreKey)>,
    by_write: BTreeSet<(u64, StoreKey)>,
    writes: u64,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    ends: UnixTime,
    /// Which write of the rack this was.
    written: u64,
}

impl Rack {
    fn living(&self, key: StoreKey, now: UnixTime) -> Option<&Entry> {
        self.entries.get(&key).filter(|entry| entry.ends > now)
    }

    fn take(&mut self, key: StoreKey) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.by_end.remove(&(entry.ends, entry.written, key));
        self.by_write.remove(&(entry.written, key));
        Some(entry)
    }

    fn put(&mut self, key: StoreKey, record: Record, ends: UnixTime) {
        self.take(key);
        self.writes += 1;
        let written = self.writes;
        self.by_end.insert((ends, written, key));
        self.by_write.insert((written, key));
        self.entries.insert(
            key,
            Entry {
                record,
                ends,
                written,
            },
        );
    }

    /// Sweeps some entries whose time has come.
    fn sweep(&mut self, now: UnixTime) {
        for _ in 0..SWEEP {
            match self.by_end.first().copied() {
                Some((ends, _, key)) if ends <= now => drop(self.take(key)),
                _ => return,
            }
        }
    }

    /// What goes first where the rack is full.
    fn first_to_go(&self, kind: Kind) -> Option<StoreKey> {
        if kind == Kind::Session {
            self.by_write.first().map(|(_, key)| *key)
        } else {
            self.by_end.first().map(|(_, _, key)| *key)
        }
    }
}

impl MemoryStore {
    pub(super) fn new(max_sessions: usize, clock: Clock, changes: Arc<Changes>) -> Self {
        Self {
            clock,
            max: max_sessions.max(1),
            sessions: Mutex::default(),
            rest: Mutex::default(),
            sets: Mutex::new(Sets {
                by_key: HashMap::new(),
                room: LEAST_REST,
            }),
            changes,
            evicted: AtomicU64::new(0),
        }
    }

    /// A rack is whole between any two of its calls, so a panic elsewhere under the lock breaks nothing.
    fn rack(&self, kind: Kind) -> MutexGuard<'_, Rack> {
        let rack = if kind == Kind::Session {
            &self.sessions
        } else {
            &self.rest
        };
        rack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// True if a session had to go for it.
    fn write_new(&self, rack: &mut Rack, key: StoreKey, sealed: Bytes, now: UnixTime, ttl: Duration) -> bool {
        rack.sweep(now);
        let is_session = key.kind == Kind::Session;
        let max = if is_session {
            self.max
        } else {
            self.max.max(LEAST_REST)
        };
        let mut evicted = false;
        if !rack.entries.contains_key(&key)
            && rack.entries.len() >= max
            && let Some(first) = rack.first_to_go(key.kind)
        {
            rack.take(first);
            self.changes.note(&first);
            evicted = is_session;
        }
        rack.put(key, Record { version: 1, sealed }, now.plus(ttl));
        self.changes.note(&key);
        evicted
    }

    pub(super) fn read(&self, key: StoreKey) -> (Option<Record>, Source) {
        let now = self.clock.now();
        let rack = self.rack(key.kind);
        let record = rack.living(key, now).map(|entry| entry.record.clone());
        (record, Source::Here)
    }

    /// True if another session had to go for this one.
    pub(super) fn create(&self, key: StoreKey, sealed: Bytes, ttl: Duration) -> bool {
        let now = self.clock.now();
        let evicted = self.write_new(&mut self.rack(key.kind), key, sealed, now, ttl);
        if evicted {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        evicted
    }

    pub(super) fn replace(
        &self,
        key: StoreKey,
        expected: u64,
        version: u64,
        sealed: Bytes,
        ttl: Duration,
    ) -> Replaced {
        let now = self.clock.now();
        let mut rack = self.rack(key.kind);
        let Some(entry) = rack.living(key, now) else {
            return Replaced::Gone;
        };
        if entry.record.version != expected {
            return Replaced::Changed;
        }
        rack.put(key, Record { version, sealed }, now.plus(ttl));
        self.changes.note(&key);
        Replaced::Done(version)
    }

    pub(super) fn delete(&self, key: StoreKey) -> bool {
        let now = self.clock.now();
        let mut rack = self.rack(key.kind);
        let taken = rack.take(key);
        // Under the lock: what is noted and what is there are one.
        self.changes.note(&key);
        taken.is_some_and(|entry| entry.ends > now)
    }

    pub(super) fn end(&self, key: StoreKey) -> bool {
        self.delete(key)
    }

    pub(super) fn claim(&self, key: StoreKey, owner: &[u8; 16], ttl: Duration) -> bool {
        let now = self.clock.now();
        let mut rack = self.rack(key.kind);
        if rack.living(key, now).is_some() {
            return false;
        }
        self.write_new(&mut rack, key, Bytes::copy_from_slice(owner), now, ttl);
        true
    }

    pub(super) fn renew(&self, key: StoreKey, owner: &[u8; 16], ttl: Duration) -> bool {
        let now = self.clock.now();
        let mut rack = self.rack(key.kind);
        match rack.living(key, now) {
            Some(entry) if entry.record.sealed == owner[..] => {
                let record = entry.record.clone();
                rack.put(key, record, now.plus(ttl));
                true
            }
            _ => false,
        }
    }

    pub(super) fn release(&self, key: StoreKey, owner: &[u8; 16]) {
        let mut rack = self.rack(key.kind);
        if rack
            .entries
            .get(&key)
            .is_some_and(|entry| entry.record.sealed == owner[..])
        {
            rack.take(key);
            self.changes.note(&key);
        }
    }

    /// Sets are kept in step with the sessions: a member whose session is gone is struck when another is enlisted.
    pub(super) fn enlist(&self, key: StoreKey, member: &[u8; 32], sealed: Bytes, ttl: Duration) -> usize {
        let now = self.clock.now();
        let mut sets = self.sets();
        let Sets { by_key, room } = &mut *sets;
        if by_key.len() >= *room {
            by_key.retain(|_, set| self.keep_living(set, now, member));
            // Twice what is left, so that looking at all costs each login little.
            *room = LEAST_REST.max(2 * by_key.len());
        }
        let set = by_key.entry(key).or_insert_with(|| Set {
            members: HashMap::new(),
            ends: now,
        });
        set.ends = set.ends.max(now.plus(ttl));
        self.keep_living(set, now, member);
        set.members.insert(*member, sealed);
        set.members.len()
    }

    /// Strikes members whose session is gone, but for the one that is about to be enlisted; false: nobody is left.
    fn keep_living(&self, set: &mut Set, now: UnixTime, newest: &[u8; 32]) -> bool {
        let sessions = self.rack(Kind::Session);
        let is_there = |hash: &[u8; 32]| {
            let key = StoreKey {
                kind: Kind::Session,
                hash: *hash,
            };
            hash == newest || sessions.living(key, now).is_some()
        };
        set.members.retain(|hash, _| is_there(hash));
        !set.members.is_empty() && set.ends > now
    }

    pub(super) fn listed(&self, key: StoreKey) -> Members {
        let now = self.clock.now();
        let sets = self.sets();
        let set = sets.by_key.get(&key).filter(|set| set.ends > now);
        let members = set.into_iter().flat_map(|set| &set.members);
        members
            .map(|(member, sealed)| (*member, sealed.clone()))
            .collect()
    }

    pub(super) fn strike(&self, key: StoreKey, members: &[[u8; 32]]) {
        let mut sets = self.sets();
        if let Some(set) = sets.by_key.get_mut(&key) {
            set.members.retain(|member, _| !members.contains(member));
            if set.members.is_empty() {
                sets.by_key.remove(&key);
            }
        }
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::unused_self, reason = "one of a store's operations")]
    pub(super) fn ping(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn key(kind: Kind, n: u8) -> StoreKey {
        StoreKey { kind, hash: [n; 32] }
    }

    fn store(max: usize) -> (MemoryStore, Clock) {
        let clock = Clock::manual(UnixTime::from_secs(1000));
        (MemoryStore::new(max, clock.clone(), Changes::new()), clock)
    }

    #[test]
    fn the_longest_idle_session_goes_first_and_is_counted() {
        let (store, _) = store(3);
        for n in 1..=3 {
            store.create(key(Kind::Session, n), Bytes::new(), MINUTE);
        }
        // The first is used again, so the second is the longest idle.
        assert_eq!(
            store.replace(key(Kind::Session, 1), 1, 2, Bytes::new(), MINUTE),
            Replaced::Done(2)
        );
        store.create(key(Kind::Session, 4), Bytes::new(), MINUTE);
        assert_eq!(store.evicted(), 1);
        let there: Vec<u8> = (1..=4)
            .filter(|n| store.read(key(Kind::Session, *n)).0.is_some())
            .collect();
        assert_eq!(there, [1, 3, 4]);
    }

    #[test]
    fn what_has_ended_makes_room_before_anything_is_evicted() {
        let (store, clock) = store(3);
        store.create(key(Kind::Session, 1), Bytes::new(), MINUTE * 9);
        store.create(key(Kind::Session, 2), Bytes::new(), MINUTE);
        store.create(key(Kind::Session, 3), Bytes::new(), MINUTE);
        clock.advance(MINUTE * 2);
        store.create(key(Kind::Session, 4), Bytes::new(), MINUTE);
        assert_eq!(store.evicted(), 0);
        assert!(store.read(key(Kind::Session, 1)).0.is_some());
        assert_eq!(store.sessions.lock().unwrap().entries.len(), 2);
    }

    #[test]
    fn claims_are_bounded_and_cost_no_session_its_place() {
        let (store, _) = store(3);
        for n in 1..=3 {
            store.create(key(Kind::Session, n), Bytes::new(), MINUTE);
        }
        for n in 0..LEAST_REST + 50 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            let kind = if n % 2 == 0 {
                Kind::AttemptClaim
            } else {
                Kind::AttemptResult
            };
            let ttl = MINUTE * u32::try_from(n + 1).unwrap();
            assert!(store.claim(StoreKey { kind, hash }, &[1; 16], ttl));
        }
        let rest = store.rest.lock().unwrap();
        assert_eq!(
            (rest.entries.len(), rest.by_end.len(), rest.by_write.len()),
            (LEAST_REST, LEAST_REST, LEAST_REST)
        );
        drop(rest);
        assert_eq!(store.evicted(), 0);
        assert!((1..=3).all(|n| store.read(key(Kind::Session, n)).0.is_some()));
    }

    #[test]
    fn the_orders_hold_exactly_the_entries() {
        let (store, clock) = store(8);
        for round in 0..2000u32 {
            let k = key(Kind::Session, u8::try_from(round * 7 % 13).unwrap());
            match round % 5 {
                0 | 1 => drop(store.create(k, Bytes::new(), Duration::from_secs(u64::from(round % 9) + 1))),
                2 => drop(store.replace(k, 1, 2, Bytes::new(), MINUTE)),
                3 => drop(store.delete(k)),
                _ => clock.advance(Duration::from_secs(1)),
            }
            let rack = store.sessions.lock().unwrap();
            assert!(rack.entries.len() <= 8);
            assert_eq!(rack.entries.len(), rack.by_end.len());
            assert_eq!(rack.entries.len(), rack.by_write.len());
        }
    }
}
