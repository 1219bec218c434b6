//! Forward-auth, asked as an ingress asks (contract §6): what is told, to whom, and what is not believed.
//!
//! The same rules behind a real nginx and a real Caddy are in `ingress`.

use crate::support::browser::{Browser, Request};
use crate::support::jar::Site;
use crate::support::question::{Asked, Dialect, Question, asked, holds_to_the_contract, identity};
use crate::support::redis::Redis;
use crate::support::rig::Rig;
use crate::support::rogue::{Step, change};
use crate::support::{form, free_port, until, within};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const CORPUS: &str = include_str!("../corpus/path_match.tsv");

/// The usual routes without the one for everything, and some that are served behind an ingress alone.
async fn start(dialect: Dialect) -> Asked {
    Asked::with(dialect, |config| {
        let mut config = config;
        config.value["routes"].as_array_mut().unwrap().pop();
        config
            .route(json!({ "path": "/app" }))
            .route(json!({ "path": "/app/open", "auth": "none" }))
            .route(json!({ "path": "/app/pages", "pages": true }))
            .route(json!({ "path": "/app/header", "csrf": "header" }))
            .route(json!({ "path": "/app/staff", "require": { "claims": { "groups": ["nobody"] } } }))
    })
    .await
}

#[tokio::test]
async fn the_rules_of_the_matching_route_apply() {
    for dialect in Dialect::BOTH {
        let asked = start(dialect).await;
        let browser = asked.rig.signed_in().await;
        let q = |method: &str, target: &str| asked.question(method, target);
        let ours = asked.rig.config.public_url();
        let socket = |question: Question| {
            question
                .with("Connection", "Upgrade")
                .with("Upgrade", "websocket")
                .with("Sec-WebSocket-Version", "13")
                .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        };
        // Traefik takes the upgrade itself out of the question.
        let stripped = |question: Question| socket(question).without("Connection").without("Upgrade");
        let plain_in_nginx = |status: u16, plain: u16| {
            if dialect == Dialect::Nginx { plain } else { status }
        };
        for (question, with, without) in [
            // Routes: with upstream, open, optional, behind an ingress alone.
            (q("GET", "/api/x").fetched(), 200, 401),
            (q("GET", "/api/x?a=/api/public"), 200, 401),
            (q("POST", "/api/x").fetched().with("Origin", &ours), 200, 401),
            (q("GET", "/api/optional/x"), 200, 200),
            (q("GET", "/api/public/x"), 200, 200),
            (q("DELETE", "/api/public/x"), 200, 200),
            (q("GET", "/app/x"), 200, 401),
            (q("GET", "/app/open/x"), 200, 200),
            (q("GET", "/app/staff"), 403, 401),
            // No route, two readings, our own endpoints, methods that nobody forwards.
            (q("GET", "/"), 403, 403),
            (q("GET", "/other"), 403, 403),
            (q("GET", "/api/public/../x"), 403, 403),
            (q("GET", "/app/open/..%2fx"), 403, 403),
            (q("GET", "/app//x"), 403, 403),
            (q("GET", "/bff/user"), 403, 403),
            (q("GET", "/bff/login"), 403, 403),
            (q("TRACE", "/api/public/x"), 403, 403),
            (q("TRACK", "/api/public/x"), 403, 403),
            (q("CONNECT", "/api/public/x"), 403, 403),
            // CSRF (4.3, 4.4), only where a cookie is at stake.
            (q("POST", "/api/x"), 403, 401),
            (q("POST", "/api/x").with("X-CSRF", "1"), 200, 401),
            (
                q("GET", "/api/x").with("Origin", "https://evil.example"),
                403,
                401,
            ),
            (q("GET", "/api/x").with("Sec-Fetch-Site", "same-site"), 403, 401),
            (q("GET", "/app/header/x").fetched(), 403, 403),
            (q("GET", "/app/header/x").fetched().with("X-CSRF", "1"), 200, 401),
            (
                q("OPTIONS", "/api/x")
                    .with("Origin", "https://evil.example")
                    .with("Access-Control-Request-Method", "GET"),
                403,
                403,
            ),
            // Pages (4.1): a navigation from elsewhere.
            (q("GET", "/app/x").navigated("cross-site"), 403, 403),
            (q("GET", "/app/x").navigated("same-site"), 403, 403),
            (q("GET", "/app/pages/x").navigated("cross-site"), 200, 302),
            (q("GET", "/app/pages/x").navigated("same-origin"), 200, 302),
            (q("GET", "/app/x").navigated("none"), 200, 302),
            (q("GET", "/app/x").with("Accept", "text/html"), 200, 302),
            (q("POST", "/app/x").with("Accept", "text/html"), 403, 401),
            // WebSockets (4.5): by Origin alone, cookie or not.
            (socket(q("GET", "/api/x")), 403, 403),
            (
                socket(q("GET", "/api/x")).with("Origin", "https://evil.example"),
                403,
                403,
            ),
            (socket(q("GET", "/api/x")).with("Origin", &ours), 200, 401),
            (socket(q("GET", "/app/header/x")).with("Origin", &ours), 200, 401),
            (
                stripped(q("GET", "/api/x")),
                plain_in_nginx(403, 200),
                plain_in_nginx(403, 401),
            ),
            (
                stripped(q("GET", "/app/header/x")).with("Origin", &ours),
                plain_in_nginx(200, 403),
                plain_in_nginx(401, 403),
            ),
        ] {
            // nginx passes no 302 on.
            let without = if dialect == Dialect::Nginx && without == 302 {
                401
            } else {
                without
            };
            let signed_in = asked.status(&question.clone().of(&browser)).await;
            assert_eq!(signed_in, with, "{dialect:?} signed in: {question:?}");
            let anonymous = asked.status(&question).await;
            assert_eq!(anonymous, without, "{dialect:?} anonymous: {question:?}");
        }
        assert_eq!(
            asked.rig.upstream.connections(),
            0,
            "nothing is forwarded from here"
        );
    }
}

