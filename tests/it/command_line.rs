//! The commands that end by themselves (contract §1, §2).

use crate::support::cloakroom::{Cloakroom, run, text};
use crate::support::config::{Config, key};
use crate::support::rig::Rig;
use crate::support::secrets::canary;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn usual() -> Config {
    Config::new(
        "http://127.0.0.1:9",
        &canary("client-secret"),
        "http://127.0.0.1:9",
    )
}

/// Writes a config and checks it: the exit code and all that was said.
fn check(yaml: &str, environment: &[(&str, &str)]) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("c.yaml"), yaml).unwrap();
    let output = run(folder.path(), &["check", "--config", "c.yaml"], environment);
    (
        output.status.code().unwrap_or(-1),
        format!("{}{}", text(&output.stdout), text(&output.stderr)),
    )
}

fn check_value(config: &Config) -> (i32, String) {
    check(&serde_json::to_string_pretty(&config.value).unwrap(), &[])
}

#[test]
fn a_good_config_is_0_and_says_little() {
    let (code, said) = check_value(&usual());
    assert_eq!(code, 0, "{said}");
}

#[test]
fn ob_05_check_shows_every_mistake_at_once_with_its_place() {
    let yaml = "public_url: https://app.example.com\n\
                providrs: {}\n\
                providers:\n\
                \x20 main:\n\
                \x20   issuer: https://id.example.com\n\
                \x20   client_id: app\n\
                \x20   client_secret: x\n\
                \x20   scope: [openid]\n\
                session:\n\
                \x20 idle_timeout: 30 minutes\n\
                \x20 cookie: { same_site: sometimes }\n\
                routes:\n\
                \x20 - path: /api/\n\
                \x20   upstream: http://user:pw@orders:8080\n\
                \x20 - path: /bff/x\n\
                \x20   upstream: http://orders:8080\n\
                \x20   body_limit: many\n";
    let (code, said) = check(yaml, &[]);
    assert_eq!(code, 2);
    for wanted in [
        "c.yaml:2:",
        "providrs",
        "providers",
        "c.yaml:8:",
        "scopes",
        "c.yaml:10:",
        "session.idle_timeout",
        "c.yaml:11:",
        "session.cookie.same_site",
        "c.yaml:13:",
        "routes[0].path",
        "c.yaml:14:",
        "routes[0].upstream",
        "c.yaml:15:",
        "routes[1].path",
        "c.yaml:17:",
        "routes[1].body_limit",
    ] {
        assert!(said.contains(wanted), "{wanted} is missing in:\n{said}");
    }
    assert!(!said.contains("user:pw"), "a secret: {said}");
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("cloakroom.yaml"), yaml).unwrap();
    assert_eq!(
        run(folder.path(), &["run"], &[]).status.code(),
        Some(2),
        "run refuses it as well"
    );
}

