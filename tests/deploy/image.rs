//! The image: what `deploy/Dockerfile` builds for this machine's architecture, and for the other one where `tests/run` could
//! have the cross compiler.

use crate::support::container::{BINARY, Container, QUICK, together};
use crate::support::dockerfile::{self, Stage};
use crate::support::{checkout, read, succeeds};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// What comes out of the build stage, and goes into the image on top of the base.
const FILES: [(&str, u32); 2] = [
    ("usr/local/bin/cloakroom", 0o755),
    ("usr/share/doc/cloakroom/LICENSE", 0o644),
];
/// The libraries of the base image that the binary may want.
const LIBRARIES: [&str; 5] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

/// This machine's architecture in Docker's words.
fn native() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("there is no image for {other}"),
    }
}

/// Runs the build stage for an architecture, with these variables besides the Dockerfile's own.
fn build(architecture: &str, more: &[(&str, &str)]) -> TempDir {
    let stages = dockerfile::stages(architecture);
    let scratch = TempDir::new().unwrap();
    // From the image that it all begins with down to the stage that builds.
    let mut line: Vec<&Stage> = Vec::new();
    let mut at = stages.get("build");
    while let Some(stage) = at {
        line.push(stage);
        at = stages.get(&stage.base);
    }
    let set = line.iter().rev().flat_map(|stage| stage.variables().cloned());
    let mut variables: BTreeMap<String, String> = set.collect();
    let more = more
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    variables.extend(more);
    let compiler = variables[&format!("CC_{}", variables["TARGET"].replace('-', "_"))].clone();
    let found = Command::new(&compiler).arg("--version").output();
    assert!(
        found.is_ok(),
        "{compiler} is missing: run tests/run, which installs it"
    );
    stages["build"].run(&variables, &checkout("target/image"), scratch.path());
    scratch
}

/// The image's own files for this machine's architecture, built once.
fn image() -> &'static Path {
    static IMAGE: OnceLock<TempDir> = OnceLock::new();
    IMAGE.get_or_init(|| build(native(), &[])).path()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect();
    files.sort();
    files
}

/// Panics unless a binary is for this kind of machine and wants nothing that the base image has not.
fn is_at_home_in_the_base(binary: &Path, machine: &str) {
    let about = succeeds(
        Command::new("readelf")
            .args(["--wide", "--file-header", "--dynamic"])
            .arg(binary),
    );
    assert!(about.contains(machine), "{about}");
    let wanted: Vec<&str> = about
        .lines()
        .filter_map(|line| line.split_once("Shared library: [")?.1.strip_suffix(']'))
        .collect();
    assert!(wanted.contains(&"libc.so.6"), "{about}");
    for library in wanted {
        assert!(LIBRARIES.contains(&library), "{library} is not in the base image");
    }
}

/// The architectures to build for: this machine's, and with `TESTS_IMAGES` those that it names.
fn architectures() -> Vec<String> {
    let named = std::env::var("TESTS_IMAGES").unwrap_or_else(|_| native().to_owned());
    named.split_whitespace().map(String::from).collect()
}

#[test]
fn the_image_holds_the_binary_its_licence_and_nothing_else() {
    for architecture in architectures() {
        // The code for another architecture is not run here, so it need not be optimised.
        let quick = [
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
        ];
        let crossed = (architecture != native()).then(|| build(&architecture, &quick));
        let built = if let Some(crossed) = &crossed {
            crossed.path()
        } else {
            image()
        };
        let out = built.join("out");
        let found: Vec<(String, u32)> = files(&out)
            .iter()
            .map(|path| {
                let name = path.strip_prefix(&out).unwrap().display().to_string();
                (
                    name,
                    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777,
                )
            })
            .collect();
        assert_eq!(found, FILES.map(|(name, mode)| (name.to_owned(), mode)));
        assert_eq!(fs::read_to_string(out.join(FILES[1].0)).unwrap(), read("LICENSE"));
        let machine = if architecture == "amd64" {
            "X86-64"
        } else {
            "AArch64"
        };
        is_at_home_in_the_base(&out.join(FILES[0].0), machine);
        // Nothing of the checkout went to the builder but what the build needs.
        let entries = fs::read_dir(built.join("the context")).unwrap();
        let mut sent: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        sent.sort();
        assert_eq!(sent, ["Cargo.lock", "Cargo.toml", "LICENSE", "deploy", "src"]);
        let deploy = files(&built.join("the context/deploy"));
        assert_eq!(
            deploy,
            [built.join("the context/deploy/cloakroom.profdata")],
            "nothing of deploy/ but the counts"
        );
    }
}

