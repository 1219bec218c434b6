//! The services of `deploy/compose/compose.yaml` as containers of the suite.

use super::container::Container;
use super::{checkout, list, read, string, succeeds, yaml};
use serde_json::Value;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

/// The Compose file.
pub fn compose() -> Value {
    yaml(&read("deploy/compose/compose.yaml"))
}

/// cloakroom's config beside it.
pub fn config() -> Value {
    yaml(&read("deploy/compose/cloakroom.yaml"))
}

/// A folder with the secrets that `init` makes.
pub fn initialised() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::copy(checkout("deploy/compose/init"), folder.path().join("init")).unwrap();
    init(&folder);
    folder
}

/// Runs `init`. By its shell: a file that was written a moment ago cannot be executed itself while another test, which is
/// about to start something, still has a copy of its descriptor.
pub fn init(folder: &TempDir) {
    succeeds(Command::new("sh").arg(folder.path().join("init")));
}

/// A command of a service, as its container gets it.
pub fn words(service: &str, pointer: &str) -> Vec<String> {
    let service = &compose()["services"][service];
    // Compose reads $$ as $.
    let words = list(service, pointer)
        .iter()
        .map(|word| word.as_str().unwrap().replace("$$", "$"));
    words.collect()
}

/// Puts the secrets of a service where its container has them.
pub fn secrets(container: &mut Container, service: &str, made: &TempDir) {
    let compose = compose();
    for name in list(&compose["services"][service], "/secrets") {
        let name = name.as_str().unwrap();
        let file = made.path().join(string(&compose["secrets"][name], "/file"));
        container.file(
            &format!("/run/secrets/{name}"),
            &fs::read_to_string(file).unwrap(),
            0o640,
        );
    }
}

/// cloakroom's container: its files, its secrets, the certificate in place of the volume, and the network's names.
pub fn cloakroom(made: &TempDir, certificate: &str) -> Container {
    let (compose, mut container) = (compose(), Container::of_the_suite());
    for volume in list(&compose, "/services/cloakroom/volumes") {
        let volume = volume.as_str().unwrap();
        let [from, to, "ro"] = volume.split(':').collect::<Vec<_>>()[..] else {
            panic!("{volume} is not read-only");
        };
        match from.strip_prefix("./") {
            Some(path) => container.bind(&checkout("deploy/compose").join(path), to),
            None => container.file(&format!("{to}/keycloak.pem"), certificate, 0o644),
        }
    }
    secrets(&mut container, "cloakroom", made);
    network(&mut container);
    container
}

/// The names of all services: here they share one network.
pub fn network(container: &mut Container) {
    let services = compose()["services"].clone();
    let names: Vec<&String> = services.as_object().unwrap().keys().collect();
    let line = names
        .iter()
        .fold(String::from("127.0.0.1 localhost"), |line, name| {
            format!("{line} {name}")
        });
    container.file("/etc/hosts", &format!("{line}\n"), 0o644);
}

/// Redis.
pub fn redis(made: &TempDir) -> Container {
    let mut redis = Container::of_this_machine();
    secrets(&mut redis, "redis", made);
    redis
}
