//! What an ingress says of the request that it asks about (contract 6.1, 6.3): method, host, path and query.
//!
//! Two families of headers say it, and an ingress speaks one of them. What does not stand there exactly once, or stands
//! beside the other family's, may have been written by the browser, and then nothing is believed.
//!
//! INVARIANT: no header is read that has a second spelling beside it: `X_Forwarded_Uri` counts as `X-Forwarded-Uri`,
//! because what is not a letter or a digit may become the same sign further on (CGI, WSGI and their kin).
//!
//! Sources: the manuals of nginx (`auth_request`), Caddy (`forward_auth`), Traefik (`ForwardAuth`); RFC 3986 §3.

use super::hop_by_hop::is_disguised;
use super::host::is_authority;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method};
use std::borrow::Cow;

const FORWARDED_METHOD: &str = "x-forwarded-method";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_URI: &str = "x-forwarded-uri";
const ORIGINAL_METHOD: &str = "x-original-method";
const ORIGINAL_URL: &str = "x-original-url";

/// The family of identity headers that only cloakroom writes.
const IDENTITY: &str = "x-auth-request-";
/// Those of it that an ingress always replaces, and the one that some ingresses write themselves.
const REPLACED: [&str; 4] = ["user", "email", "groups", "redirect"];

/// The request that an ingress asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original<'a> {
    /// Its method.
    pub method: Method,
    /// Its host, with a port where there is one.
    pub host: &'a str,
    /// Its path and query, as sent.
    pub target: Cow<'a, str>,
}

/// Why it cannot be told what is asked about. For the operator's log: what was sent is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{header} {what}")]
pub struct Unclear {
    header: &'static str,
    what: &'static str,
}

impl Original<'_> {
    /// The path alone.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// The dialect of Traefik and Caddy.
///
/// # Errors
/// [`Unclear`]: answer 403.
pub fn from_forwarded(headers: &HeaderMap) -> Result<Original<'_>, Unclear> {
    absent(headers, ORIGINAL_URL)?;
    absent(headers, ORIGINAL_METHOD)?;
    let method = method(headers, FORWARDED_METHOD)?;
    check_scheme(only(headers, FORWARDED_PROTO)?, FORWARDED_PROTO)?;
    let host = host(only(headers, FORWARDED_HOST)?, FORWARDED_HOST)?;
    let target = only(headers, FORWARDED_URI)?;
    if !target.starts_with('/') {
        return Err(unclear(FORWARDED_URI, "does not begin with a slash"));
    }
    Ok(Original {
        method,
        host,
        target: check_target(target, FORWARDED_URI)?.into(),
    })
}

/// The dialect of nginx, whose `X-Original-URL` is a whole URL.
///
/// # Errors
/// [`Unclear`]: answer 403.
pub fn from_nginx(headers: &HeaderMap) -> Result<Original<'_>, Unclear> {
    absent(headers, FORWARDED_URI)?;
    absent(headers, FORWARDED_METHOD)?;
    let method = method(headers, ORIGINAL_METHOD)?;
    let url = only(headers, ORIGINAL_URL)?;
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| unclear(ORIGINAL_URL, "is no URL with scheme and host"))?;
    check_scheme(scheme, ORIGINAL_URL)?;
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = host(authority, ORIGINAL_URL)?;
    let target = check_target(target, ORIGINAL_URL)?;
    Ok(Original {
        method,
        host,
        // "When the authority component is present and the path is empty, that is the path /" (RFC 9110 §4.2.3).
        target: if target.starts_with('/') {
            target.into()
        } else {
            format!("/{target}").into()
        },
    })
}

