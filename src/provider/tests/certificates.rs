//! Whom we believe over TLS (OA-03), and the way through a proxy.

use super::*;
use crate::secret::Secret;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

struct Authority {
    pem: tempfile::NamedTempFile,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "an authority for tests");
    let key = KeyPair::generate().unwrap();
    let pem = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(pem.path(), params.self_signed(&key).unwrap().pem()).unwrap();
    Authority {
        pem,
        issuer: Issuer::new(params, key),
    }
}

fn acceptor(authority: &Authority, name: &str, years: (i32, i32)) -> TlsAcceptor {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn trusting(server: &Server, authority: Option<&Authority>) -> ProviderSettings {
    let mut trusting = settings(&server.origin);
    trusting.ca = authority.map(|authority| authority.pem.path().to_owned());
    trusting
}

#[tokio::test]
async fn oa_03_only_a_certificate_that_holds_is_believed() {
    let (ours, others) = (authority(), authority());
    let current = (2020, 2120);
    for (acceptor, trusted, is_believed) in [
        (acceptor(&ours, "op.localhost", current), Some(&ours), true),
        (acceptor(&ours, "op.localhost", current), None, false),
        (acceptor(&ours, "op.localhost", current), Some(&others), false),
        (acceptor(&ours, "other.localhost", current), Some(&ours), false),
        (acceptor(&ours, "op.localhost", (2010, 2011)), Some(&ours), false),
        (acceptor(&ours, "op.localhost", (2110, 2120)), Some(&ours), false),
    ] {
        let server = Server::start_as("https", "op.localhost", Some(acceptor)).await;
        let provider = made(trusting(&server, trusted));
        let outcome = begin(&provider).await;
        assert_eq!(outcome.is_ok(), is_believed, "{outcome:?}");
        assert!(is_believed || is_away(outcome));
        assert_eq!(
            server.count("/.well-known/openid-configuration"),
            usize::from(is_believed)
        );
    }
}

#[test]
fn an_authority_that_cannot_be_read_is_said_at_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for content in [
        "",
        "rubbish",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(file.path(), content).unwrap();
        let mut broken = settings("https://id.example.com");
        broken.ca = Some(file.path().to_owned());
        let fault = Provider::new(broken, &ProxyEnvironment::default(), clock()).unwrap_err();
        assert!(fault.contains("providers.main.ca"), "{fault}");
    }
    let mut missing = settings("https://id.example.com");
    missing.ca = Some("/nonexistent/ca.pem".into());
    assert!(Provider::new(missing, &ProxyEnvironment::default(), clock()).is_err());
}

/// A proxy that leads every tunnel to `to`, whatever was asked for, and tells what that was.
async fn proxy(to: std::net::SocketAddr) -> (std::net::SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tell, asked) = tokio::sync::mpsc::channel(16);
    let address = listener.local_addr().unwrap();
    let tracker = TaskTracker::new();
    tracker.clone().spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let tell = tell.clone();
            tracker.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(from.read_u8().await.unwrap());
                }
                tell.send(String::from_utf8(head).unwrap()).await.unwrap();
                let mut onward = tokio::net::TcpStream::connect(to).await.unwrap();
                from.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut onward).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn the_environments_proxy_is_used_and_never_for_this_machine() {
    let ours = authority();
    let tls = acceptor(&ours, "id.example.com", (2020, 2120));
    let server = Server::start_as("https", "id.example.com", Some(tls)).await;
    let (address, mut asked) = proxy(server.address).await;
    let url = Some(Secret::new(format!("http://user:p%40ss@{address}")));
    let proxies = ProxyEnvironment {
        http: url.clone(),
        https: url,
        no: Some("other.example.com".into()),
    };
    let provider = Provider::new(trusting(&server, Some(&ours)), &proxies, clock()).unwrap();
    assert!(begin(&provider).await.is_ok());
    let head = asked.recv().await.unwrap();
    assert!(
        head.starts_with(&format!("CONNECT id.example.com:{} ", server.address.port())),
        "{head}"
    );
    assert!(head.contains("Proxy-Authorization: Basic dXNlcjpwQHNz"), "{head}");
    assert!(!format!("{proxies:?} {provider:?}").contains("p%40ss"));

    let here = Server::start_as("http", "op.localhost", None).await;
    let provider = Provider::new(settings(&here.origin), &proxies, clock()).unwrap();
    assert!(begin(&provider).await.is_ok());
    assert!(asked.try_recv().is_err());

    let socks = ProxyEnvironment {
        https: Some(Secret::new("socks5://127.0.0.1:1")),
        ..ProxyEnvironment::default()
    };
    let provider = Provider::new(trusting(&server, Some(&ours)), &socks, clock()).unwrap();
    assert!(
        begin(&provider)
            .await
            .unwrap_err()
            .to_string()
            .contains("not http or https")
    );
}
