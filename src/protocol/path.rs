//! One parse of the request's path, for router, guard and upstream alike.
//!
//! A path that can be read in two ways is refused rather than guessed at: rules decide on the decoded view, while
//! the bytes go up as they were sent. Sources: RFC 3986 §2, §3.3; RFC 9112 §3.2 (do not autocorrect).

/// A path with one meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath {
    raw: String,
    decoded: String,
}

/// A path that can be read in two ways; says which doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Ambiguous(pub &'static str);

impl RequestPath {
    /// Parses the path of a request target (without query).
    ///
    /// # Errors
    /// [`Ambiguous`] where two readers could disagree: answer 400.
    pub fn parse(_raw: &str) -> Result<Self, Ambiguous> {
        unimplemented!()
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
        unimplemented!()
    }

    /// Every reading an upstream might take of it beside [`Self::decoded`] (`;` parameters cut off, `%2F` decoded):
    /// all must select the same route, else the path is ambiguous. Empty for ordinary paths.
    #[must_use]
    pub fn other_readings(&self) -> Vec<String> {
        unimplemented!()
    }

    /// The raw path without its first segments, as many as `prefix` has; `/` at least.
    #[must_use]
    pub fn strip_prefix(&self, _prefix: &str) -> String {
        unimplemented!()
    }
}

/// Whether `path` (a decoded view) is `prefix` or under it, on whole segments.
#[must_use]
pub fn is_under(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
