//! A stored record: what nobody sealed does not open, and what lies behind the seal is read and written as the same
//! (contract 5.2; standards SE-03…SE-05, SE-11).
//!
//! The fuzzer's first byte chooses: what is in the store, changes of what was sealed, or what lies behind the seal: as it is, or
//! as a head and what follows it, with a zero between them instead of the length in front.

use crate::common::SETTINGS;
use cloakroom::clock::UnixTime;
use cloakroom::secret::Secret;
use cloakroom::session::SessionId;
use cloakroom::session::fuzzing::{FIELDS, Read, read_record};
use cloakroom::session::seal::{KeyRing, OpenError, Purpose};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

const PURPOSES: [Purpose; 7] = [
    Purpose::Session,
    Purpose::LoginAttempt,
    Purpose::FinishedAttempt,
    Purpose::AttemptResult,
    Purpose::LogoutContinuation,
    Purpose::Listing,
    Purpose::LogoutMark,
];
const COOKIE: &[u8] = &[7; 32];
const CONTEXT: [&str; 2] = ["https://id.example.com", "app"];
const PLAIN: &[u8] = b"what was sealed";
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// With a key that stands still, so that a kept input still begins with its name.
static KEYS: LazyLock<KeyRing> = LazyLock::new(|| {
    let key = Secret::new("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY");
    KeyRing::new("https://app.example.com", &[key]).expect("a key")
});
static SEALED: LazyLock<Vec<u8>> = LazyLock::new(|| KEYS.seal(Purpose::Session, COOKIE, &CONTEXT, PLAIN));

/// # Panics
/// Where something opens that should not, or is not read as it was written.
pub fn check(data: &[u8]) {
    let [choice, rest @ ..] = data else {
        return;
    };
    match choice % 4 {
        0 => check_stored(rest),
        1 => check_changed(rest),
        2 => {
            let mut parts = rest.splitn(2, |byte| *byte == 0);
            let (head, texts) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let length = u32::try_from(head.len()).expect("inputs are short");
            check_record(&[&length.to_be_bytes(), head, texts].concat());
        }
        _ => check_record(rest),
    }
}

fn check_stored(sealed: &[u8]) {
    for purpose in PURPOSES {
        assert!(
            KEYS.open(purpose, COOKIE, &CONTEXT, sealed).is_err(),
            "what nobody sealed opens"
        );
        let contexts: [&[&str]; 2] = [&[], &CONTEXT];
        assert!(!matches!(
            KEYS.open_any(purpose, COOKIE, contexts, sealed),
            Ok(Some(_))
        ));
    }
    let known = sealed.first() == Some(&1) || sealed.is_empty();
    let error = KEYS.open(Purpose::Session, COOKIE, &CONTEXT, sealed);
    assert_eq!(matches!(error, Err(OpenError::UnknownFormat)), !known);
    if let Some(id) = SessionId::parse(sealed) {
        assert_eq!(id.cookie_value().as_bytes(), sealed);
    }
}

/// `[place (2 bytes), change]…`, then how much is cut off: only what is as it was sealed opens, and only as what it is.
fn check_changed(changes: &[u8]) {
    let mut sealed = SEALED.clone();
    let (steps, rest) = changes.as_chunks::<3>();
    for [high, low, change] in steps {
        let place = usize::from(u16::from_be_bytes([*high, *low])) % sealed.len();
        sealed[place] ^= change;
    }
    let cut = rest.first().map_or(0, |cut| usize::from(*cut) % sealed.len());
    sealed.truncate(sealed.len() - cut);
    for purpose in PURPOSES {
        let opened = KEYS.open(purpose, COOKIE, &CONTEXT, &sealed);
        let should = sealed == *SEALED && purpose == Purpose::Session;
        assert_eq!(
            opened.as_deref().map(Vec::as_slice) == Ok(PLAIN),
            should,
            "{purpose:?} {opened:?}"
        );
        assert_eq!(opened.is_ok(), should);
    }
    let others: [(&[u8], &[&str]); 3] = [(&[8; 32], &CONTEXT), (COOKIE, &CONTEXT[..1]), (b"", &CONTEXT)];
    for (cookie, context) in others {
        assert!(KEYS.open(Purpose::Session, cookie, context, &sealed).is_err());
    }
}

fn check_record(plain: &[u8]) {
    let Some(read) = read_record(plain, &SETTINGS.session, NOW) else {
        return;
    };
    let Read {
        written,
        session,
        is_over,
        ttl,
    } = &read;
    assert!(session.idle_end <= session.absolute_end);
    assert_eq!(*is_over, session.idle_end <= NOW);
    assert!(*is_over || !ttl.is_zero());
    if let Some(bearer) = &session.bearer {
        assert!(bearer.is_sensitive(), "the token can be logged");
    }
    check_debug(
        plain,
        &format!("{session:?}"),
        session.tokens.access_token.expose(),
    );
    let Some(written) = written else {
        assert!(plain.len() > 16 * 1024, "a short record is too large to write");
        return;
    };
    let again = read_record(written, &SETTINGS.session, NOW).expect("what was written is read");
    assert_eq!(
        again.written.as_ref(),
        Some(written),
        "it changes each time it is written"
    );
    let (before, beside_before, texts) = parts(plain).expect("what was read has a head");
    let (after, beside_after, written_texts) = parts(written).expect("what was written has a head");
    assert_eq!(texts, written_texts, "a text has changed");
    assert_eq!(beside_before, beside_after, "what is not known was not kept");
    if let (Some(before), Some(after)) = (before, after) {
        assert_eq!(before, after, "something was lost or added");
    }
}

/// The head's known fields, unless there is a value in one of them that only passing over takes; its other fields; and what
/// follows it.
type Parts<'a> = (Option<Map<String, Value>>, BTreeMap<String, &'a str>, &'a [u8]);

fn parts(record: &[u8]) -> Option<Parts<'_>> {
    let (length, rest) = record.split_first_chunk()?;
    let (head, texts) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(head).ok()?;
    let mut beside: BTreeMap<String, &str> = fields
        .into_iter()
        .map(|(name, value)| (name, value.get()))
        .collect();
    let (mut known, mut is_understood) = (Map::new(), true);
    for name in FIELDS {
        match beside.remove(*name).map(serde_json::from_str) {
            Some(Ok(value)) => drop(known.insert((*name).to_owned(), value)),
            Some(Err(_)) => is_understood = false,
            None => {}
        }
    }
    let known = is_understood.then(|| without_defaults(known));
    Some((known, beside, texts))
}

/// Without what is as good as absent, and what is passed over.
fn without_defaults(mut head: Map<String, Value>) -> Map<String, Value> {
    // What is written has this release's version, whatever older one was read.
    head.remove("v");
    let is_default = |value: &Value| value.is_null() || *value == false || *value == 0;
    for name in ["sid", "unconfirmed", "shown", "showing"] {
        if head.get(name).is_some_and(is_default) {
            head.remove(name);
        }
    }
    for (name, known) in [
        ("lengths", &["access", "refresh", "id", "claims"][..]),
        ("showing", &["at", "by"]),
    ] {
        if let Some(Value::Object(inner)) = head.get_mut(name) {
            inner.retain(|name, value| known.contains(&name.as_str()) && !value.is_null());
        }
    }
    head
}

/// A token is in no `Debug`, unless it stands in a claim as well.
fn check_debug(plain: &[u8], debug: &str, token: &str) {
    let text = String::from_utf8_lossy(plain);
    if token.contains("secret") && text.matches(token).count() == 1 {
        assert!(!debug.contains(token), "a token is in Debug");
    }
}
