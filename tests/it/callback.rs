//! How a login ends (contract 3.3–3.6, 5.3, 5.4).

use crate::support::browser::{ATTEMPT, Request, SESSION};
use crate::support::form::{self, with_parameter};
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::rogue::{Rogue, Step, change};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

#[tokio::test]
async fn ck_01_ck_05_a_finished_login_lands_with_a_cookie_that_is_usable_at_once() {
    for same_site in ["strict", "lax"] {
        let rig = Rig::with(|config| config.set("session.cookie.same_site", same_site)).await;
        let mut browser = rig.browser();
        let url = browser.begin("?return_to=/pages/orders%3Fa%3Db%26c").await;
        let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
        assert!(matches!(reply.status, 200 | 302 | 303), "{}", reply.status);
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "oa_13");
        let cookies = reply.cookies();
        let session = cookies
            .iter()
            .find(|cookie| cookie.name == SESSION)
            .expect("a session cookie");
        assert_eq!(session.value.len(), 43, "se_01");
        assert_eq!(
            session.attributes,
            ["httponly", "path=/", &format!("samesite={same_site}"), "secure"]
        );
        let landing = browser.landing(&reply);
        assert_eq!(landing, "/pages/orders?a=b&c");
        // A redirect keeps counting as begun elsewhere; a page of ours that moves on does not.
        let site = if reply.status == 200 {
            Site::SameOrigin
        } else {
            Site::CrossSite
        };
        let page = browser.navigate(&landing, site).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("application/json"))
        );
        assert!(rig.upstream.last().bearer().is_some());
        if reply.status == 200 {
            reply.page();
        }
    }
}

#[tokio::test]
async fn oa_08_a_callback_loaded_again_leads_on_and_the_code_goes_out_once() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let url = browser.begin("?return_to=/orders").await;
    let callback = rig.rogue.authorize(&url);
    let first = browser.come_back(&callback).await;
    assert_eq!(browser.landing(&first), "/orders");
    let session = browser.session();
    for site in [Site::CrossSite, Site::None, Site::SameOrigin] {
        let again = browser.navigate(&callback, site).await;
        assert_eq!(browser.landing(&again), "/orders", "{site:?}");
        assert_eq!(browser.session(), session, "the session stays");
    }
    assert_eq!(rig.rogue.count("/token"), 1);
    assert_eq!(browser.fetch("GET", "/bff/user").await.status, 200);
}

#[tokio::test]
async fn az_06_a_doubled_callback_leads_on_twice_and_the_code_goes_out_once() {
    for redis in [false, true] {
        let rig = if redis {
            Rig::on_redis(|config| config).await
        } else {
            Rig::start().await
        };
        rig.rogue.script(|script| {
            script
                .steps
                .push_back(Step::Late(std::time::Duration::from_millis(100)));
        });
        let mut browser = rig.browser();
        let url = browser.begin("?return_to=/orders").await;
        let callback = rig.rogue.authorize(&url);
        let barrier = Arc::new(Barrier::new(10));
        let mut callbacks = JoinSet::new();
        for _ in 0..10 {
            let (mut browser, callback, barrier) = (browser.clone(), callback.clone(), barrier.clone());
            callbacks.spawn(async move {
                barrier.wait().await;
                let reply = browser.come_back(&callback).await;
                (browser.landing(&reply), browser)
            });
        }
        let mut signed_in = 0;
        while let Some(ended) = callbacks.join_next().await {
            let (landing, mut browser) = ended.unwrap();
            assert_eq!(landing, "/orders");
            if browser.session().is_some() {
                assert_eq!(browser.fetch("GET", "/bff/user").await.status, 200);
                signed_in += 1;
            }
        }
        assert!(signed_in >= 1, "somebody got the cookie");
        assert_eq!(rig.rogue.count("/token"), 1);
    }
}

#[tokio::test]
async fn a_lost_token_answer_is_a_page_with_a_way_back_and_the_code_never_goes_out_again() {
    let rig = Rig::start().await;
    for step in [Step::DropAfter, Step::DropBefore] {
        let mut browser = rig.browser();
        rig.rogue.script(|script| script.steps.push_back(step));
        let url = browser.begin("?return_to=/orders").await;
        let callback = rig.rogue.authorize(&url);
        let before = rig.rogue.count("/token");
        for _ in 0..3 {
            let reply = browser.come_back(&callback).await;
            assert_eq!(reply.status, 503);
            assert!(reply.page().contains("/bff/login"), "a way back");
            assert!(browser.session().is_none());
        }
        assert_eq!(rig.rogue.count("/token"), before + 1, "the code went out once");
        assert_eq!(browser.login(&rig.rogue, "/orders").await, "/orders");
    }
}

