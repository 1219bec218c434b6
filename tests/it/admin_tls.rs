//! The admin listener with TLS, and with clients of one authority alone: the listener itself, and the commands that ask it.

use crate::support::cloakroom::{Cloakroom, run, text};
use crate::support::config::Config;
use crate::support::tls::{Authority, Leaf};
use crate::support::{random, secrets, until};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A config whose admin listener has this pair, takes the clients of this authority (anybody's, if there is none), and
/// lists sessions for who has a token.
fn config(pair: &Leaf, client_ca: Option<&Path>) -> Config {
    let token = random(32);
    secrets::remember(&token);
    let config = Config::new("http://127.0.0.1:9", "a secret of nobody", "http://127.0.0.1:9")
        .set("server.admin_token", token)
        .set(
            "server.admin_tls",
            json!({ "cert": pair.cert.to_str().unwrap(), "key": pair.key.to_str().unwrap() }),
        );
    match client_ca {
        Some(file) => config.set("server.admin_tls.client_ca", file.to_str().unwrap()),
        None => config,
    }
}

/// Who asks: trusts this authority, and shows this.
fn client(
    server: &Authority,
    version: &'static SupportedProtocolVersion,
    shown: Option<&Leaf>,
) -> Arc<ClientConfig> {
    let mut config = server.client_of(&[version], &["http/1.1"]);
    if let Some(leaf) = shown {
        let chain = vec![CertificateDer::from_pem_file(&leaf.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&leaf.key).unwrap();
        let shown = CertifiedKey::from_der(chain, key, config.crypto_provider()).unwrap();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
    }
    Arc::new(config)
}

/// What `/healthz` says to this client, and how the handshake went; an error where there is no answer.
async fn ask(cloakroom: &Cloakroom, client: &Arc<ClientConfig>) -> std::io::Result<(String, HandshakeKind)> {
    let stream = TcpStream::connect(("127.0.0.1", cloakroom.admin)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut secured = TlsConnector::from(client.clone()).connect(name, stream).await?;
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    secured.write_all(request).await?;
    let mut answer = Vec::new();
    secured.read_to_end(&mut answer).await?;
    let kind = secured.get_ref().1.handshake_kind().unwrap();
    Ok((text(&answer), kind))
}

async fn is_let_in(cloakroom: &Cloakroom, client: &Arc<ClientConfig>) -> bool {
    match ask(cloakroom, client).await {
        Ok((answer, _)) => {
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok\n"),
                "{answer}"
            );
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn lm_10_the_admin_listener_takes_the_clients_of_its_authority_and_nobody_else() {
    let (server, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let config = config(&server.leaf("localhost"), Some(&clients.file()));
    let cloakroom = Cloakroom::start_unready(&config).await;
    let (known, stranger) = (clients.leaf("prometheus"), strangers.leaf("prometheus"));
    for version in VERSIONS {
        assert!(is_let_in(&cloakroom, &client(&server, version, Some(&known))).await);
        assert!(!is_let_in(&cloakroom, &client(&server, version, Some(&stranger))).await);
        assert!(!is_let_in(&cloakroom, &client(&server, version, None)).await);
        // Each connection is judged by itself: nothing of an earlier one is resumed.
        let again = client(&server, version, Some(&known));
        for _ in 0..3 {
            let (_, kind) = ask(&cloakroom, &again).await.unwrap();
            assert_eq!(kind, HandshakeKind::Full);
        }
    }
    // In clear nobody is let in either, and is told why.
    let reply = cloakroom.admin("/metrics").await;
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (400, "TLS is spoken here: use https instead of http\n")
    );
}

#[tokio::test]
async fn without_client_ca_the_admin_listener_speaks_tls_with_everybody() {
    let server = Authority::new();
    let cloakroom = Cloakroom::start_unready(&config(&server.leaf("localhost"), None)).await;
    for version in VERSIONS {
        assert!(is_let_in(&cloakroom, &client(&server, version, None)).await);
    }
}

#[tokio::test]
async fn lm_10_fa_07_the_clients_authority_is_read_again_and_a_broken_file_lets_nobody_in() {
    let (server, first, second) = (Authority::new(), Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("clients.pem");
    std::fs::copy(first.file(), &file).unwrap();
    let cloakroom = Cloakroom::start_unready(&config(&server.leaf("localhost"), Some(&file))).await;
    let [old, new] = [&first, &second].map(|authority| client(&server, &TLS13, Some(&authority.leaf("a"))));
    let nobody = client(&server, &TLS13, None);
    for broken in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&file, broken).unwrap();
        // Each look is at most a second away, and this is more than one.
        let end = Instant::now() + Duration::from_millis(1300);
        while Instant::now() < end {
            assert!(is_let_in(&cloakroom, &old).await, "{broken:?}");
            assert!(!is_let_in(&cloakroom, &new).await, "{broken:?}");
            assert!(!is_let_in(&cloakroom, &nobody).await, "{broken:?}");
        }
    }
    let log = cloakroom.log();
    assert!(
        log.contains("the clients' authority has changed and cannot be used"),
        "{log}"
    );
    std::fs::copy(second.file(), &file).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while !is_let_in(&cloakroom, &new).await {
        assert!(Instant::now() < end, "the new authority is never in use");
    }
    assert!(!is_let_in(&cloakroom, &old).await);
    until(5, "the change in the log", || {
        cloakroom
            .log()
            .contains("the clients' authority has changed and is in use")
    })
    .await;
}

/// Runs a command: its exit code and all that it says.
fn command(arguments: &[&str]) -> (Option<i32>, String) {
    let folder = TempDir::new().unwrap();
    let output = run(folder.path(), arguments, &[]);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code(), said)
}

#[tokio::test]
async fn the_commands_ask_the_configs_own_listener_by_what_the_config_says() {
    let authority = Authority::new();
    // For a name that nobody asks by: it is the config's very certificate that counts.
    let pair = authority.leaf("cloakroom.internal");
    let own = config(&pair, Some(&authority.file()));
    let folder = TempDir::new().unwrap();
    let file = own.write(folder.path());
    let file = file.to_str().unwrap();
    let cloakroom = Cloakroom::start_unready(&own).await;
    let list = ["sessions", "list", "--sub", "x", "--config", file];
    assert_eq!(command(&list), (Some(0), "There are no sessions.\n".to_owned()));
    assert_eq!(
        command(&["healthcheck", "--config", file]),
        (Some(0), "healthy\n".to_owned())
    );
    // It was ready before, or is soon.
    let ready = ["healthcheck", "--config", file, "--ready"];
    until(10, "readiness", || command(&ready).0 == Some(0)).await;

    // Another certificate, though of the same authority, is not the one that the config names.
    let other = authority.leaf("other.internal");
    let elsewhere = TempDir::new().unwrap();
    let paths = json!({ "cert": other.cert.to_str().unwrap(), "key": other.key.to_str().unwrap() });
    let misled = own.clone().set("server.admin_tls", paths).write(elsewhere.path());
    for arguments in [
        &[
            "sessions",
            "list",
            "--sub",
            "x",
            "--config",
            misled.to_str().unwrap(),
        ][..],
        &["healthcheck", "--config", misled.to_str().unwrap()],
    ] {
        let (code, said) = command(arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("is not the one in the config's `server.admin_tls.cert`"),
            "{said}"
        );
    }
    let said = command(&["healthcheck", "--url", "http://127.0.0.1:9/healthz", "--ready"]);
    assert!(said.0 == Some(2) && said.1.contains("--ready"), "{said:?}");
    drop(cloakroom);
    assert_eq!(command(&ready).0, Some(1));
}

#[tokio::test]
async fn the_commands_ask_any_listener_with_a_certificate_of_ones_own() {
    let (server, clients) = (Authority::new(), Authority::new());
    let own = config(&server.leaf("localhost"), Some(&clients.file()));
    let folder = TempDir::new().unwrap();
    let file = own.write(folder.path());
    let token = folder.path().join("token");
    std::fs::write(&token, own.value["server"]["admin_token"].as_str().unwrap()).unwrap();
    let cloakroom = Cloakroom::start_unready(&own).await;
    let client = clients.leaf("operator");
    let url = format!("https://localhost:{}", cloakroom.admin);
    let healthz = format!("{url}/healthz");
    let (ca, file) = (server.file(), file.to_str().unwrap());
    let trusting = ["--ca", ca.to_str().unwrap()];
    let shown = [
        "--cert",
        client.cert.to_str().unwrap(),
        "--key",
        client.key.to_str().unwrap(),
    ];
    let healthcheck = ["healthcheck", "--url", &healthz];
    let list = [
        "sessions",
        "list",
        "--sub",
        "x",
        "--url",
        &url,
        "--token-file",
        token.to_str().unwrap(),
    ];
    let of_config = ["sessions", "list", "--sub", "x", "--config", file];
    for (arguments, code, wanted) in [
        ([&healthcheck[..], &trusting, &shown].concat(), 0, "healthy"),
        (
            [&list[..], &trusting, &shown].concat(),
            0,
            "There are no sessions",
        ),
        ([&of_config[..], &shown].concat(), 0, "There are no sessions"),
        (
            [&["healthcheck", "--config", file][..], &shown].concat(),
            0,
            "healthy",
        ),
        // The config's own pair is not of the clients' authority.
        (of_config.to_vec(), 1, "--cert and --key name"),
        ([&healthcheck[..], &trusting].concat(), 1, "--cert and --key name"),
        ([&list[..], &trusting].concat(), 1, "--cert and --key name"),
        ([&healthcheck[..], &shown].concat(), 1, "--ca names"),
        ([&list[..], &trusting, &["--cert", file]].concat(), 2, "--key"),
        (
            [&healthcheck[..], &["--ca", "/nowhere/ca.pem"]].concat(),
            1,
            "/nowhere/ca.pem cannot be used",
        ),
        ([&healthcheck[..], &["--ca", file]].concat(), 1, "cannot be used"),
    ] {
        let (found, said) = command(&arguments);
        assert!(
            found == Some(code) && said.contains(wanted),
            "{arguments:?}: {found:?} {said}"
        );
    }
    // The wrong scheme, one way and the other.
    let clear = url.replace("https", "http");
    let (code, said) = command(&[
        "sessions", "list", "--sub", "x", "--config", file, "--url", &clear,
    ]);
    assert!(
        code == Some(1) && said.contains("use https instead of http"),
        "{said}"
    );
    let plain = Config::new("http://127.0.0.1:9", "a secret of nobody", "http://127.0.0.1:9");
    let plain = Cloakroom::start_unready(&plain).await;
    let url = format!("https://127.0.0.1:{}/healthz", plain.admin);
    let (code, said) = command(&[&["healthcheck", "--url", &url][..], &trusting].concat());
    assert!(code == Some(1) && said.contains("it speaks no TLS"), "{said}");
}

#[tokio::test]
async fn what_is_wrong_with_the_admin_listeners_files_is_named_at_start() {
    let (one, other) = (Authority::new(), Authority::new());
    let (leaf, foreign) = (one.leaf("localhost"), other.leaf("localhost"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let good = config(&leaf, Some(&one.file()));
    for (key, found, place, message) in [
        ("cert", path(&leaf.key), "cert", "holds no certificate"),
        ("key", path(&leaf.cert), "key", "holds no private key"),
        (
            "key",
            path(&foreign.key),
            "",
            "does not belong to the first certificate",
        ),
        (
            "client_ca",
            "/nowhere/ca.pem".to_owned(),
            "client_ca",
            "there is no such file",
        ),
        (
            "client_ca",
            path(&leaf.key),
            "client_ca",
            "holds no certificate; wanted: a PEM file of the authorities",
        ),
    ] {
        let folder = TempDir::new().unwrap();
        let file = good
            .clone()
            .set(&format!("server.admin_tls.{key}"), found)
            .write(folder.path());
        for name in ["check", "run"] {
            let (code, said) = command(&[name, "--config", file.to_str().unwrap()]);
            let place = format!(": server.admin_tls.{place}")
                .trim_end_matches('.')
                .to_owned()
                + ": ";
            assert!(
                code == Some(2) && said.contains(&place) && said.contains(message),
                "{name}: {said}"
            );
        }
    }
}
