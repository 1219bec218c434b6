//! What a provider publishes: discovery and keys, and what happens while it does not.

use super::*;

const DISCOVERY: &str = "/.well-known/openid-configuration";

#[tokio::test]
async fn discovery_waits_for_the_first_use_and_serves_all_that_come_together() {
    let (server, provider) = running().await;
    assert_eq!(server.count(DISCOVERY), 0);
    assert!(!provider.is_known() && provider.end_session_url(None, "x").is_none());
    let urls = all_of((0..50).map(|_| begin(&provider))).await;
    assert!(
        urls.iter()
            .all(|url| url.as_ref().is_ok_and(|url| url.starts_with(&server.origin)))
    );
    assert_eq!(server.count(DISCOVERY), 1);
    assert!(provider.is_known());
}

#[tokio::test]
async fn md_10_a_provider_that_is_away_is_asked_again_soon() {
    let (server, provider) = running().await;
    server.answer(DISCOVERY, 503, json!({}));
    let began = Instant::now();
    assert!(is_away(begin(&provider).await));
    assert!(is_away(begin(&provider).await));
    assert_eq!(server.count(DISCOVERY), 1, "not at once");
    server.answer(DISCOVERY, 200, server.document());
    provider.warm_up().await;
    assert!(begin(&provider).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(10), "contract 4.8");
}

