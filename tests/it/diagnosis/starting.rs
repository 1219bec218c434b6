//! Starting, becoming ready, being asked how it is, and stopping.

use super::check;
use super::page::Entry;
use crate::support::browser::{Request, raw};
use crate::support::cloakroom::{Cloakroom, run, text};
use crate::support::redis::Redis;
use crate::support::rig::Rig;
use crate::support::upstream::{After, Play};
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;

#[tokio::test]
async fn a_config_with_a_mistake_and_a_port_that_is_taken() {
    let mut entry = Entry::of("It does not start");
    let rig = Rig::start().await;
    let (code, said) = check(&rig.config.replica().set("session.idle_timeout", "soon"), &[]);
    assert_eq!(code, 2);
    entry.check(&said);
    let folder = TempDir::new().unwrap();
    let file = rig.config.write(folder.path());
    let output = run(folder.path(), &["run", "--config", file.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(1));
    entry.log(&text(&output.stderr));
    entry.settle_at_once();
}

#[tokio::test]
async fn a_store_that_has_not_answered_yet() {
    let mut entry = Entry::of("It never becomes ready");
    let mut redis = Redis::start().await;
    redis.kill();
    let config = crate::support::config::Config::new(
        "http://127.0.0.1:9",
        &crate::support::secrets::canary("client-secret"),
        "http://127.0.0.1:9",
    );
    let cloakroom = Cloakroom::start_unready(&config.redis(&redis.url)).await;
    let reply = cloakroom.admin("/readyz").await;
    assert_eq!(reply.status, 503);
    entry.answer(&reply);
    entry.settle(&cloakroom).await;
}

#[tokio::test]
async fn more_connections_than_files_may_be_open() {
    let entry = Entry::of("New connections hang");
    let rig = Rig::start().await;
    let cloakroom = Cloakroom::start_with_open_files(100, 200, &rig.config.replica()).await;
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(tokio::net::TcpStream::connect(cloakroom.address()).await.unwrap());
    }
    entry.settle(&cloakroom).await;
    drop(open);
    assert_eq!(
        cloakroom.browser().fetch("GET", "/api/public/x").await.status,
        200
    );
}

#[tokio::test]
async fn a_probe_that_asks_by_name() {
    let mut entry = Entry::of("The admin listener answers 421");
    let rig = Rig::start().await;
    let admin = SocketAddr::from(([127, 0, 0, 1], rig.cloakroom.admin));
    let ask = |host: &str| format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let reply = raw(admin, ask("cloakroom.default.svc:9090").as_bytes())
        .await
        .0
        .unwrap();
    assert_eq!(reply.status, 421);
    entry.answer(&reply);
    assert_eq!(
        raw(admin, ask("localhost").as_bytes()).await.0.unwrap().status,
        200
    );
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_stop_that_is_too_short() {
    let mut entry = Entry::of("Requests are cut at a deploy");
    let rig = Rig::with(|config| config.set("server.drain_timeout", "300ms")).await;
    entry.check(&check(&rig.config.replica().set("server.drain_timeout", "5m"), &[]).1);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl".to_vec();
    rig.upstream.on(
        "/api/slow",
        Play::Pieces(vec![(Duration::ZERO, head)], After::Hang),
    );
    let mut browser = rig.signed_in().await;
    let (_, _wire) = browser.open(&Request::fetch("GET", "/api/slow")).await;
    let Rig {
        mut cloakroom,
        upstream,
        rogue,
        ..
    } = rig;
    cloakroom.signal("TERM");
    assert_eq!(cloakroom.ended().await, 0);
    entry.settle(&cloakroom).await;
    drop((cloakroom, upstream, rogue));
}
