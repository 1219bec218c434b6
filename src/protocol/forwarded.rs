//! `X-Forwarded-For` from trusted peers: who the client is.
//!
//! Stands beside the router: rate limits, logs and the upstream's own `X-Forwarded-For` see this address. Whoever is
//! not trusted may write what they like; it is not read.
//!
//! Source: RFC 7239 §6, §8.1 (walk from the right, stop at the first that is not trusted).

use super::header_name::X_FORWARDED_FOR;
use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The client's address: the peer's, unless the peer is trusted to say who it speaks for.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    let mut client = peer.to_canonical();
    let lines = headers.get_all(&X_FORWARDED_FOR).iter();
    let mut elements = lines
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|b| *b == b','));
    while is_trusted(client, trusted) {
        // What cannot be read ends the trust: whoever wrote it did not say who stands left of it.
        match elements.next().and_then(address) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// Whether a peer is among those who may say who they speak for.
#[must_use]
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// Whether an address is of a private network or this machine: where one's own proxies are.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// An address with or without a port, IPv6 with or without brackets (RFC 7239 §6).
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim();
    let address = text
        .parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    let bracketed = || -> Option<IpAddr> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::from)
    };
    address
        .ok()
        .or_else(bracketed)
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client(peer: &str, lines: &[&str]) -> String {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"]
            .iter()
            .map(|net| net.parse().unwrap())
            .collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                "x-forwarded-for",
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn fh_02_the_client_is_the_rightmost_that_is_not_trusted() {
        for (peer, lines, wanted) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.2.3.4, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.2.3.4, 198.51.100.7 , 10.9.9.9"], "198.51.100.7"),
            (
                "10.0.0.1",
                &["1.2.3.4", "198.51.100.7", "10.9.9.9"],
                "198.51.100.7",
            ),
            ("10.0.0.1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.7, [::ffff:10.3.3.3]"], "198.51.100.7"),
            ("10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("fd00::1", &["198.51.100.7"], "198.51.100.7"),
            // malformed elements end the trust
            ("10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, _x, 10.1.1.1"], "10.1.1.1"),
            ("10.0.0.1", &["198.51.100.7,"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.256"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, for=10.0.0.2"], "10.0.0.1"),
            ("10.0.0.1", &["\u{fc}"], "10.0.0.1"),
            ("10.0.0.1", &["[198.51.100.7]"], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, lines), wanted, "{peer} {lines:?}");
        }
        let many = vec!["10.1.1.1"; 500].join(",");
        assert_eq!(client("10.0.0.1", &[&format!("6.6.6.6,{many}")]), "6.6.6.6");
    }
}
