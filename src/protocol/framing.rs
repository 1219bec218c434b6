//! Whether a request's end can be read in one way only.
//!
//! hyper takes any `Transfer-Encoding` that ends in `chunked`; what an upstream makes of the codings before it is
//! another matter. Over HTTP/1.1 it makes one `Content-Length` of several that are the same and refuses all others; over
//! HTTP/2 it leaves each as it came. Sources: RFC 9112 §6.1, §6.3.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

/// Whether the body has no transfer coding but `chunked`, once, and no more than one length.
#[must_use]
pub fn is_plain(headers: &HeaderMap) -> bool {
    // "If a message is received without Transfer-Encoding and with an invalid Content-Length header field, then the message
    // framing is invalid and the recipient MUST treat it as an unrecoverable error" (RFC 9112 §6.3).
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return false;
    }
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

    #[test]
    fn hp_04_only_one_length_is_plain() {
        for (lines, plain) in [(&["3"][..], true), (&["3", "3"], false), (&["3", "03"], false)] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(line));
            }
            assert_eq!(is_plain(&headers), plain, "{lines:?}");
        }
    }
}
