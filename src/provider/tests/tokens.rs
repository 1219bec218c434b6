//! Codes and refresh tokens go out, tokens come back, or it is known how far they got.

use super::*;
use crate::protocol::token_response::{TokenError, TokenResponse};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const GOOD: &str = r#"{"access_token":"a","token_type":"Bearer","refresh_token":"r2","expires_in":60}"#;

fn good() -> Value {
    serde_json::from_str(GOOD).unwrap()
}

async fn exchange(provider: &Provider) -> Result<TokenResponse, TokenError> {
    let (code, verifier) = (
        AuthorizationCode::new("the-code"),
        CodeVerifier::new("v".repeat(43)),
    );
    provider
        .exchange(&code, &verifier, "https://app.example.com/bff/callback")
        .await
}

async fn refresh(provider: &Provider) -> Result<TokenResponse, TokenError> {
    provider.refresh(&RefreshToken::new("r1")).await
}

/// The secret of a request, however it was sent.
fn secret_of(seen: &Seen) -> String {
    use base64::Engine as _;
    if let Some(posted) = seen.form("client_secret") {
        return posted;
    }
    let basic = seen.headers["authorization"]
        .strip_prefix("Basic ")
        .unwrap()
        .to_owned();
    let pair = base64::engine::general_purpose::STANDARD.decode(basic).unwrap();
    String::from_utf8(pair)
        .unwrap()
        .split_once(':')
        .unwrap()
        .1
        .to_owned()
}

#[tokio::test]
async fn a_code_is_exchanged_once_with_its_verifier() {
    let (server, provider) = running().await;
    server.answer("/token", 200, good());
    let tokens = exchange(&provider).await.unwrap();
    assert_eq!(tokens.access_token.expose(), "a");
    assert_eq!(tokens.refresh_token.unwrap().expose(), "r2");
    assert_eq!(tokens.expires_in, Duration::from_mins(1));
    let seen = server.seen("/token");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].method, "POST");
    for (name, value) in [
        ("grant_type", "authorization_code"),
        ("code", "the-code"),
        ("redirect_uri", "https://app.example.com/bff/callback"),
    ] {
        assert_eq!(seen[0].form(name).as_deref(), Some(value));
    }
    assert_eq!(seen[0].form("code_verifier").unwrap(), "v".repeat(43));
    assert!(seen[0].form("client_secret").is_none() && seen[0].form("client_id").is_none());
    assert!(!seen[0].headers.contains_key("cookie"));
}

#[tokio::test]
async fn rf_05_a_refresh_without_a_new_refresh_token_says_so() {
    let (server, provider) = running().await;
    server.answer(
        "/token",
        200,
        json!({"access_token": "a", "token_type": "bearer", "scope": "openid x"}),
    );
    let tokens = refresh(&provider).await.unwrap();
    assert!(tokens.refresh_token.is_none() && tokens.id_token.is_none());
    assert_eq!(tokens.scope.as_deref(), Some("openid x"));
    assert_eq!(
        tokens.expires_in,
        Duration::from_mins(5),
        "the configured default"
    );
    assert_eq!(
        server.seen("/token")[0].form("refresh_token").as_deref(),
        Some("r1")
    );
}

#[tokio::test]
async fn ca_01_the_secret_is_posted_where_only_that_is_offered() {
    let (server, _) = running().await;
    let methods = changed(
        server.document(),
        "token_endpoint_auth_methods_supported",
        json!(["client_secret_post"]),
    );
    server.answer("/.well-known/openid-configuration", 200, methods);
    server.answer("/token", 200, good());
    let provider = made(settings(&server.origin));
    refresh(&provider).await.unwrap();
    let seen = &server.seen("/token")[0];
    assert_eq!(seen.form("client_secret").as_deref(), Some("secret"));
    assert_eq!(seen.form("client_id").as_deref(), Some("app"));
    assert!(!seen.headers.contains_key("authorization"));
}

