//! Signing out (contract 3.8).

use crate::support::browser::{Browser, Reply, Request, SESSION};
use crate::support::cloakroom::Cloakroom;
use crate::support::form;
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::rogue::change;
use crate::support::{until, within};
use std::time::{Duration, Instant};

async fn user(browser: &mut Browser) -> u16 {
    browser.fetch("GET", "/bff/user").await.status
}

async fn logout_url(browser: &mut Browser) -> String {
    browser.fetch("GET", "/bff/user").await.json()["logout_url"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The redirect to the provider's `end_session_endpoint`, held to RP-Initiated Logout §2.
fn goes_to_the_provider(rig: &Rig, reply: &Reply) {
    goes_to_the_provider_with(rig, reply, true);
}

fn goes_to_the_provider_with(rig: &Rig, reply: &Reply, has_hint: bool) {
    assert_eq!(reply.status, 303);
    let url = reply.location();
    assert!(
        url.starts_with(&format!("{}/end?", rig.rogue.issuer)),
        "{}",
        reply.status
    );
    assert_eq!(form::parameter(url, "client_id").as_deref(), Some("app"));
    let back = form::parameter(url, "post_logout_redirect_uri").unwrap();
    assert_eq!(
        back,
        format!("{}/", rig.cloakroom.origin),
        "public_url and logout.landing"
    );
    let hint = form::parameter(url, "id_token_hint").unwrap_or_default();
    assert!(
        matches!(hint.split('.').count(), 3) == has_hint,
        "the hint is sealed under the cookie"
    );
}

#[tokio::test]
async fn lo_02_lo_04_class_f_a_post_ends_the_session_revokes_its_tokens_and_goes_to_the_provider() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    browser.fetch("GET", "/api/x").await;
    let access = rig.upstream.last().bearer().unwrap().to_owned();
    let mut stays = browser.clone();
    let reply = browser.fetch("POST", "/bff/logout").await;
    goes_to_the_provider(&rig, &reply);
    assert!(reply.clears_session());
    assert!(browser.session().is_none(), "the browser takes the deletion");
    assert_eq!(
        user(&mut stays).await,
        401,
        "class_f: the id is dead, not only the cookie"
    );
    within(4, "the revocations", async {
        while rig.rogue.revoked().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let revoked = rig.rogue.revoked();
    assert!(
        revoked[0].starts_with("CANARY-rt") && revoked.contains(&access),
        "the refresh token first"
    );
    let again = browser.fetch("POST", "/bff/logout").await;
    assert!(
        matches!(again.status, 200 | 303),
        "lo_05: twice is fine: {}",
        again.status
    );
    assert!(again.headers("set-cookie").is_empty(), "nothing to clear");
    let dead = stays.fetch("POST", "/bff/logout").await;
    assert!(matches!(dead.status, 200 | 303), "{}", dead.status);
    let metrics = rig.cloakroom.admin("/metrics").await.text();
    let counted = "cloakroom_logouts_total{kind=\"post\"} 1\n";
    assert!(metrics.contains(counted), "sessions, not requests: {metrics}");
}

#[tokio::test]
async fn lo_03_whatever_state_the_provider_sends_back_the_landing_is_the_same() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let plain = browser.navigate("/", Site::CrossSite).await;
    browser.fetch("POST", "/bff/logout").await;
    for query in [
        "",
        "?state=",
        "?state=zzz",
        "?state=a&state=b",
        "?state=//evil.example",
    ] {
        let back = browser.navigate(&format!("/{query}"), Site::CrossSite).await;
        assert_eq!(
            (back.status, back.text()),
            (plain.status, plain.text()),
            "{query}"
        );
        assert!(back.headers("set-cookie").is_empty() && back.headers("location").is_empty());
    }
    assert_eq!(user(&mut browser).await, 401, "no session");
}

#[tokio::test]
async fn bf_01_lo_02_json_gets_a_one_time_path_and_no_token() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let request = Request::fetch("POST", "/bff/logout")
        .without("Accept")
        .with("Accept", "application/json");
    let reply = browser.send(request).await;
    assert_eq!(reply.status, 200);
    assert!(reply.clears_session());
    let path = reply.json()["redirect_to"].as_str().unwrap().to_owned();
    assert!(path.starts_with("/bff/logout/continue?"), "{path}");
    assert!(!reply.text().contains("eyJ"), "no token in the JSON");
    let short: Vec<_> = reply
        .cookies()
        .into_iter()
        .filter(|cookie| cookie.name.ends_with("-logout"))
        .collect();
    assert_eq!(short.len(), 1, "{short:?}");
    assert!(short[0].attribute("httponly").is_some() && short[0].attribute("secure").is_some());
    let age: u32 = short[0].attribute("max-age").unwrap().parse().unwrap();
    assert!(age <= 60, "{age}");
    assert_eq!(user(&mut browser.clone()).await, 401, "the session went first");

    let elsewhere = rig.browser().navigate(&path, Site::SameOrigin).await;
    assert!(
        !elsewhere
            .header("location")
            .unwrap_or_default()
            .contains("id_token_hint"),
        "bound to the browser"
    );
    let reply = browser.navigate(&path, Site::SameOrigin).await;
    goes_to_the_provider(&rig, &reply);
    let again = browser.navigate(&path, Site::SameOrigin).await;
    assert!(
        !again
            .header("location")
            .unwrap_or_default()
            .contains("id_token_hint"),
        "one time"
    );
    let guessed = browser
        .navigate("/bff/logout/continue?x=y", Site::SameOrigin)
        .await;
    assert!(
        !guessed
            .header("location")
            .unwrap_or_default()
            .contains("id_token_hint")
    );
}

#[tokio::test]
async fn lo_01_class_l_a_logout_needs_proof_of_intent() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let url = logout_url(&mut browser).await;
    let (path, value) = url.split_once('=').unwrap();
    let turned = format!(
        "{path}={}{}",
        if value.starts_with('A') { 'B' } else { 'A' },
        &value[1..]
    );
    let cut = url[..url.len() - 1].to_owned();
    let doubled = format!("{url}&{}", url.split_once('?').unwrap().1);
    for target in ["/bff/logout".to_owned(), format!("{path}="), turned, cut] {
        for site in [Site::None, Site::SameOrigin, Site::CrossSite] {
            let reply = browser.navigate(&target, site).await;
            assert_eq!(reply.status, 403, "{site:?} {target}");
            reply.page();
            assert!(reply.headers("set-cookie").is_empty(), "{target}");
        }
    }
    let reply = browser.navigate(&doubled, Site::SameOrigin).await;
    assert!(matches!(reply.status, 400 | 403), "oa_14: {}", reply.status);
    let image = Request::bare("GET", &url)
        .with("Sec-Fetch-Site", "cross-site")
        .with("Sec-Fetch-Mode", "no-cors")
        .with("Sec-Fetch-Dest", "image");
    assert_eq!(browser.send(image.clone()).await.status, 403);
    assert_eq!(browser.send(image.anonymous()).await.status, 403);
    for (name, value) in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "https://evil.example"),
    ] {
        let post = Request::bare("POST", "/bff/logout").with(name, value);
        let reply = browser.send(post).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (403, "csrf"),
            "{name}: {value}"
        );
        assert!(reply.headers("set-cookie").is_empty());
    }
    let bare = browser.send(Request::bare("POST", "/bff/logout")).await;
    assert_eq!(bare.status, 403, "neither Sec-Fetch-Site nor Origin nor X-CSRF");
    assert_eq!(user(&mut browser).await, 200, "nothing of it signed out");
    let header = browser
        .send(Request::bare("POST", "/bff/logout").with("X-CSRF", "1"))
        .await;
    goes_to_the_provider(&rig, &header);
}

