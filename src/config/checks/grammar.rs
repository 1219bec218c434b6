//! The grammars of paths, URLs, host names and tokens in the config.
//!
//! Each answers with the doubt that it has, as a clause ("holds a dot segment"), or none. Sources: RFC 3986 §2, §3;
//! RFC 6749 appendix A; RFC 9110 §5.6.2.

use crate::protocol::origin::is_loopback_name;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest landing path, in bytes: as long as a `return_to` may be.
const LONGEST_LANDING: usize = 1024;

/// What is wrong with the path of a route, of the prefix or of a redirect URI: whole segments, written out.
pub fn path_doubt(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        Some("does not begin with /")
    } else if !path.bytes().all(|b| b.is_ascii_graphic()) {
        Some("holds something other than printable ASCII")
    } else if path.contains('*') {
        Some("holds a *: a path covers all that is under it anyway")
    } else if path.contains(['%', ';', '?', '#', '\\']) {
        Some("holds one of % ; ? # \\")
    } else if !path.bytes().all(|b| b == b'/' || is_pchar(b)) {
        Some("holds a character that is in no URL's path")
    } else if path.contains("//") {
        Some("holds //")
    } else if path.split('/').any(is_dots) {
        Some("holds a dot segment")
    } else if path.len() > 1 && path.ends_with('/') {
        Some("ends in /")
    } else {
        None
    }
}

/// What is wrong with a place to land after a login or logout.
pub fn landing_doubt(landing: &str) -> Option<&'static str> {
    let (path, rest) = landing.split_at(landing.find(['?', '#']).unwrap_or(landing.len()));
    if landing.len() > LONGEST_LANDING {
        Some("is longer than 1024 bytes")
    } else if !path.starts_with('/') {
        Some("does not begin with /")
    } else if path.contains("//") {
        Some("holds //")
    } else if !landing.bytes().all(|b| b.is_ascii_graphic()) || landing.contains(['\\', '"', '<', '>']) {
        Some("holds something that belongs escaped")
    } else if rest.matches('#').count() > 1 {
        Some("holds a second #")
    } else {
        decoded(path).map_or(Some("holds an escape that can be read in two ways"), |path| {
            let dotted = |segment: &str| segment.split(';').next().is_some_and(is_dots);
            path.split('/').any(dotted).then_some("holds a dot segment")
        })
    }
}

/// A path without its escapes; none where one of them is malformed, or stands for a control, `%`, `/`, `\` or `.`.
pub fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = if *first == b'%' {
            let digits = str::from_utf8(after.get(..2)?).ok()?;
            let byte = digits
                .bytes()
                .all(|b| b.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(digits, 16).ok())??;
            (!byte.is_ascii_control() && !b"%/\\.".contains(&byte)).then_some((byte, &after[2..]))?
        } else {
            (*first == b'/' || *first == b';' || is_pchar(*first)).then_some((*first, after))?
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// RFC 3986 §3.3, without escapes and `;`.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

/// An absolute http or https URL, in parts.
pub struct Url<'a> {
    https: bool,
    host: &'a str,
    /// Path, query and fragment.
    rest: &'a str,
}