#[tokio::test]
async fn fh_05_what_is_doubled_missing_or_of_the_other_family_is_403() {
    for dialect in Dialect::BOTH {
        let asked = Asked::start(dialect).await;
        let browser = asked.rig.signed_in().await;
        let good = asked.question("GET", "/api/x").fetched().of(&browser);
        assert_eq!(asked.status(&good).await, 200);
        let host = browser.host().to_owned();
        let mut bad = Vec::new();
        let (own, other) = match dialect {
            Dialect::Forwarded => (
                &[
                    "X-Forwarded-Method",
                    "X-Forwarded-Proto",
                    "X-Forwarded-Host",
                    "X-Forwarded-Uri",
                ][..],
                ["X-Original-URL", "X-Original-Method"],
            ),
            Dialect::Nginx => (
                &["X-Original-URL", "X-Original-Method"][..],
                ["X-Forwarded-Uri", "X-Forwarded-Method"],
            ),
        };
        for name in own {
            let value = good.fields.iter().find(|(n, _)| n == name).unwrap().1.clone();
            bad.push(good.clone().without(name));
            bad.push(good.clone().set(name, ""));
            bad.push(good.clone().with(name, &value));
            bad.push(good.clone().with(&name.to_lowercase(), &value));
            bad.push(good.clone().with(&name.replace('-', "_"), &value));
            bad.push(good.clone().without(name).with(&name.replace('-', "_"), &value));
            bad.push(good.clone().set(name, &format!("{value}, {value}")));
        }
        for name in other {
            for spelling in [name.to_owned(), name.to_lowercase(), name.replace('-', "_")] {
                bad.push(good.clone().with(&spelling, "/api/public/x"));
                bad.push(good.clone().with(&spelling, "GET"));
                bad.push(good.clone().with(&spelling, ""));
            }
        }
        for name in [
            "X-Auth-Request-Access-Token",
            "X_Auth_Request_User",
            "X-Auth-Request_Email",
        ] {
            bad.push(good.clone().with(name, "admin"));
        }
        let targets = [
            "api/x",
            "//api/x",
            "/api/x y",
            "/api/\u{fc}",
            "/api/x#/api/public",
            "http://evil.example/",
            "",
        ];
        let hosts = [
            "evil.example",
            "app.localhost",
            "app.localhost:1",
            "evil.example:80, app.localhost",
            "app.localhost@evil.example",
            "",
        ];
        match dialect {
            Dialect::Forwarded => {
                bad.extend(targets.map(|target| good.clone().set("X-Forwarded-Uri", target)));
                bad.extend(hosts.map(|host| good.clone().set("X-Forwarded-Host", host)));
                bad.push(good.clone().set("X-Forwarded-Proto", "ftp"));
            }
            Dialect::Nginx => {
                let url = |url: String| good.clone().set("X-Original-URL", &url);
                bad.extend(
                    targets[1..6]
                        .iter()
                        .map(|target| url(format!("http://{host}{target}"))),
                );
                bad.extend(hosts.map(|host| url(format!("http://{host}/api/x"))));
                // A path alone names no host.
                bad.push(url("/api/x".to_owned()));
                bad.push(url(format!("//{host}/api/x")));
                bad.push(url(format!("ftp://{host}/api/x")));
                bad.push(url(format!("http://{host}@evil.example/api/x")));
            }
        }
        let long = format!("/api/{}", "a".repeat(9000));
        bad.push(asked.question("GET", &long).fetched().of(&browser));
        for start in [
            "POST /",
            "HEAD /",
            "OPTIONS *",
            "GET /api/x",
            "GET /auth",
            "GET http://x/y",
        ] {
            bad.push(Question {
                start: start.to_owned(),
                ..good.clone()
            });
        }
        for question in bad {
            let reply = asked.ask(&question).await;
            if !question.start.starts_with("HEAD") {
                holds_to_the_contract(&reply);
            }
            assert!(reply.headers("authorization").is_empty());
            assert_eq!(reply.status, 403, "{dialect:?} {question:?}");
        }
        // A query is the original request's, which Caddy leaves there.
        let with_query = Question {
            start: "GET /?a=1".to_owned(),
            ..good.clone()
        };
        assert_eq!(asked.status(&with_query).await, 200);
        // Case and a trailing dot aside (2.8); the scheme is not judged.
        let (name, port) = host.split_once(':').unwrap();
        for host in [format!("APP.localhost:{port}"), format!("{name}.:{port}")] {
            for scheme in ["http", "https", "wss"] {
                if dialect == Dialect::Forwarded && scheme == "wss" {
                    continue;
                }
                let question = match dialect {
                    Dialect::Forwarded => good
                        .clone()
                        .set("X-Forwarded-Host", &host)
                        .set("X-Forwarded-Proto", scheme),
                    Dialect::Nginx => good
                        .clone()
                        .set("X-Original-URL", &format!("{scheme}://{host}/api/x")),
                };
                assert_eq!(asked.status(&question).await, 200, "{question:?}");
            }
        }
    }
}