#[tokio::test]
async fn a_navigation_to_logout_url_ends_its_session_even_where_the_cookie_did_not_come() {
    let rig = Rig::start().await;
    for site in [Site::SameOrigin, Site::None, Site::CrossSite] {
        let mut browser = rig.signed_in().await;
        let url = logout_url(&mut browser).await;
        let session = browser.session().unwrap();
        assert!(
            !url.contains(&session[..16]),
            "class_e: tells nothing of the cookie"
        );
        let reply = browser.navigate(&url, site).await;
        goes_to_the_provider_with(&rig, &reply, site != Site::CrossSite);
        assert!(reply.clears_session(), "{site:?}: the value was valid");
        let domain = browser.domain().to_owned();
        browser.jar.plant(&domain, SESSION, &session);
        assert_eq!(user(&mut browser).await, 401, "{site:?}");
        let again = browser.navigate(&url, site).await;
        assert!(matches!(again.status, 303 | 403), "{}", again.status);
        if site == Site::CrossSite {
            assert!(
                !again.clears_session(),
                "a value ends one session, and no other browser's"
            );
        }
    }
    let mut one = rig.signed_in().await;
    let mut two = rig.signed_in().await;
    assert_ne!(
        logout_url(&mut one).await,
        logout_url(&mut two).await,
        "per session"
    );
}

