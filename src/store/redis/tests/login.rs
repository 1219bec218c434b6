//! Who we are at the server: passwords that change, certificates, rights; and a server that is not ready.

use super::{CANARY, KEY, MINUTE, make_certificates, recovers, words_of_failure};
use crate::config::{SecretSource, TlsFiles};
use crate::store::Store;
use crate::store::testing::{RedisServer, becomes, free_port, settings};
use bytes::Bytes;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::TaskTracker;

const SESSION: Bytes = Bytes::from_static(b"x");

#[tokio::test]
async fn a_password_that_changes_while_connected_counts_for_the_next_connection() {
    let server = RedisServer::start_with(&["--requirepass", "first"]);
    let file = server.folder.path().join("password");
    std::fs::write(&file, "first").unwrap();
    let mut settings = settings(&format!("redis://127.0.0.1:{}", server.port));
    settings.password = Some(SecretSource::file(file.clone()));
    let store = Store::redis(&settings).unwrap();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    let as_admin = |password: &str, arguments: &[&str]| {
        server.cli(&[&["--no-auth-warning", "-a", password], arguments].concat())
    };
    assert_eq!(
        as_admin("first", &["CONFIG", "SET", "requirepass", "second"]),
        "OK"
    );
    std::fs::write(&file, "second").unwrap();
    // The connection that is open stays so.
    assert!(store.read(KEY).await.unwrap().is_some());
    as_admin("second", &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(
        store.read(KEY).await.unwrap().is_some(),
        "not even one request fails"
    );
}

#[tokio::test]
async fn user_password_and_database_may_stand_beside_the_url() {
    let server = RedisServer::start();
    let user = format!("ACL SETUSER app on >{CANARY} ~cloakroom:* +@all");
    assert_eq!(server.cli(&user.split(' ').collect::<Vec<_>>()), "OK");
    server.cli(&["ACL", "SETUSER", "default", "-@all", "+select", "+dbsize", "+acl"]);
    let mut settings = server.settings();
    settings.user = Some("app".into());
    settings.password = Some(SecretSource::plain(CANARY));
    settings.database = Some(5);
    let store = Store::redis(&settings).unwrap();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    assert_eq!(server.cli(&["-n", "5", "DBSIZE"]), "1");
    assert_eq!(server.cli(&["-n", "0", "DBSIZE"]), "0");
}

#[tokio::test]
async fn a_connection_that_the_server_cuts_costs_no_request() {
    let server = RedisServer::start();
    let store = server.store();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    for _ in 0..20 {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert!(store.read(KEY).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn fa_01_a_server_that_loads_its_data_is_waited_for() {
    let mut server = RedisServer::start();
    let store = server.store();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    let fill = "for i = 1, 300 do redis.call('SET', 'other:' .. i, string.rep('x', 200)) end";
    server.cli(&["EVAL", fill, "0"]);
    // It looks at connections after so many bytes, so none are saved.
    server.cli(&["CONFIG", "SET", "rdbcompression", "no"]);
    assert_eq!(server.cli(&["SAVE"]), "OK");
    server.kill();
    // Real, and slow: so many microseconds for each key.
    server.arguments.extend(
        [
            "--key-load-delay",
            "10000",
            "--loading-process-events-interval-bytes",
            "1024",
        ]
        .map(String::from),
    );
    server.start_again_loading();
    let mut loading = 0;
    let began = Instant::now();
    while let Err(error) = store.read(KEY).await {
        let words = error.to_string();
        loading += usize::from(words.contains("LOADING: it is still loading its data: wait"));
        assert!(began.elapsed() < Duration::from_secs(10), "{words}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // How often depends on how fast this machine connects.
    assert!(loading > 0, "it never said so");
    assert!(
        store.read(KEY).await.unwrap().is_some(),
        "nothing was taken for gone"
    );
}

#[tokio::test]
async fn se_07_a_user_who_may_not_say_how_long_a_list_lives_leaves_none_for_ever() {
    let server = RedisServer::start();
    let user = format!("ACL SETUSER app on >{CANARY} ~cloakroom:* +@all -pexpire");
    assert_eq!(server.cli(&user.split(' ').collect::<Vec<_>>()), "OK");
    let store = Store::redis(&settings(&format!(
        "redis://app:{CANARY}@127.0.0.1:{}",
        server.port
    )))
    .unwrap();
    let steps = store.check_online().await;
    let failed: Vec<_> = steps.iter().filter(|step| step.outcome.is_err()).collect();
    assert!(matches!(failed[..], [step] if step.tried == "list"), "{steps:?}");
    let why = failed[0].outcome.as_ref().unwrap_err();
    assert!(why.contains("NOPERM") && why.contains("+pexpire"), "{why}");
    assert_eq!(server.keys(), []);
}

/// A port that leads to this server, and forgets to say how long a value lives.
async fn forgets_times_to_live(server: &RedisServer) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, server) = (listener.local_addr().unwrap().port(), server.port);
    let connections = TaskTracker::new();
    connections.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let onward = tokio::net::TcpStream::connect(("127.0.0.1", server))
                    .await
                    .unwrap();
                let (mut from, mut back) = stream.into_split();
                let (mut answers, mut onward) = onward.into_split();
                let there = async {
                    let mut buffer = vec![0; 65536];
                    while let Ok(n @ 1..) = from.read(&mut buffer).await {
                        let mut piece = buffer[..n].to_vec();
                        let find = |in_what: &[u8], what: &[u8]| {
                            in_what.windows(what.len()).position(|window| window == what)
                        };
                        let said = b"$2\r\nPX\r\n$5\r\n10000\r\n";
                        if let Some(begin) = find(&piece, b"*5\r\n$3\r\nSET\r\n")
                            && let Some(end) = find(&piece, said)
                        {
                            piece.drain(end..end + said.len());
                            piece[begin + 1] = b'3';
                        }
                        if onward.write_all(&piece).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::join!(there, tokio::io::copy(&mut answers, &mut back))
                    .1
                    .ok();
            });
        }
    });
    port
}

/// The one step that fails, and what it says.
async fn only_failure(store: &Store) -> (String, String) {
    let steps = store.check_online().await;
    let mut failed = steps.iter().filter(|step| step.outcome.is_err());
    let step = failed
        .next()
        .unwrap_or_else(|| panic!("nothing fails: {steps:?}"));
    assert!(failed.next().is_none(), "{steps:?}");
    (step.tried.clone(), step.outcome.clone().unwrap_err())
}

#[tokio::test]
async fn se_07_the_online_check_finds_keys_that_live_for_ever() {
    let server = RedisServer::start();
    let port = forgets_times_to_live(&server).await;
    let store = Store::redis(&settings(&format!("redis://127.0.0.1:{port}"))).unwrap();
    let (tried, why) = only_failure(&store).await;
    assert_eq!(tried, "time to live");
    assert!(why.contains("lives for ever"), "{why}");
}

#[tokio::test]
async fn the_online_check_finds_a_replica_although_it_takes_writes() {
    let primary = RedisServer::start();
    let port = primary.port.to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port, "--replica-read-only", "no"]);
    becomes("a replica in step", || {
        replica
            .cli(&["INFO", "replication"])
            .contains("master_link_status:up")
    });
    let (tried, why) = only_failure(&replica.store()).await;
    assert_eq!(tried, "role");
    assert!(
        why.contains("replica-read-only") && why.contains("primary"),
        "{why}"
    );
    replica.cli(&["CONFIG", "SET", "replica-read-only", "yes"]);
    let (tried, why) = only_failure(&replica.store()).await;
    assert_eq!(tried, "write");
    assert!(why.contains("READONLY"), "{why}");
}