#[tokio::test]
async fn fh_01_a_peer_outside_trusted_proxies_is_told_nothing() {
    for dialect in Dialect::BOTH {
        let asked = Asked::with(dialect, |config| {
            config.set("server.trusted_proxies", json!(["10.0.0.0/8", "127.0.0.2"]))
        })
        .await;
        let browser = asked.rig.signed_in().await;
        for target in ["/api/x", "/api/public/x", "/pages/x"] {
            let question = asked
                .question("GET", target)
                .fetched()
                .of(&browser)
                // Only the peer itself counts.
                .with("X-Forwarded-For", "10.0.0.1")
                .with("X-Real-IP", "10.0.0.1");
            assert_eq!(asked.status(&question).await, 403, "{target}");
        }
    }
}

#[tokio::test]
async fn on_the_public_listener_it_does_not_exist() {
    for dialect in Dialect::BOTH {
        let asked = Asked::start(dialect).await;
        let browser = asked.rig.signed_in().await;
        let question = asked.question("GET", "/api/x").fetched().of(&browser);
        for start in [
            "GET /",
            "GET /api/x",
            "GET /bff/forward-auth",
            "GET /bff/verify",
            "GET /bff/user",
        ] {
            let question = Question {
                start: start.to_owned(),
                ..question.clone()
            };
            let reply = question.ask(asked.rig.cloakroom.port).await;
            assert!(reply.headers("authorization").is_empty(), "{start}");
            assert!(reply.headers("x-auth-request-user").is_empty(), "{start}");
        }
        // And what is on the public listener is not here.
        for start in [
            "GET /bff/user",
            "GET /bff/login",
            "POST /bff/logout",
            "GET /healthz",
            "GET /metrics",
        ] {
            let question = Question {
                start: start.to_owned(),
                ..question.clone()
            };
            assert_eq!(asked.status(&question).await, 403, "{start}");
        }
    }
}

