//! What leaves for the upstream (contract 4.11): the request as it came, less what only concerns this connection, less
//! what only we may say, plus what we say.
//!
//! The order is the safeguard: first everything goes that the browser may have made up or named in `Connection`, then our
//! own headers are set, so that no browser can take them away or stand beside them.
//!
//! Sources: RFC 9110 §7.6.1, §7.6.3 (Via), §7.7 (a proxy does not rewrite path and query).

use super::{Passage, cookies, trace_context};
use crate::answer::Failure;
use crate::config::{Auth, AuthorizationMode, HostMode};
use crate::protocol::header_name::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID};
use crate::protocol::hop_by_hop;
use http::header::{AUTHORIZATION, HOST, TE, TRAILER, TRANSFER_ENCODING, VIA};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, request::Parts};
use std::net::IpAddr;
use std::sync::LazyLock;

/// Our line in `Via`. The name is this process's own: another cloakroom on the way is no loop.
fn via() -> &'static HeaderValue {
    static VIA_US: LazyLock<HeaderValue> = LazyLock::new(|| {
        let mut name = [0; 8];
        // Without random bits the name would be another's as well, and a chain of two would pass for a loop.
        let _ = aws_lc_rs::rand::fill(&mut name);
        let line = format!("1.1 cloakroom-{:016x}", u64::from_be_bytes(name));
        HeaderValue::try_from(line).unwrap_or(HeaderValue::from_static("1.1 cloakroom"))
    });
    &VIA_US
}

/// Whether this process has sent the request up already: "a proxy can use the Via header field to detect a request loop"
/// (RFC 9110 §7.6.3). Without an end to it one request would take a connection after the other.
pub fn comes_from_us(headers: &HeaderMap) -> bool {
    let ours = via().as_bytes();
    headers
        .get_all(VIA)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .any(|hop| hop.trim_ascii().starts_with(ours))
}

/// Changes a request's head into the one that goes up. `is_chunked`: its body's length is not known; `takes_trailers`: the
/// browser's side does.
pub fn prepare(
    parts: &mut Parts,
    passage: &Passage<'_>,
    is_chunked: bool,
    takes_trailers: bool,
) -> Result<(), Failure> {
    let announced = is_chunked.then(|| trailers(&parts.headers)).flatten();
    let headers = &mut parts.headers;
    let passes_authorization = passes_authorization(passage);
    hop_by_hop::remove_and(headers, |name| {
        hop_by_hop::is_ours_to_say(name, passes_authorization)
    });
    cookies::strip(headers, passage.session_cookie);

    if let Some(bearer) = &passage.bearer {
        headers.insert(AUTHORIZATION, bearer.clone());
    }
    headers.insert(&X_FORWARDED_FOR, address(passage.client)?);
    headers.insert(
        &X_FORWARDED_PROTO,
        HeaderValue::from_static(passage.public_url.scheme()),
    );
    let public_host = passage.public_url.authority_value();
    match passage.route.host {
        HostMode::Keep => headers.insert(HOST, public_host.clone()),
        // The upstream that is chosen puts its own name.
        HostMode::Rewrite => headers.remove(HOST),
    };
    headers.insert(&X_FORWARDED_HOST, public_host);
    headers.insert(&X_REQUEST_ID, value(passage.request_id)?);
    trace_context::carry_on(headers);
    // "A gateway […] MUST send an appropriate Via header field in each inbound request message" (RFC 9110 §7.6.3).
    headers.append(VIA, via().clone());
    if is_chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        if let Some(announced) = announced {
            headers.insert(TRAILER, announced);
        }
    }
    if takes_trailers {
        // For an upstream that speaks HTTP/2; gRPC servers insist on it.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    parts.uri = target(&parts.uri, passage)?;
    Ok(())
}

fn passes_authorization(passage: &Passage<'_>) -> bool {
    passage.route.authorization == AuthorizationMode::Pass && passage.route.auth() == Auth::None
}

/// Path and query as they came, in origin form; without the route's prefix where it says so.
fn target(uri: &Uri, passage: &Passage<'_>) -> Result<Uri, Failure> {
    let sent = uri.path_and_query().cloned();
    let target = if passage.route.strip_prefix {
        let mut target = passage.path.strip_prefix(&passage.route.path);
        if let Some(query) = uri.query() {
            target.push('?');
            target.push_str(query);
        }
        Some(
            PathAndQuery::try_from(target)
                .map_err(|_| Failure::BadRequest("the request target is malformed"))?,
        )
    } else {
        sent
    };
    Ok(target.map(Uri::from).unwrap_or_default())
}

/// The trailers that a message announces and that may go on.
pub fn trailers(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut only = HeaderMap::new();
    for name in headers.get_all(TRAILER).iter().flat_map(hop_by_hop::tokens) {
        only.insert(name, HeaderValue::from_static(""));
    }
    drop_forbidden(&mut only);
    let names: Vec<&str> = only.keys().map(HeaderName::as_str).collect();
    (!names.is_empty()).then(|| HeaderValue::try_from(names.join(", ")).ok())?
}

/// Removes what is no trailer. One is never merged into the headers, but whoever reads it could: what frames, routes,
/// authenticates, dates a message or bears a cookie does not go on (RFC 9110 §6.5.1).
pub fn drop_forbidden(trailers: &mut HeaderMap) {
    hop_by_hop::remove_and(trailers, |name| {
        hop_by_hop::is_ours_to_say(name, false)
            || name.starts_with("access-control-")
            || matches!(
                name,
                "cookie"
                    | "set-cookie"
                    | "host"
                    | "content-length"
                    | "content-type"
                    | "content-encoding"
                    | "content-range"
                    | "cache-control"
                    | "clear-site-data"
                    | "location"
                    | "www-authenticate"
                    | "via"
                    | "traceparent"
                    | "expect"
                    | "range"
                    | "max-forwards"
                    | "age"
                    | "date"
                    | "expires"
                    | "vary"
                    | "retry-after"
            )
    });
}

/// As `Display` writes it; most are of IPv4, and come with each request.
fn address(address: IpAddr) -> Result<HeaderValue, Failure> {
    let IpAddr::V4(v4) = address else {
        return value(&address.to_string());
    };
    let (mut text, mut length) = ([b'.'; 16], 0);
    for octet in v4.octets() {
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let leading = digits[..2].iter().take_while(|digit| **digit == 0).count();
        for digit in &digits[leading..] {
            text[length] = b'0' + digit;
            length += 1;
        }
        length += 1; // the dot, of which the last one is none
    }
    HeaderValue::from_bytes(&text[..length - 1]).map_err(|_| Failure::Internal)
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| Failure::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_library_writes_it() {
        for n in 0..=255 {
            for octets in [[n, 0, 10, 99], [100, n, 255, 9], [1, 109, n, n]] {
                let one = IpAddr::from(octets);
                assert_eq!(address(one).unwrap(), one.to_string());
            }
        }
        assert_eq!(address("2001:db8::1".parse().unwrap()).unwrap(), "2001:db8::1");
    }
}
