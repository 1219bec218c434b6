//! The logout token, checked step by step (`OpenID` Connect Back-Channel Logout 1.0 §2.4, §2.6).
//!
//! Stands beside `id_token`: `jws` took the token apart, `jwks` finds who signed it, and here its claims are read. They
//! are read first, so that junk makes nobody fetch keys; nothing of them is used before the signature has been verified.
//!
//! INVARIANT: a token of another kind (ID token, access token, event) is never taken for a logout token (RFC 8725 §3.11).
//! INVARIANT: an error names the step that failed, never what the token said.

use super::id_token::{self, Addressee, IdTokenError, LEEWAY, OLDEST};
use super::jws::Compact;
use crate::clock::UnixTime;
use serde_json::{Map, Value};

/// The event that makes a token a logout token (§2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What a logout token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutToken {
    /// Whose sessions are to end. One of `sub` and `sid` is there.
    pub sub: Option<String>,
    /// Which of the provider's own sessions is over.
    pub sid: Option<String>,
    /// What tells it from all other tokens of this issuer.
    pub jti: String,
    /// When it was issued, to the second.
    pub issued: UnixTime,
    /// From then on it holds no more: so long it has to be known again when it comes a second time.
    pub until: UnixTime,
}

/// The step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogoutTokenError {
    /// What an ID token would have been refused for as well.
    #[error(transparent)]
    Claims(#[from] IdTokenError),
    /// `typ` says that it is something else.
    #[error("the token is of another kind")]
    Kind,
    /// `iat` is long past.
    #[error("the token is too old (are both clocks right?)")]
    Old,
    /// Neither `sub` nor `sid`.
    #[error("the token names neither a user nor a session")]
    Nobody,
    /// `events` does not hold the logout event.
    #[error("the token's events do not name a back-channel logout")]
    Event,
    /// There is a `nonce`.
    #[error("the token has a nonce, as only ID tokens do")]
    Nonce,
}

/// Checks everything about a logout token but its signature.
///
/// # Errors
/// The step that failed.
pub fn check(token: &Compact<'_>, who: Addressee<'_>) -> Result<LogoutToken, LogoutTokenError> {
    let claims = &token.claims;
    // §2.4: "it is RECOMMENDED that Logout Tokens be explicitly typed", with `logout+jwt`; "requiring explicitly typed
    // Logout Tokens will break most existing deployments" (§4.1), so none and the JWT of all tokens are taken as well.
    if !token.typ.as_deref().is_none_or(|typ| {
        ["logout+jwt", "JWT"]
            .iter()
            .any(|known| typ.eq_ignore_ascii_case(known))
    }) {
        return Err(LogoutTokenError::Kind);
    }
    // §2.6 (4): "Validate the iss, aud, iat, and exp Claims in the same way they are validated in ID Tokens"
    id_token::check_addressee(claims, who.issuer, who.client_id)?;
    id_token::check_times(claims, &who)?;
    let issued = id_token::time(claims, "iat")?;
    if issued + OLDEST < who.earliest.as_secs() {
        return Err(LogoutTokenError::Old);
    }
    // §2.6 (5): "Verify that the Logout Token contains a sub Claim, a sid Claim, or both"
    let sub = claims
        .contains_key("sub")
        .then(|| id_token::subject(claims))
        .transpose()?;
    let sid = claims
        .contains_key("sid")
        .then(|| non_empty(claims, "sid"))
        .transpose()?;
    if sub.is_none() && sid.is_none() {
        return Err(LogoutTokenError::Nobody);
    }
    // §2.6 (6): "Verify that the Logout Token contains an events Claim whose value is JSON object containing the member
    // name http://schemas.openid.net/event/backchannel-logout"; §2.4: the member's value "MUST be a JSON object"
    let event = claims
        .get("events")
        .and_then(|events| events.as_object()?.get(EVENT));
    if !event.is_some_and(Value::is_object) {
        return Err(LogoutTokenError::Event);
    }
    // §2.6 (7): "Verify that the Logout Token does not contain a nonce Claim"; §2.4: "A nonce Claim MUST NOT be present"
    if claims.contains_key("nonce") {
        return Err(LogoutTokenError::Nonce);
    }
    let ends = id_token::time(claims, "exp")?.min(issued + OLDEST + 1);
    Ok(LogoutToken {
        sub,
        sid,
        // §2.4: jti is REQUIRED
        jti: non_empty(claims, "jti")?,
        issued: UnixTime::from_secs(issued),
        until: UnixTime::from_secs(ends.saturating_add(LEEWAY)),
    })
}

