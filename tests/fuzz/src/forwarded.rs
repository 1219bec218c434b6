//! What peers say of a request: who asks (`X-Forwarded-For`), and what an ingress asks about (contract 2 `trusted_proxies`,
//! 4.11, 6.1, 6.3; standards FH-01…FH-05, HP-14).
//!
//! The fuzzer's first byte chooses the peer, its second whether anybody is trusted; the rest is a request's header lines.

use cloakroom::protocol::origin::PublicUrl;
use cloakroom::protocol::original_request::{
    Original, from_forwarded, from_nginx, poses_as_somebody, restore_upgrade,
};
use cloakroom::protocol::{forwarded, hop_by_hop, host};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use url::Url;

const PEERS: [&str; 7] = [
    "10.0.0.1",
    "192.0.2.1",
    "::ffff:10.0.0.1",
    "::ffff:192.0.2.1",
    "fd00::1",
    "2001:db8::1",
    "127.0.0.1",
];

static TRUSTED: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let nets = ["10.0.0.0/8", "fd00::/8"];
    nets.iter().map(|net| net.parse().expect("a network")).collect()
});
static OURS: LazyLock<PublicUrl> =
    LazyLock::new(|| PublicUrl::parse("https://app.example.com").expect("an origin"));

/// The URL and method headers of the two families of ingresses.
const FORWARDED_FAMILY: [&str; 4] = [
    "x-forwarded-method",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-uri",
];
const NGINX_FAMILY: [&str; 2] = ["x-original-method", "x-original-url"];

/// # Panics
/// Where something was believed that the rules do not believe.
pub fn check(data: &[u8]) {
    let [peer, trust, lines @ ..] = data else {
        return;
    };
    let peer: IpAddr = PEERS[usize::from(*peer) % PEERS.len()]
        .parse()
        .expect("an address");
    let trusted: &[IpNet] = if trust % 4 == 0 { &[] } else { &TRUSTED };
    let headers = headers(lines);
    check_client(peer, trusted, &headers);
    check_question(&headers);
    check_what_is_dropped(&headers);
    let _ = poses_as_somebody(&headers);
    restore_upgrade(&mut headers.clone());
    for target in ["/", "https://app.example.com/x", "*"] {
        let target: Uri = target.parse().expect("a target");
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let _ = host::authority(version, &Method::GET, &target, &headers);
        }
    }
}

fn headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// RFC 7239 §8.1: from the right, as long as who says it is trusted.
fn check_client(peer: IpAddr, trusted: &[IpNet], headers: &HeaderMap) {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let lines: Vec<&[u8]> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = lines.join(&b',');
    let mut said: Vec<&[u8]> = if lines.is_empty() {
        Vec::new()
    } else {
        joined.split(|byte| *byte == b',').collect()
    };
    let mut wanted = peer.to_canonical();
    while is_trusted(&wanted) {
        match said.pop().and_then(address) {
            Some(address) => wanted = address,
            None => break,
        }
    }
    let client = forwarded::client_address(peer, headers, trusted);
    assert_eq!(client, wanted);
    assert_eq!(
        forwarded::is_trusted(peer, trusted),
        is_trusted(&peer.to_canonical())
    );
    if !is_trusted(&peer.to_canonical()) {
        assert_eq!(client, peer.to_canonical(), "a stranger says who it is");
    }
}

/// An address, with or without port and brackets.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim();
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bracketed {
        Some(inner) => IpAddr::V6(inner.parse().ok()?),
        None => match text.parse::<SocketAddr>() {
            Ok(socket) => socket.ip(),
            Err(_) => text.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

/// A name as whoever reads it as a variable of CGI sees it.
fn flat(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect()
}

/// 6.3: one family, each of its headers once and in its own spelling, and nothing of the other's.
fn check_question(headers: &HeaderMap) {
    let spelt = |name: &str| {
        headers
            .iter()
            .filter(|(found, _)| flat(found.as_str()) == name)
            .count()
    };
    let is_whole = |own: &[&str], other: &[&str]| {
        own.iter()
            .all(|name| spelt(name) == 1 && headers.contains_key(*name))
            && other.iter().all(|name| spelt(name) == 0)
    };
    let (forwarded, nginx) = (from_forwarded(headers), from_nginx(headers));
    if let Ok(original) = &forwarded {
        assert!(is_whole(&FORWARDED_FAMILY, &NGINX_FAMILY), "{headers:?}");
        assert_eq!(headers["x-forwarded-uri"], &*original.target);
        assert_eq!(headers["x-forwarded-host"], original.host);
        check_original(original, headers["x-forwarded-proto"].to_str().expect("text"));
    }
    if let Ok(original) = &nginx {
        assert!(
            is_whole(&NGINX_FAMILY, &["x-forwarded-method", "x-forwarded-uri"]),
            "{headers:?}"
        );
        let url = headers["x-original-url"].to_str().expect("text");
        let (scheme, rest) = url.split_once("://").expect("a URL");
        assert!(rest.starts_with(original.host));
        let target = &rest[original.host.len()..];
        assert!(
            target == original.target || format!("/{target}") == original.target,
            "{url}"
        );
        check_original(original, scheme);
    }
    assert!(forwarded.is_err() || nginx.is_err(), "both dialects at once");
}

fn check_original(original: &Original<'_>, scheme: &str) {
    let (host, target) = (original.host, &*original.target);
    assert!(["https", "http", "wss", "ws"].contains(&scheme));
    assert!(
        target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic() && b != b'#'),
        "{target:?}"
    );
    assert!(
        !host.is_empty() && !host.contains(['/', '\\', '@', '?', '#', ' ']),
        "{host:?}"
    );
    assert_eq!(
        original.path(),
        target.split_once('?').map_or(target, |(path, _)| path)
    );
    // What passes for ours is ours for a browser, too.
    if OURS.is_host(host) {
        let url = Url::parse(&format!("https://{host}{target}")).expect("our host makes a URL");
        assert_eq!(
            url.host_str().map(|host| host.trim_end_matches('.')),
            Some("app.example.com")
        );
        assert!(url.username().is_empty() && url.port().is_none());
    }
}

/// 4.11: what only a proxy may say is gone, in any spelling; and what `Connection` names.
fn check_what_is_dropped(headers: &HeaderMap) {
    let mut up = headers.clone();
    hop_by_hop::remove(&mut up);
    hop_by_hop::remove_if(&mut up, |name| hop_by_hop::is_ours_to_say(name, false));
    for name in up.keys().map(|name| flat(name.as_str())) {
        let families = ["x-forwarded-", "x-original-", "x-auth-request-", "proxy-"];
        assert!(
            !families.iter().any(|family| name.starts_with(family)),
            "{name} goes up"
        );
        let singles = [
            "authorization",
            "forwarded",
            "x-real-ip",
            "x-rewrite-url",
            "x-http-method-override",
            "connection",
            "keep-alive",
            "te",
            "transfer-encoding",
            "upgrade",
            "trailer",
            "x-request-id",
        ];
        assert!(!singles.contains(&&*name), "{name} goes up");
    }
    let lines: Vec<&[u8]> = headers
        .get_all("connection")
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    for named in lines.join(&b',').split(|byte| *byte == b',') {
        let named = String::from_utf8_lossy(named.trim_ascii()).to_ascii_lowercase();
        assert!(
            !up.keys().any(|name| name.as_str() == named),
            "{named} is named in Connection and goes up"
        );
    }
    for (name, value) in &up {
        assert!(
            headers.get_all(name).iter().any(|sent| sent == value),
            "{name} has changed"
        );
    }
}
