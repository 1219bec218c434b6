//! The `Cookie` header: our cookies are found by one exact name, and none of them goes up (contract 4.11, 4.12, 5.1, 5.4).
//!
//! The fuzzer's bytes are lines: the first one's first byte chooses the session cookie's name, each of the others is a
//! `Cookie` line, and a `Set-Cookie` of the upstream as well. The last one is also what lies behind the seal of a login
//! attempt's cookie: no browser can make such a one, but a release before or after this one might.

use crate::common::{SESSION_COOKIE, SETTINGS};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cloakroom::clock::UnixTime;
use cloakroom::guard::SessionCookie;
use cloakroom::guard::authenticate::Presented;
use cloakroom::protocol::cookie;
use cloakroom::proxy;
use cloakroom::session::login_attempt::{Attempts, Opened};
use cloakroom::session::seal::{KeyRing, Purpose};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Names that a session cookie may have been given.
const NAMES: [&str; 3] = [SESSION_COOKIE, "sid", "__Host-a"];
const STATE: &str = "state-of-the-attempt";
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

static KEYS: LazyLock<Arc<KeyRing>> = LazyLock::new(|| Arc::new(KeyRing::random("https://app.example.com")));

/// # Panics
/// Where a cookie was found, kept or let through otherwise than the rules say.
pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let choice = lines
        .next()
        .and_then(|line| line.first())
        .copied()
        .unwrap_or_default();
    let name = NAMES[usize::from(choice) % NAMES.len()];
    let lines: Vec<&[u8]> = lines.collect();
    let headers = headers(&lines);

    let pairs: Vec<(Vec<u8>, Vec<u8>)> = pieces(&headers).iter().filter_map(|piece| pair(piece)).collect();
    let read: Vec<(Vec<u8>, Vec<u8>)> = cookie::pairs(&headers)
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    assert_eq!(read, pairs);
    check_session(name, &headers, &pairs);
    check_what_goes_up(name, &headers);
    for line in &lines {
        check_upstreams(name, line);
    }
    check_attempts(name, &headers, lines.last().copied().unwrap_or_default());
}

fn headers(lines: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(COOKIE, line);
    }
    headers
}

/// What stands between semicolons, over all lines, as it was sent.
fn pieces(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for line in headers.get_all(COOKIE) {
        let mut piece = Vec::new();
        for byte in line.as_bytes() {
            if *byte == b';' {
                all.push(std::mem::take(&mut piece));
            } else {
                piece.push(*byte);
            }
        }
        all.push(piece);
    }
    all
}

/// A piece as name and value, without the blanks around either; `None` where there is no `=`.
fn pair(piece: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = piece.iter().position(|byte| *byte == b'=')?;
    Some((bare(&piece[..at]), bare(&piece[at + 1..])))
}

/// Without the blanks around it.
fn bare(text: &[u8]) -> Vec<u8> {
    let is_ink = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(start) = text.iter().position(is_ink) else {
        return Vec::new();
    };
    let end = text.iter().rposition(is_ink).unwrap_or(start);
    text[start..=end].to_vec()
}

/// 5.1: one of that exact name, 43 characters that are 256 bits; two of it are no session.
fn check_session(name: &str, headers: &HeaderMap, pairs: &[(Vec<u8>, Vec<u8>)]) {
    let mut settings = SETTINGS.session.clone();
    name.clone_into(&mut settings.cookie.name);
    let cookie = SessionCookie::new(&settings);
    let own: Vec<&Vec<u8>> = pairs
        .iter()
        .filter(|(n, _)| n == name.as_bytes())
        .map(|(_, v)| v)
        .collect();
    assert_eq!(cookie.came(headers), !own.is_empty());
    match (cookie.presented(headers), &own[..]) {
        (Presented::Nothing, []) | (Presented::Unusable, [_, _, ..]) => {}
        (Presented::Id(id), [value]) => assert_eq!(id.cookie_value().as_bytes(), &value[..], "two spellings"),
        (Presented::Unusable, [value]) => assert!(!is_id(value), "{value:?}"),
        (presented, own) => panic!("{presented:?} from {} of that name", own.len()),
    }
}

fn is_id(value: &[u8]) -> bool {
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    // 43 characters hold 258 bits, so the last one has two that must be zero.
    let last = value
        .last()
        .is_some_and(|byte| b"AEIMQUYcgkosw048".contains(byte));
    value.len() == 43 && value.iter().all(is_base64url) && last
}

/// Whether a name is one of ours: the session's, a login's, a logout's; under the configured name and the default one.
fn is_ours(name: &[u8], session: &str) -> bool {
    [session, SESSION_COOKIE].iter().any(|base| {
        let login = format!("{base}-login-");
        name == base.as_bytes()
            || name == format!("{base}-logout").as_bytes()
            || name.starts_with(login.as_bytes())
    })
}

