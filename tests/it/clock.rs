//! A system clock that is set by an hour under a running cloakroom, with a real Redis (`src/clock.rs`).

use crate::support::browser::{Browser, Request};
use crate::support::cloakroom::Cloakroom;
use crate::support::rig::Rig;
use crate::support::system_clock::SystemClock;
use crate::support::until;
use serde_json::json;
use std::time::{Duration, Instant};

/// What the system's clock is ahead of cloakroom's time, by its metrics.
async fn ahead(cloakroom: &Cloakroom) -> f64 {
    let metrics = cloakroom.admin("/metrics").await.text();
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix("cloakroom_clock_offset_seconds "));
    value.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

/// Sets the clock so many seconds ahead of the machine's, and waits until cloakroom has seen it, working all the while.
async fn set(rig: &Rig, clock: &SystemClock, to: i16, browser: &mut Browser) {
    let before = ahead(&rig.cloakroom).await;
    clock.set(i64::from(to));
    let end = Instant::now() + Duration::from_secs(10);
    while (ahead(&rig.cloakroom).await - f64::from(to)).abs() > 2.0 {
        assert!(Instant::now() < end, "{before} s has not become {to} s");
        works(browser).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    works(browser).await;
}

async fn works(browser: &mut Browser) {
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!((reply.status, reply.cookies().len()), (200, 0));
    let reply = browser.fetch("GET", "/bff/user").await;
    assert_eq!((reply.status, reply.cookies().len()), (200, 0));
}

fn told(cloakroom: &Cloakroom, what: &str) -> usize {
    cloakroom.log().matches(what).count()
}

#[tokio::test]
async fn rf_17_a_clock_that_is_set_by_an_hour_signs_nobody_out_and_renews_no_token() {
    let clock = SystemClock::new();
    let rig = Rig::on_redis(|config| config.clock(&clock)).await;
    let mut browsers = [rig.signed_in().await, rig.signed_in().await];
    let ids = browsers.each_ref().map(Browser::session);
    works(&mut browsers[0]).await;
    for (step, to, told_ahead, told_behind) in [("+1 h", 3600, 1, 0), ("-2 h", -3600, 1, 1)] {
        set(&rig, &clock, to, &mut browsers[0]).await;
        works(&mut browsers[1]).await;
        let mut fresh = rig.signed_in().await;
        works(&mut fresh).await;
        let user = fresh.fetch("GET", "/bff/user").await.json();
        let left = user["session"]["access_token_expires_in"].as_i64().unwrap();
        assert!((280..=300).contains(&left), "{step}: {user}");
        let log = |side| {
            told(
                &rig.cloakroom,
                &format!(" s {side} the time that cloakroom keeps"),
            )
        };
        assert_eq!(
            (log("ahead of"), log("behind")),
            (told_ahead, told_behind),
            "{step}"
        );
    }
    assert_eq!(rig.rogue.grants("refresh_token"), 0);
    assert_eq!(browsers.each_ref().map(Browser::session), ids);
    clock.set(0);
    let end = Instant::now() + Duration::from_secs(10);
    while told(&rig.cloakroom, "agree again") == 0 {
        assert!(Instant::now() < end, "it does not say that they agree");
        works(&mut browsers[1]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(ahead(&rig.cloakroom).await.abs() < 1.0);
}

#[tokio::test]
async fn rf_17_a_token_is_renewed_in_time_also_after_the_clock_was_set_back() {
    let clock = SystemClock::new();
    let rig = Rig::on_redis(|config| config.clock(&clock).set("session.refresh_before", "1s")).await;
    rig.rogue.script(|script| script.lifetime = Some(8));
    let mut browser = rig.signed_in().await;
    // Less than what makes every token look dubious (a minute), and more than the token lives.
    set(&rig, &clock, -50, &mut browser).await;
    let renewed = rig.rogue.grants("refresh_token");
    let end = Instant::now() + Duration::from_secs(15);
    while rig.rogue.grants("refresh_token") == renewed {
        assert!(Instant::now() < end, "the token is taken for a living one");
        works(&mut browser).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    works(&mut browser).await;
}

#[tokio::test]
async fn a_start_takes_the_systems_clock_as_it_is() {
    let clock = SystemClock::new();
    clock.set(3600);
    let rig = Rig::with(|config| config.clock(&clock)).await;
    let mut browser = rig.browser();
    let url = browser.begin("").await;
    let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
    assert_eq!(reply.status, 502, "the provider's token is an hour old");
    assert!(ahead(&rig.cloakroom).await.abs() < 1.0);
}

/// As on a machine that boots with a wrong clock, which NTP puts right under the running cloakroom.
#[tokio::test]
async fn a_wrong_start_is_put_right_as_soon_as_the_provider_agrees_with_the_system() {
    for wrong in [-600, 600] {
        let clock = SystemClock::new();
        clock.set(wrong);
        let rig = Rig::with(|config| config.clock(&clock)).await;
        // Nothing that the provider dates is right yet.
        let mut browser = rig.browser();
        let url = browser.begin("").await;
        let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
        assert_eq!(reply.status, 502, "{wrong}");
        clock.set(0);
        let by = -f64::from(i32::try_from(wrong).unwrap());
        let end = Instant::now() + Duration::from_secs(10);
        while (ahead(&rig.cloakroom).await - by).abs() > 2.0 {
            assert!(Instant::now() < end, "{wrong}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Nobody has asked the provider since, and it may well be right.
        let token = rig.rogue.logout_token(&json!({ "sub": "nobody" }));
        let logout = Request::bare("POST", "/bff/backchannel-logout")
            .with("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("logout_token={token}"));
        assert_eq!(rig.browser().send(logout).await.status, 200, "{wrong}");
        let mut fresh = rig.signed_in().await;
        works(&mut fresh).await;
        until(5, "the word", || {
            told(&rig.cloakroom, "takes that time at once") == 1
        })
        .await;
        let end = Instant::now() + Duration::from_secs(10);
        while ahead(&rig.cloakroom).await.abs() > 1.0 {
            assert!(Instant::now() < end, "{wrong}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn rf_17_sessions_end_in_time_also_after_the_clock_was_set_back() {
    let clock = SystemClock::new();
    let rig = Rig::on_redis(|config| config.clock(&clock).set("session.idle_timeout", "4s")).await;
    let mut browser = rig.signed_in().await;
    set(&rig, &clock, -3600, &mut browser).await;
    // The time is kept back by 1 % at most, and Redis would keep the records for another minute.
    let idle = tokio::time::Instant::now() + Duration::from_millis(4_200);
    tokio::time::sleep_until(idle).await;
    let reply = browser.fetch("GET", "/bff/user").await;
    assert_eq!((reply.status, reply.clears_session()), (401, true));
}
