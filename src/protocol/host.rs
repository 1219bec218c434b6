//! Which host a request is for: one well-formed `Host`, or the authority of an absolute-form target.
//!
//! The first thing that is asked of a request; whether the host is ours is asked after (`origin`).
//!
//! Sources: RFC 9112 §3.2, RFC 9110 §7.2, RFC 3986 §3.2.

use http::header::HOST;
use http::{HeaderMap, Method, Uri};
use std::net::Ipv6Addr;

/// The authority that a request names.
///
/// # Errors
/// What is wrong with it, without what was sent: answer 400.
pub fn authority<'a>(
    method: &Method,
    target: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<&'a str, &'static str> {
    // "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host
    // header field and to any request message that contains more than one Host header field line or a Host header
    // field with an invalid field value" (RFC 9112 §3.2).
    let mut lines = headers.get_all(HOST).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err("a request needs exactly one Host header");
    };
    let host = line
        .to_str()
        .ok()
        .filter(|host| is_authority(host))
        .ok_or("the Host header is malformed")?;
    match target.authority() {
        None => Ok(host),
        Some(_) if target.scheme().is_none() && method != Method::CONNECT => {
            Err("only CONNECT names an authority instead of a path")
        }
        Some(_)
            if target
                .scheme_str()
                .is_some_and(|scheme| !matches!(scheme, "http" | "https")) =>
        {
            Err("the target's scheme is neither http nor https")
        }
        // "When a proxy receives a request with an absolute-form of request-target, the proxy MUST ignore the
        // received Host header field (if any)" (RFC 9112 §3.2.2).
        Some(authority) if is_authority(authority.as_str()) => Ok(authority.as_str()),
        Some(_) => Err("the target's authority is malformed"),
    }
}

/// Whether this is `host [":" port]`, without user information.
#[must_use]
pub fn is_authority(text: &str) -> bool {
    let (is_host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        (address.parse::<Ipv6Addr>().is_ok(), port)
    } else {
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b);
        (!name.is_empty() && name.bytes().all(is_name), port)
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    is_host && is_port
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn ask(target: &str, hosts: &[&str]) -> Option<String> {
        let uri: Uri = target.parse().unwrap();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        authority(&Method::GET, &uri, &headers).ok().map(str::to_owned)
    }

    #[test]
    fn hp_08_one_well_formed_host_is_needed() {
        for host in [
            "app.example",
            "APP.example:8443",
            "localhost",
            "[::1]:80",
            "127.0.0.1",
            "a_b.example",
            "app.example:",
        ] {
            assert_eq!(ask("/x", &[host]).as_deref(), Some(host));
        }
        for hosts in [
            &[][..],
            &["a", "b"],
            &["a", "a"],
            &[""],
            &["a b"],
            &["u@a"],
            &["a/b"],
            &["a:b"],
            &["a:80:80"],
            &["[::1"],
            &["[::g]"],
            &[":80"],
            &["a,b/"],
            &["\u{fc}.example"],
            &["a:123456"],
            &["[::1]x"],
            &["a?b"],
            &["a#b"],
            &["a\\b"],
        ] {
            assert_eq!(ask("/x", hosts), None, "{hosts:?}");
        }
    }

    #[test]
    fn hp_10_an_absolute_target_names_the_host() {
        assert_eq!(
            ask("http://app.example/x", &["other"]).as_deref(),
            Some("app.example")
        );
        assert_eq!(ask("http://app.example/x", &[]), None);
        assert_eq!(ask("https://user:pw@app.example/x", &["app.example"]), None);
        assert_eq!(ask("ftp://app.example/x", &["app.example"]), None);
        assert_eq!(ask("app.example:443", &["app.example"]), None);
        assert_eq!(ask("*", &["app.example"]).as_deref(), Some("app.example"));
        let (uri, mut headers) = ("app.example:443".parse().unwrap(), HeaderMap::new());
        headers.insert(HOST, HeaderValue::from_static("app.example:443"));
        assert!(authority(&Method::CONNECT, &uri, &headers).is_ok());
    }
}