/// 4.11: cloakroom's cookies stay here; other cookies stay as they are.
fn check_what_goes_up(session: &str, headers: &HeaderMap) {
    let mut up = headers.clone();
    proxy::strip(&mut up, session);
    let name_of = |piece: &[u8]| pair(piece).map_or_else(|| bare(piece), |(name, _)| name);
    for piece in pieces(&up) {
        assert!(!is_ours(&name_of(&piece), session), "one of ours goes up");
    }
    let mut left = up.get_all(COOKIE).iter();
    for line in headers.get_all(COOKIE) {
        let all: Vec<&[u8]> = line.as_bytes().split(|byte| *byte == b';').collect();
        let others: Vec<&[u8]> = all
            .iter()
            .copied()
            .filter(|piece| !is_ours(&name_of(piece), session))
            .collect();
        if others.len() == all.len() {
            assert_eq!(left.next(), Some(line), "a line without ours has changed");
            continue;
        }
        let rest = bare(&others.join(&b';'));
        if !rest.is_empty() {
            let kept = left.next().expect("a line with other cookies is gone");
            assert_eq!(kept.as_bytes(), rest, "other cookies have changed");
        }
    }
    assert_eq!(left.next(), None, "a line came from nowhere");
}

/// 4.12: what a browser stores from an upstream's `Set-Cookie` and sends back (RFC 6265bis §5.6, §5.8.3) never passes for ours.
fn check_upstreams(session: &str, line: &[u8]) {
    let Ok(line) = HeaderValue::from_bytes(line) else {
        return;
    };
    if !proxy::may_be_set(&line, session) {
        return;
    }
    let mut parts = line.as_bytes().split(|byte| *byte == b';');
    let first = parts.next().unwrap_or_default();
    let (name, value) = pair(first).unwrap_or_else(|| (Vec::new(), bare(first)));
    let sent = if name.is_empty() {
        value
    } else {
        [&name[..], b"=", &value].concat()
    };
    let back = HeaderMap::from_iter([(COOKIE, HeaderValue::from_bytes(&sent).expect("a header's bytes"))]);
    for (name, _) in cookie::pairs(&back) {
        assert!(!is_ours(name, session), "an upstream sets one of ours");
    }
    for attribute in parts {
        let name = pair(attribute).map_or_else(|| bare(attribute), |(name, _)| name);
        assert!(
            !name.eq_ignore_ascii_case(b"domain"),
            "an upstream sets one for a domain"
        );
    }
}

/// 5.4: what cannot be opened is no attempt; five at most, and 4 KB.
fn check_attempts(session: &str, headers: &HeaderMap, plain: &[u8]) {
    let attempts = Attempts::new(Arc::clone(&KEYS), session);
    assert!(
        attempts.find(headers, STATE, NOW).is_none(),
        "nobody but us can seal"
    );
    assert!(!attempts.is_under_way(headers, NOW));
    let _ = (
        attempts.have_strangers(headers),
        attempts.why_unfound(headers, STATE),
    );
    check_room(session, &attempts, headers);

    // Sealing is what costs here: only for what could be read.
    if !plain.starts_with(b"{") {
        return;
    }
    let own = attempts.cookie_name(STATE);
    let forged = |purpose| {
        let sealed = KEYS.seal(purpose, b"", &[&own], plain);
        let line = format!("{own}={}", BASE64_URL_SAFE_NO_PAD.encode(sealed));
        HeaderValue::try_from(line).expect("base64url")
    };
    let mut twice = headers.clone();
    for purpose in [Purpose::LoginAttempt, Purpose::FinishedAttempt] {
        let mut headers = headers.clone();
        headers.append(COOKIE, forged(purpose));
        twice.append(COOKIE, forged(purpose));
        match attempts.find(&headers, STATE, NOW) {
            None => {}
            Some(Opened::UnderWay(attempt)) => {
                assert_eq!(purpose, Purpose::LoginAttempt);
                assert_eq!(attempt.secrets.state.expose(), STATE);
                assert!(NOW.since(attempt.begun) < Duration::from_mins(10));
            }
            Some(Opened::Finished { begun, .. }) => {
                assert_eq!(purpose, Purpose::FinishedAttempt);
                assert!(NOW.since(begun) < Duration::from_mins(10));
            }
        }
        check_room(session, &attempts, &headers);
        let _ = attempts.settled_marks(&headers, NOW);
        let _ = attempts.finished_within(&headers, NOW, Duration::from_mins(1));
    }
    assert!(
        attempts.find(&twice, STATE, NOW).is_none(),
        "an attempt whose cookie came twice"
    );
}

/// At most five attempts, the new one among them.
fn check_room(session: &str, attempts: &Attempts, headers: &HeaderMap) {
    let gone = attempts.crowded_out(headers, 300, NOW);
    let prefix = format!("{session}-login-");
    let may_be_ours = |name: &String| {
        let id = name.strip_prefix(&prefix).unwrap_or("\n");
        id.len() <= 64
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let names = cookie::pairs(headers).filter_map(|(name, _)| String::from_utf8(name.to_vec()).ok());
    let held: Vec<String> = names.filter(may_be_ours).collect();
    assert!(
        gone.iter().all(|name| held.contains(name)),
        "what never came is deleted"
    );
    let left = held.iter().filter(|name| !gone.contains(name)).count();
    assert!(left <= 4, "{left} attempts beside the new one");
}
