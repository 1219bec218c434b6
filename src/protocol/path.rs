//! One parse of the request's path, for router, guard and upstream alike.
//!
//! A path that can be read in two ways is refused rather than guessed at: rules decide on the decoded view, while
//! the bytes go up as they were sent. The doubts that a route can settle (`;` parameters, an encoded slash) are handed
//! on as [`RequestPath::other_readings`]: all of them must lead to the same route.
//!
//! INVARIANT: a decoded view has no dot segment, no empty segment (but a last one), no control and no backslash, and
//! decoding it a second time would change nothing but `%2F`.
//!
//! Sources: RFC 3986 §2, §3.3; RFC 9112 §3.2 ("a recipient SHOULD NOT attempt to autocorrect").

/// A path with one meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath {
    raw: String,
    decoded: String,
    has_encoded_slash: bool,
}

/// A path that can be read in two ways; says which doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Ambiguous(pub &'static str);

/// Stands for an encoded slash while a path is being decoded; an encoded NUL is refused, so nothing else becomes it.
const ENCODED_SLASH: char = '\0';

impl RequestPath {
    /// Parses the path of a request target (without query).
    ///
    /// # Errors
    /// [`Ambiguous`] where two readers could disagree: answer 400.
    pub fn parse(raw: &str) -> Result<Self, Ambiguous> {
        if !raw.starts_with('/') {
            return Err(Ambiguous("the path does not begin with a slash"));
        }
        // Most paths hold nothing that means anything but itself.
        let is_literal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.');
        let decoded = if raw.bytes().all(is_literal) {
            check_segments(raw.as_bytes())?;
            raw.to_owned()
        } else {
            view(raw)?
        };
        let has_encoded_slash = decoded.contains(ENCODED_SLASH);
        Ok(Self {
            raw: raw.to_owned(),
            decoded: if has_encoded_slash {
                decoded.replace(ENCODED_SLASH, "%2F")
            } else {
                decoded
            },
            has_encoded_slash,
        })
    }

    /// The bytes as they were sent.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Percent-decoded once; an encoded slash stays `%2F`. For deciding, never for sending.
    #[must_use]
    pub fn decoded(&self) -> &str {
        &self.decoded
    }

    /// Whether `%2F` is in it: refused unless the route passes it.
    #[must_use]
    pub fn has_encoded_slash(&self) -> bool {
        self.has_encoded_slash
    }

    /// Every reading an upstream might take of it beside [`Self::decoded`] (`;` parameters cut off, `%2F` decoded):
    /// all must select the same route, else the path is ambiguous. Empty for ordinary paths.
    #[must_use]
    pub fn other_readings(&self) -> Vec<String> {
        let mut readings = Vec::new();
        if self.decoded.contains(';') {
            readings.push(without_parameters(&self.decoded));
        }
        if self.has_encoded_slash() {
            let slashed = self.decoded.replace("%2F", "/");
            if slashed.contains(';') {
                readings.push(without_parameters(&slashed));
            }
            readings.push(slashed);
        }
        readings
    }

    /// The raw path without its first segments, as many as `prefix` has; `/` at least.
    #[must_use]
    pub fn strip_prefix(&self, prefix: &str) -> String {
        let segments = prefix.split('/').filter(|segment| !segment.is_empty()).count();
        match self.raw.match_indices('/').nth(segments) {
            Some((start, _)) => self.raw[start..].to_owned(),
            None => "/".to_owned(),
        }
    }
}

/// The decoded view of a path, its segments checked; an encoded slash is [`ENCODED_SLASH`].
fn view(raw: &str) -> Result<String, Ambiguous> {
    let decoded = decode(raw.as_bytes())?;
    // A second decoding, of an upstream behind the upstream, would read these as something else.
    if decoded
        .windows(3)
        .any(|w| w[0] == b'%' && w[1].is_ascii_hexdigit() && w[2].is_ascii_hexdigit())
    {
        return Err(Ambiguous("the path is encoded twice"));
    }
    check_segments(&decoded)?;
    let decoded = String::from_utf8(decoded).map_err(|_| Ambiguous("the path's escapes are no UTF-8"))?;
    if decoded.chars().any(|c| c.is_control() && c != ENCODED_SLASH) {
        return Err(Ambiguous("the path holds an encoded control character"));
    }
    Ok(decoded)
}

