//! Redis Cluster: which node has a key, and what to do where it is another than we thought.
//!
//! A router of our own over one link to each primary, because contract 4.10 wants to know of each node's connection
//! whether it has proved alive, and of each change of the slots.
//!
//! INVARIANT: a command that was carried out is not sent again unless it does the same twice; a node that sends us
//! elsewhere (MOVED, ASK, TRYAGAIN) or refuses (CLUSTERDOWN) has carried out nothing.
//! INVARIANT: whoever asks for the slots while they are being asked for waits for that answer.
//!
//! Source: Redis Cluster specification (hash tags, redirections).

use super::fault::Fault;
use super::link::{Link, Place};
use super::live::Live;
use super::news::News;
use super::target::{Address, Target};
use super::tls::Tls;
use crate::config::RedisSettings;
use crate::store::PATIENCE;
use arc_swap::ArcSwap;
use redis::{Cmd, FromRedisValue, Value, cmd, from_redis_value};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;

/// How many hash slots there are.
const SLOTS: u16 = 16384;
/// How often one command is sent on to another node, at most.
const MOST_HOPS: usize = 6;
/// How old the slots may be for somebody who was sent elsewhere.
const FRESH: Duration = Duration::from_millis(100);
/// How often they are looked at while nobody is sent elsewhere.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// How long one node has to tell them.
const TOLD_WITHIN: Duration = Duration::from_millis(500);
/// How long a command waits where its keys are just moving.
const MOVING: Duration = Duration::from_millis(50);

/// The nodes of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The nodes that the config names, and links that ask them for the slots and nothing else.
    seeds: Vec<(Target, Arc<Link>)>,
    tls: Arc<Tls>,
    news: Arc<News>,
    table: ArcSwap<Table>,
    /// Links to nodes that we were sent to and that have no slots yet, until the slots change.
    others: std::sync::Mutex<Vec<(Address, Arc<Link>)>>,
    /// When the slots were asked for last, and what came of it.
    looked: Mutex<Option<(Instant, Result<(), Fault>)>>,
    /// Which node is asked first: another each time.
    turn: AtomicUsize,
    watch: TaskTracker,
    this: Weak<Self>,
}

/// Which primary has which slots.
#[derive(Debug, Default)]
struct Table {
    /// First and last slot, and who has them; in order.
    ranges: Vec<(u16, u16, Address)>,
    links: Vec<(Address, Arc<Link>)>,
}

impl Table {
    fn link(&self, address: &Address) -> Option<&Arc<Link>> {
        let mut links = self.links.iter();
        links.find(|(of, _)| of == address).map(|(_, link)| link)
    }

    fn of_slot(&self, slot: u16) -> Option<(&Address, &Arc<Link>)> {
        let at = self.ranges.partition_point(|(_, last, _)| *last < slot);
        let (first, _, address) = self.ranges.get(at)?;
        (*first <= slot).then_some(())?;
        Some((address, self.link(address)?))
    }
}

/// The hash slot of a key: of what stands between its first { and the } after it, where there is such a thing.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let inside = &key[open + 1..];
        let close = inside.iter().position(|b| *b == b'}')?;
        (close > 0).then(|| &inside[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as the specification wants it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    })
}

impl Cluster {
    /// # Errors
    /// What of the settings cannot be used.
    pub(super) fn new(
        settings: &RedisSettings,
        seeds: &[Target],
        tls: Arc<Tls>,
        news: Arc<News>,
    ) -> Result<Arc<Self>, String> {
        if seeds.is_empty() {
            return Err("`session.store.redis.cluster` names no node".into());
        }
        if settings.database.is_some_and(|number| number != 0) {
            return Err("`session.store.redis.database`: a cluster has only database 0".into());
        }
        let link = |target: &Target| Link::new(Place::Named(target.clone()), Arc::clone(&tls), None);
        let seeds = seeds
            .iter()
            .map(|target| (target.clone(), link(target)))
            .collect();
        Ok(Arc::new_cyclic(|this| Self {
            seeds,
            tls,
            news,
            table: ArcSwap::default(),
            others: std::sync::Mutex::default(),
            looked: Mutex::new(None),
            turn: AtomicUsize::new(0),
            watch: TaskTracker::new(),
            this: this.clone(),
        }))
    }

