//! `deploy/troubleshooting.md`, entry by entry: the trouble is brought about, and cloakroom says what the page quotes.
//!
//! Each test takes the entry of its heading ([`page::Entry::of`]); [`every_entry_has_its_test`] sees to it that none is left
//! out. Where the page says what to do, and it can be done here, the test does it and sees the trouble go.

mod behind_a_proxy;
mod calls;
mod front;
mod page;
mod provider;
mod sessions;
mod signing_in;
mod starting;
mod store;

use crate::support::cloakroom::{run, text};
use crate::support::config::Config;
use crate::support::rig::Rig;
use tempfile::TempDir;

/// What `cloakroom check` says of a config, and its exit code.
fn check(config: &Config, more: &[&str]) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    let file = config.write(folder.path());
    let mut arguments = vec!["check", "--config", file.to_str().unwrap()];
    arguments.extend(more);
    let output = run(folder.path(), &arguments, &[]);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap_or(-1), said)
}

/// As [`check`], with `--online`.
fn check_online(rig: &Rig) -> (i32, String) {
    check(&rig.config, &["--online"])
}

/// The sources of the tests.
const SOURCES: [&str; 7] = [
    include_str!("behind_a_proxy.rs"),
    include_str!("calls.rs"),
    include_str!("provider.rs"),
    include_str!("sessions.rs"),
    include_str!("signing_in.rs"),
    include_str!("starting.rs"),
    include_str!("store.rs"),
];

#[test]
fn every_entry_has_its_test() {
    let text = page::text();
    let headings = page::headings(&text);
    let source = SOURCES.concat();
    for heading in &headings {
        let taken = format!("Entry::of({heading:?})");
        assert_eq!(source.matches(&taken).count(), 1, "{taken} stands in one test");
    }
    assert!(headings.len() >= 40, "{}", headings.len());
    assert_eq!(source.matches("Entry::of(").count(), headings.len());
}

#[test]
fn the_table_of_contents_leads_to_every_entry() {
    let text = page::text();
    let anchor = |heading: &str| -> String {
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
            .collect()
    };
    let (contents, entries) = text.split_once("\n## Signing in\n").unwrap();
    let wanted: Vec<String> = page::headings(entries)
        .into_iter()
        .map(|heading| format!("- [{heading}](#{})", anchor(heading)))
        .collect();
    let listed: Vec<&str> = contents.lines().filter(|line| line.starts_with("- [")).collect();
    assert_eq!(listed, wanted);
    let anchors: Vec<String> = page::headings(entries).into_iter().map(anchor).collect();
    for link in entries.split("](#").skip(1) {
        let link = link.split(')').next().unwrap();
        assert!(
            anchors.iter().any(|anchor| anchor == link),
            "#{link} leads nowhere"
        );
    }
}

#[test]
fn quotes_are_read_as_they_stand() {
    assert_eq!(page::spans("- Log: `a`, `` b `c` ``"), ["a", "b `c`"]);
    assert!(page::holds("told: 12 ms (x)", "told: … ms") && !page::holds("told: 12 ms", "ms … told"));
    assert!(!page::holds("something else", "told"));
}