/// Decodes every escape once; an encoded slash becomes [`ENCODED_SLASH`].
fn decode(raw: &[u8]) -> Result<Vec<u8>, Ambiguous> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let [high, low, tail @ ..] = tail else {
                    return Err(Ambiguous("the path holds a truncated escape"));
                };
                let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
                    return Err(Ambiguous("the path holds a malformed escape"));
                };
                rest = tail;
                decoded.push(match high << 4 | low {
                    0..0x20 | 0x7f => {
                        return Err(Ambiguous("the path holds an encoded control character"));
                    }
                    b'\\' => return Err(Ambiguous("the path holds an encoded backslash")),
                    b'/' => ENCODED_SLASH as u8,
                    byte => byte,
                });
            }
            // RFC 3986 §3.3 gives a path no other bytes than pchar and "/"; RFC 9112 §3.2 leaves no fragment either.
            0..=b' '
            | 0x7f..
            | b'"'
            | b'#'
            | b'<'
            | b'>'
            | b'?'
            | b'\\'
            | b'^'
            | b'`'
            | b'{'
            | b'|'
            | b'}' => {
                return Err(Ambiguous("the path holds a byte that no URI holds"));
            }
            byte => decoded.push(*byte),
        }
    }
    Ok(decoded)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Dot segments and empty ones, with an encoded slash seen as a slash as well.
fn check_segments(decoded: &[u8]) -> Result<(), Ambiguous> {
    let mut segments = decoded[1..]
        .split(|b| *b == b'/' || char::from(*b) == ENCODED_SLASH)
        .peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        // Servlet containers cut ";…" off before they resolve dots.
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        let has_parameters = name.len() < segment.len();
        if name.is_empty() && !is_last {
            return Err(Ambiguous("the path holds an empty segment"));
        }
        let is_dots = !name.is_empty() && name.iter().all(|b| *b == b'.');
        if is_dots && (has_parameters || name.len() <= 2) {
            return Err(Ambiguous("the path holds a dot segment"));
        }
    }
    Ok(())
}

fn without_parameters(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for segment in path.split_inclusive('/') {
        match segment.split_once(';') {
            Some((name, parameters)) => {
                out.push_str(name);
                if parameters.ends_with('/') {
                    out.push('/');
                }
            }
            None => out.push_str(segment),
        }
    }
    out
}

