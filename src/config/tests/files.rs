//! The config's file, whatever it is, and the files that it names.

use super::super::load_with;
use super::*;
use std::path::Path;
use std::time::{Duration, Instant};

fn load(path: &Path) -> Result<Loaded, Vec<Mistake>> {
    load_with(Some(path), std::iter::empty())
}

#[test]
fn whatever_the_file_is_the_answer_is_one_sentence_soon() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let bomb = (0..40).fold("a0: &a0 [x]\n".to_owned(), |text, i| {
        format!("{text}a{next}: &a{next} [*a{i}, *a{i}, *a{i}]\n", next = i + 1)
    });
    let hostile: [(&str, Vec<u8>, &str); 12] = [
        ("empty", Vec::new(), "is empty"),
        ("comments", b"# a\n# b\n".to_vec(), "is empty"),
        ("list", b"- a\n".to_vec(), "found a list"),
        ("scalar", b"canary".to_vec(), "found a text"),
        ("binary", (0..=255).cycle().take(100_000).collect(), "UTF-8"),
        ("zeros", vec![0; 100_000], "control character"),
        ("utf16", b"\xff\xfea\0:\0 \x001\0".to_vec(), "UTF-16"),
        ("brackets", b"[".repeat(20_000), "nested deeper"),
        ("braces", b"{a: ".repeat(20_000), "nested deeper"),
        ("bomb", bomb.into_bytes(), "aliases"),
        ("large", vec![b'#'; 2 << 20], "1 MiB"),
        (
            "long",
            ["a: \"".as_bytes(), &b"x".repeat(1 << 19)].concat(),
            "is no valid YAML",
        ),
    ];
    for (name, bytes, message) in hostile {
        std::fs::write(path(name), bytes).unwrap();
        let start = Instant::now();
        let mistakes = load(&path(name)).unwrap_err();
        // Far from what a busy machine takes, near to nothing of what a bomb would.
        assert!(start.elapsed() < Duration::from_mins(1), "{name}");
        assert_eq!(mistakes.len(), 1, "{name}: {}", lines(&mistakes));
        let line = mistakes[0].to_string();
        assert!(
            line.contains(message) && line.starts_with(path(name).to_str().unwrap()),
            "{name}: {line}"
        );
        assert!(!line.contains("canary") && line.len() < 500, "{name}: {line}");
    }
    for (at, message) in [
        (folder.path().to_owned(), "is a folder"),
        (path("none"), "no such file"),
        (path("empty").join("x"), "no folder"),
    ] {
        let mistakes = load(&at).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        assert!(mistakes[0].to_string().contains(message), "{}", mistakes[0]);
    }
}

#[test]
fn a_byte_order_mark_and_dos_lines_are_no_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dos.yaml");
    std::fs::write(
        &file,
        format!(
            "\u{feff}{}",
            complete("session:\n  cookie: {persistent: true}").replace('\n', "\r\n")
        ),
    )
    .unwrap();
    assert!(load(&file).unwrap().settings.session.cookie.persistent);
    std::fs::write(
        &file,
        format!("\u{feff}{}", complete("prefix: 5").replace('\n', "\r\n")),
    )
    .unwrap();
    assert!(load(&file).unwrap_err()[0].place.ends_with("dos.yaml:1:9"));
}

#[test]
fn the_files_that_a_config_names_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    std::fs::write(folder.path().join("ca.pem"), "-----BEGIN CERTIFICATE-----").unwrap();
    let file = folder.path().join("cloakroom.yaml");
    let text = format!(
        "routes:\n  - {{path: /a, static: {{root: {root}/none}}}}\n  - {{path: /b, static: {{root: {root}/file}}}}\n  \
         - {{path: /c, static: {{root: {root}, fallback: index.html}}}}\n  - {{path: /d, static: {{root: {root}, fallback: file}}}}\n  \
         - {{path: /e, upstream: 'https://a', ca: {root}/none}}\n  - {{path: /f, upstream: 'https://a', ca: {root}/file}}\n  \
         - {{path: /g, upstream: 'https://a', ca: {root}/ca.pem}}\n\
         session: {{keys: [q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA], store: {{redis: {{url: 'rediss://r', ca: {root}/none, \
         client_cert: {{cert: {root}/file, key: {root}/none}}}}}}}}\n"
    );
    std::fs::write(&file, complete(&text)).unwrap();
    let found: Vec<(String, bool)> = load(&file)
        .unwrap_err()
        .into_iter()
        .map(|mistake| (mistake.key, mistake.message.contains(&root.to_string())))
        .collect();
    let keys = [
        "routes[0].static.root",
        "routes[1].static.root",
        "routes[2].static.fallback",
        "routes[4].ca",
        "routes[5].ca",
        "session.store.redis.ca",
        "session.store.redis.client_cert.key",
    ];
    assert_eq!(found, keys.map(|key| (key.to_owned(), true)));
    assert!(load_text("f", &complete(&text)).is_ok());
}

#[test]
fn thousands_of_mistakes_are_named_soon() {
    use std::fmt::Write;
    let mut text = String::new();
    for i in 0..9_000 {
        writeln!(text, "unknown_{i}: x").unwrap();
    }
    let start = Instant::now();
    assert_eq!(load_text("f", &complete(&text)).unwrap_err().len(), 9_000);
    let routes = "  - {path: api, upstream: 'http://u:canary@h', timeout: 0s}\n".repeat(1_500);
    assert_eq!(
        load_text("f", &complete(&format!("routes:\n{routes}")))
            .unwrap_err()
            .len(),
        4_500
    );
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
}
