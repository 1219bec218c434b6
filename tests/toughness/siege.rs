//! One process under attack: what it holds before, at most meanwhile and afterwards, and how a bystander fares beside it.

use crate::MIB;
use crate::crowd;
use crate::liar::{Liar, Liar2};
use crate::support::browser::{Browser, SESSION};
use crate::support::config::Config;
use crate::support::rig::Rig;
use crate::support::tls::Authority;
use crate::support::{runtime, within};
use serde_json::json;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

/// The longest that the bystander may wait for an answer, on two busy cores and without optimisation.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the bystander asks.
const APART: Duration = Duration::from_millis(40);
/// Descriptors that may be open for other reasons than what is measured: the bystander's own, and connections that are kept
/// for what comes next.
const SPARE: usize = 6;
/// What the same attack may leave behind beyond what it left the first time: the allocator's pieces never fit alike; bytes.
const AGAIN: u64 = 8 * MIB;
/// For what it holds to go back; seconds. Longer than idle connections to upstreams are kept, and than the listener waits for
/// those whom it has refused.
const RETURN: u64 = 20;

/// One at a time, whatever the test runner thinks: latencies and memory are measured.
static TURN: Mutex<()> = Mutex::const_new(());

/// Waits for the other tests.
pub async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Bytes.
    pub resident: u64,
    /// File descriptors.
    pub files: usize,
}

/// What an attack may make it hold, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// While it lasts, beyond what was held before.
    pub peak: u64,
    /// When it is over, beyond what was held when all was calm.
    pub rest: u64,
}

/// So many MiB at most, and so many afterwards.
pub const fn allowed(peak: u64, rest: u64) -> Allowed {
    Allowed {
        peak: peak * MIB,
        rest: rest * MIB,
    }
}

/// A cloakroom under attack, and the parts around it.
pub struct Siege {
    pub rig: Rig,
    /// Behind `/liar` (open), `/api/liar` (with a session) and `/brief`, where it is not waited for long.
    pub liar: Liar,
    /// Behind `/liar2`, over HTTP/2.
    pub liar2: Liar2,
    /// When all was calm.
    pub calm: Held,
    bystander: Browser,
    /// The attack before this one, and what was held after it; bytes.
    last: (String, u64),
    _turn: MutexGuard<'static, ()>,
}

impl Siege {
    /// Starts one, and lets it serve what everybody asks for until it holds what it needs.
    pub async fn start(change: impl FnOnce(Config) -> Config) -> Self {
        Self::build(None, change).await
    }

    /// The same over TLS, as `app.localhost` by this authority.
    pub async fn over_tls(authority: &Authority, change: impl FnOnce(Config) -> Config) -> Self {
        Self::build(Some(authority), change).await
    }

    async fn build(authority: Option<&Authority>, change: impl FnOnce(Config) -> Config) -> Self {
        crowd::make_room();
        let turn = turn().await;
        let (liar, liar2) = (Liar::start().await, Liar2::start().await);
        let rig = Rig::with(|mut config| {
            let lies = |path: &str, auth: &str, timeout: &str| {
                json!({ "path": path, "upstream": liar.url(), "auth": auth, "timeout": timeout })
            };
            // What is freed goes back at once: so what is kept is what is held.
            let at_once = ("MIMALLOC_PURGE_DELAY".to_owned(), "0".to_owned());
            config.environment.push(at_once);
            let config = config
                .set("log.level", "warn")
                .route(lies("/liar", "none", "20s"))
                .route(lies("/brief", "none", "2s"))
                .route(lies("/api/liar", "required", "20s"))
                .route(json!({ "path": "/liar2", "upstream": liar2.url(), "auth": "none", "timeout": "2s", "protocol": "h2c" }));
            let Some(authority) = authority else {
                return change(config);
            };
            let (leaf, origin) = (authority.leaf("app.localhost"), format!("https://app.localhost:{}", config.port));
            let config = config.set("public_url", origin);
            change(config.set("server.tls", json!({ "cert": leaf.cert, "key": leaf.key })))
        })
        .await;
        let mut bystander = rig.browser();
        if let Some(authority) = authority {
            let relay = authority.plain_port_to(rig.cloakroom.address(), "app.localhost");
            bystander = bystander.at(relay.await);
        }
        bystander.login(&rig.rogue, "/").await;
        let calm = Held {
            resident: 0,
            files: 0,
        };
        let mut siege = Self {
            rig,
            liar,
            liar2,
            calm,
            bystander,
            last: (String::new(), 0),
            _turn: turn,
        };
        for _ in 0..20 {
            crowd::ask_once_each(&siege.rig, 32).await;
            siege.honest().await;
        }
        siege.calm = siege.held();
        println!(
            "\n{:<44} {:>6} {:>15} {:>9} {:>9} {:>7} {:>6}",
            format!(
                "calm: {} MiB, {} descriptors",
                siege.calm.resident / MIB,
                siege.calm.files
            ),
            "honest",
            "p50 / most ms",
            "peak KiB",
            "rest KiB",
            "files",
            "ms"
        );
        siege
    }

