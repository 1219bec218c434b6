//! Query strings: `application/x-www-form-urlencoded`, read strictly and written safely.
//!
//! Source: WHATWG URL §5 (form-urlencoded); RFC 6749 §3.1: parameters MUST NOT be included more than once.

/// Decodes a query into its parameters, in order. `None`: an escape is malformed or the bytes are no UTF-8.
#[must_use]
pub fn parse(query: &str) -> Option<Vec<(String, String)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

/// The parameters that can be decoded; the others are as if they were not there.
#[must_use]
pub fn readable(query: &str) -> Vec<(String, String)> {
    query.split('&').filter_map(parse).flatten().collect()
}

/// One parameter among them.
#[derive(Debug, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// Not there.
    Absent,
    /// There once.
    One(&'a str),
    /// There more than once.
    Doubled,
}

/// Finds a parameter, and says so where it stands more than once.
#[must_use]
pub fn find<'a>(parameters: &'a [(String, String)], name: &str) -> Parameter<'a> {
    let mut found = parameters.iter().filter(|(key, _)| key == name);
    match (found.next(), found.next()) {
        (None, _) => Parameter::Absent,
        (Some((_, value)), None) => Parameter::One(value),
        _ => Parameter::Doubled,
    }
}

/// Decodes one name or value; `None` for a malformed escape or what is no UTF-8.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Encodes a value for a query: everything but RFC 3986's unreserved characters and `/` becomes an escape.
#[must_use]
pub fn encode(value: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            text.push(char::from(byte));
        } else {
            // Writing into a String does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for value in ["/orders?a=b&c=d#e", "ü €", "", "+%", "a b"] {
            assert_eq!(
                parse(&format!("x={}", encode(value))),
                Some(vec![("x".into(), value.into())])
            );
        }
    }

    #[test]
    fn oa_14_a_doubled_parameter_is_noticed() {
        let parameters = parse("state=a&code=b&state=a&empty").unwrap();
        assert_eq!(find(&parameters, "state"), Parameter::Doubled);
        assert_eq!(find(&parameters, "code"), Parameter::One("b"));
        assert_eq!(find(&parameters, "empty"), Parameter::One(""));
        assert_eq!(find(&parameters, "iss"), Parameter::Absent);
    }

    #[test]
    fn malformed_escapes_are_refused() {
        for odd in ["a=%", "a=%4", "a=%zz", "a=%ff", "%=a"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
