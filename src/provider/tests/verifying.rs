//! ID tokens against published keys: rotation, floods, and every way to be wrong.

use super::*;
use crate::protocol::logout_token::LogoutToken;
use crate::protocol::signing::SIGNERS;

async fn login(provider: &Provider, alg: &str, claims: &Value) -> Result<IdTokenClaims, ProviderError> {
    provider.verify_login(&id_token(alg, claims), &expect()).await
}

async fn logout(provider: &Provider, token: &str) -> Result<LogoutToken, LogoutTokenFault> {
    provider.verify_logout(&Compact::parse(token)?).await
}

fn logout_claims(server: &Server) -> Value {
    let events = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    json!({
        "iss": server.origin, "aud": "app", "sub": "alice", "exp": NOW + 120, "iat": NOW, "jti": "j1", "events": events,
    })
}

fn with_kid(kid: &str, claims: &Value) -> IdToken {
    IdToken::new(signer("RS256").sign(json!({ "kid": kid }), claims))
}

fn key(kid: &str, alg: &str) -> Value {
    changed(signer(alg).jwk(), "kid", json!(kid))
}

#[tokio::test]
async fn every_algorithm_signs_somebody_in() {
    let (server, provider) = running().await;
    for signer in SIGNERS.iter() {
        let found = login(&provider, signer.alg, &claims(&server)).await.unwrap();
        assert_eq!(found.sub, "alice");
    }
    assert_eq!(server.count("/jwks"), 1, "the keys are kept");
}

#[tokio::test]
async fn id_02_what_the_metadata_does_not_name_does_not_sign() {
    let server = Server::start().await;
    let named = changed(
        server.document(),
        "id_token_signing_alg_values_supported",
        json!(["RS256", "none", "HS256"]),
    );
    server.answer("/.well-known/openid-configuration", 200, named);
    let provider = made(settings(&server.origin));
    assert!(login(&provider, "RS256", &claims(&server)).await.is_ok());
    for alg in ["PS256", "RS512", "ES256", "EdDSA"] {
        assert!(is_bad(login(&provider, alg, &claims(&server)).await), "{alg}");
    }
}

#[tokio::test]
async fn md_06_junk_fetches_nothing_and_a_flood_fetches_little() {
    let (server, provider) = running().await;
    for junk in [
        changed(claims(&server), "iss", json!("https://other")),
        changed(claims(&server), "aud", json!("other")),
        changed(claims(&server), "aud", json!(["app", "other"])),
    ] {
        let outcome = login(&provider, "RS256", &junk).await;
        assert!(matches!(outcome, Err(ProviderError::Mismatch(_))), "{outcome:?}");
    }
    for junk in [
        changed(logout_claims(&server), "iss", json!("https://other")),
        changed(logout_claims(&server), "events", json!({})),
        changed(logout_claims(&server), "exp", json!(NOW - 100)),
    ] {
        let outcome = logout(&provider, &signer("RS256").sign(json!({}), &junk)).await;
        assert!(matches!(outcome, Err(LogoutTokenFault::Claims(_))), "{outcome:?}");
    }
    assert_eq!(
        (
            server.count("/jwks"),
            server.count("/.well-known/openid-configuration")
        ),
        (0, 0)
    );
    server.answer("/jwks", 200, json!({"keys": [key("rsa", "RS256")]}));
    let logout_token = |kid: &str| signer("RS256").sign(json!({ "kid": kid }), &logout_claims(&server));
    let tokens: Vec<_> = (0..200).map(|n| logout_token(&format!("k{n}"))).collect();
    for batch in tokens.chunks(20) {
        for outcome in all_of(batch.iter().map(|token| logout(&provider, token))).await {
            assert_eq!(outcome, Err(LogoutTokenFault::Signature(JwsError::Signature)));
        }
    }
    assert_eq!(server.count("/jwks"), 4, "one, and three that were forced");
    assert!(logout(&provider, &logout_token("rsa")).await.is_ok());
}

