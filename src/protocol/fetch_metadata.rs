//! What the browser says of where a request comes from: `Sec-Fetch-*`, `Origin`, `Sec-Purpose`.
//!
//! On a request's way `guard` decides with it (contract 4.1–4.5). Sources: W3C Fetch Metadata §2; contract "Words".

use super::header_name::{SEC_FETCH_DEST, SEC_FETCH_MODE, SEC_FETCH_SITE};
use http::{HeaderMap, HeaderName, Method, header};

/// `Sec-Fetch-Site`: how who asks is related to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// No such header: an old browser, or not a browser.
    Absent,
    /// Our own origin.
    SameOrigin,
    /// Another origin of our site.
    SameSite,
    /// Another site; also any value that is none of these, and a second such header.
    CrossSite,
    /// The user: typed, bookmarked.
    None,
}

/// Reads `Sec-Fetch-Site`.
#[must_use]
pub fn site(headers: &HeaderMap) -> Site {
    let mut lines = headers.get_all(&SEC_FETCH_SITE).iter();
    match (lines.next().map(http::HeaderValue::as_bytes), lines.next()) {
        (None, _) => Site::Absent,
        (Some(b"same-origin"), None) => Site::SameOrigin,
        (Some(b"same-site"), None) => Site::SameSite,
        (Some(b"none"), None) => Site::None,
        _ => Site::CrossSite,
    }
}

/// Whether it is a navigation: GET or HEAD with `Sec-Fetch-Mode: navigate` and `Sec-Fetch-Dest: document`, or, where
/// the browser sends no `Sec-Fetch-*` at all, one whose `Accept` names `text/html`.
#[must_use]
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    if method != Method::GET && method != Method::HEAD {
        return false;
    }
    if headers.keys().any(|name| name.as_str().starts_with("sec-fetch-")) {
        return is_only(headers, &SEC_FETCH_MODE, b"navigate")
            && is_only(headers, &SEC_FETCH_DEST, b"document");
    }
    accepts(headers, "text/html")
}

/// Whether the header stands there once, with just this value.
fn is_only(headers: &HeaderMap, name: &HeaderName, value: &[u8]) -> bool {
    let mut lines = headers.get_all(name).iter();
    lines.next().is_some_and(|line| line.as_bytes() == value) && lines.next().is_none()
}

/// Whether `Accept` names this media type (wildcards do not name it; `q=0` refuses it).
#[must_use]
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case(media_type))
                && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        })
}

/// Whether the browser only looks ahead: `Sec-Purpose: prefetch` or `Purpose: prefetch` (contract 3.10).
#[must_use]
pub fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose"].into_iter().any(|name| {
        headers.get_all(name).iter().any(|line| {
            line.to_str().is_ok_and(|text| {
                text.split([',', ';'])
                    .any(|word| word.trim().eq_ignore_ascii_case("prefetch"))
            })
        })
    })
}

/// Whether it asks for a WebSocket: GET with `Upgrade: websocket` (RFC 6455 §4.1).
#[must_use]
pub fn is_websocket(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::GET
        && headers.get_all(header::UPGRADE).iter().any(|line| {
            line.to_str().is_ok_and(|text| {
                text.split(',')
                    .any(|token| token.trim().eq_ignore_ascii_case("websocket"))
            })
        })
}

/// `Origin`, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No such header.
    Absent,
    /// `public_url`'s.
    Ours,
    /// `null`: a sandboxed or redirected document.
    Null,
    /// Anything else, and more than one.
    Foreign,
}

/// Reads `Origin`; `is_ours` compares with `public_url`.
#[must_use]
pub fn origin(headers: &HeaderMap, is_ours: impl Fn(&[u8]) -> bool) -> Origin {
    let mut lines = headers.get_all(header::ORIGIN).iter();
    match (lines.next().map(http::HeaderValue::as_bytes), lines.next()) {
        (None, _) => Origin::Absent,
        (Some(b"null"), None) => Origin::Null,
        (Some(value), None) if is_ours(value) => Origin::Ours,
        _ => Origin::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn cs_02_a_second_or_unknown_site_counts_as_cross_site() {
        assert_eq!(site(&headers(&[])), Site::Absent);
        assert_eq!(
            site(&headers(&[("sec-fetch-site", "same-origin")])),
            Site::SameOrigin
        );
        for odd in ["Same-Origin", "", "same-origin, none", "other"] {
            assert_eq!(
                site(&headers(&[("sec-fetch-site", odd)])),
                Site::CrossSite,
                "{odd}"
            );
        }
        let twice = headers(&[
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "same-origin"),
        ]);
        assert_eq!(site(&twice), Site::CrossSite);
    }

    #[test]
    fn bf_03_a_navigation_is_told_by_fetch_metadata_first() {
        let html = ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
        let navigate = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert!(is_navigation(&Method::GET, &headers(&navigate)));
        assert!(is_navigation(&Method::HEAD, &headers(&navigate)));
        assert!(!is_navigation(&Method::POST, &headers(&navigate)));
        assert!(is_navigation(&Method::GET, &headers(&[html])));
        assert!(!is_navigation(&Method::GET, &headers(&[("accept", "*/*")])));
        assert!(!is_navigation(
            &Method::GET,
            &headers(&[("accept", "text/html;q=0")])
        ));
        assert!(!is_navigation(
            &Method::GET,
            &headers(&[html, ("sec-fetch-mode", "cors")])
        ));
        assert!(!is_navigation(
            &Method::GET,
            &headers(&[html, ("sec-fetch-site", "none")])
        ));
        let frame = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert!(!is_navigation(&Method::GET, &headers(&frame)));
    }

    #[test]
    fn prefetch_is_noticed_with_its_parameters() {
        for value in ["prefetch", "prefetch;prerender", "Prefetch"] {
            assert!(is_prefetch(&headers(&[("sec-purpose", value)])), "{value}");
        }
        assert!(is_prefetch(&headers(&[("purpose", "prefetch")])));
        assert!(!is_prefetch(&headers(&[("purpose", "preview")])));
    }

    #[test]
    fn cs_03_only_one_equal_origin_is_ours() {
        let ours = |value: &[u8]| value == b"https://app.example";
        let one = |value| origin(&headers(&[("origin", value)]), ours);
        assert_eq!(one("https://app.example"), Origin::Ours);
        assert_eq!(one("null"), Origin::Null);
        for foreign in [
            "https://app.example.evil",
            "http://app.example",
            "https://app.example:444",
            "https://APP.example",
            "",
        ] {
            assert_eq!(one(foreign), Origin::Foreign, "{foreign}");
        }
        let twice = headers(&[
            ("origin", "https://app.example"),
            ("origin", "https://app.example"),
        ]);
        assert_eq!(origin(&twice, ours), Origin::Foreign);
    }
}
