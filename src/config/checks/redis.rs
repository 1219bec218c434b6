//! `session.store.redis`: where Redis is, and who we are there.
//!
//! INVARIANT: no URL is ever repeated, whatever it is: there may be a password in it.

use super::super::report::{Findings, KeyPath, quoted};
use super::super::secrets::SecretSource;
use super::super::settings::RedisSettings;
use super::grammar;
use crate::secret::Secret;

const WANTED: &str = "wanted: redis://HOST:6379/0 or rediss://…, with user and password if need be";

pub fn check(redis: &RedisSettings, at: &KeyPath, findings: &mut Findings<'_>) {
    let ways = [
        ("url", redis.url.is_some()),
        ("sentinel", redis.sentinel.is_some()),
        ("cluster", redis.cluster.is_some()),
    ];
    let mut named = ways.iter().filter(|(_, is_set)| *is_set);
    match named.next() {
        None => findings.refuse(
            &at.key("url"),
            format!("is missing; {WANTED}; or `sentinel` or `cluster` instead of it"),
        ),
        Some((first, _)) => {
            for (name, _) in named {
                let message = format!(
                    "stands beside `{first}`; wanted: one of `url`, `sentinel` and `cluster`, which says where Redis is"
                );
                findings.refuse(&at.key(name), message);
            }
        }
    }
    let mut urls = Vec::new();
    if let Some(source) = &redis.url {
        urls.extend(url(source, at.key("url"), findings));
    }
    if let Some(nodes) = &redis.cluster {
        urls.extend(several(nodes, &at.key("cluster"), "nodes", findings));
        only_database_zero(redis, &urls, &at.key("database"), findings);
    }
    let mut has_password = urls.iter().any(|(_, url)| password(url.expose()));
    if let Some(sentinel) = &redis.sentinel {
        let at_sentinel = at.key("sentinel");
        if sentinel.master.is_empty() || !sentinel.master.bytes().all(|b| b.is_ascii_graphic()) {
            let message =
                "is no name; wanted: the one that the sentinels monitor the primary under, such as mymaster";
            findings.refuse(&at_sentinel.key("master"), message);
        }
        let sentinels = several(&sentinel.urls, &at_sentinel.key("urls"), "sentinels", findings);
        for (key, url) in &sentinels {
            if !database(url.expose()).is_empty() {
                let message = "names a database, which sentinels do not have; the primary's goes into `session.store.redis.database`";
                findings.refuse(key, message);
            }
        }
        let theirs = sentinels.iter().any(|(_, url)| password(url.expose()));
        user_without_password(
            sentinel.user.as_ref(),
            theirs || sentinel.password.is_some(),
            &at_sentinel,
            findings,
        );
        if theirs && redis.password.is_none() {
            let message = "holds the sentinels' own password, and the primary is logged in to without any; set `session.store.redis.password` where the primary wants one too";
            findings.warn(&at_sentinel.key("urls"), message);
        }
        has_password = false;
        urls.extend(sentinels);
    }
    user_without_password(
        redis.user.as_ref(),
        has_password || redis.password.is_some(),
        at,
        findings,
    );
    unused_tls(redis, &urls, at, findings);
    let prefix = &redis.key_prefix;
    if prefix.len() > 128 || !prefix.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!(
            "found {}; wanted: at most 128 printable ASCII characters",
            quoted(prefix)
        );
        findings.refuse(&at.key("key_prefix"), message);
    } else if redis.cluster.is_some() && prefix.contains(['{', '}']) {
        // The hash tag is the first {…} of a key: one in the prefix would put every session on one node.
        let message = format!(
            "found {}; wanted: no {{ or }}, which say where in a cluster a key is",
            quoted(prefix)
        );
        findings.refuse(&at.key("key_prefix"), message);
    }
}

/// A URL that can be read and used; what cannot be read is a matter of the check of all secrets.
fn url(source: &SecretSource, at: KeyPath, findings: &mut Findings<'_>) -> Option<(KeyPath, Secret)> {
    let url = source.current().ok()?;
    if !is_redis_url(url.expose()) {
        findings.refuse(&at, format!("is no Redis URL; {WANTED}"));
        return None;
    }
    if is_plain_to_outside(url.expose()) {
        let message = "is redis://, without TLS, to a server that looks as if it were outside of your network: its password can be read on the way; use rediss://";
        findings.warn(&at, message);
    }
    Some((at, url))
}

