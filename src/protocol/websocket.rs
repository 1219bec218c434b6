//! Whether a request asks for a WebSocket.
//!
//! One answer for the guard (which judges such requests by `Origin` alone) and for the proxy (which opens a tunnel
//! only for them): were there two, a request could be judged as one thing and forwarded as the other.
//!
//! Over HTTP/2 a handshake is an extended CONNECT; what it says is read into the form that it has in HTTP/1.1 before
//! anybody asks, and its answer back.
//!
//! Sources: RFC 6455 §4.1, §4.2; RFC 8441 §5; RFC 9110 §7.8.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

/// Reads the head of an extended CONNECT for this protocol as HTTP/1.1 would have it, if that is `websocket`: "the GET
/// method is used" there, with `Upgrade` and `Connection`, which HTTP/2 has no place for, and a key of our own, for
/// "Sec-WebSocket-Key […] is not used" (RFC 8441 §5). Whether it was one; without random bits it is left as it is.
pub fn read_extended_connect(protocol: &str, method: &mut Method, headers: &mut HeaderMap) -> bool {
    let mut nonce = [0; 16];
    if *method != Method::CONNECT
        || !protocol.eq_ignore_ascii_case("websocket")
        || aws_lc_rs::rand::fill(&mut nonce).is_err()
    {
        return false;
    }
    let Ok(key) = HeaderValue::try_from(STANDARD.encode(nonce)) else {
        return false;
    };
    *method = Method::GET;
    headers.insert(SEC_WEBSOCKET_KEY, key);
    say_upgrade(headers);
    true
}

/// Turns the head of an upgrade's answer into that of an extended CONNECT's, where the upgrade was agreed on: "the request
/// is successful" with a status of 2xx instead of 101, and "Sec-WebSocket-Accept […] is not used" (RFC 8441 §5). False where
/// any other success would pass for such an agreement.
#[must_use]
pub fn answer_extended_connect(status: &mut StatusCode, headers: &mut HeaderMap) -> bool {
    if *status != StatusCode::SWITCHING_PROTOCOLS {
        return !status.is_success();
    }
    *status = StatusCode::OK;
    // "A server MUST NOT send any Transfer-Encoding or Content-Length header fields in a 2xx (Successful) response to
    // CONNECT" (RFC 9110 §9.3.6).
    for gone in [
        CONNECTION,
        UPGRADE,
        SEC_WEBSOCKET_ACCEPT,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
    ] {
        headers.remove(gone);
    }
    true
}

/// Says to the next hop that this message switches.
pub fn say_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Whether this is the whole of a WebSocket's opening handshake: a GET without a body, `Upgrade: websocket` and nothing
/// else, version 13 and a key; over HTTP/1.1, or over HTTP/2 as it was read, for there nobody can send an `Upgrade`. Any
/// other `Upgrade` is no upgrade: the request goes as plain HTTP.
#[must_use]
pub fn is_upgrade(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    method == Method::GET
        && matches!(version, Version::HTTP_11 | Version::HTTP_2)
        && only(headers, &UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(super::hop_by_hop::tokens)
            .any(|option| option == UPGRADE)
        && only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|value| value == "13")
        && only(headers, &SEC_WEBSOCKET_KEY).is_some_and(is_key)
        && !headers.contains_key(TRANSFER_ENCODING)
        && headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
}

/// Whether these are a handshake's headers whose `Upgrade` got lost: it is hop-by-hop, and a proxy that is not told to
/// passes on only the others (RFC 9110 §7.8).
#[must_use]
pub fn is_without_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(SEC_WEBSOCKET_KEY) && !headers.contains_key(UPGRADE)
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    lines.next().is_none().then_some(line)
}

/// "a base64-encoded value that, when decoded, is 16 bytes in length" (RFC 6455 §4.2.1): 22 digits and `==`.
fn is_key(value: &HeaderValue) -> bool {
    let key = value.as_bytes();
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ws_02_an_extended_connect_for_a_websocket_is_read_as_an_upgrade() {
        let read = |protocol, mut method: Method| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("the browser's"));
            let was_one = read_extended_connect(protocol, &mut method, &mut headers);
            assert_eq!(was_one, is_upgrade(&method, Version::HTTP_2, &headers));
            was_one.then(|| headers[SEC_WEBSOCKET_KEY].clone())
        };
        let keys = [
            read("websocket", Method::CONNECT),
            read("WebSocket", Method::CONNECT),
        ];
        assert!(
            keys[0].is_some() && keys[1].is_some() && keys[0] != keys[1],
            "{keys:?}"
        );
        assert_eq!(read("connect-udp", Method::CONNECT), None);
        assert_eq!(read("websocket", Method::GET), None);
    }

    #[test]
    fn ws_03_no_success_but_an_agreement_answers_an_extended_connect() {
        let answer = |code: u16| {
            let (mut status, mut headers) = (StatusCode::from_u16(code).unwrap(), HeaderMap::new());
            say_upgrade(&mut headers);
            let is_fit = answer_extended_connect(&mut status, &mut headers);
            (is_fit, status.as_u16(), headers.len())
        };
        assert_eq!(answer(101), (true, 200, 0));
        for code in [200, 201, 204, 206, 299] {
            assert!(!answer(code).0, "{code}");
        }
        for code in [302, 304, 401, 403, 426, 500, 503] {
            assert_eq!(answer(code), (true, code, 2));
        }
    }

    #[test]
    fn ws_02_only_a_whole_websocket_handshake_is_an_upgrade() {
        let whole = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let ask = |method: Method, version, change: Option<(&'static str, Option<&'static str>)>| {
            let mut headers = HeaderMap::new();
            for (name, value) in whole {
                headers.append(name, HeaderValue::from_static(value));
            }
            match change {
                Some((name, Some(value))) => drop(headers.insert(name, HeaderValue::from_static(value))),
                Some((name, None)) => drop(headers.remove(name)),
                None => {}
            }
            is_upgrade(&method, version, &headers)
        };
        assert!(ask(Method::GET, Version::HTTP_11, None));
        assert!(ask(
            Method::GET,
            Version::HTTP_11,
            Some(("content-length", Some("0")))
        ));
        assert!(!ask(Method::POST, Version::HTTP_11, None));
        assert!(!ask(Method::GET, Version::HTTP_10, None));
        for change in [
            ("upgrade", None),
            ("upgrade", Some("h2c")),
            ("upgrade", Some("websocket, h2c")),
            ("upgrade", Some("TLS/1.0")),
            ("connection", None),
            ("connection", Some("close")),
            ("sec-websocket-version", None),
            ("sec-websocket-version", Some("8")),
            ("sec-websocket-key", None),
            ("sec-websocket-key", Some("short")),
            ("content-length", Some("5")),
            ("transfer-encoding", Some("chunked")),
        ] {
            assert!(!ask(Method::GET, Version::HTTP_11, Some(change)), "{change:?}");
        }
    }
}
