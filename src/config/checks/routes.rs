//! `routes`.

use super::super::report::{Findings, KeyPath, quoted};
use super::super::settings::{Auth, AuthorizationMode, Csrf, Files, Protocol, RouteSettings, Settings};
use super::grammar::{self, Url};
use super::{lies_under, not_zero};
use crate::protocol::path::is_under;
use std::path::{Component, Path};

/// Segments that say that what is under them is no page.
const NO_PAGES: [&str; 4] = ["api", "graphql", "rest", "rpc"];

pub fn check(settings: &Settings, findings: &mut Findings<'_>) {
    if settings.routes.is_empty() {
        let message = "is empty: everything but cloakroom's own endpoints is 404; add a route, such as `{ path: /, upstream: \"http://app:8080\" }`";
        findings.warn(&KeyPath::root("routes"), message);
    }
    for (i, route) in settings.routes.iter().enumerate() {
        let at = KeyPath::root("routes").index(i);
        path(settings, i, &at.key("path"), findings);
        target(route, settings.server.forward_auth.is_some(), &at, findings);
        access(route, &at, findings);
        exposure(route, &at, findings);
        neighbours(settings, i, &at, findings);
        not_zero(route.timeout, &at.key("timeout"), findings);
    }
}

fn path(settings: &Settings, i: usize, at: &KeyPath, findings: &mut Findings<'_>) {
    let path = &settings.routes[i].path;
    if let Some(doubt) = grammar::path_doubt(path) {
        let message = format!(
            "found {}, which {doubt}; wanted: a path such as /api, on whole segments",
            quoted(path)
        );
        return findings.refuse(at, message);
    }
    if lies_under(path, &settings.prefix) {
        let message = format!(
            "found {}, which is under the prefix, whose paths are cloakroom's own; wanted: another path",
            quoted(path)
        );
        findings.refuse(at, message);
    }
    if let Some(first) = settings.routes[..i].iter().position(|other| other.path == *path) {
        findings.refuse(
            at,
            format!(
                "found {}, which `routes[{first}]` serves already; wanted: each path once",
                quoted(path)
            ),
        );
    }
}

fn target(route: &RouteSettings, has_forward_auth: bool, at: &KeyPath, findings: &mut Findings<'_>) {
    match &route.files {
        Some(files) => {
            if !route.upstream.is_empty() {
                findings.refuse(at, "has both `upstream` and `static`; wanted: one of them");
            }
            fallback(files, &at.key("static").key("fallback"), findings);
        }
        None if route.upstream.is_empty() && !has_forward_auth => {
            findings.warn(at, "has neither `upstream` nor `static`: it is for forward-auth alone, and `server.forward_auth` is not set");
        }
        None => {}
    }
    for (i, upstream) in route.upstream.iter().enumerate() {
        if let Some(doubt) = Url::upstream_doubt(upstream) {
            let message = format!(
                "found {}, which {doubt}; wanted: an origin such as http://orders:8080, or a socket such as unix:/run/orders.sock",
                quoted(upstream)
            );
            findings.refuse(&at.key("upstream").index(i), message);
        }
    }
    if route.protocol == Protocol::H2c
        && let Some(https) = route.upstream.iter().find(|upstream| Url::is_https(upstream))
    {
        let message = format!(
            "is `h2c`, which is HTTP/2 in clear text, and the upstream is {}; wanted: `auto`, which agrees on HTTP/2 in the TLS handshake, or an http upstream",
            quoted(https)
        );
        findings.refuse(&at.key("protocol"), message);
    }
}

/// What a route lets in or out that it need not.
fn exposure(route: &RouteSettings, at: &KeyPath, findings: &mut Findings<'_>) {
    let open = route.auth() == Auth::None;
    if route.csrf == Csrf::Off && !open {
        findings.warn(
            &at.key("csrf"),
            "is `off`: other sites' pages can send requests in the user's name; use auto",
        );
    }
    let no_page = route
        .path
        .split('/')
        .find(|segment| NO_PAGES.iter().any(|word| segment.eq_ignore_ascii_case(word)));
    if let (Some(segment), true, false) = (no_page, route.pages == Some(true), open) {
        let message = format!(
            "lets links on other sites open what is under `{segment}`, with the user's session; leave `pages` to what people look at"
        );
        findings.warn(&at.key("pages"), &message);
    }
    for (i, upstream) in route.upstream.iter().enumerate() {
        if !open && Url::is_plain_to_outside(upstream) {
            let message = "is plain http to a host that looks as if it were outside of your network: access tokens can be read on the way; use https";
            findings.warn(&at.key("upstream").index(i), message);
        }
    }
}

/// The longest path wins, in whatever order they stand, and brings nothing along from the shorter ones.
fn neighbours(settings: &Settings, i: usize, at: &KeyPath, findings: &mut Findings<'_>) {
    let route = &settings.routes[i];
    let around = settings
        .routes
        .iter()
        .enumerate()
        .filter(|(_, other)| other.path != route.path && is_under(&route.path, &other.path))
        .max_by_key(|(_, other)| other.path.len());
    let Some((n, around)) = around else { return };
    let asks = |route: &RouteSettings| !(route.require.scopes.is_empty() && route.require.claims.is_empty());
    // Who writes the key knows what it says.
    if asks(around) && !asks(route) && route.auth() != Auth::None && !findings.is_set(&at.key("require")) {
        let message = format!(
            "is not held to what `routes[{n}]` ({}) requires, because the longest path alone decides; repeat `require` here, or write `require: {{}}` if that is meant",
            around.path
        );
        findings.warn(at, &message);
    }
    if around.auth() == Auth::Required && route.auth() == Auth::None && !findings.is_set(&at.key("auth")) {
        let message = format!(
            "serves files to everybody, although it lies under `routes[{n}]` ({}), which needs a session; write `auth: required`, or `auth: none` if that is meant",
            around.path
        );
        findings.warn(at, &message);
    }
}

fn fallback(files: &Files, at: &KeyPath, findings: &mut Findings<'_>) {
    let Some(name) = &files.fallback else { return };
    let inside = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !inside {
        findings.refuse(
            at,
            format!(
                "found {}; wanted: a file in `root`, such as index.html",
                quoted(name)
            ),
        );
    }
}

fn access(route: &RouteSettings, at: &KeyPath, findings: &mut Findings<'_>) {
    let open = route.auth() == Auth::None;
    if route.authorization == AuthorizationMode::Pass && !open {
        let message = "is `pass`, but this route sends the session's token in `Authorization`; wanted: `replace`, or `auth: none`";
        findings.refuse(&at.key("authorization"), message);
    }
    let require = &route.require;
    if open && !(require.scopes.is_empty() && require.claims.is_empty()) {
        let message = "asks for what a session brings, and with `auth: none` no session is looked at; wanted: `auth: required` or `optional`";
        findings.refuse(&at.key("require"), message);
    }
    for (i, scope) in require.scopes.iter().enumerate() {
        if !grammar::is_scope(scope) {
            let message = format!(
                "found {}; wanted: one scope, without spaces and quotes",
                quoted(scope)
            );
            findings.refuse(&at.key("require").key("scopes").index(i), message);
        }
    }
    for (claim, values) in &require.claims {
        let at = at.key("require").key("claims").key(claim);
        if claim.split('.').any(str::is_empty) {
            findings.refuse(
                &at,
                "is no claim's name; wanted: a name such as groups, or realm_access.roles",
            );
        }
        if values.is_empty() {
            findings.refuse(&at, "is an empty list, which nobody's claim can meet; wanted: the values of which any one suffices");
        }
    }
}
