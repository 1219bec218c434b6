//! The claims of a session after a refresh (contract 2.7): the ID token's, joined by userinfo's.
//!
//! INVARIANT: a claim that the provider takes away (a group, a role) is gone after the refresh that says so.

use crate::secret::IdToken;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

type Claims = Map<String, Value>;

/// As soon as the tokens are there, before userinfo has been asked (if it is).
pub(super) fn at_refresh(old: &Claims, id_token: Option<&Claims>, asks_userinfo: bool) -> Claims {
    match id_token {
        // Most providers send an ID token at login only (Core §12.2 leaves it to them).
        None => old.clone(),
        Some(new) if !asks_userinfo => new.clone(),
        // Which of the old claims were userinfo's is not known before it answers.
        Some(new) => joined(new.clone(), old),
    }
}

/// Once userinfo has answered. `id_token`: the refresh's; `kept`: the one that the session had.
pub(super) fn with_userinfo(id_token: Option<&Claims>, kept: Option<&IdToken>, userinfo: &Claims) -> Claims {
    match id_token {
        Some(new) => joined(new.clone(), userinfo),
        // Here userinfo is the newer of the two.
        None => joined(userinfo.clone(), &kept.and_then(claims_of).unwrap_or_default()),
    }
}

/// "its `auth_time` Claim MUST represent the time of the original authentication - not the time that the new ID token is
/// issued" (Core §12.2): whatever a refresh says, when the user signed in stays as it was.
pub(super) fn as_signed_in(mut new: Claims, old: &Claims) -> Claims {
    if let Some(then) = old.get("auth_time") {
        new.insert("auth_time".to_owned(), then.clone());
    }
    new
}

fn joined(mut first: Claims, second: &Claims) -> Claims {
    for (name, value) in second {
        if !first.contains_key(name) {
            first.insert(name.clone(), value.clone());
        }
    }
    first
}

/// The claims of an ID token that was verified when it came, and has lain sealed since.
fn claims_of(token: &IdToken) -> Option<Claims> {
    let payload = token.expose().split('.').nth(1)?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rf_10_a_refresh_does_not_move_the_time_of_the_sign_in() {
        let old = claims(&json!({"auth_time": 1, "groups": ["a"]}));
        let new = as_signed_in(claims(&json!({"auth_time": 2})), &old);
        assert_eq!(new, claims(&json!({"auth_time": 1})));
        assert_eq!(as_signed_in(new, &Claims::new())["auth_time"], 1);
    }

    fn claims(value: &Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    fn token(value: &Value) -> IdToken {
        IdToken::new(format!(
            "e30.{}.sig",
            BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
        ))
    }

    #[test]
    fn without_a_new_id_token_and_userinfo_claims_stay() {
        let old = claims(&json!({"sub": "a", "groups": ["x"]}));
        assert_eq!(at_refresh(&old, None, false), old);
        assert_eq!(at_refresh(&old, None, true), old);
    }

    #[test]
    fn a_group_that_the_new_id_token_lacks_is_gone() {
        let old = claims(&json!({"sub": "a", "groups": ["x"], "name": "A"}));
        let new = claims(&json!({"sub": "a", "name": "B"}));
        assert_eq!(at_refresh(&old, Some(&new), false), new);
    }

    #[test]
    fn until_userinfo_answers_its_old_claims_stay() {
        let old = claims(&json!({"sub": "a", "groups": ["x"], "name": "A"}));
        let new = claims(&json!({"sub": "a", "name": "B"}));
        let both = claims(&json!({"sub": "a", "name": "B", "groups": ["x"]}));
        assert_eq!(at_refresh(&old, Some(&new), true), both);
    }

    #[test]
    fn a_group_that_userinfo_takes_away_is_gone() {
        let userinfo = claims(&json!({"sub": "a", "name": "U", "email": "e"}));
        let new = claims(&json!({"sub": "a", "name": "B"}));
        let both = claims(&json!({"sub": "a", "name": "B", "email": "e"}));
        assert_eq!(with_userinfo(Some(&new), None, &userinfo), both);
        let kept = token(&json!({"sub": "a", "name": "Old", "acr": "1"}));
        let both = claims(&json!({"sub": "a", "name": "U", "email": "e", "acr": "1"}));
        assert_eq!(with_userinfo(None, Some(&kept), &userinfo), both);
        assert_eq!(
            with_userinfo(None, Some(&IdToken::new("opaque")), &userinfo),
            userinfo
        );
    }
}
