//! What is accepted: the files under `config/`, the forms that a value may take, and the warnings.

use super::super::settings::*;
use super::super::{Loaded, SecretSource, schema};
use super::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// A file under `config/`, its secrets replaced by ones that are there.
fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    std::fs::read_to_string(path)
        .unwrap()
        .replace(
            "{ file: /run/secrets/session-key }",
            "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA",
        )
        .replace("{ file: /run/secrets/redis-url }", "redis://redis:6379/0")
        .replace("{ file: /run/secrets/client }", "secret")
        .replace("{ env: CLIENT_SECRET }", "secret")
}

fn load(text: &str) -> Loaded {
    load_text("f", text).unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes)))
}

#[test]
fn the_reference_shows_the_defaults() {
    let least = load(&shipped("cloakroom.yaml"));
    let reference = load(&shipped("reference.yaml"));
    assert_eq!(reference.settings, least.settings);
}

#[test]
fn the_reference_holds_every_key_of_the_schema() {
    fn wanted(schema: &serde_json::Value, path: &str, all: &mut BTreeSet<String>) {
        for (name, schema) in schema::keys(schema) {
            // A secret's own keys are explained once, at the top.
            if !schema::is_secret(schema) {
                wanted(schema, &format!("{path}.{name}"), all);
            }
            all.insert(format!("{path}.{name}"));
        }
        for list in schema::taking(schema, "array") {
            wanted(&list["items"], path, all);
        }
    }
    fn found(node: &Node, path: &str, all: &mut BTreeSet<String>) {
        match &node.value {
            Value::Map(entries) => {
                for (key, node) in entries {
                    let name = if path == ".providers" { "*" } else { &key.name };
                    all.insert(format!("{path}.{name}"));
                    found(node, &format!("{path}.{name}"), all);
                }
            }
            Value::List(items) => items.iter().for_each(|item| found(item, path, all)),
            _ => {}
        }
    }
    use super::super::yaml::{Node, Place, Value, parse};

    // Every commented key made one: a comment that begins with a word in small letters and a colon.
    let is_key = |text: &str| {
        text.split_once(':')
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let full: String = shipped("reference.yaml")
        .lines()
        .map(|line| match line.split_once("# ") {
            Some((indent, key)) if indent.trim().is_empty() && is_key(key) => format!("{indent}{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let tree = parse(&full, &|line, column| Place::File("f".into(), line, column)).unwrap();
    let (mut keys, mut shown) = (BTreeSet::new(), BTreeSet::new());
    wanted(&schema::SCHEMA, "", &mut keys);
    found(&tree, "", &mut shown);
    // Names of the user's own, and what a secret is made of.
    let is_explained = |key: &String| matches!(key.rsplit('.').next(), Some("env" | "file"));
    keys.retain(|key| key != ".routes.require.claims.*" && !is_explained(key));
    shown.retain(|key| !is_explained(key));
    assert_eq!(shown, keys);

    // And each example has its key's form: what remains is what the checks of the meaning say.
    let mistakes = load_text("f", &full).unwrap_err();
    let keys: Vec<&str> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
    let expected = [
        "server.forward_auth",
        "server.admin_token",
        "session.store",
        "routes[0]",
    ];
    for key in &keys {
        assert!(expected.contains(key), "{}", lines(&mistakes));
    }
}

#[test]
fn the_examples_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "auth0.yaml",
            "entra.yaml",
            "google.yaml",
            "keycloak.yaml",
            "okta.yaml",
            "two-providers.yaml"
        ]
    );
    for name in names {
        let loaded = load(&shipped(&format!("examples/{}", name.to_str().unwrap())));
        assert!(matches!(loaded.settings.session.store, StoreSettings::Redis(_)));
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let settings = load(&shipped("cloakroom.yaml")).settings;
    assert_eq!(settings.prefix, "/bff");
    assert_eq!(settings.server.listen, ["0.0.0.0:8080".parse().unwrap()]);
    assert_eq!(settings.server.admin, "127.0.0.1:9090".parse().unwrap());
    assert_eq!(settings.server.drain_delay, Duration::from_secs(5));
    assert_eq!(settings.server.drain_timeout, Duration::from_secs(20));
    let main = &settings.providers[0];
    assert_eq!(
        (main.name.as_str(), main.redirect_path.as_deref()),
        ("main", Some("/bff/callback"))
    );
    assert_eq!(main.scopes, ["openid", "profile", "offline_access"]);
    assert_eq!(main.default_token_lifetime, Duration::from_mins(5));
    assert_eq!(settings.session.cookie.name, "__Host-Http-cloakroom");
    assert_eq!(settings.session.cookie.same_site, SameSite::Strict);
    assert_eq!(settings.session.idle_timeout, Duration::from_mins(30));
    assert_eq!(settings.session.absolute_timeout, Duration::from_hours(12));
    assert_eq!(
        settings.session.store,
        StoreSettings::Memory(MemoryLimits {
            max_sessions: 100_000
        })
    );
    let route = &settings.routes[0];
    assert_eq!(
        (route.auth(), route.pages(), route.csrf),
        (Auth::Required, false, Csrf::Auto)
    );
    assert_eq!((route.timeout, route.body_limit), (Duration::from_secs(30), None));
    assert_eq!(
        (
            settings.login.landing.as_str(),
            settings.limits.logins_per_address
        ),
        ("/", None)
    );
}

#[test]
fn one_or_many_and_the_other_forms() {
    let settings = loaded(
        "server: {listen: [0.0.0.0:80, \"[::]:80\"], trusted_proxies: [10.0.0.0/8, 192.0.2.1], max_header_size: 64KiB}\n\
         limits: {logins_per_address: 30/m}\nsession: {cache: off, store: {memory: }}\nlogin:\n\
         providers:\n  zeta: {issuer: \"https://z\", client_id: z, client_secret: [a, b]}\n  \
         alpha: {issuer: \"http://localhost:1/a\", client_id: a, client_secret: c, userinfo: on_login, client_auth: client_secret_post}\n\
         routes: [{path: /, static: {root: ./x}, require: {}}, {path: /a, upstream: [\"http://a\", \"http://b/\"], body_limit: 10MiB, auth: optional}]",
    )
    .settings;
    assert_eq!(settings.server.listen.len(), 2);
    let pairs = |tls: &str| loaded(&format!("server: {{tls: {tls}}}")).settings.server.tls;
    assert_eq!(
        pairs("{cert: /a, key: /b}"),
        pairs("[{cert: /a, key: /b}, {cert: /c, key: /d}]")[..1]
    );
    assert_eq!(
        settings.server.trusted_proxies[1],
        "192.0.2.1/32".parse().unwrap()
    );
    assert_eq!(settings.server.max_header_size, 65_536);
    assert_eq!(
        settings
            .limits
            .logins_per_address
            .map(|rate| (rate.count, rate.per.as_secs())),
        Some((30, 60))
    );
    assert_eq!(settings.session.cache, Cache::Off(Off::Off));
    // In the file's order, which decides whose redirect path is the short one.
    let paths: Vec<_> = settings
        .providers
        .iter()
        .map(|provider| provider.redirect_path.as_deref().unwrap())
        .collect();
    assert_eq!(paths, ["/bff/callback", "/bff/callback/alpha"]);
    assert_eq!(
        settings.providers[0].client_secret,
        ["a", "b"].map(SecretSource::plain)
    );
    assert_eq!(settings.providers[1].userinfo, Userinfo::OnLogin);
    assert_eq!(
        (settings.routes[0].auth(), settings.routes[0].pages()),
        (Auth::None, true)
    );
    assert_eq!(settings.routes[1].body_limit, Some(10 * 1024 * 1024));
}

#[test]
fn a_prefix_moves_the_redirect_paths() {
    let settings = loaded("prefix: /auth/bff").settings;
    assert_eq!(
        settings.providers[0].redirect_path.as_deref(),
        Some("/auth/bff/callback")
    );
    assert!(load_text("f", &complete("prefix: /auth\nroutes: [{path: /bff}]")).is_ok());
}

#[test]
fn ca_06_debug_of_the_settings_shows_no_secret() {
    let settings = loaded("server: {admin_token: canary}").settings;
    assert!(!format!("{settings:?}").contains("canary"));
}