#[test]
fn the_benchmark_measures_what_the_image_has() {
    // Where a setting differs, so do the names of all functions, and the counts fit nothing.
    let (image, bench) = (read("deploy/Dockerfile"), read("tests/bench/prepare.sh"));
    for said in [
        r#""-Cprofile-use=$counts -Cllvm-args=-no-pgo-warn-mismatch""#,
        "CARGO_PROFILE_RELEASE_STRIP=symbols",
        "cargo build --release --locked --bin cloakroom --target ",
        "/$(sha256sum ",
    ] {
        assert!(image.contains(said) && bench.contains(said), "{said}");
    }
}

#[test]
fn both_architectures_have_a_stage_and_tests_run_installs_what_it_does() {
    for architecture in ["amd64", "arm64"] {
        let stages = dockerfile::stages(architecture);
        assert_eq!(stages["toolchain"].base, format!("for-{architecture}"));
        let mut variables = stages[&stages["toolchain"].base].variables();
        let packages = &variables.find(|(name, _)| name == "CROSS").unwrap().1;
        assert!(
            read("tests/run").contains(packages),
            "tests/run installs {packages}"
        );
    }
}

#[test]
fn the_image_is_run_by_a_user_without_rights_and_without_a_shell() {
    let stages = dockerfile::stages(native());
    let image = &stages["image"];
    assert_eq!(
        image.setting("USER"),
        ["65532:65532"],
        "a number, for Kubernetes' runAsNonRoot"
    );
    assert_eq!(image.setting("ENTRYPOINT"), [BINARY]);
    assert_eq!(image.setting("CMD"), ["run"]);
    assert_eq!(image.setting("HEALTHCHECK"), [BINARY, "healthcheck"]);
    assert_eq!(image.copies(), [("build", vec!["/out/"], "/")]);
    assert!(
        image.base.starts_with("gcr.io/distroless/cc-debian13:nonroot"),
        "{}",
        image.base
    );
    // A binary does not run on an older libc than it was linked with: trixie is Debian 13.
    let rust = format!("rust:{}-trixie", read_rust_version());
    assert_eq!(
        stages["rust"].base, rust,
        "the builder is of the base's Debian, with the compiler of Cargo.toml"
    );
}

fn read_rust_version() -> String {
    let manifest = read("Cargo.toml");
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = \""));
    line.unwrap().trim_end_matches('"').to_owned()
}

#[test]
fn the_image_runs_read_only_and_answers_its_own_healthcheck() {
    let stages = dockerfile::stages(native());
    let image_stage = &stages["image"];
    let mut container = Container::new(&image().join("out").join(FILES[0].0));
    let (page, config) = (read("deploy/docker.md"), "/etc/cloakroom/cloakroom.yaml");
    let (_, example) = page
        .split_once("cat >cloakroom.yaml <<'END'\n")
        .expect("the page's config");
    container.file(config, example.split_once("END\n").unwrap().0, 0o644);
    container.file("/run/secrets/client", "THE-CLIENT-SECRET", 0o400);
    let words = |name: &str| -> Vec<&str> { image_stage.setting(name).iter().map(String::as_str).collect() };
    let entrypoint = words("ENTRYPOINT");
    let (good, said) = container.outcome(&[&entrypoint[..], &["check"]].concat());
    assert!(good && said.contains("The config is good."), "{said}");
    let said = together(
        &[(&container, &[entrypoint, words("CMD")].concat())],
        (&container, &words("HEALTHCHECK")),
        QUICK,
    );
    assert!(said.lines().any(|line| line == "healthy"), "{said}");
    for sign in ["not healthy", "\"listening\"", "\"stopped\""] {
        assert!(said.contains(sign), "{sign}: {said}");
    }
    assert!(
        !said.contains("certificate authorities"),
        "those of the base image are found: {said}"
    );
}

#[test]
fn the_page_quotes_what_the_program_says() {
    let (page, bare) = (read("deploy/docker.md"), Container::of_the_suite());
    let wrong = |mode: u32| {
        let mut container = Container::of_the_suite();
        let secret = "client_secret: { file: /run/secrets/client }";
        let provider = format!("main: {{ issuer: https://id.example.com, client_id: app, {secret} }}");
        let config = format!("public_url: https://app.example.com\nproviders: {{ {provider} }}\n");
        container.file("/etc/cloakroom/cloakroom.yaml", &config, 0o644);
        container.file("/run/secrets/client", "a secret", mode);
        container
    };
    for (container, says) in [
        (
            bare,
            "there is no config: looked for ./cloakroom.yaml and /etc/cloakroom/cloakroom.yaml",
        ),
        (
            wrong(0o000),
            "/run/secrets/client cannot be read: permission denied",
        ),
        (wrong(0o644), "which every user of the machine may read"),
    ] {
        assert!(page.contains(&format!("`{says}`")), "{says}");
        let (_, said) = container.outcome(&[BINARY, "check"]);
        assert!(said.contains(says), "{said}");
    }
}