impl<'a> Url<'a> {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// The doubt: no URL, another scheme, a user name or password, no host, no port.
    pub fn parse(text: &'a str) -> Result<Self, &'static str> {
        // RFC 3986 §2: what no URL holds unescaped.
        if !text.bytes().all(|b| b.is_ascii_graphic())
            || text.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}'])
        {
            return Err("is no URL");
        }
        let (scheme, after) = text.split_once("://").ok_or("has no http or https scheme")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("has no http or https scheme"),
        };
        let (authority, rest) = after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len()));
        if authority.contains('@') {
            return Err("holds a user name or a password");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if !is_host(host) {
            return Err("has no valid host");
        }
        if port.is_some_and(|port| !is_port(port)) {
            return Err("has a port that is none");
        }
        // What the HTTP library does not take either.
        text.parse::<http::Uri>().map_err(|_| "is no URL")?;
        Ok(Self { https, host, rest })
    }

    /// Whether it is plain http to a host that looks as if it were outside of the own network.
    pub fn is_plain_to_outside(text: &str) -> bool {
        Url::parse(text).is_ok_and(|url| !url.https && is_outside(url.host))
    }

    /// Whether it is https.
    pub fn is_https(text: &str) -> bool {
        Url::parse(text).is_ok_and(|url| url.https)
    }

    /// The host of a URL; none where the text is no URL.
    pub fn host(text: &'a str) -> Option<&'a str> {
        Url::parse(text).ok().map(|url| url.host)
    }

    /// The doubt about a URL of a provider: https, loopback excepted; no fragment; a query only if allowed.
    pub fn provider_doubt(text: &str, query_allowed: bool) -> Option<&'static str> {
        match Url::parse(text) {
            Err(doubt) => Some(doubt),
            Ok(url) if !url.https && !is_loopback(url.host) => Some("is plain http, and not on this machine"),
            Ok(url) if url.rest.contains('#') => Some("holds a fragment"),
            Ok(url) if url.rest.contains('?') && !query_allowed => Some("holds a query"),
            Ok(_) => None,
        }
    }

    /// The doubt about an upstream: an origin and nothing else, or a socket.
    pub fn upstream_doubt(text: &str) -> Option<&'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_absolute = path.starts_with('/') && !path.starts_with("//") && path.len() > 1;
            return (!is_absolute).then_some("is a socket without an absolute path");
        }
        match Url::parse(text) {
            Err(doubt) => Some(doubt),
            Ok(url) if !matches!(url.rest, "" | "/") => Some("holds more than scheme, host and port"),
            Ok(_) => None,
        }
    }
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    ip(host).map_or_else(
        || is_loopback_name(&host.to_ascii_lowercase()),
        |ip| ip.is_loopback(),
    )
}

fn ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether only a cluster or a container network knows the name: a browser cannot be sent there.
pub fn is_cluster_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let mut labels = host.rsplit('.');
    matches!(
        (labels.next(), labels.next()),
        (Some("svc"), _) | (Some("local"), Some("cluster")) | (_, None)
    ) && ip(&host).is_none()
        && !is_loopback_name(&host)
}

/// Whether a host looks as if it were outside of the own network: a public address, or a name under a domain that the
/// internet knows. Inside, plain http is what clusters do, and no mistake.
pub fn is_outside(host: &str) -> bool {
    const INSIDE: [&str; 10] = [
        "svc",
        "local",
        "internal",
        "lan",
        "arpa",
        "localhost",
        "intranet",
        "private",
        "corp",
        "test",
    ];
    match ip(host).map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(v4)) => {
            let is_shared = v4 & Ipv4Addr::new(255, 192, 0, 0) == Ipv4Addr::new(100, 64, 0, 0);
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || is_shared)
        }
        Some(IpAddr::V6(v6)) => {
            !(v6.is_loopback()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6 == Ipv6Addr::UNSPECIFIED)
        }
        None => {
            let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            host.rsplit_once('.')
                .is_some_and(|(_, domain)| !INSIDE.contains(&domain))
        }
    }
}

/// A host name or IP address as it stands in a URL.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    // Underscores are in no host name by the letter, and in many a container's.
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Whether a text is what stands in `Host`: a name or an address, and maybe a port.
pub fn is_host_and_port(text: &str) -> bool {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => is_host(host) && is_port(port),
        _ => is_host(text),
    }
}