#[tokio::test]
async fn md_05_a_key_rotated_just_before_signing_is_found() {
    let (server, provider) = running().await;
    server.answer("/jwks", 200, json!({"keys": [key("old", "ES256")]}));
    assert!(login(&provider, "ES256", &claims(&server)).await.is_ok());
    server.answer(
        "/jwks",
        200,
        json!({"keys": [key("old", "ES256"), key("new", "RS256")]}),
    );
    assert!(
        provider
            .verify_login(&with_kid("new", &claims(&server)), &expect())
            .await
            .is_ok()
    );
    assert_eq!(server.count("/jwks"), 2);
    // The same name, another key.
    let (server, provider) = running().await;
    let wrong = changed(signer("RS256").jwk(), "n", json!("x".repeat(342)));
    server.answer("/jwks", 200, json!({"keys": [changed(wrong, "kid", json!("a"))]}));
    assert!(is_bad(
        provider
            .verify_login(&with_kid("a", &claims(&server)), &expect())
            .await
    ));
    server.answer("/jwks", 200, json!({"keys": [key("a", "RS256")]}));
    assert!(
        provider
            .verify_login(&with_kid("a", &claims(&server)), &expect())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_the_providers_absence_and_not_a_bad_token() {
    let (server, provider) = running().await;
    server.answer("/jwks", 500, json!({}));
    assert!(is_away(login(&provider, "RS256", &claims(&server)).await));
    let (server, provider) = running().await;
    assert!(login(&provider, "RS256", &claims(&server)).await.is_ok());
    server.answer("/jwks", 500, json!({}));
    assert!(is_away(
        provider
            .verify_login(&with_kid("new", &claims(&server)), &expect())
            .await
    ));
    assert!(
        login(&provider, "RS256", &claims(&server)).await.is_ok(),
        "what was known is kept"
    );
    server.on("/jwks", |_| Reply::Raw(200, vec![], b"<html>".to_vec()));
    assert!(
        provider
            .verify_login(&with_kid("new", &claims(&server)), &expect())
            .await
            .is_err()
    );
    assert!(
        login(&provider, "RS256", &claims(&server)).await.is_ok(),
        "a bad document replaces nothing"
    );
}

#[tokio::test]
async fn id_05_every_wrong_id_token_is_refused() {
    let (server, provider) = running().await;
    let good = claims(&server);
    for (name, value) in [
        ("iss", json!(format!("{}/", server.origin))),
        ("iss", json!(null)),
        ("aud", json!("other")),
        ("aud", json!(["app", "other"])),
        ("aud", json!(null)),
        ("azp", json!("other")),
        ("sub", json!(null)),
        ("sub", json!(7)),
        ("sub", json!("")),
        ("exp", json!(NOW - 61)),
        ("exp", json!(null)),
        ("exp", json!("2100-01-01")),
        ("iat", json!(NOW + 300)),
        ("iat", json!(NOW - 700)),
        ("iat", json!(null)),
        ("nbf", json!(NOW + 300)),
        ("nonce", json!("other")),
        ("nonce", json!(null)),
        ("at_hash", json!("wrong")),
        ("events", json!({})),
    ] {
        assert!(
            login(&provider, "RS256", &changed(good.clone(), name, value.clone()))
                .await
                .is_err(),
            "{name} {value}"
        );
    }
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"alg": "RS384"}),
        json!({"alg": "PS256"}),
        json!({"alg": "ES256"}),
        json!({"crit": ["x"]}),
        json!({"typ": "logout+jwt"}),
        json!({"typ": "at+jwt"}),
        json!({"kid": "unknown"}),
        json!({"kid": "p256"}),
    ] {
        let token = IdToken::new(signer("RS256").sign(header.clone(), &good));
        assert!(is_bad(provider.verify_login(&token, &expect()).await), "{header}");
    }
    let whole = signer("RS256").sign(json!({}), &good);
    let (signed, _) = whole.rsplit_once('.').unwrap();
    for token in [
        format!("{signed}."),
        signed.to_owned(),
        format!("{signed}.AAAA"),
        format!("{whole}AAAA"),
    ] {
        assert!(is_bad(
            provider.verify_login(&IdToken::new(token), &expect()).await
        ));
    }
    let aged = LoginExpectations {
        max_age: Some(10),
        ..expect()
    };
    assert!(is_bad(
        provider.verify_login(&id_token("RS256", &good), &aged).await
    ));
    let strong = LoginExpectations {
        acr_values: Some("gold"),
        ..expect()
    };
    let weak = changed(good, "acr", json!("bronze"));
    assert!(is_bad(
        provider.verify_login(&id_token("RS256", &weak), &strong).await
    ));
}

