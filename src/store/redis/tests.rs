//! How the Redis store fails, and how it comes back.

use crate::config::{RedisSettings, SecretSource};
use crate::store::testing::{RedisServer, settings};
use crate::store::{Kind, Replaced, Store, StoreKey};
use bytes::Bytes;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

mod login;
mod news;
mod topologies;

const KEY: StoreKey = StoreKey {
    kind: Kind::Session,
    hash: [7; 32],
};
const MINUTE: Duration = Duration::from_mins(1);
const CANARY: &str = "canary-password";

/// Asks until the store answers; true if that took less than 5 s.
async fn recovers(store: &Store) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        if store.read(KEY).await.is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// What one operation of each sort says when it fails.
async fn words_of_failure(store: &Store) -> Vec<String> {
    let mut words = vec![format!("{store:?}")];
    for outcome in [
        store.read(KEY).await.map(drop),
        store.create(KEY, Bytes::from_static(b"x"), MINUTE).await,
        store
            .replace(KEY, 1, Bytes::from_static(b"x"), MINUTE)
            .await
            .map(drop),
        store.delete(KEY).await.map(drop),
        store.claim(KEY, &[1; 16], MINUTE).await.map(drop),
        store.renew(KEY, &[1; 16], MINUTE).await.map(drop),
        store.release(KEY, &[1; 16]).await,
    ] {
        words.extend(outcome.err().map(|error| error.to_string()));
    }
    assert!(words.iter().all(|words| !words.contains(CANARY)), "{words:?}");
    words
}

/// A server that answers everything with one line.
async fn server_that_says(line: &'static [u8]) -> (RedisSettings, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    tokio_util::task::TaskTracker::new().spawn(async move {
        let connections = tokio_util::task::TaskTracker::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            connections.spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let _ = stream.write_all(line).await;
                }
            });
        }
    });
    (settings(&format!("redis://:{CANARY}@{address}")), accepted)
}

