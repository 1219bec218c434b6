//! The path of a request: one reading, and the route that it leads to (contract 4.2, 2 `routes`; standards RM-01…RM-04).
//!
//! The fuzzer's bytes are the request's target. Whatever is accepted goes up byte for byte, and no server behind us, right
//! or wrong, may read it as something that is guarded more strictly than what it was let through as.

use crate::common::{ROUTES, percent_decoded};
use cloakroom::config::{Auth, Destination};
use cloakroom::guard::gate;
use cloakroom::protocol::path::RequestPath;
use http::Uri;

/// How strictly what the path leads to is guarded, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Guarded {
    Open,
    Optional,
    Required,
    Own,
    Nowhere,
}

/// # Panics
/// Where a path was taken that has a second meaning.
pub fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        check_path(text);
    }
    // As it comes in: hyper makes a `Uri` of the target.
    if let Ok(uri) = Uri::try_from(data) {
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        if let Ok(path) = gate::parse_path(target, uri.path()) {
            assert!(target.len() <= 8192, "longer than any target that is taken");
            assert_eq!(path.raw(), uri.path());
            assert!(target.starts_with(path.raw()) || uri.path() == "/");
        }
        check_path(uri.path());
    }
}

fn check_path(raw: &str) {
    let Ok(path) = RequestPath::parse(raw) else {
        return;
    };
    assert_eq!(path.raw(), raw, "it does not go up as it came");
    assert!(
        raw.starts_with('/') && raw.bytes().all(may_stand_in_a_path),
        "{raw:?}"
    );
    check_decoded(&path);
    // What a client of WHATWG's rules makes of it: nothing else.
    let url = url::Url::parse("https://app.example.com").expect("a URL");
    let joined = url.join(raw).expect("an accepted path is a relative reference");
    assert_eq!(joined.path(), raw, "a browser reads it otherwise");
    assert_eq!(joined.origin(), url.origin());

    let Ok(place) = ROUTES.place(&path) else {
        return;
    };
    let chosen = guard_of(path.decoded());
    match place {
        Destination::Own => assert_eq!(chosen, Guarded::Own, "{raw:?}"),
        Destination::Nowhere => assert_eq!(chosen, Guarded::Nowhere, "{raw:?}"),
        Destination::Route(_, route) => {
            assert_eq!(chosen, guarded(route.auth()), "{raw:?}");
            assert!(
                segments(path.decoded()).starts_with(&segments(&route.path)),
                "{raw:?}"
            );
            check_prefix(&path, &route.path);
        }
    }
    for view in views(raw) {
        let seen = guard_of(&view);
        assert!(chosen >= seen, "{raw:?}, {chosen:?}, read as {view:?}, {seen:?}");
        assert!(
            seen != Guarded::Own || chosen == Guarded::Own,
            "{raw:?} read as {view:?}"
        );
    }
}

/// RFC 3986 §3.3, and the slash.
fn may_stand_in_a_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/[]".contains(&byte)
}

/// The decoded view is what a second decoder makes of it, and has nothing more to decode or resolve.
fn check_decoded(path: &RequestPath) {
    let raw = path.raw();
    let twice_kept = raw.replace("%2F", "%252F").replace("%2f", "%252F");
    let decoded = String::from_utf8(percent_decoded(twice_kept.as_bytes())).expect("UTF-8");
    assert_eq!(path.decoded(), decoded);
    assert!(!decoded.chars().any(|c| c.is_control() || c == '\\'), "{raw:?}");
    let flat = decoded.replace("%2F", "/");
    assert_eq!(
        percent_decoded(flat.as_bytes()),
        flat.as_bytes(),
        "{raw:?} is encoded twice"
    );
    let segments: Vec<&str> = flat.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let name = segment.split(';').next().unwrap_or_default();
        assert!(!matches!(name, "." | ".."), "{raw:?} has a dot segment");
        assert!(
            !name.is_empty() || at + 1 == segments.len(),
            "{raw:?} has an empty segment"
        );
    }
}

/// What `strip_prefix` leaves is the end of what came, and reads as the rest of what was matched.
fn check_prefix(path: &RequestPath, prefix: &str) {
    let rest = path.strip_prefix(prefix);
    assert!(path.raw().ends_with(&rest) || rest == "/");
    let rest = RequestPath::parse(&rest).expect("the rest of a good path is one");
    let whole = [prefix.trim_end_matches('/'), rest.decoded()].concat();
    let is_bare = path.decoded() == prefix && rest.decoded() == "/";
    assert!(
        is_bare || whole == path.decoded(),
        "{:?} without {prefix:?} is {rest:?}",
        path.raw()
    );
}

fn segments(path: &str) -> Vec<&str> {
    let mut all: Vec<&str> = path.split('/').skip(1).collect();
    if path == "/" {
        all.clear();
    }
    all
}

const fn guarded(auth: Auth) -> Guarded {
    match auth {
        Auth::None => Guarded::Open,
        Auth::Optional => Guarded::Optional,
        Auth::Required => Guarded::Required,
    }
}

/// The guard of the longest route, by whole segments.
fn guard_of(view: &str) -> Guarded {
    let steps = segments(view);
    if steps.first() == Some(&"bff") {
        return Guarded::Own;
    }
    let fitting = ROUTES
        .routes()
        .iter()
        .filter(|route| steps.starts_with(&segments(&route.path)));
    let longest = fitting.max_by_key(|route| segments(&route.path).len());
    longest.map_or(Guarded::Nowhere, |route| guarded(route.auth()))
}

/// What servers are known to make of a path, right or wrong, but for its case.
fn views(raw: &str) -> Vec<String> {
    let decoded = |text: &str| String::from_utf8_lossy(&percent_decoded(text.as_bytes())).into_owned();
    let once = decoded(raw);
    let mut views = vec![raw.to_owned(), decoded(&once), once];
    for change in [backslashes, without_parameters, without_dots, merged, all_of_them] {
        let changed: Vec<String> = views.iter().map(|view| change(view)).collect();
        views.extend(changed);
        views.sort_unstable();
        views.dedup();
    }
    views
}

fn backslashes(view: &str) -> String {
    view.replace('\\', "/")
}

fn without_parameters(view: &str) -> String {
    let names: Vec<&str> = view
        .split('/')
        .map(|s| s.split(';').next().unwrap_or_default())
        .collect();
    names.join("/")
}

fn without_dots(view: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in view.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

fn merged(view: &str) -> String {
    let kept: Vec<&str> = view.split('/').filter(|segment| !segment.is_empty()).collect();
    format!("/{}", kept.join("/"))
}

fn all_of_them(view: &str) -> String {
    merged(&without_dots(&without_parameters(&backslashes(view))))
}
