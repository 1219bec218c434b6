//! What went wrong at Redis, in words for the operator.
//!
//! INVARIANT: no secret in them. A server quotes the command that it refuses, an AUTH with its password too, so the
//! server's own words are never passed on: only its error code is, and what to do about it.

use super::target::Address;
use crate::store::{PATIENCE, StoreError};
use redis::{ErrorKind, RedisError};

/// At the beginning of a connection the client library hides the server's code for it.
const REFUSES_US: &str = "the server refuses the user or password: check `session.store.redis`";

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The server's or the connection's error.
    Redis(RedisError),
    /// Everything else, in words already.
    Said(String),
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl Fault {
    pub(super) fn said(words: impl Into<String>) -> Self {
        Self::Said(words.into())
    }

    /// Nobody answered.
    pub(super) fn late() -> Self {
        Self::said(format!("no answer within {} ms", PATIENCE.as_millis()))
    }

    /// The server's code, where it said one.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => error.code(),
            Self::Said(_) => None,
        }
    }

    /// Whether the server refuses the user or the password.
    pub(super) fn is_refused_login(&self) -> bool {
        self.code() == Some("WRONGPASS") || self.kind() == Some(ErrorKind::AuthenticationFailed)
    }

    /// Where a node of a cluster sends us; it may leave its own host out.
    pub(super) fn redirection(&self, asked: &str) -> Option<Address> {
        let Self::Redis(error) = self else { return None };
        let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
        let host = if matches!(host, "" | "?") { asked } else { host };
        Some(Address {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// The kind, where the server or the connection said it.
    pub(super) fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Redis(error) => Some(error.kind()),
            Self::Said(_) => None,
        }
    }

    /// Whether the connection broke, rather than that the server answered or that nobody did.
    pub(super) fn is_broken_connection(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_io_error())
    }

    /// Whether another connection may fare better: this one is broken, logged in as nobody, or leads to a server
    /// that is no longer the primary (a new connection asks the name service again).
    pub(super) fn spoils_connection(&self) -> bool {
        match self {
            Self::Redis(error) => {
                error.is_unrecoverable_error()
                    || error.is_io_error()
                    || matches!(error.code(), Some("NOAUTH" | "READONLY" | "MASTERDOWN"))
            }
            Self::Said(_) => true,
        }
    }

    pub(super) fn into_store_error(self) -> StoreError {
        StoreError(self.words())
    }

    pub(super) fn words(&self) -> String {
        let error = match self {
            Self::Redis(error) => error,
            Self::Said(words) => return words.clone(),
        };
        // Of a command in a script.
        let in_script = error.detail().is_some_and(|detail| {
            detail.starts_with("ACL failure in script")
                || detail.starts_with("The user executing the script can't")
        });
        let code = if in_script { Some("NOPERM") } else { error.code() };
        let remedy = match code {
            Some("NOAUTH") => "it wants a password: set one in `session.store.redis`",
            Some("WRONGPASS") => return REFUSES_US.to_owned(),
            Some("NOPERM") => {
                "its ACL refuses the user: allow `+get +set +del +hset +hgetall +hdel +hlen +pttl +pexpire +eval \
                 +evalsha +ping +role +client|tracking +info` on `~<key_prefix>*` (and `+select` for a database other \
                 than 0, `+cluster|slots +asking` in a cluster)"
            }
            Some("READONLY") => {
                "it is a replica and takes no writes: point `session.store.redis` at the primary"
            }
            Some("MASTERDOWN") => {
                "it is a replica that has lost its primary: point `session.store.redis` at the primary"
            }
            Some("LOADING") => "it is still loading its data: wait",
            Some("OOM") => "its memory is full: raise `maxmemory` (with `maxmemory-policy noeviction`)",
            Some("MISCONF") => "it cannot write its data to disk and refuses writes: see its log",
            Some("BUSY") => "it is busy with somebody's script: wait, or end that script",
            Some("DENIED") => {
                "it is in protected mode: give it a password, and set that in `session.store.redis`"
            }
            Some("NOREPLICAS") => {
                "it has fewer replicas than `min-replicas-to-write` wants: see to its replicas"
            }
            Some("CLUSTERDOWN") => {
                "its cluster does not serve the key: a primary is down and no replica has taken over yet, or hash \
                 slots have no node; see `redis-cli cluster info`"
            }
            Some("TRYAGAIN") => "its keys are just moving to another node: wait",
            Some("MOVED" | "ASK" | "CROSSSLOT") => {
                "it is a node of a cluster: name some of its nodes in `session.store.redis.cluster`"
            }
            _ if error.kind() == ErrorKind::AuthenticationFailed => return REFUSES_US.to_owned(),
            _ if error.is_io_error() && error.to_string().ends_with("CertificateRequired") => {
                return "the server wants a certificate: set `session.store.redis.client_cert`".to_owned();
            }
            // The connection's own words: an errno, a TLS alert, "terminated".
            _ if error.is_io_error() => return error.to_string(),
            _ => "see the server's log",
        };
        match code {
            Some(code) if code.len() <= 16 && code.bytes().all(|b| b.is_ascii_uppercase()) => {
                format!("the server says {code}: {remedy}")
            }
            _ => format!("the server refuses: {remedy}"),
        }
    }
}