/// The URLs of several servers, which are all reached in one way.
fn several(
    sources: &[SecretSource],
    at: &KeyPath,
    what: &str,
    findings: &mut Findings<'_>,
) -> Vec<(KeyPath, Secret)> {
    if sources.is_empty() {
        findings.refuse(
            at,
            format!("is empty; wanted: the URLs of some {what}, such as redis://HOST:PORT"),
        );
    }
    let urls: Vec<_> = sources
        .iter()
        .enumerate()
        .filter_map(|(i, source)| url(source, at.index(i), findings))
        .collect();
    let mut kinds = urls.iter().map(|(key, url)| (key, is_tls(url.expose())));
    if let Some((_, first)) = kinds.next()
        && let Some((key, _)) = kinds.find(|(_, tls)| *tls != first)
    {
        let message = "has another scheme than the first; wanted: redis:// or rediss:// for all of them, as it also decides about the servers that they name";
        findings.refuse(key, message);
    }
    urls
}

/// A cluster has no other.
fn only_database_zero(
    redis: &RedisSettings,
    urls: &[(KeyPath, Secret)],
    at: &KeyPath,
    findings: &mut Findings<'_>,
) {
    let message =
        "is another database than 0, the only one that a cluster has; use `key_prefix` to keep things apart";
    if redis.database.is_some_and(|number| number != 0) {
        findings.refuse(at, message);
    }
    for (key, url) in urls {
        if !database(url.expose()).trim_start_matches('0').is_empty() {
            findings.refuse(key, message);
        }
    }
}

fn user_without_password(
    user: Option<&String>,
    has_password: bool,
    at: &KeyPath,
    findings: &mut Findings<'_>,
) {
    if user.is_some() && !has_password {
        findings.refuse(&at.key("user"), "has no password; wanted: `password` beside it");
    }
}

/// What TLS only is for.
fn unused_tls(redis: &RedisSettings, urls: &[(KeyPath, Secret)], at: &KeyPath, findings: &mut Findings<'_>) {
    if urls.is_empty() || urls.iter().any(|(_, url)| is_tls(url.expose())) {
        return;
    }
    for (name, is_set) in [
        ("ca", redis.ca.is_some()),
        ("client_cert", redis.client_cert.is_some()),
    ] {
        if is_set {
            findings.warn(
                &at.key(name),
                "is not used, as Redis is reached without TLS; use rediss://",
            );
        }
    }
}

/// Scheme aside: user and password, server, and the rest.
fn parts(url: &str) -> (&str, &str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, server) = authority.rsplit_once('@').unwrap_or(("", authority));
    (user, server, path)
}

fn is_tls(url: &str) -> bool {
    url.starts_with("rediss://")
}

fn password(url: &str) -> bool {
    parts(url).0.contains(':')
}

/// The database's number, as it stands in the URL.
fn database(url: &str) -> &str {
    parts(url).2.trim_start_matches('/')
}

/// Whether a text is a Redis URL: a scheme, maybe user and password, a host, maybe a port and a database's number.
fn is_redis_url(url: &str) -> bool {
    let (_, server, path) = parts(url);
    let path = path.strip_prefix('/').unwrap_or(path);
    (url.starts_with("redis://") || is_tls(url))
        && grammar::is_host_and_port(server)
        && path.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a Redis URL is without TLS, to a host outside of the own network.
fn is_plain_to_outside(url: &str) -> bool {
    let (_, server, _) = parts(url);
    let host = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => server,
    };
    !is_tls(url) && grammar::is_outside(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_url_names_a_server() {
        for url in [
            "redis://redis",
            "rediss://u:p@redis:6379/0",
            "redis://:p%40@[::1]:6379",
            "redis://10.0.0.1/",
        ] {
            assert!(is_redis_url(url), "{url}");
        }
        for url in [
            "",
            "redis",
            "http://redis",
            "redis://",
            "redis://h:x",
            "redis://h/x",
            "redis://h?protocol=resp3",
            "redis://p#w@h",
        ] {
            assert!(!is_redis_url(url), "{url}");
        }
    }
}
