//! TLS on the listener: what is agreed on, what is refused, and certificates that change under way.

use super::*;
use crate::config::TlsFiles;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use std::path::Path;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A pair in PEM, fresh.
pub(super) fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["app.example".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

pub(super) fn files(folder: &Path, (cert, key): &(String, String)) -> TlsFiles {
    let files = TlsFiles {
        cert: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    };
    std::fs::write(&files.cert, cert).unwrap();
    std::fs::write(&files.key, key).unwrap();
    files
}

pub(super) struct Secured {
    pub(super) rig: Rig,
    folder: TempDir,
}

pub(super) async fn secured(pair: &(String, String)) -> Secured {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::watching(&[files(folder.path(), pair)]).unwrap();
    let rig = rig_with(Some(tls), |bounds| bounds.header_timeout = Duration::from_secs(2)).await;
    Secured { rig, folder }
}

/// Takes any certificate whose key it knows how to check: the tests look at it themselves.
#[derive(Debug)]
struct Anyone(Vec<SignatureScheme>);

impl Anyone {
    fn who_checks_all() -> Self {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Self(provider.signature_verification_algorithms.supported_schemes())
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// A fresh client's connection; a resumed session would show no certificate.
pub(super) async fn connect(
    rig: &Rig,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(rig, Anyone::who_checks_all(), versions, alpn, "app.example").await
}

/// The same, of a client that asks for this name.
async fn connect_as(
    rig: &Rig,
    who: Anyone,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(who))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = rig.connect().await;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

impl Secured {
    pub(super) async fn connect(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        connect(&self.rig, versions, alpn).await
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> Vec<u8> {
        let stream = self.connect(rustls::ALL_VERSIONS, &[]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

fn der(pair: &(String, String)) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pair.0.as_bytes())
        .unwrap()
        .to_vec()
}

async fn get(stream: &mut TlsStream<TcpStream>) -> String {
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    while !text.ends_with("\r\n\r\nhello") {
        text.push(char::from(
            timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap(),
        ));
    }
    text
}

#[tokio::test]
async fn lm_10_tls_1_2_and_1_3_are_spoken_and_alpn_chooses_the_protocol() {
    let secured = secured(&pair()).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (offered, agreed) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1", "h2"], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&[], None),
        ] {
            let mut stream = secured.connect(&[version], offered).await.unwrap();
            let found = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            assert_eq!(found.as_deref(), agreed.map(str::as_bytes), "{offered:?}");
            if agreed == Some("h2") {
                let (mut sender, connection) = hyper::client::conn::http2::handshake(
                    hyper_util::rt::TokioExecutor::new(),
                    hyper_util::rt::TokioIo::new(stream),
                )
                .await
                .unwrap();
                secured.rig.tasks.spawn(connection);
                let request = Request::get("https://app.example/x")
                    .body(Full::<Bytes>::default())
                    .unwrap();
                assert_eq!(
                    sender.send_request(request).await.unwrap().status(),
                    StatusCode::OK
                );
            } else {
                assert!(get(&mut stream).await.starts_with("HTTP/1.1 200"));
            }
        }
    }
    // RFC 7301 §3.2: nothing in common is an alert, not a guess.
    assert!(secured.connect(rustls::ALL_VERSIONS, &["spdy/3"]).await.is_err());
}

#[tokio::test]
async fn lm_10_older_tls_and_plain_http_get_no_answer_from_the_service() {
    let secured = secured(&pair()).await;
    // A ClientHello of TLS 1.1 with one old suite, by hand: no library here would send it.
    let mut hello = b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x02".to_vec();
    hello.extend([7; 32]);
    hello.extend(b"\0\0\x02\0\x2f\x01\0");
    let mut stream = secured.rig.connect().await;
    stream.write_all(&hello).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(!answer.contains("HTTP"), "{answer}");
    // Plain HTTP is told so, and the connection ends.
    let answer = secured
        .rig
        .exchange("GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.ends_with("PlainHttp true"),
        "{answer}"
    );
    let mut browser = super::http2::browser(&secured.rig).await;
    let (status, _, body) = browser.send("/x", &[]).await;
    assert_eq!((status.as_u16(), body.as_str()), (400, "PlainHttp true"));
    assert!(secured.rig.asked().is_empty());
}

#[tokio::test]
async fn lm_01_a_handshake_that_does_not_go_on_is_not_waited_for() {
    let secured = secured(&pair()).await;
    for bytes in [&b""[..], b"\x16\x03\x01\x02\0"] {
        let began = Instant::now();
        let mut stream = secured.rig.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_all(&mut stream).await;
        assert!(
            began.elapsed() >= Duration::from_millis(1900),
            "the time is the configured one"
        );
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_connections_under_way_go_on() {
    let (first, second) = (pair(), pair());
    let secured = secured(&first).await;
    let mut old = secured
        .connect(rustls::ALL_VERSIONS, &["http/1.1"])
        .await
        .unwrap();
    get(&mut old).await;
    assert_eq!(secured.shown().await, der(&first));
    files(secured.folder.path(), &second);
    let deadline = Instant::now() + PATIENCE;
    while secured.shown().await != der(&second) {
        assert!(Instant::now() < deadline, "the new certificate is never shown");
        get(&mut old).await;
    }
    get(&mut old).await;
    assert_eq!(
        old.get_ref().1.peer_certificates().unwrap()[0].to_vec(),
        der(&first)
    );
}

#[tokio::test]
async fn fa_07_a_pair_that_does_not_fit_never_takes_the_last_good_one_away() {
    let (first, second) = (pair(), pair());
    let secured = secured(&first).await;
    let cert = secured.folder.path().join("tls.crt");
    for broken in [
        second.0.as_str(),
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&cert, broken).unwrap();
        // Each look is at most a second away, and this is more than one.
        let until = Instant::now() + Duration::from_millis(1300);
        while Instant::now() < until {
            assert_eq!(secured.shown().await, der(&first), "{broken:?}");
        }
    }
    // The other half arrives, and both are in use.
    files(secured.folder.path(), &second);
    let deadline = Instant::now() + PATIENCE;
    while secured.shown().await != der(&second) {
        assert!(Instant::now() < deadline, "the new pair is never shown");
    }
}

#[test]
fn files_that_make_no_certificate_are_named_with_what_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (good, other) = (pair(), pair());
    for (cert, key, message) in [
        (good.0.as_str(), good.1.as_str(), ""),
        (&good.0, &other.1, "does not belong to the first certificate"),
        ("", &good.1, "tls.crt is empty"),
        ("nonsense", &good.1, "tls.crt holds no certificate"),
        (&good.1, &good.1, "tls.crt holds no certificate"),
        (&good.0, &good.0, "tls.key holds no private key"),
        (
            &good.0,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "not encrypted",
        ),
    ] {
        let files = files(folder.path(), &(cert.to_owned(), key.to_owned()));
        let outcome = Tls::watching(std::slice::from_ref(&files));
        match outcome {
            Ok(_) => assert_eq!(message, ""),
            Err(why) => {
                assert!(
                    !message.is_empty() && why.contains(message) && why.starts_with("server.tls: "),
                    "{why}"
                );
                assert!(!why.contains("BEGIN"), "{why}");
            }
        }
    }
    let nowhere = TlsFiles {
        cert: folder.path().join("none"),
        key: folder.path().join("none"),
    };
    let why = Tls::watching(&[nowhere]).unwrap_err();
    assert!(why.contains("there is no such file"), "{why}");
}

/// A pair in PEM for these names.
fn pair_for(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A pair in PEM with an RSA key.
fn rsa_pair_for(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A listener with several pairs, each in a folder of its own.
async fn with_several(pairs: &[(String, String)]) -> (Rig, Vec<TempDir>) {
    let folders: Vec<TempDir> = pairs.iter().map(|_| tempfile::tempdir().unwrap()).collect();
    let each = folders.iter().zip(pairs);
    let all: Vec<TlsFiles> = each.map(|(folder, pair)| files(folder.path(), pair)).collect();
    let rig = rig_with(Some(Tls::watching(&all).unwrap()), |_| {}).await;
    (rig, folders)
}

/// Which of the pairs somebody is shown who asks for this name; `None`: the handshake fails.
async fn choice(rig: &Rig, pairs: &[(String, String)], who: Anyone, name: &str) -> Option<usize> {
    let stream = connect_as(rig, who, rustls::ALL_VERSIONS, &[], name).await.ok()?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    pairs.iter().position(|pair| der(pair) == shown)
}

#[tokio::test]
async fn lm_10_of_several_certificates_the_first_that_holds_the_name_is_shown() {
    let pairs = [
        pair_for(&["app.example"]),
        pair_for(&["*.wild.example", "wild.example"]),
        pair_for(&["one.wild.example", "127.0.0.1"]),
        pair_for(&["late.example"]),
    ];
    let (rig, _folders) = with_several(&pairs).await;
    for (name, wanted) in [
        ("app.example", 0),
        ("late.example", 3),
        ("LATE.example", 3),
        ("wild.example", 1),
        ("any.wild.example", 1),
        // Both hold it: the order in the config decides.
        ("one.wild.example", 1),
        // A `*` is one whole label.
        ("a.b.wild.example", 0),
        ("unknown.example", 0),
        ("example", 0),
        // Who asks for an address names nothing, and is shown the certificate for the address that was reached, also where
        // it is not the one that was asked for.
        ("127.0.0.1", 2),
        ("10.0.0.7", 2),
    ] {
        let found = choice(&rig, &pairs, Anyone::who_checks_all(), name).await;
        assert_eq!(found, Some(wanted), "{name}");
    }
    // No certificate for the address: the first.
    let (rig, _folders) = with_several(&pairs[..2]).await;
    let found = choice(&rig, &pairs, Anyone::who_checks_all(), "127.0.0.1").await;
    assert_eq!(found, Some(0));
}

#[tokio::test]
async fn lm_10_a_certificate_is_shown_to_those_alone_who_can_check_its_key() {
    use SignatureScheme as S;
    let pairs = [
        pair_for(&["app.example"]),
        rsa_pair_for("app.example"),
        rsa_pair_for("old.example"),
    ];
    let (rig, _folders) = with_several(&pairs).await;
    let rsa = || Anyone(vec![S::RSA_PSS_SHA256, S::RSA_PKCS1_SHA256]);
    let ecdsa = || Anyone(vec![S::ECDSA_NISTP256_SHA256]);
    for (who, name, wanted) in [
        (Anyone::who_checks_all(), "app.example", Some(0)),
        (ecdsa(), "app.example", Some(0)),
        (rsa(), "app.example", Some(1)),
        (rsa(), "old.example", Some(2)),
        (rsa(), "unknown.example", Some(1)),
        // Another name's certificate would be worth nothing to it.
        (ecdsa(), "old.example", None),
    ] {
        let schemes = format!("{who:?}");
        assert_eq!(choice(&rig, &pairs, who, name).await, wanted, "{name} {schemes}");
    }
}

#[tokio::test]
async fn lm_10_fa_07_each_of_several_pairs_is_read_again_by_itself() {
    let pairs = [pair_for(&["one.example"]), pair_for(&["two.example"])];
    let (fresh, broken) = (pair_for(&["one.example"]), pair_for(&["two.example"]));
    let (rig, folders) = with_several(&pairs).await;
    // The second one's certificate no longer fits its key when the first is renewed.
    std::fs::write(folders[1].path().join("tls.crt"), &broken.0).unwrap();
    files(folders[0].path(), &fresh);
    let known = [pairs[0].clone(), pairs[1].clone(), fresh, broken.clone()];
    let shown = async |name| {
        choice(&rig, &known, Anyone::who_checks_all(), name)
            .await
            .unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    while shown("one.example").await != 2 {
        assert!(Instant::now() < deadline, "the new certificate is never shown");
        assert_eq!(shown("two.example").await, 1);
    }
    assert_eq!(shown("two.example").await, 1);
    // Its key comes.
    std::fs::write(folders[1].path().join("tls.key"), &broken.1).unwrap();
    while shown("two.example").await != 3 {
        assert!(Instant::now() < deadline, "the second pair is never shown");
    }
    assert_eq!(shown("one.example").await, 2);
}

#[test]
fn of_several_pairs_the_faulty_one_is_named() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pairs = [
        files(good.path(), &pair()),
        files(bad.path(), &(pair().0, pair().1)),
    ];
    let why = Tls::watching(&pairs).unwrap_err();
    assert!(why.starts_with("server.tls[1]: the key in "), "{why}");
}
