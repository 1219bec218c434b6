//! Headers that belong to one connection and go no further, and headers by which a browser could pass for somebody.
//!
//! Stands at the edge of both ways: `proxy` calls it before it adds headers of its own, so that nothing a browser
//! names in `Connection` or spells in another way can take away or stand beside what cloakroom says.
//!
//! Sources: RFC 9110 §7.6.1; the variants: CGI, WSGI and their kin read `X_Forwarded_For`, and some `X.Forwarded.For`, as
//! `X-Forwarded-For`.

use http::header::{CONNECTION, HeaderName};
use http::{HeaderMap, HeaderValue};

/// Removes the hop-by-hop headers and whatever any `Connection` line names.
pub fn remove(headers: &mut HeaderMap) {
    remove_and(headers, |_| false);
}

/// The same, and what is told beside it: in one walk over the names, because every request and every answer takes it.
pub fn remove_and(headers: &mut HeaderMap, told: impl Fn(&str) -> bool) {
    // "Intermediaries MUST […] remove any header or trailer field(s) from the message with the same name as the
    // connection-option" (RFC 9110 §7.6.1); there may be several lines of it.
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(tokens).collect();
    for name in named {
        headers.remove(name);
    }
    remove_if(headers, |name| is_hop_by_hop(name) || told(name));
}

/// What of a request only we may say: who asks, for which host and path, by which method. In any spelling; the name comes
/// in lower case. `Authorization` is anybody's to say where the route passes it.
#[must_use]
pub fn is_ours_to_say(name: &str, pass_authorization: bool) -> bool {
    is_disguised(name) || is_spoofable(name) && !(pass_authorization && name == "authorization")
}

/// Whether a name, in lower case, is one of those that only a connection or a proxy may write, in another spelling:
/// whatever is neither a letter nor a digit may become the same sign further on.
pub(super) fn is_disguised(name: &str) -> bool {
    let is_sign = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    // Counted to the end, whatever the first bytes are: so it is done many bytes at a time.
    let odd = name.bytes().filter(|b| !matches!(b, b'a'..=b'z' | b'-'));
    let is_plain = odd.count() == 0;
    !is_plain && name.contains(is_sign) && {
        let name = name.replace(is_sign, "-");
        is_spoofable(&name) || is_hop_by_hop(&name) || name == "content-length"
    }
}

/// The names that a comma-separated header lists; what is no header name is passed over.
pub fn tokens(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    value
        .as_bytes()
        .split(|b| *b == b',')
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
}

/// As bytes, here and below: the compiler then decides by length and a byte or two instead of comparing one name after
/// the other.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name.as_bytes(),
        b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
            | b"trailer"
            | b"http2-settings"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-authentication-info"
    )
}

/// Whether a header of this name, in lower case, is for proxies alone to write.
fn is_spoofable(name: &str) -> bool {
    matches!(
        name.as_bytes(),
        b"authorization"
            | b"forwarded"
            | b"x-forwarded"
            | b"x-real-ip"
            | b"x-client-ip"
            | b"x-cluster-client-ip"
            | b"true-client-ip"
            | b"cf-connecting-ip"
            | b"client-cert"
            | b"client-cert-chain"
            | b"x-rewrite-url"
            | b"x-http-method-override"
            | b"x-http-method"
            | b"x-method-override"
            | b"x-request-id"
            // What CGI would hand on as HTTP_PROXY.
            | b"proxy"
    ) || name.starts_with("proxy-")
        || name.strip_prefix("x-").is_some_and(|rest| {
            ["forwarded-", "original-", "auth-request-", "envoy-"]
                .iter()
                .any(|family| rest.starts_with(family))
        })
}

/// Removes every header whose name is told.
pub fn remove_if(headers: &mut HeaderMap, told: impl Fn(&str) -> bool) {
    let doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| told(name.as_str()))
        .cloned()
        .collect();
    for name in doomed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn hp_01_every_connection_line_is_heeded() {
        let mut headers = map(&[
            ("connection", "close, X-One"),
            ("Connection", " x-TWO ,, @bad, keep-alive"),
            ("connection", "X-Three"),
            ("x-one", "1"),
            ("x-one", "again"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
            ("trailer", "x"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic eA=="),
            ("x-stays", "yes"),
            ("x-stays", "twice"),
        ]);
        remove(&mut headers);
        assert_eq!(headers, map(&[("x-stays", "yes"), ("x-stays", "twice")]));
    }

    #[test]
    fn hp_14_and_fh_01_spoofable_headers_go_in_every_spelling() {
        for name in [
            "Authorization",
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Forwarded-Prefix",
            "X-Forwarded-User",
            "X-Forwarded-Anything",
            "X-Real-IP",
            "X-Client-IP",
            "X-Cluster-Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X-Envoy-External-Address",
            "Client-Cert",
            "Client-Cert-Chain",
            "X-Original-URL",
            "X-Original-Method",
            "X-Rewrite-URL",
            "X-Auth-Request-User",
            "X-Auth-Request-Groups",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "Proxy-Authorization",
            "Proxy",
            "X-Request-Id",
        ] {
            let lower = name.to_ascii_lowercase();
            let upper = name.to_ascii_uppercase();
            let under = name.replace('-', "_");
            let dotted = name.replace('-', ".");
            let last = name
                .rsplitn(2, '-')
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
                .join("_");
            for spelling in [name, &lower, &upper, &under, &dotted, &last] {
                let mine = [("x-mine", "1"), ("x_other", "1"), ("x.third", "1")];
                let mut headers = map(&mine);
                headers.extend(map(&[(spelling, "evil"), (spelling, "twice")]));
                remove_if(&mut headers, |name| is_ours_to_say(name, false));
                assert_eq!(headers, map(&mine), "{spelling}");
            }
        }
        for framing in [
            "content_length",
            "transfer_encoding",
            "Content_Length",
            "content.length",
        ] {
            let mut headers = map(&[(framing, "5")]);
            remove_if(&mut headers, |name| is_ours_to_say(name, false));
            assert!(headers.is_empty(), "{framing}");
        }
    }

    #[test]
    fn authorization_stays_where_it_is_passed() {
        let mut headers = map(&[("authorization", "Basic eA=="), ("x-real-ip", "1.1.1.1")]);
        remove_if(&mut headers, |name| is_ours_to_say(name, true));
        assert_eq!(headers, map(&[("authorization", "Basic eA==")]));
    }
}