#[tokio::test]
async fn oa_15_a_document_that_misbehaves_is_refused() {
    let (server, provider) = running().await;
    let target = Server::start().await;
    let elsewhere = format!("{}{DISCOVERY}", target.origin);
    for status in [301, 302, 303, 307, 308] {
        let location = elsewhere.clone();
        server.on(DISCOVERY, move |_| {
            Reply::Raw(status, vec![("Location", location.clone())], Vec::new())
        });
        assert!(
            is_bad(provider.source.fetch_metadata(Duration::from_secs(5)).await),
            "{status}"
        );
    }
    assert_eq!(target.count(DISCOVERY), 0, "no redirect is followed");
    let html = || {
        Reply::Raw(
            200,
            vec![("Content-Type", "text/html".into())],
            b"<html>".to_vec(),
        )
    };
    server.on(DISCOVERY, move |_| html());
    assert!(is_bad(
        provider.source.fetch_metadata(Duration::from_secs(5)).await
    ));
    server.on(DISCOVERY, |_| Reply::Endless);
    assert!(is_away(
        provider.source.fetch_metadata(Duration::from_secs(10)).await
    ));
    for slow in [|| Reply::Drip, || Reply::Hang] {
        server.on(DISCOVERY, move |_| slow());
        let began = Instant::now();
        assert!(is_away(
            provider.source.fetch_metadata(Duration::from_millis(300)).await
        ));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    server.answer(DISCOVERY, 404, json!({}));
    assert!(is_bad(
        provider.source.fetch_metadata(Duration::from_secs(5)).await
    ));
    for (name, value) in [
        ("issuer", json!(format!("{}/", server.origin))),
        ("token_endpoint", json!("http://id.example.com/token")),
        ("jwks_uri", json!("http://169.254.169.254/latest")),
    ] {
        server.answer(DISCOVERY, 200, changed(server.document(), name, value));
        assert!(
            is_bad(provider.source.fetch_metadata(Duration::from_secs(5)).await),
            "{name}"
        );
    }
    assert!(!provider.is_known());
}

#[tokio::test]
async fn endpoints_of_the_config_win_and_can_do_without_discovery() {
    let server = Server::start().await;
    let mut own = settings("https://id.example.com");
    own.discovery_url = Some(format!("{}/nowhere", server.origin));
    own.endpoints.authorization = Some("https://browsers.example.com/authorize".into());
    own.endpoints.token = Some(format!("{}/token", server.origin));
    own.endpoints.jwks = Some(format!("{}/jwks", server.origin));
    let provider = made(own.clone());
    assert!(provider.is_known());
    assert!(
        begin(&provider)
            .await
            .unwrap()
            .starts_with("https://browsers.example.com/authorize?")
    );
    let said = changed(claims(&server), "iss", json!("https://id.example.com"));
    assert!(
        provider
            .verify_login(&id_token("RS256", &said), &expect())
            .await
            .is_ok()
    );
    assert!(
        provider
            .end_session_url(None, "https://app.example.com/")
            .is_none()
    );
    assert!(provider.check_response_issuer(None).await.is_ok());
    // Where there is a document all the same, the rest comes out of it.
    let document = changed(server.document(), "issuer", json!("https://id.example.com"));
    server.answer("/nowhere", 200, document);
    let provider = made(own);
    assert!(
        begin(&provider)
            .await
            .unwrap()
            .starts_with("https://browsers.example.com/authorize?")
    );
    let out = provider
        .end_session_url(None, "https://app.example.com/")
        .unwrap();
    assert!(out.expose().starts_with(&server.origin));
}

#[tokio::test]
async fn names_below_localhost_are_this_machine() {
    let server = Server::start_as("http", "op.localhost", None).await;
    let provider = made(settings(&server.origin));
    assert!(
        begin(&provider)
            .await
            .unwrap()
            .starts_with("http://op.localhost:")
    );
    assert!(
        provider
            .verify_login(&id_token("ES256", &claims(&server)), &expect())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn az_10_a_response_without_issuer_is_refused_where_one_is_promised() {
    let (server, provider) = running().await;
    assert!(provider.check_response_issuer(None).await.is_ok());
    assert!(provider.check_response_issuer(Some(&server.origin)).await.is_ok());
    assert!(is_bad(
        provider.check_response_issuer(Some("https://other")).await
    ));
    let promise = changed(
        server.document(),
        "authorization_response_iss_parameter_supported",
        json!(true),
    );
    server.answer(DISCOVERY, 200, promise);
    let provider = made(settings(&server.origin));
    assert!(is_bad(provider.check_response_issuer(None).await));
    assert!(provider.check_response_issuer(Some(&server.origin)).await.is_ok());
}

#[tokio::test]
async fn the_sign_out_url_keeps_the_endpoints_own_query() {
    let (server, provider) = running().await;
    provider.warm_up().await;
    let landing = "https://app.example.com/bye?a=b&c";
    let hint = IdToken::new("h.i.nt");
    let url = provider.end_session_url(Some(&hint), landing).unwrap();
    let url = Url::parse(url.expose()).unwrap();
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let wanted = [
        ("tenant", "a"),
        ("id_token_hint", "h.i.nt"),
        ("client_id", "app"),
        ("post_logout_redirect_uri", landing),
    ];
    assert_eq!(
        pairs,
        wanted.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert!(url.as_str().starts_with(&format!("{}/logout?", server.origin)));
    let huge = IdToken::new("h".repeat(8000));
    let url = provider.end_session_url(Some(&huge), landing).unwrap();
    assert!(!url.expose().contains("id_token_hint") && url.expose().contains("client_id=app"));
}

#[tokio::test]
async fn check_online_says_what_was_tried_and_what_to_do() {
    let (server, provider) = running().await;
    let ours = "https://app.example.com/bff/callback";
    let steps = provider.check_online(ours).await;
    assert_eq!(steps.len(), 4);
    assert!(steps.iter().all(|step| step.outcome.is_ok()), "{steps:?}");
    assert!(steps[0].tried.contains(DISCOVERY) && steps[1].tried.contains("/jwks"));
    server.answer("/jwks", 200, json!({"keys": [{"kty": "oct", "k": "AA"}]}));
    let methods = changed(
        server.document(),
        "token_endpoint_auth_methods_supported",
        json!(["private_key_jwt"]),
    );
    server.answer(DISCOVERY, 200, methods);
    let steps = provider.check_online(ours).await;
    assert!(steps[0].outcome.is_ok());
    assert!(steps[1].outcome.as_ref().unwrap_err().contains("RS256"));
    assert!(
        steps[2]
            .outcome
            .as_ref()
            .unwrap_err()
            .contains("client_secret_basic")
    );
    server.answer(
        DISCOVERY,
        200,
        changed(server.document(), "issuer", json!("https://other")),
    );
    let steps = provider.check_online(ours).await;
    assert_eq!(steps.len(), 1);
    assert!(
        steps[0]
            .outcome
            .as_ref()
            .unwrap_err()
            .contains("providers.main.issuer")
    );
    let away = made(settings("http://127.0.0.1:1"));
    assert!(
        away.check_online(ours).await[0]
            .outcome
            .as_ref()
            .unwrap_err()
            .contains("HTTPS_PROXY")
    );
}