#[tokio::test]
async fn the_answer_says_who_it_is_and_nothing_where_there_is_nothing_to_say() {
    for dialect in Dialect::BOTH {
        let asked = Asked::start(dialect).await;
        asked.rig.rogue.script(|script| {
            script.claims = change(|claims| {
                claims["email"] = "alice@example.com".into();
                claims["groups"] = json!(["staff", "CN=ops,OU=x", "Gäste", 7]);
            });
        });
        let browser = asked.rig.signed_in().await;
        let reply = asked
            .ask(&asked.question("GET", "/api/x").fetched().of(&browser))
            .await;
        holds_to_the_contract(&reply);
        let [authorization, user, email, groups] = identity(&reply);
        let token = authorization.strip_prefix("Bearer ").unwrap();
        assert_eq!(asked.rig.rogue.subject_of(token).as_deref(), Some("alice"));
        assert_eq!((user.as_str(), email.as_str()), ("alice", "alice@example.com"));
        assert_eq!(groups, "staff,CN=ops%2COU=x,G%C3%A4ste");

        // Nobody, whatever the request brings along.
        for target in ["/api/public/x", "/api/optional/x"] {
            let question = asked
                .question("GET", target)
                .with("Authorization", "Bearer evil")
                .with("X-Auth-Request-User", "admin")
                .with("X-Auth-Request-Email", "admin@example.com")
                .with("X-Auth-Request-Groups", "admins");
            let reply = asked.ask(&question).await;
            assert_eq!(
                (reply.status, identity(&reply)),
                (200, <[String; 4]>::default()),
                "{target}"
            );
        }
        // An open route looks at no session.
        let reply = asked
            .ask(&asked.question("GET", "/api/public/x").of(&browser))
            .await;
        assert_eq!(identity(&reply), <[String; 4]>::default());
        // An optional one does.
        let reply = asked
            .ask(&asked.question("GET", "/api/optional/x").of(&browser))
            .await;
        assert_eq!(identity(&reply)[1], "alice");

        asked.rig.rogue.script(|script| {
            script.claims = change(|claims| {
                claims["email"] = "alice@example.com".into();
                claims["email_verified"] = false.into();
                claims["groups"] = "staff".into();
            });
        });
        let mut browser = asked.rig.browser();
        browser.login_as(&asked.rig.rogue, "auth0|5 %", "/").await;
        let reply = asked.ask(&asked.question("GET", "/api/x").of(&browser)).await;
        let [_, user, email, groups] = identity(&reply);
        assert_eq!((user.as_str(), groups.as_str()), ("auth0|5%20%25", "staff"));
        assert_eq!(email, "", "its own provider does not vouch for it");
    }
}

#[tokio::test]
async fn without_a_session_the_way_leads_to_the_login_and_back() {
    for dialect in Dialect::BOTH {
        let asked = Asked::start(dialect).await;
        let origin = asked.rig.config.public_url();
        let target = "/pages/x?a=1&b=%20c";
        let return_to = form::encode(target).replace("%2F", "/");
        let login = format!("{origin}/bff/login?return_to={return_to}");
        let resume = format!("{origin}/bff/login/resume?return_to={return_to}");

        let reply = asked.ask(&asked.question("GET", target).fetched()).await;
        assert_eq!((reply.status, reply.problem().as_str()), (401, "unauthenticated"));
        assert_eq!(reply.json()["login_url"], "/bff/login");
        assert_eq!(reply.header("location"), Some(login.as_str()));
        assert_eq!(
            reply.header("x-auth-request-redirect"),
            None,
            "a script is not redirected"
        );

        for (site, location) in [
            ("same-origin", &login),
            ("none", &login),
            ("same-site", &login),
            ("cross-site", &resume),
        ] {
            let reply = asked.ask(&asked.question("GET", target).navigated(site)).await;
            assert_eq!(reply.header("location"), Some(location.as_str()), "{site}");
            match dialect {
                Dialect::Forwarded => assert_eq!(reply.status, 302),
                Dialect::Nginx => {
                    assert_eq!(reply.status, 401);
                    assert_eq!(reply.header("x-auth-request-redirect"), Some(location.as_str()));
                    reply.page();
                }
            }
        }
        // Under Lax the cookie would have come.
        let lax = Asked::with(dialect, |config| {
            config.set("session.cookie", json!({ "same_site": "lax" }))
        })
        .await;
        let reply = lax
            .ask(&lax.question("GET", target).navigated("cross-site"))
            .await;
        assert!(
            reply
                .header("location")
                .unwrap()
                .contains("/bff/login?return_to=")
        );
    }
}