#[test]
fn ob_05_dangerous_configs_are_refused_and_the_key_is_named() {
    let short = "c2hvcnQ".to_owned();
    let doubled = key();
    let redis = json!({ "redis": { "url": "redis://127.0.0.1:1/0" } });
    let with = |path: &str, value: Value| usual().set(path, value);
    let route = |route: Value| usual().route(route);
    let cases: Vec<(&str, &str, Config)> = vec![
        (
            "http off loopback",
            "public_url",
            with("public_url", json!("http://app.example.com")),
        ),
        (
            "a path in it",
            "public_url",
            with("public_url", json!("https://app.example.com/x")),
        ),
        (
            "an http issuer off loopback",
            "issuer",
            with("providers.main.issuer", json!("http://id.example.com")),
        ),
        ("no providers", "providers", with("providers", json!({}))),
        (
            "a provider's name",
            "providers",
            with(
                "providers",
                json!({ "Main-1": usual().value["providers"]["main"] }),
            ),
        ),
        (
            "a redirect_path elsewhere",
            "redirect_path",
            with("providers.main.redirect_path", json!("/elsewhere")),
        ),
        (
            "Redis without keys",
            "session.keys",
            with("session.store", redis.clone()),
        ),
        (
            "a short key",
            "session.keys",
            with("session.keys", json!([short])),
        ),
        (
            "no base64url",
            "session.keys",
            with("session.keys", json!(["!".repeat(43)])),
        ),
        (
            "doubled keys",
            "session.keys",
            with("session.keys", json!([doubled, doubled])),
        ),
        (
            "no prefix on the cookie",
            "session.cookie.name",
            with("session.cookie.name", json!("session")),
        ),
        (
            "an unknown store",
            "session.store",
            with("session.store", json!({ "files": {} })),
        ),
        (
            "two stores",
            "session.store",
            with(
                "session.store",
                json!({ "memory": {}, "redis": { "url": "redis://x" } }),
            ),
        ),
        (
            "a duration without a unit",
            "session.idle_timeout",
            with("session.idle_timeout", json!(30)),
        ),
        (
            "a route at the prefix",
            "routes",
            route(json!({ "path": "/bff", "upstream": "http://x:1" })),
        ),
        (
            "a route under the prefix",
            "routes",
            route(json!({ "path": "/bff/api", "upstream": "http://x:1" })),
        ),
        (
            "a route in another case",
            "routes",
            route(json!({ "path": "/%62ff", "upstream": "http://x:1" })),
        ),
        (
            "a trailing slash",
            "routes",
            route(json!({ "path": "/x/", "upstream": "http://x:1" })),
        ),
        (
            "a path twice",
            "routes",
            route(json!({ "path": "/api", "upstream": "http://x:1" })),
        ),
        (
            "dot segments",
            "routes",
            route(json!({ "path": "/x/../y", "upstream": "http://x:1" })),
        ),
        (
            "credentials in an upstream",
            "upstream",
            route(json!({ "path": "/x", "upstream": "http://u:p@x:1" })),
        ),
        (
            "an upstream with a path",
            "upstream",
            route(json!({ "path": "/x", "upstream": "ftp://x:1" })),
        ),
        (
            "pass with auth required",
            "authorization",
            route(json!({ "path": "/x", "upstream": "http://x:1", "authorization": "pass" })),
        ),
        (
            "upstream and static",
            "routes",
            route(json!({ "path": "/x", "upstream": "http://x:1", "static": { "root": "." } })),
        ),
        (
            "forward_auth without trusted proxies",
            "forward_auth",
            with("server.forward_auth", json!("127.0.0.1:1")),
        ),
        (
            "oa_01: another response type",
            "response_type",
            with("providers.main.response_type", json!("token")),
        ),
        (
            "az_01: PKCE off",
            "pkce",
            with("providers.main.pkce", json!("off")),
        ),
    ];
    for (name, named, config) in cases {
        let (code, said) = check_value(&config);
        assert_eq!(code, 2, "{name}: {said}");
        assert!(said.contains(named), "{name}: {named} is not named: {said}");
    }
    let (_, said) = check_value(&usual().set("session.store", redis));
    assert!(said.contains("cloakroom keys generate"), "{said}");
}

#[test]
fn class_h_hostile_config_files_are_refused_within_a_second() {
    let laughs = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |yaml, n| {
        let before = format!("*a{},", n - 1).repeat(9);
        format!("{yaml}a{n}: &a{n} [{}]\n", before.trim_end_matches(','))
    });
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("blank", b"\n\n# nothing\n".to_vec()),
        ("a list", b"- a\n- b\n".to_vec()),
        ("a word", b"hello".to_vec()),
        ("binary", (0..=255).cycle().take(4096).collect()),
        ("no UTF-8", b"public_url: \xff\xfe\n".to_vec()),
        ("tabs", b"a:\n\tb: c\n".to_vec()),
        ("an open quote", b"public_url: \"https://\n".to_vec()),
        ("aliases of aliases", laughs.into_bytes()),
        ("an alias of itself", b"a: &a [*a]\n".to_vec()),
        ("deep lists", "[".repeat(100_000).into_bytes()),
        ("deep maps", "{a: ".repeat(50_000).into_bytes()),
        (
            "deep blocks",
            (0..2_000)
                .map(|n| format!("{}a:\n", " ".repeat(n)))
                .collect::<String>()
                .into_bytes(),
        ),
        (
            "a key twice",
            b"public_url: https://a.example\npublic_url: https://b.example\n".to_vec(),
        ),
        ("many documents", b"---\na: b\n---\nc: d\n".to_vec()),
        (
            "tags",
            b"public_url: !!python/object/apply:os.system [id]\n".to_vec(),
        ),
        (
            "huge numbers",
            b"session: { cache: { max: 99999999999999999999999999 } }\n".to_vec(),
        ),
    ];
    for (name, bytes) in files {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("c.yaml"), bytes).unwrap();
        let start = Instant::now();
        let output = run(folder.path(), &["check", "--config", "c.yaml"], &[]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", text(&output.stderr));
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{name}: {:?}",
            start.elapsed()
        );
    }
    let folder = TempDir::new().unwrap();
    for missing in ["nothing.yaml", "."] {
        assert_eq!(
            run(folder.path(), &["check", "--config", missing], &[])
                .status
                .code(),
            Some(2),
            "{missing}"
        );
    }
}

