//! The provider answers wrongly, or not at all.

use super::page::Entry;
use super::{check, check_online};
use crate::support::browser::Reply;
use crate::support::cloakroom::Cloakroom;
use crate::support::form;
use crate::support::jar::Site;
use crate::support::keys::{Key, Sign};
use crate::support::rig::Rig;
use crate::support::rogue::change;
use crate::support::runtime;
use crate::support::secrets::canary;
use serde_json::json;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Signs in as far as that goes.
async fn login(rig: &Rig) -> Reply {
    let mut browser = rig.browser();
    let url = browser.begin("").await;
    browser.come_back(&rig.rogue.authorize(&url)).await
}

/// Begins to sign in, which does not go far.
async fn begin(rig: &Rig) -> Reply {
    let reply = rig.browser().navigate("/bff/login", Site::None).await;
    assert_eq!(reply.status, 503);
    reply
}

#[tokio::test]
async fn a_wrong_client_secret() {
    let mut entry = Entry::of("The sign-in service gave a wrong answer: the client secret");
    let rig = Rig::start().await;
    let mut signed_in = rig.signed_in().await;
    rig.rogue
        .script(|script| script.secrets = vec![canary("client-secret")]);
    let reply = login(&rig).await;
    assert_eq!(reply.status, 502);
    entry.page(&reply);
    assert_eq!(
        signed_in.fetch("GET", "/api/x").await.status,
        200,
        "nobody is signed out"
    );
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn clocks_that_are_apart() {
    let mut entry = Entry::of("The sign-in service gave a wrong answer: the clocks");
    let rig = Rig::start().await;
    // An hour ahead, in its answers and in its tokens.
    let ahead = crate::support::now() + 3_600;
    let date = httpdate_of(ahead);
    let keys = json!({ "keys": [Key::Rs256.jwk()] }).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{keys}",
        keys.len()
    );
    rig.rogue.script(|script| {
        script.raw.insert("/jwks", answer.into_bytes());
        script.claims = change(move |claims| {
            claims["iat"] = json!(ahead);
            claims["exp"] = json!(ahead + 600);
        });
    });
    let reply = login(&rig).await;
    assert_eq!(reply.status, 502);
    entry.page(&reply);
    let (code, said) = check_online(&rig);
    assert_eq!(code, 1, "{said}");
    entry.check(&said);
    entry.settle(&rig.cloakroom).await;
}

fn httpdate_of(secs: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
    httpdate::fmt_http_date(time)
}

#[tokio::test]
async fn signatures_that_do_not_hold() {
    let mut entry = Entry::of("The sign-in service gave a wrong answer: the signature");
    let rig = Rig::start().await;
    for sign in [Sign::With(Key::Rs256Other), Sign::HsUnderPublicKey] {
        rig.rogue.script(|script| script.sign = Some(sign));
        let reply = login(&rig).await;
        assert_eq!(reply.status, 502);
        entry.page(&reply);
    }
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_provider_that_is_away() {
    let mut entry = Entry::of("Sign-in is not available");
    let mut rig = Rig::start().await;
    rig.rogue.close().await;
    entry.page(&begin(&rig).await);
    let (code, said) = check_online(&rig);
    assert_eq!(code, 1, "{said}");
    entry.check(&said);
    entry.settle(&rig.cloakroom).await;
    rig.rogue.open().await;
    crate::support::within(10, "a login without a restart", async {
        while rig.browser().navigate("/bff/login", Site::None).await.status != 302 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_issuer_with_a_slash_at_its_end() {
    let mut entry = Entry::of("The discovery document names another issuer");
    let rig = Rig::start().await;
    let named = format!("{}/", rig.rogue.issuer);
    let it = named.clone();
    rig.rogue
        .script(|script| script.discovery = change(move |document| document["issuer"] = json!(it)));
    entry.page(&begin(&rig).await);
    let (code, said) = check_online(&rig);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&named), "it names the issuer to write: {said}");
    entry.check(&said);
    entry.settle(&rig.cloakroom).await;
    let mended = rig.config.replica().set("providers.main.issuer", named);
    let (code, said) = check(&mended, &["--online"]);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_page_in_place_of_the_discovery_document() {
    let mut entry = Entry::of("The discovery document is HTML");
    let rig = Rig::start().await;
    let page =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 26\r\n\r\n<!doctype html><p>Sign in."
            .to_vec();
    rig.rogue
        .script(|script| drop(script.raw.insert("/.well-known/openid-configuration", page)));
    entry.page(&begin(&rig).await);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority() {
    let mut entry = Entry::of("The provider's certificate is not trusted");
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = runtime()
        .spawn(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .await
        .unwrap()
        .unwrap();
    let issuer = format!("https://{}", listener.local_addr().unwrap());
    let served = runtime().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _refused = acceptor.accept(stream).await;
        }
    });
    let rig = Rig::with(|config| config.set("providers.main.issuer", issuer)).await;
    entry.page(&begin(&rig).await);
    let (code, said) = check_online(&rig);
    assert_eq!(code, 1, "{said}");
    entry.check(&said);
    entry.settle(&rig.cloakroom).await;
    served.abort();
}

#[tokio::test]
async fn a_provider_that_is_known_by_another_name_inside() {
    let mut entry = Entry::of("Browsers cannot open the provider, whose name only the cluster knows");
    let rig = Rig::start().await;
    let inner = rig
        .config
        .replica()
        .set("providers.main.issuer", "https://keycloak.auth.svc/realms/acme");
    entry.check(&check(&inner, &[]).1);
    // What to do: the public name for the browser, the way from here in `discovery_url` and `endpoints`.
    let inside = rig.rogue.issuer.clone();
    let public = inside.replace("127.0.0.1", "op.localhost");
    let named = public.clone();
    rig.rogue.script(|script| {
        script.discovery = change(move |document| {
            let text = document
                .to_string()
                .replace("http://127.0.0.1", "http://op.localhost");
            *document = serde_json::from_str(&text).unwrap();
        });
        script.claims = change(move |claims| claims["iss"] = json!(named));
    });
    let split = rig
        .config
        .replica()
        .set("providers.main.issuer", public.clone())
        .set(
            "providers.main.discovery_url",
            format!("{inside}/.well-known/openid-configuration"),
        )
        .set(
            "providers.main.endpoints",
            json!({ "token": format!("{inside}/token"), "jwks": format!("{inside}/jwks") }),
        );
    let cloakroom = Cloakroom::start(&split).await;
    let mut browser = rig.browser().at(cloakroom.port);
    let url = browser.begin("?return_to=/x").await;
    assert!(url.starts_with(&format!("{public}/authorize?")), "{url}");
    let callback = rig.rogue.authorize(&url.replace(&public, &inside));
    assert!(form::parameter(&callback, "code").is_some());
    let reply = browser.come_back(&callback).await;
    assert_eq!(browser.landing(&reply), "/x");
    entry.settle(&cloakroom).await;
}
