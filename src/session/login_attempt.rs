//! A login attempt: what must be remembered between the way to the provider and the callback (contract 5.4).
//!
//! It lives in a sealed cookie of its own, so visitors who never finish cost the store nothing, and several tabs can
//! sign in at once. After success the cookie becomes a mark that holds `return_to` only, so that a callback which is
//! loaded again leads on. INVARIANT: a mark never opens as an attempt, nor an attempt as a session: purpose and
//! cookie name are bound into the seal.
//!
//! Sources: RFC 6749 §10.12, RFC 7636 §4.1, OpenID Connect Core §15.5.2.

use super::seal::{KeyRing, OpenError, Purpose};
use crate::clock::UnixTime;
use crate::protocol::authorization::AttemptSecrets;
use crate::protocol::cookie;
use crate::secret::{CodeVerifier, Secret, Wiped};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long an attempt lives.
pub const LIFETIME: Duration = Duration::from_mins(10);
/// The most attempt cookies a browser is left with.
const MOST: usize = 5;
/// The most bytes they may take together, names and values.
const MOST_BYTES: usize = 4096;

/// One attempt.
#[derive(Clone, Debug)]
pub struct LoginAttempt {
    /// `state`, `nonce` and `code_verifier`.
    pub secrets: AttemptSecrets,
    /// Where the login leads; checked when it was begun, and again when it ends.
    pub return_to: String,
    /// The provider's name in the config.
    pub provider: String,
    /// The store key hash of the session whose cookie came along: it ends when this login succeeds.
    pub replaces: Option<[u8; 32]>,
    /// Whether `prompt=none` was asked: a refusal is no failure.
    pub silent: bool,
    /// The `max_age` that was sent, seconds.
    pub max_age: Option<u64>,
    /// The `acr_values` that were sent.
    pub acr_values: Option<String>,
    /// When it began.
    pub begun: UnixTime,
}

/// What an attempt's cookie holds.
#[derive(Clone, Debug)]
pub enum Opened {
    /// Under way.
    UnderWay(Box<LoginAttempt>),
    /// Finished: the mark.
    Finished {
        /// Where it led.
        return_to: String,
        /// When the attempt began.
        begun: UnixTime,
        /// When it was finished.
        finished: UnixTime,
    },
}

impl Opened {
    fn begun(&self) -> UnixTime {
        match self {
            Self::UnderWay(attempt) => attempt.begun,
            Self::Finished { begun, .. } => *begun,
        }
    }
}

/// The sealed form of an attempt. Short names: all attempts of a browser share 4 KB.
#[derive(Serialize, Deserialize)]
struct Sealed {
    s: String,
    n: String,
    v: String,
    r: String,
    p: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    o: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    q: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<String>,
    b: UnixTime,
}

/// The sealed form of a mark.
#[derive(Serialize, Deserialize)]
struct Mark {
    r: String,
    b: UnixTime,
    f: UnixTime,
}

