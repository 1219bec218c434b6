//! Audit events (standards OB-02): each is brought about, and comes with the fields that `deploy/audit.md` promises.

use crate::support::browser::{Browser, Request};
use crate::support::cloakroom::Cloakroom;
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::rogue::Step;
use crate::support::secrets::canary;
use crate::support::until;
use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const PAGE: &str = include_str!("../../deploy/audit.md");

/// What the page says of an event: its fields, and those that it has where there is something to say.
struct Promised {
    always: BTreeSet<&'static str>,
    sometimes: BTreeSet<&'static str>,
}

fn words(cell: &'static str) -> BTreeSet<&'static str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn promised() -> BTreeMap<&'static str, Promised> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').collect::<Vec<_>>());
    cells
        .filter(|cells| cells.len() == 4)
        .filter(|cells| words(cells[0]).first() != Some(&"event"))
        .map(|cells| {
            let promised = Promised {
                always: words(cells[2]),
                sometimes: words(cells[3]),
            };
            (*words(cells[0]).first().unwrap(), promised)
        })
        .collect()
}

/// The audit events in a log so far, without what every line has.
fn events(cloakroom: &Cloakroom) -> Vec<(String, Map<String, Value>)> {
    let log = cloakroom.log();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["target"] == "cloakroom::audit")
        .map(|line| {
            let mut fields = line.as_object().unwrap().clone();
            for every in ["timestamp", "level", "target", "message"] {
                fields.remove(every);
            }
            let event = fields.remove("event").unwrap();
            (event.as_str().unwrap().to_owned(), fields)
        })
        .collect()
}

struct Scene {
    rig: Rig,
    token: String,
    told: usize,
    cookies: Vec<String>,
}

impl Scene {
    /// The one event since this was asked last.
    async fn event(&mut self, wanted: &str) -> Map<String, Value> {
        let (told, rig) = (self.told, &self.rig);
        until(5, wanted, || events(&rig.cloakroom).len() > told).await;
        let mut new = events(&self.rig.cloakroom).split_off(told);
        assert_eq!(new.len(), 1, "{wanted} alone: {new:#?}");
        self.told += 1;
        let (event, fields) = new.remove(0);
        assert_eq!(event, wanted, "{fields:?}");
        fields
    }

    /// Signs in, and the session's reference in the event of that.
    async fn login(&mut self, browser: &mut Browser, sub: &str) -> Value {
        browser.login_as(&self.rig.rogue, sub, "/").await;
        self.cookies.push(browser.session().unwrap());
        let fields = self.event("login").await;
        assert_eq!(
            (&fields["sub"], &fields["provider"]),
            (&json!(sub), &json!("main"))
        );
        assert_eq!(fields["session"].as_str().unwrap().len(), 64);
        fields["session"].clone()
    }

    /// Alice signs in with a fresh browser: that, and her session's reference.
    async fn enter(&mut self) -> (Browser, Value) {
        let mut browser = self.rig.browser();
        let session = self.login(&mut browser, "alice").await;
        (browser, session)
    }

    /// As [`Scene::enter`], with a token that had expired when it came.
    async fn enter_and_age(&mut self) -> (Browser, Value) {
        self.rig.rogue.script(|script| script.lifetime = Some(0));
        let signed_in = self.enter().await;
        self.rig.rogue.script(|script| script.lifetime = None);
        signed_in
    }
}

async fn post(browser: &mut Browser, site: &str) -> u16 {
    let request = Request::bare("POST", "/api/x").with("Sec-Fetch-Site", site);
    browser.send(request).await.status
}

