//! Durations (`30s`), sizes (`10MiB`), rates (`30/m`) and the "one or a list" forms of the config.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// A duration as it is written: `250ms`, `30s`, `15m`, `12h`, `7d`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(transparent)]
pub struct DurationText(#[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h|d)$"))] pub String);

/// A size as it is written: `512B`, `64KiB`, `10MiB`, `1GiB`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(transparent)]
pub struct SizeText(#[schemars(regex(pattern = r"^[0-9]+(B|KiB|MiB|GiB)$"))] pub String);

/// One value, or a list of them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

/// So many in a span of time: `30/m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: std::time::Duration,
}

/// serde for durations.
pub mod duration {
    use super::{Deserialize, Deserializer};
    /// Reads `30s` and the like.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<std::time::Duration, D::Error> {
        let _ = String::deserialize(d)?;
        unimplemented!()
    }
}
/// serde for sizes, in bytes.
pub mod size {
    use super::{Deserialize, Deserializer};
    /// Reads `64KiB` and the like.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        let _ = String::deserialize(d)?;
        unimplemented!()
    }
}
/// serde for sizes that may be missing, in bytes.
pub mod optional_size {
    use super::{Deserialize, Deserializer};
    /// Reads `64KiB` and the like.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
        let _ = Option::<String>::deserialize(d)?;
        unimplemented!()
    }
}
/// serde for rates.
pub mod rate {
    use super::{Deserialize, Deserializer, Rate};
    /// Reads `30/m` or `off`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Rate>, D::Error> {
        let _ = String::deserialize(d)?;
        unimplemented!()
    }
}
/// serde for one address or a list.
pub mod one_or_many_addresses {
    use super::Deserializer;
    /// Reads `0.0.0.0:8080` or a list.
    pub fn deserialize<'de, D: Deserializer<'de>>(_: D) -> Result<Vec<std::net::SocketAddr>, D::Error> {
        unimplemented!()
    }
}
/// serde for one string or a list.
pub mod one_or_many_strings {
    use super::Deserializer;
    /// Reads a string or a list.
    pub fn deserialize<'de, D: Deserializer<'de>>(_: D) -> Result<Vec<String>, D::Error> {
        unimplemented!()
    }
}
