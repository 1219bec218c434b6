//! What returns to the browser (contract 4.12): the answer as it is, less what an upstream may not say on our origin.
//!
//! Sources: RFC 9110 §7.6.1, §11.6.1 (challenges); RFC 9112 §6.3 (framing).

use super::{Passage, cookies, request};
use crate::answer::Failure;
use crate::config::Auth;
use crate::protocol::hop_by_hop;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version, response::Parts};
use http_body::Frame;

/// Whether the browser said that it takes trailers; hyper sends none otherwise.
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut codings = headers
        .get_all(TE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Changes a response's head into the one that goes back.
///
/// # Errors
/// [`Failure::UpstreamUnavailable`] where the upstream's framing can be read in two ways.
pub fn prepare(parts: &mut Parts, passage: &Passage<'_>, takes_trailers: bool) -> Result<(), Failure> {
    let headers = &mut parts.headers;
    if !is_framed_one_way(headers) {
        tracing::warn!(
            route = passage.route.path,
            "the upstream framed its answer in a way that can be misread"
        );
        return Err(Failure::UpstreamUnavailable);
    }
    let may_end_in_trailers = match parts.version {
        Version::HTTP_2 => !headers.contains_key(CONTENT_LENGTH),
        _ => headers.contains_key(TRANSFER_ENCODING),
    };
    let announced = (takes_trailers && may_end_in_trailers)
        .then(|| request::trailers(headers))
        .flatten();
    hop_by_hop::remove_and(headers, is_not_the_upstreams_to_say);
    keep(headers, &SET_COOKIE, |line| {
        cookies::may_be_set(line, passage.session_cookie).then(|| line.clone())
    });
    keep(headers, &WWW_AUTHENTICATE, without_prompts);
    if passage.route.auth() != Auth::None {
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("private, no-store"));
    }
    if let Some(announced) = announced {
        headers.insert(TRAILER, announced);
    }
    // The browser's side has a version of its own.
    parts.version = Version::HTTP_11;
    Ok(())
}

/// A piece of a body on its way, there or back. HTTP/1.1 sends only trailers that were announced; HTTP/2 sends them all.
pub fn pass(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            request::drop_forbidden(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

/// "If a message is received with both a Transfer-Encoding and a Content-Length header field […] such a message might
/// indicate an attempt to perform request smuggling or response splitting" (RFC 9112 §6.3); hyper would read the one and
/// the browser might read the other. A coding that is not `chunked` would arrive undecoded.
fn is_framed_one_way(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => true,
        (Some(coding), None) => {
            codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        (None, Some(length)) => lengths.next().is_none() && length.as_bytes().iter().all(u8::is_ascii_digit),
        (Some(_), Some(_)) => false,
    }
}

fn is_not_the_upstreams_to_say(name: &str) -> bool {
    name.starts_with("access-control-")
        || matches!(
            name,
            "clear-site-data" | "service-worker-allowed" | "alt-svc" | "nel" | "report-to"
        )
}

/// Replaces each line of a header by what is left of it; the order stays.
fn keep(headers: &mut HeaderMap, name: &HeaderName, left: impl Fn(&HeaderValue) -> Option<HeaderValue>) {
    let lines = headers.get_all(name);
    if lines.iter().next().is_none() {
        return;
    }
    let kept: Vec<Option<HeaderValue>> = lines.iter().map(left).collect();
    if lines
        .iter()
        .zip(&kept)
        .all(|(line, kept)| Some(line) == kept.as_ref())
    {
        return;
    }
    headers.remove(name);
    for line in kept.into_iter().flatten() {
        headers.append(name, line);
    }
}

/// A line of challenges without those that make a browser ask for a password, or hand over the user's network login, in
/// our origin's name.
fn without_prompts(line: &HeaderValue) -> Option<HeaderValue> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let (mut dropping, mut dropped) = (false, false);
    for element in elements(line.as_bytes()) {
        if let Some(scheme) = scheme(element) {
            dropping = scheme.eq_ignore_ascii_case(b"basic") || scheme.eq_ignore_ascii_case(b"negotiate");
            dropped |= dropping;
        }
        if !dropping {
            kept.push(element);
        }
    }
    if !dropped {
        return Some(line.clone());
    }
    let rest = kept.join(&b", "[..]);
    (!rest.is_empty()).then(|| HeaderValue::from_bytes(&rest).ok())?
}

/// The elements of a comma-separated list; commas in quoted strings do not count.
fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |b| {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' => return !quoted,
            _ => {}
        }
        false
    })
    .map(<[u8]>::trim_ascii)
    .filter(|element| !element.is_empty())
}

/// The scheme, if a list's element begins a challenge: a token alone, or one before a space that no `=` follows. Else it
/// is a further parameter of the challenge before it (RFC 9110 §11.6.1).
fn scheme(element: &[u8]) -> Option<&[u8]> {
    let end = element.iter().position(|b| matches!(b, b' ' | b'\t' | b'='));
    let (token, rest) = element.split_at(end.unwrap_or(element.len()));
    (!rest.trim_ascii_start().starts_with(b"=")).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_dropped_and_other_challenges_stay() {
        let left = |line: &str| {
            let line = HeaderValue::from_str(line).unwrap();
            without_prompts(&line).map(|left| left.to_str().unwrap().to_owned())
        };
        for gone in [
            "Basic",
            "basic realm=\"x\"",
            "Basic realm=\"a, b\", charset=\"UTF-8\"",
            "Negotiate",
            "Negotiate YII==",
            "BASIC realm=x, nEgOtIaTe",
            " , Basic realm = x",
            "Basic realm=\"Bearer x\"",
        ] {
            assert_eq!(left(gone), None, "{gone}");
        }
        for (line, wanted) in [
            (
                "Bearer realm=\"x\", error=\"invalid_token\"",
                "Bearer realm=\"x\", error=\"invalid_token\"",
            ),
            ("Bearer realm=\"Basic, x\"", "Bearer realm=\"Basic, x\""),
            (
                "Basic realm=\"x\", Bearer realm=\"y\", scope=\"a b\"",
                "Bearer realm=\"y\", scope=\"a b\"",
            ),
            (
                "Bearer realm=\"y\", scope = \"a\", Basic realm=\"x\"",
                "Bearer realm=\"y\", scope = \"a\"",
            ),
            (
                "DPoP algs=\"ES256\", Negotiate, Bearer",
                "DPoP algs=\"ES256\", Bearer",
            ),
            ("Bearer x=\"\\\", Basic \"", "Bearer x=\"\\\", Basic \""),
            ("", ""),
        ] {
            assert_eq!(left(line).as_deref(), Some(wanted), "{line}");
        }
    }

    #[test]
    fn hp_18_framing_that_can_be_misread_is_refused() {
        let framed = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            is_framed_one_way(&headers)
        };
        assert!(
            framed(&[]) && framed(&[("content-length", "5")]) && framed(&[("transfer-encoding", "Chunked")])
        );
        for wrong in [
            &[("content-length", "5"), ("transfer-encoding", "chunked")][..],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5, 5")],
            &[("content-length", "+5")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "gzip")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert!(!framed(wrong), "{wrong:?}");
        }
    }
}