#[test]
fn ca_06_class_n_wrong_secrets_are_not_printed() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("key"), canary("session-key")).unwrap();
    let file = folder.path().join("key");
    let config = usual()
        .set(
            "session.keys",
            json!([canary("plain-key"), { "file": file.to_str().unwrap() }, { "env": "SESSION_KEY" }]),
        )
        .set("server.admin_token", json!({ "evn": canary("admin") }))
        .set(
            "session.store",
            json!({ "redis": { "url": format!("http://:{}@x", canary("redis")) } }),
        );
    let yaml = serde_json::to_string_pretty(&config.value).unwrap();
    let secret = canary("environment");
    let (code, said) = check(&yaml, &[("SESSION_KEY", &secret)]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn environment_variables_override_and_bad_ones_are_named() {
    let usual = usual();
    let yaml = serde_json::to_string_pretty(&usual.value).unwrap();
    let (code, said) = check(&yaml, &[("CLOAKROOM_SESSION__IDLE_TIMEOUT", "soon")]);
    assert_eq!(code, 2);
    assert!(said.contains("CLOAKROOM_SESSION__IDLE_TIMEOUT"), "{said}");
    for (name, value, wanted) in [
        ("CLOAKROOM_SESSION__IDLE_TIMEOUT", "10m", 0),
        ("CLOAKROOM_PROVIDERS__MAIN__SCOPES", "[openid]", 0),
        ("CLOAKROOM_SESSION__COOKIE__NAME", "session", 2),
        ("CLOAKROOM_PUBLIC_URL", "http://app.example.com", 2),
    ] {
        let (code, said) = check(&yaml, &[(name, value)]);
        assert_eq!(code, wanted, "{name}={value}: {said}");
    }
    let (code, said) = check(&yaml, &[("CLOAKROOM_SESION__X", "1")]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("CLOAKROOM_SESION__X"), "a warning: {said}");
    let injected = [
        ("CLOAKROOM_SERVICE_HOST", "10.0.0.1"),
        ("CLOAKROOM_SERVICE_PORT_HTTP", "80"),
        ("CLOAKROOM_PORT", "tcp://10.0.0.1:80"),
        ("CLOAKROOM_PORT_80_TCP_ADDR", "10.0.0.1"),
    ];
    let (code, said) = check(&yaml, &injected);
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("CLOAKROOM_"), "what Kubernetes injects: {said}");
}

#[test]
fn the_config_is_searched_where_the_manual_says() {
    let folder = TempDir::new().unwrap();
    let usual = usual();
    let yaml = serde_json::to_string_pretty(&usual.value).unwrap();
    std::fs::write(folder.path().join("elsewhere.yaml"), &yaml).unwrap();
    let named = run(
        folder.path(),
        &["check"],
        &[("CLOAKROOM_CONFIG", "elsewhere.yaml")],
    );
    assert_eq!(named.status.code(), Some(0), "{}", text(&named.stderr));
    std::fs::write(folder.path().join("cloakroom.yaml"), &yaml).unwrap();
    assert_eq!(run(folder.path(), &["check"], &[]).status.code(), Some(0));
}