#[tokio::test]
async fn resume_asks_again_from_our_own_origin_and_starts_nothing() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    for (return_to, leads_to) in [
        ("/pages/x?a=1", "/pages/x?a=1"),
        ("/", "/"),
        ("/api/x", "/"),
        ("/bff/login/resume?return_to=/pages", "/"),
        ("/BFF/logout", "/"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("", "/"),
    ] {
        for site in [Site::CrossSite, Site::SameOrigin] {
            let url = format!("/bff/login/resume?return_to={}", form::encode(return_to));
            let reply = browser.navigate(&url, site).await;
            assert_eq!(reply.status, 200, "{return_to}");
            reply.page();
            assert_eq!(reply.leads_to().as_deref(), Some(leads_to), "{return_to}");
            assert!(reply.cookies().is_empty());
        }
    }
    let reply = browser.fetch("GET", "/bff/login/resume?return_to=/").await;
    assert_eq!((reply.status, reply.problem().as_str()), (403, "csrf"));
}

#[tokio::test]
async fn rm_01_rm_02_class_b_every_row_of_the_path_corpus_is_judged_as_on_the_public_listener() {
    for dialect in Dialect::BOTH {
        let asked = Asked::start(dialect).await;
        let pass = Asked::with(dialect, |config| config.set("routes.0.encoded_slash", "pass")).await;
        let mut seen = 0;
        for row in CORPUS.lines().skip(1) {
            let cells: Vec<_> = row.split('\t').collect();
            let (id, target, expected) = (cells[0], cells[1], cells[2]);
            // The last rows are about request lines, which an ingress has read.
            if id >= "PM-C060" {
                continue;
            }
            seen += 1;
            let asked = if id == "PM-C059" { &pass } else { &asked };
            let target = match target.split_once(" (") {
                Some((_, "raw UTF-8 bytes)")) => "/api/\u{c3}\u{bc}".to_owned(),
                Some((target, _)) => target.trim().to_owned(),
                None => target.to_owned(),
            };
            let browser = asked.rig.signed_in().await;
            let question = asked.question("GET", &target).fetched();
            let (with, without) = match expected {
                _ if expected.contains("(session)") => (200, 401),
                _ if expected.contains("(open)") || expected.contains("static") => (200, 200),
                _ => (403, 403),
            };
            assert_eq!(
                asked.status(&question.clone().of(&browser)).await,
                with,
                "{dialect:?} {id}"
            );
            assert_eq!(asked.status(&question).await, without, "{dialect:?} {id}");
        }
        assert_eq!(seen, 59);
    }
}

