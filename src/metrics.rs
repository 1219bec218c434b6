//! Counts and times of what happens, for `/metrics`.
//!
//! Ground floor: whoever does a thing tells it here; nothing here waits or does I/O.

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// A refresh at `provider` ended as `outcome`.
    pub fn refresh(&self, _provider: &str, _outcome: &'static str) {}

    /// A store operation took so many `seconds`.
    pub fn store_operation(&self, _operation: &'static str, _seconds: f64, _ok: bool) {}

    /// The memory store was full, and the longest idle session went.
    pub fn sessions_evicted(&self) {}
}