#[tokio::test]
async fn a_code_that_cannot_have_reached_the_provider_may_be_tried_again() {
    let mut rig = Rig::start().await;
    let mut browser = rig.browser();
    let url = browser.begin("?return_to=/orders").await;
    let callback = rig.rogue.authorize(&url);
    rig.rogue.close().await;
    let reply = browser.come_back(&callback).await;
    assert_eq!(reply.status, 503);
    reply.page();
    rig.rogue.open().await;
    let again = browser.come_back(&callback).await;
    assert_eq!(browser.landing(&again), "/orders");
    assert_eq!(rig.rogue.count("/token"), 1);
}

#[tokio::test]
async fn oa_12_class_j_errors_from_the_provider_become_pages_and_nothing_is_reflected() {
    let rig = Rig::start().await;
    let marks =
        "&error_description=%3Cscript%3Emarker1%3C/script%3E&error_uri=javascript:marker2&extra=marker3";
    for (error, status) in [
        ("access_denied", vec![403]),
        ("temporarily_unavailable", vec![503]),
        ("server_error", vec![502, 503]),
        ("invalid_scope", vec![400, 502]),
        ("login_required", vec![400, 403, 502]),
        ("%3Cscript%3Emarker4", vec![400, 502]),
    ] {
        let mut browser = rig.browser();
        let url = browser.begin("?return_to=/orders").await;
        let reply = browser
            .come_back(&format!("{}{marks}", rig.rogue.refuse(&url, error)))
            .await;
        assert!(status.contains(&reply.status), "{error}: {}", reply.status);
        let page = reply.page();
        assert!(!page.contains("marker"), "{page}");
        assert!(page.contains("/bff/login"), "a way back");
        assert!(browser.session().is_none());
        let fields = format!("{:?}", reply.head.fields);
        assert!(!fields.contains("marker"), "{fields}");
    }
    assert!(!rig.cloakroom.log().contains("<script>"), "ob_03");
    assert_eq!(rig.rogue.count("/token"), 0);
}

#[tokio::test]
async fn a_refused_prompt_none_lands_on_return_to_with_the_old_session_untouched() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let session = browser.session();
    for error in [
        "login_required",
        "interaction_required",
        "consent_required",
        "account_selection_required",
    ] {
        let url = browser.begin("?return_to=/orders&prompt=none").await;
        let reply = browser.come_back(&rig.rogue.refuse(&url, error)).await;
        assert_eq!(browser.landing(&reply), "/orders", "{error}");
        assert_eq!(browser.session(), session);
        assert_eq!(browser.fetch("GET", "/bff/user").await.status, 200);
    }
}

#[tokio::test]
async fn id_11_class_l_max_age_and_acr_values_are_enforced_at_the_callback() {
    let rig = Rig::start().await;
    let long_ago = crate::support::now() - 3600;
    for (query, claims, passes) in [
        ("max_age=600", json!({}), true),
        ("max_age=600", json!({ "auth_time": long_ago }), false),
        ("max_age=600", json!({ "auth_time": null }), false),
        ("max_age=600", json!({ "auth_time": "now" }), false),
        ("acr_values=gold", json!({ "acr": "gold" }), true),
        ("acr_values=gold%20silver", json!({ "acr": "silver" }), true),
        ("acr_values=gold", json!({ "acr": "silver" }), false),
        ("acr_values=gold", json!({}), false),
        ("prompt=login", json!({}), true),
    ] {
        let with = claims.clone();
        rig.rogue.script(|script| {
            script.claims = change(move |token| {
                for (name, value) in with.as_object().unwrap() {
                    token[name] = value.clone();
                }
            });
        });
        let mut browser = rig.browser();
        let url = browser.begin(&format!("?return_to=/orders&{query}")).await;
        let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
        assert_eq!(browser.session().is_some(), passes, "{query} {claims}");
        if !passes {
            assert!(
                matches!(reply.status, 400 | 403 | 502),
                "{query} {claims}: {}",
                reply.status
            );
            reply.page();
        }
    }
}

