//! How a login begins (contract 3.1, 3.2, 3.10, 5.4).

use crate::support::browser::{ATTEMPT, Request};
use crate::support::cloakroom::Cloakroom;
use crate::support::form;
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::rogue::{Direction, Rogue, change};
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test]
async fn oa_01_oa_04_az_01_az_05_a_login_asks_for_a_code_with_pkce_state_and_nonce() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let reply = browser
        .navigate("/bff/login?return_to=/x", Site::SameOrigin)
        .await;
    assert_eq!(reply.status, 302);
    let url = reply.location();
    assert!(
        url.starts_with(&format!("{}/authorize?", rig.rogue.issuer)),
        "{url}"
    );
    let names: Vec<_> = form::query(url).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names.len(),
        names.iter().collect::<BTreeSet<_>>().len(),
        "doubled: {names:?}"
    );
    let value = |name: &str| form::parameter(url, name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(value("response_type"), "code");
    assert_eq!(value("client_id"), "app");
    assert_eq!(value("code_challenge_method"), "S256");
    assert_eq!(value("code_challenge").len(), 43);
    assert_eq!(
        value("redirect_uri"),
        format!("{}/bff/callback", rig.cloakroom.origin)
    );
    assert!(value("state").len() >= 22, "az_04: at least 128 bits");
    assert!((22..=64).contains(&value("nonce").len()), "az_05");
    assert!(value("scope").split(' ').any(|scope| scope == "openid"));

    let cookies = reply.cookies();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert!(cookies[0].name.starts_with(ATTEMPT));
    assert_eq!(
        cookies[0].attributes,
        ["httponly", "max-age=600", "path=/", "samesite=lax", "secure"]
    );
    let again = browser.begin("?return_to=/x").await;
    for name in ["state", "nonce", "code_challenge"] {
        assert_ne!(
            form::parameter(&again, name),
            Some(value(name)),
            "{name} is fresh each time"
        );
    }
}

#[tokio::test]
async fn bf_03_az_08_az_16_anything_but_a_navigation_is_403_and_sets_no_cookie() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let navigate = || Request::navigate("/bff/login", Site::SameOrigin);
    let changed = |name: &str, value: &str| navigate().without(name).with(name, value);
    let refused = [
        Request::fetch("GET", "/bff/login"),
        Request::bare("GET", "/bff/login"),
        Request::bare("GET", "/bff/login").with("Accept", "*/*"),
        Request::bare("GET", "/bff/login").with("Accept", "application/json"),
        changed("Sec-Fetch-Mode", "no-cors")
            .without("Sec-Fetch-Dest")
            .with("Sec-Fetch-Dest", "image"),
        changed("Sec-Fetch-Dest", "iframe"),
        changed("Sec-Fetch-Dest", "frame"),
        changed("Sec-Fetch-Dest", "object"),
        changed("Sec-Fetch-Mode", "cors"),
        changed("Sec-Fetch-Mode", "websocket"),
    ];
    for request in refused {
        let reply = browser.send(request.clone()).await;
        assert_eq!(reply.status, 403, "{request:?}");
        assert!(reply.cookies().is_empty(), "{request:?}");
    }
    for _ in 0..20 {
        let reply = browser.fetch("GET", "/api/x").await;
        assert_eq!(reply.status, 401);
        assert!(reply.cookies().is_empty());
    }
    let post = browser.fetch("POST", "/bff/login").await;
    assert!(matches!(post.status, 403 | 405), "{}", post.status);
    assert!(post.cookies().is_empty());
    let old = Request::bare("GET", "/bff/login").with("Accept", "text/html,*/*;q=0.8");
    assert_eq!(
        browser.send(old).await.status,
        302,
        "a browser without Sec-Fetch-* still signs in"
    );
}

#[tokio::test]
async fn az_15_class_l_only_listed_parameters_reach_the_provider() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let listed = "?prompt=login&login_hint=bob%40example.com&acr_values=gold&max_age=60";
    let url = browser.begin(listed).await;
    for (name, value) in [
        ("prompt", "login"),
        ("login_hint", "bob@example.com"),
        ("acr_values", "gold"),
        ("max_age", "60"),
    ] {
        assert_eq!(form::parameter(&url, name).as_deref(), Some(value));
    }
    let names = |url: &str| {
        form::query(url)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<BTreeSet<_>>()
    };
    let plain = names(&browser.begin("").await);
    let evil = "?scope=admin&redirect_uri=https://evil.example&state=mine&nonce=mine&client_id=other\
                &response_type=token&code_challenge=x&code_challenge_method=plain&response_mode=fragment\
                &request=x&request_uri=x&claims=x&resource=x&audience=x&return_to=/x";
    let url = browser.begin(evil).await;
    assert_eq!(names(&url), plain);
    for (_, value) in form::query(&url) {
        assert!(
            !["admin", "mine", "other", "token", "plain", "x"].contains(&value.as_str()),
            "{url}"
        );
        assert!(!value.contains("evil.example"));
    }
}

