//! Whether a request's end can be read in one way only.
//!
//! hyper takes any `Transfer-Encoding` that ends in `chunked`; what an upstream makes of the codings before it is
//! another matter. Source: RFC 9112 §6.1.

use http::HeaderMap;
use http::header::TRANSFER_ENCODING;

/// Whether the body has no transfer coding but `chunked`, once.
#[must_use]
pub fn is_plain(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn hp_05_only_chunked_alone_is_plain() {
        let of = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(TRANSFER_ENCODING, HeaderValue::from_static(line));
            }
            is_plain(&headers)
        };
        assert!(of(&[]) && of(&["chunked"]) && of(&["Chunked"]));
        for odd in [
            &["gzip, chunked"][..],
            &["chunked", "chunked"],
            &["chunked, chunked"],
            &["identity"],
            &["xchunked"],
            &[""],
        ] {
            assert!(!of(odd), "{odd:?}");
        }
    }
}
