//! Signing in does not work: what the browser, its cookies and the registration at the provider have to do with it.

use super::page::Entry;
use super::{check, check_online};
use crate::support::browser::{ATTEMPT, Request, SESSION};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::{Config, key};
use crate::support::free_port;
use crate::support::jar::Site;
use crate::support::oidc_provider::OidcProvider;
use crate::support::rig::Rig;
use crate::support::rogue::change;
use crate::support::secrets::canary;
use serde_json::json;

#[tokio::test]
async fn circles() {
    let mut entry = Entry::of("People go round in circles");
    let rig = Rig::on_redis(|config| config).await;
    // The cookie does not come back.
    let mut blocked = rig.browser();
    blocked.jar.refused.push(SESSION.to_owned());
    let (reply, _) = blocked.follow("/pages/x", Site::None, &rig.rogue, 16).await;
    assert_eq!(reply.status, 400);
    entry.page(&reply);
    // It comes back twice, as a proxy may have it.
    let mut doubled = rig.signed_in().await;
    let cookies = doubled
        .jar
        .header(doubled.domain(), Site::SameOrigin, true)
        .unwrap();
    let twice = format!("{cookies}; {SESSION}={}", doubled.session().unwrap());
    for target in ["/pages/x", "/bff/login"] {
        let request = Request::navigate(target, Site::SameOrigin).with("Cookie", &twice);
        let reply = doubled.send(request).await;
        assert_eq!(reply.status, 400, "{target}");
        entry.page(&reply);
    }
    // It comes back, and the store has lost its session each time.
    let mut lost = rig.browser();
    for round in 0..3 {
        let reply = lost.navigate("/pages/x", Site::SameOrigin).await;
        assert_eq!(reply.status, 302, "round {round}: {}", reply.text());
        lost.login(&rig.rogue, "/pages/x").await;
        let mut connection = rig.redis.as_ref().unwrap().connection();
        let _emptied: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
    }
    let reply = lost.navigate("/pages/x", Site::SameOrigin).await;
    assert_eq!(reply.status, 400);
    entry.page(&reply);
    // The next try is a new one.
    assert_eq!(lost.navigate("/pages/x", Site::SameOrigin).await.status, 302);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn no_cookie_of_this_sign_in() {
    let mut entry = Entry::of("This sign-in cannot be finished");
    let rig = Rig::with(|config| config.set("session.keys", json!([key()]))).await;
    // No cookie at all, and only another login's.
    for keeps_another in [false, true] {
        let mut browser = rig.browser();
        let url = browser.begin("").await;
        browser.jar.forget(ATTEMPT);
        if keeps_another {
            browser.begin("").await;
        }
        let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
        assert_eq!(reply.status, 400);
        entry.page(&reply);
    }
    // Begun at a replica with another key.
    let other = Cloakroom::start(&rig.config.replica().set("session.keys", json!([key()]))).await;
    let mut browser = rig.browser().at(other.port);
    let url = browser.begin("").await;
    let mut browser = browser.at(rig.cloakroom.port);
    let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
    assert_eq!(reply.status, 400);
    entry.page(&reply);
    assert_eq!(rig.rogue.count("/token"), 0, "no code has left");
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn the_redirect_uri_at_a_certified_provider() {
    let mut entry = Entry::of("The provider shows an error about the redirect URI");
    let (port, secret) = (free_port(), canary("client-secret"));
    let config = Config::new(&format!("http://127.0.0.1:{port}"), &secret, "http://127.0.0.1:9");
    let provider = |redirect_uri: String| {
        OidcProvider::start(&json!({
            "issuer_host": "127.0.0.1", "port": port, "login": "auto",
            "clients": [{ "client_id": "app", "client_secret": secret, "redirect_uris": [redirect_uri] }],
        }))
    };
    let cloakroom = Cloakroom::start(&config).await;
    let ours = format!("{}/bff/callback", config.public_url());
    let wrong = provider(format!("{ours}/"));
    let (code, said) = check(&config, &["--online"]);
    assert_eq!(code, 1, "{said}");
    entry.check(&said);
    // What people see is the provider's own.
    let mut browser = cloakroom.browser();
    let url = browser.begin("").await;
    assert_eq!(browser.navigate(&url, Site::CrossSite).await.status, 400);
    drop(wrong);
    let _right = provider(ours);
    let (_, said) = check(&config, &["--online"]);
    assert!(
        said.contains("ok      provider main: sign-in with the redirect URI"),
        "{said}"
    );
    entry.settle(&cloakroom).await;
}

#[tokio::test]
async fn an_error_code_from_the_provider() {
    let mut entry = Entry::of("The sign-in service refused");
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let url = browser.begin("").await;
    let reply = browser.come_back(&rig.rogue.refuse(&url, "invalid_scope")).await;
    assert_eq!(reply.status, 400);
    assert!(
        !reply.text().contains("invalid_scope"),
        "nothing that was sent comes back"
    );
    entry.page(&reply);
    let url = browser.begin("").await;
    let made_up = browser.come_back(&rig.rogue.refuse(&url, "made_up_code")).await;
    assert_eq!(made_up.status, 400);
    entry.settle(&rig.cloakroom).await;
    assert!(
        !rig.cloakroom.log().contains("made_up_code"),
        "nor into the log, unless a specification names it"
    );
}

#[tokio::test]
async fn too_many_logins_from_one_address() {
    let mut entry = Entry::of("Too many logins were begun from this address");
    let limited = |config: Config| config.set("limits.logins_per_address", "2/m");
    let rig = Rig::with(limited).await;
    let login = |client: &str| Request::navigate("/bff/login", Site::None).with("X-Forwarded-For", client);
    let mut browser = rig.browser();
    for client in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(browser.send(login(client)).await.status, 302);
    }
    let reply = browser.send(login("192.0.2.3")).await;
    assert_eq!(reply.status, 429, "everybody has the proxy's address");
    entry.page(&reply);
    entry.settle(&rig.cloakroom).await;
    let trusting =
        Rig::with(|config| limited(config).set("server.trusted_proxies", json!(["127.0.0.1"]))).await;
    let mut browser = trusting.browser();
    for client in 1..6 {
        assert_eq!(
            browser.send(login(&format!("192.0.2.{client}"))).await.status,
            302
        );
    }
}

#[tokio::test]
async fn a_session_that_would_be_too_large() {
    let mut entry = Entry::of("People in very many groups cannot sign in");
    let rig = Rig::with(|config| config.set("providers.main.userinfo", "on_login")).await;
    let groups: Vec<String> = (0..4_000).map(|n| format!("group-{n:04}-of-many")).collect();
    let many = change(move |claims| claims["memberships"] = json!(groups));
    for in_userinfo in [true, false] {
        rig.rogue.script(|script| {
            script.userinfo = many.clone().filter(|_| in_userinfo);
            script.claims = many.clone().filter(|_| !in_userinfo);
        });
        let mut browser = rig.browser();
        let url = browser.begin("").await;
        let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
        assert_eq!(reply.status, 502);
        entry.page(&reply);
    }
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn check_online_is_content_with_a_provider_that_is_content_with_us() {
    let rig = Rig::start().await;
    let (code, said) = check_online(&rig);
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("FAILED"), "{said}");
}
