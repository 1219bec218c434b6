//! Opened sessions in this process's memory: what makes a request cost no round trip, no opening and no parsing.
//!
//! On a request's way this stands in front of the store. What is in it counts only while the store says that it is still
//! so ([`Ticket`], contract 4.10); everything else here is about room.
//!
//! INVARIANT: bounded, in number and in bytes. INVARIANT: a session is found by its cookie's bits, so only who has the cookie
//! finds it; they are wiped with the entry. INVARIANT: tokens are wiped from memory with the last use of a session that has
//! left; one that counts no more leaves when it is asked for, and else with the first that is kept a while later.

use super::SessionId;
use super::record::Session;
use crate::config;
use crate::store::{Store, Ticket};
use quick_cache::Weighter;
use quick_cache::sync;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// What a session takes beside what it holds, bytes: keys, maps, counts.
const OVERHEAD: u64 = 1024;

/// Opened sessions.
pub(super) struct Cache {
    ttl: Duration,
    /// Not by the hash that names them in the store: to compute that for each request would cost more than to find one.
    /// In boxes, in which they are wiped: a table that grows would leave copies of them behind.
    kept: sync::Cache<Box<SessionId>, Kept, Weight>,
    /// When what counts no more is looked for next.
    sweep_at: Mutex<Instant>,
}

#[derive(Clone)]
struct Kept {
    /// What names it in the store.
    hash: [u8; 32],
    session: Arc<Session>,
    ticket: Ticket,
    until: Instant,
    bytes: u64,
}

/// What a session counts for: its bytes, and never less than its share of the number.
#[derive(Clone)]
struct Weight {
    least: u64,
}