#[tokio::test]
async fn rm_05_class_c_nothing_but_the_routes_grants_anonymous_access() {
    for dialect in Dialect::BOTH {
        let asked = start(dialect).await;
        let agents = [
            "GoogleHC/1.0",
            "kube-probe/1.30",
            "ELB-HealthChecker/2.0",
            "Googlebot/2.1",
            "",
        ];
        for agent in agents {
            for (target, status) in [
                ("/api/x", 401),
                ("/api/x?ping", 401),
                ("/api/healthz", 401),
                ("/api/ping", 401),
                ("/api/favicon.ico", 401),
                ("/api/robots.txt", 401),
                ("/api/x.css", 401),
                ("/healthz", 403),
                ("/ping", 403),
                ("/ready", 403),
                ("/favicon.ico", 403),
                ("/.well-known/acme-challenge/x", 403),
            ] {
                for method in ["GET", "HEAD", "OPTIONS", "PROPFIND"] {
                    let question = asked.question(method, target).with("User-Agent", agent);
                    assert_eq!(asked.status(&question).await, status, "{method} {target} {agent}");
                }
            }
        }
        // The public listener: the same.
        let mut browser = asked.rig.browser();
        for agent in agents {
            for path in ["/api/x", "/api/x?ping", "/api/healthz", "/api/favicon.ico"] {
                for method in ["GET", "HEAD", "OPTIONS"] {
                    let request = Request::fetch(method, path).with("User-Agent", agent);
                    assert_eq!(browser.send(request).await.status, 401, "{method} {path} {agent}");
                }
            }
        }
        assert_eq!(asked.rig.upstream.connections(), 0);
    }
}

/// Signs in with a token that lives so long, and lets `seconds` pass. Refreshed tokens live five minutes.
async fn aged(asked: &Asked, lifetime: u64, seconds: f64) -> Browser {
    asked.rig.rogue.script(|script| script.lifetime = Some(lifetime));
    let browser = asked.rig.signed_in().await;
    asked.rig.rogue.script(|script| script.lifetime = None);
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    browser
}

#[tokio::test]
async fn rf_02_expired_token_waits_for_the_one_refresh_however_many_ask() {
    for dialect in Dialect::BOTH {
        let asked = Asked::start(dialect).await;
        let browser = aged(&asked, 1, 1.2).await;
        asked
            .rig
            .rogue
            .script(|script| script.steps.push_back(Step::Late(Duration::from_millis(300))));
        let question = asked.question("GET", "/api/x").fetched().of(&browser);
        let barrier = Arc::new(Barrier::new(50));
        let mut work = JoinSet::new();
        for _ in 0..50 {
            let (question, barrier, port) = (question.clone(), barrier.clone(), asked.port);
            work.spawn(async move {
                barrier.wait().await;
                question.ask(port).await
            });
        }
        let mut tokens = BTreeSet::new();
        while let Some(reply) = work.join_next().await {
            let reply = reply.unwrap();
            assert_eq!(reply.status, 200);
            tokens.insert(identity(&reply)[0].clone());
        }
        assert_eq!(tokens.len(), 1, "all are told the new token");
        assert_eq!(asked.rig.rogue.grants("refresh_token"), 1);
    }
}

