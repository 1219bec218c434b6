//! `traceparent`: the browser's goes on where it is well formed, else a trace begins here.
//!
//! Source: W3C Trace Context §3.2 (format), §3.3.1 ("if parsing fails, the vendor […] MUST NOT use the tracestate").

use crate::protocol::header_name::{TRACEPARENT, TRACESTATE};
use crate::unique;
use http::{HeaderMap, HeaderValue};

/// Makes sure that exactly one well-formed `traceparent` goes up.
pub fn carry_on(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(&TRACEPARENT).iter();
    if let (Some(line), None) = (lines.next(), lines.next())
        && is_well_formed(line.as_bytes())
    {
        return;
    }
    headers.remove(&TRACESTATE);
    match fresh() {
        Some(value) => drop(headers.insert(&TRACEPARENT, value)),
        None => drop(headers.remove(&TRACEPARENT)),
    }
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`, lower-case hex, neither id all zero; versions after 00 may add
/// more after another dash.
fn is_well_formed(value: &[u8]) -> bool {
    let Some((fixed, more)) = value.split_at_checked(55) else {
        return false;
    };
    let mut fields = fixed.split(|b| *b == b'-');
    let mut next = |length: usize| {
        let is_hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        fields
            .next()
            .filter(|field| field.len() == length && field.iter().all(is_hex))
    };
    let (Some(version), Some(trace), Some(parent), Some(_flags)) = (next(2), next(32), next(16), next(2))
    else {
        return false;
    };
    let is_zero = |id: &[u8]| id.iter().all(|b| *b == b'0');
    version != b"ff"
        && !is_zero(trace)
        && !is_zero(parent)
        && (more.is_empty() || (version != b"00" && more.starts_with(b"-")))
}

/// A trace of our own, marked as sampled: whoever comes next decides as if it were the first.
fn fresh() -> Option<HeaderValue> {
    let (trace, parent) = (unique::bytes::<16>()?, unique::bytes::<8>()?);
    let mut value = Vec::with_capacity(55);
    value.extend_from_slice(b"00-");
    unique::push_hex(&mut value, &trace);
    value.push(b'-');
    unique::push_hex(&mut value, &parent);
    value.extend_from_slice(b"-01");
    HeaderValue::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn carried(lines: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&TRACEPARENT, HeaderValue::from_str(line).unwrap());
        }
        headers.insert("tracestate", HeaderValue::from_static("vendor=1"));
        carry_on(&mut headers);
        assert_eq!(headers.get_all(&TRACEPARENT).iter().count(), 1);
        (
            headers[&TRACEPARENT].to_str().unwrap().to_owned(),
            headers.contains_key("tracestate"),
        )
    }

    #[test]
    fn a_well_formed_trace_goes_on() {
        for value in [
            GOOD,
            &format!("cc{}", &GOOD[2..]),
            &format!("cc{}-more", &GOOD[2..]),
        ] {
            assert_eq!(carried(&[value]), (value.to_owned(), true));
        }
    }

    #[test]
    fn a_malformed_trace_is_replaced_with_its_state() {
        let (made, _) = carried(&[]);
        assert!(is_well_formed(made.as_bytes()), "{made}");
        assert_ne!(made, carried(&[]).0);
        for lines in [
            &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"][..],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
            &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"],
            &["00-4bf92f3577b34da6a3ce929d0e0e47360-0f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"],
            &[GOOD, GOOD],
            &[""],
        ] {
            let (made, has_state) = carried(lines);
            assert!(
                is_well_formed(made.as_bytes()) && !lines.contains(&made.as_str()) && !has_state,
                "{lines:?}"
            );
        }
    }
}
