//! Tools, files and processes.

pub mod compose;
pub mod container;
pub mod dockerfile;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A file of the checkout.
pub fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What is in a file of the checkout.
pub fn read(path: &str) -> String {
    fs::read_to_string(checkout(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One of the Python tools of `requirements.txt`.
pub fn tool(name: &str) -> Command {
    let path = checkout("target/tools/deploy/bin").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run tests/run, which installs it",
        path.display()
    );
    Command::new(path)
}

/// Runs a command to its end: whether it succeeded, and all it wrote.
pub fn outcome(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "{} does not start ({error}): run tests/run, which installs what the tests need",
            command.get_program().display()
        )
    });
    (output.status.success(), text(&output))
}

/// Runs a command that has to succeed; what it wrote.
pub fn succeeds(command: &mut Command) -> String {
    let (success, text) = outcome(command);
    assert!(success, "{} failed:\n{text}", command.get_program().display());
    text
}

/// All that was written.
pub fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

/// A YAML text of one document.
pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A YAML text of several documents.
pub fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A text of a document, by its JSON pointer.
pub fn string<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text at {pointer} of {value:#}"))
}

/// A list of a document, by its JSON pointer; empty where there is none.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Seconds of a duration such as `20s`.
pub fn seconds(duration: &str) -> u64 {
    let number = duration.strip_suffix('s').and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{duration} is not in seconds"))
}

/// How long a cloakroom with this config may take to stop, in seconds: it waits, then it finishes what is under way.
pub fn longest_stop(config: &Value) -> u64 {
    seconds(string(config, "/server/drain_delay")) + seconds(string(config, "/server/drain_timeout"))
}

/// The port of an address such as `0.0.0.0:8080`.
pub fn port(address: &str) -> u64 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// A secret that will do for the key of that name: any of them may be a session key.
pub fn stub_secret(name: &str) -> String {
    format!("{name:A<43}")
}