#[tokio::test]
async fn a_server_that_is_away_at_start_is_an_error_at_once_and_is_found_when_it_comes() {
    let mut server = RedisServer::start();
    server.kill();
    let store = server.store();
    let began = Instant::now();
    for _ in 0..100 {
        let error = store.read(KEY).await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    server.start_again();
    assert!(recovers(&store).await);
}

#[tokio::test]
async fn fa_01_a_stopped_server_is_an_error_within_3_s_and_is_found_when_it_goes_on() {
    let server = RedisServer::start();
    let store = Arc::new(server.store());
    store.create(KEY, Bytes::from_static(b"x"), MINUTE).await.unwrap();
    server.signal("STOP");
    for _ in 0..3 {
        let mut asking = JoinSet::new();
        for _ in 0..20 {
            let store = Arc::clone(&store);
            asking.spawn(async move {
                let began = Instant::now();
                assert!(store.read(KEY).await.is_err());
                assert!(
                    began.elapsed() < Duration::from_millis(2500),
                    "{:?}",
                    began.elapsed()
                );
            });
        }
        asking.join_all().await;
    }
    server.signal("CONT");
    assert!(recovers(&store).await);
    assert!(store.read(KEY).await.unwrap().is_some());
}

#[tokio::test]
async fn a_server_that_restarted_between_two_requests_costs_neither() {
    let mut server = RedisServer::start();
    let store = server.store();
    store.create(KEY, Bytes::from_static(b"x"), MINUTE).await.unwrap();
    assert_eq!(
        store
            .replace(KEY, 1, Bytes::from_static(b"y"), MINUTE)
            .await
            .unwrap(),
        Replaced::Done(2)
    );
    server.kill();
    server.start_again();
    assert_eq!(store.read(KEY).await.unwrap(), None);
    // The scripts are gone with the old server, and come back by themselves.
    assert_eq!(
        store
            .replace(KEY, 1, Bytes::from_static(b"y"), MINUTE)
            .await
            .unwrap(),
        Replaced::Gone
    );
}

#[tokio::test]
async fn many_requests_make_few_attempts_to_connect() {
    // It accepts and never answers: each attempt takes as long as one may.
    let (settings, accepted) = server_that_says(b"").await;
    let store = Arc::new(Store::redis(&settings).unwrap());
    let mut asking = JoinSet::new();
    for _ in 0..200 {
        let store = Arc::clone(&store);
        asking.spawn(async move { store.read(KEY).await.unwrap_err() });
    }
    asking.join_all().await;
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    // Requests that are given up before the attempt ends make no storm of attempts either.
    for _ in 0..200 {
        let _ = tokio::time::timeout(Duration::from_millis(2), store.read(KEY)).await;
    }
    assert!(accepted.load(Ordering::SeqCst) < 12, "{accepted:?}");
}

#[tokio::test]
async fn the_servers_words_are_not_passed_on_but_a_remedy_is() {
    for (line, wanted) in [
        (
            &b"-LOADING Redis is loading the dataset in memory\r\n"[..],
            "LOADING: it is still loading",
        ),
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH"),
        (b"-WRONGPASS canary-password\r\n", "password"),
        (
            b"-ERR unknown command 'AUTH', with args beginning with: 'canary-password'\r\n",
            "see",
        ),
        (b"-canary-password\r\n", "see"),
        (b"$3\r\nfoo\r\n", "see"),
        (b"?!\r\n", "see"),
    ] {
        let (settings, _) = server_that_says(line).await;
        let words = words_of_failure(&Store::redis(&settings).unwrap()).await;
        println!("{words:?}");
        assert!(words.len() > 7, "{words:?}");
        assert!(
            words[1..]
                .iter()
                .all(|w| w.contains(wanted) || w.contains("password")),
            "{wanted}: {words:?}"
        );
    }
}

#[tokio::test]
async fn fa_01_a_server_that_refuses_writes_is_an_error_with_a_remedy_and_not_a_miss() {
    let server = RedisServer::start();
    let store = server.store();
    store.create(KEY, Bytes::from_static(b"x"), MINUTE).await.unwrap();

    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let words = words_of_failure(&store).await;
    assert!(
        words.iter().any(|w| w.contains("OOM") && w.contains("maxmemory")),
        "{words:?}"
    );
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);

    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let words = words_of_failure(&store).await;
    assert!(
        words
            .iter()
            .filter(|w| w.contains("READONLY") && w.contains("primary"))
            .count()
            >= 3,
        "{words:?}"
    );
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    store.create(KEY, Bytes::from_static(b"x"), MINUTE).await.unwrap();
}

#[tokio::test]
async fn se_12_a_user_with_the_least_rights_suffices() {
    let server = RedisServer::start();
    let acl = format!(
        "ACL SETUSER app on >{CANARY} resetkeys ~cloakroom:* resetchannels -@all +get +set +del +hset +hgetall +hdel +hlen +pttl +pexpire +eval +evalsha +ping"
    );
    assert_eq!(server.cli(&acl.split(' ').collect::<Vec<_>>()), "OK");
    server.cli(&["ACL", "SETUSER", "default", "off"]);
    let store = Store::redis(&settings(&format!(
        "redis://app:{CANARY}@127.0.0.1:{}",
        server.port
    )))
    .unwrap();
    store.create(KEY, Bytes::from_static(b"x"), MINUTE).await.unwrap();
    assert_eq!(
        store
            .replace(KEY, 1, Bytes::from_static(b"y"), MINUTE)
            .await
            .unwrap(),
        Replaced::Done(2)
    );
    let lock = StoreKey {
        kind: Kind::RefreshLock,
        ..KEY
    };
    assert!(store.claim(lock, &[1; 16], MINUTE).await.unwrap());
    assert!(store.renew(lock, &[1; 16], MINUTE).await.unwrap());
    store.release(lock, &[1; 16]).await.unwrap();
    assert!(store.check_online().await.iter().all(|step| step.outcome.is_ok()));

    let mut foreign = settings(&format!("redis://app:{CANARY}@127.0.0.1:{}", server.port));
    foreign.key_prefix = "other:".into();
    let words = words_of_failure(&Store::redis(&foreign).unwrap()).await;
    assert!(
        words[1..]
            .iter()
            .all(|w| w.contains("NOPERM") && w.contains("+evalsha")),
        "{words:?}"
    );
    let refused = settings(&format!("redis://app:wrong-{CANARY}@127.0.0.1:{}", server.port));
    let words = words_of_failure(&Store::redis(&refused).unwrap()).await;
    assert!(
        words[1..]
            .iter()
            .all(|w| w.contains("refuses the user or password")),
        "{words:?}"
    );
}