    /// What it holds now.
    pub fn held(&self) -> Held {
        Held {
            resident: self.rig.cloakroom.resident(),
            files: files(self.rig.cloakroom.id()),
        }
    }

    /// A signed-in session's cookie, for requests by hand.
    pub fn cookie(&self) -> String {
        format!("{SESSION}={}", self.bystander.session().unwrap())
    }

    /// A browser with that session.
    pub fn bystander(&self) -> Browser {
        self.bystander.clone()
    }

    /// `Host` of the app.
    pub fn host(&self) -> String {
        self.bystander.host().to_owned()
    }

    /// One honest request, and how long it took.
    async fn honest(&mut self) -> Duration {
        honest(&mut self.bystander).await
    }

    /// Runs an attack twice: what the allocator keeps of the first it has for the second, and nothing is added.
    pub async fn twice_under(&mut self, name: &str, allowed: Allowed, attack: impl AsyncFn(&Siege)) {
        self.under(name, allowed, &attack).await;
        self.under(name, allowed, &attack).await;
    }

    /// Runs an attack beside the bystander, and judges what it did to both.
    pub async fn under(&mut self, name: &str, allowed: Allowed, attack: impl AsyncFnOnce(&Siege)) {
        let before = self.held().resident;
        forget_peak(self.rig.cloakroom.id());
        let (over, begun) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let asking = {
            let (mut browser, over) = (self.bystander.clone(), over.clone());
            runtime().spawn(async move {
                let mut waits = vec![honest(&mut browser).await];
                while !over.load(Ordering::Relaxed) {
                    tokio::time::sleep(APART).await;
                    waits.push(honest(&mut browser).await);
                }
                waits
            })
        };
        attack(self).await;
        let lasted = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        let mut waits = within(30, "the bystander", asking).await.unwrap();
        waits.push(self.honest().await);
        let bound = self.calm.resident + allowed.rest;
        let again = (self.last.0 == name).then_some(self.last.1 + AGAIN);
        let rest = self.settled(again.map_or(bound, |again| again.min(bound))).await;
        let peak = peak(self.rig.cloakroom.id());
        waits.sort_unstable();
        let (median, most) = (waits[waits.len() / 2], *waits.last().unwrap());
        let beyond = |bytes: u64| bytes.saturating_sub(self.calm.resident) / 1024;
        println!(
            "{name:<44} {:>6} {:>6.1} / {:>6.1} {:>9} {:>9} {:>7} {:>6}",
            waits.len(),
            median.as_secs_f64() * 1e3,
            most.as_secs_f64() * 1e3,
            peak.saturating_sub(before) / 1024,
            beyond(rest.resident),
            rest.files,
            lasted.as_millis(),
        );
        assert!(most < PATIENCE, "{name}: the bystander waited {most:?}");
        let more = peak.saturating_sub(before);
        assert!(more < allowed.peak, "{name}: {} KiB more at most", more / 1024);
        assert!(
            rest.files <= self.calm.files + SPARE,
            "{name}: {} descriptors are open still, {} at first",
            rest.files,
            self.calm.files
        );
        assert!(
            rest.resident < self.calm.resident + allowed.rest,
            "{name}: {} KiB more are kept",
            beyond(rest.resident)
        );
        let last = std::mem::replace(&mut self.last, (name.to_owned(), rest.resident));
        assert!(
            last.0 != name || rest.resident < last.1 + AGAIN,
            "{name}: {} KiB more are kept than the first time",
            rest.resident.saturating_sub(last.1) / 1024
        );
    }

    /// Waits until it holds less than so many bytes, and few descriptors that it did not hold when all was calm; what it holds
    /// where that does not come. A few attackers' connections fit into [`SPARE`]: so the one without the other says nothing.
    async fn settled(&self, resident: u64) -> Held {
        let end = Instant::now() + Duration::from_secs(RETURN);
        loop {
            let held = self.held();
            let over = held.files <= self.calm.files + SPARE && held.resident < resident;
            if over || Instant::now() >= end {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn honest(browser: &mut Browser) -> Duration {
    let begun = Instant::now();
    let reply = browser.fetch("GET", "/api/honest").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    begun.elapsed()
}

/// How many descriptors a process has open.
pub fn files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// What a process held at most since that was forgotten; bytes.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Where the kernel does not forget it, the peak is that since the start: more, so that nothing passes for it.
fn forget_peak(process: u32) {
    let _kept = fs::write(format!("/proc/{process}/clear_refs"), "5");
}
