//! Handshakes with OpenSSL's client, which nobody here wrote, and with rustls' where it has to count: which certificate is
//! shown, and how sessions are resumed.

use crate::support::rig::Rig;
use crate::support::system_clock::SystemClock;
use crate::support::tls::{Authority, Leaf};
use rustls::client::{ClientSessionMemoryCache, Resumption, Tls12Resumption};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

fn pair(leaf: &Leaf) -> Value {
    json!({ "cert": leaf.cert.to_str().unwrap(), "key": leaf.key.to_str().unwrap() })
}

/// A cloakroom with these pairs.
async fn rig(tls: Value) -> Rig {
    Rig::with(|config| {
        let url = config.public_url().replace("http://", "https://");
        config.set("public_url", url).set("server.tls", tls)
    })
    .await
}

/// What `openssl` says, at most ten seconds later; it has this to say itself.
fn openssl(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("timeout")
        .args(["10", "openssl"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended without listening.
    let _heard = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let [said, complained] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    format!("{said}\n{complained}")
}

/// One connection of OpenSSL's client, with one request on it.
fn s_client(rig: &Rig, arguments: &[&str]) -> String {
    let address = rig.cloakroom.address().to_string();
    let mut all = vec!["s_client", "-connect", &address, "-ign_eof"];
    all.extend(arguments);
    openssl(
        &all,
        "OPTIONS * HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n",
    )
}

/// An RSA pair, self-signed by OpenSSL.
fn rsa(folder: &Path, name: &str) -> Leaf {
    let leaf = Leaf {
        cert: folder.join("rsa.crt"),
        key: folder.join("rsa.key"),
    };
    let (subject, names) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
    let (key, cert) = (leaf.key.to_str().unwrap(), leaf.cert.to_str().unwrap());
    let said = openssl(
        &[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject, "-addext",
            &names, "-keyout", key, "-out", cert,
        ],
        "",
    );
    assert!(leaf.cert.exists(), "{said}");
    leaf
}

#[tokio::test]
async fn lm_10_openssl_is_shown_the_certificate_for_the_name_and_the_key_it_asks_for() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let ecdsa = authority.leaf("app.localhost");
    let wild = authority.leaf("*.wild.localhost");
    let rsa = rsa(folder.path(), "app.localhost");
    let rig = rig(json!([pair(&ecdsa), pair(&rsa), pair(&wild)])).await;
    let ca = authority.file();
    let ca = ca.to_str().unwrap();
    let checked = |name| {
        let arguments = ["-servername", name, "-CAfile", ca, "-verify_hostname", name];
        s_client(&rig, &[&arguments[..], &["-verify_return_error"]].concat())
    };
    for name in ["app.localhost", "any.wild.localhost"] {
        let said = checked(name);
        assert!(said.contains("HTTP/1.1 204"), "{name}: {said}");
    }
    for name in ["a.b.wild.localhost", "unknown.localhost"] {
        let said = checked(name);
        assert!(
            said.to_lowercase().contains("hostname mismatch"),
            "{name}: {said}"
        );
    }
    for version in ["-tls1_2", "-tls1_3"] {
        for (algorithms, kind) in [
            ("ECDSA+SHA256:rsa_pss_rsae_sha256", "ECDSA"),
            ("rsa_pss_rsae_sha256", "RSA-PSS"),
        ] {
            let said = s_client(
                &rig,
                &[version, "-sigalgs", algorithms, "-servername", "app.localhost"],
            );
            let signed = format!("Peer signature type: {kind}");
            assert!(
                said.contains(&signed) && said.contains("HTTP/1.1 204"),
                "{version} {algorithms}: {said}"
            );
        }
    }
    // The order of suites is ours, not the client's.
    for arguments in [
        [
            "-tls1_3",
            "-ciphersuites",
            "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384",
        ],
        [
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
        ],
    ] {
        let said = s_client(&rig, &arguments);
        let chosen = arguments[2].split(':').nth(1).unwrap();
        assert!(
            said.contains(&format!("Cipher is {chosen}")),
            "{arguments:?}: {said}"
        );
    }
    // Nothing that is no longer good enough is agreed on, whoever asks for it.
    for old in [
        ["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "AES256-GCM-SHA384:AES128-SHA:@SECLEVEL=0"],
        [
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES128-SHA256:@SECLEVEL=0",
        ],
    ] {
        let said = s_client(&rig, &old);
        assert!(
            said.contains("Cipher is (NONE)") && !said.contains("HTTP/1.1"),
            "{old:?}: {said}"
        );
        assert!(
            said.contains(":SSL alert number") || said.contains("alert"),
            "{old:?}: {said}"
        );
    }
}

#[tokio::test]
async fn lm_10_openssl_resumes_its_session_in_both_versions_with_and_without_tickets() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let rig = rig(pair(&authority.leaf("app.localhost"))).await;
    let session = folder.path().join("session");
    let session = session.to_str().unwrap();
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let named = ["-servername", "app.localhost", version];
        let said = s_client(&rig, &[&named[..], &["-sess_out", session]].concat());
        assert!(
            said.contains(&format!("New, {name}")) && said.contains("HTTP/1.1 204"),
            "{said}"
        );
        let said = s_client(&rig, &[&named[..], &["-sess_in", session]].concat());
        assert!(
            said.contains(&format!("Reused, {name}")) && said.contains("HTTP/1.1 204"),
            "{said}"
        );
        // Under another name it is another session.
        let said = s_client(
            &rig,
            &["-servername", "other.localhost", version, "-sess_in", session],
        );
        assert!(
            said.contains(&format!("New, {name}")) && said.contains("HTTP/1.1 204"),
            "{said}"
        );
    }
    for more in [&[][..], &["-no_ticket"]] {
        let said = s_client(&rig, &[&["-tls1_2", "-reconnect"], more].concat());
        assert_eq!(said.matches("Reused, TLSv1.2").count(), 5, "{said}");
    }
    // Another replica has other keys, so it shakes hands anew.
    let other = self::rig(pair(&authority.leaf("app.localhost"))).await;
    let said = s_client(
        &other,
        &["-servername", "app.localhost", "-tls1_2", "-sess_in", session],
    );
    assert!(
        said.contains("New, TLSv1.2") && said.contains("HTTP/1.1 204"),
        "{said}"
    );
}