async fn backchannel(scene: &Scene, token: &str) -> u16 {
    let request = Request::bare("POST", "/bff/backchannel-logout")
        .with("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("logout_token={token}"));
    scene.rig.browser().send(request).await.status
}

#[tokio::test]
async fn ob_02_each_audit_event_comes_with_its_fields_and_names_the_session_by_its_reference() {
    let token = canary("admin-token");
    let rig = Rig::with(|config| {
        config
            .set("server.admin_token", token.as_str())
            .set("session.max_per_user", 2)
            .route(json!({
                "path": "/staff", "upstream": "http://127.0.0.1:9", "require": { "scopes": ["staff"] }
            }))
    })
    .await;
    let (told, cookies) = (0, Vec::new());
    let mut scene = Scene {
        rig,
        token,
        told,
        cookies,
    };

    // A login replaces the session of its browser; what all others have is a name.
    let (mut browser, first) = scene.enter().await;
    browser.login(&scene.rig.rogue, "/").await;
    scene.cookies.push(browser.session().unwrap());
    until(5, "both", || events(&scene.rig.cloakroom).len() >= 3).await;
    let mut both = events(&scene.rig.cloakroom).split_off(1);
    both.sort_by(|one, other| one.0.cmp(&other.0));
    let second = both[0].1["session"].clone();
    assert_eq!((&both[0].0[..], &both[1].0[..]), ("login", "session_ended"));
    assert_eq!(
        (&both[1].1["session"], &both[1].1["reason"]),
        (&first, &json!("replaced"))
    );
    assert_ne!(first, second);
    scene.told = 3;

    // A refusal names the session where it is one.
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    assert_eq!(post(&mut browser, "cross-site").await, 403);
    let fields = scene.event("csrf_refused").await;
    assert_eq!((&fields["session"], &fields["route"]), (&second, &json!("/api")));
    let mut stranger = scene.rig.browser();
    let made_up = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([7; 32]);
    let domain = stranger.domain().to_owned();
    stranger
        .jar
        .plant(&domain, crate::support::browser::SESSION, &made_up);
    assert_eq!(post(&mut stranger, "cross-site").await, 403);
    assert!(!scene.event("csrf_refused").await.contains_key("session"));
    assert_eq!(browser.fetch("GET", "/staff").await.status, 403);
    let fields = scene.event("forbidden").await;
    assert_eq!(
        (&fields["session"], &fields["missing"]),
        (&second, &json!("the scope staff"))
    );

    // Logouts.
    let url = browser.fetch("GET", "/bff/user").await.json()["logout_url"].clone();
    browser.navigate(url.as_str().unwrap(), Site::SameOrigin).await;
    let fields = scene.event("logout").await;
    assert_eq!(
        (&fields["session"], &fields["cause"]),
        (&second, &json!("logout_url"))
    );
    let (mut browser, session) = scene.enter().await;
    browser.fetch("POST", "/bff/logout").await;
    let fields = scene.event("logout").await;
    assert_eq!((&fields["session"], &fields["cause"]), (&session, &json!("post")));
    assert_eq!(
        (&fields["was_there"], &fields["provider"]),
        (&json!(true), &json!("main"))
    );

    // The user, from another browser.
    let (_, other) = scene.enter().await;
    let (mut browser, session) = scene.enter().await;
    for (ended, by) in [(&other, Some(&session)), (&session, None)] {
        let one = format!("/bff/sessions/{}", ended.as_str().unwrap());
        browser.fetch("DELETE", &one).await;
        let fields = scene.event("logout").await;
        assert_eq!(
            (&fields["session"], &fields["cause"]),
            (ended, &json!("sessions"))
        );
        assert_eq!((fields.get("by"), &fields["was_there"]), (by, &json!(true)));
    }

    // The provider.
    let (_, session) = scene.enter().await;
    let sid = scene.rig.rogue.sid();
    let token = scene
        .rig
        .rogue
        .logout_token(&json!({ "sub": "alice", "sid": sid }));
    assert_eq!(backchannel(&scene, &token).await, 200);
    let fields = scene.event("logout").await;
    assert_eq!(
        (&fields["session"], &fields["cause"]),
        (&session, &json!("backchannel"))
    );
    assert_eq!(backchannel(&scene, &token).await, 400);
    scene.event("logout_refused").await;

    // An administrator.
    let (_, session) = scene.enter().await;
    let one = format!("/sessions/{}", session.as_str().unwrap());
    scene.rig.cloakroom.ask_admin("GET", &one, None).await;
    assert_eq!(scene.event("admin_refused").await["peer"], "127.0.0.1");
    scene
        .rig
        .cloakroom
        .ask_admin("GET", &one, Some(&scene.token))
        .await;
    assert_eq!(scene.event("sessions_listed").await["session"], session);
    let all = "/sessions?sub=alice";
    scene
        .rig
        .cloakroom
        .ask_admin("GET", all, Some(&scene.token))
        .await;
    let fields = scene.event("sessions_listed").await;
    assert_eq!((&fields["sub"], &fields["count"]), (&json!("alice"), &json!(1)));
    scene
        .rig
        .cloakroom
        .ask_admin("DELETE", &one, Some(&scene.token))
        .await;
    let fields = scene.event("logout").await;
    assert_eq!(
        (&fields["session"], &fields["cause"]),
        (&session, &json!("admin"))
    );
    assert_eq!(
        (&fields["sub"], &fields["was_there"]),
        (&json!("alice"), &json!(true))
    );

    // A refresh that fails, and one that ends the session.
    let (mut browser, session) = scene.enter_and_age().await;
    let refuses = Step::Answer(500, "", "oops".into());
    scene.rig.rogue.script(|script| script.steps.push_back(refuses));
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 503);
    assert_eq!(scene.event("refresh_failed").await["session"], session);
    scene
        .rig
        .cloakroom
        .ask_admin("DELETE", all, Some(&scene.token))
        .await;
    assert_eq!(scene.event("logout").await["session"], session);
    let (mut browser, session) = scene.enter_and_age().await;
    scene.rig.rogue.forget_refresh_tokens();
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 401);
    let fields = scene.event("session_ended").await;
    assert_eq!(
        (&fields["session"], &fields["reason"]),
        (&session, &json!("invalid_grant"))
    );

    // Too many; a login that fails, and one that was to lead elsewhere.
    let oldest = scene.enter().await.1;
    scene.enter().await;
    let mut third = scene.rig.browser();
    third.login(&scene.rig.rogue, "/").await;
    until(5, "both", || events(&scene.rig.cloakroom).len() >= scene.told + 2).await;
    let ended = events(&scene.rig.cloakroom)[scene.told..]
        .iter()
        .find(|(event, _)| event == "session_ended")
        .map(|(_, fields)| (fields["session"].clone(), fields["reason"].clone()));
    assert_eq!(ended, Some((oldest, json!("max_per_user"))));
    scene.told += 2;
    third
        .navigate("/bff/callback?code=x&state=y", Site::CrossSite)
        .await;
    scene.event("login_failed").await;
    third.begin("?return_to=//evil.example/").await;
    scene.event("return_to_refused").await;

    is_as_promised(&scene);
}