/// Puts back what Traefik takes out of the request that it asks with: `Upgrade: websocket`, where the rest of a handshake
/// is there. Nothing is won by pretending: a WebSocket is judged by an `Origin` that must be ours, and no page can set
/// `Sec-*` headers (Fetch §2.2.2).
pub fn restore_upgrade(headers: &mut HeaderMap) {
    if headers.contains_key(SEC_WEBSOCKET_KEY) && !headers.contains_key(UPGRADE) {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.append(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Whether the browser sent what an ingress would let through beside our word: a header that only a proxy may write, in
/// another spelling; or one of our identity family that we never answer with, so that nothing replaces it.
#[must_use]
pub fn poses_as_somebody(headers: &HeaderMap) -> bool {
    headers.keys().map(http::HeaderName::as_str).any(|name| {
        let rest = name.strip_prefix(IDENTITY);
        is_disguised(name) || rest.is_some_and(|rest| !REPLACED.contains(&rest))
    })
}

const fn unclear(header: &'static str, what: &'static str) -> Unclear {
    Unclear { header, what }
}

/// Whether a header's name, in lower case, would be `wanted` if all its signs were hyphens.
fn is_spelling_of(name: &str, wanted: &str) -> bool {
    let is_same =
        |(found, wanted): (u8, u8)| found == wanted || wanted == b'-' && !found.is_ascii_alphanumeric();
    name.len() == wanted.len() && name.bytes().zip(wanted.bytes()).all(is_same)
}

fn absent(headers: &HeaderMap, name: &'static str) -> Result<(), Unclear> {
    if headers.keys().any(|found| is_spelling_of(found.as_str(), name)) {
        return Err(unclear(name, "is there, and belongs to the other dialect"));
    }
    Ok(())
}

/// The one value of the one header that could be taken for this one.
fn only<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Unclear> {
    let mut lines = headers
        .iter()
        .filter(|(found, _)| is_spelling_of(found.as_str(), name));
    let (found, value) = lines.next().ok_or_else(|| unclear(name, "is missing"))?;
    if lines.next().is_some() {
        return Err(unclear(name, "is there twice"));
    }
    if found.as_str() != name {
        return Err(unclear(name, "is there in another spelling"));
    }
    value
        .to_str()
        .map_err(|_| unclear(name, "holds bytes that no URI holds"))
}

fn method(headers: &HeaderMap, name: &'static str) -> Result<Method, Unclear> {
    only(headers, name)?
        .parse()
        .map_err(|_| unclear(name, "is no method"))
}

/// Not compared with `public_url`'s: behind a balancer that ends TLS an ingress sees plain http. The public URL alone
/// decides about cookies and origins, so nothing hangs on it.
fn check_scheme(scheme: &str, name: &'static str) -> Result<(), Unclear> {
    if matches!(scheme, "https" | "http" | "wss" | "ws") {
        Ok(())
    } else {
        Err(unclear(
            name,
            "has a scheme that is none of http, https, ws and wss",
        ))
    }
}

fn host<'a>(host: &'a str, name: &'static str) -> Result<&'a str, Unclear> {
    if is_authority(host) {
        Ok(host)
    } else {
        Err(unclear(name, "has a host that is malformed"))
    }
}

/// What the path may hold is for the one parse of paths to say; here, what no request target holds (RFC 9112 §3.2).
fn check_target<'a>(target: &'a str, name: &'static str) -> Result<&'a str, Unclear> {
    if target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        Ok(target)
    } else {
        Err(unclear(name, "holds a fragment, or bytes that no URI holds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        map
    }

    const FORWARDED: [(&str, &str); 4] = [
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "app.example"),
        ("X-Forwarded-Uri", "/a?b"),
    ];
    const NGINX: [(&str, &str); 2] = [
        ("X-Original-Method", "GET"),
        ("X-Original-URL", "https://app.example/a?b"),
    ];

    #[test]
    fn fh_05_both_dialects_say_the_same() {
        let wanted = Original {
            method: Method::GET,
            host: "app.example",
            target: "/a?b".into(),
        };
        assert_eq!(from_forwarded(&headers(&FORWARDED)).unwrap(), wanted);
        assert_eq!(from_nginx(&headers(&NGINX)).unwrap(), wanted);
        assert_eq!(wanted.path(), "/a");
        assert!(from_forwarded(&headers(&NGINX)).is_err());
        assert!(from_nginx(&headers(&FORWARDED)).is_err());
    }

    #[test]
    fn fh_05_what_is_missing_doubled_or_of_the_other_family_is_unclear() {
        for left_out in 0..4 {
            let mut lines = FORWARDED.to_vec();
            lines.remove(left_out);
            assert!(from_forwarded(&headers(&lines)).is_err(), "{lines:?}");
        }
        let spellings = |name: &str| {
            [
                name.to_owned(),
                name.replace('-', "_"),
                name.replacen('-', ".", 1),
            ]
        };
        for (own, other, read) in [
            (
                &FORWARDED[..],
                ["X-Original-URL", "X-Original-Method"],
                from_forwarded as fn(&HeaderMap) -> Result<Original<'_>, Unclear>,
            ),
            (&NGINX[..], ["X-Forwarded-Uri", "X-Forwarded-Method"], from_nginx),
        ] {
            for name in own.iter().map(|line| line.0).chain(other) {
                for spelling in spellings(name) {
                    let mut lines = own.to_vec();
                    lines.push((&spelling, "GET"));
                    assert!(read(&headers(&lines)).is_err(), "{lines:?}");
                }
            }
            for at in 0..own.len() {
                let spelling = own[at].0.replace('-', "_");
                let mut lines = own.to_vec();
                lines[at].0 = &spelling;
                assert!(read(&headers(&lines)).is_err(), "{lines:?}");
            }
        }
    }

    #[test]
    fn fh_05_a_url_is_cut_at_its_first_slash() {
        let read = |url: &str| {
            let lines = [NGINX[0], ("X-Original-URL", url)];
            let map = headers(&lines);
            from_nginx(&map)
                .map(|o| (o.host.to_owned(), o.target.into_owned()))
                .ok()
        };
        let some = |host: &str, target: &str| Some((host.to_owned(), target.to_owned()));
        assert_eq!(read("http://app.example:8080/"), some("app.example:8080", "/"));
        assert_eq!(read("https://[::1]:1/x//y"), some("[::1]:1", "/x//y"));
        assert_eq!(read("https://app.example"), some("app.example", "/"));
        assert_eq!(read("https://app.example?x=/y"), some("app.example", "/?x=/y"));
        assert_eq!(
            read("https://app.example/a?b=https://evil.example/"),
            some("app.example", "/a?b=https://evil.example/")
        );
        for wrong in [
            "",
            "/a",
            "//app.example/a",
            "app.example/a",
            "https:/app.example/a",
            "https:///a",
            "://app.example/a",
            "ftp://app.example/a",
            "HTTPS://app.example/a",
            "https://user@app.example/a",
            "https://app.example\\@evil.example/a",
            "https://app.example /a",
            "https://app.example/a b",
            "https://app.example/a#b",
            "https://app.example/a?b#c",
            "https://app.example/\u{fc}",
            "https://app.example:x/a",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn fh_05_forwarded_values_are_one_each() {
        for (at, value) in [
            (0, "G E T"),
            (0, ""),
            (1, "https, http"),
            (1, "HTTPS"),
            (1, ""),
            (2, "app.example, evil.example"),
            (2, ""),
            (2, "https://app.example"),
            (3, ""),
            (3, "a"),
            (3, "https://app.example/a"),
            (3, "/a#b"),
            (3, "/a b"),
            (3, "/a?\u{fc}"),
        ] {
            let mut lines = FORWARDED;
            lines[at].1 = value;
            assert!(from_forwarded(&headers(&lines)).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn an_upgrade_is_put_back_where_the_rest_of_a_handshake_is_there() {
        let upgraded = |lines: &[(&str, &str)]| {
            let mut map = headers(lines);
            restore_upgrade(&mut map);
            let of = |name| map.get(name).map(|value| value.to_str().unwrap().to_owned());
            (of(UPGRADE), of(CONNECTION))
        };
        let some = |value: &str| Some(value.to_owned());
        let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(upgraded(&[key]), (some("websocket"), some("upgrade")));
        assert_eq!(upgraded(&[]), (None, None));
        assert_eq!(upgraded(&[key, ("Upgrade", "h2c")]), (some("h2c"), None));
    }

    #[test]
    fn hp_14_fh_04_nobody_poses_as_somebody_in_any_spelling() {
        for name in [
            "X_Auth_Request_User",
            "X-Auth_Request-User",
            "x_auth-request-email",
            "X.Auth.Request.Groups",
            "X-Auth-Request_Groups",
            "X-Auth-Request-Preferred-Username",
            "X-Auth-Request-Access-Token",
            "X-Auth-Request-",
            "X_Forwarded_User",
            "x-forwarded_for",
            "X.Real.IP",
            "X_Original_URL",
            "x_http_method_override",
            "CF_Connecting_IP",
            "Content_Length",
        ] {
            assert!(poses_as_somebody(&headers(&[(name, "admin")])), "{name}");
        }
        for name in [
            "X-Auth-Request-User",
            "X-AUTH-REQUEST-EMAIL",
            "X-Auth-Request-Groups",
            "X-Auth-Request-Redirect",
            "X-Auth-Requests-User",
            "X-Auth",
            "X-Forwarded-User",
            "X_Custom",
            "Cookie",
        ] {
            assert!(!poses_as_somebody(&headers(&[(name, "x")])), "{name}");
        }
    }
}
