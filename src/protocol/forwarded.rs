//! `X-Forwarded-For` from trusted peers: who the client is.
//!
//! Source: RFC 7239 §6, §8.1 (walk from the right, stop at the first that is not trusted).

use http::HeaderMap;
use ipnet::IpNet;
use std::net::IpAddr;

/// The client's address: the peer's, unless the peer is trusted to say who it speaks for.
#[must_use]
pub fn client_address(_peer: IpAddr, _headers: &HeaderMap, _trusted: &[IpNet]) -> IpAddr {
    unimplemented!()
}
