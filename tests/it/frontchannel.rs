//! The provider's page signs users out in a frame (OpenID Connect Front-Channel Logout 1.0): off unless switched on.

use crate::support::browser::{Browser, Reply, Request};
use crate::support::form;
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::rogue::Rogue;
use crate::support::until;
use serde_json::json;

const PATH: &str = "/bff/frontchannel-logout";

/// What a frame on the provider's page asks for: another site's cookies do not come.
async fn framed(browser: &mut Browser, query: &str) -> Reply {
    let request = Request::navigate(&format!("{PATH}{query}"), Site::CrossSite)
        .without("Sec-Fetch-Dest")
        .with("Sec-Fetch-Dest", "iframe");
    browser.send(request).await
}

async fn user(browser: &mut Browser) -> u16 {
    browser.fetch("GET", "/bff/user").await.status
}

async fn on() -> Rig {
    Rig::with(|config| config.set("providers.main.frontchannel_logout", true)).await
}

#[tokio::test]
async fn lo_19_front_channel_logout_is_off_by_default() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let query = format!("?iss={}&sid={}", form::encode(&rig.rogue.issuer), rig.rogue.sid());
    assert_eq!(framed(&mut browser, &query).await.status, 404);
    assert_eq!(user(&mut browser).await, 200);
}

#[tokio::test]
async fn lo_19_issuer_and_sid_end_that_session_alone_and_revoke_nothing() {
    let rig = on().await;
    let (mut first, first_sid) = (rig.signed_in().await, rig.rogue.sid());
    let (mut second, _) = (rig.signed_in().await, rig.rogue.sid());
    let query = format!("?iss={}&sid={first_sid}", form::encode(&rig.rogue.issuer));
    let reply = framed(&mut rig.browser(), &query).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(
        policy.ends_with(&format!("frame-ancestors {}", rig.rogue.issuer)),
        "only the provider's page may frame it: {policy}"
    );
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert_eq!(reply.header("x-frame-options"), None);
    assert!(reply.headers("set-cookie").is_empty());
    assert!(!reply.text().contains("<body"), "an empty page: {}", reply.text());
    assert_eq!((user(&mut first).await, user(&mut second).await), (401, 200));
    assert_eq!(
        rig.rogue.revoked(),
        Vec::<String>::new(),
        "nobody signed that call"
    );
    let audited = r#""cause":"frontchannel""#;
    until(5, "the audit", || rig.cloakroom.log().contains(audited)).await;
    // Again, and for a session that never was: the same answer.
    for query in [
        query,
        format!("?iss={}&sid=unknown", form::encode(&rig.rogue.issuer)),
    ] {
        let again = framed(&mut rig.browser(), &query).await;
        assert_eq!((again.status, again.text()), (200, reply.text()));
        assert_eq!(again.header("content-security-policy"), Some(policy));
    }
    let metrics = rig.cloakroom.admin("/metrics").await.text();
    let counted = "cloakroom_logouts_total{kind=\"frontchannel\"} 1\n";
    assert!(metrics.contains(counted), "sessions, not calls: {metrics}");
}

#[tokio::test]
async fn lo_19_what_does_not_fit_changes_nothing() {
    let other = Rogue::start().await;
    let (issuer, secret) = (other.issuer.clone(), other.client_secret());
    let rig = Rig::with(|config| {
        let provider = json!({ "issuer": issuer, "client_id": "app", "client_secret": secret });
        config
            .set("providers.main.frontchannel_logout", true)
            .set("providers.other", provider)
    })
    .await;
    let mut browser = rig.browser();
    let url = browser.begin("?provider=main").await;
    browser.come_back(&rig.rogue.authorize(&url)).await;
    let (ours, sid) = (form::encode(&rig.rogue.issuer), rig.rogue.sid());
    let theirs = form::encode(&other.issuer);
    for query in [
        String::new(),
        format!("?sid={sid}"),
        format!("?iss={ours}"),
        format!("?iss={ours}&sid="),
        format!("?iss={ours}&sid=alice"),
        format!("?iss={ours}&sub=alice"),
        format!("?iss={theirs}&sid={sid}"),
        format!("?iss={ours}%2F&sid={sid}"),
        format!("?iss={ours}&iss={ours}&sid={sid}"),
        format!("?iss={ours}&sid={sid}&sid={sid}"),
        format!("?iss={ours}&sid={sid}&x=%zz"),
        "?iss=https%3A%2F%2Fevil.example&sid=x".into(),
    ] {
        let reply = framed(&mut browser, &query).await;
        assert_eq!(reply.status, 200, "{query}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{query}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(!policy.contains("evil"), "{query}: {policy}");
        assert_eq!(user(&mut browser).await, 200, "{query}");
    }
    let right = format!("{PATH}?iss={ours}&sid={sid}");
    let ahead = Request::navigate(&right, Site::CrossSite).with("Sec-Purpose", "prefetch");
    assert_eq!(browser.send(ahead).await.status, 503, "contract 3.10");
    assert_eq!(browser.send(Request::bare("POST", &right)).await.status, 405);
    assert_eq!(user(&mut browser).await, 200);
    // The other provider's is off, so its sessions stay even for who knows the sid.
    let mut elsewhere = rig.browser();
    let url = elsewhere.begin("?provider=other").await;
    elsewhere.come_back(&other.authorize(&url)).await;
    framed(&mut rig.browser(), &format!("?iss={theirs}&sid={}", other.sid())).await;
    assert_eq!(user(&mut elsewhere).await, 200);
    framed(&mut rig.browser(), &format!("?iss={ours}&sid={sid}")).await;
    assert_eq!(user(&mut browser).await, 401);
}

#[tokio::test]
async fn the_front_channels_address_is_said_where_it_is_on() {
    let rig = on().await;
    let uri = format!("{}{PATH}", rig.cloakroom.origin);
    until(5, &uri, || rig.cloakroom.log().contains(&uri)).await;
}
