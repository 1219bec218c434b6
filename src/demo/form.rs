//! `application/x-www-form-urlencoded`, strictly: queries and posted forms of the demo's provider and API.
//!
//! Sources: WHATWG URL §5, RFC 6749 §3.1 and appendix B.

pub use crate::protocol::query::{decode, encode};

/// The most parameters in one form.
const MAX_PARAMETERS: usize = 64;

/// Decoded names and values, in order, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Parses; `None` for malformed escapes, what is no UTF-8, a name that is there twice, or too many.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            // RFC 6749 §3.1: "Request and response parameters MUST NOT be included more than once."
            if pairs.len() == MAX_PARAMETERS || pairs.iter().any(|(known, _)| *known == name) {
                return None;
            }
            pairs.push((name, value));
        }
        Some(Self(pairs))
    }

    /// A parameter's value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        // RFC 6749 §3.1: "Parameters sent without a value MUST be treated as if they were omitted from the request."
        self.0
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// All of it.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_strictly() {
        let form = Form::parse("a=1+2&b=%C3%A4&c=&d").unwrap();
        assert_eq!(form.value("a"), Some("1 2"));
        assert_eq!(form.value("b"), Some("ä"));
        assert_eq!((form.value("c"), form.value("d")), (None, None));
        for wrong in ["a=1&a=2", "a=%4", "a=%zz", "a=%ff", "a=%+1"] {
            assert_eq!(Form::parse(wrong), None, "{wrong}");
        }
        let many: Vec<String> = (0..=MAX_PARAMETERS).map(|n| format!("p{n}=1")).collect();
        assert_eq!(Form::parse(&many.join("&")), None);
    }
}
