//! What is allowed but unwise gets one line each, with its place, its key and the remedy; what is wise, or was chosen in so
//! many words, gets none. The configs of this repository are wise, but for what they leave to the reader.

use super::super::load_with;
use super::*;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Configs, each followed by all that is warned about, in the form of `bad.txt`.
const UNWISE: &str = include_str!("unwise.txt");

/// What a config of [`UNWISE`] lacks: nothing unwise. (The variable only has to be there.)
const WISE: [(&str, &str); 4] = [
    ("public_url:", "public_url: https://app.example.com\n"),
    (
        "providers:",
        "providers: {main: {issuer: \"https://id.example.com\", client_id: app, client_secret: {env: PATH}}}\n",
    ),
    ("session:", "session: {store: {memory: {}}}\n"),
    (
        "routes:",
        "routes: [{path: /api, upstream: \"http://orders:8080\"}]\n",
    ),
];

fn with_the_rest(text: &str) -> String {
    let lacks = |key: &str| !text.lines().any(|line| line.starts_with(key));
    let rest: String = WISE
        .iter()
        .filter(|(key, _)| lacks(key))
        .map(|(_, part)| *part)
        .collect();
    format!("{text}\n{rest}")
}

fn warnings(text: &str) -> Vec<String> {
    load_text("f", text)
        .unwrap_or_else(|mistakes| panic!("{text}\n{}", lines(&mistakes)))
        .warnings
}

#[test]
fn the_unwise_is_warned_about_with_place_and_key_and_nothing_else_is() {
    let blocks = UNWISE
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.starts_with("=="));
    let (mut count, mut wrong) = (0, Vec::new());
    for text in blocks {
        count += 1;
        let found = warnings(&with_the_rest(text));
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        let fits = |(found, expected): (&String, &&str)| {
            let (place, message) = expected.split_once(": ").expect("place, key and message");
            let (place, key) = place.split_once(' ').expect("a place and a key");
            found.starts_with(&format!("f:{place}: {key}: ")) && found.contains(message)
        };
        let all = found.join("\n");
        assert!(!all.contains("canary"), "{text}\nshows a secret:\n{all}");
        if found.len() != expected.len() || !found.iter().zip(&expected).all(fits) {
            wrong.push(format!("{text}\n-- but found\n{all}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(count >= 40, "{count}");
}

/// The only thing that a config which says nothing of a store is told.
fn is_about_the_store(warnings: &[String]) -> bool {
    matches!(warnings, [only] if only.contains(": session.store: is `memory` where nothing is said"))
}

#[test]
fn the_configs_of_this_repository_are_wise() {
    let (root, folder) = (
        Path::new(env!("CARGO_MANIFEST_DIR")),
        tempfile::tempdir().unwrap(),
    );
    let at_hand = |text: &str| at_hand(folder.path(), text);
    let examples = std::fs::read_dir(root.join("config/examples")).unwrap();
    for example in examples {
        let path = example.unwrap().path();
        let text = at_hand(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(warnings(&text), Vec::<String>::new(), "{}", path.display());
    }
    let reference = std::fs::read_to_string(root.join("config/reference.yaml")).unwrap();
    let mut found = warnings(&at_hand(&reference));
    found.retain(|warning| !warning.contains("is not used yet"));
    assert_eq!(found, Vec::<String>::new());
    let least = std::fs::read_to_string(root.join("config/cloakroom.yaml")).unwrap();
    assert!(is_about_the_store(&warnings(&at_hand(&least))));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let smallest = readme
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert!(is_about_the_store(&warnings(&at_hand(smallest))));
}

/// A config whose secrets are all there.
fn at_hand(folder: &Path, text: &str) -> String {
    let kept = |name: &str, secret: &str| {
        let file = folder.join(name);
        std::fs::write(&file, secret).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        format!("{{ file: {} }}", file.display())
    };
    let key = kept("key", "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA");
    text.replace("{ file: /run/secrets/client }", "{ env: PATH }")
        .replace("{ env: CLIENT_SECRET }", "{ env: PATH }")
        .replace("{ file: /run/secrets/session-key }", &key)
        .replace(
            "{ file: /run/secrets/redis-url }",
            &kept("url", "redis://redis:6379/0"),
        )
}

fn load_in(folder: &Path, text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let file = folder.join("c.yaml");
    std::fs::write(&file, with_the_rest(text)).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    load_with(Some(&file), variables)
        .unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes)))
        .warnings
}

#[test]
fn in_a_pod_the_probes_come_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let text = "server: {admin: 0.0.0.0:9090}";
    assert_eq!(load_in(folder.path(), text, &[]).len(), 1);
    let pod = [("KUBERNETES_SERVICE_HOST", "10.96.0.1")];
    assert_eq!(load_in(folder.path(), text, &pod), Vec::<String>::new());
}

#[test]
fn a_secret_that_everybody_on_the_machine_may_read_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "canary").unwrap();
    let text = format!(
        "providers: {{main: {{issuer: \"https://id.example.com\", client_id: app, client_secret: {{file: {}}}}}}}",
        secret.display()
    );
    let mode = |mode| std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let found = load_in(folder.path(), &text, &[]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("which every user of the machine may read; chmod o-r it")
            && !found[0].contains("canary"),
        "{found:?}"
    );
    mode(0o640);
    assert_eq!(load_in(folder.path(), &text, &[]), Vec::<String>::new());
}

#[test]
fn what_is_not_for_browsers_has_no_business_in_a_folder_that_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    std::fs::create_dir_all(site.join("assets/deep")).unwrap();
    std::fs::create_dir_all(site.join(".git")).unwrap();
    for good in [
        "index.html",
        "assets/app.js",
        "assets/app.js.map",
        ".env",
        ".git/id_rsa",
        "assets/package.json",
    ] {
        std::fs::write(site.join(good), "x").unwrap();
    }
    let routes = format!("routes: [{{path: /, static: {{root: {}}}}}]", site.display());
    let found = || load_in(folder.path(), &routes, &[]);
    assert_eq!(
        found(),
        Vec::<String>::new(),
        "what begins with a dot is never served"
    );
    for (bad, what) in [
        (
            "assets/deep/tls.key",
            "holds assets/deep/tls.key, perhaps a private key",
        ),
        (
            "assets/Backup.SQL",
            "holds assets/Backup.SQL, data or a copy of it",
        ),
        ("prod.env", "holds prod.env, an environment file"),
        ("id_ed25519", "a private key"),
        ("cloakroom.yaml", "a config"),
        ("package.json", "it is the project and not what its build made"),
    ] {
        std::fs::write(site.join(bad), "x").unwrap();
        let warnings = found();
        assert!(
            matches!(warnings.as_slice(), [only] if only.contains(": routes[0].static.root: ") && only.contains(what)),
            "{bad}: {warnings:?}"
        );
        std::fs::remove_file(site.join(bad)).unwrap();
    }
    std::fs::write(site.join("word"), "canary").unwrap();
    std::fs::set_permissions(site.join("word"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "{routes}\nserver: {{admin_token: {{file: {}/word}}}}",
        site.display()
    );
    assert!(
        load_in(folder.path(), &text, &[])
            .iter()
            .any(|warning| warning.contains("which this config reads a secret from"))
    );
    std::fs::remove_file(site.join("index.html")).unwrap();
    assert!(
        found()
            .iter()
            .any(|warning| warning.contains("holds no index.html, so the start page is 404"))
    );
}