/// Whether a text is a `scope-token` (RFC 6749 §3.3).
pub fn is_scope(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

/// Whether a text is a `token` (RFC 9110 §5.6.2), as a cookie's name has to be.
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_reading() {
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/a-b_c~d.e",
            "/.well-known/x",
            "/@me",
            "/a:b",
        ] {
            assert_eq!(path_doubt(path), None, "{path}");
        }
        for path in [
            "", "api", "/api/", "//", "/a//b", "/.", "/a/../b", "/%61", "/a;b", "/a?b", "/a#b", "/a\\b",
            "/ä", "/a b", "/*", "/{id}", "/a\n", "/<",
        ] {
            assert!(path_doubt(path).is_some(), "{path}");
        }
    }

    #[test]
    fn a_landing_is_what_a_return_to_could_be() {
        for landing in [
            "/",
            "/app/",
            "/app?next=http://x&y=%2F#z",
            "/caf%C3%A9",
            "/a;b=1",
            "/a?b?c",
        ] {
            assert_eq!(landing_doubt(landing), None, "{landing}");
        }
        for landing in [
            "",
            "app",
            "//evil.example",
            "https://evil.example",
            "/\\evil",
            "/a//b",
            "/%2f",
            "/%2e%2e",
            "/..",
            "/..;x",
            "/a%00",
            "/%25",
            "/%5c",
            "/%e9",
            "/%zz",
            "/%+1",
            "/a?\"",
            "/a?ä",
            "/a#b#c",
            "/a b",
        ] {
            assert!(landing_doubt(landing).is_some(), "{landing}");
        }
        assert!(landing_doubt(&format!("/{}", "a".repeat(1024))).is_some());
    }

    #[test]
    fn an_upstream_is_an_origin() {
        for url in [
            "http://orders:8080",
            "https://a.example/",
            "http://[::1]:80",
            "http://under_score",
            "HTTP://A",
            "http://10.0.0.1",
            "unix:/run/x.sock",
        ] {
            assert_eq!(Url::upstream_doubt(url), None, "{url}");
        }
        for url in [
            "",
            "orders:8080",
            "http://",
            "http:///",
            "http://a/b",
            "http://a?b",
            "http://a#b",
            "http://u@a",
            "http://u:p@a",
            "ftp://a",
            "http://a:0",
            "http://a:70000",
            "http://a:",
            "http://a:+8",
            "http://[::1",
            "http://a b",
            "http://ä",
            "unix:run/x",
            "unix:",
            "unix:/",
            "unix://run/x",
            "UNIX:/run/x",
            "http://a..b",
            "http://-:x",
            "http://a\\b",
        ] {
            assert!(Url::upstream_doubt(url).is_some(), "{url}");
        }
    }

    #[test]
    fn what_is_inside_and_what_only_a_cluster_knows() {
        for host in [
            "orders",
            "orders.default.svc",
            "a.svc.cluster.local",
            "api.corp",
            "10.1.2.3",
            "172.20.0.1",
            "[fd00::1]",
            "127.0.0.1",
            "100.64.0.1",
            "x.localhost",
            "nas.home.arpa",
        ] {
            assert!(!is_outside(host), "{host}");
        }
        for host in [
            "api.example.com",
            "API.example.com.",
            "8.8.8.8",
            "100.128.0.1",
            "[2001:db8::1]",
        ] {
            assert!(is_outside(host), "{host}");
        }
        for host in [
            "keycloak",
            "keycloak.auth.svc",
            "Keycloak.auth.svc.cluster.local.",
        ] {
            assert!(is_cluster_name(host), "{host}");
        }
        for host in [
            "localhost",
            "id.example.com",
            "10.0.0.1",
            "[::1]",
            "op.localhost",
            "sso.corp",
        ] {
            assert!(!is_cluster_name(host), "{host}");
        }
    }

    #[test]
    fn a_provider_is_asked_over_https_or_on_this_machine() {
        for url in [
            "https://id.example.com/realms/a",
            "http://localhost:9/x",
            "http://127.0.0.2",
            "http://[::1]:9",
            "http://a.localhost",
        ] {
            assert_eq!(Url::provider_doubt(url, false), None, "{url}");
        }
        for url in [
            "http://id.example.com",
            "https://a/?b",
            "https://a#b",
            "https://u@a",
            "http://localhost.example.com",
            "https://a/{tenant}",
        ] {
            assert!(Url::provider_doubt(url, false).is_some(), "{url}");
        }
        assert_eq!(Url::provider_doubt("https://a/?p=b2c", true), None);
    }
}
