//! What a provider may and may not say at a login: scenarios after the OpenID conformance suite's modules.

use crate::support::browser::Reply;
use crate::support::keys::{Key, Sign};
use crate::support::rig::Rig;
use crate::support::rogue::{Direction, Script, Step, change};
use crate::support::{now, within};
use serde_json::{Value, json};
use std::time::Duration;

type Mutation = (&'static str, Direction);

fn claims(name: &'static str, with: impl Fn(&mut Value) + Clone + Send + Sync + 'static) -> Mutation {
    (name, Box::new(move |script| script.claims = change(with.clone())))
}

fn header(name: &'static str, with: impl Fn(&mut Value) + Clone + Send + Sync + 'static) -> Mutation {
    (name, Box::new(move |script| script.header = change(with.clone())))
}

fn sign(name: &'static str, sign: Sign) -> Mutation {
    (name, Box::new(move |script| script.sign = Some(sign)))
}

fn token(name: &'static str, with: impl Fn(&mut Value) + Clone + Send + Sync + 'static) -> Mutation {
    (name, Box::new(move |script| script.token = change(with.clone())))
}

fn step(name: &'static str, step: Step) -> Mutation {
    (name, Box::new(move |script| script.steps = [step.clone()].into()))
}

fn without(name: &'static str) -> impl Fn(&mut Value) + Clone + Send + Sync + 'static {
    move |value: &mut Value| {
        value.as_object_mut().unwrap().remove(name);
    }
}

/// One login under that script: the callback's answer, and whether there is a session after it.
async fn login(rig: &Rig, apply: &dyn Fn(&mut Script)) -> (Reply, bool) {
    rig.rogue.behave();
    rig.rogue.script(|script| apply(script));
    let mut browser = rig.browser();
    let url = browser.begin("?return_to=/orders").await;
    let reply = browser.come_back(&rig.rogue.authorize(&url)).await;
    if let Some(session) = browser.session() {
        assert_eq!(browser.landing(&reply), "/orders");
        assert_eq!(
            browser.fetch("GET", "/bff/user").await.status,
            200,
            "{}",
            session.len()
        );
        return (reply, true);
    }
    (reply, false)
}

async fn all_refused(rig: &Rig, mutations: Vec<Mutation>) {
    for (name, apply) in mutations {
        let userinfo = rig.rogue.count("/userinfo");
        let (reply, signed_in) = login(rig, &apply).await;
        assert!(!signed_in, "{name} signed in");
        assert!(
            matches!(reply.status, 400 | 502 | 503),
            "{name}: {}",
            reply.status
        );
        assert!(reply.page().contains("/bff/login"), "{name}: a way back");
        assert_eq!(
            rig.rogue.count("/userinfo"),
            userinfo,
            "id_19: {name}: a token was used before it held"
        );
    }
}

async fn all_accepted(rig: &Rig, mutations: Vec<Mutation>) {
    for (name, apply) in mutations {
        let (reply, signed_in) = login(rig, &apply).await;
        assert!(signed_in, "{name}: {} {}", reply.status, reply.text());
    }
}

#[tokio::test]
async fn id_06_to_id_10_id_24_class_e_claims_that_do_not_hold_end_the_login() {
    let rig = Rig::with(|config| config.set("providers.main.userinfo", "on_login")).await;
    let mut mutations = vec![
        claims("iss of another", |c| c["iss"] = "https://evil.example".into()),
        claims("iss with a slash", |c| {
            c["iss"] = format!("{}/", c["iss"].as_str().unwrap()).into();
        }),
        claims("iss in capitals", |c| {
            c["iss"] = c["iss"].as_str().unwrap().to_uppercase().into();
        }),
        claims("aud of another", |c| c["aud"] = "other".into()),
        claims("aud: a prefix", |c| c["aud"] = "ap".into()),
        claims("aud: a list without us", |c| c["aud"] = json!(["other"])),
        claims("aud: an empty list", |c| c["aud"] = json!([])),
        claims("aud: a number", |c| c["aud"] = 7.into()),
        claims("aud: us and a stranger", |c| {
            c["aud"] = json!(["app", "stranger"]);
        }),
        claims("azp of another", |c| c["azp"] = "other".into()),
        claims("nonce of another", |c| {
            c["nonce"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into();
        }),
        claims("nonce: a list", |c| c["nonce"] = json!([c["nonce"]])),
        claims("expired", |c| c["exp"] = (now() - 600).into()),
        claims("exp: a string", |c| c["exp"] = (now() + 600).to_string().into()),
        claims("exp: 1e300", |c| c["exp"] = 1e300.into()),
        claims("exp: negative", |c| c["exp"] = (-1).into()),
        claims("iat ahead", |c| c["iat"] = (now() + 600).into()),
        claims("iat long ago", |c| c["iat"] = (now() - 7200).into()),
        claims("nbf ahead", |c| c["nbf"] = (now() + 600).into()),
        claims("sub: empty", |c| c["sub"] = "".into()),
        claims("sub: a number", |c| c["sub"] = 7.into()),
        claims("sub: 300 characters", |c| c["sub"] = "a".repeat(300).into()),
        claims("at_hash of another", |c| {
            c["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA".into();
        }),
        claims("a logout token's events", |c| {
            c["events"] = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
        }),
    ];
    for name in ["iss", "sub", "aud", "exp", "iat", "nonce"] {
        mutations.push((
            name,
            Box::new(move |script| script.claims = change(without(name))),
        ));
        mutations.push((
            name,
            Box::new(move |script| script.claims = change(move |c| c[name] = Value::Null)),
        ));
    }
    all_refused(&rig, mutations).await;
}

#[tokio::test]
async fn id_01_to_id_05_id_13_id_14_class_e_signatures_and_headers_that_do_not_hold_end_the_login() {
    let rig = Rig::with(|config| config.set("providers.main.userinfo", "on_login")).await;
    all_refused(
        &rig,
        vec![
            sign("alg none", Sign::None("none")),
            sign("alg None", Sign::None("None")),
            sign("alg nOnE", Sign::None("nOnE")),
            sign("an empty signature", Sign::None("RS256")),
            sign("HS256 under the public key", Sign::HsUnderPublicKey),
            sign("HS256 under the client secret", Sign::HsUnderClientSecret),
            sign("a broken RS256 signature", Sign::Broken(Key::Rs256)),
            sign("a broken ES256 signature", Sign::Broken(Key::Es256)),
            sign("a broken EdDSA signature", Sign::Broken(Key::EdDsa)),
            sign("another alg than signed", Sign::Claims("PS256")),
            sign("alg of another family", Sign::Claims("ES256")),
            sign("alg RS1", Sign::Claims("RS1")),
            sign("a key that nobody published", Sign::With(Key::Rs256Other)),
            header("no alg", without("alg")),
            header("typ of an access token", |h| h["typ"] = "at+jwt".into()),
            header("typ of a logout token", |h| h["typ"] = "logout+jwt".into()),
            header("typ of a DPoP proof", |h| h["typ"] = "dpop+jwt".into()),
            header("an unknown crit", |h| h["crit"] = json!(["x"])),
            header("an empty crit", |h| h["crit"] = json!([])),
            header("an unencoded payload", |h| {
                h["b64"] = false.into();
                h["crit"] = json!(["b64"]);
            }),
            (
                "md_08: a key of its own",
                Box::new(|script| {
                    script.sign = Some(Sign::With(Key::Rs256Other));
                    script.header = change(|h| {
                        h["jwk"] = Key::Rs256Other.jwk();
                        h["kid"] = "rsa-1".into();
                    });
                }),
            ),
            token("padding", |t| {
                t["id_token"] = format!("{}=", t["id_token"].as_str().unwrap()).into();
            }),
            token("a fourth part", |t| {
                t["id_token"] = format!("{}.x", t["id_token"].as_str().unwrap()).into();
            }),
            token("white space", |t| {
                t["id_token"] = format!(" {}", t["id_token"].as_str().unwrap()).into();
            }),
            token("no ID token", without("id_token")),
            token("an empty ID token", |t| t["id_token"] = "".into()),
            token("an ID token that is none", |t| t["id_token"] = "a.b.c".into()),
        ],
    )
    .await;
}

#[tokio::test]
async fn id_02_an_algorithm_that_the_provider_does_not_name_is_refused() {
    let rig = Rig::start().await;
    let only_rs256 = |script: &mut Script| {
        script.discovery = change(|d| d["id_token_signing_alg_values_supported"] = json!(["RS256"]));
        script.sign = Some(Sign::With(Key::Es256));
    };
    let (reply, signed_in) = login(&rig, &only_rs256).await;
    assert!(
        !signed_in && matches!(reply.status, 400 | 502),
        "{}",
        reply.status
    );
}

#[tokio::test]
async fn id_02_id_16_id_18_unusual_but_right_tokens_sign_in() {
    let rig = Rig::start().await;
    all_accepted(
        &rig,
        vec![
            sign("RS256", Sign::With(Key::Rs256)),
            sign("PS256", Sign::With(Key::Ps256)),
            sign("ES256", Sign::With(Key::Es256)),
            sign("EdDSA", Sign::With(Key::EdDsa)),
            claims("aud as a list", |c| c["aud"] = json!(["app"])),
            claims("azp", |c| c["azp"] = "app".into()),
            claims("fractions of seconds", |c| {
                c["exp"] = (f64::from(u32::try_from(now()).unwrap()) + 60.5).into();
            }),
            claims("no at_hash", without("at_hash")),
            claims("expired within the leeway", |c| c["exp"] = (now() - 5).into()),
            header("no kid with several keys", without("kid")),
            header("no typ", without("typ")),
            token("token_type in another case", |t| {
                t["token_type"] = "bEaReR".into();
            }),
            token("unknown members", |t| t["x"] = json!({ "y": [1, 2] })),
            token("no expires_in", without("expires_in")),
            token("expires_in as a string", |t| t["expires_in"] = "300".into()),
            token("a fraction in expires_in", |t| t["expires_in"] = 300.5.into()),
            token("no refresh token", without("refresh_token")),
            token("no scope", without("scope")),
            token("a huge expires_in", |t| t["expires_in"] = 1e18.into()),
            (
                "md_07: strange keys beside ours",
                Box::new(|script| {
                    script.jwks = change(|set| {
                        let keys = set["keys"].as_array_mut().unwrap();
                        keys.insert(0, json!({ "kty": "XYZ", "kid": "rsa-1", "use": "sig" }));
                        keys.insert(0, json!({ "kty": "RSA", "kid": "rsa-9", "n": "!!", "e": "AQAB" }));
                        keys.insert(0, json!({ "kty": "oct", "kid": "rsa-1", "k": "AAAA" }));
                    });
                }),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn id_18_no_kid_with_a_single_key_signs_in() {
    let rig = Rig::start().await;
    let single = |script: &mut Script| {
        script.jwks = change(|set| {
            set["keys"].as_array_mut().unwrap().truncate(1);
            without("kid")(&mut set["keys"][0]);
        });
        script.header = change(without("kid"));
    };
    let (reply, signed_in) = login(&rig, &single).await;
    assert!(signed_in, "{}", reply.status);
}

#[tokio::test]
async fn md_05_md_06_class_h_a_key_rotated_just_before_signing_is_fetched_and_unknown_ones_not_without_end() {
    let rig = Rig::start().await;
    let (reply, signed_in) = login(&rig, &|_| {}).await;
    assert!(signed_in, "{}", reply.status);
    let before = rig.rogue.count("/jwks");
    let rotated = |script: &mut Script| {
        script.sign = Some(Sign::With(Key::Rs256Other));
        script.jwks = change(|set| set["keys"] = json!([Key::Rs256Other.jwk()]));
    };
    let (reply, signed_in) = login(&rig, &rotated).await;
    assert!(signed_in, "{} {}", reply.status, reply.text());
    assert_eq!(rig.rogue.count("/jwks"), before + 1, "fetched once more");
    let before = rig.rogue.count("/jwks");
    for _ in 0..12 {
        let unknown = |script: &mut Script| {
            script.header = change(|h| h["kid"] = crate::support::random(6).into());
        };
        let (_, signed_in) = login(&rig, &unknown).await;
        assert!(!signed_in);
    }
    let fetched = rig.rogue.count("/jwks") - before;
    assert!(fetched <= 3, "md_06: {fetched} forced fetches");
}

#[tokio::test]
async fn oa_05_oa_07_token_answers_that_do_not_hold_end_the_login() {
    let rig = Rig::start().await;
    let answer = |status, body: &str| Step::Answer(status, "", body.to_owned());
    let before = rig.rogue.count("/token");
    let mutations = vec![
        token("no access token", without("access_token")),
        token("an empty access token", |t| t["access_token"] = "".into()),
        token("an access token that is a number", |t| {
            t["access_token"] = 7.into();
        }),
        token("an access token with a line break", |t| {
            t["access_token"] = "a\r\nX-Evil: 1".into();
        }),
        token("token_type mac", |t| t["token_type"] = "mac".into()),
        token("no token_type", without("token_type")),
        step("a list", answer(200, "[]")),
        step("a string", answer(200, "\"x\"")),
        step("nothing", answer(200, "")),
        step("HTML", answer(200, "<html>")),
        step("200 with an error", answer(200, r#"{"error":"invalid_grant"}"#)),
        step("invalid_grant", answer(400, r#"{"error":"invalid_grant"}"#)),
        step("invalid_client", answer(401, r#"{"error":"invalid_client"}"#)),
        step("400 with HTML", answer(400, "<script>marker</script>")),
        step("500", answer(500, "oops")),
        step("503", answer(503, "oops")),
        step("429", Step::Answer(429, "Retry-After: 5\r\n", String::new())),
        step(
            "a redirect",
            Step::Answer(302, "Location: http://127.0.0.1:1/\r\n", String::new()),
        ),
        step(
            "2 MiB",
            answer(200, &format!("{{\"x\":\"{}\"}}", "a".repeat(2 << 20))),
        ),
        step("a deep document", answer(200, &"[".repeat(200_000))),
    ];
    let count = mutations.len();
    all_refused(&rig, mutations).await;
    assert_eq!(
        rig.rogue.count("/token") - before,
        count,
        "every code went out once"
    );
}

#[tokio::test]
async fn id_20_userinfo_of_another_subject_is_refused_and_the_right_one_joins_the_claims() {
    let rig = Rig::with(|config| config.set("providers.main.userinfo", "on_login")).await;
    for (name, with) in [
        ("another sub", change(|u| u["sub"] = "mallory".into())),
        ("no sub", change(without("sub"))),
        ("a list", change(|u| *u = json!([u.clone()]))),
    ] {
        let (reply, signed_in) = login(&rig, &move |script| script.userinfo.clone_from(&with)).await;
        assert!(
            !signed_in && matches!(reply.status, 400 | 502),
            "{name}: {}",
            reply.status
        );
    }
    rig.rogue.behave();
    let mut browser = rig.signed_in().await;
    let user = browser.fetch("GET", "/bff/user").await.json();
    assert_eq!(user["claims"]["picture"], "https://pictures.example/alice.png");
    assert_eq!(user["claims"]["name"], "Alice Example");
}

#[tokio::test]
async fn az_03_a_provider_that_refuses_pkce_is_not_asked_again_without_it() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let url = browser.begin("").await;
    let reply = browser
        .come_back(&rig.rogue.refuse(&url, "invalid_request"))
        .await;
    assert!(matches!(reply.status, 400 | 502), "{}", reply.status);
    assert!(reply.leads_to().is_none());
}

#[tokio::test]
async fn ca_02_a_client_secret_of_any_characters_arrives_as_it_is() {
    for method in ["client_secret_basic", "client_secret_post"] {
        let secret = format!(
            "{} a:b%c+d é&=/",
            crate::support::secrets::canary("client-secret")
        );
        let (rogue, upstream) = (
            crate::support::rogue::Rogue::start().await,
            crate::support::upstream::Upstream::start().await,
        );
        rogue.script(|script| {
            script.secrets = vec![secret.clone()];
            script.discovery = change(move |d| d["token_endpoint_auth_methods_supported"] = json!([method]));
        });
        let config = crate::support::config::Config::new(&rogue.issuer, &secret, &upstream.url());
        let cloakroom = crate::support::cloakroom::Cloakroom::start(&config).await;
        let mut browser = cloakroom.browser();
        assert_eq!(browser.login(&rogue, "/x").await, "/x", "{method}");
        let call = rogue.calls("/token").remove(0);
        assert_eq!(
            call.value("client_secret").is_some(),
            method == "client_secret_post",
            "ca_01"
        );
    }
}

#[tokio::test]
async fn while_a_client_secret_rotates_both_are_tried() {
    let rig = Rig::with(|config| {
        let secret = config.value["providers"]["main"]["client_secret"].clone();
        config.set(
            "providers.main.client_secret",
            json!(["CANARY-client-secret-not-yet", secret]),
        )
    })
    .await;
    assert_eq!(rig.browser().login(&rig.rogue, "/x").await, "/x");
}

#[tokio::test]
async fn a_token_endpoint_that_never_answers_ends_in_a_page() {
    let rig = Rig::start().await;
    rig.rogue
        .script(|script| script.steps.push_back(Step::Late(Duration::from_mins(1))));
    let mut browser = rig.browser();
    let url = browser.begin("").await;
    let callback = rig.rogue.authorize(&url);
    let reply = within(14, "an answer", browser.come_back(&callback)).await;
    assert_eq!(reply.status, 503);
    reply.page();
}
