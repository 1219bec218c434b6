//! Where a login may lead: every row of the corpus, through the whole walk (contract 3.2).

use crate::support::cloakroom::Cloakroom;
use crate::support::jar::Site;
use crate::support::rig::Rig;
use serde_json::json;

const CORPUS: &str = include_str!("../corpus/return_to.tsv");

#[tokio::test]
async fn rt_01_rt_02_rt_03_rt_06_class_a_every_row_of_the_corpus_lands_on_our_own_origin() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let mut wrong = Vec::new();
    for row in CORPUS.lines().skip(1) {
        let cells: Vec<_> = row.split('\t').collect();
        let (id, expect, raw, sent) = (cells[0], cells[2], cells[3], cells[4]);
        let wanted = match expect {
            "accept" => serde_json::from_str::<String>(raw).unwrap(),
            // `/api` is a route with `pages: false`, so `conditional` is refused here as well.
            _ => "/".to_owned(),
        };
        let reply = browser
            .navigate(&format!("/bff/login?return_to={sent}"), Site::SameOrigin)
            .await;
        if reply.status != 302 {
            wrong.push(format!("{id}: login answers {}", reply.status));
            continue;
        }
        let reply = browser.come_back(&rig.rogue.authorize(reply.location())).await;
        let landing = browser.landing(&reply);
        if landing != wanted {
            wrong.push(format!("{id}: lands on {landing}, wanted {wanted}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn rt_02_class_a_the_length_and_the_alphabet_are_exact() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let longest = format!("/{}", "a".repeat(1023));
    for (sent, wanted) in [
        (longest.clone(), longest.as_str()),
        (format!("{longest}a"), "/"),
        ("/x?a='(b)".to_owned(), "/x?a='(b)"),
        ("/x?a=%22b".to_owned(), "/"),
        ("/x?a=%3Cb".to_owned(), "/"),
        ("/x?a=%5Cb".to_owned(), "/"),
        ("/x%23%3Eb".to_owned(), "/"),
        ("/x?a=%7Bb%7D".to_owned(), "/x?a={b}"),
        ("/nobody/serves/this".to_owned(), "/nobody/serves/this"),
        ("/api".to_owned(), "/"),
        ("/api/orders".to_owned(), "/"),
        ("/%2561pi/orders".to_owned(), "/"),
        ("/apix".to_owned(), "/apix"),
        ("/pages/x".to_owned(), "/pages/x"),
        ("/bff".to_owned(), "/"),
        ("/Bff/user".to_owned(), "/"),
        ("/%2562ff/user".to_owned(), "/"),
    ] {
        let url = browser.begin(&format!("?return_to={sent}")).await;
        let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
        assert_eq!(browser.landing(&reply), wanted, "{sent}");
    }
}

#[tokio::test]
async fn rt_04_where_a_login_may_land_is_judged_again_at_its_end() {
    let rig = Rig::on_redis(|config| config).await;
    // The same deployment after a change: what was a page is an API now.
    let routes = json!([
        { "path": "/", "upstream": rig.upstream.url(), "auth": "none" },
        { "path": "/pages", "upstream": rig.upstream.url() },
    ]);
    let changed = Cloakroom::start(&rig.config.replica().set("routes", routes)).await;
    for (port, wanted) in [(rig.cloakroom.port, "/pages/x"), (changed.port, "/")] {
        let mut browser = rig.browser();
        let url = browser.begin("?return_to=/pages/x").await;
        let mut there = browser.at(port);
        let callback = rig.rogue.authorize(&url);
        let reply = there.come_back(&callback).await;
        assert_eq!(there.landing(&reply), wanted);
        let again = there.come_back(&callback).await;
        assert_eq!(there.landing(&again), wanted, "and when it is loaded again");
    }
}

#[tokio::test]
async fn the_landing_path_is_configurable() {
    let rig = Rig::with(|config| config.set("login.landing", "/welcome")).await;
    let mut browser = rig.browser();
    for query in ["", "?return_to=", "?return_to=https://evil.example"] {
        let url = browser.begin(query).await;
        let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
        assert_eq!(browser.landing(&reply), "/welcome", "{query}");
    }
}

#[tokio::test]
async fn a_parameter_that_cannot_be_decoded_spoils_no_other() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let url = browser.begin("?return_to=/pages/x&utm=%zz").await;
    let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
    assert_eq!(browser.landing(&reply), "/pages/x");
}
