//! What fits the types and makes no sense is refused here; what is allowed but unwise gets a warning.
//!
//! Comes after the walk, so every value has the right type. One function for each section of the config; a rule that
//! joins two sections stands with the one whose key has to change.

mod files;
mod grammar;
mod providers;
mod redis;
mod routes;
mod secrets;
mod server;
mod session;

pub(super) use files::files;

use super::report::{Findings, KeyPath, quoted};
use super::settings::{LogLevel, Settings};
use crate::protocol::path::is_under;
use std::time::Duration;

/// All checks that need no files but secrets.
pub(super) fn meaning(settings: &Settings, findings: &mut Findings<'_>) {
    own_origin(settings, findings);
    server::check(&settings.server, findings);
    providers::check(settings, findings);
    session::check(settings, findings);
    landing(settings, "login", &settings.login.landing, findings);
    landing(settings, "logout", &settings.logout.landing, findings);
    routes::check(settings, findings);
    secrets::check(settings, findings);
    in_production(settings, findings);
}

/// What is fine on a developer's machine and unwise where `public_url` is https.
fn in_production(settings: &Settings, findings: &mut Findings<'_>) {
    if settings.public_url.scheme() != "https" {
        return;
    }
    // Somebody ends TLS, and it is not us: that one is everybody's peer.
    if settings.limits.logins_per_address.is_some()
        && settings.server.trusted_proxies.is_empty()
        && settings.server.tls.is_empty()
    {
        let message = "counts by address, and with an https `public_url` and no `server.tls` a proxy stands in front, whose address is everybody's; name its network in `server.trusted_proxies`";
        findings.warn(&KeyPath::root("limits").key("logins_per_address"), message);
    }
    if settings.log.level == LogLevel::Trace {
        let message =
            "is `trace`, which is for looking for a fault and writes many lines for each request; use info";
        findings.warn(&KeyPath::root("log").key("level"), message);
    }
}

/// `public_url` and `prefix`.
fn own_origin(settings: &Settings, findings: &mut Findings<'_>) {
    if settings.public_url.scheme() == "http" {
        findings.warn(
            &KeyPath::root("public_url"),
            "is plain http, which is for development only; use https elsewhere",
        );
        if !settings.server.redirect.is_empty() {
            findings.refuse(
                &KeyPath::root("server").key("redirect"),
                "leads to `public_url`, which is plain http; wanted: an https `public_url`, or no redirect",
            );
        }
        if !settings.server.tls.is_empty() {
            findings.refuse(
                &KeyPath::root("public_url"),
                "is plain http, and `server.tls` is set, so browsers come over https; wanted: the https origin that they see",
            );
        }
    }
    let prefix = &settings.prefix;
    let doubt = grammar::path_doubt(prefix)
        .or_else(|| (prefix == "/").then_some("would leave no path for the routes"));
    if let Some(doubt) = doubt {
        let message = format!(
            "found {}, which {doubt}; wanted: a path such as /bff",
            quoted(prefix)
        );
        findings.refuse(&KeyPath::root("prefix"), message);
    }
}

/// Where a login or a logout ends: a path that `return_to` could be, too.
fn landing(settings: &Settings, section: &str, landing: &str, findings: &mut Findings<'_>) {
    let path = KeyPath::root(section).key("landing");
    // As the browser's request will be routed: `/%62ff` is `/bff`.
    let bare = grammar::decoded(landing.split(['?', '#']).next().unwrap_or_default()).unwrap_or_default();
    let doubt = grammar::landing_doubt(landing).or_else(|| {
        lies_under(&bare, &settings.prefix).then_some("is under the prefix, whose paths are cloakroom's own")
    });
    if let Some(doubt) = doubt {
        let message = format!(
            "found {}, which {doubt}; wanted: a path such as / or /app?tab=1",
            quoted(landing)
        );
        return findings.refuse(&path, message);
    }
    let serving = settings
        .routes
        .iter()
        .filter(|route| is_under(&bare, &route.path));
    if serving
        .max_by_key(|route| route.path.len())
        .is_some_and(|route| !route.pages())
    {
        findings.warn(&path, "is served by a route with `pages: false`, which takes no navigation from elsewhere; set `pages: true` there or land elsewhere");
    }
}

/// Whether a path is the prefix or under it, in any case of letters: an upstream may not tell them apart.
fn lies_under(path: &str, prefix: &str) -> bool {
    // A prefix of `/` has been refused already.
    prefix != "/" && is_under(&path.to_ascii_lowercase(), &prefix.to_ascii_lowercase())
}

/// Refuses a span of zero where nothing could ever happen in it.
fn not_zero(span: Duration, path: &KeyPath, findings: &mut Findings<'_>) {
    if span.is_zero() {
        findings.refuse(
            path,
            "is zero, which leaves no time at all; wanted: a duration such as 30s",
        );
    }
}

/// Refuses a limit of zero, under which nothing would work.
fn not_none(limit: usize, path: &KeyPath, findings: &mut Findings<'_>) {
    if limit == 0 {
        findings.refuse(
            path,
            "found the number 0, which lets nothing in; wanted: a whole number from 1",
        );
    }
}
