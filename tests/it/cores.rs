//! Each connection has its place on one core, and no core has many more of them than another.

use crate::support::cloakroom::text;
use crate::support::rig::Rig;
use crate::support::until;
use std::collections::BTreeMap;
use std::fs;
use std::thread::available_parallelism;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Of each thing that a process waits on with epoll: how many sockets it watches.
fn watched(pid: u32) -> Vec<usize> {
    let is_socket = |number: &str| {
        let target = fs::read_link(format!("/proc/{pid}/fd/{number}"));
        target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    // Two descriptors of one epoll instance name the same targets.
    let mut instances = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let about = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let targets: Vec<&str> = about
            .lines()
            .filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next())
            .filter(|number| is_socket(number))
            .collect();
        let key = about
            .lines()
            .filter(|line| line.starts_with("tfd:"))
            .collect::<String>();
        if !key.is_empty() {
            instances.insert(key, targets.len());
        }
    }
    let mut counts: Vec<usize> = instances.into_values().collect();
    counts.sort_unstable();
    counts
}

/// Asks on a new connection, and reads its answer up to the status.
async fn ask(rig: &Rig, what: &str, status: &str) -> TcpStream {
    let mut browser = TcpStream::connect(rig.cloakroom.address()).await.unwrap();
    let head = format!("{what} HTTP/1.1\r\nHost: app.example\r\n\r\n");
    browser.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    browser.read_exact(&mut answer).await.unwrap();
    assert_eq!(text(&answer), format!("HTTP/1.1 {status}"));
    browser
}

#[tokio::test]
async fn connections_are_spread_evenly_over_the_cores_and_leave_their_places_free() {
    let rig = Rig::start().await;
    let (id, cores) = (rig.cloakroom.id(), available_parallelism().unwrap().get());
    let before: usize = watched(id).iter().sum();
    for _again in 0..2 {
        let mut open = Vec::new();
        for _ in 0..40 * cores {
            open.push(ask(&rig, "OPTIONS *", "204").await);
        }
        let counts = watched(id);
        assert!(counts.len() >= cores, "{counts:?} on {cores} cores");
        let (least, most) = (counts[counts.len() - cores], counts[counts.len() - 1]);
        // Beside them the first core has the listeners, and whatever was open before.
        assert!(least >= 40 && most <= 40 + before, "{counts:?} on {cores} cores");
        drop(open);
        until(10, "their ends", || watched(id).iter().sum::<usize>() <= before).await;
    }
}

/// An upstream may take few connections: one that lies idle on another core is better than a new one.
#[tokio::test]
async fn a_connection_to_an_upstream_that_lies_idle_serves_every_core() {
    let rig = Rig::start().await;
    let before = rig.upstream.connections();
    let mut browsers = Vec::new();
    // The first two connections have their places on different cores, where there are two.
    for _ in 0..4 {
        let mut browser = ask(&rig, "GET /api/public/x", "200").await;
        // Until the body has come the connection behind it is in use.
        let mut rest = [0; 4096];
        let mut read = Vec::new();
        while !read.windows(4).any(|end| end == b"\r\n\r\n") || !read.ends_with(b"}") {
            let count = browser.read(&mut rest).await.unwrap();
            assert!(count > 0);
            read.extend_from_slice(&rest[..count]);
        }
        browsers.push(browser);
    }
    assert_eq!(rig.upstream.connections() - before, 1);
}