/// Runs it with a standard output that nobody reads: the exit code, and what it complained of.
fn unread(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cloakroom"))
        .args(arguments)
        .env_clear()
        .current_dir(folder)
        .stdout(writer)
        .output()
        .unwrap();
    (output.status.code(), text(&output.stderr))
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let token = canary("admin-token");
    let rig = Rig::with(|config| config.set("server.admin_token", token.as_str())).await;
    let folder = TempDir::new().unwrap();
    rig.config.write(folder.path());
    let mut arguments: Vec<&[&str]> = vec![&["schema"], &["keys", "generate"], &["check"], &["--help"]];
    arguments.extend([
        &["sessions", "list", "--sub", "alice"][..],
        &["sessions", "revoke", "--sub", "alice", "--json"],
    ]);
    for arguments in arguments {
        let ended = unread(folder.path(), arguments);
        assert_eq!(ended, (Some(0), String::new()), "{arguments:?}");
    }
    // What fails otherwise fails all the same, and a disk that is full is told from a reader that is gone.
    let (code, wrong) = unread(folder.path(), &["sessions", "show", &"7".repeat(64)]);
    assert!(code == Some(1) && wrong.contains("(404)"), "{wrong}");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cloakroom"))
        .arg("schema")
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot print"));
}

#[test]
fn se_01_keys_generate_prints_256_fresh_bits() {
    use base64::Engine as _;
    let folder = TempDir::new().unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let output = run(folder.path(), &["keys", "generate"], &[]);
        assert_eq!(output.status.code(), Some(0));
        let said = text(&output.stdout);
        let key = said.strip_suffix('\n').unwrap().to_owned();
        assert!(!key.contains('\n'));
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(&key)
            .unwrap();
        assert_eq!(bytes.len(), 32);
        keys.push(key);
    }
    assert_ne!(keys[0], keys[1]);
    // Tools may write such a key with its padding.
    keys[1].push('=');
    let (code, said) = check_value(&usual().set("session.keys", json!(keys)));
    assert_eq!(code, 0, "{said}");
}

#[test]
fn the_schema_is_the_one_in_the_repository() {
    let folder = TempDir::new().unwrap();
    let output = run(folder.path(), &["schema"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert!(printed == kept, "cloakroom schema > config/schema.json");
}

#[test]
fn wrong_usage_is_2() {
    let folder = TempDir::new().unwrap();
    for arguments in [
        &["nothing"][..],
        &["run", "--nothing"],
        &["check", "--config"],
        &["keys"],
        &["keys", "x"],
    ] {
        assert_eq!(
            run(folder.path(), arguments, &[]).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
    assert_eq!(run(folder.path(), &["--help"], &[]).status.code(), Some(0));
    assert_eq!(run(folder.path(), &["--version"], &[]).status.code(), Some(0));
}

#[tokio::test]
async fn check_online_asks_everybody_and_is_1_where_somebody_is_away() {
    let mut rig = Rig::on_redis(|config| config).await;
    let folder = TempDir::new().unwrap();
    let file = rig.config.write(folder.path());
    let arguments = ["check", "--online", "--config", file.to_str().unwrap()];
    let output = run(folder.path(), &arguments, &[]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    rig.redis.as_mut().unwrap().kill();
    let output = run(folder.path(), &arguments, &[]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[tokio::test]
async fn healthcheck_is_0_while_it_lives_and_1_after() {
    let rig = Rig::start().await;
    let folder = TempDir::new().unwrap();
    let url = format!("http://127.0.0.1:{}/healthz", rig.cloakroom.admin);
    let arguments = ["healthcheck", "--url", &url];
    assert_eq!(run(folder.path(), &arguments, &[]).status.code(), Some(0));
    let Rig { cloakroom, .. } = rig;
    Cloakroom::stop(cloakroom).await;
    assert_eq!(run(folder.path(), &arguments, &[]).status.code(), Some(1));
}

/// glibc's keeps most of what a crowd of connections took.
#[test]
fn memory_comes_from_mimalloc_which_gives_it_back() {
    let folder = TempDir::new().unwrap();
    let output = run(folder.path(), &["--version"], &[("MIMALLOC_VERBOSE", "1")]);
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(out.starts_with("cloakroom "), "{out}");
    // It is linked only where it takes the place of `malloc`, since nothing asks for it by name.
    assert!(said.contains("mimalloc: v2."), "{said}");
}
