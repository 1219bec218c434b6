//! What routes can ask for, and whose token goes where (contract §2, 2.7, 4.2).

use crate::support::browser::{Browser, Request};
use crate::support::rig::Rig;
use serde_json::json;

#[tokio::test]
async fn require_asks_for_scopes_and_claims() {
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        let route = |path: &str, require: serde_json::Value| {
            json!({ "path": path, "upstream": upstream, "require": require })
        };
        config
            .route(route("/r/scope", json!({ "scopes": ["profile", "email"] })))
            .route(route("/r/scope-none", json!({ "scopes": ["profile", "admin"] })))
            .route(route("/r/claim", json!({ "claims": { "groups": ["bosses", "staff"], "sub": ["alice"] } })))
            .route(route("/r/claim-none", json!({ "claims": { "groups": ["bosses"], "sub": ["alice"] } })))
            .route(route("/r/deep", json!({ "claims": { "realm_access.roles": ["clerk"] } })))
            .route(route("/r/deep-none", json!({ "claims": { "realm_access.roles": ["boss"] } })))
            .route(route("/r/missing", json!({ "claims": { "department": ["x"] } })))
    })
    .await;
    let mut browser = rig.signed_in().await;
    for (path, wanted) in [
        ("/r/scope", 200),
        ("/r/scope-none", 403),
        ("/r/claim", 200),
        ("/r/claim-none", 403),
        ("/r/deep", 200),
        ("/r/deep-none", 403),
        ("/r/missing", 403),
    ] {
        let before = rig.upstream.connections();
        let reply = browser.fetch("GET", path).await;
        assert_eq!(reply.status, wanted, "{path}");
        if wanted == 403 {
            assert_eq!(reply.problem(), "forbidden");
            assert_eq!(rig.upstream.connections(), before, "class_k");
        }
    }
    assert_eq!(rig.browser().fetch("GET", "/r/claim").await.status, 401);
}

#[tokio::test]
async fn routes_choose_host_upstreams_and_the_browsers_own_authorization() {
    let second = crate::support::upstream::Upstream::start().await;
    let url = second.url();
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        config
            .route(json!({ "path": "/keep", "upstream": upstream, "host": "keep" }))
            .route(json!({ "path": "/own", "upstream": upstream, "auth": "none", "authorization": "pass" }))
            .route(json!({ "path": "/two", "upstream": [upstream, url] }))
            .route(json!({ "path": "/verify-only" }))
    })
    .await;
    let mut browser = rig.signed_in().await;
    browser.fetch("GET", "/keep/x").await;
    assert_eq!(rig.upstream.last().values("host"), [browser.host()]);
    browser
        .send(Request::fetch("GET", "/own/x").with("Authorization", "Basic mine"))
        .await;
    assert_eq!(rig.upstream.last().values("authorization"), ["Basic mine"]);
    let before = rig.upstream.count();
    for _ in 0..6 {
        assert_eq!(browser.fetch("GET", "/two/x").await.status, 200);
    }
    assert!(
        second.count() > 0 && rig.upstream.count() > before,
        "both are used"
    );
    assert_eq!(browser.fetch("GET", "/verify-only").await.status, 404);
}

#[tokio::test]
async fn tx_07_class_g_a_thousand_requests_of_many_users_never_swap_tokens() {
    let rig = Rig::start().await;
    let mut users: Vec<(String, Browser)> = Vec::new();
    for n in 0..20 {
        let (name, mut browser) = (format!("user{n}"), rig.browser());
        browser.login_as(&rig.rogue, &name, "/").await;
        users.push((name, browser));
    }
    let mut work = tokio::task::JoinSet::new();
    for (name, mut browser) in users {
        work.spawn(async move {
            for n in 0..25 {
                let reply = browser.fetch("GET", &format!("/api/{name}/{n}")).await;
                assert_eq!(reply.status, 200);
                assert_eq!(browser.fetch("GET", "/bff/user").await.json()["sub"], name);
            }
        });
    }
    while let Some(ended) = work.join_next().await {
        ended.unwrap();
    }
    for request in rig.upstream.requests() {
        let owner = request.target.split('/').nth(2).unwrap().to_owned();
        assert_eq!(rig.rogue.subject_of(request.bearer().unwrap()), Some(owner));
    }
}

#[tokio::test]
async fn static_files_are_served_and_nothing_outside_their_folder() {
    let rig = Rig::start().await;
    std::fs::create_dir(rig.config.folder().join("sub")).unwrap();
    std::fs::write(rig.config.folder().join(".hidden"), "hidden").unwrap();
    let mut browser = rig.browser();
    let home = browser.navigate("/", crate::support::jar::Site::CrossSite).await;
    assert_eq!(home.status, 200);
    assert!(home.text().contains("home"));
    let script = browser.fetch("GET", "/app.js").await;
    assert_eq!(script.text(), "console.log('app')");
    assert!(script.header("content-type").unwrap().contains("javascript"));
    for path in ["/nothing", "/etc/passwd", "/sub/nothing"] {
        assert_eq!(browser.fetch("GET", path).await.status, 404, "{path}");
    }
    for path in [
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/..%2fetc/passwd",
        "/%5c..%5cetc/passwd",
    ] {
        assert_eq!(browser.fetch("GET", path).await.status, 400, "{path}");
    }
    let spa = Rig::with(|config| config.set("routes.4.static.fallback", "index.html")).await;
    let deep = spa
        .browser()
        .navigate("/orders/42", crate::support::jar::Site::None)
        .await;
    assert_eq!(deep.status, 200);
    assert!(deep.text().contains("home"));
}
