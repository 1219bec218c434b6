//! Rule 2.3 and CA-06: where secrets come from, how they change, and that they are not seen.

use super::*;
use std::fs;
use std::time::{Duration, SystemTime};

fn value(source: &SecretSource) -> String {
    source.current().unwrap().expose().to_owned()
}

/// Makes a file look as if it had not been touched for a while, so that its times can be relied on.
fn age(path: &Path, secs: u64) {
    #[expect(clippy::disallowed_methods, reason = "a file's times are the system's")]
    let then = SystemTime::now() - Duration::from_secs(secs);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(then)
        .unwrap();
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "one\n").unwrap();
    let source = SecretSource::file(&path);
    let clone = source.clone();
    assert_eq!(value(&source), "one");
    // The same size, within the same tick of the clock.
    fs::write(&path, "two\n").unwrap();
    assert_eq!((value(&source), value(&clone)), ("two".into(), "two".into()));
    age(&path, 100);
    assert_eq!(value(&source), "two");
}

#[test]
fn a_symlink_that_moves_on_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, secret) in [("v1", "one"), ("v2", "two")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("secret"), secret).unwrap();
        age(&at(version).join("secret"), 100);
    }
    std::os::unix::fs::symlink("v1", at("data")).unwrap();
    std::os::unix::fs::symlink("data/secret", at("secret")).unwrap();
    let source = SecretSource::file(at("secret"));
    assert_eq!(value(&source), "one");
    std::os::unix::fs::symlink("v2", at("new")).unwrap();
    fs::rename(at("new"), at("data")).unwrap();
    assert_eq!(value(&source), "two");
}

#[test]
fn the_last_good_value_outlives_a_bad_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "good").unwrap();
    let source = SecretSource::file(&path);
    assert_eq!(value(&source), "good");
    let large = vec![b'x'; 65 * 1024];
    for bad in [&b""[..], b"\n", b"\xff", &large] {
        fs::write(&path, bad).unwrap();
        assert_eq!(value(&source), "good");
        // Nobody has seen the good value through this one.
        assert!(SecretSource::file(&path).current().is_err());
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(value(&source), "good");
    fs::write(&path, "new").unwrap();
    assert_eq!(value(&source), "new");
}

#[test]
fn one_line_break_is_not_part_of_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    for (bytes, secret) in [
        ("a\n", "a"),
        ("a\r\n", "a"),
        ("a\n\n", "a\n"),
        (" a ", " a "),
        ("a\r", "a\r"),
    ] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(value(&SecretSource::file(&path)), secret);
    }
}

#[test]
fn what_cannot_be_a_secret_says_why_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let large = vec![b'x'; 65 * 1024];
    for (bytes, why) in [
        (&b""[..], "is empty"),
        (b"canary\xff", "no UTF-8"),
        (&large, "larger than 64 KiB"),
    ] {
        fs::write(&path, bytes).unwrap();
        let problem = SecretSource::file(&path).current().unwrap_err();
        assert!(problem.contains(why) && !problem.contains("canary"), "{problem}");
    }
    let problem = |path: &Path| SecretSource::file(path).current().unwrap_err();
    assert!(problem(folder.path()).contains("is no regular file"));
    assert!(problem(Path::new("/dev/zero")).contains("is no regular file"));
    assert!(problem(&folder.path().join("none")).contains("no such file"));
    assert!(SecretSource::plain("").current().is_err());
    assert!(
        SecretSource::env("CLOAKROOM_NO_SUCH_VARIABLE")
            .current()
            .unwrap_err()
            .contains("is not set")
    );
    assert_eq!(value(&SecretSource::env("CARGO_PKG_NAME")), "cloakroom");
}

#[test]
fn ca_06_debug_shows_the_source_and_no_secret() {
    let sources = [
        SecretSource::plain("canary"),
        SecretSource::env("CARGO_PKG_NAME"),
        SecretSource::file("/x"),
    ];
    assert_eq!(
        format!("{sources:?}"),
        "[***, { env: CARGO_PKG_NAME }, { file: /x }]"
    );
}

#[test]
fn a_file_for_everyone_is_noticed() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    let source = SecretSource::file(file.path());
    for (mode, noticed) in [(0o600, false), (0o640, false), (0o644, true)] {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(source.file_for_everyone().is_some(), noticed, "{mode:o}");
    }
}
