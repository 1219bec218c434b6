//! The door through which the fuzz targets see what lies behind the seal; only compiled for them (`--cfg fuzzing`).

use super::lifetime::Lifetime;
use super::record::{Payload, Session};
use crate::clock::UnixTime;
use crate::config::SessionSettings;

/// The fields of a record's head that this release knows.
pub const FIELDS: &[&str] = &super::record::FIELDS;

/// A record that was read.
#[derive(Debug)]
pub struct Read {
    /// As it would be written again; `None` where it would be too large.
    pub written: Option<Vec<u8>>,
    /// As everybody else sees it.
    pub session: Session,
    /// Whether it is over at the moment asked for.
    pub is_over: bool,
    /// How long the store would keep it from that moment on.
    pub ttl: std::time::Duration,
}

/// Reads a session's record, as it lies behind the seal. `None`: it is none.
#[must_use]
pub fn read_record(bytes: &[u8], settings: &SessionSettings, now: UnixTime) -> Option<Read> {
    let record = Payload::decode(bytes).ok()?;
    let lifetime = Lifetime::new(settings);
    Some(Read {
        written: record.encode().ok().map(|bytes| bytes.to_vec()),
        is_over: lifetime.is_over(&record, now),
        ttl: lifetime.ttl(&record, now),
        session: record.session(&lifetime, 1),
    })
}