fn secured(folder: &Path, port: u16) -> RedisServer {
    let path = |name: &str| folder.join(name).display().to_string();
    let (port, cert, key, ca) = (
        port.to_string(),
        path("cert.pem"),
        path("key.pem"),
        path("ca.pem"),
    );
    let arguments = ["--tls-port", &port, "--tls-auth-clients", "yes"];
    let files = [
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
    ];
    RedisServer::start_with(&[&arguments[..], &files].concat())
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_is_shown_the_one_that_is_in_its_files_now() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(folder.path());
    make_certificates(other.path());
    let port = free_port();
    let server = secured(folder.path(), port);
    let used = tempfile::tempdir().unwrap();
    let put = |from: &Path| {
        for name in ["cert.pem", "key.pem", "ca.pem"] {
            let fresh = used.path().join("fresh");
            std::fs::copy(from.join(name), &fresh).unwrap();
            std::fs::rename(fresh, used.path().join(name)).unwrap();
        }
    };
    put(folder.path());
    let mut settings = settings(&format!("rediss://localhost:{port}"));
    settings.ca = Some(used.path().join("ca.pem"));
    let error = Store::redis(&settings)
        .unwrap()
        .ping()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("session.store.redis.client_cert"), "{error}");

    settings.client_cert = Some(TlsFiles {
        cert: used.path().join("cert.pem"),
        key: used.path().join("key.pem"),
    });
    let store = Store::redis(&settings).unwrap();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    // The authority changes on both sides, and so does all that it signed.
    drop(server);
    let _second = secured(other.path(), port);
    put(other.path());
    assert!(recovers(&store).await, "{:?}", words_of_failure(&store).await);

    settings.client_cert.as_mut().unwrap().key = folder.path().join("key.pem");
    let why = Store::redis(&settings).unwrap_err();
    assert!(why.contains("session.store.redis.client_cert"), "{why}");
}
