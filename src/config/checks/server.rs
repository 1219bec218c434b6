//! `server`.

use super::super::report::{Findings, KeyPath, quoted};
use super::super::secrets::SecretSource;
use super::super::settings::{AdminTls, Server};
use super::{grammar, not_none, not_zero};
use std::net::SocketAddr;
use std::time::Duration;

/// What Kubernetes gives a pod to end, less a moment for the rest; `docker stop` gives ten seconds.
const GRACE: Duration = Duration::from_secs(28);
/// The least that a request head may be limited to: cloakroom's own cookies alone may take four thousand bytes.
const LEAST_HEAD: u64 = 8 * 1024;

/// What can be guessed, in characters: 128 bits take 22 of base64url.
const LEAST_TOKEN: usize = 22;

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
    let known = server.admin_tls.as_ref().is_some_and(AdminTls::knows_its_clients);
    if server.admin.ip().is_unspecified() && !known && !findings.in_pod {
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
    if let Some(token) = &server.admin_token {
        admin_token(server, token, &key("admin_token"), findings);
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

/// The token lists and ends sessions: it should neither be guessed nor read on its way.
fn admin_token(server: &Server, token: &SecretSource, at: &KeyPath, findings: &mut Findings<'_>) {
    // One that cannot be read is a matter of the check of all secrets.
    if let Ok(text) = token.current() {
        let shown = |byte: u8| byte.is_ascii_graphic();
        if !text.expose().bytes().all(shown) {
            let message = "holds what no header can carry; wanted: letters, digits and signs of ASCII; `cloakroom keys generate` makes one";
            return findings.refuse(at, message);
        }
        if text.expose().len() < LEAST_TOKEN {
            let message = "is short enough to be guessed by who reaches `server.admin`; use 32 characters or more: `cloakroom keys generate` makes one";
            findings.warn(at, message);
        }
    }
    // In a pod nobody asks from elsewhere but by way of the node: what may is the network policy's to say.
    if !server.admin.ip().is_loopback() && server.admin_tls.is_none() && !findings.in_pod {
        let message = "is sent in clear to `server.admin`, which is not on loopback, so whoever reads that network can end sessions; set `server.admin_tls`, or let `admin` listen on 127.0.0.1, and ask from that machine";
        findings.warn(at, message);
    }
}

/// Every listener has an address of its own.
fn listeners(server: &Server, findings: &mut Findings<'_>) {
    let key = |name: &str| KeyPath::root("server").key(name);
    let lists = [("listen", &server.listen), ("redirect", &server.redirect)];
    let public = lists.into_iter().flat_map(|(name, addresses)| {
        let numbered = addresses.iter().enumerate();
        numbered.map(move |(i, address)| (key(name).index(i), *address))
    });
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
