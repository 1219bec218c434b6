//! Which host a request is for: one well-formed `Host`, the authority of an absolute-form target, or `:authority`.
//!
//! The first thing that is asked of a request; whether the host is ours is asked after (`origin`).
//!
//! Sources: RFC 9112 §3.2, RFC 9113 §8.3.1, RFC 9110 §7.2, RFC 3986 §3.2.

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderMap, Method, Uri, Version};
use std::net::Ipv6Addr;

/// The authority that a request names.
///
/// # Errors
/// What is wrong with it, without what was sent: answer 400.
pub fn authority<'a>(
    version: Version,
    method: &Method,
    target: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<&'a str, &'static str> {
    if target
        .scheme_str()
        .is_some_and(|scheme| !matches!(scheme, "http" | "https"))
    {
        return Err("the target's scheme is neither http nor https");
    }
    if version == Version::HTTP_2
        && let Some(named) = target.authority()
    {
        return pseudo_header(named.as_str(), target.scheme(), headers);
    }
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
        // "When a proxy receives a request with an absolute-form of request-target, the proxy MUST ignore the
        // received Host header field (if any)" (RFC 9112 §3.2.2).
        Some(authority) if is_authority(authority.as_str()) => Ok(authority.as_str()),
        Some(_) => Err("the target's authority is malformed"),
    }
}

/// HTTP/2 names the host in `:authority`; a `Host` beside it has to say the same.
fn pseudo_header<'a>(
    authority: &'a str,
    scheme: Option<&Scheme>,
    headers: &HeaderMap,
) -> Result<&'a str, &'static str> {
    // "':authority' MUST NOT include the deprecated userinfo subcomponent for 'http' or 'https' schemed URIs" (RFC 9113 §8.3.1).
    if !is_authority(authority) {
        return Err("the authority is malformed");
    }
    // "A server SHOULD treat a request as malformed if it contains a Host header field that identifies an entity that
    // differs from the entity in the ':authority' pseudo-header field" (RFC 9113 §8.3.1). Two are doubt enough.
    let mut lines = headers.get_all(HOST).iter();
    let host = lines.next();
    if lines.next().is_some() {
        return Err("a request needs no more than one Host header");
    }
    let same = host.is_none_or(|host| {
        host.to_str()
            .is_ok_and(|host| is_authority(host) && normal(host, scheme) == normal(authority, scheme))
    });
    if same {
        Ok(authority)
    } else {
        Err("the Host header and the authority differ")
    }
}

/// Whether a request for `authority` is one for `name`: a host, on the port that it names, or on any port where it names
/// none. An `authority` without a port may mean http's own port or https', for it is not known who ended TLS.
#[must_use]
pub fn is_named(authority: &str, name: &str) -> bool {
    let ((asked, asked_port), (host, port)) = (normal(authority, None), normal(name, None));
    let own = |port: &str| matches!(port, "" | "80");
    asked == host && (!has_port(name) || asked_port == port || own(&asked_port) && own(&port))
}

/// Whether a port stands behind the host.
fn has_port(authority: &str) -> bool {
    authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'))
}

/// Host and port for comparison: in small letters, without a trailing dot; the scheme's own port left out.
fn normal(authority: &str, scheme: Option<&Scheme>) -> (String, String) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    let own = if scheme == Some(&Scheme::HTTP) {
        "80"
    } else {
        "443"
    };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (
        host,
        if port == own {
            String::new()
        } else {
            port.to_owned()
        },
    )
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
        authority(Version::HTTP_11, &Method::GET, &uri, &headers)
            .ok()
            .map(str::to_owned)
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
        assert!(authority(Version::HTTP_11, &Method::CONNECT, &uri, &headers).is_ok());
    }

    #[test]
    fn a_further_name_is_compared_without_case_and_trailing_dot() {
        for (name, authorities) in [
            (
                "cloakroom",
                &[
                    "cloakroom",
                    "CLOAKROOM.",
                    "cloakroom:80",
                    "cloakroom:443",
                    "cloakroom:8080",
                ][..],
            ),
            (
                "Cloakroom.default.svc:8080",
                &["cloakroom.default.svc:8080", "cloakroom.default.svc.:8080"],
            ),
            ("cloakroom:80", &["cloakroom", "cloakroom:80"]),
            ("cloakroom:443", &["cloakroom", "cloakroom:443"]),
            ("[::1]:8080", &["[::1]:8080"]),
            ("[::1]", &["[::1]", "[::1]:8080"]),
        ] {
            for authority in authorities {
                assert!(is_named(authority, name), "{authority} for {name}");
            }
        }
        for (name, authorities) in [
            (
                "cloakroom",
                &["cloakroom.evil", "xcloakroom", "", ":80", "cloakroom.."][..],
            ),
            (
                "cloakroom:8080",
                &[
                    "cloakroom",
                    "cloakroom:80",
                    "cloakroom:443",
                    "cloakroom:808",
                    "other:8080",
                ],
            ),
            ("[::1]:8080", &["[::1]", "[::1]:80"]),
        ] {
            for authority in authorities {
                assert!(!is_named(authority, name), "{authority} for {name}");
            }
        }
    }

    #[test]
    fn hp_11_an_authority_and_a_host_say_the_same() {
        let ask = |target: &str, hosts: &[&'static str]| {
            let uri: Uri = target.parse().unwrap();
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_static(host));
            }
            authority(Version::HTTP_2, &Method::GET, &uri, &headers).is_ok()
        };
        for hosts in [
            &[][..],
            &["app.example"],
            &["APP.example"],
            &["app.example."],
            &["app.example:443"],
        ] {
            assert!(ask("https://app.example/x", hosts), "{hosts:?}");
        }
        for hosts in [
            &["evil.example"][..],
            &["app.example:80"],
            &["app.example", "app.example"],
            &[""],
            &["u@app.example"],
            &["app.example/"],
        ] {
            assert!(!ask("https://app.example/x", hosts), "{hosts:?}");
        }
        assert!(ask("http://app.example:80/x", &["app.example"]));
        assert!(ask("https://[::1]:8443/x", &["[::1]:8443"]));
        assert!(!ask("https://[::1]:8443/x", &["[::1]"]));
        assert!(!ask("https://u@app.example/x", &[]));
        // Without an authority, Host is needed as in HTTP/1.1.
        assert!(ask("/x", &["app.example"]));
        assert!(!ask("/x", &[]));
    }
}