/// The whole log against the page: no event and no field that it does not name, and none of its events left out.
fn is_as_promised(scene: &Scene) {
    let promised = promised();
    assert!(promised.len() >= 10, "{:?}", promised.keys());
    let mut seen = BTreeSet::new();
    for (event, fields) in events(&scene.rig.cloakroom) {
        let (event, promised) = promised
            .get_key_value(&event[..])
            .unwrap_or_else(|| panic!("{event} is not on the page"));
        seen.insert(*event);
        if *event == "session_ended" {
            let row = format!("| `{}` | ", fields["reason"].as_str().unwrap());
            assert!(PAGE.contains(&row), "{row}");
        }
        for field in &promised.always {
            assert!(fields.contains_key(*field), "{event} lacks {field}: {fields:?}");
        }
        for field in fields.keys() {
            let is_named = promised.always.contains(&field[..]) || promised.sometimes.contains(&field[..]);
            assert!(
                is_named,
                "{event} has {field}, which the page does not name: {fields:?}"
            );
        }
    }
    assert_eq!(
        seen,
        promised.keys().copied().collect(),
        "all of the page's events"
    );
    // Cookies as text are searched for in every log of the suite; here their bits in the form that references have.
    let log = scene.rig.cloakroom.log();
    for cookie in &scene.cookies {
        let bits = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(cookie)
            .unwrap();
        let hexadecimal = bits.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        assert!(!log.contains(&hexadecimal) && !log.contains(cookie), "ob_01");
    }
}
