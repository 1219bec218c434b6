//! The whole walk against a certified provider that nobody here wrote.

use crate::support::browser::{Browser, Reply};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::Config;
use crate::support::free_port;
use crate::support::jar::Site;
use crate::support::oidc_provider::OidcProvider;
use crate::support::secrets::canary;
use crate::support::upstream::Upstream;
use serde_json::{Value, json};
use std::time::Duration;

struct Real {
    cloakroom: Cloakroom,
    upstream: Upstream,
    provider: OidcProvider,
}

async fn start(changes: Value) -> Real {
    let (port, secret, upstream) = (free_port(), canary("client-secret"), Upstream::start().await);
    let config = Config::new(&format!("http://127.0.0.1:{port}"), &secret, &upstream.url());
    let origin = config.public_url();
    let mut provider = json!({
        "issuer_host": "127.0.0.1",
        "port": port,
        "clients": [{
            "client_id": "app",
            "client_secret": secret,
            "redirect_uris": [format!("{origin}/bff/callback")],
            "post_logout_redirect_uris": [format!("{origin}/")],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        }],
        "access_token_ttl": 30,
        "rotate": true,
        "token_format": "opaque",
        "login": "auto",
    });
    for (name, value) in changes.as_object().unwrap() {
        provider[name] = value.clone();
    }
    let provider = OidcProvider::start(&provider);
    assert_eq!(
        config.value["providers"]["main"]["issuer"],
        provider.issuer.trim_end_matches('/')
    );
    Real {
        cloakroom: Cloakroom::start(&config).await,
        upstream,
        provider,
    }
}

/// Follows whatever leads on, as a browser does.
async fn walk(browser: &mut Browser, url: &str) -> (Reply, String) {
    let (mut url, mut site) = (url.to_owned(), Site::SameOrigin);
    for _ in 0..20 {
        let reply = browser.navigate(&url, site).await;
        let Some(next) = reply.leads_to() else {
            return (reply, url);
        };
        let here = url
            .find("//")
            .map(|at| url[..at + 2 + url[at + 2..].find('/').unwrap()].to_owned());
        let here = here.unwrap_or_else(|| browser.origin.clone());
        url = if next.starts_with('/') {
            format!("{here}{next}")
        } else {
            next
        };
        let home = browser.origin.clone();
        site = if reply.status == 200 {
            Site::SameOrigin
        } else {
            site
        };
        if !url.starts_with(&home) {
            site = Site::CrossSite;
        }
    }
    panic!("a loop at {url}");
}

#[tokio::test]
async fn a_login_an_api_call_and_a_logout() {
    let real = start(json!({})).await;
    let mut browser = real.cloakroom.browser();
    let (reply, url) = walk(&mut browser, "/bff/login?return_to=/pages/x&login_hint=alice").await;
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (200, r#"{"ok":true}"#),
        "{url}"
    );
    assert!(real.upstream.last().bearer().is_some());
    let user = browser.fetch("GET", "/bff/user").await.json();
    assert_eq!(user["sub"], "alice");
    let reply = browser.fetch("POST", "/bff/logout").await;
    assert!(reply.location().starts_with(&real.provider.issuer));
    assert_eq!(browser.fetch("GET", "/bff/user").await.status, 401);
}

#[tokio::test]
async fn rf_05_tokens_are_refreshed_whether_the_provider_rotates_or_not() {
    for rotate in [true, false] {
        let real = start(json!({ "access_token_ttl": 2, "rotate": rotate })).await;
        let mut browser = real.cloakroom.browser();
        walk(&mut browser, "/bff/login?return_to=/pages/x&login_hint=alice").await;
        let mut tokens = Vec::new();
        for _ in 0..3 {
            let reply = browser.fetch("GET", "/api/x").await;
            assert_eq!(reply.status, 200, "rotate: {rotate}: {}", reply.text());
            tokens.push(real.upstream.last().bearer().unwrap().to_owned());
            tokio::time::sleep(Duration::from_millis(2_100)).await;
        }
        tokens.dedup();
        assert_eq!(tokens.len(), 3, "rotate: {rotate}");
    }
}
