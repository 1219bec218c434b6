//! `return_to`: where a login may lead (contract 3.2; standards RT-01…RT-05).
//!
//! The fuzzer's bytes are the value as it stands after its one decoding. What is accepted is what the contract's grammar
//! names, and leads to this origin, for a browser (WHATWG URL) and for whoever decodes it once more.

use crate::common::{ROUTES, percent_decoded};
use cloakroom::config::Destination;
use cloakroom::protocol::path::RequestPath;
use cloakroom::protocol::{query, return_to};
use http::HeaderValue;
use url::Url;

/// # Panics
/// Where a value leads elsewhere, or is judged otherwise than the contract says.
pub fn check(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else {
        return;
    };
    let taken = return_to::parse(value);
    assert_eq!(taken.is_some(), is_allowed(value), "{value:?}");

    // As a query it comes back as it was, and a parser of queries never makes another value of it.
    let parameters = query::parse(&format!("return_to={}", query::encode(value)));
    assert_eq!(parameters, Some(vec![("return_to".to_owned(), value.to_owned())]));
    let _ = (query::parse(value), query::readable(value));

    if let Some(path) = taken {
        check_landing(value, &path);
    }
}

/// The grammar of contract 3.2, but for what 4.2 says of paths: that is `request_path`'s.
fn is_allowed(value: &str) -> bool {
    let end = value.find(['?', '#']).unwrap_or(value.len());
    let (path, rest) = value.split_at(end);
    value.len() <= 1024
        && value.bytes().all(|byte| byte.is_ascii_graphic())
        && path.starts_with('/')
        && !path.contains("//")
        && !path.contains('\\')
        && !rest.contains(['\\', '"', '<', '>'])
        && escapes(path).is_some_and(|all| {
            let shapes = |byte: &u8| byte.is_ascii_control() || b"%/\\.".contains(byte);
            !all.iter().any(shapes)
        })
        && RequestPath::parse(path).is_ok()
}

/// The bytes that the escapes of a text stand for; `None` where one is malformed.
fn escapes(text: &str) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for part in text.split('%').skip(1) {
        let digits = part
            .get(..2)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        all.push(u8::from_str_radix(digits, 16).ok()?);
    }
    Some(all)
}

fn check_landing(value: &str, path: &RequestPath) {
    let sent = &value[..value.find(['?', '#']).unwrap_or(value.len())];
    assert_eq!(path.raw(), sent, "the router sees another path");
    assert!(HeaderValue::from_str(value).is_ok(), "{value:?} is no header");
    for base in [
        "https://app.example.com/bff/callback?code=x&state=y",
        "http://localhost:8080/bff/login",
        "https://app.example.com/a/b/c;d#e",
    ] {
        let base = Url::parse(base).expect("a URL");
        let landed = base
            .join(value)
            .expect("an accepted value is a relative reference");
        assert_eq!(landed.origin(), base.origin(), "{value:?} leads elsewhere");
        assert_eq!(landed.path(), sent, "{value:?} lands on another path");
        assert!(landed.username().is_empty() && landed.password().is_none());
        // Put together by hand, as a careless reader does.
        let whole = format!("{}{value}", base.origin().ascii_serialization());
        assert_eq!(
            Url::parse(&whole).expect("a URL").origin(),
            base.origin(),
            "{value:?}"
        );
        // Decoded once more than it was meant to be.
        let again = String::from_utf8_lossy(&percent_decoded(value.as_bytes())).into_owned();
        let landed = base
            .join(&again)
            .expect("decoded once more it still is a relative reference");
        assert_eq!(
            landed.origin(),
            base.origin(),
            "{value:?} decoded once more leads elsewhere"
        );
    }
    if ROUTES.may_land(path) {
        let lower = path.decoded().to_ascii_lowercase();
        assert!(
            lower != "/bff" && !lower.starts_with("/bff/"),
            "{value:?} lands on an endpoint"
        );
        if let Ok(Destination::Route(_, route)) = ROUTES.place(path) {
            assert!(route.pages(), "{value:?} lands where nobody may");
        }
    }
}