#[tokio::test]
async fn lo_05_without_a_session_or_an_end_session_endpoint_it_succeeds_locally() {
    let rig = Rig::start().await;
    let mut stranger = rig.browser();
    let reply = stranger.fetch("POST", "/bff/logout").await;
    assert!(matches!(reply.status, 200 | 303), "{}", reply.status);
    assert!(reply.headers("set-cookie").is_empty());

    let rig = Rig::with(|config| config.set("logout.landing", "/bye")).await;
    rig.rogue.script(|script| {
        script.discovery = change(|document| {
            for name in ["end_session_endpoint", "revocation_endpoint"] {
                document.as_object_mut().unwrap().remove(name);
            }
        });
    });
    let mut browser = rig.signed_in().await;
    let reply = browser.fetch("POST", "/bff/logout").await;
    let location = reply.location();
    assert_eq!(
        location.strip_prefix(&rig.cloakroom.origin).unwrap_or(location),
        "/bye"
    );
    assert!(reply.clears_session());
    assert_eq!(rig.rogue.count("/revoke"), 0);
}

#[tokio::test]
async fn tx_01_a_revocation_that_hangs_or_fails_never_holds_a_logout_up() {
    let rig = Rig::start().await;
    for script in 0..3 {
        rig.rogue.behave();
        let mut browser = rig.signed_in().await;
        rig.rogue.script(|s| match script {
            0 => drop(s.late.insert("/revoke", Duration::from_secs(20))),
            1 => drop(
                s.raw
                    .insert("/revoke", b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n".to_vec()),
            ),
            _ => drop(s.raw.insert("/revoke", b"garbage\r\n\r\n".to_vec())),
        });
        let start = Instant::now();
        let mut stays = browser.clone();
        let reply = browser.fetch("POST", "/bff/logout").await;
        goes_to_the_provider(&rig, &reply);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(user(&mut stays).await, 401);
    }
}

#[tokio::test]
async fn a_logout_while_the_provider_is_away_ends_the_session() {
    let mut rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    rig.rogue.close().await;
    let mut stays = browser.clone();
    let reply = browser.fetch("POST", "/bff/logout").await;
    assert_eq!(reply.status, 303);
    assert!(reply.clears_session());
    assert_eq!(user(&mut stays).await, 401);
}

#[tokio::test]
async fn lo_07_a_logout_while_the_store_is_away_is_said_and_done_later() {
    let rig = Rig::on_redis(|config| config).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    let mut browser = rig.signed_in().await;
    let stays = browser.clone();
    rig.redis.as_ref().unwrap().pause();
    let start = Instant::now();
    let reply = browser.fetch("POST", "/bff/logout").await;
    assert!(
        start.elapsed() < Duration::from_millis(3_500),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "logout_incomplete")
    );
    assert!(reply.clears_session());
    assert!(browser.session().is_none());
    let refused = stays.clone().fetch("GET", "/api/x").await.status;
    assert!(
        matches!(refused, 401 | 503),
        "this replica refuses it from now on: {refused}"
    );
    rig.redis.as_ref().unwrap().resume();
    within(10, "the delete to be confirmed", async {
        loop {
            assert_ne!(
                user(&mut stays.clone()).await,
                200,
                "this replica refuses it all the while"
            );
            if user(&mut stays.at(other.port)).await == 401 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(user(&mut stays.clone()).await, 401);
}

#[tokio::test]
async fn lo_07_tokens_are_revoked_although_the_store_does_not_confirm_the_end() {
    let mut rig = Rig::on_redis(|config| config.set("server.drain_timeout", "300ms")).await;
    let mut browser = rig.signed_in().await;
    let mut redis = rig.redis.as_ref().unwrap().connection();
    let mut wants = |replicas: &str| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("min-replicas-to-write").arg(replicas);
        set.exec(&mut redis).unwrap();
    };
    // It reads, and refuses every write: other replicas would take the session for a living one.
    wants("1");
    let reply = browser.fetch("POST", "/bff/logout").await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "logout_incomplete")
    );
    assert!(reply.clears_session());
    until(4, "the revocations", || rig.rogue.revoked().len() == 2).await;
    // Whoever ends the process now hears that the end is forgotten with it.
    rig.cloakroom.signal("TERM");
    assert_eq!(rig.cloakroom.ended().await, 0);
    let said = "has not confirmed the end of all sessions that were logged out here";
    assert!(rig.cloakroom.log().contains(said));
    wants("0");
}

