//! `session`: cookie, lifetimes, keys, store.

use super::super::report::{Findings, KeyPath, quoted};
use super::super::settings::{Cache, Cookie, SameSite, SessionSettings, Settings, StoreSettings};
use super::{grammar, not_none, not_zero, redis};
use crate::secret::session_key;
use std::time::Duration;
use zeroize::Zeroizing;

/// Browsers keep no cookie for longer (RFC 6265bis §5.5).
const LONGEST: Duration = Duration::from_hours(400 * 24);
/// Beyond it a stolen cookie is good for very long.
const VERY_LONG: Duration = Duration::from_hours(30 * 24);
/// What the names of cloakroom's other cookies begin with.
const RESERVED: &str = "__Host-Http-cloakroom-";

pub fn check(settings: &Settings, findings: &mut Findings<'_>) {
    let session = &settings.session;
    let key = |name: &str| KeyPath::root("session").key(name);
    cookie(&session.cookie, findings);
    not_zero(session.idle_timeout, &key("idle_timeout"), findings);
    not_zero(session.absolute_timeout, &key("absolute_timeout"), findings);
    if session.idle_timeout > session.absolute_timeout {
        findings.refuse(
            &key("idle_timeout"),
            "is longer than `session.absolute_timeout`; wanted: at most as long",
        );
    }
    if session.absolute_timeout > LONGEST {
        findings.refuse(
            &key("absolute_timeout"),
            "is longer than browsers keep a cookie; wanted: at most 400d",
        );
    }
    unwise_times(session, findings);
    for (i, claim) in session.claims.iter().enumerate() {
        if claim.is_empty() {
            findings.refuse(
                &key("claims").index(i),
                "is empty; wanted: a claim's name, such as email",
            );
        }
    }
    if let Cache::On(limits) = &session.cache {
        not_zero(limits.ttl, &key("cache").key("ttl"), findings);
        not_none(limits.max, &key("cache").key("max"), findings);
        let max_size = usize::try_from(limits.max_size).unwrap_or(usize::MAX);
        not_none(max_size, &key("cache").key("max_size"), findings);
    }
    if let Some(max) = session.max_per_user {
        not_none(max, &key("max_per_user"), findings);
    }
    keys(session, findings);
    match &session.store {
        StoreSettings::Memory(limits) => {
            let path = key("store").key("memory");
            not_none(limits.max_sessions, &path.key("max_sessions"), findings);
            // Who writes it has chosen it; and while an app is developed nobody minds.
            if !findings.is_set(&path) && settings.public_url.scheme() == "https" {
                let message = "is `memory` where nothing is said: sessions are lost at a restart, and only one replica can serve; use `redis`, or write `store: { memory: {} }` if that is meant";
                findings.warn(&key("store"), message);
            }
        }
        StoreSettings::Redis(redis) => redis::check(redis, &key("store").key("redis"), findings),
    }
}

/// Times that are allowed and serve nobody.
fn unwise_times(session: &SessionSettings, findings: &mut Findings<'_>) {
    let key = |name: &str| KeyPath::root("session").key(name);
    if !session.idle_timeout.is_zero() && session.idle_timeout < Duration::from_mins(1) {
        let message =
            "is less than a minute, which signs people out while they read; use some minutes at least";
        findings.warn(&key("idle_timeout"), message);
    }
    if session.absolute_timeout > VERY_LONG && session.absolute_timeout <= LONGEST {
        let message = "is longer than 30d: a stolen cookie is good for that long if it is used now and then; shorten it, and let people sign in again";
        findings.warn(&key("absolute_timeout"), message);
    }
    if session.refresh_before.is_zero() {
        let message =
            "is zero: tokens are refreshed only when they have expired, and requests wait for that; use 60s";
        findings.warn(&key("refresh_before"), message);
    }
}

fn cookie(cookie: &Cookie, findings: &mut Findings<'_>) {
    let key = |name: &str| KeyPath::root("session").key("cookie").key(name);
    // RFC 6265bis §4.1.3.2: what makes browsers refuse the cookie unless it is Secure, for / and without Domain, so
    // that no other host can set it.
    let bare = cookie
        .name
        .strip_prefix("__Host-")
        .filter(|bare| !bare.is_empty() && *bare != "Http-");
    let is_reserved = cookie
        .name
        .get(..RESERVED.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(RESERVED));
    if bare.is_none() || !grammar::is_token(&cookie.name) || cookie.name.len() > 128 {
        let message = format!(
            "found {}; wanted: `__Host-Http-` or `__Host-` and a name of letters, digits and -",
            quoted(&cookie.name)
        );
        findings.refuse(&key("name"), message);
    } else if is_reserved {
        findings.refuse(
            &key("name"),
            format!("begins with `{RESERVED}`, as cloakroom's other cookies do; wanted: another name"),
        );
    }
    if cookie.same_site == SameSite::None {
        findings.warn(&key("same_site"), "is `none`: other sites' requests carry the session; use strict or lax unless the app lives in a frame");
    }
}

fn keys(session: &SessionSettings, findings: &mut Findings<'_>) {
    let path = KeyPath::root("session").key("keys");
    if session.keys.is_empty() && matches!(session.store, StoreSettings::Redis(_)) {
        let message = "is missing; wanted with Redis: at least one key, the same for all replicas; run `cloakroom keys generate` to make one";
        return findings.refuse(&path, message);
    }
    let mut earlier: Vec<Zeroizing<[u8; 32]>> = Vec::new();
    for (i, source) in session.keys.iter().enumerate() {
        // One that cannot be read is a matter of the check of all secrets.
        let Ok(text) = source.current() else { continue };
        let wanted =
            "wanted: 32 bytes in base64url (43 characters); run `cloakroom keys generate` to make one";
        match session_key(&text) {
            Err(fault) => findings.refuse(&path.index(i), format!("{fault}; {wanted}")),
            Ok(key) => {
                if let Some(first) = earlier.iter().position(|other| *other == key) {
                    findings.refuse(
                        &path.index(i),
                        format!("is the same key as `session.keys[{first}]`; wanted: each key once"),
                    );
                }
                earlier.push(key);
            }
        }
    }
}