#[tokio::test]
async fn rf_10_only_a_token_that_holds_can_name_somebody_else() {
    let (server, provider) = running().await;
    let mut good = claims(&server);
    good.as_object_mut().unwrap().remove("nonce");
    let refreshed = |claims: Value| {
        let (provider, token) = (&provider, id_token("RS256", &claims));
        async move { provider.verify_refreshed(&token, "alice").await }
    };
    assert!(refreshed(good.clone()).await.is_ok());
    for (name, value) in [
        ("iss", json!("https://other")),
        ("sub", json!("bob")),
        ("aud", json!("other")),
        ("aud", json!(["app", "other"])),
    ] {
        let outcome = refreshed(changed(good.clone(), name, value)).await;
        assert!(
            matches!(outcome, Err(ProviderError::Mismatch(_))),
            "{name} {outcome:?}"
        );
    }
    assert!(is_bad(
        refreshed(changed(good.clone(), "azp", json!("other"))).await
    ));
    assert!(is_bad(
        refreshed(changed(good.clone(), "exp", json!(NOW - 100))).await
    ));
    assert!(is_bad(
        refreshed(changed(good.clone(), "iat", json!(NOW + 100))).await
    ));
    let forged = signer("RS256").sign(json!({"alg": "PS256"}), &changed(good, "sub", json!("bob")));
    assert!(is_bad(
        provider.verify_refreshed(&IdToken::new(forged), "alice").await
    ));
}

#[tokio::test]
async fn lo_09_a_logout_token_is_verified_like_an_id_token() {
    let (server, provider) = running().await;
    for signer in SIGNERS.iter() {
        let token = signer.sign(json!({"typ": "logout+jwt"}), &logout_claims(&server));
        let found = logout(&provider, &token).await.unwrap();
        assert_eq!((found.sub.as_deref(), found.jti.as_str()), (Some("alice"), "j1"));
    }
    assert_eq!(server.count("/jwks"), 1);
    let right = signer("RS256").sign(json!({}), &logout_claims(&server));
    let (signed, _) = right.rsplit_once('.').unwrap();
    for (forged, why) in [
        (
            signer("RS256").sign(json!({"alg": "PS256"}), &logout_claims(&server)),
            JwsError::Signature,
        ),
        (format!("{signed}.{}", "A".repeat(342)), JwsError::Signature),
    ] {
        assert_eq!(
            logout(&provider, &forged).await,
            Err(LogoutTokenFault::Signature(why))
        );
    }
    let named = changed(
        server.document(),
        "id_token_signing_alg_values_supported",
        json!(["RS256"]),
    );
    server.answer("/.well-known/openid-configuration", 200, named);
    let provider = made(settings(&server.origin));
    assert!(logout(&provider, &right).await.is_ok());
    let other = signer("ES256").sign(json!({}), &logout_claims(&server));
    assert_eq!(
        logout(&provider, &other).await,
        Err(LogoutTokenFault::Signature(JwsError::Algorithm))
    );
}

#[tokio::test]
async fn a_logout_token_is_not_judged_without_keys() {
    let (server, provider) = running().await;
    let token = signer("RS256").sign(json!({}), &logout_claims(&server));
    for (status, document) in [(500, json!({})), (404, json!({})), (200, json!({"no": "keys"}))] {
        server.answer("/jwks", status, document);
        // Not of the pause after the failure before.
        let provider = made(settings(&server.origin));
        let outcome = logout(&provider, &token).await;
        assert!(matches!(outcome, Err(LogoutTokenFault::NoKeys(_))), "{outcome:?}");
    }
    assert!(server.count("/jwks") == 3);
    drop(provider);
}
