//! The cores: a runtime of one thread for each, and every connection on one of them for its whole life.
//!
//! Stands on the ground floor. What a request mostly needs (its connection, its connection to an upstream over HTTP/1.1, the
//! tasks of both) is on one core then, and none of them wakes another thread. Redis and HTTP/2 upstreams, whose connections
//! all share, are on one core or another. One runtime over all cores was measured beside it: it cost a
//! tenth to a fifth more CPU time for each request, on one core as on two, and grew less from one to two.
//!
//! A connection goes to the core that has the fewest. Nothing moves it when some turn out to be busier than others.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{self, available_parallelism};
use tokio::runtime::{Builder, Handle, Runtime};

/// How many threads may wait for files and names at one time, all cores together.
const BLOCKING: usize = 512;

static CORES: OnceLock<Vec<Core>> = OnceLock::new();

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

struct Core {
    runtime: Handle,
    connections: AtomicUsize,
}

impl Core {
    const fn of(runtime: Handle) -> Self {
        Self {
            runtime,
            connections: AtomicUsize::new(0),
        }
    }
}

/// A runtime of one thread. What has to be waited for outside of it (files, name look-ups) has its share of `BLOCKING` threads.
///
/// # Errors
/// The system has no descriptors left.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .max_blocking_threads((BLOCKING / cores_there_are()).max(16))
        .enable_all()
        .build()
}

fn cores_there_are() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Starts a runtime for each core that this process may use, beside the one that this is called in, which is the first
/// core's. They go on until the process ends. Where it is not called, everything runs where it began.
///
/// # Errors
/// The system has no thread left, or no descriptors; or they were started before.
///
/// # Panics
/// Outside a runtime.
pub fn start() -> io::Result<()> {
    if CORES.get().is_some() {
        return Err(io::Error::other("the cores' runtimes were started before"));
    }
    let mut cores = vec![Core::of(Handle::current())];
    for number in 1..cores_there_are() {
        let runtime = runtime()?;
        cores.push(Core::of(runtime.handle().clone()));
        thread::Builder::new()
            .name(format!("core-{number}"))
            .spawn(move || {
                HERE.set(number);
                runtime.block_on(pending::<()>());
            })?;
    }
    let started_before = |_| io::Error::other("the cores' runtimes are being started by another thread");
    CORES.set(cores).map_err(started_before)
}

/// How many there are.
#[must_use]
pub fn count() -> usize {
    CORES.get().map_or(1, Vec::len)
}

/// The number of the core that this runs on, from 0.
#[must_use]
pub fn here() -> usize {
    HERE.get()
}

/// A connection's seat on a core: taken for as long as this lives.
#[derive(Debug)]
pub struct Seat(usize);

impl Seat {
    /// One on the core with the fewest connections.
    #[must_use]
    pub fn take() -> Self {
        let cores = CORES.get().map_or(&[][..], Vec::as_slice);
        let fewest = cores
            .iter()
            .enumerate()
            .min_by_key(|(_, core)| core.connections.load(Relaxed));
        if let Some((_, core)) = fewest {
            core.connections.fetch_add(1, Relaxed);
        }
        Self(fewest.map_or_else(here, |(number, _)| number))
    }

    /// The runtime that it is on; `None`: the one that this runs in.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&'static Handle> {
        let core = CORES.get()?.get(self.0)?;
        (self.0 != here()).then_some(&core.runtime)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(core) = CORES.get().and_then(|cores| cores.get(self.0)) {
            core.connections.fetch_sub(1, Relaxed);
        }
    }
}
