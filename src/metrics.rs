//! What is counted: the families behind `/metrics`.
//!
//! Stands on the ground floor; everything above counts through these methods. INVARIANT: labels come from the
//! config or from fixed words, never from a request, so a stranger cannot make them grow.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// Room for each status that HTTP has (RFC 9110 §15: three digits).
const STATUSES: usize = 600;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamErrorLabels {
    route: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoginLabels {
    provider: String,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    provider: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabel {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FoundLabel {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// What is counted of one route: at hand, so that a request neither copies nor hashes labels.
#[derive(Debug)]
struct Meter {
    route: String,
    requests: Family<RequestLabels, Counter>,
    by_status: [OnceLock<Counter>; STATUSES],
    durations: Histogram,
}

impl Meter {
    fn count(&self, status: u16, took: Duration) {
        let make = || {
            let route = self.route.clone();
            self.requests
                .get_or_create(&RequestLabels { route, status })
                .clone()
        };
        match self.by_status.get(usize::from(status)) {
            Some(counter) => counter.get_or_init(make).inc(),
            None => make().inc(),
        };
        self.durations.observe(took.as_secs_f64());
    }
}

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabel, Histogram, fn() -> Histogram>,
    meters: RwLock<HashMap<String, Box<Meter>>>,
    upstream_errors: Family<UpstreamErrorLabels, Counter>,
    logins: Family<LoginLabels, Counter>,
    logouts: Family<KindLabel, Counter>,
    refreshes: Family<RefreshLabels, Counter>,
    store_durations: Family<StoreLabel, Histogram, fn() -> Histogram>,
    store_errors: Family<StoreLabel, Counter>,
    found_in_memory: Counter,
    found_in_store: Counter,
    evicted: Counter,
    under_way: Gauge,
    clock_offset: Gauge<f64, AtomicU64>,
}

fn request_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.5, 11))
}

fn store_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 3.0, 10))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cloakroom");
        let lookups = Family::<FoundLabel, Counter>::default();
        let found_in = |source| lookups.get_or_create(&FoundLabel { source }).clone();
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(request_buckets),
            meters: RwLock::default(),
            upstream_errors: Family::default(),
            logins: Family::default(),
            logouts: Family::default(),
            refreshes: Family::default(),
            store_durations: Family::new_with_constructor(store_buckets),
            store_errors: Family::default(),
            found_in_memory: found_in("memory"),
            found_in_store: found_in("store"),
            evicted: Counter::default(),
            under_way: Gauge::default(),
            clock_offset: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "requests",
            "Requests answered, by route and status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to its answer's head",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "upstream_errors",
            "Upstreams that did not answer, by route and kind",
            metrics.upstream_errors.clone(),
        );
        registry.register(
            "logins",
            "Logins finished, by provider, outcome and reason",
            metrics.logins.clone(),
        );
        registry.register(
            "session_lookups",
            "Sessions looked for, by where the answer came from",
            lookups.clone(),
        );
        registry.register(
            "logouts",
            "Sessions ended because somebody asked for it, by how that was asked for",
            metrics.logouts.clone(),
        );
        registry.register(
            "refreshes",
            "Token refreshes, by provider and outcome",
            metrics.refreshes.clone(),
        );
        registry.register_with_unit(
            "store_duration",
            "Time a store operation took",
            Unit::Seconds,
            metrics.store_durations.clone(),
        );
        registry.register(
            "store_errors",
            "Store operations that failed",
            metrics.store_errors.clone(),
        );
        registry.register(
            "sessions_evicted",
            "Sessions that a full memory store ended, the longest idle first",
            metrics.evicted.clone(),
        );
        registry.register(
            "requests_under_way",
            "Requests not yet answered",
            metrics.under_way.clone(),
        );
        registry.register_with_unit(
            "clock_offset",
            "What the system's clock is ahead of the time that this process keeps",
            Unit::Seconds,
            metrics.clock_offset.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// A request was answered. `route`: the route's path, or a fixed word.
    pub fn request(&self, route: &str, status: u16, took: Duration) {
        let meters = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.get(route) {
            return meter.count(status, took);
        }
        drop(meters);
        let meter = Meter {
            route: route.to_owned(),
            requests: self.requests.clone(),
            by_status: std::array::from_fn(|_| OnceLock::new()),
            durations: self
                .durations
                .get_or_create(&RouteLabel {
                    route: route.to_owned(),
                })
                .clone(),
        };
        let mut meters = self.meters.write().unwrap_or_else(PoisonError::into_inner);
        meters
            .entry(route.to_owned())
            .or_insert_with(|| Box::new(meter))
            .count(status, took);
    }

    /// A request began: it is under way until it is answered, or its browser goes away.
    #[must_use]
    pub fn begin(&self) -> UnderWay<'_> {
        self.under_way.inc();
        UnderWay(self)
    }

    /// An upstream did not answer. `kind`: `unavailable` or `timeout`.
    pub fn upstream_error(&self, route: &str, kind: &'static str) {
        self.upstream_errors
            .get_or_create(&UpstreamErrorLabels {
                route: route.to_owned(),
                kind,
            })
            .inc();
    }

    /// A login finished. `reason`: empty for a success.
    pub fn login(&self, provider: &str, outcome: &'static str, reason: &'static str) {
        self.logins
            .get_or_create(&LoginLabels {
                provider: provider.to_owned(),
                outcome,
                reason,
            })
            .inc();
    }

    /// So many sessions were there and have ended because somebody asked for it. `kind`: how that was asked for. One whose end
    /// is not confirmed yet is not counted.
    pub fn logouts(&self, kind: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.logouts.get_or_create(&KindLabel { kind }).inc_by(count);
    }

    /// A refresh ended.
    pub fn refresh(&self, provider: &str, outcome: &'static str) {
        self.refreshes
            .get_or_create(&RefreshLabels {
                provider: provider.to_owned(),
                outcome,
            })
            .inc();
    }

    /// A store operation ended, after so many seconds.
    pub fn store_operation(&self, operation: &'static str, seconds: f64, ok: bool) {
        self.store_durations
            .get_or_create(&StoreLabel { operation })
            .observe(seconds);
        if !ok {
            self.store_errors.get_or_create(&StoreLabel { operation }).inc();
        }
    }

    /// A session was looked for, and the answer came from this process's memory.
    pub fn session_found_in_memory(&self) {
        self.found_in_memory.inc();
    }

    /// A session was looked for, and the answer came from the store.
    pub fn session_found_in_store(&self) {
        self.found_in_store.inc();
    }

    /// A full memory store ended a session.
    pub fn sessions_evicted(&self) {
        self.evicted.inc();
    }

    /// The system's clock is so many seconds ahead of the time that this process keeps; behind: below zero.
    pub fn clock_offset(&self, seconds: f64) {
        self.clock_offset.set(seconds);
    }

    /// Everything, in the Prometheus text format (`OpenMetrics` 1.0).
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// Counts a request as under way for as long as it lives.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a Metrics);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.dec();
    }
}