/// Which attempt a `state` belongs to: a hash of it, for the cookie's name and the store's key.
#[must_use]
pub fn hash_of_state(state: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"cloakroom login attempt v1\0");
    context.update(state.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The login attempts of browsers: their cookies, sealed and bounded.
#[derive(Clone, Debug)]
pub struct Attempts {
    keys: std::sync::Arc<KeyRing>,
    name_prefix: String,
}

impl Attempts {
    /// `session_cookie`: the session cookie's name, with which the attempts' names begin.
    #[must_use]
    pub fn new(keys: std::sync::Arc<KeyRing>, session_cookie: &str) -> Self {
        Self {
            keys,
            name_prefix: format!("{session_cookie}-login-"),
        }
    }

    /// The name of the cookie in which the attempt with this `state` lives.
    #[must_use]
    pub fn cookie_name(&self, state: &str) -> String {
        format!(
            "{}{}",
            self.name_prefix,
            URL_SAFE_NO_PAD.encode(&hash_of_state(state)[..12])
        )
    }

    /// The cookie value of an attempt under way.
    #[must_use]
    pub fn seal(&self, attempt: &LoginAttempt) -> String {
        let sealed = Sealed {
            s: attempt.secrets.state.expose().to_owned(),
            n: attempt.secrets.nonce.expose().to_owned(),
            v: attempt.secrets.code_verifier.expose().to_owned(),
            r: attempt.return_to.clone(),
            p: attempt.provider.clone(),
            o: attempt.replaces.map(|hash| URL_SAFE_NO_PAD.encode(hash)),
            q: attempt.silent,
            m: attempt.max_age,
            a: attempt.acr_values.clone(),
            b: attempt.begun,
        };
        let name = self.cookie_name(attempt.secrets.state.expose());
        self.seal_json(Purpose::LoginAttempt, &name, &sealed)
    }

    /// The cookie value of the mark that a finished attempt leaves.
    #[must_use]
    pub fn seal_mark(&self, attempt: &LoginAttempt, finished: UnixTime) -> String {
        let mark = Mark {
            r: attempt.return_to.clone(),
            b: attempt.begun,
            f: finished,
        };
        let name = self.cookie_name(attempt.secrets.state.expose());
        self.seal_json(Purpose::FinishedAttempt, &name, &mark)
    }

    fn seal_json(&self, purpose: Purpose, name: &str, value: &impl Serialize) -> String {
        // Plain structs of strings and numbers always serialize.
        let plain = Wiped::new(serde_json::to_vec(value).unwrap_or_default());
        URL_SAFE_NO_PAD.encode(self.keys.seal(purpose, b"", &[name], &plain))
    }

    /// Finds the cookie of the attempt with this `state` and opens it. `None`: it is not there, there twice, too
    /// old, or does not open.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap, state: &str, now: UnixTime) -> Option<Opened> {
        let name = self.cookie_name(state);
        let mut values = cookie::values(headers, &name);
        let (value, None) = (values.next()?, values.next()) else {
            return None;
        };
        let opened = self.open(&name, value, now)?;
        match &opened {
            Opened::UnderWay(attempt) => {
                let same = aws_lc_rs::constant_time::verify_slices_are_equal(
                    attempt.secrets.state.expose().as_bytes(),
                    state.as_bytes(),
                );
                same.is_ok().then_some(opened)
            }
            Opened::Finished { .. } => Some(opened),
        }
    }

    fn open(&self, name: &str, value: &[u8], now: UnixTime) -> Option<Opened> {
        let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
        let open = |purpose| self.keys.open(purpose, b"", &[name], &sealed).ok();
        let opened = if let Some(plain) = open(Purpose::LoginAttempt) {
            let sealed: Sealed = serde_json::from_slice(&plain).ok()?;
            Opened::UnderWay(Box::new(LoginAttempt {
                secrets: AttemptSecrets {
                    state: Secret::new(sealed.s),
                    nonce: Secret::new(sealed.n),
                    code_verifier: CodeVerifier::new(sealed.v),
                },
                return_to: sealed.r,
                provider: sealed.p,
                replaces: sealed
                    .o
                    .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()),
                silent: sealed.q,
                max_age: sealed.m,
                acr_values: sealed.a,
                begun: sealed.b,
            }))
        } else {
            let mark: Mark = serde_json::from_slice(&open(Purpose::FinishedAttempt)?).ok()?;
            Opened::Finished {
                return_to: mark.r,
                begun: mark.b,
                finished: mark.f,
            }
        };
        (now.since(opened.begun()) < LIFETIME && opened.begun() <= now.plus(Duration::from_mins(1)))
            .then_some(opened)
    }

    /// The marks among a request's attempt cookies: what is under way in other tabs is not among them. Each comes with
    /// a value that leads on as before and no longer counts as just finished.
    #[must_use]
    pub fn settled_marks(&self, headers: &HeaderMap, now: UnixTime) -> Vec<(String, String)> {
        self.cookies(headers)
            .filter_map(|(name, value)| match self.open(name, value, now)? {
                Opened::Finished { return_to, begun, .. } => {
                    let settled = Mark {
                        r: return_to,
                        b: begun,
                        f: UnixTime::from_millis(0),
                    };
                    Some((
                        name.to_owned(),
                        self.seal_json(Purpose::FinishedAttempt, name, &settled),
                    ))
                }
                Opened::UnderWay(_) => None,
            })
            .collect()
    }

    fn cookies<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        cookie::pairs(headers).filter_map(|(name, value)| {
            let name = std::str::from_utf8(name).ok()?;
            let id = name.strip_prefix(&self.name_prefix)?;
            // Only what could be ours is ever written back into a Set-Cookie.
            let plausible = id.len() <= 64
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            plausible.then_some((name, value))
        })
    }

    /// Which cookies must go so that a new one of `new_bytes` (name and value) fits: those that do not open first,
    /// then the oldest.
    #[must_use]
    pub fn crowded_out(&self, headers: &HeaderMap, new_bytes: usize, now: UnixTime) -> Vec<String> {
        let mut held: Vec<(Option<UnixTime>, &str, usize)> = self
            .cookies(headers)
            .map(|(name, value)| {
                (
                    self.open(name, value, now).map(|opened| opened.begun()),
                    name,
                    name.len() + value.len(),
                )
            })
            .collect();
        held.sort_unstable();
        let mut count = held.len() + 1;
        let mut bytes = held.iter().map(|(_, _, size)| size).sum::<usize>() + new_bytes;
        let mut gone = Vec::new();
        for (begun, name, size) in held {
            if count <= MOST && bytes <= MOST_BYTES && begun.is_some() {
                break;
            }
            gone.push(name.to_owned());
            count -= 1;
            bytes -= size;
        }
        gone
    }

    /// Whether an attempt is under way, by the cookies that came with a request.
    #[must_use]
    pub fn is_under_way(&self, headers: &HeaderMap, now: UnixTime) -> bool {
        self.cookies(headers)
            .any(|(name, value)| matches!(self.open(name, value, now), Some(Opened::UnderWay(_))))
    }

    /// How many logins were finished within `window`, by the marks that came with a request.
    #[must_use]
    pub fn finished_within(&self, headers: &HeaderMap, now: UnixTime, window: Duration) -> usize {
        let is_recent = |opened: Option<Opened>| matches!(opened, Some(Opened::Finished { finished, .. }) if now.since(finished) < window);
        self.cookies(headers)
            .filter(|(name, value)| is_recent(self.open(name, value, now)))
            .count()
    }

    /// Whether cookies came that look like ours and were sealed under another key.
    #[must_use]
    pub fn have_strangers(&self, headers: &HeaderMap) -> bool {
        let is_strange = |(name, value): (&str, &[u8])| {
            let sealed = URL_SAFE_NO_PAD.decode(value).unwrap_or_default();
            let opened = self.keys.open(Purpose::LoginAttempt, b"", &[name], &sealed);
            matches!(opened, Err(OpenError::UnknownKey))
        };
        self.cookies(headers).any(is_strange)
    }

    /// Why [`Attempts::find`] finds nothing, for the operator.
    #[must_use]
    pub fn why_unfound(&self, headers: &HeaderMap, state: &str) -> &'static str {
        let name = self.cookie_name(state);
        let mut values = cookie::values(headers, &name);
        let value = match (values.next(), values.next()) {
            (Some(value), None) => value,
            (Some(_), Some(_)) => return "its cookie came twice: a proxy in front doubles cookies",
            (None, _) if self.cookies(headers).next().is_some() => {
                return "cookies of other logins came, and not its own: it took longer than ten minutes, or more than five \
                        logins were begun";
            }
            (None, _) => {
                return "no login cookie came: it took longer than ten minutes, began under another host name or over plain \
                        http, or cookies are blocked or dropped on the way";
            }
        };
        let opened = URL_SAFE_NO_PAD.decode(value).map(|sealed| {
            let open = |purpose| self.keys.open(purpose, b"", &[&name], &sealed).map(drop);
            open(Purpose::LoginAttempt).or_else(|_| open(Purpose::FinishedAttempt))
        });
        match opened {
            Ok(Ok(())) => "it was begun more than ten minutes ago",
            Ok(Err(OpenError::UnknownKey | OpenError::UnknownFormat)) => {
                "its cookie was sealed with a key that is not here: give all replicas the same session.keys; without any, a \
                 restart makes new ones"
            }
            Ok(Err(OpenError::Broken)) | Err(_) => "its cookie was altered on the way",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};
    use std::sync::Arc;

    const NAME: &str = "__Host-Http-cloakroom";

    fn attempts() -> Attempts {
        Attempts::new(Arc::new(KeyRing::random("https://app.example")), NAME)
    }

    fn attempt(begun: UnixTime) -> LoginAttempt {
        LoginAttempt {
            secrets: AttemptSecrets::fresh(),
            return_to: "/orders?tab=1".into(),
            provider: "main".into(),
            replaces: Some([7; 32]),
            silent: false,
            max_age: Some(60),
            acr_values: None,
            begun,
        }
    }

    fn headers(cookies: &[(String, String)]) -> HeaderMap {
        let line = cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("; ");
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&line).unwrap())])
    }

    fn as_cookie(attempts: &Attempts, attempt: &LoginAttempt) -> (String, String) {
        (
            attempts.cookie_name(attempt.secrets.state.expose()),
            attempts.seal(attempt),
        )
    }

    #[test]
    fn az_04_an_attempt_opens_for_its_own_state_within_ten_minutes() {
        let (attempts, now) = (attempts(), UnixTime::from_secs(1_000_000));
        let (one, other) = (attempt(now), attempt(now));
        let held = headers(&[as_cookie(&attempts, &one)]);
        let found = attempts.find(
            &held,
            one.secrets.state.expose(),
            now.plus(Duration::from_secs(599)),
        );
        assert!(
            matches!(found, Some(Opened::UnderWay(found)) if found.return_to == "/orders?tab=1" && found.replaces == Some([7; 32]))
        );
        assert!(
            attempts
                .find(&held, one.secrets.state.expose(), now.plus(LIFETIME))
                .is_none()
        );
        assert!(attempts.find(&held, other.secrets.state.expose(), now).is_none());
    }

    #[test]
    fn class_e_a_mark_or_another_attempts_cookie_is_no_attempt() {
        let (attempts, now) = (attempts(), UnixTime::from_secs(1_000_000));
        let (one, other) = (attempt(now), attempt(now));
        let (name, _) = as_cookie(&attempts, &one);
        // Under this name, what was sealed under another does not open.
        let swapped = headers(&[(name.clone(), attempts.seal(&other))]);
        assert!(attempts.find(&swapped, one.secrets.state.expose(), now).is_none());
        let marked = headers(&[(name.clone(), attempts.seal_mark(&one, now))]);
        assert!(matches!(
            attempts.find(&marked, one.secrets.state.expose(), now),
            Some(Opened::Finished { .. })
        ));
        let twice = headers(&[(name.clone(), attempts.seal(&one)), (name, attempts.seal(&one))]);
        assert!(attempts.find(&twice, one.secrets.state.expose(), now).is_none());
    }

    #[test]
    fn why_an_attempt_is_not_found_is_told_apart() {
        let (here, elsewhere, now) = (attempts(), attempts(), UnixTime::from_secs(1_000_000));
        let (one, other) = (attempt(now), attempt(now));
        let (name, value) = as_cookie(&here, &one);
        let state = one.secrets.state.expose();
        let altered = format!("{}AAAA", &value[..value.len() - 4]);
        for (held, why) in [
            (vec![], "no login cookie came"),
            (vec![as_cookie(&here, &other)], "cookies of other logins came"),
            (
                vec![(name.clone(), value.clone()), (name.clone(), value.clone())],
                "came twice",
            ),
            (
                vec![as_cookie(&elsewhere, &one)],
                "sealed with a key that is not here",
            ),
            (vec![(name.clone(), value)], "more than ten minutes ago"),
            (vec![(name.clone(), altered)], "altered on the way"),
            (vec![(name, "!".into())], "altered on the way"),
        ] {
            let found = here.why_unfound(&headers(&held), state);
            assert!(found.contains(why), "{why}: {found}");
        }
    }

    #[test]
    fn az_08_the_oldest_attempts_make_room_and_unreadable_ones_first() {
        let (attempts, now) = (attempts(), UnixTime::from_secs(1_000_000));
        let mut cookies: Vec<_> = (0..5)
            .map(|n| as_cookie(&attempts, &attempt(now.plus(Duration::from_secs(n)))))
            .collect();
        assert_eq!(
            attempts.crowded_out(&headers(&cookies[..4]), 300, now.plus(Duration::from_secs(9))),
            Vec::<String>::new()
        );
        let later = now.plus(Duration::from_secs(9));
        assert_eq!(
            attempts.crowded_out(&headers(&cookies), 300, later),
            [cookies[0].0.clone()]
        );
        cookies[3].1 = "garbage".into();
        assert_eq!(
            attempts.crowded_out(&headers(&cookies), 300, later),
            [cookies[3].0.clone()]
        );
        let gone = attempts.crowded_out(&headers(&cookies), 4000, later);
        assert_eq!(gone.len(), 5, "one large attempt leaves room for nothing else");
    }
}