fn non_empty(claims: &Map<String, Value>, name: &'static str) -> Result<String, IdTokenError> {
    let text = id_token::text(claims, name)?;
    if text.is_empty() {
        return Err(IdTokenError::Claim(name));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::signing::signer;
    use LogoutTokenError as E;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;
    const ISSUER: &str = "https://id.example.com";
    const WHO: Addressee<'_> = Addressee {
        issuer: ISSUER,
        client_id: "app",
        earliest: UnixTime::from_secs(NOW),
        latest: UnixTime::from_secs(NOW),
    };

    /// A good token's claims, changed; `null` where a claim is to go, `"null"` where it is to be null.
    fn with(changes: &Value) -> Value {
        let mut claims = json!({
            "iss": ISSUER, "aud": "app", "iat": NOW, "exp": NOW + 120, "jti": "j1", "sub": "alice", "sid": "s1",
            "events": { EVENT: {} },
        });
        let members = claims.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(members.remove(name)),
                Value::String(text) if text == "null" => drop(members.insert(name.clone(), Value::Null)),
                _ => drop(members.insert(name.clone(), value.clone())),
            }
        }
        claims
    }

    fn judged(header: &Value, changes: &Value) -> Result<LogoutToken, E> {
        let token = signer("ES256").sign(header.clone(), &with(changes));
        check(&Compact::parse(&token).unwrap(), WHO)
    }

    fn refused(changes: &Value) -> E {
        let outcome = judged(&json!({"typ": "logout+jwt"}), changes);
        outcome.expect_err(&changes.to_string())
    }

    #[test]
    fn a_good_token_says_who_and_until_when() {
        let token = judged(&json!({"typ": "logout+jwt"}), &json!({})).unwrap();
        let said = LogoutToken {
            sub: Some("alice".into()),
            sid: Some("s1".into()),
            jti: "j1".into(),
            issued: UnixTime::from_secs(NOW),
            until: UnixTime::from_secs(NOW + 120 + LEEWAY),
        };
        assert_eq!(token, said);
        // The event may say more, and so may the token; a list of one is an audience.
        let more =
            json!({"events": {EVENT: {"x": 1}, "other": 1}, "aud": ["app"], "typ": "Logout", "trace": 1});
        assert_eq!(judged(&json!({}), &more).unwrap(), said);
    }

    #[test]
    fn lo_10_issuer_audience_and_times_are_those_of_id_tokens() {
        use IdTokenError as I;
        for (changes, error) in [
            (json!({"iss": "https://id.example.com/"}), I::Issuer),
            (json!({"iss": "https://ID.example.com"}), I::Issuer),
            (json!({"iss": null}), I::Claim("iss")),
            (json!({"aud": "other"}), I::Audience),
            (json!({"aud": ["app", "other"]}), I::Audience),
            (json!({"aud": []}), I::Audience),
            (json!({"aud": null}), I::Claim("aud")),
            (json!({"aud": 7}), I::Claim("aud")),
            (json!({"azp": "other"}), I::AuthorizedParty),
            (json!({"exp": null}), I::Claim("exp")),
            (json!({"exp": "null"}), I::Claim("exp")),
            (json!({"exp": "1900000000"}), I::Claim("exp")),
            (json!({"exp": -1}), I::Claim("exp")),
            (json!({"exp": 1e300}), I::Claim("exp")),
            (json!({"exp": NOW - LEEWAY}), I::Expired),
            (json!({"iat": null}), I::Claim("iat")),
            (json!({"iat": "now"}), I::Claim("iat")),
            (json!({"iat": NOW + LEEWAY + 1}), I::Future),
            (json!({"nbf": NOW + LEEWAY + 1}), I::Future),
            (json!({"nbf": []}), I::Claim("nbf")),
        ] {
            assert_eq!(refused(&changes), E::Claims(error), "{changes}");
        }
        for changes in [
            json!({"exp": NOW - LEEWAY + 1}),
            json!({"iat": NOW + LEEWAY, "nbf": NOW + LEEWAY}),
            json!({"iat": NOW - OLDEST}),
            json!({"exp": 1_800_000_000.5}),
        ] {
            assert!(judged(&json!({}), &changes).is_ok(), "{changes}");
        }
    }

    #[test]
    fn lo_10_an_old_token_is_refused_however_long_it_says_it_lives() {
        let forever = json!({"iat": NOW - OLDEST - 1, "exp": NOW + 1_000_000});
        assert_eq!(refused(&forever), E::Old);
        // So it need not be known for that long either.
        let token = judged(&json!({}), &json!({"exp": NOW + 1_000_000})).unwrap();
        assert_eq!(token.until, UnixTime::from_secs(NOW + OLDEST + 1 + LEEWAY));
    }

    #[test]
    fn lo_10_a_user_or_a_session_is_named() {
        let sub_only = judged(&json!({}), &json!({"sid": null})).unwrap();
        assert_eq!((sub_only.sub.as_deref(), sub_only.sid), (Some("alice"), None));
        let sid_only = judged(&json!({}), &json!({"sub": null})).unwrap();
        assert_eq!((sid_only.sub, sid_only.sid.as_deref()), (None, Some("s1")));
        assert_eq!(refused(&json!({"sub": null, "sid": null})), E::Nobody);
        for name in ["sub", "sid"] {
            for value in [
                json!(""),
                json!(5),
                json!(["x"]),
                json!({}),
                json!("null"),
                json!(true),
            ] {
                let error = E::Claims(IdTokenError::Claim(name));
                assert_eq!(refused(&json!({ name: value })), error, "{name}: {value}");
            }
        }
        assert_eq!(
            refused(&json!({"sub": "x".repeat(256)})),
            E::Claims(IdTokenError::Claim("sub"))
        );
    }

    #[test]
    fn lo_11_the_event_is_a_back_channel_logout() {
        for events in [
            Value::Null,
            json!("null"),
            json!({}),
            json!([]),
            json!([EVENT]),
            json!(EVENT),
            json!({ "http://schemas.openid.net/event/other": {} }),
            json!({ EVENT: true }),
            json!({ EVENT: null }),
            json!({ EVENT: [] }),
            json!({ EVENT: "{}" }),
            json!({ "HTTP://schemas.openid.net/event/backchannel-logout": {} }),
        ] {
            assert_eq!(refused(&json!({ "events": events })), E::Event, "{events}");
        }
    }

    #[test]
    fn lo_12_there_is_no_nonce() {
        for nonce in [json!("n"), json!(""), json!("null"), json!(0), json!([])] {
            assert_eq!(refused(&json!({ "nonce": nonce })), E::Nonce, "{nonce}");
        }
    }

    #[test]
    fn lo_13_a_jti_is_needed() {
        for jti in [Value::Null, json!("null"), json!(""), json!(7), json!(["j"])] {
            let error = E::Claims(IdTokenError::Claim("jti"));
            assert_eq!(refused(&json!({ "jti": jti })), error, "{jti}");
        }
    }

    #[test]
    fn lo_14_id_13_no_other_kind_of_token_is_taken() {
        for typ in ["logout+jwt", "Logout+JWT", "JWT", "jwt"] {
            assert!(judged(&json!({ "typ": typ }), &json!({})).is_ok(), "{typ}");
        }
        assert!(
            judged(&json!({}), &json!({})).is_ok(),
            "many providers name no type"
        );
        for typ in [
            "at+jwt",
            "secevent+jwt",
            "dpop+jwt",
            "id+jwt",
            "",
            "logout",
            "logout+jwt ",
        ] {
            assert_eq!(judged(&json!({ "typ": typ }), &json!({})), Err(E::Kind), "{typ}");
        }
        // An ID token, as it came at the login.
        let id_token = json!({"events": null, "nonce": "n", "jti": null});
        assert!(judged(&json!({"typ": "JWT"}), &id_token).is_err());
    }
}