#[tokio::test]
async fn rf_01_an_ageing_token_is_told_at_once_and_renewed_behind() {
    let asked = Asked::start(Dialect::Forwarded).await;
    let browser = aged(&asked, 10, 5.1).await;
    asked
        .rig
        .rogue
        .script(|script| script.steps.push_back(Step::Late(Duration::from_secs(2))));
    let question = asked.question("GET", "/api/x").fetched().of(&browser);
    let start = Instant::now();
    let old = identity(&asked.ask(&question).await)[0].clone();
    assert_eq!(identity(&asked.ask(&question).await)[0], old);
    assert!(
        start.elapsed() < Duration::from_millis(1_900),
        "nobody waits: {:?}",
        start.elapsed()
    );
    within(8, "the new token", async {
        while identity(&asked.ask(&question).await)[0] == old {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(asked.rig.rogue.grants("refresh_token"), 1);
}

#[tokio::test]
async fn what_a_refresh_brings_is_judged_and_told() {
    let asked = start(Dialect::Nginx).await;
    asked.rig.rogue.script(|script| {
        script.claims = change(|claims| claims["groups"] = json!(["nobody"]));
        script.refreshed_claims = change(|claims| claims["groups"] = json!(["guests"]));
    });
    let judged = aged(&asked, 3, 0.0).await;
    let told = aged(&asked, 3, 0.0).await;
    let ask = |browser: &Browser, target: &str| asked.question("GET", target).of(browser);
    assert_eq!(asked.status(&ask(&judged, "/app/staff")).await, 200);
    assert_eq!(
        identity(&asked.ask(&ask(&told, "/app")).await)[3],
        "nobody",
        "as it signed in"
    );
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    // The very answers that waited for the refresh.
    let reply = asked.ask(&ask(&told, "/app")).await;
    assert_eq!(identity(&reply)[3], "guests");
    assert_eq!(
        asked.status(&ask(&judged, "/app/staff")).await,
        403,
        "no longer in the group"
    );
}

#[tokio::test]
async fn rf_08_a_session_that_ended_is_401_and_no_cookie_is_touched() {
    for dialect in Dialect::BOTH {
        let asked = Asked::start(dialect).await;
        let mut browser = aged(&asked, 1, 1.2).await;
        asked.rig.rogue.forget_refresh_tokens();
        let question = asked.question("GET", "/api/x").fetched().of(&browser);
        for _ in 0..2 {
            // `status` holds every answer to: no Set-Cookie.
            assert_eq!(asked.status(&question).await, 401);
        }
        let optional = asked.question("GET", "/api/optional/x").of(&browser);
        let reply = asked.ask(&optional).await;
        assert_eq!((reply.status, identity(&reply)), (200, <[String; 4]>::default()));
        // What the app asks next clears it.
        assert!(browser.fetch("GET", "/bff/user").await.clears_session());
    }
}

#[tokio::test]
async fn a_provider_that_is_away_is_503_and_the_session_lives() {
    let asked = Asked::start(Dialect::Forwarded).await;
    let browser = aged(&asked, 1, 1.2).await;
    asked
        .rig
        .rogue
        .script(|script| script.always = Some(Step::Answer(500, "", String::new())));
    let question = asked.question("GET", "/api/x").fetched().of(&browser);
    let reply = asked.ask(&question).await;
    holds_to_the_contract(&reply);
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "provider_unavailable")
    );
    assert!(reply.header("retry-after").is_some());
    asked.rig.rogue.behave();
    within(12, "the provider to be asked again", async {
        while asked.status(&question).await != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn fa_01_a_store_that_does_not_answer_is_503_within_three_seconds() {
    for dialect in Dialect::BOTH {
        let port = free_port();
        let rig = Rig::build(Some(Redis::start().await), |config| asked(config, dialect, port)).await;
        let asked = Asked { rig, dialect, port };
        let browser = asked.rig.signed_in().await;
        let redis = asked.rig.redis.as_ref().unwrap();
        redis.pause();
        for (target, site) in [
            ("/api/x", "same-origin"),
            ("/api/optional/x", "same-origin"),
            ("/pages/x", "none"),
        ] {
            let question = asked.question("GET", target).navigated(site).of(&browser);
            let start = Instant::now();
            let reply = asked.ask(&question).await;
            holds_to_the_contract(&reply);
            assert_eq!(
                reply.status, 503,
                "{target}: never a redirect to login, never nobody"
            );
            assert!(reply.header("retry-after").is_some());
            assert!(
                start.elapsed() < Duration::from_millis(3_200),
                "{:?}",
                start.elapsed()
            );
        }
        assert_eq!(asked.status(&asked.question("GET", "/api/public/x")).await, 200);
        redis.resume();
        let question = asked.question("GET", "/api/x").fetched().of(&browser);
        within(10, "the recovery", async {
            while asked.status(&question).await != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn being_asked_about_is_activity() {
    let asked = Asked::with(Dialect::Nginx, |config| config.set("session.idle_timeout", "20s")).await;
    let mut browser = asked.rig.signed_in().await;
    let mut left = async || {
        let user = browser.fetch("GET", "/bff/user").await.json();
        user["session"]["idle_expires_in"].as_u64().unwrap()
    };
    within(10, "the session to idle", async {
        while left().await > 16 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let question = {
        let cookie = asked.rig.signed_in().await;
        asked.question("GET", "/api/x").fetched().of(&cookie)
    };
    assert_eq!(asked.status(&question).await, 200);
    assert!(left().await <= 16, "somebody else's use is not this session's");
    let question = asked.question("GET", "/api/x").fetched().of(&browser);
    assert_eq!(asked.status(&question).await, 200);
    within(5, "the use to be noted", async {
        while browser.fetch("GET", "/bff/user").await.json()["session"]["idle_expires_in"]
            .as_u64()
            .unwrap()
            < 18
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_head_that_the_public_listener_takes_is_taken_here_with_what_an_ingress_adds() {
    let asked = Asked::start(Dialect::Nginx).await;
    let mut browser = asked.rig.signed_in().await;
    let target = format!("/api/{}", "a".repeat(8000));
    let filling = "b".repeat(11_250);
    let request = Request::fetch("GET", &target)
        .with("X-Filling", &filling)
        .with("X-Filling", &filling);
    assert_eq!(browser.send(request).await.status, 200);
    let question = asked
        .question("GET", &target)
        .fetched()
        .of(&browser)
        .with("X-Filling", &filling)
        .with("X-Filling", &filling);
    assert_eq!(asked.status(&question).await, 200);
}

#[tokio::test]
async fn questions_under_way_are_answered_before_the_end() {
    let mut asked = Asked::start(Dialect::Forwarded).await;
    let browser = aged(&asked, 1, 1.2).await;
    asked
        .rig
        .rogue
        .script(|script| script.steps.push_back(Step::Late(Duration::from_secs(1))));
    let question = asked.question("GET", "/api/x").fetched().of(&browser);
    let port = asked.port;
    let answer = tokio::spawn(async move { question.ask(port).await });
    until(5, "the refresh", || asked.rig.rogue.grants("refresh_token") == 1).await;
    asked.rig.cloakroom.signal("TERM");
    assert_eq!(answer.await.unwrap().status, 200);
    assert_eq!(asked.rig.cloakroom.ended().await, 0);
}

#[tokio::test]
async fn decisions_are_counted_by_route() {
    let asked = Asked::start(Dialect::Forwarded).await;
    let browser = asked.rig.signed_in().await;
    asked.status(&asked.question("GET", "/api/x").of(&browser)).await;
    asked.status(&asked.question("GET", "/api/x")).await;
    asked
        .status(&asked.question("GET", "/api/x").with("X-Original-URL", "/"))
        .await;
    let metrics = asked.rig.cloakroom.admin("/metrics").await.text();
    for line in [
        "cloakroom_requests_total{route=\"forward-auth /api\",status=\"200\"} 1",
        "cloakroom_requests_total{route=\"forward-auth /api\",status=\"401\"} 1",
        "cloakroom_requests_total{route=\"forward-auth other\",status=\"403\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn hp_04_hp_05_hp_08_the_questions_own_head_is_judged_like_any_other() {
    for dialect in Dialect::BOTH {
        let asked = Asked::start(dialect).await;
        let browser = asked.rig.signed_in().await;
        let good = asked.question("GET", "/api/x").fetched().of(&browser);
        assert_eq!(
            asked.status(&good.clone().with("Expect", "100-continue")).await,
            200
        );
        for (question, status) in [
            (good.clone().with("Host", "cloakroom"), 400),
            (good.clone().without_host(), 400),
            (good.clone().without_host().with("Host", "clo ak"), 400),
            (good.clone().without_host().with("Host", "x@cloakroom"), 400),
            (good.clone().without_host().with("Host", ""), 400),
            (good.clone().with("Transfer-Encoding", "gzip, chunked"), 400),
            (good.clone().with("Expect", "something-else"), 403),
        ] {
            let reply = asked.ask(&question).await;
            assert_eq!(reply.status, status, "{dialect:?} {question:?}");
            assert!(reply.headers("authorization").is_empty());
        }
    }
}

#[tokio::test]
async fn what_strangers_can_bring_about_is_a_warning_once() {
    let asked = Asked::start(Dialect::Nginx).await;
    for _ in 0..5 {
        for question in [
            asked
                .question("GET", "/api/x")
                .set("X-Original-URL", "https://evil.example/"),
            asked.question("GET", "/api/x").set("X-Original-URL", "nothing"),
            asked.question("GET", "/api/x").with("X_Forwarded_For", "1.1.1.1"),
            asked.question("GET", "/bff/user"),
        ] {
            assert_eq!(asked.status(&question).await, 403);
        }
    }
    let log = asked.rig.cloakroom.log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("forward-auth was asked"))
        .collect();
    assert_eq!(warnings.len(), 4, "{log}");
    for warning in warnings {
        assert!(warning.contains("request_id"), "{warning}");
    }
}
