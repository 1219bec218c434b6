//! gRPC through cloakroom, with a client and a server that nobody here wrote: over TLS on the browser's side, in clear text
//! to the upstream, with a session.

use crate::support::browser::SESSION;
use crate::support::rig::Rig;
use crate::support::tls::Authority;
use crate::support::within;
use crate::tls::{browser, with_tls};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc");
    assert!(
        folder.join("node_modules").is_dir(),
        "gRPC's packages are missing: npm ci --prefix tests/grpc"
    );
    folder
}

/// A running gRPC server; it ends when its standard input closes.
struct Server {
    port: u16,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new("node")
            .arg("server.mjs")
            .current_dir(folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut port).unwrap();
        Self {
            port: port.trim().parse().unwrap(),
            child,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _reaped = self.child.wait();
    }
}

/// What the client says came of its calls.
async fn calls(config: Value) -> Value {
    let client = tokio::task::spawn_blocking(move || {
        Command::new("node")
            .arg("client.mjs")
            .current_dir(folder())
            .env("GRPC_CLIENT", config.to_string())
            .output()
            .unwrap()
    });
    let output = within(60, "the client's calls", client).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

#[tokio::test]
async fn grpc_passes_with_the_sessions_token_its_trailers_and_its_deadlines() {
    let (authority, server) = (Authority::new(), Server::start());
    let rig = Rig::with(|config| {
        with_tls(config, &authority).route(json!({
            "path": "/echo.Echo",
            "upstream": format!("http://localhost:{}", server.port),
            "protocol": "h2c",
        }))
    })
    .await;
    let mut browser = browser(&rig.cloakroom, &authority).await;
    browser.login(&rig.rogue, "/").await;
    let found = calls(json!({
        "address": rig.cloakroom.address().to_string(),
        "authority": browser.host(),
        "ca": authority.file(),
        "cookie": format!("{SESSION}={}; other=1", browser.session().unwrap()),
    }))
    .await;

    let seen = &found["seen"];
    let bearer = seen["authorization"][0].as_str().unwrap();
    assert!(
        bearer.starts_with("Bearer ") && bearer != "Bearer made-up",
        "{seen}"
    );
    assert_eq!(seen["cookie"], json!(["other=1"]), "not the session's");
    assert_eq!(seen["own"], json!(["from the client"]));
    assert_eq!(seen["host"], format!("localhost:{}", server.port));
    let deadline = seen["deadline"].as_f64().expect("a deadline");
    assert!((1_000.0..=20_000.0).contains(&deadline), "{seen}");

    let trailer = json!(["from the server"]);
    assert_eq!(found["said"], json!({ "answer": "hello", "trailer": trailer }));
    assert_eq!(found["large"]["answer"], true);
    let listed = json!({ "messages": ["1", "2", "3", "4", "5"], "code": 0, "trailer": trailer });
    assert_eq!(found["listed"], listed);
    let talked = ["you said one", "you said two", "you said three"];
    assert_eq!(
        found["talked"],
        json!({ "messages": talked, "code": 0, "trailer": trailer })
    );
    // FAILED_PRECONDITION, DEADLINE_EXCEEDED, UNAUTHENTICATED.
    let failed = json!({ "code": 9, "details": "not today: ü", "trailer": trailer });
    assert_eq!(found["failed"], failed);
    assert_eq!(found["late"]["code"], 4, "{}", found["late"]);
    assert_eq!(found["cancelled"], true, "and the server was told");
    assert_eq!(found["anonymous"]["code"], 16, "{}", found["anonymous"]);
    let together = found["together"].as_array().unwrap().iter();
    let numbers: Vec<&Value> = together.map(|said| &said["answer"]).collect();
    let wanted: Vec<Value> = (0..50).map(|n| json!(n.to_string())).collect();
    assert_eq!(numbers, wanted.iter().collect::<Vec<_>>());
}