    /// Sends one command to whoever has the key.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        key: &[u8],
        command: &Cmd,
        repeatable: bool,
        deadline: Instant,
    ) -> Result<(T, Arc<Live>), Fault> {
        let slot = slot(key);
        let (mut at, mut link) = self.owner(slot).await?;
        let mut asking = false;
        let mut fault = Fault::said("its nodes disagree about who has the key");
        for _ in 0..MOST_HOPS {
            // What went wrong, and whether nothing was done (or may be done twice).
            let (why, undone) = match link.connected().await {
                Err(why) => (why, true),
                Ok(live) => match link.send::<T>(&live, command, asking, deadline).await {
                    Ok(answer) => return Ok((answer, live)),
                    Err(why) => {
                        let undone = why.code() == Some("CLUSTERDOWN");
                        let undone = undone || repeatable && why.is_broken_connection();
                        (why, undone)
                    }
                },
            };
            asking = why.code() == Some("ASK");
            fault = why;
            match (fault.code(), fault.redirection(&at.host)) {
                (Some("MOVED"), Some(to)) => {
                    // The table is wrong in more than this, mostly.
                    let _fault = self.look(FRESH).await.err();
                    link = self.link_to(&to);
                    at = to;
                }
                (Some("ASK"), Some(to)) => {
                    link = self.link_to(&to);
                    at = to;
                }
                (Some("TRYAGAIN"), _) => sleep(MOVING).await,
                _ if undone => {
                    // Perhaps another has taken its place; if not, nobody else can help.
                    self.look(FRESH).await.map_err(|_| fault.clone())?;
                    let (now, next) = self.owner(slot).await?;
                    if now == at && !fault.is_broken_connection() {
                        return Err(fault);
                    }
                    (at, link) = (now, next);
                }
                _ => return Err(fault),
            }
        }
        Err(fault)
    }

    /// All primaries, each with its link.
    pub(super) async fn primaries(&self) -> Result<Vec<(Address, Arc<Link>)>, Fault> {
        if self.table.load().ranges.is_empty() {
            self.look(FRESH).await?;
        }
        Ok(self.table.load().links.clone())
    }

    /// Whether this primary has the key, as far as is known.
    pub(super) fn owns(&self, primary: &Address, key: &[u8]) -> bool {
        let table = self.table.load();
        table
            .of_slot(slot(key))
            .is_some_and(|(owner, _)| owner == primary)
    }

    /// How many of the slots nobody has.
    pub(super) fn uncovered(&self) -> u16 {
        let table = self.table.load();
        let covered = table.ranges.iter().map(|(first, last, _)| last - first + 1);
        SLOTS.saturating_sub(covered.sum())
    }

    async fn owner(&self, slot: u16) -> Result<(Address, Arc<Link>), Fault> {
        let known = |table: &Table| {
            let found = table.of_slot(slot);
            found.map(|(address, link)| (address.clone(), Arc::clone(link)))
        };
        if let Some(found) = known(&self.table.load()) {
            return Ok(found);
        }
        self.look(FRESH).await?;
        known(&self.table.load()).ok_or_else(|| {
            Fault::said("no node of the cluster has the key's hash slot: see `redis-cli --cluster check`")
        })
    }

    fn link_to(&self, address: &Address) -> Arc<Link> {
        if let Some(link) = self.table.load().link(address) {
            return Arc::clone(link);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, link)) = others.iter().find(|(of, _)| of == address) {
            return Arc::clone(link);
        }
        let place = Place::Told(self.seeds[0].0.clone(), address.clone());
        let link = Link::new(place, Arc::clone(&self.tls), Some(Arc::clone(&self.news)));
        others.push((address.clone(), Arc::clone(&link)));
        link
    }

    /// Asks for the slots, unless that was done within the span `fresh`.
    async fn look(&self, fresh: Duration) -> Result<(), Fault> {
        let came = Instant::now();
        let mut looked = self.looked.lock().await;
        if let Some((at, outcome)) = &*looked
            && (*at >= came || at.elapsed() < fresh)
        {
            return outcome.clone();
        }
        if looked.is_none() {
            self.watch.spawn(keep(self.this.clone()));
        }
        // This future may be dropped at the next await.
        *looked = Some((
            came,
            Err(Fault::said("asking for the cluster's slots was given up")),
        ));
        let outcome = Box::pin(self.told()).await.map(|table| self.take(table));
        *looked = Some((Instant::now(), outcome.clone()));
        outcome
    }

    /// The slots as one node tells them; the first that does.
    async fn told(&self) -> Result<Vec<(u16, u16, Address)>, Fault> {
        let mut fault = Fault::said("no node of the cluster answers");
        let known = self.table.load_full();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // Those that are connected come first: they answer at once.
        let (open, closed): (Vec<_>, Vec<_>) = known
            .links
            .iter()
            .cloned()
            .partition(|(_, link)| link.living().is_some());
        let mut nodes = Vec::new();
        for mut group in [open, closed] {
            let by = turn % group.len().max(1);
            group.rotate_left(by);
            nodes.extend(group.into_iter().map(|(address, link)| (address.host, link)));
        }
        for (seed, link) in &self.seeds {
            if let Some(address) = seed.address()
                && known.link(&address).is_none()
            {
                nodes.push((address.host, Arc::clone(link)));
            }
        }
        let question = cmd("CLUSTER").arg("SLOTS").to_owned();
        for (host, link) in nodes {
            let deadline = Instant::now() + TOLD_WITHIN;
            let asked = link.ask::<Value>(&question, true, deadline + PATIENCE);
            match timeout_at(deadline, asked).await {
                Ok(Ok(told)) => match ranges(told, &host) {
                    Some(ranges) if !ranges.is_empty() => return Ok(ranges),
                    // One that has forgotten its cluster tells of no slots at all.
                    _ => fault = Fault::said("a node tells its slots in words that are not understood"),
                },
                Ok(Err(why)) if why.code() == Some("ERR") => {
                    let wrong =
                        format!("{host}: it is no node of a cluster: name it in `session.store.redis.url`");
                    fault = Fault::said(wrong);
                }
                Ok(Err(why)) => fault = why,
                Err(_) => fault = Fault::said(format!("{host}: it does not tell the cluster's slots")),
            }
        }
        Err(fault)
    }

    /// Uses these slots from now on; the links to nodes that are still there stay.
    fn take(&self, ranges: Vec<(u16, u16, Address)>) {
        let known = self.table.load_full();
        if known.ranges == ranges {
            return;
        }
        let mut links: Vec<(Address, Arc<Link>)> = Vec::new();
        for (_, _, address) in &ranges {
            if !links.iter().any(|(of, _)| of == address) {
                links.push((address.clone(), self.link_to(address)));
            }
        }
        if !known.ranges.is_empty() {
            let primaries = links.len();
            tracing::info!(primaries, "the cluster's slots have moved");
        }
        self.table.store(Arc::new(Table { ranges, links }));
        self.others.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // What was read from one node may have been written at another since.
        self.news.changes.note_all();
    }
}

