//! The provider's control door: its weather, and its log of every token call.

use crate::Millis;
use crate::support::wire::Wire;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;

/// One token call, as the provider saw it.
#[derive(Clone, Debug, Deserialize)]
pub struct Call {
    /// When it was there.
    pub at: Millis,
    /// The process that made it.
    pub by: Option<String>,
    /// The refresh token that it showed; none where it exchanged a code.
    pub presented: Option<String>,
    /// What befell it, if anything.
    pub luck: Option<String>,
    /// Whether the provider did its work: issued tokens, or refused.
    pub worked: bool,
    pub status: Option<u16>,
    pub refresh_token: Option<String>,
    pub access_token: Option<String>,
    /// Who signed in: a name of its own for each session.
    pub sub: Option<String>,
    /// When the tokens were issued.
    pub issued: Option<Millis>,
    /// When its answer had been handed on, or its connection had ended.
    pub ended: Option<Millis>,
    /// Whether the answer was handed on.
    pub delivered: bool,
}

impl Call {
    /// Whether it brought new tokens, delivered or not.
    pub fn renewed(&self) -> bool {
        self.worked && self.status == Some(200)
    }
}

/// Asks the door at this URL.
async fn ask(control: &str, method: &str, path: &str, body: &str) -> Vec<u8> {
    let host = control.strip_prefix("http://").unwrap();
    let mut wire = Wire::new(TcpStream::connect(host).await.unwrap());
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    wire.send(request.as_bytes()).await.unwrap();
    let head = wire.head().await.unwrap().unwrap();
    assert_eq!(head.status(), 200);
    wire.body(head.response_framing(method)).await.unwrap()
}

pub async fn weather(control: &str, weather: Value) {
    let wish = serde_json::json!({ "weather": weather }).to_string();
    ask(control, "POST", "/control", &wish).await;
}

pub async fn log(control: &str) -> Vec<Call> {
    let log = ask(control, "GET", "/control/log", "").await;
    serde_json::from_slice(&log).unwrap()
}
