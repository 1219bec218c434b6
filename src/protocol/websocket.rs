//! Whether a request asks for a WebSocket.
//!
//! One answer for the guard (which judges such requests by `Origin` alone) and for the proxy (which opens a tunnel
//! only for them): were there two, a request could be judged as one thing and forwarded as the other.
//!
//! Sources: RFC 6455 §4.2.1, RFC 9110 §7.8.

use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

/// Whether this is the whole of a WebSocket's opening handshake: a GET without a body over HTTP/1.1, `Upgrade:
/// websocket` and nothing else, version 13 and a key. Any other `Upgrade` is no upgrade: the request goes as plain HTTP.
#[must_use]
pub fn is_upgrade(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    method == Method::GET
        && version == Version::HTTP_11
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
