//! cloakroom's own cookies, which no upstream ever sees or sets.
//!
//! Sources: RFC 6265bis §4.2.1, §5.5 (a pair without `=` is a value without a name), §5.6 (what a browser stores).

use crate::protocol::cookie::pieces;
use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};
use memchr::memchr;

/// What our cookies are named by default; never passed either way, however the session's own is named.
const OURS: &[u8] = b"__Host-Http-cloakroom";

/// Takes our cookies out of a request; the others stay as they are, byte for byte.
pub fn strip(headers: &mut HeaderMap, session_cookie: &str) {
    let (mut kept, mut bore_ours) = (Vec::new(), false);
    for line in headers.get_all(COOKIE) {
        let (mut others, mut bears_ours) = (Vec::new(), false);
        for pair in pieces(line.as_bytes()) {
            if is_ours(name(pair), session_cookie) {
                bears_ours = true;
            } else {
                others.push(pair);
            }
        }
        if !bears_ours {
            kept.push(line.clone());
            continue;
        }
        bore_ours = true;
        let rest = others.join(&b';');
        // What came from a header and lost some of its bytes can still be one.
        if !rest.trim_ascii().is_empty()
            && let Ok(rest) = HeaderValue::from_bytes(rest.trim_ascii())
        {
            kept.push(rest);
        }
    }
    if bore_ours {
        headers.remove(COOKIE);
        for line in kept {
            headers.append(COOKIE, line);
        }
    }
}

/// Whether an upstream's `Set-Cookie` may pass: it bears none of our names, and no `Domain` (which would hand it to
/// every host beside ours).
pub fn may_be_set(line: &HeaderValue, session_cookie: &str) -> bool {
    let mut parts = pieces(line.as_bytes());
    let pair = parts.next().unwrap_or_default();
    // A browser sends `=name=value` back as `name=value`: the nameless cookie would pass for the named one.
    let pair = pair.trim_ascii_start();
    let pair = &pair[pair
        .iter()
        .take_while(|b| matches!(b, b'=' | b' ' | b'\t'))
        .count()..];
    // In any case: browsers tell names apart by case, the `__Host-` rules do not.
    let (name_set, own) = (
        name(pair).to_ascii_lowercase(),
        session_cookie.to_ascii_lowercase(),
    );
    let bears_ours = is_named(&name_set, own.as_bytes(), &OURS.to_ascii_lowercase());
    !bears_ours && !parts.any(|part| name(part).eq_ignore_ascii_case(b"domain"))
}

fn name(pair: &[u8]) -> &[u8] {
    pair[..memchr(b'=', pair).unwrap_or(pair.len())].trim_ascii()
}

/// A request's cookie of ours, to the letter: a case variant is another cookie (RFC 6265bis §5.4).
fn is_ours(name: &[u8], session_cookie: &str) -> bool {
    is_named(name, session_cookie.as_bytes(), OURS)
}

fn is_named(name: &[u8], session_cookie: &[u8], ours: &[u8]) -> bool {
    [session_cookie, ours].into_iter().any(|base| {
        name.strip_prefix(base)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-login-") || rest == b"-logout")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "__Host-Http-cloakroom";

    fn stripped(lines: &[&str], session: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        strip(&mut headers, session);
        let left = headers.get_all(COOKIE).iter();
        left.map(|line| String::from_utf8(line.as_bytes().to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn our_cookies_stay_here_and_the_others_go_up_as_they_are() {
        for (lines, left) in [
            (&["a=1; __Host-Http-cloakroom=x; b=2"][..], &["a=1; b=2"][..]),
            (&["__Host-Http-cloakroom=x"], &[]),
            (&["__Host-Http-cloakroom=x; a=1"], &["a=1"]),
            (&["a=1;__Host-Http-cloakroom=x"], &["a=1"]),
            (
                &["__Host-Http-cloakroom-login-abc=x; __Host-Http-cloakroom-logout=y; a=1"],
                &["a=1"],
            ),
            (&["a=1", "__Host-Http-cloakroom=x", "b=2"], &["a=1", "b=2"]),
            (
                &["a=1; a=1", "b=\"q;__Host-Http-cloakroom=x\"; c"],
                &["a=1; a=1", "b=\"q; c"],
            ),
            // A case variant is another cookie.
            (
                &["__host-http-CLOAKROOM=x; a=1"],
                &["__host-http-CLOAKROOM=x; a=1"],
            ),
            (&["__Host-Http-cloakroomx=1"], &["__Host-Http-cloakroomx=1"]),
            (&["  __Host-Http-cloakroom  =x; a=1"], &["a=1"]),
            (&["__Host-Http-cloakroom"], &[]),
            (
                &["a=__Host-Http-cloakroom; b= 2 ;; c==;d"],
                &["a=__Host-Http-cloakroom; b= 2 ;; c==;d"],
            ),
            (
                &["x__Host-Http-cloakroom=1; \u{fc}=\u{e9}"],
                &["x__Host-Http-cloakroom=1; \u{fc}=\u{e9}"],
            ),
        ] {
            assert_eq!(stripped(lines, SESSION), left, "{lines:?}");
        }
        assert_eq!(
            stripped(
                &["sid=x; sid-login-1=y; sid-logout=z; sid-theme=dark; sidecar=1; __Host-Http-cloakroom-x=1"],
                "sid"
            ),
            ["sid-theme=dark; sidecar=1; __Host-Http-cloakroom-x=1"]
        );
    }

    #[test]
    fn an_upstream_cannot_set_our_cookies_or_any_for_a_domain() {
        let may = |line: &str| may_be_set(&HeaderValue::from_bytes(line.as_bytes()).unwrap(), SESSION);
        for line in [
            "__Host-Http-cloakroom=x; Path=/; Secure",
            "  __HOST-http-cloakroom =x",
            "__Host-Http-cloakroom-login-abc=x",
            "__Host-Http-cloakroom-logout=",
            "__Host-Http-cloakroom",
            "=__Host-Http-cloakroom=x",
            " = =\t__Host-Http-cloakroom=x",
            "a=1; Domain=example.com",
            "a=1; dOmAiN = example.com",
            "a=1;\tdomain",
            "a=1; Path=/; DOMAIN=; Secure",
        ] {
            assert!(!may(line), "{line}");
        }
        for line in [
            "a=1",
            "a=1; Path=/; HttpOnly",
            "domain=1; Path=/",
            "a=Domain",
            "=x",
            "",
            "a=b=c; SameSite=Lax",
        ] {
            assert!(may(line), "{line}");
        }
    }
}
