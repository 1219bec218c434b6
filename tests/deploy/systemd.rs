//! The systemd unit: judged by `systemd-analyze`, and held against the config beside it. `tests/deploy/systemd-boot` runs it
//! under a systemd of its own.

use crate::support::container::{BINARY, Container};
use crate::support::{checkout, longest_stop, outcome, read, stub_secret, succeeds, yaml};
use std::fs;
use std::process::Command;
use tempfile::TempDir;

const UNIT: &str = "deploy/systemd/cloakroom.service";
/// The worst exposure that is accepted, in tenths: it is 12 today, and 20 is what systemd calls "OK".
const EXPOSURE: &str = "15";

/// The values of a key, in the file's order.
fn values(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned())
        .collect()
}

fn value(key: &str) -> String {
    let mut values = values(&read(UNIT), key);
    assert_eq!(values.len(), 1, "{key}");
    values.remove(0)
}

/// What `systemd-analyze verify` says of a unit, on a machine with the binary where the unit wants it.
fn verdict(unit: &str) -> String {
    let root = TempDir::new().unwrap();
    let place = |path: &str| {
        let path = root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    fs::copy(env!("CARGO_BIN_EXE_cloakroom"), place(BINARY)).unwrap();
    fs::write(place("/etc/systemd/system/cloakroom.service"), unit).unwrap();
    succeeds(
        Command::new("cp")
            .arg("-r")
            .arg("/usr/lib/systemd/system")
            .arg(place("/usr/lib/systemd/system")),
    );
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no"])
        .arg(format!("--root={}", root.path().display()));
    outcome(verify.arg("cloakroom.service")).1
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let unit = read(UNIT);
    assert_eq!(verdict(&unit), "");
    for (from, to) in [
        ("NoNewPrivileges=", "NoNewPrivilege="),
        ("/usr/local/bin", "/usr/bin"),
        ("=strict", "=strickt"),
    ] {
        assert!(unit.contains(from), "{from}");
        assert_ne!(verdict(&unit.replacen(from, to, 1)), "", "{to} is noticed");
    }
}

#[test]
fn the_allocator_gives_memory_back_under_the_unit_as_in_the_image() {
    let option = value("Environment");
    assert_eq!(option, "MIMALLOC_PURGE_EXTEND_DELAY=0");
    assert!(read("deploy/Dockerfile").contains(&format!("\nENV {option}\n")));
}

#[test]
fn the_unit_exposes_little() {
    let judge = |unit: &str| {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("cloakroom.service");
        fs::write(&file, unit).unwrap();
        let mut analyze = Command::new("systemd-analyze");
        analyze
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={EXPOSURE}"));
        outcome(analyze.arg(file))
    };
    let unit = read(UNIT);
    let (good, said) = judge(&unit);
    assert!(good, "{said}");
    for line in [
        "DynamicUser=yes\n",
        "SystemCallFilter=@system-service\n",
        "CapabilityBoundingSet=\n",
    ] {
        assert!(unit.contains(line), "{line}");
        assert!(!judge(&unit.replace(line, "")).0, "{line} is missed");
    }
}

#[test]
fn the_unit_stops_and_starts_as_the_program_means_it() {
    let config = yaml(&read("deploy/systemd/cloakroom.yaml"));
    let timeout: u64 = value("TimeoutStopSec").parse().unwrap();
    assert!(timeout >= longest_stop(&config) + 5, "{timeout} s");
    // The defaults, for configs that leave the keys out: 5 s and 20 s.
    assert!(timeout >= 5 + 20 + 5, "{timeout} s");
    let run = value("ExecStart");
    assert_eq!(value("ExecStartPre"), run.replace(" run ", " check "));
    assert!(run.starts_with(BINARY));
    assert!(values(&read(UNIT), "ExecReload").is_empty(), "there is no reload");
}

#[test]
fn the_config_is_good_with_the_unit_s_credentials() {
    let unit = read(UNIT);
    let mut container = Container::of_the_suite();
    let start = value("ExecStart");
    let config = start.rsplit_once(' ').unwrap().1;
    container.bind(&checkout("deploy/systemd/cloakroom.yaml"), config);
    container.file("/srv/app/index.html", "<!doctype html>", 0o644);
    for credential in values(&unit, "LoadCredential") {
        let (name, source) = credential.split_once(':').unwrap();
        assert_eq!(source, format!("/etc/cloakroom/secrets/{name}"));
        // systemd makes them readable for the unit's user alone.
        container.file(
            &format!("/run/credentials/cloakroom.service/{name}"),
            &stub_secret(name),
            0o400,
        );
    }
    let warnings = container.check(config);
    assert!(warnings.is_empty(), "{warnings:#?}");
}
