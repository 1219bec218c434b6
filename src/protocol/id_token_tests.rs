//! Every way in which an ID token can be wrong, with the step that must refuse it.

use super::IdTokenError as E;
use super::*;
use crate::protocol::signing::signer;
use serde_json::json;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.example.com";
const NONCE: &str = "n-0S6_WzA2Mj";
const WHO: Addressee<'_> = Addressee {
    issuer: ISSUER,
    client_id: "app",
    earliest: UnixTime::from_secs(NOW),
    latest: UnixTime::from_secs(NOW),
};
const EXPECT: LoginExpectations<'_> = LoginExpectations {
    nonce: NONCE,
    max_age: None,
    acr_values: None,
    access_token: "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y",
};

fn good() -> Value {
    json!({"iss": ISSUER, "sub": "alice", "aud": "app", "exp": NOW + 300, "iat": NOW, "nonce": NONCE})
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "json! literals read best unborrowed"
)]
fn with(changes: Value) -> Value {
    let mut claims = good();
    claims
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn login_as(header: Value, claims: &Value, expect: &LoginExpectations<'_>) -> Result<IdTokenClaims, E> {
    let token = signer("ES256").sign(header, claims);
    check_login(&Compact::parse(&token).unwrap(), WHO, expect)
}

fn login(claims: &Value) -> Result<IdTokenClaims, E> {
    login_as(json!({}), claims, &EXPECT)
}

/// The machine's clock was set by an hour, one way or the other: nobody knows which of both moments it is.
#[test]
fn a_token_that_is_right_at_either_moment_is_taken() {
    let who = Addressee {
        latest: UnixTime::from_secs(NOW + 3600),
        ..WHO
    };
    for (iat, wanted) in [
        (NOW - 60, Ok(())),
        (NOW + 3600, Ok(())),
        (NOW + 3600 + LEEWAY + 1, Err(IdTokenError::Future)),
        (NOW - 1200, Err(IdTokenError::Expired)),
    ] {
        let claims = json!({ "exp": iat + 300, "iat": iat });
        let outcome = check_times(claims.as_object().unwrap(), &who);
        assert_eq!(outcome, wanted, "{iat}");
    }
}

#[test]
fn a_good_token_gives_its_claims() {
    let claims = login(&with(
        json!({"sid": "s", "auth_time": NOW - 5, "acr": "gold", "email": "a@b", "azp": "app"}),
    ));
    let claims = claims.unwrap();
    assert_eq!((claims.iss.as_str(), claims.sub.as_str()), (ISSUER, "alice"));
    assert_eq!(
        (claims.sid.as_deref(), claims.acr.as_deref()),
        (Some("s"), Some("gold"))
    );
    assert_eq!(claims.auth_time, Some(NOW - 5));
    assert_eq!(claims.all["email"], "a@b");
}

#[test]
fn id_06_the_issuer_is_equal_to_the_letter() {
    for iss in [
        "https://id.example.com/",
        "https://ID.example.com",
        "http://id.example.com",
        "id.example.com",
        "",
    ] {
        assert_eq!(login(&with(json!({ "iss": iss }))), Err(E::Issuer), "{iss}");
    }
}

#[test]
fn id_07_the_audience_is_this_client_alone() {
    for aud in [json!("app"), json!(["app"]), json!(["app", "app"])] {
        assert!(login(&with(json!({ "aud": aud }))).is_ok(), "{aud}");
    }
    for aud in [
        json!("other"),
        json!("APP"),
        json!(""),
        json!([]),
        json!(["other"]),
        json!(["app", "other"]),
        json!(["app", 7]),
        json!([["app"]]),
        json!("app other"),
    ] {
        assert_eq!(login(&with(json!({ "aud": aud }))), Err(E::Audience), "{aud}");
    }
    for aud in [json!(7), json!(null), json!({"app": true}), json!(true)] {
        assert_eq!(login(&with(json!({ "aud": aud }))), Err(E::Claim("aud")), "{aud}");
    }
    for azp in [json!("other"), json!(["app"]), json!(7), json!(null)] {
        assert_eq!(
            login(&with(json!({ "azp": azp }))),
            Err(E::AuthorizedParty),
            "{azp}"
        );
    }
}

#[test]
fn id_08_id_09_times_have_a_minute_of_leeway() {
    for (changes, result) in [
        (json!({"exp": NOW - 59}), Ok(())),
        (json!({"exp": NOW - 60}), Err(E::Expired)),
        (json!({"exp": NOW - 61}), Err(E::Expired)),
        (json!({"iat": NOW + 60}), Ok(())),
        (json!({"iat": NOW + 61}), Err(E::Future)),
        (json!({"iat": NOW + 300}), Err(E::Future)),
        (json!({"iat": NOW - 600}), Ok(())),
        (json!({"iat": NOW - 601}), Err(E::Old)),
        (json!({"nbf": NOW + 60}), Ok(())),
        (json!({"nbf": NOW + 61}), Err(E::Future)),
        (json!({"auth_time": NOW + 61}), Err(E::Future)),
    ] {
        assert_eq!(login(&with(changes.clone())).map(|_| ()), result, "{changes}");
    }
}

#[test]
fn id_16_what_is_no_sane_time_is_refused() {
    for name in ["exp", "iat", "nbf", "auth_time"] {
        for time in [
            json!("1800000000"),
            json!(-1),
            json!(-0.5),
            json!(1e300),
            json!(9_007_199_254_740_993_u64),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(253_402_300_800_u64),
            json!(true),
            json!([NOW]),
            json!(null),
        ] {
            assert_eq!(
                login(&with(json!({ name: time }))),
                Err(E::Claim(name)),
                "{name} {time}"
            );
        }
    }
    assert!(login(&with(json!({"exp": 1_800_000_300.75, "iat": 1_799_999_999.25}))).is_ok());
    assert!(login(&with(json!({"exp": 253_402_300_799_u64}))).is_ok());
    assert_eq!(login(&with(json!({"exp": 0}))), Err(E::Expired));
}

#[test]
fn id_10_the_nonce_is_the_attempts() {
    for nonce in [
        json!("other"),
        json!(""),
        json!(null),
        json!([NONCE]),
        json!(7),
        json!(format!("{NONCE} ")),
    ] {
        assert_eq!(login(&with(json!({ "nonce": nonce }))), Err(E::Nonce), "{nonce}");
    }
    assert_eq!(login(&without("nonce")), Err(E::Nonce));
    let empty = LoginExpectations { nonce: "", ..EXPECT };
    assert_eq!(
        login_as(json!({}), &with(json!({"nonce": ""})), &empty),
        Err(E::Nonce)
    );
}

#[test]
fn id_11_what_was_asked_for_is_enforced() {
    let aged = |max_age, auth_time: Value| {
        let expect = LoginExpectations {
            max_age: Some(max_age),
            ..EXPECT
        };
        login_as(json!({}), &with(json!({ "auth_time": auth_time })), &expect).map(|_| ())
    };
    assert_eq!(aged(300, json!(NOW - 360)), Ok(()));
    assert_eq!(aged(300, json!(NOW - 361)), Err(E::MaxAge));
    assert_eq!(aged(0, json!(NOW - 61)), Err(E::MaxAge));
    assert_eq!(aged(u64::MAX, json!(0)), Ok(()));
    let expect = LoginExpectations {
        max_age: Some(300),
        ..EXPECT
    };
    assert_eq!(login_as(json!({}), &good(), &expect), Err(E::Claim("auth_time")));
    let expect = LoginExpectations {
        acr_values: Some("gold urn:silver"),
        ..EXPECT
    };
    for (acr, result) in [
        (json!("gold"), Ok(())),
        (json!("urn:silver"), Ok(())),
        (json!("bronze"), Err(E::Acr)),
        (json!("gold urn:silver"), Err(E::Acr)),
        (json!(""), Err(E::Acr)),
        (json!(null), Err(E::Acr)),
        (json!(["gold"]), Err(E::Claim("acr"))),
    ] {
        let claims = with(json!({ "acr": acr }));
        assert_eq!(login_as(json!({}), &claims, &expect).map(|_| ()), result, "{acr}");
    }
    assert_eq!(login_as(json!({}), &good(), &expect), Err(E::Acr));
}

#[test]
fn id_12_at_hash_is_the_access_tokens() {
    for (alg, hash) in [
        ("RS256", &digest::SHA256),
        ("PS256", &digest::SHA256),
        ("ES256", &digest::SHA256),
        ("RS384", &digest::SHA384),
        ("ES384", &digest::SHA384),
        ("PS384", &digest::SHA384),
        ("RS512", &digest::SHA512),
        ("PS512", &digest::SHA512),
        ("EdDSA", &digest::SHA512),
    ] {
        let whole = digest::digest(hash, EXPECT.access_token.as_bytes());
        let half = URL_SAFE_NO_PAD.encode(&whole.as_ref()[..whole.as_ref().len() / 2]);
        let check = |at_hash: Value| {
            let token = signer(alg).sign(json!({}), &with(json!({ "at_hash": at_hash })));
            check_login(&Compact::parse(&token).unwrap(), WHO, &EXPECT).map(|_| ())
        };
        assert_eq!(check(json!(half)), Ok(()), "{alg}");
        for wrong in [
            json!("other"),
            json!(""),
            json!(null),
            json!(URL_SAFE_NO_PAD.encode(whole)),
            json!([half]),
        ] {
            assert_eq!(check(wrong.clone()), Err(E::AccessTokenHash), "{alg} {wrong}");
        }
    }
    // The example of Core appendix A.3: access token and its `at_hash` under RS256.
    let token = signer("RS256").sign(json!({}), &with(json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"})));
    assert!(check_login(&Compact::parse(&token).unwrap(), WHO, &EXPECT).is_ok());
}

#[test]
fn id_13_kinds_of_token_do_not_cross() {
    let event = "http://schemas.openid.net/event/backchannel-logout";
    let kinds = [
        (json!({}), json!({}), true),
        (json!({"typ": "JWT"}), json!({}), true),
        (json!({"typ": "jwt"}), json!({}), true),
        (json!({"typ": "logout+jwt"}), json!({}), false),
        (json!({"typ": "at+jwt"}), json!({}), false),
        (json!({"typ": "application/at+jwt"}), json!({}), false),
        (json!({"typ": "dpop+jwt"}), json!({}), false),
        (json!({"typ": "secevent+jwt"}), json!({}), false),
        (json!({"typ": "oauth-authz-req+jwt"}), json!({}), false),
        (json!({"typ": ""}), json!({}), false),
    ];
    let events = [json!({ event: {} }), json!({}), json!(null), json!([event])];
    for (header, more, fits) in kinds {
        let result = login_as(header.clone(), &with(more), &EXPECT).map(|_| ());
        assert_eq!(result, if fits { Ok(()) } else { Err(E::Kind) }, "{header}");
        for events in &events {
            let claims = with(json!({ "events": events }));
            assert_eq!(
                login_as(header.clone(), &claims, &EXPECT),
                Err(E::Kind),
                "{header} {events}"
            );
        }
    }
}

#[test]
fn id_24_required_claims_are_there_and_of_their_kind() {
    for name in ["iss", "sub", "aud", "exp", "iat"] {
        assert_eq!(login(&without(name)), Err(E::Claim(name)));
        assert_eq!(login(&with(json!({ name: null }))), Err(E::Claim(name)));
        assert_eq!(login(&with(json!({ name: {} }))), Err(E::Claim(name)));
    }
    for sub in [
        json!(7),
        json!(""),
        json!("a".repeat(256)),
        json!("é"),
        json!("a\nb"),
        json!(["alice"]),
    ] {
        assert_eq!(login(&with(json!({ "sub": sub }))), Err(E::Claim("sub")), "{sub}");
    }
    assert!(login(&with(json!({"sub": "a".repeat(255)}))).is_ok());
    assert_eq!(login(&with(json!({"sid": 5}))), Err(E::Claim("sid")));
}

#[test]
fn rf_10_a_refreshed_token_is_about_the_same_user() {
    let refreshed = |claims: &Value| {
        let token = signer("ES256").sign(json!({}), claims);
        check_refreshed(&Compact::parse(&token).unwrap(), WHO, "alice").map(|_| ())
    };
    assert_eq!(refreshed(&without("nonce")), Ok(()));
    for (changes, error) in [
        (json!({"iss": "https://other"}), E::Issuer),
        (json!({"aud": "other"}), E::Audience),
        (json!({"aud": ["app", "other"]}), E::Audience),
        (json!({"sub": "bob"}), E::Subject),
        (json!({"sub": "Alice"}), E::Subject),
        (json!({"exp": NOW - 100}), E::Expired),
        (json!({"iat": NOW + 100}), E::Future),
        (json!({"events": {}}), E::Kind),
    ] {
        assert_eq!(refreshed(&with(changes.clone())), Err(error), "{changes}");
    }
}
