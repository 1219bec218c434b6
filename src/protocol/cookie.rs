//! Cookies: reading them out of any bytes, and writing `Set-Cookie`.
//!
//! On a request's way this is where `guard` and `bff` find our cookies. INVARIANT: total: whatever stands in a
//! `Cookie` header, nothing panics and the work is linear. INVARIANT: names are compared byte for byte
//! (RFC 6265bis §5.4), so a case variant is another cookie.
//!
//! Sources: RFC 6265bis §4.1, §5.4, §5.6; RFC 9113 §8.2.3 (several `Cookie` lines are one).

use http::{HeaderMap, HeaderValue, header};
use memchr::{memchr, memchr_iter};
use std::time::Duration;

/// All cookies of a request as (name, value), in order, over all `Cookie` lines.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .flat_map(|line| pieces(line.as_bytes()))
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            let equals = memchr(b'=', pair)?;
            Some((
                pair[..equals].trim_ascii_end(),
                pair[equals + 1..].trim_ascii_start(),
            ))
        })
}

/// What stands between the semicolons of a line, of which there is one more than there are semicolons.
pub fn pieces(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr_iter(b';', line).chain([line.len()]);
    ends.scan(0, |begin, end| {
        Some(&line[std::mem::replace(begin, end + 1)..end])
    })
}

/// The values of all cookies of exactly this name.
pub fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    pairs(headers)
        .filter(move |(found, _)| *found == name.as_bytes())
        .map(|(_, value)| value)
}

/// `SameSite` as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `Strict`
    Strict,
    /// `Lax`
    Lax,
    /// `None`
    None,
}

/// A `Set-Cookie` value: always `HttpOnly; Secure; Path=/`, never a `Domain` (contract 5.1). `max_age: None` makes a
/// cookie that goes with the browser.
///
/// # Panics
/// Never: names come from the checked config, values are base64url.
#[must_use]
pub fn set(name: &str, value: &str, same_site: SameSite, max_age: Option<Duration>) -> HeaderValue {
    let same_site = match same_site {
        SameSite::Strict => "Strict",
        SameSite::Lax => "Lax",
        SameSite::None => "None",
    };
    let mut text = format!("{name}={value}; HttpOnly; Secure; Path=/; SameSite={same_site}");
    if let Some(age) = max_age {
        text.push_str("; Max-Age=");
        text.push_str(&age.as_secs().to_string());
    }
    let mut value =
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("cloakroom=; Max-Age=0"));
    value.set_sensitive(true);
    value
}

/// A `Set-Cookie` value that deletes, with attributes equal to those it was made with: a browser ignores the
/// deletion of a `__Host-` cookie that lacks one (RFC 6265bis §4.1.3.2).
#[must_use]
pub fn clear(name: &str, same_site: SameSite) -> HeaderValue {
    set(name, "", same_site, Some(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_bytes(line).unwrap());
        }
        headers
    }

    #[test]
    fn cookies_are_found_over_several_lines_and_by_exact_name() {
        let headers = headers(&[b"a=1; __Host-x=2;b = 3", b"__host-x=4; __Host-x=5=6"]);
        assert_eq!(
            values(&headers, "__Host-x").collect::<Vec<_>>(),
            [&b"2"[..], b"5=6"]
        );
        assert_eq!(values(&headers, "b").collect::<Vec<_>>(), [&b"3"[..]]);
    }

    #[test]
    fn ck_07_cookie_parser_is_total() {
        for odd in [
            &b""[..],
            b";;;",
            b"=",
            b"=x",
            b"x",
            b"\x80\xff=\xfe",
            b"\"a=b\"",
            b" = ",
            b"a=;=b;;c",
        ] {
            let _ = pairs(&headers(&[odd])).count();
        }
        let many = b"a=b;".repeat(10_000);
        assert_eq!(pairs(&headers(&[&many])).count(), 10_000);
    }

    #[test]
    fn lo_04_deletion_repeats_every_attribute() {
        let made = set("__Host-x", "v", SameSite::Strict, None);
        assert_eq!(made, "__Host-x=v; HttpOnly; Secure; Path=/; SameSite=Strict");
        assert_eq!(
            clear("__Host-x", SameSite::Strict),
            "__Host-x=; HttpOnly; Secure; Path=/; SameSite=Strict; Max-Age=0"
        );
    }
}
