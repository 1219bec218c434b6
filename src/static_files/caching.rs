//! How long a browser may keep a file without asking: for ever where its name changes with its content.

use http::HeaderValue;

/// How a file may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// For a year: the name is the content's.
    Immutable,
    /// After asking whether it is still the same.
    Revalidated,
}

impl Caching {
    /// Judges by the name: `name-HASH.ext` or `name.HASH.ext`, as bundlers write it.
    pub fn of(path: &str) -> Self {
        let file = path.rsplit('/').next().unwrap_or_default();
        let stem = file.rsplit_once('.').map_or("", |(stem, _)| stem);
        // `index-B1x9k2Qa.js.map` belongs to `index-B1x9k2Qa.js`.
        let stem = stem
            .strip_suffix(".js")
            .or_else(|| stem.strip_suffix(".css"))
            .unwrap_or(stem);
        match stem.rsplit_once(['-', '.']) {
            Some((name, hash)) if !name.is_empty() && is_hash(hash) => Self::Immutable,
            _ => Self::Revalidated,
        }
    }

    /// The value of `Cache-Control`. What is not for everybody must not lie in a cache that everybody asks
    /// (RFC 9111 §5.2.2.7).
    pub const fn header(self, is_for_everybody: bool) -> HeaderValue {
        HeaderValue::from_static(match (self, is_for_everybody) {
            (Self::Immutable, true) => "public, max-age=31536000, immutable",
            (Self::Immutable, false) => "private, max-age=31536000, immutable",
            (Self::Revalidated, true) => "no-cache",
            (Self::Revalidated, false) => "private, no-cache",
        })
    }
}

/// Whether a piece of a name can only be a hash: hex digits, base64url in both cases, or esbuild's eight of base32; with
/// digits among the letters. A date, a year after a word or a version number is none: a file that is kept for a year by
/// mistake cannot be called back.
fn is_hash(piece: &str) -> bool {
    let bytes = piece.as_bytes();
    let has = |kind: fn(&u8) -> bool| bytes.iter().any(kind);
    let is_all = |kind: fn(&u8) -> bool| bytes.iter().all(kind);
    let digit_before_letter = bytes
        .windows(2)
        .any(|w| w[0].is_ascii_digit() && w[1].is_ascii_alphabetic());
    bytes.len() >= 8
        && digit_before_letter
        && (is_all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            || (is_all(|b| b.is_ascii_alphanumeric() || *b == b'_')
                && has(u8::is_ascii_uppercase)
                && has(u8::is_ascii_lowercase))
            || (bytes.len() == 8 && is_all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_change_with_the_content_are_kept_for_ever() {
        for path in [
            "/assets/index-B1x9k2Qa.js",
            "/assets/index-B1x9k2Qa.js.map",
            "/static/main.8f3a1c2e.css",
            "/main-5XJ3FQ2A.js",
            "/logo.1a2b3c4d5e6f.svg",
        ] {
            assert_eq!(Caching::of(path), Caching::Immutable, "{path}");
        }
        for path in [
            "/index.html",
            "/",
            "/app.js",
            "/jquery-3.7.1.min.js",
            "/report-20240101.pdf",
            "/photo-holiday2023.jpg",
            "/manual-VERSION2.pdf",
            "/a-abcdefgh.js",
            "/8f3a1c2e.js",
            "/-8f3a1c2e.js",
            "/IMG-20240101T120000.jpg",
            "/noext-8f3a1c2e",
        ] {
            assert_eq!(Caching::of(path), Caching::Revalidated, "{path}");
        }
    }
}