#[tokio::test]
async fn while_secrets_rotate_the_next_is_tried_only_after_invalid_client() {
    let (server, _) = running().await;
    let accepted = Arc::new(Mutex::new("old".to_owned()));
    let judge = Arc::clone(&accepted);
    server.on("/token", move |seen| {
        if secret_of(seen) == *judge.lock().unwrap() {
            Reply::Json(200, good())
        } else {
            Reply::Json(401, json!({"error": "invalid_client"}))
        }
    });
    let mut rotating = settings(&server.origin);
    rotating.client_secret = vec![SecretSource::plain("new"), SecretSource::plain("old")];
    let provider = made(rotating.clone());
    let tried = || server.seen("/token").iter().map(secret_of).collect::<Vec<_>>();
    exchange(&provider).await.unwrap();
    assert_eq!(tried(), ["new", "old"]);
    refresh(&provider).await.unwrap();
    assert_eq!(tried()[2..], ["old"], "what was accepted is remembered");
    "new".clone_into(&mut accepted.lock().unwrap());
    refresh(&provider).await.unwrap();
    assert_eq!(tried()[3..], ["old", "new"]);
    "neither".clone_into(&mut accepted.lock().unwrap());
    assert_eq!(
        refresh(&provider).await.unwrap_err(),
        TokenError::Refused("invalid_client".into())
    );
    assert_eq!(tried()[5..], ["new", "old"]);
    // Anything else is an answer, and one request is all there is.
    for (status, error) in [
        (400, "invalid_grant"),
        (400, "invalid_request"),
        (400, "unauthorized_client"),
        (500, "x"),
    ] {
        server.answer("/token", status, json!({ "error": error }));
        let before = server.count("/token");
        assert!(refresh(&made(rotating.clone())).await.is_err());
        assert_eq!(server.count("/token"), before + 1, "{error}");
    }
}

#[tokio::test]
async fn oa_07_only_invalid_grant_is_invalid_grant() {
    let (server, provider) = running().await;
    server.answer("/token", 400, json!({"error": "invalid_grant"}));
    assert_eq!(refresh(&provider).await.unwrap_err(), TokenError::InvalidGrant);
    let retry = vec![
        ("Retry-After", "7".to_owned()),
        ("Content-Type", "application/json".to_owned()),
    ];
    let body = br#"{"error":"invalid_grant"}"#.to_vec();
    server.on("/token", move |_| Reply::Raw(503, retry.clone(), body.clone()));
    let Err(TokenError::NoAnswer { retry_after, .. }) = refresh(&provider).await else {
        panic!()
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
    let html = || {
        Reply::Raw(
            400,
            vec![("Content-Type", "text/html".into())],
            br#"{"error":"invalid_grant"}"#.to_vec(),
        )
    };
    server.on("/token", move |_| html());
    assert!(matches!(
        refresh(&provider).await,
        Err(TokenError::NoAnswer { .. })
    ));
    // A type that is not even text is not taken for "none named".
    server.on("/token", |_| {
        Reply::Raw(
            400,
            vec![("Content-Type", "\u{e9}".into())],
            br#"{"error":"invalid_grant"}"#.to_vec(),
        )
    });
    assert!(matches!(
        refresh(&provider).await,
        Err(TokenError::NoAnswer { .. })
    ));
}

#[tokio::test]
async fn it_is_known_whether_a_code_can_have_left() {
    let (server, provider) = running().await;
    // Read and dropped, answered with rubbish, too much: it may have been used.
    let lost: [fn() -> Reply; 4] = [
        || Reply::Drop,
        || Reply::Endless,
        || Reply::Raw(200, vec![], b"not http".to_vec()),
        || Reply::Raw(302, vec![("Location", "/token".into())], Vec::new()),
    ];
    for reply in lost {
        server.on("/token", move |_| reply());
        let before = server.count("/token");
        assert!(matches!(
            exchange(&provider).await,
            Err(TokenError::NoAnswer { .. })
        ));
        assert_eq!(server.count("/token"), before + 1, "a code is never sent twice");
    }
    // No name, no port, nothing that could be TLS: it cannot have been used.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    for endpoint in [
        format!("http://{closed}/token"),
        format!("https://{}/token", server.address),
        "https://there-is-no-such-name.invalid/token".to_owned(),
    ] {
        let mut elsewhere = settings(&server.origin);
        elsewhere.endpoints.token = Some(endpoint.clone());
        let outcome = exchange(&made(elsewhere)).await;
        assert!(
            matches!(outcome, Err(TokenError::Unreachable(_))),
            "{endpoint} {outcome:?}"
        );
    }
    // Nothing known of the provider: nothing sent either.
    let outcome = exchange(&made(settings(&format!("http://{closed}")))).await;
    assert!(matches!(outcome, Err(TokenError::Unreachable(_))));
}

#[tokio::test]
async fn a_connection_that_is_closed_before_it_is_read_counts_as_sent() {
    let server = Server::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut elsewhere = settings(&server.origin);
    elsewhere.endpoints.token = Some(format!("http://{}/token", listener.local_addr().unwrap()));
    let provider = made(elsewhere);
    let accepting = async {
        let _ = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = exchange(&provider) => assert!(matches!(outcome, Err(TokenError::NoAnswer { .. })), "{outcome:?}"),
        () = accepting => {}
    }
}

