//! `server`.

use super::super::report::{Findings, KeyPath, quoted};
use super::super::settings::Server;
use super::{grammar, not_none, not_zero};
use std::net::SocketAddr;
use std::time::Duration;

/// What Kubernetes gives a pod to end, less a moment for the rest; `docker stop` gives ten seconds.
const GRACE: Duration = Duration::from_secs(28);
/// The least that a request head may be limited to: cloakroom's own cookies alone may take four thousand bytes.
const LEAST_HEAD: u64 = 8 * 1024;

pub fn check(server: &Server, findings: &mut Findings<'_>) {
    let key = |name: &str| KeyPath::root("server").key(name);
    listeners(server, findings);
    if server.forward_auth.is_some() && server.trusted_proxies.is_empty() {
        findings.refuse(
            &key("forward_auth"),
            "needs `server.trusted_proxies`, the networks that may ask here",
        );
    }
    // In a pod the probes come from outside of it, and what else may is the network policy's to say.
    if server.admin.ip().is_unspecified() && !findings.in_pod {
        let message = "listens on every network of this machine, where health and metrics need no password; use 127.0.0.1:9090, or an address that only probes and Prometheus reach";
        findings.warn(&key("admin"), message);
    }
    if server.drain_delay + server.drain_timeout > GRACE {
        let name = if findings.is_set(&key("drain_timeout")) {
            "drain_timeout"
        } else {
            "drain_delay"
        };
        let message = "makes a stop, `drain_delay` and `drain_timeout` together, longer than the 30s after which Kubernetes kills a pod (docker stop: 10s); shorten it, or raise terminationGracePeriodSeconds (stop_grace_period, TimeoutStopSec) above it";
        findings.warn(&key(name), message);
    }
    if server.admin_token.is_some() {
        findings.warn(&key("admin_token"), "is not used yet");
    }
    for (i, host) in server.hosts.iter().enumerate() {
        if !grammar::is_host_and_port(host) {
            let message = format!(
                "found {}; wanted: a host name, and a port where only one is meant, such as cloakroom.default.svc:8080",
                quoted(host)
            );
            findings.refuse(&key("hosts").index(i), message);
        }
    }
    for (i, network) in server.trusted_proxies.iter().enumerate() {
        if network.prefix_len() == 0 {
            let message = "trusts everybody's X-Forwarded-*, so everybody can choose the address in logs and limits; name the proxies' networks";
            findings.warn(&key("trusted_proxies").index(i), message);
        }
    }
    not_zero(server.header_timeout, &key("header_timeout"), findings);
    if server.max_header_size < LEAST_HEAD {
        findings.refuse(
            &key("max_header_size"),
            "is too small for cookies and a URL; wanted: 8KiB or more",
        );
    }
    not_none(server.max_headers, &key("max_headers"), findings);
    not_none(server.max_connections, &key("max_connections"), findings);
}

/// Every listener has an address of its own.
fn listeners(server: &Server, findings: &mut Findings<'_>) {
    let key = |name: &str| KeyPath::root("server").key(name);
    let public = server
        .listen
        .iter()
        .enumerate()
        .map(|(i, address)| (key("listen").index(i), *address));
    let others = [
        ("admin", Some(server.admin)),
        ("forward_auth", server.forward_auth),
    ];
    let others = others
        .into_iter()
        .filter_map(|(name, address)| Some((key(name), address?)));
    let all: Vec<(KeyPath, SocketAddr)> = public.chain(others).collect();
    for (i, (path, address)) in all.iter().enumerate() {
        if let Some((other, taken)) = all[..i].iter().find(|(_, earlier)| collide(*earlier, *address)) {
            findings.refuse(path, format!("found `{address}`, which `{other}` ({taken}) takes already; wanted: an address of its own"));
        }
    }
}

/// Whether one machine cannot listen on both. Port 0 is any free one.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let same_ip = a.ip() == b.ip() || same_family && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() != 0 && a.port() == b.port() && same_ip
}