#[tokio::test]
async fn a_rotated_password_file_is_read_at_the_next_connection() {
    let mut server = RedisServer::start_with(&["--requirepass", "first"]);
    let file = server.folder.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let mut settings = settings(&format!("redis://127.0.0.1:{}/3", server.port));
    settings.password = Some(SecretSource::file(file.clone()));
    let store = Store::redis(&settings).unwrap();
    store.create(KEY, Bytes::from_static(b"x"), MINUTE).await.unwrap();
    assert_eq!(
        server.cli(&["--no-auth-warning", "-a", "first", "-n", "3", "DBSIZE"]),
        "1"
    );

    server.kill();
    std::fs::write(&file, "second\n").unwrap();
    let (port, folder) = (server.port, tempfile::tempdir().unwrap());
    let _second = RedisServer::start_on(port, folder, &["--requirepass", "second"]).unwrap();
    assert!(recovers(&store).await);
}

/// A certificate for `localhost`, signed by an authority of its own: `ca.pem`, `cert.pem`, `key.pem`.
fn make_certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    std::fs::write(
        folder.join("names"),
        "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth",
    )
    .unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca-key.pem -out ca.pem -days 2 -subj /CN=test-authority"
    ));
    openssl(&format!(
        "req {key} -keyout key.pem -out request.pem -subj /CN=localhost"
    ));
    openssl(
        "x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile names -out cert.pem",
    );
}

#[tokio::test]
async fn tls_trusts_the_named_authority_and_checks_the_host_name() {
    let folder = tempfile::tempdir().unwrap();
    make_certificates(folder.path());
    let files = ["cert.pem", "key.pem", "ca.pem"].map(|name| folder.path().join(name).display().to_string());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = RedisServer::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &files[0],
        "--tls-key-file",
        &files[1],
        "--tls-ca-cert-file",
        &files[2],
    ]);
    assert_ne!(server.port, port);
    let mut with_ca = settings(&format!("rediss://localhost:{port}"));
    with_ca.ca = Some(folder.path().join("ca.pem"));
    Store::redis(&with_ca).unwrap().ping().await.unwrap();

    let mut wrong_host = with_ca.clone();
    wrong_host.url = Some(SecretSource::plain(&format!("rediss://127.0.0.1:{port}")));
    let error = Store::redis(&wrong_host)
        .unwrap()
        .ping()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("TLS") && error.contains("certificate"), "{error}");

    let unknown_authority = settings(&format!("rediss://localhost:{port}"));
    let error = Store::redis(&unknown_authority)
        .unwrap()
        .ping()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("TLS"), "{error}");

    let mut plain_to_tls = settings(&format!("redis://localhost:{port}"));
    plain_to_tls.ca = None;
    assert!(Store::redis(&plain_to_tls).unwrap().ping().await.is_err());
}

#[test]
fn settings_that_cannot_work_are_refused_without_showing_the_url() {
    for url in [
        "http://user:canary-password@redis",
        "redis://user:canary-password@redis:port",
        "rediss://user:canary-password@redis/#insecure",
        "redis://user:canary-password@redis/database",
        "canary-password",
        "",
    ] {
        let why = Store::redis(&settings(url)).unwrap_err();
        assert!(
            why.contains("session.store.redis.url") && !why.contains(CANARY),
            "{why}"
        );
    }
    let mut no_ca = settings("rediss://redis");
    no_ca.ca = Some("/nowhere/ca.pem".into());
    assert!(Store::redis(&no_ca).unwrap_err().contains("/nowhere/ca.pem"));
    let mut no_url = settings("");
    no_url.url = None;
    assert!(Store::redis(&no_url).is_err());
}