/// Whether `path` (a decoded view) is `prefix` or under it, on whole segments.
#[must_use]
pub fn is_under(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: [&str; 4] = ["/api/public", "/api", "/bff", "/"];

    /// What a router does with a path: the route, or why not.
    fn decide(path: &str, passes_encoded_slash: bool) -> Result<&'static str, &'static str> {
        let select = |reading: &str| ROUTES.into_iter().find(|route| is_under(reading, route));
        let path = RequestPath::parse(path).map_err(|doubt| doubt.0)?;
        let route = select(path.decoded()).ok_or("no route")?;
        if path.has_encoded_slash() && !passes_encoded_slash {
            return Err("encoded slash");
        }
        if path
            .other_readings()
            .iter()
            .any(|reading| select(reading) != Some(route))
        {
            return Err("readings differ");
        }
        Ok(route)
    }

    #[test]
    fn rm_01_every_row_of_the_path_corpus_comes_out_as_listed() {
        let corpus = include_str!("../../tests/corpus/path_match.tsv");
        let mut seen = 0;
        for row in corpus.lines().skip(1) {
            let mut columns = row.split('\t');
            let (Some(id), Some(target), Some(expected)) = (columns.next(), columns.next(), columns.next())
            else {
                panic!("row {row}");
            };
            // Host, CONNECT, asterisk and the length of a target are for `host`, the router and the listener.
            if id >= "PM-C060" {
                continue;
            }
            seen += 1;
            let (target, passes) = match id {
                "PM-C053" => ("/api/\u{fc}", false),
                "PM-C059" => ("/api/a%2Fb", true),
                _ => (target, false),
            };
            let got = decide(target.split('?').next().unwrap(), passes);
            let wanted = match expected {
                "400" => None,
                e if e.contains("static") => Some("/"),
                e if e.contains("(open)") => Some("/api/public"),
                e if e.contains("(session)") => Some("/api"),
                e if e.contains("own endpoint") => Some("/bff"),
                e => panic!("{id}: {e}"),
            };
            assert_eq!(got.ok(), wanted, "{id} {target}");
        }
        assert_eq!(seen, 59);
    }

    #[test]
    fn further_doubts_are_refused() {
        for path in [
            "",
            "*",
            "api",
            "/a?b",
            "/%25%32%65/x",
            "/%25%32F",
            "/a%2F..",
            "/a%2F%2Fb",
            "/%2Fa",
            "/a%2F/b",
            "/...;x/y",
            "/a/;/b",
            "/%c2%85",
            "/a\u{7f}",
            "/a%7F",
            "/.%3B/x",
            "/a/.",
            "/a/%2E",
            "/a%2F.",
            "/%ed%a0%80",
        ] {
            assert!(RequestPath::parse(path).is_err(), "{path}");
        }
        for path in [
            "/",
            "/...",
            "/a/",
            "/.well-known/x",
            "/a;b;c",
            "/~!$&'()*+,=:@",
            "/%20",
            "/a..b",
            "/%e2%82%ac",
        ] {
            assert!(RequestPath::parse(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn readings_and_prefixes() {
        let path = |raw: &str| RequestPath::parse(raw).unwrap();
        assert_eq!(
            path("/a;x=%2Fb/c;y").other_readings(),
            ["/a/c", "/a/b/c", "/a;x=/b/c;y"]
        );
        assert!(path("/a/b").other_readings().is_empty());
        for (raw, prefix, wanted) in [
            ("/api/x", "/api", "/x"),
            ("/%61pi/x/", "/api", "/x/"),
            ("/api", "/api", "/"),
            ("/api/", "/api", "/"),
            ("/a/b/c%2Fd;e", "/a/b", "/c%2Fd;e"),
            ("/api/x", "/", "/api/x"),
        ] {
            assert_eq!(path(raw).strip_prefix(prefix), wanted, "{raw}");
        }
        // Traefik's class of bug: what is cut off must be what was matched.
        assert!(!is_under(path("/api%2e/admin").decoded(), "/api"));
    }

    #[test]
    fn rm_02_accepted_paths_have_one_meaning() {
        const PIECES: [&str; 30] = [
            "/", "/", "/", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", ";", "%3b", "%25", "%", "2", "e",
            "F", "%61", "api", "public", "%c3%bc", "%ff", "\\", "#", "%00", "%7f", " ", "=", "%c0", "%ae",
        ];
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut raw = String::from("/");
            random ^= random << 7;
            random ^= random >> 9;
            let mut dice = random;
            for _ in 0..dice % 8 {
                dice = dice.rotate_right(5);
                raw.push_str(PIECES[usize::try_from(dice % 30).unwrap()]);
            }
            let Ok(path) = RequestPath::parse(&raw) else {
                continue;
            };
            accepted += 1;
            assert_eq!(path.raw(), raw);
            let mut views = path.other_readings();
            views.push(path.decoded().to_owned());
            for view in views {
                let inner = &view[1..];
                assert!(!inner.split('/').any(|s| matches!(s, "." | "..")), "{raw} {view}");
                assert!(
                    !inner.trim_end_matches('/').split('/').any(str::is_empty) || inner.is_empty(),
                    "{raw} {view}"
                );
                assert!(
                    !view.contains("//") && !view.contains(|c: char| c.is_control() || c == '\\'),
                    "{raw} {view}"
                );
            }
            // What a prefix cuts off is what it was matched against.
            let first = path.decoded()[1..].split('/').next().unwrap_or_default();
            if !first.is_empty() && path.decoded().len() > first.len() + 1 {
                let rest = RequestPath::parse(&path.strip_prefix(&format!("/{first}"))).unwrap();
                assert_eq!(format!("/{first}{}", rest.decoded()), path.decoded());
            }
        }
        assert!(accepted > 10_000, "{accepted}");
    }
}