#[tokio::test]
async fn tx_01_the_refresh_token_is_revoked_first_and_logout_does_not_wait() {
    let (server, provider) = running().await;
    provider.warm_up().await;
    let (refresh, access) = (RefreshToken::new("r"), AccessToken::new("a"));
    server.answer("/revoke", 200, json!({}));
    provider.revoke(Some(&refresh), Some(&access)).await;
    let seen = server.seen("/revoke");
    let sent: Vec<_> = seen
        .iter()
        .map(|s| (s.form("token").unwrap(), s.form("token_type_hint").unwrap()))
        .collect();
    assert_eq!(
        sent,
        [
            ("r".into(), "refresh_token".into()),
            ("a".into(), "access_token".into())
        ]
    );
    assert!(seen[0].headers["authorization"].starts_with("Basic "));
    server.on("/revoke", |_| Reply::Hang);
    let began = Instant::now();
    provider.revoke(Some(&refresh), Some(&access)).await;
    assert!((Duration::from_millis(1900)..Duration::from_secs(4)).contains(&began.elapsed()));
    server.answer("/revoke", 400, json!({"error": "unsupported_token_type"}));
    provider.revoke(Some(&refresh), Some(&access)).await;
    assert_eq!(
        server.count("/revoke"),
        5,
        "a refusal of one does not keep the other"
    );
    let before = server.count("/revoke");
    provider.revoke(None, None).await;
    assert_eq!(server.count("/revoke"), before);
}

#[tokio::test]
async fn id_20_userinfo_is_about_the_same_user_or_nothing() {
    let (server, provider) = running().await;
    let token = AccessToken::new(ACCESS);
    server.answer(
        "/userinfo",
        200,
        json!({"sub": "alice", "email": "a@b", "iss": "x", "aud": "y", "exp": 1, "acr": "z"}),
    );
    let found = provider.userinfo(&token, "alice").await.unwrap();
    assert_eq!(Value::Object(found), json!({"sub": "alice", "email": "a@b"}));
    let seen = &server.seen("/userinfo")[0];
    assert_eq!(
        (seen.method.as_str(), seen.headers["authorization"].as_str()),
        ("GET", "Bearer access-token")
    );
    for body in [
        json!({"sub": "bob"}),
        json!({}),
        json!({"sub": ["alice"]}),
        json!([{"sub": "alice"}]),
        json!("alice"),
    ] {
        server.answer("/userinfo", 200, body.clone());
        assert!(is_bad(provider.userinfo(&token, "alice").await), "{body}");
    }
    for (status, away) in [
        (401, false),
        (403, false),
        (302, false),
        (404, false),
        (429, true),
        (500, true),
        (503, true),
    ] {
        server.answer("/userinfo", status, json!({"sub": "alice"}));
        assert_eq!(
            is_away(provider.userinfo(&token, "alice").await),
            away,
            "{status}"
        );
    }
    let text = |content_type: &'static str, body: String| {
        server.on("/userinfo", move |_| {
            Reply::Raw(
                200,
                vec![("Content-Type", content_type.into())],
                body.clone().into_bytes(),
            )
        });
    };
    text("text/html", r#"{"sub":"alice"}"#.into());
    assert!(is_bad(provider.userinfo(&token, "alice").await));
    let said = json!({"iss": server.origin, "aud": "app", "sub": "alice", "email": "a@b"});
    text("application/jwt", signer("ES256").sign(json!({}), &said));
    let found = provider.userinfo(&token, "alice").await.unwrap();
    assert_eq!(Value::Object(found), json!({"sub": "alice", "email": "a@b"}));
    for wrong in [
        changed(said.clone(), "iss", json!("https://other")),
        changed(said.clone(), "aud", json!("other")),
        changed(said.clone(), "sub", json!("bob")),
    ] {
        text("application/jwt", signer("ES256").sign(json!({}), &wrong));
        assert!(provider.userinfo(&token, "alice").await.is_err(), "{wrong}");
    }
    let mut forged = signer("ES256").sign(json!({}), &said);
    forged.replace_range(forged.len() - 4.., "AAAA");
    text("application/jwt", forged);
    assert!(is_bad(provider.userinfo(&token, "alice").await));
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_the_operators_fault_and_sends_nothing() {
    let (server, _) = running().await;
    let counter = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&counter);
    server.on("/token", move |_| {
        counting.fetch_add(1, Ordering::SeqCst);
        Reply::Json(200, good())
    });
    let mut unreadable = settings(&server.origin);
    unreadable.client_secret = vec![SecretSource::file("/nonexistent/secret")];
    assert!(matches!(
        refresh(&made(unreadable.clone())).await,
        Err(TokenError::Unreachable(_))
    ));
    assert_eq!(counter.load(Ordering::SeqCst), 0);
    unreadable.client_secret.push(SecretSource::plain("secret"));
    assert!(
        refresh(&made(unreadable)).await.is_ok(),
        "one that can be read will do"
    );
}