#[tokio::test]
async fn az_04_class_l_a_state_that_is_not_this_browsers_goes_nowhere() {
    let rig = Rig::start().await;
    let mut stranger = rig.browser();
    let strange = form::parameter(&stranger.begin("").await, "state").unwrap();
    let mut browser = rig.browser();
    let url = browser.begin("?return_to=/orders").await;
    let good = rig.rogue.authorize(&url);
    let state = form::parameter(&good, "state").unwrap();
    let swapped: String = state
        .chars()
        .map(|c| {
            if c.is_lowercase() {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect();
    let last = if state.ends_with('A') { "B" } else { "A" };
    let mutations = [
        with_parameter(&good, "state", None),
        with_parameter(&good, "state", Some("")),
        with_parameter(&good, "state", Some(&strange)),
        with_parameter(&good, "state", Some(&swapped)),
        with_parameter(&good, "state", Some(&state[..state.len() - 1])),
        with_parameter(
            &good,
            "state",
            Some(&format!("{}{last}", &state[..state.len() - 1])),
        ),
        with_parameter(&good, "state", Some(&format!("{state}A"))),
        with_parameter(&good, "state", Some(&"A".repeat(9000))),
        format!("{good}&state={state}"),
        format!("{good}&state={strange}"),
        with_parameter(&good, "code", None),
        format!("{good}&code=another"),
        format!("{good}&error=access_denied"),
        good.split('?').next().unwrap().to_owned(),
    ];
    for callback in mutations {
        let mut browser = browser.clone();
        let reply = browser.come_back(&callback).await;
        assert!(
            matches!(reply.status, 400 | 403 | 414),
            "{}: {callback}",
            reply.status
        );
        assert!(
            reply
                .cookies()
                .iter()
                .all(|cookie| cookie.name != SESSION || cookie.deletes())
        );
        if reply.status != 414 {
            reply.page();
        }
        assert_eq!(rig.rogue.count("/token"), 0, "{callback}");
    }
    let reply = stranger.come_back(&good).await;
    assert_eq!(reply.status, 400, "cs_07: another browser's callback");
    assert_eq!(rig.rogue.count("/token"), 0);
    let extra = format!("{good}&session_state=x.y&client_info=z");
    let reply = browser.come_back(&extra).await;
    assert_eq!(
        browser.landing(&reply),
        "/orders",
        "oa_14: unknown extra parameters are ignored"
    );
}

#[tokio::test]
async fn az_10_class_e_the_iss_of_a_response_must_be_the_attempts() {
    for promised in [false, true] {
        let rig = Rig::with(|config| config).await;
        rig.rogue.script(|script| {
            script.discovery = change(move |document| {
                document["authorization_response_iss_parameter_supported"] = promised.into();
            });
        });
        let issuer = rig.rogue.issuer.clone();
        let upper = issuer.replace("http", "HTTP");
        let slash = format!("{issuer}/");
        for iss in [
            Some("https://evil.example"),
            Some(""),
            Some(&upper),
            Some(&slash),
            None,
        ] {
            if iss.is_none() && !promised {
                continue;
            }
            for error in [false, true] {
                let mut browser = rig.browser();
                let url = browser.begin("").await;
                let good = if error {
                    rig.rogue.refuse(&url, "access_denied")
                } else {
                    rig.rogue.authorize(&url)
                };
                let reply = browser.come_back(&with_parameter(&good, "iss", iss)).await;
                assert!(matches!(reply.status, 400 | 502), "{iss:?}: {}", reply.status);
                reply.page();
                assert!(browser.session().is_none());
            }
        }
        let mut browser = rig.browser();
        let url = browser.begin("").await;
        let right = format!("iss={}", form::encode(&issuer));
        let doubled = format!("{}&{right}&{right}", rig.rogue.authorize(&url));
        let reply = browser.come_back(&doubled).await;
        assert!(matches!(reply.status, 400 | 502), "oa_14: {}", reply.status);
        assert_eq!(rig.rogue.count("/token"), 0, "the code goes nowhere");
        let url = browser.begin("?return_to=/orders").await;
        let reply = browser
            .come_back(&format!("{}&{right}", rig.rogue.authorize(&url)))
            .await;
        assert_eq!(browser.landing(&reply), "/orders");
    }
}

#[tokio::test]
async fn az_11_class_e_a_response_for_one_provider_is_not_taken_at_anothers_redirect_uri() {
    let second = Rogue::start().await;
    let (issuer, secret) = (second.issuer.clone(), second.client_secret());
    let rig = Rig::with(|config| {
        config.set(
            "providers.other",
            json!({ "issuer": issuer, "client_id": "app", "client_secret": secret }),
        )
    })
    .await;
    let mut browser = rig.browser();
    let url = browser.begin("?provider=main").await;
    let mixed = rig
        .rogue
        .authorize(&url)
        .replace("/bff/callback?", "/bff/callback/other?");
    let reply = browser.come_back(&mixed).await;
    assert_eq!(reply.status, 400);
    assert!(browser.session().is_none());
    assert_eq!(
        (rig.rogue.count("/token"), second.count("/token")),
        (0, 0),
        "the honest code never leaves"
    );
}

#[tokio::test]
async fn az_19_a_callback_is_a_get() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let url = browser.begin("?return_to=/orders").await;
    let callback = rig.rogue.authorize(&url);
    for method in ["POST", "PUT", "DELETE"] {
        let mut request = Request::bare(method, callback.split('?').next().unwrap());
        request = request.with("Content-Type", "application/x-www-form-urlencoded");
        let reply = browser
            .send(request.body(callback.split('?').nth(1).unwrap()))
            .await;
        assert_eq!(reply.status, 405, "{method}");
    }
    assert_eq!(rig.rogue.count("/token"), 0);
    let reply = browser.come_back(&callback).await;
    assert_eq!(browser.landing(&reply), "/orders");
}

#[tokio::test]
async fn an_attempt_cookie_that_was_altered_is_worth_nothing() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let callback = rig.rogue.authorize(&browser.begin("?return_to=/orders").await);
    let (name, value) = browser
        .attempts()
        .first()
        .map(|c| (c.name.clone(), c.value.clone()))
        .unwrap();
    let turned = |at: usize| {
        let mut bytes = value.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let mut others = vec![
        String::new(),
        "x".repeat(3000),
        value[..value.len() / 2].to_owned(),
    ];
    others.extend([0, value.len() / 3, value.len() / 2, value.len() - 3].map(turned));
    for other in others {
        let mut browser = browser.clone();
        let domain = browser.domain().to_owned();
        browser.jar.plant(&domain, &name, &other);
        let header = format!("{name}={other}");
        let request = Request::navigate(&callback, Site::CrossSite).with("Cookie", &header);
        let reply = browser.send(request).await;
        assert_eq!(reply.status, 400, "class_i");
        reply.page();
    }
    assert_eq!(rig.rogue.count("/token"), 0);
}

#[tokio::test]
async fn a_browser_that_keeps_no_session_cookie_ends_on_a_page_that_says_so() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    browser.jar.refused.push(SESSION.to_owned());
    let (reply, trace) = browser.follow("/pages/orders", Site::None, &rig.rogue, 16).await;
    let page = reply.page();
    assert!(page.to_lowercase().contains("cookie"), "{page}");
    let rounds = trace.iter().filter(|url| url.contains("/authorize?")).count();
    assert!(rounds <= 2, "az_09: {rounds} rounds: {trace:#?}");
    assert_eq!(rig.upstream.connections(), 0);
}

#[tokio::test]
async fn a_browser_that_keeps_no_cookie_at_all_ends_on_a_page() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let url = browser.begin("?return_to=/pages/orders").await;
    browser.jar.forget(ATTEMPT);
    let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
    assert_eq!(reply.status, 400);
    assert!(reply.page().contains("/bff/login"), "a way back");
    assert_eq!(rig.rogue.count("/token"), 0);
}

#[tokio::test]
async fn ck_05_the_walk_from_a_deep_link_to_the_page_takes_one_round_trip() {
    let rig = Rig::start().await;
    for site in [Site::None, Site::CrossSite] {
        let mut browser = rig.browser();
        let (reply, trace) = browser.follow("/pages/orders?a=b", site, &rig.rogue, 12).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"ok":true}"#));
        assert_eq!(rig.upstream.last().target, "/pages/orders?a=b");
        let rounds = trace.iter().filter(|url| url.contains("/authorize?")).count();
        assert_eq!(rounds, 1, "{trace:#?}");
    }
}

#[tokio::test]
async fn visitors_who_never_finish_cost_the_store_nothing() {
    let rig = Rig::on_redis(|config| config).await;
    for _ in 0..10 {
        rig.browser().begin("").await;
        rig.browser().navigate("/pages/x", Site::None).await;
        rig.browser().fetch("GET", "/api/x").await;
    }
    let keys = rig.redis.as_ref().unwrap().dump();
    assert!(
        keys.is_empty(),
        "lm_09: {:?}",
        keys.iter().map(|entry| &entry.key).collect::<Vec<_>>()
    );
}
