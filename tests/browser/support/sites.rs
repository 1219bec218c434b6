//! Somebody else's web server: it answers under any name, so one serves another site and a sibling of the app's.

use super::http::{Server, answer};

const ATTACK: &str = include_str!("../pages/attack.html");

/// Pages of others: `/attack?target=ORIGIN`, and `/link?to=URL` and `/form?to=URL` with something to click.
pub struct Elsewhere(Server);

impl Elsewhere {
    pub async fn start() -> Self {
        Self(Server::start(|_request| async { answer("text/html; charset=utf-8", ATTACK) }).await)
    }

    /// An address under this name.
    pub fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.0.address.port())
    }
}