#[tokio::test]
async fn class_l_a_login_begun_elsewhere_ignores_all_but_return_to() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    for site in [Site::CrossSite, Site::SameSite] {
        let target = "/bff/login?return_to=/orders&prompt=none&login_hint=mallory&acr_values=lax&max_age=999";
        let reply = browser.navigate(target, site).await;
        let url = reply.location().to_owned();
        for name in ["prompt", "login_hint", "acr_values", "max_age"] {
            assert_eq!(form::parameter(&url, name), None, "{site:?}");
        }
        let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
        assert_eq!(browser.landing(&reply), "/orders");
    }
}

#[tokio::test]
async fn oa_14_class_l_a_doubled_return_to_never_wins() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let reply = browser
        .navigate("/bff/login?return_to=/first&return_to=/second", Site::SameOrigin)
        .await;
    if reply.status == 400 {
        return;
    }
    let reply = browser.come_back(&rig.rogue.authorize(reply.location())).await;
    assert_eq!(browser.landing(&reply), "/");
}

#[tokio::test]
async fn az_07_five_tabs_sign_in_at_once_and_finish_in_any_order() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let mut urls = Vec::new();
    for tab in 0..7 {
        urls.push(browser.begin(&format!("?return_to=/tab/{tab}")).await);
    }
    assert!(browser.attempts().len() <= 5, "{:?}", browser.attempts());
    for tab in (2..7).rev() {
        let reply = browser.come_back(&rig.rogue.authorize(&urls[tab])).await;
        assert_eq!(browser.landing(&reply), format!("/tab/{tab}"));
    }
    let before = rig.rogue.count("/token");
    let reply = browser.come_back(&rig.rogue.authorize(&urls[0])).await;
    assert_eq!(reply.status, 400, "the oldest went first");
    reply.page();
    assert_eq!(rig.rogue.count("/token"), before);
}

#[tokio::test]
async fn ck_06_class_h_attempt_cookies_never_outgrow_four_kilobytes() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let long = format!("?return_to=/{}", "a".repeat(1000));
    for _ in 0..6 {
        browser.begin(&long).await;
        let attempts = browser.attempts();
        let size: usize = attempts
            .iter()
            .map(|cookie| cookie.name.len() + cookie.value.len())
            .sum();
        assert!(
            size <= 4096 && attempts.len() <= 5,
            "{size} in {}",
            attempts.len()
        );
    }
    let url = browser.begin(&long).await;
    let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
    assert_eq!(browser.landing(&reply).len(), 1001);
}

#[tokio::test]
async fn a_prefetch_is_503_and_changes_nothing() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    for (name, value) in [
        ("Sec-Purpose", "prefetch"),
        ("Purpose", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender"),
    ] {
        let prefetch = |url: &str, site| Request::navigate(url, site).with(name, value);
        let reply = browser.send(prefetch("/bff/login", Site::SameOrigin)).await;
        assert_eq!(reply.status, 503, "{name}: {value}");
        assert!(reply.cookies().is_empty());
        let url = browser.begin("?return_to=/x").await;
        let callback = rig.rogue.authorize(&url);
        let calls = rig.rogue.count("/token");
        let reply = browser.send(prefetch(&callback, Site::CrossSite)).await;
        assert_eq!(reply.status, 503);
        assert!(reply.cookies().is_empty());
        assert_eq!(rig.rogue.count("/token"), calls);
        let reply = browser.come_back(&callback).await;
        assert_eq!(browser.landing(&reply), "/x");
        let user = browser.fetch("GET", "/bff/user").await.json();
        let logout = user["logout_url"].as_str().unwrap().to_owned();
        assert_eq!(
            browser.send(prefetch(&logout, Site::SameOrigin)).await.status,
            503
        );
        assert_eq!(browser.fetch("GET", "/bff/user").await.status, 200);
    }
}

