//! How a refusal looks, wherever it is met.

use super::browser::{Browser, Reply};
use super::cloakroom::Cloakroom;
use std::time::{Duration, Instant};

/// Panics unless the session is refused within a second, however it was served before (contract 4.9).
pub async fn is_refused_at(browser: &Browser, cloakroom: &Cloakroom) {
    let mut there = browser.at(cloakroom.port);
    let start = Instant::now();
    while there.clone().fetch("GET", "/api/x").await.status == 200 {
        assert!(start.elapsed() < Duration::from_secs(1), "4.9");
    }
    assert_eq!(there.fetch("GET", "/api/x").await.status, 401);
}

/// Panics unless it is this problem (contract 4.14).
pub fn is_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (status, code),
        "{}",
        reply.text()
    );
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert!(reply.header("cache-control").unwrap().contains("no-store"));
    assert_eq!(reply.json()["status"], status);
    assert_eq!(reply.json()["request_id"].as_str().unwrap().len(), 32);
}
