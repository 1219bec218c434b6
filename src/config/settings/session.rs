//! `session`: the cookie, lifetimes, keys and the store.

use crate::config::secrets::SecretSource;
use crate::config::settings::TlsFiles;
use crate::config::units;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

fn default_key_prefix() -> String {
    "cloakroom:".into()
}

/// Sessions.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSettings {
    /// The session cookie.
    pub cookie: Cookie,
    /// A session ends when nothing was asked for this long.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub idle_timeout: Duration,
    /// A session ends this long after login, whatever happens.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub absolute_timeout: Duration,
    /// A token with less left than this (or than half its lifetime, if that is less) is refreshed in the background.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub refresh_before: Duration,
    /// The most sessions of one user of one provider at one time; beyond it the oldest ends. No bound by default.
    pub max_per_user: Option<usize>,
    /// The claims that `/bff/user` shows.
    pub claims: Vec<String>,
    /// Session encryption keys: the first seals, all open. A memory store makes its own.
    pub keys: Vec<SecretSource>,
    /// Opened sessions in this process's memory, or `off`: the store is read on every request. What is kept counts only
    /// while the store says that it is still so; a Redis that cannot tell (`CLIENT TRACKING`, Redis 6) is read on every
    /// request all the same.
    pub cache: Cache,
    /// Where sessions are kept.
    pub store: StoreSettings,
}

/// The session cookie.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cookie {
    /// Its name; begins with `__Host-`.
    pub name: String,
    /// `SameSite`.
    pub same_site: SameSite,
    /// Whether it outlives the browser (`Max-Age`, the absolute timeout).
    pub persistent: bool,
}

/// The cookie attribute of that name (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Sent with requests from our own site only.
    Strict,
    /// Also with top-level navigations from elsewhere.
    Lax,
    /// Always.
    None,
}

/// The local cache of opened sessions.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Cache {
    /// `off`: the store is read on every request.
    Off(Off),
    /// On.
    On(CacheLimits),
}

/// The word `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Off {
    /// `off`
    Off,
}

/// Bounds of the local cache.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheLimits {
    /// How long an opened session may be served from memory.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub ttl: Duration,
    /// The most sessions in it.
    pub max: usize,
    /// The most memory that they take.
    #[serde(with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub max_size: u64,
}

/// Where sessions are kept: exactly one of these.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum StoreSettings {
    /// In this process: one machine, lost on restart.
    Memory(MemoryLimits),
    /// In Redis, shared by all replicas.
    Redis(RedisSettings),
}

/// Bounds of the memory store.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryLimits {
    /// The most sessions; beyond it the longest idle goes first.
    pub max_sessions: usize,
}

/// How Redis is reached: exactly one of `url`, `sentinel` and `cluster` says where it is.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// One server: `redis://` or `rediss://`, with user, password and the database's number.
    #[serde(default)]
    pub url: Option<SecretSource>,
    /// Sentinel: how the primary is found, again after each failover.
    #[serde(default)]
    pub sentinel: Option<Sentinel>,
    /// Cluster: nodes to begin with, which name the others. User and password of the first are those of all.
    #[serde(default)]
    pub cluster: Option<Vec<SecretSource>>,
    /// The ACL user, where it should not stand in a URL; with `sentinel` this is its only place.
    #[serde(default)]
    pub user: Option<String>,
    /// The password, where it should not stand in a URL; with `sentinel` this is its only place.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// The database's number, where it does not stand in `url`. A cluster has only 0.
    #[serde(default)]
    pub database: Option<u16>,
    /// A PEM file of authorities trusted for `rediss://`, instead of the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The certificate that cloakroom shows the servers, where they want one.
    #[serde(default)]
    pub client_cert: Option<TlsFiles>,
    /// What every key begins with.
    #[serde(default = "default_key_prefix")]
    pub key_prefix: String,
}

/// Redis Sentinel. The primary is logged in to with the `user`, `password` and `database` beside it, and over TLS where
/// the sentinels' URLs are `rediss://`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sentinel {
    /// The name of the monitored primary.
    pub master: String,
    /// The sentinels, with their own user and password where they have any.
    pub urls: Vec<SecretSource>,
    /// The sentinels' own ACL user, where it should not stand in the URLs.
    #[serde(default)]
    pub user: Option<String>,
    /// The sentinels' own password, where it should not stand in the URLs.
    #[serde(default)]
    pub password: Option<SecretSource>,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            cookie: Cookie::default(),
            idle_timeout: Duration::from_mins(30),
            absolute_timeout: Duration::from_hours(12),
            refresh_before: Duration::from_mins(1),
            max_per_user: None,
            claims: [
                "sub",
                "name",
                "given_name",
                "family_name",
                "middle_name",
                "nickname",
                "preferred_username",
                "profile",
                "picture",
                "website",
                "gender",
                "birthdate",
                "zoneinfo",
                "locale",
                "updated_at",
                "email",
                "email_verified",
                "groups",
                "roles",
            ]
            .map(String::from)
            .to_vec(),
            keys: Vec::new(),
            cache: Cache::On(CacheLimits::default()),
            store: StoreSettings::Memory(MemoryLimits::default()),
        }
    }
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: "__Host-Http-cloakroom".into(),
            same_site: SameSite::Strict,
            persistent: false,
        }
    }
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            max: 10_000,
            max_size: 64 * 1024 * 1024,
        }
    }
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            max_sessions: 100_000,
        }
    }
}