#[tokio::test]
async fn md_10_a_provider_that_is_away_at_the_start_makes_a_503_page_and_login_works_once_it_is_back() {
    let mut rogue = Rogue::start().await;
    rogue.close().await;
    let config =
        crate::support::config::Config::new(&rogue.issuer, &rogue.client_secret(), "http://127.0.0.1:9");
    let cloakroom = Cloakroom::start(&config).await;
    let mut browser = cloakroom.browser();
    let reply = browser
        .navigate("/bff/login?return_to=/x", Site::SameOrigin)
        .await;
    assert_eq!(reply.status, 503);
    assert!(reply.page().contains("/bff/login"), "a way back");
    assert!(reply.cookies().is_empty());
    rogue.open().await;
    crate::support::within(10, "the provider to be asked again", async {
        loop {
            if browser
                .navigate("/bff/login?return_to=/x", Site::SameOrigin)
                .await
                .status
                == 302
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(browser.login(&rogue, "/x").await, "/x");
}

#[tokio::test]
async fn md_02_md_03_oa_15_a_discovery_document_that_does_not_hold_is_not_used() {
    let rogue = Rogue::start().await;
    let redirect =
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec();
    let html = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>".to_vec();
    let mut huge = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"issuer\":\"".to_vec();
    huge.resize(3 << 20, b'a');
    let path = "/.well-known/openid-configuration";
    let wrong_issuers = [
        format!("{}/", rogue.issuer),
        rogue.issuer.replace("http://127", "HTTP://127"),
        "http://127.0.0.1:1".to_owned(),
        String::new(),
    ];
    let mut scripts: Vec<Direction> = Vec::new();
    for issuer in wrong_issuers {
        scripts.push(Box::new(move |script| {
            let issuer = issuer.clone();
            script.discovery = change(move |document| document["issuer"] = issuer.clone().into());
        }));
    }
    for raw in [redirect, html, huge] {
        scripts.push(Box::new(move |script| {
            script.raw.insert(path, raw.clone());
        }));
    }
    scripts.push(Box::new(|script| {
        script.discovery =
            change(|document| document["token_endpoint"] = "http://provider.example/token".into());
    }));
    for (at, apply) in scripts.iter().enumerate() {
        rogue.behave();
        rogue.script(|script| apply(script));
        let config =
            crate::support::config::Config::new(&rogue.issuer, &rogue.client_secret(), "http://127.0.0.1:9");
        let cloakroom = Cloakroom::start(&config).await;
        let mut browser = cloakroom.browser();
        let reply = browser.navigate("/bff/login", Site::SameOrigin).await;
        assert!(matches!(reply.status, 502 | 503), "script {at}: {}", reply.status);
        reply.page();
        assert!(reply.cookies().is_empty());
    }
}

#[tokio::test]
async fn several_providers_get_a_sign_in_page_and_one_that_is_named_is_used() {
    let second = Rogue::start().await;
    let (issuer, secret) = (second.issuer.clone(), second.client_secret());
    let rig = Rig::with(|config| {
        config
            .set(
                "providers.other",
                json!({ "issuer": issuer, "client_id": "app", "client_secret": secret }),
            )
            .set("providers.other.label", "The <Other> One")
    })
    .await;
    let mut browser = rig.browser();
    let reply = browser
        .navigate("/bff/login?return_to=/orders", Site::SameOrigin)
        .await;
    assert_eq!(reply.status, 200);
    let page = reply.page();
    assert!(!page.contains("<Other>"), "class_j: labels are text: {page}");
    let links = crate::support::html::links(&page);
    let other = links
        .iter()
        .find(|link| link.contains("provider=other"))
        .expect("a link to it")
        .clone();
    assert!(
        links.iter().any(|link| link.contains("provider=main")),
        "{links:?}"
    );
    let url = browser
        .navigate(&other, Site::SameOrigin)
        .await
        .location()
        .to_owned();
    assert!(url.starts_with(&second.issuer));
    let redirect_uri = form::parameter(&url, "redirect_uri").unwrap();
    assert_eq!(
        redirect_uri,
        format!("{}/bff/callback/other", rig.cloakroom.origin),
        "az_11: one each"
    );
    let reply = browser.come_back(&second.authorize(&url)).await;
    assert_eq!(browser.landing(&reply), "/orders");
    assert_eq!(
        browser.fetch("GET", "/bff/user").await.json()["provider"],
        "other"
    );
    let unknown = browser
        .navigate("/bff/login?provider=nobody", Site::SameOrigin)
        .await;
    assert!(matches!(unknown.status, 200 | 400 | 404), "{}", unknown.status);
}

#[tokio::test]
async fn lm_09_logins_per_address_are_limited_where_asked_for() {
    let rig = Rig::with(|config| config.set("limits.logins_per_address", "3/m")).await;
    let mut browser = rig.browser();
    for _ in 0..3 {
        browser.begin("").await;
    }
    let reply = browser.navigate("/bff/login", Site::SameOrigin).await;
    assert_eq!(reply.status, 429);
    assert!(reply.header("retry-after").unwrap().parse::<u32>().is_ok());
    assert!(reply.cookies().is_empty());
}

#[tokio::test]
async fn oa_04_hp_09_class_b_no_header_moves_the_redirect_uri() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    for (name, value) in [
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Prefix", "/evil"),
        ("Forwarded", "host=evil.example;proto=gopher"),
        ("X-Original-URL", "/evil"),
        ("X-Rewrite-URL", "/evil"),
    ] {
        let reply = browser
            .send(Request::navigate("/bff/login", Site::SameOrigin).with(name, value))
            .await;
        let redirect_uri = form::parameter(reply.location(), "redirect_uri").unwrap();
        assert_eq!(
            redirect_uri,
            format!("{}/bff/callback", rig.cloakroom.origin),
            "{name}"
        );
    }
}

#[tokio::test]
async fn unknown_endpoints_under_the_prefix_are_404_and_never_go_up() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for path in [
        "/bff",
        "/bff/",
        "/bff/x",
        "/bff/login/x",
        "/bff/user/",
        "/bff/metrics",
        "/bff/verify",
        "/bff/healthz",
    ] {
        let reply = browser.fetch("GET", path).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (404, "not_found"),
            "{path}"
        );
    }
    assert_eq!(rig.upstream.connections(), 0);
}
