//! The time of day, from one place, so that tests can set it.
//!
//! Stands on the ground floor. Everything that outlives a process (sessions, tokens, login attempts) is dated
//! with [`Clock::now`]; what only measures a span inside the process uses `tokio::time::Instant`.
//!
//! The process keeps its own time: the system's clock is read once, and counted on from there with the clock that runs
//! since boot, which nobody can set (`CLOCK_BOOTTIME`, `clock_gettime(2)`; a machine's sleep counts, so it is no step). A
//! system clock that is set by an hour would otherwise end every session at once, or none for an hour, and renew every
//! token or send dead ones. The [`Keeper`] then follows the system's clock by at most 1 % of the time that passes: what
//! drifts is followed at once, an hour takes a hundred hours, and a token of one hour is judged at most 36 s wrong, which
//! `refresh_before` (60 s) covers. NTP's slewing turns both clocks alike and is no difference.
//!
//! A clock that was wrong when the process started, or that stood still with the whole machine (a paused virtual machine,
//! whose clock since boot does not count that), is put right by a step as well, and then the kept time is the wrong one.
//! Which of the two it is, a third clock tells: where a provider's agrees with the system's and not with the kept time, the
//! system's is taken at once ([`Clock::hear`]). Until one is heard the difference is an error in the log and a metric, and
//! what a provider has dated is judged by whichever of both lets it pass ([`Clock::bounds`]).
//!
//! INVARIANT: [`Clock::now`] costs one clock read without a system call, and loads; it does not look at the system's clock.

mod keeper;

pub use keeper::{Keeper, Look, Notice};

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// What the time of day is ahead of the clock since boot, milliseconds: taken from the system's clock when it is first
/// wanted; from then on only a [`Keeper`] moves it.
static OFFSET: LazyLock<AtomicI64> = LazyLock::new(|| AtomicI64::new(Reading::take().offset()));

/// A moment: milliseconds since 1970-01-01 UTC. 64 bits, so it does not end in 2038.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(u64);

impl UnixTime {
    /// What the system's clock says now, however it was set: only for what the system itself dates, such as files.
    #[must_use]
    pub fn of_the_system() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that reads the system's clock"
        )]
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }

    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From seconds since 1970; saturates.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This much later; saturates.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// This much earlier; saturates at 1970.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How far the two moments are apart.
    #[must_use]
    pub fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// How long from `earlier` until this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Where the time of day comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The time that this process keeps: the system's clock at its start, followed slowly.
    #[default]
    System,
    /// A clock that a test moves: milliseconds since 1970.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The moment it is.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        match self {
            Self::System => {
                let millis = since_boot().saturating_add(OFFSET.load(Ordering::Relaxed));
                UnixTime(u64::try_from(millis).unwrap_or(0))
            }
            Self::Manual(millis) => UnixTime(millis.load(Ordering::SeqCst)),
        }
    }

    /// The earliest and the latest that it may be, as far as this machine knows: the kept time and the system's clock. They
    /// are apart only after that was set.
    #[must_use]
    pub fn bounds(&self) -> (UnixTime, UnixTime) {
        let kept = self.now();
        let system = match self {
            Self::System => UnixTime::of_the_system(),
            Self::Manual(_) => kept,
        };
        (kept.min(system), kept.max(system))
    }

    /// Somebody whose clock counts says that it is `theirs`. Where the system's clock agrees with that, give or take
    /// `leeway`, and the kept time does not, the system's is taken at once: how far that was away.
    pub fn hear(&self, theirs: UnixTime, leeway: Duration) -> Option<Duration> {
        let Self::System = self else { return None };
        let (kept, reading) = (self.now(), Reading::take());
        let system = UnixTime(u64::try_from(reading.wall).unwrap_or(0));
        if theirs.distance(system) > leeway || theirs.distance(kept) <= leeway {
            return None;
        }
        OFFSET.store(reading.offset(), Ordering::Relaxed);
        Some(system.distance(kept))
    }

    /// A clock that stands at `start` until it is moved with [`Clock::advance`].
    #[must_use]
    pub fn manual(start: UnixTime) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(start.0)))
    }

    /// Moves a manual clock forward; the process's time is left alone.
    pub fn advance(&self, span: Duration) {
        if let Self::Manual(millis) = self {
            millis.fetch_add(
                u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
                Ordering::SeqCst,
            );
        }
    }
}

/// Both clocks of the system, read one after the other: milliseconds.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Since 1970, as the system's clock is set.
    wall: i64,
    /// Since boot.
    boot: i64,
}

impl Reading {
    fn take() -> Self {
        let wall = i64::try_from(UnixTime::of_the_system().0).unwrap_or(i64::MAX);
        let boot = since_boot();
        Self { wall, boot }
    }

    fn offset(self) -> i64 {
        self.wall.saturating_sub(self.boot)
    }
}

/// Milliseconds on the clock that nobody can set and that counts a machine's sleep. Where there is no such clock, the
/// monotonic one stands in (macOS counts sleep on that).
fn since_boot() -> i64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let read = rustix::time::clock_gettime(clock);
    read.tv_sec
        .saturating_mul(1000)
        .saturating_add(read.tv_nsec / 1_000_000)
}