#[tokio::test]
async fn a_session_that_ended_is_refused_on_every_replica_within_a_second() {
    let rig = Rig::on_redis(|config| config).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    let mut browser = rig.signed_in().await;
    let mut there = browser.at(other.port);
    for _ in 0..3 {
        assert_eq!(there.fetch("GET", "/api/x").await.status, 200, "cached there");
    }
    browser.fetch("POST", "/bff/logout").await;
    let start = Instant::now();
    while there.fetch("GET", "/api/x").await.status == 200 {
        assert!(start.elapsed() < Duration::from_secs(1), "4.9");
    }
    assert_eq!(there.fetch("GET", "/api/x").await.status, 401);
}

#[tokio::test]
async fn az_07_a_401_in_one_tab_leaves_a_login_under_way_in_another() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    browser.clone().fetch("POST", "/bff/logout").await;
    let url = browser.begin("?return_to=/pages/x").await;
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(
        (reply.status, reply.clears_session()),
        (401, false),
        "this answer could overtake the one that brings the new cookie"
    );
    let callback = rig.rogue.authorize(&url);
    let reply = browser.come_back(&callback).await;
    assert_eq!(browser.landing(&reply), "/pages/x");
    assert_eq!(user(&mut browser).await, 200);
}

#[tokio::test]
async fn lo_01_somebody_elses_logout_url_ends_nothing_of_this_browser() {
    let rig = Rig::with(|config| config.set("session.cookie.same_site", "lax")).await;
    let mut mallory = rig.signed_in().await;
    let url = logout_url(&mut mallory).await;
    for site in [Site::None, Site::CrossSite] {
        let mut alice = rig.signed_in().await;
        let reply = alice.navigate(&url, site).await;
        assert!(!reply.clears_session(), "{site:?}");
        assert_eq!(user(&mut alice).await, 200, "{site:?}");
    }
}

#[tokio::test]
async fn fa_02_a_dead_logout_url_clears_nothing_while_the_store_is_away() {
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    let url = logout_url(&mut browser).await;
    browser.fetch("POST", "/bff/logout").await;
    let mut other = rig.signed_in().await;
    rig.redis.as_ref().unwrap().pause();
    let reply = other.navigate(&url, Site::CrossSite).await;
    rig.redis.as_ref().unwrap().resume();
    assert!(!reply.clears_session());
}

#[tokio::test]
async fn lo_05_a_script_without_a_session_gets_a_path_that_leads_to_the_landing() {
    let rig = Rig::start().await;
    let mut stranger = rig.browser();
    let request = Request::fetch("POST", "/bff/logout")
        .without("Accept")
        .with("Accept", "application/json");
    let reply = stranger.send(request).await;
    assert_eq!(reply.status, 200);
    let path = reply.json()["redirect_to"].as_str().unwrap().to_owned();
    assert!(path.starts_with("/bff/logout/continue?"), "{path}");
    let reply = stranger.navigate(&path, Site::SameOrigin).await;
    assert_eq!((reply.status, reply.location()), (303, "/"));
}