impl Weighter<Box<SessionId>, Kept> for Weight {
    fn weight(&self, _: &Box<SessionId>, kept: &Kept) -> u64 {
        kept.bytes.max(self.least)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// `None`: it is off.
    pub(super) fn new(settings: &config::Cache) -> Option<Self> {
        let config::Cache::On(limits) = settings else {
            return None;
        };
        let least = (limits.max_size / limits.max.max(1) as u64).max(1);
        Some(Self {
            ttl: limits.ttl,
            kept: sync::Cache::with_weighter(limits.max, limits.max_size, Weight { least }),
            sweep_at: Mutex::new(Instant::now()),
        })
    }

    /// The session, where what is kept of it counts: for the store, and for `counts`, which is asked before and after that,
    /// with what names the session in the store.
    pub(super) fn find(
        &self,
        store: &Store,
        id: &SessionId,
        counts: impl Fn(&[u8; 32]) -> bool,
    ) -> Option<Arc<Session>> {
        let kept = self.kept.get(id)?;
        let did_count = counts(&kept.hash);
        let now = Instant::now();
        if store.holds_at(&kept.ticket, now) && now < kept.until {
            return (did_count && counts(&kept.hash)).then_some(kept.session);
        }
        self.kept.remove(id);
        None
    }

    /// Keeps a session that was read with this ticket, and takes about `size` bytes.
    pub(super) fn keep(
        &self,
        store: &Store,
        (id, hash): (&SessionId, [u8; 32]),
        session: &Arc<Session>,
        ticket: Ticket,
        size: usize,
    ) {
        if !ticket.is_worth_keeping() || !store.holds(&ticket) {
            return;
        }
        let now = Instant::now();
        self.sweep(store, now);
        let kept = Kept {
            hash,
            session: Arc::clone(session),
            ticket,
            until: now + self.ttl,
            bytes: OVERHEAD + size as u64,
        };
        self.kept.insert(Box::new(id.clone()), kept);
    }

    /// Lets go of what counts no more: once in a while, and only where nobody else does so now.
    fn sweep(&self, store: &Store, now: Instant) {
        let Ok(mut at) = self.sweep_at.try_lock() else {
            return;
        };
        if now >= *at {
            *at = now + self.ttl;
            self.kept
                .retain(|_, kept| now < kept.until && store.holds_at(&kept.ticket, now));
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CacheLimits, SessionSettings};
    use crate::session::testing::World;

    fn with(cache: config::Cache) -> World {
        let mut world = World::new();
        let settings = SessionSettings {
            cache,
            ..SessionSettings::default()
        };
        world = world.with(&settings);
        world
    }

    fn limits(max: usize, max_size: u64) -> config::Cache {
        config::Cache::On(CacheLimits {
            ttl: Duration::from_secs(30),
            max,
            max_size,
        })
    }

    /// Whether two look-ups bring the very same session.
    async fn is_kept(world: &World, id: &SessionId) -> bool {
        let (one, two) = (world.look_up(id).await.unwrap(), world.look_up(id).await.unwrap());
        Arc::ptr_eq(&one, &two)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_opened_is_kept_until_it_changes_or_is_old() {
        let world = with(limits(100, 1 << 20));
        let (id, _) = world.begin().await;
        assert!(is_kept(&world, &id).await);
        let before = world.look_up(&id).await.unwrap();
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(
            !Arc::ptr_eq(&before, &world.look_up(&id).await.unwrap()),
            "it was old"
        );
        // Another replica over the same store notes a use.
        let before = world.look_up(&id).await.unwrap();
        world.another().sessions.extend(&id).await.unwrap();
        let after = world.look_up(&id).await.unwrap();
        assert_eq!((before.version, after.version), (1, 2));
        world.another().sessions.end_known(id.store_key()).await.unwrap();
        assert!(world.look_up(&id).await.is_none());
    }

    #[tokio::test]
    async fn se_06_a_kept_session_ends_when_its_time_comes() {
        let world = with(limits(100, 1 << 20));
        let (id, session) = world.begin().await;
        assert!(is_kept(&world, &id).await);
        world.clock.advance(session.idle_end.since(world.clock.now()));
        assert!(world.look_up(&id).await.is_none());
    }

    #[tokio::test]
    async fn lo_07_a_session_whose_end_is_not_confirmed_is_not_served_from_memory() {
        let world = with(limits(100, 1 << 20));
        let (id, _) = world.begin().await;
        assert!(is_kept(&world, &id).await);
        world.sessions.refuse_known(id.store_key());
        assert!(world.look_up(&id).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_counts_no_more_leaves_although_nobody_asks_for_it() {
        let world = with(limits(100, 1 << 20));
        let mut kept = Vec::new();
        for _ in 0..20 {
            let (id, _) = world.begin().await;
            let session = world.look_up(&id).await.unwrap();
            kept.push((id, Arc::downgrade(&session)));
        }
        let ended = kept[0].0.store_key();
        world.another().sessions.end_known(ended).await.unwrap();
        assert!(kept[1].1.upgrade().is_some());
        tokio::time::advance(Duration::from_secs(31)).await;
        let (id, _) = world.begin().await;
        assert!(is_kept(&world, &id).await);
        assert!(kept.iter().all(|(_, session)| session.upgrade().is_none()));
    }

    #[tokio::test]
    async fn a_logout_finds_the_newest_tokens() {
        let world = with(limits(100, 1 << 20));
        let (id, _) = world.begin().await;
        let kept = world.look_up(&id).await.unwrap();
        let newest = world.sessions.look_up_in_store(&id).await.unwrap().unwrap();
        assert!(!Arc::ptr_eq(&kept, &newest));
    }

    #[tokio::test]
    async fn off_reads_the_store_each_time() {
        let world = with(config::Cache::Off(crate::config::Off::Off));
        let (id, _) = world.begin().await;
        assert!(!is_kept(&world, &id).await);
    }

    #[tokio::test]
    async fn class_h_it_is_bounded_in_number_and_in_bytes() {
        for (max, max_size, most) in [(10, 1 << 20, 10), (1000, 20 * 1024, 14)] {
            let world = with(limits(max, max_size));
            let mut ids = Vec::new();
            for _ in 0..200 {
                ids.push(world.begin().await.0);
            }
            for id in &ids {
                assert!(world.look_up(id).await.is_some());
            }
            let count = world.sessions.cache.as_ref().unwrap().count();
            assert!(
                (1..=most).contains(&count),
                "{count} of {max} and {max_size} bytes"
            );
        }
    }
}