/// What CLUSTER SLOTS says of the primaries. An empty host is the one that was asked.
fn ranges(told: Value, asked: &str) -> Option<Vec<(u16, u16, Address)>> {
    let mut ranges = Vec::new();
    for range in from_redis_value::<Vec<Vec<Value>>>(told).ok()? {
        let mut parts = range.into_iter();
        let first = from_redis_value::<u16>(parts.next()?).ok()?;
        let last = from_redis_value::<u16>(parts.next()?).ok()?;
        let mut primary = from_redis_value::<Vec<Value>>(parts.next()?).ok()?.into_iter();
        let host = from_redis_value::<Option<String>>(primary.next()?).ok()?;
        let host = host.filter(|host| !host.is_empty() && host != "?");
        let host = host.unwrap_or_else(|| asked.to_owned());
        let port = from_redis_value::<u16>(primary.next()?).ok()?;
        if first > last || last >= SLOTS {
            return None;
        }
        ranges.push((first, last, Address { host, port }));
    }
    ranges.sort_by_key(|(first, _, _)| *first);
    Some(ranges)
}

/// Looks at the slots now and then, as long as there is a cluster. Boxed: the first look starts this.
fn keep(cluster: Weak<Cluster>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        loop {
            sleep(LOOKED_AT_EVERY).await;
            let Some(cluster) = cluster.upgrade() else { return };
            // What fails is tried again; whoever asks for a key sees the fault.
            let _fault = cluster.look(LOOKED_AT_EVERY / 2).await.err();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The specification's own example, and CRC-16/XMODEM's check value.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), slot_of_all(b"foo{}{bar}"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot_of_all(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot_of_all(b"bar"));
    }

    fn slot_of_all(bytes: &[u8]) -> u16 {
        crc16(bytes) % SLOTS
    }
}