/// A client that keeps its own sessions, in this way.
fn client(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    by: Tls12Resumption,
) -> TlsConnector {
    let mut config = authority.client_of(&[version], &["http/1.1"]);
    let sessions = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    config.resumption = sessions.tls12_resumption(by);
    TlsConnector::from(Arc::new(config))
}

/// Connects, asks something, so that tickets have come, and tells whether the session was resumed.
async fn is_resumed(rig: &Rig, client: &TlsConnector) -> bool {
    let name = ServerName::try_from("app.localhost").unwrap();
    let stream = TcpStream::connect(rig.cloakroom.address()).await.unwrap();
    let mut secured = client.connect(name, stream).await.unwrap();
    let request = b"OPTIONS * HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";
    secured.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    secured.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 204"));
    match secured.get_ref().1.handshake_kind() {
        Some(HandshakeKind::Resumed) => true,
        Some(HandshakeKind::Full) => false,
        kind => panic!("{kind:?}"),
    }
}

#[tokio::test]
async fn lm_10_what_is_kept_of_sessions_is_bounded_and_a_ticket_outlives_any_crowd() {
    let authority = Authority::new();
    let rig = rig(pair(&authority.leaf("app.localhost"))).await;
    let by_ticket =
        [&TLS13, &TLS12].map(|version| client(&authority, version, Tls12Resumption::SessionIdOrTickets));
    let by_id = client(&authority, &TLS12, Tls12Resumption::SessionIdOnly);
    for client in by_ticket.iter().chain([&by_id]) {
        assert!(!is_resumed(&rig, client).await);
        assert!(is_resumed(&rig, client).await);
    }
    for _ in 0..600 {
        assert!(!is_resumed(&rig, &client(&authority, &TLS12, Tls12Resumption::SessionIdOnly)).await);
    }
    // What the server had to remember for who takes no tickets, it has forgotten.
    assert!(!is_resumed(&rig, &by_id).await);
    for client in &by_ticket {
        assert!(is_resumed(&rig, client).await);
    }
}

#[tokio::test]
async fn lm_10_tickets_are_replaced_and_the_old_ones_end() {
    const HOUR: i64 = 3600;
    let (authority, clock) = (Authority::new(), SystemClock::new());
    let leaf = pair(&authority.leaf("app.localhost"));
    let rig = Rig::with(|config| {
        let url = config.public_url().replace("http://", "https://");
        config
            .clock(&clock)
            .set("public_url", url)
            .set("server.tls", leaf)
    })
    .await;
    for (version, begun) in [(&TLS13, 0), (&TLS12, 30 * HOUR)] {
        clock.set(begun);
        let new = || client(&authority, version, Tls12Resumption::SessionIdOrTickets);
        let [one, other] = [new(), new()];
        for client in [&one, &other] {
            assert!(!is_resumed(&rig, client).await);
        }
        clock.set(begun + 7 * HOUR);
        assert!(
            !is_resumed(&rig, &new()).await,
            "a stranger, for whom the key is replaced"
        );
        assert!(
            is_resumed(&rig, &one).await,
            "the old key opens for as long again"
        );
        clock.set(begun + 14 * HOUR);
        assert!(!is_resumed(&rig, &new()).await);
        assert!(!is_resumed(&rig, &other).await, "and then no more");
        assert!(
            is_resumed(&rig, &one).await,
            "who came in between has a newer one"
        );
    }
}
